"""Constraints that the linear lower bounds of boxes put on a change of the last layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from carelab.proof import (
    DualValues,
    HiddenBounds,
    hidden_bounds,
    linear_bounds,
    plain_values,
    tighten,
)
from carelab.proof.tightening import SLOPE_STEPS
from carelab.repair.last_layer import Constraints, LastLayer

__all__ = ["box_constraints"]

_MOST_BOXES = 250  # the worst boxes of a polytope that become constraints at a time
_STEPS = 4  # of tightening a bound
_BLOCK = 2048  # boxes bounded at a time


def box_constraints(
    layer: LastLayer,
    boxes: Sequence[tuple[Tensor, Tensor]],
    change: Float[Tensor, "classes features"],
    margin: float,
) -> tuple[Constraints, tuple[float, ...]]:
    """Constraints that raise the linear lower bounds of the worst boxes to at least a margin.

    The bound of a box is the least of (mu'A (W + C)) h - mu'b over relaxed features h; it is
    concave in C and equals its value at the relaxed feature h* that attains it, the gradient of
    the bound. So (mu'A (W + C)) h* - mu'b >= margin is necessary for this bound of the changed
    network to be positive: h* is a counterexample of the relaxation.

    Args:
        layer: the programme.
        boxes: smallest and largest inputs (boxes, features), for each polytope.
        change: the change so far.
        margin: bound that is wanted, in scores.

    Returns:
        Up to 250 constraints for each polytope, and each polytope's lowest bound.

    Source: Zhang et al., CROWN, NeurIPS 2018, for the bound; Kelley, SIAM 1960, for cutting
        planes of a concave function.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> from carelab.properties import never_lowest
        >>> model = networks.mlp(2, (5,), 3, generator=torch.Generator().manual_seed(0))
        >>> prop = never_lowest(0, 3, low=torch.zeros(2), high=torch.ones(2))
        >>> layer, box = repair.last_layer(model, prop, torch.rand(50, 2)), torch.rand(1, 2)
        >>> _, lowest = repair.box_constraints(layer, [(box, box)], layer.weights * 0, 1.0)
    """
    found, lowest = layer.unconstrained(), []
    for part, move, (low, high) in zip(layer.parts, layer.moves, boxes, strict=True):
        matrix, limits = part.matrix[move.rows], part.limits[move.rows]
        changed = (layer.weights + change).T @ matrix.T
        blocks = [
            _relaxed(layer, changed, limits, below, above)
            for below, above in zip(
                low.double().split(_BLOCK), high.double().split(_BLOCK), strict=True
            )
            if len(below) > 0
        ]
        if not blocks:
            lowest.append(np.inf)
            continue
        bounds, mixed, features = (torch.cat(block) for block in zip(*blocks, strict=True))
        lowest.append(float(bounds.min()))
        worst = bounds.argsort()[:_MOST_BOXES]
        worst = worst[bounds[worst] < margin]
        rows, right = mixed[worst] @ matrix, mixed[worst] @ limits
        found = found.with_more(
            layer.constraints(
                rows, right, functional.pad(features[worst], (0, 1), value=1.0), margin
            )
        )
    return found, tuple(lowest)


def _relaxed(
    layer: LastLayer, rows: Tensor, limits: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """For each box its bound, the mixture of rows behind it, and the relaxed feature."""
    hidden = hidden_bounds(layer.body, low, high)
    matrix, right = rows[:-1].T, limits - rows[-1]
    first = torch.zeros(len(low), dtype=torch.int64)
    values, _ = tighten(
        layer.body,
        hidden,
        matrix,
        right,
        low,
        high,
        plain_values(hidden, first, len(matrix)),
        steps=_STEPS,
    )
    return _attained(layer, hidden, matrix, right, low, high, values)


def _attained(
    layer: LastLayer,
    hidden: HiddenBounds,
    matrix: Tensor,
    right: Tensor,
    low: Tensor,
    high: Tensor,
    values: DualValues,
) -> tuple[Tensor, Tensor, Tensor]:
    coefficients = (values.weights @ matrix).requires_grad_()
    bounds = linear_bounds(
        layer.body,
        hidden,
        coefficients.unsqueeze(1),
        (values.weights @ right).unsqueeze(1),
        low,
        high,
        slopes=(values.slopes.to(low) / SLOPE_STEPS).split(layer.body.hidden, dim=1),
    ).minimum[:, 0]
    (features,) = torch.autograd.grad(bounds.sum(), coefficients)
    return bounds.detach(), values.weights, features
