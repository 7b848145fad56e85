"""Networks in safetensors files: one that rebuilds itself, and plain weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from carelab.networks.fingerprints import fingerprint
from carelab.networks.kinds import build_network, describe_network
from carelab.networks.tensorfiles import read_tensors, seal, unseal, write_tensors

__all__ = ["load", "load_into", "save"]

_KEY = "carelab_network"
_VERSION = 1
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a network to a safetensors file that alone rebuilds it.

    The file holds the weights and, as JSON in its metadata, the kind and the constructor arguments
    of each module, a format version, the fingerprint of the weights and a checksum of it all.
    Equal networks give equal files. The file is there whole or not at all.

    Args:
        model: a sequential network of the module kinds in ``networks.kinds.KINDS`` and `Residual`.
        path: the file; an older one is replaced.

    Raises:
        ValueError: a network that is not sequential, or a module that cannot be described.
        OSError: the folder is missing or cannot be written to.

    Example:
        >>> import tempfile, torch
        >>> from carelab import networks
        >>> model = networks.mlp(4, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     networks.save(model, f"{folder}/a.safetensors")
        ...     same = networks.load(f"{folder}/a.safetensors")
    """
    description = {
        "version": _VERSION,
        "modules": describe_network(model),
        "fingerprint": fingerprint(model),
    }
    text = seal(description, "model")
    weights = model.state_dict()
    _check_types(weights, "model")
    write_tensors(path, weights, {_KEY: text})


def load(path: str | os.PathLike[str]) -> nn.Sequential:
    """The network in a file written by `save`, bit for bit.

    No code from the file is run: modules are built from a fixed list of kinds, their arguments are
    checked, and memory is taken only for weights that are really in the file. The checksum finds
    damage and careless edits; it is no signature.

    Args:
        path: the file.

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is damaged, of another format or version, without a description of
            its network, or with one that does not fit its weights.

    Example:
        >>> import tempfile, torch
        >>> from carelab import networks
        >>> model = networks.mlp(4, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     networks.save(model, f"{folder}/a.safetensors")
        ...     same = networks.load(f"{folder}/a.safetensors")
    """
    weights, metadata = read_tensors(path)
    if _KEY not in metadata:
        raise ValueError(
            f"path: {path} holds weights but no description of a network; "
            "allowed: a file written by networks.save, or networks.load_into for plain weights"
        )
    description = unseal(metadata[_KEY], path, version=_VERSION, keys=["modules", "fingerprint"])
    try:
        # Without memory for the weights, of which the file has to bring the real ones.
        with torch.device("meta"):
            network = build_network(description["modules"])
        _check_types(weights, "weights")
    except ValueError as error:
        raise ValueError(f"path: {path} describes no network that can be built: {error}") from None
    _check_weights(network.state_dict(), weights, path)
    network.load_state_dict(weights, assign=True)
    if fingerprint(network) != description["fingerprint"]:
        raise ValueError(f"path: {path} is damaged: its weights do not have their fingerprint")
    return network.eval()


def load_into(model: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """A copy of the network with the weights of a safetensors file.

    For files that hold a plain state dict, of any architecture.

    Args:
        model: a network of the file's architecture, sequential or not; it is not changed.
        path: the file.

    Returns:
        The copy, on the network's device, in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, or weights of other names, shapes or types than the network's.

    Example:
        >>> import tempfile, torch
        >>> from carelab import networks
        >>> model = networks.mlp(4, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     networks.save(model, f"{folder}/a.safetensors")
        ...     same = networks.load_into(model, f"{folder}/a.safetensors")
    """
    weights, _ = read_tensors(path)
    expected = model.state_dict()
    _check_weights(expected, weights, path)
    for name, tensor in weights.items():
        if tensor.dtype != expected[name].dtype:
            raise ValueError(
                f"path: {path} holds {name} as {tensor.dtype}; "
                f"this network takes {expected[name].dtype}, convert it first"
            )
    loaded = deepcopy(model)
    loaded.load_state_dict(weights)
    return loaded.eval()


def _check_weights(
    expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> None:
    missing, unknown = sorted(expected.keys() - weights), sorted(weights.keys() - expected)
    if missing or unknown:
        raise ValueError(
            f"path: {path} does not fit the network: missing {', '.join(missing[:5]) or 'none'}; "
            f"unknown {', '.join(unknown[:5]) or 'none'}"
        )
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"path: {path} holds {name} with shape {tuple(tensor.shape)}; "
                f"the network takes {tuple(expected[name].shape)}"
            )
        if tensor.is_floating_point() != expected[name].is_floating_point():
            raise ValueError(
                f"path: {path} holds {name} as {tensor.dtype}; "
                f"the network takes {expected[name].dtype}"
            )


def _check_types(state: Mapping[str, Tensor], argument: str) -> None:
    for name, tensor in state.items():
        if tensor.dtype not in (*_DTYPES, torch.int64):
            allowed = ", ".join(map(str, _DTYPES))
            raise ValueError(f"{argument}: {name} is {tensor.dtype}; allowed: {allowed}")
