from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from carelab.causal import expectation_mean, guilty_neurons, neuron_effects
from carelab.networks import accuracy, fingerprint
from carelab.properties import observed_violations, violation_rate
from carelab.records import Neuron, Samples
from carelab.repair import (
    apply_repair,
    care,
    care_cost,
    particle_swarm,
    scale_neurons,
    undo_repair,
)
from tests.tables import fairness, network, rows, seeded


def case():
    model, fair, train = network(seed=3), fairness(count=5), rows(200)
    given = observed_violations(model, train, fair)
    guilty = guilty_neurons(expectation_mean(neuron_effects(model, given, fair)), count=4)
    return model, train, given, fair, guilty


def test_cost_is_the_papers_for_every_particle() -> None:
    model, train, given, fair, guilty = case()
    factors = torch.rand(7, 4, generator=seeded(1)).double() * 2
    costs = care_cost(model, train, given, fair, guilty, alpha=0.3)(factors)
    for particle in range(7):
        scaled, _ = scale_neurons(model, guilty, factors[particle])
        expected = 0.7 * violation_rate(scaled, given, fair) + 0.3 * (1 - accuracy(scaled, train))
        assert float(costs[particle]) == pytest.approx(expected, abs=1e-12)


def test_repairs_and_never_writes_to_the_model() -> None:
    model, train, given, fair, guilty = case()
    before = fingerprint(model)
    fixed = care(model, train, given, fair, guilty, generator=seeded(5))
    assert fingerprint(model) == before == fixed.network
    assert fixed.before.violation_rate == 1.0
    assert fixed.after.violation_rate < 0.7
    assert fixed.status == "improved"
    assert fixed.seed == 5
    assert bool(((fixed.factors >= 0) & (fixed.factors <= 2)).all())
    cost = 0.7 * fixed.after.violation_rate + 0.3 * (1 - fixed.after.accuracy)
    assert float(fixed.history[-1]) == pytest.approx(cost, abs=1e-9)
    assert fixed.drawdown == fixed.before.accuracy - fixed.after.accuracy


def test_apply_and_undo_are_exact() -> None:
    model, train, given, fair, guilty = case()
    fixed = care(model, train, given, fair, guilty, iterations=20, generator=seeded(5))
    repaired = apply_repair(model, fixed)
    assert fingerprint(repaired) == fixed.repaired != fixed.network
    assert violation_rate(repaired, given, fair) == fixed.after.violation_rate
    assert fingerprint(undo_repair(repaired, fixed)) == fingerprint(model)
    assert not any(module._forward_hooks for module in repaired.modules())
    with pytest.raises(ValueError, match="the network this repair was made for"):
        apply_repair(repaired, fixed)
    with pytest.raises(ValueError, match="the network this repair produced"):
        undo_repair(model, fixed)


def test_a_forged_repair_is_refused() -> None:
    model, train, given, fair, guilty = case()
    fixed = care(model, train, given, fair, guilty, iterations=20, generator=seeded(5))
    edit = fixed.edits[0]
    for forged, message in (
        (replace(edit, parameter="linear9.weight"), "which this network does not have"),
        (replace(edit, axis=7), "edits axis 7"),
        (replace(edit, indices=(99,) * len(edit.indices)), "allowed: 0 to"),
        (replace(edit, before=edit.before[:1], after=edit.after[:1]), "with slices of shape"),
        (replace(edit, after=edit.after + 1), "edits that lead to the repaired network"),
    ):
        with pytest.raises(ValueError, match=message):
            apply_repair(model, replace(fixed, edits=(forged, *fixed.edits[1:])))


def test_same_seed_same_repair() -> None:
    model, train, given, fair, guilty = case()
    one, two = (
        care(model, train, given, fair, guilty, iterations=15, generator=seeded(9))
        for _ in range(2)
    )
    assert one.repaired == two.repaired
    assert torch.equal(one.history, two.history)


def test_a_fair_and_right_model_stays_as_it_is() -> None:
    model, fair, train = network(), fairness(), rows(50)
    with torch.no_grad():
        model.linear1.weight[:, 1] = 0
        labels = model(train.inputs).argmax(dim=1)
    right = Samples(inputs=train.inputs, labels=labels)
    fixed = care(model, right, right, fair, [Neuron("relu1", 0)], generator=seeded())
    assert fixed.status == "unchanged"
    assert fixed.repaired == fixed.network
    assert fixed.factors.tolist() == [1.0]


def test_swarm_finds_a_minimum_inside_the_bounds_and_stops_when_nothing_moves() -> None:
    best, history = particle_swarm(
        lambda x: (x - torch.tensor([0.25, 1.5])).square().sum(dim=1),
        np.ones(2),
        (0.0, 2.0),
        iterations=200,
        patience=30,
        tolerance=1e-6,
        generator=seeded(2),
    )
    np.testing.assert_allclose(best, [0.25, 1.5], atol=0.05)
    assert (np.diff(history) <= 0).all()
    _, flat = particle_swarm(
        lambda x: torch.zeros(len(x), dtype=torch.float64),
        np.ones(2),
        (0.0, 2.0),
        generator=seeded(),
    )
    # The start, then ten iterations without a change.
    assert len(flat) == 11


def test_swarm_follows_the_papers_update() -> None:
    # With c1 = c2 = 0 a particle coasts: its steps shrink by the inertia each iteration.
    seen: list[torch.Tensor] = []

    def cost(positions: torch.Tensor) -> torch.Tensor:
        seen.append(positions.clone())
        return -positions.sum(dim=1)

    particle_swarm(
        cost,
        np.ones(3),
        (-100.0, 100.0),
        particles=4,
        iterations=4,
        inertia=0.5,
        cognitive=0.0,
        social=0.0,
        speed=0.001,
        generator=seeded(),
    )
    assert bool((seen[0] == 1).all())
    steps = [later - earlier for earlier, later in pairwise(seen)]
    for earlier, later in pairwise(steps):
        torch.testing.assert_close(later, 0.5 * earlier)


def test_misuse() -> None:
    model, train, given, fair, guilty = case()
    for knob, message in (
        ({"alpha": 1.5}, "alpha: got 1.5; allowed: 0 to 1"),
        ({"factor_bounds": (2.0, 3.0)}, "holds 1, the identity"),
        ({"particles": 0}, "allowed: 1 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            care(model, train, given, fair, guilty, generator=seeded(), **knob)
    with pytest.raises(ValueError, match="got 200, 0 samples"):
        care(model, train, given.take(slice(0, 0)), fair, guilty, generator=seeded())
    with pytest.raises(ValueError, match="train: got no labels"):
        care(model, Samples(inputs=train.inputs), given, fair, guilty, generator=seeded())
    with pytest.raises(ValueError, match="neurons: got"):
        care(model, train, given, fair, [], generator=seeded())
