"""The safety experiment on the embedded controller: every method, its parts and its summary."""

from __future__ import annotations

import pytest
import torch

from carelab import networks
from carelab.lab.safety import METHODS, care_effects, safety_run
from carelab.lab.safety_embedded import embedded_case
from carelab.lab.safety_search import advice_share, choose_neurons, kept_points, localise_violation
from carelab.lab.safety_summary import slice_window, summarise_safety, table_rows
from carelab.records import Samples
from carelab.repair import constant_advice

BUDGET = {"samples": 200, "points": 4000, "kept_count": 3000, "steps": 100, "draws": 20_000}


@pytest.fixture(scope="module")
def case():
    return embedded_case(rows=4000, epochs=20)


@pytest.fixture(scope="module")
def run(case):
    return safety_run(case, proof_seconds=5.0, seed=0, **BUDGET)


def test_our_repair_leaves_no_test_violation_and_keeps_the_advice(run):
    ours = run.after["ours"]
    assert run.before.violation_rate == 1
    assert run.before.fidelity_domain == 1
    assert ours.violation_rate <= 0.01
    assert ours.kept >= 0.99
    assert ours.fidelity_domain > run.before.fidelity_constant + 0.2
    assert run.still["ours"] == {"near ahead": "proved"}
    assert run.repairs["ours"].neurons == run.chosen.neurons
    assert min(run.chosen.costs.values()) < 0.5


def test_every_method_is_measured_and_the_network_given_stays(run, case):
    assert set(run.after) == set(METHODS) == set(run.networks)
    given = networks.fingerprint(case.model)
    assert all(repair.network == given for repair in run.repairs.values())
    assert len(run.repairs["care"].neurons) == 5
    # Of a layer of 24 neurons there are no 27.
    assert len(run.repairs["care27"].neurons) == 24
    assert {neuron.layer for neuron in run.repairs["care"].neurons} == {case.layer}
    ours, drawn = run.repairs["ours"].neurons, run.repairs["random"].neurons
    assert len(drawn) == len(ours)
    assert {neuron.layer for neuron in drawn} == {neuron.layer for neuron in ours}


def test_cares_neurons_are_those_of_the_largest_effect(run, case):
    effects = care_effects(case, run.trial)
    inside = [
        (effect, unit)
        for effect, unit in zip(effects.effect.tolist(), effects.units, strict=True)
        if unit.layer == case.layer
    ]
    best = {unit for _, unit in sorted(inside, key=lambda row: -row[0])[:5]}
    assert set(run.repairs["care"].neurons) == best


def test_the_constant_network_gives_one_advice_and_agrees_as_measured(run, case):
    constant = run.networks["constant"]
    g = torch.Generator().manual_seed(0)
    points = kept_points(case, points=300, generator=g).domain
    assert len(networks.logits(constant, points.inputs).argmin(1).unique()) == 1
    measured = run.after["constant"]
    assert measured.fidelity_domain == pytest.approx(measured.fidelity_constant, abs=1e-12)


def test_random_points_agree_with_themselves_only(case):
    g = torch.Generator().manual_seed(0)
    points = kept_points(case, points=300, generator=g).domain
    assert advice_share(case.model, case.model, points) == 1
    constant = constant_advice(case.model, points)
    assert advice_share(constant, case.model, points) < 1


def test_two_runs_are_equal(case):
    small = BUDGET | {"samples": 60, "points": 500, "steps": 10, "draws": 5000}
    first, second = (
        safety_run(case, methods=["ours", "care"], proof_seconds=0.0, seed=3, **small)
        for _ in range(2)
    )
    assert first.after["ours"] == second.after["ours"]
    assert first.repairs["care"].repaired == second.repairs["care"].repaired
    assert first.still["ours"] == {}


def test_the_summary_has_every_method_and_the_table_its_rows(run, case):
    summary = summarise_safety(case, [run])
    assert set(METHODS) < set(summary)
    assert summary["ours"]["violation_rate"].mean == run.after["ours"].violation_rate
    assert summary["ours"]["generalization"].mean == 1 - run.after["ours"].violation_rate
    assert summary["ours"]["still"] == {"near ahead": ["proved"]}
    assert summary["samples"]["test"] == {"violating": 200, "satisfying": 200}
    rows = table_rows({"embedded": summary}, ["kept", "hunted"])
    assert rows["embedded", "before"] == {"kept": 1.0}
    assert rows["embedded", "care"]["hunted"] == run.hunted["care"]
    with pytest.raises(ValueError, match="measures: got \\['speed'\\]"):
        table_rows({}, ["speed"])
    with pytest.raises(ValueError, match="runs: got none"):
        summarise_safety(case, [])


def test_the_window_shows_what_is_unsafe(run, case):
    window, fixed = slice_window(case, run.trial.test.violating)
    assert fixed == {}
    assert bool((window[0] < window[1]).all())
    points = case.normalisation.denormalise(run.trial.test.violating.inputs.double())
    inside = ((points >= window[0]) & (points <= window[1])).all(dim=1)
    assert float(inside.double().mean()) > 0.9


def test_misuse(case, run):
    with pytest.raises(ValueError, match="methods: got \\['magic'\\]; allowed: ours, care"):
        safety_run(case, methods=["magic"], seed=0)
    with pytest.raises(ValueError, match="random only beside ours"):
        safety_run(case, methods=["random"], seed=0)
    g = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="points: got 2; allowed: 3 or more"):
        kept_points(case, points=2, generator=g)
    with pytest.raises(ValueError, match="localizer: got 'magic'"):
        localise_violation(case.model, run.trial, case.prop, localizer="magic", generator=g)
    none = Samples(inputs=torch.zeros(0, 2))
    with pytest.raises(ValueError, match="got 0 points"):
        constant_advice(case.model, none)


def test_earlier_layers_move_incoming_weights_as_well(case, run):
    g = torch.Generator().manual_seed(0)
    kept = kept_points(case, points=300, generator=g)
    chosen = choose_neurons(case.model, run.guilt, run.trial, kept, case.prop, steps=5, generator=g)
    assert [name.split(",")[0] for name in chosen.costs][:2] == ["relu3", "relu3"]
    assert chosen.incoming == (chosen.neurons[0].layer != "relu3")
    best = min(chosen.costs, key=chosen.costs.__getitem__)
    assert best == f"{chosen.neurons[0].layer}, {len(chosen.neurons)}"
