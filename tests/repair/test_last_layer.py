from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from torch import nn

from carelab.networks import fingerprint
from carelab.records import Neuron, Samples
from carelab.repair import (
    Constraints,
    box_constraints,
    last_layer,
    least_change,
    point_constraints,
)
from tests.repair.regions import HIGH, LOW, controller, never_worst
from tests.tables import seeded


def domain(count: int = 200) -> torch.Tensor:
    return LOW + (HIGH - LOW) * torch.rand(count, 2, generator=seeded(5), dtype=torch.float64)


def test_features_are_those_of_the_network() -> None:
    model, inputs = controller(), domain()
    layer = last_layer(model, never_worst(), inputs)
    scores = layer.features(inputs) @ layer.weights.T
    torch.testing.assert_close(scores.float(), model(inputs.float()), atol=1e-5, rtol=0)


def test_a_change_becomes_the_weights_of_a_copy() -> None:
    model = controller()
    before = fingerprint(model)
    layer = last_layer(model, never_worst(), domain())
    change = layer.change(np.arange(len(layer.cost), dtype=np.float64))
    changed = layer.network(change)
    assert fingerprint(model) == before
    rows = (changed[-1].weight != model[-1].weight).any(dim=1) | (
        changed[-1].bias != model[-1].bias
    )
    assert tuple(rows.nonzero()[:, 0].tolist()) == layer.outputs


def test_only_outgoing_weights_of_the_neurons_change() -> None:
    model = controller()
    neurons = [Neuron("relu2", 3), Neuron("relu2", 1)]
    layer = last_layer(model, never_worst(), domain(), neurons=neurons)
    changed = layer.network(layer.change(np.ones(len(layer.cost))))
    columns = (changed[-1].weight != model[-1].weight).any(dim=0).nonzero()[:, 0]
    assert columns.tolist() == [1, 3]


@given(seed=st.integers(0, 50), size=st.floats(0, 2))
def test_a_point_is_as_far_out_as_its_constraint_says(seed: int, size: float) -> None:
    model, prop = controller(seed), never_worst()
    layer = last_layer(model, prop, domain(50))
    points = domain(20) / 2
    zero = torch.zeros_like(layer.weights)
    needs = point_constraints(layer, layer.features(points), zero, 1e3)
    free = size * np.random.default_rng(seed).normal(size=len(layer.cost))
    slack = needs.rows @ free - needs.limits + 1e3
    move = layer.moves[0]
    scores = layer.features(points) @ (layer.weights + layer.change(free)).T
    by_row = scores @ prop.matrix.double().T
    # Each point has the constraint of the row that it missed least before the change.
    first = layer.features(points) @ layer.weights.T @ prop.matrix.double().T
    first[:, ~move.rows] = -torch.inf
    expected = by_row.gather(1, first.argmax(dim=1, keepdim=True))[:, 0]
    np.testing.assert_allclose(np.sort(slack), np.sort(expected.numpy()), atol=1e-9)


def test_the_cheapest_change_by_hand() -> None:
    # Minimise 1/2 (2 a^2 + 8 b^2) with a + b >= 1: a = 4 b, so a = .8 and b = .2.
    layer = last_layer(controller(), never_worst(), domain(), neurons=[Neuron("relu2", 0)])
    layer = replace(layer, cost=np.diag([2.0, 8.0]))
    needs = Constraints(rows=np.ones((1, 2)), limits=np.ones(1), age=np.zeros(1, np.int64))
    solved = least_change(layer, needs)
    assert solved is not None
    free = solved[0][list(layer.outputs)][:, [0, -1]].numpy().ravel()
    np.testing.assert_allclose(free, [0.8, 0.2], atol=1e-6)


def test_the_cheapest_change_of_another_solver() -> None:
    layer = last_layer(controller(3), never_worst(), domain())
    points = layer.features(domain(40) / 2)
    needs = point_constraints(layer, points, torch.zeros_like(layer.weights), 0.3)
    solved = least_change(layer, needs)
    assert len(needs) > 0
    assert solved is not None
    ours = solved[0][list(layer.outputs)][:, layer.columns].numpy().ravel()
    assert (needs.rows @ ours >= needs.limits - 1e-6).all()
    other = optimize.minimize(
        lambda c: 0.5 * c @ layer.cost @ c,
        np.zeros(len(layer.cost)),
        jac=lambda c: layer.cost @ c,
        constraints={
            "type": "ineq",
            "fun": lambda c: needs.rows @ c - needs.limits,
            "jac": lambda c: needs.rows,
        },
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert 0.5 * ours @ layer.cost @ ours == pytest.approx(other.fun, rel=1e-3)


def test_constraints_that_contradict_each_other_have_no_solution() -> None:
    layer = last_layer(controller(), never_worst(), domain(), neurons=[Neuron("relu2", 0)])
    rows = np.array([[1.0, 0.0], [-1.0, 0.0]])
    needs = Constraints(rows=rows, limits=np.ones(2), age=np.zeros(2, np.int64))
    assert least_change(layer, needs) is None


def test_constraints_that_never_matter_are_dropped() -> None:
    layer = last_layer(controller(), never_worst(), domain(), neurons=[Neuron("relu2", 0)])
    needs = Constraints(
        rows=np.array([[1.0, 0.0], [0.0, 1.0]]),
        limits=np.array([1.0, -100.0]),
        age=np.zeros(2, np.int64),
    )
    for left in (2, 2, 1):
        solved = least_change(layer, needs)
        assert solved is not None
        needs = solved[1]
        assert len(needs) == left


@given(seed=st.integers(0, 50))
def test_a_box_bound_is_sound_and_is_what_its_constraint_says(seed: int) -> None:
    model, prop = controller(seed), never_worst()
    layer = last_layer(model, prop, domain(50))
    low, high = LOW.unsqueeze(0) / 2, HIGH.unsqueeze(0) / 2
    middle = low.clone()
    middle[:, 0] = 0
    boxes = (torch.cat([low, middle]), torch.cat([high, high]))
    change = layer.change(0.1 * np.random.default_rng(seed).normal(size=len(layer.cost)))
    needs, lowest = box_constraints(layer, [boxes], change, 1e3)
    free = change[list(layer.outputs)][:, layer.columns].numpy().ravel()
    bounds = needs.rows @ free - needs.limits + 1e3
    assert min(bounds) == pytest.approx(lowest[0], abs=1e-9)
    points = LOW / 2 + (HIGH - LOW) / 2 * torch.rand(500, 2, generator=seeded(seed)).double()
    outputs = (layer.features(points) @ (layer.weights + change).T).unsqueeze(0)
    margin = prop.margin(outputs, Samples(inputs=points))
    assert float(margin.min()) >= lowest[0] - 1e-6


def test_no_box_has_no_lowest_bound() -> None:
    layer = last_layer(controller(), never_worst(), domain(50))
    none = torch.zeros(0, 2, dtype=torch.float64)
    needs, lowest = box_constraints(layer, [(none, none)], torch.zeros_like(layer.weights), 1.0)
    assert (len(needs), lowest) == (0, (float("inf"),))


def test_refuses_networks_without_a_hidden_layer_or_a_bias() -> None:
    bare = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3, bias=False)).eval()
    for model in (bare, nn.Sequential(nn.Linear(2, 3)).eval()):
        with pytest.raises(ValueError, match="model: allowed: a hidden layer"):
            last_layer(model, never_worst(), domain())


@pytest.mark.parametrize("neurons", [[], [Neuron("relu1", 0)], [Neuron("relu2", 8)]])
def test_refuses_neurons_of_other_layers(neurons: list[Neuron]) -> None:
    with pytest.raises(ValueError, match="allowed: at least one, all of relu2"):
        last_layer(controller(), never_worst(), domain(), neurons=neurons)
