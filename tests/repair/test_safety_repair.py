"""Repairs of controllers: CARE's swarm over satisfying points, and the gradient repair."""

from __future__ import annotations

import pytest
import torch

from carelab import networks, properties, records, repair
from carelab.repair.safety_repair import as_classifier

LOW, HIGH = torch.zeros(2), torch.ones(2)


def _controller() -> torch.nn.Module:
    """Advice 0 where x < y, 1 elsewhere, by one neuron for each: scores (relu x, relu y, 9)."""
    model = networks.mlp(2, (3,), 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.linear1.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        model.linear1.bias.zero_()
        model.linear2.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0]]))
        model.linear2.bias.copy_(torch.tensor([0.0, 0.0, 9.0]))
    return model


def _points(count: int = 600) -> records.Samples:
    return records.Samples(inputs=torch.rand(count, 2, generator=torch.Generator().manual_seed(1)))


def _sides(model, prop):
    """Points of the box at which the property is violated, and those at which it is not."""
    points = _points()
    unsafe = properties.violates(model, points, prop)
    return points.take(unsafe), points.take(~unsafe)


def _near_the_corner() -> properties.OutputRegions:
    """In the corner x < 0.3, y > 0.7, where advice 0 is given, advice 1 is to be given."""
    box = {"low": torch.tensor([0.0, 0.7]), "high": torch.tensor([0.3, 1.0])}
    return properties.required_lowest([1], 3, **box)


def test_care_scales_the_neuron_until_nothing_violates():
    model = _controller()
    prop = properties.OutputRegions(regions=(properties.never_lowest(0, 3, low=LOW, high=HIGH),))
    bad, good = _sides(model, prop)
    # Advice 0 is out once score 0 is above score 1 everywhere: the factor of y below 0.
    fixed = repair.care_safety(
        model,
        bad,
        good,
        prop,
        [records.Neuron("relu1", 1)],
        generator=torch.Generator().manual_seed(0),
    )
    assert fixed.before.violation_rate == 1
    assert fixed.before.accuracy == 1
    assert fixed.after.violation_rate == 0
    assert float(fixed.factors[0]) < 0.1
    repaired = repair.apply_repair(model, fixed)
    assert properties.violation_rate(repaired, bad, prop) == 0
    assert torch.equal(
        torch.nn.utils.parameters_to_vector(repair.undo_repair(repaired, fixed).parameters()),
        torch.nn.utils.parameters_to_vector(model.parameters()),
    )


def test_alpha_1_keeps_the_network():
    model, prop = _controller(), _near_the_corner()
    corner = records.Samples(inputs=_points().inputs * 0.3 + torch.tensor([0.0, 0.7]))
    fixed = repair.care_safety(
        model,
        corner,
        records.Samples(inputs=_points().inputs.flip(0)),
        properties.never_lowest(0, 3),
        [records.Neuron("relu1", 2)],
        alpha=1.0,
        iterations=3,
        generator=torch.Generator().manual_seed(0),
    )
    assert prop.name
    assert fixed.status == "unchanged"
    assert fixed.repaired == fixed.network


def test_the_gradient_repair_satisfies_the_property_and_keeps_other_advice():
    g = torch.Generator().manual_seed(0)
    points = _points(3000)
    labels = (points.inputs[:, 0] > points.inputs[:, 1]).long()
    start = networks.mlp(2, (16, 16), 3, generator=g)
    learned = networks.fit(
        start,
        records.Samples(inputs=points.inputs, labels=labels),
        epochs=12,
        learning_rate=1e-2,
        generator=g,
    )
    model, prop = as_classifier(learned, -8), _near_the_corner()
    corner = records.Samples(inputs=_points(400).inputs * 0.3 + torch.tensor([0.0, 0.7]))
    assert properties.violation_rate(model, corner, prop) == 1
    weights = [parameter.clone() for parameter in model.parameters()]
    fixed = repair.repair_safety(
        model,
        networks.hidden_neurons(model),
        corner.take(slice(0, 300)),
        [],
        [points],
        prop,
        incoming=True,
        weight=2.0,
        steps=500,
        learning_rate=2e-2,
        generator=g,
    )
    repaired = repair.apply_repair(model, fixed)
    assert fixed.before.violation_rate == 1
    assert properties.violation_rate(repaired, corner.take(slice(300, 400)), prop) < 0.1
    outside = points.inputs[(points.inputs[:, 0] > 0.4) | (points.inputs[:, 1] < 0.6)]
    same = model(outside).argmin(1) == repaired(outside).argmin(1)
    assert float(same.double().mean()) > 0.9
    # The network given stays as it is, bit for bit.
    assert all(map(torch.equal, weights, model.parameters()))


def test_only_columns_change_unless_rows_are_asked_for():
    model, prop = _controller(), properties.never_lowest(0, 3, low=LOW, high=HIGH)
    bad, good = _sides(model, prop)
    one = [records.Neuron("relu1", 1)]
    for incoming, expected in ((False, {"linear2.weight"}), (True, None)):
        fixed = repair.repair_safety(
            model,
            one,
            bad,
            [],
            [good],
            prop,
            incoming=incoming,
            steps=5,
            generator=torch.Generator().manual_seed(0),
        )
        changed = {edit.parameter for edit in fixed.edits}
        assert changed == (expected or {"linear1.weight", "linear1.bias", "linear2.weight"})


def test_a_network_turned_into_a_classifier_and_back_is_the_same_bit_for_bit():
    model = networks.mlp(3, (5,), 4, generator=torch.Generator().manual_seed(3))
    turned = as_classifier(model, 9)
    assert torch.equal(turned.linear2.weight, model.linear2.weight * -512)
    inputs = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(turned(inputs).argmax(1), model(inputs).argmin(1))
    with torch.no_grad():
        back = turned.linear2.weight * -(2.0**-9)
    assert torch.equal(back, model.linear2.weight)


def test_the_nearest_safe_advice_is_the_first_that_satisfies():
    model = torch.nn.Sequential(torch.nn.Identity()).eval()
    rows = records.Samples(inputs=torch.tensor([[1.0, 3.0, 2.0], [2.0, 1.0, 3.0]]))
    never_0 = properties.never_lowest(0, 3)
    assert repair.nearest_safe_advice(model, rows, never_0).tolist() == [2, 1]
    # Advice 0 has the highest score, which only giving it mends.
    highest = records.Samples(inputs=torch.tensor([[9.0, 3.0, 2.0]]))
    prop = properties.forbidden_class(0, 3)
    assert repair.nearest_safe_advice(model, highest, prop).tolist() == [0]


def test_misuse():
    model, prop = _controller(), properties.never_lowest(0, 3, low=LOW, high=HIGH)
    bad, good = _sides(model, prop)
    none, g = bad.take(slice(0, 0)), torch.Generator()
    one = [records.Neuron("relu1", 0)]
    with pytest.raises(ValueError, match="violating, satisfying, guilty: got 0, "):
        repair.care_safety(model, none, good, prop, one, generator=g)
    with pytest.raises(ValueError, match="alpha: got 1\\.5; allowed: 0 to 1"):
        repair.care_safety(model, bad, good, prop, one, alpha=1.5, generator=g)
    with pytest.raises(ValueError, match=r"factor_bounds: got .* the identity"):
        repair.care_safety(model, bad, good, prop, one, factor_bounds=(2.0, 3.0), generator=g)
    with pytest.raises(ValueError, match="got 0 points, 1 groups"):
        repair.repair_safety(model, one, none, [], [good], prop, generator=g)
    with pytest.raises(ValueError, match="kept: got a group that violates everywhere"):
        repair.repair_safety(model, one, bad, [], [bad], prop, generator=g)
    with pytest.raises(ValueError, match="sharpness: got 30; allowed: -20 to 20"):
        as_classifier(model, 30)
    with pytest.raises(ValueError, match="ends with ReLU"):
        as_classifier(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()))
