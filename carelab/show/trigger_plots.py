"""Figures of images and triggers: with and without, true and found, and the mask of a trigger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from carelab.data import MaskTrigger, Trigger
from carelab.records import Neuron, UnitEffects
from carelab.show.axes import axes_or_new

__all__ = ["image_grid", "mask_map", "place_map", "trigger_comparison", "trigger_sizes"]

_GAP = 1  # white pixels between two images


def image_grid(
    rows: Mapping[str, Float[Tensor, "_ _ _ _"]],
    *,
    columns: Sequence[str] = (),
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Images side by side, one row a batch, such as the same images with and without a trigger.

    Args:
        rows: {name of the row: its images (batch, channels, height, width)}, in [0, 1], grey or
            red, green and blue; all of one shape.
        columns: what is written above each column, or nothing.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: no image, rows of different shapes, another number of channels than 1 or 3,
            or of columns than images.

    Example:
        >>> import torch
        >>> from carelab.show import trigger_plots as plots
        >>> pictures = torch.rand(4, 1, 8, 8)
        >>> axes = plots.image_grid({"clean": pictures, "darker": pictures / 2}, columns="abcd")
    """
    shapes = {tuple(images.shape) for images in rows.values()}
    if len(shapes) != 1 or 0 in next(iter(shapes)) or next(iter(shapes))[1] not in (1, 3):
        raise ValueError(
            f"rows: got shapes {sorted(shapes)}; allowed: the same shape for all, at least one "
            "image, 1 or 3 channels"
        )
    ((count, _, height, width),) = shapes
    if columns and len(columns) != count:
        raise ValueError(f"columns: got {len(columns)} for {count} images; allowed: one for each")
    ax = axes_or_new(ax)
    high, wide = height + _GAP, width + _GAP
    canvas = np.ones((len(rows) * high - _GAP, count * wide - _GAP, 3))
    for row, images in enumerate(rows.values()):
        for column, image in enumerate(images.detach().cpu().clamp(0, 1)):
            picture = image.permute(1, 2, 0).expand(-1, -1, 3).numpy()
            top, left = row * high, column * wide
            canvas[top : top + height, left : left + width] = picture
    ax.imshow(canvas, interpolation="none")
    ax.grid(False)
    ax.set_yticks([row * high + (height - 1) / 2 for row in range(len(rows))], list(rows))
    places = [column * wide + (width - 1) / 2 for column in range(len(columns))]
    ax.set_xticks(places, list(columns), fontsize="small")
    ax.tick_params(length=0, bottom=False, labelbottom=False, labeltop=True)
    ax.spines[:].set_visible(False)
    ax.set_title(label or "Images")
    return ax


def trigger_comparison(
    true: Trigger,
    found: Sequence[Trigger],
    images: Float[Tensor, "batch channels height width"],
    *,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """What the true trigger and those that were found do to the same images.

    The title has mean |found(x) - true(x)| over the images, in grey levels from 0 to 1.

    Args:
        true: the attack's trigger.
        found: estimated or reconstructed triggers; none where the defender found none.
        images: images to put them on, such as a grey one (batch, channels, height, width).
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: what `image_grid` refuses, or images that a trigger does not fit.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> from carelab.show import trigger_plots as plots
        >>> true, near = (data.white_patch((1, 8, 8), size) for size in (2, 3))
        >>> axes = plots.trigger_comparison(true, [near], torch.full((1, 1, 8, 8), 0.5))
    """
    wanted = true(images)
    rows = {"no trigger": images, "true trigger": wanted}
    distances = []
    for number, trigger in enumerate(found, start=1):
        rows["found trigger" if len(found) == 1 else f"found trigger {number}"] = trigger(images)
        distances.append(float((trigger(images) - wanted).abs().mean()))
    said = ", ".join(f"{distance:.3f}" for distance in distances)
    title = f"mean distance {said} of 1" if found else "no trigger found"
    return image_grid(rows, ax=ax, label=f"{label or 'Triggers'}: {title}")


def mask_map(trigger: MaskTrigger, *, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Heat map of a trigger's mask: the share of its pattern that each pixel shows, in percent.

    Args:
        trigger: the trigger that was found.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Example:
        >>> import torch
        >>> from carelab.data import MaskTrigger
        >>> from carelab.show import trigger_plots as plots
        >>> found = MaskTrigger(mask=torch.rand(1, 8, 8), pattern=torch.rand(3, 8, 8))
        >>> axes = plots.mask_map(found)
    """
    ax = axes_or_new(ax)
    mask = trigger.mask[0].detach().cpu()
    image = ax.imshow(100 * mask.numpy(), cmap="cividis", vmin=0, vmax=100, interpolation="none")
    ax.grid(False)
    ax.set_xlabel("column (pixels)")
    ax.set_ylabel("row (pixels)")
    # In two lines: a title wider than the map would make the map small.
    ax.set_title(f"{label or 'Mask of the found trigger'}:\nsize {float(mask.sum()):.1f} pixels")
    ax.figure.colorbar(image, ax=ax, shrink=0.8).set_label("pattern shown (%)")
    return ax


def place_map(effects: UnitEffects, *, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Heat map of the effects at each place of a feature map, those of its channels summed.

    Args:
        effects: effects of positions of one layer, as of `networks.feature_positions`.
        ax: where to draw; a new figure by default.
        label: what the colour bar says; by default what the effects measure.

    Raises:
        ValueError: no unit, units that are no positions, or positions of several layers.

    Example:
        >>> import torch
        >>> from carelab import records
        >>> from carelab.show import trigger_plots as plots
        >>> units = tuple(records.Neuron("pool1", 0, (place, 0)) for place in range(3))
        >>> effects = records.UnitEffects(measure="fall when cured", units=units, samples=9,
        ...     effect=torch.rand(3).double(), covariance=torch.eye(3).double())
        >>> axes = plots.place_map(effects)
    """
    found = [unit for unit in effects.units if isinstance(unit, Neuron) and len(unit.position) == 2]
    if not found or len(found) < len(effects.units) or len({unit.layer for unit in found}) > 1:
        raise ValueError(
            f"effects: got {len(effects.units)} units, {len(found)} of them positions of maps; "
            "allowed: at least one, all positions of one layer"
        )
    ax = axes_or_new(ax)
    cells = np.zeros([1 + max(unit.position[axis] for unit in found) for axis in range(2)])
    for unit, effect in zip(found, effects.effect.tolist(), strict=True):
        cells[unit.position] += effect
    limit = float(np.abs(cells).max()) or 1.0
    image = ax.imshow(cells, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="none")
    ax.grid(False)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(f"column of {found[0].layer}")
    ax.set_ylabel("row")
    channels = len({unit.index for unit in found})
    ax.set_title(f"Where:\n{channels} channels summed")
    ax.figure.colorbar(image, ax=ax, shrink=0.8).set_label(label or effects.measure)
    return ax


def trigger_sizes(
    sizes: Mapping[str, Float[Tensor, " classes"]],
    targets: Sequence[int | None],
    *,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """The smallest trigger of each class, one column a network, the attacked class marked.

    Args:
        sizes: {name of the network: size of each class's smallest trigger, in pixels (classes)}.
        targets: the class attacked in each network, None where there is none.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: no network, or another number of targets than of networks.

    Example:
        >>> import torch
        >>> from carelab.show import trigger_plots as plots
        >>> sizes = {"clean": torch.rand(10), "attacked": torch.rand(10)}
        >>> axes = plots.trigger_sizes(sizes, [None, 3])
    """
    if not sizes or len(targets) != len(sizes):
        raise ValueError(
            f"targets: got {len(targets)} for {len(sizes)} networks; allowed: at least one "
            "network, and one target (or None) for each"
        )
    ax = axes_or_new(ax)
    for place, (values, target) in enumerate(zip(sizes.values(), targets, strict=True)):
        own = values.detach().cpu().double().clamp(min=0.01).numpy()
        others = np.delete(own, [] if target is None else [target])
        ax.scatter(
            [place] * len(others), others, s=18, color="C0", alpha=0.7, label="other classes"
        )
        if target is not None:
            ax.scatter([place], [own[target]], marker="D", s=36, color="C3", label="attacked class")
    ax.set_yscale("log")
    ax.set_xticks(range(len(sizes)), list(sizes), rotation=90, fontsize="small")
    ax.set_ylabel("size of the smallest trigger (pixels)")
    handles, names = ax.get_legend_handles_labels()
    first = dict(zip(names, handles, strict=True))
    # Beside the axes, since a network may have a point anywhere in them.
    ax.legend(first.values(), first.keys(), loc="upper left", bbox_to_anchor=(1, 1))
    ax.set_title(label or "Smallest trigger of each class")
    return ax
