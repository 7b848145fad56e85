"""Figures for lessons: a plane of answers, correlation beside cause, bars of shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from torch import Tensor, nn

from carelab.causal import do
from carelab.networks import predict
from carelab.records import Neuron, Unit, UnitEffects
from carelab.show.axes import axes_or_new

__all__ = ["decision_map", "guilt_scatter", "share_bars"]

_GREY = "0.65"
_NARROWEST = 25  # percent that an axis of shares shows at least
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def decision_map(
    model: nn.Module,
    low: Float[Tensor, " 2"],
    high: Float[Tensor, " 2"],
    *,
    box: tuple[Float[Tensor, " 2"], Float[Tensor, " 2"]] | None = None,
    marked: int | None = None,
    held: Mapping[Unit, float | Tensor] | None = None,
    points: int = 160,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """The class that a network answers at every point of a plane of two inputs.

    Args:
        model: a network of two inputs.
        low: lower left corner of the plane (2).
        high: upper right corner (2).
        box: corners of a box to outline, lower left and upper right.
        marked: a class to draw in orange with hatching, such as a forbidden one.
        held: units held by do() while the network answers.
        points: points along each side, at least 2.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: corners in the wrong order, fewer than two points, or a network of another
            number of inputs.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.show.teaching_plots import decision_map
        >>> model = networks.mlp(2, (4,), 3, generator=torch.Generator().manual_seed(0))
        >>> axes = decision_map(model, -torch.ones(2), torch.ones(2), marked=1)
    """
    if not bool((low < high).all()) or points < 2:
        raise ValueError(
            f"low, high, points: got {low.tolist()}, {high.tolist()}, {points}; "
            "allowed: low below high, at least 2 points"
        )
    ax = axes_or_new(ax)
    sides = [torch.linspace(float(a), float(b), points) for a, b in zip(low, high, strict=True)]
    plane = torch.cartesian_prod(*sides)
    with do(model, dict(held or {})):
        answers = predict(model, plane).reshape(points, points).T
    shown = sorted(set(answers.flatten().tolist()) | ({marked} if marked is not None else set()))
    pale = sns.color_palette("Greys", len(shown) + 3)
    colours = {one: pale[number + 1] for number, one in enumerate(shown)}
    if marked is not None:
        colours[marked] = sns.color_palette("colorblind")[1]
    picture = np.array([[colours[one] for one in line] for line in answers.tolist()])
    extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    ax.imshow(picture, origin="lower", extent=extent, interpolation="none", aspect="equal")
    if marked is not None and bool((answers == marked).any()):
        where = np.ma.masked_where((answers != marked).numpy(), np.ones(answers.shape))
        grid = [side.numpy() for side in sides]
        hatch = ax.contourf(*grid, where, levels=[0.5, 1.5], colors="none", hatches=["///"])
        hatch.set_edgecolor("0.25")
        hatch.set_linewidth(0)
    if box is not None:
        (left, bottom), (width, height) = box[0].tolist(), (box[1] - box[0]).tolist()
        ax.add_patch(
            Rectangle((left, bottom), width, height, fill=False, ec="black", lw=3, clip_on=False)
        )
    handles = [
        Patch(
            facecolor=colours[one],
            edgecolor="0.25",
            hatch="///" if one == marked else "",
            label=f"class {one}" + (" (forbidden in the box)" if one == marked and box else ""),
        )
        for one in shown
    ]
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    ax.grid(False)
    ax.set_xlabel("first input")
    ax.set_ylabel("second input")
    ax.set_title(label or "What the network answers")
    return ax


def guilt_scatter(
    correlations: Mapping[Neuron, float],
    effects: UnitEffects,
    *,
    groups: Mapping[str, Sequence[Unit]] | None = None,
    named: Sequence[Neuron] = (),
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Causal effect of every neuron against the size of its correlation with the fault.

    Args:
        correlations: {neuron: correlation, -1 to 1}, of every neuron of the effects.
        effects: one causal effect a neuron.
        groups: {what they are: neurons to draw with their own marker}; the rest is grey.
        named: neurons whose name is written beside their dot.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: a neuron without a correlation.

    Example:
        >>> import torch
        >>> from carelab import causal, records
        >>> from carelab.show.teaching_plots import guilt_scatter
        >>> units = tuple(records.Neuron("relu1", index) for index in range(3))
        >>> rows = torch.tensor([[0.0, 1.0], [5.0, 6.0], [2.0, 0.0]])
        >>> drop = causal.uncertainty.mean_contrasts("drop", units, [rows])
        >>> axes = guilt_scatter(dict(zip(units, (0.9, 0.1, -0.5))), drop, groups={"a": units[:1]})
    """
    missing = [str(unit) for unit in effects.units if unit not in correlations]
    if missing:
        raise ValueError(f"correlations: got none of {', '.join(missing)}; allowed: one for each")
    ax = axes_or_new(ax)
    size = {neuron: abs(value) for neuron, value in correlations.items()}
    effect = dict(zip(effects.units, effects.effect.tolist(), strict=True))
    known = {unit for group in (groups or {}).values() for unit in group}
    rest = [unit for unit in effects.units if unit not in known]
    parts = {**(groups or {}), "other neurons": rest}
    colours = sns.color_palette("colorblind")
    for number, (name, units) in enumerate(parts.items()):
        last = number == len(parts) - 1
        ax.scatter(
            [size[unit] for unit in units if isinstance(unit, Neuron)],
            [effect[unit] for unit in units],
            s=40 if last else 110,
            color=_GREY if last else colours[number],
            marker="." if last else _MARKERS[number % len(_MARKERS)],
            label=f"{name} ({len(units)})",
            zorder=1 if last else 2,
        )
    for neuron in named:
        ax.annotate(
            str(neuron),
            (size[neuron], effect[neuron]),
            xytext=(-9, 9),
            textcoords="offset points",
            ha="right",
        )
    ax.axhline(0, color="0.5", lw=0.8)
    ax.set_xlim(-0.03, 1.05)
    ax.margins(y=0.15)
    ax.set_xlabel("|correlation| of its activation with the fault")
    ax.set_ylabel(effects.measure)
    ax.set_title(label or f"Correlation and cause, n = {effects.samples} samples")
    ax.legend(loc="upper left")
    return ax


def share_bars(
    shares: Mapping[str, Mapping[str, float]],
    *,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Lying bars of several shares for several cases, in percent, with the number at each end.

    Args:
        shares: {case: {what is shared: fraction, -1 to 1}}, the same keys for every case; the
            cases are drawn from top to bottom.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: no case, or cases with different keys.

    Example:
        >>> from carelab.show.teaching_plots import share_bars
        >>> axes = share_bars({"before": {"accuracy": 0.9}, "after": {"accuracy": 0.88}})
    """
    kinds = {tuple(one) for one in shares.values()}
    if len(kinds) != 1 or not next(iter(kinds)):
        raise ValueError(f"shares: got the keys {sorted(kinds)}; allowed: the same for every case")
    (names,) = kinds
    ax = axes_or_new(ax)
    height = 0.8 / len(names)
    colours = sns.color_palette("colorblind", len(names))
    for number, name in enumerate(names):
        lengths = [100 * one[name] for one in shares.values()]
        at = np.arange(len(shares)) + (number - (len(names) - 1) / 2) * height
        bars = ax.barh(
            at,
            lengths,
            height,
            color=colours[number],
            hatch=("", "//", "..", "xx")[number % 4],
            edgecolor="white",
            label=name.replace("_", " "),
        )
        ax.bar_label(bars, [f"{round(length)} %" for length in lengths], padding=3)
    ax.set_yticks(range(len(shares)), list(shares))
    ax.invert_yaxis()
    ax.margins(x=0.12)
    # Shares of nearly nothing must not fill the picture.
    left, right = ax.get_xlim()
    ax.set_xlim(left, max(right, _NARROWEST))
    ax.axvline(0, color="0.3", lw=0.8)
    ax.set_xlabel("%")
    ax.set_title(label or "Shares")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    return ax
