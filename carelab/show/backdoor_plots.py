"""Figures of backdoors: guilty channels and their activations, and what every repair achieved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatterSciNotation
from torch import Tensor

from carelab.records import Interval, Neuron, Ranking
from carelab.show.axes import axes_or_new

__all__ = [
    "PUBLISHED_SOURCE",
    "channel_effects",
    "guilty_activations",
    "published_rates",
    "repair_bars",
]

PUBLISHED_SOURCE = (
    "VeRe (ICSE 2024), which also measured CARE: 1000 clean and 1000 triggered images, ReLU, a GPU"
)
# Accuracy (%) and attack success (%) before; then of CARE and of VeRe accuracy (%), 100 minus
# attack success (%), and seconds.
_PUBLISHED: Mapping[tuple[str, str], tuple[tuple[float, ...], ...]] = {
    ("badnets", "mnist"): ((99.70, 99.02), (99.68, 99.89, 394), (99.27, 99.83, 108)),
    ("badnets", "cifar10"): ((82.46, 99.97), (77.48, 99.50, 920), (81.63, 99.85, 102)),
    ("badnets", "gtsrb"): ((90.87, 98.91), (58.60, 99.82, 559), (90.32, 99.96, 58)),
    ("blend", "mnist"): ((99.72, 99.97), (92.80, 99.93, 990), (99.11, 99.97, 63)),
    ("blend", "cifar10"): ((84.08, 94.72), (69.03, 99.74, 728), (81.30, 98.96, 309)),
    ("blend", "gtsrb"): ((91.35, 98.79), (62.48, 99.56, 2018), (90.64, 99.09, 464)),
}
_MEASURES = {"accuracy": "accuracy on clean images", "attack_success_rate": "attack success"}
_HATCHES = ("", "//", "..", "xx", "\\\\")
_LINEAR = 0.02  # effects below this share of the largest are coloured linearly


def published_rates(dataset: str, attack: str) -> dict[str, dict[str, float]]:
    """Published accuracy and attack success, before repair and after CARE and VeRe, as fractions.

    Args:
        dataset: name of the data set, such as "mnist".
        attack: name of the attack, such as "badnets".

    Returns:
        {"before", "care", "vere": {"accuracy", "attack_success_rate", and but for "before"
        "seconds"}}; empty where nothing is published.

    Source: `PUBLISHED_SOURCE`; its defence success is 1 minus the attack success here.

    Example:
        >>> from carelab.show.backdoor_plots import published_rates
        >>> round(published_rates("mnist", "badnets")["care"]["attack_success_rate"], 4)
        0.0011
        >>> published_rates("digits", "badnets")
        {}
    """
    if (attack, dataset) not in _PUBLISHED:
        return {}
    (accuracy, success), *repaired = _PUBLISHED[attack, dataset]
    return {
        "before": {"accuracy": accuracy / 100, "attack_success_rate": success / 100},
        **{
            name: {
                "accuracy": kept / 100,
                "attack_success_rate": (100 - removed) / 100,
                "seconds": float(seconds),
            }
            for name, (kept, removed, seconds) in zip(("care", "vere"), repaired, strict=True)
        },
    }


def channel_effects(
    ranking: Ranking,
    layers: Sequence[str],
    *,
    guilty: Sequence[Neuron] = (),
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Heat map of one effect a channel or neuron, a row a layer; guilty units are crossed.

    Every layer fills its row, however many units it has, so that 16 channels show beside 512
    neurons. Small effects are coloured linearly and large ones by their logarithm.

    Args:
        ranking: the units with their effects.
        layers: names of the layers from input to output; those without units are left out.
        guilty: the units to mark.
        ax: where to draw; a new figure by default.
        label: what the colour bar says; by default what the ranking measures.

    Raises:
        ValueError: no unit, a unit that is no channel or neuron of the layers, or a guilty one
            that is not ranked.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, records, show
        >>> units = networks.hidden_neurons(networks.mlp(3, (4, 5), 2, generator=torch.Generator()))
        >>> effects = records.UnitEffects(measure="fall when cured", units=units, samples=9,
        ...     effect=torch.rand(9).double(), covariance=torch.eye(9).double())
        >>> ranking = causal.rank_units(effects)
        >>> axes = show.backdoor_plots.channel_effects(ranking, ["relu1", "relu2"])
    """
    unknown = [u for u in ranking.units if len(u.place) != 1 or u.layer not in layers]
    if unknown or not ranking.units:
        raise ValueError(
            f"ranking: got {', '.join(map(str, unknown)) or 'no unit'}; "
            f"allowed: channels and neurons of {', '.join(layers)}"
        )
    if missing := [str(unit) for unit in guilty if unit not in ranking.units]:
        raise ValueError(f"guilty: got {', '.join(missing)}; allowed: units of the ranking")
    ax = axes_or_new(ax)
    effects = {unit: float(one) for unit, one in zip(ranking.units, ranking.guilt, strict=True)}
    limit = max(map(abs, effects.values()))
    norm = SymLogNorm(_LINEAR * limit, vmin=-limit, vmax=limit) if limit else Normalize(-1, 1)
    shown = [layer for layer in layers if any(unit.layer == layer for unit in effects)]
    widths = {layer: 1 + max(u.place[0] for u in effects if u.layer == layer) for layer in shown}
    for row, layer in enumerate(shown):
        cells = np.full((1, widths[layer]), np.nan)
        for unit, effect in effects.items():
            if unit.layer == layer:
                cells[0, unit.place[0]] = effect
        edges = np.linspace(0, 100, widths[layer] + 1)
        mesh = ax.pcolormesh(edges, [row - 0.46, row + 0.46], cells, cmap="RdBu_r", norm=norm)
    if guilty:
        across = [100 * (unit.index + 0.5) / widths[unit.layer] for unit in guilty]
        down = [shown.index(unit.layer) for unit in guilty]
        ax.plot(across, down, "x", color="white", ms=7, mew=3.5)
        ax.plot(across, down, "x", color="black", ms=6, mew=1.5)
    ax.grid(False)
    ax.set_yticks(range(len(shown)), [f"{layer} ({widths[layer]})" for layer in shown])
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_xlabel("place in the layer, from its first (0 %) to its last (100 %) unit")
    ax.set_ylabel("layer (units)")
    ax.set_title(f"{len(effects)} units, {len(guilty)} guilty (crossed)")
    bar = ax.figure.colorbar(mesh, ax=ax)
    if limit:
        # The usual ticks of this scale crowd around 0.
        powers = [10.0 ** (math.floor(math.log10(limit)) - lower) for lower in (0, 1)]
        ends = [power for power in powers if power > _LINEAR * limit]
        bar.set_ticks([*(-end for end in ends), 0, *reversed(ends)])
        bar.ax.yaxis.set_major_formatter(LogFormatterSciNotation())
    bar.set_label(label or ranking.measure)
    return ax


def guilty_activations(
    clean: Float[Tensor, "clean units"],
    triggered: Float[Tensor, "triggered units"],
    units: Sequence[Neuron],
    *,
    most: int = 12,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Boxes of each unit's activation on clean and on triggered images, in shares of its largest.

    Boxes reach from quartile to quartile, whiskers from 5 to 95 % of the images.

    Args:
        clean: activation of each unit on each clean image (clean, units).
        triggered: the same on triggered images (triggered, units).
        units: the units, most guilty first.
        most: at most so many units are drawn.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: no image, or other numbers of columns than units.

    Example:
        >>> import torch
        >>> from carelab.records import Neuron
        >>> from carelab.show import backdoor_plots as plots
        >>> unit, clean = Neuron("relu1", 0), torch.rand(9, 1)
        >>> axes = plots.guilty_activations(clean, 2 * clean, [unit])
    """
    if not units or {len(units)} != {clean.shape[1], triggered.shape[1]}:
        raise ValueError(
            f"units: got {len(units)} for {clean.shape[1]} and {triggered.shape[1]} columns; "
            "allowed: one for each column, at least one"
        )
    if not len(clean) or not len(triggered):
        raise ValueError(
            f"clean, triggered: got {len(clean)} and {len(triggered)} images; allowed: at least 1"
        )
    ax = axes_or_new(ax)
    shown = list(units)[:most]
    largest = torch.cat([clean, triggered]).abs().amax(dim=0).clamp(min=1e-12)
    colours = sns.color_palette("colorblind", 2)
    handles = []
    for number, (name, values) in enumerate({"clean": clean, "triggered": triggered}.items()):
        share = (values / largest)[:, : len(shown)].detach().cpu().double().numpy()
        boxes = ax.boxplot(
            list(share.T),
            positions=np.arange(len(shown)) + 0.36 * (number - 0.5),
            widths=0.3,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            medianprops={"color": "black"},
        )
        for box in boxes["boxes"]:
            box.set(facecolor=colours[number], hatch=_HATCHES[number], edgecolor="0.2")
        handles.append(
            Patch(
                facecolor=colours[number],
                hatch=_HATCHES[number],
                edgecolor="0.2",
                label=f"{name}, n = {len(values)}",
            )
        )
    ax.set_xticks(range(len(shown)), [str(unit) for unit in shown], rotation=45, ha="right")
    ax.set_ylabel("activation / its largest value")
    rest = f", first {len(shown)} of {len(units)}" if len(shown) < len(units) else ""
    ax.set_title(f"{label or 'Guilty units'} (whiskers 5 to 95 %{rest})")
    # Room above the boxes, so that the legend covers none.
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.15 * (high - low))
    ax.legend(handles=handles, fontsize="small", loc="upper center", ncols=2)
    return ax


def repair_bars(
    measures: Mapping[str, Mapping[str, Interval]],
    *,
    names: Mapping[str, str] = _MEASURES,
    published: Mapping[str, Mapping[str, float]] | None = None,
    ax: Axes | None = None,
    label: str | None = None,
) -> Axes:
    """Bars of several rates of each network with 95 % intervals, in percent, beside published ones.

    Args:
        measures: {network: {rate: its interval}}, rates as fractions; a rate that a network lacks
            has no bar, and one that all lack no place.
        names: {rate: what the legend calls it}, in drawing order.
        published: {network: {rate}} that others published, drawn pale, right of a dashed line.
        ax: where to draw; a new figure by default.
        label: title of the axes.

    Raises:
        ValueError: nothing to draw.

    Example:
        >>> from carelab.lab import interval
        >>> from carelab.show import backdoor_plots as plots
        >>> one = {"accuracy": interval([0.98, 0.99]), "attack_success_rate": interval([0.0, 0.01])}
        >>> known = plots.published_rates("mnist", "badnets")
        >>> axes = plots.repair_bars({"ours": one}, published=known)
    """
    if not measures or not names:
        raise ValueError("measures, names: got none; allowed: at least one of each")
    ax = axes_or_new(ax)
    others = {} if published is None else published
    columns = [(network, dict(values), False) for network, values in measures.items()]
    for network, rates in others.items():
        exact = {
            rate: Interval(mean=value, low=value, high=value, n=1) for rate, value in rates.items()
        }
        columns.append((f"{network}\npublished", exact, True))
    names = {rate: name for rate, name in names.items() if any(rate in one[1] for one in columns)}
    if not names:
        raise ValueError("names: got no rate that a network has; allowed: at least one of theirs")
    width = 0.84 / len(names)
    colours = sns.color_palette("colorblind", len(names))
    for number, (rate, name) in enumerate(names.items()):
        for place, (_, values, pale) in enumerate(columns):
            if rate in values:
                at = place + (number - (len(names) - 1) / 2) * width
                _bar(ax, at, width, values[rate], colours[number], _HATCHES[number % 5], pale)
        ax.bar(0, 0, 0, color=colours[number], hatch=_HATCHES[number % 5], ec="white", label=name)
    if others:
        ax.axvline(len(measures) - 0.5, color="0.5", ls="--", lw=0.8)
    ax.set_xticks(range(len(columns)), [name.replace("_", " ") for name, _, _ in columns])
    ax.tick_params(axis="x", labelsize="small")
    ax.set_ylim(0, 100 + 12 * (1 + -(-len(names) // 2)))
    ax.set_yticks(range(0, 101, 20))
    ax.set_ylabel("share of the test images (%)")
    ax.set_title(label or "Before and after repair")
    ax.legend(fontsize="small", loc="upper center", ncols=2)
    return ax


def _bar(
    ax: Axes,
    at: float,
    width: float,
    value: Interval,
    colour: tuple[float, float, float],
    hatch: str,
    pale: bool,
) -> None:
    """One bar with its interval, where it has one, and its number on top."""
    mean, low, high = (100 * end for end in (value.mean, value.low, value.high))
    ax.bar(
        at,
        mean,
        width,
        yerr=None if value.n == 1 else [[mean - low], [high - mean]],
        color=colour,
        hatch=hatch,
        edgecolor="white",
        alpha=0.5 if pale else 1.0,
        error_kw={"lw": 1},
    )
    # A bar of half a percent cannot be seen; its number can.
    ax.text(at, high + 1, f"{mean:.1f}", ha="center", va="bottom", fontsize=7, rotation=90)
