"""Parts of a box that wait for a decision, in a new search or where an earlier one ended."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from carelab.proof.covering import parts_of
from carelab.proof.polytopes import Polytope
from carelab.proof.tightening import DualValues
from carelab.proof.verdicts import OpenBoxes, SplitTree, TreeBuilder

__all__ = ["WaitingBoxes", "earlier_parts", "joined_boxes", "lowest_first", "whole_box"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class WaitingBoxes:
    """Boxes that are neither proved nor cut yet.

    Args:
        low: smallest value of each input (boxes, features).
        high: largest value of each input (boxes, features).
        phases: signs of the hidden sums that are known in each, or None where none is ever cut.
        node: number of each in the tree that is being built.
        bound: best bound of the box that it was cut from.
        share: of the whole box, by volume.
        values: what that bound was made with; its own may well be good with them too.
    """

    low: Float[Tensor, "boxes features"]
    high: Float[Tensor, "boxes features"]
    phases: Int8[Tensor, "boxes neurons"] | None
    node: Int[Tensor, " boxes"]
    bound: Float[Tensor, " boxes"]
    share: Float[Tensor, " boxes"]
    values: DualValues

    def __len__(self) -> int:
        """How many boxes wait."""
        return len(self.node)

    def take(self, rows: Tensor) -> WaitingBoxes:
        """Some of the boxes (indices or a mask)."""
        return WaitingBoxes(
            low=self.low[rows],
            high=self.high[rows],
            phases=None if self.phases is None else self.phases[rows],
            node=self.node[rows],
            bound=self.bound[rows],
            share=self.share[rows],
            values=self.values.take(rows),
        )

    def opened(self) -> OpenBoxes:
        """The boxes as a verdict lists them, lowest bounds first."""
        order = torch.argsort(self.bound, stable=True)
        return OpenBoxes(
            low=self.low[order],
            high=self.high[order],
            phases=None if self.phases is None else self.phases[order],
            bound=self.bound[order],
        )


def whole_box(part: Polytope, neurons: int, *, phases: bool) -> WaitingBoxes:
    """The box of a polytope, uncut.

    Args:
        part: the polytope.
        neurons: number of hidden neurons.
        phases: boxes will be cut at the signs of neurons, too.

    Example:
        >>> import torch
        >>> from carelab.proof import Polytope
        >>> from carelab.proof.waiting import whole_box
        >>> part = Polytope(matrix=torch.eye(1), limits=torch.zeros(1), low=torch.zeros(2),
        ...     high=torch.ones(2))
        >>> whole_box(part, 3, phases=False).high.tolist()
        [[1.0, 1.0]]
    """
    low = part.low.unsqueeze(0)
    weights = low.new_zeros(1, len(part.limits))
    weights[0, 0] = 1
    signs = torch.zeros(1, neurons, dtype=torch.int8, device=low.device) if phases else None
    return WaitingBoxes(
        low=low,
        high=part.high.unsqueeze(0),
        phases=signs,
        node=torch.zeros(1, dtype=torch.int64, device=low.device),
        bound=low.new_zeros(1),
        share=low.new_ones(1),
        values=DualValues(
            weights=weights,
            slopes=torch.zeros(1, neurons, dtype=torch.uint8, device=low.device),
            multipliers=None if signs is None else torch.zeros_like(signs, dtype=torch.float32),
        ),
    )


def earlier_parts(
    tree: SplitTree, part: Polytope, neurons: int, *, phases: bool
) -> tuple[WaitingBoxes, TreeBuilder]:
    """The parts that an earlier search cut a box into, and a builder that knows these cuts.

    Args:
        tree: the cuts and, for each part, dual values to begin with.
        part: the polytope, whose box is cut.
        neurons: number of hidden neurons.
        phases: boxes will be cut at the signs of neurons, too.

    Raises:
        ValueError: cuts or values that do not fit the box, the network or the polytope.

    Example:
        >>> import torch
        >>> from carelab import proof
        >>> from carelab.proof.waiting import earlier_parts
        >>> ones = proof.DualValues(weights=torch.ones(2, 1), slopes=torch.zeros(2, 3).byte())
        >>> on, at, zero = torch.tensor([0, -1, -1]), torch.tensor([0.5, 0, 0]), torch.zeros(1)
        >>> tree = proof.SplitTree(split_on=on, split_at=at, values=ones)
        >>> part = proof.Polytope(matrix=torch.eye(1), limits=zero, low=zero, high=zero + 1)
        >>> earlier_parts(tree, part, 3, phases=False)[0].high.tolist()
        [[0.5], [1.0]]
    """
    try:
        parts = parts_of(
            tree, part.low.double().cpu().numpy(), part.high.double().cpu().numpy(), neurons
        )
    except ValueError as error:
        raise ValueError(f"start: {error}; allowed: cuts of the property's box") from None
    values = tree.values
    if values.weights.shape != (len(parts.low), len(part.limits)) or values.slopes.shape != (
        len(parts.low),
        neurons,
    ):
        raise ValueError(
            f"start: has values for {values.slopes.shape[1]} neurons and {values.weights.shape[1]} "
            f"rows; allowed: those of this network and property, {neurons} and {len(part.limits)}"
        )
    like = part.low
    signs = torch.from_numpy(parts.phases).to(like.device)
    cut_at_signs = phases or bool((signs != 0).any())
    children, depth = _children(tree)
    leaves = (tree.split_on == -1).nonzero().squeeze(1)
    cuts = (tree.split_on != -1).nonzero().squeeze(1)
    builder = TreeBuilder()
    if len(cuts):
        first, second = children[cuts].unbind(1)
        builder.cuts.append(
            (cuts, tree.split_on[cuts].long(), tree.split_at[cuts].double(), first, second)
        )
    multipliers = values.multipliers
    if cut_at_signs and multipliers is None:
        multipliers = torch.zeros(values.slopes.shape)
    waiting = WaitingBoxes(
        low=torch.from_numpy(parts.low).to(like),
        high=torch.from_numpy(parts.high).to(like),
        phases=signs if cut_at_signs else None,
        node=leaves.to(like.device),
        bound=like.new_zeros(len(leaves)),
        share=(0.5 ** depth[leaves].to(like)),
        values=DualValues(
            weights=_on_simplex(values.weights.to(like)),
            slopes=values.slopes.to(like.device),
            multipliers=_in_phase(multipliers, signs) if cut_at_signs else None,
        ),
    )
    return waiting, builder


def lowest_first(queue: WaitingBoxes, count: int) -> tuple[WaitingBoxes, WaitingBoxes]:
    """The boxes with the lowest bounds, and the others.

    Args:
        queue: what waits.
        count: how many to take.

    Example:
        >>> import torch
        >>> from carelab.proof import Polytope
        >>> from carelab.proof.waiting import lowest_first, whole_box
        >>> part = Polytope(matrix=torch.eye(1), limits=torch.zeros(1), low=torch.zeros(2),
        ...     high=torch.ones(2))
        >>> [len(boxes) for boxes in lowest_first(whole_box(part, 3, phases=False), 5)]
        [1, 0]
    """
    order = torch.argsort(queue.bound, stable=True)
    return queue.take(order[:count]), queue.take(order[count:])


def joined_boxes(*several: WaitingBoxes) -> WaitingBoxes:
    """All the boxes, in the order given.

    Args:
        several: boxes of one search.

    Example:
        >>> import torch
        >>> from carelab.proof import Polytope
        >>> from carelab.proof.waiting import joined_boxes, whole_box
        >>> part = Polytope(matrix=torch.eye(1), limits=torch.zeros(1), low=torch.zeros(2),
        ...     high=torch.ones(2))
        >>> len(joined_boxes(*[whole_box(part, 3, phases=True)] * 3))
        3
    """
    phases = [boxes.phases for boxes in several if boxes.phases is not None]
    signed = [boxes.values.multipliers for boxes in several if boxes.values.multipliers is not None]
    return WaitingBoxes(
        low=torch.cat([boxes.low for boxes in several]),
        high=torch.cat([boxes.high for boxes in several]),
        phases=torch.cat(phases) if phases else None,
        node=torch.cat([boxes.node for boxes in several]),
        bound=torch.cat([boxes.bound for boxes in several]),
        share=torch.cat([boxes.share for boxes in several]),
        values=DualValues(
            weights=torch.cat([boxes.values.weights for boxes in several]),
            slopes=torch.cat([boxes.values.slopes for boxes in several]),
            multipliers=torch.cat(signed) if signed else None,
        ),
    )


def _children(tree: SplitTree) -> tuple[Int[Tensor, "nodes 2"], Int[Tensor, " nodes"]]:
    """Numbers of the two parts of each node, -1 where it has none, and how deep it lies."""
    ons = tree.split_on.tolist()
    children, depth = [[-1, -1] for _ in ons], [0] * len(ons)
    waiting: list[tuple[int, int]] = []
    for node, on in enumerate(ons):
        if waiting:
            parent, which = waiting.pop()
            children[parent][which], depth[node] = node, depth[parent] + 1
        if on != -1:
            waiting += [(node, 1), (node, 0)]
    return torch.tensor(children), torch.tensor(depth)


def _on_simplex(weights: Tensor) -> Tensor:
    """Weights of the rows as the search keeps them: >= 0 with sum 1."""
    positive = weights.clamp(min=0)
    total = positive.sum(dim=1, keepdim=True)
    return torch.where(total > 0, positive / total, 1 / weights.shape[1])


def _in_phase(multipliers: Tensor | None, signs: Tensor) -> Tensor:
    """Multipliers without those whose sign would make a bound unsound."""
    assert multipliers is not None
    given = multipliers.to(signs.device).float()
    return torch.where(given * signs > 0, given, torch.zeros_like(given))
