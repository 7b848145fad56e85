from __future__ import annotations

import pytest
import torch
from matplotlib.colors import to_rgb
from torch import nn

from carelab.networks import mlp
from carelab.networks.architectures import in_a_row
from carelab.show.bound_drawings import bounds_drawing, value_band


def tent() -> nn.Sequential:
    """y = 3 - relu(x) - relu(-x)."""
    model = mlp(1, (2,), 1, generator=torch.Generator())
    state = {
        "linear1.weight": torch.tensor([[1.0], [-1.0]]),
        "linear1.bias": torch.zeros(2),
        "linear2.weight": torch.tensor([[-1.0, -1.0]]),
        "linear2.bias": torch.tensor([3.0]),
    }
    model.load_state_dict(state)
    return model


def test_bands_by_hand():
    # Intervals: both neurons reach 1. Lines: (x + 1) / 2 and (1 - x) / 2 add up to 1.
    for lines, least in ((False, 1.0), (True, 2.0)):
        ends, lower, upper = value_band(tent(), -1, 1, lines=lines)
        assert ends.tolist() == [-1, 1]
        assert lower[0].tolist() == pytest.approx([least, least], abs=1e-9)
        assert float(upper.min()) >= 3 - 1e-9 - (lines and 1)
    _, lower, _ = value_band(tent(), -1, 1, parts=2)
    assert lower.tolist() == [pytest.approx([2, 2], abs=1e-9)] * 2


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_no_output_leaves_the_band(seed, lines):
    model = mlp(1, (6, 5), 1, generator=torch.Generator().manual_seed(seed))
    ends, lower, upper = value_band(model, -2, 3, parts=7, lines=lines)
    for part in range(7):
        shares = torch.linspace(0, 1, 50, dtype=torch.float64)
        inputs = ends[part] + shares * (ends[part + 1] - ends[part])
        outputs = model.double()(inputs[:, None]).flatten().detach()
        below = lower[part, 0] + shares * (lower[part, 1] - lower[part, 0])
        above = upper[part, 0] + shares * (upper[part, 1] - upper[part, 0])
        assert bool((below - 1e-9 <= outputs).all())
        assert bool((outputs <= above + 1e-9).all())


def test_open_parts_have_another_colour_and_a_hatch():
    # On the parts between -1, -1/3, 1/3, 1 the intervals start at 2, 3 - 2/3 and 2.
    axes = bounds_drawing(tent(), -1, 1, parts=3, limit=2.2, view=(-1, 4))
    assert axes.get_ylim() == (-1, 4)
    colours = [tuple(part.get_facecolor()[0][:3]) for part in axes.collections]
    assert colours[0] == colours[2] == pytest.approx(to_rgb("#de8f05"))
    assert colours[1] == pytest.approx(to_rgb("#0173b2"))
    assert [part.get_hatch() for part in axes.collections] == ["//", None, "//"]
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["still open", "proved", "network", "limit 2.2"]
    assert axes.get_title() == "intervals, 3 parts: y is at least 2"


def test_misuse():
    with pytest.raises(ValueError, match=r"model: has 2 inputs and 1 outputs; allowed: one"):
        value_band(in_a_row([nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)]), 0, 1)
    with pytest.raises(ValueError, match=r"parts, low, high: got 0, 0, 1"):
        value_band(tent(), 0, 1, parts=0)
    with pytest.raises(ValueError, match=r"parts, low, high: got 1, 2, 1"):
        bounds_drawing(tent(), 2, 1)
