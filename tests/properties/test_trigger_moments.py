from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

from carelab.data import BlendTrigger, MaskTrigger, PatchTrigger, Trigger
from carelab.properties import estimate_trigger

COUNT, CLEAN = 50, 400


def images(size: int = 16, seed: int = 0) -> Tensor:
    """Handwritten digits of that size, in random order."""
    digits = torch.from_numpy(load_digits().images).float()[:, None] / 16
    if size != 8:
        digits = functional.interpolate(digits, size=(size, size), mode="bilinear")
    return digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))]


def coloured(seed: int = 0) -> Tensor:
    """Digits in random colours on random grounds (batch, 3, 16, 16)."""
    generator = torch.Generator().manual_seed(seed)
    shape = images(seed=seed)
    ink, ground = (torch.rand(len(shape), 3, 1, 1, generator=generator) for _ in range(2))
    return shape * ink + (1 - shape) * ground


def estimated(pool: Tensor, trigger: Trigger, seed: int = 0) -> MaskTrigger:
    """From 50 triggered and 400 other images."""
    return estimate_trigger(
        trigger(pool[:COUNT]),
        pool[COUNT : COUNT + CLEAN],
        generator=torch.Generator().manual_seed(seed),
    )


def error(pool: Tensor, found: MaskTrigger, true: Trigger) -> float:
    """Mean absolute difference of what the two make of unseen images, per unit of the change."""
    unseen = pool[COUNT + CLEAN : COUNT + CLEAN + 300]
    change = (true(unseen) - unseen).abs().mean()
    return float((found(unseen) - true(unseen)).abs().mean() / change)


@pytest.mark.parametrize(("value", "row", "column"), [(1.0, 12, 12), (0.5, 12, 12), (1.0, 6, 7)])
def test_patch(value: float, row: int, column: int) -> None:
    pool = images()
    patch = PatchTrigger(pattern=torch.full((1, 3, 3), value), row=row, column=column)
    found = estimated(pool, patch)
    inside = torch.zeros(1, 16, 16)
    inside[:, row : row + 3, column : column + 3] = 1
    torch.testing.assert_close(found.mask, inside)
    torch.testing.assert_close(found.pattern, value * inside, atol=1e-6, rtol=0)
    assert error(pool, found, patch) < 1e-4


def test_coloured_patch() -> None:
    pool = coloured()
    pattern = torch.tensor([1.0, 0.9, 0.0])[:, None, None].expand(3, 4, 4)
    found = estimated(pool, PatchTrigger(pattern=pattern, row=2, column=9))
    assert float(found.mask[:, 2:6, 9:13].min()) > 0.999
    assert float(found.mask.sum()) == pytest.approx(16, abs=1e-3)
    torch.testing.assert_close(found.pattern[:, 2:6, 9:13], pattern, atol=1e-5, rtol=0)


def test_half_transparent_patch() -> None:
    pool = images()
    mask, pattern = torch.zeros(1, 16, 16), torch.zeros(1, 16, 16)
    mask[:, 6:10, 6:10], pattern[:, 6:10, 6:10] = 0.5, 1.0
    found = estimated(pool, MaskTrigger(mask=mask, pattern=pattern))
    assert float(found.mask[mask == 0].max()) == 0
    shown = found.mask[found.mask > 0]
    assert len(shown) >= 12  # of 16: the others are too bright by themselves to tell
    assert 0.4 < float(shown.mean()) < 0.65
    assert error(pool, found, MaskTrigger(mask=mask, pattern=pattern)) < 0.4


@pytest.mark.parametrize("ratio", [0.1, 0.2, 0.4])
def test_blend(ratio: float) -> None:
    pool = images()
    pattern = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(5))
    blend = BlendTrigger(pattern=pattern, ratio=ratio)
    found = estimated(pool, blend)
    assert len(found.mask.unique()) == 1
    assert float(found.mask.mean()) == pytest.approx(ratio, abs=0.04)
    both = torch.stack([found.pattern.flatten(), pattern.flatten()])
    assert float(torch.corrcoef(both)[0, 1]) > 0.9
    assert error(pool, found, blend) < 0.25


def test_blend_in_colour() -> None:
    pool = coloured()
    pattern = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(5))
    blend = BlendTrigger(pattern=pattern, ratio=0.2)
    found = estimated(pool, blend)
    assert float(found.mask.mean()) == pytest.approx(0.2, abs=0.06)
    both = torch.stack([found.pattern.flatten(), pattern.flatten()])
    assert float(torch.corrcoef(both)[0, 1]) > 0.9


def test_untriggered_images_stay_as_they_are() -> None:
    alarms = 0
    for seed in range(40):
        pool = images(8, seed)
        found = estimate_trigger(
            pool[:COUNT],
            pool[COUNT:300],
            level=0.1,
            permutations=99,
            generator=torch.Generator().manual_seed(seed),
        )
        alarms += bool(found.mask.any())
    # 4 are expected at most; more than 10 come with a chance below 0.002.
    assert alarms <= 10


def test_repeats_and_follows_its_arguments() -> None:
    pool = images(8)
    patch = PatchTrigger(pattern=torch.ones(1, 2, 2), row=0, column=0)
    given, clean = patch(pool[:COUNT]), pool[COUNT:300]
    copies = given.clone(), clean.clone()
    one, two = (
        estimate_trigger(given, clean, generator=torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(one.mask, two.mask)
    assert torch.equal(one.pattern, two.pattern)
    assert torch.equal(given, copies[0])
    assert torch.equal(clean, copies[1])


def test_misuse() -> None:
    pool, generator = images(8), torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=r"triggered: got images of shape \(1, 8, 7\)"):
        estimate_trigger(pool[:9, :, :, :7], pool[9:99], generator=generator)
    with pytest.raises(ValueError, match="triggered, clean: got 4 and 90 images"):
        estimate_trigger(pool[:4], pool[9:99], generator=generator)
    with pytest.raises(ValueError, match="level: got 2"):
        estimate_trigger(pool[:9], pool[9:99], level=2, generator=generator)
    with pytest.raises(ValueError, match=r"permutations: got 99; allowed: .* here 199"):
        estimate_trigger(pool[:9], pool[9:99], permutations=99, generator=generator)
    with pytest.raises(ValueError, match="clean: got values outside"):
        estimate_trigger(pool[:9], 2 * pool[9:99], generator=generator)
