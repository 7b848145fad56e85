"""Interval bounds: what a network does over boxes of inputs, layer by layer."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from carelab.proof.chains import AffineChain
from carelab.proof.rounding import rounding_margins

__all__ = ["activation_interval", "affine_interval", "checked_boxes", "interval_bounds"]


def interval_bounds(
    chain: AffineChain,
    low: Float[Tensor, "boxes features"],
    high: Float[Tensor, "boxes features"],
) -> tuple[tuple[Float[Tensor, "boxes _neurons"], Float[Tensor, "boxes _neurons"]], ...]:
    """Bounds on the sums of each layer from those of the layer before alone, rounded outwards.

    Args:
        chain: the network.
        low: smallest value of each input feature (boxes, features).
        high: largest value of each input feature (boxes, features).

    Returns:
        Lower and upper bounds of each layer, the outputs last.

    Raises:
        ValueError: boxes that do not fit the network, or an empty one.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.proof import affine_chain, interval_bounds
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> box = -torch.ones(1, 2), torch.ones(1, 2)
        >>> lower, upper = interval_bounds(affine_chain(model), *box)[-1]
        >>> bool((lower < upper).all())
        True
    """
    below, above = checked_boxes(chain, low, high)
    bounds = []
    margins = rounding_margins(chain, below, above)
    for number, (weight, bias) in enumerate(zip(chain.weights, chain.biases, strict=True)):
        lower, upper = affine_interval(below, above, weight, bias)
        lower, upper = lower - margins[number], upper + margins[number]
        bounds.append((lower, upper))
        if number < len(chain.rectified):
            below, above = activation_interval(lower, upper, chain.rectified[number])
    return tuple(bounds)


def checked_boxes(
    chain: AffineChain,
    low: Float[Tensor, "boxes features"],
    high: Float[Tensor, "boxes features"],
) -> tuple[Float[Tensor, "boxes features"], Float[Tensor, "boxes features"]]:
    """The boxes in the chain's number type, refused where they do not fit it.

    Args:
        chain: the network.
        low: smallest value of each input feature.
        high: largest value of each input feature.

    Raises:
        ValueError: boxes of other features than the network's, none, or an empty or unbounded one.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> from carelab.proof.intervals import checked_boxes
        >>> chain = proof.affine_chain(networks.mlp(2, (3,), 1, generator=torch.Generator()))
        >>> checked_boxes(chain, torch.zeros(1, 2), torch.ones(1, 2))[0].dtype
        torch.float64
    """
    if low.shape[1] != chain.features or len(low) == 0:
        raise ValueError(
            f"low, high: got {tuple(low.shape)}; allowed: at least one box, {chain.features} "
            "features each"
        )
    low, high = low.to(chain.weights[0]), high.to(chain.weights[0])
    if not bool((low <= high).all()) or not bool((high - low).isfinite().all()):
        raise ValueError("low, high: a box is empty or unbounded; allowed: low <= high, finite")
    return low, high


def affine_interval(
    below: Float[Tensor, "boxes inputs"],
    above: Float[Tensor, "boxes inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"],
) -> tuple[Float[Tensor, "boxes outputs"], Float[Tensor, "boxes outputs"]]:
    """Smallest and largest value of weight x + bias over boxes of x, not rounded outwards.

    Args:
        below: smallest value of each x.
        above: largest value of each x.
        weight: the matrix.
        bias: the constants.

    Example:
        >>> import torch
        >>> from carelab.proof.intervals import affine_interval
        >>> affine_interval(torch.zeros(1, 1), torch.ones(1, 1), -torch.ones(1, 1), torch.ones(1))
        (tensor([[0.]]), tensor([[1.]]))
    """
    centre, radius = (above + below) / 2, (above - below) / 2
    middle, spread = centre @ weight.T + bias, radius @ weight.abs().T
    return middle - spread, middle + spread


def activation_interval(
    lower: Float[Tensor, "boxes neurons"], upper: Float[Tensor, "boxes neurons"], relu: bool
) -> tuple[Float[Tensor, "boxes neurons"], Float[Tensor, "boxes neurons"]]:
    """Smallest and largest activation of sums within bounds: the bounds, or their positive parts.

    Args:
        lower: smallest value of each sum.
        upper: largest value of each sum.
        relu: whether a ReLU follows.

    Example:
        >>> import torch
        >>> from carelab.proof.intervals import activation_interval
        >>> activation_interval(-torch.ones(1, 1), torch.ones(1, 1), True)
        (tensor([[0.]]), tensor([[1.]]))
    """
    return (lower.clamp(min=0), upper.clamp(min=0)) if relu else (lower, upper)
