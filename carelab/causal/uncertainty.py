"""How sure the effects are: intervals, rank sets, and units that samples cannot tell apart."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from carelab.records import Ranking, Unit, UnitEffects

__all__ = [
    "bootstrap_interval",
    "confidence_interval",
    "inseparable_groups",
    "mean_contrasts",
    "rank_units",
    "streamed_mean",
]

# Columns of samples that are turned to double precision at once: bounds the memory.
_COLUMNS = 4096
# Rounding leaves so much of two numbers that should cancel.
_ROUNDING = 1e-14


def mean_contrasts(
    measure: str, units: Sequence[Unit], blocks: Iterable[Float[Tensor, "units _"]]
) -> UnitEffects:
    """Mean over the samples of a contrast c(unit, sample), with the covariance of these means.

    Args:
        measure: what the contrasts are.
        units: the units, in the order of the rows of every block.
        blocks: contrasts of all units for some samples, block after block.

    Raises:
        ValueError: fewer than two samples, or blocks of another number of rows than units.

    Example:
        >>> import torch
        >>> from carelab import causal, records
        >>> contrasts = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
        >>> units = [records.Neuron("relu1", 0), records.Neuron("relu1", 1)]
        >>> causal.mean_contrasts("drop", units, [contrasts]).standard_error.tolist()
        [1.0, 0.0]
    """
    mean, covariance, samples = streamed_mean(blocks)
    if len(mean) != len(units):
        raise ValueError(f"blocks: got {len(mean)} rows for {len(units)} units; allowed: one each")
    return UnitEffects(
        measure=measure,
        units=tuple(units),
        effect=mean,
        covariance=covariance,
        samples=samples,
    )


def streamed_mean(
    blocks: Iterable[Float[Tensor, "rows _"]],
) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows rows"], int]:
    """Mean of each row over all columns of all blocks, and the covariance of these means.

    Sums run around the mean so far, in double precision, block by block.

    Args:
        blocks: samples along the last axis (rows, batch), block after block.

    Returns:
        Means (rows), sample covariance divided by the number of samples, and that number.

    Raises:
        ValueError: fewer than two samples, from which no error can be told.

    Source: Chan, Golub, LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances (1982), for joining two blocks.

    Example:
        >>> import torch
        >>> from carelab.causal.uncertainty import streamed_mean
        >>> mean, covariance, samples = streamed_mean([torch.zeros(1, 2), torch.ones(1, 2)])
        >>> float(mean), round(float(covariance), 4), samples
        (0.5, 0.0833, 4)
    """
    seen = 0
    mean = scatter = torch.zeros(0, dtype=torch.float64)
    for part in (part for block in blocks for part in block.split(_COLUMNS, dim=1)):
        values = part.to("cpu", torch.float64)
        count, centre = values.shape[1], values.mean(dim=1)
        if seen == 0:
            mean = torch.zeros_like(centre)
            scatter = centre.new_zeros(len(centre), len(centre))
        away, shift = values - centre[:, None], centre - mean
        # Joining two blocks adds what their means differ by.
        scatter.addmm_(away, away.T).addr_(shift, shift, alpha=seen * count / (seen + count))
        mean += shift * (count / (seen + count))
        seen += count
    if seen < 2:
        raise ValueError(
            f"samples: got {seen}; allowed: at least 2, since one alone has no standard error"
        )
    return mean, scatter / (seen - 1) / seen, seen


def confidence_interval(
    effects: UnitEffects, *, level: float = 0.95
) -> tuple[Float[Tensor, " units"], Float[Tensor, " units"]]:
    """Student's interval of each effect by itself: effect -+ t(level, n - 1) * standard error.

    Args:
        effects: estimates with their covariance.
        level: confidence, a fraction between 0 and 1.

    Returns:
        Lower and upper ends (units), in units of the effect.

    Raises:
        ValueError: a level outside (0, 1).

    Example:
        >>> import torch
        >>> from carelab import causal, records
        >>> units = (records.Neuron("relu1", 0),)
        >>> one = causal.mean_contrasts("drop", units, [torch.tensor([[1.0, 3.0]])])
        >>> [round(float(end), 2) for end in causal.confidence_interval(one)]
        [-10.71, 14.71]
    """
    reach = _student(effects, level, comparisons=1) * effects.standard_error
    return effects.effect - reach, effects.effect + reach


def bootstrap_interval(
    values: Float[Tensor, "variables samples"],
    statistic: Callable[[NDArray[Any]], NDArray[Any]],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of a statistic that is no mean.

    Whole samples are drawn with replacement, so that variables stay paired.

    Args:
        values: one column per sample, one row per variable that the statistic reads.
        statistic: takes arrays (..., variables, samples), returns one number each (...); such as
            a ratio of two means, a median, a largest minus a smallest mean.
        level: confidence, a fraction between 0 and 1.
        resamples: how often samples are drawn.
        generator: draws the seed of the resampling.

    Raises:
        ValueError: a level outside (0, 1), fewer than two samples, no resample, or a statistic
            that is the same number for every resample or not a number for some.

    Source: Efron, Better Bootstrap Confidence Intervals (1987), as in ``scipy.stats.bootstrap``.

    Example:
        >>> import torch
        >>> from carelab import causal
        >>> draws = torch.Generator().manual_seed(0)
        >>> values = torch.rand(2, 50, generator=draws)
        >>> ratio = lambda pairs: pairs[..., 0, :].mean(-1) / pairs[..., 1, :].mean(-1)
        >>> low, high = causal.bootstrap_interval(values, ratio, generator=draws)
    """
    _check_level(level)
    table = values.detach().cpu().double().numpy()
    if table.shape[1] < 2 or resamples < 1:
        raise ValueError(
            f"values, resamples: got {table.shape[1]} samples, {resamples}; allowed: "
            "at least 2 samples and 1 resample"
        )

    def of_rows(*rows: NDArray[Any], axis: int) -> NDArray[Any]:
        return np.asarray(statistic(np.stack([np.moveaxis(row, axis, -1) for row in rows], -2)))

    seed = int(torch.randint(2**62, (), generator=generator))
    # What scipy warns of, an interval that is not a number, is refused below.
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        found = stats.bootstrap(
            tuple(table),
            of_rows,
            paired=len(table) > 1,
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, 2**22 // table.size),
            confidence_level=level,
            random_state=np.random.default_rng(seed),
        )
    low, high = (float(end) for end in found.confidence_interval)
    if not np.isfinite([low, high]).all():
        raise ValueError(
            "statistic: has no interval; allowed: one that is a number for every resample, and "
            "not always the same"
        )
    return low, high


def rank_units(effects: UnitEffects, *, level: float = 0.95, simultaneous: bool = False) -> Ranking:
    """Units by effect, highest first, with the ranks that the samples allow each of them.

    Two units are told apart where Student's interval of their paired difference, of variance
    C_aa + C_bb - 2 C_ab, does not hold 0. The first rank of a unit is 1 + the number of units
    surely above it, its last the number of units - those surely below it. Ties keep their order.

    Args:
        effects: estimates with their covariance; higher is guiltier.
        level: confidence, a fraction between 0 and 1: of each comparison of two units; of each
            unit's set of ranks (`first` to `last`), where `simultaneous`.
        simultaneous: share 1 - level among all comparisons of a unit (Bonferroni), so that its
            set of ranks holds its true rank with probability `level`.

    Raises:
        ValueError: an effect or a variance that is not finite, or a level outside (0, 1).

    Source: Goldstein, Spiegelhalter, J. Royal Statistical Society A 159 (1996), for comparisons
        one by one; Mogstad, Romano, Shaikh, Wilhelm, Review of Economic Studies 91 (2024), for
        sets of ranks. Departs: Bonferroni in place of their bootstrap of the largest difference.

    Example:
        >>> import torch
        >>> from carelab import causal, records
        >>> units = tuple(records.Neuron("relu1", index) for index in range(3))
        >>> samples = torch.tensor([[0.0, 1.0, 0.0, 1.0], [5.0, 6.0, 5.0, 6.0], [2.0, 0, 2.0, 0]])
        >>> ranks = causal.rank_units(causal.mean_contrasts("drop", units, [samples]))
        >>> [str(unit) for unit in ranks.units], ranks.first.tolist(), ranks.last.tolist()
        (['relu1[1]', 'relu1[2]', 'relu1[0]'], [1, 2, 2], [1, 3, 3])
    """
    _check_finite(effects)
    total = len(effects.units)
    critical = _student(effects, level, comparisons=max(1, total - 1) if simultaneous else 1)
    above = _surely_above(effects, critical)
    order = effects.effect.argsort(descending=True, stable=True)
    return Ranking(
        measure=effects.measure,
        units=tuple(effects.units[row] for row in order.tolist()),
        guilt=effects.effect[order],
        standard_error=effects.standard_error[order],
        first=1 + above.sum(dim=0)[order],
        last=total - above.sum(dim=1)[order],
        level=level,
    )


def inseparable_groups(
    effects: UnitEffects, *, level: float = 0.95, most: int | None = None
) -> tuple[tuple[Unit, ...], ...]:
    """Units in groups, guiltiest group first, whose members cannot be told from its leader.

    The leader is the unit of the highest effect that no group holds yet; its group are all such
    units whose paired difference from it may be 0. An unsure unit thus stands in the first group
    that it could belong to.

    Args:
        effects: estimates with their covariance; higher is guiltier.
        level: confidence of each comparison, a fraction between 0 and 1.
        most: at most so many groups; by default all, so that every unit is in one.

    Raises:
        ValueError: an effect or a variance that is not finite, a level outside (0, 1), or fewer
            than one group wanted.

    Example:
        >>> import torch
        >>> from carelab import causal, records
        >>> units = tuple(records.Neuron("relu1", index) for index in range(3))
        >>> samples = torch.tensor([[0.0, 1.0, 0.0, 1.0], [5.0, 6.0, 5.0, 6.0], [2.0, 0, 2.0, 0]])
        >>> groups = causal.inseparable_groups(causal.mean_contrasts("drop", units, [samples]))
        >>> [[str(unit) for unit in group] for group in groups]
        [['relu1[1]'], ['relu1[2]', 'relu1[0]']]
    """
    if most is not None and most < 1:
        raise ValueError(f"most: got {most} groups; allowed: at least 1, or None for all")
    _check_finite(effects)
    above = _surely_above(effects, _student(effects, level, comparisons=1))
    waiting = effects.effect.argsort(descending=True, stable=True)
    groups: list[tuple[Unit, ...]] = []
    while len(waiting) and (most is None or len(groups) < most):
        apart = above[waiting[0], waiting]
        groups.append(tuple(effects.units[row] for row in waiting[~apart].tolist()))
        waiting = waiting[apart]
    return tuple(groups)


def _surely_above(effects: UnitEffects, critical: float) -> Bool[Tensor, "units units"]:
    """Whether the row's unit is above the column's by more than its error allows."""
    own = effects.covariance.diagonal()
    both = own[:, None] + own[None, :]
    # Where two units do the same for every sample, the variances cancel up to rounding.
    variance = torch.maximum(both - 2 * effects.covariance, _ROUNDING * both)
    size = effects.effect.abs()
    rounding = _ROUNDING * (size[:, None] + size[None, :])
    difference = effects.effect[:, None] - effects.effect[None, :]
    return difference > critical * variance.sqrt() + rounding


def _student(effects: UnitEffects, level: float, *, comparisons: int) -> float:
    _check_level(level)
    tail = (1 - level) / 2 / comparisons
    return float(stats.t.isf(tail, max(1, effects.samples - 1)))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level: got {level}; allowed: a fraction between 0 and 1, both excluded")


def _check_finite(effects: UnitEffects) -> None:
    if not (effects.effect.isfinite().all() and effects.covariance.isfinite().all()):
        raise ValueError(
            f"effects: {effects.measure} is not finite for some unit; allowed: finite numbers"
        )
