"""The input side for backdoors: images on which a reader puts the trigger, and takes it off."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from carelab.data import Trigger
from carelab.records import Samples

__all__ = ["PictureSide"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PictureSide:
    """A few images, each clean and with the trigger.

    Args:
        images: held-out images with their true labels, in [0, 1].
        trigger: what the attack does to an image.
        classes: what each label means.
        at: which image is shown large.
        on: whether it carries the trigger.

    Raises:
        ValueError: no image, or images without labels or of another form.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show.explorer import PictureSide
        >>> digits = cl.data.digits(generator=torch.Generator().manual_seed(0))
        >>> patch = cl.data.white_patch((1, 8, 8), 2)
        >>> few = digits.test.take(slice(0, 4))
        >>> side = PictureSide(images=few, trigger=patch, classes=digits.classes)
        >>> side.inputs().shape, side.edited({"on": False}).on
        (torch.Size([8, 1, 8, 8]), False)
    """

    images: Samples
    trigger: Trigger
    classes: tuple[str, ...]
    at: int = 0
    on: bool = True

    def __post_init__(self) -> None:
        """Refuses what cannot be shown as pictures."""
        shape = tuple(self.images.inputs.shape)
        labelled = self.images.labels is not None
        if len(shape) != 4 or shape[0] == 0 or shape[1] not in (1, 3) or not labelled:
            raise ValueError(
                f"images: got shape {shape}{'' if labelled else ', no labels'}; allowed: "
                "at least one labelled image (batch, 1 or 3, height, width)"
            )

    @property
    def kind(self) -> str:
        """Which drawing it needs."""
        return "pictures"

    def inputs(self) -> Float[Tensor, "rows channels height width"]:
        """The clean images, then the same with the trigger."""
        return torch.cat([self.images.inputs, self.trigger(self.images.inputs)])

    def scenery(self) -> dict[str, Any]:
        """The pixels of every image, clean and with the trigger, and which one is large."""
        images = self.inputs()
        _, channels, height, width = images.shape
        labels = [] if self.images.labels is None else self.images.labels.tolist()
        return {
            "kind": self.kind,
            "height": height,
            "width": width,
            "channels": channels,
            "pixels": [_pixels(image) for image in images],
            "labels": labels,
            "classes": list(self.classes),
            "at": self.at,
            "on": self.on,
            "trigger": self.trigger.name,
        }

    def drawing(
        self, before: Float[Tensor, "rows classes"], after: Float[Tensor, "rows classes"]
    ) -> dict[str, Any]:
        """Answers to all images, and the chances of every class for all of them."""
        return {name: _answers(one) for name, one in (("before", before), ("after", after))}

    def edited(self, event: Mapping[str, Any]) -> PictureSide:
        """Another large image ({"at": i}), or its trigger on or off ({"on": True or False})."""
        at, on = event.get("at", self.at), event.get("on", self.on)
        if type(at) is not int or not 0 <= at < len(self.images):
            raise ValueError(f"at: got {at!r}; allowed: 0 to {len(self.images) - 1}")
        if not isinstance(on, bool):
            raise ValueError(f"on: got {on!r}; allowed: True or False")
        return replace(self, at=at, on=on)


def _answers(outputs: Tensor) -> dict[str, Any]:
    chances = outputs.softmax(dim=1)
    return {
        "labels": outputs.argmax(dim=1).tolist(),
        "chances": [[round(one, 4) for one in row] for row in chances.tolist()],
    }


def _pixels(image: Float[Tensor, "channels height width"]) -> str:
    """Bytes (height, width, channels), 0 to 255, in base64."""
    shades = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return base64.b64encode(shades.movedim(0, -1).contiguous().numpy().tobytes()).decode("ascii")
