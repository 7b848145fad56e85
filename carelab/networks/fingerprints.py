"""The identity of a network: a checksum of its weights."""

from __future__ import annotations

from torch import Tensor, nn

from carelab.networks.tensorfiles import digest

__all__ = ["fingerprint"]


def fingerprint(model: nn.Module) -> str:
    """Sha256 of the weights: names, shapes, number types and bytes of the state dict.

    Two networks have the same fingerprint exactly when their state dicts are equal bit for bit,
    on whichever device they are. What has no weights, such as the kind of an activation, is not
    part of it.

    Args:
        model: the network.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: a state dict that holds something other than tensors.

    Example:
        >>> import torch
        >>> from carelab.networks import fingerprint, mlp
        >>> len(fingerprint(mlp(4, (3,), 2, generator=torch.Generator().manual_seed(0))))
        64
    """
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"model: {name} is no tensor; allowed: a state dict of tensors only")
    return digest(state)
