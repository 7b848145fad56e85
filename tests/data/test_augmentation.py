import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.data import shift_and_flip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_move(image: torch.Tensor, rows: int, columns: int, mirrored: bool) -> torch.Tensor:
    """One image moved downwards and to the right, pixel by pixel, then mirrored."""
    height, width = image.shape[1:]
    moved = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            i, j = row - rows, column - columns
            if 0 <= i < height and 0 <= j < width:
                moved[:, row, column] = image[:, i, j]
    return moved.flip(2) if mirrored else moved


@settings(max_examples=20)
@given(seed=st.integers(0, 500), most=st.integers(0, 3), flip=st.booleans())
def test_every_image_is_moved_on_its_own(seed: int, most: int, flip: bool) -> None:
    images = torch.rand(6, 2, 4, 5, generator=generator(seed)) + 0.1
    before = images.clone()
    result = shift_and_flip(most, flip=flip)(images, generator(seed))
    assert torch.equal(images, before)
    assert (result.shape, result.dtype) == (images.shape, images.dtype)
    shifts = range(-most, most + 1)
    for old, new in zip(images, result, strict=True):
        possible = [
            slow_move(old, rows, columns, mirrored)
            for rows in shifts
            for columns in shifts
            for mirrored in ((False, True) if flip else (False,))
        ]
        assert any(torch.equal(new, one) for one in possible)


def test_by_hand() -> None:
    # No shift: each row is as it was or mirrored, and both occur.
    images = torch.tensor([[0.0, 0.5, 1.0]]).reshape(1, 1, 1, 3).expand(40, -1, -1, -1)
    rows = shift_and_flip(0, flip=True)(images, generator()).flatten(1).tolist()
    assert {tuple(row) for row in rows} == {(0.0, 0.5, 1.0), (1.0, 0.5, 0.0)}
    assert torch.equal(shift_and_flip(0, flip=False)(images, generator()), images)


def test_shifts_are_uniform_and_independent() -> None:
    images = torch.zeros(5000, 1, 5, 5)
    images[:, :, 2, 2] = 1
    moved = shift_and_flip(2, flip=False)(images, generator())
    assert moved.sum() == 5000  # the dot never leaves the image
    counts = moved.sum(dim=(0, 1)).flatten()
    assert (counts - 200).abs().max() < 5 * 200**0.5  # 25 places of 5000, by five deviations
    flipped = shift_and_flip(0, flip=True)(torch.arange(2.0).expand(5000, 1, 1, 2), generator())
    assert abs(flipped[:, 0, 0, 0].mean().item() - 0.5) < 5 * 0.5 / 5000**0.5


def test_brightness_and_contrast_by_hand() -> None:
    # Mean 0.5; contrast moves the two pixels apart alike, brightness both alike.
    images = torch.tensor([0.4, 0.6]).expand(2000, 1, 1, 2)
    lit = shift_and_flip(0, flip=False, brightness=0.1)(images, generator()).flatten(1)
    torch.testing.assert_close(lit[:, 1] - lit[:, 0], torch.full((2000,), 0.2))
    change = lit.mean(dim=1) - 0.5
    assert -0.1 <= change.min() < -0.09
    assert 0.09 < change.max() <= 0.1
    sharp = shift_and_flip(0, flip=False, contrast=0.5)(images, generator()).flatten(1)
    torch.testing.assert_close(sharp.mean(dim=1), torch.full((2000,), 0.5))
    spread = (sharp[:, 1] - sharp[:, 0]) / 0.2
    assert 0.5 <= spread.min() < 0.53
    assert 1.47 < spread.max() <= 1.5001
    white = shift_and_flip(0, flip=False, brightness=0.9)(torch.ones(50, 1, 1, 1), generator())
    assert white.max() == 1
    assert white.min() < 0.5


def test_the_generator_decides() -> None:
    images = torch.rand(20, 3, 8, 8, generator=generator())
    change = shift_and_flip(2, flip=True, brightness=0.1, contrast=0.1)
    assert torch.equal(change(images, generator(1)), change(images, generator(1)))
    assert not torch.equal(change(images, generator(1)), change(images, generator(2)))
    state = generator(1)
    assert not torch.equal(change(images, state), change(images, state))
    assert change(images[:0], state).shape == (0, 3, 8, 8)
    assert change(images.double(), state).dtype == torch.float64


def test_misuse() -> None:
    with pytest.raises(ValueError, match="most: got -1; allowed: 0 or more pixels"):
        shift_and_flip(-1, flip=True)
    for brightness, contrast in ((-0.1, 0), (1.0, 0), (0, 1.0), (0, float("nan"))):
        with pytest.raises(ValueError, match=f"brightness, contrast: got {brightness}, {contrast}"):
            shift_and_flip(1, flip=True, brightness=brightness, contrast=contrast)
