from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import matplotlib
import pytest
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure

from carelab.causal import average_causal_effect, expectation_drop, neuron_effects
from carelab.records import CausalEffects, Interval, Neuron, Performance, Repair, WholeLayer
from carelab.show import plots
from tests.tables import fairness, network, rows

NAMES = {"unfair_rate_given": "given", "unfair_rate_rows": "rows"}


def interval(mean: float, half: float = 0.05) -> Interval:
    return Interval(mean=mean, low=mean - half, high=mean + half, n=5)


def measures() -> dict[str, dict[str, Interval]]:
    return {
        "before": {
            "accuracy": interval(0.9),
            "unfair_rate_given": interval(0.8),
            "unfair_rate_rows": interval(0.2, 0.02),
        },
        "after": {
            "accuracy": interval(0.88, 0.01),
            "unfair_rate_given": interval(0.3, 0.1),
            "unfair_rate_rows": interval(0.1, 0.03),
        },
    }


def repair(seed: int, history: Sequence[float]) -> Repair:
    performance = Performance(accuracy=1.0, violation_rate=0.5)
    return Repair(
        method="care",
        property_name="none",
        neurons=(),
        factors=torch.zeros(0),
        before=performance,
        after=performance,
        history=torch.tensor(history),
        seconds=0.0,
        seed=seed,
        network="",
        repaired="",
        edits=(),
        status="improved",
    )


@pytest.fixture(scope="module")
def effects() -> CausalEffects:
    """Effects of the 6 + 5 + 3 neurons of a small network."""
    return neuron_effects(network(), rows(40), fairness(), steps=5)


@pytest.fixture
def ax() -> Axes:
    """Axes of a figure that pyplot does not know."""
    return Figure().add_subplot()


def every_plot(effects: CausalEffects) -> dict[str, Callable[..., Axes]]:
    """Each plot with something to draw, waiting for `ax` and `label`."""
    return {
        "causal_curves": lambda **knobs: plots.causal_curves(effects, effects.neurons[:2], **knobs),
        "effect_map": lambda **knobs: plots.effect_map(expectation_drop(effects), **knobs),
        "convergence": lambda **knobs: plots.convergence([repair(0, [1.0, 0.5])], **knobs),
        "rates": lambda **knobs: plots.rates(measures(), NAMES, **knobs),
        "trade_off": lambda **knobs: plots.trade_off(measures(), **knobs),
    }


@pytest.fixture(params=sorted(set(plots.__all__) - {"note_data"}))
def draw(request: pytest.FixtureRequest, effects: CausalEffects) -> Callable[..., Axes]:
    """One plot after the other; a new one without an entry above fails here."""
    return every_plot(effects)[request.param]


@pytest.fixture
def _no_figure_stays() -> Iterator[None]:
    before = pyplot.get_fignums()
    yield
    assert pyplot.get_fignums() == before


def legend(ax: Axes) -> list[str]:
    found = ax.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


@pytest.mark.usefixtures("_no_figure_stays")
def test_a_plot_draws_into_the_axes_given_and_leaves_everything_else(
    draw: Callable[..., Axes], ax: Axes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyplot, "show", lambda *_args, **_knobs: pytest.fail("it shows a window"))
    monkeypatch.setattr(Figure, "savefig", lambda *_args, **_knobs: pytest.fail("it saves"))
    settings = dict(matplotlib.rcParams)
    assert draw(ax=ax) is ax
    assert ax.has_data()
    assert dict(matplotlib.rcParams) == settings


def test_without_axes_there_is_a_new_figure(draw: Callable[..., Axes]) -> None:
    before = pyplot.get_fignums()
    own, other = draw(), draw()
    try:
        assert len(pyplot.get_fignums()) == len(before) + 2
        assert own.figure is not other.figure
    finally:
        pyplot.close(own.figure)
        pyplot.close(other.figure)
    assert pyplot.get_fignums() == before


def test_the_label_is_shown_and_the_axes_say_what_they_measure(
    draw: Callable[..., Axes], ax: Axes
) -> None:
    draw(ax=ax, label="a label of mine")
    figure = ax.figure
    assert isinstance(figure, Figure)
    titles = [ax.get_title(), *(one.get_ylabel() for one in figure.axes)]
    assert any("a label of mine" in title for title in titles)
    named = ax.get_ylabel() or [tick.get_text() for tick in ax.get_yticklabels()]
    assert named
    assert ax.get_xlabel() or [tick.get_text() for tick in ax.get_xticklabels()]


def test_percent_stands_on_rates_only(effects: CausalEffects) -> None:
    percent = {}
    for name, draw in every_plot(effects).items():
        ax = draw(ax=Figure().add_subplot())
        percent[name] = "(%)" in ax.get_xlabel() + ax.get_ylabel()
    assert {name for name, shown in percent.items() if shown} == {"rates", "trade_off"}


def test_causal_curves_are_the_effects_with_their_interval(
    effects: CausalEffects, ax: Axes
) -> None:
    neurons = [effects.neurons[row] for row in (8, 0, 3)]
    plots.causal_curves(effects, neurons, ax=ax)
    ace, error = average_causal_effect(effects)
    curves = [line for line in ax.lines if line.get_label() in map(str, neurons)]
    assert legend(ax) == [str(neuron) for neuron in neurons]
    assert len(curves) == len(ax.collections) == 3
    for row, curve, band in zip((8, 0, 3), curves, ax.collections, strict=True):
        assert list(curve.get_ydata()) == pytest.approx(ace[row].tolist())
        ends = band.get_paths()[0].vertices[:, 1]
        assert ends.min() == pytest.approx(float((ace[row] - 1.96 * error[row]).min()))
        assert ends.max() == pytest.approx(float((ace[row] + 1.96 * error[row]).max()))
    assert len({(line.get_color(), line.get_linestyle()) for line in curves}) == 3
    assert len({line.get_linestyle() for line in curves}) == 3
    assert "95 % interval, n = 40)" in ax.get_title()


def test_more_curves_than_fit_are_counted(effects: CausalEffects, ax: Axes) -> None:
    plots.causal_curves(effects, effects.neurons, ax=ax, most=4)
    assert len(ax.collections) == 4
    assert "n = 40, first 4 of 14" in ax.get_title()


def test_effect_map_has_a_cell_for_each_neuron_and_a_cross_on_the_guilty(
    effects: CausalEffects, ax: Axes
) -> None:
    guilty = [Neuron(effects.neurons[-1].layer, 2), effects.neurons[4]]
    plots.effect_map(expectation_drop(effects), guilty=guilty, ax=ax, label="drop")
    (image,) = ax.images
    grid = image.get_array()
    assert grid is not None
    assert grid.shape == (3, 6)
    assert grid.count() == 14
    shown = [grid[row, index] for row, width in enumerate((6, 5, 3)) for index in range(width)]
    assert shown == pytest.approx(expectation_drop(effects).effect.tolist())
    assert image.get_cmap().name == "cividis"
    crosses = next(line for line in ax.lines if line.get_label() == "guilty")
    places = list(zip(crosses.get_xdata(), crosses.get_ydata(), strict=True))
    assert places == [(2, 2), (4, 0)]
    layers = list(dict.fromkeys(neuron.layer for neuron in effects.neurons))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == layers
    assert ax.get_title() == "14 neurons, n = 40 samples"


def test_effect_map_without_guilty_neurons_has_no_cross(effects: CausalEffects, ax: Axes) -> None:
    plots.effect_map(expectation_drop(effects), ax=ax)
    assert not ax.lines
    assert ax.get_legend() is None


def test_effect_map_has_no_place_for_layers_and_positions(effects: CausalEffects, ax: Axes) -> None:
    drop = expectation_drop(effects)
    for unit in (WholeLayer("relu1"), Neuron("relu1", 0, (1, 2))):
        mixed = replace(drop, units=(*drop.units[:-1], unit))
        with pytest.raises(ValueError, match="effects: got a whole layer or a position; allowed"):
            plots.effect_map(mixed, ax=ax)


def test_convergence_is_one_line_a_repair(ax: Axes) -> None:
    plots.convergence([repair(3, [0.9, 0.5, 0.4]), repair(8, [0.8])], ax=ax)
    assert [list(line.get_ydata()) for line in ax.lines] == [
        pytest.approx([0.9, 0.5, 0.4]),
        pytest.approx([0.8]),
    ]
    assert legend(ax) == ["seed 3", "seed 8"]
    assert len({line.get_linestyle() for line in ax.lines}) == 2


def test_rates_are_bars_in_percent_with_their_intervals(ax: Axes) -> None:
    plots.rates(measures(), NAMES, ax=ax)
    bars = [one for one in ax.containers if isinstance(one, BarContainer)]
    heights = [[bar.get_height() for bar in container] for container in bars]
    assert heights == [pytest.approx([80, 20]), pytest.approx([30, 10])]
    drawn = [bar.errorbar.lines[2][0].get_segments() for bar in bars]
    ends = [[tuple(segment[:, 1]) for segment in segments] for segments in drawn]
    assert ends[0] == [pytest.approx((75, 85)), pytest.approx((18, 22))]
    assert ends[1] == [pytest.approx((20, 40)), pytest.approx((7, 13))]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["given", "rows"]
    assert ax.get_ylabel() == "unfair rate (%)"
    assert len({container[0].get_hatch() for container in bars}) == 2
    edges = [(bar.get_x(), bar.get_x() + bar.get_width()) for one in bars for bar in one]
    assert edges[0][1] <= edges[2][0] + 1e-9, "bars of two networks stand side by side"


def test_trade_off_marks_each_network_with_both_intervals(ax: Axes) -> None:
    plots.trade_off(measures(), others=[(0.7, 0.4), (0.6, 0.3)], ax=ax)
    marks = [one for one in ax.containers if isinstance(one, ErrorbarContainer)]
    assert len(marks) == 2
    for mark, values in zip(marks, measures().values(), strict=True):
        line, _, bars = mark.lines
        assert line is not None
        rate, accuracy = values["unfair_rate_rows"], values["accuracy"]
        assert (line.get_xdata()[0], line.get_ydata()[0]) == pytest.approx(
            (100 * accuracy.mean, 100 * rate.mean)
        )
        across, up = (bar.get_segments()[0] for bar in bars)
        assert list(across[:, 0]) == pytest.approx([100 * accuracy.low, 100 * accuracy.high])
        assert list(up[:, 1]) == pytest.approx([100 * rate.low, 100 * rate.high])
    dots = next(line for line in ax.lines if line.get_label() == "other repairs tried")
    assert list(dots.get_xdata()) == pytest.approx([70, 60])
    assert list(dots.get_ydata()) == pytest.approx([40, 30])
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        "accuracy on test rows (%)",
        "unfair rate rows (%)",
    )


def test_trade_off_of_another_rate(ax: Axes) -> None:
    plots.trade_off(measures(), rate="unfair_rate_given", ax=ax)
    lines = [one.lines[0] for one in ax.containers if isinstance(one, ErrorbarContainer)]
    assert [line.get_ydata()[0] for line in lines if line] == pytest.approx([80, 30])
    assert ax.get_ylabel() == "unfair rate given (%)"


def test_the_note_on_the_data_stands_below_the_panels() -> None:
    figure = Figure()
    plots.note_data(figure, "Data: embedded-census (generated)")
    (note,) = figure.texts
    assert note.get_text() == "Data: embedded-census (generated)"
    assert note.get_position()[1] < 0


def test_a_figure_can_be_drawn_from_all_of_them(effects: CausalEffects, tmp_path) -> None:
    figure = Figure(layout="constrained")
    for ax, draw in zip(figure.subplots(2, 3).flat, every_plot(effects).values(), strict=False):
        draw(ax=ax)
    figure.savefig(tmp_path / "all.png")
    assert (tmp_path / "all.png").stat().st_size > 10_000


@pytest.mark.usefixtures("_no_figure_stays")
def test_misuse(effects: CausalEffects) -> None:
    with pytest.raises(ValueError, match="neurons: got none; allowed: neurons of the effects"):
        plots.causal_curves(effects, [])
    with pytest.raises(ValueError, match=r"neurons: got \['elsewhere\[0\]'\]"):
        plots.causal_curves(effects, [effects.neurons[0], Neuron("elsewhere", 0)])
    with pytest.raises(ValueError, match="repairs: got none; allowed: at least one"):
        plots.convergence([])
    with pytest.raises(ValueError, match="measures, names: got none"):
        plots.rates({}, NAMES)
    with pytest.raises(ValueError, match="measures, names: got none"):
        plots.rates(measures(), {})
    with pytest.raises(ValueError, match="measures: got none; allowed: at least one network"):
        plots.trade_off({})


def test_every_plot_takes_axes_and_a_label_by_keyword() -> None:
    for name in set(plots.__all__) - {"note_data"}:
        knobs = inspect.signature(getattr(plots, name)).parameters
        for knob in ("ax", "label"):
            assert knobs[knob].kind is inspect.Parameter.KEYWORD_ONLY
            assert knobs[knob].default is None
