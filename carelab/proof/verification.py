"""Decide whether a network has a safety property on its whole box: bound, cut, and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from jaxtyping import Float, Int, Int8
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
from carelab.proof.chains import AffineChain, affine_chain
from carelab.proof.counterexamples import confirmed_counterexample, representable
from carelab.proof.polytopes import Polytope, polytopes
from carelab.proof.rounding import magnitudes, rounding_factor, rounding_margins
from carelab.proof.splitting import halves, split_choice
from carelab.proof.tightening import DualValues, plain_values, tighten
from carelab.proof.verdicts import SplitTree, TreeBuilder, Verdict
from carelab.properties import OutputRegion, OutputRegions

__all__ = ["verify"]


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
class _Boxes:
    """Parts of the box that wait for a decision."""

    low: Float[Tensor, "boxes features"]
    high: Float[Tensor, "boxes features"]
    phases: Int8[Tensor, "boxes neurons"] | None
    node: Int[Tensor, " boxes"]
    bound: Float[Tensor, " boxes"]  # best bound of the box that it was cut from
    share: Float[Tensor, " boxes"]  # of the whole box

    def take(self, rows: Tensor) -> _Boxes:
        return _Boxes(
            low=self.low[rows],
            high=self.high[rows],
            phases=None if self.phases is None else self.phases[rows],
            node=self.node[rows],
            bound=self.bound[rows],
            share=self.share[rows],
        )


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Examined:
    """What bounding a batch gave: proofs of some boxes, and bounds of those that are left."""

    proved: list[tuple[Tensor, DualValues]]
    share: float
    left: _Boxes
    hidden: HiddenBounds
    bounds: LinearBounds


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Search:
    """How the search of one polytope ended."""

    counterexample: Tensor | None = None
    tree: SplitTree | None = None
    boxes: int
    left: int
    share: float


def verify(
    model: nn.Module,
    prop: OutputRegion | OutputRegions,
    *,
    seconds: float = 60.0,
    boxes: int = 1_000_000,
    batch_size: int = 512,
    steps: int = 8,
    neurons: bool | None = None,
    shape: Sequence[int] | None = None,
    progress: bool = False,
) -> Verdict:
    """Whether no output of the property's box is in a polytope of it: proved, refuted or unknown.

    Branch and bound: a batch of boxes, those with the lowest bounds first, is bounded at once; a
    box whose bound is positive is proved; the corners at which the bounds are lowest, and the
    centres, are tried as counterexamples; what is left is cut in two, on the input or at the sign
    of the neuron that loosens the bound most. A search that is not ended by its limits gives the
    same answer, boxes and proof each time.

    Args:
        model: a sequential network of ``Linear``, ``Conv2d`` and ``ReLU``, in evaluation mode.
        prop: the property, with a finite box.
        seconds: wall time after which it gives up; shared evenly by the polytopes.
        boxes: number of boxes after which it gives up.
        batch_size: boxes bounded at a time.
        steps: gradient steps on the bound of a box that is not proved at once.
        neurons: boxes may be cut at the sign of a neuron, not only on an input; by default where
            there are more than 32 inputs, since cutting few inputs tightens every neuron.
        shape: shape of one input where a ``Conv2d`` comes first.
        progress: show a bar.

    Returns:
        The verdict; a proof holds in exact arithmetic, see `carelab.proof.rounding`.

    Raises:
        ValueError: a network or property that cannot be verified, or a limit that is not positive.

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
    searches: list[_Search] = []
    with tqdm(total=boxes, unit="box", disable=not progress, leave=False) as bar, torch.no_grad():
        for number, part in enumerate(parts):
            elapsed = perf_counter() - started
            until = perf_counter() + (seconds - elapsed) / (len(parts) - number)
            left = boxes - sum(search.boxes for search in searches)
            task = _task(model, chain, part, steps=steps, neurons=cut_neurons, shape=shape)
            searches.append(_search(task, until, left, batch_size, bar.update))
            if searches[-1].counterexample is not None:
                break
    return _verdict(prop, fingerprint(model), len(parts), searches, perf_counter() - started)


def _check_limits(**limits: float) -> None:
    for name, value in limits.items():
        if not value > 0:
            raise ValueError(f"{name}: got {value}; allowed: a positive number")


def _verdict(
    prop: OutputRegion | OutputRegions,
    network: str,
    parts: int,
    searches: Sequence[_Search],
    seconds: float,
) -> Verdict:
    found = searches[-1].counterexample
    trees = tuple(search.tree for search in searches if search.tree is not None)
    proved = len(trees) == parts
    return Verdict(
        status="refuted" if found is not None else "proved" if proved else "unknown",
        property_name=prop.name,
        network=network,
        counterexample=found,
        trees=trees if proved else (),
        boxes=sum(search.boxes for search in searches),
        boxes_left=sum(search.left for search in searches),
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
    task: _Task, until: float, most: int, batch_size: int, advance: Callable[[int], object]
) -> _Search:
    builder = TreeBuilder()
    queue = _root(task)
    boxes, stuck, nodes, share = 0, 0, 1, 0.0
    while len(queue.node) and perf_counter() < until and boxes < most:
        batch, queue = _worst(queue, min(batch_size, most - boxes))
        boxes += len(batch.node)
        advance(len(batch.node))
        seen = _examined(task, batch)
        share += seen.share
        builder.proofs.extend(seen.proved)
        found = _attack(task, seen.left, seen.bounds)
        if found is not None:
            left = len(queue.node) + len(seen.left.node)
            return _Search(counterexample=found, boxes=boxes, left=left, share=share)
        parts, unsplit = _cut(task, seen, nodes, builder)
        stuck += unsplit
        nodes += len(parts.node)
        queue = _joined(queue, parts)
    left = len(queue.node) + stuck
    return _Search(tree=None if left else builder.finished(), boxes=boxes, left=left, share=share)


def _root(task: _Task) -> _Boxes:
    low = task.polytope.low.unsqueeze(0)
    count = sum(task.chain.hidden)
    return _Boxes(
        low=low,
        high=task.polytope.high.unsqueeze(0),
        phases=torch.zeros(1, count, dtype=torch.int8, device=low.device) if task.neurons else None,
        node=torch.zeros(1, dtype=torch.int64, device=low.device),
        bound=low.new_zeros(1),
        share=low.new_ones(1),
    )


def _worst(queue: _Boxes, count: int) -> tuple[_Boxes, _Boxes]:
    """The boxes with the lowest bounds, and the others."""
    order = torch.argsort(queue.bound, stable=True)
    return queue.take(order[:count]), queue.take(order[count:])


def _joined(queue: _Boxes, parts: _Boxes) -> _Boxes:
    both = None
    if queue.phases is not None and parts.phases is not None:
        both = torch.cat([queue.phases, parts.phases])
    return _Boxes(
        low=torch.cat([queue.low, parts.low]),
        high=torch.cat([queue.high, parts.high]),
        phases=both,
        node=torch.cat([queue.node, parts.node]),
        bound=torch.cat([queue.bound, parts.bound]),
        share=torch.cat([queue.share, parts.share]),
    )


def _examined(task: _Task, batch: _Boxes) -> _Examined:
    """Bounds of a batch; where an ordinary bound does not prove a box, the best one found."""
    chain, part = task.chain, task.polytope
    phases = None if batch.phases is None else batch.phases.split(chain.hidden, dim=1)
    hidden = hidden_bounds(chain, batch.low, batch.high, margins=task.margins, phases=phases)
    rows = part.matrix.expand(len(batch.low), -1, -1)
    limits = part.limits.expand(len(batch.low), -1)
    every = linear_bounds(chain, hidden, rows, limits, batch.low, batch.high)
    lowest, row = every.minimum.max(dim=1)
    values = plain_values(hidden, row, len(part.limits), batch.phases)
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
    )
    done = _is_proved(task, known, better, bounds.minimum[:, 0])
    return _Examined(
        proved=[
            (batch.node[proved], values.take(proved)),
            (left.node[done], better.take(done)),
        ],
        share=float(batch.share[proved].sum() + left.share[done].sum()),
        left=left.take(~done),
        hidden=known.take(~done),
        bounds=bounds.take(~done),
    )


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


def _attack(task: _Task, boxes: _Boxes, bounds: LinearBounds) -> Tensor | None:
    """A confirmed counterexample among the lowest corners and the centres, if there is one."""
    corners = bounds.vertex(boxes.low, boxes.high)[:, 0]
    part = task.polytope
    points = torch.cat([corners, (boxes.low + boxes.high) / 2])
    points = representable(points, part.low, part.high, next(task.model.parameters()).dtype)
    inside = (task.chain(points) @ part.matrix.T - part.limits).amax(dim=1) <= 0
    if not bool(inside.any()):
        return None
    return confirmed_counterexample(
        task.model, task.chain, part.matrix, part.limits, points[inside], shape=task.shape
    )


def _cut(task: _Task, seen: _Examined, nodes: int, builder: TreeBuilder) -> tuple[_Boxes, int]:
    """The parts of the boxes that are not proved, and how many of these cannot be cut."""
    left = seen.left
    choice = split_choice(seen.hidden, seen.bounds, left.low, left.high, neurons=task.neurons)
    able = choice >= 0
    left, choice, lowest = left.take(able), choice[able], seen.bounds.minimum[able, 0]
    low, high, phases, cut = halves(left.low, left.high, left.phases, choice)
    first = nodes + torch.arange(len(choice), device=choice.device)
    second = first + len(choice)
    builder.cuts.append((left.node, choice, cut, first, second))
    parts = _Boxes(
        low=low,
        high=high,
        phases=phases,
        node=torch.cat([first, second]),
        bound=lowest.repeat(2),
        share=left.share.repeat(2) / 2,
    )
    return parts, int((~able).sum())
