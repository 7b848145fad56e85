"""What a verifier decided, and how fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from carelab.show.axes import axes_or_new

__all__ = ["cactus", "status_table"]

_STATUSES = ("proved", "refuted", "unknown")
_LINES = ("-", "--", "-.", ":")


def status_table(
    networks: Sequence[str],
    properties: Sequence[str],
    statuses: Mapping[tuple[str, str], str],
    seconds: Mapping[tuple[str, str], float],
    *,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Status of each network and property as a coloured cell, with its time in seconds.

    Args:
        networks: names of the networks, from left to right.
        properties: names of the properties, from top to bottom.
        statuses: "proved", "refuted" or "unknown" for each (network, property).
        seconds: the time of each.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: nothing to draw, or a status of another name.

    Example:
        >>> from carelab.show import verification_plots
        >>> cell = ("N1,1", "phi1")
        >>> axes = verification_plots.status_table(
        ...     ["N1,1"], ["phi1"], {cell: "proved"}, {cell: 0.4})
    """
    wrong = set(statuses.values()) - set(_STATUSES)
    if wrong or not networks or not properties:
        raise ValueError(
            f"networks, properties, statuses: got {len(networks)}, {len(properties)} and "
            f"{sorted(wrong)}; allowed: at least one of each, statuses {', '.join(_STATUSES)}"
        )
    if ax is None:
        size = (2 + 0.45 * len(networks), 1.5 + 0.6 * len(properties))
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    # Light enough for black numbers, and apart in brightness as well as in hue.
    colours = ["#9fd0e8", "#e9a15b", "#ffffff"]
    codes = [[_STATUSES.index(statuses[one, row]) for one in networks] for row in properties]
    ax.imshow(codes, cmap=ListedColormap(colours), vmin=-0.5, vmax=2.5, aspect="auto")
    for down, row in enumerate(properties):
        for across, one in enumerate(networks):
            text = f"{seconds[one, row]:.1f}" if statuses[one, row] != "unknown" else "?"
            ax.text(across, down, text, ha="center", va="center", fontsize=7)
    ax.set_xticks(range(len(networks)), networks, rotation=90, fontsize=8)
    ax.set_yticks(range(len(properties)), properties)
    ax.set_xticks(np.arange(len(networks) + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(len(properties) + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="0.4", lw=0.5)
    ax.tick_params(which="minor", length=0)
    ax.legend(
        handles=[
            Patch(facecolor=colour, edgecolor="0.4", label=f"{status} ({_count(codes, number)})")
            for number, (status, colour) in enumerate(zip(_STATUSES, colours, strict=True))
        ],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=3,
        frameon=False,
    )
    ax.set_title(label or "Status, and seconds", loc="right")
    return ax


def cactus(
    seconds: Mapping[str, Sequence[float]], *, ax: Axes | None = None, label: str | None = None
) -> Axes:
    """Number of queries decided within a time, one line for each group.

    Args:
        seconds: for each group the times of the queries that were decided.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: nothing to draw.

    Example:
        >>> from carelab.show import verification_plots
        >>> axes = verification_plots.cactus({"phi1": [0.4, 0.2, 3.0]})
    """
    if not any(len(times) for times in seconds.values()):
        raise ValueError("seconds: got no decided query; allowed: at least one")
    ax = axes_or_new(ax)
    colours = sns.color_palette("colorblind", len(seconds))
    for number, (group, times) in enumerate(seconds.items()):
        across = np.sort(np.asarray(times, dtype=np.float64)).clip(min=1e-3)
        ax.plot(
            across,
            np.arange(1, len(across) + 1),
            _LINES[number % len(_LINES)],
            color=colours[number],
            marker="o",
            ms=3,
            label=f"{group} ({len(across)})",
        )
    ax.set_xscale("log")
    ax.set_xlabel("seconds")
    ax.set_ylabel("queries")
    ax.set_title(label or "Queries decided within a time")
    ax.legend(fontsize="small")
    return ax


def _count(codes: Sequence[Sequence[int]], status: int) -> int:
    return sum(row.count(status) for row in map(list, codes))
