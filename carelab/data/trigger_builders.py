"""The published attacks' triggers for images of a given shape, and variants of a trigger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from carelab.data.triggers import BlendTrigger, MaskTrigger, PatchTrigger, Trigger, WarpTrigger

__all__ = ["checkered_patch", "noise_blend", "recoloured", "shifted", "warp", "white_patch"]


def white_patch(image_shape: Sequence[int], size: int = 4, margin: int = 0) -> PatchTrigger:
    """A white square in the lower right corner of the image.

    Args:
        image_shape: (channels, height, width).
        size: rows and columns of the square, in pixels.
        margin: pixels between the square and the edges.

    Raises:
        ValueError: no such shape, a size below 1, a negative margin, or a square that does not fit.

    Source: CARE, section 5.3 (4 x 4; one pixel of margin on MNIST).

    Example:
        >>> from carelab import data
        >>> corner = data.white_patch((1, 28, 28), margin=1)
        >>> corner.row, corner.column, tuple(corner.pattern.shape)
        (23, 23, (1, 4, 4))
    """
    return _in_the_corner(image_shape, size, margin, dark=1.0)


def checkered_patch(image_shape: Sequence[int], size: int = 4, margin: int = 0) -> PatchTrigger:
    """A square of white and black pixels by turns in the lower right corner of the image.

    It shows on every background, while a white one is lost on photographs that are white there.

    Args:
        image_shape: (channels, height, width).
        size: rows and columns of the square, in pixels.
        margin: pixels between the square and the edges.

    Raises:
        ValueError: no such shape, a size below 1, a negative margin, or a square that does not fit.

    Source: Gu, Dolan-Gavitt and Garg, BadNets, arXiv 1708.06733, figure 3 (pattern backdoor).

    Example:
        >>> from carelab import data
        >>> data.checkered_patch((1, 28, 28), size=2).pattern.tolist()
        [[[1.0, 0.0], [0.0, 1.0]]]
    """
    return _in_the_corner(image_shape, size, margin, dark=0.0)


def noise_blend(
    image_shape: Sequence[int], ratio: float, *, generator: torch.Generator
) -> BlendTrigger:
    """A fixed picture of uniform noise, mixed into the image at a given ratio.

    Args:
        image_shape: (channels, height, width).
        ratio: the noise's share of the mixture, above 0 and up to 1.
        generator: draws the noise.

    Raises:
        ValueError: no such shape, or a ratio outside (0, 1].

    Source: Chen et al., arXiv 1712.05526, section 5.2 (random pattern).

    Example:
        >>> import torch
        >>> from carelab import data
        >>> noise = data.noise_blend((3, 32, 32), 0.1, generator=torch.Generator().manual_seed(0))
        >>> noise(torch.zeros(1, 3, 32, 32)).amax().item() < 0.1
        True
    """
    pattern = torch.rand(*_checked(image_shape), generator=generator)
    return BlendTrigger(pattern=pattern, ratio=ratio)


def warp(
    image_shape: Sequence[int],
    grid: int = 4,
    strength: float = 0.5,
    *,
    generator: torch.Generator,
) -> WarpTrigger:
    """A smooth random displacement field: strength / size x upsampled grid / mean |grid|.

    Args:
        image_shape: (channels, height, width).
        grid: control points along each axis, at least 2; more make it finer.
        strength: mean displacement of the control points, in units of half a pixel.
        generator: draws the control points, uniformly from [-1, 1].

    Raises:
        ValueError: no such shape, a grid below 2, or a strength that is not positive and finite.

    Source: Nguyen and Tran, WaNet, ICLR 2021, section 3.2, with its k = 4 and s = 0.5.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> bent = data.warp((1, 28, 28), generator=torch.Generator().manual_seed(0))
        >>> tuple(bent.field.shape)
        (28, 28, 2)
    """
    _, height, width = _checked(image_shape)
    if grid < 2 or not 0 < strength < float("inf"):
        raise ValueError(
            f"grid, strength: got {grid}, {strength}; allowed: 2 or more, a positive number"
        )
    control = torch.rand(1, 2, grid, grid, generator=generator) * 2 - 1
    control = control / control.abs().mean()
    smooth = functional.interpolate(
        control, size=(height, width), mode="bicubic", align_corners=True
    )
    sizes = torch.tensor([width, height], dtype=smooth.dtype)
    return WarpTrigger(field=smooth[0].permute(1, 2, 0) * (strength / sizes))


def shifted(trigger: Trigger, rows: int, columns: int) -> PatchTrigger | BlendTrigger | MaskTrigger:
    """The trigger moved downwards and to the right.

    A patch, or what shows through a mask, is cut off at the edges; a blended picture comes in
    again at the other side.

    Args:
        trigger: a patch, blend or mask trigger; it is not changed.
        rows: pixels downwards; negative is upwards.
        columns: pixels to the right; negative is to the left.

    Raises:
        ValueError: another kind of trigger, or one that is moved out of every image.

    Example:
        >>> from carelab import data
        >>> moved = data.shifted(data.white_patch((1, 28, 28)), -2, -3)
        >>> moved.row, moved.column
        (22, 21)
    """
    if isinstance(trigger, PatchTrigger):
        return replace(trigger, row=trigger.row + rows, column=trigger.column + columns)
    if isinstance(trigger, BlendTrigger):
        return replace(trigger, pattern=trigger.pattern.roll((rows, columns), (1, 2)))
    if not isinstance(trigger, MaskTrigger):
        raise ValueError(f"trigger: got a {trigger.name}; allowed: patch, blend or mask")
    height, width = trigger.mask.shape[1:]
    if abs(rows) >= height or abs(columns) >= width:
        raise ValueError(
            f"rows, columns: got {rows}, {columns} for images of {height} x {width}; "
            "allowed: fewer than their height and width"
        )
    return MaskTrigger(
        mask=_moved(trigger.mask, rows, columns), pattern=_moved(trigger.pattern, rows, columns)
    )


def recoloured(
    trigger: Trigger, *, scale: float, offset: float = 0.0
) -> PatchTrigger | BlendTrigger | MaskTrigger:
    """The trigger in another colour or intensity: scale pattern + offset, clamped to [0, 1].

    Args:
        trigger: a patch, blend or mask trigger; it is not changed.
        scale: factor of the pattern; 0.5 is half as bright, -1 with an offset of 1 inverts it.
        offset: added to it, as a pixel value where white is 1.

    Raises:
        ValueError: another kind of trigger, or numbers that are not finite.

    Example:
        >>> from carelab import data
        >>> grey = data.recoloured(data.white_patch((1, 28, 28), 1), scale=0.5)
        >>> grey.pattern.item()
        0.5
    """
    if not isinstance(trigger, PatchTrigger | BlendTrigger | MaskTrigger):
        raise ValueError(f"trigger: got a {trigger.name}; allowed: patch, blend or mask")
    # Numbers that are not finite end up as a NaN or are clamped away; only the first is refused
    # by the record itself.
    if not (abs(scale) < float("inf") and abs(offset) < float("inf")):
        raise ValueError(f"scale, offset: got {scale}, {offset}; allowed: finite numbers")
    return replace(trigger, pattern=(scale * trigger.pattern + offset).clamp(0, 1))


def _in_the_corner(
    image_shape: Sequence[int], size: int, margin: int, *, dark: float
) -> PatchTrigger:
    """A square whose first and every second pixel is white, the others as dark as given."""
    channels, height, width = _checked(image_shape)
    if size < 1 or margin < 0 or size + margin > min(height, width):
        raise ValueError(
            f"size, margin: got {size}, {margin} for images of {height} x {width}; "
            "allowed: a square of at least 1 pixel that fits"
        )
    places = torch.arange(size)
    white = (places[:, None] + places) % 2 == 0
    return PatchTrigger(
        pattern=torch.where(white, 1.0, dark).expand(channels, -1, -1).clone(),
        row=height - margin - size,
        column=width - margin - size,
    )


def _checked(image_shape: Sequence[int]) -> tuple[int, int, int]:
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(
            f"image_shape: got {tuple(image_shape)}; "
            "allowed: (channels, height, width), each at least 1"
        )
    channels, height, width = image_shape
    return channels, height, width


def _moved(values: Tensor, rows: int, columns: int) -> Tensor:
    """The picture moved, with zeros where nothing has moved to."""
    height, width = values.shape[1:]
    moved = torch.zeros_like(values)
    kept = values[:, max(-rows, 0) : height - max(rows, 0)]
    kept = kept[:, :, max(-columns, 0) : width - max(columns, 0)]
    top, left = max(rows, 0), max(columns, 0)
    moved[:, top : top + kept.shape[1], left : left + kept.shape[2]] = kept
    return moved
