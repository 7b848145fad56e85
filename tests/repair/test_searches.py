from functools import partial

import numpy as np
import pytest
import torch

from carelab.repair import (
    EditSpace,
    Search,
    SearchProblem,
    cma_search,
    gradient_search,
    swarm_search,
)
from tests.tables import seeded

GOAL = torch.tensor([0.4, 1.7, 1.0])
SEARCHES = [
    partial(swarm_search, particles=30, inertia=0.7, cognitive=1.5, social=1.5, patience=50),
    cma_search,
    partial(gradient_search, steps=400, learning_rate=0.1),
]


def bowl(*, bounded: bool) -> SearchProblem:
    """A problem whose cost is the squared distance to a known vector."""
    space = EditSpace(
        neurons=(),
        start=torch.ones(3),
        scale=torch.full((3,), 0.5),
        low=0.0 if bounded else None,
        high=1.5 if bounded else None,
        parameters=lambda vector: {},
    )
    return SearchProblem(
        space=space,
        cost=lambda vectors: (vectors - GOAL).square().sum(dim=1).double(),
        loss=lambda vector, generator: (vector - GOAL).square().sum(),
    )


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("bounded", [True, False])
def test_each_search_finds_the_lowest_point(search, bounded) -> None:
    found = search(bowl(bounded=bounded), generator=seeded())
    expected = GOAL.clamp(0, 1.5) if bounded else GOAL
    torch.testing.assert_close(found.vector, expected, atol=0.05, rtol=0)
    assert found.history[-1] < found.history[0]
    assert isinstance(search, Search)


@pytest.mark.parametrize("search", SEARCHES)
def test_a_seed_gives_one_result_and_no_global_state_moves(search) -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = search(bowl(bounded=True), generator=seeded(1)).vector
    second = search(bowl(bounded=True), generator=seeded(1)).vector
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002


def test_cma_keeps_the_start_where_nothing_beats_it() -> None:
    problem = bowl(bounded=True)
    flat = SearchProblem(
        space=problem.space, cost=lambda v: torch.zeros(len(v)).double(), loss=problem.loss
    )
    assert torch.equal(cma_search(flat, iterations=3, generator=seeded()).vector, torch.ones(3))


def test_misuse() -> None:
    with pytest.raises(ValueError, match="iterations, step: got 0"):
        cma_search(bowl(bounded=True), iterations=0, generator=seeded())
    with pytest.raises(ValueError, match="steps, learning_rate, averaged: got 1"):
        gradient_search(bowl(bounded=True), steps=1, generator=seeded())
