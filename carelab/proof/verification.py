"""Decide whether a network has a safety property on its whole box: bound, cut, and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from carelab.networks import check_evaluation_mode, fingerprint
from carelab.proof.bounds import (
    FEW_FEATURES,
    HiddenBounds,
    LinearBounds,
    hidden_bounds,
    linear_bounds,
)
from carelab.proof.certificates import Certificate
from carelab.proof.chains import AffineChain, affine_chain
from carelab.proof.counterexamples import (
    Counterexample,
    confirmed_counterexample,
    descended,
    representable,
    spread_points,
)
from carelab.proof.polytopes import Polytope, polytopes
from carelab.proof.rounding import magnitudes, rounding_factor, rounding_margins
from carelab.proof.splitting import halves, split_choice
from carelab.proof.tightening import DualValues, dual_bounds, plain_values, tighten
from carelab.proof.verdicts import OpenBoxes, SplitTree, TreeBuilder, Verdict
from carelab.proof.waiting import (
    WaitingBoxes,
    earlier_parts,
    joined_boxes,
    lowest_first,
    whole_box,
)
from carelab.properties import OutputRegion, OutputRegions

__all__ = ["verify"]

_WAYS = 512  # ways down that look for a counterexample before the box is cut
# Values come from the box that was cut, where steps went before: long ones would lead away again.
_RATE = 0.2
_FEW_WAYS = 32  # the same from the worst boxes of every batch


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Task:
    """One polytope of the property, and what every box of its search needs."""

    model: nn.Module
    chain: AffineChain
    polytope: Polytope
    margins: tuple[Tensor, ...]
    sizes: Tensor  # magnitudes of the hidden sums, all layers in a row
    demand: float  # a bound above it is positive for certain
    steps: int
    neurons: bool
    shape: Sequence[int] | None


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Examined:
    """What bounding a batch gave: proofs of some boxes, and bounds of those that are left."""

    proved: list[tuple[Tensor, DualValues]]
    share: float
    left: WaitingBoxes
    hidden: HiddenBounds
    bounds: LinearBounds


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Search:
    """How the search of one polytope ended."""

    counterexample: Counterexample | None
    tree: SplitTree
    left: OpenBoxes
    boxes: int
    share: float


def verify(
    model: nn.Module,
    prop: OutputRegion | OutputRegions,
    *,
    seconds: float = 60.0,
    boxes: int = 1_000_000,
    batch_size: int = 256,
    steps: int = 4,
    neurons: bool | None = None,
    start: Verdict | Certificate | SplitTree | None = None,
    shape: Sequence[int] | None = None,
    progress: bool = False,
) -> Verdict:
    """Whether no output of the property's box is in a polytope of it: proved, refuted or unknown.

    Branch and bound: a batch of boxes, those with the lowest bounds first, is bounded at once; a
    box whose bound is positive is proved; the corners at which the bounds are lowest, the centres
    and descents from the worst of them are tried as counterexamples, at first also descents from
    all over the box; what is left is cut in two, on the input or at the sign of the neuron that
    loosens the bound most. A search that is not ended by its limits gives the same answer, boxes
    and proof each time.

    Args:
        model: a sequential network of ``Linear``, ``Conv2d`` and ``ReLU``, in evaluation mode.
        prop: the property, with a finite box.
        seconds: wall time after which it gives up; shared evenly by the polytopes.
        boxes: number of boxes after which it gives up.
        batch_size: boxes bounded at a time.
        steps: gradient steps on the bound of a box that is not proved at once.
        neurons: boxes may be cut at the sign of a neuron, not only on an input; by default where
            there are more than 32 inputs, since cutting few inputs tightens every neuron.
        start: an earlier verdict or its certificate, whatever its status, or its tree where there
            is one polytope: of this network, where it goes on from there, or of a slightly
            different one, whose parts and dual values are tried first. The box and the number of
            neurons and rows must be the same. Nothing of it is believed, all parts are bounded.
        shape: shape of one input where a ``Conv2d`` comes first.
        progress: show a bar.

    Returns:
        The verdict, with the boxes that are left where it is "unknown"; a proof holds in exact
        arithmetic, see `carelab.proof.rounding`.

    Raises:
        ValueError: a network or property that cannot be verified, a limit that is not positive, or
            a start that does not fit them.

    Source: Bunel et al., JMLR 2020, section 3 (branch and bound); see `hidden_bounds`, `tighten`
        and `split_choice` for its parts.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> from carelab.properties import never_lowest
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> box = {"low": -torch.ones(2), "high": torch.ones(2)}
        >>> proof.verify(model, never_lowest(0, 2, **box)).status
        'refuted'
    """
    _check_limits(seconds=seconds, boxes=boxes, batch_size=batch_size)
    check_evaluation_mode(model)
    started = perf_counter()
    chain = affine_chain(model, shape=shape)
    if not chain.hidden:
        raise ValueError("model: has no hidden layer; allowed: a network with at least one")
    parts = polytopes(prop, chain)
    cut_neurons = chain.features > FEW_FEATURES if neurons is None else neurons
    trees = _earlier_trees(start, len(parts))
    searches: list[_Search] = []
    with tqdm(total=boxes, unit="box", disable=not progress, leave=False) as bar, torch.no_grad():
        for number, part in enumerate(parts):
            elapsed = perf_counter() - started
            until = perf_counter() + (seconds - elapsed) / (len(parts) - number)
            left = boxes - sum(search.boxes for search in searches)
            task = _task(model, chain, part, steps=steps, neurons=cut_neurons, shape=shape)
            searches.append(_search(task, trees[number], until, left, batch_size, bar.update))
            if searches[-1].counterexample is not None:
                break
    return _verdict(prop, fingerprint(model), len(parts), searches, perf_counter() - started)


def _check_limits(**limits: float) -> None:
    for name, value in limits.items():
        if not value > 0:
            raise ValueError(f"{name}: got {value}; allowed: a positive number")


def _earlier_trees(
    start: Verdict | Certificate | SplitTree | None, parts: int
) -> list[SplitTree | None]:
    """The tree to begin with for each polytope, None where there is none."""
    trees: list[SplitTree | None] = []
    if start is not None:
        trees += [start] if isinstance(start, SplitTree) else start.trees
    if len(trees) > parts:
        raise ValueError(
            f"start: has trees of {len(trees)} polytopes; allowed: at most the property's {parts}"
        )
    return trees + [None] * (parts - len(trees))


def _verdict(
    prop: OutputRegion | OutputRegions,
    network: str,
    parts: int,
    searches: Sequence[_Search],
    seconds: float,
) -> Verdict:
    found = searches[-1].counterexample
    left = sum(len(search.left) for search in searches)
    return Verdict(
        status="refuted" if found is not None else "unknown" if left else "proved",
        property_name=prop.name,
        network=network,
        counterexample=None if found is None else found.point,
        confirmed_by=() if found is None else found.confirmed_by,
        trees=tuple(search.tree for search in searches),
        left=tuple(search.left for search in searches),
        boxes=sum(search.boxes for search in searches),
        boxes_left=left,
        share_proved=sum(search.share for search in searches) / parts,
        seconds=seconds,
    )


def _task(
    model: nn.Module,
    chain: AffineChain,
    part: Polytope,
    *,
    steps: int,
    neurons: bool,
    shape: Sequence[int] | None,
) -> _Task:
    sizes = magnitudes(chain, part.low, part.high)
    rows = sizes[-1] @ part.matrix.abs().T + part.limits.abs()
    return _Task(
        model=model,
        chain=chain,
        polytope=part,
        margins=rounding_margins(chain, part.low, part.high),
        sizes=torch.cat(sizes[:-1]),
        # Twice what rounding can do: the checker rounds as well, and otherwise.
        demand=2 * rounding_factor(chain) * float(rows.max()),
        steps=steps,
        neurons=neurons,
        shape=shape,
    )


def _search(
    task: _Task,
    start: SplitTree | None,
    until: float,
    most: int,
    batch_size: int,
    advance: Callable[[int], object],
) -> _Search:
    queue, builder = _beginning(task, start)
    nodes = len(queue) + sum(len(cut[0]) for cut in builder.cuts)
    stuck = queue.take(torch.zeros_like(queue.node, dtype=torch.bool))
    boxes, share, found = 0, 0.0, None
    while found is None and len(queue) and perf_counter() < until and boxes < most:
        batch, queue = lowest_first(queue, min(batch_size, most - boxes))
        seen = _examined(task, batch)
        found = _attack(task, seen, whole=boxes == 0)
        boxes += len(batch)
        advance(len(batch))
        share += seen.share
        builder.proofs.extend(seen.proved)
        if found is not None:
            queue = joined_boxes(queue, seen.left)
            break
        parts, unsplit = _cut(task, seen, nodes, builder)
        nodes += len(parts)
        queue, stuck = joined_boxes(queue, parts), joined_boxes(stuck, unsplit)
    left = joined_boxes(queue, stuck)
    builder.proofs.append((left.node, left.values))
    return _Search(
        counterexample=found,
        tree=builder.finished(),
        left=left.opened(),
        boxes=boxes,
        share=share,
    )


def _beginning(task: _Task, start: SplitTree | None) -> tuple[WaitingBoxes, TreeBuilder]:
    neurons = sum(task.chain.hidden)
    if start is None:
        return whole_box(task.polytope, neurons, phases=task.neurons), TreeBuilder()
    return earlier_parts(start, task.polytope, neurons, phases=task.neurons)


def _examined(task: _Task, batch: WaitingBoxes) -> _Examined:
    """Bounds of a batch; where an ordinary bound does not prove a box, the best one found."""
    chain, part = task.chain, task.polytope
    phases = None if batch.phases is None else batch.phases.split(chain.hidden, dim=1)
    hidden = hidden_bounds(chain, batch.low, batch.high, margins=task.margins, phases=phases)
    values, lowest = _first_values(task, batch, hidden)
    proved = _is_proved(task, hidden, values, lowest)
    rest = (~proved).nonzero().squeeze(1)
    left, known = batch.take(rest), hidden.take(rest)
    better, bounds = tighten(
        chain,
        known,
        part.matrix,
        part.limits,
        left.low,
        left.high,
        values.take(rest),
        phases=left.phases,
        steps=task.steps,
        rate=_RATE,
    )
    done = _is_proved(task, known, better, bounds.minimum[:, 0])
    return _Examined(
        proved=[
            (batch.node[proved], values.take(proved)),
            (left.node[done], better.take(done)),
        ],
        share=float(batch.share[proved].sum() + left.share[done].sum()),
        left=replace(left, values=better, bound=bounds.minimum[:, 0]).take(~done),
        hidden=known.take(~done),
        bounds=bounds.take(~done),
    )


def _first_values(
    task: _Task, batch: WaitingBoxes, hidden: HiddenBounds
) -> tuple[DualValues, Tensor]:
    """The better of an ordinary bound's values and those that each box came with; their bound."""
    chain, part = task.chain, task.polytope
    rows = part.matrix.expand(len(batch), -1, -1)
    limits = part.limits.expand(len(batch), -1)
    every = linear_bounds(chain, hidden, rows, limits, batch.low, batch.high)
    lowest, row = every.minimum.max(dim=1)
    plain = plain_values(hidden, row, len(part.limits), batch.phases)
    own = dual_bounds(
        chain, hidden, part.matrix, part.limits, batch.low, batch.high, batch.values
    ).minimum[:, 0]
    return batch.values.where(own > lowest, plain), torch.maximum(own, lowest)


def _is_proved(task: _Task, hidden: HiddenBounds, values: DualValues, lowest: Tensor) -> Tensor:
    """Boxes whose bound is positive for certain, and those whose phases contradict each other."""
    demand = torch.full_like(lowest, task.demand)
    if values.multipliers is not None:
        factor = 2 * rounding_factor(task.chain)
        demand = demand + factor * (values.multipliers.abs().to(task.sizes) @ task.sizes)
    proved = lowest > demand
    if values.multipliers is not None:
        for layer, margin in enumerate(task.margins[:-1]):
            proved |= (hidden.lower[layer] > hidden.upper[layer] + 4 * margin).any(dim=1)
    return proved


def _attack(task: _Task, seen: _Examined, *, whole: bool) -> Counterexample | None:
    """A confirmed counterexample in the boxes that are left, if one is found.

    Tried are the corners where the bounds are lowest, the centres, and ways down from the worst of
    them; before anything is cut, from points spread over the whole box as well.
    """
    part, chain = task.polytope, task.chain
    left = seen.left
    if len(left) == 0:
        return None
    points = torch.cat([seen.bounds.vertex(left.low, left.high)[:, 0], (left.low + left.high) / 2])
    worst = (chain(points) @ part.matrix.T - part.limits).amax(dim=1).argsort(stable=True)
    near = descended(chain, part, points[worst[:_FEW_WAYS]], steps=10, first=0.01)
    points = torch.cat([near, points])
    if whole:
        spread = spread_points(part, _WAYS)
        points = torch.cat([points, descended(chain, part, spread, steps=40)])
    points = representable(points, part.low, part.high, next(task.model.parameters()).dtype)
    inside = (chain(points) @ part.matrix.T - part.limits).amax(dim=1) <= 0
    if not bool(inside.any()):
        return None
    return confirmed_counterexample(
        task.model, chain, part.matrix, part.limits, points[inside], shape=task.shape
    )


def _cut(
    task: _Task, seen: _Examined, nodes: int, builder: TreeBuilder
) -> tuple[WaitingBoxes, WaitingBoxes]:
    """The parts of the boxes that are not proved, and the boxes among them that cannot be cut."""
    left = seen.left
    choice = split_choice(seen.hidden, seen.bounds, left.low, left.high, neurons=task.neurons)
    able = choice >= 0
    stuck, left, choice = left.take(~able), left.take(able), choice[able]
    low, high, phases, cut = halves(left.low, left.high, left.phases, choice)
    first = nodes + torch.arange(len(choice), device=choice.device)
    second = first + len(choice)
    builder.cuts.append((left.node, choice, cut, first, second))
    parts = WaitingBoxes(
        low=low,
        high=high,
        phases=phases,
        node=torch.cat([first, second]),
        bound=left.bound.repeat(2),
        share=left.share.repeat(2) / 2,
        values=left.values.twice(),
    )
    return parts, stuck
