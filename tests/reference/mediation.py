"""Ablation, patching, mediation and interactions as loops, slow and obvious.

One forward pass per unit, sample and probe; nothing is batched, cached or shared with the package
but the records. What the fast code computes must equal this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from carelab.properties import Property
from carelab.records import Samples, Unit


@torch.no_grad()
def run(model: nn.Sequential, row: Tensor, held: Mapping[Unit, Tensor | float]) -> Tensor:
    """Logits of one row with some units held at values."""
    hidden = row.unsqueeze(0)
    for name, module in model.named_children():
        hidden = module(hidden)
        for unit, value in held.items():
            if unit.layer == name:
                hidden = hidden.clone()
                hidden[(0, *unit.place)] = value
    return hidden[0]


@torch.no_grad()
def value(model: nn.Sequential, row: Tensor, unit: Unit) -> Tensor:
    """What the unit is at one row."""
    hidden = row.unsqueeze(0)
    for name, module in model.named_children():
        hidden = module(hidden)
        if unit.layer == name:
            return hidden[(0, *unit.place)].clone()
    raise AssertionError(f"{unit} is not in the network")


def score(
    model: nn.Sequential, row: Tensor, prop: Property, held: Sequence[Mapping[Unit, Tensor | float]]
) -> float:
    """Score of one sample whose probes run one by one, each with its own units held."""
    probes = prop.probes(row.unsqueeze(0))[:, 0]
    outputs = torch.stack([run(model, probe, one) for probe, one in zip(probes, held, strict=True)])
    return float(prop.score(outputs[:, None], Samples(inputs=row.unsqueeze(0)))[0])


def falls(
    model: nn.Sequential,
    inputs: Tensor,
    prop: Property,
    units: Sequence[Unit],
    values: Callable[[Unit, int, int], Tensor | float],
) -> Tensor:
    """What the score of each sample falls by with all the units replaced at once.

    Args:
        model: the network.
        inputs: the samples.
        prop: the property.
        units: all of them are replaced.
        values: what a unit is replaced by at a sample and a probe of it.
    """
    differences = []
    for number, row in enumerate(inputs):
        probes = len(prop.probes(row.unsqueeze(0)))
        replaced = [
            {unit: values(unit, number, probe) for unit in units} for probe in range(probes)
        ]
        without = [{} for _ in range(probes)]
        differences.append(score(model, row, prop, without) - score(model, row, prop, replaced))
    return torch.tensor(differences, dtype=torch.float64)


def mediation(
    model: nn.Sequential,
    inputs: Tensor,
    counterfactuals: Tensor,
    outcome: Callable[[Tensor], Tensor],
    unit: Unit,
) -> tuple[Tensor, Tensor, Tensor]:
    """Total, natural direct and natural indirect effect of each pair of rows."""

    def y(row: Tensor, held: Mapping[Unit, Tensor]) -> float:
        return float(outcome(run(model, row, held).unsqueeze(0))[0])

    total, direct, indirect = [], [], []
    for row, other in zip(inputs, counterfactuals, strict=True):
        before = y(row, {})
        total.append(y(other, {}) - before)
        direct.append(y(other, {unit: value(model, row, unit)}) - before)
        indirect.append(y(row, {unit: value(model, other, unit)}) - before)
    total_, direct_, indirect_ = (
        torch.tensor(numbers, dtype=torch.float64) for numbers in (total, direct, indirect)
    )
    return total_, direct_, indirect_


def mean_and_error(contrasts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the last axis and its standard error."""
    return contrasts.mean(dim=-1), contrasts.std(dim=-1) / contrasts.shape[-1] ** 0.5
