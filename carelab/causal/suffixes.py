"""What follows a layer, run for many held neurons at once: only this part is run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import no_type_check

import torch
from torch import Tensor, nn
from torch.nn import functional

from carelab.networks import ordered_modules, split
from carelab.networks.layers import ACTIVATIONS, SILENT
from carelab.records import Neuron, Unit

__all__ = ["suffix_runner"]

# Modules that work on each number alone: they can be applied to the value of one neuron by
# itself, and do not care in which order the axes stand.
_ELEMENTWISE = (*ACTIVATIONS, *SILENT)

Held = Callable[[Sequence[Unit], Tensor], Tensor]


def suffix_runner(model: nn.Module, layer: str) -> Callable[[Tensor], Held]:
    """A function that runs what follows the layer with neurons of it held at values.

    It is called with the layer's activations (probes, batch, neurons, ...), does there what is
    the same for all units, and returns a second function. That one takes some units (group) of
    the layer, all of one shape, and what each is replaced by: constants (group, steps), or a
    value for every sample (group, steps, probes, batch, ...), where the last axes are those of
    the unit: none for a neuron or a position, height and width for a channel, the layer's whole
    shape for a `WholeLayer`. It returns the logits (group, steps, probes, batch, classes).

    Two things make it fast where only linear maps and activations follow. Holding entry i of h
    at v changes W h + b by (v - h_i) W[:, i], so the first map is updated instead of multiplied.
    And all work is laid out with the samples last, so that layers of 2 or 4 neurons still run
    over long contiguous rows.

    Args:
        model: a sequential network in evaluation mode.
        layer: name of the layer whose neurons are held.

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
    rest = [module for _, module in ordered_modules(split(model, layer)[1])]
    scalar: list[nn.Module] = []
    while rest and isinstance(rest[0], _ELEMENTWISE):
        scalar.append(rest.pop(0))
    plain = [type(module) is nn.Linear or isinstance(module, _ELEMENTWISE) for module in rest]
    if rest and type(rest[0]) is nn.Linear and all(plain):
        return partial(_fully_connected, scalar, rest[0], rest[1:])
    return partial(_overwriting, scalar, rest)


# Run thousands of times with small tensors: checking the shapes of each call, as everywhere else
# in the package, would take as long as the multiplications. Tests compare all of it with the
# slow reference.
@no_type_check
def _fully_connected(
    scalar: Sequence[nn.Module], linear: nn.Linear, rest: Sequence[nn.Module], before: Tensor
) -> Held:
    probes, batch, _ = before.shape
    hidden = _apply(scalar, before.movedim(-1, 0).contiguous()).flatten(1)
    untouched = _linear_first_axis(linear, hidden)[:, None, None, :]
    whole = _overwriting(scalar, (linear, *rest), before)

    def run(units: Sequence[Unit], values: Tensor) -> Tensor:
        if not all(isinstance(unit, Neuron) and not unit.position for unit in units):
            return whole(units, values)
        group, steps = values.shape[:2]
        picked = [unit.index for unit in units]
        held = _apply(scalar, values.to(hidden).clone()).reshape(group, steps, -1)
        change = held - hidden[picked][:, None, :]
        column = linear.weight[:, picked, None, None]
        current = torch.addcmul(untouched, change[None], column).flatten(1)
        for module in rest:
            if isinstance(module, nn.Linear):
                current = _linear_first_axis(module, current)
            else:
                current = _apply((module,), current)
        return current.reshape(-1, group, steps, probes, batch).movedim(0, -1)

    return run


@no_type_check
def _overwriting(scalar: Sequence[nn.Module], rest: Sequence[nn.Module], before: Tensor) -> Held:
    def run(units: Sequence[Unit], values: Tensor) -> Tensor:
        group, steps = values.shape[:2]
        copies = before.expand(group, steps, *before.shape).clone()
        for row, unit in enumerate(units):
            place = copies[(row, slice(None), slice(None), slice(None), *unit.place)]
            held = values[row].to(before)
            place.copy_(held.reshape(*held.shape, *[1] * (place.ndim - held.ndim)))
        current = _apply((*scalar, *rest), copies.flatten(0, 3))
        return current.unflatten(0, (group, steps, *before.shape[:2]))

    return run


@no_type_check
def _apply(modules: Sequence[nn.Module], current: Tensor) -> Tensor:
    """The modules in order; the tensor is ours alone, so that a ReLU may work in place."""
    for module in modules:
        current = functional.relu_(current) if type(module) is nn.ReLU else module(current)
    return current


@no_type_check
def _linear_first_axis(linear: nn.Linear, current: Tensor) -> Tensor:
    """W x + b for samples along the last axis: (inputs, rows) to (outputs, rows)."""
    if linear.bias is None:
        return linear.weight @ current
    return torch.addmm(linear.bias[:, None], linear.weight, current)
