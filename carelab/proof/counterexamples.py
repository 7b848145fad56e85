"""Confirm that an input violates a property, in the number types that count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.proof.chains import AffineChain
from carelab.proof.rounding import rounding_margins

__all__ = ["confirmed_counterexample", "representable"]


def representable(
    points: Float[Tensor, "batch features"],
    low: Float[Tensor, " features"],
    high: Float[Tensor, " features"],
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "batch features"]:
    """Points of the box near the given ones whose coordinates the number type holds exactly.

    A side of the box that holds no such number keeps its float64 coordinate.

    Args:
        points: points of the box (batch, features).
        low: smallest value of each feature.
        high: largest value of each feature.
        dtype: the number type of the network's inputs.

    Returns:
        The points, float64.

    Example:
        >>> import torch
        >>> from carelab.proof import representable
        >>> point = torch.tensor([[0.1]], dtype=torch.float64)
        >>> representable(point, point[0], point[0] + 1).item() >= 0.1
        True
    """
    near = points.to(dtype)
    up = torch.nextafter(near, torch.full_like(near, torch.inf))
    down = torch.nextafter(near, torch.full_like(near, -torch.inf))
    near = torch.where(near.double() < low, up, torch.where(near.double() > high, down, near))
    inside = (near.double() >= low) & (near.double() <= high)
    return torch.where(inside, near.double(), points.double().clamp(low.double(), high.double()))


def confirmed_counterexample(
    model: nn.Module,
    chain: AffineChain,
    matrix: Float[Tensor, "rows outputs"],
    limits: Float[Tensor, " rows"],
    points: Float[Tensor, "batch features"],
    *,
    shape: Sequence[int] | None = None,
) -> Float[Tensor, " features"] | None:
    """The point whose outputs are deepest in matrix y <= limits, if any is in it for certain.

    For certain: in float64 with the rounding margin to spare, and in the network's own number
    type as it is run.

    Args:
        model: the network.
        chain: the same as a chain.
        matrix: rows of the polytope.
        limits: limit of each row.
        points: points to try (batch, features), float64.
        shape: shape of one input where the network takes no flat ones.

    Returns:
        One of the points, or None.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> model = networks.mlp(2, (3,), 1, generator=torch.Generator())
        >>> one, limit = torch.ones(1, 1).double(), torch.full((1,), 1e6).double()
        >>> chain, point = proof.affine_chain(model), torch.zeros(1, 2).double()
        >>> proof.confirmed_counterexample(model, chain, one, limit, point).tolist()
        [0.0, 0.0]
    """
    sums = rounding_margins(chain, points, points)[-1]
    # The margin of the row itself: its own sum has as many terms as the margin allows for.
    spare = 2 * (sums @ matrix.abs().T) + 1e-15 * limits.abs()
    certain = (chain(points) @ matrix.T - limits + spare).amax(dim=1)
    inputs = points.to(next(model.parameters()))
    with torch.no_grad():
        outputs = model(inputs if shape is None else inputs.unflatten(1, tuple(shape))).double()
    own = (outputs @ matrix.T - limits).amax(dim=1)
    depth = torch.maximum(certain, own)
    best = int(depth.argmin())
    return points[best] if bool(depth[best] <= 0) else None
