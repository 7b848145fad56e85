from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.causal.shapley import probe_pairs, shapley_effects
from carelab.networks import cnn, hidden_neurons
from carelab.properties import Property, violation_scores
from carelab.records import Evidence, Neuron, Samples, WholeLayer
from tests.faults import LowLogit, backup_evidence, backup_network
from tests.reference.shapley import shapley_by_coalitions
from tests.tables import fairness, network, rows, seeded


def evidence_of(violating: Samples, references: Samples) -> Evidence:
    return Evidence(violating=violating, references=references, passing=references)


def total_effect(model: torch.nn.Module, evidence: Evidence, prop: Property) -> torch.Tensor:
    """Mean of y with the cause minus y without it."""
    own = violation_scores(model, evidence.violating, prop)
    if len(prop.probes(evidence.violating.inputs[:1])) > 1:
        return own.mean()
    return (own - violation_scores(model, evidence.references, prop)).mean()


def test_by_hand() -> None:
    # v(nobody) = 0, v(h0) = v(h1) = v(both) = 1: half each, and nothing for the neuron without
    # outgoing weights. In the second layer v(g0) = 2, v(g1) = -1, v(both) = 1.
    effects = shapley_effects(
        backup_network(), backup_evidence(), LowLogit(), orders=4, generator=seeded()
    )
    expected = torch.tensor([0.5, 0.5, 0.0, 2.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(effects.effect, expected, atol=1e-12, rtol=0)
    assert effects.effect[2] == 0
    assert effects.standard_error.max() < 1e-12
    assert effects.samples == 6


@pytest.mark.parametrize("prop", [LowLogit(), fairness()], ids=["one probe", "several probes"])
def test_against_every_coalition(prop: Property) -> None:
    model, violating, references = network(widths=(5, 4)), rows(20), rows(20, seed=1)
    evidence = evidence_of(violating, references)
    effects = shapley_effects(model, evidence, prop, orders=200, generator=seeded())
    for layer in ("relu1", "relu2"):
        units = hidden_neurons(model, layers=[layer])
        exact = shapley_by_coalitions(model, violating, *probe_pairs(evidence, prop), prop, units)
        found = effects.effect[[effects.units.index(unit) for unit in units]]
        torch.testing.assert_close(
            found, exact.mean(dim=1), atol=0.05 * float(exact.abs().max()), rtol=0
        )


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), batch_size=st.sampled_from([1, 7, 64, 10_000]))
def test_each_layer_adds_up_to_the_total_effect(seed: int, batch_size: int) -> None:
    model, prop = network(seed=seed), fairness()
    evidence = evidence_of(rows(12, seed=seed), rows(12, seed=seed + 1))
    total = total_effect(model, evidence, prop)
    effects = shapley_effects(
        model, evidence, prop, orders=2, batch_size=batch_size, generator=seeded(seed)
    )
    for layer in ("relu1", "relu2", "relu3"):
        members = [row for row, unit in enumerate(effects.units) if unit.layer == layer]
        torch.testing.assert_close(effects.effect[members].sum(), total, atol=1e-10, rtol=0)


def test_channels_positions_and_layers_share_the_same_total() -> None:
    model = cnn((1, 4, 4), (3,), (5,), 2, generator=seeded()).double()
    images = torch.rand(6, 1, 4, 4, generator=seeded(1)).double()
    triggered = images.clone()
    triggered[:, :, :2, :2] = 1
    evidence = evidence_of(Samples(inputs=triggered), Samples(inputs=images))
    channels = [Neuron("relu1", index) for index in range(3)]
    positions = [Neuron("relu1", i, (j, k)) for i in range(3) for j in range(4) for k in range(4)]
    units = (WholeLayer("relu1"), *channels, *positions)
    found = shapley_effects(
        model, evidence, LowLogit(), units=units, orders=2, generator=seeded()
    ).effect
    total = total_effect(model, evidence, LowLogit())
    for part in (found[:1], found[1:4], found[4:]):
        torch.testing.assert_close(part.sum(), total, atol=1e-10, rtol=0)


def test_units_not_asked_for_join_as_one() -> None:
    # Asked for h0 alone, the rest {h1, h2} is the other player: half each again.
    one = shapley_effects(
        backup_network(),
        backup_evidence(),
        LowLogit(),
        units=[Neuron("relu1", 0)],
        generator=seeded(),
    )
    torch.testing.assert_close(one.effect, torch.tensor([0.5], dtype=torch.float64))


def test_the_same_generator_gives_the_same_effects() -> None:
    model, evidence = network(), evidence_of(rows(9), rows(9))
    first, second = (
        shapley_effects(model, evidence, fairness(), generator=seeded(3)) for _ in range(2)
    )
    assert torch.equal(first.effect, second.effect)
    assert torch.equal(first.covariance, second.covariance)


def test_misuse() -> None:
    model, evidence = backup_network(), backup_evidence()
    with pytest.raises(ValueError, match="orders, batch_size: got 3"):
        shapley_effects(model, evidence, LowLogit(), orders=3, generator=seeded())
    with pytest.raises(ValueError, match="layer: got 'relu9'; allowed: linear1"):
        shapley_effects(model, evidence, LowLogit(), units=[Neuron("relu9", 0)], generator=seeded())
    with pytest.raises(ValueError, match="got relu1\\[7\\]; allowed"):
        shapley_effects(model, evidence, LowLogit(), units=[Neuron("relu1", 7)], generator=seeded())
    with pytest.raises(ValueError, match="units: got 0"):
        shapley_effects(model, evidence, LowLogit(), units=[], generator=seeded())
    with pytest.raises(ValueError, match="training mode"):
        shapley_effects(backup_network().train(), evidence, LowLogit(), generator=seeded())
    wide = evidence_of(evidence.violating, Samples(inputs=torch.rand(6, 3).double()))
    with pytest.raises(ValueError, match="references: got inputs of shape \\(3,\\)"):
        shapley_effects(model, wide, LowLogit(), generator=seeded())
