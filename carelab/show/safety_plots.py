"""Figures of controllers: what is advised where, before and after a repair, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import seaborn as sns
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor, nn

from carelab.networks import Normalisation, logits
from carelab.properties import OutputRegion, OutputRegions
from carelab.records import Interval, Samples
from carelab.show.axes import axes_or_new

__all__ = ["AdvisorySlice", "advisory_map", "advisory_slice", "change_map", "safety_bars"]

_THOUSAND = 1000  # ft
_HATCHES = ("", "//", "..", "xx", "--")
_NAMES: Mapping[str, str] = {
    "violation_rate": "violations left (test)",
    "fidelity_domain": "same advice, whole domain",
    "fidelity_box": "same advice, property's box",
    "kept": "satisfying points kept",
}


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class AdvisorySlice:
    """The advice on a grid of distances and angles to the intruder, all other inputs fixed.

    Args:
        distance: of each row (rows), ft.
        angle: of each column (columns), rad, positive to the left.
        advice: number of the advisory (rows, columns).
        unsafe: where the property is violated (rows, columns).
        fixed: the other inputs in physical units, by name.
    """

    distance: Float[Tensor, " rows"]
    angle: Float[Tensor, " columns"]
    advice: Int[Tensor, "rows columns"]
    unsafe: Bool[Tensor, "rows columns"]
    fixed: Mapping[str, float]


def advisory_slice(
    model: nn.Module,
    prop: OutputRegion | OutputRegions,
    normalisation: Normalisation,
    window: Float[Tensor, "2 2"],
    fixed: Mapping[str, float],
    *,
    resolution: int = 200,
) -> AdvisorySlice:
    """What a controller advises on a two-dimensional slice through its inputs.

    Args:
        model: the controller, whose first two inputs are distance and angle; its lowest score is
            the advice.
        prop: the property; where it is violated, inside its box, is marked.
        normalisation: how physical units become inputs.
        window: smallest (first row) and largest distance (ft) and angle (rad) to be shown.
        fixed: the other inputs by name, in physical units, in the network's order.
        resolution: points along each axis, at least 2.

    Raises:
        ValueError: a resolution below 2, a window that is empty, or another number of fixed inputs.

    Example:
        >>> import torch
        >>> from carelab import networks, properties
        >>> from carelab.show.safety_plots import advisory_slice
        >>> m = networks.mlp(2, (4,), 5, generator=torch.Generator().manual_seed(0))
        >>> feet = networks.Normalisation(means=torch.zeros(2), ranges=torch.tensor([6e4, 6.3]))
        >>> window = torch.tensor([[0.0, -3.1], [6e4, 3.1]])
        >>> cut = advisory_slice(
        ...     m, properties.never_lowest(0, 5), feet, window, {}, resolution=9)
    """
    wanted = len(normalisation.means) - 2
    if resolution < 2 or bool((window[0] >= window[1]).any()) or len(fixed) != wanted:
        raise ValueError(
            f"resolution, window, fixed: got {resolution}, {window.tolist()}, {len(fixed)} inputs; "
            f"allowed: 2 or more, a window that is not empty, {wanted} inputs"
        )
    ends = window.double()
    distance, angle = (
        torch.linspace(float(ends[0, axis]), float(ends[1, axis]), resolution, dtype=torch.float64)
        for axis in (0, 1)
    )
    grid = torch.stack(torch.meshgrid(distance, angle, indexing="ij"), dim=-1).flatten(0, 1)
    others = torch.tensor(list(fixed.values()), dtype=torch.float64).expand(len(grid), wanted)
    inputs = normalisation.normalise(torch.cat([grid, others], dim=1))
    inputs = inputs.to(next(model.parameters()))
    scores = logits(model, inputs)
    margin = prop.margin(scores.unsqueeze(0), Samples(inputs=inputs))
    unsafe = (margin <= 0) & prop.inside(inputs)
    shape = (resolution, resolution)
    return AdvisorySlice(
        distance=distance,
        angle=angle,
        advice=scores.argmin(dim=1).cpu().reshape(shape),
        unsafe=unsafe.cpu().reshape(shape),
        fixed=dict(fixed),
    )


def advisory_map(
    shown: AdvisorySlice,
    advisories: Sequence[str],
    *,
    outlined: Bool[Tensor, "rows columns"] | None = None,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """The advice by distance and angle in colours, one for each advisory, the unsafe part outlined.

    Args:
        shown: the slice.
        advisories: names of the advisories.
        outlined: what to outline, such as the part that was unsafe before a repair; by default
            what is unsafe in the slice.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: an advisory without a name.

    Example:
        >>> import torch
        >>> from carelab.show import safety_plots as plots
        >>> cut = plots.AdvisorySlice(distance=torch.arange(3.0), angle=torch.arange(2.0), fixed={},
        ...     advice=torch.zeros(3, 2, dtype=torch.long), unsafe=torch.eye(3, 2) > 0)
        >>> axes = plots.advisory_map(cut, ["COC", "WL"])
    """
    if int(shown.advice.max()) >= len(advisories):
        raise ValueError(
            f"advisories: got {len(advisories)} names for advisory {int(shown.advice.max())}; "
            "allowed: one for each"
        )
    ax = axes_or_new(ax)
    colours = _colours(len(advisories))
    _mesh(shown, shown.advice.numpy(), colours, ax)
    _outline(shown, shown.unsafe if outlined is None else outlined, ax)
    present = shown.advice.unique().tolist()
    handles: list[Patch | Line2D] = [
        Patch(facecolor=colours[number], label=advisories[number], edgecolor="0.4")
        for number in present
    ]
    handles.append(Line2D([], [], color="black", lw=1.5, label="unsafe before repair"))
    ax.legend(handles=handles, fontsize="small", loc="upper left", framealpha=0.9)
    return _labelled(shown, ax, label or "Advice")


def change_map(
    before: AdvisorySlice,
    after: AdvisorySlice,
    advisories: Sequence[str],
    *,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Where the advice changed, coloured by the new one; the part unsafe before is outlined.

    Args:
        before: the slice of the network given.
        after: the same slice of the repaired one.
        advisories: names of the advisories.
        ax: where to draw; a new figure by default.
        label: title of the axes; the share of points that changed is added.

    Raises:
        ValueError: slices of different grids.

    Example:
        >>> import torch
        >>> from carelab.show import safety_plots as plots
        >>> cut = plots.AdvisorySlice(distance=torch.arange(3.0), angle=torch.arange(2.0), fixed={},
        ...     advice=torch.zeros(3, 2, dtype=torch.long), unsafe=torch.eye(3, 2) > 0)
        >>> axes = plots.change_map(cut, cut, ["COC", "WL"])
    """
    if not torch.equal(before.distance, after.distance) or not torch.equal(
        before.angle, after.angle
    ):
        raise ValueError("before, after: got different grids; allowed: the same distances, angles")
    ax = axes_or_new(ax)
    changed = before.advice != after.advice
    cells = torch.where(changed, after.advice + 1, 0)
    colours = [(0.93, 0.93, 0.93), *_colours(len(advisories))]
    _mesh(after, cells.numpy(), colours, ax)
    _outline(before, before.unsafe, ax)
    handles: list[Patch | Line2D] = [Patch(facecolor=colours[0], label="same", edgecolor="0.4")]
    handles += [
        Patch(facecolor=colours[number], label=f"now {advisories[number - 1]}", edgecolor="0.4")
        for number in cells.unique().tolist()
        if number
    ]
    ax.legend(handles=handles, fontsize="small", loc="upper left", framealpha=0.9)
    share = 100 * float(changed.double().mean())
    return _labelled(after, ax, f"{label or 'Change'}: {share:.2f} % of this slice")


def safety_bars(
    measures: Mapping[str, Mapping[str, Interval]],
    *,
    names: Mapping[str, str] = _NAMES,
    constant: float | None = None,
    published: float | None = None,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Bars of several rates of each method with 95 % intervals, in percent.

    Args:
        measures: {method: {rate: its interval}}, rates as fractions.
        names: {rate: what the legend calls it}, in drawing order.
        constant: fidelity of the best constant advice, drawn as a dashed line.
        published: violation rate that CARE published as its bound, drawn as a dotted line.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: nothing to draw.

    Example:
        >>> from carelab.lab import interval
        >>> from carelab.show import safety_plots as plots
        >>> axes = plots.safety_bars({"ours": {"kept": interval([0.99, 1.0])}}, constant=0.87)
    """
    if not measures or not names:
        raise ValueError("measures, names: got none; allowed: at least one of each")
    ax = axes_or_new(ax)
    width = 0.84 / len(names)
    colours = sns.color_palette("colorblind", len(names))
    for number, (rate, name) in enumerate(names.items()):
        hatch = _HATCHES[number % len(_HATCHES)]
        ax.bar(0, 0, 0, color=colours[number], hatch=hatch, ec="white", label=name)
        for place, values in enumerate(measures.values()):
            if rate not in values:
                continue
            at = place + (number - (len(names) - 1) / 2) * width
            value = values[rate]
            mean, low, high = (100 * end for end in (value.mean, value.low, min(1.0, value.high)))
            error = None if value.n == 1 else [[mean - low], [max(0.0, high - mean)]]
            ax.bar(at, mean, width, yerr=error, color=colours[number], hatch=hatch, ec="white")
            text = f"{mean:.2f}" if mean < 99.995 else "100"
            ax.text(
                at, max(mean, high) + 1, text, ha="center", va="bottom", fontsize=7, rotation=90
            )
    if constant is not None:
        ax.axhline(100 * constant, color="0.3", ls="--", lw=1, label="constant advice, domain")
    if published is not None:
        ax.axhline(100 * published, color="0.3", ls=":", lw=1.2, label="CARE's published bound")
    ax.set_xticks(range(len(measures)), list(measures))
    ax.set_ylim(0, 165)
    ax.set_yticks(range(0, 101, 20))
    ax.set_ylabel("share of points (%)")
    ax.set_title(label or "Before and after repair")
    ax.legend(fontsize="small", loc="upper center", ncols=2)
    return ax


def _mesh(
    shown: AdvisorySlice,
    cells: np.ndarray,
    colours: Sequence[tuple[float, float, float]],
    ax: Axes,
) -> None:
    across, up = _axis_values(shown)
    ax.pcolormesh(
        across,
        up,
        cells,
        cmap=ListedColormap(list(colours)),
        vmin=-0.5,
        vmax=len(colours) - 0.5,
        shading="nearest",
        rasterized=True,
    )


def _outline(shown: AdvisorySlice, unsafe: Tensor, ax: Axes) -> None:
    if bool(unsafe.any()) and not bool(unsafe.all()):
        across, up = _axis_values(shown)
        ax.contour(
            across, up, unsafe.numpy().astype(float), levels=[0.5], colors="white", linewidths=2.6
        )
        ax.contour(
            across, up, unsafe.numpy().astype(float), levels=[0.5], colors="black", linewidths=1.4
        )


def _axis_values(shown: AdvisorySlice) -> tuple[np.ndarray, np.ndarray]:
    return np.degrees(shown.angle.numpy()), shown.distance.numpy() / _THOUSAND


def _labelled(shown: AdvisorySlice, ax: Axes, title: str) -> Axes:
    ax.grid(False)
    # Left is left, as the pilot sees it.
    across, _ = _axis_values(shown)
    ax.set_xlim(float(across.max()), float(across.min()))
    ax.set_xlabel("angle to the intruder (degrees, left positive)")
    ax.set_ylabel("distance (1000 ft)")
    ax.set_title(title)
    return ax


def _colours(count: int) -> list[tuple[float, float, float]]:
    return [tuple(colour) for colour in sns.color_palette("colorblind", count)]
