"""Small networks of two inputs: random ones with ties and dead neurons, one that needs cuts."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from carelab.networks import mlp
from carelab.networks.architectures import in_a_row
from carelab.properties import OutputRegion


def small_network(generator: torch.Generator, *, outputs: int = 2) -> nn.Sequential:
    widths = [int(torch.randint(2, 5, (), generator=generator)) for _ in range(2)]
    sizes = [2, *widths[: int(torch.randint(1, 3, (), generator=generator))], outputs]
    modules: list[nn.Module] = []
    coarse = bool(torch.rand((), generator=generator) < 0.3)
    scale = 10.0 ** float(torch.randint(-2, 3, (), generator=generator))
    for inputs, neurons in pairwise(sizes):
        layer = nn.Linear(inputs, neurons)
        for parameter in layer.parameters():
            values = torch.randn(parameter.shape, generator=generator)
            parameter.data = (values * 2).round() / 2 if coarse else values * scale
        modules += [layer, nn.ReLU()]
    return in_a_row(modules[:-1])


def small_box(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    ends = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    return ends.amin(dim=0), ends.amax(dim=0)


def folded_network() -> nn.Sequential:
    """Two outputs with so many pieces that one bound of the whole box proves nothing."""
    made = mlp(2, (10, 10), 2, generator=torch.Generator().manual_seed(4))
    for parameter in made.parameters():
        parameter.data *= 3
    return made


def above_its_least(model: nn.Module, gap: float, *, output: int) -> OutputRegion:
    """Output stays above its smallest value on a grid, less the gap."""
    side = torch.linspace(-1, 1, 60)
    least = model(torch.cartesian_prod(side, side)).detach()[:, output].min().double() - gap
    matrix = torch.eye(2, dtype=torch.float64)[output : output + 1]
    box = {"low": -torch.ones(2), "high": torch.ones(2)}
    return OutputRegion(matrix=matrix, limits=least.reshape(1), name="above", **box)
