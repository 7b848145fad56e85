"""Where a plot goes: the axes that are given, or those of a new figure."""

from __future__ import annotations

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

__all__ = ["axes_or_new"]


def axes_or_new(ax: Axes | None) -> Axes:
    """The given axes, or the only ones of a new figure.

    Args:
        ax: the axes, or None.

    Example:
        >>> from carelab.show.axes import axes_or_new
        >>> first = axes_or_new(None)
        >>> axes_or_new(first) is first
        True
    """
    return plt.subplots(layout="constrained")[1] if ax is None else ax
