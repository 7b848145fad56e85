"""ProRepair for whole regions: refine the property, repair its counterexamples, prove the rest."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from carelab.networks import check_evaluation_mode, fingerprint
from carelab.proof import Polytope, Verdict, affine_chain, polytopes, verify
from carelab.properties import OutputRegion, OutputRegions
from carelab.repair.clauses import safe_clauses
from carelab.repair.prorepair_points import PointRepair, prorepair_points
from carelab.repair.refinement import (
    SplitRule,
    SubProperties,
    refine,
    root_properties,
    steepest_side,
)

__all__ = ["Refinement", "RegionRepair", "prorepair_region"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Refinement:
    """One round of property refinement.

    Args:
        boxes: how many boxes were bounded.
        proved: how many of them were proved.
        lowest: smallest over these boxes of what is certain of each, in outputs less the margin.
        counterexamples: how many corners violate the property, or miss the margin.
        steps: steps of Adam that the repair of all counterexamples so far took.
        verdict: what the complete verifier said after the round, or None where it was not asked;
            after "refuted" the boxes start anew.
    """

    boxes: int
    proved: int
    lowest: float
    counterexamples: int
    steps: int
    verdict: str | None


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RegionRepair:
    """A network repaired on the whole box of a safety property, and the proof.

    Args:
        repaired: the repaired network, a copy.
        status: that of the verdict: "proved", "refuted" or "unknown".
        property_name: name of the property.
        points: the counterexamples that were repaired (points, features), float64.
        refinements: the rounds, in order.
        verdict: the complete verifier's last word, about this network; a certificate can be
            written from it.
        seconds_repair: wall time of refinement and repair.
        seconds_proof: wall time of the complete verifier.
    """

    repaired: nn.Module
    status: str
    property_name: str
    points: Float[Tensor, "points features"]
    refinements: tuple[Refinement, ...]
    verdict: Verdict = field(repr=False)
    seconds_repair: float
    seconds_proof: float


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Task:
    """What stays the same during the search."""

    prop: OutputRegion | OutputRegions
    stricter: OutputRegion | OutputRegions
    polytopes: tuple[Polytope, ...]
    points_repair: Callable[..., PointRepair]
    split_rule: SplitRule
    dtype: torch.dtype


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _State:
    """Where the search is."""

    network: nn.Module
    parts: SubProperties
    points: Tensor
    rounds: tuple[Refinement, ...] = ()
    seconds_proof: float = 0.0


def prorepair_region(
    model: nn.Module,
    prop: OutputRegion | OutputRegions,
    *,
    points_repair: Callable[..., PointRepair] | None = None,
    split_rule: SplitRule = steepest_side,
    margin: float = 0.0,
    boxes: int = 100_000,
    seconds: float = 60.0,
    verify_every: int = 5,
    verify_seconds: float = 60.0,
    progress: bool = False,
) -> RegionRepair:
    """Weights of the feature extractor with which a safety property holds on its whole box.

    Round by round every box is bounded, at first the property's own. Those proved are dropped;
    corners of the others that violate the property join the points, and all points are repaired;
    then each box that was not proved is cut in two. Boxes that were dropped may be lost again
    when the network changes, so the last word is the complete verifier's, which sees the whole
    property: when no box is left, from time to time where no corner violates it, and at the end.
    What it refutes joins the points, and the boxes start anew.

    Args:
        model: a sequential network of ``Linear`` and ``ReLU`` in evaluation mode; it is not
            changed.
        prop: the property, with a finite box.
        points_repair: repairs a network at given inputs for given clauses; by default
            `prorepair_points` with the learning rate published for ACAS Xu, 0.05. Bind its knobs
            (layer, radius, steps, ...) by ``functools.partial``.
        split_rule: where a box is cut; `widest_side` and `random_side` are others.
        margin: how far from unsafe points and boxes have to be for the repair to leave them alone,
            in outputs; 0 as published. A larger one leaves the verifier more room.
        boxes: number of boxes, all rounds together, after which it gives up.
        seconds: wall time of refinement and repair after which it gives up.
        verify_every: least number of rounds between two calls of the verifier with boxes left.
        verify_seconds: wall time of the verifier, all calls together; a call takes half of what
            is left of it, the last one all.
        progress: show a bar.

    Returns:
        The repaired network with its verdict; a search that fails is a result too.

    Raises:
        ValueError: a network, property or number that this cannot take.

    Source: ProRepair, sections on property refinement and on region-wise repair. Departs: points
        stay in the repair once found, and the verdict is about the whole property, as above.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> from carelab.properties import never_lowest
        >>> model = networks.mlp(2, (9, 9), 2, generator=torch.Generator().manual_seed(0))
        >>> prop = never_lowest(0, 2, low=torch.zeros(2), high=torch.ones(2) / 2)
        >>> repair.prorepair_region(model, prop).status
        'proved'
    """
    check_evaluation_mode(model)
    _check_limits(
        boxes=boxes, seconds=seconds, verify_every=verify_every, verify_seconds=verify_seconds
    )
    started = perf_counter()
    stricter = _stricter(prop, margin)
    whole = polytopes(stricter, affine_chain(model))
    task = _Task(
        prop=prop,
        stricter=stricter,
        polytopes=whole,
        points_repair=points_repair or partial(prorepair_points, learning_rate=0.05),
        split_rule=split_rule,
        dtype=next(model.parameters()).dtype,
    )
    state = _State(
        network=deepcopy(model),
        parts=root_properties(whole),
        points=whole[0].low.new_zeros(0, len(whole[0].low)),
    )
    with tqdm(total=boxes, unit="box", disable=not progress, leave=False) as bar:
        while True:
            bar.update(len(state.parts))
            state = _round(task, state)
            spent = perf_counter() - started - state.seconds_proof
            over = spent > seconds or sum(one.boxes for one in state.rounds) >= boxes
            if not (over or _is_due(state, verify_every)):
                continue
            state, verdict = _verified(task, state, verify_seconds, last=over)
            stuck = verdict.status == "refuted" and fingerprint(state.network) == verdict.network
            if over or stuck or verdict.status == "proved" or len(state.parts) == 0:
                break
    return RegionRepair(
        repaired=state.network,
        status=verdict.status,
        property_name=prop.name,
        points=state.points,
        refinements=state.rounds,
        verdict=verdict,
        seconds_repair=perf_counter() - started - state.seconds_proof,
        seconds_proof=state.seconds_proof,
    )


def _check_limits(**limits: float) -> None:
    for name, limit in limits.items():
        if not limit > 0:
            raise ValueError(f"{name}: got {limit}; allowed: a positive number")


def _stricter(prop: OutputRegion | OutputRegions, margin: float) -> OutputRegion | OutputRegions:
    """The property with every unsafe polytope wider by the margin."""
    if not 0 <= margin < float("inf"):
        raise ValueError(f"margin: got {margin}; allowed: a number that is not negative")
    if isinstance(prop, OutputRegions):
        wider = tuple(replace(one, limits=one.limits.double() + margin) for one in prop.regions)
        return replace(prop, regions=wider)
    return replace(prop, limits=prop.limits.double() + margin)


def _round(task: _Task, state: _State) -> _State:
    """Bound all boxes, repair the points, cut what was not proved."""
    chain, boxes = affine_chain(state.network), len(state.parts)
    seen = refine(chain, task.polytopes, state.parts, task.split_rule, dtype=task.dtype)
    steps = 0
    if len(seen.violating):
        state, steps = _with_points_repaired(task, state, seen.violating)
    done = Refinement(
        boxes=boxes,
        proved=seen.proved,
        lowest=seen.lowest,
        counterexamples=len(seen.violating),
        steps=steps,
        verdict=None,
    )
    return replace(state, parts=seen.parts, rounds=(*state.rounds, done))


def _is_due(state: _State, verify_every: int) -> bool:
    """Whether it is time for the complete verifier: no box left, or its turn and none to repair."""
    if len(state.parts) == 0:
        return True
    asked = [one.verdict is not None for one in reversed(state.rounds)]
    waited = asked.index(True) if True in asked else len(asked)
    return state.rounds[-1].counterexamples == 0 and waited >= verify_every


def _verified(
    task: _Task, state: _State, verify_seconds: float, *, last: bool
) -> tuple[_State, Verdict]:
    """The verifier's word; where it refutes, its counterexample as a point, and all boxes anew."""
    left = max(0.01 * verify_seconds, verify_seconds - state.seconds_proof)
    verdict = verify(state.network, task.prop, seconds=left if last else left / 2)
    asked = replace(state.rounds[-1], verdict=verdict.status)
    state = replace(state, seconds_proof=state.seconds_proof + verdict.seconds)
    if verdict.counterexample is not None and not last:
        found = verdict.counterexample.unsqueeze(0)
        state, steps = _with_points_repaired(task, state, found)
        asked = replace(asked, steps=asked.steps + steps)
        state = replace(state, parts=root_properties(task.polytopes))
    return replace(state, rounds=(*state.rounds[:-1], asked)), verdict


def _with_points_repaired(task: _Task, state: _State, found: Tensor) -> tuple[_State, int]:
    """The points, those found among them, repaired all together; the steps of Adam it took."""
    points = torch.cat([state.points, found]).unique(dim=0)
    clauses = safe_clauses(task.stricter, points)
    fixed = task.points_repair(state.network, points.to(task.dtype), clauses)
    return replace(state, network=fixed.repaired, points=points), len(fixed.history)
