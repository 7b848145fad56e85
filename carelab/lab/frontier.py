"""The trade-off of unfairness against accuracy: our repairs, CARE and the baselines, one seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from carelab.causal import (
    expectation_mean,
    guilty_neurons,
    neuron_effects,
    patching_effects,
    rank_units,
)
from carelab.data import crossed_rows, sample_box
from carelab.lab.tasks import FairnessTask, fairness_task, train_network
from carelab.networks import accuracy, hidden_layers, hidden_neurons, predict
from carelab.properties import GroupFairness, demographic_parity, equalized_odds, violates
from carelab.records import Neuron, Ranking, Samples
from carelab.repair import (
    Anchors,
    Found,
    Objective,
    apply_repair,
    blind_targets,
    care,
    edited_share,
    fairlearn_reduction,
    gradient_search,
    hold_constant,
    retrain_without,
    revive,
    search_problem,
    search_repair,
    weight_space,
)

__all__ = ["FrontierPoint", "FrontierRun", "frontier_run"]

_PUBLISHED_ALPHA = 0.3
_INSTANCES = 300
# Steps of the short trials that choose the neurons; rows of each group in a random batch.
_SHORT = 100
_BATCH = 256
# Weights of the labels to choose from, and the weight of the violations while choosing.
_LABELS = (0.0, 0.5)
_MIDDLE = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontierPoint:
    """One network on the trade-off; rates are fractions, measured on test rows and a fresh box.

    Args:
        method: how it was made, such as "ours".
        knob: the setting that moves along the trade-off, as text.
        accuracy: of the test rows, those classified right.
        accuracy_drop: accuracy of the network given, minus that.
        unfair_rate_rows: of the test rows, those whose label flips with the sensitive feature.
        unfair_rate_box: the same of inputs drawn uniformly from the feature box.
        edited_share: hidden neurons edited, as a fraction; 1 where a model is trained anew.
        demographic_parity_gap: fairlearn's difference between the groups, on the test rows.
        equalized_odds_gap: the same for equalised odds.
        predictions_changed: of the test rows, those whose label differs from before.
        selection_drop: accuracy drop on the selection rows, which choose.
        selection_rows: unfair rate on the selection rows.
        selection_box: unfair rate on a box of its own, drawn for choosing.
    """

    method: str
    knob: str
    accuracy: float
    accuracy_drop: float
    unfair_rate_rows: float
    unfair_rate_box: float
    edited_share: float
    demographic_parity_gap: float
    equalized_odds_gap: float
    predictions_changed: float
    selection_drop: float
    selection_rows: float
    selection_box: float


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


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Bench:
    """The data of one run: what repairs see, what chooses, what measures; and targets."""

    case: FairnessTask
    repair_box: Samples
    selection_box: Samples
    test_box: Samples
    targets: Callable[[Tensor], Tensor]
    anchors: tuple[Anchors, ...]
    blind: nn.Module

    def objective(self, violation: float, labels: float) -> Objective:
        """The objective of all gradient repairs, for given weights of violations and labels."""
        train = self.case.dataset.train
        return Objective(
            prop=self.case.property,
            labelled=train,
            guarded=[train, self.repair_box],
            anchors=self.anchors,
            accuracy=labels,
            violation=violation,
        )


def frontier_run(
    task: str,
    network: str = "default",
    *,
    seed: int,
    share: float = 0.1,
    weights: Sequence[float] = (0.3, 1.0, 3.0, 10.0),
    steps: int = 400,
    box: int = 10_000,
    budget: int = 60,
    progress: bool = False,
) -> FrontierRun:
    """Every method on one task and one seed, as points of accuracy against unfairness.

    Ours: neurons ranked by how much unfairness falls when each is given the value it has at the
    input itself (patching), a share of them chosen by short trials on selection rows, and their
    incoming rows and outgoing columns moved by gradient for several weights of the violations,
    on rows and on the box, towards what the network would say without the feature. One more of
    our points edits the whole first layer: the feature held constant, then the other weights
    tuned the same way, so that nothing can flip. Random neurons and all neurons go through the
    same search. CARE is the published one. "averaged_out" is no network: the network's own answers
    with the feature averaged out, the most accurate function of its knowledge that does not read
    the feature, and so a ceiling for every repair.

    Args:
        task: name of the task, as for `fairness_task`.
        network: "default", "published" or "trained", as for `fairness_task`.
        seed: seeds split, training, draws and searches.
        share: hidden neurons that may be edited, as a fraction.
        weights: weights of the violations, one repair each.
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
        ['all_neurons', 'care', 'fairlearn_reduction']
    """
    if not 0 < share <= 1 or not weights:
        raise ValueError(
            f"share, weights: got {share}, {list(weights)}; allowed: above 0 to 1, at least one"
        )
    generator = torch.Generator().manual_seed(seed)
    case = fairness_task(task, network, progress=progress, generator=generator)
    bench = _bench(case, box, generator)
    search = partial(gradient_search, steps=steps)
    count = max(1, int(share * len(hidden_neurons(case.model))))
    layer, guilty, candidates = _guilty(bench, count, generator)
    labels = _label_weight(bench, guilty, search, generator)
    neurons = hidden_neurons(case.model)
    drawn = [neurons[i] for i in torch.randperm(len(neurons), generator=generator)[:count].tolist()]
    points = []
    middle = weights[(len(weights) - 1) // 2]
    for method, edited, tried in (
        ("ours", guilty, weights),
        ("random", drawn, [middle]),
        ("all_neurons", neurons, [middle]),
    ):
        for weight in tried:
            repaired = _repaired(bench, edited, weight, labels, search, generator)
            points.append(_point(bench, method, f"weight {weight:g}", repaired))
    blind = _blind_repair(bench, labels, search, generator)
    points.append(_point(bench, "ours", "whole first layer", blind))
    points.append(_point(bench, "hold_constant", "", bench.blind))
    points.append(
        _point(bench, "care", f"alpha {_PUBLISHED_ALPHA}", _care(bench, budget, generator))
    )
    anew = retrain_without(case.dataset, case.property, partial(train_network, generator=generator))
    points.append(_point(bench, "retrained_without", "", anew, edited=1.0))
    for name, estimator in (
        ("logistic regression", LogisticRegression(max_iter=500)),
        ("boosted trees", HistGradientBoostingClassifier(max_iter=50, random_state=seed)),
    ):
        label = fairlearn_reduction(
            case.dataset.train, case.dataset.feature(case.feature), estimator
        )
        points.append(_point(bench, "fairlearn_reduction", name, label, edited=1.0))
    averaged = bench.targets
    points.append(
        _point(bench, "averaged_out", "", lambda x: averaged(x).argmax(dim=1), edited=1.0)
    )
    return FrontierRun(
        task=task,
        network=case.network,
        seed=seed,
        before=_point(bench, "before", "", case.model),
        points=tuple(points),
        guilty=guilty,
        layer=layer,
        candidates=candidates,
    )


def _bench(case: FairnessTask, box: int, generator: torch.Generator) -> _Bench:
    boxes = [sample_box(case.dataset, box, generator=generator) for _ in range(3)]
    train = case.dataset.train
    targets = blind_targets(case.model, train, case.property, generator=generator)
    groups = (train, crossed_rows(train, 2 * box, generator=generator), boxes[0])
    return _Bench(
        case=case,
        repair_box=boxes[0],
        selection_box=boxes[1],
        test_box=boxes[2],
        targets=targets,
        anchors=tuple(Anchors(inputs=g.inputs, chances=targets(g.inputs)) for g in groups),
        blind=hold_constant(case.model, train, case.property),
    )


def _guilty(
    bench: _Bench, count: int, generator: torch.Generator
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
        name: _selection_cost(
            bench, _repaired(bench, neurons, _MIDDLE, _LABELS[-1], short, generator)
        )
        for name, neurons in sets.items()
    }
    best = min(costs, key=costs.__getitem__)
    return best, sets[best], costs


def _label_weight(
    bench: _Bench,
    neurons: Sequence[Neuron],
    search: Callable[..., Found],
    generator: torch.Generator,
) -> float:
    """Weight of the labels: none where the training rows are so few that they would be learned."""
    costs = {
        weight: _selection_cost(
            bench, _repaired(bench, neurons, _MIDDLE, weight, search, generator)
        )
        for weight in _LABELS
    }
    return min(costs, key=costs.__getitem__)


def _selection_cost(bench: _Bench, model: nn.Module) -> float:
    """Cross-entropy of the selection labels and violations on selection rows and box."""
    objective = Objective(
        prop=bench.case.property,
        labelled=bench.case.dataset.selection,
        guarded=[bench.case.dataset.selection, bench.selection_box],
        violation=_MIDDLE,
    )
    space = weight_space(model, hidden_neurons(model)[:1])
    problem = search_problem(model, space, objective, rows=5000)
    return float(problem.cost(space.start[None])[0])


def _first(ranked: Ranking, count: int, layer: str | None) -> tuple[Neuron, ...]:
    """The guiltiest neurons, those of one layer before all others."""
    units = [unit for unit in ranked.units if isinstance(unit, Neuron)]
    return tuple(sorted(units, key=lambda unit: layer is not None and unit.layer != layer)[:count])


def _repaired(
    bench: _Bench,
    neurons: Sequence[Neuron],
    weight: float,
    labels: float,
    search: Callable[..., Found],
    generator: torch.Generator,
) -> nn.Module:
    """The network after a gradient repair of the neurons, those that never fire put to use."""
    given = bench.case.model
    inputs = torch.cat([bench.case.dataset.train.inputs[:2000], bench.repair_box.inputs[:2000]])
    start = deepcopy(given)
    with torch.no_grad():
        for name, tensor in revive(given, neurons, inputs, generator=generator).items():
            start.get_parameter(name).copy_(tensor)
    repair = search_repair(
        start,
        weight_space(start, neurons),
        bench.objective(weight, labels),
        search,
        original=given,
        method="gradient",
        batch_size=_BATCH,
        generator=generator,
    )
    return apply_repair(given, repair)


def _blind_repair(
    bench: _Bench, labels: float, search: Callable[..., Found], generator: torch.Generator
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


def _care(bench: _Bench, budget: int, generator: torch.Generator) -> nn.Module:
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


def _point(
    bench: _Bench,
    method: str,
    knob: str,
    judged: nn.Module | Callable[[Tensor], Tensor],
    *,
    edited: float | None = None,
) -> FrontierPoint:
    """All measures of a network, or of anything that gives labels."""
    case = bench.case
    test, selection = case.dataset.test, case.dataset.selection
    label = partial(predict, judged) if isinstance(judged, nn.Module) else judged
    given = partial(predict, case.model)
    feature = case.dataset.feature(case.feature)
    if edited is None:
        assert isinstance(judged, nn.Module)
        edited = edited_share(case.model, judged)
    right = _right(label, test)
    return FrontierPoint(
        method=method,
        knob=knob,
        accuracy=right,
        accuracy_drop=_right(given, test) - right,
        unfair_rate_rows=_flips(label, test, bench),
        unfair_rate_box=_flips(label, bench.test_box, bench),
        edited_share=edited,
        demographic_parity_gap=_gap(label, test, demographic_parity(test, feature), bench),
        equalized_odds_gap=_gap(label, test, equalized_odds(test, feature), bench),
        predictions_changed=float((label(test.inputs) != given(test.inputs)).double().mean()),
        selection_drop=_right(given, selection) - _right(label, selection),
        selection_rows=_flips(label, selection, bench),
        selection_box=_flips(label, bench.selection_box, bench),
    )


def _outputs(label: Callable[[Tensor], Tensor], inputs: Tensor, bench: _Bench) -> Tensor:
    """Labels as outputs (batch, classes) that properties can judge: 1 for the label, else 0."""
    classes = len(bench.case.dataset.classes)
    return torch.nn.functional.one_hot(label(inputs), classes).to(inputs)


def _right(label: Callable[[Tensor], Tensor], samples: Samples) -> float:
    assert samples.labels is not None
    return float((label(samples.inputs) == samples.labels).double().mean())


def _flips(label: Callable[[Tensor], Tensor], samples: Samples, bench: _Bench) -> float:
    probes = bench.case.property.probes(samples.inputs)
    outputs = _outputs(label, probes.flatten(0, 1), bench).unflatten(0, probes.shape[:2])
    return float(bench.case.property.rate(outputs, samples))


def _gap(
    label: Callable[[Tensor], Tensor], samples: Samples, groups: GroupFairness, bench: _Bench
) -> float:
    return float(groups.rate(_outputs(label, samples.inputs, bench)[None], samples))
