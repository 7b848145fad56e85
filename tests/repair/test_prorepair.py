from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from carelab import proof
from carelab.networks import fingerprint, mlp, seeded
from carelab.networks.architectures import in_a_row
from carelab.properties import OutputRegion, OutputRegions, never_lowest
from carelab.records import Samples
from carelab.repair import (
    Clauses,
    box_distance,
    centre_distance,
    feature_layer,
    label_clauses,
    prorepair_points,
    prorepair_region,
    random_side,
    safe_clauses,
    steepest_side,
    widest_side,
)
from carelab.repair.refinement import refine, root_properties

BOX = {"low": -torch.ones(3), "high": torch.ones(3)}
# No test depends on how fast the machine is.
patient = partial(prorepair_region, seconds=1e6, verify_seconds=1e6)


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int = 0) -> nn.Sequential:
    return mlp(3, (10, 10, 10), 3, generator=drawn(seed))


def task(seed: int = 0, points: int = 12) -> tuple[nn.Sequential, Tensor, Clauses]:
    """A network, inputs, and labels at random, which it mostly does not give."""
    inputs = torch.randn(points, 3, generator=drawn(seed + 100))
    labels = torch.randint(0, 3, (points,), generator=drawn(seed + 200))
    return network(seed), inputs, label_clauses(labels, 3)


def raised(model: nn.Module, inputs: Tensor, classes: int = 3) -> Clauses:
    """For each input, one output drawn at random is to rise by at least 0.05."""
    which = torch.randint(0, classes, (len(inputs),), generator=drawn(9))
    with torch.no_grad():
        outputs = model(inputs).gather(1, which[:, None])
    rows = torch.eye(classes, dtype=torch.float64)[which][:, None, None]
    return Clauses(rows=rows, limits=(outputs + 0.05).double()[:, :, None])


def changed_layers(model: nn.Module, other: nn.Module) -> set[str]:
    return {
        name.rpartition(".")[0]
        for name, weight in model.state_dict().items()
        if not torch.equal(weight, other.state_dict()[name])
    }


def unsafe(model: nn.Module, prop: OutputRegion | OutputRegions, count: int = 20_000) -> float:
    """Share of uniform points of the box at which the property is violated."""
    inputs = torch.rand(count, 3, generator=drawn(7)) * 2 - 1
    with torch.no_grad():
        outputs = model(inputs).unsqueeze(0)
    return float(prop.rate(outputs, Samples(inputs=inputs)))


def test_points_are_right_in_exact_arithmetic_and_the_classifier_is_the_old_one():
    model, inputs, clauses = task()
    before = fingerprint(model)
    assert bool((clauses.margin(model(inputs)) <= 0).any())
    fixed = prorepair_points(model, inputs, clauses, learning_rate=0.01)
    assert fixed.status == "proved"
    assert bool(fixed.proved.all())
    assert bool(fixed.boxes.proved.all())
    chain = proof.affine_chain(fixed.repaired)
    for point, rows in zip(inputs, clauses.rows, strict=True):
        outputs = proof.exact_outputs(chain, point.double())
        for (row,) in rows.tolist():
            assert sum(int(a) * y for a, y in zip(row, outputs, strict=True)) > 0
    assert fingerprint(model) == before
    assert fixed.layer == feature_layer(model) == "linear3"
    assert changed_layers(model, fixed.repaired) == {"linear1", "linear2", "linear3"}
    assert fixed.history[-1] < fixed.history[0]
    assert all(weight.requires_grad for weight in fixed.repaired.parameters())
    assert all(weight.grad is None for weight in fixed.repaired.parameters())


def test_a_feature_in_its_box_is_right():
    model, inputs, clauses = task(1)
    fixed = prorepair_points(model, inputs, clauses, learning_rate=0.01, radius=0.3)
    assert bool(fixed.in_box.any())
    assert bool(fixed.proved[fixed.in_box & fixed.boxes.proved].all())


def test_another_cut_changes_only_what_comes_before_it():
    model, inputs, _ = task(2, points=6)
    fixed = prorepair_points(
        model, inputs, raised(model, inputs), layer="linear2", learning_rate=0.01, radius=0.02
    )
    assert fixed.status == "proved"
    assert changed_layers(model, fixed.repaired) == {"linear1", "linear2"}


def test_inputs_that_are_right_change_nothing():
    model, inputs, _ = task()
    clauses = label_clauses(model(inputs).argmax(dim=1), 3)
    fixed = prorepair_points(model, inputs, clauses)
    assert fixed.status == "proved"
    assert len(fixed.history) == 0
    assert fingerprint(fixed.repaired) == fingerprint(model)


def test_a_repair_that_cannot_be_is_a_result():
    model = network()
    inputs = torch.ones(2, 3)  # one input, two labels
    fixed = prorepair_points(model, inputs, label_clauses(torch.tensor([0, 1]), 3), steps=20)
    assert fixed.status == "refuted"
    assert int(fixed.proved.sum()) < 2
    assert len(fixed.history) == 20


def test_no_box_no_change():
    model = network()
    above = Clauses(  # no move of at most one radius reaches an output of 1e6
        rows=torch.tensor([[[[1.0, 0.0, 0.0]]]], dtype=torch.float64),
        limits=torch.full((1, 1, 1), 1e6, dtype=torch.float64),
    )
    fixed = prorepair_points(model, torch.ones(1, 3), above, moves=1)
    assert (fixed.status, fixed.boxes.proved.tolist()) == ("refuted", [False])
    assert fingerprint(fixed.repaired) == fingerprint(model)


def test_what_is_kept_moves_less():
    model, inputs, _ = task(3)
    kept = torch.randn(300, 3, generator=drawn(1))
    drift = []
    for keep in (None, kept):
        fixed = prorepair_points(
            model,
            inputs,
            raised(model, inputs),
            learning_rate=0.01,
            radius=0.02,
            keep=keep,
            keep_weight=0.2,
            distance=box_distance,
        )
        assert fixed.status == "proved"
        drift.append(float((fixed.repaired(kept) - model(kept)).detach().norm()))
    assert drift[1] < 0.6 * drift[0]


def test_distances_from_a_centre_and_from_a_box():
    features = torch.tensor([[1.0, 2.0], [0.5, -0.5]])
    centres = torch.zeros(2, 2)
    from_centre = centre_distance(features, centres, 1.0).tolist()
    assert from_centre == pytest.approx([math.sqrt(5), math.sqrt(0.5)])
    assert box_distance(features, centres, 0.75).tolist() == pytest.approx(
        [math.hypot(0.25, 1.25), 0]
    )


def test_images_are_repaired_too():
    generator = drawn(0)
    with seeded(generator):
        model = in_a_row(
            [nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 8), nn.ReLU(),
             nn.Linear(8, 3)]
        )  # fmt: skip
    images = torch.rand(4, 1, 4, 4, generator=generator)
    labels = torch.zeros(4, dtype=torch.int64)
    assert int((model(images).argmax(dim=1) == labels).sum()) == 0
    fixed = prorepair_points(model, images, label_clauses(labels, 3), learning_rate=0.01)
    assert fixed.status == "proved"
    assert torch.equal(fixed.repaired(images).argmax(dim=1), labels)
    assert changed_layers(model, fixed.repaired) == {"conv1", "linear1"}


def controller(seed: int = 0) -> nn.Sequential:
    """A network whose outputs cross each other in the box."""
    model = network(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 2.5 if weight.ndim == 2 else 1.0
    return model


def region(seed: int = 0) -> OutputRegion:
    """The class that is the lowest most seldom is never the lowest."""
    inputs = torch.rand(2000, 3, generator=drawn(3)) * 2 - 1
    advice = controller(seed)(inputs).argmin(dim=1)
    counts = torch.bincount(advice, minlength=3)
    return never_lowest(int(torch.where(counts > 0, counts, 10**6).argmin()), 3, **BOX)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_region_is_proved_and_its_certificate_holds(seed, tmp_path):
    model, prop = controller(seed), region(seed)
    before = fingerprint(model)
    assert unsafe(model, prop) > 0
    fixed = patient(model, prop)
    assert (fixed.status, fixed.verdict.status) == ("proved", "proved")
    assert unsafe(fixed.repaired, prop) == 0
    assert fixed.verdict.network == fingerprint(fixed.repaired) != before
    assert fingerprint(model) == before
    assert changed_layers(model, fixed.repaired) == {"linear1", "linear2", "linear3"}
    proof.save_certificate(fixed.verdict, prop, tmp_path / "a.safetensors")
    check = proof.check_certificate(fixed.repaired, prop, tmp_path / "a.safetensors")
    assert check.status == "proved"
    assert bool(prop.inside(fixed.points).all())
    assert min(fixed.seconds_repair, fixed.seconds_proof) > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_the_history_tells_the_search(seed):
    fixed = patient(controller(seed), region(seed), verify_every=3)
    rounds = fixed.refinements
    assert rounds[0].boxes == 1
    refuted = sum(one.verdict == "refuted" for one in rounds)
    assert 0 < len(fixed.points) <= refuted + sum(one.counterexamples for one in rounds)
    assert sum(one.steps for one in rounds) > 0
    for now, after in pairwise(rounds):
        left = now.boxes - now.proved
        assert after.boxes == (1 if now.verdict == "refuted" else 2 * left)
        assert 0 <= now.proved <= now.boxes
    assert rounds[-1].verdict == "proved"


def test_two_searches_do_the_same():
    first, second = (patient(controller(), region()) for _ in range(2))
    assert fingerprint(first.repaired) == fingerprint(second.repaired)
    assert torch.equal(first.points, second.points)


def test_a_property_that_holds_changes_nothing():
    model = network()
    inputs = torch.rand(5000, 3, generator=drawn(0)) * 2 - 1
    least = float(model(inputs).detach()[:, 0].min()) - 1.0
    prop = OutputRegion(matrix=torch.tensor([[1.0, 0.0, 0.0]]), limits=torch.tensor([least]), **BOX)
    fixed = patient(model, prop)
    assert fixed.status == "proved"
    assert fingerprint(fixed.repaired) == fingerprint(model)
    assert len(fixed.points) == 0


@pytest.mark.parametrize(
    "rule", [widest_side, partial(random_side, generator=torch.Generator().manual_seed(0))]
)
def test_other_ways_to_cut_and_to_pull(rule):
    gentle = partial(prorepair_points, learning_rate=0.01, distance=box_distance, radius=0.05)
    fixed = patient(controller(1), region(1), points_repair=gentle, split_rule=rule)
    assert fixed.status == "proved"


def test_a_margin_is_kept_at_the_points():
    model, prop = controller(1), region(1)
    fixed = patient(model, prop, margin=0.3)
    assert fixed.status == "proved"
    outputs = proof.affine_chain(fixed.repaired)(fixed.points.float())
    assert bool((safe_clauses(prop, fixed.points).margin(outputs) > 0.3).all())
    assert unsafe(fixed.repaired, prop) == 0


def test_several_polytopes_are_kept_out_of():
    model, first = controller(), region()
    inputs = torch.rand(5000, 3, generator=drawn(0)) * 2 - 1
    ceiling = float(model(inputs).detach()[:, 0].max()) - 0.1
    below = OutputRegion(
        matrix=torch.tensor([[-1.0, 0.0, 0.0]]), limits=torch.tensor([-ceiling]), **BOX
    )
    both = OutputRegions(regions=(first, below))
    assert min(unsafe(model, prop) for prop in (first, below)) > 0
    fixed = patient(model, both)
    assert fixed.status == "proved"
    assert [unsafe(fixed.repaired, prop) for prop in (first, below)] == [0, 0]
    assert fixed.refinements[0].boxes == 2


def test_limits_end_a_search_that_cannot_succeed():
    # Nothing before the last layer can bring 0 x h + 0 above 1.
    model = network()
    model.linear4.weight.data[0] = 0
    model.linear4.bias.data[0] = 0
    matrix = torch.tensor([[1.0, 0.0, 0.0]])
    prop = OutputRegion(matrix=matrix, limits=torch.ones(1), **BOX)
    fixed = patient(model, prop, boxes=20)
    assert fixed.status == "refuted"
    assert fixed.verdict.counterexample is not None
    assert sum(one.boxes for one in fixed.refinements) < 60
    assert fingerprint(fixed.repaired) == fingerprint(model)


def test_a_box_of_a_point_is_decided():
    point = torch.full((3,), 0.5)
    prop = never_lowest(int(network()(point[None]).argmin()), 3, low=point, high=point)
    fixed = patient(network(), prop)
    assert fixed.status == "proved"
    assert int(fixed.repaired(point[None]).argmin()) != int(network()(point[None]).argmin())


def test_refining_loses_no_part_of_the_box_and_finds_what_violates():
    model, prop = controller(), region()
    chain = proof.affine_chain(model)
    whole = proof.polytopes(prop, chain)
    parts, kept = root_properties(whole), 0.0
    for _ in range(9):
        volume = (parts.high - parts.low).prod(dim=1).sum()
        seen = refine(chain, whole, parts, steepest_side, batch_size=50)
        left = (seen.parts.high - seen.parts.low).prod(dim=1).sum()
        assert len(seen.parts) == 2 * (len(parts) - seen.proved)
        assert left <= volume * (1 + 1e-12)
        kept += float(volume - left)
        if len(seen.violating):
            margins = safe_clauses(prop, seen.violating).margin(chain(seen.violating))
            assert bool((margins <= 0).all())
        parts = seen.parts
    assert 0 < kept / 8 <= 1 - unsafe(model, prop)
    inputs = torch.rand(3000, 3, generator=drawn(5), dtype=torch.float64) * 2 - 1
    in_a_part = (
        ((inputs[:, None] >= parts.low) & (inputs[:, None] <= parts.high)).all(dim=2).any(dim=1)
    )
    wrong = safe_clauses(prop, inputs).margin(chain(inputs)) <= 0
    assert bool(in_a_part[wrong].all())


def test_boxes_without_a_width_are_not_cut():
    chain = proof.affine_chain(network())
    prop = never_lowest(0, 3, low=torch.zeros(3), high=torch.zeros(3))
    whole = proof.polytopes(prop, chain)
    assert len(refine(chain, whole, root_properties(whole), widest_side).parts) == 0


def test_cuts_follow_the_rule():
    low, high = torch.zeros(3, 2), torch.tensor([[1.0, 2.0], [2.0, 1.0], [0.0, 0.5]])
    slopes = torch.tensor([[[4.0, 1.0], [0.0, 1.5]], [[1.0, 1.0], [0.0, 0.5]], [[9.0, 1.0]] * 2])
    assert widest_side(slopes, low, high).tolist() == [1, 0, 1]
    assert steepest_side(slopes, low, high).tolist() == [1, 0, 1]
    assert steepest_side(slopes * torch.tensor([2.0, 1.0]), low, high).tolist() == [0, 0, 1]
    sides = torch.stack([random_side(slopes, low, high, generator=drawn(n)) for n in range(20)])
    assert sides[:, 2].tolist() == [1] * 20
    assert 0 < sides[:, 0].sum() < 20


def test_misuse():
    model, inputs, clauses = task()
    with pytest.raises(ValueError, match=r"inputs: got 3 for the clauses of 12"):
        prorepair_points(model, inputs[:3], clauses)
    with pytest.raises(ValueError, match=r"inputs: .* not finite"):
        prorepair_points(model, inputs * math.nan, clauses)
    with pytest.raises(ValueError, match=r"learning_rate, steps, keep_weight: got 0, 500, 1.0"):
        prorepair_points(model, inputs, clauses, learning_rate=0)
    with pytest.raises(ValueError, match=r"layer: got 'relu9'"):
        prorepair_points(model, inputs, clauses, layer="relu9")
    with pytest.raises(ValueError, match=r"model: has no hidden layer"):
        prorepair_points(in_a_row([nn.Linear(3, 3)]), inputs, clauses)
    with pytest.raises(ValueError, match=r"layer: comes before every weight"):
        prorepair_points(
            in_a_row([nn.ReLU(), *network().children()]), inputs, clauses, layer="relu1"
        )
    with pytest.raises(ValueError, match=r"training mode"):
        prorepair_points(network().train(), inputs, clauses)
    with pytest.raises(ValueError, match=r"training mode"):
        prorepair_region(network().train(), region())
    with pytest.raises(ValueError, match=r"verify_every: got 0; allowed: a positive number"):
        prorepair_region(model, region(), verify_every=0)
    with pytest.raises(ValueError, match=r"margin: got -1; allowed: a number that is not"):
        prorepair_region(model, region(), margin=-1)
    with pytest.raises(ValueError, match=r"unbounded box"):
        prorepair_region(model, never_lowest(0, 3))
    with pytest.raises(ValueError, match=r"is about 3 inputs and 4"):
        prorepair_region(model, never_lowest(0, 4, **BOX))
