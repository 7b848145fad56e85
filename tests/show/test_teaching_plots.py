"""Figures for lessons: what is on them, and what they refuse."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from carelab import networks
from carelab.causal.uncertainty import mean_contrasts
from carelab.records import Neuron
from carelab.show.network_drawings import intervention, network_drawing
from carelab.show.teaching_plots import decision_map, guilt_scatter, share_bars

NEURONS = tuple(Neuron("relu1", index) for index in range(3))


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture
def small():
    """h1 = max(0, a), h2 = max(0, 2 b), h3 = max(0, h1 - h2), output h3."""
    model = networks.mlp(2, (2, 1), 1, generator=torch.Generator().manual_seed(0))
    weights = {
        "linear1.weight": [[1.0, 0.0], [0.0, 2.0]],
        "linear1.bias": [0.0, 0.0],
        "linear2.weight": [[1.0, -1.0]],
        "linear2.bias": [0.0],
        "linear3.weight": [[1.0]],
        "linear3.bias": [0.0],
    }
    model.load_state_dict({name: torch.tensor(one) for name, one in weights.items()})
    return model


@pytest.fixture
def signs():
    """Class 1 where the first of two inputs is positive, class 0 elsewhere."""
    model = networks.mlp(2, (2,), 2, generator=torch.Generator().manual_seed(0))
    weights = {
        "linear1.weight": [[1.0, 0.0], [-1.0, 0.0]],
        "linear1.bias": [0.0, 0.0],
        "linear2.weight": [[0.0, 1.0], [1.0, 0.0]],
        "linear2.bias": [0.0, 0.0],
    }
    model.load_state_dict({name: torch.tensor(one) for name, one in weights.items()})
    return model


def _texts(ax):
    return [text.get_text() for text in ax.texts]


def test_a_drawing_shows_every_number_and_leaves_out_arrows_of_weight_0(small):
    axes = network_drawing(small, torch.tensor([[3.0, 1.0]]), features=["a", "b"])
    texts = _texts(axes)
    for shown in ("3", "2", "1", "a", "b", "relu1[0]", "relu1[1]", "relu2[0]", "output"):
        assert shown in texts
    # Five of the seven weights are not 0; each arrow is one annotation without a text.
    assert texts.count("") == 5
    assert "-1" in texts


def test_a_held_neuron_is_a_square_and_its_arrows_are_cut(small):
    held = {Neuron("relu1", 1): 5.0}
    axes = network_drawing(small, torch.tensor([[3.0, 1.0]]), held=held, names={NEURONS[0]: "h1"})
    assert [line.get_marker() for line in axes.lines].count("s") == 1
    assert [line.get_marker() for line in axes.lines].count("x") == 1
    assert {"5", "0", "h1", "relu1[1]"} <= set(_texts(axes))  # max(0, 3 - 5) = 0


def test_drawings_refuse_what_they_cannot_show(small):
    wide = networks.mlp(2, (9,), 1, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="model: got 2 Linear layers, 1 activations, 9 units"):
        network_drawing(wide, torch.ones(1, 2))
    with pytest.raises(ValueError, match="features: got 1 names for 2 inputs"):
        network_drawing(small, torch.ones(1, 2), features=["a"])


def test_an_intervention_shows_every_row_with_and_without(small):
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 1.0], [4.0, 1.0]])
    held = {Neuron("relu1", 1): 2.0}
    _, right = intervention(Figure(), small, rows, held, row=3, names={Neuron("relu1", 1): "h2"})
    heights = [bar.get_height() for bar in right.patches]
    assert heights == [1, 2, 1, 2, 0, 0, 1, 2]
    labels = right.get_legend_handles_labels()[1]
    assert labels == ["as it is: mean 1.5", "under do(): mean 0.75"]
    left, _ = intervention(Figure(), small, rows, held, row=3, names={Neuron("relu1", 1): "h2"})
    assert left.get_title() == "Row 4 under do(h2 = 2)"
    assert intervention(Figure(), small, rows, {})[0].get_title() == "Row 1, nothing held"
    with pytest.raises(ValueError, match="row 4 of 4"):
        intervention(Figure(), small, rows, held, row=4)
    two = networks.mlp(2, (2,), 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="got 2 outputs"):
        intervention(Figure(), two, rows, {})


def test_a_map_colours_each_half_by_its_class_and_outlines_the_box(signs):
    low, high = -torch.ones(2), torch.ones(2)
    axes = decision_map(signs, low, high, box=(low / 2, high / 2), marked=1, points=10)
    picture = axes.images[0].get_array()
    left, right = picture[:, :5], picture[:, 5:]
    assert (left == left[0, 0]).all()
    assert (right == right[0, 0]).all()
    assert (left[0, 0] != right[0, 0]).any()
    (box,) = [one for one in axes.patches if isinstance(one, Rectangle)]
    assert (box.get_xy(), box.get_width(), box.get_height()) == ((-0.5, -0.5), 1, 1)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["class 0", "class 1 (forbidden in the box)"]


def test_a_map_under_do_is_that_of_the_held_network(signs):
    low, high = -torch.ones(2), torch.ones(2)
    held = {Neuron("relu1", 0): 9.0}
    axes = decision_map(signs, low, high, marked=0, held=held, points=8)
    picture = axes.images[0].get_array()
    assert (picture == picture[0, 0]).all()  # class 1 everywhere
    assert "class 1" in [text.get_text() for text in axes.get_legend().get_texts()]
    with pytest.raises(ValueError, match="allowed: low below high, at least 2 points"):
        decision_map(signs, high, low)


def test_a_scatter_has_a_point_for_every_neuron_in_its_group():
    effects = mean_contrasts("fall", NEURONS, [torch.tensor([[0.0, 1.0], [5.0, 6.0], [2.0, 0.0]])])
    correlations = dict(zip(NEURONS, (0.9, -0.8, 0.1), strict=True))
    groups = {"guilty": NEURONS[:1], "decoys": NEURONS[1:2]}
    axes = guilt_scatter(correlations, effects, groups=groups, named=NEURONS[:1])
    offsets = [collection.get_offsets().tolist() for collection in axes.collections]
    assert offsets == [
        [[pytest.approx(0.9), pytest.approx(0.5)]],
        [[pytest.approx(0.8), pytest.approx(5.5)]],
        [[pytest.approx(0.1), pytest.approx(1.0)]],
    ]
    assert _texts(axes) == ["relu1[0]"]
    assert axes.get_ylabel() == "fall"
    with pytest.raises(ValueError, match=r"correlations: got none of relu1\[2\]"):
        guilt_scatter({one: 0.0 for one in NEURONS[:2]}, effects)


def test_bars_of_shares_are_in_percent_and_of_small_ones_short():
    axes = share_bars({"before": {"a": 0.5, "b": -0.1}, "after": {"a": 0.02, "b": 0.0}})
    assert [round(bar.get_width(), 6) for bar in axes.patches] == [50, 2, -10, 0]
    assert "50 %" in _texts(axes)
    assert share_bars({"one": {"a": 0.001}}).get_xlim()[1] == 25
    with pytest.raises(ValueError, match="allowed: the same for every case"):
        share_bars({"x": {"a": 1.0}, "y": {"b": 1.0}})
    with pytest.raises(ValueError, match="shares: got the keys"):
        share_bars({})
