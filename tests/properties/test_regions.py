import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.properties import (
    OutputRegion,
    OutputRegions,
    Property,
    forbidden_class,
    never_lowest,
    required_lowest,
    violates,
    violation_rate,
)
from carelab.records import Samples


def samples(count: int) -> Samples:
    return Samples(inputs=torch.zeros(count, 2, dtype=torch.float64))


def drawn(seed: int, *shape: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=g)


def test_by_hand() -> None:
    # Unsafe where y0 <= 1 and y0 + y1 <= 3. (0, 2): rows -1, -1, inside by 1; (2, 0): 1, -1,
    # held out by 1; (1, 2): 0, 0, on the border, which is unsafe.
    region = OutputRegion(
        matrix=torch.tensor([[1.0, 0.0], [1.0, 1.0]]), limits=torch.tensor([1.0, 3.0]), scale=0.5
    )
    outputs = torch.tensor([[[0.0, 2.0], [2.0, 0.0], [1.0, 2.0]]], dtype=torch.float64)
    assert region.margin(outputs, samples(3)).tolist() == [-1, 1, 0]
    expected = torch.sigmoid(torch.tensor([2.0, -2.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(region.score(outputs, samples(3)), expected)
    assert float(region.rate(outputs, samples(3))) == pytest.approx(2 / 3)


def test_are_properties() -> None:
    assert isinstance(forbidden_class(0, 3), Property)
    assert isinstance(required_lowest([0], 3), Property)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), one=st.integers(0, 4), two=st.integers(0, 4))
def test_ready_made_properties_say_what_their_names_say(seed: int, one: int, two: int) -> None:
    outputs = drawn(seed, 3, 1, 30, 5)
    highest, lowest = outputs[:, 0].argmax(dim=-1), outputs[:, 0].argmin(dim=-1)
    rows = samples(30)
    assert torch.equal(forbidden_class(one, 5).margin(outputs, rows) < 0, highest == one)
    assert torch.equal(never_lowest(one, 5).margin(outputs, rows) < 0, lowest == one)
    found = required_lowest([one, two], 5).margin(outputs, rows) < 0
    assert torch.equal(found, (lowest != one) & (lowest != two))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_score_margin_and_rate_agree(seed: int) -> None:
    region = OutputRegion(matrix=drawn(seed, 3, 4), limits=drawn(seed + 1, 3) + 1)
    union = OutputRegions(regions=(region, never_lowest(2, 4)))
    outputs, rows = 2 * drawn(seed + 2, 6, 1, 25, 4), samples(25)
    for prop in (region, union):
        margin, score = prop.margin(outputs, rows), prop.score(outputs, rows)
        assert torch.equal(margin < 0, score > 0.5)
        torch.testing.assert_close(prop.rate(outputs, rows), (margin < 0).double().mean(dim=-1))
    parts = [part.margin(outputs, rows) for part in union.regions]
    torch.testing.assert_close(union.margin(outputs, rows), torch.minimum(*parts))


def test_moving_along_a_constraint_changes_its_margin_alike() -> None:
    region = forbidden_class(1, 3)
    outputs = drawn(0, 1, 8, 3)
    raised = outputs.clone()
    raised[..., 1] += 0.7
    torch.testing.assert_close(
        region.margin(raised, samples(8)), region.margin(outputs, samples(8)) - 0.7
    )


def test_inside_the_box() -> None:
    low, high = torch.tensor([0.0, -1.0]), torch.tensor([1.0, 1.0])
    region = forbidden_class(0, 2, low=low, high=high)
    inputs = torch.tensor([[0.5, 0.0], [1.0, 1.0], [1.5, 0.0], [0.5, -2.0]], dtype=torch.float64)
    assert region.inside(inputs).tolist() == [True, True, False, False]
    assert forbidden_class(0, 2).inside(inputs).all()
    both = OutputRegions(regions=(region, forbidden_class(1, 2, low=torch.tensor([1.2, -5.0]))))
    assert both.inside(inputs).tolist() == [True, True, True, False]


def test_on_a_network() -> None:
    # Scores (x0, x1): class 0 is never to be the highest.
    model = torch.nn.Sequential(torch.nn.Linear(2, 2).double())
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[0].bias.zero_()
    rows = Samples(inputs=torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64))
    prop = forbidden_class(0, 2)
    assert violates(model.eval(), rows, prop).tolist() == [True, False]
    assert violation_rate(model, rows, prop) == 0.5


def test_misuse() -> None:
    with pytest.raises(ValueError, match="matrix: got"):
        OutputRegion(matrix=torch.zeros(1, 3), limits=torch.zeros(1))
    with pytest.raises(ValueError, match="at least one row"):
        OutputRegion(matrix=torch.zeros(0, 3), limits=torch.zeros(0))
    with pytest.raises(ValueError, match="scale: got 0"):
        forbidden_class(0, 3, scale=0.0)
    with pytest.raises(ValueError, match="low, high: got"):
        forbidden_class(0, 3, low=torch.ones(2), high=torch.zeros(2))
    with pytest.raises(ValueError, match="forbidden, classes: got 3, 3"):
        forbidden_class(3, 3)
    with pytest.raises(ValueError, match="forbidden, classes: got 0, 1"):
        never_lowest(0, 1)
    with pytest.raises(ValueError, match="allowed: got"):
        required_lowest([0, 1, 2], 3)
    with pytest.raises(ValueError, match="regions: got 2, of"):
        OutputRegions(regions=(forbidden_class(0, 3), forbidden_class(0, 4)))
    with pytest.raises(ValueError, match="3 columns for a network of 4 outputs"):
        forbidden_class(0, 3).margin(torch.zeros(1, 2, 4), samples(2))
