"""Unlearning a trigger: triggered inputs are answered as the same inputs without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.networks import logits
from carelab.properties import Property
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
    prop: Property,
    *,
    known: Samples | None = None,
    steps: int = 200,
    learning_rate: float = 3e-3,
    batch_size: int = 32,
    method: str = "unlearning",
    progress: bool = False,
    generator: torch.Generator,
) -> Repair:
    """Weights of the guilty units for which N'(T(x)) = N(x) and N'(x) = N(x), by gradient.

    Incoming rows and outgoing columns of the units move down the gradient of

        CE(labels) + mean of CE(N'(x), N(x)) and CE(N'(T(x)), N(x)) + chance of the attack's class,

    over clean images x and every trigger T that is known, estimated or reconstructed; triggered
    images whose clean version is not known, `known`, count with their labels. What comes before
    the first unit runs once.

    Args:
        model: a sequential network in evaluation mode; it is not changed.
        guilty: the units whose weights may change, post-activation.
        clean: clean labelled images.
        victims: those of them that the attack would move: not of its target class.
        triggers: what may be done to an image; none where only known triggered images are there.
        prop: what triggered images of other classes must not do: reach the attack's class.
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
    before = partial(_chances, model)
    anchors = [Anchors(inputs=clean.inputs, chances=before(clean.inputs))]
    guarded = []
    for trigger in triggers:
        moved = replace(victims, inputs=trigger(victims.inputs))
        anchors.append(Anchors(inputs=moved.inputs, chances=before(victims.inputs)))
        guarded.append(moved)
    labelled = clean
    if known is not None:
        labelled = clean.joined(known)
        guarded.append(known)
    return search_repair(
        model,
        weight_space(model, guilty),
        Objective(prop=prop, labelled=labelled, guarded=guarded, anchors=anchors, sharpness=1.0),
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
