from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab.causal.selectivity import (
    absolute_effects,
    against_passing,
    by_margin,
    selective_effects,
    task_importance,
)
from carelab.causal.uncertainty import mean_contrasts
from carelab.properties import margins, violation_rate, violation_scores
from carelab.records import Evidence, Neuron, Samples, UnitEffects
from tests.faults import LowLogit, backup_evidence, backup_network
from tests.tables import fairness, network, rows, seeded

UNITS = tuple(Neuron("relu1", index) for index in range(3))


def ranked(values: list[float], variances: list[float] | None = None) -> UnitEffects:
    return UnitEffects(
        measure="by hand",
        units=UNITS,
        effect=torch.tensor(values, dtype=torch.float64),
        covariance=torch.diag(torch.tensor(variances or [0.0] * 3, dtype=torch.float64)),
        samples=9,
    )


def test_importance_by_hand() -> None:
    # Two rows, a = 0 and a = 1, each of which takes the other's values: h0 goes from 0 to 1 and
    # back. With h1 as it is, min(1, h0 + h1) rises from 0 to 1 in the first row and stays 1 in
    # the second, so that logits (0.5, y) less their mean move by 1/2 and 0: mean 1/4. Of g0 = 0
    # and 2 the logit g0 - g1 moves by 2 in both rows: mean 1; of g1 = 0 and 1 by 1: mean 1/2.
    samples = Samples(inputs=torch.tensor([[0.0, 3.0], [1.0, 3.0]], dtype=torch.float64))
    found = task_importance(backup_network(), samples, LowLogit(), draws=1, generator=seeded())
    expected = torch.tensor([0.25, 0.25, 0, 1, 0.5], dtype=torch.float64)
    torch.testing.assert_close(found.effect, expected)
    torch.testing.assert_close(
        found.standard_error, torch.tensor([0.25, 0.25, 0, 0, 0], dtype=torch.float64)
    )


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_importance_is_never_negative_and_nothing_for_what_feeds_nothing(seed: int) -> None:
    model = network(seed=seed)
    with torch.no_grad():
        model.linear2.weight[:, 2] = 0
    found = task_importance(model, rows(20, seed=seed), fairness(), generator=seeded(seed))
    assert bool((found.effect >= 0).all())
    # The engine leaves it untouched but for rounding.
    assert float(found.effect[2]) < 1e-12
    assert float(found.effect.max()) > 1e-3


def test_what_only_carries_the_cause_has_no_work() -> None:
    # Rows differ in a alone, and the property sets a: at each setting h0 is the same in all rows,
    # so that taking it from another row changes nothing. Without the setting it is all that h0
    # does, and counts.
    inputs = torch.tensor([[0.0, 3.0], [1.0, 3.0]], dtype=torch.float64)
    samples, sets_a = Samples(inputs=inputs), fairness(column=0, count=2)
    held = task_importance(backup_network(), samples, sets_a, draws=1, generator=seeded())
    free = task_importance(backup_network(), samples, LowLogit(), draws=1, generator=seeded())
    assert float(held.effect.max()) < 1e-12
    assert float(free.effect[0]) == pytest.approx(0.25)


def test_selective_by_hand() -> None:
    # Effects 2, -1, 0 and a floor of a tenth of 2: 2 / (0 + .2), 1 / (.8 + .2), 0 / (.3 + .2).
    # Slopes of the second: -1 / 1 in the effect, -1 / 1^2 in the importance.
    found = selective_effects(
        ranked([2, -1, 0], [0, 0.04, 0]), ranked([0, 0.8, 0.3], [0, 0.05, 0]), floor=0.1
    )
    torch.testing.assert_close(found.effect, torch.tensor([10.0, 1, 0], dtype=torch.float64))
    torch.testing.assert_close(found.standard_error[1].item(), 0.3)
    assert found.samples == 9


def test_nothing_has_an_effect() -> None:
    found = selective_effects(ranked([0, 0, 0]), ranked([0, 0.5, 1]))
    assert found.effect.tolist() == [0, 0, 0]


def test_the_errors_are_those_of_drawing_samples_anew() -> None:
    generator, drawn = seeded(), []
    scale = torch.tensor([[2.0], [1.0], [3.0]], dtype=torch.float64)
    for _ in range(300):
        noise = torch.randn(2, 3, 100, generator=generator, dtype=torch.float64)
        fault = mean_contrasts("fault", UNITS, [scale + noise[0]])
        task = mean_contrasts("task", UNITS, [0.5 + 0.1 * noise[1]])
        drawn.append(selective_effects(fault, task, floor=0.001))
    spread = torch.stack([one.effect for one in drawn]).std(dim=0)
    stated = torch.stack([one.standard_error for one in drawn]).mean(dim=0)
    # 300 draws tell a standard deviation to within some 4 %.
    torch.testing.assert_close(spread, stated, rtol=0.15, atol=0)


def test_absolute_effects_keep_their_errors() -> None:
    samples = torch.tensor([[1.0, 2.0, 6.0], [-1.0, -2.0, -6.0], [0.0, 0.0, 0.0]]).double()
    signed = mean_contrasts("fall", UNITS, [samples])
    found = absolute_effects(signed)
    assert found.effect.tolist() == [3, 3, 0]
    torch.testing.assert_close(found.standard_error, signed.standard_error)
    # The two always have the same size, so that they are not told apart.
    torch.testing.assert_close(found.covariance[0, 1], found.covariance[0, 0])
    assert found.measure == "|fall|"


def test_by_margin_changes_the_score_alone() -> None:
    model, samples, prop = network(), rows(30), fairness()
    found = by_margin(prop)
    torch.testing.assert_close(
        violation_scores(model, samples, found), -margins(model, samples, prop)
    )
    torch.testing.assert_close(margins(model, samples, found), margins(model, samples, prop))
    assert violation_rate(model, samples, found) == violation_rate(model, samples, prop)
    assert torch.equal(found.probes(samples.inputs), prop.probes(samples.inputs))
    assert found.name == prop.name


def test_passing_samples_for_references() -> None:
    evidence = backup_evidence()
    few = Evidence(
        violating=evidence.violating,
        references=evidence.references,
        passing=evidence.passing.take(slice(0, 3)),
    )
    drawn = against_passing(few, LowLogit(), generator=seeded())
    # Six references of three passing rows: each twice.
    found = sorted(drawn.references.inputs.tolist())
    assert found == sorted(2 * few.passing.inputs.tolist())
    assert drawn.violating is few.violating
    assert against_passing(few, fairness(column=0, count=2), generator=seeded()) is few


def test_misuse() -> None:
    other = UnitEffects(
        measure="other",
        units=UNITS[::-1],
        effect=torch.zeros(3),
        covariance=torch.zeros(3, 3),
        samples=9,
    )
    with pytest.raises(ValueError, match="importance: got other units"):
        selective_effects(ranked([1, 1, 1]), other)
    with pytest.raises(ValueError, match="floor: got 0"):
        selective_effects(ranked([1, 1, 1]), ranked([1, 1, 1]), floor=0)
    with pytest.raises(ValueError, match="importance: got a negative number"):
        selective_effects(ranked([1, 1, 1]), ranked([1, -1, 1]))
    with pytest.raises(ValueError, match="draws: got 2 of 2 samples"):
        task_importance(network(), rows(2), LowLogit(), draws=2, generator=seeded())
