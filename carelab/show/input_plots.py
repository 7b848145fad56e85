"""The explorer's input sides for papers: counterfactuals, triggered pictures, slices of advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.container import BarContainer
from matplotlib.patches import Patch, Rectangle

from carelab.show.axes import axes_or_new

__all__ = [
    "CLASS_COLOURS",
    "answer_plane",
    "class_chances",
    "counterfactual_bars",
    "picture_answers",
]

_BLUE, _ORANGE = "#0072b2", "#d55e00"
# Okabe and Ito's: grey for the quiet answer, blues for left, oranges for right; as on the screen.
CLASS_COLOURS = (
    "#e8e8e8",
    "#56b4e9",
    "#e69f00",
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#f0e442",
    "#999999",
    "#332288",
)


def counterfactual_bars(
    scenery: Mapping[str, Any],
    drawing: Mapping[str, Any],
    *,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Chance of the last class for a row with every value of the sensitive feature.

    Args:
        scenery: what the row's side shows (`RowSide.scenery`).
        drawing: what the networks say of it (`RowSide.drawing`).
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show import explorer, input_plots
        >>> table = cl.data.embedded_credit(rows=200, generator=torch.Generator().manual_seed(0))
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> given = {"rows": table.test, "features": table.features, "classes": table.classes}
        >>> side = explorer.RowSide(prop=fair, **given)
        >>> said = side.drawing(torch.eye(3, 2), torch.zeros(3, 2))
        >>> axes = input_plots.counterfactual_bars(side.scenery(), said)
    """
    ax = axes_or_new(ax)
    names = ["this row", *scenery["variants"]]
    given = [drawing[name] for name in ("before", "after")]
    pairs = _before_and_now(ax, names, [[row[-1] for row in one["chances"]] for one in given])
    for bars, one in zip(pairs, given, strict=True):
        ax.bar_label(bars, ["flips" if flips else "" for flips in one["flips"]], padding=3)
    ax.axvline(50, color="0.3", lw=0.8)
    ax.set_xlim(0, 112)
    ax.set_xlabel(f"chance of {scenery['classes'][-1]} (%)")
    ax.set_title(label or f"Test row {scenery['number']} and its counterfactuals")
    return ax


def class_chances(
    scenery: Mapping[str, Any],
    drawing: Mapping[str, Any],
    *,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Chance of every class for the image that is shown large, before and now.

    Args:
        scenery: what the pictures' side shows (`PictureSide.scenery`).
        drawing: what the networks say of them (`PictureSide.drawing`).
        ax: where to draw; a new figure by default.
        label: title of the axes; by default the true class, with or without trigger.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show import explorer, input_plots
        >>> digits = cl.data.digits(generator=torch.Generator().manual_seed(0))
        >>> few, patch = digits.test.take(slice(0, 3)), cl.data.white_patch((1, 8, 8))
        >>> side = explorer.PictureSide(images=few, trigger=patch, classes=digits.classes)
        >>> said = side.drawing(torch.eye(6, 10), torch.eye(6, 10))
        >>> axes = input_plots.class_chances(side.scenery(), said)
    """
    ax = axes_or_new(ax)
    count = len(scenery["labels"])
    at = scenery["at"] + (count if scenery["on"] else 0)
    _before_and_now(
        ax, scenery["classes"], [drawing[name]["chances"][at] for name in ("before", "after")]
    )
    ax.set_xlim(0, 100)
    ax.set_xlabel("chance (%)")
    true = scenery["classes"][scenery["labels"][scenery["at"]]]
    how = "with" if scenery["on"] else "without"
    ax.set_title(label or f"True class {true}, {how} trigger")
    return ax


def picture_answers(
    scenery: Mapping[str, Any],
    drawing: Mapping[str, Any],
    images: np.ndarray,
    *,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Images with and without the trigger, with the answers of the original network and now.

    Args:
        scenery: what the pictures' side shows (`PictureSide.scenery`).
        drawing: what the networks say of them (`PictureSide.drawing`).
        images: the images, clean ones first (rows, channels, height, width), in [0, 1].
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show import explorer, input_plots
        >>> digits = cl.data.digits(generator=torch.Generator().manual_seed(0))
        >>> few, patch = digits.test.take(slice(0, 3)), cl.data.white_patch((1, 8, 8))
        >>> side = explorer.PictureSide(images=few, trigger=patch, classes=digits.classes)
        >>> said = side.drawing(torch.eye(6, 10), torch.eye(6, 10))
        >>> axes = input_plots.picture_answers(side.scenery(), said, side.inputs().numpy())
    """
    ax = axes_or_new(ax)
    count, classes = len(scenery["labels"]), scenery["classes"]
    _, channels, height, width = images.shape
    space = max(2, height // 4)
    canvas = np.ones((2 * (height + space), count * (width + 2), 3))
    for place, image in enumerate(images):
        row, column = divmod(place, count)
        top, left = row * (height + space), column * (width + 2)
        shown = np.repeat(image, 3, axis=0) if channels == 1 else image
        canvas[top : top + height, left : left + width] = np.moveaxis(shown, 0, -1)
        before, after = (drawing[name]["labels"][place] for name in ("before", "after"))
        wrong = after != scenery["labels"][column]
        ax.text(
            left + width / 2,
            top + height + space / 2,
            f"{classes[before]} → {classes[after]}",
            ha="center",
            va="center",
            fontsize="small",
            color=_ORANGE if wrong else "black",
        )
    ax.imshow(canvas.clip(0, 1), interpolation="none")
    ax.set_yticks([height / 2, height + space + height / 2], ["clean", "trigger"])
    ax.set_xticks([])
    ax.grid(False)
    ax.set_title(label or "Answers, original → now")
    return ax


def answer_plane(
    scenery: Mapping[str, Any],
    drawing: Mapping[str, Any],
    which: str = "before",
    *,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """A plane through the inputs coloured by the answer, unsafe cells and the box outlined.

    Args:
        scenery: what the slice shows (`SliceSide.scenery`).
        drawing: what the networks say of it (`SliceSide.drawing`).
        which: "before", the original network, or "after", the network now.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: another name of a network.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show import explorer, input_plots
        >>> box = {"low": torch.zeros(2), "high": torch.ones(2)}
        >>> side = explorer.SliceSide(prop=cl.properties.never_lowest(0, 2, **box),
        ...     features=("a", "b"), classes=("stay", "go"), point=torch.ones(2) / 2, **box)
        >>> said = side.drawing(side.inputs(), side.inputs())
        >>> input_plots.answer_plane(side.scenery(), said).get_title()
        'original network, unsafe 50 % of the box shown'
    """
    if which not in ("before", "after"):
        raise ValueError(f"which: got {which!r}; allowed: before, after")
    ax = axes_or_new(ax)
    given, shape = drawing[which], (scenery["rows"], scenery["columns"])
    answers = np.array([int(one) for one in given["answers"]]).reshape(shape)
    unsafe = np.array([int(one) for one in given["unsafe"]]).reshape(shape)
    across, up = scenery["axes"]
    left, right = scenery["low"][across], scenery["high"][across]
    bottom, top = scenery["low"][up], scenery["high"][up]
    classes = scenery["classes"]
    colours = ListedColormap([CLASS_COLOURS[at % len(CLASS_COLOURS)] for at in range(len(classes))])
    ax.imshow(
        answers,
        origin="lower",
        extent=(left, right, bottom, top),
        aspect="auto",
        cmap=colours,
        vmin=-0.5,
        vmax=len(classes) - 0.5,
        interpolation="none",
    )
    xs = np.linspace(left, right, shape[1] + 1)
    ys = np.linspace(bottom, top, shape[0] + 1)
    for width, colour in ((3.5, "white"), (1.5, "black")):
        _outline(ax, unsafe, xs, ys, lw=width, color=colour)
    for box in scenery["boxes"]:
        corner = (box["low"][0], box["low"][1])
        sides = (box["high"][0] - box["low"][0], box["high"][1] - box["low"][1])
        ax.add_patch(Rectangle(corner, *sides, fill=False, ec="black", ls="--", lw=1))
    ax.grid(False)
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    ax.set_xlabel(scenery["features"][across])
    ax.set_ylabel(scenery["features"][up])
    name = label or ("original network" if which == "before" else "network now")
    ax.set_title(f"{name}, unsafe {100 * given['unsafe_share']:.2g} % of the box shown")
    seen = [
        Patch(fc=CLASS_COLOURS[at % len(CLASS_COLOURS)], ec="0.4", label=one)
        for at, one in enumerate(classes)
        if (answers == at).any()
    ]
    ax.legend(
        handles=[*seen, Patch(fc="none", ec="black", lw=1.5, label="unsafe")],
        fontsize="small",
        loc="upper right",
    )
    return ax


def _before_and_now(
    ax: Axes, names: Sequence[str], chances: Sequence[Sequence[float]]
) -> list[BarContainer]:
    """Two bars a name, in percent: of the original network and of the network now."""
    at = np.arange(len(names))
    looks = (("original", "0.75"), ("now", _BLUE))
    drawn = [
        ax.barh(at + 0.36 * shift, [100 * one for one in given], 0.34, color=colour, label=title)
        for shift, (given, (title, colour)) in enumerate(zip(chances, looks, strict=True))
    ]
    ax.set_yticks(at + 0.18, list(names))
    ax.invert_yaxis()
    ax.legend(fontsize="small")
    return drawn


def _outline(ax: Axes, marks: np.ndarray, xs: np.ndarray, ys: np.ndarray, **style: Any) -> None:
    """The border between cells that are marked and cells that are not."""
    padded = np.pad(marks, 1)
    for row, column in zip(*np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1]), strict=True):
        ax.plot([xs[column], xs[column]], [ys[row], ys[row + 1]], **style)
    for row, column in zip(*np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1]), strict=True):
        ax.plot([xs[column], xs[column + 1]], [ys[row], ys[row]], **style)
