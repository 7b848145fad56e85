"""The measures and checks of the lessons on guilty neurons, on networks that are known."""

from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure

from carelab import causal, data, networks, records
from carelab.lab import lesson_neurons as lessons


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def fault():
    generator = _generator(4)
    ground = data.region_ground(
        features=2, widths=(16, 12), rows=2000, epochs=15, generator=generator
    )
    return data.plant(
        ground, "strong", sizes=(1, 2), saturated=False, backup=False, generator=generator
    )


@pytest.fixture(scope="module")
def usual(fault):
    evidence = records.Evidence(
        violating=fault.violating, references=fault.references, passing=fault.references
    )
    return causal.reference_means(fault.model, evidence, networks.hidden_neurons(fault.model))


def test_correlations_are_those_of_pearson_and_0_for_a_neuron_that_never_changes():
    model = networks.mlp(1, (3,), 2, generator=_generator())
    with torch.no_grad():
        model.linear1.weight[:] = torch.tensor([[1.0], [-1.0], [0.0]])
        model.linear1.bias[:] = torch.tensor([0.0, 5.0, 0.3])
    present = records.Samples(inputs=torch.tensor([[3.0], [4.0]]))
    absent = records.Samples(inputs=torch.tensor([[1.0], [2.0]]))
    found = list(lessons.fault_correlations(model, present, absent).values())
    # Of (3, 4, 1, 2) with (1, 1, 0, 0): 2 / (sqrt(5) * 1).
    assert found == pytest.approx([2 / 5**0.5, -2 / 5**0.5, 0], abs=1e-6)


def test_a_held_value_is_right_where_the_mean_is_what_was_asked_for():
    model = networks.mlp(1, (1,), 1, generator=_generator())
    with torch.no_grad():
        for name, value in (("linear1", 1.0), ("linear2", 2.0)):
            getattr(model, name).weight.fill_(value)
            getattr(model, name).bias.fill_(0.0)
    check = lessons.value_check(model, torch.rand(3, 1), records.Neuron("relu1", 0), 6.0)
    assert check(3).status == "right"
    assert check(2.5).message == "Under do(relu1[0] = 2.5) the mean output is 5, not 6."
    assert check(True).message == "True is not a number."


def test_held_without_a_neuron_is_the_network_as_it_is(fault):
    held = lessons.held_fault(fault, {})
    assert held.violation_rate == pytest.approx(fault.fault_rate)
    assert held.accuracy == pytest.approx(networks.accuracy(fault.model, fault.test))


def test_the_suspects_are_a_guilty_neuron_and_a_decoy_in_the_order_of_their_names(fault):
    seen = lessons.fault_correlations(fault.model, fault.violating, fault.references)
    suspects = lessons.two_suspects(fault, seen, causal.weight_magnitudes(fault.model))
    assert len(set(suspects) & set(fault.guilty)) == len(set(suspects) & set(fault.decoys)) == 1
    assert suspects[0] < suspects[1]
    bare = data.plant(
        data.region_ground(rows=2000, widths=(16, 12), epochs=15, generator=_generator()),
        "strong",
        decoys=False,
        generator=_generator(),
    )
    with pytest.raises(ValueError, match="fault: got one without decoys"):
        lessons.two_suspects(bare, {}, causal.weight_magnitudes(bare.model))


def test_neurons_that_stop_the_fault_are_right_and_decoys_are_named(fault, usual):
    check = lessons.stopping_check(fault, usual, below=0.2, most=3)
    assert check([str(one) for one in fault.guilty]).status == "right"
    decoy = str(fault.decoys[0])
    assert f"{decoy} only goes along with the fault" in check([decoy]).message
    # Even beside neurons that do stop it.
    assert check([str(fault.guilty[0]), decoy]).status == "wrong"
    assert check("relu7[0]").message == "The network has no neuron 'relu7[0]'."
    assert check([]).message == "You hold 0 neurons; allowed: 1 to 3."
    clean = next(one for one in usual if one not in fault.roles)
    assert "it must be below 20%" in check([str(clean)]).message


@pytest.fixture(scope="module")
def backdoor():
    generator = _generator()
    digits = data.digits(generator=generator)
    patch = data.white_patch((1, 8, 8), size=2)
    attack = data.Attack(trigger=patch, classes=10, target=7, rate=0.1)
    model = networks.cnn((1, 8, 8), (2,), (8,), 10, generator=generator)
    return digits, attack, model


def test_a_repair_of_some_units_leaves_the_network_given_and_other_weights_alone(backdoor):
    digits, attack, model = backdoor
    before = networks.fingerprint(model)
    units = networks.hidden_neurons(model)[-1:]
    repaired = lessons.unlearned(
        model, units, digits.selection, attack, steps=3, generator=_generator()
    )
    assert networks.fingerprint(model) == before
    assert networks.fingerprint(repaired) != before
    assert torch.equal(repaired.conv1.weight, model.conv1.weight)
    assert torch.equal(repaired.linear1.weight[:-1], model.linear1.weight[:-1])
    everywhere = data.Attack(trigger=attack.trigger, classes=10, target=None, rate=0.1)
    with pytest.raises(ValueError, match="no single target class"):
        lessons.unlearned(model, units, digits.selection, everywhere, generator=_generator())


def test_a_number_of_units_is_judged_by_the_repair_that_it_gives(backdoor):
    digits, attack, model = backdoor
    ranked = networks.hidden_neurons(model)[::-1]
    given = (model, ranked, digits.selection, digits.test, attack)
    check = lessons.unlearning_check(*given, steps=2, generator=_generator(), success=1.1)
    # An untrained network has hardly any accuracy to lose.
    assert check(1).status == "right"
    assert check(1) == check(1.0)
    strict = lessons.unlearning_check(*given, steps=2, generator=_generator(), success=0.0)
    assert "success must be below 0%" in strict(1).message
    for nonsense in (0, 11, 2.5, True, "two", None):
        assert check(nonsense).message == "Choose a whole number of neurons from 1 to 10."


def test_answers_are_drawn_above_the_images(backdoor):
    digits, _, model = backdoor
    images = digits.test.inputs[:4]
    axes = lessons.draw_answers(Figure(), model, images, {})
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == [str(answer) for answer in networks.predict(model, images).tolist()]
    assert axes.get_title().startswith("0 neurons held")
