"""Repairs with a proof: what they keep, how long they take, and how the proof closes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from carelab.show.axes import axes_or_new

__all__ = ["advice_changed", "proof_rounds", "repair_seconds"]

_MARKERS = "osD^"
_FLOOR = 1e-4  # percent: what 1 of 1,000,000 points is


def advice_changed(
    methods: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Share of the whole domain whose advice a repair changed, one column a task, in percent.

    Filled markers are proved on the whole region, empty ones are not. The line is what a network
    that always gives its most frequent advice changes. The axis is logarithmic; no change at all
    is drawn at its foot.

    Args:
        methods: {method: its results}; each has `network`, `property`, `status`,
            `fidelity_domain` and `fidelity_constant`, the same tasks for all methods.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: nothing to draw, or methods of different tasks.

    Example:
        >>> from carelab.show import provable_plots
        >>> row = {"network": "N2,1", "property": "phi2", "status": "proved"}
        >>> row |= {"fidelity_domain": 0.999, "fidelity_constant": 0.87}
        >>> axes = provable_plots.advice_changed({"ours": [row]})
    """
    tasks = [[_task(row) for row in rows] for rows in methods.values()]
    if not tasks or not tasks[0] or any(names != tasks[0] for names in tasks):
        raise ValueError(
            f"methods: got {[len(names) for names in tasks]} tasks; allowed: at least one, the "
            "same for every method"
        )
    ax = axes_or_new(ax)
    places = np.arange(len(tasks[0]))
    colours = sns.color_palette("colorblind", len(methods))
    for number, (method, rows) in enumerate(methods.items()):
        changed = [max(_FLOOR, 100 * (1 - row["fidelity_domain"])) for row in rows]
        proved = np.array([row["status"] == "proved" for row in rows])
        for name, mask, fill in (("proved", proved, True), ("not proved", ~proved, False)):
            if not mask.any():
                continue
            ax.plot(
                places[mask],
                np.array(changed)[mask],
                _MARKERS[number % len(_MARKERS)],
                color=colours[number],
                fillstyle="full" if fill else "none",
                ms=6,
                zorder=3,
                label=f"{method}, {name}",
            )
    first = next(iter(methods.values()))
    constant = [100 * (1 - row["fidelity_constant"]) for row in first]
    ax.step(places, constant, where="mid", color="0.4", ls="--", label="constant network")
    ax.set_yscale("log")
    ax.set_xticks(places, tasks[0], rotation=90, fontsize="small")
    ax.margins(x=0.01)
    ax.set_ylabel("advice changed (% of the domain)")
    ax.set_title(label or "Advice changed by the repair", loc="left")
    # Above the axes, where it hides no task.
    ax.legend(fontsize="small", ncols=5, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    return ax


def repair_seconds(
    rows: Sequence[Mapping[str, Any]], *, ax: Axes | None = None, label: str | None = None
) -> Axes:
    """Seconds of search, proof and second check, stacked, one column a task.

    Args:
        rows: results of one method, with `network`, `property` and the three times.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: nothing to draw.

    Example:
        >>> from carelab.show import provable_plots
        >>> row = {"network": "N2,1", "property": "phi2", "seconds_repair": 1.0}
        >>> row |= {"seconds_proof": 2.0, "seconds_check": 0.5}
        >>> axes = provable_plots.repair_seconds([row])
    """
    if not rows:
        raise ValueError("rows: got none; allowed: at least one")
    ax = axes_or_new(ax)
    places, foot = np.arange(len(rows)), np.zeros(len(rows))
    parts = {"seconds_repair": ("change", ""), "seconds_proof": ("proof", "///")}
    parts |= {"seconds_check": ("second check", "...")}
    colours = sns.color_palette("colorblind", len(parts))
    for colour, (key, (name, hatch)) in zip(colours, parts.items(), strict=True):
        height = np.array([row[key] for row in rows])
        ax.bar(
            places, height, bottom=foot, label=name, color=colour, hatch=hatch, edgecolor="white"
        )
        foot = foot + height
    ax.set_xticks(places, [_task(row) for row in rows], rotation=90, fontsize="small")
    ax.margins(x=0.01)
    ax.set_ylabel("wall time (s)")
    ax.legend(fontsize="small")
    ax.set_title(label or "Time of each repair")
    return ax


def proof_rounds(
    rounds: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """How far each attempt to prove got: share of the region that it proved, in percent.

    A round that was proved carries a star, a refuted one a cross.

    Args:
        rounds: {task: its rounds}; each has `status` and `share_proved`.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: nothing to draw.

    Example:
        >>> from carelab.show import provable_plots
        >>> rounds = [{"status": "unknown", "share_proved": 0.4}]
        >>> axes = provable_plots.proof_rounds({"N2,1-phi2": rounds})
    """
    if not rounds:
        raise ValueError("rounds: got none; allowed: at least one task")
    ax = axes_or_new(ax)
    marks = {"proved": "*", "refuted": "x", "unknown": "o"}
    colours = sns.color_palette("colorblind", len(rounds))
    for colour, (task, steps) in zip(colours, rounds.items(), strict=True):
        shares = [100 * step["share_proved"] for step in steps]
        ax.plot(range(len(steps)), shares, color=colour, lw=1, label=task)
        for place, step in enumerate(steps):
            size = 12 if step["status"] == "proved" else 6
            ax.plot(place, shares[place], marks[step["status"]], color=colour, ms=size)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("attempt (0: the network as it was)")
    ax.set_ylabel("region proved (%)")
    ax.set_ylim(-5, 108)
    ax.legend(fontsize="small")
    ax.set_title(label or "From counterexamples to a proof (* proved, x refuted)")
    return ax


def _task(row: Mapping[str, Any]) -> str:
    return f"{row['network']} {row['property']}"
