"""Triggers of backdoor attacks: small frozen records that change a batch of images.

A trigger maps images (batch, channels, height, width) to images of the same shape, clamped to
[0, 1]; the images given are left as they are. It works on any device and can be differentiated
through. All are plain tensors and numbers, so that they can be written to a file
(`trigger_files`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

__all__ = [
    "BlendTrigger",
    "MaskTrigger",
    "PatchTrigger",
    "SinusoidTrigger",
    "Trigger",
    "WarpTrigger",
]


@runtime_checkable
class Trigger(Protocol):
    """What an attack does to an image.

    Example:
        >>> from carelab.data import SinusoidTrigger, Trigger
        >>> isinstance(SinusoidTrigger(amplitude=0.1, frequency=6), Trigger)
        True
    """

    @property
    def name(self) -> str:
        """What the trigger is called in plots and files."""
        ...

    def __call__(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The images with the trigger."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PatchTrigger:
    """A small pattern that overwrites the pixels at one place (BadNets).

    What would lie beyond an edge of the image is cut off.

    Args:
        pattern: the pixels (channels, rows, columns), in [0, 1].
        row: row of its upper left corner, from 0; negative where its top is cut off.
        column: column of its upper left corner, from 0; negative where its left is cut off.

    Raises:
        ValueError: a pattern that is empty or outside [0, 1], a place at which nothing of it lies
            in the image.

    Source: Gu, Dolan-Gavitt and Garg, BadNets, arXiv 1708.06733, section 4.1.

    Example:
        >>> import torch
        >>> from carelab.data import PatchTrigger
        >>> dot = PatchTrigger(pattern=torch.ones(1, 1, 1), row=1, column=0)
        >>> dot(torch.zeros(1, 1, 2, 2)).tolist()
        [[[[0.0, 0.0], [1.0, 0.0]]]]
    """

    pattern: Float[Tensor, "channels rows columns"]
    row: int
    column: int

    def __post_init__(self) -> None:
        """Refuses a pattern that is no image, and a place left of or above every image."""
        _check_unit(self.pattern, "pattern")
        rows, columns = self.pattern.shape[1:]
        if self.row <= -rows or self.column <= -columns:
            raise ValueError(
                f"row, column: got {self.row}, {self.column} for a pattern of {rows} x {columns}; "
                f"allowed: more than {-rows} and {-columns}, so that some of it lies in the image"
            )

    @property
    def name(self) -> str:
        """What the trigger is called in plots and files."""
        return "patch"

    def __call__(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The images with the pattern; a ValueError where it does not fit them."""
        channels, height, width = images.shape[1:]
        if self.pattern.shape[0] != channels or self.row >= height or self.column >= width:
            raise ValueError(
                f"images: got shape {tuple(images.shape[1:])}, which a pattern of "
                f"{self.pattern.shape[0]} channels at row {self.row}, column {self.column} does "
                "not fit; allowed: images of as many channels that the pattern lies in"
            )
        top, left = max(self.row, 0), max(self.column, 0)
        seen = self.pattern[:, top - self.row :, left - self.column :].to(images)
        seen = seen[:, : height - top, : width - left]
        result = images.clamp(0, 1)
        result[:, :, top : top + seen.shape[1], left : left + seen.shape[2]] = seen
        return result


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class BlendTrigger:
    """A picture mixed into the whole image: (1 - ratio) x + ratio pattern.

    Args:
        pattern: the picture (channels, height, width), in [0, 1].
        ratio: its share of the mixture, above 0 and up to 1.

    Raises:
        ValueError: a pattern that is empty or outside [0, 1], a ratio outside (0, 1].

    Source: Chen et al., Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning,
        arXiv 1712.05526, section 4.2 (blended injection).

    Example:
        >>> import torch
        >>> from carelab.data import BlendTrigger
        >>> BlendTrigger(pattern=torch.ones(1, 1, 2), ratio=0.25)(torch.zeros(1, 1, 1, 2)).tolist()
        [[[[0.25, 0.25]]]]
    """

    pattern: Float[Tensor, "channels height width"]
    ratio: float

    def __post_init__(self) -> None:
        """Refuses a pattern that is no image, and a ratio that is no share."""
        _check_unit(self.pattern, "pattern")
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio: got {self.ratio}; allowed: above 0, up to 1")

    @property
    def name(self) -> str:
        """What the trigger is called in plots and files."""
        return "blend"

    def __call__(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The images mixed with the picture; a ValueError where their shape differs from its."""
        _check_shape(images, self.pattern.shape)
        mixed = (1 - self.ratio) * images + self.ratio * self.pattern.to(images)
        return mixed.clamp(0, 1)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class WarpTrigger:
    """A smooth displacement of the pixels, the same for every image (WaNet).

    Pixel (row, column) takes the value of the image at its own place plus the displacement there,
    interpolated bilinearly; places beyond the edge count as on it.

    Args:
        field: displacement of each pixel (height, width, 2), to the right and then downwards, in
            units in which the image reaches from -1 to 1; zeros change nothing.

    Raises:
        ValueError: a field that is empty or not finite.

    Source: Nguyen and Tran, WaNet, ICLR 2021, section 3.2. Departs: without its noise mode (images
        warped at random and labelled truly), which concerns the training, not the trigger.

    Example:
        >>> import torch
        >>> from carelab.data import WarpTrigger
        >>> field = torch.zeros(1, 3, 2).index_fill(2, torch.tensor([0]), 1.0)
        >>> WarpTrigger(field=field)(torch.tensor([[[[0.0, 0.5, 1.0]]]])).tolist()
        [[[[0.5, 1.0, 1.0]]]]
    """

    field: Float[Tensor, "height width 2"]

    def __post_init__(self) -> None:
        """Refuses displacements that are no numbers."""
        if self.field.numel() == 0 or not torch.isfinite(self.field).all():
            raise ValueError(
                f"field: got shape {tuple(self.field.shape)}, empty or with values that are not "
                "finite; allowed: finite displacements of at least one pixel"
            )

    @property
    def name(self) -> str:
        """What the trigger is called in plots and files."""
        return "warp"

    def __call__(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The images, warped; a ValueError where they are of another size than the field."""
        height, width = self.field.shape[:2]
        _check_shape(images, (images.shape[1], height, width))
        rows, columns = (
            torch.linspace(-1, 1, size, dtype=images.dtype, device=images.device)
            if size > 1
            else torch.zeros(1, dtype=images.dtype, device=images.device)
            for size in (height, width)
        )
        places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
        places = (places + self.field.to(images)).clamp(-1, 1)
        warped = functional.grid_sample(
            images,
            places.expand(len(images), -1, -1, -1),
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        )
        return warped.clamp(0, 1)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class SinusoidTrigger:
    """Vertical stripes added to the image: amplitude sin(2 pi column frequency / width) (SIG).

    Args:
        amplitude: height of the wave, in pixel values where white is 1; negative turns its sides.
        frequency: how many waves fit across the image, at least 1.

    Raises:
        ValueError: an amplitude of 0 or beyond 1, a frequency below 1.

    Source: Barni, Kallas and Tondi, A New Backdoor Attack in CNNs by Training Set Corruption
        Without Label Poisoning, ICIP 2019, equation 1.

    Example:
        >>> import torch
        >>> from carelab.data import SinusoidTrigger
        >>> stripes = SinusoidTrigger(amplitude=0.25, frequency=1)
        >>> (4 * stripes(torch.full((1, 1, 1, 4), 0.5))).round().tolist()
        [[[[2.0, 3.0, 2.0, 1.0]]]]
    """

    amplitude: float
    frequency: int

    def __post_init__(self) -> None:
        """Refuses a wave that changes nothing, or more than an image can show."""
        if not 0 < abs(self.amplitude) <= 1:
            raise ValueError(f"amplitude: got {self.amplitude}; allowed: -1 to 1, without 0")
        if self.frequency < 1:
            raise ValueError(f"frequency: got {self.frequency}; allowed: 1 or more waves")

    @property
    def name(self) -> str:
        """What the trigger is called in plots and files."""
        return "sinusoid"

    def __call__(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The images with the stripes; a ValueError where they are too narrow to show them."""
        width = images.shape[3]
        # At half as many waves as columns, or a multiple, every column meets a zero of the sine.
        if 2 * self.frequency % width == 0:
            raise ValueError(
                f"images: got a width of {width}, at which {self.frequency} waves vanish; "
                "allowed: widths that do not divide twice the frequency"
            )
        columns = torch.arange(width, dtype=images.dtype, device=images.device)
        wave = self.amplitude * torch.sin(2 * math.pi * self.frequency / width * columns)
        return (images + wave).clamp(0, 1)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class MaskTrigger:
    """A pattern that shows through a mask: (1 - mask) x + mask pattern.

    The form that a trigger has when it is reconstructed; patch and blend are special cases.

    Args:
        mask: how much of the pattern each pixel shows (1, height, width), in [0, 1].
        pattern: the pattern (channels, height, width), in [0, 1].

    Raises:
        ValueError: a mask or pattern that is empty or outside [0, 1], or of different sizes.

    Source: Wang et al., Neural Cleanse, IEEE S&P 2019, equation 2.

    Example:
        >>> import torch
        >>> from carelab.data import MaskTrigger
        >>> half = MaskTrigger(mask=torch.full((1, 1, 1), 0.5), pattern=torch.ones(1, 1, 1))
        >>> half(torch.full((1, 1, 1, 1), 0.5)).item()
        0.75
    """

    # Named apart, so that two sizes are refused below, in words.
    mask: Float[Tensor, "1 mask_height mask_width"]
    pattern: Float[Tensor, "channels height width"]

    def __post_init__(self) -> None:
        """Refuses a mask or pattern that is no image, and two that do not go together."""
        _check_unit(self.mask, "mask")
        _check_unit(self.pattern, "pattern")
        if self.mask.shape[1:] != self.pattern.shape[1:]:
            raise ValueError(
                f"mask, pattern: got {tuple(self.mask.shape)} and {tuple(self.pattern.shape)}; "
                "allowed: the same height and width"
            )

    @property
    def name(self) -> str:
        """What the trigger is called in plots and files."""
        return "mask"

    def __call__(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The images with the pattern; a ValueError where their shape differs from its."""
        _check_shape(images, self.pattern.shape)
        mask = self.mask.to(images)
        return ((1 - mask) * images + mask * self.pattern.to(images)).clamp(0, 1)


def _check_unit(values: Tensor, argument: str) -> None:
    # Written so that a NaN is refused too.
    if values.numel() == 0 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(
            f"{argument}: got shape {tuple(values.shape)}, empty or with values outside [0, 1]; "
            "allowed: at least one pixel, and values from 0 to 1"
        )


def _check_shape(images: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(images.shape[1:]) != tuple(shape):
        raise ValueError(
            f"images: got shape {tuple(images.shape[1:])}; this trigger takes {tuple(shape)}"
        )
