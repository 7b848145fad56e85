"""Unlearning a trigger: triggered inputs are answered as the same inputs without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from carelab.networks import logits
from carelab.properties import TargetClass, TargetClasses
from carelab.records import Neuron, Repair, Samples
from carelab.repair.front import search_repair
from carelab.repair.objectives import Anchors, Objective
from carelab.repair.searches import gradient_search
from carelab.repair.spaces import weight_space

__all__ = ["unlearn_trigger"]


def unlearn_trigger(
    model: nn.Module,
    guilty: Sequence[Neuron],
    clean: Samples,
    victims: Samples,
    triggers: Sequence[Callable[[Tensor], Tensor]],
    prop: TargetClass | TargetClasses,
    *,
    known: Samples | None = None,
    steps: int = 400,
    learning_rate: float = 1e-2,
    batch_size: int = 64,
    method: str = "unlearning",
    progress: bool = False,
    generator: torch.Generator,
) -> Repair:
    """Weights of the guilty units for which N'(T(x)) = N(x | not t) and N'(x) = N(x), by gradient.

    N(x | not t) is what the network answers without the trigger, the attack's class t ruled out:
    triggered images are never of that class. Incoming rows and outgoing columns of the units move
    down the gradient of

        CE(N'(x), N(x)) + mean over T of CE(N'(T(x)), N(x | not t)) + chance of t,

    over clean images x and every trigger T that is known, estimated or reconstructed. Where there
    is none, only triggered images whose clean version is not known, `known`: they and the clean
    ones count with their labels instead. What comes before the first unit runs once.

    The network's own answers are followed rather than the labels, since it was trained on images
    such as these and would only learn them by heart.

    Args:
        model: a sequential network in evaluation mode; it is not changed.
        guilty: the units whose weights may change, post-activation.
        clean: clean images, with labels where no trigger is given; more of them, such as
            `data.augmented_copies`, keep the behaviour better.
        victims: those of them that the attack would move: not of its target class.
        triggers: what may be done to an image; none where only known triggered images are there.
        prop: the attack's class, which triggered images must not reach.
        known: triggered images with their true labels, none of them of the attack's class.
        steps: steps of the gradient search.
        learning_rate: its largest step size.
        batch_size: images of each group in a step.
        method: the name that the record carries.
        progress: show a bar.
        generator: draws the batches.

    Raises:
        ValueError: no guilty unit or one that comes twice, neither a trigger nor known triggered
            images, or what the search refuses.

    Example:
        >>> import torch, carelab as cl
        >>> g, patch = torch.Generator().manual_seed(0), cl.data.white_patch((1, 4, 4), 1)
        >>> m = cl.networks.cnn((1, 4, 4), (4,), (), 3, generator=g)
        >>> rows = cl.records.Samples(inputs=torch.rand(9, 1, 4, 4), labels=torch.arange(9) % 2)
        >>> prop, guilty = cl.properties.TargetClass(target=2), cl.networks.hidden_neurons(m)[:2]
        >>> cl.repair.unlearn_trigger(
        ...     m, guilty, rows, rows, [patch], prop, steps=2, generator=g).status
        'improved'
    """
    if not guilty or len(set(guilty)) < len(guilty):
        raise ValueError(f"guilty: got {len(guilty)} units; allowed: at least one, each only once")
    if not triggers and known is None:
        raise ValueError("triggers, known: got neither; allowed: at least one of them")
    anchors = [Anchors(inputs=clean.inputs, chances=_chances(model, clean.inputs))]
    guarded = []
    if triggers:
        wanted = _ruled_out(_chances(model, victims.inputs), prop.aimed(victims))
        shown = (replace(victims, inputs=trigger(victims.inputs)) for trigger in triggers)
        # One group, so that many triggers do not outweigh the clean images.
        moved = reduce(Samples.joined, shown)
        anchors.append(Anchors(inputs=moved.inputs, chances=wanted.repeat(len(triggers), 1)))
        guarded.append(moved)
    labelled = clean
    if known is not None:
        labelled = clean.joined(known)
        guarded.append(known)
    objective = Objective(
        prop=prop,
        labelled=labelled,
        guarded=guarded,
        anchors=anchors,
        accuracy=0.0 if triggers else 1.0,
        fidelity=2.0 if triggers else 1.0,
        sharpness=1.0,
    )
    return search_repair(
        model,
        weight_space(model, guilty),
        objective,
        partial(gradient_search, steps=steps, learning_rate=learning_rate),
        method=method,
        batch_size=batch_size,
        cache_prefix=True,
        progress=progress,
        generator=generator,
    )


def _chances(
    model: nn.Module, inputs: Float[Tensor, "batch ..."]
) -> Float[Tensor, "batch classes"]:
    return logits(model, inputs).softmax(dim=1)


def _ruled_out(
    chances: Float[Tensor, "batch classes"], classes: Int[Tensor, " batch"]
) -> Float[Tensor, "batch classes"]:
    """The chances given that the answer is not the class of each row."""
    left = chances.scatter(1, classes[:, None].to(chances.device), 0.0)
    # Where the network is sure of that class alone, the others are equally likely.
    left = left + 1e-6 * (1 - functional.one_hot(classes, chances.shape[1]).to(chances))
    return left / left.sum(dim=1, keepdim=True)
