"""The trade-off of unfairness and accuracy drawn: one panel a task, one colour a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from carelab.records import Interval
from carelab.show.axes import axes_or_new

__all__ = ["frontier"]

_MARKERS = "os^DvP*X"
_FLOOR = 0.02  # percent: rates below are drawn at the edge, since a logarithm has no 0


def frontier(
    methods: Mapping[str, Sequence[Mapping[str, Interval]]],
    before: Mapping[str, Interval],
    *,
    rate: str = "unfair_rate_rows",
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Accuracy drop against an unfair rate, one colour a method, with 95 % intervals, in percent.

    The best corner is the lower left one: fair, and as accurate as before. A line joins those of
    a method's points that none of its own beats in both. The dashed lines show a rate that fell
    by 95 % and half of what holding the feature constant costs.

    Args:
        methods: {method: its points}; each point holds the intervals of its measures.
        before: the measures before any repair.
        rate: the measure on the horizontal axis.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: nothing to draw.

    Example:
        >>> from carelab.lab import interval
        >>> from carelab.show.frontier_plots import frontier
        >>> one = {"accuracy_drop": interval([0.0, 0.01]), "unfair_rate_rows": interval([0.1, 0.2])}
        >>> axes = frontier({"ours": [one]}, one)
    """
    if not methods:
        raise ValueError("methods: got none; allowed: at least one")
    ax = axes_or_new(ax)
    colours = sns.color_palette("colorblind", len(methods))
    for number, (method, points) in enumerate(methods.items()):
        across = np.array([_ends(point[rate]) for point in points]) * 100
        up = np.array([_ends(point["accuracy_drop"]) for point in points]) * 100
        across = np.maximum(across, _FLOOR)
        order = np.lexsort((up[:, 0], across[:, 0]))
        across, up = across[order], up[order]
        ours = method == "ours"
        ax.errorbar(
            across[:, 0],
            up[:, 0],
            xerr=np.abs(across[:, 1:] - across[:, :1]).T,
            yerr=np.abs(up[:, 1:] - up[:, :1]).T,
            fmt=_MARKERS[number % len(_MARKERS)],
            color=colours[number],
            label=method.replace("_", " "),
            ms=8 if ours else 6,
            elinewidth=0.8,
            zorder=3 if ours else 2,
        )
        best = np.minimum.accumulate(up[:, 0])
        front = np.diff(best, prepend=np.inf) < 0
        ax.plot(across[front, 0], up[front, 0], "-", color=colours[number], lw=1.8 if ours else 1.0)
    ax.plot(before[rate].mean * 100, 0, "x", color="black", ms=8, label="before")
    ax.axvline(max(_FLOOR, before[rate].mean * 5), color="0.5", ls="--", lw=0.8)
    if "hold_constant" in methods:
        half = methods["hold_constant"][0]["accuracy_drop"].mean * 50
        ax.axhline(half, color="0.5", ls="--", lw=0.8)
    ax.set_xscale("log")
    ax.set_xlabel(f"{rate.replace('_', ' ')} (%)")
    ax.set_ylabel("accuracy drop (points)")
    if label:
        ax.set_title(label)
    return ax


def _ends(value: Interval) -> tuple[float, float, float]:
    return value.mean, value.low, value.high
