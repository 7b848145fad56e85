"""Tables as data sets: which columns are numbers, which are categories, and their coding."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from carelab.data.sampling import part_rows
from carelab.records import Dataset, Feature, Samples

__all__ = ["from_table"]

_FEWEST_ROWS = 10
_MOST_VALUES = 16


def from_table(
    table: pd.DataFrame,
    label: str,
    *,
    sensitive: Sequence[str],
    categories: Mapping[str, Sequence[Any]] | None = None,
    continuous: Sequence[str] = (),
    classes: Sequence[str] = (),
    test: pd.DataFrame | None = None,
    name: str = "table",
    source: str = "given by the caller",
    sha256: str = "",
    licence: str = "not stated",
    generator: torch.Generator,
) -> Dataset:
    """A data set of your own table: (x - mean) / deviation for numbers, one-hot for the rest.

    A column of numbers with more than two distinct values is continuous and becomes one input
    column, standardised by the mean and standard deviation of the training rows only. Any other
    column is a category and becomes one input column per value. A continuous feature's `values`
    are evenly spaced quantiles of the training rows, at most 16 of those observed, the smallest
    and the largest included, in standardised units; its `labels` give them in the table's units.

    Args:
        table: one row per sample; no value may be missing (make "missing" a category instead).
        label: the column that holds the class, an integer from 0.
        sensitive: the columns that must not decide, at least one.
        categories: the values of columns that are categories whatever they look like; a value
            outside them is refused.
        continuous: columns that are numbers even with two distinct values or fewer.
        classes: what each label means; without it they are called "0", "1", ...
        test: a table of its own for the test part; without it the rows are split 60/20/20, with
            it 75/25 into train and selection.
        name: name of the data set.
        source: where it comes from.
        sha256: checksum of the file it came from; without it, that of the table written as CSV
            (followed by that of the test table).
        licence: the licence that its source states.
        generator: draws the split.

    Returns:
        The data set, inputs float32, labels int64.

    Raises:
        ValueError: a missing or infinite value, fewer than 10 rows, columns that do not exist or
            occur twice, a test table of other columns, labels outside 0..n-1, an unknown category.

    Example:
        >>> import pandas as pd, torch
        >>> from carelab import data
        >>> frame = pd.DataFrame({"age": range(20), "sex": ["f", "m"] * 10, "y": [0, 0, 1, 1] * 5})
        >>> mine = data.from_table(frame, "y", sensitive=["sex"], generator=torch.Generator())
        >>> [(feature.name, feature.columns) for feature in mine.features]
        [('age', (0,)), ('sex', (1, 2))]
    """
    frames = [table] if test is None else [table, test]
    _check_columns(frames, label, [*sensitive, *(categories or {}), *continuous])
    if not sensitive or len(set(sensitive)) < len(sensitive):
        raise ValueError(f"sensitive: got {list(sensitive)}; allowed: at least one, each once")
    for frame, which in zip(frames, ("table", "test"), strict=False):
        _check_rows(frame, which)
    meanings = tuple(classes) or _classes(frames, label)
    kinds = _kinds(frames, label, categories or {}, continuous)
    shares = (0.6, 0.2, 0.2) if test is None else (0.75, 0.25)
    parts = [
        table.iloc[rows.numpy()] for rows in part_rows(len(table), shares, generator=generator)
    ]
    if test is not None:
        parts.append(test)
    codings = _codings(parts[0], kinds)
    train, selection, held_out = (_coded(part, codings, label, len(meanings)) for part in parts)
    return Dataset(
        name=name,
        source=source,
        sha256=sha256 or _checksum(frames),
        licence=licence,
        features=tuple(coding.feature for coding in codings),
        sensitive=tuple(sensitive),
        classes=meanings,
        train=train,
        selection=selection,
        test=held_out,
    )


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Coding:
    """How one column of a table becomes input columns."""

    feature: Feature
    categories: tuple[Any, ...] = ()  # none for a continuous feature
    mean: float = 0.0
    deviation: float = 1.0


def _check_columns(frames: Sequence[pd.DataFrame], label: str, named: Sequence[str]) -> None:
    columns = list(frames[0].columns)
    if len(set(columns)) < len(columns) or not all(isinstance(name, str) for name in columns):
        raise ValueError(f"table: got columns {columns}; allowed: strings, each once")
    if label not in columns or len(columns) < 2:
        raise ValueError(f"label: got {label!r}; allowed: one of {columns}, beside a feature")
    unknown = sorted(set(named) - (set(columns) - {label}))
    if unknown:
        raise ValueError(
            f"sensitive, categories, continuous: got {unknown}; allowed: "
            f"{[column for column in columns if column != label]}"
        )
    if list(frames[-1].columns) != list(frames[0].columns):
        raise ValueError(
            f"test: got columns {list(frames[-1].columns)}; allowed: those of the table, {columns}"
        )


def _check_rows(frame: pd.DataFrame, which: str) -> None:
    if len(frame) < _FEWEST_ROWS:
        raise ValueError(f"{which}: got {len(frame)} rows; allowed: at least {_FEWEST_ROWS}")
    for column in frame.columns:
        values = frame[column]
        bad = values.isna().to_numpy()
        if pd.api.types.is_numeric_dtype(values):
            bad = bad | ~np.isfinite(values.to_numpy(dtype=np.float64, na_value=np.nan))
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(
                f"{which}: row {row}, column {column!r} holds {values.tolist()[row]}; allowed: no "
                "missing or infinite value"
            )


def _classes(frames: Sequence[pd.DataFrame], label: str) -> tuple[str, ...]:
    seen = sorted({value for frame in frames for value in frame[label].tolist()}, key=str)
    if len(seen) < 2 or {float(v) if _is_number(v) else v for v in seen} != set(range(len(seen))):
        raise ValueError(
            f"label: column {label!r} holds {seen[:10]}; allowed: integers 0 to n - 1, each "
            "present, of at least two classes (or name the classes)"
        )
    return tuple(str(number) for number in range(len(seen)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number)


def _kinds(
    frames: Sequence[pd.DataFrame],
    label: str,
    categories: Mapping[str, Sequence[Any]],
    continuous: Sequence[str],
) -> dict[str, tuple[Any, ...]]:
    """The categories of each feature, none for a continuous one."""
    kinds: dict[str, tuple[Any, ...]] = {}
    for column in frames[0].columns:
        if column == label:
            continue
        if len({pd.api.types.is_numeric_dtype(frame[column]) for frame in frames}) > 1:
            raise ValueError(
                f"test: column {column!r} holds numbers in one table only; allowed: in both or none"
            )
        values = pd.concat([frame[column] for frame in frames])
        numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        distinct = values.unique().tolist()
        if column in continuous and (not numeric or column in categories):
            raise ValueError(
                f"continuous: got {column!r}; allowed: columns of numbers, not in categories too"
            )
        if column in categories:
            kinds[column] = tuple(categories[column])
            if len(set(kinds[column])) < len(kinds[column]) or not kinds[column]:
                raise ValueError(
                    f"categories: got {list(kinds[column])} for {column!r}; allowed: at least one "
                    "value, each once"
                )
        elif numeric and (column in continuous or len(distinct) > 2):
            kinds[column] = ()
        else:
            kinds[column] = tuple(sorted(distinct) if numeric else sorted(distinct, key=str))
    return kinds


def _codings(train: pd.DataFrame, kinds: Mapping[str, tuple[Any, ...]]) -> tuple[_Coding, ...]:
    codings = []
    start = 0
    for name, categories in kinds.items():
        if categories:
            coding = _category_coding(name, categories, start)
        else:
            coding = _continuous_coding(name, train[name].to_numpy(dtype=np.float64), start)
        codings.append(coding)
        start += len(coding.feature.columns)
    return tuple(codings)


def _category_coding(name: str, categories: tuple[Any, ...], start: int) -> _Coding:
    feature = Feature(
        name=name,
        columns=tuple(range(start, start + len(categories))),
        values=torch.eye(len(categories)),
        labels=tuple(str(category) for category in categories),
    )
    return _Coding(feature=feature, categories=categories)


def _continuous_coding(name: str, numbers: NDArray[np.float64], start: int) -> _Coding:
    mean, deviation = float(numbers.mean()), float(numbers.std()) or 1.0
    observed = np.unique(numbers)
    if len(observed) > _MOST_VALUES:
        levels = np.linspace(0, 1, _MOST_VALUES)
        observed = np.unique(np.quantile(numbers, levels, method="nearest"))
    feature = Feature(
        name=name,
        columns=(start,),
        values=torch.from_numpy((observed - mean) / deviation).float().unsqueeze(1),
        continuous=True,
        labels=tuple(f"{value:g}" for value in observed),
    )
    return _Coding(feature=feature, mean=mean, deviation=deviation)


def _coded(part: pd.DataFrame, codings: Sequence[_Coding], label: str, classes: int) -> Samples:
    blocks = [_block(part[coding.feature.name], coding) for coding in codings]
    labels = part[label].to_numpy()
    allowed = np.isin(labels, np.arange(classes))
    if not allowed.all():
        raise ValueError(
            f"label: column {label!r} holds {labels[~allowed][0]}; allowed: integers 0 to "
            f"{classes - 1}"
        )
    return Samples(
        inputs=torch.from_numpy(np.concatenate(blocks, axis=1).astype(np.float32)),
        labels=torch.from_numpy(labels.astype(np.int64)),
    )


def _block(values: pd.Series[Any], coding: _Coding) -> NDArray[np.float64]:
    """The input columns of one feature (rows, columns)."""
    if not coding.categories:
        return ((values.to_numpy(dtype=np.float64) - coding.mean) / coding.deviation)[:, None]
    codes = pd.Index(coding.categories).get_indexer(pd.Index(values))
    if (codes < 0).any():
        row = int((codes < 0).argmax())
        raise ValueError(
            f"table: row {values.index[row]}, column {coding.feature.name!r} holds "
            f"{values.iloc[row]!r}; allowed: {', '.join(coding.feature.labels)}"
        )
    return np.eye(len(coding.categories))[codes]


def _checksum(frames: Sequence[pd.DataFrame]) -> str:
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame.to_csv(index=False, lineterminator="\n").encode())
    return digest.hexdigest()
