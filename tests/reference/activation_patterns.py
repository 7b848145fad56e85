"""Exact extremes of small networks of two inputs: every activation pattern, in rational numbers.

The box is cut by the line on which the sum of a neuron is 0, neuron after neuron and layer after
layer. On each of the cells that remain the network is affine, so its extremes are at corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor

__all__ = ["cells", "exact_minimum"]

Point = tuple[Fraction, Fraction]
# One affine function of the input: slopes and constant.
Affine = tuple[Fraction, Fraction, Fraction]
Cell = tuple[list[Point], list[Affine]]


def _at(function: Affine, point: Point) -> Fraction:
    return function[0] * point[0] + function[1] * point[1] + function[2]


def _combined(
    weights: Sequence[Fraction], functions: Sequence[Affine], constant: Fraction
) -> Affine:
    first = sum((w * f[0] for w, f in zip(weights, functions, strict=True)), Fraction(0))
    second = sum((w * f[1] for w, f in zip(weights, functions, strict=True)), Fraction(0))
    third = sum((w * f[2] for w, f in zip(weights, functions, strict=True)), constant)
    return first, second, third


def _side(corners: Sequence[Point], function: Affine, sign: int) -> list[Point]:
    """The part of a convex polygon on which sign * function >= 0 (Sutherland and Hodgman)."""
    kept: list[Point] = []
    for here, there in zip(corners, [*corners[1:], corners[0]], strict=True):
        value, other = sign * _at(function, here), sign * _at(function, there)
        if value >= 0:
            kept.append(here)
        if (value > 0 > other) or (value < 0 < other):
            share = value / (value - other)
            kept.append(
                (here[0] + share * (there[0] - here[0]), here[1] + share * (there[1] - here[1]))
            )
    return kept


def cells(
    weights: Sequence[Tensor], biases: Sequence[Tensor], low: Sequence[float], high: Sequence[float]
) -> list[Cell]:
    """Corners of each cell of the box, and the outputs as affine functions on it."""
    a, b = (Fraction(value) for value in low)
    c, d = (Fraction(value) for value in high)
    one, zero = Fraction(1), Fraction(0)
    found: list[Cell] = [([(a, b), (c, b), (c, d), (a, d)], [(one, zero, zero), (zero, one, zero)])]
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        rows = [[Fraction(w) for w in row] for row in weight.tolist()]
        constants = [Fraction(b) for b in bias.tolist()]
        sums: list[Cell] = [
            (
                corners,
                [_combined(r, functions, k) for r, k in zip(rows, constants, strict=True)],
            )
            for corners, functions in found
        ]
        found = sums if layer == len(weights) - 1 else _rectified(sums)
    return found


def _rectified(sums: Sequence[Cell]) -> list[Cell]:
    found = list(sums)
    for neuron in range(len(sums[0][1])):
        parts: list[Cell] = []
        for corners, functions in found:
            for sign in (1, -1):
                side = _side(corners, functions[neuron], sign)
                if side:
                    value = functions[neuron] if sign > 0 else (Fraction(0),) * 3
                    parts.append((side, [*functions[:neuron], value, *functions[neuron + 1 :]]))
        found = parts
    return found


def exact_minimum(found: Sequence[Cell], row: Sequence[float], limit: float = 0.0) -> Fraction:
    """Smallest value of row . y - limit over the box."""
    weights = [Fraction(value) for value in row]
    return min(
        _at(_combined(weights, functions, -Fraction(limit)), corner)
        for corners, functions in found
        for corner in corners
    )
