import pytest
import torch
from torch import nn

from carelab.networks import accuracy, fingerprint
from carelab.properties import violation_rate
from carelab.repair import hold_constant
from tests.tables import fairness, network, rows


def test_the_label_cannot_depend_on_what_is_held() -> None:
    model, fair, samples = network(seed=3), fairness(count=5), rows(300)
    before = fingerprint(model)
    blind = hold_constant(model, samples, fair)
    assert violation_rate(model, samples, fair) > 0
    assert violation_rate(blind, samples, fair) == 0
    assert fingerprint(model) == before


def test_equals_the_network_that_reads_the_best_constant() -> None:
    model, fair, samples = network(seed=3), fairness(count=5), rows(300)
    blind = hold_constant(model, samples, fair)
    best = 0.0
    for value in fair.values.flatten().tolist():
        inputs = samples.inputs.clone()
        inputs[:, 1] = value
        right = model(inputs).argmax(dim=1) == samples.labels
        if float(right.double().mean()) > best:
            best, expected = float(right.double().mean()), model(inputs)
    assert accuracy(blind, samples) == pytest.approx(best)
    torch.testing.assert_close(blind(samples.inputs), expected)


def test_a_first_layer_without_bias_gets_one() -> None:
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2)).double().eval()
    assert violation_rate(hold_constant(model, rows(50), fairness()), rows(50), fairness()) == 0


def test_misuse() -> None:
    image = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2)).eval()
    with pytest.raises(ValueError, match="begins with Conv2d"):
        hold_constant(image, rows(3), fairness())
    with pytest.raises(ValueError, match="takes 4 features; the property reads column 9"):
        hold_constant(network(), rows(3), fairness(column=9))
