"""Which neurons of a controller to repair, and the repair with the violations that it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from carelab.causal import LOCALIZERS
from carelab.data import uniform_points
from carelab.lab.safety_tasks import SafetyCase
from carelab.networks import hidden_layers, logits
from carelab.properties import OutputRegions, SafetySamples, find_violations, region_box
from carelab.properties import violation_rate as violating_share
from carelab.records import Evidence, Neuron, Repair, Samples, UnitEffects
from carelab.repair import apply_repair, repair_safety

__all__ = [
    "Chosen",
    "Kept",
    "advice_share",
    "choose_neurons",
    "kept_points",
    "localise_violation",
    "repair_chosen",
]

# Violating points that localisers look at, each with the satisfying point next to it.
_PAIRS = 300
_COUNTS = (5, 15)  # neurons of a layer that are tried
# Cost on selection points with which no earlier layer is tried.
_GOOD = 5e-4
# Violations of the repaired network that a hunt brings, and how often they are repaired as well.
_HUNTED, _ROUNDS = 512, 6
_HARDER = 3.0
_NEAREST = 512  # rows of a block of distances


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Kept:
    """Points at which the advice is to stay.

    Args:
        domain: uniform points of the whole domain, for the repair.
        box: uniform points of the property's box, for the repair.
        selection: further uniform points of the domain, for choosing.
    """

    domain: Samples
    box: Samples
    selection: Samples


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Chosen:
    """The neurons chosen for a repair.

    Args:
        neurons: the neurons, all of one layer, guiltiest first.
        incoming: their incoming rows change too, not only their outgoing columns.
        costs: of each candidate tried, by layer and number: share of the selection violations
            that are left plus share of the selection points with other advice.
    """

    neurons: tuple[Neuron, ...]
    incoming: bool
    costs: Mapping[str, float]


def kept_points(case: SafetyCase, *, points: int = 60_000, generator: torch.Generator) -> Kept:
    """Uniform points of the domain and of the property's box, apart from those that measure.

    Args:
        case: the controller.
        points: of the domain, for the repair; a third as many of the box and for choosing.
        generator: draws them.

    Raises:
        ValueError: fewer than 3 points.

    Example:
        >>> import torch
        >>> from carelab.lab.safety_embedded import embedded_case
        >>> from carelab.lab.safety_search import kept_points
        >>> case = embedded_case(rows=300, epochs=1)
        >>> len(kept_points(case, points=30, generator=torch.Generator().manual_seed(0)).box)
        10
    """
    if points < 3:
        raise ValueError(f"points: got {points}; allowed: 3 or more")
    third = points // 3
    return Kept(
        domain=uniform_points(case.low, case.high, points, generator=generator),
        box=uniform_points(*region_box(case.prop), third, generator=generator),
        selection=uniform_points(case.low, case.high, third, generator=generator),
    )


def localise_violation(
    model: nn.Module,
    trial: SafetySamples,
    prop: OutputRegions,
    *,
    localizer: str = "patching",
    generator: torch.Generator,
) -> UnitEffects:
    """Guilt of every hidden neuron, from violating points and the satisfying ones next to them.

    Args:
        model: the controller.
        trial: its points; those for repair are looked at.
        prop: the property.
        localizer: of `causal.LOCALIZERS`.
        generator: for localisers that draw.

    Raises:
        ValueError: an unknown localiser, or no point for repair.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.lab import safety_embedded, safety_search
        >>> case, g = safety_embedded.embedded_case(), torch.Generator().manual_seed(0)
        >>> trial = cl.properties.safety_samples(case.model, case.prop, violating=(9, 1, 9),
        ...     satisfying=(9, 1, 9), draws=3000, generator=g)
        >>> found = safety_search.localise_violation(case.model, trial, case.prop, generator=g)
    """
    if localizer not in LOCALIZERS:
        raise ValueError(f"localizer: got {localizer!r}; allowed: {', '.join(LOCALIZERS)}")
    violating = trial.repair.violating.take(slice(0, _PAIRS))
    satisfying = trial.repair.satisfying
    references = Samples(inputs=_nearest(violating.inputs, satisfying.inputs))
    evidence = Evidence(
        violating=violating, references=references, passing=satisfying.take(slice(0, _PAIRS))
    )
    return LOCALIZERS[localizer](model, evidence, prop, generator=generator)


def choose_neurons(
    model: nn.Module,
    effects: UnitEffects,
    trial: SafetySamples,
    kept: Kept,
    prop: OutputRegions,
    *,
    steps: int = 240,
    generator: torch.Generator,
) -> Chosen:
    """The layer and how many of its guiltiest neurons, by short searches, from the last layer back.

    A repair of the last layer leaves the rest of the network as it is, and moves its outgoing
    weights only. An earlier layer is tried, incoming weights included, where selection points show
    that this is not enough; the cheapest candidate is kept.

    Args:
        model: the controller.
        effects: the guilt of its hidden neurons.
        trial: its points; selection points judge.
        kept: points whose advice is to stay; selection points judge.
        prop: the property.
        steps: steps of each short search.
        generator: draws the batches.

    Example:
        >>> from carelab.lab.safety_search import choose_neurons
        >>> choose_neurons.__name__
        'choose_neurons'
    """
    costs: dict[str, float] = {}
    tried: dict[str, tuple[tuple[Neuron, ...], bool]] = {}
    layers = hidden_layers(model)
    for layer in reversed(layers):
        ranked = _ranked(effects, layer)
        for count in sorted({min(count, len(ranked)) for count in _COUNTS}):
            neurons, incoming = ranked[:count], layer != layers[-1]
            repair = _repair(
                model, neurons, incoming, trial.repair.violating, kept, prop, steps, 1.0, generator
            )
            name = f"{layer}, {count}"
            tried[name] = neurons, incoming
            costs[name] = _cost(model, apply_repair(model, repair), trial, kept, prop)
        if min(costs.values()) <= _GOOD:
            break
    neurons, incoming = tried[min(costs, key=costs.__getitem__)]
    return Chosen(neurons=neurons, incoming=incoming, costs=costs)


def repair_chosen(
    model: nn.Module,
    chosen: Chosen,
    trial: SafetySamples,
    kept: Kept,
    prop: OutputRegions,
    *,
    steps: int = 1200,
    draws: int = 200_000,
    progress: bool = False,
    generator: torch.Generator,
) -> Repair:
    """The repair of the chosen neurons, again with the violations that it leaves or makes.

    After each repair the box is searched for violations of the repaired network; they join the
    counterexamples, with three times the weight, until none is found, or up to five times.

    Args:
        model: the controller.
        chosen: the neurons.
        trial: its points; those for repair are used, those for selection say whether it is done.
        kept: points whose advice is to stay.
        prop: the property.
        steps: steps of each search.
        draws: uniform points of each hunt, at most.
        progress: show bars.
        generator: draws everything random.

    Example:
        >>> from carelab.lab.safety_search import repair_chosen
        >>> repair_chosen.__name__
        'repair_chosen'
    """
    violating, harder = trial.repair.violating, 1.0
    for _ in range(_ROUNDS):
        repair = _repair(
            model,
            chosen.neurons,
            chosen.incoming,
            violating,
            kept,
            prop,
            steps,
            harder,
            generator,
            progress=progress,
        )
        repaired = apply_repair(model, repair)
        hunt = find_violations(
            repaired, prop, _HUNTED, draws=draws, generations=50, walk=200, generator=generator
        )
        left = violating_share(repaired, trial.selection.violating, prop)
        if left == 0 and len(hunt.points) == 0:
            break
        violating = violating.joined(hunt.points)
        harder *= _HARDER
    return repair


def advice_share(model: nn.Module, original: nn.Module, samples: Samples) -> float:
    """Share of the points with the same advice, the lowest score, of both networks.

    Args:
        model: one network.
        original: the other.
        samples: the points, at least one.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> from carelab.lab.safety_search import advice_share
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> advice_share(model, model, records.Samples(inputs=torch.rand(5, 2)))
        1.0
    """
    one, other = (logits(network, samples.inputs).argmin(dim=1) for network in (model, original))
    return float((one == other).double().mean())


def _repair(
    model: nn.Module,
    neurons: Sequence[Neuron],
    incoming: bool,
    violating: Samples,
    kept: Kept,
    prop: OutputRegions,
    steps: int,
    harder: float,
    generator: torch.Generator,
    *,
    progress: bool = False,
) -> Repair:
    return repair_safety(
        model,
        neurons,
        violating,
        [kept.box],
        [kept.domain, kept.box],
        prop,
        incoming=incoming,
        weight=10.0 * harder,
        steps=steps,
        progress=progress,
        generator=generator,
    )


def _cost(
    model: nn.Module,
    repaired: nn.Module,
    trial: SafetySamples,
    kept: Kept,
    prop: OutputRegions,
) -> float:
    left = violating_share(repaired, trial.selection.violating, prop)
    return left + 1 - advice_share(repaired, model, kept.selection)


def _ranked(effects: UnitEffects, layer: str) -> tuple[Neuron, ...]:
    """The neurons of a layer, guiltiest first."""
    rows = [
        (guilt, unit)
        for guilt, unit in zip(effects.effect.tolist(), effects.units, strict=True)
        if isinstance(unit, Neuron) and unit.layer == layer
    ]
    return tuple(unit for _, unit in sorted(rows, key=lambda row: -row[0]))


def _nearest(points: Tensor, others: Tensor) -> Tensor:
    """For each point the nearest of the others."""
    rows = [torch.cdist(block, others).argmin(dim=1) for block in points.split(_NEAREST)]
    return others[torch.cat(rows)]
