import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.data import augmented_copies, mixed_copies, other_views, shift_and_flip
from carelab.records import Samples


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


def test_light_by_hand() -> None:
    # Exposure multiplies; contrast moves the two pixels apart alike.
    images = torch.tensor([0.2, 0.3]).expand(2000, 1, 1, 2)
    lit = other_views(exposure=1)(images, generator()).flatten(1)
    torch.testing.assert_close(lit[:, 1] / lit[:, 0], torch.full((2000,), 1.5))
    stops = (lit[:, 0] / 0.2).log2()
    assert -1 <= stops.min() < -0.99
    assert 0.99 < stops.max() <= 1.0001
    sharp = other_views(contrast=0.5)(images, generator()).flatten(1)
    torch.testing.assert_close(sharp.mean(dim=1), torch.full((2000,), 0.25))
    spread = (sharp[:, 1] - sharp[:, 0]) / 0.1
    assert 0.5 <= spread.min() < 0.51
    assert 1.49 < spread.max() <= 1.5001
    white = other_views(exposure=2)(torch.ones(50, 1, 1, 1), generator())
    assert white.max() == 1
    assert white.min() < 0.5


def test_views_by_hand() -> None:
    # Brightness rises by 1 a column and 10 a row: what a pixel says is where it was read.
    ramp = torch.arange(9.0)[None, :] + 10 * torch.arange(9.0)[:, None]
    images = (ramp / 100).expand(4000, 1, 9, 9)
    centre = images[0, 0, 4, 4]
    for knob, most, size in (("shift", 2.0, 2), ("zoom", 0.5, None), ("rotation", 45, None)):
        seen = other_views(**{knob: most})(images, generator())[:, 0]
        if size is None:  # about the centre
            torch.testing.assert_close(seen[:, 4, 4], centre.expand(4000))
        else:
            moved = (seen[:, 4, 4] - centre) * 100
            down = moved.div(10).round()
            assert moved.abs().max() <= 22.0001
            assert moved.abs().max() > 21
            assert down.abs().max() == size
    turned = other_views(rotation=90)(images, generator())[:, 0]
    # A step to the right is a step along the turned axis: squared, its parts make one.
    across = (turned[:, 4, 5] - turned[:, 4, 3]) * 50
    below = (turned[:, 5, 4] - turned[:, 3, 4]) * 50
    torch.testing.assert_close(across**2 + below**2, torch.full((4000,), 101.0))
    zoomed = other_views(zoom=0.5)(images, generator())[:, 0]
    steps = (zoomed[:, 4, 5] - zoomed[:, 4, 3]) * 50
    assert steps.min() == pytest.approx(1 / 1.5, abs=0.01)
    assert steps.max() == pytest.approx(1 / 0.5, abs=0.02)
    sheared = other_views(shear=0.3)(images, generator())[:, 0]
    torch.testing.assert_close(sheared[:, 4], images[:, 0, 4])
    slant = (sheared[:, 5, 4] - sheared[:, 4, 4]) * 100 - 10
    assert slant.abs().max() == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(other_views()(images, generator()), images)


def test_copies() -> None:
    samples = Samples(inputs=torch.rand(3, 1, 4, 4), labels=torch.tensor([2, 0, 1]))
    copies = augmented_copies(samples, 2, other_views(exposure=1), generator=generator())
    assert copies.labels is not None
    assert copies.labels.tolist() == [2, 0, 1, 2, 0, 1]
    ratio = copies.inputs[:3] / copies.inputs[3:]
    assert not torch.allclose(ratio, torch.ones_like(ratio))
    unlabelled = Samples(inputs=samples.inputs)
    none = augmented_copies(unlabelled, 1, shift_and_flip(0, flip=False), generator=generator())
    assert none.labels is None
    assert torch.equal(none.inputs, samples.inputs)


def test_mixtures() -> None:
    corners = Samples(inputs=torch.eye(9).view(9, 1, 3, 3), labels=torch.arange(9))
    mixed = mixed_copies(corners, 40, generator=generator())
    assert mixed.labels is not None
    assert mixed.labels.tolist() == 40 * list(range(9))
    shares = mixed.inputs.flatten(1)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(360))
    own = shares[torch.arange(360), mixed.labels]
    assert own.min() >= 0.5
    # Uniform in [1/2, 1], or 1 where an image met itself: one in nine.
    assert float(own.mean()) == pytest.approx(8 / 9 * 0.75 + 1 / 9, abs=0.03)
    assert (shares > 0).sum(dim=1).max() == 2
    assert mixed_copies(Samples(inputs=corners.inputs), 1, generator=generator()).labels is None


@pytest.mark.parametrize(
    "change",
    [
        shift_and_flip(2, flip=True),
        other_views(rotation=9, zoom=0.1, shear=0.1, shift=1, exposure=1, contrast=0.1),
    ],
    ids=["shift", "views"],
)
def test_the_generator_decides(
    change: Callable[[torch.Tensor, torch.Generator], torch.Tensor],
) -> None:
    images = torch.rand(20, 3, 8, 8, generator=generator())
    assert torch.equal(change(images, generator(1)), change(images, generator(1)))
    assert not torch.equal(change(images, generator(1)), change(images, generator(2)))
    state = generator(1)
    assert not torch.equal(change(images, state), change(images, state))
    assert change(images[:0], state).shape == (0, 3, 8, 8)
    assert change(images.double(), state).dtype == torch.float64


def test_misuse() -> None:
    with pytest.raises(ValueError, match="most: got -1; allowed: 0 or more pixels"):
        shift_and_flip(-1, flip=True)
    for knob, wrong in (("rotation", -1.0), ("zoom", 1.0), ("contrast", 1.5), ("shift", math.nan)):
        with pytest.raises(ValueError, match=rf"{knob}.*got .*{wrong}.*allowed: finite numbers"):
            other_views(**{knob: wrong})
    samples = Samples(inputs=torch.rand(2, 1, 3, 3))
    with pytest.raises(ValueError, match="copies: got 0; allowed: at least 1"):
        augmented_copies(samples, 0, other_views(), generator=generator())
    with pytest.raises(ValueError, match="copies: got 0; allowed: at least 1"):
        mixed_copies(samples, 0, generator=generator())
    with pytest.raises(ValueError, match="samples: got none; allowed: at least one image"):
        mixed_copies(samples.take(slice(0, 0)), 1, generator=generator())
