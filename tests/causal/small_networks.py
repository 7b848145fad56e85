"""Networks whose effects can be told by hand, and a property of one probe."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from carelab.networks import cnn, mlp
from carelab.records import Neuron, Samples
from tests.tables import seeded

CONV_UNITS = (
    Neuron("relu1", 1),
    Neuron("relu1", 0, (2, 3)),
    Neuron("pool1", 2, (1, 0)),
    Neuron("relu2", 1),
    Neuron("relu3", 0),
)


class Margin:
    """Class 1 must not win: one probe, the lead of class 1 over class 0 is the score."""

    name = "class 1 must not win"

    def probes(self, inputs: Tensor) -> Tensor:
        return inputs[None]

    def score(self, outputs: Tensor, samples: Samples) -> Tensor:
        return outputs[..., 0, :, 1] - outputs[..., 0, :, 0]

    def margin(self, outputs: Tensor, samples: Samples) -> Tensor:
        return -self.score(outputs, samples)

    def rate(self, outputs: Tensor, samples: Samples) -> Tensor:
        return (self.score(outputs, samples) > 0).double().mean(dim=-1)


def with_weights(weights: list[list[list[float]]], biases: list[list[float]]) -> nn.Sequential:
    """A ReLU network in double precision with these weight matrices and biases."""
    widths = [len(rows) for rows in weights]
    model = mlp(len(weights[0][0]), widths[:-1], widths[-1], generator=seeded()).double()
    linears = [module for module in model if isinstance(module, nn.Linear)]
    with torch.no_grad():
        for linear, weight, bias in zip(linears, weights, biases, strict=True):
            linear.weight.copy_(torch.tensor(weight))
            linear.bias.copy_(torch.tensor(bias))
    return model


def three_neurons() -> nn.Sequential:
    """Inputs a, s; h = relu(s), relu(a), relu(s); logits 0 and 2 h0 + h1 (h2 feeds nothing)."""
    return with_weights(
        [[[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0, 0.0], [2.0, 1.0, 0.0]]],
        [[0.0, 0.0, 0.0], [0.0, 0.0]],
    )


def redundant() -> nn.Sequential:
    """Input s; h = relu(s) twice; g = relu(1 - h0 - h1); logits 0 and 1 - g: either h is enough."""
    return with_weights(
        [[[1.0], [1.0]], [[-1.0, -1.0]], [[0.0], [-1.0]]],
        [[0.0, 0.0], [1.0], [0.0, 1.0]],
    )


def linear_network(seed: int = 0) -> nn.Sequential:
    """Two layers without an activation that bends: leaky ReLUs of slope 1."""
    return mlp(
        4, (5, 4), 2, activation=lambda: nn.LeakyReLU(negative_slope=1.0), generator=seeded(seed)
    ).double()


def conv_network(activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Two blocks of convolution and pooling, a hidden layer, three classes; names of ReLU."""
    model = cnn((1, 6, 6), (3, 2), (4,), 3, activation=activation, generator=seeded(2)).double()
    names = [
        name.replace(activation.__name__.lower(), "relu") for name, _ in model.named_children()
    ]
    named = nn.Sequential()
    for name, module in zip(names, model, strict=True):
        named.add_module(name, module)
    return named.eval()


def images(count: int, seed: int = 0) -> Samples:
    """Random images that `conv_network` takes."""
    return Samples(inputs=torch.rand(count, 1, 6, 6, dtype=torch.float64, generator=seeded(seed)))


def column(*numbers: float) -> Samples:
    """Rows of one feature."""
    return Samples(inputs=torch.tensor(numbers, dtype=torch.float64)[:, None])
