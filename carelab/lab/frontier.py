"""The trade-off of unfairness against accuracy: our repairs, CARE and the baselines, one seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from torch import nn

from carelab.causal import (
    expectation_mean,
    guilty_neurons,
    neuron_effects,
    patching_effects,
    rank_units,
)
from carelab.lab.frontier_bench import (
    Bench,
    FrontierPoint,
    measured_point,
    prepare_bench,
)
from carelab.lab.tasks import fairness_task, train_network
from carelab.networks import accuracy, hidden_layers, hidden_neurons
from carelab.properties import violates
from carelab.records import Neuron, Ranking, Repair, Samples
from carelab.repair import (
    Found,
    Objective,
    apply_repair,
    care,
    fairlearn_reduction,
    gradient_search,
    retrain_without,
    revive,
    search_problem,
    search_repair,
    weight_space,
)

__all__ = ["FrontierRun", "frontier_run"]

_PUBLISHED_ALPHA = 0.3
_INSTANCES = 300
# Steps of the short trials that choose the neurons; rows of each group in a random batch.
_SHORT = 100
_BATCH = 256
# Weights of the labels to choose from, and the weight of the violations while choosing.
_LABELS = (0.0, 0.5)
_MIDDLE = 3.0
# Shares of the way from the network given to the mildest repair that are points as well.
_PARTS = (0.05, 0.25, 0.5)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class FrontierRun:
    """What one seed of one task gave.

    Args:
        task: name of the task.
        network: "published" or "trained".
        seed: the seed.
        before: the network given, as a point.
        points: the other points, method by method.
        guilty: the neurons that our repair edits.
        layer: the layer whose neurons fill that set first, or "all" for the overall ranking.
        candidates: selection cost of each set of neurons that was tried for a few steps.
    """

    task: str
    network: str
    seed: int
    before: FrontierPoint
    points: tuple[FrontierPoint, ...]
    guilty: tuple[Neuron, ...]
    layer: str
    candidates: Mapping[str, float]


def frontier_run(
    task: str,
    network: str = "default",
    *,
    seed: int,
    share: float = 0.1,
    weights: Sequence[float] = (0.3, 1.0, 3.0, 10.0, 30.0),
    steps: int = 400,
    box: int = 10_000,
    budget: int = 60,
    progress: bool = False,
) -> FrontierRun:
    """Every method on one task and one seed, as points of accuracy against unfairness.

    Ours: neurons ranked by how much unfairness falls when each is given the value it has at the
    input itself (patching), a share of them chosen by short trials on selection rows, and their
    incoming rows and outgoing columns moved by gradient for several weights of the violations,
    on rows and on the box, towards what the network would say without the feature. The front is
    followed: the search for a weight w starts from the repair of the weight before, with the
    logits in the score multiplied by 2 sqrt(max(1, w)), since the violations that are left lie
    the closer to the boundary the fewer they are. Its other end is the network as it was given,
    with points W + t (W' - W) on the way to the mildest repair W'. One more of our points edits
    the whole first layer: the feature held constant, then the other weights tuned the same way,
    so that nothing can flip. Random neurons and all neurons go through the same search. CARE is
    the published one. "averaged_out" is no network: the network's own answers with the feature
    averaged out, the most accurate function of its knowledge that does not read the feature, and
    so a ceiling for every repair.

    Args:
        task: name of the task, as for `fairness_task`.
        network: "default", "published" or "trained", as for `fairness_task`.
        seed: seeds split, training, draws and searches.
        share: hidden neurons that may be edited, as a fraction.
        weights: weights of the violations, one repair each, the mildest first.
        steps: steps of each gradient search.
        box: inputs drawn from the feature box, for repair, choice and measurement each.
        budget: iterations of CARE's swarm at most.
        progress: show bars.

    Raises:
        ValueError: an unknown task or network, or a knob out of range.

    Example:
        >>> from carelab.lab.frontier import frontier_run
        >>> run = frontier_run("embedded-credit", seed=0, steps=4, box=50, budget=2)
        >>> sorted({point.method for point in run.points})[:3]
        ['all_neurons', 'averaged_out', 'care']
    """
    if not 0 < share <= 1 or not weights or list(weights) != sorted(weights):
        raise ValueError(
            f"share, weights: got {share}, {list(weights)}; "
            "allowed: above 0 to 1, at least one and rising"
        )
    generator = torch.Generator().manual_seed(seed)
    case = fairness_task(task, network, progress=progress, generator=generator)
    bench = prepare_bench(case, box, generator=generator)
    search = partial(gradient_search, steps=steps)
    count = max(1, int(share * len(hidden_neurons(case.model))))
    layer, guilty, candidates = _guilty(bench, count, generator)
    labels = _label_weight(bench, guilty, search, generator)
    neurons = hidden_neurons(case.model)
    drawn = [neurons[i] for i in torch.randperm(len(neurons), generator=generator)[:count].tolist()]
    before = measured_point(bench, "before", "", case.model)
    repairs = _follow(bench, guilty, weights, labels, search, generator)
    points = [replace(before, method="ours", knob="no repair")]
    points += _mild_points(bench, repairs[0], weights[0])
    points += [
        measured_point(bench, "ours", f"weight {weight:g}", apply_repair(case.model, repair))
        for weight, repair in zip(weights, repairs, strict=True)
    ]
    rising = weights[: (len(weights) + 1) // 2]
    for method, edited in (("random", drawn), ("all_neurons", neurons)):
        repair = _follow(bench, edited, rising, labels, search, generator)[-1]
        points.append(
            measured_point(
                bench, method, f"weight {rising[-1]:g}", apply_repair(case.model, repair)
            )
        )
    blind = _blind_repair(bench, labels, search, generator)
    points.append(measured_point(bench, "ours", "whole first layer", blind))
    points += _rivals(bench, budget, seed, generator)
    return FrontierRun(
        task=task,
        network=case.network,
        seed=seed,
        before=before,
        points=tuple(points),
        guilty=guilty,
        layer=layer,
        candidates=candidates,
    )


def _mild_points(bench: Bench, repair: Repair, weight: float) -> list[FrontierPoint]:
    """Points on the straight way from the network given to the mildest repair."""
    given = bench.case.model
    repaired = apply_repair(given, repair)
    points = []
    for part in _PARTS:
        between = deepcopy(given)
        with torch.no_grad():
            for parameter, end in zip(between.parameters(), repaired.parameters(), strict=True):
                parameter.lerp_(end, part)
        points.append(measured_point(bench, "ours", f"{part:.0%} of weight {weight:g}", between))
    return points


def _rivals(
    bench: Bench, budget: int, seed: int, generator: torch.Generator
) -> list[FrontierPoint]:
    """The constant, CARE, training anew, the reduction, and the ceiling of averaging out."""
    case, points = bench.case, []
    points.append(measured_point(bench, "hold_constant", "", bench.blind))
    points.append(
        measured_point(bench, "care", f"alpha {_PUBLISHED_ALPHA}", _care(bench, budget, generator))
    )
    anew = retrain_without(case.dataset, case.property, partial(train_network, generator=generator))
    points.append(measured_point(bench, "retrained_without", "", anew, edited=1.0))
    for name, estimator in (
        ("logistic regression", LogisticRegression(max_iter=500)),
        ("boosted trees", HistGradientBoostingClassifier(max_iter=50, random_state=seed)),
    ):
        label = fairlearn_reduction(
            case.dataset.train, case.dataset.feature(case.feature), estimator
        )
        points.append(measured_point(bench, "fairlearn_reduction", name, label, edited=1.0))
    averaged = bench.targets
    points.append(
        measured_point(bench, "averaged_out", "", lambda x: averaged(x).argmax(dim=1), edited=1.0)
    )
    return points


def _guilty(
    bench: Bench, count: int, generator: torch.Generator
) -> tuple[str, tuple[Neuron, ...], dict[str, float]]:
    """The set of neurons, of those led by one layer or by none, that short repairs favour."""
    train = bench.case.dataset.train
    mixed = torch.cat([train.inputs[:1500], bench.repair_box.inputs[:1500]])
    effects = patching_effects(bench.case.model, Samples(inputs=mixed), bench.case.property)
    ranked = rank_units(effects)
    sets = {"all": _first(ranked, count, None)}
    for layer in hidden_layers(bench.case.model):
        sets[layer] = _first(ranked, count, layer)
    short = partial(gradient_search, steps=_SHORT)
    costs = {
        name: _selection_loss(
            bench,
            *_follow(bench, neurons, [_MIDDLE], _LABELS[-1], short, generator),
            by_labels=False,
        )
        for name, neurons in sets.items()
    }
    best = min(costs, key=costs.__getitem__)
    return best, sets[best], costs


def _label_weight(
    bench: Bench,
    neurons: Sequence[Neuron],
    search: Callable[..., Found],
    generator: torch.Generator,
) -> float:
    """Weight of the labels: none where the training rows are so few that they would be learned."""
    costs = {
        weight: _selection_loss(
            bench,
            *_follow(bench, neurons, [_MIDDLE], weight, search, generator),
            by_labels=True,
        )
        for weight in _LABELS
    }
    return min(costs, key=costs.__getitem__)


def _selection_loss(bench: Bench, repair: Repair, *, by_labels: bool) -> float:
    """Violations on selection rows and box, plus the cross-entropy of labels, or of the targets.

    The targets tell sets of neurons apart where labels cannot, on a few hundred noisy rows.
    """
    model = apply_repair(bench.case.model, repair)
    objective = Objective(
        prop=bench.case.property,
        labelled=bench.case.dataset.selection,
        guarded=[bench.case.dataset.selection, bench.selection_box],
        anchors=() if by_labels else bench.selection_anchors,
        accuracy=float(by_labels),
        violation=_MIDDLE,
    )
    space = weight_space(model, hidden_neurons(model)[:1])
    problem = search_problem(model, space, objective, rows=5000)
    return float(problem.cost(space.start[None])[0])


def _first(ranked: Ranking, count: int, layer: str | None) -> tuple[Neuron, ...]:
    """The guiltiest neurons, those of one layer before all others."""
    units = [unit for unit in ranked.units if isinstance(unit, Neuron)]
    return tuple(sorted(units, key=lambda unit: layer is not None and unit.layer != layer)[:count])


def _follow(
    bench: Bench,
    neurons: Sequence[Neuron],
    weights: Sequence[float],
    labels: float,
    search: Callable[..., Found],
    generator: torch.Generator,
) -> list[Repair]:
    """Gradient repairs of the neurons, those that never fire put to use, each from the last one."""
    given = bench.case.model
    inputs = torch.cat([bench.case.dataset.train.inputs[:2000], bench.repair_box.inputs[:2000]])
    start = deepcopy(given)
    with torch.no_grad():
        for name, tensor in revive(given, neurons, inputs, generator=generator).items():
            start.get_parameter(name).copy_(tensor)
    repairs: list[Repair] = []
    for weight in weights:
        repair = search_repair(
            start,
            weight_space(start, neurons),
            replace(bench.objective(weight, labels), sharpness=2 * math.sqrt(max(1.0, weight))),
            search,
            original=given,
            method="gradient",
            batch_size=_BATCH,
            generator=generator,
        )
        repairs.append(repair)
        start = apply_repair(given, repair)
    return repairs


def _blind_repair(
    bench: Bench, labels: float, search: Callable[..., Found], generator: torch.Generator
) -> nn.Module:
    """The feature held constant, then the first layer's other weights tuned, or left alone.

    Selection rows decide whether the tuned network is better than the untuned one.
    """
    first = hidden_layers(bench.case.model)[0]
    space = weight_space(
        bench.blind,
        hidden_neurons(bench.case.model, layers=[first]),
        fixed_inputs=bench.case.property.columns,
    )
    repair = search_repair(
        bench.blind,
        space,
        bench.objective(0.0, labels),
        partial(search, learning_rate=2e-3),
        original=bench.case.model,
        method="gradient, feature held constant",
        batch_size=_BATCH,
        generator=generator,
    )
    tuned = apply_repair(bench.case.model, repair)
    selection = bench.case.dataset.selection
    return max(bench.blind, tuned, key=lambda model: accuracy(model, selection))


def _care(bench: Bench, budget: int, generator: torch.Generator) -> nn.Module:
    """CARE as published: neurons by mean E[y | do], a tenth of them, its swarm."""
    model, prop, train = bench.case.model, bench.case.property, bench.case.dataset.train
    found = [
        samples.take(violates(model, samples, prop).nonzero().flatten()[:_INSTANCES])
        for samples in (train, bench.repair_box)
    ]
    given = Samples(inputs=torch.cat([samples.inputs for samples in found]))
    effects = neuron_effects(model, given, prop)
    repair = care(
        model,
        train.take(torch.randperm(len(train), generator=generator)[:3000]),
        given,
        prop,
        guilty_neurons(expectation_mean(effects)),
        alpha=_PUBLISHED_ALPHA,
        iterations=budget,
        generator=generator,
    )
    return apply_repair(model, repair)
