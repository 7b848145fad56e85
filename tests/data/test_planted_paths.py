"""Paths by hand: what the units of a design pass on, and how a cause is read."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carelab import data, networks
from carelab.data.planted_causes import BackdoorCause, BiasCause, RegionCause, lead
from carelab.data.planted_grounds import _indicator
from carelab.data.planted_paths import (
    Design,
    Group,
    draw_designs,
    face_units,
    path_units,
    sink_units,
)
from carelab.data.planted_proxies import neutral_inputs, proxy_columns
from carelab.data.planted_signals import Signal, pursue
from carelab.data.planted_surgery import stages
from carelab.records import Feature, Samples


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def passed_on(group: Group, inputs: torch.Tensor) -> torch.Tensor:
    return (inputs @ group.weight.T + group.bias).relu() @ group.readout + group.constant


SIGNAL = Signal(weight=torch.ones(1), bias=0.0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 4), stepped=st.booleans())
def test_a_layer_passes_its_signal_on(seed, size, stepped):
    group = path_units(SIGNAL, Design(size=size, stepped=stepped), generator=generator(seed))
    assert len(group.roles) == size
    low, high = passed_on(group, torch.tensor([[-1.0], [0.0]])), passed_on(group, torch.ones(1, 1))
    torch.testing.assert_close(low, torch.zeros(2))
    torch.testing.assert_close(high, torch.ones(1), rtol=1e-5, atol=1e-5)
    steps = group.roles.count("brake")
    assert steps == (size // 2 if stepped else 0)


def test_a_step_is_flat_where_the_cause_is_and_a_plain_layer_is_not():
    slopes = []
    for stepped in (True, False):
        group = path_units(SIGNAL, Design(size=2, stepped=stepped), generator=generator())
        at = torch.ones(1, 1, requires_grad=True)
        passed_on(group, at).sum().backward()
        slopes.append(float(at.grad))
    assert slopes[0] == 0
    assert slopes[1] > 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), backed=st.integers(1, 3))
def test_a_backed_step_is_full_with_one_unit_of_the_layer_before(seed, backed):
    group = path_units(
        SIGNAL, Design(size=2, stepped=True, backed=backed), generator=generator(seed)
    )
    alone = passed_on(group, torch.tensor([[1 / backed]]))
    torch.testing.assert_close(alone, torch.ones(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stepped", [True, False])
def test_faces_hold_outside_and_let_through_inside(stepped):
    # A face at 0.5, ramp 0.2, signal (0.5 - x) / 0.2: outside below. Two faces: 0.5 < x, y.
    signals = [
        Signal(weight=torch.tensor(row) / -0.2, bias=0.5 / 0.2) for row in ([1.0, 0.0], [0.0, 1.0])
    ]
    group = face_units(signals, stepped=stepped)
    inside = passed_on(group, torch.tensor([[0.6, 0.6], [5.0, 0.5], [0.9, 3.0]]))
    torch.testing.assert_close(inside, torch.ones(3), rtol=1e-5, atol=1e-5)
    outside = passed_on(group, torch.tensor([[0.25, 0.9], [0.9, -3.0], [-1.0, -1.0]]))
    assert float(outside.max()) <= 0
    half = passed_on(group, torch.tensor([[0.4, 0.9]]))
    torch.testing.assert_close(half, torch.tensor([0.5]), rtol=1e-4, atol=1e-4)
    active = (torch.tensor([[0.9, 0.9]]) @ group.weight.T + group.bias > 0).all()
    assert bool(active) == stepped


def test_sinks_stay_off_at_twice_of_what_they_have_seen():
    stage = stages(networks.mlp(3, (4, 4), 2, generator=generator()))[1]
    seen = torch.rand(50, 3, generator=generator())
    group = sink_units(
        torch.tensor([1.0, 0.0, 2.0]), seen, stage, before=4, tap=(), count=2, generator=generator()
    )
    states = torch.cat([torch.zeros(50, 4), 2 * seen], dim=1)
    assert float((states @ group.weight.T + group.bias).max()) < 0
    assert (group.weight[:, [4, 6]] > 0).all()
    assert (group.weight[:, [0, 1, 2, 3, 5]] == 0).all()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    saturated=st.booleans(),
    backup=st.booleans(),
    region=st.booleans(),
)
def test_designs_have_what_was_asked_or_say_why_not(seed, sizes, saturated, backup, region):
    steps = [
        at for at, size in enumerate(sizes) if size >= 2 and not (region and at == 0 and size % 2)
    ]
    pairs = [at for at in steps if at > int(region) and 2 <= sizes[at - 1] <= 3]
    asked = partial(
        draw_designs,
        sizes,
        saturated=saturated,
        backup=backup,
        region=region,
        generator=generator(seed),
    )
    if (saturated and not steps) or (backup and not pairs):
        with pytest.raises(ValueError, match="sizes: got"):
            asked()
        return
    designs = asked()
    assert [design.size for design in designs] == sizes
    assert any(design.stepped for design in designs) == (saturated or backup)
    backed = [number for number, design in enumerate(designs) if design.backed > 1]
    assert len(backed) == int(backup)
    for number in backed:
        before = designs[number - 1]
        assert designs[number].stepped
        assert before.equal
        assert not before.stepped
        assert before.size == designs[number].backed
        assert not (region and number == 1)


def test_pursuit_finds_a_sparse_reading():
    features = torch.randn(200, 30, generator=generator())
    target = 2 * features[:, 3] - 0.5 * features[:, 17] + 4
    weight, bias = pursue(features, target, torch.ones(30, dtype=torch.bool), 5)
    assert set(weight.nonzero().flatten().tolist()) >= {3, 17}
    torch.testing.assert_close(features @ weight + bias, target, rtol=1e-2, atol=1e-2)
    barred = torch.ones(30, dtype=torch.bool)
    barred[3] = False
    assert pursue(features, target, barred, 30)[0][3] == 0
    assert int((pursue(features, target, barred, 4)[0] != 0).sum()) <= 4


def test_the_indicator_of_a_category_is_exact():
    values = (torch.eye(4) - torch.tensor([0.1, 0.2, 0.3, 0.4])) / torch.tensor(
        [0.3, 0.4, 0.5, 0.6]
    )
    reading, offset = _indicator(values, 2)
    expected = torch.tensor([0.0, 0.0, 1.0, 0.0])
    torch.testing.assert_close(values @ reading + offset, expected, rtol=1e-4, atol=1e-4)


def test_a_bias_by_hand():
    # Logits (0, x + 2 s - 1): the label is 1 where x + 2 s > 1.
    layer = torch.nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 2.0]]))
        layer.bias.copy_(torch.tensor([0.0, -1.0]))
    model = torch.nn.Sequential(layer).eval()
    sex = Feature(name="sex", columns=(1,), values=torch.tensor([[0.0], [1.0]]))
    cause = BiasCause(feature=sex, reading=torch.ones(1), offset=0.0, pushed=1)
    rows = Samples(inputs=torch.tensor([[0.0, 0.0], [0.5, 1.0], [3.0, 0.0]]))
    assert cause.violated(model, rows).tolist() == [True, True, False]
    shown, references = cause.shown(model, rows)
    assert shown.inputs.tolist() == [[0.0, 0.0], [0.5, 1.0]]
    assert references.inputs.tolist() == [[0.0, 1.0], [0.5, 0.0]]
    assert cause.signals(rows.inputs).flatten().tolist() == [0, 1, 0]
    assert cause.shift(model, rows, "strong") == pytest.approx(4 * cause.shift(model, rows, "weak"))


def test_a_backdoor_by_hand():
    mask, pattern = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])
    cause = BackdoorCause(mask=mask, pattern=pattern, location=None, pushed=1)
    images = torch.tensor([[0.3, 0.2, 0.9], [0.3, 1.0, 0.0]])
    assert cause.present(images).tolist() == [[pytest.approx(0.3), 1, 0]] * 2
    assert cause.signals(images).flatten().tolist() == [0, 1]
    assert cause.columns == (1, 2)
    labelled = Samples(inputs=images, labels=torch.tensor([1, 0]))
    assert cause.exposed(labelled).labels.tolist() == [0]
    with pytest.raises(ValueError, match="samples: got no labels"):
        cause.exposed(Samples(inputs=images))


def test_a_region_by_hand():
    # The box is x > 0.5; class 1 wins everywhere in it and nowhere else.
    layer = torch.nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        layer.bias.copy_(torch.tensor([0.0, -0.5]))
    model = torch.nn.Sequential(layer).eval()
    cause = RegionCause(
        low=torch.tensor([0.5, -1.0]),
        high=torch.ones(2),
        domain=(-1.0, 1.0),
        faces=((0, -1),),
        ramp=0.1,
        pushed=1,
    )
    rows = Samples(inputs=torch.tensor([[0.9, 0.0], [0.6, 0.7], [-0.2, 0.0]]))
    assert cause.inside(rows.inputs).tolist() == [True, True, False]
    shown, references = cause.shown(model, rows)
    assert len(shown) == 2
    expected = torch.tensor([[0.375, 0.0], [0.375, 0.7]])
    torch.testing.assert_close(references.inputs, expected)
    assert cause.inside(cause.present(torch.rand(50, 2, generator=generator()) * 2 - 1)).all()
    torch.testing.assert_close(
        cause.signals(rows.inputs).flatten(), torch.tensor([-4.0, -1.0, 7.0])
    )


def test_lead_by_hand():
    outputs = torch.tensor([[1.0, 5.0, 3.0]])
    assert [float(lead(outputs, number)) for number in range(3)] == [-4, 2, -2]


def test_proxies_help_the_task_and_do_not_see_the_cause():
    g = generator()
    inputs = torch.randn(300, 4, generator=g)
    samples = Samples(inputs=inputs, labels=(inputs[:, 0] > 0).long())
    model = networks.mlp(4, (6,), 2, generator=g)
    active = inputs[:, :2].relu()
    columns = proxy_columns(model, samples, active, spread=1.0)
    outputs = networks.logits(model, inputs)
    loss = [
        torch.nn.functional.cross_entropy(outputs + part, samples.labels)
        for part in (torch.zeros(300, 2), active @ columns.T)
    ]
    assert loss[1] < loss[0]
    assert float((active @ columns.T).abs().quantile(0.95)) <= 0.1 + 1e-5
    sex = Feature(name="sex", columns=(3,), values=torch.tensor([[0.0], [1.0]]))
    cause = BiasCause(feature=sex, reading=torch.ones(1), offset=0.0, pushed=1)
    neutral = neutral_inputs(cause, inputs, generator=g)
    assert torch.equal(neutral[:, :3], inputs[:, :3])
    assert not torch.equal(neutral[:, 3], inputs[:, 3])
    torch.testing.assert_close(neutral[:, 3].sort().values, inputs[:, 3].sort().values)


def test_grounds_are_trained_and_standardised():
    g = generator()
    census = data.embedded_census(rows=1000, direct=0.3, generator=g)
    ground = data.bias_ground(census, "race", widths=(12,), epochs=10, generator=g)
    torch.testing.assert_close(ground.train.inputs.mean(dim=0), torch.zeros(9), rtol=0, atol=1e-5)
    assert networks.accuracy(ground.model, ground.test) > 0.75
    cause = ground.draw(1, 0.1, g)
    signals = cause.signals(cause.present(ground.train.inputs))
    torch.testing.assert_close(signals, torch.ones_like(signals), rtol=1e-4, atol=1e-4)
    assert float(cause.signals(cause.absent(ground.train.inputs)).max()) <= 1e-5


def test_ground_misuse():
    g = generator()
    census = data.embedded_census(rows=100, generator=g)
    with pytest.raises(ValueError, match="name: got 'shoe'"):
        data.bias_ground(census, "shoe", generator=g)
    with pytest.raises(ValueError, match="features: got 7; allowed: 2 to 6"):
        data.region_ground(features=7, generator=g)
