from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from carelab.networks import mlp, split
from carelab.networks.architectures import in_a_row
from carelab.properties import OutputRegion, OutputRegions, never_lowest, required_lowest
from carelab.records import Samples
from carelab.repair import Clauses, label_clauses, proxy_boxes, safe_clauses
from carelab.repair.clauses import certainly
from carelab.repair.proxy_boxes import classifier_chain, sound_bounds
from tests.reference.proxy_box import proxy_box
from tests.tables import seeded


def linear(weight: list[list[float]], bias: list[float]) -> nn.Sequential:
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    return in_a_row([layer])


def wanted(rows: list[list[list[float]]], limits: list[list[float]]) -> Clauses:
    """The same clauses for one input."""
    return Clauses(
        rows=torch.tensor([rows], dtype=torch.float64),
        limits=torch.tensor([limits], dtype=torch.float64),
    )


def test_the_centre_moves_by_the_radius_until_the_whole_box_is_right():
    # y = h > 1 on c +- 1/4 needs c > 5/4; from 0 in steps of 1/4 that is c = 3/2, the sixth.
    found = proxy_boxes(
        linear([[1.0]], [0.0]), torch.zeros(1, 1), wanted([[[1.0]]], [[1.0]]), radius=0.25
    )
    assert found.proved.tolist() == [True]
    assert found.moves.tolist() == [6]
    assert found.centres.tolist() == [[1.5]]
    assert found.bounds.item() == pytest.approx(0.25, abs=1e-12)
    assert found.contain(torch.tensor([[1.75]])).tolist() == [True]
    assert found.contain(torch.tensor([[1.76]])).tolist() == [False]


def test_every_coordinate_moves_against_its_slope_in_the_clauses_not_proved():
    # Clauses y0 > 0 (proved at once, pulls nowhere) and -y1 > 0 with y1 = h1 - 2 h2.
    head = linear([[1.0, 0.0], [1.0, -2.0]], [5.0, 0.0])
    clauses = wanted([[[1.0, 0.0]], [[0.0, -1.0]]], [[0.0], [0.0]])
    found = proxy_boxes(head, torch.tensor([[0.0, 0.0]]), clauses, radius=0.5)
    # -h1 + 2 h2 - 1.5 > 0: (-0.5, 0.5) gives 0, (-1, 1) gives 1.5.
    assert found.centres.tolist() == [[-1.0, 1.0]]
    assert found.moves.tolist() == [2]


def test_one_row_of_a_clause_is_enough():
    # y = h; "y > 1 or -y > 10" at h = 3: the second row is far off and no move is needed.
    both = wanted([[[1.0], [-1.0]]], [[1.0, 10.0]])
    found = proxy_boxes(linear([[1.0]], [0.0]), torch.tensor([[3.0]]), both)
    assert (found.proved.item(), found.moves.item()) == (True, 0)


def test_a_dead_feature_is_not_moved():
    # The classifier starts with a ReLU: y = relu(h1) + relu(h2), h2 far below 0.
    head = in_a_row([nn.ReLU(), *linear([[1.0, 1.0]], [0.0]).children()])
    found = proxy_boxes(head, torch.tensor([[1.0, -9.0]]), wanted([[[1.0]]], [[2.0]]), radius=0.5)
    assert found.proved.item()
    assert found.centres.tolist() == [[3.0, -9.0]]


@pytest.mark.parametrize(("moves", "used"), [(0, 0), (5, 5)])
def test_too_few_moves_leave_a_box_unproved(moves, used):
    found = proxy_boxes(
        linear([[1.0]], [0.0]),
        torch.zeros(1, 1),
        wanted([[[1.0]]], [[1.0]]),
        radius=0.25,
        moves=moves,
    )
    assert found.proved.tolist() == [False]
    assert found.moves.tolist() == [used]


def test_what_no_move_can_raise_is_given_up_at_once():
    found = proxy_boxes(linear([[0.0]], [0.0]), torch.zeros(1, 1), wanted([[[1.0]]], [[1.0]]))
    assert (found.proved.item(), found.moves.item()) == (False, 0)


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_no_point_of_a_proved_box_is_wrong(seed):
    generator = seeded(seed)
    model = mlp(3, (6, 5), 3, generator=generator)
    extractor, head = split(model, "linear2" if seed % 2 else "relu1")
    features = extractor(torch.randn(8, 3, generator=generator)).detach()
    labels = torch.randint(0, 3, (8,), generator=generator)
    clauses = label_clauses(labels, 3)
    found = proxy_boxes(head, features, clauses, radius=0.1, moves=30)
    assert bool(found.proved.any())
    inside = torch.rand(200, *features.shape, generator=generator, dtype=torch.float64)
    corners = inside.round()
    for shares in (inside, corners):
        points = found.centres + found.radius * (2 * shares - 1)
        outputs = head.double()(points)
        margins = torch.stack([clauses.margin(each) for each in outputs]).amin(dim=0).detach()
        assert bool((margins[found.proved] >= found.bounds[found.proved]).all())


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_the_boxes_are_those_of_the_papers_loop(seed):
    generator = seeded(seed)
    last = nn.Linear(4, 3)
    last.weight.data = torch.randn(3, 4, generator=generator)
    last.bias.data = torch.randn(3, generator=generator)
    features = torch.randn(5, 4, generator=generator)
    rows = torch.randn(5, 2, 2, 3, generator=generator, dtype=torch.float64)
    limits = torch.randn(5, 2, 2, generator=generator, dtype=torch.float64)
    found = proxy_boxes(
        in_a_row([nn.ReLU(), last]), features, Clauses(rows=rows, limits=limits), moves=20
    )
    for number, feature in enumerate(features.double().tolist()):
        clauses = [
            list(zip(*pair, strict=True))
            for pair in zip(rows[number].tolist(), limits[number].tolist(), strict=True)
        ]
        centre, moves, proved = proxy_box(
            last.weight.tolist(), last.bias.tolist(), clauses, feature, 0.1, 20
        )
        assert (moves, proved) == (found.moves[number].item(), found.proved[number].item())
        torch.testing.assert_close(
            found.centres[number], torch.tensor(centre).double(), rtol=0, atol=1e-5
        )


def test_the_answer_of_a_box_does_not_depend_on_the_others():
    generator = seeded(3)
    head = mlp(4, (5,), 3, generator=generator)
    features = torch.randn(6, 4, generator=generator)
    clauses = label_clauses(torch.arange(6) % 3, 3)
    every = proxy_boxes(head, features, clauses)
    for number in (0, 3):
        alone = proxy_boxes(
            head, features[number : number + 1], clauses.take(slice(number, number + 1))
        )
        torch.testing.assert_close(alone.centres[0], every.centres[number], rtol=0, atol=1e-12)
        assert alone.moves[0] == every.moves[number]


def test_bounds_with_infinite_limits_stay_numbers_that_compare():
    chain = classifier_chain(linear([[1.0]], [0.0]), 1)
    rows = torch.tensor([[[1.0], [0.0], [1.0]]], dtype=torch.float64)
    limits = torch.tensor([[0.5, math.inf, -math.inf]], dtype=torch.float64)
    low = torch.ones(1, 1, dtype=torch.float64)
    _, lower = sound_bounds(chain, rows, limits, low, low + 1)
    assert lower[0, 0] == pytest.approx(0.5)
    assert lower[0, 0] <= 0.5
    assert lower[0, 1:].tolist() == [-math.inf, math.inf]


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_label_clauses_ask_for_the_highest_output(seed, classes):
    outputs = torch.randn(20, classes, generator=seeded(seed))
    labels = torch.randint(0, classes, (20,), generator=seeded(seed + 1))
    right = label_clauses(labels, classes).margin(outputs) > 0
    assert torch.equal(right, outputs.argmax(dim=1) == labels)


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_safe_clauses_have_the_margin_of_the_property(seed):
    generator = seeded(seed)
    outputs = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    inputs = torch.rand(20, 2, generator=generator)
    # Polytopes of one and of two rows, so that the first is filled up.
    matrix = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    regions = OutputRegions(
        regions=(
            OutputRegion(matrix=matrix[:1], limits=torch.ones(1, dtype=torch.float64)),
            OutputRegion(matrix=matrix[1:], limits=-torch.ones(2, dtype=torch.float64)),
        )
    )
    clauses = safe_clauses(regions, inputs)
    expected = regions.margin(outputs.unsqueeze(0), Samples(inputs=inputs))
    torch.testing.assert_close(clauses.margin(outputs), expected, rtol=1e-12, atol=1e-12)


def test_a_polytope_asks_nothing_outside_its_box():
    near = never_lowest(0, 2, low=torch.zeros(1), high=torch.ones(1))
    far = never_lowest(1, 2, low=torch.full((1,), 5.0), high=torch.full((1,), 6.0))
    clauses = safe_clauses(OutputRegions(regions=(near, far)), torch.tensor([[0.5], [5.5], [9.0]]))
    # The outputs 2, 3: class 0 is the lowest, by 1.
    assert clauses.margin(torch.tensor([[2.0, 3.0]]).expand(3, -1)).tolist() == [-1, 1, math.inf]


def test_certainty_leaves_out_what_rounding_could_turn():
    chain = classifier_chain(linear([[1.0]], [0.0]), 1)
    points = torch.tensor([[1.0], [1.0 + 1e-16], [1.0 + 1e-12], [1.0 - 1e-12]], dtype=torch.float64)
    clauses = Clauses(
        rows=torch.ones(4, 1, 1, 1, dtype=torch.float64),
        limits=torch.ones(4, 1, 1, dtype=torch.float64),
    )
    right, wrong = certainly(chain, points, clauses)
    assert right.tolist() == [False, False, True, False]
    assert wrong.tolist() == [False, False, False, True]


def test_misuse():
    head, clauses = linear([[1.0]], [0.0]), wanted([[[1.0]]], [[1.0]])
    with pytest.raises(ValueError, match=r"radius, moves: got 0, 200; allowed: a positive"):
        proxy_boxes(head, torch.zeros(1, 1), clauses, radius=0)
    with pytest.raises(ValueError, match=r"radius, moves: got .*, -1"):
        proxy_boxes(head, torch.zeros(1, 1), clauses, moves=-1)
    with pytest.raises(ValueError, match=r"features: got 2 for the clauses of 1"):
        proxy_boxes(head, torch.zeros(2, 1), clauses)
    with pytest.raises(ValueError, match=r"features: .* not finite"):
        proxy_boxes(head, torch.full((1, 1), math.nan), clauses)
    with pytest.raises(ValueError, match=r"features: got 2 numbers each for a classifier of 1"):
        proxy_boxes(head, torch.zeros(1, 2), clauses)
    with pytest.raises(ValueError, match=r"is a Tanh; allowed: Linear"):
        proxy_boxes(in_a_row([nn.Tanh(), nn.Linear(1, 1)]), torch.zeros(1, 1), clauses)
    with pytest.raises(ValueError, match=r"rows: got shape \(1, 0, 1, 1\)"):
        Clauses(rows=torch.zeros(1, 0, 1, 1), limits=torch.zeros(1, 0, 1))
    with pytest.raises(ValueError, match=r"labels, classes: got \[3\], 3"):
        label_clauses(torch.tensor([3]), 3)
    with pytest.raises(ValueError, match=r"clauses: got those of 1 inputs for 2"):
        certainly(classifier_chain(head, 1), torch.zeros(2, 1), clauses)
    assert len(safe_clauses(required_lowest([0], 3), torch.zeros(4, 2))) == 4
