"""The integer-coded tables of the ADF fairness-testing paper.

Each feature is one column of integers, fed to the network as it is. A feature's values are every
integer of the range that ADF's configuration gives, which is the box its search draws from. The
census table itself leaves that box in places and is kept as published: code 100 stands for a
missing workclass, occupation or native country, and fnlwgt reaches 74, capital_loss 43.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from carelab.data.fetching import RemoteFile, Source, obtain
from carelab.data.reading import read_columns, read_numbers
from carelab.data.sampling import split
from carelab.records import Dataset, Feature

__all__ = ["TABLES", "adf_bank", "adf_census", "adf_credit", "adf_source"]

_ADDRESS = (
    "https://raw.githubusercontent.com/pxzhang94/ADF/e175404173258364f9fbbfe392c461d525046801"
)
_LICENCE = "BSD-2-Clause (ADF); raw data CC BY 4.0 (UCI)"


def adf_source(name: str, description: str, path: str, sha256: str, size: int) -> Source:
    """One file of ADF's repository, at the commit whose files are used here.

    Args:
        name: its name in the registry.
        description: what it is, in one line.
        path: its path in the repository.
        sha256: its checksum.
        size: its length in bytes.

    Example:
        >>> from carelab.data.adf import adf_source
        >>> adf_source("licence", "ADF's licence", "LICENSE", "0" * 64, 1288).files[0].path
        'fairness_adf/LICENSE'
    """
    file = RemoteFile(
        path=f"fairness_adf/{path}", address=f"{_ADDRESS}/{path}", sha256=sha256, size=size
    )
    return Source(name=name, description=description, licence=_LICENCE, files=(file,))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    source: Source
    ranges: Mapping[str, tuple[int, int]]
    sensitive: tuple[str, ...]
    classes: tuple[str, str]


_CENSUS = _Table(
    source=adf_source(
        "adf-census",
        "ADF's integer-coded census income table, 32561 rows, 13 features",
        "datasets/census",
        "1b0af967735d9b33e4ab9aea1c174eb5f8911df4334d3f9bd89418640f5b73b9",
        975150,
    ),
    ranges={
        "age": (1, 9),
        "workclass": (0, 7),
        "fnlwgt": (0, 39),
        "education": (0, 15),
        "marital_status": (0, 6),
        "occupation": (0, 13),
        "relationship": (0, 5),
        "race": (0, 4),
        "sex": (0, 1),
        "capital_gain": (0, 99),
        "capital_loss": (0, 39),
        "hours_per_week": (0, 99),
        "native_country": (0, 39),
    },
    sensitive=("age", "race", "sex"),
    classes=("income up to 50K", "income above 50K"),
)

_CREDIT = _Table(
    source=adf_source(
        "adf-credit",
        "ADF's integer-coded German credit table, 600 balanced rows, 20 features",
        "datasets/credit_sample",
        "93c2dd4d65375235b8cf7fae592d84eef2bf29a730b15b50c5581b420b301ab2",
        26338,
    ),
    ranges={
        "checking_status": (0, 3),
        "duration": (1, 80),
        "credit_history": (0, 4),
        "purpose": (0, 10),
        "credit_amount": (1, 200),
        "savings_status": (0, 4),
        "employment": (0, 4),
        "installment_commitment": (1, 4),
        "sex": (0, 1),
        "other_parties": (0, 2),
        "residence": (1, 4),
        "property_magnitude": (0, 3),
        "age": (1, 8),
        "other_payment_plans": (0, 2),
        "housing": (0, 2),
        "existing_credits": (1, 4),
        "job": (0, 3),
        "num_dependents": (1, 2),
        "own_telephone": (0, 1),
        "foreign_worker": (0, 1),
    },
    sensitive=("sex", "age"),
    classes=("bad credit", "good credit"),
)

_BANK = _Table(
    source=adf_source(
        "adf-bank",
        "ADF's integer-coded bank marketing table, 45211 rows, 16 features",
        "datasets/bank",
        "31964c13cd7de50fe74af1ec7fb82920ad40c0748d18ae8fdb22f59cee0753b5",
        1650155,
    ),
    ranges={
        "age": (1, 9),
        "job": (0, 11),
        "marital": (0, 2),
        "education": (0, 3),
        "default": (0, 1),
        "balance": (-20, 179),
        "housing": (0, 1),
        "loan": (0, 1),
        "contact": (0, 2),
        "day": (1, 31),
        "month": (0, 11),
        "duration": (0, 99),
        "campaign": (1, 63),
        "pdays": (-1, 39),
        "previous": (0, 1),
        "poutcome": (0, 3),
    },
    sensitive=("age",),
    classes=("no deposit", "deposit"),
)

TABLES = (_CENSUS.source, _CREDIT.source, _BANK.source)


def adf_census(*, generator: torch.Generator) -> Dataset:
    """ADF's census income table: 13 integer features, label 1 = income above 50K.

    Sensitive: age (1-9), race (0-4) and sex (0 female, 1 male). 32561 rows, split 60/20/20.

    Args:
        generator: draws the split.

    Returns:
        The data set, inputs float32 and not scaled, as `adf_network("census")` expects them.

    Raises:
        DataError: the file is damaged, or missing and cannot be fetched.
        ValueError: the file does not hold such a table.

    Source: Zhang et al., White-box Fairness Testing through Adversarial Sampling, ICSE 2020.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> census = data.adf_census(generator=torch.Generator().manual_seed(0))  # doctest: +SKIP
        >>> census.train.inputs.shape  # doctest: +SKIP
        torch.Size([19536, 13])
    """
    return _dataset(_CENSUS, generator)


def adf_credit(*, generator: torch.Generator) -> Dataset:
    """ADF's German credit table: 20 integer features, label 1 = good credit.

    Sensitive: sex (0-1) and age (1-8). 600 rows, half of each label, split 60/20/20.

    Args:
        generator: draws the split.

    Returns:
        The data set, inputs float32 and not scaled, as `adf_network("credit")` expects them.

    Raises:
        DataError: the file is damaged, or missing and cannot be fetched.
        ValueError: the file does not hold such a table.

    Source: Zhang et al., White-box Fairness Testing through Adversarial Sampling, ICSE 2020.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> credit = data.adf_credit(generator=torch.Generator().manual_seed(0))  # doctest: +SKIP
        >>> credit.sensitive  # doctest: +SKIP
        ('sex', 'age')
    """
    return _dataset(_CREDIT, generator)


def adf_bank(*, generator: torch.Generator) -> Dataset:
    """ADF's bank marketing table: 16 integer features, label 1 = the client takes a deposit.

    Sensitive: age (1-9). 45211 rows, split 60/20/20.

    Args:
        generator: draws the split.

    Returns:
        The data set, inputs float32 and not scaled, as `adf_network("bank")` expects them.

    Raises:
        DataError: the file is damaged, or missing and cannot be fetched.
        ValueError: the file does not hold such a table.

    Source: Zhang et al., White-box Fairness Testing through Adversarial Sampling, ICSE 2020.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> bank = data.adf_bank(generator=torch.Generator().manual_seed(0))  # doctest: +SKIP
        >>> bank.feature("age").values.flatten().tolist()[:3]  # doctest: +SKIP
        [1.0, 2.0, 3.0]
    """
    return _dataset(_BANK, generator)


def _dataset(table: _Table, generator: torch.Generator) -> Dataset:
    file = table.source.files[0]
    (path,) = obtain(table.source)
    names = [*table.ranges, "label"]
    columns = read_columns(path.read_text("ascii"), names, file=file.path, skip_lines=1)
    numbers = [
        read_numbers(columns, name, file=file.path, first_line=2, integers=True) for name in names
    ]
    inputs = torch.from_numpy(np.stack(numbers[:-1], axis=1).astype(np.float32))
    labels = torch.from_numpy(numbers[-1].astype(np.int64))
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError(f"{file.path}: the last column, label, must hold 0 and 1 only")
    train, selection, test = split(inputs, labels, generator=generator)
    features = tuple(
        Feature(
            name=name,
            columns=(column,),
            values=torch.arange(low, high + 1, dtype=torch.float32).unsqueeze(1),
        )
        for column, (name, (low, high)) in enumerate(table.ranges.items())
    )
    return Dataset(
        name=table.source.name,
        source=file.address,
        sha256=file.sha256,
        licence=table.source.licence,
        features=features,
        sensitive=table.sensitive,
        classes=table.classes,
        train=train,
        selection=selection,
        test=test,
    )
