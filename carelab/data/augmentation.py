"""Random small changes of training images that do not change their class."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from carelab.records import Samples

__all__ = ["augmented_copies", "mixed_copies", "other_views", "shift_and_flip"]

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def shift_and_flip(most: int, *, flip: bool) -> Augmentation:
    """Images moved by whole pixels, each on its own, and mirrored left to right half of the time.

    What moves out of the image is lost, and what moves in is black. A trigger counts as a part of
    the image: one that is put on before moves and is mirrored with it, as in poisoned training
    images (`poison`); to keep it in its place, augment first (`augmented_copies`).

    Args:
        most: the largest shift along each axis, in pixels; shifts are uniform in -most..most.
        flip: mirror too; for classes that mirroring does not change (no digits, no signs).

    Returns:
        A function of images (batch, channels, height, width) and a generator, that gives new
        images of the same shape, for `networks.fit`.

    Raises:
        ValueError: a negative shift.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> change = data.shift_and_flip(2, flip=True)
        >>> change(torch.rand(5, 3, 8, 8), torch.Generator().manual_seed(0)).shape
        torch.Size([5, 3, 8, 8])
    """
    if most < 0:
        raise ValueError(f"most: got {most}; allowed: 0 or more pixels")

    def augmented(
        images: Float[Tensor, "batch channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "batch channels height width"]:
        return _moved(images, most, flip, generator)

    return augmented


def other_views(
    *,
    rotation: float = 0.0,
    zoom: float = 0.0,
    shear: float = 0.0,
    shift: float = 0.0,
    exposure: float = 0.0,
    contrast: float = 0.0,
) -> Augmentation:
    """Images as if photographed again: from a little beside, and in other light.

    Each image is turned, zoomed, sheared and moved, by bilinear interpolation, and continued
    beyond its border by its outermost pixels. With mean m of an image x the light is
    c (e x - e m) + e m, clamped to [0, 1]. All is drawn for each image on its own, uniformly.

    Args:
        rotation: the largest angle, in degrees to either side.
        zoom: the scale is in 1 - zoom..1 + zoom.
        shear: rows move by up to this share of their distance from the centre.
        shift: the largest shift along each axis, in pixels.
        exposure: e = 2^t with t in -exposure..exposure, in stops as photographers count them.
        contrast: c is in 1 - contrast..1 + contrast.

    Returns:
        A function of images (batch, channels, height, width) in [0, 1] and a generator, that
        gives new images of the same shape, for `augmented_copies` and `networks.fit`.

    Raises:
        ValueError: an amount that is negative or not finite, or a zoom or contrast of 1 or more.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> change = data.other_views(rotation=15, zoom=0.2, exposure=1)
        >>> change(torch.rand(5, 3, 8, 8), torch.Generator().manual_seed(0)).shape
        torch.Size([5, 3, 8, 8])
    """
    amounts = (rotation, zoom, shear, shift, exposure, contrast)
    if not all(0 <= one < math.inf for one in amounts) or max(zoom, contrast) >= 1:
        raise ValueError(
            f"rotation, zoom, shear, shift, exposure, contrast: got {', '.join(map(str, amounts))};"
            " allowed: finite numbers of at least 0, zoom and contrast below 1"
        )

    def augmented(
        images: Float[Tensor, "batch channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "batch channels height width"]:
        if len(images) == 0:  # torch makes no empty grid
            return images.clone()
        turned, scale, slant, right, down, light, spread = _drawn(len(images), generator).to(images)
        angle, scale = math.radians(rotation) * turned, 1 + zoom * scale
        height, width = images.shape[2:]
        # Where each new pixel is read: in half sides from the centre, as torch counts.
        places = images.new_zeros(len(images), 2, 3)
        places[:, 0, 0], places[:, 0, 1] = angle.cos() / scale, -angle.sin() / scale + shear * slant
        places[:, 1, 0], places[:, 1, 1] = angle.sin() / scale, angle.cos() / scale
        places[:, 0, 2], places[:, 1, 2] = right * 2 * shift / width, down * 2 * shift / height
        grid = functional.affine_grid(places, list(images.shape), align_corners=False)
        seen = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
        seen = seen * torch.exp2(exposure * light)[:, None, None, None]
        mean = seen.mean(dim=(1, 2, 3), keepdim=True)
        return (mean + (1 + contrast * spread)[:, None, None, None] * (seen - mean)).clamp(0, 1)

    return augmented


def augmented_copies(
    samples: Samples, copies: int, change: Augmentation, *, generator: torch.Generator
) -> Samples:
    """Every image several times, each time changed anew, with its label.

    For what has to be put on after the change, as a trigger that stays in its place has to
    (`poison`); otherwise `networks.fit` changes the images while it trains.

    Args:
        samples: images; they are not changed.
        copies: how many of each image.
        change: what changes them, of `other_views` or `shift_and_flip`.
        generator: what `change` draws from.

    Returns:
        All images once, then all of them again, and so on: copies x len(samples) samples.

    Raises:
        ValueError: fewer than one copy.

    Example:
        >>> import torch
        >>> from carelab import data, records
        >>> samples = records.Samples(inputs=torch.rand(5, 1, 8, 8), labels=torch.arange(5))
        >>> change, generator = data.other_views(shift=1), torch.Generator().manual_seed(0)
        >>> data.augmented_copies(samples, 3, change, generator=generator).inputs.shape
        torch.Size([15, 1, 8, 8])
    """
    if copies < 1:
        raise ValueError(f"copies: got {copies}; allowed: at least 1")
    return Samples(
        inputs=torch.cat([change(samples.inputs, generator) for _ in range(copies)]),
        labels=None if samples.labels is None else samples.labels.repeat(copies),
    )


def mixed_copies(samples: Samples, copies: int, *, generator: torch.Generator) -> Samples:
    """Every image several times, each time mixed with another one: l x + (1 - l) x'.

    l is uniform in [1/2, 1] and x' any of the images; the label is that of x, the heavier. What a
    network answers to mixtures shows how it goes from class to class, where images that it was
    trained on only show that it is sure of them.

    Args:
        samples: images; they are not changed.
        copies: how many mixtures of each image.
        generator: draws the partners and weights.

    Returns:
        All images once, then all of them again, and so on: copies x len(samples) samples.

    Raises:
        ValueError: fewer than one copy, or no image.

    Source: Zhang et al., mixup, ICLR 2018; to keep a network's behaviour: Beyer et al., Knowledge
    distillation: a good teacher is patient and consistent, CVPR 2022.

    Example:
        >>> import torch
        >>> from carelab import data, records
        >>> samples = records.Samples(inputs=torch.rand(5, 1, 8, 8), labels=torch.arange(5))
        >>> generator = torch.Generator().manual_seed(0)
        >>> data.mixed_copies(samples, 3, generator=generator).inputs.shape
        torch.Size([15, 1, 8, 8])
    """
    if copies < 1:
        raise ValueError(f"copies: got {copies}; allowed: at least 1")
    if not len(samples):
        raise ValueError("samples: got none; allowed: at least one image")
    count = copies * len(samples)
    partners = torch.randint(len(samples), (count,), generator=generator)
    weights = 0.5 + 0.5 * torch.rand(count, *[1] * (samples.inputs.ndim - 1), generator=generator)
    own = samples.inputs.repeat(copies, *[1] * (samples.inputs.ndim - 1))
    return Samples(
        inputs=torch.lerp(samples.inputs[partners.to(own.device)], own, weights.to(own)),
        labels=None if samples.labels is None else samples.labels.repeat(copies),
    )


def _moved(images: Tensor, most: int, flip: bool, generator: torch.Generator) -> Tensor:
    """The images shifted and mirrored by one gather: every new pixel takes its place of old."""
    count, channels, height, width = images.shape
    first = torch.randint(2 * most + 1, (2, count, 1), generator=generator)
    rows, columns = first[0] + torch.arange(height), first[1] + torch.arange(width)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = functional.pad(images, (most, most, most, most))
    places = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    places = places.flatten(1).unsqueeze(1).expand(-1, channels, -1).to(images.device)
    return padded.flatten(2).gather(2, places).view(images.shape)


def _drawn(count: int, generator: torch.Generator) -> Tensor:
    """What each image is changed by (7, count), uniform in -1..1."""
    return torch.rand(7, count, generator=generator) * 2 - 1
