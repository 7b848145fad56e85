"""The trivial repairs that every other one has to beat."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from carelab.networks import accuracy, ordered_modules
from carelab.properties import IndividualFairness
from carelab.records import Samples

__all__ = ["hold_constant"]


def hold_constant(model: nn.Module, samples: Samples, prop: IndividualFairness) -> nn.Module:
    """A copy of the network that reads a constant where the sensitive feature was.

    With W, b the first layer and c the constant: b := b + W[:, sensitive] c, W[:, sensitive] := 0.
    The label then cannot depend on the sensitive feature: every unfair rate is exactly 0. Of the
    property's values the constant that keeps most accuracy on the samples is taken.

    Args:
        model: a sequential network that begins with a linear layer; it is not changed.
        samples: labelled rows that choose the constant; never test rows.
        prop: individual fairness of the sensitive feature.

    Raises:
        ValueError: the network does not begin with a linear layer, or reads too few features.

    Source: none: the baseline that CARE's evaluation leaves out.

    Example:
        >>> import torch, carelab as cl
        >>> g = torch.Generator().manual_seed(0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> model = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> blind = cl.repair.hold_constant(model, table.train, fair)
        >>> cl.properties.violation_rate(blind, table.test, fair)
        0.0
    """
    first, layer = ordered_modules(model)[0]
    if not isinstance(layer, nn.Linear):
        raise ValueError(
            f"model: begins with {type(layer).__name__}; allowed: a linear layer first, "
            "into whose bias the constant can be folded"
        )
    if max(prop.columns) >= layer.in_features:
        raise ValueError(
            f"model: takes {layer.in_features} features; the property reads column "
            f"{max(prop.columns)}"
        )
    variants = []
    for value in prop.values:
        variant = deepcopy(model)
        held = variant.get_submodule(first)
        assert isinstance(held, nn.Linear)
        columns = list(prop.columns)
        with torch.no_grad():
            # In double precision: the fold itself must not cost accuracy.
            constant = held.weight[:, columns].double() @ value.to(held.weight.device).double()
            if held.bias is None:
                held.bias = nn.Parameter(constant.to(held.weight))
            else:
                held.bias.copy_((held.bias.double() + constant).to(held.weight))
            held.weight[:, columns] = 0
        variants.append(variant)
    return max(variants, key=lambda variant: accuracy(variant, samples))
