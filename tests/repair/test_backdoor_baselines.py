import pytest
import torch
from torch import nn

from carelab.networks import accuracy, fingerprint, pre_activation, residual_network
from carelab.records import Neuron, Samples
from carelab.repair import dormant_first, fine_prune, fine_tune, prunable_layers
from tests.repair.backdoors import backdoored, halves, image_network, pictures, with_trigger
from tests.tables import network, rows, seeded


def test_dormant_channels_come_first() -> None:
    """1 x 1 kernels 1, 3, 2 on images of ones: means 1, 3, 2; the fourth is cut off by ReLU."""
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 3.0, 2.0, -1.0]).reshape(4, 1, 1, 1))
        model[0].bias.zero_()
    order = dormant_first(model, torch.ones(5, 1, 2, 2), "1")
    assert [neuron.index for neuron in order] == [3, 0, 2, 1]


def test_the_mean_runs_over_samples_and_positions() -> None:
    """Channel 0 is bright at one position of four (mean 1), channel 1 everywhere (mean 2)."""
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2).reshape(2, 2, 1, 1))
        model[0].bias.zero_()
    images = torch.zeros(3, 2, 2, 2)
    images[:, 0, 0, 0], images[:, 1] = 4, 2
    assert dormant_first(model, images, "1") == (Neuron("1", 0), Neuron("1", 1))


def test_equal_means_keep_their_order_and_negative_ones_count_as_low() -> None:
    model = nn.Sequential(nn.Linear(1, 3), nn.GELU(), nn.Linear(3, 2)).eval()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([0.0, 0.0, -1.0]))
    order = dormant_first(model, torch.zeros(4, 1), "1")
    assert [neuron.index for neuron in order] == [2, 0, 1]


def test_fine_pruning_takes_the_backdoor_out_of_a_network_written_by_hand() -> None:
    model, clean, attacked = backdoored(), halves(), with_trigger(halves(seed=5))
    assert accuracy(model, clean) == 1
    assert accuracy(model, attacked) == 0
    assert dormant_first(model, clean.inputs, "1")[0] == Neuron("1", 2)
    before = fingerprint(model)
    pruned = fine_prune(
        model,
        clean,
        selection=halves(seed=1),
        most_drop=0.0,
        epochs=2,
        learning_rate=1e-4,
        generator=seeded(),
    )
    assert pruned[0].weight[2].abs().sum() == 0
    assert pruned[0].bias[2] == 0
    assert pruned[3].weight[:, 2].abs().sum() == 0
    assert pruned[0].weight[:2].abs().sum(dim=(1, 2, 3)).min() > 1
    assert accuracy(pruned, attacked) == 1
    assert accuracy(pruned, clean) == 1
    assert fingerprint(model) == before


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.GELU])
def test_what_is_pruned_stays_at_zero_while_the_rest_is_tuned(activation) -> None:
    model, clean = image_network(activation), pictures()
    before = fingerprint(model)
    pruned = fine_prune(
        model,
        clean,
        selection=pictures(seed=1),
        most_drop=1.0,
        epochs=5,
        learning_rate=1e-2,
        generator=seeded(),
    )
    # By default the last convolution's activation; any drop is allowed, so one channel stays.
    *gone, kept = (neuron.index for neuron in dormant_first(model, clean.inputs, "4"))
    assert len(gone) == 4
    for index in gone:
        assert pruned[3].weight[index].abs().sum() == 0
        assert pruned[3].bias[index] == 0
        assert pruned[6].weight[:, 9 * index : 9 * index + 9].abs().sum() == 0
    for at in (0, 6, 8):
        assert not torch.equal(pruned[at].weight, model[at].weight)
    assert not torch.equal(pruned[3].weight[kept], model[3].weight[kept])
    assert not pruned.training
    assert fingerprint(model) == before


def test_no_channel_goes_where_each_is_needed() -> None:
    """Channel 2 tells nothing on clean images, but the other two are the whole answer."""
    model, clean = backdoored(), halves()
    with torch.no_grad():
        model[0].bias[2] = 0.5
        model[3].weight[:, 2] = 0
    untouched = fine_prune(
        model,
        clean,
        selection=clean,
        layer="1",
        most_drop=0.0,
        epochs=1,
        learning_rate=1e-9,
        generator=seeded(),
    )
    # The least active channel is one of the two that count, so pruning stops before it.
    assert dormant_first(model, clean.inputs, "1")[0].index in {0, 1}
    torch.testing.assert_close(untouched(clean.inputs), model(clean.inputs), atol=1e-6, rtol=0)


def test_a_network_without_convolutions_loses_neurons_of_its_last_hidden_layer() -> None:
    model = network()
    pruned = fine_prune(
        model, rows(40), selection=rows(40, seed=1), most_drop=1.0, epochs=1, generator=seeded()
    )
    dead = pruned.linear3.weight.abs().sum(dim=1) == 0
    assert int(dead.sum()) == 2
    assert (pruned.linear2.weight.abs().sum(dim=1) > 0).all()


def test_a_residual_network_loses_neurons_that_own_their_weights() -> None:
    """Channels before and after a block are read by the sum as well; hidden neurons are not."""
    model = residual_network((1, 6, 6), (4,), 1, 3, generator=seeded()).double()
    layer = prunable_layers(model)[-1]
    pruned = fine_prune(
        model,
        pictures(),
        selection=pictures(seed=1),
        most_drop=1.0,
        epochs=2,
        generator=seeded(),
    )
    weight = pruned.get_submodule(pre_activation(model, layer)).weight
    assert int((weight.flatten(1).abs().sum(dim=1) > 0).sum()) == 1


def test_fine_tuning_learns_the_samples() -> None:
    model, clean = image_network(), pictures()
    before = fingerprint(model)
    tuned = fine_tune(model, clean, epochs=60, learning_rate=1e-2, generator=seeded())
    assert accuracy(tuned, clean) > 0.9 > accuracy(model, clean)
    assert fingerprint(model) == before
    assert not tuned.training


@pytest.mark.parametrize("repair", [fine_tune, fine_prune])
def test_the_same_seed_gives_the_same_network(repair) -> None:
    model, clean = image_network(), pictures()
    options = {"selection": pictures(seed=1), "most_drop": 0.2} if repair is fine_prune else {}
    first, second = (
        repair(model, clean, epochs=2, batch_size=8, generator=seeded(3), **options)
        for _ in range(2)
    )
    other = repair(model, clean, epochs=2, batch_size=8, generator=seeded(4), **options)
    assert fingerprint(first) == fingerprint(second) != fingerprint(other)


def test_misuse() -> None:
    model, clean = image_network(), pictures(6)
    with pytest.raises(ValueError, match="layer: got '3'; allowed: 1, 4, 7"):
        fine_prune(model, clean, selection=clean, layer="3", generator=seeded())
    with pytest.raises(ValueError, match="no hidden layer whose neurons can be pruned"):
        fine_prune(nn.Sequential(nn.Linear(2, 2)), clean, selection=clean, generator=seeded())
    with pytest.raises(ValueError, match="most_drop: got -1"):
        fine_prune(model, clean, selection=clean, most_drop=-1, generator=seeded())
    unlabelled = Samples(inputs=clean.inputs)
    with pytest.raises(ValueError, match="without labels"):
        fine_prune(model, clean, selection=unlabelled, generator=seeded())
    with pytest.raises(ValueError, match="without labels"):
        fine_tune(model, unlabelled, generator=seeded())
    with pytest.raises(ValueError, match="got 3 channels; this network takes 1"):
        fine_prune(model, pictures(6, channels=3), selection=clean, generator=seeded())
    with pytest.raises(ValueError, match="got 3 channels; this network takes 1"):
        fine_prune(model, clean, selection=pictures(6, channels=3), generator=seeded())
    with pytest.raises(ValueError, match="training mode"):
        fine_prune(image_network().train(), clean, selection=clean, generator=seeded())
