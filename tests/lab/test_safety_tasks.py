"""The lists of safety tasks, the embedded controller, and the real networks where they are."""

from __future__ import annotations

import pytest
import torch

from carelab import networks, properties
from carelab.lab.safety_embedded import embedded_advice, named_case
from carelab.lab.safety_tasks import (
    CARE_TASKS,
    later_tasks,
    prorepair_tasks,
    safety_case,
    safety_task,
    still_to_hold,
)
from carelab.records import Samples
from tests.data.real_files import needs


def test_the_lists_are_those_of_the_papers():
    assert [task.name for task in CARE_TASKS] == ["N2,9-phi8", "N3,3-phi2s", "N1,9-phi7"]
    later = [task.name for task in later_tasks()]
    assert len(later) == len(set(later)) == 36
    assert later.count("N2,9-phi8") == later.count("N1,9-phi7") == 1
    assert "N3,3-phi2" not in later
    assert "N4,2-phi2" not in later
    assert sum(name.endswith("-phi2") for name in later) == 34
    own = prorepair_tasks()
    assert len(own) == 36
    assert {task.property_name for task in own} == {"phi2"}
    assert min(task.first for task in own) == 2


def test_what_must_still_hold_is_what_holds_and_is_not_repaired():
    names = {task.name: [n for n, _ in still_to_hold(task)] for task in CARE_TASKS}
    assert names["N2,9-phi8"] == ["phi1", "phi3", "phi4"]
    assert names["N1,9-phi7"] == ["phi1"]


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="name: got 'N1,1-phi2'; allowed: embedded, N2,9-phi8"):
        safety_task("N1,1-phi2")


def test_the_formula_turns_away_from_the_intruder():
    # Distance (ft), angle (rad, left positive). Straight ahead it reaches 30,800 ft, half of it
    # strong; abeam 22,000 ft.
    encounters = torch.tensor([[31_000.0, 0.0], [30_000.0, -0.1], [30_000.0, 0.1], [9_000.0, 1.57]])
    assert embedded_advice(encounters).tolist() == [0, 1, 2, 4]


def test_the_embedded_controller_violates_only_where_its_log_was_wrong():
    case = named_case("embedded")
    low, high = properties.region_box(case.prop)
    g = torch.Generator().manual_seed(0)
    points = low + (high - low) * torch.rand(4000, 2, generator=g, dtype=torch.float64)
    inputs = points.float()
    outputs = networks.logits(case.model, inputs)
    margin = case.prop.margin(outputs.unsqueeze(0), Samples(inputs=inputs))
    share = float((margin <= 0).double().mean())
    # The patch is 16,000 x 1.1 of the box's 26,000 x 1.9.
    assert share == pytest.approx(16 * 1.1 / (26 * 1.9), abs=0.06)
    bad = case.normalisation.denormalise(inputs[margin <= 0].double())
    assert float(bad[:, 0].median()) == pytest.approx(46_000, rel=0.05)
    for _, prop in case.still:
        inside = torch.stack([prop.regions[0].low, prop.regions[0].high]).float()
        outputs = networks.logits(case.model, inside)
        assert bool((prop.margin(outputs.unsqueeze(0), Samples(inputs=inside)) > 0).all())


@needs("acasxu")
def test_n33_violates_the_strengthened_property_and_not_the_original():
    case, original = safety_case(safety_task("N3,3-phi2s")), safety_case(safety_task("N3,3-phi2"))
    low, high = properties.region_box(case.prop)
    g = torch.Generator().manual_seed(0)
    points = low + (high - low) * torch.rand(20_000, 5, generator=g, dtype=torch.float64)
    samples = Samples(inputs=points.float())
    assert properties.violation_rate(case.model, samples, case.prop) == pytest.approx(
        0.059, abs=0.01
    )
    assert properties.violation_rate(original.model, samples, original.prop) == 0
    assert torch.equal(low, properties.region_box(original.prop)[0])
