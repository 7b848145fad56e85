"""Small random networks of two inputs, with weights that make ties and dead neurons likely."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from carelab.networks.architectures import in_a_row


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
