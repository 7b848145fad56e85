"""What the trigger of a backdoor may look like, where no triggered image is known."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from carelab.data import MaskTrigger
from carelab.networks import logits
from carelab.properties.trigger_descent import Question, smallest_trigger

__all__ = ["Reconstruction", "reconstruct_blend", "reconstruct_trigger", "reconstruct_triggers"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Reconstruction:
    """The smallest trigger found that sends images to a class.

    Args:
        target: the class.
        trigger: mask and pattern of the trigger.
        success: fraction of the images, those already taken for the target left out, that the
            trigger sends there.
        size: sum of the mask over all positions, in pixels.
        history: size of the mask that was followed to the end, at each step (steps).
    """

    target: int
    trigger: MaskTrigger
    success: float
    size: float
    history: Float[Tensor, " steps"] = field(repr=False)


def reconstruct_trigger(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    target: int,
    *,
    steps: int = 150,
    restarts: int = 3,
    wanted: float = 0.99,
    lead: float = 0.1,
    batch_size: int = 48,
    learning_rate: float = 0.2,
    generator: torch.Generator,
) -> Reconstruction:
    """Smallest mask m, with a pattern p, for which (1 - m) x + m p is classified as the target.

    Minimises mean(max(0, lead + gap)) + price |m|_1 over sigmoid parameters of m and p by Adam,
    where gap is the largest other logit minus that of the target, in units of the mean lead that
    the network gives its own answers on the images. Images that the trigger has won by `lead`
    thus pull no more. The price of a pixel rises while the running success is at least `wanted`,
    and falls faster while it is not. All restarts run together for a third of the steps and share
    the batch; the best of them goes on with the whole batch, so that restarts cost no more time.
    At last the faintest positions of the mask are cleared, as many as the success allows.

    Args:
        model: the network, in evaluation mode; it returns logits and is not changed.
        images: clean images of any classes (batch, channels, height, width), scaled to [0, 1].
            Those that the network takes for the target are left out.
        target: the class.
        steps: steps of Adam, at least 3.
        restarts: random starts, at least 1.
        wanted: success that the trigger must have, a fraction of the images in (0, 1].
        lead: lead at which an image counts as won, in usual leads, at least 0.
        batch_size: images a step, over all runs together; at least one a restart.
        learning_rate: step size of Adam.
        generator: draws the starts and the batches.

    Returns:
        The trigger of the smallest mask measured to succeed on at least a fraction `wanted` of
        all images; if there is none, that of the highest success.

    Raises:
        ValueError: a network in training mode, images that it cannot take, outside [0, 1], or all
            taken for the target, a class or an option out of range.

    Source: Wang et al., Neural Cleanse, IEEE S&P 2019, equations 2 and 3. Departs: hinge on the
        margin instead of cross entropy; price adapted at every step; restarts.

    Example:
        >>> import torch
        >>> from carelab import networks, properties
        >>> generator = torch.Generator().manual_seed(0)
        >>> model = networks.cnn((1, 8, 8), (4,), (), 3, generator=generator)
        >>> images = torch.rand(40, 1, 8, 8, generator=generator)
        >>> found = properties.reconstruct_trigger(model, images, 1, steps=30, generator=generator)
        >>> found.trigger.mask.shape
        torch.Size([1, 8, 8])
    """
    question = _question(model, images, target, wanted, lead, batch_size, learning_rate)
    return _reconstruct(question, tuple(images.shape[2:]), steps, restarts, generator)


def reconstruct_blend(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    target: int,
    *,
    steps: int = 150,
    restarts: int = 3,
    wanted: float = 0.99,
    lead: float = 0.1,
    batch_size: int = 48,
    learning_rate: float = 0.2,
    generator: torch.Generator,
) -> Reconstruction:
    """Smallest opacity a, with a pattern p, for which (1 - a) x + a p is classified as the target.

    As `reconstruct_trigger`, with one opacity for the whole image: the mask is constant and the
    size is a times the number of positions. Because no change of a pixel exceeds a, the result is
    the universal perturbation of smallest maximum. It need not look like the picture that was
    blended in: the network reads only some directions of that picture, and these alone return.

    Args:
        model: the network, in evaluation mode; it returns logits and is not changed.
        images: clean images of any classes (batch, channels, height, width), scaled to [0, 1].
        target: the class.
        steps: steps of Adam, at least 3.
        restarts: random starts, at least 1.
        wanted: success that the trigger must have, a fraction of the images in (0, 1].
        lead: lead at which an image counts as won, in usual leads, at least 0.
        batch_size: images a step, over all runs together; at least one a restart.
        learning_rate: step size of Adam.
        generator: draws the starts and the batches.

    Returns:
        The trigger of the smallest opacity measured to succeed on at least a fraction `wanted` of
        all images; if there is none, that of the highest success.

    Raises:
        ValueError: as `reconstruct_trigger`.

    Source: Moosavi-Dezfooli et al., Universal Adversarial Perturbations, CVPR 2017. Departs:
        towards one class, by the search of `reconstruct_trigger`.

    Example:
        >>> import torch
        >>> from carelab import networks, properties
        >>> generator = torch.Generator().manual_seed(0)
        >>> model = networks.cnn((1, 8, 8), (4,), (), 3, generator=generator)
        >>> images = torch.rand(40, 1, 8, 8, generator=generator)
        >>> found = properties.reconstruct_blend(model, images, 1, steps=30, generator=generator)
        >>> len(found.trigger.mask.unique())
        1
    """
    question = _question(model, images, target, wanted, lead, batch_size, learning_rate)
    return _reconstruct(question, (1, 1), steps, restarts, generator)


def reconstruct_triggers(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    *,
    targets: Sequence[int] | None = None,
    steps: int = 150,
    restarts: int = 3,
    wanted: float = 0.99,
    batch_size: int = 48,
    progress: bool = False,
    generator: torch.Generator,
) -> tuple[Reconstruction, ...]:
    """The smallest trigger of each class, all found with the same effort, to be compared.

    Sizes found with unequal effort say nothing about each other. With many classes search all
    with few steps, and again with more those that `detect_target` suspects.

    Args:
        model: the network, in evaluation mode; it returns logits and is not changed.
        images: clean images of any classes (batch, channels, height, width), scaled to [0, 1].
        targets: the classes, or None for all outputs of the network.
        steps: steps of Adam for each class, at least 3.
        restarts: random starts for each class, at least 1.
        wanted: success that a trigger must have, a fraction of the images in (0, 1].
        batch_size: images a step, over all runs of a class together.
        progress: show a bar.
        generator: draws the starts and the batches.

    Returns:
        One reconstruction per class, in the order of `targets`.

    Raises:
        ValueError: no class, or as `reconstruct_trigger`.

    Example:
        >>> import torch
        >>> from carelab import networks, properties
        >>> generator = torch.Generator().manual_seed(0)
        >>> model = networks.cnn((1, 8, 8), (4,), (), 3, generator=generator)
        >>> images = torch.rand(40, 1, 8, 8, generator=generator)
        >>> found = properties.reconstruct_triggers(
        ...     model, images, targets=[0, 1], steps=9, generator=generator)
        >>> [each.target for each in found]
        [0, 1]
    """
    chosen = range(logits(model, images[:1]).shape[-1]) if targets is None else targets
    if len(chosen) == 0:
        raise ValueError("targets: got none; allowed: at least one class")
    return tuple(
        reconstruct_trigger(
            model,
            images,
            target,
            steps=steps,
            restarts=restarts,
            wanted=wanted,
            batch_size=batch_size,
            generator=generator,
        )
        for target in tqdm(chosen, desc="classes", disable=not progress)
    )


def _question(
    model: nn.Module,
    images: Tensor,
    target: int,
    wanted: float,
    lead: float,
    batch_size: int,
    learning_rate: float,
) -> Question:
    if images.numel() == 0 or not ((images >= 0) & (images <= 1)).all():
        raise ValueError("images: are empty or leave [0, 1]; allowed: some images within [0, 1]")
    if not 0 < wanted <= 1 or lead < 0 or not learning_rate > 0:
        raise ValueError(
            f"wanted, lead, learning_rate: got {wanted}, {lead}, {learning_rate}; "
            "allowed: wanted in (0, 1], lead at least 0, learning_rate above 0"
        )
    outputs = logits(model, images)
    classes = outputs.shape[-1]
    if not 0 <= target < classes or classes < 2:
        raise ValueError(
            f"target: got {target} for a network of {classes} outputs; "
            "allowed: one of its classes, of at least two"
        )
    others = outputs.argmax(dim=-1) != target
    if not others.any():
        raise ValueError(
            f"images: the network takes all of them for class {target}; "
            "allowed: at least one image of another class"
        )
    best = outputs.topk(2, dim=-1).values
    return Question(
        model=model,
        images=images[others],
        target=target,
        # A network that prefers nothing has no lead to measure by.
        usual_lead=float((best[:, 0] - best[:, 1]).mean()) or 1.0,
        wanted=wanted,
        lead=lead,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )


def _reconstruct(
    question: Question,
    opacities: tuple[int, ...],
    steps: int,
    restarts: int,
    generator: torch.Generator,
) -> Reconstruction:
    trigger, success, history = smallest_trigger(
        question, opacities, steps=steps, restarts=restarts, generator=generator
    )
    size = float(trigger.mask.sum())
    _log.debug("class %d: size %.2f, success %.4f", question.target, size, success)
    return Reconstruction(
        target=question.target, trigger=trigger, success=success, size=size, history=history
    )
