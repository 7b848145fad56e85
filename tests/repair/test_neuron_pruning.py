import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from carelab.networks import Residual, accuracy, fingerprint
from carelab.records import Samples
from carelab.repair import (
    adversarial_neuron_pruning,
    neuron_masks,
    neuron_pruning,
    prune_masked,
)
from carelab.repair.neuron_pruning import perturbed_loss, worst_perturbation
from tests.repair.backdoors import backdoored, halves, image_network, pictures, with_trigger
from tests.tables import seeded

ACTIVATIONS = [nn.ReLU, nn.Sigmoid, nn.GELU]
NEURONS = {"0": 4, "3": 5, "6": 6}


def ones() -> dict[str, torch.Tensor]:
    """Masks that leave `image_network` as it is."""
    return {name: torch.ones(count).double() for name, count in NEURONS.items()}


def test_the_loss_by_hand() -> None:
    """h = relu((0.5 + 0.25) 2 x - (1 + 1) 1) = 1 at x = 2; logits (0, h): loss ln(1 + e)."""
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).eval()
    with torch.no_grad():
        model[0].weight.fill_(2)
        model[0].bias.fill_(-1)
        model[2].weight.copy_(torch.tensor([[0.0], [1.0]]))
        model[2].bias.zero_()
    sample = Samples(inputs=torch.tensor([[2.0]]), labels=torch.tensor([0]))
    moved = {"0": torch.tensor([[0.25], [1.0]])}
    loss = perturbed_loss(model, sample, {"0": torch.tensor([0.5])}, moved)
    assert float(loss.detach()) == pytest.approx(math.log(1 + math.e))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_masks_of_one_leave_the_loss_and_masks_of_zero_leave_the_biases(activation) -> None:
    model, clean = image_network(activation), pictures()
    expected = functional.cross_entropy(model(clean.inputs), clean.labels)
    torch.testing.assert_close(perturbed_loss(model, clean, ones()), expected)
    none = {name: 0 * mask for name, mask in ones().items()}
    silent = prune_masked(model, none, 0.0)
    expected = functional.cross_entropy(silent(clean.inputs), clean.labels)
    torch.testing.assert_close(perturbed_loss(model, clean, none), expected)
    assert silent[0].weight.abs().sum() == 0
    assert torch.equal(silent[0].bias, model[0].bias)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@settings(max_examples=5)
@given(seed=st.integers(0, 1000), budget=st.floats(0.05, 1.0))
def test_the_inner_maximisation_raises_the_loss(activation, seed, budget) -> None:
    model, clean = image_network(activation, seed), pictures(seed=seed)
    with torch.no_grad():
        # A network that knows its samples: those of a random one lose nothing by perturbation.
        clean = Samples(inputs=clean.inputs, labels=model(clean.inputs).argmax(dim=1))
    masks = ones()
    plain = perturbed_loss(model, clean, masks)
    losses = []
    for steps in (0, 1, 8):
        moved = worst_perturbation(
            model, clean, masks, budget=budget, steps=steps, generator=seeded(seed)
        )
        assert all(float(value.abs().max()) <= budget for value in moved.values())
        losses.append(perturbed_loss(model, clean, masks, moved))
    start, one, many = losses
    assert one > start
    assert one > plain
    assert many > start


def test_one_step_goes_along_the_sign_of_the_gradient() -> None:
    """Class 0 lives on h alone: the weight and the bias (both positive) go down by the budget."""
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).eval()
    with torch.no_grad():
        model[0].weight.fill_(2)
        model[0].bias.fill_(1)
        model[2].weight.copy_(torch.tensor([[1.0], [0.0]]))
    sample = Samples(inputs=torch.tensor([[2.0]]), labels=torch.tensor([0]))
    mask = {"0": torch.ones(1)}
    start = worst_perturbation(model, sample, mask, budget=0.4, steps=0, generator=seeded())["0"]
    moved = worst_perturbation(model, sample, mask, budget=0.4, steps=1, generator=seeded())["0"]
    torch.testing.assert_close(moved, (start - 0.4).clamp(min=-0.4))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_masks_are_in_range_for_all_neurons_but_the_outputs(activation) -> None:
    model = image_network(activation)
    masks = neuron_masks(model, pictures(), steps=30, learning_rate=2.0, generator=seeded())
    assert {name: len(mask) for name, mask in masks.items()} == NEURONS
    together = torch.cat(list(masks.values()))
    assert together.min() >= 0
    assert together.max() <= 1
    assert together.min() < 1
    assert not together.requires_grad


def test_a_neuron_that_feeds_nothing_keeps_its_mask() -> None:
    model = image_network()
    with torch.no_grad():
        model[8].weight[:, 2] = 0
    masks = neuron_masks(model, pictures(), steps=10, generator=seeded())
    assert masks["6"][2] == 1
    assert masks["6"].min() < 1


def test_the_backdoor_of_a_network_written_by_hand_is_what_is_pruned() -> None:
    """Perturbed, the trigger's channel speaks on clean images: its bias is what keeps it quiet."""
    model, clean = backdoored(), halves()
    attacked = with_trigger(halves(seed=5))
    assert accuracy(model, attacked) == 0
    masks = neuron_masks(model, clean, steps=40, generator=seeded())["0"]
    assert masks[2] == 0
    assert masks[:2].min() > 0.5
    pruned = adversarial_neuron_pruning(
        model, clean, selection=halves(seed=1), steps=40, most_drop=0.0, generator=seeded()
    )
    assert (pruned[0].weight.abs().sum(dim=(1, 2, 3)) == 0).tolist() == [False, False, True]
    assert pruned[0].bias.tolist() == model[0].bias.tolist()
    assert accuracy(pruned, attacked) == 1
    assert accuracy(pruned, clean) == 1


def test_without_a_perturbation_the_backdoor_goes_unseen() -> None:
    masks = neuron_masks(backdoored(), halves(), budget=0.0, steps=40, generator=seeded())["0"]
    assert masks[2] == 1


@pytest.mark.parametrize("most_drop", [0.0, 0.1, 1.0])
def test_pruning_costs_no_more_accuracy_than_allowed(most_drop) -> None:
    model, selection = image_network(), pictures(seed=1)
    with torch.no_grad():
        answers = model(selection.inputs).argmax(dim=1)
    selection = Samples(inputs=selection.inputs, labels=answers)
    options = {"steps": 15, "learning_rate": 1.0, "generator": seeded()}
    pruned = adversarial_neuron_pruning(
        model, pictures(), selection=selection, most_drop=most_drop, **options
    )
    assert accuracy(pruned, selection) >= 1 - most_drop - 1e-9
    masks = neuron_masks(model, pictures(), steps=15, learning_rate=1.0, generator=seeded())
    if most_drop == 1:
        assert fingerprint(pruned) == fingerprint(prune_masked(model, masks, 0.95))


def test_the_largest_threshold_that_is_borne_is_taken(monkeypatch) -> None:
    """Without channels 0 and 2 the network errs, without 0, 1 and 2 it is right by its biases."""
    model, masks = backdoored(), {"0": torch.tensor([0.1, 0.4, 0.1], dtype=torch.float64)}
    samples = halves()
    samples = samples.take(samples.labels == 0)
    with torch.no_grad():
        model[0].weight[1, 0, :, 0] = 0.5
        model[3].bias.copy_(torch.tensor([0.1, 0.0]))
    monkeypatch.setattr(neuron_pruning, "neuron_masks", lambda *_, **__: masks)
    assert accuracy(model, samples) == 1
    assert accuracy(prune_masked(model, masks, 0.1), samples) == 0
    pruned = adversarial_neuron_pruning(
        model, samples, selection=samples, most_drop=0.0, generator=seeded()
    )
    assert pruned[0].weight.abs().sum() == 0


def test_layers_inside_a_residual_block_have_masks_too() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(),
        Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())),
        nn.Flatten(), nn.Linear(144, 3),
    ).double().eval()  # fmt: skip
    masks = neuron_masks(model, pictures(), steps=10, learning_rate=1.0, generator=seeded())
    assert set(masks) == {"0", "2.body.0"}
    assert masks["2.body.0"].min() < 1
    pruned = prune_masked(model, masks, 0.99)
    silent = pruned[2].body[0].weight.abs().sum(dim=(1, 2, 3)) == 0
    assert torch.equal(silent, masks["2.body.0"] <= 0.99)


def test_the_threshold_itself_is_pruned() -> None:
    model = image_network()
    masks = ones() | {"0": torch.tensor([0.0, 0.2, 0.21, 1.0], dtype=torch.float64)}
    silent = prune_masked(model, masks)[0].weight.abs().sum(dim=(1, 2, 3)) == 0
    assert silent.tolist() == [True, True, False, False]


def test_the_given_network_stays_as_it_is_and_a_seed_repeats() -> None:
    model, clean = image_network(), pictures()
    before = fingerprint(model)
    first, second = (
        adversarial_neuron_pruning(
            model, clean, selection=clean, steps=10, most_drop=0.5, generator=seeded(2)
        )
        for _ in range(2)
    )
    assert fingerprint(first) == fingerprint(second)
    assert fingerprint(model) == before
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    assert all(weight.requires_grad for weight in first.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    one, other = (
        neuron_masks(model, clean, steps=10, generator=seeded(seed))["0"] for seed in (2, 3)
    )
    assert not torch.equal(one, other)


def test_misuse() -> None:
    model, clean = image_network(), pictures(6)
    with pytest.raises(ValueError, match="samples without labels"):
        neuron_masks(model, Samples(inputs=clean.inputs), generator=seeded())
    with pytest.raises(ValueError, match="got no sample"):
        neuron_masks(model, clean.take(slice(0, 0)), generator=seeded())
    wrong = Samples(inputs=clean.inputs, labels=torch.tensor([0, 1, 2, 0, 1, 9]))
    with pytest.raises(ValueError, match="labels from 0 to 9; allowed: 0 to 2"):
        neuron_masks(model, wrong, generator=seeded())
    broken = Samples(inputs=clean.inputs / 0, labels=clean.labels)
    with pytest.raises(ValueError, match="not finite"):
        neuron_masks(model, broken, generator=seeded())
    with pytest.raises(ValueError, match="training mode"):
        neuron_masks(image_network().train(), clean, generator=seeded())
    with pytest.raises(ValueError, match=r"budget, trade_off: got -0\.1"):
        neuron_masks(model, clean, budget=-0.1, generator=seeded())
    with pytest.raises(ValueError, match=r"trade_off: got 0\.4, 1\.5"):
        neuron_masks(model, clean, trade_off=1.5, generator=seeded())
    with pytest.raises(ValueError, match="got 0 as the least"):
        neuron_masks(model, clean, steps=0, generator=seeded())
    linear = nn.Sequential(nn.Linear(2, 3)).double().eval()
    points = Samples(inputs=torch.rand(4, 2).double(), labels=torch.arange(4) % 3)
    with pytest.raises(ValueError, match="has 1 Linear or Conv2d layers"):
        neuron_masks(linear, points, generator=seeded())
    with pytest.raises(ValueError, match="threshold: got 1"):
        prune_masked(model, ones(), 1.0)
    with pytest.raises(ValueError, match="without labels"):
        perturbed_loss(model, Samples(inputs=clean.inputs), ones())
    with pytest.raises(ValueError, match="most_drop: got 2"):
        adversarial_neuron_pruning(
            model, clean, selection=clean, steps=1, most_drop=2, generator=seeded()
        )
