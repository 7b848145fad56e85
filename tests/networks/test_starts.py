import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from carelab.networks import accuracy, conv_network, fit, paper_network, residual_network, seeded
from carelab.networks.starts import initialise_
from carelab.records import Samples


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def digits():
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    order = torch.randperm(len(inputs), generator=generator(5))
    samples = Samples(inputs=inputs, labels=torch.tensor(labels)).take(order)
    return samples.take(slice(1200)), samples.take(slice(1200, None))


def spreads(activation):
    """Spread over the inputs of each layer's output, units averaged, in a deep network."""
    rows = [layer for _ in range(8) for layer in (nn.Linear(256, 256), activation())]
    deep = nn.Sequential(*rows, nn.Linear(256, 256))
    with seeded(generator()):
        initialise_(deep)
    hidden, found = torch.rand(500, 256, generator=generator(1)), []
    for layer in deep:
        hidden = layer(hidden)
        if isinstance(layer, nn.Linear):
            found.append(hidden.std(dim=0).mean().item())
    return found


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.Sigmoid, nn.Tanh])
def test_the_signal_reaches_the_end_of_a_deep_network(activation) -> None:
    found = spreads(activation)
    assert 0.1 < found[-2] / found[0] < 10
    assert all(spread > 0.05 for spread in found)


def test_by_hand_the_spread_of_the_weights_and_the_middle_of_what_is_read() -> None:
    row = nn.Sequential(nn.Conv2d(4, 100, 5), nn.Sigmoid(), nn.Flatten(), nn.Linear(900, 50))
    with seeded(generator()):
        initialise_(row)
    # Gains 4.8 before a sigmoid and 1 at the end; 4 x 5 x 5 and 900 inputs of a unit.
    assert row[0].weight.std().item() == pytest.approx(4.8 / 10, rel=0.02)
    assert row[3].weight.std().item() == pytest.approx(1 / 30, rel=0.02)
    # Everything read at its middle, 1/2: every unit at 0, every sigmoid at 1/2.
    middle = row[0](torch.full((1, 4, 5, 5), 0.5))
    torch.testing.assert_close(middle, torch.zeros(1, 100, 1, 1), rtol=0, atol=1e-5)
    end = row[3](torch.full((1, 900), 0.5))
    torch.testing.assert_close(end, torch.zeros(1, 50), rtol=0, atol=1e-5)
    with seeded(generator()):
        initialise_(row := nn.Sequential(nn.Linear(400, 300), nn.ReLU(), nn.Linear(300, 2)))
    assert row[0].weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert row[0].bias.abs().max() == row[2].bias.abs().max() == 0


@pytest.mark.parametrize(
    ("build", "rate", "least"),
    [
        (lambda: paper_network("digits", activation=nn.Sigmoid, generator=generator()), 0.02, 0.85),
        (
            lambda: conv_network(
                (1, 8, 8),
                ("s12", "s12", "p", "s24", "s24", "p"),
                (32,),
                10,
                activation=nn.Sigmoid,
                generator=generator(),
            ),
            0.02,
            0.85,
        ),
        (
            lambda: residual_network(
                (1, 8, 8), (12, 24), 1, 10, activation=nn.Sigmoid, generator=generator()
            ),
            0.02,
            0.85,
        ),
        (
            lambda: residual_network(
                (1, 8, 8), (12, 24), 1, 10, activation=nn.GELU, generator=generator()
            ),
            0.003,
            0.9,
        ),
    ],
)
def test_networks_of_sigmoids_and_residual_ones_learn_the_digits(build, rate, least) -> None:
    train, test = digits()
    options = {"epochs": 6, "batch_size": 64, "learning_rate": rate, "one_cycle": True}
    assert accuracy(fit(build(), train, generator=generator(), **options), test) > least
