from __future__ import annotations

import math

import pytest
import torch

from carelab.data import acasxu_domain, acasxu_network
from carelab.data.acasxu import ACASXU_NORMALISATION
from carelab.data.acasxu_files import ACASXU_PROPERTIES
from carelab.data.fetching import obtain
from carelab.properties import acasxu_property, read_vnnlib, required_lowest, violates
from carelab.records import Samples
from tests.data.real_files import needs

NUMBERS = range(1, 11)


@needs("acasxu-properties")
@pytest.mark.parametrize("number", NUMBERS)
def test_what_the_package_states_is_what_the_files_state(number):
    stated = acasxu_property(number).regions
    read = read_vnnlib(obtain(ACASXU_PROPERTIES)[number - 1])
    assert len(stated) == len(read) == (2 if number == 6 else 1)
    for own, other in zip(stated, read, strict=True):
        assert len(own.regions) == len(other.regions)
        for mine, theirs in zip(own.regions, other.regions, strict=True):
            for part in ("matrix", "limits", "low", "high"):
                assert torch.equal(getattr(mine, part), getattr(theirs, part)), part


@pytest.mark.parametrize("number", NUMBERS)
def test_boxes_are_those_of_the_paper_in_its_units(number):
    prop = acasxu_property(number)
    for box, regions in zip(prop.boxes, prop.regions, strict=True):
        ends = torch.stack([regions.regions[0].low, regions.regions[0].high])
        physical = ACASXU_NORMALISATION.denormalise(ends).T
        # Nine decimals of a normalised distance are 0.0001 ft.
        assert torch.allclose(physical, torch.tensor(box, dtype=torch.float64), atol=1e-4, rtol=0)


def test_boxes_lie_in_the_domain_but_for_the_distance_of_property_six():
    low, high = acasxu_domain()
    for number in NUMBERS:
        for regions in acasxu_property(number).regions:
            box = regions.regions[0]
            outside = (box.low < low - 1e-8) | (box.high > high + 1e-8)
            assert outside.tolist() == [number == 6, False, False, False, False]


def test_networks_that_each_property_is_stated_for():
    counts = [len(acasxu_property(number).networks) for number in NUMBERS]
    assert counts == [45, 36, 42, 42, 1, 1, 1, 1, 1, 1]
    assert acasxu_property(7).networks == ((1, 9),)
    assert acasxu_property(8).networks == ((2, 9),)
    assert (1, 9) not in acasxu_property(2).networks


def test_properties_by_hand():
    def unsafe(number: int, scores: list[float]) -> bool:
        (prop, *_) = acasxu_property(number).regions
        outputs = torch.tensor(scores, dtype=torch.float64).reshape(1, 1, 5)
        return bool(prop.margin(outputs, Samples(inputs=torch.zeros(1, 5))) <= 0)

    # A cost of 1500 is (1500 - 7.518884) / 373.94992 = 3.9911 in the outputs' unit.
    assert unsafe(1, [4.0, 0, 0, 0, 0])
    assert not unsafe(1, [3.99, 9, 9, 9, 9])
    assert unsafe(2, [5, 4, 3, 2, 1])
    assert not unsafe(2, [5, 4, 3, 2, 6])
    assert unsafe(3, [1, 2, 3, 4, 5])
    assert not unsafe(4, [2, 1, 3, 4, 5])
    assert not unsafe(5, [5, 4, 3, 2, 1])
    assert unsafe(5, [5, 4, 3, 1, 2])
    assert unsafe(7, [3, 3, 3, 9, 2])
    assert not unsafe(7, [3, 3, 1, 2, 2])
    assert not unsafe(8, [2, 1, 3, 3, 3])
    assert unsafe(8, [2, 2, 1, 3, 3])


def test_holding_the_forbidden_against_the_allowed_forbids_the_same():
    outputs = torch.randn(1, 2000, 5, generator=torch.Generator().manual_seed(0))
    samples = Samples(inputs=torch.zeros(2000, 5))
    for number, allowed in ((7, (0, 1, 2)), (8, (0, 1)), (9, (3,)), (10, (0,))):
        own = acasxu_property(number).regions[0].margin(outputs, samples)
        against_all = required_lowest(allowed, 5).margin(outputs, samples)
        assert torch.equal(own <= 0, against_all <= 0)
        assert 0 < int((own <= 0).sum()) < 2000


@needs("acasxu")
def test_a_known_violation_of_property_three():
    # Katz et al. state property 3 for all networks but N1,7 to N1,9, which tell the way is clear.
    (prop,) = acasxu_property(3).regions
    centre = (prop.regions[0].low + prop.regions[0].high) / 2
    sample = Samples(inputs=centre.float().unsqueeze(0))
    assert violates(acasxu_network(1, 7).network, sample, prop).item()
    assert not violates(acasxu_network(1, 1).network, sample, prop).item()


def test_names_and_misuse():
    prop = acasxu_property(6)
    assert (prop.number, prop.name, prop.statement) == (6, "phi6", "COC is advised")
    assert [regions.name for regions in prop.regions] == ["phi6, box 1", "phi6, box 2"]
    assert acasxu_property(3).boxes[0][2] == (3.1, math.pi)
    assert acasxu_property(2, scale=0.5).regions[0].regions[0].scale == 0.5
    with pytest.raises(ValueError, match="number: got 11; allowed: 1 to 10"):
        acasxu_property(11)
