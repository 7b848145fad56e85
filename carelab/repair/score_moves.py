"""Which output to raise or lower so that an unsafe polytope is left at the least cost in advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from carelab.properties import OutputRegion

__all__ = ["ScoreMove", "advice_of", "score_moves"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ScoreMove:
    """One output, moved in one direction, so that constraints of an unsafe polytope break.

    Args:
        output: index of the output.
        sign: +1 to raise it, -1 to lower it.
        rows: which constraints of the polytope the move breaks, sooner or later (constraints).
        advice_changed: fraction of the inputs whose advice changes under the intervention that
            moves the output by the mean distance between highest and lowest score.
    """

    output: int
    sign: int
    rows: Bool[Tensor, " constraints"]
    advice_changed: float


def score_moves(
    outputs: Float[Tensor, "batch classes"],
    regions: Sequence[OutputRegion],
    *,
    highest: bool = False,
) -> tuple[ScoreMove, ...]:
    """For each unsafe polytope, the output whose do-intervention changes the advice least.

    An output y_j is a candidate where it occurs in a constraint a . y <= b; raising it (where
    a_j > 0) or lowering it breaks that constraint. Its effect on behaviour is the share of inputs
    whose advice differs under do(y_j := y_j +- d), d being the mean distance between the highest
    and the lowest score. A network often has an output that it hardly ever advises: raising it
    costs nothing.

    Args:
        outputs: scores of the network at inputs of its whole domain (batch, classes).
        regions: the unsafe polytopes.
        highest: the highest output is the answer, as of a classifier; by default the lowest, as
            of scores that are costs.

    Returns:
        One move for each polytope, the one that changes the least advice; of equals the one that
        breaks more constraints, then the first.

    Raises:
        ValueError: no input or no polytope.

    Example:
        >>> import torch
        >>> from carelab.properties import forbidden_class
        >>> from carelab.repair import score_moves
        >>> scores = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 2.0]])
        >>> (move,) = score_moves(scores, [forbidden_class(2, 3)])
        >>> move.output, move.sign, move.advice_changed
        (2, -1, 0.0)
    """
    if len(outputs) == 0 or not regions:
        raise ValueError(
            f"outputs, regions: got {len(outputs)} inputs and {len(regions)} polytopes; "
            "allowed: at least one of each"
        )
    scores = outputs.double()
    advice = advice_of(scores, highest=highest)
    step = float((scores.amax(dim=1) - scores.amin(dim=1)).mean())
    return tuple(_cheapest(scores, advice, step, region, highest) for region in regions)


def advice_of(outputs: Float[Tensor, "batch classes"], *, highest: bool = False) -> Tensor:
    """Index of the output that is the answer to each input: the lowest one, or the highest.

    Args:
        outputs: scores (batch, classes).
        highest: the highest output is the answer.

    Example:
        >>> import torch
        >>> from carelab.repair import advice_of
        >>> advice_of(torch.tensor([[2.0, 1.0, 3.0]])).tolist()
        [1]
    """
    return outputs.argmax(dim=1) if highest else outputs.argmin(dim=1)


def _cheapest(
    scores: Tensor, advice: Tensor, step: float, region: OutputRegion, highest: bool
) -> ScoreMove:
    matrix = region.matrix.to(scores)
    moves = []
    for output in range(matrix.shape[1]):
        for sign in (1, -1):
            rows = sign * matrix[:, output] > 0
            if not bool(rows.any()):
                continue
            moved = scores.clone()
            moved[:, output] += sign * step
            changed = float((advice_of(moved, highest=highest) != advice).double().mean())
            moves.append(ScoreMove(output=output, sign=sign, rows=rows, advice_changed=changed))
    return min(moves, key=lambda move: (move.advice_changed, -int(move.rows.sum())))
