"""Figures of backdoors: what stands where, in which numbers, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import SymLogNorm

from carelab.lab import interval
from carelab.records import Interval, Neuron, Ranking, WholeLayer
from carelab.show import backdoor_plots as plots


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def ranking(effects: dict[Neuron | WholeLayer, float]) -> Ranking:
    places = torch.arange(1, len(effects) + 1)
    return Ranking(
        measure="fall when cured",
        units=tuple(effects),
        guilt=torch.tensor(list(effects.values()), dtype=torch.float64),
        standard_error=torch.zeros(len(effects), dtype=torch.float64),
        first=places,
        last=places,
        level=0.95,
    )


def test_published_rates_are_fractions_and_defence_success_becomes_attack_success():
    found = plots.published_rates("cifar10", "blend")
    # VeRe's table has 69.03 / 99.74 / 728 for CARE: 100 - 99.74 = 0.26 % of the attacks are left.
    assert found["care"] == pytest.approx(
        {"accuracy": 0.6903, "attack_success_rate": 0.0026, "seconds": 728}
    )
    assert found["before"] == pytest.approx({"accuracy": 0.8408, "attack_success_rate": 0.9472})
    assert plots.published_rates("cifar10", "warp") == {}


@pytest.mark.parametrize("attack", ["badnets", "blend"])
@pytest.mark.parametrize("dataset", ["mnist", "cifar10", "gtsrb"])
def test_every_published_repair_removes_the_attack_at_some_accuracy(dataset, attack):
    found = plots.published_rates(dataset, attack)
    assert found["before"]["attack_success_rate"] > 0.94
    for method in ("care", "vere"):
        # A defence success taken for an attack success would be near 1 here.
        assert 0 <= found[method]["attack_success_rate"] < 0.011
        assert 0.5 < found[method]["accuracy"] < found["before"]["accuracy"]


def test_every_layer_fills_its_row_whatever_its_width():
    effects = {Neuron("relu2", index): 0.01 * index for index in range(4)}
    effects |= {Neuron("relu1", 1): -0.5, Neuron("relu1", 0): 0.2}
    ax = plots.channel_effects(
        ranking(effects), ["relu1", "relu2", "relu3"], guilty=[Neuron("relu2", 3)]
    )
    narrow, wide = ax.collections
    assert np.asarray(narrow.get_array()).ravel().tolist() == [0.2, -0.5]
    assert np.asarray(wide.get_array()).ravel() == pytest.approx([0, 0.01, 0.02, 0.03])
    assert isinstance(narrow.norm, SymLogNorm)
    assert (narrow.norm.vmin, narrow.norm.vmax) == (-0.5, 0.5)
    # Unit 3 of 4 has its middle at 7/8 of the row.
    assert ax.lines[0].get_xydata().tolist() == [[87.5, 1]]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["relu1 (2)", "relu2 (4)"]
    assert "6 units, 1 guilty (crossed)" in ax.get_title()


def test_effects_that_are_all_zero_are_drawn():
    ax = plots.channel_effects(ranking({Neuron("relu1", 0): 0.0}), ["relu1"])
    assert ax.collections[0].norm(0.0) == 0.5


def test_channel_effects_refuse_units_without_a_place_in_the_rows():
    one = ranking({Neuron("relu1", 0): 0.1})
    with pytest.raises(ValueError, match=r"ranking: got relu1\[0\]; allowed: .* of relu2"):
        plots.channel_effects(one, ["relu2"])
    with pytest.raises(ValueError, match=r"relu1\[0, 1, 1\]"):
        plots.channel_effects(ranking({Neuron("relu1", 0, (1, 1)): 0.1}), ["relu1"])
    with pytest.raises(ValueError, match="got relu1;"):
        plots.channel_effects(ranking({WholeLayer("relu1"): 0.1}), ["relu1"])
    with pytest.raises(ValueError, match=r"guilty: got relu1\[7\]"):
        plots.channel_effects(one, ["relu1"], guilty=[Neuron("relu1", 7)])


def test_boxes_hold_the_quartiles_in_shares_of_the_largest_activation():
    clean = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])[:, None].expand(-1, 2)
    moved = torch.full((3, 2), 8.0)
    units = [Neuron("relu1", 4), Neuron("relu2", 0)]
    ax = plots.guilty_activations(clean, moved, units, most=1)
    # Two whiskers, two caps and the median of each box; medians 2 and 8 of at most 8.
    medians = [line.get_ydata()[0] for line in ax.lines[4::5]]
    assert medians == [0.25, 1.0]
    quartiles = ax.patches[0].get_path().vertices[:, 1]
    assert (quartiles.min(), quartiles.max()) == (1 / 8, 3 / 8)
    assert "first 1 of 2" in ax.get_title()
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["clean, n = 5", "triggered, n = 3"]


def test_a_unit_that_never_fires_is_drawn_at_zero():
    ax = plots.guilty_activations(torch.zeros(3, 1), torch.zeros(2, 1), [Neuron("relu1", 0)])
    assert all(np.isfinite(line.get_ydata()).all() for line in ax.lines)


def test_activations_are_refused_where_units_or_images_are_missing():
    with pytest.raises(ValueError, match="units: got 1 for 2 and 2 columns"):
        plots.guilty_activations(torch.ones(3, 2), torch.ones(3, 2), [Neuron("relu1", 0)])
    with pytest.raises(ValueError, match="clean, triggered: got 0 and 3 images"):
        plots.guilty_activations(torch.ones(0, 1), torch.ones(3, 1), [Neuron("relu1", 0)])


def test_bars_stand_in_percent_with_intervals_and_published_rates_beside_them():
    before = {"accuracy": interval([0.98, 0.98]), "attack_success_rate": interval([1.0, 1.0])}
    ours = {"accuracy": Interval(mean=0.97, low=0.96, high=0.99, n=3)}
    published = {"vere": {"accuracy": 0.9927, "attack_success_rate": 0.0017, "seconds": 108.0}}
    ax = plots.repair_bars({"before": before, "ours": ours}, published=published)
    heights = [bar.get_height() for bar in ax.patches if bar.get_width() > 0]
    # Accuracy of before, ours and VeRe, then the attack's success of before and VeRe.
    assert heights == pytest.approx([98, 97, 99.27, 100, 0.17])
    assert [text.get_text() for text in ax.texts] == ["98.0", "97.0", "99.3", "100.0", "0.2"]
    ends = [c.lines[2][0].get_segments()[0][:, 1].tolist() for c in _error_bars(ax)]
    assert ends[1] == pytest.approx([96, 99])
    assert len(ends) == 3  # published numbers have no interval
    ticks = [tick.get_text() for tick in ax.get_xticklabels()]
    assert ticks == ["before", "ours", "vere\npublished"]


def _error_bars(ax):
    return [one for one in ax.containers if type(one).__name__ == "ErrorbarContainer"]


def test_a_rate_that_no_network_has_takes_no_place():
    one = {"before": {"accuracy": interval([0.5, 0.5])}}
    ax = plots.repair_bars(one, names={"accuracy": "accuracy", "shifted": "success, shifted"})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["accuracy"]
    assert ax.patches[0].get_width() == pytest.approx(0.84)
    with pytest.raises(ValueError, match="names: got no rate that a network has"):
        plots.repair_bars(one, names={"shifted": "success, shifted"})


def test_bars_of_nothing_are_refused():
    with pytest.raises(ValueError, match="measures, names: got none"):
        plots.repair_bars({})
    with pytest.raises(ValueError, match="measures, names: got none"):
        plots.repair_bars({"before": {}}, names={})
