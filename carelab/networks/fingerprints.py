"""The identity of a network: a checksum of its weights."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

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
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not isinstance(value, Tensor):
            raise ValueError(f"model: {name} is no tensor; allowed: a state dict of tensors only")
        digest.update(f"{name!r} {tuple(value.shape)} {value.dtype}\n".encode())
        # Seen as bytes, so that types that numpy does not know (bfloat16) work too.
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
