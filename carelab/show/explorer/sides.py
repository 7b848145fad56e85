"""The input side of the explorer: which inputs it shows, and what networks say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

__all__ = ["InputSide"]


@runtime_checkable
class InputSide(Protocol):
    """Some inputs that a reader can change, and how two networks answer them.

    `RowSide`, `PictureSide` and `SliceSide` are three; the view draws each by its `kind`.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.show.explorer import InputSide, PictureSide
        >>> digits = cl.data.digits(generator=torch.Generator().manual_seed(0))
        >>> few, patch = digits.test.take(slice(0, 4)), cl.data.white_patch((1, 8, 8), 2)
        >>> side = PictureSide(images=few, trigger=patch, classes=digits.classes)
        >>> isinstance(side, InputSide), side.kind
        (True, 'pictures')
    """

    @property
    def kind(self) -> str:
        """Which drawing of the view it needs: "row", "pictures" or "slice"."""
        ...

    def inputs(self) -> Float[Tensor, "rows ..."]:
        """The inputs at which the networks are run."""
        ...

    def scenery(self) -> Mapping[str, Any]:
        """What to draw that does not depend on any network, ready for JSON."""
        ...

    def drawing(
        self, before: Float[Tensor, "rows classes"], after: Float[Tensor, "rows classes"]
    ) -> Mapping[str, Any]:
        """What the original and the present network say of the inputs, ready for JSON."""
        ...

    def edited(self, event: Mapping[str, Any]) -> InputSide:
        """The side after a reader's edit; a ValueError where the edit is none."""
        ...
