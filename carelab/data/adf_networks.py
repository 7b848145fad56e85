"""The published networks of the ADF fairness-testing paper, read from their checkpoints."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from carelab.data.adf import adf_source
from carelab.data.fetching import obtain
from carelab.networks import mlp

__all__ = ["NETWORKS", "adf_network", "network_from_checkpoint"]

_FEATURES = {"census": 13, "credit": 20, "bank": 16}
_WIDTHS = (64, 32, 16, 8, 4)
_CLASSES = 2

NETWORKS = {
    "census": adf_source(
        "adf-census-network",
        "ADF's published census network, 13-64-32-16-8-4-2",
        "models/census/test.model.data-00000-of-00001",
        "9abb00f4963c084fea2a380a0f47b5db5146cb40c3b0f6a5072bb51d44a222ed",
        44240,
    ),
    "credit": adf_source(
        "adf-credit-network",
        "ADF's published credit network, 20-64-32-16-8-4-2",
        "models/credit/test.model.data-00000-of-00001",
        "83c689dcfb018cc4319c021849ca3bc8bacd1714ec4fdf7600d7cb0b808db532",
        49616,
    ),
    "bank": adf_source(
        "adf-bank-network",
        "ADF's published bank network, 16-64-32-16-8-4-2",
        "models/bank/test.model.data-00000-of-00001",
        "6075c1fbb3d38a90d5a90cb2efd17e57edb158bda81b65aeed764d85f2c0f7d2",
        46544,
    ),
}


def adf_network(name: str) -> nn.Sequential:
    """A published ADF network, features-64-32-16-8-4-2 with ReLU, that returns logits.

    Its weights are read straight from the official checkpoint's data file: 8 bytes of optimiser
    state, then layer by layer the bias and its two optimiser slots, the weights (inputs, outputs)
    and theirs, little-endian float32.

    Args:
        name: "census", "credit" or "bank", with or without the "adf-" of the data set.

    Returns:
        The network, with modules linear1, relu1, ..., linear6, float32, in evaluation mode.

    Raises:
        DataError: the file is damaged, or missing and cannot be fetched.
        ValueError: an unknown name.

    Source: Zhang et al., White-box Fairness Testing through Adversarial Sampling, ICSE 2020.

    Example:
        >>> from carelab import data
        >>> network = data.adf_network("census")  # doctest: +SKIP
        >>> network.linear1.in_features  # doctest: +SKIP
        13
    """
    short = name.removeprefix("adf-")
    if short not in NETWORKS:
        raise ValueError(f"name: got {name!r}; allowed: {', '.join(NETWORKS)}")
    (path,) = obtain(NETWORKS[short])
    return network_from_checkpoint(path.read_bytes(), features=_FEATURES[short])


def network_from_checkpoint(content: bytes, *, features: int) -> nn.Sequential:
    """The network whose weights a checkpoint's data file holds.

    Args:
        content: the whole file.
        features: number of inputs of the network.

    Raises:
        ValueError: a file of another length than such a network's checkpoint has.

    Example:
        >>> from carelab.data.adf_networks import network_from_checkpoint
        >>> network = network_from_checkpoint(bytes(44240), features=13)
        >>> network.linear6.bias.tolist()
        [0.0, 0.0]
    """
    # The initial weights are all overwritten, so the seed does not matter.
    network = mlp(features, _WIDTHS, _CLASSES, generator=torch.Generator().manual_seed(0))
    expected = 8 + 3 * 4 * sum(parameter.numel() for parameter in network.parameters())
    if len(content) != expected:
        raise ValueError(
            f"content: got {len(content)} bytes; a checkpoint of {features} features has {expected}"
        )
    numbers = torch.from_numpy(np.frombuffer(content, dtype="<f4", offset=8).astype(np.float32))
    start = 0
    with torch.no_grad():
        for layer in network:
            if not isinstance(layer, nn.Linear):
                continue
            outputs, weights = layer.out_features, layer.weight.numel()
            layer.bias.copy_(numbers[start : start + outputs])
            start += 3 * outputs
            kernel = numbers[start : start + weights].reshape(layer.in_features, outputs)
            layer.weight.copy_(kernel.T)
            start += 3 * weights
    return network
