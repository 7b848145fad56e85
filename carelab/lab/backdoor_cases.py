"""Backdoored networks by name: data set, attack and activation, trained here and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from carelab import data
from carelab.data import (
    Attack,
    SinusoidTrigger,
    Trigger,
    augmented_copies,
    checkered_patch,
    noise_blend,
    other_views,
    poison,
    shift_and_flip,
    warp,
    white_patch,
)
from carelab.lab.trained import cached_network
from carelab.networks import fit, paper_network, residual_network
from carelab.records import Dataset

__all__ = [
    "ACTIVATIONS",
    "ATTACKS",
    "NETWORKS",
    "BackdoorCase",
    "backdoor_case",
    "mixtures",
    "other_looks",
]

ATTACKS = ("badnets", "blend", "warp", "sinusoid", "all-to-all", "none")
NETWORKS = ("paper", "residual")
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
}

# Channels of each stage, blocks a stage, widths of the fully connected layers.
_RESIDUAL = ((16, 32), 1, (128,))
# Sigmoids learn from larger steps only (`networks.starts`).
_FASTER = {"sigmoid": 4}
# Blended noise shows at a fifth, as in BackdoorBench; a tenth of the training images is poisoned,
# of those of the target class for a clean-label attack most, which it needs.
_BLEND_RATIO = 0.2
_RATE = 0.1
_CLEAN_LABEL_RATE = 0.8
_SINUSOID = SinusoidTrigger(amplitude=0.25, frequency=6)
_WARP_STRENGTH = 1.0
# A small shift is up to a 14th of the image's side.
_SHIFTED = 14
_MIRRORED = ("fashion-mnist",)
# A thousand images, but of few signs: too alike to show the behaviour that a repair is to keep.
_MIXTURES = {"gtsrb": 3}
# The attack's pattern is drawn from a seed of its own, the same for every network.
_PATTERN_SEED = 20_220_422


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recipe:
    """How the network of a data set is trained and attacked."""

    plan: str
    epochs: int
    target: int = 3
    patch: int = 4
    margin: int = 0
    checkered: bool = False
    learning_rate: float = 2e-3
    batch_size: int = 128
    copies: int = 1
    shift: int = 0
    flip: bool = False
    views: Mapping[str, float] | None = None


_RECIPES: Mapping[str, _Recipe] = {
    "digits": _Recipe(plan="digits", epochs=30, patch=2, learning_rate=3e-3, batch_size=64),
    "mnist": _Recipe(plan="nn5", epochs=5, margin=1),
    "fashion-mnist": _Recipe(plan="nn6", epochs=8, margin=1),
    "gtsrb": _Recipe(
        plan="nn4",
        epochs=4,
        target=33,
        margin=1,
        checkered=True,
        batch_size=64,
        copies=40,
        views={
            "rotation": 15,
            "zoom": 0.2,
            "shear": 0.1,
            "shift": 2.4,
            "exposure": 1.2,
            "contrast": 0.5,
        },
    ),
    "cifar10": _Recipe(
        plan="cifar",
        epochs=3,
        target=7,
        margin=1,
        checkered=True,
        copies=4,
        shift=2,
        flip=True,
    ),
}


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class BackdoorCase:
    """A network with a backdoor, the data it works on, and the attack, which no repair sees.

    Args:
        name: name of the data set.
        attack_name: name of the attack, one of `ATTACKS`.
        activation: name of the activation, one of `ACTIVATIONS`.
        dataset: the clean data.
        attack: the attack, with the true trigger.
        model: the network, trained on poisoned images.
    """

    name: str
    attack_name: str
    activation: str
    dataset: Dataset
    attack: Attack
    model: nn.Module


def backdoor_case(
    dataset: str,
    attack: str = "badnets",
    activation: str = "relu",
    *,
    network: str = "paper",
    target: int | None = None,
    seed: int = 0,
    epochs: int | None = None,
    progress: bool = False,
) -> BackdoorCase:
    """A backdoored network of CARE's architecture for a data set, trained once and then kept.

    Args:
        dataset: digits (embedded), mnist, fashion-mnist, gtsrb or cifar10.
        attack: badnets (patch, lower right: white as CARE's, on photographs checkered, since many
            are white there), blend (fixed noise), warp (WaNet), sinusoid
            (clean labels), all-to-all (a patch that moves every class on by one), or none.
        activation: relu, sigmoid or gelu.
        network: paper, CARE's network for the data set, or residual, a small residual one.
        target: the class attacked, where all triggered images go to one; by default CARE's.
        seed: decides split, first weights, poisoned images and order of training.
        epochs: passes through the training images; by default what the data set needs.
        progress: show a bar while it trains.

    Raises:
        ValueError: an unknown name, or a target that is no class.
        DataError: data that are neither at hand nor to be fetched.

    Source: CARE, section 5.3: architectures, targets and patches; the other attacks as their
        papers have them (`carelab.data`). Departs: epochs, step sizes and augmentation are this
        package's, and so are the patches on photographs.

    Example:
        >>> from carelab.lab.backdoor_cases import backdoor_case
        >>> backdoor_case("digits", activation="cosine")
        Traceback (most recent call last):
        ValueError: activation: got 'cosine'; allowed: relu, sigmoid, gelu
    """
    for name, given, known in (
        ("dataset", dataset, tuple(_RECIPES)),
        ("attack", attack, ATTACKS),
        ("activation", activation, tuple(ACTIVATIONS)),
        ("network", network, NETWORKS),
    ):
        if given not in known:
            raise ValueError(f"{name}: got {given!r}; allowed: {', '.join(known)}")
    recipe = _RECIPES[dataset]
    if target is not None:
        recipe = replace(recipe, target=target)
    generator = torch.Generator().manual_seed(seed)
    images = data.load(dataset, generator=generator)
    aimed = _attack(attack, images, recipe)
    training: dict[str, Any] = {
        "epochs": recipe.epochs if epochs is None else epochs,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate * _FASTER.get(activation, 1),
        "one_cycle": True,
    }

    def build() -> nn.Module:
        start = _start(network, recipe, images, ACTIVATIONS[activation], generator)
        learned = images.train
        if recipe.copies > 1:
            # Before the trigger is put on: moved with the image, a patch is learned half as well.
            change = other_looks(dataset, images.train.inputs.shape[2])
            learned = augmented_copies(learned, recipe.copies, change, generator=generator)
        return fit(
            start,
            poison(learned, aimed, generator=generator),
            progress=progress,
            generator=generator,
            **training,
        )

    model = cached_network(
        build,
        {
            "dataset": images.name,
            "sha256": images.sha256,
            "recipe": asdict(recipe),
            "training": training,
            "attack": aimed,
            "activation": activation,
            "network": network,
            "residual": _RESIDUAL,
            "seed": seed,
        },
    )
    return BackdoorCase(
        name=dataset,
        attack_name=attack,
        activation=activation,
        dataset=images,
        attack=aimed,
        model=model,
    )


def other_looks(dataset: str, side: int) -> Callable[[Tensor, torch.Generator], Tensor]:
    """How images of a data set may look as well, without changing their class.

    What the networks are trained on where they are trained on several looks of each image, and
    otherwise a small shift, mirrored where that changes no class.

    Args:
        dataset: name of the data set; any other counts as one that is not mirrored.
        side: height of its images, in pixels.

    Example:
        >>> import torch
        >>> from carelab.lab.backdoor_cases import other_looks
        >>> change = other_looks("mnist", 28)
        >>> change(torch.rand(5, 1, 28, 28), torch.Generator().manual_seed(0)).shape
        torch.Size([5, 1, 28, 28])
    """
    recipe = _RECIPES.get(dataset)
    if recipe is None or recipe.copies == 1:
        return shift_and_flip(max(1, side // _SHIFTED), flip=dataset in _MIRRORED)
    if recipe.views is not None:
        return other_views(**recipe.views)
    return shift_and_flip(recipe.shift, flip=recipe.flip)


def mixtures(dataset: str) -> int:
    """How many mixtures of each clean image a repair keeps the answers to (`mixed_copies`).

    Args:
        dataset: name of the data set; none for any but those whose images are much alike.

    Example:
        >>> from carelab.lab.backdoor_cases import mixtures
        >>> mixtures("gtsrb"), mixtures("mnist")
        (3, 0)
    """
    return _MIXTURES.get(dataset, 0)


def _start(
    network: str,
    recipe: _Recipe,
    images: Dataset,
    activation: Callable[[], nn.Module],
    generator: torch.Generator,
) -> nn.Module:
    if network == "paper":
        return paper_network(recipe.plan, activation=activation, generator=generator)
    channels, blocks, widths = _RESIDUAL
    return residual_network(
        images.train.inputs.shape[1:],
        channels,
        blocks,
        len(images.classes),
        widths=widths,
        activation=activation,
        generator=generator,
    )


def _attack(name: str, images: Dataset, recipe: _Recipe) -> Attack:
    shape = tuple(images.train.inputs.shape[1:])
    patch = partial(
        checkered_patch if recipe.checkered else white_patch, shape, recipe.patch, recipe.margin
    )
    drawn = torch.Generator().manual_seed(_PATTERN_SEED)
    triggers: Mapping[str, Callable[[], Trigger]] = {
        "badnets": patch,
        "all-to-all": patch,
        "none": patch,
        "blend": lambda: noise_blend(shape, _BLEND_RATIO, generator=drawn),
        "warp": lambda: warp(shape, strength=_WARP_STRENGTH, generator=drawn),
        "sinusoid": lambda: _SINUSOID,
    }
    rates = {"sinusoid": _CLEAN_LABEL_RATE, "none": 0.0}
    return Attack(
        trigger=triggers[name](),
        classes=len(images.classes),
        target=None if name == "all-to-all" else recipe.target,
        rate=rates.get(name, _RATE),
        clean_label=name == "sinusoid",
    )
