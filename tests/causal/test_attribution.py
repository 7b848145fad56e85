from __future__ import annotations

import pytest
import torch

from carelab.causal.attribution import gradient_activation_effects, integrated_gradient_effects
from carelab.causal.shapley import probe_pairs
from carelab.networks import cnn, hidden_neurons, split
from carelab.properties import violation_scores
from carelab.records import Evidence, Neuron, Samples, WholeLayer
from tests.faults import LowLogit, backup_evidence, backup_network
from tests.tables import fairness, network, rows, seeded


def evidence_of(samples: Samples) -> Evidence:
    return Evidence(violating=samples, references=samples, passing=samples)


def test_the_gradient_by_hand() -> None:
    # At a = 1 both g are above 0, so dy/dh0 = 1 - 1 = 0: a saturated fault has no gradient.
    # dy/dg = (1, -1) and g = (2, 1), so the second layer shows 2 and -1.
    effects = gradient_activation_effects(backup_network(), backup_evidence(), LowLogit())
    expected = torch.tensor([0.0, 0, 0, 2, -1], dtype=torch.float64)
    torch.testing.assert_close(effects.effect, expected)
    torch.testing.assert_close(effects.standard_error, torch.zeros(5, dtype=torch.float64))


def test_integrated_gradients_by_hand() -> None:
    # On the way h0 = h1 = t the score is min(1, 2 t): gradient 1 for t < 1/2, then 0.
    effects = integrated_gradient_effects(
        backup_network(), backup_evidence(), LowLogit(), steps=200
    )
    expected = torch.tensor([0.5, 0.5, 0, 2, -1], dtype=torch.float64)
    torch.testing.assert_close(effects.effect, expected, atol=0.01, rtol=0)


def test_the_gradient_against_autograd_with_several_probes() -> None:
    model, samples, prop = network(widths=(5, 4)), rows(30), fairness()
    effects = gradient_activation_effects(model, evidence_of(samples), prop, batch_size=7)
    prefix, suffix = split(model, "relu2")
    probes = prop.probes(samples.inputs)
    hidden = prefix(probes.flatten(0, 1)).detach().requires_grad_()
    prop.score(suffix(hidden).unflatten(0, probes.shape[:2]), samples).sum().backward()
    product = (hidden.grad * hidden).detach().unflatten(0, probes.shape[:2]).sum(dim=0)
    torch.testing.assert_close(effects.effect[-4:], product.mean(dim=0))
    deviation = product.std(dim=0) / 30**0.5
    torch.testing.assert_close(effects.standard_error[-4:], deviation)


def test_integrated_gradients_add_up_to_the_total_effect() -> None:
    model, samples, prop = network(seed=2), rows(25), fairness()
    effects = integrated_gradient_effects(
        model, evidence_of(samples), prop, steps=300, batch_size=6
    )
    total = violation_scores(model, samples, prop).mean()
    for layer in ("relu1", "relu2", "relu3"):
        members = [row for row, unit in enumerate(effects.units) if unit.layer == layer]
        torch.testing.assert_close(effects.effect[members].sum(), total, atol=0.01, rtol=0)


def test_a_channel_is_the_sum_of_its_positions() -> None:
    model = cnn((1, 4, 4), (3,), (5,), 2, generator=seeded()).double()
    evidence = evidence_of(Samples(inputs=torch.rand(6, 1, 4, 4, generator=seeded(1)).double()))
    channels = [Neuron("relu1", index) for index in range(3)]
    positions = [Neuron("relu1", i, (j, k)) for i in range(3) for j in range(4) for k in range(4)]
    units = (WholeLayer("relu1"), *channels, *positions)
    found = gradient_activation_effects(model, evidence, LowLogit(), units=units).effect
    torch.testing.assert_close(found[1:4], found[4:].unflatten(0, (3, 16)).sum(dim=1))
    torch.testing.assert_close(found[0], found[1:4].sum())


def test_a_neuron_that_feeds_nothing_and_the_network_afterwards() -> None:
    model = backup_network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for effects in (
        gradient_activation_effects(model, backup_evidence(), LowLogit()),
        integrated_gradient_effects(model, backup_evidence(), LowLogit()),
    ):
        assert effects.units == hidden_neurons(model)
        assert effects.effect[2] == 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_probe_pairs_of_one_and_of_several_probes() -> None:
    evidence = backup_evidence()
    own, without = probe_pairs(evidence, LowLogit())
    assert torch.equal(own[0], evidence.violating.inputs)
    assert torch.equal(without[0], evidence.references.inputs)
    own, without = probe_pairs(evidence, fairness(column=0, count=2))
    assert torch.equal(own[1:, :, 0], torch.tensor([[0.0], [1.0]]).expand(2, 6).double())
    assert all(torch.equal(probe, evidence.violating.inputs) for probe in without)


def test_misuse() -> None:
    model, evidence = backup_network(), backup_evidence()
    with pytest.raises(ValueError, match="steps: got 0"):
        integrated_gradient_effects(model, evidence, LowLogit(), steps=0)
    with pytest.raises(ValueError, match="layer: got 'relu9'"):
        gradient_activation_effects(model, evidence, LowLogit(), units=[WholeLayer("relu9")])
    with pytest.raises(ValueError, match="got relu1\\[3\\]; allowed"):
        gradient_activation_effects(model, evidence, LowLogit(), units=[Neuron("relu1", 3)])
    with pytest.raises(ValueError, match="units, batch_size: got 0 units"):
        gradient_activation_effects(model, evidence, LowLogit(), units=[])
    with pytest.raises(ValueError, match="training mode"):
        gradient_activation_effects(backup_network().train(), evidence, LowLogit())
