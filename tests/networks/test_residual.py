import pytest
import torch
from torch import nn

from carelab.causal import activations, neuron_effects
from carelab.networks import (
    Residual,
    hidden_layers,
    hidden_neurons,
    ordered_modules,
    pre_activation,
    residual_network,
    split,
    width,
)
from carelab.records import Neuron, Samples
from carelab.repair import outgoing_columns, scale_neurons
from tests.causal.small_networks import Margin
from tests.reference.effects import interventional_expectation, run_held
from tests.tables import fairness, rows


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def shaken(model, seed=0):
    """The network in double precision with weights that make every block add something."""
    with torch.no_grad():
        for number, weight in enumerate(model.double().parameters()):
            noise = torch.randn(weight.shape, generator=generator(seed + number))
            weight.copy_(weight + 0.3 * noise)
    return model


def image_network(activation=nn.ReLU):
    model = residual_network(
        (2, 8, 8), (3, 4), 2, 3, widths=(5,), activation=activation, generator=generator()
    )
    return shaken(model)


def table_network(activation=nn.ReLU):
    """Rows of 4 features, two blocks of which one holds another, two classes."""
    inner = nn.Sequential(nn.Linear(5, 5), activation(), nn.Linear(5, 5))
    outer = nn.Sequential(Residual(nn.Sequential(nn.Linear(5, 5))), activation())
    model = nn.Sequential()
    for name, module in {
        "linear1": nn.Linear(4, 5),
        "act1": activation(),
        "residual1": Residual(inner),
        "act2": activation(),
        "residual2": Residual(outer),
        "act3": activation(),
        "linear2": nn.Linear(5, 2),
    }.items():
        model.add_module(name, module)
    return shaken(model.eval())


STAGES = ["conv1", "relu1", "residual1", "relu2", "residual2", "relu3", "pool1"]
STAGES += ["conv2", "relu4", "residual3", "relu5", "residual4", "relu6", "pool2"]
STAGES += ["flatten", "linear1", "relu7", "linear2"]


def test_a_block_adds_what_its_body_makes_of_the_input() -> None:
    body = nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        body[0].weight.copy_(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    # (3, 5) + (5, 6)
    assert torch.equal(Residual(body)(torch.tensor([[3.0, 5.0]])), torch.tensor([[8.0, 11.0]]))


def test_a_body_that_changes_the_shape_is_refused() -> None:
    block = Residual(nn.Sequential(nn.Conv2d(2, 1, 3)))
    with pytest.raises(ValueError, match=r"body: gives \(1, 2, 2\) for \(2, 4, 4\)"):
        block(torch.zeros(3, 2, 4, 4))
    # One that could be broadcast is refused as well.
    with pytest.raises(ValueError, match=r"body: gives \(1,\) for \(4,\)"):
        Residual(nn.Sequential(nn.Linear(4, 1)))(torch.zeros(3, 4))


def test_the_network_has_the_named_stages_in_order_and_their_sizes() -> None:
    model = image_network()
    assert [name for name, _ in ordered_modules(model)] == STAGES
    kinds = [[type(part) for part in m.body] for m in model if isinstance(m, Residual)]
    assert kinds == [[nn.Conv2d, nn.ReLU, nn.Conv2d]] * 4
    # 8 x 8 pooled twice: 2 x 2, of 4 channels.
    assert model.linear1.in_features == 16
    assert isinstance(model.pool1, nn.MaxPool2d)
    assert isinstance(model.pool2, nn.AvgPool2d)
    assert model(torch.zeros(7, 2, 8, 8, dtype=torch.float64)).shape == (7, 3)
    assert not any(module.training for module in model.modules())


def test_blocks_start_as_the_identity_but_not_those_of_sigmoids() -> None:
    inputs = torch.rand(4, 3, 4, 4, generator=generator())
    block = residual_network((1, 8, 8), (3,), 1, 2, generator=generator()).residual1
    assert torch.equal(block(inputs), inputs)
    assert block.body.conv1.weight.abs().min() > 0
    model = residual_network((1, 8, 8), (32,), 3, 2, activation=nn.Sigmoid, generator=generator())
    found = activations(model, torch.rand(50, 1, 8, 8, generator=generator()), ["sigmoid4"])
    # After three blocks the units still tell the images apart, around the middle of a sigmoid.
    assert found["sigmoid4"].std(dim=0).mean() > 0.05
    assert 0.3 < found["sigmoid4"].mean() < 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": (8, 8)}, r"image: got \(8, 8\); allowed: \(channels, height, width\)"),
        ({"channels": ()}, r"channels, blocks, widths, classes: got \(\), 1"),
        ({"channels": (2, 0)}, "channels, blocks, widths, classes: got"),
        ({"blocks": 0}, r"channels, blocks, widths, classes: got \(2,\), 0"),
        ({"widths": (0,)}, "channels, blocks, widths, classes: got"),
        ({"classes": 0}, "channels, blocks, widths, classes: got"),
        ({"channels": (2, 2, 2, 2)}, "which 4 poolings by 2 leave empty"),
    ],
)
def test_residual_network_refuses_impossible_sizes(change, message) -> None:
    sizes = {"image": (1, 8, 8), "channels": (2,), "blocks": 1, "classes": 2, **change}
    with pytest.raises(ValueError, match=message):
        residual_network(**sizes, generator=generator())


def test_a_block_is_one_layer_whose_inside_is_not_hidden() -> None:
    model = image_network()
    assert hidden_layers(model) == tuple(f"relu{number}" for number in range(1, 8))
    widths = [width(model, layer) for layer in hidden_layers(model)]
    assert widths == [3, 3, 3, 4, 4, 4, 5]
    assert width(model, "residual2") == 3
    assert len(hidden_neurons(model)) == sum(widths)
    # A block may come last or first: the activation at its side is then between weight layers.
    around = nn.Sequential(
        Residual(nn.Sequential(nn.Linear(2, 2))),
        nn.ReLU(),
        Residual(nn.Sequential(nn.Linear(2, 2))),
        nn.ReLU(),
    )
    assert hidden_layers(around) == ("1",)


@pytest.mark.parametrize("layer", STAGES)
def test_split_around_a_block_gives_the_same_outputs(layer) -> None:
    model = image_network()
    inputs = torch.rand(3, 2, 8, 8, dtype=torch.float64, generator=generator())
    prefix, suffix = split(model, layer)
    assert torch.equal(suffix(prefix(inputs)), model(inputs))


def test_only_a_plain_layer_is_the_pre_activation_of_an_activation() -> None:
    model = image_network()
    assert pre_activation(model, "relu1") == "conv1"
    assert pre_activation(model, "relu7") == "linear1"
    with pytest.raises(ValueError, match="got 'relu2', which takes the output of residual1"):
        pre_activation(model, "relu2")


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.Sigmoid])
def test_effects_around_blocks_equal_the_slow_reference(activation) -> None:
    model, fair, samples = table_network(activation), fairness(), rows(4)
    layers = ["act1", "act2", "act3", "residual1", "linear1"]
    neurons = hidden_neurons(model, layers=layers)[::2]
    effects = neuron_effects(model, samples, fair, neurons=neurons, steps=2)
    assert hidden_layers(model) == ("act1", "act2", "act3")
    for row, one in enumerate(neurons):
        grid, curve = interventional_expectation(
            model, samples.inputs, fair.columns, fair.values, (one.layer, one.index), 2
        )
        close = {"rtol": 0, "atol": 1e-10}
        torch.testing.assert_close(effects.values[row].tolist(), grid, **close)
        torch.testing.assert_close(effects.expectation[row].tolist(), curve, **close)


def test_effects_of_channels_around_blocks_equal_the_slow_reference() -> None:
    model, prop = image_network(), Margin()
    inputs = torch.rand(4, 2, 8, 8, dtype=torch.float64, generator=generator())
    effects = neuron_effects(model, Samples(inputs=inputs), prop, steps=2)
    assert effects.neurons == hidden_neurons(model)
    for row, neuron in enumerate(effects.neurons):
        for step, value in enumerate(effects.values[row].tolist()):
            with torch.no_grad():
                held = [run_held(model, one, neuron.layer, neuron.index, value) for one in inputs]
            expected = torch.stack([logits[1] - logits[0] for logits in held]).mean()
            found = effects.expectation[row, step]
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_units_that_plain_weights_read_have_outgoing_columns_and_no_others() -> None:
    model = image_network()
    # A channel of the last map is read at its 2 x 2 places.
    assert outgoing_columns(model, Neuron("relu6", 1)) == ("linear1.weight", [4, 5, 6, 7])
    assert outgoing_columns(model, Neuron("relu7", 4)) == ("linear2.weight", [4])
    assert outgoing_columns(model, Neuron("relu3", 2)) == ("conv2.weight", [2])
    for layer in ("relu1", "relu2", "relu4"):
        with pytest.raises(ValueError, match=rf"from {layer} through residual\d \(Residual\)"):
            outgoing_columns(model, Neuron(layer, 0))


def test_scaling_the_last_map_in_the_weights_is_exact() -> None:
    model = image_network()
    inputs = torch.rand(6, 2, 8, 8, dtype=torch.float64, generator=generator())
    scaled, _ = scale_neurons(model, [Neuron("relu6", 1)], torch.tensor([-0.5]))
    prefix, suffix = split(model, "relu6")
    hidden = prefix(inputs)
    hidden[:, 1] *= -0.5
    torch.testing.assert_close(scaled(inputs), suffix(hidden), rtol=0, atol=1e-10)


def test_a_gradient_passes_through_blocks() -> None:
    model = image_network()
    assert model.conv1.weight.grad is None
    model(torch.rand(2, 2, 8, 8, dtype=torch.float64, generator=generator())).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    assert model.conv1.weight.grad.abs().max() > 0
