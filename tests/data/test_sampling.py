import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.data import sample_box
from carelab.data.sampling import crossed_rows, part_rows, split
from carelab.records import Dataset, Feature, Samples


def box() -> Dataset:
    """A number in [-2, 3], a code among 1, 5, 7, and a one-hot group of three."""
    rows = Samples(inputs=torch.zeros(1, 5, dtype=torch.float64), labels=torch.zeros(1).long())
    return Dataset(
        name="box",
        source="by hand",
        sha256="",
        licence="MIT",
        features=(
            Feature(
                name="number", columns=(3,), values=torch.tensor([[3.0], [-2.0]]), continuous=True
            ),
            Feature(name="code", columns=(4,), values=torch.tensor([[1.0], [5.0], [7.0]])),
            Feature(name="group", columns=(0, 1, 2), values=torch.eye(3)),
        ),
        sensitive=("group",),
        classes=("no", "yes"),
        train=rows,
        selection=rows,
        test=rows,
    )


def test_box_rows_are_uniform_in_every_feature() -> None:
    drawn = sample_box(box(), 9000, generator=torch.Generator().manual_seed(0))
    rows = drawn.inputs
    assert drawn.labels is None
    assert rows.dtype == torch.float64
    assert rows[:, :3].sum(dim=1).eq(1).all()
    assert rows[:, :3].unique().tolist() == [0, 1]
    assert rows[:, 4].unique().tolist() == [1, 5, 7]
    # Standard error of a share of 1/3 among 9000 rows: 0.005.
    torch.testing.assert_close(
        rows[:, :3].mean(dim=0), torch.full((3,), 1 / 3, dtype=torch.float64), atol=0.02, rtol=0
    )
    assert rows[:, 3].min() >= -2
    assert rows[:, 3].max() <= 3
    quarters = torch.histc(rows[:, 3], bins=4, min=-2, max=3) / 9000
    torch.testing.assert_close(
        quarters, torch.full((4,), 0.25, dtype=torch.float64), atol=0.02, rtol=0
    )


def test_box_features_are_drawn_independently() -> None:
    rows = sample_box(box(), 9000, generator=torch.Generator().manual_seed(1)).inputs
    correlation = torch.corrcoef(rows[:, [0, 3, 4]].T) - torch.eye(3)
    assert correlation.abs().max() < 0.05


def test_box_is_determined_by_the_generator() -> None:
    one, two, other = (
        sample_box(box(), 5, generator=torch.Generator().manual_seed(seed)).inputs
        for seed in (3, 3, 4)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_box_of_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="count: got 0; allowed: 1 or more"):
        sample_box(box(), 0, generator=torch.Generator())


@given(count=st.integers(10, 200), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_split_holds_every_row_once(count: int, seed: int) -> None:
    inputs = torch.arange(count, dtype=torch.float64).unsqueeze(1)
    parts = split(inputs, torch.arange(count), generator=torch.Generator().manual_seed(seed))
    together = torch.cat([part.inputs for part in parts]).squeeze(1)
    assert together.sort().values.tolist() == list(range(count))
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert abs(len(part) - share * count) <= 1
        assert part.labels is not None
        assert torch.equal(part.inputs.squeeze(1).long(), part.labels)


def test_split_is_random_and_reproducible() -> None:
    rows = [
        part_rows(100, (0.5, 0.5), generator=torch.Generator().manual_seed(seed))[0].tolist()
        for seed in (0, 0, 1)
    ]
    assert rows[0] == rows[1] != rows[2]
    assert rows[0] != sorted(rows[0])


def test_split_of_too_few_rows() -> None:
    with pytest.raises(ValueError, match="inputs: got 9 rows; allowed: at least 10"):
        split(torch.zeros(9, 2), torch.zeros(9).long(), generator=torch.Generator())


def test_crossed_rows_take_each_column_from_a_row_of_the_data() -> None:
    rows = Samples(inputs=torch.arange(30.0).reshape(10, 3))
    crossed = crossed_rows(rows, 500, share=0.5, generator=torch.Generator().manual_seed(0))
    for column in range(3):
        assert set(crossed.inputs[:, column].tolist()) <= set(rows.inputs[:, column].tolist())
    whole = (crossed.inputs[:, None] == rows.inputs[None]).all(dim=2).any(dim=1)
    assert 0 < int((~whole).sum()) < 500
    same = crossed_rows(rows, 50, share=0.0, generator=torch.Generator().manual_seed(0))
    assert (same.inputs[:, None] == rows.inputs[None]).all(dim=2).any(dim=1).all()


def test_crossed_rows_misuse() -> None:
    with pytest.raises(ValueError, match="samples, count, share: got 2, 0"):
        crossed_rows(Samples(inputs=torch.zeros(2, 2)), 0, generator=torch.Generator())
