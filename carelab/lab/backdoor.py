"""The backdoor experiment: find and repair with every method, measured on the true trigger."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor, nn

from carelab.causal import (
    expectation_range,
    guilty_neurons,
    neuron_effects,
    patching_effects,
    rank_units,
)
from carelab.data import Trigger, recoloured, shifted, triggered
from carelab.lab.backdoor_cases import BackdoorCase
from carelab.lab.backdoor_defence import Defence, Knowledge, known_attack, prepare_defence
from carelab.networks import (
    accuracy,
    feature_positions,
    hidden_layers,
    hidden_neurons,
    labels_of,
    ordered_modules,
    pre_activation,
    predict,
)
from carelab.properties import attack_success_rate, violation_rate
from carelab.records import Neuron, Ranking, Repair, Samples, UnitEffects
from carelab.repair import (
    adversarial_neuron_pruning,
    apply_repair,
    care,
    fine_prune,
    fine_tune,
    outgoing_columns,
    unlearn_trigger,
)

__all__ = ["BackdoorMeasures", "BackdoorRun", "backdoor_run", "measure_backdoor"]

_PAIRS = 200  # triggered images that effects are measured on
_SHARES = (0.02, 0.05, 0.1)  # of the units, from which selection images choose
_TRIAL_STEPS = 40
_CARE_NEURONS = 5
_CARE_ALPHA = {"gtsrb": 0.1}  # 0.2 elsewhere
_CARE_BOUNDS = (-10.0, 10.0)
_CARE_STEPS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class BackdoorMeasures:
    """How a network does on test images, beside the network given; rates are fractions.

    Args:
        accuracy: of the clean images, those classified right.
        attack_success_rate: of the triggered images not of their target class, those that reach
            it; with the true trigger.
        triggered_accuracy: of the same images, those whose true class is recovered.
        attack_success_shifted: as the attack's success, the trigger moved by a pixel; None where
            the trigger cannot be moved.
        attack_success_recoloured: the same, the trigger at 80 % of its brightness.
        predictions_changed: of the clean images, those whose class differs from before.
    """

    accuracy: float
    attack_success_rate: float
    triggered_accuracy: float
    attack_success_shifted: float | None
    attack_success_recoloured: float | None
    predictions_changed: float


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class BackdoorRun:
    """What one seed of one setting gave.

    Args:
        seed: the seed.
        before: the network given.
        after: the repaired networks, method by method.
        seconds: wall time of each method's repair, and of "knowledge" and "localization".
        ranking: all units by how far patching them lowers the chance of the attack's class.
        positions: the same effect of each number of the last feature map; None without a map.
        guilty: the units that our repair changed.
        candidates: selection cost of each number of units that was tried for a few steps.
        knowledge: what the defender found out.
        repair: our repair.
    """

    seed: int
    before: BackdoorMeasures
    after: Mapping[str, BackdoorMeasures]
    seconds: Mapping[str, float]
    ranking: Ranking
    positions: UnitEffects | None
    guilty: tuple[Neuron, ...]
    candidates: Mapping[int, float]
    knowledge: Knowledge
    repair: Repair


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Found:
    """The units to repair, and how they were chosen."""

    ranking: Ranking
    positions: UnitEffects | None
    guilty: tuple[Neuron, ...]
    candidates: Mapping[int, float]


def backdoor_run(
    case: BackdoorCase,
    setting: str,
    *,
    methods: Sequence[str] = ("ours", "care", "finetune", "finepruning", "anp", "random"),
    steps: int = 200,
    seed: int,
    progress: bool = False,
) -> BackdoorRun:
    """Every method on one backdoored network, with what the defender has in a setting.

    Ours: units ranked by how far the chance of the attack's class falls when each gets its value
    of the clean image (patching), a share of them chosen by short trials on selection images,
    their weights moved until triggered images are answered as clean ones (`unlearn_trigger`).
    "random" is the same search with as many units drawn at random. "care" is CARE: of the last
    hidden layer the 5 neurons with the largest range of E[chance | do], scaled by its swarm.
    "finetune", "finepruning" and "anp" see the clean images; "finetune_known" sees the triggered
    ones as well, with their true labels, where there are any.

    Args:
        case: the network, the data, and the attack, which only makes the defender's triggered
            images and the measurement.
        setting: "a" to "d", as for `prepare_defence`.
        methods: which methods to run; "ours" always is.
        steps: steps of the gradient search.
        seed: decides the defender's images and everything random.
        progress: show bars.

    Raises:
        ValueError: an unknown setting or method.

    Example:
        >>> from carelab.lab.backdoor import backdoor_run
        >>> backdoor_run.__name__
        'backdoor_run'
    """
    known = ("ours", "care", "finetune", "finetune_known", "finepruning", "anp", "random")
    if unknown := set(methods) - set(known):
        raise ValueError(f"methods: got {sorted(unknown)}; allowed: {', '.join(known)}")
    generator = torch.Generator().manual_seed(seed)
    defence = prepare_defence(case, setting, generator=generator)
    knowledge = known_attack(case.model, defence, len(case.dataset.classes), generator=generator)
    seconds = {"knowledge": knowledge.seconds}
    started = time.perf_counter()
    unlearn = partial(_unlearn, case.model, defence, knowledge, progress=progress)
    found = _guilty(case.model, defence, knowledge, partial(unlearn, steps=_TRIAL_STEPS), generator)
    seconds["localization"] = time.perf_counter() - started
    repair = unlearn(found.guilty, steps=steps, generator=generator)
    seconds["repair"] = repair.seconds
    after = {"ours": apply_repair(case.model, repair)}
    for method in methods:
        if method == "ours" or (method == "finetune_known" and defence.known is None):
            continue
        began = time.perf_counter()
        if method == "random":
            after[method] = _random(case, unlearn, len(found.guilty), steps, generator)
        elif method == "care":
            after[method] = _care(case, defence, knowledge, generator)
        else:
            after[method] = _baseline(method, case.model, defence, generator)
        seconds[method] = time.perf_counter() - began
    answers = predict(case.model, case.dataset.test.inputs)
    measure = partial(measure_backdoor, case, answers=answers)
    return BackdoorRun(
        seed=seed,
        before=measure(case.model),
        after={name: measure(model) for name, model in after.items()},
        seconds=seconds,
        ranking=found.ranking,
        positions=found.positions,
        guilty=found.guilty,
        candidates=found.candidates,
        knowledge=knowledge,
        repair=repair,
    )


def measure_backdoor(
    case: BackdoorCase, model: nn.Module, *, answers: Int[Tensor, " batch"] | None = None
) -> BackdoorMeasures:
    """All measures of a network on the test images, with the true trigger.

    Args:
        case: the network given, the data and the attack.
        model: the network to measure.
        answers: what the network given answers to the clean test images, where it is known.

    Example:
        >>> from carelab.lab.backdoor import measure_backdoor
        >>> measure_backdoor.__name__
        'measure_backdoor'
    """
    test = case.dataset.test
    moved = triggered(test, case.attack)
    trigger = case.attack.trigger

    def success(other: Callable[[], Trigger]) -> float | None:
        try:
            attack = replace(case.attack, trigger=other())
        except ValueError:  # such a trigger is in no place, or has no colour
            return None
        return attack_success_rate(model, test, attack)

    before = predict(case.model, test.inputs) if answers is None else answers
    after = predict(model, test.inputs)
    return BackdoorMeasures(
        accuracy=float((after == labels_of(test)).double().mean()),
        attack_success_rate=attack_success_rate(model, test, case.attack),
        triggered_accuracy=accuracy(model, moved),
        attack_success_shifted=success(lambda: shifted(trigger, -1, -1)),
        attack_success_recoloured=success(lambda: recoloured(trigger, scale=0.8)),
        predictions_changed=float((after != before).double().mean()),
    )


def _pairs(defence: Defence, knowledge: Knowledge, clean: Samples) -> tuple[Samples, Samples]:
    """Triggered images and the same without, or as close as the defender can come to that."""
    victims = knowledge.victims(clean)
    if knowledge.triggers:
        moved = replace(victims, inputs=knowledge.triggers[0](victims.inputs))
        return moved, victims
    assert defence.known is not None
    count = min(len(defence.known), len(victims))
    return defence.known.take(slice(0, count)), victims.take(slice(0, count))


def _guilty(
    model: nn.Module,
    defence: Defence,
    knowledge: Knowledge,
    trial: Callable[..., Repair],
    generator: torch.Generator,
) -> _Found:
    """The units ranked by patching, and how many of them short repairs favour."""
    moved, victims = (
        samples.take(slice(0, _PAIRS)) for samples in _pairs(defence, knowledge, defence.clean)
    )
    patched = partial(patching_effects, model, moved, knowledge.prop, references=victims)
    ranking = rank_units(patched(units=_editable(model)))
    places = _last_map(model, moved)
    units = tuple(unit for unit in ranking.units if isinstance(unit, Neuron))
    candidates = {}
    for share in _SHARES:
        count = max(1, round(share * len(units)))
        repaired = apply_repair(model, trial(units[:count], generator=generator))
        candidates[count] = _selection_cost(model, repaired, defence, knowledge)
    # A selection image decides little: as long as fewer units cost no more than one more image.
    allowed = min(candidates.values()) + 1 / len(defence.selection)
    count = min(count for count, cost in candidates.items() if cost <= allowed)
    return _Found(
        ranking=ranking,
        positions=patched(units=places) if places else None,
        guilty=units[:count],
        candidates=candidates,
    )


def _selection_cost(
    model: nn.Module, repaired: nn.Module, defence: Defence, knowledge: Knowledge
) -> float:
    """Accuracy lost on selection images, plus what is left of the attack there."""
    lost = accuracy(model, defence.selection) - accuracy(repaired, defence.selection)
    left = [0.0]
    if knowledge.triggers:
        moved, _ = _pairs(defence, knowledge, defence.selection)
        left.append(violation_rate(repaired, moved, knowledge.prop))
    if defence.known_selection is not None and len(defence.known_selection):
        left.append(violation_rate(repaired, defence.known_selection, knowledge.prop))
    return max(0.0, lost) + max(left)


def _editable(model: nn.Module) -> tuple[Neuron, ...]:
    """Hidden units with weights of their own: one weight layer writes them, one reads them."""
    layers = []
    for layer in hidden_layers(model):
        try:
            pre_activation(model, layer)
            outgoing_columns(model, Neuron(layer, 0))
        except ValueError:  # around a residual block
            continue
        layers.append(layer)
    return hidden_neurons(model, layers=layers)


def _last_map(model: nn.Module, samples: Samples) -> tuple[Neuron, ...]:
    """Every number of the feature map that is flattened, or none where images are."""
    names = [name for name, _ in ordered_modules(model)]
    kinds = [type(module) for _, module in ordered_modules(model)]
    at = kinds.index(nn.Flatten) if nn.Flatten in kinds else 0
    return feature_positions(model, names[at - 1], samples.inputs.shape[1:]) if at else ()


def _unlearn(
    model: nn.Module,
    defence: Defence,
    knowledge: Knowledge,
    guilty: Sequence[Neuron],
    *,
    steps: int,
    progress: bool = False,
    generator: torch.Generator,
) -> Repair:
    return unlearn_trigger(
        model,
        guilty,
        defence.clean,
        knowledge.victims(defence.clean),
        knowledge.triggers,
        knowledge.prop,
        known=defence.known,
        steps=steps,
        progress=progress,
        generator=generator,
    )


def _random(
    case: BackdoorCase,
    unlearn: Callable[..., Repair],
    count: int,
    steps: int,
    generator: torch.Generator,
) -> nn.Module:
    units = _editable(case.model)
    chosen = torch.randperm(len(units), generator=generator)[:count].tolist()
    drawn = [units[place] for place in chosen]
    return apply_repair(case.model, unlearn(drawn, steps=steps, generator=generator))


def _care(
    case: BackdoorCase, defence: Defence, knowledge: Knowledge, generator: torch.Generator
) -> nn.Module:
    """CARE: 5 neurons of the last hidden layer by the range of E[chance | do], its swarm."""
    model, prop = case.model, knowledge.prop
    moved, victims = _pairs(defence, knowledge, defence.clean)
    layer = hidden_layers(model)[-1]
    effects = neuron_effects(
        model,
        victims.take(slice(0, _PAIRS)),
        prop,
        neurons=hidden_neurons(model, layers=[layer]),
        steps=_CARE_STEPS,
        range_samples=moved.joined(victims),
    )
    guilty = guilty_neurons(expectation_range(effects), count=_CARE_NEURONS)
    repair = care(
        model,
        defence.clean,
        moved,
        prop,
        guilty,
        alpha=_CARE_ALPHA.get(case.name, 0.2),
        factor_bounds=_CARE_BOUNDS,
        generator=generator,
    )
    return apply_repair(model, repair)


def _baseline(
    method: str, model: nn.Module, defence: Defence, generator: torch.Generator
) -> nn.Module:
    clean, selection = defence.clean, defence.selection
    if method == "finetune":
        return fine_tune(model, clean, generator=generator)
    if method == "finepruning":
        return fine_prune(model, clean, selection=selection, generator=generator)
    if method == "anp":
        return adversarial_neuron_pruning(model, clean, selection=selection, generator=generator)
    assert defence.known is not None
    return fine_tune(model, clean.joined(defence.known), generator=generator)
