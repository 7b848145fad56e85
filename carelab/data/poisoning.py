"""Poisoned training data: an attack, what it does to training images, and its triggered images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from carelab.data.triggers import Trigger
from carelab.records import Samples

__all__ = ["Attack", "poison", "triggered"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Attack:
    """A backdoor attack: images with the trigger are to be taken for the target class.

    Args:
        trigger: what is done to an image.
        classes: number of classes.
        target: the target class of every image, or None for all-to-all: class y goes to
            (y + 1) mod classes.
        rate: share of the training images that are poisoned, in [0, 1); with `clean_label` share
            of those of the target class.
        clean_label: poison images of the target class only, and keep every label.

    Raises:
        ValueError: fewer than 2 classes, a target outside them, a rate outside [0, 1), clean
            labels in an all-to-all attack.

    Source: Gu et al., BadNets, arXiv 1708.06733, sections 4.1 and 4.2 (single target, all-to-all);
        Barni et al., ICIP 2019 (clean label).

    Example:
        >>> import torch
        >>> from carelab import data
        >>> patch = data.white_patch((1, 28, 28))
        >>> attack = data.Attack(trigger=patch, classes=10, target=None, rate=0.1)
        >>> attack.target_of(torch.tensor([0, 9])).tolist()
        [1, 0]
    """

    trigger: Trigger
    classes: int
    target: int | None
    rate: float
    clean_label: bool = False

    def __post_init__(self) -> None:
        """Refuses attacks that contradict themselves."""
        if self.classes < 2:
            raise ValueError(f"classes: got {self.classes}; allowed: 2 or more")
        if self.target is not None and not 0 <= self.target < self.classes:
            raise ValueError(
                f"target: got {self.target}; allowed: 0 to {self.classes - 1}, or None for "
                "all-to-all"
            )
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate: got {self.rate}; allowed: 0 or more, below 1")
        if self.clean_label and self.target is None:
            raise ValueError(
                "clean_label: got True with target None; allowed: a single target class, since "
                "all-to-all changes every label"
            )

    def target_of(self, labels: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """The class that triggered images of the given true classes are to be taken for."""
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise ValueError(
                f"labels: got {int(labels.min())} to {int(labels.max())}; "
                f"allowed: 0 to {self.classes - 1}"
            )
        if self.target is None:
            return (labels + 1) % self.classes
        return torch.full_like(labels, self.target)


def poison(samples: Samples, attack: Attack, *, generator: torch.Generator) -> Samples:
    """Training samples of which a share carries the trigger and the target's label.

    Poisoned images replace the images they are made of; all rows stay in their order. They are
    drawn from the images that are not of their target class (with clean labels from those that
    are, whose labels stay). The trigger is put on the images as they are: augmentation during
    training comes after it.

    Args:
        samples: clean images with labels; they are not changed.
        attack: the attack; a rate of 0 changes nothing.
        generator: draws the rows to poison.

    Returns:
        As many samples as given.

    Raises:
        ValueError: samples without labels or with labels outside the attack's classes, fewer
            images to draw from than are to be poisoned, or a rate above 0 of so few that it is
            none.

    Source: as for `Attack`.

    Example:
        >>> import torch
        >>> from carelab import data, records
        >>> clean = records.Samples(inputs=torch.zeros(8, 1, 2, 2), labels=torch.zeros(8).long())
        >>> patch = data.PatchTrigger(pattern=torch.ones(1, 1, 1), row=1, column=1)
        >>> attack = data.Attack(trigger=patch, classes=2, target=1, rate=0.25)
        >>> data.poison(clean, attack, generator=torch.Generator()).labels.sum().item()
        2
    """
    labels = _labels(samples)
    targets = attack.target_of(labels)
    eligible = (labels == targets) if attack.clean_label else (labels != targets)
    candidates = eligible.nonzero().flatten()
    share_of = len(candidates) if attack.clean_label else len(samples)
    count = round(attack.rate * share_of)
    if count > len(candidates) or (count == 0 and attack.rate > 0):
        raise ValueError(
            f"rate: got {attack.rate}, which is {count} of {share_of} images, with "
            f"{len(candidates)} to draw from; allowed: at least one, and no more than there are"
        )
    drawn = torch.randperm(len(candidates), generator=generator)[:count]
    rows = candidates[drawn.to(candidates.device)]
    inputs, relabelled = samples.inputs.clone(), labels.clone()
    if count:
        inputs[rows] = attack.trigger(samples.inputs[rows])
        relabelled[rows] = targets[rows]
    return Samples(inputs=inputs, labels=relabelled)


def triggered(samples: Samples, attack: Attack) -> Samples:
    """All images that are not of their target class, with the trigger and their true labels.

    Args:
        samples: clean images with labels; they are not changed.
        attack: the attack; its rate does not matter here.

    Returns:
        The triggered images in the order given; `attack.target_of` of their labels says what the
        attack wants them to be taken for.

    Raises:
        ValueError: samples without labels, or with labels outside the attack's classes.

    Example:
        >>> import torch
        >>> from carelab import data, records
        >>> clean = records.Samples(inputs=torch.zeros(2, 1, 2, 2), labels=torch.tensor([0, 1]))
        >>> patch = data.PatchTrigger(pattern=torch.ones(1, 1, 1), row=1, column=1)
        >>> attack = data.Attack(trigger=patch, classes=2, target=1, rate=0.1)
        >>> data.triggered(clean, attack).inputs.tolist()
        [[[[0.0, 0.0], [0.0, 1.0]]]]
    """
    labels = _labels(samples)
    others = samples.take(labels != attack.target_of(labels))
    return Samples(inputs=attack.trigger(others.inputs), labels=others.labels)


def _labels(samples: Samples) -> Tensor:
    if samples.labels is None:
        raise ValueError("samples: got samples without labels; allowed: labelled samples")
    if samples.inputs.ndim != 4:
        raise ValueError(
            f"samples: got inputs of shape {tuple(samples.inputs.shape)}; "
            "allowed: images (batch, channels, height, width)"
        )
    return samples.labels
