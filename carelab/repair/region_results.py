"""What a repair of a whole region found: the change, the attempts to prove it, the last word."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from carelab.proof import Verdict
from carelab.records import Edit
from carelab.repair.score_moves import ScoreMove

__all__ = ["LeastChange", "ProofRound"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ProofRound:
    """One attempt to prove a changed network.

    Args:
        constraints: how many constraints the change was found with.
        lift: what was added to the moved outputs' biases on top, in scores; 0 for none.
        status: what the verifier said.
        boxes: how many boxes it bounded.
        boxes_left: how many of them were undecided at its end.
        share_proved: fraction of the box that was proved, by volume.
        lowest: lowest bound of an undecided box, in scores; infinite where none is left.
        mean_change: mean absolute change of a score over the domain.
        seconds: wall time since the repair began.
        seconds_proof: wall time of the verifier in this attempt.
    """

    constraints: int
    lift: float
    status: str
    boxes: int
    boxes_left: int
    share_proved: float
    lowest: float
    mean_change: float
    seconds: float
    seconds_proof: float


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class LeastChange:
    """A network with a small change of its last layer, and what is proved of it.

    Args:
        repaired: the changed network, a copy.
        status: that of the verdict: "proved", "refuted" or "unknown".
        property_name: name of the property.
        moves: for each unsafe polytope the output that was moved.
        lift: what was added to the moved outputs' biases on top of the least change, in scores;
            0 where that could be proved as it was.
        rounds: the attempts, in order.
        edits: the weights that were overwritten, old and new.
        verdict: the verifier's last word, about this network.
        seconds_repair: wall time of the search for the change.
        seconds_proof: wall time of the verifier, all attempts together.
    """

    repaired: nn.Module
    status: str
    property_name: str
    moves: tuple[ScoreMove, ...]
    lift: float
    rounds: tuple[ProofRound, ...]
    edits: tuple[Edit, ...] = field(repr=False)
    verdict: Verdict = field(repr=False)
    seconds_repair: float
    seconds_proof: float
