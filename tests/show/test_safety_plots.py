"""Figures of controllers: what they show is what the network advises."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch

from carelab import networks, properties
from carelab.lab import interval
from carelab.show import safety_plots as plots

NAMES = ("COC", "WL", "WR")
FEET = networks.Normalisation(
    means=torch.tensor([0.0, 0.0, 10.0]), ranges=torch.tensor([1000.0, 2.0, 10.0])
)
WINDOW = torch.tensor([[0.0, -1.0], [1000.0, 1.0]])


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def _left_or_right() -> torch.nn.Module:
    """Advice 1 where the angle is positive, 2 where negative: scores (0, -angle, angle)."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.0, 0, 0], [0, -1.0, 0], [0, 1.0, 0]]))
    return model


def _cut(model=None, resolution: int = 10) -> plots.AdvisorySlice:
    prop = properties.never_lowest(
        1, 3, low=torch.tensor([0.5, -0.5, -9.0]), high=torch.tensor([1.0, 0.5, 9.0])
    )
    return plots.advisory_slice(
        model or _left_or_right(), prop, FEET, WINDOW, {"speed": 20.0}, resolution=resolution
    )


def test_a_slice_holds_the_advice_and_what_is_unsafe_in_the_box():
    cut = _cut()
    assert cut.advice[:, 0].tolist() == [2] * 10
    assert cut.advice[:, -1].tolist() == [1] * 10
    # Unsafe: advice 1 in the box, whose distances begin at half of 1000 ft.
    assert cut.unsafe[:5].any() == torch.tensor(False)
    assert cut.unsafe[5:, -1].all()
    assert not cut.unsafe[:, 0].any()
    assert cut.fixed == {"speed": 20.0}


def test_the_map_names_the_advisories_that_occur_and_left_is_left():
    ax = plots.advisory_map(_cut(), NAMES, label="before")
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["WL", "WR", "unsafe before repair"]
    assert ax.get_xlim()[0] > ax.get_xlim()[1]
    assert ax.get_title() == "before"


def test_the_change_map_says_how_much_changed():
    constant = torch.nn.Sequential(torch.nn.Linear(3, 3)).eval()
    with torch.no_grad():
        constant[0].weight.zero_()
        constant[0].bias.copy_(torch.tensor([0.0, 0.0, -1.0]))
    before, after = _cut(), _cut(constant)
    ax = plots.change_map(before, after, NAMES, label="repair")
    assert ax.get_title() == "repair: 50.00 % of this slice"
    same = plots.change_map(before, before, NAMES)
    assert [text.get_text() for text in same.get_legend().get_texts()] == ["same"]


def test_the_bars_show_the_means_the_constant_and_what_was_published():
    measures = {
        "before": {"kept": interval([1.0])},
        "ours": {"kept": interval([0.5, 0.7]), "violation_rate": interval([0.0, 0.02])},
    }
    ax = plots.safety_bars(measures, constant=0.87, published=0.01)
    heights = [bar.get_height() for bar in ax.patches if bar.get_width() > 0]
    assert sorted(round(height, 6) for height in heights) == [1.0, 60.0, 100.0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["before", "ours"]
    assert {round(line.get_ydata()[0], 6) for line in ax.lines if len(line.get_ydata()) == 2} >= {
        87.0,
        1.0,
    }


def test_misuse():
    with pytest.raises(ValueError, match="got 1, "):
        _cut(resolution=1)
    cut = _cut()
    with pytest.raises(ValueError, match="advisories: got 2 names for advisory 2"):
        plots.advisory_map(cut, NAMES[:2])
    with pytest.raises(ValueError, match="different grids"):
        plots.change_map(cut, _cut(resolution=11), NAMES)
    with pytest.raises(ValueError, match="measures, names: got none"):
        plots.safety_bars({})
