"""What follows a layer, run for many units replaced in turn: only this part is run again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import no_type_check

from torch import Tensor, nn

from carelab.causal.pieces import Pass, Passes, Suffix
from carelab.causal.samples_last import (
    acts_by_channel,
    is_full_flatten,
    rows_a_pass,
    stretches,
)
from carelab.causal.updates import updating_passes
from carelab.networks import ordered_modules, split
from carelab.networks.layers import SILENT
from carelab.records import Unit, WholeLayer

__all__ = ["suffix_runner", "unread_units"]

Held = Callable[[Sequence[Unit], Tensor], Tensor]


def suffix_runner(model: nn.Module, layer: str) -> Callable[[Tensor], Held]:
    """A function that runs what follows the layer with units of it replaced.

    It is called with the layer's activations (probes, batch, neurons, ...), does there what is
    the same for all units, and returns a second function. That one takes some units (group) of
    the layer, all of one shape, and what each is replaced by: constants (group, steps), or a
    value for every sample (group, steps, probes, batch, ...), where the last axes are those of
    the unit: none for a neuron or a position, height and width for a channel, the layer's whole
    shape for a `WholeLayer`. It returns the logits (group, steps, probes, batch, classes).

    What makes it fast: the modules up to the next linear map that act channel by channel run on
    the one channel that changed. The linear map, fully connected or convolution, is updated
    instead of run: W h + b changes by W' (h' - h), with W' the part of W that reads the channel,
    for a single number one column. A constant changes it alike for all samples, so that more
    steps cost no more convolutions. Only what comes after it runs in full, on passes that fit
    the processor's cache, with the samples along the last axis.

    Args:
        model: a sequential network in evaluation mode.
        layer: name of the layer whose units are replaced.

    Raises:
        ValueError: an unknown layer, or a network that is not sequential.

    Example:
        >>> import torch
        >>> from carelab.causal.suffixes import suffix_runner
        >>> from carelab.networks import hidden_neurons, mlp
        >>> model = mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> run = suffix_runner(model, "relu1")(torch.rand(1, 5, 3))
        >>> run(hidden_neurons(model)[:2], torch.rand(2, 4)).shape
        torch.Size([2, 4, 1, 5, 2])
    """
    suffix = _split_at_linear_map(model, layer)
    return partial(_prepare, suffix)


def unread_units(
    model: nn.Module, units: Sequence[Unit], shapes: Mapping[str, Sequence[int]]
) -> tuple[bool, ...]:
    """Which of the units no weight reads, so that they cannot change any output.

    Args:
        model: a sequential network in evaluation mode.
        units: its units, known to be in their layers.
        shapes: shape of one row's output at each of their layers.

    Raises:
        ValueError: an unknown layer, or a network that is not sequential.

    Example:
        >>> import torch
        >>> from carelab.causal.suffixes import unread_units
        >>> from carelab.networks import hidden_neurons, mlp
        >>> model = mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> _ = model.linear2.weight.data[:, 1].zero_()
        >>> unread_units(model, hidden_neurons(model), {"relu1": (3,)})
        (False, True, False)
    """
    suffixes = {layer: _split_at_linear_map(model, layer) for layer in {one.layer for one in units}}
    unread = {
        layer: None if one.linear is None else (one.linear.weight == 0).all(dim=0).cpu()
        for layer, one in suffixes.items()
    }
    return tuple(
        _is_unread(unit, unread[unit.layer], suffixes[unit.layer], shapes[unit.layer])
        for unit in units
    )


def _split_at_linear_map(model: nn.Module, layer: str) -> Suffix:
    rest = tuple(module for _, module in ordered_modules(split(model, layer)[1]))
    length, flat = 0, False
    while length < len(rest):
        module = rest[length]
        # After a flatten, a normalisation no longer counts the channels of the layer.
        counts_others = flat and isinstance(module, nn.BatchNorm1d)
        if not is_full_flatten(module) and (counts_others or not acts_by_channel(module)):
            break
        flat = flat or is_full_flatten(module)
        length += 1
    head = rest[:length]
    after = tuple(module for module in rest[length:] if not isinstance(module, SILENT))
    after = _pooled_first(after)
    linear = _updatable(after[0]) if after else None
    return Suffix(head=head, linear=linear, tail=after[1:] if linear is not None else after)


def _pooled_first(modules: tuple[nn.Module, ...]) -> tuple[nn.Module, ...]:
    """A max pooling before the ReLU that it follows: no bit changes, and there is less to do."""
    order = list(modules)
    for at, (one, after) in enumerate(pairwise(modules)):
        if type(one) is nn.ReLU and type(after) is nn.MaxPool2d:
            order[at : at + 2] = [after, one]
    return tuple(order)


def _updatable(module: nn.Module) -> nn.Linear | nn.Conv2d | None:
    """The module, where its output is the sum of what each input channel adds."""
    if type(module) is nn.Linear:
        return module
    if type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros":
        return module
    return None


def _is_unread(unit: Unit, unread: Tensor | None, suffix: Suffix, shape: Sequence[int]) -> bool:
    if unread is None or not unread.any():
        return False
    if isinstance(unit, WholeLayer) or not suffix.updates(len(shape)):
        return False
    by_channel = unread.reshape(shape[0], -1)[unit.index]
    if unit.position and suffix.by_number and by_channel.numel() == math.prod(shape[1:]):
        by_channel = by_channel.reshape(shape[1:])[unit.position]
    return bool(by_channel.all())


# Run very often with small tensors: checking the shapes of each call, as everywhere else in the
# package, would take as long as the work. Tests compare all of it with the slow reference.
@no_type_check
def _prepare(suffix: Suffix, before: Tensor) -> Held:
    overwriting = partial(_overwriting, suffix, before)
    if not suffix.updates(before.ndim - 2):
        return partial(_collect, before, overwriting)
    updating = updating_passes(suffix, before.movedim((0, 1), (-2, -1)).flatten(-2))

    def run(units: Sequence[Unit], values: Tensor) -> Tensor:
        whole = isinstance(units[0], WholeLayer)
        return _collect(before, overwriting if whole else updating, units, values)

    return run


@no_type_check
def _collect(before: Tensor, passes: Passes, units: Sequence[Unit], values: Tensor) -> Tensor:
    """The logits of all passes in one tensor (group, steps, probes, batch, classes)."""
    probes, batch = before.shape[:2]
    group, steps = values.shape[:2]
    by_row = values if values.ndim == 2 else values.flatten(2, 3)
    outputs = None
    for held, rows, logits in passes(units, by_row.to(before)):
        if outputs is None:
            outputs = logits.new_empty(*logits.shape[:-2], group * steps, probes * batch)
        outputs[..., held, rows] = logits
    last = outputs.unflatten(-1, (probes, batch)).unflatten(-3, (group, steps))
    classes = range(last.ndim - 4)
    return last.movedim(tuple(classes), tuple(axis - len(classes) for axis in classes))


@no_type_check
def _overwriting(
    suffix: Suffix, before: Tensor, units: Sequence[Unit], values: Tensor
) -> Iterator[Pass]:
    """Anything at all: everything after the layer is run on a copy of its output."""
    flat, steps = before.flatten(0, 1), values.shape[1]
    modules = [*suffix.head, *([] if suffix.linear is None else [suffix.linear]), *suffix.tail]
    for rows in stretches(len(flat), rows_a_pass(flat[0].numel(), flat.device)):
        for number, unit in enumerate(units):
            for step, value in enumerate(values[number]):
                current = flat[rows].clone()
                current[(slice(None), *unit.place)] = value if value.ndim == 0 else value[rows]
                for module in modules:
                    current = module(current)
                at = number * steps + step
                yield slice(at, at + 1), rows, current.movedim(0, -1)[..., None, :]
