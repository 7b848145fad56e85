from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from carelab.data import MaskTrigger
from carelab.lab import backdoor_detection
from carelab.lab.backdoor_cases import backdoor_case
from carelab.lab.backdoor_defence import suspected
from carelab.lab.backdoor_detection import Examination, examine, summarise_examinations
from carelab.properties import Reconstruction
from tests.lab.backdoors import CLASSES, handmade_case


def examination(target: int | None, ours: tuple[int, ...], known: tuple[int, ...]) -> Examination:
    return Examination(
        seed=0,
        attack="none" if target is None else "badnets",
        target=target,
        accuracy=0.9,
        attack_success_rate=None if target is None else 1.0,
        sizes=torch.ones(3),
        successes=torch.ones(3),
        suspects={"log_sizes": ours, "median_deviation": known},
        seconds=2.0,
    )


def test_what_is_found_for_each_class_is_judged_by_both_rules(monkeypatch):
    def found(model, images, *, targets, steps, generator):
        assert len(images) == 200
        masks = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
        return tuple(
            Reconstruction(
                target=target,
                trigger=MaskTrigger(mask=masks[0], pattern=masks[1]),
                success=0.99,
                size=size,
                history=torch.zeros(1),
            )
            for target, size in zip(targets, (10.0, 9.0, 0.5, 11.0), strict=True)
        )

    monkeypatch.setattr(backdoor_detection, "reconstruct_triggers", found)
    one = examine(handmade_case(), images=200, seed=0)
    assert one.suspects == {"log_sizes": (2,), "median_deviation": (2,)}
    assert one.sizes.tolist() == [10.0, 9.0, 0.5, 11.0]
    assert (one.target, one.attack_success_rate, one.accuracy) == (2, 1, 1)


def test_reconstructions_start_from_the_seed():
    one, two = (examine(handmade_case(), images=60, seed=0) for _ in "ab")
    assert one.sizes.shape == (CLASSES,)
    assert torch.equal(one.sizes, two.sizes)
    assert not torch.equal(one.sizes, examine(handmade_case(), images=60, seed=1).sizes)


def test_a_clean_network_has_no_target():
    case = replace(handmade_case(), attack_name="none")
    found = examine(case, images=50, seed=0)
    assert (found.target, found.attack_success_rate) == (None, None)


def test_alarms_by_hand():
    summary = summarise_examinations(
        [
            examination(1, (1,), (1, 2)),
            examination(1, (), (2,)),
            examination(None, (), (0,)),
            examination(None, (), ()),
        ]
    )
    rules = summary["results"]["rules"]
    counts = {
        name: [shares[kind]["count"] for kind in ("true_alarms", "wrong_class", "false_alarms")]
        for name, shares in rules.items()
    }
    assert counts == {"log_sizes": [1, 0, 0], "median_deviation": [1, 1, 1]}
    # Clopper and Pearson: with none of 2 the upper end p has (1 - p)^2 = 0.025.
    none = rules["log_sizes"]["false_alarms"]
    assert (none["of"], none["mean"], none["low"]) == (2, 0, 0)
    assert none["high"] == pytest.approx(1 - 0.025**0.5)
    assert summary["seconds"]["examination"] == 2
    json.dumps(summary, allow_nan=False)
    alone = summarise_examinations([examination(None, (), ())])
    assert alone["results"]["rules"]["log_sizes"]["true_alarms"]["mean"] is None


def test_too_few_triggers_that_work_make_nobody_suspect():
    assert suspected([]) == ()


def test_misuse():
    with pytest.raises(ValueError, match="images: got 0; allowed: at least 1"):
        examine(handmade_case(), images=0, seed=0)
    with pytest.raises(ValueError, match="examinations: got none"):
        summarise_examinations([])
    with pytest.raises(ValueError, match="target: got 10; allowed: 0 to 9"):
        backdoor_case("digits", target=10)
