from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch

from carelab.lab import frontier, frontier_summary
from carelab.lab.frontier import FrontierRun, frontier_run
from carelab.lab.frontier_bench import FrontierPoint
from carelab.lab.frontier_summary import chosen_point, frontier_runs, summarise_frontier
from carelab.networks import fingerprint
from carelab.records import Repair
from carelab.repair import search_repair

SMALL = {"steps": 20, "box": 200, "budget": 2, "weights": (1.0, 10.0)}
METHODS = {
    "ours",
    "random",
    "all_neurons",
    "hold_constant",
    "care",
    "retrained_without",
    "fairlearn_reduction",
    "averaged_out",
}


@pytest.fixture(scope="module")
def run() -> FrontierRun:
    return frontier_run("embedded-credit", seed=0, **SMALL)


def point(method: str = "ours", **values: float) -> FrontierPoint:
    """A point whose measures are 0 but for those given."""
    numbers = {f.name: 0.0 for f in fields(FrontierPoint) if f.name not in ("method", "knob")}
    return FrontierPoint(method=method, knob="", **{**numbers, **values})


def made_run(*points: FrontierPoint) -> FrontierRun:
    """A run whose network had an unfair rate of 0.2 everywhere, and accuracy 0.9."""
    before = point(
        "before",
        accuracy=0.9,
        unfair_rate_rows=0.2,
        unfair_rate_box=0.2,
        selection_rows=0.2,
        selection_box=0.2,
    )
    return FrontierRun(
        task="made",
        network="trained",
        seed=0,
        before=before,
        points=points,
        guilty=(),
        layer="all",
        candidates={},
    )


def test_every_method_is_a_point_and_every_rate_a_fraction(run) -> None:
    assert {one.method for one in run.points} == METHODS
    for one in run.points:
        assert one.accuracy_drop == pytest.approx(run.before.accuracy - one.accuracy)
        for name in ("unfair_rate_rows", "unfair_rate_box", "edited_share", "predictions_changed"):
            assert 0 <= getattr(one, name) <= 1


def test_the_share_of_neurons_is_kept(run) -> None:
    few = [one for one in run.points if one.method == "ours" and one.knob.startswith("weight")]
    assert len(few) == 2
    assert all(one.edited_share <= 0.1 for one in few)
    assert len(run.guilty) == 12
    whole = next(one for one in run.points if one.knob == "whole first layer")
    assert whole.edited_share == pytest.approx(64 / 124)


def test_the_front_goes_from_the_network_given_to_the_strongest_repair(run) -> None:
    ours = [one for one in run.points if one.method == "ours"]
    assert [one.knob for one in ours] == [
        "no repair",
        "5% of weight 1",
        "25% of weight 1",
        "50% of weight 1",
        "weight 1",
        "weight 10",
        "whole first layer",
    ]
    assert replace(ours[0], method="before", knob="") == run.before
    assert ours[0].edited_share == 0


def test_a_heavier_weight_starts_from_the_repair_before(monkeypatch) -> None:
    searched = []

    def recorded(start, space, objective, search, **knobs) -> Repair:
        repair = search_repair(start, space, objective, search, **knobs)
        searched.append((fingerprint(start), repair.repaired, objective.sharpness))
        # The search itself begins at these weights, not only in a network that has them.
        begun = space.parameters(space.start)
        assert all(torch.equal(begun[name], start.get_parameter(name)) for name in begun)
        return repair

    monkeypatch.setattr(frontier, "search_repair", recorded)
    frontier_run("embedded-credit", seed=0, steps=2, box=40, budget=1, weights=(1.0, 4.0))
    followed = [pair for pair in pairwise(searched) if pair[0][1] == pair[1][0]]
    assert len(followed) == 1
    (_, _, mild), (_, _, heavy) = followed[0]
    assert (mild, heavy) == (2.0, 4.0)


def test_what_does_not_read_the_feature_never_flips(run) -> None:
    for one in run.points:
        if one.method in ("hold_constant", "retrained_without", "averaged_out"):
            assert one.unfair_rate_rows == one.unfair_rate_box == 0


def test_a_process_of_its_own_gives_what_this_one_gives(run) -> None:
    (other,) = frontier_runs(["embedded-credit"], [0], workers=2, **SMALL)
    assert other.points == run.points
    assert other.guilty == run.guilty


def test_a_kept_run_is_read_and_not_computed_again(run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(frontier_summary, "frontier_run", lambda *args, **knobs: run)
    frontier_runs(["embedded-credit"], [0], workers=1, keep=tmp_path, **SMALL)
    monkeypatch.setattr(frontier_summary, "frontier_run", None)
    (again,) = frontier_runs(["embedded-credit"], [0], workers=1, keep=tmp_path, **SMALL)
    assert again.points == run.points
    assert again.guilty == run.guilty


def test_a_failure_does_not_lose_the_other_runs(run, tmp_path, monkeypatch) -> None:
    def sometimes(task, network, *, seed, **knobs) -> FrontierRun:
        if seed == 0:
            raise ValueError("seed 0 fails")
        return run

    monkeypatch.setattr(frontier_summary, "frontier_run", sometimes)
    with pytest.raises(ValueError, match="seed 0 fails"):
        frontier_runs(["embedded-credit"], [0, 1], workers=1, keep=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_choice_is_fair_enough_first_and_accurate_second() -> None:
    fair = point(selection_rows=0.01, selection_box=0.01, selection_drop=0.02, edited_share=0.1)
    fairer = point(selection_drop=0.03, edited_share=0.1)
    accurate = point(selection_rows=0.1, selection_box=0.1, edited_share=0.1)
    blind = point(selection_drop=0.01, edited_share=0.5)
    run = made_run(accurate, fairer, fair, blind)
    assert chosen_point(run, most_edited=0.1) is fair
    assert chosen_point(run) is blind
    assert chosen_point(made_run(accurate)) is accurate
    with pytest.raises(ValueError, match=r"most_edited: got 0\.01"):
        chosen_point(run, most_edited=0.01)


def test_the_gap_is_the_accuracy_of_a_rival_above_our_front() -> None:
    ours = [point(accuracy=0.85), point(accuracy=0.88, unfair_rate_rows=0.1)]
    constant = point("hold_constant", accuracy=0.87)
    verdict = summarise_frontier(["made"], [made_run(*ours, constant)])["verdict"]["made"]
    # The constant is as fair as our first point only, and 0.02 more accurate.
    assert verdict["gap"].mean == pytest.approx(0.02)
    better = [replace(ours[0], accuracy=0.875), ours[1], constant]
    verdict = summarise_frontier(["made"], [made_run(*better)])["verdict"]["made"]
    assert verdict["gap"].mean == pytest.approx(-0.005)
    assert verdict["gaps"]["hold_constant"].mean == verdict["gap"].mean


def test_the_fall_is_the_share_of_the_rate_that_is_gone() -> None:
    ours = point(unfair_rate_rows=0.01, unfair_rate_box=0.05, edited_share=0.1)
    run = made_run(ours, point("hold_constant", accuracy=0.87, accuracy_drop=0.03))
    verdict = summarise_frontier(["made"], [run, run])["verdict"]["made"]
    assert verdict["few_neurons"]["fall_rows"].mean == pytest.approx(0.95)
    assert verdict["few_neurons"]["fall_box"].mean == pytest.approx(0.75)
    assert verdict["hold_constant_drop"].n == 2


def test_misuse() -> None:
    with pytest.raises(ValueError, match="share, weights: got 0"):
        frontier_run("embedded-credit", seed=0, share=0.0)
    with pytest.raises(ValueError, match=r"got 0.1, \[3.0, 1.0\].*rising"):
        frontier_run("embedded-credit", seed=0, weights=(3.0, 1.0))
    with pytest.raises(ValueError, match="task: got 'census'"):
        frontier_runs(["census"], [0], workers=1)
    with pytest.raises(ValueError, match="none twice"):
        frontier_runs(["embedded-credit"], [0, 0])
    with pytest.raises(ValueError, match="equally many each"):
        summarise_frontier(["a", "b"], [made_run()])
