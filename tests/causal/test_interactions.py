import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from carelab.causal import (
    ablation_effects,
    first_probe_values,
    mean_activation,
    pair_interactions,
    patching_effects,
    reference_values,
    zero_activation,
)
from carelab.networks import hidden_neurons
from carelab.records import Neuron, Samples, WholeLayer
from tests.causal.small_networks import (
    Margin,
    column,
    conv_network,
    images,
    linear_network,
    redundant,
    three_neurons,
    with_weights,
)
from tests.reference.mediation import falls, mean_and_error, value
from tests.tables import fairness, network, rows, seeded


def test_redundant_units_by_hand() -> None:
    # Either h is enough: E(h0) = E(h1) = 0, both together bring y from 1 to 0. g is behind them:
    # curing it is worth 1 by itself and 1 with any h, so that nothing interacts with it.
    found = pair_interactions(
        redundant(),
        column(1.0, 1.0),
        Margin(),
        hidden_neurons(redundant()),
        replacement=reference_values(redundant(), column(0.0, 0.0), Margin()),
    )
    assert found.single.effect.tolist() == [0.0, 0.0, 1.0]
    assert found.interaction.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert found.joint.tolist() == [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]
    assert found.standard_error.tolist() == [[0.0] * 3] * 3


def test_units_of_one_path_by_hand() -> None:
    # s - h - g - y with y = s: cutting both is worth no more than cutting one, at s = 1 and 3.
    chain = with_weights([[[1.0]], [[1.0]], [[0.0], [1.0]]], [[0.0], [0.0], [0.0, 0.0]])
    found = pair_interactions(
        chain, column(1.0, 3.0), Margin(), hidden_neurons(chain), replacement=zero_activation
    )
    assert found.single.effect.tolist() == [2.0, 2.0]
    assert found.interaction.tolist() == [[0.0, -2.0], [-2.0, 0.0]]
    # The interaction is -1 and -3: its sample variance is 2, divided by 2 rows.
    assert found.standard_error.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_independent_units_do_not_interact() -> None:
    samples = Samples(inputs=torch.tensor([[1.0, 1.0], [3.0, 1.0]]).double())
    found = pair_interactions(
        three_neurons(),
        samples,
        Margin(),
        hidden_neurons(three_neurons()),
        replacement=zero_activation,
    )
    assert found.interaction.tolist() == [[0.0] * 3] * 3
    assert found.joint[0, 1] == 4.0


def test_equals_the_slow_reference_within_and_across_layers() -> None:
    model, samples, fair = network(), rows(6), fairness()
    units = (
        Neuron("relu2", 1),
        Neuron("relu1", 4),
        Neuron("relu1", 0),
        Neuron("linear3", 2),
        WholeLayer("relu3"),
        WholeLayer("relu1"),
    )

    def at_first_probe(unit: Neuron | WholeLayer, row: int, probe: int) -> torch.Tensor:
        return value(model, fair.probes(samples.inputs[row : row + 1])[0, 0], unit)

    found = pair_interactions(
        model, samples, fair, units, replacement=first_probe_values, batch_size=9
    )
    alone = [falls(model, samples.inputs, fair, [unit], at_first_probe) for unit in units]
    torch.testing.assert_close(found.single.effect, torch.stack(alone).mean(dim=1))
    for row, first in enumerate(units):
        for other, second in enumerate(units[:row]):
            both = falls(model, samples.inputs, fair, [first, second], at_first_probe)
            mean, error = mean_and_error(both - alone[row] - alone[other])
            for pair in ((row, other), (other, row)):
                torch.testing.assert_close(found.interaction[pair], mean, rtol=0, atol=1e-12)
                torch.testing.assert_close(found.standard_error[pair], error, rtol=0, atol=1e-9)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_feature_maps_equal_the_slow_reference(activation: type[nn.Module]) -> None:
    model, samples, background = conv_network(activation), images(4), images(6, seed=4)
    units = (Neuron("pool2", 0, (0, 0)), Neuron("relu1", 2), Neuron("pool1", 1, (2, 1)))
    means = {
        unit: torch.stack([value(model, row, unit) for row in background.inputs]).mean(dim=0)
        for unit in units
    }
    found = pair_interactions(
        model, samples, Margin(), units, replacement=mean_activation(model, background)
    )
    alone = [
        falls(model, samples.inputs, Margin(), [unit], lambda u, *_: means[u]) for unit in units
    ]
    for row, other in ((0, 1), (0, 2), (1, 2)):
        both = falls(
            model, samples.inputs, Margin(), [units[row], units[other]], lambda u, *_: means[u]
        )
        expected = (both - alone[row] - alone[other]).mean()
        torch.testing.assert_close(found.interaction[row, other], expected, rtol=0, atol=1e-12)


def test_single_effects_are_those_of_patching_and_ablation() -> None:
    model, samples, fair = network(), rows(20), fairness()
    units = hidden_neurons(model)[4:9]
    patched = pair_interactions(model, samples, fair, units, replacement=first_probe_values)
    expected = patching_effects(model, samples, fair, units=units)
    torch.testing.assert_close(patched.single.effect, expected.effect)
    torch.testing.assert_close(patched.single.covariance, expected.covariance)
    cut = pair_interactions(model, samples, fair, units, replacement=zero_activation)
    expected = ablation_effects(model, samples, fair, replacement=zero_activation, units=units)
    torch.testing.assert_close(cut.single.effect, expected.effect)


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), batch_size=st.integers(1, 60))
def test_laws(seed: int, batch_size: int) -> None:
    model, samples = network(seed=seed), rows(9, seed=seed)
    with torch.no_grad():
        model.linear2.weight[:, 2] = 0
    units = (Neuron("relu1", 2), Neuron("relu1", 0), Neuron("relu2", 3), Neuron("relu3", 1))
    one = pair_interactions(model, samples, fairness(), units, replacement=first_probe_values)
    # A neuron that feeds nothing interacts with nobody, and batches and order change nothing.
    torch.testing.assert_close(one.interaction[0], torch.zeros(4).double(), rtol=0, atol=1e-12)
    order = torch.randperm(4, generator=seeded(seed))
    two = pair_interactions(
        model,
        samples,
        fairness(),
        [units[row] for row in order.tolist()],
        replacement=first_probe_values,
        batch_size=batch_size,
    )
    torch.testing.assert_close(
        two.interaction, one.interaction[order][:, order], rtol=0, atol=1e-12
    )
    torch.testing.assert_close(
        two.standard_error, one.standard_error[order][:, order], rtol=0, atol=1e-9
    )


def test_in_a_linear_network_neurons_of_one_layer_do_not_interact() -> None:
    model = linear_network()
    found = pair_interactions(
        model, rows(8), Margin(), hidden_neurons(model)[:5], replacement=zero_activation
    )
    torch.testing.assert_close(found.interaction, torch.zeros(5, 5).double(), rtol=0, atol=1e-12)


def test_the_model_keeps_no_hook() -> None:
    model, units = network(), (Neuron("relu1", 0), Neuron("relu2", 0))

    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("broken")

    pair_interactions(model, rows(5), fairness(), units, replacement=zero_activation)
    with pytest.raises(RuntimeError, match="broken"):
        pair_interactions(model, rows(5), fairness(), units, replacement=broken)
    assert not any(module._forward_hooks for module in model.modules())


def test_misuse() -> None:
    model, samples, fair = network(), rows(5), fairness()
    two = (Neuron("relu1", 0), Neuron("relu2", 0))
    for units in ((), two[:1], (two[0], two[0])):
        with pytest.raises(ValueError, match="allowed: at least two, and each only once"):
            pair_interactions(model, samples, fair, units, replacement=zero_activation)
    with pytest.raises(ValueError, match="samples, batch_size: got 1, 8192"):
        pair_interactions(model, rows(1), fair, two, replacement=zero_activation)
    unknown = ((Neuron("relu9", 0), "layer: got 'relu9'"), (Neuron("relu1", 6), r"relu1\[6\]"))
    for unit, message in unknown:
        units = (two[0], unit)
        with pytest.raises(ValueError, match=message):
            pair_interactions(model, samples, fair, units, replacement=zero_activation)
    with pytest.raises(ValueError, match="replacement: returned shape"):
        pair_interactions(
            model, samples, fair, two, replacement=lambda units, before, rows: torch.zeros(2, 3)
        )
    with pytest.raises(ValueError, match="training mode"):
        pair_interactions(network().train(), samples, fair, two, replacement=zero_activation)
