from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from carelab.networks import accuracy, fingerprint, hidden_neurons
from carelab.properties import violation_rate
from carelab.repair import (
    Objective,
    apply_repair,
    edited_share,
    factor_space,
    gradient_search,
    load_repair,
    pareto_optimal,
    repair_front,
    save_repair,
    search_repair,
    swarm_search,
    undo_repair,
    weight_space,
)
from tests.tables import fairness, network, rows, seeded


def goal(weight: float = 5.0) -> Objective:
    return Objective(
        prop=fairness(), labelled=rows(200), guarded=[rows(200, seed=1)], violation=weight
    )


def gradient_repair(model, weight: float = 5.0):
    return search_repair(
        model,
        weight_space(model, hidden_neurons(model)[:6]),
        goal(weight),
        partial(gradient_search, steps=150, learning_rate=0.05),
        method="gradient",
        generator=seeded(),
    )


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_optimal_is_what_no_point_beats(points) -> None:
    costs = torch.tensor(points, dtype=torch.float64)
    for row, optimal in zip(costs, pareto_optimal(costs).tolist(), strict=True):
        beaten = ((costs <= row).all(dim=1) & (costs < row).any(dim=1)).any()
        assert optimal == (not beaten)


def test_a_gradient_repair_stops_violations_that_it_never_saw() -> None:
    model, fresh = network(seed=3), rows(400, seed=9)
    before = fingerprint(model)
    repair = gradient_repair(model)
    repaired = apply_repair(model, repair)
    assert violation_rate(repaired, fresh, fairness()) < 0.6 * violation_rate(
        model, fresh, fairness()
    )
    assert repair.after.violation_rate < repair.before.violation_rate
    assert fingerprint(model) == before
    assert repair.status == "improved"
    # 6 neurons of the first layer, each row, bias and column of which may have moved.
    assert edited_share(model, repaired) == pytest.approx(6 / 14)


def test_a_weight_repair_is_saved_applied_and_undone(tmp_path) -> None:
    model = network(seed=3)
    repair = gradient_repair(model)
    save_repair(repair, tmp_path / "repair.safetensors")
    loaded = load_repair(tmp_path / "repair.safetensors")
    assert len(loaded.factors) == 0
    repaired = apply_repair(model, loaded)
    assert fingerprint(undo_repair(repaired, loaded)) == fingerprint(model)


def test_the_swarm_searches_the_same_objective() -> None:
    model = network(seed=3)
    repair = search_repair(
        model,
        factor_space(model, hidden_neurons(model)[:6]),
        goal(),
        partial(swarm_search, iterations=20),
        method="swarm",
        generator=seeded(),
    )
    assert repair.history[-1] < repair.history[0]
    assert {edit.parameter for edit in repair.edits} == {"linear2.weight"}


def test_a_larger_weight_trades_accuracy_for_fewer_violations() -> None:
    model, selection = network(seed=3), rows(300, seed=5)

    def judge(repaired) -> list[float]:
        return [1 - accuracy(repaired, selection), violation_rate(repaired, selection, fairness())]

    front = repair_front(
        model,
        lambda weight: gradient_repair(model, weight),
        judge,
        weights=[0.0, 3.0, 30.0],
        names=["error", "unfair"],
    )
    unfair = front.costs[:, 1].tolist()
    assert unfair == sorted(unfair, reverse=True)
    assert bool(front.optimal[unfair.index(min(unfair))])


def test_misuse() -> None:
    with pytest.raises(ValueError, match="weights: got none"):
        repair_front(network(), gradient_repair, lambda model: [0.0], weights=[], names=["x"])
    with pytest.raises(ValueError, match="costs: got 0 points"):
        pareto_optimal(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="names: got 2 for 1 costs"):
        repair_front(
            network(seed=3),
            lambda weight: gradient_repair(network(seed=3)),
            lambda model: [0.0],
            weights=[1.0],
            names=["a", "b"],
        )
