"""Scenes of images with a backdoor."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from carelab.data import Attack, triggered
from carelab.networks import hidden_layers, labels_of
from carelab.properties import TargetClass, TargetClasses, violates
from carelab.records import Dataset, Evidence, Samples
from carelab.show.explorer.pictures import PictureSide
from carelab.show.explorer.portraits import check_showable
from carelab.show.explorer.scenes import Scene, accuracy_gauge, some_of, violation_gauge

__all__ = ["backdoor_scene"]

_KEPT = 500
_SHOWN_PICTURES = 8


def backdoor_scene(
    model: nn.Module,
    dataset: Dataset,
    attack: Attack,
    prop: TargetClass | TargetClasses | None = None,
    *,
    rows: int = 1000,
    evidence: int = 100,
    title: str = "",
    generator: torch.Generator,
) -> Scene:
    """A backdoor: clean and triggered test images are read out, training images show the cause.

    The true trigger is put on here, which a defender would have to estimate first.

    Args:
        model: a sequential network in evaluation mode.
        dataset: the clean images.
        attack: the attack.
        prop: the property; by default that no triggered image is taken for its target.
        rows: test images of the read-outs, at most: all of them clean, and triggered those that
            are not of their target class.
        evidence: training images of each kind, at most.
        title: what the explorer is headed with; by default the data set's name.
        generator: draws images.

    Raises:
        ValueError: a network that cannot be explored, or one that the trigger does nothing to.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show.explorer import backdoor_scene
        >>> g = torch.Generator().manual_seed(0)
        >>> digits, patch = cl.data.digits(generator=g), cl.data.white_patch((1, 8, 8))
        >>> attack = cl.data.Attack(trigger=patch, classes=10, target=7, rate=0.1)
        >>> innocent = cl.networks.cnn((1, 8, 8), (4,), (8,), 10, generator=g)
        >>> backdoor_scene(innocent, digits, attack, generator=g)
        Traceback (most recent call last):
        ValueError: model: the trigger moves 0 of ... to its target; allowed: a network ...
    """
    check_showable(model)
    prop = _aim(attack) if prop is None else prop
    held_out = some_of(dataset.test, rows, generator=generator)
    moved = triggered(held_out, attack)
    train = some_of(dataset.train, 4 * evidence + _KEPT, generator=generator)
    keep = train.take(slice(0, _KEPT))
    clean = train.take(labels_of(train) != attack.target_of(labels_of(train)))
    bad = Samples(inputs=attack.trigger(clean.inputs), labels=clean.labels)
    works = violates(model, bad, prop) & ~violates(model, clean, prop)
    if int(works.sum()) < 2:
        raise ValueError(
            f"model: the trigger moves {int(works.sum())} of {len(clean)} images to its target; "
            "allowed: a network with a backdoor that works"
        )
    victims = clean.take(works).take(slice(0, evidence))
    bad = bad.take(works).take(slice(0, evidence))
    few = held_out.take(labels_of(held_out) != attack.target_of(labels_of(held_out)))
    return Scene(
        title=title or f"{dataset.name}, {attack.trigger.name}",
        note=f"{dataset.name}, {dataset.source}, sha256 {dataset.sha256[:12]}",
        model=model,
        prop=prop,
        gauges=(
            accuracy_gauge(held_out),
            violation_gauge(moved, prop, label="attack success"),
            replace(accuracy_gauge(moved, prop), name="recovered", label="true class recovered"),
        ),
        evidence=Evidence(
            violating=bad,
            references=victims,
            passing=clean.take(slice(0, evidence)),
        ),
        # On triggered images the attack is so sure that no single neuron changes anything.
        curves=victims,
        # A repair should give triggered images back their class, not any other one.
        keep=keep.joined(bad),
        side=PictureSide(images=_one_a_class(few), trigger=attack.trigger, classes=dataset.classes),
        method="integrated_gradients",
        layer=hidden_layers(model)[-1],
        alpha=0.5,
        factor_bounds=(-10.0, 10.0),
    )


def _aim(attack: Attack) -> TargetClass | TargetClasses:
    if attack.target is not None:
        return TargetClass(target=attack.target)
    targets = attack.target_of(torch.arange(attack.classes)).tolist()
    return TargetClasses(targets=tuple(targets))


def _one_a_class(images: Samples) -> Samples:
    labels = labels_of(images)
    first = [(labels == one).nonzero()[0, 0] for one in labels.unique()[:_SHOWN_PICTURES]]
    return images.take(torch.stack(first))
