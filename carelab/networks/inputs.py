"""What a network takes, and a clear word where it is given something else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.networks.layers import ACTIVATIONS, SILENT, ordered_modules

__all__ = ["check_evaluation_mode", "check_inputs", "input_features"]


def check_evaluation_mode(model: nn.Module) -> None:
    """Refuse a network of which any part is in training mode, where dropout is at random.

    Args:
        model: the network.

    Raises:
        ValueError: the network, or a module inside it, is in training mode.

    Example:
        >>> import torch
        >>> from carelab.networks import check_evaluation_mode, mlp
        >>> check_evaluation_mode(mlp(4, (3,), 2, generator=torch.Generator().manual_seed(0)))
    """
    if any(module.training for module in model.modules()):
        raise ValueError("model: is in training mode; allowed: evaluation mode, call model.eval()")


def input_features(model: nn.Module) -> int | None:
    """Number of features that the first ``Linear`` layer takes.

    Args:
        model: a sequential network.

    Returns:
        The number, or None where a ``Conv2d`` comes first and where there is no weight layer.

    Raises:
        ValueError: a network that is not sequential.

    Example:
        >>> import torch
        >>> from carelab.networks import input_features, mlp
        >>> input_features(mlp(13, (3,), 2, generator=torch.Generator().manual_seed(0)))
        13
    """
    for _, module in ordered_modules(model):
        if isinstance(module, nn.Conv2d):
            return None
        if isinstance(module, nn.Linear):
            return module.in_features
    return None


def check_inputs(model: nn.Module, inputs: Float[Tensor, "batch ..."]) -> None:
    """Raise a ValueError, in one clear sentence, where the network cannot take the inputs.

    Features or channels, number type and device are compared with the first weight layer. Nothing
    is checked where they cannot be told without running the network: one that is not sequential,
    or whose first weight layer comes after a module that may change the shape.

    Args:
        model: the network.
        inputs: what it is to be given (batch, features) or (batch, channels, height, width).

    Raises:
        ValueError: inputs of another shape, type or device than the network takes.

    Example:
        >>> import torch
        >>> from carelab.networks import check_inputs, mlp
        >>> model = mlp(13, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> check_inputs(model, torch.zeros(5, 13))
    """
    if not isinstance(model, nn.Sequential):
        return
    sample = list(inputs.shape[1:])
    for _, module in ordered_modules(model):
        if isinstance(module, nn.Linear | nn.Conv2d):
            _check_shape(module, sample)
            _check_number_type(module.weight, inputs)
            return
        if type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
            sample = [torch.Size(sample).numel()]
        elif not isinstance(module, (*ACTIVATIONS, *SILENT)):
            return


def _check_shape(layer: nn.Linear | nn.Conv2d, sample: Sequence[int]) -> None:
    if isinstance(layer, nn.Linear):
        axes, word, found, expected = 1, "features", sample[-1:], layer.in_features
        form = f"(batch, {expected})"
    else:
        axes, word, found, expected = 3, "channels", sample[:1], layer.in_channels
        form = f"(batch, {expected}, height, width)"
    if len(sample) != axes:
        shape = ", ".join(["batch", *map(str, sample)])
        raise ValueError(f"inputs: got shape ({shape}); this network takes {form}")
    if found[0] != expected:
        raise ValueError(f"inputs: got {found[0]} {word}; this network takes {expected}")


def _check_number_type(weight: Tensor, inputs: Tensor) -> None:
    if (inputs.dtype, inputs.device) != (weight.dtype, weight.device):
        raise ValueError(
            f"inputs: got {inputs.dtype} on {inputs.device}; "
            f"this network takes {weight.dtype} on {weight.device}"
        )
