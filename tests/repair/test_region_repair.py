from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from carelab.networks import fingerprint
from carelab.proof import Verdict, check_certificate, save_certificate, verify
from carelab.properties import OutputRegion, OutputRegions, required_lowest, violation_rate
from carelab.records import Neuron, Samples
from carelab.repair import LeastChange, fidelity, least_change_region, region_repair
from tests.repair.regions import HIGH, LOW, controller, never_worst
from tests.tables import seeded


def violated(prop: OutputRegion | OutputRegions, widths: tuple[int, ...] = (8, 8)) -> nn.Sequential:
    """A controller that violates the property."""
    inside = Samples(inputs=torch.rand(500, 2, generator=seeded(1)) - 0.5)
    for seed in range(20):
        model = controller(seed, widths)
        if violation_rate(model, inside, prop) > 0.1:
            return model
    raise AssertionError("no controller violates the property")


def repaired(model: nn.Module, prop: OutputRegion | OutputRegions, **knobs: float) -> LeastChange:
    options = {"points": 2000, **knobs}
    return least_change_region(model, prop, LOW, HIGH, generator=seeded(0), **options)


def test_the_property_is_proved_and_the_advice_stays(tmp_path: Path) -> None:
    prop = never_worst()
    model = violated(prop)
    before = fingerprint(model)
    found = repaired(model, prop)
    assert fingerprint(model) == before
    assert found.status == "proved"
    assert found.verdict.network == fingerprint(found.repaired)
    save_certificate(found.verdict, prop, tmp_path / "a.safetensors")
    assert check_certificate(found.repaired, prop, tmp_path / "a.safetensors").status == "proved"
    same = fidelity(found.repaired, model, LOW, HIGH, points=20_000, generator=seeded(2))
    assert same > 0.9
    # No other row than those of the moved outputs was written.
    changed = found.repaired[-1].weight != model[-1].weight
    rows = set(changed.any(dim=1).nonzero()[:, 0].tolist())
    assert rows <= {move.output for move in found.moves}


def test_several_polytopes_are_all_left() -> None:
    box = {"low": never_worst().low, "high": never_worst().high}
    prop = required_lowest([0, 1], 3, **box)
    found = repaired(violated(prop), prop)
    assert found.status == "proved"
    inside = Samples(inputs=torch.rand(5000, 2, generator=seeded(3)) - 0.5)
    assert violation_rate(found.repaired, inside, prop) == 0


def test_a_network_that_has_the_property_stays_as_it_is() -> None:
    prop = never_worst()
    safe = repaired(violated(prop), prop).repaired
    again = repaired(safe, prop)
    assert again.status == "proved"
    assert again.edits == ()
    assert fingerprint(again.repaired) == fingerprint(safe)
    assert again.repaired is not safe


def test_two_runs_are_equal() -> None:
    prop = never_worst()
    model = violated(prop)
    first, second = repaired(model, prop), repaired(model, prop)
    assert fingerprint(first.repaired) == fingerprint(second.repaired)


def test_where_no_proof_comes_the_scores_are_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    # One box is too coarse for a proof of so large a region of so large a network.
    prop = never_worst(-1.0, 1.0)
    model = violated(prop, (24, 24, 24))
    calls: list[int] = []

    def tired(*args: object, **options: object) -> Verdict:
        calls.append(1)
        few = {"boxes": 1, "steps": 1} if len(calls) < 3 else {}
        return verify(*args, **options | few)  # type: ignore[arg-type]

    monkeypatch.setattr(region_repair, "verify", tired)
    monkeypatch.setattr(region_repair, "_ENOUGH", 2.0)  # any undecided proof is hopeless
    monkeypatch.setattr(region_repair, "find_violations", nothing_found)
    found = repaired(model, prop)
    assert found.status == "proved"
    assert [one.lift for one in found.rounds][:2] == [0.0, 0.0]
    assert found.lift > 0
    smaller = [one for one in found.rounds if 0 < one.lift < found.lift]
    assert all(one.status != "proved" for one in smaller)


def nothing_found(*args: object, **options: object) -> object:
    class Nothing:
        points = Samples(inputs=torch.zeros(0, 2))

    return Nothing


def test_only_chosen_neurons_change() -> None:
    prop = never_worst()
    model = violated(prop)
    neurons = [Neuron("relu2", index) for index in (0, 2, 5)]
    found = least_change_region(
        model, prop, LOW, HIGH, neurons=neurons, points=2000, generator=seeded(0)
    )
    columns = (found.repaired[-1].weight != model[-1].weight).any(dim=0).nonzero()[:, 0]
    assert found.status == "proved"
    assert set(columns.tolist()) <= {0, 2, 5}


@pytest.mark.parametrize("knob", ["points", "margin", "attempts", "seconds", "boxes"])
def test_numbers_must_be_positive(knob: str) -> None:
    with pytest.raises(ValueError, match=f"{knob}: got 0; allowed: a positive number"):
        repaired(controller(), never_worst(), **{knob: 0})
