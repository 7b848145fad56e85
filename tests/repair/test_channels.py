import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from carelab.causal import do
from carelab.networks import fingerprint, hidden_neurons
from carelab.records import Neuron
from carelab.repair import prunable_layers, prune_neurons
from carelab.repair.channels import cut_out, keeps_accuracy, put_back
from tests.repair.backdoors import image_network, pictures
from tests.tables import network, rows

ACTIVATIONS = [nn.ReLU, nn.Sigmoid, nn.GELU]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@settings(max_examples=10)
@given(chosen=st.sets(st.integers(0, 14)))
def test_a_pruned_neuron_is_one_held_at_zero(activation, chosen) -> None:
    model, images = image_network(activation), pictures(7).inputs
    neurons = [hidden_neurons(model)[at] for at in sorted(chosen)]
    with do(model, dict.fromkeys(neurons, 0.0)):
        expected = model(images)
    torch.testing.assert_close(prune_neurons(model, neurons)(images), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_smaller_network_computes_the_same(activation) -> None:
    model, images = image_network(activation), pictures(7).inputs
    # Neighbouring layers: the second convolution loses rows and columns at once.
    gone = [Neuron("1", 0), Neuron("1", 3), Neuron("4", 2), Neuron("7", 1), Neuron("7", 5)]
    smaller = cut_out(model, gone)
    assert smaller[3].weight.shape == (4, 2, 3, 3)
    assert (smaller[6].in_features, smaller[6].out_features) == (36, 4)
    torch.testing.assert_close(smaller(images), prune_neurons(model, gone)(images))


def test_putting_back_is_the_inverse_of_cutting_out() -> None:
    model = image_network()
    gone = [Neuron("1", 0), Neuron("4", 2), Neuron("7", 1)]
    smaller = cut_out(model, gone)
    assert fingerprint(put_back(model, smaller, gone)) == fingerprint(prune_neurons(model, gone))
    with torch.no_grad():
        for weight in smaller.parameters():
            weight.add_(1)
    larger = put_back(model, smaller, gone)
    torch.testing.assert_close(larger(pictures(7).inputs), smaller(pictures(7).inputs))
    assert larger[3].bias.tolist()[2] == 0
    assert larger[3].bias.tolist()[:2] == smaller[3].bias.tolist()[:2]


def test_the_given_network_stays_as_it_is() -> None:
    model = image_network()
    before = fingerprint(model)
    gone = [Neuron("4", 2)]
    put_back(model, cut_out(model, gone), gone)
    prune_neurons(model, gone)
    assert fingerprint(model) == before
    assert fingerprint(prune_neurons(model, [])) == before


def test_layers_without_a_bias() -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 2)).eval()
    pruned = prune_neurons(model, [Neuron("1", 3)])
    assert pruned[0].weight[3].tolist() == [0.0, 0.0, 0.0]
    assert pruned[2].weight[:, 3].tolist() == [0.0, 0.0]


def test_layers_whose_neurons_own_their_weights() -> None:
    assert prunable_layers(image_network()) == ("1", "4", "7")
    normalised = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.ReLU(),
        nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Dropout(), nn.Conv2d(2, 2, 1),
        nn.ReLU(), nn.Conv2d(2, 2, 1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2),
    )  # fmt: skip
    assert prunable_layers(normalised) == ("7",)
    assert prunable_layers(nn.Sequential(nn.Linear(2, 2))) == ()


def test_a_pruning_is_borne_while_the_accuracy_stays_near_that_of_the_network() -> None:
    """Of four samples the candidates get 3, 3, 2, 1 and 3 right; the network itself 4."""
    samples = rows(4)
    asked = []

    def right(count: int) -> nn.Module:
        answers = torch.stack([samples.labels, 1 - samples.labels])
        truth = torch.where(torch.arange(4) < count, answers[0], answers[1])

        class Fixed(nn.Module):
            def forward(self, inputs):
                asked.append(count)
                return nn.functional.one_hot(truth, 2).double()

        return Fixed().eval()

    def borne(most_drop: float):
        candidates = (right(count) for count in (3, 3, 2, 1, 3))
        return keeps_accuracy(right(4), candidates, samples, most_drop=most_drop)

    assert list(borne(0.25)) == [True, True, False, False, True]
    assert list(borne(0.5)) == [True, True, True, False, True]
    assert not any(borne(0.0))
    assert all(borne(1.0))
    asked.clear()
    assert next(borne(0.25))
    assert asked == [4, 3]


def test_misuse() -> None:
    model = image_network()
    with pytest.raises(ValueError, match="got one of them twice"):
        prune_neurons(model, [Neuron("1", 0), Neuron("1", 0)])
    with pytest.raises(ValueError, match=r"got 1\[0, 2, 2\], one position.*allowed.*1\[0\]"):
        prune_neurons(model, [Neuron("1", 0, (2, 2))])
    with pytest.raises(ValueError, match="got layer 'relu9'"):
        prune_neurons(model, [Neuron("relu9", 0)])
    with pytest.raises(ValueError, match="allowed: 0 to 3"):
        prune_neurons(model, [Neuron("1", 4)])
    with pytest.raises(ValueError, match="after its activation"):
        prune_neurons(model, [Neuron("0", 0)])
    with pytest.raises(ValueError, match="'2', which is no activation"):
        prune_neurons(model, [Neuron("2", 0)])
    with pytest.raises(ValueError, match=r"got every neuron that 0\.weight serves"):
        cut_out(model, [Neuron("1", index) for index in range(4)])
    with pytest.raises(ValueError, match="smaller: has other weights"):
        put_back(model, model, [Neuron("1", 0)])
    with pytest.raises(ValueError, match=r"most_drop: got 1\.5"):
        list(keeps_accuracy(network(), [], rows(4), most_drop=1.5))
    groups = nn.Sequential(nn.Conv2d(2, 2, 1, groups=2), nn.ReLU(), nn.Conv2d(2, 2, 1))
    with pytest.raises(ValueError, match="beside 0, a convolution in groups"):
        prune_neurons(groups, [Neuron("1", 0)])
