from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from carelab.data import inner_box, uniform_points

NUMBERS = st.floats(-1e3, 1e3, allow_subnormal=False)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4))
def test_the_inner_box_is_inside_and_as_large_as_can_be(pairs):
    ends = torch.tensor([sorted(pair) for pair in pairs], dtype=torch.float64)
    low, high = ends.T[0], ends.T[1] + 1e-3
    inner_low, inner_high = inner_box(low, high)
    assert inner_low.dtype == torch.float32
    assert bool((inner_low.double() >= low).all())
    assert bool((inner_high.double() <= high).all())
    below = torch.nextafter(inner_low, torch.full_like(inner_low, -torch.inf))
    above = torch.nextafter(inner_high, torch.full_like(inner_high, torch.inf))
    assert bool((below.double() < low).all())
    assert bool((above.double() > high).all())


def test_points_fill_the_box_and_never_leave_it():
    low = torch.tensor([0.6, -0.5, 0.25], dtype=torch.float64)
    high = torch.tensor([0.679857769, 0.5, 0.25], dtype=torch.float64)
    points = uniform_points(low, high, 20_000, generator=torch.Generator().manual_seed(0)).inputs
    assert points.dtype == torch.float32
    assert bool(((points.double() >= low) & (points.double() <= high)).all())
    # Standard error of the mean: width / sqrt(12 n), 0.002 of the width.
    shares = ((points.double() - low) / (high - low))[:, :2]
    assert shares.mean(dim=0).tolist() == pytest.approx([0.5, 0.5], abs=0.01)
    assert shares.var(dim=0).tolist() == pytest.approx([1 / 12, 1 / 12], abs=0.003)
    assert bool((points[:, 2] == 0.25).all())


def test_equal_generators_give_equal_points():
    low, high = torch.zeros(3), torch.ones(3)
    first, second = (
        uniform_points(low, high, 5, generator=torch.Generator().manual_seed(4)).inputs
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_misuse():
    generator = torch.Generator()
    with pytest.raises(ValueError, match="count: got 0; allowed: 1 or more"):
        uniform_points(torch.zeros(1), torch.ones(1), 0, generator=generator)
    with pytest.raises(ValueError, match="allowed: low at most high"):
        uniform_points(torch.ones(1), torch.zeros(1), 1, generator=generator)
    with pytest.raises(ValueError, match="allowed: finite numbers, as many in each"):
        inner_box(torch.zeros(1), torch.tensor([torch.inf]))
    # 0.1 in float64 lies between two float32 numbers.
    tenth = torch.tensor([0.1], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"with a number of type torch.float32 between them"):
        inner_box(tenth, tenth)
