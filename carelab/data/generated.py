"""Embedded tables that need no file: drawn from documented structural causal models.

Both are integer-coded in the manner of the ADF tables, and both have all three ways in which a
sensitive feature can bear on a label. The equations below are in the form of `structural.py`
(the weight before a name multiplies its standardised code; e is noise of that equation's own).
`direct`, `mediated` and `spurious` are the strengths of the paths; 0 removes the path.

Census, label 1 = income above 50K, sensitive feature sex (0 female, 1 male), confounder age:

    age            = e                                                    1 to 9
    race           = e                                                    0 to 4
    sex            = 0.3 spurious age + e                                 0 to 1
    education      = 0.15 age + 0.3 mediated sex + e                      0 to 15
    marital_status = 0.4 age + e                                          0 to 6
    workclass      = 0.3 education + e                                    0 to 7
    occupation     = 0.6 education + 0.35 mediated sex + e                0 to 13
    hours_per_week = 0.2 occupation + 0.5 mediated sex + e                1 to 99
    capital_gain   = 0.3 age + 0.3 education + e                          0 to 99
    label          : -3.1 + 1.5 direct sex + age + 0.8 marital_status + 1.2 education
                     + 0.3 workclass + 0.9 occupation + 0.8 hours_per_week + 0.8 capital_gain

Credit, label 1 = bad credit, sensitive feature sex (0 male, 1 female), confounder age:

    age            = e                                                    1 to 8
    sex            = -0.3 spurious age + e                                0 to 1
    job            = 0.2 age - 0.4 mediated sex + e                       0 to 3
    employment     = 0.5 age - 0.4 mediated sex + 0.3 job + e             0 to 4
    housing        = 0.4 age + e                                          0 to 2
    amount         = 0.3 job + e                                          1 to 200
    duration       = 0.6 amount + e                                       1 to 80
    savings        = 0.3 age + 0.4 employment - 0.3 mediated sex + e      0 to 4
    checking       = 0.4 savings + e                                      0 to 3
    existing       = 0.3 age + e                                          1 to 4
    label          : -1.2 + 1.5 direct sex - 0.9 age - 1.1 employment - 0.4 housing
                     + 0.6 amount + 1.1 duration - 0.9 savings - 1.2 checking + 0.3 existing
"""

from __future__ import annotations

import hashlib

import torch

from carelab.data.fetching import Source
from carelab.data.sampling import split
from carelab.data.structural import Equation, StructuralModel, draw_units
from carelab.records import Dataset, Feature

__all__ = [
    "EMBEDDED_CENSUS",
    "EMBEDDED_CREDIT",
    "census_model",
    "credit_model",
    "embedded_census",
    "embedded_credit",
]

EMBEDDED_CENSUS = Source(
    name="embedded-census",
    description="generated census income table with known causal paths from sex, 9 features",
    licence="MIT",
)
EMBEDDED_CREDIT = Source(
    name="embedded-credit",
    description="generated credit table with known causal paths from sex, 10 features",
    licence="MIT",
)


def _equation(
    name: str,
    codes: tuple[int, int],
    center: float,
    spread: float,
    labels: tuple[str, ...] = (),
    **weights: float,
) -> Equation:
    return Equation(
        name=name,
        lowest=codes[0],
        highest=codes[1],
        center=center,
        spread=spread,
        weights=weights,
        labels=labels,
    )


def census_model(
    *, direct: float = 1.0, mediated: float = 1.0, spurious: float = 1.0
) -> StructuralModel:
    """The structural causal model behind `embedded_census`.

    Args:
        direct: strength of sex -> label; 0 removes the path, 1 is the default.
        mediated: strength of sex -> education, occupation, hours_per_week (and so to the label).
        spurious: strength of age -> sex, which makes age a common cause of sex and label.

    Returns:
        The model, whose equations are in the docstring of `carelab.data.generated`.

    Example:
        >>> from carelab import data
        >>> data.census_model(direct=0).outcome["sex"]
        0.0
    """
    return StructuralModel(
        name="embedded-census",
        equations=(
            _equation("age", (1, 9), 4, 1.6),
            _equation("race", (0, 4), 0, 1.2),
            _equation("sex", (0, 1), 0.5, 1, ("female", "male"), age=0.3 * spurious),
            _equation("education", (0, 15), 8, 2.6, age=0.15, sex=0.3 * mediated),
            _equation("marital_status", (0, 6), 3, 1.5, age=0.4),
            _equation("workclass", (0, 7), 3, 1.5, education=0.3),
            _equation("occupation", (0, 13), 6, 2.6, education=0.6, sex=0.35 * mediated),
            _equation("hours_per_week", (1, 99), 40, 11, occupation=0.2, sex=0.5 * mediated),
            _equation("capital_gain", (0, 99), -30, 30, age=0.3, education=0.3),
        ),
        sensitive="sex",
        intercept=-3.1,
        outcome={
            "sex": 1.5 * direct,
            "age": 1.0,
            "marital_status": 0.8,
            "education": 1.2,
            "workclass": 0.3,
            "occupation": 0.9,
            "hours_per_week": 0.8,
            "capital_gain": 0.8,
        },
        classes=("income up to 50K", "income above 50K"),
    )


def credit_model(
    *, direct: float = 1.0, mediated: float = 1.0, spurious: float = 1.0
) -> StructuralModel:
    """The structural causal model behind `embedded_credit`.

    Args:
        direct: strength of sex -> label; 0 removes the path, 1 is the default.
        mediated: strength of sex -> job, employment, savings (and so to the label).
        spurious: strength of age -> sex, which makes age a common cause of sex and label.

    Returns:
        The model, whose equations are in the docstring of `carelab.data.generated`.

    Example:
        >>> from carelab import data
        >>> data.credit_model().classes
        ('good credit', 'bad credit')
    """
    return StructuralModel(
        name="embedded-credit",
        equations=(
            _equation("age", (1, 8), 3.5, 1.5),
            _equation("sex", (0, 1), 0.5, 1, ("male", "female"), age=-0.3 * spurious),
            _equation("job", (0, 3), 1.8, 0.8, age=0.2, sex=-0.4 * mediated),
            _equation("employment", (0, 4), 2.2, 1.2, age=0.5, sex=-0.4 * mediated, job=0.3),
            _equation("housing", (0, 2), 1, 0.6, age=0.4),
            _equation("amount", (1, 200), 40, 25, job=0.3),
            _equation("duration", (1, 80), 22, 10, amount=0.6),
            _equation("savings", (0, 4), 1.5, 1.2, age=0.3, employment=0.4, sex=-0.3 * mediated),
            _equation("checking", (0, 3), 1.4, 1.0, savings=0.4),
            _equation("existing", (1, 4), 1.5, 0.8, age=0.3),
        ),
        sensitive="sex",
        intercept=-1.2,
        outcome={
            "sex": 1.5 * direct,
            "age": -0.9,
            "employment": -1.1,
            "housing": -0.4,
            "amount": 0.6,
            "duration": 1.1,
            "savings": -0.9,
            "checking": -1.2,
            "existing": 0.3,
        },
        classes=("good credit", "bad credit"),
    )


def embedded_census(
    *,
    direct: float = 1.0,
    mediated: float = 1.0,
    spurious: float = 1.0,
    rows: int = 10_000,
    generator: torch.Generator,
) -> Dataset:
    """A generated census table whose causal effect of sex on income is known exactly.

    The nine features are integer codes, one column each; sensitive is sex (0 female, 1 male).
    `causal_truth(census_model(...))` with the same strengths tells the true effects.

    Args:
        direct: strength of the direct path from sex to income; 0 removes it.
        mediated: strength of the paths through education, occupation and hours.
        spurious: strength of the confounding by age.
        rows: number of rows, at least 10, split 60/20/20.
        generator: draws the rows.

    Returns:
        The data set, inputs float32; its sha256 is that of the generated bytes, inputs (float32,
        row by row) before labels (int64), both little-endian, in the order drawn.

    Raises:
        ValueError: fewer than 10 rows.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> census = data.embedded_census(rows=100, generator=torch.Generator().manual_seed(0))
        >>> census.train.inputs.shape
        torch.Size([60, 9])
    """
    model = census_model(direct=direct, mediated=mediated, spurious=spurious)
    return _dataset(EMBEDDED_CENSUS, model, rows, generator)


def embedded_credit(
    *,
    direct: float = 1.0,
    mediated: float = 1.0,
    spurious: float = 1.0,
    rows: int = 5_000,
    generator: torch.Generator,
) -> Dataset:
    """A generated credit table whose causal effect of sex on bad credit is known exactly.

    The ten features are integer codes, one column each; sensitive is sex (0 male, 1 female).
    `causal_truth(credit_model(...))` with the same strengths tells the true effects.

    Args:
        direct: strength of the direct path from sex to the label; 0 removes it.
        mediated: strength of the paths through job, employment and savings.
        spurious: strength of the confounding by age.
        rows: number of rows, at least 10, split 60/20/20.
        generator: draws the rows.

    Returns:
        The data set, inputs float32; its sha256 is that of the generated bytes, as in
        `embedded_census`.

    Raises:
        ValueError: fewer than 10 rows.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> credit = data.embedded_credit(rows=100, generator=torch.Generator().manual_seed(0))
        >>> credit.sensitive
        ('sex',)
    """
    model = credit_model(direct=direct, mediated=mediated, spurious=spurious)
    return _dataset(EMBEDDED_CREDIT, model, rows, generator)


def _dataset(
    source: Source, model: StructuralModel, rows: int, generator: torch.Generator
) -> Dataset:
    if rows < 10:
        raise ValueError(f"rows: got {rows}; allowed: 10 or more")
    units = draw_units(model, rows, generator=generator)
    inputs = units.inputs.float()
    digest = hashlib.sha256(inputs.numpy().astype("<f4").tobytes())
    digest.update(units.labels.numpy().astype("<i8").tobytes())
    train, selection, test = split(inputs, units.labels, generator=generator)
    features = tuple(
        Feature(
            name=equation.name,
            columns=(column,),
            values=torch.arange(equation.lowest, equation.highest + 1.0).unsqueeze(1),
            labels=equation.labels,
        )
        for column, equation in enumerate(model.equations)
    )
    return Dataset(
        name=source.name,
        source="generated by carelab",
        sha256=digest.hexdigest(),
        licence=source.licence,
        features=features,
        sensitive=(model.sensitive,),
        classes=model.classes,
        train=train,
        selection=selection,
        test=test,
    )
