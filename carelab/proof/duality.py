"""Lower bounds by Lagrangian duality in numpy, with a running bound on their rounding errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from carelab.proof.covering import Parts

__all__ = ["Dual", "Layers", "lagrangian_bounds"]

_Numbers = NDArray[np.float64]
_ROUNDOFF = 2.0**-53
_STEPS = 255


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Layers:
    """A network of affine layers and ReLUs, as `AffineChain`, in numpy."""

    weights: tuple[_Numbers, ...]
    biases: tuple[_Numbers, ...]
    rectified: tuple[bool, ...]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Dual:
    """Dual values of each part, as `DualValues`, in numpy."""

    weights: _Numbers
    slopes: _Numbers
    multipliers: _Numbers | None

    def take(self, rows: slice) -> Dual:
        """The values of some of the parts."""
        return Dual(
            weights=self.weights[rows],
            slopes=self.slopes[rows],
            multipliers=None if self.multipliers is None else self.multipliers[rows],
        )


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Known:
    """Bounds of the sums of the layers so far, and of the inputs."""

    low: _Numbers
    high: _Numbers
    lower: tuple[_Numbers, ...] = ()
    upper: tuple[_Numbers, ...] = ()


def lagrangian_bounds(
    layers: Layers, matrix: _Numbers, limits: _Numbers, parts: Parts, dual: Dual
) -> _Numbers:
    """Lower bound of weights . (matrix y - limits) over each part, less its rounding error.

    Args:
        layers: the network.
        matrix: rows of the polytope (rows, outputs).
        limits: limit of each row (rows).
        parts: boxes with the phases known in them.
        dual: dual values of each part; sound whatever they are, as long as the weights are >= 0.

    Returns:
        One number for each part; infinite where the phases contradict each other.

    Source: Dvijotham et al., A Dual Approach to Scalable Verification, UAI 2018, section 4.

    Example:
        >>> import numpy as np
        >>> from carelab.proof.covering import Parts
        >>> from carelab.proof.duality import Dual, Layers, lagrangian_bounds
        >>> one, net = np.ones((1, 1)), {"biases": (np.zeros(1),), "rectified": ()}
        >>> part = Parts(low=one, high=2 * one, phases=np.zeros((1, 0), dtype=np.int8))
        >>> dual = Dual(weights=one, slopes=np.zeros((1, 0)), multipliers=None)
        >>> lagrangian_bounds(Layers(weights=(one,), **net), one, np.zeros(1), part, dual).round(9)
        array([1.])
    """
    starts = np.cumsum([0, *(len(bias) for bias in layers.biases[:-1])])
    spans = [slice(first, last) for first, last in pairwise(starts)]
    known = _Known(low=parts.low, high=parts.high)
    impossible = np.zeros(len(parts.low), dtype=bool)
    for layer, span in enumerate(spans):
        lower, upper = _sum_bounds(layers, known, layer)
        lower = np.where(parts.phases[:, span] > 0, np.maximum(lower, 0), lower)
        upper = np.where(parts.phases[:, span] < 0, np.minimum(upper, 0), upper)
        impossible |= (lower > upper).any(axis=1)
        known = _Known(
            low=known.low,
            high=known.high,
            lower=(*known.lower, lower),
            upper=(*known.upper, upper),
        )
    rows = (dual.weights @ matrix)[:, None, :]
    slopes = [dual.slopes[:, span] / _STEPS for span in spans]
    signed = None if dual.multipliers is None else [dual.multipliers[:, span] for span in spans]
    bound, error = _lagrangian(layers, known, rows, len(layers.biases) - 1, slopes, signed)
    # The mixed row is itself rounded: that error acts on the outputs, and on the limits.
    terms = _gamma(len(limits) + 2)
    outputs = _sizes(layers, known, len(layers.biases) - 1)
    mixed = (dual.weights @ np.abs(matrix) * outputs).sum(axis=1) + dual.weights @ np.abs(limits)
    lowest = bound[:, 0] - dual.weights @ limits - 1.01 * (error[:, 0] + 2 * terms * mixed)
    lowest -= 4 * _ROUNDOFF * (np.abs(bound[:, 0]) + dual.weights @ np.abs(limits)) + 1e-280
    return np.where(impossible, np.inf, lowest)


def _gamma(terms: int) -> float:
    """Relative error of a sum of so many products, in any order."""
    return terms * _ROUNDOFF / (1 - terms * _ROUNDOFF)


def _inputs_of(layers: Layers, known: _Known, layer: int) -> tuple[_Numbers, _Numbers]:
    """Bounds of what a layer takes: the inputs, or the activations before it."""
    if layer == 0:
        return known.low, known.high
    lower, upper = known.lower[layer - 1], known.upper[layer - 1]
    if layers.rectified[layer - 1]:
        return np.maximum(lower, 0), np.maximum(upper, 0)
    return lower, upper


def _sizes(layers: Layers, known: _Known, layer: int) -> _Numbers:
    """Magnitude that no sum of a layer exceeds, term by term."""
    below, above = _inputs_of(layers, known, layer)
    size = np.maximum(np.abs(below), np.abs(above))
    return size @ np.abs(layers.weights[layer]).T + np.abs(layers.biases[layer])


def _sum_bounds(layers: Layers, known: _Known, layer: int) -> tuple[_Numbers, _Numbers]:
    """Bounds of the sums of a layer: intervals, and the dual where they leave the sign open."""
    weight, bias = layers.weights[layer], layers.biases[layer]
    below, above = _inputs_of(layers, known, layer)
    positive, negative = np.maximum(weight, 0), np.minimum(weight, 0)
    error = 1.01 * _gamma(2 * weight.shape[1] + 3) * _sizes(layers, known, layer) + 1e-280
    lower = below @ positive.T + above @ negative.T + bias - error
    upper = above @ positive.T + below @ negative.T + bias + error
    is_open = (lower < 0) & (upper > 0)
    most = int(is_open.sum(axis=1).max())
    if layer == 0 or most == 0:
        return lower, upper
    chosen = np.argsort(~is_open, axis=1, kind="stable")[:, :most]
    rows = weight[chosen]
    bound, spare = _lagrangian(
        layers, known, np.concatenate([rows, -rows], axis=1), layer, None, None, inputs=True
    )
    added = bias[chosen]
    spare = 1.01 * spare + 4 * _ROUNDOFF * (np.abs(bound) + np.abs(np.tile(added, 2))) + 1e-280
    least = bound[:, :most] + added - spare[:, :most]
    largest = -bound[:, most:] + added + spare[:, most:]
    # Only where the sign is open, as in the search: the others keep their intervals.
    needed = np.take_along_axis(is_open, chosen, 1)
    own_lower, own_upper = (
        np.take_along_axis(lower, chosen, 1),
        np.take_along_axis(upper, chosen, 1),
    )
    least = np.where(needed, np.maximum(own_lower, least), own_lower)
    largest = np.where(needed, np.minimum(own_upper, largest), own_upper)
    np.put_along_axis(lower, chosen, least, 1)
    np.put_along_axis(upper, chosen, largest, 1)
    return lower, upper


def _lagrangian(
    layers: Layers,
    known: _Known,
    rows: _Numbers,
    layer: int,
    slopes: Sequence[_Numbers] | None,
    multipliers: Sequence[_Numbers] | None,
    *,
    inputs: bool = False,
) -> tuple[_Numbers, _Numbers]:
    """Lower bounds of rows of a layer's sums, or of what it takes, and how far they can be off.

    Going back, c are coefficients of activations and nu of sums, one (parts, rows, neurons) each.
    """
    total = np.zeros(rows.shape[:2])
    error = np.zeros(rows.shape[:2])
    # Every term of the total goes through at most this many additions of whole terms.
    added = 3 * (layer + 2)
    nu = rows
    for at in range(layer, -1, -1):
        weight, bias = layers.weights[at], layers.biases[at]
        sizes = _sizes(layers, known, at)
        if at == layer and inputs:
            c = nu
        else:
            c = nu @ weight
            total = total + nu @ bias
            # The matrix product and the one with the bias, acting on what the layer takes.
            error += _gamma(max(weight.shape) + 3 + added) * _times(np.abs(nu), sizes)
        if at == 0:
            break
        lower, upper = known.lower[at - 1], known.upper[at - 1]
        if not layers.rectified[at - 1]:
            nu = c
            continue
        nu = _multiplied(c, lower, upper, None if slopes is None else slopes[at - 1])
        if multipliers is not None:
            nu = nu - multipliers[at - 1][:, None, :]
        total = total + _least(c, nu, lower, upper)
        largest = np.maximum(np.abs(lower), np.abs(upper))
        terms = lower.shape[1] + 6 + added
        error += _gamma(terms) * _times(np.abs(c) + np.abs(nu), largest)
    low, high = known.low[:, None, :], known.high[:, None, :]
    total = total + np.minimum(c * low, c * high).sum(axis=2)
    largest = np.maximum(np.abs(known.low), np.abs(known.high))
    error += _gamma(c.shape[2] + 4 + added) * _times(np.abs(c), largest)
    return total, error * (1 + 1e-6)


def _times(rows: _Numbers, column: _Numbers) -> _Numbers:
    return (rows @ column[:, :, None])[:, :, 0]


def _multiplied(c: _Numbers, lower: _Numbers, upper: _Numbers, slopes: _Numbers | None) -> _Numbers:
    """A good nu for each coefficient: its product with the slope of a line near the ReLU."""
    is_open = (lower < 0) & (upper > 0)
    width = np.where(is_open, upper - lower, 1.0)
    above = np.where(is_open, upper / width, lower >= 0)
    below = (upper > -lower).astype(np.float64) if slopes is None else slopes
    below = np.where(is_open, below, lower >= 0)
    return c * np.where(c >= 0, below[:, None, :], above[:, None, :])


def _least(c: _Numbers, nu: _Numbers, lower: _Numbers, upper: _Numbers) -> _Numbers:
    """Sum over neurons of the smallest value of c relu(z) - nu z on [lower, upper]."""
    low, high = lower[:, None, :], upper[:, None, :]
    at_low = c * np.maximum(low, 0) - nu * low
    at_high = c * np.maximum(high, 0) - nu * high
    least = np.minimum(at_low, at_high)
    # At 0 the value is 0, where 0 is within the bounds.
    holds_zero = (low <= 0) & (high >= 0)
    return np.where(holds_zero, np.minimum(least, 0), least).sum(axis=2)
