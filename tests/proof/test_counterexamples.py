from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from carelab import networks, proof
from carelab.proof import counterexamples
from carelab.properties import OutputRegion, never_lowest


@pytest.fixture
def model() -> nn.Sequential:
    return networks.mlp(3, (8, 8), 2, generator=torch.Generator().manual_seed(0))


def box(**sides) -> dict[str, torch.Tensor]:
    return {"low": -torch.ones(3), "high": torch.ones(3), **sides}


def deep(model: nn.Module, gap: float) -> OutputRegion:
    """Output 0 stays above a little more than its smallest value."""
    points = torch.rand(20000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    least = model(points).detach()[:, 0].min().double().reshape(1) + gap
    return OutputRegion(matrix=torch.eye(2).double()[:1], limits=least, name="above", **box())


def test_a_violation_is_found_before_the_box_is_cut(model):
    verdict = proof.verify(model, deep(model, 1e-4))
    assert (verdict.status, verdict.boxes) == ("refuted", 1)
    assert verdict.confirmed_by[:2] == ("float64", "torch float32")


def test_onnxruntime_has_its_say(model, monkeypatch):
    pytest.importorskip("onnxruntime")
    inputs = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    outputs = proof.exported_outputs(model, inputs)
    torch.testing.assert_close(outputs, model(inputs).detach(), atol=1e-6, rtol=1e-5)
    prop = deep(model, 0.05)
    assert proof.verify(model, prop).confirmed_by[2:] == ("onnxruntime",)
    # What it contradicts is no counterexample, whatever the others say.
    safe = torch.full((1, 2), 1e6)
    monkeypatch.setattr(
        counterexamples, "exported_outputs", lambda _, inputs: safe.expand(len(inputs), -1)
    )
    assert proof.verify(model, prop, boxes=50).status == "unknown"


def test_without_onnxruntime_the_verdict_does_not_name_it(model, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert proof.exported_outputs(model, torch.zeros(1, 3)) is None
    verdict = proof.verify(model, deep(model, 0.05))
    assert verdict.status == "refuted"
    assert verdict.confirmed_by == ("float64", "torch float32")


def test_a_network_that_no_file_can_hold_is_not_run(model):
    assert (
        proof.exported_outputs(nn.Sequential(nn.Softmax(dim=1)).eval(), torch.zeros(1, 3)) is None
    )


def test_a_network_of_doubles_is_confirmed_as_it_is(model):
    doubles = model.double()
    verdict = proof.verify(doubles, never_lowest(0, 2, **box()))
    other = proof.verify(doubles, never_lowest(1, 2, **box()))
    found = verdict if verdict.status == "refuted" else other
    assert found.confirmed_by[:2] == ("float64", "torch float64")


def test_ways_down_stay_in_the_box_and_end_no_higher(model):
    prop = deep(model, 0.0)
    chain = proof.affine_chain(model)
    part = proof.polytopes(prop, chain)[0]
    starts = proof.spread_points(part, 64)
    assert torch.equal(starts, proof.spread_points(part, 64))
    assert bool(((starts >= part.low) & (starts <= part.high)).all())
    # Evenly spread: each of the eight corners' eighths of the box has its share of them.
    eighths = (starts >= 0).long() @ torch.tensor([1, 2, 4])
    assert eighths.bincount(minlength=8).tolist() == [8] * 8
    ends = proof.descended(chain, part, starts, steps=20)
    assert bool(((ends >= part.low) & (ends <= part.high)).all())
    before, after = (chain(points)[:, 0] for points in (starts, ends))
    assert bool((after <= before).all())
    assert float(after.min()) < float(before.min())


def test_what_no_verifier_can_take_is_refused(model):
    prop = never_lowest(0, 2, **box())
    with pytest.raises(ValueError, match="none of low above that of high"):
        never_lowest(0, 2, **box(low=2 * torch.ones(3)))
    with pytest.raises(ValueError, match="allowed: finite"):
        proof.verify(model, never_lowest(0, 2, **box(high=torch.full((3,), torch.inf))))
    with pytest.raises(ValueError, match="allowed: finite"):
        proof.verify(model, never_lowest(0, 2, **box(low=torch.full((3,), torch.nan))))
    soft = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2)).eval()
    with pytest.raises(ValueError, match="is a Sigmoid; allowed: Linear"):
        proof.verify(soft, prop)
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="a weight that is not finite"):
        proof.verify(model, prop)
