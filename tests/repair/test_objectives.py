from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from carelab.networks import hidden_neurons
from carelab.properties import violation_scores
from carelab.records import Samples
from carelab.repair import Anchors, Objective, factor_space, search_problem, weight_space
from tests.tables import fairness, network, rows, seeded


def objective(**knobs) -> Objective:
    anchors = Anchors(inputs=rows(40, seed=3).inputs, chances=torch.full((40, 2), 0.5).double())
    defaults = {
        "prop": fairness(),
        "labelled": rows(50),
        "guarded": [rows(60, seed=1), rows(30, seed=2)],
        "anchors": [anchors],
        "sharpness": 1.0,
    }
    return Objective(**{**defaults, **knobs})


def test_the_cost_is_the_sum_that_its_formula_says() -> None:
    model = network()
    goal = objective(accuracy=0.5, fidelity=2.0, violation=3.0)
    space = factor_space(model, hidden_neurons(model))
    found = search_problem(model, space, goal).cost(space.start[None])
    ce = functional.cross_entropy(model(goal.labelled.inputs), goal.labelled.labels)
    kept = functional.cross_entropy(model(goal.anchors[0].inputs), goal.anchors[0].chances)
    scores = [violation_scores(model, group, goal.prop).mean() for group in goal.guarded]
    expected = 0.5 * ce + 2.0 * kept + 3.0 * (scores[0] + scores[1]) / 2
    torch.testing.assert_close(found[0], expected.detach().double())


def test_many_vectors_at_once_cost_what_each_costs_alone() -> None:
    model = network()
    problem = search_problem(model, factor_space(model, hidden_neurons(model)), objective())
    vectors = torch.rand(4, 14, generator=seeded(), dtype=torch.float64)
    together = problem.cost(vectors)
    alone = torch.cat([problem.cost(vector[None]) for vector in vectors])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)


def test_the_loss_of_random_batches_estimates_the_cost() -> None:
    model = network()
    space = factor_space(model, hidden_neurons(model))
    problem = search_problem(model, space, objective(), batch_size=32)
    generator = seeded()
    losses = torch.stack([problem.loss(space.start, generator).detach() for _ in range(400)])
    error = float(losses.std()) / 20
    assert abs(float(losses.mean()) - float(problem.cost(space.start[None])[0])) < 4 * error


def test_the_gradient_is_that_of_the_cost() -> None:
    model = network()
    space = factor_space(model, hidden_neurons(model)[:3])
    # A batch of one sample, drawn from groups of one sample, is the whole data.
    one = rows(1)
    goal = objective(labelled=one, guarded=[one], anchors=[])
    problem = search_problem(model, space, goal, batch_size=1)
    vector = space.start.double().requires_grad_()
    problem.loss(vector, seeded()).backward()
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = 1e-6
        ends = problem.cost(torch.stack([vector.detach() + step, vector.detach() - step]))
        assert float(vector.grad[axis]) == pytest.approx(float(ends[0] - ends[1]) / 2e-6, abs=1e-5)


def test_misuse() -> None:
    with pytest.raises(ValueError, match="labelled: got no labelled sample"):
        objective(labelled=Samples(inputs=rows(3).inputs))
    with pytest.raises(ValueError, match="guarded: got an empty group"):
        objective(guarded=[rows(3).take(slice(0, 0))])
    with pytest.raises(ValueError, match="allowed: 0 or more"):
        objective(violation=-1.0)
    model = network()
    space = factor_space(model, hidden_neurons(model))
    with pytest.raises(ValueError, match="batch_size, rows: got 0"):
        search_problem(model, space, objective(), batch_size=0)
    with pytest.raises(ValueError, match="a sharpness above 0"):
        replace(objective(), sharpness=0.0)


def test_a_kept_prefix_changes_no_loss_and_no_cost() -> None:
    model, goal = network(), objective()
    space = weight_space(model, [hidden_neurons(model)[-1]])
    vectors = space.start + torch.rand(3, len(space.start), generator=seeded()).double()
    plain, kept = (
        search_problem(model, space, goal, batch_size=16, cache_prefix=cache)
        for cache in (False, True)
    )
    torch.testing.assert_close(kept.cost(vectors), plain.cost(vectors), rtol=1e-12, atol=0)
    losses = [one.loss(vectors[0], seeded()) for one in (plain, kept)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)
