import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.data import (
    BlendTrigger,
    MaskTrigger,
    PatchTrigger,
    SinusoidTrigger,
    Trigger,
    WarpTrigger,
    checkered_patch,
    noise_blend,
    recoloured,
    shifted,
    warp,
    white_patch,
)

SHAPE = (2, 6, 5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


def image(*rows: list[float]) -> torch.Tensor:
    """One grey image."""
    return torch.tensor(rows, dtype=torch.float64)[None, None]


def all_kinds(seed: int = 0) -> list[Trigger]:
    channels, height, width = SHAPE
    return [
        PatchTrigger(pattern=unit(channels, 2, 3, seed=seed), row=4, column=1),
        BlendTrigger(pattern=unit(*SHAPE, seed=seed), ratio=0.3),
        warp(SHAPE, strength=2.0, generator=generator(seed)),
        SinusoidTrigger(amplitude=0.3, frequency=2),
        MaskTrigger(mask=unit(1, height, width, seed=seed), pattern=unit(*SHAPE, seed=seed + 1)),
    ]


@settings(max_examples=15)
@given(seed=st.integers(0, 100), count=st.integers(0, 3))
def test_laws_of_every_kind(seed: int, count: int) -> None:
    images = unit(count, *SHAPE, seed=seed) * 1.2 - 0.1
    for trigger in all_kinds(seed):
        assert isinstance(trigger, Trigger)
        before = images.clone()
        result = trigger(images)
        assert torch.equal(images, before)
        assert (result.shape, result.dtype) == (images.shape, images.dtype)
        assert ((result >= 0) & (result <= 1)).all()
        assert trigger(images.float()).dtype == torch.float32
        # Each image on its own: the batch does not matter.
        for row in range(count):
            torch.testing.assert_close(trigger(images[row : row + 1])[0], result[row])
        if count:
            assert not torch.equal(result, images.clamp(0, 1))


def test_triggers_can_be_differentiated_through() -> None:
    for trigger in all_kinds():
        images = (unit(2, *SHAPE) * 0.2 + 0.4).requires_grad_()
        trigger(images).sum().backward()
        assert images.grad is not None
        assert images.grad.isfinite().all()
        assert images.grad.abs().sum() > 0


def test_names_tell_the_kinds_apart() -> None:
    assert [t.name for t in all_kinds()] == ["patch", "blend", "warp", "sinusoid", "mask"]


def test_patch_by_hand() -> None:
    patch = PatchTrigger(pattern=image([0.1, 0.2], [0.3, 0.4])[0], row=0, column=1)
    before = image([0.9, 0.9, 0.9], [0.8, 0.8, 0.8], [0.7, 0.7, 0.7])
    after = image([0.9, 0.1, 0.2], [0.8, 0.3, 0.4], [0.7, 0.7, 0.7])
    assert torch.equal(patch(before), after)


@pytest.mark.parametrize(
    ("row", "column", "after"),
    [
        (-1, -1, image([0.4, 0.0], [0.0, 0.0])),
        (1, 1, image([0.0, 0.0], [0.0, 0.1])),
        (-1, 1, image([0.0, 0.3], [0.0, 0.0])),
        (1, -1, image([0.0, 0.0], [0.2, 0.0])),
    ],
)
def test_a_patch_across_an_edge_is_cut_off(row: int, column: int, after: torch.Tensor) -> None:
    patch = PatchTrigger(pattern=image([0.1, 0.2], [0.3, 0.4])[0], row=row, column=column)
    assert torch.equal(patch(torch.zeros(1, 1, 2, 2, dtype=torch.float64)), after)


def test_blend_by_hand() -> None:
    blend = BlendTrigger(pattern=image([1.0, 0.0])[0], ratio=0.25)
    torch.testing.assert_close(blend(image([0.4, 0.8])), image([0.55, 0.6]))


def test_sinusoid_by_hand() -> None:
    # sin(2 pi j / 8) for j = 0, 1, 2, 6; what goes below 0 is clamped.
    wave = SinusoidTrigger(amplitude=0.5, frequency=1)(torch.full((1, 1, 3, 8), 0.25))
    root = 0.5 * math.sqrt(0.5)
    expected = torch.tensor([0.25, 0.25 + root, 0.75, 0.25 + root, 0.25, 0, 0, 0])
    torch.testing.assert_close(wave, expected.expand(1, 1, 3, 8), atol=1e-6, rtol=0)


def test_mask_covers_patch_and_blend() -> None:
    images = unit(3, *SHAPE)
    pattern = unit(*SHAPE, seed=1)
    blend = BlendTrigger(pattern=pattern, ratio=0.3)
    as_mask = MaskTrigger(mask=torch.full((1, *SHAPE[1:]), 0.3), pattern=pattern)
    torch.testing.assert_close(as_mask(images), blend(images))
    mask = torch.zeros(1, *SHAPE[1:], dtype=torch.float64)
    mask[:, 4:, 1:4] = 1
    patch = PatchTrigger(pattern=pattern[:, 4:, 1:4], row=4, column=1)
    torch.testing.assert_close(MaskTrigger(mask=mask, pattern=pattern)(images), patch(images))


def slow_warp(picture: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
    """WaNet's warping of one channel, pixel by pixel."""
    height, width = picture.shape
    result = torch.zeros_like(picture)
    for row in range(height):
        for column in range(width):
            x = -1 + 2 * column / (width - 1) + float(field[row, column, 0])
            y = -1 + 2 * row / (height - 1) + float(field[row, column, 1])
            x, y = max(-1.0, min(1.0, x)), max(-1.0, min(1.0, y))
            across, down = (x + 1) / 2 * (width - 1), (y + 1) / 2 * (height - 1)
            left, top = min(int(across), width - 2), min(int(down), height - 2)
            for i, share in ((top, 1 - (down - top)), (top + 1, down - top)):
                for j, part in ((left, 1 - (across - left)), (left + 1, across - left)):
                    result[row, column] += share * part * picture[i, j]
    return result


@settings(max_examples=20)
@given(seed=st.integers(0, 50))
def test_warp_against_the_slow_loop(seed: int) -> None:
    field = unit(4, 6, 2, seed=seed) - 0.5
    picture = unit(4, 6, seed=seed + 1)
    warped = WarpTrigger(field=field)(picture[None, None])[0, 0]
    torch.testing.assert_close(warped, slow_warp(picture, field), atol=1e-9, rtol=0)


def test_warp_of_no_displacement_changes_nothing() -> None:
    images = unit(3, *SHAPE)
    still = WarpTrigger(field=torch.zeros(*SHAPE[1:], 2, dtype=torch.float64))
    torch.testing.assert_close(still(images), images)
    column = WarpTrigger(field=torch.zeros(3, 1, 2, dtype=torch.float64))
    torch.testing.assert_close(column(images[:, :, :3, :1]), images[:, :, :3, :1])


def test_warp_field_is_normalised_and_smooth() -> None:
    # At the size of the grid the control points are the field itself: mean |value| = strength / 4.
    field = warp((1, 4, 4), grid=4, strength=0.8, generator=generator()).field
    assert field.abs().mean().item() == pytest.approx(0.2)
    wide = warp((3, 32, 32), generator=generator()).field * 32
    steps = (wide[1:] - wide[:-1]).abs().amax()
    assert steps < 0.4 * wide.abs().amax()
    # The same displacement in pixels on both axes of an oblong image.
    oblong = warp((1, 8, 4), grid=2, generator=generator()).field
    square = warp((1, 8, 8), grid=2, generator=generator()).field
    torch.testing.assert_close(oblong[0, -1, 0] * 4, square[0, -1, 0] * 8)
    torch.testing.assert_close(oblong[0, -1, 1], square[0, -1, 1])


def test_drawn_triggers_follow_the_generator() -> None:
    for build in (
        lambda g: noise_blend(SHAPE, 0.2, generator=g).pattern,
        lambda g: warp(SHAPE, generator=g).field,
    ):
        assert torch.equal(build(generator()), build(generator()))
        assert not torch.equal(build(generator()), build(generator(1)))


def test_a_checkered_patch_shows_on_every_background() -> None:
    patch = checkered_patch((3, 8, 8), size=3, margin=1)
    for shade in (0.0, 1.0):
        images = torch.full((1, 3, 8, 8), shade)
        changed = (patch(images) - images).abs()
        # Five white and four black pixels: of nine, four differ from white and five from black.
        assert changed.sum() == 3 * (4 if shade else 5)
        assert changed[..., 4:7, 4:7].sum() == changed.sum()
    with pytest.raises(ValueError, match="size, margin: got 9, 0"):
        checkered_patch((3, 8, 8), size=9)


def test_white_patch_lies_in_the_corner() -> None:
    # METHODS of CARE: 4 x 4, one pixel of margin on MNIST.
    result = white_patch((3, 28, 28), margin=1)(torch.zeros(1, 3, 28, 28))
    assert result.sum() == 3 * 16
    assert result[:, :, 23:27, 23:27].sum() == 3 * 16


def test_shifted_patch_and_back() -> None:
    patch = white_patch((1, 8, 8), size=2)
    moved = shifted(patch, -3, -1)
    assert isinstance(moved, PatchTrigger)
    assert (moved.row, moved.column) == (3, 5)
    beyond = shifted(patch, 1, 0)(torch.zeros(1, 1, 8, 8))
    assert beyond.sum() == 2
    assert beyond[0, 0, 7, 6:].tolist() == [1, 1]


def test_shifted_blend_comes_in_at_the_other_side() -> None:
    blend = BlendTrigger(pattern=image([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])[0], ratio=0.5)
    moved = shifted(blend, 1, -1)
    assert isinstance(moved, BlendTrigger)
    assert torch.equal(moved.pattern, image([0.5, 0.6, 0.4], [0.2, 0.3, 0.1])[0])
    assert moved.ratio == 0.5


@settings(max_examples=40)
@given(rows=st.integers(-5, 5), columns=st.integers(-4, 4), seed=st.integers(0, 20))
def test_shifted_mask_moves_what_shows_through(rows: int, columns: int, seed: int) -> None:
    mask, pattern = unit(1, *SHAPE[1:], seed=seed), unit(*SHAPE, seed=seed + 1)
    moved = shifted(MaskTrigger(mask=mask, pattern=pattern), rows, columns)
    assert isinstance(moved, MaskTrigger)
    for row in range(SHAPE[1]):
        for column in range(SHAPE[2]):
            i, j = row - rows, column - columns
            inside = 0 <= i < SHAPE[1] and 0 <= j < SHAPE[2]
            assert moved.mask[0, row, column] == (mask[0, i, j] if inside else 0)
            if inside:
                assert torch.equal(moved.pattern[:, row, column], pattern[:, i, j])


def test_recoloured_by_hand() -> None:
    patch = PatchTrigger(pattern=image([0.0, 0.25, 1.0])[0], row=0, column=0)
    grey, inverted = recoloured(patch, scale=0.5), recoloured(patch, scale=-1, offset=1)
    assert grey.pattern.flatten().tolist() == [0, 0.125, 0.5]
    assert inverted.pattern.flatten().tolist() == [1, 0.75, 0]
    assert recoloured(patch, scale=3).pattern.flatten().tolist() == [0, 0.75, 1]
    assert patch.pattern.flatten().tolist() == [0, 0.25, 1]
    mask = MaskTrigger(mask=torch.ones(1, 1, 1), pattern=torch.ones(1, 1, 1))
    changed = recoloured(mask, scale=0.5)
    assert isinstance(changed, MaskTrigger)
    assert (changed.mask.item(), changed.pattern.item()) == (1, 0.5)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_patterns_outside_the_unit_range(bad: float) -> None:
    wrong, right = torch.full((1, 2, 2), bad), torch.ones(1, 2, 2)
    with pytest.raises(ValueError, match=r"pattern: got shape \(1, 2, 2\), empty or with values"):
        PatchTrigger(pattern=wrong, row=0, column=0)
    with pytest.raises(ValueError, match="pattern: got"):
        BlendTrigger(pattern=wrong, ratio=0.5)
    with pytest.raises(ValueError, match="mask: got"):
        MaskTrigger(mask=wrong, pattern=right)
    with pytest.raises(ValueError, match="pattern: got"):
        MaskTrigger(mask=right, pattern=wrong)


def test_triggers_that_cannot_be() -> None:
    one = torch.ones(1, 2, 3)
    with pytest.raises(ValueError, match=r"pattern: got shape \(1, 0, 3\), empty"):
        PatchTrigger(pattern=torch.ones(1, 0, 3), row=0, column=0)
    with pytest.raises(ValueError, match="row, column: got -2, 0 for a pattern of 2 x 3; allowed"):
        PatchTrigger(pattern=one, row=-2, column=0)
    with pytest.raises(ValueError, match="row, column: got 0, -3"):
        PatchTrigger(pattern=one, row=0, column=-3)
    for ratio in (0.0, -0.5, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"ratio: got .*; allowed: above 0, up to 1"):
            BlendTrigger(pattern=one, ratio=ratio)
    with pytest.raises(ValueError, match=r"field: got shape \(1, 1, 2\), .* not finite"):
        WarpTrigger(field=torch.full((1, 1, 2), math.inf))
    for amplitude in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"amplitude: got .*; allowed: -1 to 1, without 0"):
            SinusoidTrigger(amplitude=amplitude, frequency=1)
    with pytest.raises(ValueError, match="frequency: got 0"):
        SinusoidTrigger(amplitude=0.1, frequency=0)
    with pytest.raises(ValueError, match=r"mask, pattern: got \(1, 2, 2\) and \(1, 2, 3\)"):
        MaskTrigger(mask=torch.ones(1, 2, 2), pattern=one)


def test_images_that_a_trigger_does_not_fit() -> None:
    patch, blend, bent, _, mask = all_kinds()
    with pytest.raises(ValueError, match=r"images: got shape \(1, 6, 5\), which a pattern of 2 ch"):
        patch(torch.zeros(3, 1, 6, 5))
    with pytest.raises(ValueError, match=r"images: got shape \(2, 4, 5\), .* at row 4, column 1"):
        patch(torch.zeros(3, 2, 4, 5))
    for trigger in (blend, bent, mask):
        with pytest.raises(
            ValueError, match=r"got shape \(2, 5, 5\); this trigger takes \(2, 6, 5"
        ):
            trigger(torch.zeros(3, 2, 5, 5))
    assert bent(torch.zeros(3, 7, 6, 5)).shape == (3, 7, 6, 5)  # any number of channels
    with pytest.raises(ValueError, match="images: got a width of 4, at which 2 waves vanish"):
        SinusoidTrigger(amplitude=0.1, frequency=2)(torch.zeros(1, 1, 4, 4))


def test_misuse_of_the_builders() -> None:
    for shape in ((28, 28), (0, 28, 28)):
        with pytest.raises(ValueError, match=r"image_shape: got \(.*\); allowed: \(channels, "):
            white_patch(shape)
    for size, margin in ((0, 0), (4, -1), (28, 1)):
        with pytest.raises(
            ValueError, match=f"size, margin: got {size}, {margin} for images of 28"
        ):
            white_patch((1, 28, 28), size, margin)
    with pytest.raises(ValueError, match="ratio: got 0"):
        noise_blend(SHAPE, 0, generator=generator())
    for grid, strength in ((1, 0.5), (4, 0), (4, math.inf), (4, math.nan)):
        with pytest.raises(ValueError, match=f"grid, strength: got {grid}, {strength}"):
            warp(SHAPE, grid, strength, generator=generator())


def test_misuse_of_the_variants() -> None:
    _, _, bent, stripes, mask = all_kinds()
    for trigger, kind in ((bent, "warp"), (stripes, "sinusoid")):
        with pytest.raises(
            ValueError, match=f"trigger: got a {kind}; allowed: patch, blend or mask"
        ):
            shifted(trigger, 1, 1)
        with pytest.raises(
            ValueError, match=f"trigger: got a {kind}; allowed: patch, blend or mask"
        ):
            recoloured(trigger, scale=0.5)
    with pytest.raises(ValueError, match="rows, columns: got 6, 0 for images of 6 x 5"):
        shifted(mask, 6, 0)
    with pytest.raises(ValueError, match="row, column: got -2, -1"):
        shifted(white_patch((1, 8, 8), size=1), -9, -8)
    with pytest.raises(ValueError, match="scale, offset: got nan, 0"):
        recoloured(mask, scale=math.nan)
