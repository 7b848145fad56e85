"""True causal effects of a sensitive feature, computed from the structural equations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from carelab.data.structural import StructuralModel, score, solve

__all__ = ["CausalTruth", "Estimate", "causal_truth"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A Monte Carlo mean and its standard error.

    Args:
        value: the mean.
        standard_error: standard deviation of the mean over repetitions.
    """

    value: float
    standard_error: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CausalTruth:
    """How the sensitive feature X bears on the label's probability, from the true equations.

    With Y_x = the label under do(X = x), and Y_{x, W_x'} = the label under do(X = x) while the
    mediators W keep the values they have under do(X = x'):

    * total_variation = P(Y = 1 | X = 1) - P(Y = 1 | X = 0);
    * direct = P(Y_{1, W_0} = 1 | X = 0) - P(Y_0 = 1 | X = 0);
    * mediated = P(Y_1 = 1 | X = 0) - P(Y_{1, W_0} = 1 | X = 0);
    * spurious = P(Y = 1 | X = 1) - P(Y_1 = 1 | X = 0);
    * natural_direct = P(Y_{1, W_0} = 1) - P(Y_0 = 1), over all units;
    * natural_indirect = P(Y_{0, W_1} = 1) - P(Y_0 = 1), over all units.

    total_variation = direct + mediated + spurious holds identically.

    Args:
        total_variation: difference of the label's rate between the groups.
        direct: what changing X alone would do to the group X = 0.
        mediated: what the mediators' following X would add to that.
        spurious: what remains: the groups differ by their common causes with the label.
        natural_direct: natural direct effect.
        natural_indirect: natural indirect effect.
        units: how many units the means run over.
    """

    total_variation: Estimate
    direct: Estimate
    mediated: Estimate
    spurious: Estimate
    natural_direct: Estimate
    natural_indirect: Estimate
    units: int


def causal_truth(
    model: StructuralModel,
    *,
    units: int = 400_000,
    batch_size: int = 100_000,
    generator: torch.Generator,
) -> CausalTruth:
    """Total variation and its direct, mediated and spurious parts, from the true equations.

    The label's own noise is integrated out in closed form; means over the other noise are Monte
    Carlo, with the same units on both sides of each difference wherever both can be known.

    Args:
        model: the structural model.
        units: how many units to draw.
        batch_size: units drawn at a time; it does not bear on the precision.
        generator: draws the noise.

    Raises:
        ValueError: fewer than 100 units, a batch size below 1, or a group of fewer than two.

    Source: Pearl, Direct and indirect effects, UAI 2001 (natural effects); Zhang and Bareinboim,
        Fairness in decision-making: the causal explanation formula, AAAI 2018. In its notation
        direct = DE_{x0,x1}(y|x0), mediated = -IE_{x1,x0}(y|x0), spurious = -SE_{x1,x0}(y), and
        theirs is TV = DE_{x0,x1}(y|x0) - SE_{x1,x0}(y) - IE_{x1,x0}(y|x0).

    Example:
        >>> import torch
        >>> from carelab import data
        >>> model, generator = data.census_model(direct=0), torch.Generator().manual_seed(0)
        >>> data.causal_truth(model, units=1000, generator=generator).direct.value
        0.0
    """
    if units < 100 or batch_size < 1:
        raise ValueError(
            f"units, batch_size: got {units}, {batch_size}; allowed: at least 100 and at least 1"
        )
    batches = []
    for start in range(0, units, batch_size):
        batches.append(_chances(model, min(batch_size, units - start), generator))
    sensitive, y0, y1, y1_w0, y0_w1 = torch.cat(batches, dim=1)
    ones = sensitive == 1
    if min(int(ones.sum()), int((~ones).sum())) < 2:
        raise ValueError(
            f"units: among {units} units one value of {model.sensitive} hardly occurs; "
            "allowed: a model and a number of units that show both"
        )
    return CausalTruth(
        total_variation=_contrast(y1[ones], y0[~ones]),
        direct=_mean((y1_w0 - y0)[~ones]),
        mediated=_mean((y1 - y1_w0)[~ones]),
        spurious=_contrast(y1[ones], y1[~ones]),
        natural_direct=_mean(y1_w0 - y0),
        natural_indirect=_mean(y0_w1 - y0),
        units=units,
    )


def _chances(
    model: StructuralModel, count: int, generator: torch.Generator
) -> Float[Tensor, "5 count"]:
    """Each unit's sensitive value, and P(Y = 1) for Y_0, Y_1, Y_{1, W_0} and Y_{0, W_1}."""
    noise = torch.randn(count, len(model.equations), generator=generator, dtype=torch.float64)
    factual = solve(model, noise, None)[model.sensitive]
    zero, one = solve(model, noise, 0), solve(model, noise, 1)
    # The mediators are what the other world left in the columns; only the label reads X anew.
    one_with_zero = {**zero, model.sensitive: one[model.sensitive]}
    zero_with_one = {**one, model.sensitive: zero[model.sensitive]}
    worlds = (zero, one, one_with_zero, zero_with_one)
    return torch.stack([factual, *(torch.sigmoid(score(model, world)) for world in worlds)])


def _mean(values: Float[Tensor, " units"]) -> Estimate:
    error = values.std() / len(values) ** 0.5
    return Estimate(value=float(values.mean()), standard_error=float(error))


def _contrast(first: Float[Tensor, " first"], second: Float[Tensor, " second"]) -> Estimate:
    """Difference of the means of two independent groups."""
    one, two = _mean(first), _mean(second)
    error = (one.standard_error**2 + two.standard_error**2) ** 0.5
    return Estimate(value=one.value - two.value, standard_error=error)
