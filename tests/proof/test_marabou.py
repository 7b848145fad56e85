from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from carelab import networks, proof
from carelab.properties import OutputRegions, never_lowest, required_lowest


def small(seed: int) -> nn.Sequential:
    return networks.mlp(2, (6, 5), 3, generator=torch.Generator().manual_seed(seed))


def lowest(allowed: list[int]) -> OutputRegions:
    return required_lowest(allowed, 3, low=-torch.ones(2), high=torch.ones(2))


def test_both_verifiers_give_the_same_answer():
    pytest.importorskip("maraboupy")
    statuses = []
    for seed in range(3):
        model = small(seed)
        for allowed in ([0, 1], [0], [2]):
            ours = proof.verify(model, lowest(allowed))
            theirs = proof.second_opinion(model, lowest(allowed))
            assert theirs.status == ours.status
            assert theirs.network == ours.network
            assert theirs.verifier.startswith("maraboupy 2")
            statuses.append(ours.status)
    assert set(statuses) == {"proved", "refuted"}


def test_the_parts_of_a_proof_are_asked_about_one_by_one():
    pytest.importorskip("maraboupy")
    model = small(0)
    prop = never_lowest(2, 3, low=-torch.ones(2), high=torch.ones(2))
    ours = proof.verify(model, prop, steps=0)
    assert ours.status == "proved"
    leaves = ours.trees[0].leaves
    one_by_one = proof.second_opinion(model, prop, start=ours, leaves=1)
    assert (one_by_one.status, one_by_one.boxes) == ("proved", leaves)
    at_once = proof.second_opinion(model, prop, start=ours, leaves=leaves)
    assert (at_once.status, at_once.boxes) == ("proved", 1)


def test_a_search_that_gives_up_says_so():
    pytest.importorskip("maraboupy")
    opinion = proof.second_opinion(small(0), lowest([0, 1]), seconds=1e-9)
    assert (opinion.status, opinion.boxes, opinion.boxes_left) == ("unknown", 0, 1)


def test_without_marabou_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"needs the extra carelab\[marabou\]"):
        proof.second_opinion(small(0), lowest([0]))


def test_times_that_are_not_positive_are_refused():
    with pytest.raises(ValueError, match="seconds, seconds_a_box, leaves: got 0"):
        proof.second_opinion(small(0), lowest([0]), seconds=0.0)
