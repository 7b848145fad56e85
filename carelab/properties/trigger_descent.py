"""The descent behind reconstructed triggers: mask against success, several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.data import MaskTrigger
from carelab.networks import logits

__all__ = ["Question", "smallest_trigger"]

_EVERY = 10  # steps between two measurements on all images
_NEAR = 0.04  # a running success this far below the wanted one is worth a measurement
_REMEMBERED = 0.8  # share of the running success that survives a step
_DEARER, _CHEAPER = 1.05, 1.1  # how a pixel's price follows the running success, up and down
_OPACITY = 0.12  # usual mask value of a start; its logit varies by _SPREAD
_SPREAD = 0.5
_FREE = 0.1  # at the first price this share of the image costs as much as one usual lead


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Question:
    """Which trigger is searched for, and what each step of the search looks like.

    Args:
        model: the network, in evaluation mode.
        images: images that it does not take for the target, within [0, 1].
        target: the class to reach.
        usual_lead: mean lead of the network's own answers in logits, the unit of all leads.
        wanted: success that the trigger must have, a fraction of the images.
        lead: lead at which an image counts as won, in usual leads.
        batch_size: images a step, over all runs together.
        learning_rate: step size of Adam.
    """

    model: nn.Module
    images: Float[Tensor, "batch channels height width"]
    target: int
    usual_lead: float
    wanted: float
    lead: float
    batch_size: int
    learning_rate: float


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Runs:
    """Several searches side by side: where each stands, and the best that it has met.

    Args:
        opacities: logits of the masks (runs, 1, height, width), or of one opacity for the image
            (runs, 1, 1, 1).
        patterns: logits of the patterns (runs, channels, height, width).
        prices: what a pixel of the mask costs each run, in usual leads (runs).
        found: the best trigger of each run with its success, or None before a measurement.
        sizes: size of each mask at each step (steps, runs).
    """

    opacities: Float[Tensor, "runs 1 rows columns"]
    patterns: Float[Tensor, "runs channels height width"]
    prices: Float[Tensor, " runs"]
    found: tuple[tuple[MaskTrigger, float] | None, ...]
    sizes: Float[Tensor, "steps runs"]


def smallest_trigger(
    question: Question,
    opacities: Sequence[int],
    *,
    steps: int,
    restarts: int,
    generator: torch.Generator,
) -> tuple[MaskTrigger, float, Float[Tensor, " steps"]]:
    """Trigger of the smallest mask that still succeeds, from several starts.

    All restarts run together for a third of the steps; the best goes on. At last the faintest
    positions of the mask are cleared, as many as the success allows.

    Args:
        question: what is searched for.
        opacities: rows and columns of opacities that may differ: those of the image, or (1, 1) for
            one that all positions share.
        steps: steps of Adam, at least 3.
        restarts: random starts, at least 1.
        generator: draws the starts and the batches.

    Returns:
        The trigger, its success on all images, and the size of the followed mask at each step.

    Raises:
        ValueError: too few steps, restarts or images a step.

    Example:
        >>> import torch
        >>> from carelab.properties.trigger_descent import Question, smallest_trigger
        >>> model, image = torch.nn.Flatten().eval(), torch.tensor([[[[1.0, 0.0]]]])
        >>> question = Question(model=model, images=image, target=1, usual_lead=1, wanted=1,
        ...     lead=0.1, batch_size=4, learning_rate=0.2)
        >>> g = torch.Generator().manual_seed(0)
        >>> found = smallest_trigger(question, (1, 2), steps=60, restarts=1, generator=g)
        >>> found[1]
        1.0
    """
    if steps < 3 or restarts < 1 or question.batch_size < restarts:
        raise ValueError(
            f"steps, restarts, batch_size: got {steps}, {restarts}, {question.batch_size}; "
            "allowed: at least 3 steps, 1 restart, and as many images a step as restarts"
        )
    runs = _starts(question, opacities, restarts, generator)
    together = steps // 3 if restarts > 1 else 0
    runs = _descend(question, runs, together, generator)
    runs = _descend(question, _best_run(question, runs), steps - together, generator)
    best = runs.found[0]
    assert best is not None
    trigger, success = best
    if tuple(opacities) != (1, 1):
        trigger, success = _trimmed(question, trigger, success)
    return trigger, success, runs.sizes[:, 0]


def _starts(
    question: Question, opacities: Sequence[int], restarts: int, generator: torch.Generator
) -> _Runs:
    images = question.images
    masks = torch.randn(restarts, 1, *opacities, generator=generator).to(images)
    patterns = torch.randn(restarts, *images.shape[1:], generator=generator).to(images)
    price = 1 / (_FREE * images.shape[2] * images.shape[3])
    return _Runs(
        opacities=_SPREAD * masks + torch.tensor(_OPACITY).logit().to(images),
        patterns=patterns,
        prices=images.new_full((restarts,), price),
        found=(None,) * restarts,
        sizes=images.new_zeros(0, restarts),
    )


def _best_run(question: Question, runs: _Runs) -> _Runs:
    """The run that met the best trigger, alone."""
    ranks = [_rank(question, found) for found in runs.found]
    best = ranks.index(min(ranks))
    return _Runs(
        opacities=runs.opacities[best : best + 1],
        patterns=runs.patterns[best : best + 1],
        prices=runs.prices[best : best + 1],
        found=(runs.found[best],),
        sizes=runs.sizes[:, best : best + 1],
    )


def _descend(question: Question, runs: _Runs, steps: int, generator: torch.Generator) -> _Runs:
    """The runs after so many more steps, with their best triggers and the sizes on the way."""
    opacities = runs.opacities.clone().requires_grad_()
    patterns = runs.patterns.clone().requires_grad_()
    optimizer = torch.optim.Adam([opacities, patterns], question.learning_rate, betas=(0.5, 0.9))
    each = question.batch_size // len(opacities)
    prices, found, sizes = runs.prices, runs.found, [*runs.sizes]
    running = torch.zeros_like(prices)
    for step in range(1, steps + 1):
        rows = torch.randint(len(question.images), (each,), generator=generator)
        with torch.enable_grad():
            masks, shown = _shown(opacities, patterns)
            gaps = _gaps(question, masks, shown, rows.to(masks.device))
            size = masks.sum(dim=(1, 2, 3))
            loss = (question.lead + gaps).clamp(min=0).mean(dim=1) + prices * size
            # Not backward(), which would leave gradients on the network's own parameters.
            opacities.grad, patterns.grad = torch.autograd.grad(loss.sum(), [opacities, patterns])
        optimizer.step()
        reached = (gaps.detach() < 0).to(running).mean(dim=1)
        running = _REMEMBERED * running + (1 - _REMEMBERED) * reached
        prices = prices * torch.where(running >= question.wanted, _DEARER, 1 / _CHEAPER)
        sizes.append(size.detach())
        if step % _EVERY == 0 or step == steps:
            worth = (running >= question.wanted - _NEAR) | (step == steps)
            found = _measured(question, opacities, patterns, worth.tolist(), found)
    return _Runs(
        opacities=opacities.detach(),
        patterns=patterns.detach(),
        prices=prices,
        found=found,
        sizes=torch.stack(sizes) if sizes else runs.sizes,
    )


def _shown(
    opacities: Float[Tensor, "runs 1 rows columns"],
    patterns: Float[Tensor, "runs channels height width"],
) -> tuple[Float[Tensor, "runs 1 height width"], Float[Tensor, "runs channels height width"]]:
    """Masks of full size and patterns, both in [0, 1]."""
    masks = opacities.sigmoid().expand(-1, -1, *patterns.shape[2:])
    return masks, patterns.sigmoid()


def _gaps(
    question: Question,
    masks: Float[Tensor, "runs 1 height width"],
    patterns: Float[Tensor, "runs channels height width"],
    rows: Tensor,
) -> Float[Tensor, "runs batch"]:
    """Largest other logit minus the target's, in usual leads, on the same images for each run."""
    shown = (masks * patterns)[:, None] + (1 - masks)[:, None] * question.images[rows]
    outputs = question.model(shown.flatten(0, 1)).unflatten(0, (len(masks), len(rows)))
    target = torch.tensor([question.target], device=outputs.device)
    others = outputs.index_fill(-1, target, -torch.inf).amax(dim=-1)
    return (others - outputs[..., question.target]) / question.usual_lead


def _measured(
    question: Question,
    opacities: Tensor,
    patterns: Tensor,
    worth: Sequence[bool],
    found: Sequence[tuple[MaskTrigger, float] | None],
) -> tuple[tuple[MaskTrigger, float] | None, ...]:
    """The better of each run's best trigger and its present one, on all images."""
    masks, shown = _shown(opacities.detach(), patterns.detach())
    best = list(found)
    for run, old in enumerate(found):
        trigger = MaskTrigger(mask=masks[run].clone(), pattern=shown[run].clone())
        # One that is no smaller than a trigger that succeeds need not be measured.
        if not worth[run] or _rank(question, (trigger, 1.0)) >= _rank(question, old):
            continue
        new = (trigger, _success(question, trigger))
        best[run] = min(old, new, key=lambda each: _rank(question, each))
    return tuple(best)


def _success(question: Question, trigger: MaskTrigger) -> float:
    """Fraction of all images that the trigger sends to the target."""
    answers = logits(question.model, trigger(question.images)).argmax(dim=-1)
    return float((answers == question.target).float().mean())


def _trimmed(question: Question, trigger: MaskTrigger, success: float) -> tuple[MaskTrigger, float]:
    """The trigger without the faint rest of its mask, as far as it still succeeds.

    Bisects how many positions, the strongest first, are enough.
    """
    values = trigger.mask.flatten()
    order = values.argsort(descending=True, stable=True)
    fewer, enough = 0, len(values)
    while success >= question.wanted and enough - fewer > 1:
        count = (fewer + enough) // 2
        mask = torch.zeros_like(values).index_copy(0, order[:count], values[order[:count]])
        candidate = MaskTrigger(mask=mask.reshape(trigger.mask.shape), pattern=trigger.pattern)
        measured = _success(question, candidate)
        if measured >= question.wanted:
            trigger, success, enough = candidate, measured, count
        else:
            fewer = count
    return trigger, success


def _rank(question: Question, found: tuple[MaskTrigger, float] | None) -> tuple[int, float]:
    """What sorts first succeeds and is small, or else succeeds most."""
    if found is None:
        return (2, 0.0)
    trigger, success = found
    if success >= question.wanted:
        return (0, float(trigger.mask.sum()))
    return (1, -success)
