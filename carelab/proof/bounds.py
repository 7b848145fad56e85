"""Linear bounds on what a network does over boxes of inputs, carried back from its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from carelab.proof.chains import AffineChain
from carelab.proof.intervals import (
    activation_interval,
    affine_interval,
    checked_boxes,
    interval_bounds,
)
from carelab.proof.rounding import rounding_margins

__all__ = [
    "FEW_FEATURES",
    "HiddenBounds",
    "LinearBounds",
    "hidden_bounds",
    "linear_bounds",
    "output_bounds",
]

# Slopes of linear bounds in the inputs are kept for splitting up to this many of them.
FEW_FEATURES = 32


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class HiddenBounds:
    """Bounds on the sums z of each hidden layer, and the lines that they put around its ReLU.

    Args:
        lower: smallest value of each sum, one (boxes, neurons) for each hidden layer.
        upper: largest value of each sum.
        unstable: neurons whose sum can have either sign.
        lower_slopes: slope of the line through 0 below the ReLU.
        upper_slopes: slope of the line above it.
        intercepts: intercept of the line above it.
        reach: largest slope of the bounds of each unstable sum in each input (boxes, neurons,
            features), for splitting; zero for the others; none where there are many features.
    """

    lower: tuple[Float[Tensor, "boxes _neurons"], ...]
    upper: tuple[Float[Tensor, "boxes _neurons"], ...]
    unstable: tuple[Tensor, ...]
    lower_slopes: tuple[Float[Tensor, "boxes _neurons"], ...]
    upper_slopes: tuple[Float[Tensor, "boxes _neurons"], ...]
    intercepts: tuple[Float[Tensor, "boxes _neurons"], ...]
    reach: tuple[Float[Tensor, "_boxes _neurons features"], ...]

    def take(self, boxes: Tensor) -> HiddenBounds:
        """The bounds of some of the boxes (indices or a mask)."""
        count = len(self.lower[0])
        taken = {
            name: tuple(layer[boxes] if len(layer) == count else layer for layer in layers)
            for name, layers in ((name, getattr(self, name)) for name in self.__slots__)
        }
        return HiddenBounds(**taken)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class LinearBounds:
    """For each box and row: row . y - limit >= coefficients . x + constant on the whole box.

    Args:
        coefficients: slope in each input (boxes, rows, features).
        constants: intercept (boxes, rows).
        minimum: smallest value of the linear function over the box (boxes, rows); rounding is not
            taken off, see `rounding_margins`.
        activations: coefficients of each hidden layer's activations on the way back, one
            (boxes, rows, neurons) each.
    """

    coefficients: Float[Tensor, "boxes rows features"]
    constants: Float[Tensor, "boxes rows"]
    minimum: Float[Tensor, "boxes rows"]
    activations: tuple[Float[Tensor, "boxes rows _neurons"], ...]

    def take(self, boxes: Tensor) -> LinearBounds:
        """The bounds of some of the boxes (indices or a mask)."""
        return LinearBounds(
            coefficients=self.coefficients[boxes],
            constants=self.constants[boxes],
            minimum=self.minimum[boxes],
            activations=tuple(layer[boxes] for layer in self.activations),
        )

    def vertex(
        self, low: Float[Tensor, "boxes features"], high: Float[Tensor, "boxes features"]
    ) -> Float[Tensor, "boxes rows features"]:
        """Corner of the box at which each linear function is smallest."""
        return torch.where(self.coefficients > 0, low.unsqueeze(1), high.unsqueeze(1))


def hidden_bounds(
    chain: AffineChain,
    low: Float[Tensor, "boxes features"],
    high: Float[Tensor, "boxes features"],
    *,
    margins: Sequence[Tensor] | None = None,
    phases: Sequence[Int8[Tensor, "boxes _neurons"]] | None = None,
) -> HiddenBounds:
    """Bounds on the sums of each hidden layer: backward linear bounds, cut with intervals.

    Only sums whose sign the intervals leave open are bounded backwards; for the others the sign
    is all that matters.

    Args:
        chain: the network; with gradients, where it was made differentiable.
        low: smallest value of each input feature (boxes, features).
        high: largest value of each input feature (boxes, features).
        margins: `rounding_margins` of a box that holds them all; by default each box's own.
        phases: +1 where the sum of a neuron is known to be >= 0, -1 where <= 0, 0 elsewhere.

    Returns:
        The bounds, rounded outwards.

    Raises:
        ValueError: boxes that do not fit the network, or an empty one.

    Source: Zhang et al., CROWN, NeurIPS 2018, section 3.3, with its adaptive lower slope.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.proof import affine_chain, hidden_bounds
        >>> model = networks.mlp(2, (3, 3), 2, generator=torch.Generator().manual_seed(0))
        >>> bounds = hidden_bounds(affine_chain(model), -torch.ones(1, 2), torch.ones(1, 2))
        >>> [tuple(layer.shape) for layer in bounds.lower]
        [(1, 3), (1, 3)]
    """
    low, high = checked_boxes(chain, low, high)
    margins = rounding_margins(chain, low, high) if margins is None else margins
    below, above = low, high
    known = HiddenBounds(**{name: () for name in HiddenBounds.__slots__})
    for layer, relu in enumerate(chain.rectified):
        lower, upper = affine_interval(below, above, chain.weights[layer], chain.biases[layer])
        lower, upper = lower - margins[layer], upper + margins[layer]
        lower, upper, reach = _tightened(chain, known, low, high, lower, upper, margins[layer])
        if phases is not None:
            lower = torch.where(phases[layer] > 0, lower.clamp(min=0), lower)
            upper = torch.where(phases[layer] < 0, upper.clamp(max=0), upper)
        known = _with_layer(known, lower, upper, relu, reach)
        below, above = activation_interval(lower, upper, relu)
    return known


def linear_bounds(
    chain: AffineChain,
    hidden: HiddenBounds,
    rows: Float[Tensor, "boxes rows outputs"],
    limits: Float[Tensor, "boxes rows"],
    low: Float[Tensor, "boxes features"],
    high: Float[Tensor, "boxes features"],
    *,
    slopes: Sequence[Float[Tensor, "boxes _neurons"]] | None = None,
    multipliers: Sequence[Float[Tensor, "boxes _neurons"]] | None = None,
) -> LinearBounds:
    """Linear functions of the input below rows . y - limits, and their minima over the boxes.

    Args:
        chain: the network; with gradients, where it was made differentiable.
        hidden: bounds of its hidden layers over the same boxes.
        rows: rows of output coefficients (boxes, rows, outputs).
        limits: number subtracted from each (boxes, rows).
        low: smallest value of each input feature (boxes, features).
        high: largest value of each input feature (boxes, features).
        slopes: slope in [0, 1] of the line below the ReLU of each unstable neuron; by default that
            of `hidden`.
        multipliers: signed coefficients of the sums z of each hidden layer, to be taken off the
            rows: >= 0 for a neuron in phase +1, <= 0 in phase -1, 0 for others, so that what is
            taken off is never negative.

    Returns:
        The linear bounds; a minimum above the rounding margin proves its row positive.

    Source: as `hidden_bounds`; slopes of one's choice as in Xu et al., Fast and Complete, ICLR
        2021; multipliers as in Wang et al., Beta-CROWN, NeurIPS 2021, section 3.1.

    Example:
        >>> import torch
        >>> from carelab import networks, proof
        >>> chain = proof.affine_chain(networks.mlp(2, (3,), 2, generator=torch.Generator()))
        >>> low, high = -torch.ones(1, 2).double(), torch.ones(1, 2).double()
        >>> row = torch.tensor([[[1.0, -1.0]]]).double()
        >>> hidden = proof.hidden_bounds(chain, low, high)
        >>> proof.linear_bounds(chain, hidden, row, row[..., 0] * 0, low, high).minimum.shape
        torch.Size([1, 1])
    """
    weight, bias = chain.weights[-1], chain.biases[-1]
    coefficients, constants = rows @ weight, rows @ bias - limits
    return _backward(
        chain, hidden, coefficients, constants, low, high, slopes=slopes, multipliers=multipliers
    )


def output_bounds(
    chain: AffineChain,
    low: Float[Tensor, "boxes features"],
    high: Float[Tensor, "boxes features"],
) -> tuple[Float[Tensor, "boxes outputs"], Float[Tensor, "boxes outputs"]]:
    """Smallest and largest value of each output that linear bounds allow, rounded outwards.

    Args:
        chain: the network; with gradients, where it was made differentiable.
        low: smallest value of each input feature (boxes, features).
        high: largest value of each input feature (boxes, features).

    Returns:
        Lower and upper bounds, never looser than `interval_bounds`.

    Raises:
        ValueError: boxes that do not fit the network, or an empty one.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.proof import affine_chain, output_bounds
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> lower, upper = output_bounds(affine_chain(model), -torch.ones(1, 2), torch.ones(1, 2))
        >>> bool((lower <= model(torch.zeros(1, 2))).all())
        True
    """
    low, high = checked_boxes(chain, low, high)
    hidden = hidden_bounds(chain, low, high)
    one = torch.eye(chain.outputs, dtype=low.dtype, device=low.device)
    rows = torch.cat([one, -one]).expand(len(low), -1, -1)
    limits = torch.zeros(rows.shape[:2], dtype=low.dtype, device=low.device)
    minimum = linear_bounds(chain, hidden, rows, limits, low, high).minimum
    margin = rounding_margins(chain, low, high)[-1]
    lower, upper = interval_bounds(chain, low, high)[-1]
    return (
        torch.maximum(lower, minimum[:, : chain.outputs] - margin),
        torch.minimum(upper, -minimum[:, chain.outputs :] + margin),
    )


def _tightened(
    chain: AffineChain,
    known: HiddenBounds,
    low: Tensor,
    high: Tensor,
    lower: Tensor,
    upper: Tensor,
    margin: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Interval bounds of the next layer, cut with linear ones where the sign is open; the reach."""
    layer = len(known.lower)
    weight, bias = chain.weights[layer], chain.biases[layer]
    boxes, neurons = lower.shape
    keep = chain.features <= FEW_FEATURES
    if layer == 0:  # the sums are linear in the inputs, so their intervals are exact
        return lower, upper, weight.abs().expand(boxes if keep else 0, -1, -1)
    is_open = (lower < 0) & (upper > 0)
    most = int(is_open.sum(dim=1).max())
    reach = lower.new_zeros(boxes if keep else 0, neurons, chain.features)
    if most == 0:
        return lower, upper, reach
    # Every box gets as many rows as the one with most open signs; the bounds of the surplus are
    # not used, so that those of a box do not depend on the batch that it comes in.
    chosen = torch.topk(is_open.to(torch.int8), most, dim=1).indices
    needed = is_open.gather(1, chosen)
    coefficients = torch.cat([weight[chosen], -weight[chosen]], dim=1)
    constants = torch.cat([bias[chosen], -bias[chosen]], dim=1)
    linear = _backward(chain, known, coefficients, constants, low, high)
    near = margin.expand(boxes, -1).gather(1, chosen)
    below, above = linear.minimum[:, :most] - near, near - linear.minimum[:, most:]
    own_lower, own_upper = lower.gather(1, chosen), upper.gather(1, chosen)
    below = torch.where(needed, torch.maximum(own_lower, below), own_lower)
    above = torch.where(needed, torch.minimum(own_upper, above), own_upper)
    lower, upper = lower.scatter(1, chosen, below), upper.scatter(1, chosen, above)
    if keep:
        slopes = linear.coefficients.detach().abs()
        steepest = torch.maximum(slopes[:, :most], slopes[:, most:]) * needed.unsqueeze(2)
        reach.scatter_(1, chosen.unsqueeze(2).expand_as(steepest), steepest)
    return lower, upper, reach


def _with_layer(
    known: HiddenBounds, lower: Tensor, upper: Tensor, relu: bool, reach: Tensor
) -> HiddenBounds:
    """The bounds so far, with those of one more layer and the lines that they give."""
    unstable = (lower < 0) & (upper > 0) if relu else torch.zeros_like(lower, dtype=torch.bool)
    passing = (lower >= 0) if relu else torch.ones_like(unstable)
    # The dummy width keeps gradients of the branch that is not taken finite.
    width = torch.where(unstable, upper - lower, torch.ones_like(lower))
    rise = torch.where(unstable, upper / width, passing.to(lower.dtype))
    return HiddenBounds(
        lower=(*known.lower, lower),
        upper=(*known.upper, upper),
        unstable=(*known.unstable, unstable),
        lower_slopes=(
            *known.lower_slopes,
            torch.where(unstable, (upper > -lower).to(lower.dtype), passing.to(lower.dtype)),
        ),
        upper_slopes=(*known.upper_slopes, rise),
        intercepts=(
            *known.intercepts,
            torch.where(unstable, -rise * lower, torch.zeros_like(lower)),
        ),
        reach=(*known.reach, reach),
    )


def _backward(
    chain: AffineChain,
    hidden: HiddenBounds,
    coefficients: Tensor,
    constants: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    slopes: Sequence[Tensor] | None = None,
    multipliers: Sequence[Tensor] | None = None,
) -> LinearBounds:
    """Linear bounds below rows that are given in the activations of the last layer of `hidden`."""
    activations: list[Tensor] = []
    for layer in reversed(range(len(hidden.lower))):
        activations.append(coefficients)
        slope, rise = hidden.lower_slopes[layer], hidden.upper_slopes[layer]
        if slopes is not None:
            slope = torch.where(hidden.unstable[layer], slopes[layer], slope)
        negative = coefficients.clamp(max=0)
        constants = constants + (negative @ hidden.intercepts[layer].unsqueeze(2)).squeeze(2)
        coefficients = torch.addcmul(
            coefficients * slope.unsqueeze(1), negative, (rise - slope).unsqueeze(1)
        )
        if multipliers is not None:
            coefficients = coefficients - multipliers[layer].unsqueeze(1)
        constants = constants + coefficients @ chain.biases[layer]
        coefficients = coefficients @ chain.weights[layer]
    centre, radius = ((high + low) / 2).unsqueeze(2), ((high - low) / 2).unsqueeze(2)
    return LinearBounds(
        coefficients=coefficients,
        constants=constants,
        minimum=constants
        + (coefficients @ centre).squeeze(2)
        - (coefficients.abs() @ radius).squeeze(2),
        activations=tuple(reversed(activations)),
    )
