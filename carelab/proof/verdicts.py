"""What a verification found: its answer, its counterexample, and the tree of its proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from carelab.proof.tightening import DualValues

__all__ = ["OpenBoxes", "SplitTree", "TreeBuilder", "Verdict"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class SplitTree:
    """A box cut in two again and again, with the values that prove each uncut part.

    Nodes are in the order root, first part with all of its own, second part with all of its own,
    so that the list alone says how they hang together.

    Args:
        split_on: the input feature that a node is cut on, features + the neuron's number, or -1
            for a part that is not cut (nodes).
        split_at: where the input is cut; 0 elsewhere (nodes).
        values: what the bound of each uncut part is made with, in the order of the nodes; in a
            tree that proves nothing yet, what the search would have gone on with.
    """

    split_on: Int[Tensor, " nodes"]
    split_at: Float[Tensor, " nodes"]
    values: DualValues

    @property
    def leaves(self) -> int:
        """Number of parts."""
        return int((self.split_on == -1).sum())


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class OpenBoxes:
    """Parts of a box that a search left undecided, lowest bounds first.

    Args:
        low: smallest value of each input (boxes, features).
        high: largest value of each input (boxes, features).
        phases: +1 where the sum of a hidden neuron is known to be >= 0, -1 where <= 0, 0 elsewhere
            (boxes, neurons), or None where no box was cut at a neuron.
        bound: best known lower bound of how far the outputs stay out of the polytope, in units of
            its rows: that of the box that each was cut from.
    """

    low: Float[Tensor, "boxes features"]
    high: Float[Tensor, "boxes features"]
    phases: Int8[Tensor, "boxes neurons"] | None
    bound: Float[Tensor, " boxes"]

    def __len__(self) -> int:
        """How many parts are left."""
        return len(self.bound)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Verdict:
    """The answer to whether a network has a property on its whole box, and how it was found.

    Args:
        status: "proved", "refuted" or "unknown".
        property_name: name of the property.
        network: sha256 of the network's weights (`networks.fingerprint`).
        counterexample: for "refuted", an input of the box (features), float64, that violates the
            property.
        confirmed_by: for "refuted", the arithmetics in which it does: "float64" with rounding
            errors to spare, so in exact numbers too; the network's own, such as "torch float32";
            "onnxruntime" on the exported file, where that is installed and can run it.
        trees: for each polytope that was searched, the tree of its cuts; a proof for "proved",
            otherwise only what another search can start from.
        left: for each of these polytopes, the parts that are still undecided.
        boxes: how many boxes were bounded.
        boxes_left: how many were neither proved nor cut further when the search ended.
        share_proved: fraction of the box that is proved, by volume, the mean over the polytopes;
            a cut at a neuron counts as one through the middle.
        seconds: wall time.
    """

    status: str
    property_name: str
    network: str
    counterexample: Float[Tensor, " features"] | None = None
    confirmed_by: tuple[str, ...] = ()
    trees: tuple[SplitTree, ...] = field(default=(), repr=False)
    left: tuple[OpenBoxes, ...] = field(default=(), repr=False)
    boxes: int
    boxes_left: int
    share_proved: float
    seconds: float


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class TreeBuilder:
    """Collects the nodes of a tree while it grows; nodes are numbered as they come, the root 0.

    Args:
        cuts: batches of (nodes, what each is cut on, where, first part, second part).
        proofs: batches of (nodes, the values that prove each), and at the end of a search that
            was not finished also those of the nodes left.
    """

    cuts: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = field(default_factory=list)
    proofs: list[tuple[Tensor, DualValues]] = field(default_factory=list)

    def finished(self) -> SplitTree:
        """The tree in the order of `SplitTree`; every node has to be cut or have values."""
        cut_nodes, on, at, first, second = (torch.cat(part).cpu() for part in _columns(self.cuts))
        nodes = torch.cat([batch for batch, _ in self.proofs]).cpu()
        values = _joined([values for _, values in self.proofs])
        count = len(cut_nodes) + len(nodes)
        row_of = torch.full((count,), -1)
        row_of[nodes] = torch.arange(len(nodes))
        children = torch.full((count, 2), -1)
        children[cut_nodes] = torch.stack([first, second], dim=1)
        split_on = torch.full((count,), -1)
        split_on[cut_nodes] = on
        split_at = torch.zeros(count, dtype=torch.float64)
        split_at[cut_nodes] = at
        order = torch.tensor(_preorder(children.tolist()))
        rows = row_of[order]
        return SplitTree(
            split_on=split_on[order].to(torch.int32),
            split_at=split_at[order],
            values=values.take(rows[rows >= 0]),
        )


def _columns(
    cuts: Sequence[tuple[Tensor, ...]],
) -> list[list[Tensor]]:
    # A tree without a cut has five empty columns.
    whole = torch.zeros(0, dtype=torch.int64)
    none = (whole, whole, torch.zeros(0, dtype=torch.float64), whole, whole)
    return [list(column) for column in zip(*(cuts or [none]), strict=True)]


def _joined(values: Sequence[DualValues]) -> DualValues:
    signed = [one.multipliers for one in values if one.multipliers is not None]
    return DualValues(
        weights=torch.cat([one.weights for one in values]).cpu(),
        slopes=torch.cat([one.slopes for one in values]).cpu(),
        multipliers=torch.cat(signed).cpu() if signed else None,
    )


def _preorder(children: Sequence[Sequence[int]]) -> list[int]:
    order, waiting = [], [0]
    while waiting:
        node = waiting.pop()
        order.append(node)
        waiting.extend(child for child in reversed(children[node]) if child >= 0)
    return order
