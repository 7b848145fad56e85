"""Shapley values of patching as their definition says: every coalition, one run each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb

import torch
from torch import Tensor, nn

from carelab.causal.interventions import activations, do
from carelab.properties import Property
from carelab.records import Samples, Unit


def shapley_by_coalitions(
    model: nn.Module,
    samples: Samples,
    own: Tensor,
    without: Tensor,
    prop: Property,
    units: Sequence[Unit],
) -> Tensor:
    """Shapley value of each unit for each sample (units, batch); units are all of one layer."""
    layer = units[0].layer
    with_cause = activations(model, own.flatten(0, 1), [layer])[layer]
    without_cause = activations(model, without.flatten(0, 1), [layer])[layer]

    def worth(members: Sequence[int]) -> Tensor:
        held = {
            unit: (with_cause if row in members else without_cause)[(slice(None), *unit.place)]
            for row, unit in enumerate(units)
        }
        with do(model, held), torch.no_grad():
            outputs = model(own.flatten(0, 1)).unflatten(0, own.shape[:2])
        return prop.score(outputs, samples)

    found = []
    for row in range(len(units)):
        others = [other for other in range(len(units)) if other != row]
        value = torch.zeros(len(samples), dtype=own.dtype)
        for size in range(len(units)):
            for members in combinations(others, size):
                rise = worth((*members, row)) - worth(members)
                value += rise / (len(units) * comb(len(others), size))
        found.append(value)
    return torch.stack(found)
