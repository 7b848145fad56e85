from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.causal.spectrum import (
    ochiai,
    ochiai_effects,
    tarantula,
    tarantula_effects,
    unit_activity,
)
from carelab.networks import cnn
from carelab.records import Evidence, Neuron, Samples, WholeLayer
from tests.faults import LowLogit, backup_evidence, backup_network
from tests.tables import network, rows, seeded


def test_the_formulas_by_hand() -> None:
    # Active on 3/4 of the violating and 1/4 of the passing samples: 3/4 / (3/4 + 1/4) and
    # 3/4 / sqrt(3/4 + 1/4). Never active: 0, not 0 / 0.
    violating, passing = torch.tensor([0.75, 0.0, 0.0]), torch.tensor([0.25, 0.5, 0.0])
    torch.testing.assert_close(tarantula(violating, passing), torch.tensor([0.75, 0.0, 0.0]))
    torch.testing.assert_close(ochiai(violating, passing), torch.tensor([0.75, 0.0, 0.0]))
    torch.testing.assert_close(
        ochiai(torch.tensor([0.5]), torch.tensor([0.0])), torch.tensor([0.5**0.5])
    )


def test_the_network_by_hand() -> None:
    # h0, h1 and both g are above their means on all violating samples and on no passing one; h2
    # reads b, 0 to 5 against 1 to 6, mean 3: active on b = 4, 5 and on b = 4, 5, 6.
    model, evidence = backup_network(), backup_evidence()
    found = tarantula_effects(model, evidence, LowLogit())
    expected = torch.tensor([1, 1, (2 / 6) / (5 / 6), 1, 1], dtype=torch.float64)
    torch.testing.assert_close(found.effect, expected)
    # Variances of the shares 2/6 and 3/6 of 6 samples each, slopes p / (v + p)^2 and -v / (...).
    v, p = 2 / 6, 3 / 6
    variance = (p**2 * v * (1 - v) + v**2 * p * (1 - p)) / (v + p) ** 4 / 5
    torch.testing.assert_close(found.standard_error[2].item(), variance**0.5)
    assert found.standard_error[0] == 0
    angle = ochiai_effects(model, evidence, LowLogit()).effect
    torch.testing.assert_close(angle[2].item(), v / (v + p) ** 0.5)


@settings(max_examples=15)
@given(seed=st.integers(0, 1000))
def test_the_order_of_samples_and_the_scale_of_a_neuron_do_not_matter(seed: int) -> None:
    model, violating, passing = network(seed=seed), rows(30, seed=seed), rows(40, seed=seed + 1)
    first = tarantula_effects(
        model, Evidence(violating=violating, references=violating, passing=passing), LowLogit()
    )
    order = torch.randperm(30, generator=seeded(seed))
    shuffled = violating.take(order)
    with torch.no_grad():
        model[0].weight[0] *= 3
        model[0].bias[0] *= 3
    relu1 = [unit for unit in first.units if unit.layer == "relu1"]
    second = tarantula_effects(
        model,
        Evidence(violating=shuffled, references=shuffled, passing=passing),
        LowLogit(),
        units=relu1,
    )
    torch.testing.assert_close(first.effect[: len(relu1)], second.effect)
    torch.testing.assert_close(
        first.covariance[: len(relu1), : len(relu1)], second.covariance, atol=1e-12, rtol=1e-9
    )


def test_the_errors_are_those_of_drawing_samples_anew() -> None:
    model, prop = network(), LowLogit()
    draws = []
    for seed in range(200):
        violating, passing = rows(80, seed=2 * seed), rows(60, seed=2 * seed + 1)
        evidence = Evidence(violating=violating, references=violating, passing=passing)
        draws.append(ochiai_effects(model, evidence, prop))
    spread = torch.stack([one.effect for one in draws]).std(dim=0)
    stated = torch.stack([one.standard_error for one in draws]).mean(dim=0)
    alive = stated > 1e-6
    assert int(alive.sum()) >= 8
    # The threshold moves with the samples too, which the delta method takes as given.
    ratio = spread[alive] / stated[alive]
    assert float(ratio.min()) > 0.5
    assert float(ratio.max()) < 1.5


def test_a_channel_responds_as_its_strongest_position() -> None:
    model = cnn((1, 4, 4), (3,), (5,), 2, generator=seeded()).double()
    images = Samples(inputs=torch.rand(6, 1, 4, 4, generator=seeded(1)).double())
    maps = model.relu1(model.conv1(images.inputs)).detach()
    found = unit_activity(
        model, images, [Neuron("relu1", 2), Neuron("relu1", 2, (1, 3)), WholeLayer("relu1")]
    )
    torch.testing.assert_close(
        found,
        torch.stack([maps[:, 2].amax(dim=(1, 2)), maps[:, 2, 1, 3], maps.amax(dim=(1, 2, 3))]),
    )


def test_misuse() -> None:
    model, evidence = backup_network(), backup_evidence()
    with pytest.raises(ValueError, match="units: got none"):
        tarantula_effects(model, evidence, LowLogit(), units=[])
    with pytest.raises(ValueError, match="layer: got 'relu9'"):
        ochiai_effects(model, evidence, LowLogit(), units=[Neuron("relu9", 0)])
    with pytest.raises(ValueError, match="got relu2\\[5\\]; allowed"):
        ochiai_effects(model, evidence, LowLogit(), units=[Neuron("relu2", 5)])
    with pytest.raises(ValueError, match="training mode"):
        tarantula_effects(backup_network().train(), evidence, LowLogit())
    lone = Evidence(
        violating=evidence.violating.take(slice(0, 1)),
        references=evidence.references.take(slice(0, 1)),
        passing=evidence.passing,
    )
    with pytest.raises(ValueError, match="samples: got 1"):
        tarantula_effects(model, lone, LowLogit())
