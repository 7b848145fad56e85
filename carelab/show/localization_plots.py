"""Figures of localisers: how well they find the guilty, how they agree, what removal does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from carelab.causal.choice import ALL_LAYERS, Choice
from carelab.causal.kill_curves import KillCurve, RankOverlap
from carelab.records import Interval
from carelab.show.axes import axes_or_new

__all__ = ["choice_evidence", "kill_curves", "localizer_scores", "overlap_map"]

_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">")
_LINES = ("-", "--", ":", "-.")


def localizer_scores(
    scores: Mapping[str, Mapping[str, Mapping[str, Interval]]],
    *,
    measure: str = "average_precision",
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """One row a localiser, one marker a group of networks, with 95 % intervals, in percent.

    Args:
        scores: {localiser: {group: {measure: its interval over networks}}}; groups are strengths
            or kinds of faults. Localisers are drawn from top to bottom.
        measure: the measure on the horizontal axis, a fraction.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: nothing to draw, or a measure that is missing.

    Example:
        >>> from carelab.lab import interval
        >>> from carelab.show import localization_plots
        >>> one = {"average_precision": interval([0.7, 0.9, 0.8])}
        >>> axes = localization_plots.localizer_scores({"patching": {"weak": one, "strong": one}})
    """
    groups = list(next(iter(scores.values()))) if scores else []
    if not groups:
        raise ValueError("scores: got none; allowed: at least one localiser and one group")
    missing = [
        name for name, one in scores.items() for group in groups if measure not in one[group]
    ]
    if missing:
        raise ValueError(f"measure: got {measure!r}, which {missing[0]} has not")
    ax = axes_or_new(ax)
    colours = sns.color_palette("colorblind", len(groups))
    rows = np.arange(len(scores))
    for number, group in enumerate(groups):
        found = [one[group][measure] for one in scores.values()]
        mean = 100 * np.array([one.mean for one in found])
        ends = 100 * np.array([[one.low for one in found], [one.high for one in found]])
        ax.errorbar(
            mean,
            rows + (number - (len(groups) - 1) / 2) * 0.22,
            xerr=[mean - ends[0], ends[1] - mean],
            fmt=_MARKERS[number % len(_MARKERS)],
            color=colours[number],
            label=f"{group}, n = {found[0].n}",
            ms=5,
            capsize=2,
            lw=1,
        )
    for row in rows[1:]:
        ax.axhline(row - 0.5, color="0.9", lw=0.8, zorder=0)
    ax.set_yticks(rows, [name.replace("_", " ") for name in scores])
    ax.set_ylim(len(scores) - 0.5, -0.5)
    ax.set_xlabel(f"{measure.replace('_', ' ')} (%)")
    ax.set_title(label or "Localisers against the truth")
    ax.legend(fontsize="small")
    return ax


def kill_curves(
    curves: Mapping[str, KillCurve],
    *,
    marked: int | None = None,
    most: int | None = None,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Violation rate (lines) and accuracy (faint lines) against units removed, in percent.

    Args:
        curves: the curves by the name of their ranking.
        marked: a number of units to mark, such as how many are guilty.
        most: units at the right end of the axis; by default all.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: no curve.

    Example:
        >>> import torch
        >>> from carelab.causal.kill_curves import KillCurve
        >>> from carelab.records import Neuron
        >>> from carelab.show import localization_plots
        >>> rates = {"violation_rate": torch.tensor([1.0, 0.2]), "accuracy": torch.ones(2)}
        >>> sizes = {"violating": 9, "labelled": 9, "changed": torch.zeros(2)}
        >>> curve = KillCurve(units=(Neuron("relu1", 0),), counts=torch.arange(2), **rates, **sizes)
        >>> axes = localization_plots.kill_curves({"patching": curve})
    """
    if not curves:
        raise ValueError("curves: got none; allowed: at least one")
    ax = axes_or_new(ax)
    colours = sns.color_palette("colorblind", len(curves))
    for number, (name, curve) in enumerate(curves.items()):
        counts, line = curve.counts.numpy(), _LINES[number % len(_LINES)]
        ax.plot(counts, 100 * curve.accuracy.numpy(), line, color=colours[number], lw=1, alpha=0.45)
        ax.plot(
            counts,
            100 * curve.violation_rate.numpy(),
            line,
            color=colours[number],
            marker=_MARKERS[number % len(_MARKERS)],
            ms=4,
            label=f"{name.replace('_', ' ')} (area {100 * curve.area:.0f} %)",
        )
    if marked is not None:
        ax.axvline(marked, color="0.5", lw=0.8, ls=":")
        ax.annotate(
            f"{marked} guilty",
            (marked, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -3),
            textcoords="offset points",
            va="top",
            fontsize="small",
            color="0.4",
        )
    first = next(iter(curves.values()))
    ax.set_xlim(-0.3, most if most is not None else float(first.counts[-1]))
    ax.set_ylim(-3, 103)
    ax.set_xlabel("units removed, most guilty first")
    ax.set_ylabel("violation rate; accuracy (faint) (%)")
    sizes = f"n = {first.violating} violating, {first.labelled} labelled"
    ax.set_title(f"{label or 'Kill curves'} ({sizes})")
    ax.legend(fontsize="small")
    return ax


def overlap_map(overlap: RankOverlap, *, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Heat map of the share of top units that each two rankings have in common, in percent.

    Args:
        overlap: how far the rankings agree.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Example:
        >>> import torch
        >>> from carelab.causal.kill_curves import RankOverlap
        >>> from carelab.show import localization_plots
        >>> both = {"shared": torch.eye(2), "correlation": torch.eye(2)}
        >>> axes = localization_plots.overlap_map(RankOverlap(names=("a", "b"), count=3, **both))
    """
    ax = axes_or_new(ax)
    shared = 100 * overlap.shared.numpy()
    image = ax.imshow(shared, cmap="cividis", vmin=0, vmax=100, interpolation="none")
    ax.grid(False)
    names = [name.replace("_", " ") for name in overlap.names]
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(shared):
        colour = "black" if value > 55 else "white"
        ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    ax.set_title(label or f"Common units among the first {overlap.count}")
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label(f"first {overlap.count} units in common (%)")
    return ax


def choice_evidence(
    choice: Choice, *, most: int | None = None, ax: Axes | None = None, label: str | None = None
) -> Axes:
    """Cost against units removed, a line for every ranking tried, with the point chosen.

    Args:
        choice: the choice with its candidates.
        most: units at the right end of the axis; by default twice what the best needs, at least 8.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Example:
        >>> import torch, carelab as cl
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_census(rows=600, generator=g)
        >>> start = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> net = cl.networks.fit(start, table.train, epochs=9, generator=g)
        >>> fair, rows = cl.properties.individual_fairness(table, "sex"), table.train
        >>> seen = cl.records.Evidence(violating=rows, references=rows, passing=rows)
        >>> axes = choice_evidence(cl.causal.choose_units(net, seen, fair, rows, rows, generator=g))
    """
    ax = axes_or_new(ax)
    several = len({candidate.localizer for candidate in choice.candidates}) > 1
    colours = sns.color_palette("colorblind", len(choice.candidates))
    for number, candidate in enumerate(choice.candidates):
        counts, cost = candidate.curve.counts.numpy(), candidate.cost.numpy()
        error = candidate.cost_error.numpy()
        name = candidate.layer + (f", {candidate.localizer}" if several else "")
        style = "-" if candidate.layer == ALL_LAYERS else _LINES[1 + number % 3]
        ax.plot(
            counts,
            cost,
            style,
            color=colours[number],
            marker=_MARKERS[number % len(_MARKERS)],
            ms=4,
            label=name,
        )
        ax.fill_between(counts, cost - error, cost + error, color=colours[number], alpha=0.15, lw=0)
    best = choice.candidates[choice.best_candidate]
    chosen = choice.candidates[choice.candidate]
    lowest = float(best.cost[choice.best_point])
    ax.axhline(
        lowest + float(best.cost_error[choice.best_point]),
        color="0.5",
        lw=0.8,
        ls=":",
        label="lowest cost + one standard error",
    )
    at = int(chosen.curve.counts[choice.point])
    ax.plot(
        at,
        float(chosen.cost[choice.point]),
        "*",
        color="#d55e00",
        mec="black",
        ms=15,
        zorder=5,
        label=f"chosen: {at} of {chosen.layer}",
    )
    needed = max(at, int(best.curve.counts[choice.best_point]))
    longest = max(int(candidate.curve.counts[-1]) for candidate in choice.candidates)
    right = most if most is not None else min(longest, max(8, 2 * needed))
    ax.set_xlim(-0.3, right + 0.3)
    ax.set_ylim(min(0.0, lowest) - 0.05, _highest(choice, right) + 0.05)
    ax.set_xlabel("units removed, most guilty first")
    ax.set_ylabel("violations left + skill lost (shares)")
    ax.set_title(label or "How many units, and of which layer")
    ax.legend(fontsize="small")
    return ax


def _highest(choice: Choice, right: int) -> float:
    """The highest cost in sight, but no more than 2: what is worse need not be told apart."""
    seen = [
        float(candidate.cost[candidate.curve.counts <= right].max())
        for candidate in choice.candidates
    ]
    return min(2.0, max(1.0, *seen))
