from __future__ import annotations

import pytest
import torch
from torch import nn

from carelab.data import acasxu_network
from carelab.networks import logits
from carelab.properties import (
    OutputRegion,
    OutputRegions,
    acasxu_property,
    find_violations,
    forbidden_class,
    margins,
    region_box,
    safety_samples,
    violates,
)
from carelab.properties.box_searches import descend, evolve, split_boxes, spread
from carelab.properties.hunts import distinct_points, hunt_for
from carelab.records import Samples
from tests.data.real_files import needs


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _network(weights: list[list[float]], bias: list[float]) -> nn.Sequential:
    layer = nn.Linear(len(weights[0]), len(weights))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
        layer.bias.copy_(torch.tensor(bias))
    return nn.Sequential(layer).eval()


def _corner(share: float) -> tuple[nn.Sequential, OutputRegion]:
    """Unsafe where x0 + x1 >= 2 - share in the unit square: a triangle at a corner."""
    network = _network([[1.0, 1.0]], [0.0])
    square = {"low": torch.zeros(2), "high": torch.ones(2)}
    region = OutputRegion(matrix=-torch.ones(1, 1), limits=torch.tensor([share - 2]), **square)
    return network, region


def _peak(width: float) -> tuple[nn.Sequential, OutputRegion]:
    """Unsafe where |x0 - 0.3| + |x1 - 0.7| <= width: a diamond of area 2 width ** 2."""
    steps = _network([[1, 0], [-1, 0], [0, 1], [0, -1]], [-0.3, 0.3, -0.7, 0.7])
    network = nn.Sequential(steps[0], nn.ReLU(), _network([[1.0, 1, 1, 1]], [0.0])[0]).eval()
    square = {"low": torch.zeros(2), "high": torch.ones(2)}
    return network, OutputRegion(matrix=torch.ones(1, 1), limits=torch.tensor([width]), **square)


def _distance_to_peak(points: torch.Tensor) -> torch.Tensor:
    return (points - torch.tensor([0.3, 0.7])).abs().sum(dim=1)


def test_uniform_points_that_violate():
    network, region = _corner(1.0)
    found = find_violations(network, region, 500, generator=_generator())
    assert (found.status, dict(found.found_by)) == ("complete", {"uniform": 500})
    # The triangle x0 + x1 >= 1 is half of the square; 32768 draws, standard error 0.0028.
    assert found.uniform_share == pytest.approx(0.5, abs=0.015)
    points = found.points.inputs
    assert bool((points.sum(dim=1) >= 1).all())
    assert len(points.unique(dim=0)) == 500
    assert bool(region.inside(points).all())
    satisfying = find_violations(network, region, 500, satisfying=True, generator=_generator())
    assert bool((satisfying.points.inputs.sum(dim=1) < 1).all())


def test_the_walk_spreads_evenly_over_what_is_rare():
    network, region = _peak(0.01)
    found = find_violations(network, region, 5_000, draws=20_000, generator=_generator())
    assert found.status == "complete"
    assert found.found_by["walk"] > 4_500
    points = found.points.inputs
    assert bool((_distance_to_peak(points) <= 0.01 + 1e-6).all())
    # Uniform in a diamond: the distance to its centre is width * sqrt(u), mean 2/3 of the width.
    assert _distance_to_peak(points).mean().item() == pytest.approx(0.01 * 2 / 3, rel=0.03)
    assert points.mean(dim=0).tolist() == pytest.approx([0.3, 0.7], abs=5e-4)


@pytest.mark.parametrize("way", ["descent", "corners", "evolution"])
def test_each_guided_way_finds_what_uniform_points_miss(way):
    network, region = _peak(1e-3)
    hunt = hunt_for(network, region)
    search = {
        "descent": lambda: descend(hunt, torch.zeros(0, 2), 10, 2, False, _generator()),
        "corners": lambda: split_boxes(hunt, 10, False, _generator()),
        "evolution": lambda: evolve(hunt, 10, 100, False, _generator()),
    }[way]
    found, tried = search()
    assert len(found) >= 10
    assert tried > 0
    assert bool((_distance_to_peak(found) <= 1e-3 + 1e-6).all())


def test_the_first_corner_of_all():
    network, region = _corner(1e-4)
    found, tried = split_boxes(hunt_for(network, region), 1, False, _generator())
    assert (found.tolist(), tried) == ([[1.0, 1.0]], 4)


def test_boxes_with_many_sides_and_with_none():
    network = _network([[1.0] * 12], [0.0])
    region = OutputRegion(
        matrix=-torch.ones(1, 1),
        limits=torch.tensor([-11.0]),
        low=torch.zeros(12),
        high=torch.ones(12),
    )
    found, _ = split_boxes(hunt_for(network, region), 1, False, _generator())
    assert bool((found.sum(dim=1) >= 11).all())
    assert len(found) > 0
    network, region = _corner(0.5)
    point = OutputRegion(
        matrix=region.matrix, limits=region.limits, low=torch.ones(2), high=torch.ones(2)
    )
    found = find_violations(network, point, 3, draws=10, walk=200, generator=_generator())
    assert (found.status, found.points.inputs.tolist()) == ("too few", [[1.0, 1.0]])


def test_a_property_that_holds():
    network, region = _corner(-0.5)
    limits = {"draws": 2_000, "descents": 1, "generations": 5, "walk": 10}
    found = find_violations(network, region, 5, generator=_generator(), **limits)
    assert (found.status, len(found.points)) == ("none found", 0)
    assert set(found.found_by.values()) == {0}
    parts = safety_samples(
        network,
        region,
        violating=(2, 1, 2),
        satisfying=(20, 10, 20),
        draws=2_000,
        walk=10,
        generator=_generator(),
    )
    assert (parts.status, parts.violating.status) == ("too few", "none found")
    assert parts.satisfying.status == "complete"
    assert [len(part.violating) for part in (parts.repair, parts.selection, parts.test)] == [0] * 3
    assert len(parts.test.satisfying) == 20


def test_points_on_the_border_are_neither():
    # The output is 0 everywhere and the limit too: no point is beyond doubt.
    network = _network([[0.0, 0.0]], [0.0])
    square = {"low": torch.zeros(2), "high": torch.ones(2)}
    region = OutputRegion(matrix=torch.ones(1, 1), limits=torch.zeros(1), **square)
    for satisfying in (False, True):
        found = find_violations(
            network, region, 1, draws=100, satisfying=satisfying, generator=_generator()
        )
        assert found.status == "none found"


def test_three_parts_without_a_common_point():
    network, region = _corner(0.05)
    parts = safety_samples(
        network,
        OutputRegions(regions=(region,)),
        violating=(300, 50, 200),
        satisfying=(100, 0, 150),
        generator=_generator(),
    )
    assert parts.status == "complete"
    split = (parts.repair, parts.selection, parts.test)
    assert [len(part.violating) for part in split] == [300, 50, 200]
    assert [len(part.satisfying) for part in split] == [100, 0, 150]
    every = [one.inputs for part in split for one in (part.violating, part.satisfying)]
    assert len(torch.cat(every).unique(dim=0)) == 800
    for part in split:
        assert bool(violates(network, part.violating, region).all())
        if len(part.satisfying):
            assert not bool(violates(network, part.satisfying, region).any())


def test_too_few_are_shared_out():
    network, region = _corner(0.3)
    limits = {"draws": 1_000, "walk": 0}
    parts = safety_samples(
        network,
        region,
        violating=(200_000, 100_000, 100_000),
        satisfying=(1, 1, 1),
        generator=_generator(),
        **limits,
    )
    found = len(parts.violating.points)
    assert (parts.status, parts.violating.status) == ("too few", "too few")
    # Draws and two rounds of 512 descents with 60 steps cannot bring more than this.
    assert 64 <= found <= 1_000 + 2 * 512 * 60
    sizes = [len(part.violating) for part in (parts.repair, parts.selection, parts.test)]
    assert sum(sizes) == found
    assert sizes[0] == pytest.approx(found / 2, abs=1)


def test_the_same_generator_finds_the_same_and_the_network_stays():
    network, region = _peak(0.01)
    before = [parameter.clone() for parameter in network.parameters()]
    first, second = (
        find_violations(network, region, 200, draws=1_000, generator=_generator(3))
        for _ in range(2)
    )
    assert torch.equal(first.points.inputs, second.points.inputs)
    for old, new in zip(before, network.parameters(), strict=True):
        assert torch.equal(old, new)
        assert new.grad is None


def test_points_keep_their_first_place():
    points = torch.tensor([[3.0, 1], [1, 1], [3, 1], [0, 5], [1, 1]])
    assert distinct_points(points).tolist() == [[3, 1], [1, 1], [0, 5]]
    assert distinct_points(points[:0]).shape == (0, 2)


def test_the_walk_starts_from_one_point():
    network, region = _corner(0.5)
    found, _ = spread(hunt_for(network, region), torch.ones(1, 2), 100, 200, False, _generator())
    assert len(found) >= 100
    assert bool((found.sum(dim=1) >= 1.5 - 1e-6).all())


@needs("acasxu")
@pytest.mark.parametrize(("indices", "number"), [((2, 9), 8), ((1, 9), 7), ((2, 1), 2)])
def test_counterexamples_of_acas_xu(indices, number):
    network = acasxu_network(*indices).network
    (prop,) = acasxu_property(number).regions
    found = find_violations(network, prop, 1, draws=10_000, generator=_generator())
    assert found.status == "complete"
    assert bool(prop.inside(found.points.inputs).all())
    outputs = logits(network.double(), found.points.inputs.double()).unsqueeze(0)
    assert float(prop.margin(outputs, found.points)) < 0


def test_misuse():
    network, region = _corner(0.5)
    with pytest.raises(ValueError, match=r"count, draws, .*: got 0, .*; allowed: 1 or more"):
        find_violations(network, region, 0, generator=_generator())
    with pytest.raises(ValueError, match="prop: class 0 is never the highest has no finite box"):
        find_violations(network, forbidden_class(0, 2), 1, generator=_generator())
    other = OutputRegion(
        matrix=region.matrix, limits=region.limits, low=torch.zeros(2), high=torch.ones(2) / 2
    )
    with pytest.raises(ValueError, match="the polytopes of safety have different boxes"):
        region_box(OutputRegions(regions=(region, other)))
    with pytest.raises(ValueError, match="inputs: got 2 features; this network takes 3"):
        find_violations(_network([[1.0, 1, 1]], [0.0]), region, 1, generator=_generator())
    with pytest.raises(ValueError, match="model: is in training mode"):
        find_violations(network.train(), region, 1, generator=_generator())
    with pytest.raises(ValueError, match=r"violating: got .1, 1.; allowed: a size for repair"):
        safety_samples(network, region, violating=(1, 1), generator=_generator())
    with pytest.raises(ValueError, match=r"satisfying: got .0, 0, 0.; allowed"):
        safety_samples(
            _corner(0.5)[0],
            region,
            satisfying=(0, 0, 0),
            violating=(1, 0, 0),
            generator=_generator(),
        )


def test_margins_of_what_was_found_are_negative_as_the_judge_sees_them():
    network, region = _corner(0.5)
    found = find_violations(network, region, 100, generator=_generator())
    assert bool((margins(network, Samples(inputs=found.points.inputs), region) < 0).all())
