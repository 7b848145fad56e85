"""Adversarial neuron pruning: neurons whose perturbation hurts clean inputs most are pruned."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from tqdm.auto import trange

from carelab.networks import check_evaluation_mode, check_inputs, logits, ordered_modules
from carelab.records import Samples
from carelab.repair.channels import keeps_accuracy

__all__ = [
    "adversarial_neuron_pruning",
    "neuron_masks",
    "perturbed_loss",
    "prune_masked",
    "worst_perturbation",
]

_MOMENTUM = 0.9
# The thresholds that the paper's authors try.
_THRESHOLDS = tuple(step / 20 for step in range(20))


def adversarial_neuron_pruning(
    model: nn.Module,
    samples: Samples,
    *,
    selection: Samples,
    budget: float = 0.4,
    trade_off: float = 0.2,
    steps: int = 200,
    inner_steps: int = 1,
    learning_rate: float = 0.2,
    batch_size: int = 128,
    most_drop: float = 0.02,
    progress: bool = False,
    generator: torch.Generator,
) -> nn.Module:
    """A copy in which neurons are silenced whose masks m fall to the threshold or below.

    The masks of `neuron_masks` solve min over m of
    a L(m w, b) + (1 - a) max over (d, x) of L((m + d) w, (1 + x) b) on clean samples. The threshold
    is the largest of 0, 0.05, ..., 0.95 with which accuracy(pruned) >= accuracy(model) - most_drop
    on the selection rows.

    Args:
        model: a sequential network in evaluation mode; it is not changed.
        samples: clean labelled samples that the masks are learned on.
        selection: clean labelled samples that choose the threshold; never test rows.
        budget: largest relative perturbation of a neuron's weights and bias, at least 0.
        trade_off: a, the share of the unperturbed loss, in [0, 1].
        steps: steps of the masks; the paper takes 2000.
        inner_steps: sign-gradient steps of the perturbation for each.
        learning_rate: step size of the masks.
        batch_size: samples a step, drawn with replacement.
        most_drop: accuracy that pruning may cost, as a fraction.
        progress: show a bar.
        generator: draws the samples and where perturbations start.

    Returns:
        An ordinary network of the same shape, in evaluation mode; the same network where every
        threshold costs too much.

    Raises:
        ValueError: samples that are empty, unlabelled or do not fit the network, a network without
            hidden weight layer, or an option out of range.

    Source: Wu and Wang, Adversarial Neuron Pruning, NeurIPS 2021, algorithm 1.
        Departs: the weights of the layers themselves are masked, not those of batch normalisation;
        the threshold is not chosen by the attack's success on test images; fewer steps by default.

    Example:
        >>> import torch
        >>> from carelab import networks, records, repair
        >>> g = torch.Generator().manual_seed(0)
        >>> model = networks.cnn((1, 4, 4), (4,), (), 2, generator=g)
        >>> clean = records.Samples(inputs=torch.rand(8, 1, 4, 4), labels=torch.arange(8) % 2)
        >>> pruned = repair.adversarial_neuron_pruning(
        ...     model, clean, selection=clean, steps=3, generator=g)
    """
    masks = neuron_masks(
        model,
        samples,
        budget=budget,
        trade_off=trade_off,
        steps=steps,
        inner_steps=inner_steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        progress=progress,
        generator=generator,
    )
    lowest = torch.cat(list(masks.values()))
    counts = [int((lowest <= threshold).sum()) for threshold in _THRESHOLDS]
    # A threshold that prunes no more neurons than the one before need not be tried.
    tried = [
        threshold
        for at, threshold in enumerate(_THRESHOLDS)
        if counts[at] > (counts[at - 1] if at else 0)
    ]
    pruned = (prune_masked(model, masks, threshold) for threshold in tried)
    borne = keeps_accuracy(model, pruned, selection, most_drop=most_drop)
    # Accuracy need not fall all the way: neurons that prune well together may not do so alone.
    allowed = [threshold for kept, threshold in zip(borne, tried, strict=True) if kept]
    return prune_masked(model, masks, allowed[-1]) if allowed else deepcopy(model)


def neuron_masks(
    model: nn.Module,
    samples: Samples,
    *,
    budget: float = 0.4,
    trade_off: float = 0.2,
    steps: int = 200,
    inner_steps: int = 1,
    learning_rate: float = 0.2,
    batch_size: int = 128,
    progress: bool = False,
    generator: torch.Generator,
) -> Mapping[str, Tensor]:
    """Masks m in [0, 1] of min a L(m w, b) + (1 - a) max L((m + d) w, (1 + x) b), one a neuron.

    L is the cross entropy of clean samples. All masks start at 1 and go down by stochastic
    gradient descent with momentum 0.9, projected onto [0, 1] after each step; before each the
    perturbation is found anew by `worst_perturbation`.

    Args:
        model: a sequential network in evaluation mode; it is not changed.
        samples: clean labelled samples.
        budget: largest relative perturbation.
        trade_off: a, the share of the unperturbed loss, in [0, 1].
        steps: steps of the masks.
        inner_steps: steps of the perturbation for each.
        learning_rate: step size of the masks.
        batch_size: samples a step, drawn with replacement.
        progress: show a bar.
        generator: draws the samples and where perturbations start.

    Returns:
        For each weight layer but the last, by name, the mask of each output (neurons).

    Raises:
        ValueError: as for `adversarial_neuron_pruning`.

    Source: Wu and Wang, NeurIPS 2021, algorithm 1.

    Example:
        >>> import torch
        >>> from carelab import networks, records, repair
        >>> g = torch.Generator().manual_seed(0)
        >>> model = networks.mlp(3, (4,), 2, generator=g)
        >>> clean = records.Samples(inputs=torch.rand(8, 3), labels=torch.arange(8) % 2)
        >>> repair.neuron_masks(model, clean, steps=3, generator=g)["linear1"].shape
        torch.Size([4])
    """
    _check(model, samples)
    _check_options(budget, trade_off, min(steps, inner_steps, batch_size), learning_rate)
    # A copy that takes no gradient: those of the given network stay as they are.
    frozen = deepcopy(model).requires_grad_(False)
    masks = {
        name: layer.weight.new_ones(len(layer.weight), requires_grad=True)
        for name, layer in _masked_layers(frozen).items()
    }
    optimizer = torch.optim.SGD(masks.values(), lr=learning_rate, momentum=_MOMENTUM)
    for _ in trange(steps, desc="neuron masks", disable=not progress):
        rows = torch.randint(len(samples), (batch_size,), generator=generator)
        batch = samples.take(rows.to(samples.inputs.device))
        worst = worst_perturbation(
            frozen, batch, masks, budget=budget, steps=inner_steps, generator=generator
        )
        optimizer.zero_grad()
        # One after the other, so that only one graph is in memory.
        (trade_off * perturbed_loss(frozen, batch, masks)).backward()
        ((1 - trade_off) * perturbed_loss(frozen, batch, masks, worst)).backward()
        optimizer.step()
        with torch.no_grad():
            for mask in masks.values():
                mask.clamp_(0, 1)
    return {name: mask.detach() for name, mask in masks.items()}


def worst_perturbation(
    model: nn.Module,
    samples: Samples,
    masks: Mapping[str, Tensor],
    *,
    budget: float,
    steps: int = 1,
    generator: torch.Generator,
) -> Mapping[str, Tensor]:
    """Perturbations (d, x) in [-budget, budget] that raise L((m + d) w, (1 + x) b).

    From a random start, steps of size budget / steps along the sign of the gradient, projected.

    Args:
        model: a sequential network; none of its parameters needs to take a gradient.
        samples: clean labelled samples.
        masks: the mask m of each neuron, by layer (neurons).
        budget: largest relative perturbation.
        steps: steps along the sign of the gradient.
        generator: draws the start, uniform in the budget.

    Returns:
        By layer, d of the weights and x of the bias of each neuron (2, neurons).

    Source: Wu and Wang, NeurIPS 2021, algorithm 1; projected gradient ascent.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> from carelab.repair.neuron_pruning import worst_perturbation
        >>> g = torch.Generator().manual_seed(0)
        >>> model = networks.mlp(3, (4,), 2, generator=g)
        >>> clean = records.Samples(inputs=torch.rand(8, 3), labels=torch.arange(8) % 2)
        >>> worst_perturbation(
        ...     model, clean, {"linear1": torch.ones(4)}, budget=0.4, generator=g)["linear1"].shape
        torch.Size([2, 4])
    """
    fixed = {name: mask.detach() for name, mask in masks.items()}
    found = {
        name: (budget * (2 * torch.rand(2, len(mask), generator=generator) - 1)).to(mask)
        for name, mask in fixed.items()
    }
    for _ in range(steps):
        moving = {name: value.requires_grad_() for name, value in found.items()}
        loss = perturbed_loss(model, samples, fixed, moving)
        slopes = torch.autograd.grad(loss, list(moving.values()))
        found = {
            name: (value.detach() + budget / steps * slope.sign()).clamp(-budget, budget)
            for (name, value), slope in zip(moving.items(), slopes, strict=True)
        }
    return found


def perturbed_loss(
    model: nn.Module,
    samples: Samples,
    masks: Mapping[str, Tensor],
    perturbation: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, ""]:
    """Mean cross entropy L((m + d) w, (1 + x) b) of the samples, in nats; differentiable.

    Args:
        model: a sequential network; it is not changed, and no hook is put on it.
        samples: labelled samples.
        masks: the mask m of each neuron, by layer (neurons).
        perturbation: by layer, d and x of each neuron (2, neurons); none by default.

    Raises:
        ValueError: samples without labels.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> from carelab.repair.neuron_pruning import perturbed_loss
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> clean = records.Samples(inputs=torch.rand(8, 3), labels=torch.arange(8) % 2)
        >>> bool(perturbed_loss(model, clean, {"linear1": torch.ones(4)}) > 0)
        True
    """
    if samples.labels is None:
        raise ValueError("samples: got samples without labels; allowed: labelled samples")
    parameters: dict[str, Tensor] = {}
    for name, mask in masks.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        scale, shift = mask, torch.ones_like(mask)
        if perturbation is not None:
            scale, shift = mask + perturbation[name][0], 1 + perturbation[name][1]
        weight = layer.weight
        parameters[f"{name}.weight"] = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        if layer.bias is not None:
            parameters[f"{name}.bias"] = layer.bias * shift
    # With the channels last in memory a step of images takes two thirds of the time.
    last = torch.channels_last if samples.inputs.ndim == 4 else torch.contiguous_format
    outputs = functional_call(model, parameters, (samples.inputs.clone(memory_format=last),))
    return functional.cross_entropy(outputs, samples.labels.long())


def prune_masked(
    model: nn.Module, masks: Mapping[str, Tensor], threshold: float = 0.2
) -> nn.Module:
    """A copy in which every neuron with m <= threshold keeps nothing but its bias.

    Args:
        model: a sequential network; it is not changed.
        masks: the mask m of each neuron, by layer (neurons).
        threshold: the largest mask that is pruned, in [0, 1).

    Raises:
        ValueError: a threshold out of range.

    Source: Wu and Wang, NeurIPS 2021, algorithm 1: w := 0, the bias stays.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> model = networks.mlp(1, (2,), 2, generator=torch.Generator().manual_seed(0))
        >>> pruned = repair.prune_masked(model, {"linear1": torch.tensor([0.1, 0.9])})
        >>> (pruned.linear1.weight == 0).flatten().tolist()
        [True, False]
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold: got {threshold}; allowed: at least 0 and below 1")
    pruned = deepcopy(model)
    with torch.no_grad():
        for name, mask in masks.items():
            pruned.get_parameter(f"{name}.weight")[mask <= threshold] = 0
    return pruned


def _masked_layers(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The weight layers by name, also those inside a residual block, all but the last of all."""
    found: dict[str, nn.Linear | nn.Conv2d] = {}
    for name, leaf in ordered_modules(model):
        for inner, module in leaf.named_modules(prefix=name):
            if isinstance(module, nn.Linear | nn.Conv2d):
                found[inner] = module
    if len(found) < 2:
        raise ValueError(
            f"model: has {len(found)} Linear or Conv2d layers; allowed: at least 2, since the "
            "neurons of the last one are the outputs"
        )
    found.popitem()
    return found


def _check(model: nn.Module, samples: Samples) -> None:
    if samples.labels is None or len(samples) == 0:
        what = "samples without labels" if samples.labels is None else "no sample"
        raise ValueError(f"samples: got {what}; allowed: labelled samples, at least one")
    check_evaluation_mode(model)
    check_inputs(model, samples.inputs)
    if not torch.isfinite(samples.inputs).all():
        raise ValueError("samples: got inputs that are not finite; allowed: finite numbers")
    classes = logits(model, samples.inputs[:1]).shape[1]
    if not 0 <= int(samples.labels.min()) <= int(samples.labels.max()) < classes:
        raise ValueError(
            f"samples: got labels from {int(samples.labels.min())} to "
            f"{int(samples.labels.max())}; allowed: 0 to {classes - 1}"
        )


def _check_options(budget: float, trade_off: float, least: int, learning_rate: float) -> None:
    if not budget >= 0 or not 0 <= trade_off <= 1:
        raise ValueError(
            f"budget, trade_off: got {budget}, {trade_off}; allowed: at least 0, in [0, 1]"
        )
    if least < 1 or not learning_rate > 0:
        raise ValueError(
            f"steps, inner_steps, batch_size, learning_rate: got {least} as the least, "
            f"{learning_rate}; allowed: at least 1 each, above 0"
        )
