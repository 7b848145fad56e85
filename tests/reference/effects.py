"""Interventional expectations and CARE's ranking as the paper's loops, slow and obvious.

One forward pass per neuron, value, sample and probe; nothing is batched, cached or shared with
the package but the records. What the fast code computes must equal this.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def run_held(model: nn.Sequential, row: Tensor, layer: str, index: int, value: float) -> Tensor:
    """Logits of one row with one neuron of one named module held at a value."""
    hidden = row.unsqueeze(0)
    for name, module in model.named_children():
        hidden = module(hidden)
        if name == layer:
            hidden = hidden.clone()
            hidden[:, index] = value
    return hidden[0]


@torch.no_grad()
def run_replaced(
    model: nn.Sequential, row: Tensor, layer: str, place: tuple[int, ...], value: Tensor
) -> Tensor:
    """Logits of one row with a part of one named module's output overwritten."""
    hidden = row.unsqueeze(0)
    for name, module in model.named_children():
        hidden = module(hidden)
        if name == layer:
            hidden = hidden.clone()
            hidden[(0, *place)] = value
    return hidden[0]


def fairness_outcome(outputs: list[Tensor]) -> float:
    """Largest change of a class probability between the first output and any other."""
    chances = [torch.softmax(output, dim=0) for output in outputs]
    return max(float((chance - chances[0]).abs().max()) for chance in chances[1:])


def counterfactuals(row: Tensor, columns: tuple[int, ...], values: Tensor) -> list[Tensor]:
    """The row, then the row with each value in its sensitive columns."""
    rows = [row]
    for value in values:
        changed = row.clone()
        for column, entry in zip(columns, value, strict=True):
            changed[column] = entry
        rows.append(changed)
    return rows


@torch.no_grad()
def interventional_expectation(
    model: nn.Sequential,
    inputs: Tensor,
    columns: tuple[int, ...],
    values: Tensor,
    neuron: tuple[str, int],
    steps: int,
) -> tuple[list[float], list[float]]:
    """The values of do(neuron = v) and E[y | do(neuron = v)] at each."""
    layer, index = neuron
    seen = []
    for row in inputs:
        hidden = row.unsqueeze(0)
        for name, module in model.named_children():
            hidden = module(hidden)
            if name == layer:
                seen.append(float(hidden[0, index]))
    low, high = min(seen), max(seen)
    grid = [low + (high - low) * step / (steps - 1) for step in range(steps)]
    expectations = []
    for value in grid:
        outcomes = []
        for row in inputs:
            rows = counterfactuals(row, columns, values)
            outputs = [run_held(model, one, layer, index, value) for one in rows]
            outcomes.append(fairness_outcome(outputs))
        expectations.append(sum(outcomes) / len(outcomes))
    return grid, expectations


def care_ranking(expectations: list[list[float]]) -> list[int]:
    """Neurons by the mean of their curve, highest first."""
    means = [sum(curve) / len(curve) for curve in expectations]
    return sorted(range(len(means)), key=lambda neuron: -means[neuron])
