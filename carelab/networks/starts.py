"""Initial weights with which deep networks learn, whichever their activation."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import nn

__all__ = ["initialise_"]

# One over the spread that an activation leaves of a signal of mean 0 and spread 1: 0.208 after a
# sigmoid. He's gain counts the mean of what a ReLU leaves as well.
_GAINS: Mapping[type[nn.Module] | None, float] = {nn.Sigmoid: 4.8, nn.Tanh: 5 / 3, None: 1.0}
_HE_GAIN = 2**0.5


def initialise_(network: nn.Sequential) -> None:
    """Draw weights, in place, that keep the signal's spread from layer to layer.

    They are normal, with standard deviation gain / sqrt(inputs of a unit). The activation after a
    layer decides the gain: 4.8 for Sigmoid, 5/3 for Tanh, sqrt(2) for all others and 1 for the
    last layer. Biases are 0; but in a network of sigmoids, whose layers read numbers in [0, 1],
    each bias moves the middle, 1/2, of what its layer reads to 0. With torch's own start such a
    network says the same of all inputs, and two convolutions are already too deep to learn. Its
    weights are large, so it wants larger steps: for Adam 0.003 (units of a thousand inputs and
    more) to 0.02 (units of a hundred).

    Args:
        network: layers and activations in the order in which they run; the layers right inside it
            are drawn anew, from torch's global random state.

    Source: He et al., ICCV 2015, section 2.2; Glorot and Bengio, AISTATS 2010, on sigmoids.
        Departs: the gains and biases of sigmoids.

    Example:
        >>> import torch
        >>> from carelab.networks.starts import initialise_
        >>> row = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sigmoid())
        >>> initialise_(row)
        >>> torch.allclose(row(torch.full((1, 2), 0.5)), torch.full((1, 3), 0.5))
        True
    """
    sigmoids = any(isinstance(module, nn.Sigmoid) for module in network)
    for module, after in pairwise([*network, None]):
        if isinstance(module, nn.Linear | nn.Conv2d):
            kind = None if after is None else type(after)
            _draw(module, _GAINS.get(kind, _HE_GAIN), centred=sigmoids)


@torch.no_grad()
def _draw(layer: nn.Linear | nn.Conv2d, gain: float, *, centred: bool) -> None:
    nn.init.normal_(layer.weight, std=gain / layer.weight[0].numel() ** 0.5)
    if layer.bias is not None:
        middle = layer.weight.flatten(1).sum(dim=1) / 2
        layer.bias.copy_(-middle if centred else torch.zeros_like(middle))
