"""Structural causal models of integer-coded tables, with explicit noise.

A model is an ordered list of equations. With e_v standard normal noise, independent between
variables and units, variable v of a unit is

    s_v = sum over parents p of weight_vp * z_p + e_v
    v   = clamp(floor(center_v + spread_v * s_v + 1/2), lowest_v, highest_v)
    z_v = (v - center_v) / spread_v

and, with e_Y standard logistic noise, its label is

    P(Y = 1 | parents) = sigmoid(intercept + sum over parents p of weight_Yp * z_p)
    Y = 1 if intercept + sum over parents p of weight_Yp * z_p + e_Y > 0, else 0.

A binary variable has center 1/2, spread 1 and range 0 to 1, so it is 1 where s_v >= 0. Because
the noise is kept, the counterfactual of a unit is exact: the same noise, other equations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = [
    "Equation",
    "StructuralModel",
    "Units",
    "counterfactual",
    "draw_units",
    "score",
    "solve",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Equation:
    """The equation of one feature; the symbols are those of the module's docstring.

    Args:
        name: the feature.
        lowest: its smallest code.
        highest: its largest code.
        center: code at which its standardised value is 0.
        spread: codes per unit of its standardised value, positive.
        weights: effect of each parent's standardised value on this feature's score.
        labels: what each code means, or empty.
    """

    name: str
    lowest: int
    highest: int
    center: float
    spread: float
    weights: Mapping[str, float]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StructuralModel:
    """A structural causal model of a binary sensitive feature, other features and a label.

    Args:
        name: what the model is called.
        equations: one per feature, parents before children.
        sensitive: name of the sensitive feature, coded 0 and 1.
        intercept: intercept of the label's score.
        outcome: effect of each feature's standardised value on the label's score.
        classes: what label 0 and label 1 mean.
    """

    name: str
    equations: tuple[Equation, ...]
    sensitive: str
    intercept: float
    outcome: Mapping[str, float]
    classes: tuple[str, str]

    def __post_init__(self) -> None:
        """Refuse equations out of order, unknown parents and a sensitive feature not binary."""
        known: set[str] = set()
        for equation in self.equations:
            strangers = sorted(set(equation.weights) - known)
            if strangers or equation.spread <= 0 or equation.name in known:
                raise ValueError(
                    f"equations: {equation.name!r} has spread {equation.spread} and unknown "
                    f"parents {strangers}; allowed: new names, a positive spread, parents that "
                    "come before their children"
                )
            known.add(equation.name)
        strangers = sorted(set(self.outcome) - known)
        if strangers:
            raise ValueError(f"outcome: got unknown parents {strangers}; allowed: {sorted(known)}")
        ranges = {equation.name: (equation.lowest, equation.highest) for equation in self.equations}
        if ranges.get(self.sensitive) != (0, 1):
            raise ValueError(
                f"sensitive: got {self.sensitive!r}; allowed: a feature with the codes 0 and 1"
            )


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Units:
    """Units of a structural model: their noise, and the rows and labels that follow from it.

    Args:
        noise: standard normal noise of each feature (units, features).
        label_noise: standard logistic noise of the label (units).
        inputs: integer codes of the features (units, features).
        labels: the label of each unit, 0 or 1 (units).
    """

    noise: Float[Tensor, "units features"]
    label_noise: Float[Tensor, " units"]
    inputs: Float[Tensor, "units features"]
    labels: Int[Tensor, " units"]


def draw_units(model: StructuralModel, count: int, *, generator: torch.Generator) -> Units:
    """Units of the model, drawn independently, together with their noise.

    Args:
        model: the structural model.
        count: number of units, at least 1.
        generator: draws the noise.

    Raises:
        ValueError: a count below 1.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> generator = torch.Generator().manual_seed(0)
        >>> data.draw_units(data.census_model(), 100, generator=generator).labels.shape
        torch.Size([100])
    """
    if count < 1:
        raise ValueError(f"count: got {count}; allowed: 1 or more")
    noise = torch.randn(count, len(model.equations), generator=generator, dtype=torch.float64)
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    # A draw of exactly 0 would make the noise infinite, and the label's equation with it.
    label_noise = torch.logit(uniform, eps=1e-12)
    return _units(model, noise, label_noise, None)


def counterfactual(model: StructuralModel, units: Units, value: int) -> Units:
    """The same units under do(sensitive feature = value), their mediators and labels following.

    Args:
        model: the structural model that the units were drawn from.
        units: the units with their noise.
        value: 0 or 1.

    Returns:
        Units with the same noise, row by row.

    Raises:
        ValueError: a value other than 0 and 1, or units of another width.

    Source: Pearl, Causality, 2nd edition, section 7.1: abduction (here the noise is known),
        action, prediction.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> model = data.census_model()
        >>> units = data.draw_units(model, 100, generator=torch.Generator().manual_seed(0))
        >>> bool((data.counterfactual(model, units, 1).labels >= units.labels).all())
        True
    """
    if value not in (0, 1):
        raise ValueError(f"value: got {value}; allowed: 0 and 1")
    if units.noise.shape[1] != len(model.equations):
        raise ValueError(
            f"units: got {units.noise.shape[1]} features; model {model.name} has "
            f"{len(model.equations)}"
        )
    return _units(model, units.noise, units.label_noise, value)


def _units(
    model: StructuralModel,
    noise: Float[Tensor, "units features"],
    label_noise: Float[Tensor, " units"],
    value: int | None,
) -> Units:
    columns = solve(model, noise, value)
    return Units(
        noise=noise,
        label_noise=label_noise,
        inputs=torch.stack(list(columns.values()), dim=1),
        labels=(score(model, columns) + label_noise > 0).long(),
    )


def solve(
    model: StructuralModel, noise: Float[Tensor, "units features"], value: int | None = None
) -> dict[str, Tensor]:
    """The features' columns, under do(sensitive = value) where a value is given.

    Args:
        model: the structural model.
        noise: standard normal noise of each feature (units, features).
        value: what the sensitive feature is set to, or None.

    Example:
        >>> import torch
        >>> from carelab.data.generated import census_model
        >>> from carelab.data.structural import solve
        >>> solve(census_model(), torch.zeros(1, 9))["age"].tolist()
        [4.0]
    """
    equations = {equation.name: equation for equation in model.equations}
    columns: dict[str, Tensor] = {}
    for equation, error in zip(model.equations, noise.unbind(dim=1), strict=True):
        if equation.name == model.sensitive and value is not None:
            columns[equation.name] = torch.full_like(error, value)
            continue
        level = error
        for parent, weight in equation.weights.items():
            level = level + weight * _standardised(equations[parent], columns[parent])
        code = torch.floor(equation.center + equation.spread * level + 0.5)
        columns[equation.name] = code.clamp(equation.lowest, equation.highest)
    return columns


def _standardised(equation: Equation, codes: Tensor) -> Tensor:
    return (codes - equation.center) / equation.spread


def score(model: StructuralModel, columns: Mapping[str, Tensor]) -> Float[Tensor, " units"]:
    """The label's score, whose sigmoid is P(Y = 1) given the features' columns.

    Args:
        model: the structural model.
        columns: the codes of each feature, as `solve` gives them.

    Example:
        >>> import torch
        >>> from carelab.data.generated import census_model
        >>> from carelab.data.structural import score, solve
        >>> model = census_model()
        >>> score(model, solve(model, torch.zeros(2, 9))).shape
        torch.Size([2])
    """
    total = torch.full_like(columns[model.sensitive], model.intercept)
    for equation in model.equations:
        if equation.name in model.outcome:
            standardised = _standardised(equation, columns[equation.name])
            total = total + model.outcome[equation.name] * standardised
    return total
