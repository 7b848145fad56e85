from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from carelab import networks, proof
from carelab.properties import OutputRegion, OutputRegions, never_lowest
from tests.proof.small import small_box, small_network
from tests.reference.activation_patterns import cells, exact_minimum


def above(limit: float, low: torch.Tensor, high: torch.Tensor) -> OutputRegion:
    """Output 0 stays above the limit."""
    matrix = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    limits = torch.tensor([limit], dtype=torch.float64)
    return OutputRegion(matrix=matrix, limits=limits, low=low, high=high, name="above")


@pytest.mark.parametrize("neurons", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_the_answer_is_the_exact_one(seed, neurons):
    generator = torch.Generator().manual_seed(100 + seed)
    decided = 0
    for _ in range(4):
        model = small_network(generator)
        low, high = small_box(generator)
        chain = proof.affine_chain(model)
        found = cells(chain.weights, chain.biases, low.tolist(), high.tolist())
        least = exact_minimum(found, [1.0, 0.0])
        largest = -exact_minimum(found, [-1.0, 0.0])
        step = float(largest - least) * 0.01 + 1e-6
        for limit in (float(least) - step, float(least) + step, float(least)):
            verdict = proof.verify(
                model,
                above(limit, low, high),
                seconds=1e6,
                boxes=100,
                batch_size=50,
                neurons=neurons,
            )
            if verdict.status == "proved":
                assert least > Fraction(limit)
            if verdict.status == "refuted":
                assert least <= Fraction(limit)
                assert proof.exact_outputs(chain, verdict.counterexample)[0] <= Fraction(limit)
            if limit != float(least):
                decided += verdict.status != "unknown"
    # All but the borderline, which no search in floating point can settle.
    assert decided >= 6


def test_a_counterexample_is_one_in_the_networks_own_arithmetic():
    model = networks.mlp(3, (8, 8), 2, generator=torch.Generator().manual_seed(0))
    box = {"low": -torch.ones(3), "high": torch.ones(3)}
    prop = OutputRegions(regions=(never_lowest(0, 2, **box), never_lowest(1, 2, **box)))
    verdict = proof.verify(model, prop)
    assert verdict.status == "refuted"
    point = verdict.counterexample
    assert bool(((point >= -1) & (point <= 1)).all())
    assert torch.equal(point.float().double(), point)


def test_the_same_search_gives_the_same_proof():
    model = networks.mlp(2, (12, 12), 2, generator=torch.Generator().manual_seed(2))
    low, high = -torch.ones(2), torch.ones(2)
    inputs = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    limit = float(model(inputs).detach()[:, 0].min()) - 0.02
    first, second = (
        proof.verify(model, above(limit, low, high), batch_size=8, seconds=1e6) for _ in range(2)
    )
    assert first.status == second.status == "proved"
    assert torch.equal(first.trees[0].split_on, second.trees[0].split_on)
    assert torch.equal(first.trees[0].values.slopes, second.trees[0].values.slopes)
    assert first.boxes == second.boxes == len(first.trees[0].split_on)
    assert (first.boxes_left, first.share_proved) == (0, 1.0)


def test_a_search_that_gives_up_says_how_far_it_got():
    model = networks.mlp(2, (12, 12), 2, generator=torch.Generator().manual_seed(2))
    low, high = -torch.ones(2), torch.ones(2)
    inputs = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    limit = float(model(inputs).detach()[:, 0].min()) - 1e-3
    verdict = proof.verify(model, above(limit, low, high), boxes=8, batch_size=2, seconds=1e6)
    assert verdict.status == "unknown"
    assert verdict.boxes == 8
    assert verdict.boxes_left > 0
    assert 0 <= verdict.share_proved < 1


def test_many_inputs_are_cut_at_neurons():
    model = networks.mlp(40, (8, 6), 2, generator=torch.Generator().manual_seed(3))
    low, high = -0.2 * torch.ones(40), 0.2 * torch.ones(40)
    chain = proof.affine_chain(model)
    bound = proof.output_bounds(chain, low.unsqueeze(0), high.unsqueeze(0))[0][0, 0].item()
    inputs = torch.rand(5000, 40, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2
    least = float(model(inputs).detach()[:, 0].min())
    assert bound < least
    verdict = proof.verify(
        model, above(bound + 0.1 * (least - bound), low, high), steps=0, seconds=1e6
    )
    assert verdict.status == "proved"
    assert verdict.boxes > 1
    assert bool((verdict.trees[0].split_on[verdict.trees[0].split_on >= 0] >= 40).all())


def test_a_network_of_images_is_decided():
    with networks.seeded(torch.Generator().manual_seed(0)):
        modules = [nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)]
    model = nn.Sequential(*modules).eval()
    low, high = torch.zeros(9), torch.ones(9)
    below, above_all = proof.output_bounds(
        proof.affine_chain(model, shape=(1, 3, 3)), low.unsqueeze(0), high.unsqueeze(0)
    )
    safe = above(below[0, 0].item() - 0.01, low, high)
    assert proof.verify(model, safe, shape=(1, 3, 3)).status == "proved"
    unsafe = above(above_all[0, 0].item(), low, high)
    assert proof.verify(model, unsafe, shape=(1, 3, 3)).status == "refuted"


def test_a_box_of_one_point_is_decided():
    model = networks.mlp(2, (4,), 2, generator=torch.Generator().manual_seed(0))
    point = torch.tensor([0.25, -0.5])
    value = float(model(point.unsqueeze(0)).detach()[0, 0])
    assert proof.verify(model, above(value - 0.1, point, point)).status == "proved"
    assert proof.verify(model, above(value + 0.1, point, point)).status == "refuted"
    # On the border there is nothing left to cut, and rounding may not decide.
    assert proof.verify(model, above(value, point, point)).status in ("unknown", "refuted")


def test_points_stay_in_the_box_and_in_the_number_type():
    low = torch.tensor([0.1, 0.7], dtype=torch.float64)
    high = torch.tensor([0.1, math.nextafter(0.7, 1)], dtype=torch.float64)
    points = proof.representable(torch.stack([low, high]), low, high)
    assert bool(((points >= low) & (points <= high)).all())
    wide = proof.representable(low.unsqueeze(0), low, low + 1)
    assert torch.equal(wide.float().double(), wide)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": 0.0}, "seconds: got 0.0"),
        ({"boxes": 0}, "boxes: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
    ],
)
def test_limits_that_are_not_positive_are_refused(change, message):
    model = networks.mlp(2, (4,), 2, generator=torch.Generator().manual_seed(0))
    prop = above(0.0, torch.zeros(2), torch.ones(2))
    with pytest.raises(ValueError, match=message):
        proof.verify(model, prop, **change)


def test_what_cannot_be_verified_is_refused():
    model = networks.mlp(2, (4,), 2, generator=torch.Generator().manual_seed(0))
    zeros, ones = torch.zeros(2), torch.ones(2)
    with pytest.raises(ValueError, match="unbounded box"):
        proof.verify(model, never_lowest(0, 2, low=zeros))
    with pytest.raises(ValueError, match="not finite"):
        proof.verify(model, never_lowest(0, 2, low=zeros, high=ones * torch.inf))
    with pytest.raises(ValueError, match="about 3 inputs and 2 outputs"):
        proof.verify(model, never_lowest(0, 2, low=torch.zeros(3), high=torch.ones(3)))
    with pytest.raises(ValueError, match="training mode"):
        proof.verify(model.train(), above(0.0, zeros, ones))
    with pytest.raises(ValueError, match="no hidden layer"):
        proof.verify(nn.Sequential(nn.Linear(2, 2)).eval(), above(0.0, zeros, ones))
