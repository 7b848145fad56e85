from dataclasses import replace

import pytest
import torch

from carelab import data
from carelab.properties import (
    IndividualFairness,
    OutputRegion,
    Property,
    TargetClass,
    planted_property,
)


def test_each_kind_has_its_property() -> None:
    g = torch.Generator().manual_seed(0)
    credit = data.embedded_credit(rows=1000, generator=g)
    bias = data.bias_ground(credit, "sex", widths=(12,), epochs=8, generator=g)
    digits = data.backdoor_ground(widths=(16,), epochs=6, generator=g)
    control = data.region_ground(rows=2000, widths=(12, 8), epochs=10, generator=g)
    kinds = [IndividualFairness, TargetClass, OutputRegion]
    for ground, kind in zip((bias, digits, control), kinds, strict=True):
        fault = data.plant(ground, "strong", start=1, generator=g)
        found = planted_property(fault)
        assert isinstance(found, kind)
        assert isinstance(found, Property)
    with pytest.raises(ValueError, match="fault: got kind 'rumour'"):
        planted_property(replace(fault, kind="rumour"))
