from __future__ import annotations

import pytest
import torch

from carelab.properties import OutputRegion, forbidden_class, never_lowest
from carelab.repair import advice_of, score_moves

# Output 2 is never the lowest and never near it; 0 and 1 are advised by turns.
SCORES = torch.tensor([[0.0, 1.0, 5.0], [1.0, 0.0, 5.0], [0.0, 2.0, 5.0], [0.5, 0.0, 5.0]])


def test_raises_the_output_that_is_never_advised() -> None:
    # Output 0 must not be the highest: raise 1, raise 2, or lower 0. Raising 2 costs nothing.
    (move,) = score_moves(SCORES, [forbidden_class(0, 3)])
    assert (move.output, move.sign, move.advice_changed) == (2, 1, 0.0)
    assert move.rows.tolist() == [False, True]


def test_counts_the_advice_that_an_intervention_changes() -> None:
    # One constraint, y1 - y0 <= 0 is unsafe. The mean spread is about 5. Raising y1 by it changes
    # the advice of the two rows where 1 is advised, lowering y0 the same two; y0 comes first.
    region = OutputRegion(matrix=torch.tensor([[-1.0, 1.0, 0.0]]), limits=torch.zeros(1))
    (move,) = score_moves(SCORES, [region])
    assert (move.output, move.sign, move.advice_changed) == (0, -1, 0.5)


def test_the_highest_output_can_be_the_answer() -> None:
    # As of a classifier: 2 is always the answer; 0 must not be the lowest: raise it, by 5 at most.
    (move,) = score_moves(SCORES, [never_lowest(0, 3)], highest=True)
    assert advice_of(SCORES, highest=True).tolist() == [2, 2, 2, 2]
    changed = SCORES.clone()
    changed[:, move.output] += 5 * move.sign
    moved = (changed.argmax(dim=1) != 2).double().mean()
    assert move.advice_changed == float(moved)


def test_one_move_for_each_polytope() -> None:
    moves = score_moves(SCORES, [forbidden_class(0, 3), forbidden_class(1, 3)])
    assert [move.output for move in moves] == [2, 2]


@pytest.mark.parametrize(("rows", "regions"), [(0, 1), (2, 0)])
def test_needs_inputs_and_polytopes(rows: int, regions: int) -> None:
    with pytest.raises(ValueError, match="outputs, regions: got"):
        score_moves(SCORES[:rows], [forbidden_class(0, 3)] * regions)
