"""Drawings of a small network with its numbers, as it is and under an intervention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor, nn

from carelab.causal import activations, do
from carelab.networks import hidden_layers
from carelab.records import Neuron, Unit
from carelab.show.axes import axes_or_new

__all__ = ["intervention", "network_drawing"]

_MOST_UNITS = 8
_HELD = "#d55e00"
_PLAIN = "#0173b2"
_GREY = "0.65"


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Column:
    """One column of a drawing: what its units are called, what they compute, who feeds them."""

    names: tuple[str, ...]
    values: Tensor
    weights: Tensor | None
    held: tuple[bool, ...]


def network_drawing(
    model: nn.Module,
    inputs: Float[Tensor, "1 features"],
    *,
    held: Mapping[Neuron, float] | None = None,
    features: Sequence[str] = (),
    names: Mapping[Neuron, str] | None = None,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """A small fully connected network with the numbers that it computes for one input.

    Weights stand on the arrows, and arrows of weight 0 are left out. A held neuron is a square,
    and the arrows into it are cut.

    Args:
        model: `Linear` layers with activations between, at most 8 units wide.
        inputs: one row.
        held: neurons held by do(), post-activation, with their values.
        features: what the inputs are called.
        names: {neuron: what it is called}, where that is not its layer and index.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: another kind of network, one that is too wide, or names that do not fit.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> from carelab.show.network_drawings import network_drawing
        >>> model = networks.mlp(2, (2, 1), 1, generator=torch.Generator().manual_seed(0))
        >>> held = {records.Neuron("relu1", 0): 1.0}
        >>> axes = network_drawing(model, torch.ones(1, 2), held=held)
    """
    columns = _columns(model, inputs, held or {}, features, names or {})
    ax = axes_or_new(ax)
    places = [
        [(float(across), (len(one.names) - 1) / 2 - row) for row in range(len(one.names))]
        for across, one in enumerate(columns)
    ]
    for across, column in enumerate(columns):
        if column.weights is not None:
            _draw_arrows(ax, places[across - 1], places[across], column)
    for own, column in zip(places, columns, strict=True):
        for place, name, value, is_held in zip(
            own, column.names, column.values.tolist(), column.held, strict=True
        ):
            _draw_unit(ax, place, name, value, is_held)
    tallest = max(len(one.names) for one in columns)
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylim(-tallest / 2 - 0.2, tallest / 2)
    ax.set_aspect("equal")
    ax.axis("off")
    ax.set_title(label or "The network")
    return ax


def intervention(
    figure: Figure,
    model: nn.Module,
    inputs: Float[Tensor, "batch features"],
    held: Mapping[Neuron, float],
    *,
    row: int = 0,
    features: Sequence[str] = (),
    names: Mapping[Neuron, str] | None = None,
) -> tuple[Axes, Axes]:
    """A small network under do() for one row, beside its output for every row with and without.

    Args:
        figure: an empty figure.
        model: a small network of one output.
        inputs: the rows.
        held: neurons held by do(), with their values; none leaves the network as it is.
        row: the row whose numbers are drawn.
        features: what the inputs are called.
        names: {neuron: what it is called}, where that is not its layer and index.

    Raises:
        ValueError: a row out of range, a network of several outputs, or one that is not small.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from carelab import networks
        >>> from carelab.show.network_drawings import intervention
        >>> model = networks.mlp(2, (2, 1), 1, generator=torch.Generator().manual_seed(0))
        >>> left, right = intervention(Figure(), model, torch.rand(4, 2), {})
    """
    with torch.no_grad():
        before = model(inputs)
        with do(model, _units(held)):
            after = model(inputs)
    if before.shape[1] != 1 or not 0 <= row < len(inputs):
        raise ValueError(
            f"model, row: got {before.shape[1]} outputs, row {row} of {len(inputs)}; "
            "allowed: one output, a row that is there"
        )
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    called = {neuron: (names or {}).get(neuron, str(neuron)) for neuron in held}
    said = ", ".join(f"{called[neuron]} = {value:g}" for neuron, value in held.items())
    network_drawing(
        model,
        inputs[row : row + 1],
        held=held,
        features=features,
        names=names,
        ax=left,
        label=f"Row {row + 1}" + (f" under do({said})" if said else ", nothing held"),
    )
    at = np.arange(len(inputs))
    _row_bars(right, at - 0.2, before[:, 0], "0.75", "", "as it is")
    _row_bars(right, at + 0.2, after[:, 0], _HELD, "//", "under do()")
    right.set_xticks(at, [str(number + 1) for number in at])
    right.set_xlabel("row")
    right.set_ylabel("output")
    right.axhline(0, color="0.3", lw=0.8)
    right.margins(y=0.12)
    # Below, where no bar is hidden by it.
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, frameon=False)
    right.set_title("Output of every row")
    return left, right


def _columns(
    model: nn.Module,
    inputs: Float[Tensor, "1 features"],
    held: Mapping[Neuron, float],
    features: Sequence[str],
    names: Mapping[Neuron, str],
) -> list[_Column]:
    layers = hidden_layers(model)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    widest = max([inputs.shape[1], *(module.out_features for module in linear)])
    if len(linear) != len(layers) + 1 or widest > _MOST_UNITS:
        raise ValueError(
            f"model: got {len(linear)} Linear layers, {len(layers)} activations, {widest} units "
            f"at the widest; allowed: an activation between every two, {_MOST_UNITS} units"
        )
    if features and len(features) != inputs.shape[1]:
        raise ValueError(f"features: got {len(features)} names for {inputs.shape[1]} inputs")
    with do(model, _units(held)), torch.no_grad():
        seen = activations(model, inputs, layers)
        outputs = model(inputs)
    read = tuple(features) or tuple(f"input {one + 1}" for one in range(inputs.shape[1]))
    columns = [_Column(names=read, values=inputs[0], weights=None, held=(False,) * inputs.shape[1])]
    for layer, module in zip(layers, linear, strict=False):
        neurons = [Neuron(layer, index) for index in range(module.out_features)]
        columns.append(
            _Column(
                names=tuple(names.get(neuron, str(neuron)) for neuron in neurons),
                values=seen[layer][0],
                weights=module.weight.detach(),
                held=tuple(neuron in held for neuron in neurons),
            )
        )
    count = outputs.shape[1]
    ends = ("output",) if count == 1 else tuple(f"output {one}" for one in range(count))
    last = _Column(
        names=ends, values=outputs[0], weights=linear[-1].weight.detach(), held=(False,) * count
    )
    return [*columns, last]


def _draw_arrows(
    ax: Axes,
    starts: Sequence[tuple[float, float]],
    ends: Sequence[tuple[float, float]],
    column: _Column,
) -> None:
    assert column.weights is not None
    for end, row, held in zip(ends, column.weights.tolist(), column.held, strict=True):
        for start, weight in zip(starts, row, strict=True):
            if weight == 0:
                continue
            ax.annotate(
                "",
                end,
                start,
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": _GREY if held else "0.2",
                    "ls": ":" if held else "-",
                    "lw": 2,
                    "shrinkA": 25,
                    "shrinkB": 27,
                },
            )
            middle = [(a + b) / 2 for a, b in zip(start, end, strict=True)]
            if held:
                ax.plot(*middle, "x", color=_HELD, ms=12, mew=3)
            else:
                text = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                ax.text(middle[0], middle[1], f"{weight:g}", ha="center", va="center", bbox=text)


def _draw_unit(
    ax: Axes, place: tuple[float, float], name: str, value: float, is_held: bool
) -> None:
    ax.add_line(
        Line2D(
            [place[0]],
            [place[1]],
            marker="s" if is_held else "o",
            ms=44,
            mfc=_HELD if is_held else _PLAIN,
            mec="white",
        )
    )
    ax.text(*place, f"{value:.3g}", color="white", ha="center", va="center", weight="bold")
    ax.annotate(name, place, xytext=(0, -27), textcoords="offset points", ha="center", va="top")


def _row_bars(
    ax: Axes, at: NDArray[np.floating], values: Tensor, colour: str, hatch: str, name: str
) -> None:
    mean = float(values.mean())
    bars = ax.bar(
        at,
        values.numpy(),
        0.4,
        color=colour,
        hatch=hatch,
        edgecolor="white",
        label=f"{name}: mean {mean:.3g}",
    )
    ax.bar_label(bars, [f"{one:.3g}" for one in values.tolist()])


def _units(held: Mapping[Neuron, float]) -> dict[Unit, float | Tensor]:
    return {neuron: value for neuron, value in held.items()}
