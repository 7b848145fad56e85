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
        >>> from carelab.show.explorer import InputSide, SliceSide
        >>> hasattr(SliceSide, "drawing"), InputSide.__name__
        (True, 'InputSide')
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
