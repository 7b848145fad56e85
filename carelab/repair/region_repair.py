"""Repair of a whole region with a proof: the least change of the last layer that can be proved."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from carelab.data import uniform_points
from carelab.networks import check_evaluation_mode
from carelab.proof import OpenBoxes, Verdict, verify
from carelab.properties import OutputRegion, OutputRegions, find_violations, region_box
from carelab.records import Neuron, Samples
from carelab.repair.box_constraints import box_constraints
from carelab.repair.edits import edits_between
from carelab.repair.last_layer import (
    Constraints,
    LastLayer,
    last_layer,
    least_change,
    point_constraints,
)
from carelab.repair.region_results import LeastChange, ProofRound

__all__ = ["least_change_region"]

_SOLUTIONS = 40  # of the programme, before new points or boxes are asked for
_BOX_SOLUTIONS = 8
_WORST = 500  # undecided boxes of a polytope that become constraints
_BOX_MARGIN = 0.02  # bound that a box is given, in spreads
_SHRINK = 0.5  # what a lift is scaled by to try a smaller one
_SHRINKS, _GROWTHS = 8, 4  # how often, at most
_VIOLATING = 2000  # violating points that are looked for where none are given
_INSIDE = 20_000  # uniform points of the box that have to be safe
_ENOUGH = 0.1  # share of the box proved, below which single boxes are not worth constraints
_ALL = 10**9
_FEW = 10  # features up to which all corners of the box are points as well


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _State:
    """What is known so far."""

    change: Tensor
    constraints: Constraints
    points: Tensor  # features of the points that have to be safe
    lift: float
    network: nn.Module
    verdict: Verdict
    rounds: tuple[ProofRound, ...]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Limits:
    margin: float
    seconds: float
    boxes: int
    attempts: int
    started: float

    def left(self) -> float:
        return max(self.seconds - (perf_counter() - self.started), 1e-3)


def least_change_region(
    model: nn.Module,
    prop: OutputRegion | OutputRegions,
    low: Float[Tensor, " features"],
    high: Float[Tensor, " features"],
    *,
    violating: Samples | None = None,
    neurons: Sequence[Neuron] | None = None,
    points: int = 50_000,
    margin: float = 0.1,
    attempts: int = 4,
    seconds: float = 60.0,
    boxes: int = 4000,
    highest: bool = False,
    progress: bool = False,
    generator: torch.Generator,
) -> LeastChange:
    """The smallest change of the last layer's weights with which a safety property is proved.

    1. Localise: for each unsafe polytope, the output whose do-intervention changes the advice
       least over the whole domain (`score_moves`). Only the rows of these outputs change.
    2. Solve: the change that costs least over the domain and puts all known points of the box
       out of the polytopes by a margin (`least_change`), until no known point is left.
    3. Prove: branch and bound on the whole box. A counterexample joins the points. Boxes that
       stay undecided become constraints: their linear lower bounds are concave functions of the
       change, so each gives a half-space, and the programme is solved again (`box_constraints`).
    4. Lift: where the attempts are used up, or most of the box stays undecided, the moved outputs
       are raised (or lowered) everywhere by as much as the lowest bound is short; then by half of
       it, and again, as long as the proof succeeds.

    Args:
        model: a sequential network of ``Linear`` and ``ReLU`` in evaluation mode; not changed.
        prop: the property, with a finite box.
        low: smallest value of each input in the whole domain (features).
        high: largest value of each input in the whole domain (features).
        violating: points of the box that violate the property; looked for where not given.
        neurons: neurons of the last hidden layer whose outgoing weights may change; all by
            default.
        points: uniform points of the domain at which the scores are to stay.
        margin: distance from a polytope that known points are given, as a fraction of the mean
            distance between the highest and the lowest score.
        attempts: undecided proofs after which the outputs are lifted.
        seconds: wall time after which no new attempt begins; a lift, of up to ten proofs, may
            follow.
        boxes: how many the last attempt to prove may bound; the k-th k / attempts of them.
        highest: the highest output is the answer, as of a classifier; by default the lowest.
        progress: show a bar.
        generator: draws the points.

    Returns:
        The changed network with its verdict; "unknown" and "refuted" are results too.

    Raises:
        ValueError: a network, property or number that this cannot take.

    Source: ProRepair, section on region-wise repair, for the task; the search is ours.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> from carelab.properties import never_lowest
        >>> g = torch.Generator().manual_seed(0)
        >>> model, zero = networks.mlp(2, (9,), 3, generator=g), torch.zeros(2)
        >>> prop = never_lowest(0, 3, low=zero, high=zero + 0.5)
        >>> repair.least_change_region(model, prop, zero, zero + 1, points=500, generator=g).status
        'proved'
    """
    check_evaluation_mode(model)
    _check(
        points=points,
        margin=margin,
        attempts=attempts,
        seconds=seconds,
        boxes=boxes,
    )
    limits = _Limits(
        margin=margin,
        seconds=seconds,
        boxes=boxes,
        attempts=attempts,
        started=perf_counter(),
    )
    domain = uniform_points(low.double(), high.double(), points, generator=generator).inputs
    layer = last_layer(model, prop, domain, neurons=neurons, highest=highest)
    state = _start(layer, prop, violating, limits, generator)
    with tqdm(unit="attempt", disable=not progress, leave=False) as bar:
        while state.verdict.status != "proved" and perf_counter() - limits.started < seconds:
            tried = _attempt(layer, prop, state, limits)
            bar.update()
            if tried is None:  # no change meets all constraints
                break
            state = tried
            if _is_hopeless(state.rounds, attempts):
                break
    if state.verdict.status != "proved":
        state = _lifted(layer, prop, state, limits)
    return _result(layer, prop, state, limits)


def _check(**numbers: float) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise ValueError(f"{name}: got {value}; allowed: a positive number")


def _start(
    layer: LastLayer,
    prop: OutputRegion | OutputRegions,
    violating: Samples | None,
    limits: _Limits,
    generator: torch.Generator,
) -> _State:
    """The network as it is, with the points that have to be safe and what can be said of it."""
    low, high = region_box(prop)
    inside = uniform_points(low.double(), high.double(), _INSIDE, generator=generator).inputs
    groups = [inside.double()]
    if len(low) <= _FEW:
        ends = torch.stack([low, high], dim=1).double()
        groups.append(torch.cartesian_prod(*ends).view(-1, len(low)))
    if violating is None:
        found = find_violations(layer.model, prop, _VIOLATING, generator=generator)
        violating = found.points
    if len(violating) > 0:
        groups.append(violating.inputs.double())
    # Where nothing violates it, it may well hold as it is: worth more time than a change.
    boxes = 1 if len(violating) > 0 else _ALL
    verdict = verify(layer.model, prop, seconds=limits.seconds, boxes=boxes)
    change = torch.zeros_like(layer.weights)
    constraints = layer.unconstrained()
    return _State(
        change=change,
        constraints=constraints,
        points=layer.features(torch.cat(groups)),
        lift=0.0,
        network=layer.model,
        verdict=verdict,
        rounds=(_round(layer, change, constraints, 0.0, verdict, limits),),
    )


def _attempt(
    layer: LastLayer, prop: OutputRegion | OutputRegions, state: _State, limits: _Limits
) -> _State | None:
    """One more change, and what can be proved of it; None where no change can meet all."""
    change, constraints, points = state.change, state.constraints, state.points
    if state.verdict.counterexample is not None:
        points = torch.cat([points, layer.features(state.verdict.counterexample.unsqueeze(0))])
    solved = _meet_points(layer, points, change, constraints, limits.margin)
    if solved is not None and state.verdict.status == "unknown":
        solved = _meet_boxes(layer, _worst_boxes(layer, state.verdict.left), *solved)
    if solved is None:
        return None
    change, constraints = solved
    network = layer.network(change)
    # The first attempts only find out where bounds are loose.
    share = min(1.0, len(state.rounds) / limits.attempts)
    boxes = max(1, int(limits.boxes * share))
    verdict = verify(network, prop, seconds=limits.left(), boxes=boxes, start=state.verdict)
    return _State(
        change=change,
        constraints=constraints,
        points=points,
        lift=0.0,
        network=network,
        verdict=verdict,
        rounds=(*state.rounds, _round(layer, change, constraints, 0.0, verdict, limits)),
    )


def _is_hopeless(rounds: Sequence[ProofRound], attempts: int) -> bool:
    """Whether so little of the box is proved, or so often, that better bounds will not come."""
    undecided = [one for one in rounds[1:] if one.status == "unknown"]
    far = bool(undecided) and undecided[-1].share_proved < _ENOUGH
    return far or len(undecided) >= attempts


def _meet_points(
    layer: LastLayer, points: Tensor, change: Tensor, constraints: Constraints, margin: float
) -> tuple[Tensor, Constraints] | None:
    """The least change that keeps all points and all constraints so far."""
    wanted = margin * layer.spread
    for _ in range(_SOLUTIONS):
        # What is short by less than a fiftieth is as good as met.
        if len(point_constraints(layer, points, change, 0.98 * wanted)) == 0:
            break
        constraints = constraints.with_more(point_constraints(layer, points, change, wanted))
        solved = least_change(layer, constraints)
        if solved is None:
            return None
        change, constraints = solved
    return change, constraints


def _meet_boxes(
    layer: LastLayer,
    boxes: Sequence[tuple[Tensor, Tensor]],
    change: Tensor,
    constraints: Constraints,
) -> tuple[Tensor, Constraints]:
    """A change that raises the bounds of boxes that were left."""
    for _ in range(_BOX_SOLUTIONS):
        cuts, lowest = box_constraints(layer, boxes, change, _BOX_MARGIN * layer.spread)
        if min(lowest) > 0:
            break
        solved = least_change(layer, constraints.with_more(cuts))
        if solved is None:  # bounds that loose contradict each other; the lift is left
            break
        change, constraints = solved
    return change, constraints


def _worst_boxes(layer: LastLayer, left: Sequence[OpenBoxes]) -> list[tuple[Tensor, Tensor]]:
    """The boxes with the lowest bounds that are left, one entry for each polytope."""
    none = layer.parts[0].low.new_zeros(0, len(layer.parts[0].low))
    found = [(boxes.low[:_WORST], boxes.high[:_WORST]) for boxes in left]
    return found + [(none, none)] * (len(layer.parts) - len(found))


def _lifted(
    layer: LastLayer, prop: OutputRegion | OutputRegions, state: _State, limits: _Limits
) -> _State:
    """The moved outputs shifted everywhere until the proof succeeds, by as little as is found."""
    boxes = _worst_boxes(layer, state.verdict.left)
    _, lowest = box_constraints(layer, boxes, state.change, 0.0)
    lift = max(-min(lowest), layer.spread) + _BOX_MARGIN * layer.spread
    best = _shifted(layer, prop, state, lift, state.rounds, limits)
    for _ in range(_GROWTHS):
        if best.verdict.status == "proved":
            break
        lift /= _SHRINK
        best = _shifted(layer, prop, state, lift, best.rounds, limits)
    for _ in range(_SHRINKS):
        lift *= _SHRINK
        tried = _shifted(layer, prop, state, lift, best.rounds, limits)
        if tried.verdict.status != "proved":
            return replace(best, rounds=tried.rounds)
        best = tried
    return best


def _shifted(
    layer: LastLayer,
    prop: OutputRegion | OutputRegions,
    state: _State,
    lift: float,
    rounds: tuple[ProofRound, ...],
    limits: _Limits,
) -> _State:
    """What can be proved with a lift on top of the change."""
    change = state.change.clone()
    for output, sign in {(move.output, move.sign) for move in layer.moves}:
        change[output, -1] += sign * lift
    network = layer.network(change)
    # From scratch: with a large lift large boxes are proved, and the old ones are many and small.
    verdict = verify(network, prop, seconds=limits.seconds, boxes=limits.boxes)
    seen = _round(layer, change, state.constraints, lift, verdict, limits)
    return replace(state, lift=lift, network=network, verdict=verdict, rounds=(*rounds, seen))


def _round(
    layer: LastLayer,
    change: Tensor,
    constraints: Constraints,
    lift: float,
    verdict: Verdict,
    limits: _Limits,
) -> ProofRound:
    bounds = [float(boxes.bound.min()) for boxes in verdict.left if len(boxes) > 0]
    return ProofRound(
        constraints=len(constraints),
        lift=lift,
        status=verdict.status,
        boxes=verdict.boxes,
        boxes_left=verdict.boxes_left,
        share_proved=verdict.share_proved,
        lowest=min(bounds, default=float("inf")),
        mean_change=float((layer.domain @ change.T).abs().mean()),
        seconds=perf_counter() - limits.started,
        seconds_proof=verdict.seconds,
    )


def _result(
    layer: LastLayer, prop: OutputRegion | OutputRegions, state: _State, limits: _Limits
) -> LeastChange:
    seconds_proof = sum(one.seconds_proof for one in state.rounds)
    return LeastChange(
        repaired=state.network if state.network is not layer.model else deepcopy(layer.model),
        status=state.verdict.status,
        property_name=prop.name,
        moves=layer.moves,
        lift=state.lift,
        rounds=state.rounds,
        edits=edits_between(layer.model, state.network),
        verdict=state.verdict,
        seconds_repair=perf_counter() - limits.started - seconds_proof,
        seconds_proof=seconds_proof,
    )
