import pytest
import torch

from carelab.records import Samples
from carelab.repair import blind_targets
from tests.tables import fairness, network, rows, seeded


def test_a_feature_that_the_others_do_not_tell_is_averaged_by_its_shares() -> None:
    # Column 1 takes the values 0, 1, 2 at 1/2, 1/4, 1/4, whatever the other columns hold.
    model, samples = network(seed=3), rows(4000)
    inputs = samples.inputs.clone()
    inputs[:, 1] = torch.tensor([0.0, 0.0, 1.0, 2.0]).repeat(1000).double()
    targets = blind_targets(model, Samples(inputs=inputs), fairness(), generator=seeded())
    wanted = rows(200, seed=7).inputs
    expected = torch.zeros(200, 2, dtype=torch.float64)
    for value, share in ((0.0, 0.5), (1.0, 0.25), (2.0, 0.25)):
        held = wanted.clone()
        held[:, 1] = value
        expected += share * model(held).softmax(dim=1).detach()
    torch.testing.assert_close(targets(wanted), expected, atol=0.05, rtol=0)


def test_a_feature_that_another_column_tells_is_filled_in() -> None:
    model, inputs = network(seed=3), rows(4000).inputs % 3
    inputs[:, 1] = inputs[:, 2]
    targets = blind_targets(model, Samples(inputs=inputs), fairness(), generator=seeded())
    hidden = inputs[:200].clone()
    hidden[:, 1] = 0
    own = model(inputs[:200]).softmax(dim=1).detach()
    torch.testing.assert_close(targets(hidden), own, atol=0.05, rtol=0)


def test_the_targets_do_not_read_the_feature() -> None:
    model, samples = network(seed=3), rows(500)
    targets = blind_targets(model, samples, fairness(), generator=seeded())
    other = samples.inputs.clone()
    other[:, 1] = 4 - other[:, 1]
    assert torch.equal(targets(samples.inputs), targets(other))
    torch.testing.assert_close(targets(other).sum(dim=1), torch.ones(500).double())


def test_a_value_that_one_row_alone_shows_is_no_obstacle() -> None:
    model, inputs = network(seed=3), rows(300).inputs
    inputs[:, 1] = 0
    inputs[:100, 1] = 1
    inputs[0, 1] = 2
    targets = blind_targets(model, Samples(inputs=inputs), fairness(), generator=seeded())
    assert bool(torch.isfinite(targets(inputs)).all())


def test_misuse() -> None:
    with pytest.raises(ValueError, match="train: got no row"):
        blind_targets(network(), rows(3).take(slice(0, 0)), fairness(), generator=seeded())
