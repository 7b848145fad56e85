"""ProRepair's search for a proxy box, for one input and one classifier relu -> linear, in loops."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["lower_line", "proxy_box"]


def lower_line(
    row: Sequence[float], limit: float, centre: Sequence[float], radius: float
) -> tuple[list[float], float]:
    """Slopes of a linear function below row . relu(h) - limit on the box, and its minimum."""
    slopes, least = [], -limit
    for weight, middle in zip(row, centre, strict=True):
        lower, upper = middle - radius, middle + radius
        if lower >= 0:
            slope, intercept = weight, 0.0
        elif upper <= 0:
            slope, intercept = 0.0, 0.0
        elif weight >= 0:  # below the ReLU: the line through 0 with slope 0 or 1
            slope, intercept = (weight if upper > -lower else 0.0), 0.0
        else:  # above the ReLU: from (lower, 0) to (upper, upper)
            rise = upper / (upper - lower)
            slope, intercept = weight * rise, -weight * rise * lower
        slopes.append(slope)
        least += intercept + min(slope * lower, slope * upper)
    return slopes, least


def proxy_box(
    weight: Sequence[Sequence[float]],
    bias: Sequence[float],
    clauses: Sequence[Sequence[tuple[Sequence[float], float]]],
    feature: Sequence[float],
    radius: float,
    moves: int,
) -> tuple[list[float], int, bool]:
    """Centre, moves and success for outputs y = weight relu(h) + bias and rows (a, limit)."""
    centre = list(feature)
    for move in range(moves + 1):
        total = [0.0] * len(centre)
        done = True
        for clause in clauses:
            lines = []
            for coefficients, limit in clause:
                row = [
                    sum(a * line[j] for a, line in zip(coefficients, weight, strict=True))
                    for j in range(len(centre))
                ]
                offset = sum(a * b for a, b in zip(coefficients, bias, strict=True))
                lines.append(lower_line(row, limit - offset, centre, radius))
            if max(least for _, least in lines) <= 0:
                done = False
                for slopes, _ in lines:
                    total = [old + new for old, new in zip(total, slopes, strict=True)]
        if done:
            return centre, move, True
        if move == moves or not any(total):
            return centre, move, False
        centre = [c + radius * ((t > 0) - (t < 0)) for c, t in zip(centre, total, strict=True)]
    raise AssertionError
