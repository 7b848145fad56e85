"""Figures of causal effects and repairs, one function each; the caller owns figure and layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from carelab.causal import average_causal_effect
from carelab.records import CausalEffects, Interval, Neuron, Repair, UnitEffects
from carelab.show.axes import axes_or_new

__all__ = ["causal_curves", "convergence", "effect_map", "note_data", "rates", "trade_off"]

_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">")
_LINES = ("-", "--", ":", "-.")


def causal_curves(
    effects: CausalEffects,
    neurons: Sequence[Neuron],
    *,
    ax: Axes | None = None,
    label: str | None = None,
    most: int = 8,
) -> Axes:
    """ACE of each neuron against the value it is held at, with 95 % intervals.

    Args:
        effects: the effects.
        neurons: the neurons to draw, most important first.
        ax: where to draw; a new figure by default.
        label: title of the axes.
        most: at most so many curves, so that the legend stays readable.

    Raises:
        ValueError: no neuron, or one that the effects do not hold.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records, show
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> effects = causal.neuron_effects(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> axes = show.plots.causal_curves(effects, effects.neurons)
    """
    unknown = [str(neuron) for neuron in neurons if neuron not in effects.neurons]
    if unknown or not neurons:
        raise ValueError(f"neurons: got {unknown or 'none'}; allowed: neurons of the effects")
    ax = axes_or_new(ax)
    ace, error = average_causal_effect(effects)
    shown = list(neurons)[:most]
    colours = sns.color_palette("colorblind", len(shown))
    share = np.linspace(0, 1, effects.values.shape[1])
    for number, neuron in enumerate(shown):
        row = effects.neurons.index(neuron)
        curve, band = ace[row].numpy(), 1.96 * error[row].numpy()
        ax.plot(
            share, curve, _LINES[number % len(_LINES)], color=colours[number], label=str(neuron)
        )
        ax.fill_between(share, curve - band, curve + band, color=colours[number], alpha=0.15, lw=0)
    ax.axhline(0, color="0.5", lw=0.8)
    ax.set_xlabel("value held by do(), from lowest (0) to highest (1) activation seen")
    ax.set_ylabel("average causal effect on the violation score")
    rest = f", first {len(shown)} of {len(neurons)}" if len(neurons) > len(shown) else ""
    ax.set_title(f"{label or 'Causal effects'} (95 % interval, n = {effects.samples}{rest})")
    ax.legend(fontsize="small", ncols=2, title="neuron")
    return ax


def effect_map(
    effects: UnitEffects,
    *,
    guilty: Sequence[Neuron] = (),
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Heat map of one number a neuron, layers as rows; guilty neurons are crossed.

    Args:
        effects: the number of each neuron; in a feature map, of each channel.
        guilty: the neurons to mark.
        ax: where to draw; a new figure by default.
        label: what the colour bar says; by default what the numbers are.

    Raises:
        ValueError: a whole layer or a position among the units.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records, show
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> effects = causal.neuron_effects(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> axes = show.plots.effect_map(causal.expectation_drop(effects))
    """
    ax = axes_or_new(ax)
    places = [unit.place for unit in effects.units]
    if any(len(place) != 1 for place in places):
        raise ValueError("effects: got a whole layer or a position; allowed: neurons, channels")
    layers = list(dict.fromkeys(unit.layer for unit in effects.units))
    grid = np.full((len(layers), 1 + max(index for (index,) in places)), np.nan)
    for unit, number in zip(effects.units, effects.effect.tolist(), strict=True):
        grid[layers.index(unit.layer), unit.place[0]] = number
    image = ax.imshow(grid, cmap="cividis", aspect="auto", interpolation="none")
    ax.grid(False)
    marks = [(neuron.index, layers.index(neuron.layer)) for neuron in guilty]
    if marks:
        across, down = zip(*marks, strict=True)
        ax.plot(across, down, "x", color="white", ms=7, mew=3.5)
        ax.plot(across, down, "x", color="#d55e00", ms=6, mew=1.8, label="guilty")
        ax.legend(loc="lower right", fontsize="small")
    ax.set_yticks(range(len(layers)), layers)
    ax.set_xlabel("neuron")
    ax.set_title(f"{len(effects.units)} neurons, n = {effects.samples} samples")
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label(label or effects.measure)
    return ax


def convergence(
    repairs: Sequence[Repair], *, ax: Axes | None = None, label: str | None = None
) -> Axes:
    """Best cost of the search after each iteration, one line a repair.

    Args:
        repairs: the repairs, for example one a seed.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: no repair.

    Example:
        >>> import torch, carelab as cl
        >>> g, one = torch.Generator().manual_seed(0), cl.records.Neuron("relu1", 0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> model = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> fixed = cl.repair.care(model, table.train, table.train, fair, [one], generator=g)
        >>> axes = cl.show.plots.convergence([fixed])
    """
    if not repairs:
        raise ValueError("repairs: got none; allowed: at least one")
    ax = axes_or_new(ax)
    colours = sns.color_palette("colorblind", len(repairs))
    for number, repair in enumerate(repairs):
        ax.plot(
            repair.history.numpy(),
            _LINES[number % len(_LINES)],
            color=colours[number],
            label=f"seed {repair.seed}",
        )
    ax.set_xlabel("iteration of the swarm")
    ax.set_ylabel("best cost")
    ax.set_title(label or "Convergence of the swarm")
    ax.legend(fontsize="small")
    return ax


def rates(
    measures: Mapping[str, Mapping[str, Interval]],
    names: Mapping[str, str],
    *,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Bars of several rates for several networks, with their 95 % intervals, in percent.

    Args:
        measures: {network: {rate: its interval}}, rates as fractions.
        names: {rate: what it is called on the axis}, in drawing order.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: nothing to draw.

    Example:
        >>> from carelab.lab import interval
        >>> from carelab.show import plots
        >>> one = interval([0.1, 0.2, 0.3])
        >>> axes = plots.rates({"before": {"unfair": one}}, {"unfair": "unfair rows"})
    """
    if not measures or not names:
        raise ValueError("measures, names: got none; allowed: at least one of each")
    ax = axes_or_new(ax)
    width = 0.8 / len(measures)
    colours = sns.color_palette("colorblind", len(measures))
    for number, (network, values) in enumerate(measures.items()):
        mean, low, high = _percent(values, list(names))
        at = np.arange(len(names)) + (number - (len(measures) - 1) / 2) * width
        ax.bar(
            at,
            mean,
            width,
            yerr=(mean - low, high - mean),
            color=colours[number],
            label=network.replace("_", " "),
            hatch=("", "//", "..", "xx", "\\\\")[number % 5],
            edgecolor="white",
            error_kw={"lw": 1},
        )
    ax.set_xticks(range(len(names)), list(names.values()))
    ax.set_ylabel("unfair rate (%)")
    ax.set_title(label or "Unfair rates")
    ax.legend(fontsize="small")
    return ax


def trade_off(
    measures: Mapping[str, Mapping[str, Interval]],
    *,
    rate: str = "unfair_rate_rows",
    others: Sequence[tuple[float, float]] = (),
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Accuracy against an unfair rate, one marker a network, with 95 % intervals, in percent.

    The best corner is the lower right one: accurate and fair.

    Args:
        measures: {network: {measure: its interval}}; "accuracy" and the rate are read.
        rate: the measure on the vertical axis.
        others: (accuracy, rate) of repairs that were tried and not chosen, as small dots.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: nothing to draw.

    Example:
        >>> from carelab.lab import interval
        >>> from carelab.show import plots
        >>> one = interval([0.1, 0.2, 0.3])
        >>> axes = plots.trade_off({"before": {"accuracy": one, "unfair_rate_rows": one}})
    """
    if not measures:
        raise ValueError("measures: got none; allowed: at least one network")
    ax = axes_or_new(ax)
    if others:
        across, up = np.array(others).T * 100
        ax.plot(across, up, ".", color="0.6", ms=4, label="other repairs tried", zorder=1)
    colours = sns.color_palette("colorblind", len(measures))
    for number, (network, values) in enumerate(measures.items()):
        mean, low, high = _percent(values, ["accuracy", rate])
        ax.errorbar(
            mean[0],
            mean[1],
            xerr=[[mean[0] - low[0]], [high[0] - mean[0]]],
            yerr=[[mean[1] - low[1]], [high[1] - mean[1]]],
            fmt=_MARKERS[number % len(_MARKERS)],
            color=colours[number],
            label=network.replace("_", " "),
            ms=8,
            capsize=3,
        )
    ax.set_xlabel("accuracy on test rows (%)")
    ax.set_ylabel(f"{rate.replace('_', ' ')} (%)")
    ax.set_title(label or "Trade-off")
    ax.legend(fontsize="small")
    return ax


def note_data(figure: Figure, note: str) -> None:
    """Writes below the panels which data the figure was made from.

    Args:
        figure: the finished figure.
        note: the sentence, such as "Data: adf-census (real), 1b0af967".

    Example:
        >>> from matplotlib.figure import Figure
        >>> from carelab.show import plots
        >>> plots.note_data(Figure(), "Data: embedded-census (generated)")
    """
    figure.text(0.01, -0.01, note, ha="left", va="top", fontsize="small", color="0.3")


def _percent(
    values: Mapping[str, Interval], names: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    mean = np.array([values[name].mean for name in names])
    low = np.array([values[name].low for name in names])
    high = np.array([values[name].high for name in names])
    return 100 * mean, 100 * low, 100 * high
