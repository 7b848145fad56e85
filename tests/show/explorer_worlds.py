"""Small scenes for the tests of the explorer, whose numbers can be checked by other code."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from carelab import data, networks, properties
from carelab.records import Dataset, Neuron
from carelab.show.explorer import Change, Engine, fairness_scene


def slow_logits(model: nn.Module, inputs: Tensor, changes: Mapping[Neuron, Change]) -> Tensor:
    """The network run module by module, every neuron changed where it stands."""
    current = inputs
    with torch.no_grad():
        for name, module in networks.ordered_modules(model):
            current = module(current.clone())
            for neuron, change in changes.items():
                if neuron.layer == name and change.value is not None:
                    current[:, neuron.index] = change.value
                elif neuron.layer == name:
                    current[:, neuron.index] = current[:, neuron.index] * change.factor
    return current


def biased_credit() -> tuple[nn.Module, Dataset, properties.IndividualFairness]:
    """A network that reads the sensitive feature, its table, and what it violates."""
    generator = torch.Generator().manual_seed(0)
    table = data.embedded_credit(rows=600, generator=generator)
    model = networks.mlp(len(table.features), (8, 6), 2, generator=generator)
    fair = properties.individual_fairness(table, "sex")
    with torch.no_grad():
        model.linear1.weight[:, list(fair.columns)] *= 60
        outputs = model(table.train.inputs)
        model.linear3.bias[1] -= (outputs[:, 1] - outputs[:, 0]).median()
    return model, table, fair


def credit_engine(seed: int = 0) -> Engine:
    """An engine on the biased network, with 150 held-out rows."""
    model, table, fair = biased_credit()
    generator = torch.Generator().manual_seed(seed)
    scene = fairness_scene(model, table, fair, rows=150, evidence=60, generator=generator)
    return Engine(scene, generator=generator)
