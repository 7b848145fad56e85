from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from carelab import lab
from carelab.causal.localizers import LOCALIZERS
from carelab.data import PlantedFault, plant, region_ground
from carelab.lab.localization import (
    LocalizationRun,
    LocalizerScore,
    average_precision,
    choice_run,
    localization_run,
    planted_evidence,
    worst_order,
)
from carelab.lab.localization_summary import (
    compare_localizers,
    summarise_choices,
    summarise_localization,
)
from carelab.networks import fingerprint, predict
from carelab.properties import planted_property, violates
from carelab.records import Neuron, Performance, UnitEffects
from tests.tables import seeded

UNITS = tuple(Neuron("relu1", index) for index in range(6))


@pytest.fixture(scope="module")
def fault() -> PlantedFault:
    generator = seeded()
    ground = region_ground(rows=2000, widths=(16, 12), epochs=15, generator=generator)
    return plant(ground, "strong", sizes=(2, 2), generator=generator)


def ranked(values: list[float]) -> UnitEffects:
    return UnitEffects(
        measure="by hand",
        units=UNITS,
        effect=torch.tensor(values, dtype=torch.float64),
        covariance=torch.zeros(6, 6, dtype=torch.float64),
        samples=9,
    )


def one_run(strength: str, precision: dict[str, float], kind: str = "bias") -> LocalizationRun:
    scores = {
        name: LocalizerScore(
            average_precision=value,
            with_carriers=value / 2,
            precision_at_k=value,
            decoys_above=0.0,
            decoy_above=0.0,
            violation_after=1 - value,
            accuracy_lost=0.01,
            seconds=2.0,
        )
        for name, value in precision.items()
    }
    before = Performance(accuracy=0.9, violation_rate=1.0)
    after = Performance(accuracy=0.8, violation_rate=0.25)
    return LocalizationRun(
        kind=kind,
        strength=strength,
        task="by hand",
        seed=3,
        network="0",
        neurons=20,
        guilty=4,
        samples=50,
        before=before,
        guilty_removed=after,
        scores=scores,
    )


def test_average_precision_by_hand() -> None:
    # Found at places 1, 3 and 6: precisions 1, 2/3 and 1/2.
    guilty = [UNITS[0], UNITS[2], UNITS[5]]
    assert average_precision(UNITS, guilty) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    assert average_precision(UNITS, UNITS[:2]) == 1


def test_ties_count_against_the_localiser_wherever_the_guilty_stand() -> None:
    for guilty in (UNITS[:2], UNITS[4:], UNITS[2:4]):
        order = worst_order(ranked([1.0] * 6), guilty)
        assert set(order[-2:]) == set(guilty)
        # The worst of all orders: places 5 and 6 of 6.
        assert average_precision(order, guilty) == pytest.approx((1 / 5 + 2 / 6) / 2)


def test_units_left_out_of_the_ranking() -> None:
    order = worst_order(ranked([6.0, 5, 4, 3, 2, 1]), UNITS[1:2], without=UNITS[:1])
    assert order == UNITS[1:]
    assert average_precision(order, UNITS[1:2]) == 1


def test_evidence_is_training_data_that_is_what_it_is_called(fault: PlantedFault) -> None:
    prop = planted_property(fault)
    evidence = planted_evidence(fault, prop, most=40)
    assert len(evidence.violating) == min(40, len(fault.violating))
    assert len(evidence.passing) == 40
    assert bool(violates(fault.model, evidence.violating, prop).all())
    assert torch.equal(evidence.references.inputs, fault.references.inputs[:40])
    passing = evidence.passing
    assert torch.equal(predict(fault.model, passing.inputs), passing.labels)
    known = {tuple(row) for row in fault.train.inputs.tolist()}
    assert all(tuple(row) in known for row in passing.inputs.tolist())
    shown = {tuple(row) for row in fault.violating.inputs.tolist()}
    assert not any(tuple(row) in shown for row in passing.inputs.tolist())


def test_every_localizer_is_scored_and_the_network_stays(fault: PlantedFault) -> None:
    before = fingerprint(fault.model)
    run = localization_run(fault, most=60, generator=seeded())
    assert set(run.scores) == set(LOCALIZERS)
    assert (run.guilty, run.neurons) == (len(fault.guilty), len(fault.roles) + 28)
    assert run.before.violation_rate == 1
    assert run.guilty_removed.violation_rate < 0.5
    assert run.network == before == fingerprint(fault.model)
    for score in run.scores.values():
        assert 0 <= score.precision_at_k <= 1
        assert 0 < score.average_precision <= 1
        assert score.with_carriers <= score.average_precision
        assert score.decoy_above == float(score.decoys_above > 0)
        assert score.seconds > 0
    best, blind = run.scores["selective_patching"], run.scores["care_mean"]
    assert best.average_precision > 0.8 > blind.average_precision
    assert best.violation_after < blind.violation_after


def test_the_truth_as_a_ranking_is_perfect(fault: PlantedFault) -> None:
    def oracle(model, evidence, prop, *, units=None, generator):
        effects = LOCALIZERS["random"](model, evidence, prop, generator=generator)
        truth = torch.tensor([float(unit in fault.guilty) for unit in effects.units])
        return UnitEffects(
            measure="truth",
            units=effects.units,
            effect=truth.double(),
            covariance=effects.covariance,
            samples=0,
        )

    run = localization_run(fault, localizers={"truth": oracle}, generator=seeded())
    score = run.scores["truth"]
    assert (score.average_precision, score.precision_at_k, score.decoys_above) == (1, 1, 0)
    assert score.violation_after == run.guilty_removed.violation_rate
    assert score.accuracy_lost == run.before.accuracy - run.guilty_removed.accuracy


def test_the_choice_is_measured_on_test_inputs(fault: PlantedFault) -> None:
    run = choice_run(fault, most=60, generator=seeded())
    assert run.before.violation_rate == 1
    assert run.after.violation_rate < 0.3
    assert 0 < run.guilty_share <= 1
    again = choice_run(fault, most=60, generator=seeded())
    assert again.choice.units == run.choice.units
    found = summarise_choices([run, again], generator=seeded())
    assert found["region"]["units"].mean == len(run.choice.units)
    assert found["region"]["violation_after"].mean == pytest.approx(run.after.violation_rate)
    assert found["region"]["units"].n == 2


def test_the_summary_by_hand(tmp_path: Path) -> None:
    runs = [
        one_run("weak", {"good": 0.5, "bad": 0.25}),
        one_run("weak", {"good": 1.0, "bad": 0.25}, kind="region"),
        one_run("strong", {"good": 1.0, "bad": 0.5}),
    ]
    summary = summarise_localization(runs, generator=seeded())
    results = summary["results"]
    assert results["n_networks"] == {"weak": 2, "strong": 1}
    weak = results["localizers"]["good"]["weak"]
    assert (weak["average_precision"].mean, weak["average_precision"].n) == (0.75, 2)
    # Two networks are drawn with replacement: both low and both high within the interval.
    assert (weak["average_precision"].low, weak["average_precision"].high) == (0.5, 1.0)
    assert weak["with_carriers"].mean == 0.375
    assert set(results["by_kind"]) == {"bias", "region"}
    assert results["by_kind"]["region"]["good"]["weak"]["average_precision"].mean == 1
    assert results["faults"]["strong"]["accuracy_lost_guilty_removed"].mean == pytest.approx(0.1)
    assert results["margins"]["weak"]["best"] == "good"
    assert results["margins"]["weak"]["ahead"]["bad"].mean == 0.5
    assert results["per_network"]["weak"]["average_precision"]["good"] == [0.5, 1.0]
    assert summary["seconds"] == {"good": 2.0, "bad": 2.0}
    lab.save("summary", None, summary, out_dir=tmp_path)
    saved = json.loads((tmp_path / "summary.json").read_text())
    assert saved["results"]["localizers"]["bad"]["strong"]["average_precision"]["mean"] == 0.5


def test_intervals_hold_the_mean_of_many_networks_as_often_as_they_say() -> None:
    covered, generator = 0, seeded()
    for _ in range(60):
        values = torch.rand(40, generator=generator).tolist()
        found = compare_localizers(
            [one_run("weak", {"good": 1.0, "bad": value}) for value in values],
            generator=generator,
        )["ahead"]["bad"]
        covered += found.low <= 0.5 <= found.high
    # 95 % of 60 is 57; draws of that chance stay at 51 or more all but once in 50 times 10.
    assert covered >= 51


def test_misuse(fault: PlantedFault) -> None:
    with pytest.raises(ValueError, match="localizers: got none"):
        localization_run(fault, localizers={}, generator=seeded())
    with pytest.raises(ValueError, match="runs: got none"):
        summarise_localization([], generator=seeded())
    with pytest.raises(ValueError, match="runs: got none"):
        summarise_choices([], generator=seeded())
    with pytest.raises(ValueError, match="runs: got none"):
        compare_localizers([], generator=seeded())
    with pytest.raises(ValueError, match="guilty: got none"):
        average_precision(UNITS, [])
    with pytest.raises(ValueError, match="guilty: got relu9\\[0\\]"):
        average_precision(UNITS, [Neuron("relu9", 0)])
