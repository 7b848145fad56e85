"""The original tables of four fairness studies: adult, german, bank and compas.

Categories are one-hot, with "?" a category of its own; numbers are standardised by the training
rows (see `from_table`). Every category that the source documents has its column, seen or not.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from carelab.data.fetching import Source, obtain
from carelab.data.layouts import (
    ADULT,
    ADULT_COLUMNS,
    BANK,
    BANK_COLUMNS,
    COMPAS,
    COMPAS_COLUMNS,
    GERMAN,
    GERMAN_COLUMNS,
)
from carelab.data.reading import read_categories, read_columns, read_numbers
from carelab.data.tables import from_table
from carelab.records import Dataset

__all__ = ["adult", "bank", "compas", "german"]

_MEMBER = "bank-full.csv"
_MARITAL = {
    "A91": "married or formerly",
    "A92": "married or formerly",
    "A93": "single",
    "A94": "married or formerly",
    "A95": "single",
}
_SEX = {"A91": "male", "A92": "female", "A93": "male", "A94": "male", "A95": "female"}


def adult(*, generator: torch.Generator) -> Dataset:
    """UCI Adult: does a person earn more than 50K dollars a year (label 1)?

    Twelve of the fourteen columns are features. Left out are education, which education_num
    repeats as a number, and fnlwgt, the weight of the row in the census sample, which is no
    property of the person. Sensitive: age, race, sex. The official test file is the test part;
    75 percent of the official training file are the train part, the rest is for selection.

    Args:
        generator: draws the split of the training file.

    Returns:
        The data set; its sha256 is that of adult.data.

    Raises:
        DataError: a file is damaged, or missing and cannot be fetched.
        ValueError: a file does not hold such a table.

    Source: Kohavi, Scaling Up the Accuracy of Naive-Bayes Classifiers, KDD 1996; UCI.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> census = data.adult(generator=torch.Generator().manual_seed(0))  # doctest: +SKIP
        >>> census.feature("sex").labels  # doctest: +SKIP
        ('Female', 'Male')
    """
    train, test = obtain(ADULT)
    table = _frame(train.read_text("ascii"), ADULT_COLUMNS, file=ADULT.files[0].path)
    # The test file opens with a remark and ends each label with a full stop.
    content = test.read_text("ascii").replace("K.\n", "K\n")
    held_out = _frame(content, ADULT_COLUMNS, file=ADULT.files[1].path, skip_lines=1)
    left_out = ["education", "fnlwgt"]
    return _dataset(
        ADULT,
        table.drop(columns=left_out),
        ADULT_COLUMNS,
        label="income",
        sensitive=("age", "race", "sex"),
        classes=("income up to 50K", "income above 50K"),
        test=held_out.drop(columns=left_out),
        generator=generator,
    )


def german(*, generator: torch.Generator) -> Dataset:
    """UCI Statlog German credit: is a credit good (label 1) or bad (label 0)?

    All twenty columns are used. personal_status mixes sex with marital status, so it becomes two
    features: sex, and marital_status as single or "married or formerly". Finer marital codes
    would give the sex away (A92 is for women only), and a flip of sex alone would make people
    who cannot be in the table. Sensitive: age, sex, foreign_worker. Split 60/20/20.

    Args:
        generator: draws the split.

    Returns:
        The data set; its sha256 is that of german.data.

    Raises:
        DataError: the file is damaged, or missing and cannot be fetched.
        ValueError: the file does not hold such a table.

    Source: Hofmann, Statlog (German Credit Data), UCI, 1994.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> credit = data.german(generator=torch.Generator().manual_seed(0))  # doctest: +SKIP
        >>> credit.feature("sex").labels  # doctest: +SKIP
        ('female', 'male')
    """
    (path,) = obtain(GERMAN)
    content = path.read_text("ascii")
    table = _frame(content, GERMAN_COLUMNS, file=GERMAN.files[0].path, delimiter=" ")
    status = table.pop("personal_status")
    table["sex"] = status.map(_SEX)
    table["marital_status"] = status.map(_MARITAL)
    derived = {"sex": ("female", "male"), "marital_status": ("married or formerly", "single")}
    return _dataset(
        GERMAN,
        table,
        {**GERMAN_COLUMNS, **derived},
        label="credit",
        sensitive=("age", "sex", "foreign_worker"),
        classes=("bad credit", "good credit"),
        generator=generator,
    )


def bank(*, generator: torch.Generator) -> Dataset:
    """UCI Bank marketing: does a client take a deposit (label 1)?

    All sixteen columns of bank-full.csv are features. One of them, the duration of the call, is
    known only after it and predicts the label strongly. Sensitive: age. Split 60/20/20.

    Args:
        generator: draws the split.

    Returns:
        The data set; its sha256 is that of bank.zip.

    Raises:
        DataError: the file is damaged, or missing and cannot be fetched.
        ValueError: the file does not hold such a table.

    Source: Moro, Cortez and Rita, A data-driven approach to predict the success of bank
        telemarketing, Decision Support Systems 62, 2014; UCI.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> clients = data.bank(generator=torch.Generator().manual_seed(0))  # doctest: +SKIP
        >>> clients.feature("age").continuous  # doctest: +SKIP
        True
    """
    (path,) = obtain(BANK)
    with zipfile.ZipFile(path) as archive:
        content = archive.read(_MEMBER).decode("ascii")
    file = f"{BANK.files[0].path} ({_MEMBER})"
    return _dataset(
        BANK,
        _frame(content, BANK_COLUMNS, file=file, delimiter=";", skip_lines=1),
        BANK_COLUMNS,
        label="y",
        sensitive=("age",),
        classes=("no deposit", "deposit"),
        generator=generator,
    )


def compas(*, generator: torch.Generator) -> Dataset:
    """ProPublica's COMPAS table: is a person charged again within two years (label 1)?

    Rows are filtered as ProPublica does: screened within 30 days of the arrest, is_recid not -1,
    charge degree not "O", a score present. Of the 53 columns the eight that describe the person
    and the record are features: age, sex, race, the three juvenile counts, priors_count and
    c_charge_degree. COMPAS's own score is not. Sensitive: race, sex, age. Split 60/20/20.

    Args:
        generator: draws the split.

    Returns:
        The data set; its sha256 is that of the CSV file.

    Raises:
        DataError: the file is damaged, or missing and cannot be fetched.
        ValueError: the file does not hold such a table.

    Source: Larson, Mattu, Kirchner and Angwin, How We Analyzed the COMPAS Recidivism Algorithm,
        ProPublica 2016.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> people = data.compas(generator=torch.Generator().manual_seed(0))  # doctest: +SKIP
        >>> len(people.train) + len(people.selection) + len(people.test)  # doctest: +SKIP
        6172
    """
    (path,) = obtain(COMPAS)
    return _dataset(
        COMPAS,
        _compas_frame(path.read_text("utf-8"), file=COMPAS.files[0].path),
        COMPAS_COLUMNS,
        label="two_year_recid",
        sensitive=("race", "sex", "age"),
        classes=("no new charge", "new charge within two years"),
        generator=generator,
    )


def _frame(
    content: str,
    layout: Mapping[str, tuple[str, ...]],
    *,
    file: str,
    delimiter: str = ",",
    skip_lines: int = 0,
) -> pd.DataFrame:
    """The columns of a text file as its layout has them: numbers, or known categories."""
    columns = read_columns(
        content, list(layout), file=file, delimiter=delimiter, skip_lines=skip_lines
    )
    return _typed(columns, layout, file=file, first_line=skip_lines + 1)


def _typed(
    columns: Mapping[str, Sequence[str]],
    layout: Mapping[str, tuple[str, ...]],
    *,
    file: str,
    first_line: int,
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            name: read_categories(columns, name, allowed, file=file, first_line=first_line)
            if allowed
            else read_numbers(columns, name, file=file, first_line=first_line)
            for name, allowed in layout.items()
        }
    )


def _compas_frame(content: str, *, file: str) -> pd.DataFrame:
    header = next(csv.reader(io.StringIO(content)), [])
    # Two names occur twice (decile_score and priors_count); the first of each is meant.
    names = [name if name not in header[:at] else f"{name} {at}" for at, name in enumerate(header)]
    used = [*COMPAS_COLUMNS, "days_b_screening_arrest", "is_recid", "score_text"]
    lacking = sorted(set(used) - set(names))
    if lacking:
        raise ValueError(
            f"{file}, line 1: no column {', '.join(lacking)}; allowed: a header with it"
        )
    columns = read_columns(content, names, file=file, skip_lines=1)
    # Whoever has no day of arrest counts as far away from it.
    days = {"days_b_screening_arrest": [d or "1e9" for d in columns["days_b_screening_arrest"]]}
    near = read_numbers(days, "days_b_screening_arrest", file=file, first_line=2)
    kept = (
        (np.abs(near) <= 30)
        & (read_numbers(columns, "is_recid", file=file, first_line=2) != -1)
        & (np.array(columns["c_charge_degree"]) != "O")
        & (np.array(columns["score_text"]) != "N/A")
    )
    layout = {**COMPAS_COLUMNS, "c_charge_degree": (*COMPAS_COLUMNS["c_charge_degree"], "O")}
    return _typed(columns, layout, file=file, first_line=2)[kept].reset_index(drop=True)


def _dataset(
    source: Source,
    table: pd.DataFrame,
    layout: Mapping[str, tuple[str, ...]],
    *,
    label: str,
    sensitive: Sequence[str],
    classes: Sequence[str],
    test: pd.DataFrame | None = None,
    generator: torch.Generator,
) -> Dataset:
    """The data set of one source, its label coded by the order of the layout's categories."""
    codes = {category: code for code, category in enumerate(layout[label])}
    table = table.assign(**{label: table[label].map(codes)})
    features = [name for name in table.columns if name != label]
    return from_table(
        table,
        label,
        sensitive=sensitive,
        categories={name: layout[name] for name in features if layout[name]},
        continuous=[name for name in features if not layout[name]],
        classes=classes,
        test=None if test is None else test.assign(**{label: test[label].map(codes)}),
        name=source.name,
        source=source.files[0].address,
        sha256=source.files[0].sha256,
        licence=source.licence,
        generator=generator,
    )
