import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from carelab.networks import cnn, fingerprint, hidden_neurons, mlp, pre_activation
from carelab.records import Neuron
from carelab.repair import factor_variants, scale_neurons
from tests.tables import network, rows, seeded


def scaled_by_hooks(model: nn.Module, factors: dict[Neuron, float], inputs: torch.Tensor):
    """The outputs when each activation is multiplied where it arises."""
    handles = []
    for neuron, factor in factors.items():

        def hook(module, arguments, output, neuron=neuron, factor=factor):
            changed = output.clone()
            changed[:, neuron.index] = output[:, neuron.index] * factor
            return changed

        handles.append(model.get_submodule(neuron.layer).register_forward_hook(hook))
    try:
        with torch.no_grad():
            return model(inputs)
    finally:
        for handle in handles:
            handle.remove()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    low=st.sampled_from([0.0, -10.0]),
    activation=st.sampled_from([nn.ReLU, nn.GELU, nn.Sigmoid]),
    before=st.booleans(),
)
def test_the_weights_do_what_the_factors_say(seed, low, activation, before) -> None:
    model = mlp(4, (6, 5, 3), 2, activation=activation, generator=seeded(seed)).double()
    neurons = hidden_neurons(model)
    if before:
        neurons = tuple(Neuron(pre_activation(model, one.layer), one.index) for one in neurons)
    chosen = [neurons[i] for i in torch.randperm(14, generator=seeded(seed))[:5].tolist()]
    factors = torch.rand(5, generator=seeded(seed)).double() * (2 - low) + low
    inputs = rows(9, seed=seed).inputs
    expected = scaled_by_hooks(model, dict(zip(chosen, factors.tolist(), strict=True)), inputs)
    scaled, _ = scale_neurons(model, chosen, factors)
    torch.testing.assert_close(scaled(inputs).detach(), expected, rtol=1e-10, atol=1e-10)
    together = factor_variants(model, inputs, chosen, batch_size=7)
    both = together(torch.stack([factors, torch.ones(5).double()]))
    torch.testing.assert_close(both[0], expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(both[1], model(inputs).detach(), rtol=1e-10, atol=1e-10)


def test_channels_through_pooling_and_flattening() -> None:
    model = cnn((1, 8, 8), (3, 4), (5,), 2, generator=seeded()).double()
    images = torch.rand(3, 1, 8, 8, dtype=torch.float64, generator=seeded())
    chosen = [Neuron("relu1", 1), Neuron("relu2", 3), Neuron("relu3", 0)]
    factors = torch.tensor([0.5, 0.0, -2.0], dtype=torch.float64)
    expected = scaled_by_hooks(model, dict(zip(chosen, factors.tolist(), strict=True)), images)
    scaled, edits = scale_neurons(model, chosen, factors)
    torch.testing.assert_close(scaled(images).detach(), expected)
    assert [edit.parameter for edit in edits] == [
        "conv2.weight",
        "linear1.weight",
        "linear2.weight",
    ]
    torch.testing.assert_close(factor_variants(model, images, chosen)(factors[None])[0], expected)


def test_only_what_belongs_to_the_neurons_changes_and_nothing_of_the_given_model() -> None:
    model = network()
    before = fingerprint(model)
    scaled, _ = scale_neurons(model, [Neuron("linear2", 1)], torch.tensor([0.5]).double())
    assert fingerprint(model) == before
    changed = [
        name
        for name, value in scaled.state_dict().items()
        if not torch.equal(value, model.state_dict()[name])
    ]
    assert changed == ["linear2.weight", "linear2.bias"]
    rows_changed = (scaled.linear2.weight != model.linear2.weight).any(dim=1)
    assert rows_changed.nonzero().flatten().tolist() == [1]


def test_misuse() -> None:
    model, one = network(), torch.ones(1).double()
    with pytest.raises(ValueError, match="each neuron once"):
        scale_neurons(model, [Neuron("relu1", 0)] * 2, torch.ones(2).double())
    with pytest.raises(ValueError, match="one factor a neuron"):
        scale_neurons(model, [Neuron("relu1", 0)], torch.ones(2).double())
    with pytest.raises(ValueError, match="not finite"):
        scale_neurons(model, [Neuron("relu1", 0)], one * torch.nan)
    with pytest.raises(ValueError, match="layer 'relu9'"):
        scale_neurons(model, [Neuron("relu9", 0)], one)
    for layer in ("relu1", "linear1"):
        with pytest.raises(ValueError, match="allowed: 0 to 5"):
            scale_neurons(model, [Neuron(layer, 6)], one)
    image = cnn((1, 8, 8), (3,), (5,), 2, generator=seeded())
    with pytest.raises(ValueError, match=r"from relu1 through pool1 \(MaxPool2d\)"):
        scale_neurons(image, [Neuron("relu1", 0)], -torch.ones(1))
    with pytest.raises(ValueError, match="at least one"):
        factor_variants(model, rows(3).inputs, [])
    with pytest.raises(ValueError, match="training mode"):
        factor_variants(network().train(), rows(3).inputs, [Neuron("relu1", 0)])
