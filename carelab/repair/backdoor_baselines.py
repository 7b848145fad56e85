"""Fine-tuning and fine-pruning: what is known to weaken a backdoor without its trigger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import takewhile

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.causal import activations
from carelab.networks import (
    check_inputs,
    fit,
    labels_of,
    ordered_modules,
    pre_activation,
    split,
)
from carelab.records import Neuron, Samples
from carelab.repair.channels import cut_out, keeps_accuracy, prunable_layers, put_back
from carelab.repair.edits import outgoing_columns

__all__ = ["dormant_first", "fine_prune", "fine_tune"]


def fine_tune(
    model: nn.Module,
    samples: Samples,
    *,
    epochs: int = 20,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    progress: bool = False,
    generator: torch.Generator,
) -> nn.Module:
    """A copy of the network, trained on: cross entropy of clean labelled samples, all weights.

    Args:
        model: the network; it is not changed.
        samples: clean labelled samples, none of them triggered.
        epochs: passes through the samples; all of them run.
        learning_rate: step size of Adam.
        batch_size: samples a step, at most.
        progress: show a bar.
        generator: draws the order of the samples.

    Returns:
        The tuned copy, in evaluation mode.

    Raises:
        ValueError: samples that are empty, unlabelled or do not fit the network, or an option out
            of range.

    Source: Liu et al., RAID 2018, section 3.3, without the pruning.
        Departs: Adam, as the networks here were trained, for their plain gradient descent.

    Example:
        >>> import torch
        >>> from carelab import networks, records, repair
        >>> g = torch.Generator().manual_seed(0)
        >>> model = networks.cnn((1, 4, 4), (4,), (), 2, generator=g)
        >>> clean = records.Samples(inputs=torch.rand(8, 1, 4, 4), labels=torch.arange(8) % 2)
        >>> tuned = repair.fine_tune(model, clean, epochs=2, generator=g)
    """
    labels_of(samples)
    return fit(
        model,
        samples,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        progress=progress,
        generator=generator,
    )


def dormant_first(
    model: nn.Module, inputs: Float[Tensor, "batch ..."], layer: str
) -> tuple[Neuron, ...]:
    """Neurons of a layer by their mean activation over the inputs and positions, lowest first.

    Args:
        model: a network in evaluation mode.
        inputs: clean inputs (batch, ...).
        layer: name of an activation.

    Returns:
        Every neuron or channel of the layer; equal means keep the order of the layer.

    Raises:
        ValueError: an unknown layer, no input, or a network in training mode.

    Source: Liu et al., RAID 2018, section 3.1.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> model = networks.mlp(1, (2,), 2, generator=torch.Generator().manual_seed(0))
        >>> _ = model.linear1.bias.data.copy_(torch.tensor([9.0, 5.0]))
        >>> [str(neuron) for neuron in repair.dormant_first(model, torch.zeros(3, 1), "relu1")]
        ['relu1[1]', 'relu1[0]']
    """
    check_inputs(model, inputs)
    active = activations(model, inputs, [layer])[layer]
    # In double precision: a sum over many positions must not change the order.
    means = active.movedim(1, 0).flatten(1).double().mean(dim=1)
    return tuple(Neuron(layer, int(index)) for index in means.argsort(stable=True))


def fine_prune(
    model: nn.Module,
    samples: Samples,
    *,
    selection: Samples,
    layer: str | None = None,
    most_drop: float = 0.04,
    epochs: int = 20,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    progress: bool = False,
    generator: torch.Generator,
) -> nn.Module:
    """A copy without the channels that clean inputs hardly use, fine-tuned.

    Channels of one layer go one after another, lowest mean activation on the clean inputs first,
    for as long as accuracy(pruned) >= accuracy(model) - most_drop on the selection rows; one
    always stays. What is left is fine-tuned: a pruned channel is cut out meanwhile, so that its
    incoming rows, bias and outgoing columns are exactly 0 in the end as well.

    Args:
        model: a sequential network in evaluation mode; it is not changed.
        samples: clean labelled samples that give the activations and are learned.
        selection: clean labelled samples that decide when to stop; never test rows.
        layer: the activation whose channels are pruned; by default that of the last convolution
            of which channels can be pruned, or, without one, the last such hidden layer.
        most_drop: accuracy that pruning may cost before the tuning, as a fraction.
        epochs: passes of the fine-tuning.
        learning_rate: its step size.
        batch_size: its samples a step, at most.
        progress: show a bar.
        generator: draws the order of the samples.

    Returns:
        An ordinary network of the same shape, in evaluation mode.

    Raises:
        ValueError: a layer that cannot be pruned, samples that are empty, unlabelled or do not fit
            the network, or an option out of range.

    Source: Liu, Dolan-Gavitt, Garg, Fine-Pruning, RAID 2018, sections 3.1 and 3.3.
        Departs: the accuracy that pruning may cost is measured on rows of its own, not on those
        that are tuned on; Adam as in `fine_tune`.

    Example:
        >>> import torch
        >>> from carelab import networks, records, repair
        >>> g = torch.Generator().manual_seed(0)
        >>> model = networks.cnn((1, 4, 4), (4,), (), 2, generator=g)
        >>> clean = records.Samples(inputs=torch.rand(8, 1, 4, 4), labels=torch.arange(8) % 2)
        >>> pruned = repair.fine_prune(model, clean, selection=clean, epochs=2, generator=g)
    """
    chosen = _default_layer(model) if layer is None else layer
    if chosen not in prunable_layers(model):
        known = ", ".join(prunable_layers(model))
        raise ValueError(f"layer: got {chosen!r}; allowed: {known}")
    labels_of(samples)
    labels_of(selection, "selection")
    order = dormant_first(model, samples.inputs, chosen)
    check_inputs(model, selection.inputs)
    # What comes before the weights that read the layer stays the same, so it runs once.
    names = [name for name, _ in ordered_modules(model)]
    reader = outgoing_columns(model, order[0])[0].removesuffix(".weight")
    cut = names[names.index(reader) - 1]
    hidden = Samples(
        inputs=activations(model, selection.inputs, [cut])[cut], labels=selection.labels
    )
    rest = split(model, cut)[1]
    pruned = _ever_more_pruned(model, rest, order[:-1])
    borne = takewhile(bool, keeps_accuracy(rest, pruned, hidden, most_drop=most_drop))
    gone = order[: sum(borne)]
    tuned = fine_tune(
        cut_out(model, gone),
        samples,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        progress=progress,
        generator=generator,
    )
    return put_back(model, tuned, gone).eval()


def _default_layer(model: nn.Module) -> str:
    layers = prunable_layers(model)
    if not layers:
        raise ValueError(
            "model: has no hidden layer whose neurons can be pruned; allowed: networks with an "
            "activation between two Linear or Conv2d layers"
        )
    convolutions = [
        layer
        for layer in layers
        if isinstance(model.get_submodule(pre_activation(model, layer)), nn.Conv2d)
    ]
    return (convolutions or layers)[-1]


def _ever_more_pruned(
    model: nn.Module, rest: nn.Module, order: Sequence[Neuron]
) -> Iterator[nn.Module]:
    """What reads the layer and all after it; neuron after neuron goes unread, in place."""
    pruned = deepcopy(rest)
    for neuron in order:
        name, columns = outgoing_columns(model, neuron)
        with torch.no_grad():
            pruned.get_parameter(name)[:, columns] = 0
        yield pruned
