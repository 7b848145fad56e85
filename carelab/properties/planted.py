"""The property that a planted fault violates."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from carelab.data import PlantedFault
from carelab.networks import logits
from carelab.properties.backdoor import TargetClass
from carelab.properties.fairness import IndividualFairness
from carelab.properties.judging import Property
from carelab.properties.regions import forbidden_class

__all__ = ["planted_property"]


def planted_property(fault: PlantedFault) -> Property:
    """What the network of a planted fault should do, and does not.

    Args:
        fault: the fault; its parameters say which feature, target or box.

    Returns:
        For a bias individual fairness of the feature, for a backdoor that the target class is not
        reached, for a region that the forbidden class is never the highest in the box. The inputs
        to judge are `data.exposed(fault, ...)`, or the violating ones.

    Raises:
        ValueError: a fault of another kind.

    Example:
        >>> import torch
        >>> from carelab import data, properties
        >>> g = torch.Generator().manual_seed(0)
        >>> ground = data.region_ground(rows=2000, widths=(16, 12), epochs=15, generator=g)
        >>> fault = data.plant(ground, "strong", generator=g)
        >>> prop = properties.planted_property(fault)
        >>> properties.violation_rate(fault.model, fault.violating, prop)
        1.0
    """
    given = fault.parameters
    if fault.kind == "bias":
        return IndividualFairness(
            columns=cast(tuple[int, ...], given["columns"]),
            values=cast(Tensor, given["values"]),
            name=f"individual fairness ({given['feature']})",
        )
    if fault.kind == "backdoor":
        return TargetClass(target=cast(int, given["target"]))
    if fault.kind == "region":
        return forbidden_class(
            cast(int, given["forbidden"]),
            logits(fault.model, fault.violating.inputs[:1]).shape[1],
            low=cast(Tensor, given["low"]),
            high=cast(Tensor, given["high"]),
        )
    raise ValueError(f"fault: got kind {fault.kind!r}; allowed: bias, backdoor, region")
