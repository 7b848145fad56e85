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
)
from carelab.data import (
    Trigger,
    augmented_copies,
    mixed_copies,
    recoloured,
    shifted,
    triggered,
)
from carelab.lab.backdoor_cases import BackdoorCase, mixtures, other_looks
from carelab.lab.backdoor_defence import Defence, Knowledge, known_attack, prepare_defence
from carelab.lab.backdoor_localization import PAIRS, localize, pairs, repair_best_layer
from carelab.networks import (
    accuracy,
    hidden_layers,
    hidden_neurons,
    labels_of,
    predict,
)
from carelab.properties import attack_success_rate
from carelab.records import Neuron, Ranking, Repair, Samples, UnitEffects
from carelab.repair import (
    adversarial_neuron_pruning,
    apply_repair,
    care,
    fine_prune,
    fine_tune,
    unlearn_trigger,
)

__all__ = ["BackdoorMeasures", "BackdoorRun", "backdoor_run", "measure_backdoor"]

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
        seconds: of the processor, since other work on the machine must not count: for each
            method's repair, and for "knowledge" and "localization".
        ranking: all units by how far patching them lowers the chance of the attack's class.
        positions: the same effect of each number of the last feature map; None without a map.
        guilty: the units that our repair changed.
        candidates: cost on selection images of each repair that was tried: chance that moved,
            plus chance that the attack's class kept.
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
    candidates: Mapping[str, float]
    knowledge: Knowledge
    repair: Repair


def backdoor_run(
    case: BackdoorCase,
    setting: str,
    *,
    methods: Sequence[str] = ("ours", "care", "finetune", "finepruning", "anp", "random"),
    steps: int = 400,
    seed: int,
    progress: bool = False,
) -> BackdoorRun:
    """Every method on one backdoored network, with what the defender has in a setting.

    Ours: units ranked by how far the chance of the attack's class falls when each gets its value
    of the clean image (patching); the first of a layer, from the last layer back until selection
    images show that it works, have their weights moved until triggered images are answered as
    clean ones (`unlearn_trigger`), on the defender's images and on another look of each; where
    these are much alike (`mixtures`), the answers to mixtures of them are kept as well.
    "random" is the same search with as many units of that layer drawn at random. "care" is CARE:
    of the last hidden layer the 5 neurons with the largest range of E[chance | do], scaled by its
    swarm.
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
        >>> from carelab.lab.backdoor_cases import backdoor_case
        >>> backdoor_run(backdoor_case("digits", epochs=1), "a", methods=["magic"], seed=0)
        Traceback (most recent call last):
        ValueError: methods: got ['magic']; allowed: ours, care, finetune, ...
    """
    known = ("ours", "care", "finetune", "finetune_known", "finepruning", "anp", "random")
    if unknown := set(methods) - set(known):
        raise ValueError(f"methods: got {sorted(unknown)}; allowed: {', '.join(known)}")
    generator = torch.Generator().manual_seed(seed)
    defence = prepare_defence(case, setting, generator=generator)
    knowledge = known_attack(case.model, defence, len(case.dataset.classes), generator=generator)
    seconds = {"knowledge": knowledge.seconds}
    started = time.process_time()
    found = localize(case.model, defence, knowledge)
    seconds["localization"] = time.process_time() - started
    started = time.process_time()
    images = _seen_again(case, defence.clean, generator)
    unlearn = partial(
        _unlearn,
        case.model,
        images,
        _kept(case, images, knowledge, generator),
        defence,
        knowledge,
        steps=steps,
        progress=progress,
        generator=generator,
    )
    # Images that the network knows by heart hardly move; as they may also look, they do.
    choosing = replace(defence, selection=_seen_again(case, defence.selection, generator))
    ours = repair_best_layer(case.model, found.ranking, choosing, knowledge, unlearn)
    repair = ours.repair
    seconds["repair"] = time.process_time() - started
    after = {"ours": apply_repair(case.model, repair)}
    for method in methods:
        if method == "ours" or (method == "finetune_known" and defence.known is None):
            continue
        began = time.process_time()
        if method == "random":
            same = partial(unlearn, learning_rate=ours.learning_rate)
            after[method] = _random(case.model, same, repair.neurons, generator)
        elif method == "care":
            after[method] = _care(case, defence, knowledge, generator)
        else:
            after[method] = _baseline(method, case.model, defence, generator)
        seconds[method] = time.process_time() - began
    answers = predict(case.model, case.dataset.test.inputs)
    measure = partial(measure_backdoor, case, answers=answers)
    return BackdoorRun(
        seed=seed,
        before=measure(case.model),
        after={name: measure(model) for name, model in after.items()},
        seconds=seconds,
        ranking=found.ranking,
        positions=found.positions,
        guilty=repair.neurons,
        candidates=ours.candidates,
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
        >>> from carelab.lab.backdoor_cases import backdoor_case
        >>> case = backdoor_case("digits", epochs=1)
        >>> measure_backdoor(case, case.model).predictions_changed
        0.0
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


def _seen_again(case: BackdoorCase, clean: Samples, generator: torch.Generator) -> Samples:
    """The images, and each of them once more as it may also look."""
    change = other_looks(case.name, clean.inputs.shape[2])
    return clean.joined(augmented_copies(clean, 1, change, generator=generator))


def _kept(
    case: BackdoorCase, images: Samples, knowledge: Knowledge, generator: torch.Generator
) -> Samples:
    """Inputs at which the answers are to stay: the images, and mixtures of them where those help.

    Without a trigger labels are learned instead of answers, and mixtures have none of their own.
    """
    copies = mixtures(case.name)
    if not copies or not knowledge.triggers:
        return images
    return images.joined(mixed_copies(images, copies, generator=generator))


def _unlearn(
    model: nn.Module,
    images: Samples,
    kept: Samples,
    defence: Defence,
    knowledge: Knowledge,
    guilty: Sequence[Neuron],
    *,
    learning_rate: float,
    steps: int,
    progress: bool = False,
    generator: torch.Generator,
) -> Repair:
    return unlearn_trigger(
        model,
        guilty,
        kept,
        knowledge.victims(images),
        knowledge.triggers,
        knowledge.prop,
        known=defence.known,
        steps=steps,
        learning_rate=learning_rate,
        progress=progress,
        generator=generator,
    )


def _random(
    model: nn.Module,
    unlearn: Callable[..., Repair],
    guilty: Sequence[Neuron],
    generator: torch.Generator,
) -> nn.Module:
    """As many units of the same layer."""
    units = hidden_neurons(model, layers=[guilty[0].layer])
    drawn = torch.randperm(len(units), generator=generator)[: len(guilty)].tolist()
    chosen = [units[place] for place in drawn]
    return apply_repair(model, unlearn(chosen))


def _care(
    case: BackdoorCase, defence: Defence, knowledge: Knowledge, generator: torch.Generator
) -> nn.Module:
    """CARE: 5 neurons of the last hidden layer by the range of E[chance | do], its swarm."""
    model, prop = case.model, knowledge.prop
    moved, victims = pairs(defence, knowledge, defence.clean)
    layer = hidden_layers(model)[-1]
    effects = neuron_effects(
        model,
        victims.take(slice(0, PAIRS)),
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
