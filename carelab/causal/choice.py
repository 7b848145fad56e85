"""How many units, and of which layer: chosen by kill curves on selection data, not by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from carelab.causal.kill_curves import KillCurve, Removal, kill_curve, passing_means
from carelab.causal.localizers import LOCALIZERS, Localizer
from carelab.properties import Property
from carelab.records import Evidence, Samples, Unit, UnitEffects

__all__ = ["ALL_LAYERS", "Candidate", "Choice", "choose_units"]

ALL_LAYERS = "all layers"
_DEFAULT = "selective_patching"
# Where no network tried beats the most frequent class there is no skill; keeps 1 / 0 away.
_LEAST_SKILL = 0.01


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Candidate:
    """One ranking that units could be taken from, with what removing its first k would cost.

    Args:
        localizer: name of the localiser that ranked.
        layer: the layer whose units are ranked, or `ALL_LAYERS`.
        curve: what removing them did on the selection data.
        cost: of each point of the curve: share of the violations left + share of the skill lost.
        cost_error: standard error of each cost.
    """

    localizer: str
    layer: str
    curve: KillCurve
    cost: Float[Tensor, " points"]
    cost_error: Float[Tensor, " points"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Choice:
    """The units chosen for repair, and the evidence for them.

    Args:
        units: the units, most guilty first; none where removing units never pays.
        candidate: position of the candidate they were taken from.
        point: position on its curve.
        best_candidate: position of the candidate of the lowest cost of all.
        best_point: position of that cost on its curve.
        candidates: all candidates, with their curves.
        why: the choice in words.
    """

    units: tuple[Unit, ...]
    candidate: int
    point: int
    best_candidate: int
    best_point: int
    candidates: tuple[Candidate, ...]
    why: str


def choose_units(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    violating: Samples,
    labelled: Samples,
    *,
    localizers: Mapping[str, Localizer] | None = None,
    units: Sequence[Unit] | None = None,
    removal: Removal = passing_means,
    progress: bool = False,
    generator: torch.Generator,
) -> Choice:
    """The fewest units whose removal costs no more than the best, up to one standard error.

    Every localiser ranks the units, of each layer by itself and of all layers together. For each
    of these rankings the first k units are removed, k = 0, 1, ...; the cost of a removal is

        violation rate / violation rate before  +  accuracy lost / (best accuracy - majority),

    the share of the violations that are left plus the share of the skill that is lost. Skill is
    accuracy beyond that of always naming the most frequent class; the best accuracy is that of
    any removal tried, none included, since a fault may have taken some itself. Doing nothing
    costs 1, and removing everything from an accurate network costs 1 as well. Of all removals
    whose cost is within one standard error of the lowest, that of the fewest units is chosen;
    among equals the cheapest.

    Args:
        model: a sequential network in evaluation mode; it is not changed.
        evidence: what the localisers look at.
        prop: the property.
        violating: selection samples that violate, for the violation rate.
        labelled: labelled selection samples, for the accuracy.
        localizers: localisers by name; by default selective patching alone.
        units: the units to choose among; by default all hidden neurons.
        removal: what removed units are held at.
        progress: show a bar.
        generator: for localisers that draw.

    Raises:
        ValueError: no localiser, selection samples of which none violates, or what localisers
            and `kill_curve` refuse.

    Source: the rule of one standard error: Breiman et al., Classification and Regression Trees
        (1984), section 3.4.3. CARE picks layer and k by hand.

    Example:
        >>> import torch, carelab as cl
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_census(rows=600, generator=g)
        >>> start = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> model = cl.networks.fit(start, table.train, epochs=9, generator=g)
        >>> fair, rows = cl.properties.individual_fairness(table, "sex"), table.train
        >>> seen = cl.records.Evidence(violating=rows, references=rows, passing=rows)
        >>> choice = cl.causal.choose_units(model, seen, fair, rows, table.selection, generator=g)
    """
    chosen = {_DEFAULT: LOCALIZERS[_DEFAULT]} if localizers is None else localizers
    if not chosen:
        raise ValueError("localizers: got none; allowed: at least one")
    rankings = [
        (name, layer, order)
        for name, localizer in chosen.items()
        for layer, order in _orders(
            localizer(model, evidence, prop, units=units, generator=generator)
        )
    ]
    curves = [
        kill_curve(model, order, evidence, prop, violating, labelled, removal=removal)
        for _, _, order in tqdm(rankings, desc="kill curves", disable=not progress)
    ]
    skill = _skill(curves, labelled)
    candidates = []
    for (name, layer, _), curve in zip(rankings, curves, strict=True):
        cost, error = _costs(curve, skill)
        candidates.append(
            Candidate(localizer=name, layer=layer, curve=curve, cost=cost, cost_error=error)
        )
    return _choice(candidates)


def _orders(effects: UnitEffects) -> Iterator[tuple[str, tuple[Unit, ...]]]:
    """Units of each layer, then of all, most guilty first."""
    order = [effects.units[row] for row in effects.effect.argsort(descending=True, stable=True)]
    layers = list(dict.fromkeys(unit.layer for unit in effects.units))
    for layer in layers:
        yield layer, tuple(unit for unit in order if unit.layer == layer)
    if len(layers) > 1:
        yield ALL_LAYERS, tuple(order)


def _skill(curves: Sequence[KillCurve], labelled: Samples) -> float:
    """How far the best accuracy of any removal is above that of naming the most frequent class."""
    labels = labelled.labels
    assert labels is not None, "kill_curve refuses samples without labels"
    majority = float(labels.bincount().max()) / len(labels)
    best = max(float(curve.accuracy.max()) for curve in curves)
    return max(best - majority, _LEAST_SKILL)


def _costs(
    curve: KillCurve, skill: float
) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"]]:
    """Cost of each point and its standard error."""
    start = float(curve.violation_rate[0])
    if start <= 0:
        raise ValueError(
            "violating: got selection samples of which none violates the property; allowed: "
            "samples of which some do"
        )
    lost = curve.accuracy[0] - curve.accuracy
    cost = curve.violation_rate / start + lost / skill
    # Laplace's estimate of the rate, since 0 of n violations are no proof of 0; and the variance
    # of a paired difference, which only samples classified otherwise add to.
    rate = (curve.violation_rate * curve.violating + 1) / (curve.violating + 2)
    of_rate = rate * (1 - rate) / curve.violating / start**2
    of_accuracy = (curve.changed - lost.square()).clamp(min=0) / curve.labelled / skill**2
    return cost, (of_rate + of_accuracy).sqrt()


def _choice(candidates: Sequence[Candidate]) -> Choice:
    points = [
        (float(cost), number, point)
        for number, candidate in enumerate(candidates)
        for point, cost in enumerate(candidate.cost)
    ]
    lowest, best_candidate, best_point = min(points)
    error = float(candidates[best_candidate].cost_error[best_point])

    def removed(place: tuple[float, int, int]) -> int:
        return int(candidates[place[1]].curve.counts[place[2]])

    near = [place for place in points if place[0] <= lowest + error]
    cost, number, point = min(near, key=lambda place: (removed(place), *place))
    count = removed((cost, number, point))
    best = candidates[best_candidate]
    return Choice(
        units=candidates[number].curve.units[:count],
        candidate=number,
        point=point,
        best_candidate=best_candidate,
        best_point=best_point,
        candidates=tuple(candidates),
        why=(
            f"{count} units of {candidates[number].layer} by {candidates[number].localizer} cost "
            f"{cost:.3f}; the lowest cost is {lowest:.3f}, standard error {error:.3f}, for "
            f"{removed((lowest, best_candidate, best_point))} units of {best.layer} by "
            f"{best.localizer}"
        ),
    )
