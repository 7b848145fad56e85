"""Surgery on a sequential network: add units to its hidden layers, then hide which they are.

A network is taken apart into stages, one weight layer each. The weights of every stage are seen
as (units, reads, *taps): `reads` counts the units (or inputs, or channels) of the stage before,
`taps` are the places at which each of them is read: none between two fully connected layers, the
kernel (rows, columns) of a convolution, the places of the last map for the first fully connected
layer after it. Adding a unit is then adding a row here and a column there, whatever the kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from carelab.networks.layers import ACTIVATIONS, assemble, ordered_modules

__all__ = [
    "Stage",
    "balance",
    "disguise",
    "field",
    "follow",
    "incoming",
    "rebuild",
    "respond",
    "stages",
]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Stage:
    """A weight layer with what comes after it, up to the next weight layer.

    Args:
        name: the weight layer's name.
        layer: name of the activation after it, or "" for the last stage.
        module: the weight layer.
        weight: its weights (units, reads, *taps).
        bias: its biases (units).
        after: activation and pooling that its output goes through; a flatten is left out, since
            the next stage's weights say at which place they read.
    """

    name: str
    layer: str
    module: nn.Module
    weight: Float[Tensor, "units reads *taps"]
    bias: Float[Tensor, " units"]
    after: tuple[nn.Module, ...]


def stages(model: nn.Module) -> tuple[Stage, ...]:
    """The stages of a network of ``Linear``, ``Conv2d``, ``ReLU``, pooling and ``Flatten``.

    Only ReLU networks can be operated on: a planted path is exactly silent where its cause is
    missing, and a positive factor passes through each unit unchanged.

    Args:
        model: a sequential network whose weight layers have a bias.

    Raises:
        ValueError: a module of another kind; a weight layer without a bias, with grouped channels
            or a padding by name.

    Example:
        >>> import torch
        >>> from carelab.data.planted_surgery import stages
        >>> from carelab.networks import cnn
        >>> model = cnn((1, 8, 8), (4,), (6,), 10, generator=torch.Generator().manual_seed(0))
        >>> [tuple(stage.weight.shape) for stage in stages(model)]
        [(4, 1, 3, 3), (6, 4, 16), (10, 6)]
    """
    found: list[Stage] = []
    name, weight, layer = "", None, ""
    after: list[nn.Module] = []
    for place, module in [*ordered_modules(model), ("", None)]:
        if module is None or isinstance(module, nn.Linear | nn.Conv2d):
            if weight is not None:
                found.append(_stage(name, weight, after, layer, found))
            name, weight, after, layer = place, module, [], ""
        elif isinstance(module, nn.ReLU | nn.MaxPool2d | nn.AvgPool2d):
            after.append(module)
            layer = place if isinstance(module, ACTIVATIONS) else layer
        elif not isinstance(module, nn.Flatten):
            raise ValueError(
                f"model: {place} is a {type(module).__name__}; allowed: Linear, Conv2d, ReLU, "
                "pooling and Flatten"
            )
    if not found:
        raise ValueError("model: has no weight layer; allowed: a network with hidden layers")
    return tuple(found)


def respond(
    stage: Stage,
    inputs: Float[Tensor, "batch reads *places"],
    weight: Float[Tensor, "units reads *taps"],
    bias: Float[Tensor, " units"],
) -> Float[Tensor, "batch units *places2"]:
    """Pre-activations that a stage with these weights has on the outputs of the stage before.

    Args:
        stage: says how the weights are applied.
        inputs: outputs of the stage before (batch, reads) or (batch, reads, height, width).
        weight: one row a unit, as many units as wanted.
        bias: one number a unit.

    Example:
        >>> import torch
        >>> from carelab.data.planted_surgery import respond, stages
        >>> from carelab.networks import mlp
        >>> model = mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> first = stages(model)[0]
        >>> respond(first, torch.ones(5, 3), first.weight, first.bias).shape
        torch.Size([5, 4])
    """
    if isinstance(stage.module, nn.Conv2d):
        module = stage.module
        return functional.conv2d(
            inputs, weight, bias, module.stride, module.padding, module.dilation
        )
    return functional.linear(inputs.flatten(1), weight.flatten(1), bias)


def follow(
    stage: Stage, outputs: Float[Tensor, "batch units *places"]
) -> Float[Tensor, "batch units *places2"]:
    """What reaches the next stage of these pre-activations: after activation and pooling.

    Args:
        stage: says what follows.
        outputs: pre-activations of any number of units.

    Example:
        >>> import torch
        >>> from carelab.data.planted_surgery import follow, stages
        >>> from carelab.networks import mlp
        >>> model = mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> follow(stages(model)[0], torch.tensor([[-1.0, 2.0]])).tolist()
        [[0.0, 2.0]]
    """
    for module in stage.after:
        outputs = module(outputs)
    return outputs


def field(
    stage: Stage, inputs: Float[Tensor, "batch reads *places"], place: int
) -> Float[Tensor, "batch reads *taps"]:
    """What one unit of the stage reads of the outputs of the stage before.

    Args:
        stage: the stage.
        inputs: outputs of the stage before.
        place: for a convolution, which position of its output map, row by row; else not used.

    Example:
        >>> import torch
        >>> from carelab.data.planted_surgery import field, stages
        >>> from carelab.networks import cnn
        >>> model = cnn((1, 8, 8), (4,), (6,), 10, generator=torch.Generator().manual_seed(0))
        >>> field(stages(model)[0], torch.zeros(5, 1, 8, 8), 9).shape
        torch.Size([5, 1, 3, 3])
    """
    taps = stage.weight.shape[2:]
    if isinstance(stage.module, nn.Conv2d):
        module = stage.module
        padding = cast(tuple[int, int], module.padding)
        patches = functional.unfold(
            inputs, module.kernel_size, module.dilation, padding, module.stride
        )
        return patches[:, :, place].unflatten(1, (inputs.shape[1], *taps))
    return inputs.reshape(*inputs.shape[:2], *taps)


def disguise(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    generator: torch.Generator,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The same function of the inputs, with the hidden units in another order and at other sizes.

    Each hidden unit moves to a random place of its layer; its incoming weights and its bias are
    multiplied by a random c, its outgoing weights divided by it, ln c uniform in [-ln 3, ln 3].

    Args:
        weights: the weights of each stage (units, reads, *taps), ReLU between them.
        biases: its biases.
        generator: draws orders and factors.

    Returns:
        The new weights, the new biases, and for each hidden layer the new place of each unit.

    Example:
        >>> import torch
        >>> from carelab.data.planted_surgery import disguise
        >>> generator = torch.Generator().manual_seed(0)
        >>> weights, biases = [torch.ones(3, 2), torch.ones(2, 3)], [torch.ones(3), torch.zeros(2)]
        >>> new, _, places = disguise(weights, biases, generator=generator)
        >>> (new[1] @ new[0]).round(decimals=4).tolist(), sorted(places[0].tolist())
        ([[3.0, 3.0], [3.0, 3.0]], [0, 1, 2])
    """
    weights, biases = list(weights), list(biases)
    places = []
    for number in range(len(weights) - 1):
        units = len(weights[number])
        order = torch.randperm(units, generator=generator)
        spread = 2 * torch.rand(units, generator=generator, dtype=biases[number].dtype) - 1
        factors = (math.log(3) * spread).exp()
        weights[number] = (weights[number] * _along(factors, weights[number], 0))[order]
        biases[number] = (biases[number] * factors)[order]
        outgoing = weights[number + 1]
        weights[number + 1] = (outgoing / _along(factors, outgoing, 1))[:, order]
        places.append(order.argsort())
    return weights, biases, places


def balance(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    clean: Sequence[int],
    *,
    generator: torch.Generator,
) -> tuple[list[Tensor], list[Tensor]]:
    """The same function, with added units whose weights are divided as those of clean units are.

    A factor c on the incoming weights and 1 / c on the outgoing ones gives each added unit the
    ratio of the two norms that a clean unit of its layer, drawn at random, has.

    Args:
        weights: the weights of each stage (units, reads, *taps), ReLU between them.
        biases: its biases.
        clean: how many units of each hidden layer are clean; they come first.
        generator: draws the clean units.

    Returns:
        The new weights and the new biases.

    Example:
        >>> import torch
        >>> from carelab.data.planted_surgery import balance
        >>> generator = torch.Generator().manual_seed(0)
        >>> weights, biases = [torch.tensor([[1.0], [9.0]]), torch.ones(1, 2)], [torch.zeros(2)]
        >>> new, _ = balance(weights, [*biases, torch.zeros(1)], [1], generator=generator)
        >>> new[0].tolist(), new[1].tolist()
        ([[1.0], [3.0]], [[1.0, 3.0]])
    """
    weights, biases = list(weights), list(biases)
    for number, count in enumerate(clean):
        before, after = weights[number], weights[number + 1]
        ratios = incoming(before) / incoming(after.transpose(0, 1)).clamp(min=1e-6)
        drawn = torch.randint(count, (len(before) - count,), generator=generator)
        factors = torch.ones_like(ratios)
        factors[count:] = (ratios[drawn] / ratios[count:].clamp(min=1e-6)).sqrt()
        weights[number] = before * _along(factors, before, 0)
        biases[number] = biases[number] * factors
        weights[number + 1] = after / _along(factors, after, 1)
    return weights, biases


def incoming(weight: Float[Tensor, "units reads *taps"]) -> Float[Tensor, " units"]:
    """Norm of the incoming weights of each unit.

    Args:
        weight: one row a unit.

    Example:
        >>> import torch
        >>> from carelab.data.planted_surgery import incoming
        >>> incoming(torch.tensor([[3.0, 4.0]])).tolist()
        [5.0]
    """
    return weight.flatten(1).norm(dim=1)


def rebuild(
    model: nn.Module,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
) -> nn.Sequential:
    """A network of the model's layout with these weights, of any number of hidden units.

    Args:
        model: the network whose modules and names are kept; it is not changed.
        weights: the weights of each stage (units, reads, *taps).
        biases: its biases.

    Returns:
        The network, in evaluation mode.

    Example:
        >>> import torch
        >>> from carelab.data.planted_surgery import rebuild
        >>> from carelab.networks import mlp
        >>> model = mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> rebuild(model, [torch.ones(5, 3), torch.ones(2, 5)], [torch.ones(5), torch.ones(2)])[0]
        Linear(in_features=3, out_features=5, bias=True)
    """
    numbers = iter(zip(weights, biases, strict=True))
    modules: list[tuple[str, nn.Module]] = []
    for name, module in ordered_modules(model):
        if isinstance(module, nn.Linear | nn.Conv2d):
            modules.append((name, _resized(module, *next(numbers))))
        else:
            modules.append((name, deepcopy(module)))
    return assemble(modules).eval()


def _stage(
    name: str,
    module: nn.Linear | nn.Conv2d,
    after: Sequence[nn.Module],
    layer: str,
    before: Sequence[Stage],
) -> Stage:
    if module.bias is None or (
        isinstance(module, nn.Conv2d) and (module.groups != 1 or isinstance(module.padding, str))
    ):
        raise ValueError(
            f"model: {name} has no bias, grouped channels or a padding by name; allowed: a plain "
            "layer with a bias"
        )
    weight = module.weight.detach()
    if isinstance(module, nn.Linear) and before and len(before[-1].weight) != weight.shape[1]:
        weight = weight.unflatten(1, (len(before[-1].weight), -1))
    return Stage(
        name=name,
        layer=layer,
        module=module,
        weight=weight,
        bias=module.bias.detach(),
        after=tuple(after),
    )


def _resized(module: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Module:
    # The initial weights are all overwritten, so none are drawn.
    fresh: nn.Linear | nn.Conv2d
    if isinstance(module, nn.Linear):
        weight = weight.flatten(1)
        fresh = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
    else:
        fresh = nn.utils.skip_init(
            nn.Conv2d,
            weight.shape[1],
            weight.shape[0],
            module.kernel_size,
            stride=module.stride,
            padding=module.padding,
            dilation=module.dilation,
        )
    fresh.to(weight.dtype).load_state_dict({"weight": weight, "bias": bias})
    return fresh


def _along(factors: Tensor, weight: Tensor, axis: int) -> Tensor:
    return factors.reshape([-1 if number == axis else 1 for number in range(weight.ndim)])
