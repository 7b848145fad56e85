from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import pytest
import torch
from torch import nn

from carelab.data import noise_blend, warp, white_patch
from carelab.lab import backdoor, backdoor_defence, backdoor_localization, folders
from carelab.lab.backdoor import BackdoorMeasures, BackdoorRun, backdoor_run, measure_backdoor
from carelab.lab.backdoor_cases import BackdoorCase, backdoor_case
from carelab.networks import fingerprint, hidden_neurons
from carelab.properties import reconstruct_trigger
from carelab.records import Neuron, Repair
from carelab.repair import adversarial_neuron_pruning, apply_repair, care, unlearn_trigger
from tests.lab.backdoors import handmade_case
from tests.tables import seeded

BASELINES = ("care", "finetune", "finetune_known", "finepruning", "anp", "random")
run = partial(backdoor_run, steps=400, seed=0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Watched:
    """A run, and which units each search was given."""

    run: BackdoorRun
    searched: tuple[tuple[Neuron, ...], ...]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackdoorCase]:
    """Digits with a patch, trained for a short while; the slowest searches stop early."""
    folder = tmp_path_factory.mktemp("checkout")
    quick = partial(reconstruct_trigger, steps=60, restarts=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "resolve", lambda name: folder / name)
        patch.setattr(backdoor_defence, "reconstruct_trigger", quick)
        short = partial(adversarial_neuron_pruning, steps=30)
        patch.setattr(backdoor, "adversarial_neuron_pruning", short)
        patch.setattr(backdoor_defence, "SCAN_STEPS", 40)
        patch.setattr(backdoor_defence, "_AGAIN", 1)
        yield backdoor_case("digits", epochs=10)


@pytest.fixture(scope="module")
def watched(case: BackdoorCase) -> Watched:
    """Setting (a) with every method."""
    searched: list[tuple[Neuron, ...]] = []

    def watch(
        model: nn.Module, guilty: tuple[Neuron, ...], *data: object, **knobs: object
    ) -> Repair:
        searched.append(tuple(guilty))
        return unlearn_trigger(model, guilty, *data, **knobs)  # type: ignore[arg-type]

    given = fingerprint(case.model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backdoor, "unlearn_trigger", watch)
        found = run(case, "a", methods=("ours", *BASELINES))
    assert fingerprint(case.model) == given
    return Watched(run=found, searched=tuple(searched))


@pytest.fixture(scope="module")
def blind(case: BackdoorCase) -> BackdoorRun:
    """Setting (c) with every method; the one that needs triggered images has none."""
    return run(case, "c", methods=BASELINES)


def plain(found: BackdoorRun, methods: tuple[str, ...]) -> Mapping[str, object]:
    """All that a run found, without seconds, as values that compare."""
    return {
        "after": {name: asdict(found.after[name]) for name in methods},
        "before": asdict(found.before),
        "ranking": (found.ranking.units, found.ranking.guilt.tolist()),
        "guilty": found.guilty,
        "candidates": dict(found.candidates),
        "targets": found.knowledge.targets,
        "triggers": [(one.mask.tolist(), one.pattern.tolist()) for one in found.knowledge.triggers],
        "repaired": found.repair.repaired,
        "history": found.repair.history.tolist(),
    }


def test_the_attack_works_before(watched: Watched) -> None:
    before = watched.run.before
    assert before.accuracy >= 0.93
    assert before.attack_success_rate >= 0.95
    assert before.triggered_accuracy <= 1 - before.attack_success_rate
    assert before.predictions_changed == 0


def test_known_triggered_images_are_enough_for_our_repair(watched: Watched) -> None:
    found = watched.run
    assert (found.knowledge.source, found.knowledge.targets) == ("moments", (3,) * 10)
    ours = found.after["ours"]
    assert ours.attack_success_rate <= 0.02
    assert ours.accuracy >= found.before.accuracy - 0.02
    assert ours.triggered_accuracy >= 0.9
    assert found.repair.status == "improved"


def test_without_triggered_images_a_reconstruction_stands_in(blind: BackdoorRun) -> None:
    knowledge, ours = blind.knowledge, blind.after["ours"]
    assert (knowledge.source, knowledge.targets) == ("reconstruction", (3,) * 10)
    assert [one.target for one in knowledge.reconstructions] == list(range(10))
    assert knowledge.triggers[-1] is knowledge.reconstructions[3].trigger
    assert len(knowledge.triggers) == 2
    assert ours.attack_success_rate <= 0.1
    assert ours.accuracy >= blind.before.accuracy - 0.03


def test_the_positions_say_where_the_patch_is(watched: Watched) -> None:
    # Pooled twice, the 8 x 8 pixels give 2 x 2 places; the patch is white in the lower right.
    positions = watched.run.positions
    assert positions is not None
    assert {unit.layer for unit in positions.units} == {"pool2"}
    places = torch.zeros(2, 2, dtype=torch.float64)
    for unit, effect in zip(positions.units, positions.effect, strict=True):
        assert isinstance(unit, Neuron)
        places[unit.position] += effect
    assert places.argmax() == 3


def test_a_network_without_feature_map_has_no_positions() -> None:
    assert run(handmade_case(), "a", methods=()).positions is None


def test_every_method_is_measured(watched: Watched, blind: BackdoorRun) -> None:
    assert set(watched.run.after) == {"ours", *BASELINES}
    assert set(blind.after) == {"ours", *BASELINES} - {"finetune_known"}
    for found in (watched.run, blind):
        timed = {"knowledge", "localization", "repair", *found.after} - {"ours"}
        assert set(found.seconds) == timed
        assert all(seconds > 0 for seconds in found.seconds.values())
        for measures in (found.before, *found.after.values()):
            rates = [rate for rate in asdict(measures).values() if rate is not None]
            assert len(rates) == 6
            assert all(0 <= rate <= 1 for rate in rates)


def test_the_record_of_our_repair_is_what_was_measured(
    case: BackdoorCase, watched: Watched
) -> None:
    found = watched.run
    assert found.repair.network == fingerprint(case.model)
    assert found.repair.neurons == found.guilty
    assert measure_backdoor(case, apply_repair(case.model, found.repair)) == found.after["ours"]


def test_guilty_units_are_the_first_of_their_layer(case: BackdoorCase, watched: Watched) -> None:
    found = watched.run
    assert set(found.ranking.units) == set(hidden_neurons(case.model))
    # From the last of three layers back, and few units first; the best of all tried is kept.
    tried = list(found.candidates)
    layers = list(dict.fromkeys(one.split(", ")[0] for one in tried))
    assert layers == ["relu3", "relu2", "relu1"][: len(layers)]
    trials = ["5%, step 0.003", "5%, step 0.01", "10%, step 0.01", "10% of all, step 0.03"]
    for layer in layers:
        own_trials = [one.split(", ", 1)[1] for one in tried if one.startswith(layer)]
        assert own_trials == [one for one in trials if one in own_trials]
        assert own_trials[0] == trials[0]
        costs = [found.candidates[name] for name in tried if name.startswith(layer)]
        # As long as it helps.
        assert costs[:-1] == sorted(costs[:-1], reverse=True)
    assert all(cost > 0.01 for cost in list(found.candidates.values())[:-1])
    layer, share, _ = min(tried, key=lambda one: found.candidates[one]).split(", ")
    own = [unit for unit in found.ranking.units if unit.layer == layer]
    # A tenth of all 112 units is 11.
    count = 11 if share == "10% of all" else round(float(share[:-1]) / 100 * len(own))
    assert found.guilty == tuple(own[: max(1, count)])


@pytest.mark.parametrize(
    ("costs", "trials"),
    [
        # Good enough at once.
        ([0.005], ["5%, step 0.003"]),
        # As long as it helps.
        ([0.05, 0.04, 0.045], ["5%, step 0.003", "5%, step 0.01", "10%, step 0.01"]),
        # Two on where much is left, and never past the last.
        ([0.6, 0.3, 0.02], ["5%, step 0.003", "10%, step 0.01", "10% of all, step 0.03"]),
        (
            [0.09, 0.08, 0.07, 0.06],
            ["5%, step 0.003", "5%, step 0.01", "10%, step 0.01", "10% of all, step 0.03"],
        ),
    ],
)
def test_what_is_tried_in_a_layer(
    case: BackdoorCase, monkeypatch: pytest.MonkeyPatch, costs: list[float], trials: list[str]
) -> None:
    given = iter(costs)
    monkeypatch.setattr(backdoor_localization, "_selection_cost", lambda *data: next(given))
    generator = seeded(0)
    defence = backdoor_defence.prepare_defence(case, "a", generator=generator)
    known = backdoor_defence.known_attack(case.model, defence, 10, generator=generator)
    ranking = backdoor_localization.localize(case.model, defence, known).ranking
    searched: list[tuple[int, float]] = []

    def unlearn(guilty: Sequence[Neuron], *, learning_rate: float) -> Repair:
        searched.append((len(guilty), learning_rate))
        images = defence.selection
        data = (images, known.victims(images), known.triggers, known.prop)
        return unlearn_trigger(case.model, guilty, *data, steps=2, generator=generator)

    found = backdoor_localization.repair_best_layer(case.model, ranking, defence, known, unlearn)
    assert list(found.candidates) == [f"relu3, {trial}" for trial in trials]
    # 64 of the 112 units are in the last layer.
    counts = {"5%": 3, "10%": 6, "10% of all": 11}
    assert [count for count, _ in searched] == [counts[one.split(", ")[0]] for one in trials]
    assert found.learning_rate == searched[costs.index(min(costs))][1]


def test_random_units_are_as_many_of_the_same_layer(watched: Watched) -> None:
    *tried, drawn = watched.searched
    layers = [name.split(", ")[0] for name in watched.run.candidates]
    assert [units[0].layer for units in tried] == layers
    assert watched.run.guilty in tried
    assert len(set(drawn)) == len(watched.run.guilty)
    assert {unit.layer for unit in drawn} == {unit.layer for unit in watched.run.guilty}


def test_two_runs_are_equal_apart_from_seconds(case: BackdoorCase, watched: Watched) -> None:
    again = run(case, "a", methods=("care", "finetune"))
    names = ("ours", "care", "finetune")
    assert plain(again, names) == plain(watched.run, names)


def test_without_known_images_the_true_trigger_only_measures(
    case: BackdoorCase, blind: BackdoorRun
) -> None:
    # The same network and data with another attack: all that is found must be the same.
    other = replace(case.attack, trigger=white_patch((1, 8, 8), 1, 3), target=None)
    found = run(replace(case, attack=other), "c", methods=())
    one, two = plain(found, ()), plain(blind, ())
    assert one["before"] != two["before"]
    assert {**one, "before": None} == {**two, "before": None}


def test_care_counts_every_target_of_an_all_to_all_attack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Repair] = []

    def watch(*data: object, **knobs: object) -> Repair:
        made.append(care(*data, **{**knobs, "iterations": 2}))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(backdoor, "care", watch)
    found = run(handmade_case(target=None), "b", methods=("care",), steps=20)
    assert found.knowledge.targets == (1, 2, 3, 0)
    assert made[0].before.violation_rate == 1


def silenced(case: BackdoorCase) -> nn.Sequential:
    """The network by hand without what speaks for the trigger."""
    model = handmade_case(target=case.attack.target).model
    assert isinstance(model, nn.Sequential)
    with torch.no_grad():
        model[3].weight[:, 4:] = 0
    return model


def constant(case: BackdoorCase) -> nn.Sequential:
    """A network that names class 0 always."""
    model = silenced(case)
    with torch.no_grad():
        model[3].bias[0] = 9
    return model


def given_network(case: BackdoorCase) -> nn.Module:
    return case.model


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        # At 80 % of its brightness the dot still gives 10 (1 + 0.8 - 1.6) = 2 against 1; one
        # pixel away it is not read.
        (given_network, (1.0, 1.0, 0.0, 0.0, 1.0, 0.0)),
        (silenced, (1.0, 0.0, 1.0, 0.0, 0.0, 0.0)),
        # A quarter of the pictures is of class 0, and so is a third of those that are not of the
        # target, 2; the answers of all others change.
        (constant, (0.25, 0.0, 1 / 3, 0.0, 0.0, 0.75)),
    ],
)
def test_measures_by_hand(
    make: Callable[[BackdoorCase], nn.Module], expected: tuple[float, ...]
) -> None:
    case = handmade_case()
    measures = measure_backdoor(case, make(case))
    names = (
        "accuracy",
        "attack_success_rate",
        "triggered_accuracy",
        "attack_success_shifted",
        "attack_success_recoloured",
        "predictions_changed",
    )
    assert asdict(measures) == pytest.approx(dict(zip(names, expected, strict=True)))


def test_a_warp_is_in_no_place_and_has_no_colour() -> None:
    trigger = warp((1, 4, 4), strength=1.0, generator=seeded())
    measures = measure_backdoor(case := handmade_case(trigger=trigger), case.model)
    assert isinstance(measures, BackdoorMeasures)
    assert measures.attack_success_shifted is None
    assert measures.attack_success_recoloured is None


def test_a_blend_has_both() -> None:
    trigger = noise_blend((1, 4, 4), 0.2, generator=seeded())
    measures = measure_backdoor(case := handmade_case(trigger=trigger), case.model)
    assert measures.attack_success_shifted is not None
    assert measures.attack_success_recoloured is not None


def test_misuse() -> None:
    case = handmade_case()
    with pytest.raises(ValueError, match=r"methods: got \['magic'\]; allowed: ours, care"):
        run(case, "a", methods=("ours", "magic"))
    with pytest.raises(ValueError, match="setting: got 'z'; allowed: a, b, c, d"):
        run(case, "z")
