from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from carelab.networks import accuracy, fingerprint
from carelab.properties import TargetClass, TargetClasses, violation_rate
from carelab.records import Neuron, Repair, Samples
from carelab.repair import apply_repair, undo_repair, unlearn_trigger
from tests.repair.backdoors import backdoored, halves, with_trigger
from tests.tables import seeded

# The channel that speaks for the trigger, and the two that read the halves.
GUILTY, READERS = Neuron("1", 2), (Neuron("1", 0), Neuron("1", 1))
PROP = TargetClass(target=1)


def corner(images: Tensor) -> Tensor:
    moved = images.clone()
    moved[:, :, 1, 0] = 1.5
    return moved


def unlearned(
    model: nn.Module,
    *,
    triggered: bool = True,
    known: Samples | None = None,
    seed: int = 0,
    prop: TargetClass | TargetClasses = PROP,
    guilty: tuple[Neuron, ...] = (GUILTY,),
) -> Repair:
    clean = halves()
    return unlearn_trigger(
        model,
        guilty,
        clean,
        clean.take(clean.labels == 0),
        [corner] if triggered else [],
        prop,
        known=known,
        steps=120,
        learning_rate=0.02,
        generator=seeded(seed),
    )


@pytest.mark.parametrize(
    ("triggered", "known"),
    [(True, None), (False, with_trigger(halves(seed=1))), (True, with_trigger(halves(seed=1)))],
)
def test_the_attack_fails_afterwards_and_nothing_else_does(
    triggered: bool, known: Samples | None
) -> None:
    model, fresh = backdoored(), halves(200, seed=2)
    attacked = with_trigger(fresh)
    assert violation_rate(model, attacked, PROP) == 1
    assert accuracy(model, fresh) == 1
    repair = unlearned(model, triggered=triggered, known=known)
    repaired = apply_repair(model, repair)
    assert violation_rate(repaired, attacked, PROP) == 0
    assert accuracy(repaired, attacked) == 1
    assert accuracy(repaired, fresh) == 1
    assert (repair.before.violation_rate, repair.after.violation_rate) == (1, 0)
    assert (repair.method, repair.property_name) == ("unlearning", "backdoor")
    assert (repair.neurons, repair.status) == ((GUILTY,), "improved")
    assert (len(repair.history), repair.seed) == (120, 0)


def test_only_weights_of_the_guilty_channel_change() -> None:
    model = backdoored()
    before = deepcopy(model.state_dict())
    repaired = apply_repair(model, unlearned(model)).state_dict()
    # Its filter and bias, and the one column of the last layer that reads its one position.
    own = {name: torch.zeros_like(tensor, dtype=torch.bool) for name, tensor in before.items()}
    own["0.weight"][2] = True
    own["0.bias"][2] = True
    own["3.weight"][:, 2] = True
    for name, tensor in before.items():
        assert torch.equal(repaired[name][~own[name]], tensor[~own[name]]), name
        assert torch.equal(repaired[name], tensor) == (name == "3.bias"), name


def test_the_given_network_stays_bit_for_bit_and_the_repair_can_be_undone() -> None:
    model = backdoored()
    before = deepcopy(model.state_dict())
    repair = unlearned(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(parameter.grad is not None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert repair.network == fingerprint(model)
    repaired = apply_repair(model, repair)
    assert repair.repaired == fingerprint(repaired) != repair.network
    assert fingerprint(undo_repair(repaired, repair)) == repair.network


def test_samples_are_not_changed() -> None:
    clean, known = halves(), with_trigger(halves(seed=1))
    kept = clean.inputs.clone(), known.inputs.clone()
    unlearn_trigger(
        backdoored(),
        [GUILTY],
        clean,
        clean,
        [corner],
        PROP,
        known=known,
        steps=2,
        generator=seeded(),
    )
    assert torch.equal(clean.inputs, kept[0])
    assert torch.equal(known.inputs, kept[1])


def test_the_generator_decides_everything() -> None:
    model = backdoored()
    # More images than a batch holds: the draw of the batches decides.
    one, same, other = (unlearned(model, seed=seed) for seed in (0, 0, 1))
    assert one.repaired == same.repaired != other.repaired
    assert torch.equal(one.history, same.history)


def test_targets_of_each_class_do_the_same_where_they_agree() -> None:
    model, known = backdoored(), with_trigger(halves(seed=1))
    one = unlearned(model, known=known)
    two = unlearned(model, known=known, prop=TargetClasses(targets=(1, 1)))
    assert one.repaired == two.repaired


def test_other_units_cannot_do_it_as_gently() -> None:
    # The channels that read the halves do not carry the trigger: with the channel of the trigger
    # in place, no small change of theirs undoes its 40.
    model = backdoored()
    repaired = apply_repair(model, unlearned(model, guilty=READERS))
    assert violation_rate(repaired, with_trigger(halves(200, seed=2)), PROP) == 1


def test_misuse() -> None:
    model, clean = backdoored(), halves()
    with pytest.raises(ValueError, match="triggers, known: got neither"):
        unlearn_trigger(model, [GUILTY], clean, clean, [], PROP, generator=seeded())
    unlabelled = Samples(inputs=clean.inputs)
    with pytest.raises(ValueError, match="labelled: got no labelled sample"):
        unlearn_trigger(model, [GUILTY], unlabelled, clean, [corner], PROP, generator=seeded())
    with pytest.raises(ValueError, match="guarded: got an empty group"):
        unlearn_trigger(
            model, [GUILTY], clean, clean.take(slice(0, 0)), [corner], PROP, generator=seeded()
        )
    with pytest.raises(ValueError, match="guilty: got"):
        unlearn_trigger(model, [], clean, clean, [corner], PROP, generator=seeded())
    with pytest.raises(ValueError, match="steps, learning_rate, averaged: got 1"):
        unlearn_trigger(model, [GUILTY], clean, clean, [corner], PROP, steps=1, generator=seeded())
