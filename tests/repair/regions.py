"""A small controller for tests of repairs of regions: two inputs, three scores, the lowest wins."""

from __future__ import annotations

import torch
from torch import nn

from carelab.networks import mlp
from carelab.properties import OutputRegion, forbidden_class
from tests.tables import seeded

LOW, HIGH = -torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)


def controller(seed: int = 0, widths: tuple[int, ...] = (8, 8)) -> nn.Sequential:
    """A random network whose scores differ by about one."""
    model = mlp(2, widths, 3, generator=seeded(seed))
    with torch.no_grad():
        model[-1].weight.mul_(4)
    return model.eval()


def never_worst(low: float = -0.5, high: float = 0.5, output: int = 0) -> OutputRegion:
    """In a square, one output never has the highest score."""
    box = {"low": torch.full((2,), low).double(), "high": torch.full((2,), high).double()}
    return forbidden_class(output, 3, **box)
