"""What a safety repair achieved: by hand, as laws, and misuse."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from carelab import networks, properties, records, repair

DOMAIN = (torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0]))


def _identity(weights: list[list[float]]) -> torch.nn.Sequential:
    """One linear layer without bias: scores that can be read off."""
    model = torch.nn.Sequential(torch.nn.Linear(2, len(weights), bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(weights))
    return model.eval()


def _part(violating: list[list[float]], satisfying: list[list[float]]) -> properties.SafetyPart:
    return properties.SafetyPart(
        violating=records.Samples(inputs=torch.tensor(violating).reshape(-1, 2)),
        satisfying=records.Samples(inputs=torch.tensor(satisfying).reshape(-1, 2)),
    )


def _trial(part: properties.SafetyPart, repaired: properties.SafetyPart | None = None):
    search = properties.ViolationSearch(
        points=part.violating, status="complete", found_by={}, uniform_share=0.5, tried=1
    )
    return properties.SafetySamples(
        repair=repaired or part,
        selection=part,
        test=part,
        violating=search,
        satisfying=search,
        status="complete",
    )


def test_fidelity_is_the_share_of_the_box_with_the_same_advice():
    # Scores (x, y): advice 0 where x < y. Scores (x, 2 y): advice 0 where x < 2 y.
    # They differ where y < x < 2 y: a quarter of the unit square.
    one, other = _identity([[1.0, 0.0], [0.0, 1.0]]), _identity([[1.0, 0.0], [0.0, 2.0]])
    g = torch.Generator().manual_seed(0)
    share = repair.fidelity(other, one, *DOMAIN, points=40_000, batch_size=7_000, generator=g)
    assert share == pytest.approx(0.75, abs=0.01)


@given(batch_size=st.integers(1, 500))
def test_fidelity_of_a_network_with_itself_is_1_for_any_batch(batch_size):
    g = torch.Generator().manual_seed(0)
    model = networks.mlp(2, (4,), 3, generator=g)
    assert (
        repair.fidelity(model, model, *DOMAIN, points=300, batch_size=batch_size, generator=g) == 1
    )


def test_measures_by_hand():
    # Property: score 0 is never the lowest, unsafe where x <= y. Afterwards score 0 is x + 0.5.
    original = torch.nn.Sequential(torch.nn.Linear(2, 2)).eval()
    with torch.no_grad():
        original[0].weight.copy_(torch.eye(2))
        original[0].bias.zero_()
    model = deepcopy(original)
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([0.5, 0.0]))
    prop = properties.never_lowest(0, 2, low=DOMAIN[0], high=DOMAIN[1])
    # x + 0.5 <= y still violates: (0.1, 0.9) does, (0.4, 0.6) no longer.
    part = _part([[0.1, 0.9], [0.4, 0.6]], [[0.9, 0.1], [0.8, 0.2]])
    seen = _part([[0.4, 0.6]], [[0.9, 0.1]])
    g = torch.Generator().manual_seed(0)
    measured = repair.measure_safety(
        model, original, _trial(part, seen), prop, DOMAIN, points=40_000, generator=g
    )
    assert measured.violation_rate == 0.5
    assert measured.generalization == 0.5
    assert measured.repair_success_rate == 1.0
    assert measured.kept == 1.0
    assert measured.advisories_kept_satisfying == 1.0
    # Advice changes where x < y < x + 0.5: 1/2 - 1/8 of the square.
    assert measured.fidelity_domain == pytest.approx(0.625, abs=0.01)
    assert measured.fidelity_box == pytest.approx(0.625, abs=0.01)
    assert measured.fidelity_constant == pytest.approx(0.5, abs=0.01)
    assert measured.largest_change == pytest.approx(0.5, abs=1e-6)
    assert measured.weights_changed == pytest.approx(1 / 6)


def test_several_networks_are_measured_at_the_same_points():
    g = torch.Generator().manual_seed(0)
    model = networks.mlp(2, (4,), 3, generator=g)
    other, _ = repair.scale_neurons(model, networks.hidden_neurons(model)[:1], torch.zeros(1))
    prop = properties.never_lowest(0, 3, low=DOMAIN[0], high=DOMAIN[1])
    trial = _trial(_part([[0.1, 0.9]], [[0.9, 0.1]]))
    both = repair.measure_safety_of(
        {"same": model, "twice": other, "again": other},
        model,
        trial,
        prop,
        DOMAIN,
        points=500,
        generator=g,
    )
    assert both["same"].fidelity_domain == 1
    assert both["same"].largest_change == 0
    assert both["twice"] == both["again"]


def test_rates_of_points_that_do_not_exist_are_none():
    g = torch.Generator().manual_seed(0)
    model = networks.mlp(2, (4,), 3, generator=g)
    prop = properties.never_lowest(0, 3, low=DOMAIN[0], high=DOMAIN[1])
    trial = _trial(_part([], []))
    measured = repair.measure_safety(model, model, trial, prop, DOMAIN, points=10, generator=g)
    assert measured.violation_rate is None
    assert measured.generalization is None
    assert measured.kept is None


def test_misuse():
    g = torch.Generator().manual_seed(0)
    model, wider = networks.mlp(2, (4,), 3, generator=g), networks.mlp(2, (4,), 4, generator=g)
    with pytest.raises(ValueError, match="points: got 0; allowed: 1 or more"):
        repair.fidelity(model, model, *DOMAIN, points=0, generator=g)
    with pytest.raises(ValueError, match="batch_size: got 0; allowed: 1 or more"):
        repair.fidelity(model, model, *DOMAIN, points=5, batch_size=0, generator=g)
    with pytest.raises(ValueError, match="got 4 and 3 outputs"):
        repair.fidelity(wider, model, *DOMAIN, points=5, generator=g)
    with pytest.raises(ValueError, match="allowed: the same layout"):
        repair.weights_changed(wider, model)
