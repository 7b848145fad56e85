"""Choose the free numbers of a linear bound, so that it becomes as large as it can."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int8, UInt8
from torch import Tensor

from carelab.proof.bounds import HiddenBounds, LinearBounds, linear_bounds
from carelab.proof.chains import AffineChain

__all__ = ["SLOPE_STEPS", "DualValues", "dual_bounds", "plain_values", "tighten"]

# Slopes are multiples of 1 / 255, so that a certificate holds them exactly in one byte each.
SLOPE_STEPS = 255


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class DualValues:
    """What a lower bound of each box was made with; any values of these ranges are sound.

    Args:
        weights: factor >= 0 of each row of the polytope (boxes, rows), not all zero.
        slopes: 255 times the slope of the line below each unstable neuron's ReLU (boxes, neurons),
            all hidden layers one after the other.
        multipliers: coefficient taken off each sum (boxes, neurons), or none where no neuron has a
            phase; >= 0 in phase +1, <= 0 in phase -1, else 0.
    """

    weights: Float[Tensor, "boxes rows"]
    slopes: UInt8[Tensor, "boxes neurons"]
    multipliers: Float[Tensor, "boxes neurons"] | None = None

    def take(self, boxes: Tensor) -> DualValues:
        """The values of some of the boxes (indices or a mask)."""
        return DualValues(
            weights=self.weights[boxes],
            slopes=self.slopes[boxes],
            multipliers=None if self.multipliers is None else self.multipliers[boxes],
        )

    def where(self, mask: Tensor, others: DualValues) -> DualValues:
        """These values for the boxes of the mask, the others' for the other boxes."""
        rows = mask.unsqueeze(1)
        signed = None
        if self.multipliers is not None and others.multipliers is not None:
            signed = torch.where(rows, self.multipliers, others.multipliers)
        return DualValues(
            weights=torch.where(rows, self.weights, others.weights),
            slopes=torch.where(rows, self.slopes, others.slopes),
            multipliers=signed,
        )

    def twice(self) -> DualValues:
        """The values of all boxes, and then once more."""
        return DualValues(
            weights=self.weights.repeat(2, 1),
            slopes=self.slopes.repeat(2, 1),
            multipliers=None if self.multipliers is None else self.multipliers.repeat(2, 1),
        )


def plain_values(
    hidden: HiddenBounds, row: Int[Tensor, " boxes"], rows: int, phases: Tensor | None = None
) -> DualValues:
    """The values behind an ordinary linear bound: one row, and the slopes of `hidden`.

    Args:
        hidden: bounds of the hidden layers over the boxes.
        row: which row counts for each box.
        rows: how many rows there are.
        phases: phases of the neurons (boxes, neurons), where some have one.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> chain = proof.affine_chain(networks.mlp(2, (3,), 2, generator=torch.Generator()))
        >>> hidden = proof.hidden_bounds(chain, -torch.ones(1, 2), torch.ones(1, 2))
        >>> proof.plain_values(hidden, torch.tensor([1]), 2).weights.tolist()
        [[0.0, 1.0]]
    """
    slopes = torch.cat(hidden.lower_slopes, dim=1).detach()
    return DualValues(
        weights=torch.nn.functional.one_hot(row, rows).to(slopes.dtype),
        slopes=(slopes * torch.cat(hidden.unstable, dim=1) * SLOPE_STEPS).to(torch.uint8),
        multipliers=None if phases is None else torch.zeros_like(slopes, dtype=torch.float32),
    )


def dual_bounds(
    chain: AffineChain,
    hidden: HiddenBounds,
    matrix: Float[Tensor, "rows outputs"],
    limits: Float[Tensor, " rows"],
    low: Float[Tensor, "boxes features"],
    high: Float[Tensor, "boxes features"],
    values: DualValues,
) -> LinearBounds:
    """Linear bound of weights . (matrix y - limits) for each box, with the given values.

    Where it is positive on the whole box, no output of the box lies in matrix y <= limits.

    Args:
        chain: the network.
        hidden: bounds of its hidden layers over the same boxes.
        matrix: rows of the polytope.
        limits: limit of each row.
        low: smallest value of each input feature (boxes, features).
        high: largest value of each input feature (boxes, features).
        values: what the bound is made with.

    Returns:
        Bounds of one row for each box.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> chain = proof.affine_chain(networks.mlp(2, (3,), 2, generator=torch.Generator()))
        >>> low, high = -torch.ones(1, 2).double(), torch.ones(1, 2).double()
        >>> hidden = proof.hidden_bounds(chain, low, high)
        >>> matrix, limits = torch.eye(2).double(), torch.zeros(2).double()
        >>> values = proof.plain_values(hidden, torch.tensor([1]), 2)
        >>> proof.dual_bounds(chain, hidden, matrix, limits, low, high, values).minimum.shape
        torch.Size([1, 1])
    """
    slopes = values.slopes.to(low.dtype) / SLOPE_STEPS
    signed = None if values.multipliers is None else values.multipliers.to(low.dtype)
    return _mixed_bounds(chain, hidden, matrix, limits, low, high, values.weights, slopes, signed)


def tighten(
    chain: AffineChain,
    hidden: HiddenBounds,
    matrix: Float[Tensor, "rows outputs"],
    limits: Float[Tensor, " rows"],
    low: Float[Tensor, "boxes features"],
    high: Float[Tensor, "boxes features"],
    start: DualValues,
    *,
    phases: Int8[Tensor, "boxes neurons"] | None = None,
    steps: int = 8,
    rate: float = 0.9,
) -> tuple[DualValues, LinearBounds]:
    """Values of each box that raise its lower bound, by projected gradient ascent.

    The bounds of the hidden layers stay as they are, so a step costs little beside them. Each
    group of values moves along its gradient scaled to a largest entry of 1.

    Args:
        chain: the network.
        hidden: bounds of its hidden layers over the same boxes.
        matrix: rows of the polytope.
        limits: limit of each row.
        low: smallest value of each input feature (boxes, features).
        high: largest value of each input feature (boxes, features).
        start: values to begin with.
        phases: phases of the neurons, where some have one.
        steps: gradient steps.
        rate: first step of the slopes, which are in [0, 1]; it falls to 0 linearly.

    Returns:
        The best values met, `start` included, and their bounds.

    Source: Xu et al., Fast and Complete, ICLR 2021, section 3.2 (slopes); Wang et al., Beta-CROWN,
        NeurIPS 2021, section 3.3 (multipliers). Departs: normalised steps instead of Adam, and
        the rows are mixed as well, since all of them have to hold at once in an unsafe point.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> chain = proof.affine_chain(networks.mlp(2, (3,), 2, generator=torch.Generator()))
        >>> low, high = -torch.ones(1, 2).double(), torch.ones(1, 2).double()
        >>> hidden = proof.hidden_bounds(chain, low, high)
        >>> matrix, limits = torch.eye(2).double(), torch.zeros(2).double()
        >>> start = proof.plain_values(hidden, torch.tensor([1]), 2)
        >>> values, bounds = proof.tighten(chain, hidden, matrix, limits, low, high, start)
    """
    weights, slopes = start.weights, start.slopes.to(low.dtype) / SLOPE_STEPS
    signed = None if start.multipliers is None else start.multipliers.to(low.dtype)
    best = torch.full_like(low[:, 0], -torch.inf)
    kept = (weights, slopes, signed)
    for step in range(steps + 1):
        parts = [part for part in (weights, slopes, signed) if part is not None]
        free = [part.detach().requires_grad_() for part in parts]
        with torch.enable_grad():
            bounds = _mixed_bounds(chain, hidden, matrix, limits, low, high, *free)
            gradients = torch.autograd.grad(bounds.minimum.sum(), free)
        better = bounds.minimum.detach()[:, 0] > best
        best = torch.where(better, bounds.minimum.detach()[:, 0], best)
        kept = _updated(kept, (weights, slopes, signed), better)
        size = rate * (1 - step / (steps + 1))
        weights = _on_simplex(weights + size / 6 * _scaled(_centred(gradients[0])))
        # On the grid from the start, so that what is kept needs no rounding afterwards.
        slopes = (slopes + size * _scaled(gradients[1])).clamp(0, 1)
        slopes = (slopes * SLOPE_STEPS).round() / SLOPE_STEPS
        if signed is not None and phases is not None:
            signed = _in_phase(signed + size / 3 * _scaled(gradients[2] * phases.abs()), phases)
    values = DualValues(
        weights=kept[0],
        slopes=(kept[1] * SLOPE_STEPS).round().to(torch.uint8),
        multipliers=None if kept[2] is None else kept[2].float(),
    )
    return values, dual_bounds(chain, hidden, matrix, limits, low, high, values)


def _mixed_bounds(
    chain: AffineChain,
    hidden: HiddenBounds,
    matrix: Tensor,
    limits: Tensor,
    low: Tensor,
    high: Tensor,
    weights: Tensor,
    slopes: Tensor,
    multipliers: Tensor | None = None,
) -> LinearBounds:
    return linear_bounds(
        chain,
        hidden,
        (weights @ matrix).unsqueeze(1),
        (weights @ limits).unsqueeze(1),
        low,
        high,
        slopes=slopes.split(chain.hidden, dim=1),
        multipliers=None if multipliers is None else multipliers.split(chain.hidden, dim=1),
    )


_Values = tuple[Tensor, Tensor, Tensor | None]


def _updated(kept: _Values, new: _Values, better: Tensor) -> _Values:
    mask = better.unsqueeze(1)
    signed = None
    if kept[2] is not None and new[2] is not None:
        signed = torch.where(mask, new[2], kept[2])
    return torch.where(mask, new[0], kept[0]), torch.where(mask, new[1], kept[1]), signed


def _centred(gradient: Tensor) -> Tensor:
    return gradient - gradient.mean(dim=1, keepdim=True)


def _scaled(gradient: Tensor) -> Tensor:
    return gradient / gradient.abs().amax(dim=1, keepdim=True).clamp(min=1e-30)


def _on_simplex(weights: Tensor) -> Tensor:
    positive = weights.clamp(min=0)
    return positive / positive.sum(dim=1, keepdim=True).clamp(min=1e-30)


def _in_phase(multipliers: Tensor, phases: Tensor) -> Tensor:
    """Multipliers of the right sign for each phase, as numbers that float32 holds exactly."""
    signs = phases.to(multipliers.dtype)
    return ((multipliers * signs).clamp(min=0) * signs).float().to(multipliers)
