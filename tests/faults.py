"""A network with a known fault, whose effects fit in a comment."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from carelab.networks import mlp
from carelab.records import Evidence, Samples


@dataclass(frozen=True, kw_only=True)
class LowLogit:
    """Logit 1 must stay below logit 0; the score is logit 1 as it is."""

    name: str = "low logit"

    def probes(self, inputs: Tensor) -> Tensor:
        return inputs.unsqueeze(0)

    def score(self, outputs: Tensor, samples: Samples) -> Tensor:
        return outputs[..., 0, :, 1]

    def margin(self, outputs: Tensor, samples: Samples) -> Tensor:
        return outputs[..., 0, :, 0] - outputs[..., 0, :, 1]

    def rate(self, outputs: Tensor, samples: Samples) -> Tensor:
        return (self.margin(outputs, samples) < 0).to(outputs.dtype).mean(dim=-1)


def backup_network() -> nn.Sequential:
    """Inputs (a, b): h = (a, a, b), g = (h0 + h1, h0 + h1 - 1), logits (0.5, g0 - g1).

    For a = 1 logit 1 is min(1, h0 + h1) = 1, and either of h0 and h1 is enough for it. For a = 0
    it is 0. The neuron h2 reads b and feeds nothing.
    """
    model = mlp(2, (3, 2), 2, generator=torch.Generator().manual_seed(0)).double()
    weights = (
        ([[1.0, 0], [1, 0], [0, 1]], [0.0, 0, 0]),
        ([[1.0, 1, 0], [1, 1, 0]], [0.0, -1]),
        ([[0.0, 0], [1, -1]], [0.5, 0]),
    )
    with torch.no_grad():
        for number, (weight, bias) in enumerate(weights, start=1):
            layer = model.get_submodule(f"linear{number}")
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.copy_(torch.tensor(bias))
    return model


def backup_evidence(count: int = 6) -> Evidence:
    """Rows (1, b), the same with a = 0, and others with a = 0; the labels of all are 0."""
    b = torch.arange(count, dtype=torch.float64)
    zeros, ones = torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.float64)
    labels = torch.zeros(count, dtype=torch.long)
    return Evidence(
        violating=Samples(inputs=torch.stack([ones, b], dim=1), labels=labels),
        references=Samples(inputs=torch.stack([zeros, b], dim=1), labels=labels),
        passing=Samples(inputs=torch.stack([zeros, b + 1], dim=1), labels=labels),
    )
