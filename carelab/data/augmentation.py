"""Random small changes of training images that do not change their class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

__all__ = ["shift_and_flip"]


def shift_and_flip(
    most: int, *, flip: bool, brightness: float = 0.0, contrast: float = 0.0
) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Images moved by whole pixels, each on its own, and mirrored left to right half of the time.

    What moves out of the image is lost, and what moves in is black. With mean m of an image x,
    contrast and brightness then give m + c (x - m) + b, clamped to [0, 1].

    A trigger counts as a part of the image: one that is put on before moves and is mirrored with
    it, as in poisoned training images (`poison`); to keep it in its place, augment first and put
    it on then.

    Args:
        most: the largest shift along each axis, in pixels; shifts are uniform in -most..most.
        flip: mirror too; for classes that mirroring does not change (no digits, no signs).
        brightness: b is uniform in -brightness..brightness, as a pixel value where white is 1.
        contrast: c is uniform in 1 - contrast..1 + contrast, below 1.

    Returns:
        A function of images (batch, channels, height, width) in [0, 1] and a generator, that
        gives new images of the same shape, for `networks.fit`.

    Raises:
        ValueError: a negative shift, or a brightness or contrast outside [0, 1).

    Example:
        >>> import torch
        >>> from carelab import data
        >>> change = data.shift_and_flip(2, flip=True)
        >>> change(torch.rand(5, 3, 8, 8), torch.Generator().manual_seed(0)).shape
        torch.Size([5, 3, 8, 8])
    """
    if most < 0:
        raise ValueError(f"most: got {most}; allowed: 0 or more pixels")
    if not (0 <= brightness < 1 and 0 <= contrast < 1):
        raise ValueError(
            f"brightness, contrast: got {brightness}, {contrast}; allowed: 0 or more, below 1"
        )

    def augmented(
        images: Float[Tensor, "batch channels height width"], generator: torch.Generator
    ) -> Float[Tensor, "batch channels height width"]:
        result = _moved(images, most, flip, generator)
        if brightness or contrast:
            result = _lit(result, brightness, contrast, generator)
        return result

    return augmented


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


def _lit(images: Tensor, brightness: float, contrast: float, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(2, len(images), 1, 1, 1, generator=generator).to(images) * 2 - 1
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    changed = mean + (1 + contrast * drawn[0]) * (images - mean) + brightness * drawn[1]
    return changed.clamp(0, 1)
