"""What follows a layer, run for many held neurons at once: only this part is run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from carelab.networks import ordered_modules, split
from carelab.networks.layers import ACTIVATIONS, SILENT

__all__ = ["suffix_runner"]

# Modules that work on each number alone: they can be applied to the value of one neuron by
# itself, and do not care in which order the axes stand.
_ELEMENTWISE = (*ACTIVATIONS, *SILENT)

Runner = Callable[[Tensor, Sequence[int], Tensor], Tensor]


def suffix_runner(model: nn.Module, layer: str) -> Runner:
    """A function that runs what follows the layer with neurons of it held at values.

    Its arguments are the layer's activations (probes, batch, neurons, ...), the indices of the
    neurons (group) and the values each is held at (group, steps); it returns the logits
    (group, steps, probes, batch, classes).

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
        >>> from carelab.networks import mlp
        >>> model = mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> run = suffix_runner(model, "relu1")
        >>> run(torch.rand(1, 5, 3), [0, 2], torch.rand(2, 4)).shape
        torch.Size([2, 4, 1, 5, 2])
    """
    rest = [module for _, module in ordered_modules(split(model, layer)[1])]
    scalar: list[nn.Module] = []
    while rest and isinstance(rest[0], _ELEMENTWISE):
        scalar.append(rest.pop(0))
    plain = [type(module) is nn.Linear or isinstance(module, _ELEMENTWISE) for module in rest]
    if rest and type(rest[0]) is nn.Linear and all(plain):
        return _fully_connected(scalar, rest[0], rest[1:])
    return _overwriting(scalar, rest)


def _fully_connected(
    scalar: Sequence[nn.Module], linear: nn.Linear, rest: Sequence[nn.Module]
) -> Runner:
    def run(
        before: Float[Tensor, "probes batch neurons"],
        indices: Sequence[int],
        values: Float[Tensor, "group steps"],
    ) -> Float[Tensor, "group steps probes batch classes"]:
        probes, batch, _ = before.shape
        group, steps = values.shape
        hidden = _apply(scalar, before.movedim(-1, 0).contiguous()).flatten(1)
        held = _apply(scalar, values.to(before).clone())
        picked = list(indices)
        untouched = _linear_first_axis(linear, hidden)
        change = held[:, :, None] - hidden[picked][:, None, :]
        column = linear.weight[:, picked]
        current = torch.addcmul(
            untouched[:, None, None, :], change[None], column[:, :, None, None]
        ).flatten(1)
        for module in rest:
            if isinstance(module, nn.Linear):
                current = _linear_first_axis(module, current)
            else:
                current = _apply([module], current)
        return current.reshape(-1, group, steps, probes, batch).movedim(0, -1)

    return run


def _overwriting(scalar: Sequence[nn.Module], rest: Sequence[nn.Module]) -> Runner:
    def run(
        before: Float[Tensor, "probes batch neurons ..."],
        indices: Sequence[int],
        values: Float[Tensor, "group steps"],
    ) -> Float[Tensor, "group steps probes batch classes"]:
        group, steps = values.shape
        copies = before.expand(group, steps, *before.shape).clone()
        for row, index in enumerate(indices):
            held = values[row].to(before).reshape(steps, *[1] * (before.ndim - 1))
            copies[row, :, :, :, index] = held
        current = _apply([*scalar, *rest], copies.flatten(0, 3))
        return current.unflatten(0, (group, steps, *before.shape[:2]))

    return run


def _apply(modules: Sequence[nn.Module], current: Tensor) -> Tensor:
    """The modules in order; the tensor is ours alone, so that a ReLU may work in place."""
    for module in modules:
        current = functional.relu_(current) if type(module) is nn.ReLU else module(current)
    return current


def _linear_first_axis(
    linear: nn.Linear, current: Float[Tensor, "inputs rows"]
) -> Float[Tensor, "outputs rows"]:
    if linear.bias is None:
        return linear.weight @ current
    return torch.addmm(linear.bias[:, None], linear.weight, current)
