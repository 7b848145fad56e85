"""Figures of images and triggers: what stands where, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from carelab.data import MaskTrigger, white_patch
from carelab.records import Neuron, UnitEffects
from carelab.show import trigger_plots as plots


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    pyplot.close("all")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_holds_every_image_at_its_place(channels):
    first, second = torch.rand(2, channels, 2, 3), torch.rand(2, channels, 2, 3)
    ax = plots.image_grid({"clean": first, "triggered": second}, columns=["a", "b"])
    canvas = np.asarray(ax.images[0].get_array())
    # Two rows of height 2 and two columns of width 3, one white pixel between.
    assert canvas.shape == (5, 7, 3)
    expected = second[1].permute(1, 2, 0).expand(-1, -1, 3).numpy()
    np.testing.assert_allclose(canvas[3:, 4:], expected, rtol=1e-6)
    assert (canvas[2] == 1).all()
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["clean", "triggered"]
    assert ax.get_xticks().tolist() == [1, 5]


def test_a_grid_refuses_what_it_cannot_lay_out():
    image = torch.rand(2, 1, 2, 2)
    with pytest.raises(ValueError, match="rows: got shapes"):
        plots.image_grid({"a": image, "b": image[:1]})
    with pytest.raises(ValueError, match="1 or 3 channels"):
        plots.image_grid({"a": torch.rand(1, 2, 2, 2)})
    with pytest.raises(ValueError, match="columns: got 1 for 2 images"):
        plots.image_grid({"a": image}, columns=["a"])
    with pytest.raises(ValueError, match="rows: got"):
        plots.image_grid({})


def test_the_comparison_states_how_far_the_found_trigger_is():
    true = white_patch((1, 4, 4), 1)
    grey = torch.full((1, 1, 4, 4), 0.5)
    mask = torch.zeros(1, 4, 4)
    nothing = MaskTrigger(mask=mask, pattern=mask)
    ax = plots.trigger_comparison(true, [nothing], grey)
    # One of 16 pixels is white instead of 0.5 grey: 0.5 / 16 = 0.031.
    assert ax.get_title() == "Triggers: mean distance 0.031 of 1"
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names == ["no trigger", "true trigger", "found trigger"]
    without = plots.trigger_comparison(true, [], grey, label="Patch")
    assert without.get_title() == "Patch: no trigger found"
    assert len(without.get_yticks()) == 2


def test_a_mask_is_drawn_in_percent_with_its_size():
    mask = torch.tensor([[[0.0, 0.25], [1.0, 0.5]]])
    ax = plots.mask_map(MaskTrigger(mask=mask, pattern=torch.zeros(3, 2, 2)))
    assert np.asarray(ax.images[0].get_array()).tolist() == [[0, 25], [100, 50]]
    assert "size 1.8 pixels" in ax.get_title()


def test_the_attacked_class_is_marked_among_the_sizes():
    sizes = {"clean": torch.tensor([3.0, 4.0, 5.0]), "attacked": torch.tensor([3.0, 0.0, 5.0])}
    ax = plots.trigger_sizes(sizes, [None, 1])
    places = [np.asarray(dots.get_offsets()).tolist() for dots in ax.collections]
    # A trigger without a pixel has no logarithm: it stands at a hundredth.
    assert places == [[[0, 3], [0, 4], [0, 5]], [[1, 3], [1, 5]], [[1, 0.01]]]
    assert ax.get_yscale() == "log"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "other classes",
        "attacked class",
    ]
    for wrong in ({}, {"a": torch.ones(2), "b": torch.ones(2)}):
        with pytest.raises(ValueError, match=f"targets: got 1 for {len(wrong)} networks"):
            plots.trigger_sizes(wrong, [None])


def test_effects_of_channels_add_up_at_their_place():
    units = [Neuron("pool1", channel, (0, column)) for channel in (0, 1) for column in range(3)]
    effects = UnitEffects(
        measure="fall when cured",
        units=tuple(units),
        effect=torch.tensor([1.0, 2, 3, 10, 20, -30]).double(),
        covariance=torch.eye(6).double(),
        samples=9,
    )
    ax = plots.place_map(effects)
    assert np.asarray(ax.images[0].get_array()).tolist() == [[11, 22, -27]]
    assert ax.images[0].get_clim() == (-27, 27)
    assert "2 channels" in ax.get_title()
    for wrong in ((Neuron("relu1", 0),), (units[0], Neuron("pool2", 0, (0, 0)))):
        few = replace(
            effects,
            units=wrong,
            effect=torch.ones(len(wrong)).double(),
            covariance=torch.eye(len(wrong)).double(),
        )
        with pytest.raises(ValueError, match=f"effects: got {len(wrong)} units"):
            plots.place_map(few)
