"""The fairness experiment: one seed of one task as a pure function, and the summary over seeds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn

from carelab.causal import (
    expectation_drop,
    expectation_mean,
    guilty_neurons,
    neuron_effects,
)
from carelab.lab.session import interval, origin
from carelab.lab.tasks import fairness_task
from carelab.networks import hidden_neurons
from carelab.records import CausalEffects, Dataset, Neuron, Repair
from carelab.repair import (
    Compromise,
    FairnessMeasures,
    apply_repair,
    care,
    choose_alpha,
    fairness_trial,
    hold_constant,
    measure_fairness,
)

__all__ = ["FairnessRun", "fairness_run", "summarise"]

_PUBLISHED_ALPHA = 0.3
# CARE's constants (inertia 0.8, pulls of 0.41) make the swarm collapse within some 20 iterations.
_THOROUGH = {
    "particles": 40,
    "inertia": 0.73,
    "cognitive": 1.5,
    "social": 1.5,
    "patience": 40,
    "tolerance": 1e-5,
}
# Interventions on a dead neuron differ from the untouched network by rounding alone.
_NOTHING = 1e-6


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class FairnessRun:
    """What one seed of the experiment gave.

    Args:
        seed: the seed.
        network: "published" or "trained".
        dataset: the data set, for its provenance.
        effects: causal effects of all hidden neurons on the given instances.
        guilty: the neurons that were repaired, most guilty first.
        without_effect: how many of CARE's published choice have no causal effect at all.
        compromise: the repairs tried, and the one that the selection rows chose.
        measures: measures of each network: "before", "after" and the baselines.
        curve: measures of the repair found with each alpha.
        seconds_localization: wall time of effects and ranking.
        seconds_repair: wall time of the searches, all alphas together.
    """

    seed: int
    network: str
    dataset: Dataset
    effects: CausalEffects
    guilty: tuple[Neuron, ...]
    without_effect: int
    compromise: Compromise
    measures: Mapping[str, FairnessMeasures]
    curve: tuple[FairnessMeasures, ...]
    seconds_localization: float
    seconds_repair: float


def fairness_run(
    task: str,
    network: str = "default",
    *,
    seed: int,
    k: int = 13,
    alpha: Sequence[float] = (0.9, 0.95),
    largest_drop: float = 0.02,
    steps: int = 16,
    budget: int = 100,
    instances: int = 600,
    repair_rows: int = 3000,
    box: int = 20_000,
    progress: bool = False,
) -> FairnessRun:
    """One seed of the fairness experiment, from data to measures.

    The repair ranks neurons by how much holding them lowers unfairness, runs CARE's swarm over
    their factors once for each alpha, and lets selection rows choose. Baselines in the same run:
    CARE as published (neurons ranked by the mean of E[y | do], a tenth of them, alpha 0.3, its
    swarm's constants); the search on as many neurons drawn at random; the sensitive feature held
    constant. The searches see training rows and given instances; everything else that is measured
    comes from test rows or from the feature box.

    Args:
        task: name of the task, as for `fairness_task`.
        network: "default", "published" or "trained", as for `fairness_task`.
        seed: seeds split, training, instances and search.
        k: how many guilty neurons are repaired.
        alpha: weights of the accuracy to try, each in [0, 1].
        largest_drop: accuracy that the repair may cost on the selection rows, as a fraction.
        steps: values each neuron is held at.
        budget: iterations of the swarm at most.
        instances: discriminatory instances to look for, given and fresh each.
        repair_rows: training rows that the repair sees, at most.
        box: inputs drawn from the feature box.
        progress: show bars.

    Raises:
        ValueError: an unknown task or network, or a knob out of range.

    Source: CARE, section 4.1. Departs: ranking, choice of alpha and the swarm's constants, which
        are those of Clerc and Kennedy (2002) with more patience; CARE's own are the baseline.

    Example:
        >>> from carelab.lab.fairness import fairness_run
        >>> run = fairness_run("embedded-credit", seed=0, k=5, steps=4, budget=2, instances=21)
        >>> sorted(run.measures)
        ['after', 'before', 'care_published', 'hold_constant', 'random_neurons']
    """
    generator = torch.Generator().manual_seed(seed)
    case = fairness_task(task, network, progress=progress, generator=generator)
    trial = fairness_trial(
        case.model,
        case.dataset,
        case.property,
        instances=instances,
        repair_rows=repair_rows,
        box=box,
        progress=progress,
        generator=generator,
    )
    started = time.perf_counter()
    effects = neuron_effects(case.model, trial.given, case.property, steps=steps, progress=progress)
    guilty = guilty_neurons(expectation_drop(effects), count=k)
    localized = time.perf_counter()

    def search(neurons: Sequence[Neuron], method: str, weight: float, **knobs: Any) -> Repair:
        return care(
            case.model,
            trial.repair,
            trial.given,
            case.property,
            neurons,
            alpha=weight,
            method=method,
            iterations=budget,
            progress=progress,
            generator=generator,
            **knobs,
        )

    compromise = choose_alpha(
        case.model,
        case.dataset.selection,
        lambda weight: search(guilty, "after", weight, **_THOROUGH),
        alphas=alpha,
        largest_drop=largest_drop,
    )
    searched = time.perf_counter()
    published = guilty_neurons(expectation_mean(effects))
    neurons = hidden_neurons(case.model)
    drawn = [neurons[i] for i in torch.randperm(len(neurons), generator=generator)[:k].tolist()]
    repaired = {
        "after": compromise.repair,
        "care_published": search(published, "care_published", _PUBLISHED_ALPHA),
        "random_neurons": search(drawn, "random_neurons", compromise.alpha, **_THOROUGH),
    }
    networks = {
        "before": case.model,
        "hold_constant": hold_constant(case.model, trial.repair, case.property),
        **{name: apply_repair(case.model, repair) for name, repair in repaired.items()},
    }

    def measure(model: nn.Module) -> FairnessMeasures:
        feature = case.dataset.feature(case.feature)
        return measure_fairness(model, case.model, trial, case.property, feature)

    return FairnessRun(
        seed=seed,
        network=case.network,
        dataset=case.dataset,
        effects=effects,
        guilty=guilty,
        without_effect=_without_effect(effects, published),
        compromise=compromise,
        measures={name: measure(model) for name, model in networks.items()},
        curve=tuple(measure(apply_repair(case.model, one)) for one in compromise.repairs),
        seconds_localization=localized - started,
        seconds_repair=searched - localized,
    )


def summarise(runs: Sequence[FairnessRun]) -> dict[str, object]:
    """Results of several seeds in the layout of a result file, ready for `lab.save`.

    Args:
        runs: one run a seed, of the same task.

    Returns:
        ``data``, ``results`` (before, after, baselines, improvement, drawdown, per seed) and
        ``seconds``; every measure as mean and 95 % interval over the seeds.

    Raises:
        ValueError: no run.

    Example:
        >>> from carelab.lab.fairness import fairness_run, summarise
        >>> run = fairness_run("embedded-credit", seed=0, k=5, steps=4, budget=2, instances=20)
        >>> sorted(summarise([run]))
        ['data', 'results', 'seconds']
    """
    if not runs:
        raise ValueError("runs: got none; allowed: at least one")
    summary = {
        network: {
            field.name: interval(
                [getattr(run.measures[network], field.name) for run in runs], lowest=0, highest=1
            )
            for field in fields(FairnessMeasures)
        }
        for network in runs[0].measures
    }
    dataset = runs[0].dataset
    return {
        "data": {
            **origin(dataset),
            "network": runs[0].network,
        },
        "results": {
            "before": summary.pop("before"),
            "after": summary.pop("after"),
            "baselines": summary,
            "improvement_given": interval([_improvement(run) for run in runs]),
            "accuracy_drop": interval([_drop(run) for run in runs]),
            "per_seed": [_seed_summary(run) for run in runs],
            "published": {
                "improvement_given": {
                    "value": 0.6191,
                    "source": "CARE (ICSE 2022), abstract: mean over its fairness tasks",
                }
            },
        },
        "seconds": {
            "localization": interval([run.seconds_localization for run in runs]),
            "repair": interval([run.seconds_repair for run in runs]),
        },
    }


def _seed_summary(run: FairnessRun) -> dict[str, object]:
    repair, compromise = run.compromise.repair, run.compromise
    return {
        "seed": run.seed,
        "alpha": compromise.alpha,
        "guilty": [str(neuron) for neuron in run.guilty],
        "factors": repair.factors.tolist(),
        "iterations": len(repair.history) - 1,
        "status": repair.status,
        "care_published_neurons_without_effect": run.without_effect,
        "curve": [
            {"alpha": alpha, "selection_drop": drop, **asdict(measures)}
            for alpha, drop, measures in zip(
                compromise.alphas, compromise.drops, run.curve, strict=True
            )
        ],
        **{name: asdict(measures) for name, measures in run.measures.items()},
    }


def _without_effect(effects: CausalEffects, neurons: Sequence[Neuron]) -> int:
    """How many of the neurons leave the outcome as it is, whatever they are held at."""
    rows = [effects.neurons.index(neuron) for neuron in neurons]
    change = (effects.expectation[rows] - effects.unmodified).abs().amax(dim=1)
    return int((change < _NOTHING).sum())


def _improvement(run: FairnessRun) -> float:
    before, after = run.measures["before"], run.measures["after"]
    return 1 - after.unfair_rate_given / before.unfair_rate_given


def _drop(run: FairnessRun) -> float:
    return run.measures["before"].accuracy - run.measures["after"].accuracy
