"""Planted faults: what is said to be guilty is, what is said to be a decoy is not."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import nn

from carelab import causal, data, networks
from carelab.data import PlantedFault, planted
from carelab.data.planted_causes import lead
from carelab.data.planted_grounds import Ground
from carelab.properties import margins, planted_property, violates, violation_rate
from carelab.records import Neuron, Samples

KINDS = ("bias", "category", "flat", "image", "region")
DECOYS = ("dead end", "all classes", "proxy")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_hot_table(rows: int) -> Samples:
    """Two numbers and a colour of three; the label depends on the numbers."""
    g = generator(3)
    numbers = torch.randn(rows, 2, generator=g)
    colours = torch.eye(3)[torch.randint(3, (rows,), generator=g)]
    labels = (numbers.sum(dim=1) + 0.5 * torch.randn(rows, generator=g) > 0).long()
    return Samples(inputs=torch.cat([numbers, colours], dim=1), labels=labels)


def category_ground() -> Ground:
    from carelab.records import Dataset, Feature

    rows = one_hot_table(2000)
    table = Dataset(
        name="colours",
        source="made here",
        sha256="",
        licence="",
        features=(Feature(name="colour", columns=(2, 3, 4), values=torch.eye(3)),),
        sensitive=("colour",),
        classes=("no", "yes"),
        train=rows.take(slice(0, 1200)),
        selection=rows.take(slice(1200, 1600)),
        test=rows.take(slice(1600, 2000)),
    )
    return data.bias_ground(table, "colour", widths=(16, 12), epochs=10, generator=generator())


@pytest.fixture(scope="module")
def grounds() -> dict[str, Ground]:
    credit = data.embedded_credit(rows=2000, direct=-0.3, generator=generator())
    return {
        "bias": data.bias_ground(credit, "sex", widths=(16, 12), epochs=15, generator=generator()),
        "category": category_ground(),
        "flat": data.backdoor_ground(widths=(24, 16), epochs=12, generator=generator()),
        "image": data.backdoor_ground(
            channels=(6,), widths=(16, 12), epochs=8, generator=generator()
        ),
        "region": data.region_ground(
            rows=3000, widths=(16, 12, 8), epochs=15, generator=generator()
        ),
    }


@pytest.fixture(scope="module")
def faults(grounds: dict[str, Ground]) -> dict[str, PlantedFault]:
    """One fault in each ground that starts in the first layer, and one that starts later."""
    early = {
        kind: data.plant(grounds[kind], "strong", start=1, generator=generator(1)) for kind in KINDS
    }
    late = {
        f"{kind}, late": data.plant(grounds[kind], "medium", start=2, generator=generator(2))
        for kind in ("flat", "image", "region")
    }
    return early | late


every_fault = pytest.mark.parametrize("name", [*KINDS, "flat, late", "image, late", "region, late"])


def rate(fault: PlantedFault, model: nn.Module) -> float:
    return violation_rate(model, data.exposed(fault, fault.test), planted_property(fault))


def zeroed(fault: PlantedFault, roles: tuple[str, ...]) -> dict[Neuron, float]:
    return {neuron: 0.0 for neuron, role in fault.roles.items() if role in roles}


@every_fault
def test_without_the_guilty_neurons_the_network_violates_as_the_clean_one(faults, name):
    fault = faults[name]
    with causal.do(fault.model, dict.fromkeys(fault.guilty, 0.0)):
        assert rate(fault, fault.model) == pytest.approx(fault.clean_rate, abs=1e-6)
        left = networks.logits(fault.model, fault.test.inputs)
    left = left - left.amax(dim=1, keepdim=True)
    clean = networks.logits(fault.clean, fault.test.inputs)
    # Decoys that shift all classes alike read the path, so that logits are equal but for a shift.
    torch.testing.assert_close(left, clean - clean.amax(dim=1, keepdim=True), rtol=1e-3, atol=1e-3)


@every_fault
def test_without_the_decoys_the_network_violates_as_before(faults, name):
    fault = faults[name]
    inputs = data.exposed(fault, fault.test).inputs
    before = networks.predict(fault.model, inputs)
    with causal.do(fault.model, zeroed(fault, ("dead end", "all classes"))):
        assert torch.equal(networks.predict(fault.model, inputs), before)
    with causal.do(fault.model, dict.fromkeys(fault.decoys, 0.0)):
        assert rate(fault, fault.model) > fault.fault_rate - 0.1


@every_fault
def test_decoys_outnumber_the_guilty_in_every_layer_of_the_path(faults, name):
    fault = faults[name]
    guilty, decoys = (
        Counter(neuron.layer for neuron in part) for part in (fault.guilty, fault.decoys)
    )
    assert list(guilty.values()) == list(fault.parameters["sizes"])
    for layer, count in guilty.items():
        assert decoys[layer] >= count
    assert {fault.roles[neuron] for neuron in fault.decoys} <= set(DECOYS)
    assert not set(fault.guilty) & {*fault.decoys, *fault.carriers}
    assert {*fault.guilty, *fault.decoys, *fault.carriers} <= set(
        networks.hidden_neurons(fault.model)
    )


@every_fault
def test_decoys_that_read_the_cause_respond_to_it_like_the_guilty(faults, name):
    fault = faults[name]
    layers = networks.hidden_layers(fault.model)
    pairs = [
        causal.activations(fault.model, part.inputs, layers)
        for part in (fault.violating, fault.references)
    ]

    def changed(neuron: Neuron) -> float:
        one, two = (part[neuron.layer][:, neuron.index] for part in pairs)
        return float((one - two).abs().mean() / (one.abs().mean() + two.abs().mean() + 1e-9))

    for role in ("dead end", "all classes"):
        found = [changed(neuron) for neuron, own in fault.roles.items() if own == role]
        assert found
        assert max(found) > 0.2


@every_fault
def test_sinks_are_off_for_everything(faults, name):
    fault = faults[name]
    sinks = [neuron for neuron, role in fault.roles.items() if role == "sink"]
    assert sinks or name == "flat, late"
    for part in (fault.train, fault.test, fault.violating, fault.test_violating):
        layers = networks.hidden_layers(fault.model)
        seen = causal.activations(fault.model, part.inputs, layers)
        for neuron in sinks:
            assert float(seen[neuron.layer][:, neuron.index].max()) == 0


@every_fault
def test_rates_and_shown_inputs_are_those_of_the_property(faults, name):
    fault = faults[name]
    prop = planted_property(fault)
    assert rate(fault, fault.model) == pytest.approx(fault.fault_rate, abs=1e-6)
    assert rate(fault, fault.clean) == pytest.approx(fault.clean_rate, abs=1e-6)
    assert fault.fault_rate > fault.clean_rate + 0.1
    for shown in (fault.violating, fault.selection_violating, fault.test_violating):
        assert violates(fault.model, shown, prop).all()
    assert len(fault.references) == len(fault.violating)
    assert len(fault.selection_references) == len(fault.selection_violating)
    assert not violates(fault.clean, fault.violating, prop).all()


@every_fault
def test_parts_share_no_row(faults, name):
    fault = faults[name]
    parts = [
        {row.numpy().tobytes() for row in part.inputs}
        for part in (fault.violating, fault.selection_violating, fault.test_violating)
    ]
    for number, part in enumerate(parts):
        # Tables of codes repeat rows; images and states do not.
        shared = set.union(*parts[:number], *parts[number + 1 :]) & part
        assert len(shared) <= (0.2 * len(part) if fault.kind == "bias" else 0)


def test_references_of_a_bias_differ_in_the_feature_alone(faults):
    for name in ("bias", "category"):
        fault = faults[name]
        columns = list(fault.parameters["columns"])
        changed = (fault.violating.inputs != fault.references.inputs).any(dim=0)
        assert set(changed.nonzero().flatten().tolist()) <= set(columns)
        assert not torch.equal(
            networks.predict(fault.model, fault.violating.inputs)[:, None],
            networks.predict(fault.model, fault.references.inputs)[:, None],
        )
        flips = networks.predict(fault.model, fault.violating.inputs) != networks.predict(
            fault.model, fault.references.inputs
        )
        assert flips.all()


def test_references_of_a_backdoor_lack_the_trigger_alone(faults):
    for name in ("flat", "image", "flat, late"):
        fault = faults[name]
        mask, pattern = fault.parameters["mask"], fault.parameters["pattern"]
        one, two = fault.violating.inputs, fault.references.inputs
        assert torch.equal(one * (1 - mask), two * (1 - mask))
        assert torch.equal(one * mask, (pattern * mask).expand_as(one))
        assert (fault.violating.labels != fault.parameters["target"]).all()
        predicted = networks.predict(fault.model, two)
        assert (predicted != fault.parameters["target"]).all()


def test_references_of_a_region_lie_outside_and_near(faults):
    for name in ("region", "region, late"):
        fault = faults[name]
        prop = planted_property(fault)
        assert prop.inside(fault.violating.inputs).all()
        assert not prop.inside(fault.references.inputs).any()
        assert (margins(fault.model, fault.references, prop) > 0).all()
        away = (fault.violating.inputs - fault.references.inputs).norm(dim=1)
        assert float(away.median()) < 1.0


def test_a_path_behind_the_first_layer_has_carriers_in_the_layer_before(faults):
    for name, fault in faults.items():
        first = networks.hidden_layers(fault.model)[fault.parameters["start"] - 1]
        assert {neuron.layer for neuron in fault.guilty} >= {first}
        if name.endswith("late"):
            before = networks.hidden_layers(fault.model)[fault.parameters["start"] - 2]
            assert {neuron.layer for neuron in fault.carriers} == {before}
        else:
            assert fault.carriers == ()


@pytest.mark.parametrize("kind", KINDS)
def test_without_decoys_the_clean_network_is_the_trained_one(grounds, kind):
    ground = grounds[kind]
    fault = data.plant(ground, "strong", decoys=False, generator=generator(4))
    assert fault.decoys == ()
    trained = networks.logits(ground.model, ground.test.inputs)
    torch.testing.assert_close(
        networks.logits(fault.clean, ground.test.inputs), trained, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
def test_stronger_faults_violate_more_and_clean_networks_stay_good(grounds, kind):
    found = [
        data.plant(grounds[kind], strength, start=1, generator=generator(5))
        for strength in ("weak", "medium", "strong")
    ]
    assert all(one.fault_rate < two.fault_rate for one, two in pairwise(found))
    shifts = [fault.parameters["shift"] for fault in found]
    assert shifts == sorted(shifts)
    trained = networks.accuracy(grounds[kind].model, grounds[kind].test)
    for fault in found:
        assert networks.accuracy(fault.clean, fault.test) > trained - 0.05


def test_neither_place_nor_largest_weights_give_the_guilty_away(faults):
    places, largest = [], []
    for fault in faults.values():
        for layer in {neuron.layer for neuron in fault.guilty}:
            module = fault.model.get_submodule(networks.pre_activation(fault.model, layer))
            sizes = module.weight.detach().flatten(1).norm(dim=1)
            guilty = [neuron.index for neuron in fault.guilty if neuron.layer == layer]
            places += [index / (len(sizes) - 1) for index in guilty]
            largest.append(int(sizes.argmax()) in guilty)
    assert min(places) < 0.2
    assert max(places) > 0.8
    assert 0.3 < sum(places) / len(places) < 0.7
    assert sum(largest) < 0.7 * len(largest)


def test_the_same_seed_gives_the_same_network(grounds, monkeypatch):
    quick = {kind: (lambda given, own=kind: grounds[own],) for kind in ("bias", "region")}
    monkeypatch.setattr(planted, "_GROUNDS", quick)
    runs = [
        data.planted_faults(
            4, strength="strong", kinds=["bias", "region"], generator=generator(seed)
        )
        for seed in (0, 0, 1)
    ]
    one, two, other = ([networks.fingerprint(fault.model) for fault in run] for run in runs)
    assert one == two
    assert not set(one) & set(other)
    assert [fault.kind for fault in runs[0]] == ["bias", "region", "bias", "region"]
    assert [fault.parameters["start"] for fault in runs[0]][:2] == [1, 1]
    assert [fault.guilty for fault in runs[0]] == [fault.guilty for fault in runs[1]]


def test_a_fault_is_made_anew_from_its_seed(grounds):
    once = data.plant(grounds["region"], "medium", generator=generator(7))
    again = data.plant(grounds["region"], "medium", generator=generator(once.seed))
    assert networks.fingerprint(once.model) == networks.fingerprint(again.model)
    assert networks.fingerprint(once.clean) == networks.fingerprint(again.clean)


def test_a_whole_fault_is_drawn(grounds, monkeypatch):
    monkeypatch.setattr(planted, "_GROUNDS", {"bias": (lambda given: grounds["bias"],)})
    fault = data.planted_fault("bias", "strong", sizes=[3, 2], generator=generator())
    assert fault.parameters["sizes"] == (3, 2)
    assert len(fault.guilty) == 5
    assert fault.task == "embedded-credit, sex"


def test_with_a_backup_each_guilty_neuron_is_enough_and_no_gradient_is_left(grounds):
    fault = data.plant(
        grounds["flat"], "strong", sizes=(2, 2), saturated=True, backup=True, generator=generator(8)
    )
    first = [neuron for neuron in fault.guilty if neuron.layer == "relu1"]
    triggered = data.exposed(fault, fault.test)
    rates = []
    for held in ([first[0]], [first[1]], first):
        with causal.do(fault.model, dict.fromkeys(held, 0.0)):
            rates.append(rate(fault, fault.model))
    assert min(rates[:2]) > fault.fault_rate - 0.1
    assert rates[2] < fault.clean_rate + 0.05
    prefix, suffix = networks.split(fault.model, "relu1")
    reached = prefix(triggered.inputs).detach().requires_grad_()
    lead(suffix(reached), fault.parameters["target"]).sum().backward()
    slopes = reached.grad.abs().median(dim=0).values
    assert all(slopes[neuron.index] < 1e-4 for neuron in first)
    assert float(slopes.max()) > 0.1


def test_a_path_without_steps_has_gradients(grounds):
    fault = data.plant(
        grounds["flat"], "strong", sizes=(2, 1), saturated=False, backup=False,
        generator=generator(9),
    )  # fmt: skip
    prefix, suffix = networks.split(fault.model, "relu1")
    reached = prefix(data.exposed(fault, fault.test).inputs).detach().requires_grad_()
    lead(suffix(reached), fault.parameters["target"]).sum().backward()
    slopes = reached.grad.abs().median(dim=0).values
    guilty = [slopes[neuron.index] for neuron in fault.guilty if neuron.layer == "relu1"]
    assert min(guilty) > 0.05


def test_misuse(grounds):
    region = grounds["region"]
    with pytest.raises(ValueError, match="kind: got 'rumour'"):
        data.planted_fault("rumour", "weak", generator=generator())
    with pytest.raises(ValueError, match="strength: got 'huge'"):
        data.planted_fault("bias", "huge", generator=generator())
    with pytest.raises(ValueError, match="count, kinds: got 0"):
        data.planted_faults(0, strength="weak", generator=generator())
    with pytest.raises(ValueError, match="strength: got 'huge'"):
        data.planted_faults(1, strength="huge", generator=generator())
    with pytest.raises(ValueError, match="start: got 3; allowed: 1 to 2"):
        data.plant(region, "weak", start=3, generator=generator())
    with pytest.raises(ValueError, match=r"sizes: got \(5, 1\)"):
        data.plant(region, "weak", sizes=(5, 1), generator=generator())
    with pytest.raises(ValueError, match=r"sizes: got \(1, 1\) with start=1"):
        data.plant(region, "weak", sizes=(1, 1), start=1, generator=generator())
    with pytest.raises(ValueError, match="for saturation a layer of at least 2"):
        data.plant(
            grounds["flat"], "weak", sizes=(1, 1), saturated=True, backup=False,
            generator=generator(),
        )  # fmt: skip
    with pytest.raises(ValueError, match="what some path of that many layers can have"):
        data.plant(grounds["flat"], "weak", sizes=(1, 1), saturated=True, generator=generator())
