from __future__ import annotations

import pytest
import torch

from carelab.data import acasxu_domain, acasxu_network, uniform_points
from carelab.data.acasxu import (
    ACASXU_NORMALISATION,
    ACASXU_OUTPUT_MEAN,
    ACASXU_OUTPUT_RANGE,
)
from carelab.data.acasxu_files import ACASXU, ACASXU_NNET, ACASXU_PROPERTIES, INDICES
from carelab.data.fetching import obtain
from carelab.networks import logits, read_nnet
from tests.data.real_files import needs

REAL = needs("acasxu", "acasxu-nnet")


def test_there_are_forty_five_networks_twice_and_ten_properties():
    assert len(set(INDICES)) == 45
    for source, count in ((ACASXU, 45), (ACASXU_NNET, 45), (ACASXU_PROPERTIES, 10)):
        assert len({file.sha256 for file in source.files}) == count
    assert ACASXU.files[INDICES.index((3, 4))].path.endswith("/ACASXU_run2a_3_4_batch_2000.onnx")
    assert ACASXU_NNET.files[INDICES.index((5, 9))].path.endswith("_5_9_batch_2000.nnet")


@REAL
@pytest.mark.parametrize("indices", [(1, 1), (2, 9), (5, 9)])
def test_both_formats_hold_the_same_network(indices):
    controller = acasxu_network(*indices)
    file = read_nnet(obtain(ACASXU_NNET)[INDICES.index(indices)])
    for own, other in zip(controller.network.parameters(), file.network.parameters(), strict=True):
        assert torch.equal(own, other)
    assert torch.equal(file.normalisation.means, ACASXU_NORMALISATION.means)
    assert torch.equal(file.normalisation.ranges, ACASXU_NORMALISATION.ranges)
    assert (file.output_mean, file.output_range) == (ACASXU_OUTPUT_MEAN, ACASXU_OUTPUT_RANGE)
    assert torch.equal(file.normalisation.normalise(file.low), controller.low)
    assert torch.equal(file.normalisation.normalise(file.high), controller.high)


@REAL
def test_a_network_knows_what_it_is():
    controller = acasxu_network(2, 9)
    assert (controller.name, controller.first, controller.second) == ("N2,9", 2, 9)
    assert controller.source.endswith("ACASXU_run2a_2_9_batch_2000.onnx")
    assert controller.sha256.startswith("159a06a9")
    low, high = controller.low, controller.high
    points = uniform_points(low, high, 1000, generator=torch.Generator().manual_seed(0))
    advice = logits(controller.network, points.inputs).argmin(dim=1)
    # Far from each other, as most pairs of aircraft are, nothing has to be done.
    assert (advice == controller.advisories.index("COC")).float().mean() > 0.5


def test_the_domain_in_physical_units():
    low, high = acasxu_domain()
    ends = ACASXU_NORMALISATION.denormalise(torch.stack([low, high]))
    expected = [[0, -3.141593, -3.141593, 100, 0], [60760, 3.141593, 3.141593, 1200, 1200]]
    torch.testing.assert_close(ends, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("indices", [(0, 1), (1, 0), (6, 1), (1, 10)])
def test_networks_that_do_not_exist(indices):
    with pytest.raises(ValueError, match=r"first, second: got .*; allowed: 1 to 5 and 1 to 9"):
        acasxu_network(*indices)
