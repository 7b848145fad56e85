"""What a defender has in each setting of a backdoor experiment, and what is made of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from carelab.data import MaskTrigger, triggered
from carelab.lab.backdoor_cases import BackdoorCase
from carelab.networks import predict
from carelab.properties import (
    Detection,
    Reconstruction,
    TargetClasses,
    detect_target,
    estimate_trigger,
    reconstruct_trigger,
    reconstruct_triggers,
)
from carelab.records import Samples

__all__ = [
    "SCAN_STEPS",
    "SETTINGS",
    "Defence",
    "Knowledge",
    "known_attack",
    "prepare_defence",
    "suspected",
]

# Clean images and triggered images that the defender has.
SETTINGS: Mapping[str, tuple[int, int]] = {
    "a": (1000, 1000),
    "b": (1000, 50),
    "c": (1000, 0),
    "d": (100, 0),
}
# One in five of the defender's images is kept apart for choosing.
_FOR_CHOOSING = 5
# Steps of the search over all classes, and how often the suspected one is searched again.
SCAN_STEPS = 60
_AGAIN = 3
# Where classes are many, each gets less of the search: fewer images, and fewer of them a step.
_MANY, _SCANNED, _SCAN_BATCH = 20, 200, 24
# An estimated trigger is used where it moves this share of what the true one moves.
_WORKS = 0.8
# The rule that finds suspects compares one class with at least three whose triggers succeed.
_SUCCEEDS, _COMPARED = 0.95, 4


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Defence:
    """The images that the defender has; none of them are test images.

    Args:
        clean: clean labelled images for the repair.
        selection: clean labelled images for choosing.
        known: triggered images with their true labels for the repair, or None.
        known_selection: the same for choosing, or None.
    """

    clean: Samples
    selection: Samples
    known: Samples | None
    known_selection: Samples | None


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Knowledge:
    """What the defender has found out about the attack.

    Args:
        targets: the class that the attack has for each class.
        triggers: triggers that were estimated or reconstructed; none where no estimate works.
        source: "moments" (estimated from triggered images), "reconstruction", or "images alone".
        reconstructions: what was reconstructed for each class, or empty.
        detected: classes that the reconstructions make suspect, or empty.
        seconds: of the processor that it took.
    """

    targets: tuple[int, ...]
    triggers: tuple[MaskTrigger, ...]
    source: str
    reconstructions: tuple[Reconstruction, ...]
    detected: tuple[int, ...]
    seconds: float

    @property
    def prop(self) -> TargetClasses:
        """What triggered images must not do, as a property of samples with true labels."""
        return TargetClasses(targets=self.targets)

    def victims(self, samples: Samples) -> Samples:
        """The samples that the attack would move: those not of their target already."""
        assert samples.labels is not None
        return samples.take(torch.tensor(self.targets)[samples.labels] != samples.labels)


def prepare_defence(case: BackdoorCase, setting: str, *, generator: torch.Generator) -> Defence:
    """The defender's images: a random part of the clean training images, some of them triggered.

    Args:
        case: the network and its data.
        setting: "a", 1000 clean and 1000 triggered images; "b", 1000 and 50; "c", 1000 clean
            ones; "d", 100 clean ones. Fewer where there are fewer than that.
        generator: draws the images.

    Raises:
        ValueError: an unknown setting.

    Example:
        >>> from carelab.lab.backdoor_defence import SETTINGS
        >>> SETTINGS["b"]
        (1000, 50)
    """
    if setting not in SETTINGS:
        raise ValueError(f"setting: got {setting!r}; allowed: {', '.join(SETTINGS)}")
    train = case.dataset.train
    count, poisoned = SETTINGS[setting]
    order = torch.randperm(len(train), generator=generator)
    # Small data sets are shared half and half between the two kinds of images.
    count = min(count, len(train) // 2 if poisoned else len(train))
    clean = train.take(order[:count])
    cut = len(clean) // _FOR_CHOOSING
    known = known_selection = None
    if poisoned:
        moved = triggered(train.take(order[count:]), case.attack)
        moved = moved.take(slice(0, poisoned))
        share = len(moved) // _FOR_CHOOSING
        known, known_selection = moved.take(slice(share, None)), moved.take(slice(0, share))
    return Defence(
        clean=clean.take(slice(cut, None)),
        selection=clean.take(slice(0, cut)),
        known=known,
        known_selection=known_selection,
    )


def known_attack(
    model: nn.Module, defence: Defence, classes: int, *, generator: torch.Generator
) -> Knowledge:
    """What the defender's images say about the attack: its targets and its trigger.

    With triggered images, the target of each class is the other class that most of them are taken
    for, and the trigger is estimated from their moments and those of clean images that are not of
    their target class (`estimate_trigger`); it is used where it moves clean images about as often.
    Without, a trigger is reconstructed for each class; the target is the class whose trigger is
    suspiciously small, or else the smallest.

    Args:
        model: the network.
        defence: the defender's images.
        classes: number of classes.
        generator: drives estimates and reconstructions.

    Example:
        >>> import torch
        >>> from carelab.lab.backdoor_cases import backdoor_case
        >>> from carelab.lab.backdoor_defence import known_attack, prepare_defence
        >>> case, g = backdoor_case("digits", epochs=1), torch.Generator().manual_seed(0)
        >>> defence = prepare_defence(case, "a", generator=g)
        >>> known_attack(case.model, defence, 10, generator=g).source
        'moments'
    """
    started = time.process_time()
    if defence.known is not None:
        found = _from_images(model, defence, defence.known, classes, generator)
    else:
        found = _from_nothing(model, defence, classes, generator)
    return replace(found, seconds=time.process_time() - started)


def suspected(
    reconstructions: Sequence[Reconstruction], rule: Callable[..., Detection] = detect_target
) -> tuple[int, ...]:
    """Classes that a rule suspects, smallest trigger first; none where too few triggers succeed.

    Args:
        reconstructions: one of each class.
        rule: `detect_target` or `detect_target_by_deviation`.

    Example:
        >>> from carelab.lab.backdoor_defence import suspected
        >>> suspected([])
        ()
    """
    if sum(one.success >= _SUCCEEDS for one in reconstructions) < _COMPARED:
        return ()
    return rule(reconstructions, wanted=_SUCCEEDS).suspects


def _from_images(
    model: nn.Module,
    defence: Defence,
    known: Samples,
    classes: int,
    generator: torch.Generator,
) -> Knowledge:
    assert known.labels is not None
    taken = predict(model, known.inputs)
    # Triggered images that a weak attack leaves in their own class do not say where it aims.
    moved = taken != known.labels
    if not moved.any():
        moved = torch.ones_like(moved)
    usual = int(taken[moved].mode().values)
    targets = []
    for label in range(classes):
        own = taken[moved & (known.labels == label)]
        targets.append(int(own.mode().values) if len(own) else usual)
    # One class for all unless the images say clearly that each class has its own.
    if float((taken[moved] == usual).double().mean()) > 0.5:
        targets = [usual] * classes
    found = Knowledge(
        targets=tuple(targets),
        triggers=(),
        source="images alone",
        reconstructions=(),
        detected=(),
        seconds=0.0,
    )
    # The triggered images have none of the target class; to compare them with images of it would
    # call changed what only tells that class from the others.
    victims = found.victims(defence.clean)
    trigger = estimate_trigger(known.inputs, victims.inputs, generator=generator)
    wanted = _success(model, known, found.targets)
    tried = replace(victims, inputs=trigger(victims.inputs))
    if _success(model, tried, found.targets) >= _WORKS * wanted:
        return replace(found, triggers=(trigger,), source="moments")
    return found


def _from_nothing(
    model: nn.Module, defence: Defence, classes: int, generator: torch.Generator
) -> Knowledge:
    images = defence.clean.inputs
    many = classes > _MANY
    reconstructions = reconstruct_triggers(
        model,
        images[:_SCANNED] if many else images,
        targets=range(classes),
        steps=SCAN_STEPS,
        batch_size=_SCAN_BATCH if many else 2 * _SCAN_BATCH,
        generator=generator,
    )
    detected = suspected(reconstructions)
    working = [one for one in reconstructions if one.success >= _WORKS] or list(reconstructions)
    target = detected[0] if detected else min(working, key=lambda one: one.size).target
    # Several starts end at different triggers, all of which the network must unlearn.
    triggers = [
        reconstruct_trigger(model, images, target, generator=generator).trigger
        for _ in range(_AGAIN)
    ]
    return Knowledge(
        targets=(target,) * classes,
        triggers=(*triggers, reconstructions[target].trigger),
        source="reconstruction",
        reconstructions=reconstructions,
        detected=detected,
        seconds=0.0,
    )


def _success(model: nn.Module, moved: Samples, targets: tuple[int, ...]) -> float:
    assert moved.labels is not None
    wanted: Tensor = torch.tensor(targets)[moved.labels]
    return float((predict(model, moved.inputs) == wanted).double().mean())
