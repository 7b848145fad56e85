"""The explorer without its view: rankings, changes by hand, repairs that are stopped and undone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from carelab.causal import LOCALIZERS, do, neuron_effects, rank_units
from carelab.networks import accuracy, fingerprint, hidden_neurons, mlp, predict
from carelab.properties import violation_rate, violation_scores
from carelab.records import Evidence, Neuron, Samples
from carelab.repair import apply_repair, scale_neurons, undo_repair
from carelab.show.explorer import (
    Change,
    Engine,
    check_showable,
    fairness_scene,
    search_factors,
    shown_neurons,
)
from tests.show.explorer_worlds import biased_credit, credit_engine, slow_logits


def _readings(engine):
    return {one.name: one.now for one in engine.readings()}


def test_the_readings_are_those_of_a_network_with_the_factors_in_its_weights():
    engine = credit_engine()
    scene = engine.scene
    held_out = scene.gauges[0].samples
    chosen = [engine.guilty[0], engine.guilty[3]]
    engine.change(chosen[:1], Change(factor=0.3))
    engine.change(chosen[1:], Change(factor=1.7))
    changed, _ = scale_neurons(scene.model, chosen, torch.tensor([0.3, 1.7]))
    same = predict(changed, held_out.inputs) == predict(scene.model, held_out.inputs)
    expected = {
        "accuracy": accuracy(changed, held_out),
        "violation": violation_rate(changed, held_out, scene.prop),
        "kept": float(same.double().mean()),
    }
    assert _readings(engine) == pytest.approx(expected)
    assert expected["violation"] != engine.readings()[1].before


def test_a_held_neuron_reads_out_as_under_do():
    engine = credit_engine()
    held_out = engine.scene.gauges[0].samples
    engine.change(engine.guilty[:2], Change(value=0.25))
    with do(engine.scene.model, dict.fromkeys(engine.guilty[:2], 0.25)):
        expected = violation_rate(engine.scene.model, held_out, engine.scene.prop)
    assert _readings(engine)["violation"] == pytest.approx(expected)
    engine.clear()
    assert [one.change for one in engine.readings()] == [0, 0, 0]


def test_held_out_rows_are_none_of_those_that_the_repair_sees():
    model, table, fair = biased_credit()
    scene = fairness_scene(model, table, fair, generator=torch.Generator().manual_seed(0))
    held_out = scene.gauges[0].samples.inputs
    for seen, source in (
        (scene.keep.inputs, table.train.inputs),
        (scene.evidence.violating.inputs, table.train.inputs),
        (held_out, table.test.inputs),
    ):
        assert all(bool((row == source).all(dim=1).any()) for row in seen[:20])


@pytest.mark.parametrize("method", ["mediation_drop", "care_range", "care_mean", "patching"])
def test_a_ranking_is_that_of_the_localiser(method):
    engine = credit_engine()
    engine.rank(method, 4)
    scene = engine.scene
    found = LOCALIZERS[method](
        scene.model, scene.evidence, scene.prop, units=engine.neurons, generator=torch.Generator()
    )
    torch.testing.assert_close(engine.guilt.effect, found.effect, rtol=1e-6, atol=1e-9)
    assert engine.guilty == rank_units(found).units[:4]
    engine.rank(method, 3, "relu2")
    assert {neuron.layer for neuron in engine.guilty} == {"relu2"}


def test_what_no_ranking_can_do_is_refused():
    engine = credit_engine()
    with pytest.raises(ValueError, match="method: got 'guess'; allowed: selective_patching"):
        engine.rank("guess", 3)
    with pytest.raises(ValueError, match="layer: got 'relu9'; allowed: relu1, relu2"):
        engine.rank("patching", 3, "relu9")
    with pytest.raises(ValueError, match="count: got 0; allowed: 1 to 14"):
        engine.rank("patching", 0)
    with pytest.raises(ValueError, match=r"neurons: got relu1\[99\]"):
        engine.change([Neuron("relu1", 99)], Change(value=0.0))
    with pytest.raises(ValueError, match=r"neuron: got relu1\[99\]"):
        engine.portrait(Neuron("relu1", 99))


def test_a_portrait_is_the_mean_score_under_do_and_the_activations_seen():
    engine = credit_engine()
    neuron, evidence = engine.guilty[0], engine.scene.evidence
    one = engine.portrait(neuron)
    for step in (0, 7, 15):
        with do(engine.scene.model, {neuron: float(one.values[step])}):
            score = violation_scores(engine.scene.model, evidence.violating, engine.scene.prop)
        assert float(one.expectation[step]) == pytest.approx(float(score.mean()), abs=1e-6)
        spread = float(score.double().std()) / len(score) ** 0.5
        assert float(one.error[step]) == pytest.approx(spread, rel=1e-3, abs=1e-9)
    low, high = one.interval
    assert bool((low <= one.expectation).all())
    assert bool((high >= one.expectation).all())
    assert float(one.behaving.sum()) == pytest.approx(1)
    assert float(one.misbehaving.sum()) == pytest.approx(1)


def test_a_search_can_be_left_and_keeps_its_best():
    engine = credit_engine()
    seen = []

    def watch(progress):
        seen.append(progress)
        return progress.iteration < 3

    repair = engine.search(iterations=50, watch=watch)
    assert [one.iteration for one in seen] == [0, 1, 2, 3]
    assert repair.history.tolist() == list(seen[-1].history)
    assert all(a >= b for a, b in zip(seen[-1].history, seen[-1].history[1:], strict=False))
    assert repair.after.violation_rate == pytest.approx(seen[-1].violation_rate, abs=1e-6)
    assert repair.after.accuracy == pytest.approx(seen[-1].kept)
    scene = engine.scene
    cost = (1 - scene.alpha) * repair.after.violation_rate + scene.alpha * (
        1 - repair.after.accuracy
    )
    assert cost == pytest.approx(seen[-1].cost, abs=1e-6)
    assert engine.repair is None


def test_a_search_repeats_and_the_first_cost_is_that_of_the_network_given():
    repairs = [credit_engine().search(iterations=4) for _ in range(2)]
    assert torch.equal(repairs[0].factors, repairs[1].factors)
    before = repairs[0].before
    expected = 0.1 * before.violation_rate + 0.9 * (1 - before.accuracy)
    assert float(repairs[0].history[0]) == pytest.approx(expected, abs=1e-6)
    assert repairs[0].status == "improved"


def test_a_repair_is_adopted_and_undone_bit_for_bit():
    engine = credit_engine()
    given = fingerprint(engine.scene.model)
    repair = engine.search(iterations=5)
    engine.change(engine.guilty[:1], Change(value=0.0))
    engine.adopt(repair)
    assert engine.changes == {}
    assert fingerprint(engine.network) == repair.repaired
    assert fingerprint(undo_repair(engine.network, repair)) == given
    held_out = engine.scene.gauges[0].samples
    repaired = apply_repair(engine.scene.model, repair)
    assert _readings(engine)["violation"] == pytest.approx(
        violation_rate(repaired, held_out, engine.scene.prop)
    )
    curve = engine.curve_now(engine.guilty[0])
    expected = neuron_effects(
        repaired, engine.scene.curves, engine.scene.prop, neurons=engine.guilty[:1]
    )
    torch.testing.assert_close(curve.expectation, expected.expectation)
    engine.undo()
    assert fingerprint(engine.network) == given
    assert [one.change for one in engine.readings()] == [0, 0, 0]
    assert engine.curve_now(engine.guilty[0]) is None
    with pytest.raises(ValueError, match="undo: nothing was repaired"):
        engine.undo()


def test_factors_by_hand_are_kept_on_top_of_a_repair():
    engine = credit_engine()
    with pytest.raises(ValueError, match="changes: got none; allowed: factors"):
        engine.keep()
    engine.adopt(engine.search(iterations=3))
    first = dict(zip(engine.repair.neurons, engine.repair.factors.tolist(), strict=True))
    other = next(neuron for neuron in engine.neurons if neuron not in first)
    engine.change([engine.guilty[0], other], Change(factor=0.5))
    shown = _readings(engine)
    engine.change([other], Change(value=1.0))
    with pytest.raises(ValueError, match="held at a value; allowed: factors"):
        engine.keep()
    engine.change([other], Change(factor=0.5))
    kept = engine.keep()
    factors = dict(zip(kept.neurons, kept.factors.tolist(), strict=True))
    assert factors[engine.guilty[0]] == pytest.approx(0.5 * first[engine.guilty[0]])
    assert factors[other] == 0.5
    assert kept.network == fingerprint(engine.scene.model)
    assert _readings(engine) == pytest.approx(shown)
    engine.undo()
    assert engine.repair.method == "care (explorer)"


def test_the_row_flips_where_the_network_flips():
    engine = credit_engine()
    drawing = engine.drawing()
    assert any(drawing["before"]["flips"])
    engine.change(engine.neurons, Change(value=0.0))
    assert not any(engine.drawing()["after"]["flips"])
    assert engine.drawing()["before"] == drawing["before"]
    engine.edit_side({"step": 1})
    inputs = engine.side.inputs()
    expected = slow_logits(engine.scene.model, inputs, engine.changes).argmax(dim=1)
    assert engine.drawing()["after"]["labels"] == expected.tolist()


def test_of_a_large_network_the_neurons_that_matter_are_shown():
    model, table, fair = biased_credit()
    rows = table.train.take(slice(0, 50))
    evidence = Evidence(violating=rows, references=rows, passing=rows)
    with torch.no_grad():
        model.linear2.weight[:, 5] = 0  # relu1[5] feeds nothing
    shown = shown_neurons(model, evidence, fair, most=9)
    assert len(shown) == 9
    assert {neuron.layer for neuron in shown} == {"relu1", "relu2"}
    assert Neuron("relu1", 5) not in shown
    assert shown_neurons(model, evidence, fair, most=99) == hidden_neurons(model)
    # By hand: for y = |logit differences| the size is the mean of |dy/dh h|.
    scene = fairness_scene(model, table, fair, rows=50, generator=torch.Generator())
    engine = Engine(scene, most=9, generator=torch.Generator())
    assert engine.total == 14
    assert len(engine.effects.neurons) == 9


def test_ten_thousand_neurons_degrade_to_the_top_ones():
    generator = torch.Generator().manual_seed(0)
    model, table, fair = biased_credit()
    model = mlp(len(table.features), (9_600, 400), 2, generator=generator)
    with torch.no_grad():
        model.linear1.weight[:, list(fair.columns)] *= 60
        outputs = model(table.train.inputs)
        model.linear3.bias[1] -= (outputs[:, 1] - outputs[:, 0]).median()
    scene = fairness_scene(model, table, fair, rows=50, evidence=20, generator=generator)
    engine = Engine(scene, most=60, steps=2, generator=generator)
    assert (engine.total, len(engine.neurons)) == (10_000, 60)


def test_a_network_that_cannot_be_explored_is_refused():
    model, _, _ = biased_credit()
    with pytest.raises(ValueError, match="training mode"):
        check_showable(model.train())
    with pytest.raises(ValueError, match="no hidden neuron"):
        check_showable(nn.Sequential(nn.Linear(2, 2)).eval())
    broken, _, _ = biased_credit()
    with torch.no_grad():
        broken.linear2.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"linear2.weight holds 1 weights that are not finite"):
        check_showable(broken)


def test_a_search_without_guilty_neurons_is_refused():
    engine = credit_engine()
    with pytest.raises(ValueError, match="got 0 neurons, 60, 24"):
        search_factors(engine.scene, [], generator=torch.Generator())


def test_a_fair_network_leaves_nothing_to_explore():
    model, table, fair = biased_credit()
    with torch.no_grad():
        model.linear1.weight[:, list(fair.columns)] = 0
    with pytest.raises(ValueError, match="model"):
        fairness_scene(model, table, fair, generator=torch.Generator().manual_seed(0))


def test_curves_of_one_neuron_do_not_depend_on_what_else_is_shown():
    engine = credit_engine()
    fewer = Engine(engine.scene, most=6, generator=torch.Generator())
    neuron = fewer.neurons[0]
    torch.testing.assert_close(
        engine.portrait(neuron).expectation, fewer.portrait(neuron).expectation
    )
    plain = replace(engine.scene, side=None)
    assert Engine(plain, generator=torch.Generator()).drawing() is None
    with pytest.raises(ValueError, match="no input side"):
        Engine(plain, generator=torch.Generator()).edit_side({"step": 1})


def test_samples_of_the_evidence_pair_up():
    scene = credit_engine().scene
    assert isinstance(scene.evidence.references, Samples)
    assert len(scene.evidence.references) == len(scene.evidence.violating)
