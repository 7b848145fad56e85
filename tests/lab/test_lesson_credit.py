"""Worlds whose biases are set: what is true in them, and what the exercise asks of them."""

from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from carelab import data
from carelab.lab.lesson_credit import credit_world, draw_worlds, refusal_gap, world_check
from carelab.records import Samples


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def world():
    return credit_world(1.5, 0, 0, rows=1500, generator=_generator())


def test_the_gap_of_a_network_that_refuses_by_sex_or_by_nothing():
    table = data.embedded_credit(rows=200, generator=_generator())
    (column,) = table.feature("sex").columns
    by_sex = nn.Sequential(nn.Linear(len(table.features), 2)).eval()
    with torch.no_grad():
        for parameter in by_sex.parameters():
            parameter.zero_()
        by_sex[0].bias[0] = 0.5
    assert refusal_gap(by_sex, table, table.test) == 0
    with torch.no_grad():
        by_sex[0].weight[1, column] = 1
    assert refusal_gap(by_sex, table, table.test) == 1
    women = table.test.take(table.test.inputs[:, column] == 1)
    with pytest.raises(ValueError, match="people: got one sex only"):
        refusal_gap(by_sex, table, women)


def test_a_direct_path_alone_makes_decisions_hang_on_sex(world):
    assert world.truth.direct.value > 0.1
    assert world.truth.mediated.value == 0
    assert world.flipped > 0.1
    assert world.gap > 0.1
    assert len(world.people) == 20_000
    known = {tuple(row) for row in world.dataset.test.inputs.tolist()}
    assert isinstance(world.people, Samples)
    assert tuple(world.people.inputs[0].tolist()) not in known


def test_the_same_seed_gives_the_same_world(world):
    again = credit_world(1.5, 0, 0, rows=1500, generator=_generator())
    assert (again.accuracy, again.gap, again.flipped) == (
        world.accuracy,
        world.gap,
        world.flipped,
    )
    assert again.dataset.sha256 == world.dataset.sha256


def test_worlds_are_drawn_side_by_side(world):
    figure = Figure()
    left, right = draw_worlds(figure, {"direct only": world})
    assert [len(one.patches) for one in (left, right)] == [3, 2]
    assert right.patches[0].get_width() == pytest.approx(100 * world.gap)


def test_strengths_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"spurious: got \(0.0, 9.0, 0.0\); allowed: -3 to 3 each"):
        credit_world(0, 9, 0, rows=100, generator=_generator())


def test_the_exercise_asks_for_a_gap_without_decisions_by_sex():
    check = world_check(rows=1500, generator=_generator())
    assert check([0, 2, 2]).status == "right"
    assert "gap must reach 30%" in check([0, 0, 0]).message
    assert "must stay below 12%" in check([2, 1, 1]).message
    for nonsense in ([1, 2], "0 2 1", 1.0, [0, "2", 2], [True, 1, 1], None):
        assert check(nonsense).message == "Give three numbers: direct, mediated, spurious."
