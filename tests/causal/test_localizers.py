from __future__ import annotations

import pytest
import torch

from carelab.causal.localizers import LOCALIZERS, Localizer
from carelab.causal.magnitude import weight_magnitudes
from carelab.networks import cnn, hidden_layers, hidden_neurons, mlp, residual_network
from carelab.records import Evidence, Neuron, Samples, WholeLayer
from tests.faults import LowLogit, backup_evidence, backup_network
from tests.tables import fairness, network, rows, seeded

NAMES = list(LOCALIZERS)
WITHOUT_SAMPLES = {"magnitude", "random"}
DRAWING = {"random", "shapley_patching", "selective_patching", "selective_gradients"}
# These hold a unit at one number, or read its own weights.
OF_NEURONS_ALONE = {"care_mean", "care_range", "mediation_drop", "magnitude"}


def evidence_of(violating: Samples, references: Samples) -> Evidence:
    return Evidence(violating=violating, references=references, passing=references)


every_localizer = pytest.mark.parametrize("name", NAMES)


@every_localizer
@pytest.mark.parametrize("several", [False, True], ids=["one probe", "several probes"])
def test_every_localizer_ranks_every_neuron(name: str, several: bool) -> None:
    model, prop = network(), fairness() if several else LowLogit()
    evidence = evidence_of(rows(30), rows(30, seed=1))
    found = LOCALIZERS[name](model, evidence, prop, generator=seeded())
    assert isinstance(LOCALIZERS[name], Localizer)
    assert found.units == hidden_neurons(model)
    assert bool(found.effect.isfinite().all())
    assert bool(found.covariance.isfinite().all())
    assert bool((found.standard_error > 0).any()) == (name not in WITHOUT_SAMPLES)
    assert len(found.effect.unique()) > 3


@every_localizer
def test_a_localizer_ranks_the_units_asked_for(name: str) -> None:
    model, evidence = network(), evidence_of(rows(30), rows(30, seed=1))
    units = [Neuron("relu2", 3), Neuron("relu1", 0)]
    found = LOCALIZERS[name](model, evidence, fairness(), units=units, generator=seeded())
    assert found.units == tuple(units)
    if name not in DRAWING:
        everything = LOCALIZERS[name](model, evidence, fairness(), generator=seeded())
        places = [everything.units.index(unit) for unit in units]
        torch.testing.assert_close(found.effect, everything.effect[places])


@every_localizer
def test_a_localizer_leaves_the_network_alone(name: str) -> None:
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    LOCALIZERS[name](model, evidence_of(rows(9), rows(9)), fairness(), generator=seeded())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@every_localizer
def test_positions_and_layers_are_ranked_or_refused(name: str) -> None:
    model = cnn((1, 4, 4), (3,), (5,), 2, generator=seeded()).double()
    images = Samples(inputs=torch.rand(6, 1, 4, 4, generator=seeded(1)).double())
    others = Samples(inputs=torch.rand(6, 1, 4, 4, generator=seeded(2)).double())
    evidence = evidence_of(images, others)
    channels = LOCALIZERS[name](model, evidence, LowLogit(), generator=seeded())
    assert channels.units == hidden_neurons(model)
    units = [WholeLayer("relu1"), Neuron("relu1", 1, (2, 3)), Neuron("relu2", 0)]
    if name in OF_NEURONS_ALONE:
        with pytest.raises(ValueError, match=r"units: got .*; allowed: single neurons"):
            LOCALIZERS[name](model, evidence, LowLogit(), units=units, generator=seeded())
    else:
        found = LOCALIZERS[name](model, evidence, LowLogit(), units=units, generator=seeded())
        assert found.units == tuple(units)


def test_the_backup_by_hand() -> None:
    # Either of h0 and h1 is enough: curing one shows nothing, infecting one shows all of it, and
    # Shapley patching half. No gradient is left where the fault is full.
    model, evidence = backup_network(), backup_evidence()

    def first(name: str) -> float:
        return float(LOCALIZERS[name](model, evidence, LowLogit(), generator=seeded()).effect[0])

    assert first("patching") == 0
    assert first("patching_gain") == pytest.approx(1)
    assert first("patching_both") == pytest.approx(0.5)
    assert first("shapley_patching") == pytest.approx(0.5)
    assert first("zero_ablation") == 0
    assert first("mean_ablation") == 0
    assert first("gradient_activation") == 0
    assert first("integrated_gradients") == pytest.approx(0.5, abs=0.05)
    assert first("tarantula") == 1


def test_a_property_with_several_probes_needs_no_references() -> None:
    model, prop, violating = network(), fairness(), rows(30)
    for name in ("patching", "patching_gain", "patching_both", "shapley_patching"):
        first, second = (
            LOCALIZERS[name](model, evidence_of(violating, other), prop, generator=seeded())
            for other in (rows(30, seed=1), rows(30, seed=2))
        )
        assert torch.equal(first.effect, second.effect)


def test_the_random_order_comes_from_the_generator() -> None:
    model, evidence = network(), evidence_of(rows(9), rows(9))
    effects = [
        LOCALIZERS["random"](model, evidence, fairness(), generator=seeded(seed)).effect
        for seed in (0, 0, 1)
    ]
    assert torch.equal(effects[0], effects[1])
    assert not torch.equal(effects[0], effects[2])


def test_magnitudes_by_hand() -> None:
    # h0: incoming (1, 0), bias 0, norm 1; outgoing (1, 1), norm sqrt 2. h2 feeds nothing. g1:
    # incoming (1, 1, 0), bias -1, norm sqrt 3; outgoing (0, -1), norm 1.
    found = weight_magnitudes(backup_network())
    expected = torch.tensor([2**0.5, 2**0.5, 0, 2**0.5, 3**0.5], dtype=torch.float64)
    torch.testing.assert_close(found.effect, expected)
    assert found.samples == 0


def test_magnitudes_of_channels_and_of_a_rescaled_neuron() -> None:
    model = cnn((1, 4, 4), (3,), (5,), 2, generator=seeded()).double()
    found = weight_magnitudes(model)
    incoming = model.conv1.weight[1].square().sum() + model.conv1.bias[1].square()
    outgoing = model.linear1.weight.unflatten(1, (3, 4))[:, 1].square().sum()
    torch.testing.assert_close(found.effect[1], (incoming * outgoing).sqrt().detach())
    with torch.no_grad():
        model.linear1.weight[2] *= 5
        model.linear1.bias[2] *= 5
        model.linear2.weight[:, 2] /= 5
    # Its own number stays; those of the channels that it reads do not.
    torch.testing.assert_close(weight_magnitudes(model).effect[3:], found.effect[3:])


def test_magnitudes_that_cannot_be_told() -> None:
    model = mlp(2, (3,), 2, generator=seeded())
    with pytest.raises(ValueError, match="allowed: relu1\\[0\\] to relu1\\[2\\]"):
        weight_magnitudes(model, units=[Neuron("relu1", 3)])
    with pytest.raises(ValueError, match="units: got relu1; allowed: single neurons"):
        weight_magnitudes(model, units=[WholeLayer("relu1")])
    residual = residual_network((1, 4, 4), (2,), 1, 2, generator=seeded())
    first = next(iter(hidden_layers(residual)))
    with pytest.raises(ValueError, match="allowed: an activation that a Linear or Conv2d layer"):
        weight_magnitudes(residual, units=[Neuron(first, 0)])
