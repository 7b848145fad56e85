"""Training a classifier, and what it answers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from tqdm.auto import tqdm

from carelab.networks.architectures import seeded
from carelab.networks.inputs import check_evaluation_mode, check_inputs
from carelab.records import Samples

__all__ = ["Epoch", "accuracy", "fit", "logits", "predict"]

_log = logging.getLogger(__name__)

Augment = Callable[[Tensor, torch.Generator], Tensor]
# Numbers that one pass without gradients takes in; what large images make of more leaves the
# processor's cache.
_NUMBERS_A_PASS = 2**19
# From so many pixels on, convolutions and poolings are faster with the channels last in memory.
_PIXELS = 16 * 16


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Epoch:
    """How the training went in one epoch.

    Args:
        number: the epoch, from 1.
        train_loss: mean cross entropy over the training samples while they were learned, in nats.
        selection_loss: mean cross entropy over the selection samples after it, in nats, or None
            where there are none.
    """

    number: int
    train_loss: float
    selection_loss: float | None = None


def fit(
    model: nn.Module,
    train: Samples,
    *,
    selection: Samples | None = None,
    epochs: int = 50,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    patience: int = 5,
    one_cycle: bool = False,
    augment: Augment | None = None,
    report: Callable[[Epoch], object] | None = None,
    progress: bool = False,
    generator: torch.Generator,
) -> nn.Module:
    """A copy of the network, trained to classify by Adam on the cross entropy.

    With selection samples it stops once their loss has not improved for `patience` epochs, and the
    weights of the best epoch are kept; without them all epochs run and the last weights are kept.
    With `one_cycle` all epochs run in either case, since its small last steps bring the most.
    The order of the rows, the augmentation and everything random in the network (dropout) come
    from the generator.

    Args:
        model: the network, which returns logits; it is not changed.
        train: the samples to learn, on the network's device, with labels.
        selection: labelled samples that only decide when to stop.
        epochs: passes through the training samples, at most.
        batch_size: samples a step, at most; the batches of an epoch are of equal size, but for one.
        learning_rate: step size of Adam; with `one_cycle` the largest.
        weight_decay: L2 penalty that Adam adds to the gradient.
        patience: epochs without improvement before it stops.
        one_cycle: let the step size rise for 30 % of all steps and then fall to almost 0, each
            along a cosine, which reaches a good accuracy in few epochs.
        augment: called with the inputs of each step and the generator; returns the inputs to
            learn instead, of the same shape.
        report: called with each `Epoch`; the ``append`` of a list keeps the loss curve.
        progress: show a bar.
        generator: draws the order of the rows, and what `augment` draws.

    Returns:
        The trained copy, in evaluation mode.

    Raises:
        ValueError: samples that are empty, unlabelled, not finite or that the network cannot take,
            a label beyond its outputs, an option out of range, an augmentation that changes the
            shape, or a loss that stops being finite.

    Source: Kingma and Ba, Adam, ICLR 2015, algorithm 1; Smith and Topin, Super-convergence, 2018.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> generator = torch.Generator().manual_seed(0)
        >>> samples = records.Samples(inputs=torch.eye(4), labels=torch.tensor([0, 1, 0, 1]))
        >>> model = networks.mlp(4, (8,), 2, generator=generator)
        >>> model = networks.fit(model, samples, epochs=2, generator=generator)
    """
    _check_options(epochs, batch_size, learning_rate, weight_decay, patience)
    trained = deepcopy(model).eval()
    _check_samples(trained, train, "train")
    if selection is not None:
        _check_samples(trained, selection, "selection")
    optimizer = _adam(trained, learning_rate, weight_decay)
    steps = epochs * math.ceil(len(train) / batch_size)
    cycle = OneCycleLR(optimizer, learning_rate, total_steps=steps) if one_cycle else None
    best_loss, best_epoch, best = math.inf, 0, deepcopy(trained.state_dict())
    with seeded(generator):
        for number in tqdm(range(1, epochs + 1), desc="training", disable=not progress):
            batches = _batches(train, batch_size, augment, generator)
            train_loss = _learn(trained, batches, optimizer, cycle) / len(train)
            selection_loss = None if selection is None else _loss(trained, selection)
            _check_convergence(trained, train_loss, selection_loss, learning_rate, number)
            if report is not None:
                report(Epoch(number=number, train_loss=train_loss, selection_loss=selection_loss))
            if selection_loss is None:
                continue
            if selection_loss < best_loss:
                best_loss, best_epoch = selection_loss, number
                best = deepcopy(trained.state_dict())
            elif number - best_epoch >= patience and not one_cycle:
                break
    if selection is not None:
        trained.load_state_dict(best)
        _log.debug("kept epoch %d of %d, selection loss %.6f", best_epoch, number, best_loss)
    return trained


def logits(
    model: nn.Module, inputs: Float[Tensor, "batch ..."], *, batch_size: int = 8192
) -> Float[Tensor, "batch classes"]:
    """Outputs of the network for every input, without gradients.

    Args:
        model: the network, in evaluation mode.
        inputs: the inputs (batch, ...); none give no outputs.
        batch_size: inputs a pass, at most; bounds the memory. Large images go in fewer a pass.

    Returns:
        One row per input (batch, classes).

    Raises:
        ValueError: a network in training mode, inputs that it cannot take, a `batch_size` below 1.

    Example:
        >>> import torch
        >>> from carelab.networks import logits, mlp
        >>> model = mlp(4, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> logits(model, torch.zeros(5, 4)).shape
        torch.Size([5, 2])
    """
    check_evaluation_mode(model)
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}; allowed: at least 1")
    check_inputs(model, inputs)
    rows = batch_size
    if inputs.ndim == 4:
        rows = min(rows, max(1, _NUMBERS_A_PASS // max(1, inputs.shape[1:].numel())))
    with torch.no_grad():
        return torch.cat([model(_laid_out(block)) for block in inputs.split(rows)])


def predict(
    model: nn.Module, inputs: Float[Tensor, "batch ..."], *, batch_size: int = 8192
) -> Int[Tensor, " batch"]:
    """Class of the largest logit for every input; the first one among equals.

    Args:
        model: the network, in evaluation mode.
        inputs: the inputs (batch, ...); none give no classes.
        batch_size: inputs a pass, at most; bounds the memory.

    Returns:
        One class per input (batch,).

    Raises:
        ValueError: a network in training mode, inputs that it cannot take, a `batch_size` below 1.

    Example:
        >>> import torch
        >>> from carelab.networks import mlp, predict
        >>> model = mlp(4, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> predict(model, torch.zeros(5, 4)).shape
        torch.Size([5])
    """
    return logits(model, inputs, batch_size=batch_size).argmax(dim=1)


def accuracy(model: nn.Module, samples: Samples, *, batch_size: int = 8192) -> float:
    """Fraction of the samples whose predicted class is their label.

    Args:
        model: the network, in evaluation mode.
        samples: the samples, with labels.
        batch_size: inputs a pass, at most; bounds the memory.

    Returns:
        The fraction, in [0, 1].

    Raises:
        ValueError: no sample, samples without labels, a network in training mode, inputs that it
            cannot take.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> model = networks.mlp(4, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> samples = records.Samples(inputs=torch.eye(4), labels=torch.tensor([0, 1, 0, 1]))
        >>> 0 <= networks.accuracy(model, samples) <= 1
        True
    """
    labels = labels_of(samples, "samples")
    predicted = predict(model, samples.inputs, batch_size=batch_size)
    return (predicted == labels).double().mean().item()


def labels_of(samples: Samples, argument: str = "samples") -> Int[Tensor, " batch"]:
    """The labels of samples that must have them.

    Args:
        samples: the samples.
        argument: what an error calls them.

    Raises:
        ValueError: no sample, or samples without labels.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> networks.labels_of(records.Samples(inputs=torch.eye(2)), "selection")
        Traceback (most recent call last):
        ValueError: selection: got samples without labels; allowed: labelled samples
    """
    if samples.labels is None:
        raise ValueError(f"{argument}: got samples without labels; allowed: labelled samples")
    if len(samples) == 0:
        raise ValueError(f"{argument}: got no sample; allowed: at least one")
    return samples.labels


def _batches(
    samples: Samples, batch_size: int, augment: Augment | None, generator: torch.Generator
) -> Iterator[Samples]:
    """The samples in a random order, some at a time, augmented."""
    order = torch.randperm(len(samples), generator=generator).to(samples.inputs.device)
    # Equal batches: a last one of a single row is noise, and batch normalisation refuses it.
    for rows in order.tensor_split(math.ceil(len(samples) / batch_size)):
        batch = samples.take(rows)
        if augment is not None:
            inputs = augment(batch.inputs, generator)
            if inputs.shape != batch.inputs.shape:
                raise ValueError(
                    f"augment: returned shape {tuple(inputs.shape)}; "
                    f"allowed: that of its batch, {tuple(batch.inputs.shape)}"
                )
            batch = replace(batch, inputs=inputs)
        yield batch


def _learn(
    model: nn.Module,
    batches: Iterable[Samples],
    optimizer: torch.optim.Optimizer,
    cycle: OneCycleLR | None,
) -> float:
    """Summed loss over the batches, a step of the optimizer each."""
    total = torch.zeros((), dtype=torch.float64, device=next(model.parameters()).device)
    model.train()
    for batch in batches:
        labels = labels_of(batch, "train").long()
        loss = functional.cross_entropy(model(_laid_out(batch.inputs)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if cycle is not None:
            cycle.step()
        total += loss.detach() * len(batch)
    model.eval()
    return total.item()


def _laid_out(inputs: Tensor) -> Tensor:
    """The inputs with their channels last in memory, where that makes the processor faster."""
    if inputs.ndim != 4 or inputs.shape[2:].numel() < _PIXELS or inputs.device.type != "cpu":
        return inputs
    # A clone, since `contiguous` leaves images of one channel as they are.
    return inputs.clone(memory_format=torch.channels_last)


def _loss(model: nn.Module, samples: Samples) -> float:
    labels = labels_of(samples, "selection").long()
    return functional.cross_entropy(logits(model, samples.inputs), labels).item()


def _adam(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(
            "model: has no parameter to train; allowed: at least one that takes a gradient"
        )
    return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=weight_decay)


def _check_options(
    epochs: int, batch_size: int, learning_rate: float, weight_decay: float, patience: int
) -> None:
    if min(epochs, batch_size, patience) < 1:
        raise ValueError(
            f"epochs, batch_size, patience: got {epochs}, {batch_size}, {patience}; "
            "allowed: at least 1 each"
        )
    if not (0 < learning_rate < math.inf and 0 <= weight_decay < math.inf):
        raise ValueError(
            f"learning_rate, weight_decay: got {learning_rate}, {weight_decay}; "
            "allowed: a positive number, and one of at least 0"
        )


def _check_samples(model: nn.Module, samples: Samples, argument: str) -> None:
    labels = labels_of(samples, argument)
    if not torch.isfinite(samples.inputs).all():
        raise ValueError(f"{argument}: got inputs that are not finite; allowed: finite numbers")
    classes = logits(model, samples.inputs[:1]).shape[1]
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"{argument}: got labels from {low} to {high}; "
            f"allowed: 0 to {classes - 1}, the outputs of the network"
        )


def _check_convergence(
    model: nn.Module,
    train_loss: float,
    selection_loss: float | None,
    learning_rate: float,
    number: int,
) -> None:
    losses = {"training loss": train_loss, "selection loss": selection_loss}
    broken = [
        f"{name} {loss}"
        for name, loss in losses.items()
        if loss is not None and not math.isfinite(loss)
    ]
    # The weights too: the last step of all may be the one that breaks them.
    broken += [
        f"{name} not finite"
        for name, weight in model.named_parameters()
        if not torch.isfinite(weight).all()
    ]
    if broken:
        raise ValueError(
            f"learning_rate: got {learning_rate}, with which the training diverged in epoch "
            f"{number} ({', '.join(broken[:3])}); allowed: a smaller one, or inputs of smaller size"
        )
