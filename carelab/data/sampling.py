"""Drawing rows: the random split into three parts, and uniform draws from the feature box."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from carelab.records import Dataset, Samples

__all__ = ["crossed_rows", "part_rows", "sample_box", "split"]

_FEWEST_ROWS = 10


def part_rows(
    count: int, shares: Sequence[float], *, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Row numbers of disjoint random parts that together hold every row once.

    Args:
        count: number of rows.
        shares: share of each part, as fractions that add up to 1.
        generator: shuffles the rows.

    Example:
        >>> import torch
        >>> from carelab.data.sampling import part_rows
        >>> parts = part_rows(8, (0.75, 0.25), generator=torch.Generator().manual_seed(0))
        >>> [len(part) for part in parts]
        [6, 2]
    """
    order = torch.randperm(count, generator=generator)
    bounds = [int(round(sum(shares[:part]) * count, 6)) for part in range(len(shares))]
    return tuple(order[a:b] for a, b in zip(bounds, [*bounds[1:], count], strict=True))


def split(
    inputs: Float[Tensor, "batch features"],
    labels: Int[Tensor, " batch"],
    *,
    generator: torch.Generator,
) -> tuple[Samples, Samples, Samples]:
    """Train, selection and test rows: 60, 20 and 20 percent, drawn without replacement.

    Args:
        inputs: one row per sample (batch, features).
        labels: the class of each row.
        generator: shuffles the rows.

    Returns:
        The three disjoint parts; together they are the whole table.

    Raises:
        ValueError: fewer than 10 rows.

    Example:
        >>> import torch
        >>> from carelab.data.sampling import split
        >>> table = torch.arange(20.0).reshape(10, 2)
        >>> parts = split(table, torch.zeros(10).long(), generator=torch.Generator().manual_seed(0))
        >>> [len(part) for part in parts]
        [6, 2, 2]
    """
    if len(inputs) < _FEWEST_ROWS:
        raise ValueError(f"inputs: got {len(inputs)} rows; allowed: at least {_FEWEST_ROWS}")
    samples = Samples(inputs=inputs, labels=labels)
    first, second, third = part_rows(len(samples), (0.6, 0.2, 0.2), generator=generator)
    return samples.take(first), samples.take(second), samples.take(third)


def sample_box(dataset: Dataset, count: int, *, generator: torch.Generator) -> Samples:
    """Rows drawn uniformly from the box of the features, each feature on its own.

    A continuous feature is uniform between its smallest and its largest value, any other is one
    of its values with equal chance, so that a one-hot group stays one-hot. The rows have no true
    class, so they carry no labels.

    Args:
        dataset: the data set whose features span the box.
        count: number of rows, at least 1.
        generator: draws the rows.

    Returns:
        The rows (count, features), in the dtype of the training inputs.

    Raises:
        ValueError: a count below 1.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> generator = torch.Generator().manual_seed(0)
        >>> census = data.embedded_census(generator=generator)
        >>> data.sample_box(census, 5, generator=generator).inputs.shape[0]
        5
    """
    if count < 1:
        raise ValueError(f"count: got {count}; allowed: 1 or more")
    width = sum(len(feature.columns) for feature in dataset.features)
    rows = torch.empty(count, width, dtype=dataset.train.inputs.dtype)
    for feature in dataset.features:
        if feature.continuous:
            low, high = feature.values.amin(dim=0), feature.values.amax(dim=0)
            drawn = low + (high - low) * torch.rand(
                count, len(feature.columns), generator=generator, dtype=feature.values.dtype
            )
        else:
            drawn = feature.values[
                torch.randint(len(feature.values), (count,), generator=generator)
            ]
        rows[:, list(feature.columns)] = drawn.to(rows.dtype)
    return Samples(inputs=rows)


def crossed_rows(
    samples: Samples, count: int, *, share: float = 0.2, generator: torch.Generator
) -> Samples:
    """Rows near the data: a random row in which some features are those of another random row.

    Args:
        samples: the rows to cross.
        count: how many to make.
        share: chance that a column is taken from the other row, as a fraction.
        generator: draws rows and columns.

    Returns:
        The new rows, without labels. Columns are crossed one by one, so that the columns of a
        one-hot code may disagree.

    Raises:
        ValueError: no row, a count below 1, or a share outside [0, 1].

    Example:
        >>> import torch
        >>> from carelab import data, records
        >>> rows = records.Samples(inputs=torch.zeros(5, 3))
        >>> data.crossed_rows(rows, 4, generator=torch.Generator().manual_seed(0)).inputs.shape
        torch.Size([4, 3])
    """
    if len(samples) == 0 or count < 1 or not 0 <= share <= 1:
        raise ValueError(
            f"samples, count, share: got {len(samples)}, {count}, {share}; "
            "allowed: at least 1 row, 1 or more, 0 to 1"
        )
    pairs = torch.randint(len(samples), (2, count), generator=generator)
    crossed = samples.inputs[pairs[0]]
    chosen = torch.rand(crossed.shape, generator=generator) < share
    return Samples(inputs=torch.where(chosen, samples.inputs[pairs[1]], crossed))
