"""The safety experiment: find and repair with every method, measured on points that none saw."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from carelab.causal import expectation_range, neuron_effects
from carelab.causal.selectivity import by_margin
from carelab.lab.safety_search import (
    Chosen,
    Kept,
    choose_neurons,
    kept_points,
    localise_violation,
    repair_chosen,
)
from carelab.lab.safety_tasks import SafetyCase
from carelab.networks import hidden_neurons
from carelab.proof import verify
from carelab.properties import SafetySamples, find_violations, safety_samples
from carelab.records import Neuron, Repair, Samples, UnitEffects
from carelab.repair import (
    SafetyMeasures,
    apply_repair,
    care_safety,
    constant_advice,
    fine_tune_advice,
    measure_safety_of,
)

__all__ = ["METHODS", "SafetyRun", "care_effects", "safety_run"]

METHODS = ("ours", "care", "care27", "random", "finetune", "constant")
_CARE_STEPS = 4
_CARE_NEURONS = {"care": 5, "care27": 27}
_RANGE_POINTS = 2000
_PROVED = ("ours", "care")  # whose other properties are put to the verifier
_FOUND = 64  # violations that are enough to say that some are left
_SHORTER = 5  # searches that only choose have a fifth of the steps


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class SafetyRun:
    """What one seed of one task gave.

    Args:
        seed: the seed.
        trial: the points it was made and measured with.
        before: the network given.
        after: the repaired networks' measures, method by method.
        networks: the repaired networks.
        repairs: the records of those that are repairs of single neurons.
        effects: CARE's causal effect of every hidden neuron.
        guilt: by how much patching each hidden neuron stops the violation.
        chosen: the neurons that our repair changed, and the candidates that were tried; None
            where ours was not asked for.
        still: for ours and CARE the answer of the verifier on every property that held before.
        hunted: for each repair of single neurons how many violations a new hunt in the repaired
            network found, at most 64.
        seconds: of the processor, for each method's repair, for CARE's "effects" and for our
            "localization".
    """

    seed: int
    trial: SafetySamples
    before: SafetyMeasures
    after: Mapping[str, SafetyMeasures]
    networks: Mapping[str, nn.Module]
    repairs: Mapping[str, Repair]
    effects: UnitEffects
    guilt: UnitEffects
    chosen: Chosen | None
    still: Mapping[str, Mapping[str, str]]
    hunted: Mapping[str, int]
    seconds: Mapping[str, float]


def safety_run(
    case: SafetyCase,
    *,
    methods: Sequence[str] = METHODS,
    samples: int = 10_016,
    points: int = 1_000_000,
    kept_count: int = 60_000,
    steps: int = 1200,
    draws: int = 500_000,
    proof_seconds: float = 20.0,
    seed: int,
    progress: bool = False,
) -> SafetyRun:
    """Every method on one controller, from counterexamples of its own hunt.

    "ours": neurons ranked by how far the violation falls when each gets the value it
    has at the nearest satisfying point; layer and number chosen by short searches on selection
    points, from the last layer back; then `repair_safety`, and again with the violations that a
    hunt finds in the repaired network. "care" and "care27" are CARE with 5 and 27 neurons;
    "random" is our search with as many neurons of the chosen layer drawn at random; "finetune"
    trains all weights on the advice, corrected at the counterexamples; "constant" always gives
    the most frequent advice.

    Args:
        case: the controller.
        methods: of `METHODS`.
        samples: violating and satisfying points for repair, and as many for test; a tenth of them
            for selection.
        points: uniform points of domain and box for the fidelity.
        kept_count: uniform points of the domain that the repair keeps the advice at.
        steps: steps of the gradient search.
        draws: uniform points of each hunt, at most.
        proof_seconds: for each property that must still hold; 0 leaves them out.
        seed: decides everything random.
        progress: show bars.

    Raises:
        ValueError: an unknown method, or a controller of which no violation was found.

    Example:
        >>> from carelab.lab.safety import safety_run
        >>> from carelab.lab.safety_embedded import embedded_case
        >>> safety_run(embedded_case(rows=300, epochs=1), methods=["magic"], seed=0)
        Traceback (most recent call last):
        ValueError: methods: got ['magic']; allowed: ...
    """
    _check(methods)
    generator = torch.Generator().manual_seed(seed)
    trial = _points(case, samples, draws, progress, generator)
    kept = kept_points(case, points=kept_count, generator=generator)
    seconds: dict[str, float] = {}
    started = time.process_time()
    effects = care_effects(case, trial)
    seconds["effects"] = time.process_time() - started
    started = time.process_time()
    guilt = localise_violation(case.model, trial, case.prop, generator=generator)
    seconds["localization"] = time.process_time() - started
    bench = _Bench(
        case=case,
        trial=trial,
        kept=kept,
        effects=effects,
        steps=steps,
        draws=draws,
        progress=progress,
        generator=generator,
    )
    repairs: dict[str, Repair] = {}
    networks: dict[str, nn.Module] = {}
    chosen: Chosen | None = None
    for method in sorted(set(methods), key=METHODS.index):
        started = time.process_time()
        if method == "ours":
            short = max(2, steps // _SHORTER)
            chosen = choose_neurons(
                case.model, guilt, trial, kept, case.prop, steps=short, generator=generator
            )
        networks[method], repair = _repaired(bench, method, chosen)
        if repair is not None:
            repairs[method] = repair
        seconds[method] = time.process_time() - started
    measured = measure_safety_of(
        {"before": case.model, **networks},
        case.model,
        trial,
        case.prop,
        case.domain,
        points=points,
        generator=generator,
    )
    return SafetyRun(
        seed=seed,
        trial=trial,
        before=measured.pop("before"),
        after=measured,
        networks=networks,
        repairs=repairs,
        effects=effects,
        guilt=guilt,
        chosen=chosen,
        still={
            name: _still(network, case, proof_seconds)
            for name, network in networks.items()
            if name in _PROVED
        },
        hunted={name: _hunted(networks[name], case, draws, generator) for name in repairs},
        seconds=seconds,
    )


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Bench:
    """What every method works with."""

    case: SafetyCase
    trial: SafetySamples
    kept: Kept
    effects: UnitEffects
    steps: int
    draws: int
    progress: bool
    generator: torch.Generator


def _check(methods: Sequence[str]) -> None:
    unknown = not methods or set(methods) - set(METHODS)
    if unknown or ("random" in methods and "ours" not in methods):
        raise ValueError(
            f"methods: got {list(methods)}; allowed: {', '.join(METHODS)}, at least one, random "
            "only beside ours, whose layer and number it takes"
        )


def _points(
    case: SafetyCase, samples: int, draws: int, progress: bool, generator: torch.Generator
) -> SafetySamples:
    sizes = (samples, max(1, samples // 10), samples)
    trial = safety_samples(
        case.model,
        case.prop,
        violating=sizes,
        satisfying=sizes,
        draws=draws,
        progress=progress,
        generator=generator,
    )
    if len(trial.repair.violating) == 0 or len(trial.test.violating) == 0:
        raise ValueError(f"case: no violation of {case.prop.name} was found; nothing to repair")
    return trial


def _repaired(bench: _Bench, method: str, chosen: Chosen | None) -> tuple[nn.Module, Repair | None]:
    """The network that a method makes, and its repair where it is one of single neurons."""
    case, generator = bench.case, bench.generator
    if method == "finetune":
        kept = [bench.kept.domain, bench.trial.repair.satisfying]
        tuned = fine_tune_advice(
            case.model, kept, bench.trial.repair.violating, case.prop, generator=generator
        )
        return tuned, None
    if method == "constant":
        return constant_advice(case.model, bench.kept.domain), None
    if method in _CARE_NEURONS:
        repair = _care(case, bench.trial, bench.effects, method, generator)
        return apply_repair(case.model, repair), repair
    assert chosen is not None, "ours comes before random"
    neurons = chosen if method == "ours" else _drawn(case.model, chosen, generator)
    repair = repair_chosen(
        case.model,
        neurons,
        bench.trial,
        bench.kept,
        case.prop,
        steps=bench.steps,
        draws=bench.draws,
        progress=bench.progress,
        generator=generator,
    )
    repair = replace(repair, method=method)
    return apply_repair(case.model, repair), repair


def care_effects(case: SafetyCase, trial: SafetySamples) -> UnitEffects:
    """CARE's effect of every hidden neuron: largest minus smallest E[y | do(neuron = v)].

    At four values v over the range that the neuron has on satisfying and violating points, with
    the mean over satisfying points of y = minus the property's margin in scores.

    Args:
        case: the controller.
        trial: its points; those for repair are looked at.

    Source: CARE, section 4. Departs: its y is the one score that the property is about; most
        properties are about several, and the margin, a difference of two scores, holds for all.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.lab import safety, safety_embedded
        >>> case, g = safety_embedded.embedded_case(), torch.Generator().manual_seed(0)
        >>> trial = cl.properties.safety_samples(case.model, case.prop, violating=(9, 1, 9),
        ...     satisfying=(9, 1, 9), draws=3000, generator=g)
        >>> len(safety.care_effects(case, trial).units)
        72
    """
    few = [part.take(slice(0, _RANGE_POINTS)) for part in (_good(trial), trial.repair.violating)]
    effects = neuron_effects(
        case.model,
        few[0],
        by_margin(case.prop),
        steps=_CARE_STEPS,
        range_samples=few[0].joined(few[1]),
    )
    return expectation_range(effects)


def _good(trial: SafetySamples) -> Samples:
    return trial.repair.satisfying


def _care(
    case: SafetyCase,
    trial: SafetySamples,
    effects: UnitEffects,
    method: str,
    generator: torch.Generator,
) -> Repair:
    """CARE's swarm over the first neurons of the layer picked by hand."""
    rows = [row for row, unit in enumerate(effects.units) if unit.layer == case.layer]
    order = effects.effect[rows].argsort(descending=True, stable=True).tolist()
    units = [effects.units[rows[place]] for place in order][: _CARE_NEURONS[method]]
    return care_safety(
        case.model,
        trial.repair.violating,
        _good(trial),
        case.prop,
        [unit for unit in units if isinstance(unit, Neuron)],
        alpha=case.alpha,
        method=method,
        generator=generator,
    )


def _drawn(model: nn.Module, chosen: Chosen, generator: torch.Generator) -> Chosen:
    """As many neurons of the same layer, at random."""
    units = hidden_neurons(model, layers=[chosen.neurons[0].layer])
    places = torch.randperm(len(units), generator=generator)[: len(chosen.neurons)].tolist()
    return replace(chosen, neurons=tuple(units[place] for place in places))


def _still(model: nn.Module, case: SafetyCase, seconds: float) -> dict[str, str]:
    """The verifier's answer on every property that held of the network given."""
    if seconds <= 0:
        return {}
    return {name: verify(model, prop, seconds=seconds).status for name, prop in case.still}


def _hunted(model: nn.Module, case: SafetyCase, draws: int, generator: torch.Generator) -> int:
    """How many violations a new hunt finds, up to what is enough to say so."""
    hunt = find_violations(
        model, case.prop, _FOUND, draws=draws, generations=50, walk=0, generator=generator
    )
    return len(hunt.points)
