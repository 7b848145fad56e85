"""The explorer's pictures for papers: what stands where, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.colors as mcolors
import numpy as np
import pytest
import torch
from matplotlib import pyplot

from carelab.data import white_patch
from carelab.properties import never_lowest
from carelab.records import Neuron, Samples, UnitEffects, WholeLayer
from carelab.show import input_plots, neuron_plots
from carelab.show.explorer import Change, PictureSide, SliceSide
from tests.show.explorer_worlds import credit_engine


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def engine():
    return credit_engine()


def _effects(numbers: list[float], units: list | None = None) -> UnitEffects:
    count = len(numbers)
    return UnitEffects(
        measure="drop",
        units=tuple(units or [Neuron("relu1", at) for at in range(count)]),
        effect=torch.tensor(numbers, dtype=torch.float64),
        covariance=torch.zeros(count, count, dtype=torch.float64),
        samples=9,
    )


def test_the_map_has_a_cell_for_every_neuron_and_an_outline_for_the_guilty(engine):
    ax = neuron_plots.neuron_map(engine.guilt, guilty=engine.guilty[:3])
    (cells,) = ax.collections
    assert len(cells.get_paths()) == 14
    np.testing.assert_allclose(cells.get_array(), engine.guilt.effect.numpy().clip(min=0))
    assert len(ax.patches) == 3
    assert [text.get_text() for text in ax.texts] == ["1", "2", "3"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["relu1\n8", "relu2\n6"]
    assert "3 guilty outlined" in ax.get_title()


def test_signed_effects_are_coloured_around_zero():
    (cells,) = neuron_plots.neuron_map(_effects([-0.5, 0.0, 1.0])).collections
    assert isinstance(cells.norm, mcolors.TwoSlopeNorm)
    assert cells.norm(0.0) == pytest.approx(0.5)
    (cells,) = neuron_plots.neuron_map(_effects([0.0, 1.0])).collections
    assert cells.get_cmap().name == "cividis"


def test_a_map_of_whole_layers_is_refused():
    with pytest.raises(ValueError, match="effects: got a whole layer or a position"):
        neuron_plots.neuron_map(_effects([1.0], [WholeLayer("relu1")]))


def test_a_curve_has_its_interval_and_the_score_untouched(engine):
    one = engine.portrait(engine.guilty[0])
    ax = neuron_plots.neuron_curve(one)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), one.expectation.numpy())
    assert set(ax.lines[1].get_ydata()) == {one.unmodified}
    assert len(ax.collections) == 1
    ax = neuron_plots.neuron_curve(one, now=engine.effects)
    assert [text.get_text() for text in ax.get_legend().get_texts()][-1] == "after repair"


def test_histograms_are_of_both_kinds_of_inputs(engine):
    one = engine.portrait(engine.guilty[0])
    ax = neuron_plots.activation_histograms(one)
    behave, misbehave = ax.patches
    np.testing.assert_allclose(behave.get_data().values, one.behaving.numpy())
    np.testing.assert_allclose(misbehave.get_data().values, one.misbehaving.numpy())


def test_bars_say_by_how_much_a_reading_changed(engine):
    engine.change(engine.neurons, Change(value=0.0))
    readings = engine.readings()
    engine.clear()
    ax = neuron_plots.reading_bars(readings)
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == pytest.approx(
        [100 * one.before for one in readings] + [100 * one.now for one in readings]
    )
    expected = f"{100 * readings[1].now:.1f} % ({100 * readings[1].change:+.1f})"
    assert expected in [text.get_text() for text in ax.texts]
    with pytest.raises(ValueError, match="readings: got none"):
        neuron_plots.reading_bars([])


def test_counterfactuals_say_where_the_label_flips(engine):
    drawing = engine.drawing()
    ax = input_plots.counterfactual_bars(engine.side.scenery(), drawing)
    flips = sum(text.get_text() == "flips" for text in ax.texts)
    assert flips == sum(drawing["before"]["flips"]) + sum(drawing["after"]["flips"]) > 0


def test_pictures_carry_the_answers_below_them():
    images = Samples(inputs=torch.rand(2, 1, 4, 4), labels=torch.tensor([0, 1]))
    side = PictureSide(images=images, trigger=white_patch((1, 4, 4), 1), classes=("zero", "one"))
    answers = side.drawing(torch.eye(2).repeat(2, 1), torch.tensor([[1.0, 0.0]] * 4))
    ax = input_plots.picture_answers(side.scenery(), answers, side.inputs().numpy())
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["zero → zero", "one → zero"] * 2
    canvas = np.asarray(ax.images[0].get_array())
    np.testing.assert_allclose(canvas[:4, :4, 0], images.inputs[0, 0].numpy(), rtol=1e-6)


def test_class_chances_are_those_of_the_image_shown_large():
    images = Samples(inputs=torch.rand(2, 1, 4, 4), labels=torch.tensor([0, 1]))
    side = PictureSide(images=images, trigger=white_patch((1, 4, 4), 1), classes=("zero", "one"))
    outputs = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [0.0, 0.0]])
    answers = side.drawing(outputs, outputs.flip(0))
    triggered = input_plots.class_chances(side.scenery(), answers)
    assert triggered.get_title() == "True class zero, with trigger"
    before, now = ([bar.get_width() for bar in bars] for bars in triggered.containers)
    assert before == pytest.approx([0.01, 99.99], abs=0.01)
    assert now == pytest.approx([99.99, 0.01], abs=0.01)
    clean = input_plots.class_chances(side.edited({"on": False}).scenery(), answers)
    assert clean.get_title() == "True class zero, without trigger"
    assert [bar.get_width() for bar in clean.containers[0]] == [50, 50]


def test_a_slice_shows_answers_and_outlines_what_is_unsafe():
    box = {"low": torch.zeros(2), "high": torch.ones(2)}
    side = SliceSide(
        prop=never_lowest(0, 2, **box),
        features=("a", "b"),
        classes=("stay", "go"),
        point=torch.zeros(2),
        columns=3,
        rows=2,
        **box,
    )
    outputs = torch.tensor([[0.0, 1.0]] + [[1.0, 0.0]] * 5)  # class 0 only in the lower left cell
    drawing = side.drawing(outputs, outputs.flip(1))
    ax = input_plots.answer_plane(side.scenery(), drawing)
    shown = np.asarray(ax.images[0].get_array())
    assert shown.tolist() == [[0, 1, 1], [1, 1, 1]]
    # Four sides of one cell, each drawn twice: white below black.
    assert len(ax.lines) == 8
    assert "unsafe 17 %" in ax.get_title()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")
    after = input_plots.answer_plane(side.scenery(), drawing, "after")
    assert "network now" in after.get_title()
    with pytest.raises(ValueError, match="which: got 'later'"):
        input_plots.answer_plane(side.scenery(), drawing, "later")
