"""Kill curves: misbehaviour and accuracy against the number of units removed, best first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor, nn
from tqdm.auto import tqdm

from carelab.causal.interventions import activations, check_unit, do
from carelab.networks import accuracy, check_inputs, predict
from carelab.properties import Property, violation_rate
from carelab.records import Evidence, Performance, Samples, Unit, UnitEffects

__all__ = [
    "KillCurve",
    "RankOverlap",
    "Removal",
    "kill_curve",
    "passing_means",
    "rank_overlap",
    "reference_means",
    "removed_performance",
    "zeros",
]

# What each unit is held at, for every sample, when it is removed.
Removal = Callable[[nn.Module, Evidence, Sequence[Unit]], Mapping[Unit, float | Tensor]]

# All counts up to here are tried, then ever fewer: curves are steep at their start.
_EVERY_COUNT_TO = 32
_GROWTH = 1.15


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class KillCurve:
    """How a network does when its units are removed one after another.

    Args:
        units: the units in the order of their removal.
        counts: how many of them are removed at each point, from 0 (points).
        violation_rate: fraction of the violating samples that still violate (points).
        accuracy: fraction of the labelled samples classified right (points).
        changed: fraction of the labelled samples classified otherwise than by the untouched
            network (points).
        violating: how many violating samples there are.
        labelled: how many labelled samples there are.
    """

    units: tuple[Unit, ...]
    counts: Int[Tensor, " points"]
    violation_rate: Float[Tensor, " points"]
    accuracy: Float[Tensor, " points"]
    changed: Float[Tensor, " points"]
    violating: int
    labelled: int

    @property
    def area(self) -> float:
        """Mean violation rate over the curve, trapezoidal, in [0, 1]: lower is a better order."""
        return self._mean(self.violation_rate)

    @property
    def accuracy_area(self) -> float:
        """Mean accuracy over the curve, trapezoidal, in [0, 1]: higher spares the task more."""
        return self._mean(self.accuracy)

    def _mean(self, values: Float[Tensor, " points"]) -> float:
        span = float(self.counts[-1] - self.counts[0])
        if span == 0:
            return float(values.mean())
        return float(torch.trapezoid(values, self.counts.double())) / span


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RankOverlap:
    """How far several rankings of the same units agree, two by two.

    Args:
        names: the rankings, in the order of both axes below.
        count: how many units the top of a ranking holds.
        shared: fraction of the top units that two rankings have in common (rankings, rankings).
        correlation: Kendall's tau-b between two rankings of all units (rankings, rankings); 0
            where one of them ranks nothing, all its effects being equal.
    """

    names: tuple[str, ...]
    count: int
    shared: Float[Tensor, "rankings rankings"]
    correlation: Float[Tensor, "rankings rankings"]


def zeros(
    model: nn.Module, evidence: Evidence, units: Sequence[Unit]
) -> Mapping[Unit, float | Tensor]:
    """Every unit is held at 0.

    Args:
        model: the network.
        evidence: not read.
        units: the units.

    Example:
        >>> import torch
        >>> from carelab import records
        >>> from carelab.causal.kill_curves import zeros
        >>> rows = records.Samples(inputs=torch.rand(9, 3))
        >>> evidence = records.Evidence(violating=rows, references=rows, passing=rows)
        >>> zeros(torch.nn.Identity(), evidence, [records.WholeLayer("relu1")])
        {WholeLayer(layer='relu1'): 0.0}
    """
    return dict.fromkeys(units, 0.0)


def passing_means(
    model: nn.Module, evidence: Evidence, units: Sequence[Unit]
) -> Mapping[Unit, float | Tensor]:
    """Every unit is held at its mean activation over the passing samples, place by place.

    Args:
        model: a network in evaluation mode.
        evidence: its passing samples are used.
        units: the units.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> from carelab.causal.kill_curves import passing_means
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> rows = records.Samples(inputs=torch.rand(9, 3))
        >>> evidence = records.Evidence(violating=rows, references=rows, passing=rows)
        >>> means = passing_means(model, evidence, networks.hidden_neurons(model))
    """
    return _means(model, evidence.passing, units)


def reference_means(
    model: nn.Module, evidence: Evidence, units: Sequence[Unit]
) -> Mapping[Unit, float | Tensor]:
    """Every unit is held at its mean activation over the references, place by place.

    Args:
        model: a network in evaluation mode.
        evidence: its references are used.
        units: the units.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> from carelab.causal.kill_curves import reference_means
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> rows = records.Samples(inputs=torch.rand(9, 3))
        >>> evidence = records.Evidence(violating=rows, references=rows, passing=rows)
        >>> means = reference_means(model, evidence, networks.hidden_neurons(model))
    """
    return _means(model, evidence.references, units)


def removed_performance(
    model: nn.Module,
    units: Mapping[Unit, float | Tensor],
    prop: Property,
    violating: Samples,
    labelled: Samples,
) -> Performance:
    """Accuracy and violation rate of the network with units held at values.

    Args:
        model: a network in evaluation mode; it is not changed.
        units: what each unit is held at, as `do` takes it; none leaves the network as it is.
        prop: the property.
        violating: samples that the violation rate is measured on.
        labelled: labelled samples that the accuracy is measured on.

    Raises:
        ValueError: no samples, samples without labels, or an unknown unit.

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records
        >>> from carelab.causal.kill_curves import removed_performance
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> rows = records.Samples(inputs=torch.rand(9, 3), labels=torch.zeros(9, dtype=torch.long))
        >>> held = {records.WholeLayer("relu1"): 0.0}
        >>> removed_performance(model, held, fair, rows, rows).violation_rate
        0.0
    """
    with do(model, units):
        return Performance(
            accuracy=accuracy(model, labelled),
            violation_rate=violation_rate(model, violating, prop),
        )


def kill_curve(
    model: nn.Module,
    units: Sequence[Unit],
    evidence: Evidence,
    prop: Property,
    violating: Samples,
    labelled: Samples,
    *,
    counts: Sequence[int] | None = None,
    removal: Removal = passing_means,
    progress: bool = False,
) -> KillCurve:
    """Violation rate and accuracy when the first k units are removed, against k.

    Args:
        model: a network in evaluation mode; it is not changed.
        units: the units in the order of their removal, most guilty first.
        evidence: what the values of removed units are taken from.
        prop: the property.
        violating: samples that the violation rate is measured on.
        labelled: labelled samples that the accuracy is measured on.
        counts: the numbers k of units to remove, increasing; by default 0, all up to 32, then
            ever wider steps up to all units.
        removal: what removed units are held at: `passing_means`, `zeros`, `reference_means`, or
            a function like them.
        progress: show a bar.

    Raises:
        ValueError: no unit or one that comes twice, counts that do not increase or go beyond the
            units, no samples, or samples without labels.

    Source: MoRF curves: Samek et al., IEEE TNNLS 28 (2017), here of units instead of pixels.

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records
        >>> from carelab.causal.kill_curves import kill_curve
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> rows = records.Samples(inputs=torch.rand(9, 3), labels=torch.zeros(9, dtype=torch.long))
        >>> seen = records.Evidence(violating=rows, references=rows, passing=rows)
        >>> curve = kill_curve(model, networks.hidden_neurons(model), seen, fair, rows, rows)
    """
    if not units or len(set(units)) < len(units):
        raise ValueError(f"units: got {len(units)}; allowed: at least one, and each only once")
    tried = _counts(len(units)) if counts is None else list(counts)
    if not tried or tried != sorted(set(tried)) or tried[0] < 0 or tried[-1] > len(units):
        raise ValueError(f"counts: got {tried}; allowed: increasing numbers from 0 to {len(units)}")
    if labelled.labels is None:
        raise ValueError("labelled: got samples without labels; allowed: labelled samples")
    held = removal(model, evidence, units)
    untouched = predict(model, labelled.inputs)
    points = torch.zeros(len(tried), 3, dtype=torch.float64)
    for point, count in enumerate(tqdm(tried, desc="removals", disable=not progress)):
        with do(model, {unit: held[unit] for unit in units[:count]}):
            predicted = predict(model, labelled.inputs)
            points[point, 0] = violation_rate(model, violating, prop)
        points[point, 1] = (predicted == labelled.labels).double().mean()
        points[point, 2] = (predicted != untouched).double().mean()
    return KillCurve(
        units=tuple(units),
        counts=torch.tensor(tried),
        violation_rate=points[:, 0],
        accuracy=points[:, 1],
        changed=points[:, 2],
        violating=len(violating),
        labelled=len(labelled),
    )


def rank_overlap(effects: Mapping[str, UnitEffects], *, count: int) -> RankOverlap:
    """Share of common top units, and Kendall's tau over all units, for every two rankings.

    Ties in a ranking keep the order of its units.

    Args:
        effects: the rankings by name, each of the same units in any order.
        count: how many units the top holds, from 1 to all.

    Raises:
        ValueError: no ranking, rankings of different units, or a count out of range.

    Source: Kendall's tau-b as in ``scipy.stats.kendalltau``.

    Example:
        >>> import torch
        >>> from carelab import causal, records
        >>> units = tuple(records.Neuron("relu1", index) for index in range(3))
        >>> rows = torch.tensor([[0.0, 1.0], [5.0, 6.0], [2.0, 0.0]])
        >>> one = causal.uncertainty.mean_contrasts("drop", units, [rows])
        >>> causal.kill_curves.rank_overlap({"a": one, "b": one}, count=1).shared.tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    if not effects:
        raise ValueError("effects: got no ranking; allowed: at least one")
    units = next(iter(effects.values())).units
    for name, one in effects.items():
        if set(one.units) != set(units):
            raise ValueError(
                f"effects: {name} ranks other units than {next(iter(effects))}; "
                "allowed: rankings of the same units"
            )
    if not 1 <= count <= len(units):
        raise ValueError(f"count: got {count} of {len(units)} units; allowed: 1 to {len(units)}")
    guilt = [dict(zip(one.units, one.effect.tolist(), strict=True)) for one in effects.values()]
    tops = [set(sorted(one, key=lambda unit: -one[unit])[:count]) for one in guilt]
    columns = [np.array([one[unit] for unit in units]) for one in guilt]
    return RankOverlap(
        names=tuple(effects),
        count=count,
        shared=torch.tensor(
            [[len(first & second) / count for second in tops] for first in tops],
            dtype=torch.float64,
        ),
        correlation=torch.tensor(
            [[_kendall(first, second) for second in columns] for first in columns],
            dtype=torch.float64,
        ),
    )


def _kendall(first: np.ndarray, second: np.ndarray) -> float:
    if first.min() == first.max() or second.min() == second.max():
        return 0.0
    return float(stats.kendalltau(first, second).statistic)


def _counts(units: int) -> list[int]:
    counts = list(range(min(units, _EVERY_COUNT_TO) + 1))
    while counts[-1] < units:
        counts.append(min(units, int(counts[-1] * _GROWTH) + 1))
    return counts


def _means(model: nn.Module, samples: Samples, units: Sequence[Unit]) -> dict[Unit, float | Tensor]:
    check_inputs(model, samples.inputs)
    layers = list(dict.fromkeys(unit.layer for unit in units))
    means = {
        layer: output.mean(dim=0)
        for layer, output in activations(model, samples.inputs, layers).items()
    }
    for unit in units:
        check_unit(unit, means[unit.layer].shape)
    return {unit: means[unit.layer][unit.place] for unit in units}
