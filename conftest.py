"""For tests and examples alike: no window, and no figure is left open."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import pytest
from matplotlib import pyplot

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    """Examples draw one figure each; Matplotlib warns of more than twenty."""
    yield
    pyplot.close("all")
