"""The explorer's pictures for papers: network map, curve, activations, read-outs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize, PowerNorm, TwoSlopeNorm
from matplotlib.patches import Rectangle

from carelab.records import CausalEffects, Neuron, UnitEffects
from carelab.show.axes import axes_or_new
from carelab.show.explorer.engine import Reading
from carelab.show.explorer.portraits import Portrait

__all__ = [
    "activation_histograms",
    "neuron_curve",
    "neuron_map",
    "reading_bars",
]

_BLUE, _ORANGE, _GUILTY = "#0072b2", "#d55e00", "#d55e00"
_ROWS = 12  # cells on top of each other before a layer takes another column


def neuron_map(
    effects: UnitEffects,
    *,
    guilty: Sequence[Neuron] = (),
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """The network as a map: layers as columns, neurons as cells coloured by their effect.

    Amounts are coloured by their square root, so that small ones can be told apart; signed
    effects around 0.

    Args:
        effects: the number of each neuron; of a feature map each channel.
        guilty: the neurons to outline, most guilty first; they are numbered.
        ax: where to draw; a new figure by default.
        label: what the colour bar says; by default what the numbers are.

    Raises:
        ValueError: a whole layer or a position among the units.

    Example:
        >>> import torch
        >>> from carelab.records import Neuron, UnitEffects
        >>> from carelab.show import neuron_plots
        >>> two = UnitEffects(measure="drop", units=(Neuron("relu1", 0), Neuron("relu2", 0)),
        ...     effect=torch.tensor([0.1, 0.4]), covariance=torch.zeros(2, 2), samples=9)
        >>> axes = neuron_plots.neuron_map(two, guilty=two.units[1:])
    """
    ax = axes_or_new(ax)
    if any(not isinstance(unit, Neuron) or unit.position for unit in effects.units):
        raise ValueError("effects: got a whole layer or a position; allowed: neurons, channels")
    corners, ticks = _corners(effects)
    values = effects.effect.double().numpy()
    most = max(float(np.abs(values).max()), 1e-12)
    signed = values.min() < -0.05 * most
    norm: Normalize = TwoSlopeNorm(0, -most, most) if signed else PowerNorm(0.5, 0, most)
    cells = PatchCollection(
        [Rectangle(corner, 0.9, 0.9) for corner in corners],
        cmap="RdBu_r" if signed else "cividis",
        norm=norm,
    )
    cells.set_array(values if signed else values.clip(min=0))
    ax.add_collection(cells)
    for rank, neuron in enumerate(guilty, start=1):
        left, bottom = corners[effects.units.index(neuron)]
        ax.add_patch(Rectangle((left, bottom), 0.9, 0.9, fill=False, ec=_GUILTY, lw=1.8))
        ax.text(left + 0.45, bottom + 0.45, f"{rank}", ha="center", va="center", fontsize=6)
    ax.set_xticks([middle for middle, _ in ticks], [name for _, name in ticks])
    ax.set_yticks([])
    ax.autoscale_view()
    ax.set_aspect("equal")
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)
    bar = ax.figure.colorbar(cells, ax=ax, shrink=0.8)
    bar.set_label(label or effects.measure)
    outlined = f", {len(guilty)} guilty outlined" if guilty else ""
    ax.set_title(f"{len(values)} neurons, n = {effects.samples} samples{outlined}")
    return ax


def neuron_curve(
    portrait: Portrait,
    *,
    now: CausalEffects | None = None,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """E[score | do(neuron = v)] against v with its 95 % interval, and the score untouched.

    Args:
        portrait: the neuron.
        now: its curve in a repaired network, or None.
        ax: where to draw; a new figure by default.
        label: title of the axes; by default the neuron.

    Example:
        >>> import torch
        >>> from carelab.records import Neuron
        >>> from carelab.show import explorer, neuron_plots
        >>> up, half = torch.linspace(0, 1, 3), torch.full((2,), 0.5)
        >>> one = explorer.Portrait(neuron=Neuron("relu1", 0), values=up, expectation=up,
        ...     samples=50, error=up / 9, unmodified=0.4, edges=up, behaving=half, misbehaving=half)
        >>> neuron_plots.neuron_curve(one).get_title()
        'relu1[0] (n = 50)'
    """
    ax = axes_or_new(ax)
    values = portrait.values.numpy()
    low, high = (end.numpy() for end in portrait.interval)
    ax.fill_between(values, low, high, color=_BLUE, alpha=0.2, lw=0)
    ax.plot(values, portrait.expectation.numpy(), color=_BLUE, label="held at v, 95 %")
    ax.axhline(portrait.unmodified, color="0.35", ls=":", label="no intervention")
    if now is not None:
        ax.plot(
            now.values[0].numpy(),
            now.expectation[0].numpy(),
            color=_ORANGE,
            ls="--",
            label="after repair",
        )
    ax.set_xlabel("value v that the neuron is held at")
    ax.set_ylabel("mean violation score")
    ax.set_title(f"{label or portrait.neuron} (n = {portrait.samples})")
    ax.legend(fontsize="small")
    return ax


def activation_histograms(
    portrait: Portrait, *, ax: Axes | None = None, label: str | None = None
) -> Axes:
    """Activations of one neuron at inputs that behave and at inputs that misbehave.

    Args:
        portrait: the neuron.
        ax: where to draw; a new figure by default.
        label: title of the axes; by default the neuron.

    Example:
        >>> import torch
        >>> from carelab.records import Neuron
        >>> from carelab.show import explorer, neuron_plots
        >>> up, half = torch.linspace(0, 1, 3), torch.full((2,), 0.5)
        >>> one = explorer.Portrait(neuron=Neuron("relu1", 0), values=up, expectation=up,
        ...     samples=50, error=up / 9, unmodified=0.4, edges=up, behaving=half, misbehaving=half)
        >>> axes = neuron_plots.activation_histograms(one)
    """
    ax = axes_or_new(ax)
    edges = portrait.edges.numpy()
    ax.stairs(portrait.behaving.numpy(), edges, fill=True, color=_BLUE, alpha=0.35, label="behave")
    ax.stairs(portrait.misbehaving.numpy(), edges, color=_ORANGE, ls="--", lw=2, label="misbehave")
    ax.set_xlabel("activation")
    ax.set_ylabel("share of the inputs")
    ax.set_title(str(label or portrait.neuron))
    ax.legend(fontsize="small", title="inputs that")
    return ax


def reading_bars(
    readings: Sequence[Reading], *, ax: Axes | None = None, label: str | None = None
) -> Axes:
    """Every read-out before and now, in percent of the held-out samples.

    Args:
        readings: the read-outs.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: no read-out.

    Example:
        >>> from carelab.show import neuron_plots
        >>> from carelab.show.explorer import Reading
        >>> one = Reading(name="accuracy", label="accuracy", before=0.9, now=0.8, rows=50,
        ...     higher_is_better=True)
        >>> axes = neuron_plots.reading_bars([one])
    """
    if not readings:
        raise ValueError("readings: got none; allowed: at least one")
    ax = axes_or_new(ax)
    at = np.arange(len(readings))
    before = [100 * one.before for one in readings]
    now = [100 * one.now for one in readings]
    ax.barh(at - 0.19, before, 0.36, color="0.75", label="original")
    bars = ax.barh(at + 0.19, now, 0.36, color=_BLUE, hatch="//", edgecolor="white", label="now")
    change = [f"{100 * one.now:.1f} % ({100 * one.change:+.1f})" for one in readings]
    ax.bar_label(bars, change, padding=3, fontsize="small")
    ax.set_yticks(at, [f"{one.label}\nn = {one.rows}" for one in readings])
    ax.invert_yaxis()
    ax.set_xlim(0, 135)
    ax.set_xticks(range(0, 101, 20))
    ax.set_xlabel("held-out samples (%)")
    ax.set_title(label or "Read-outs")
    ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return ax


def _corners(effects: UnitEffects) -> tuple[list[tuple[float, float]], list[tuple[float, str]]]:
    """Lower left corner of each neuron's cell; middle and name of each layer's columns."""
    corners: dict[Neuron, tuple[float, float]] = {}
    ticks, left = [], 0.0
    layers = dict.fromkeys(unit.layer for unit in effects.units)
    widest = max(sum(unit.layer == layer for unit in effects.units) for layer in layers)
    rows = max(_ROWS, int(np.ceil(np.sqrt(widest))))
    for layer in layers:
        members = [unit for unit in effects.units if unit.layer == layer]
        for place, unit in enumerate(members):
            if isinstance(unit, Neuron):
                corners[unit] = (left + place // rows, -float(place % rows))
        columns = -(-len(members) // rows)
        ticks.append((left + columns / 2, f"{layer}\n{len(members)}"))
        left += columns + 1.5
    return [corners[unit] for unit in effects.units if isinstance(unit, Neuron)], ticks
