"""A network with a backdoor written in by hand, and small image networks, for several tests."""

from __future__ import annotations

import torch
from torch import nn

from carelab.records import Samples
from tests.tables import seeded


def pictures(count: int = 40, channels: int = 1, side: int = 6, seed: int = 0) -> Samples:
    """Random images in double precision, with random labels from 0 to 2."""
    generator = seeded(seed)
    return Samples(
        inputs=torch.rand(count, channels, side, side, generator=generator).double(),
        labels=torch.randint(0, 3, (count,), generator=generator),
    )


def image_network(activation: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Sequential:
    """Two convolutions, pooling and two linear layers, random, in double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return (
            nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1),
                activation(),
                nn.MaxPool2d(2),
                nn.Conv2d(4, 5, 3, padding=1),
                activation(),
                nn.Flatten(),
                nn.Linear(45, 6),
                activation(),
                nn.Linear(6, 3),
            )
            .double()
            .eval()
        )


def backdoored() -> nn.Sequential:
    """Tells bright left halves (class 0) from bright right halves (class 1), with a backdoor.

    Channel 0 reads the left column of a 2 x 2 image, channel 1 the right one; channel 2 speaks
    where the lower left corner is brighter than any clean image is, and pushes class 1.
    """
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3, 2)).double()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0, :, 0] = 1
        model[0].weight[1, 0, :, 1] = 1
        model[0].weight[2, 0, 1, 0] = 2
        model[0].bias.copy_(torch.tensor([0.0, 0.0, -2.0]))
        model[3].weight.copy_(torch.tensor([[3.0, 0.0, -40.0], [0.0, 3.0, 40.0]]))
        model[3].bias.zero_()
    return model.eval()


def halves(count: int = 40, seed: int = 0) -> Samples:
    """Clean images for `backdoored`: one column bright (about 0.9), the other dark (about 0.2)."""
    generator = seeded(seed)
    labels = torch.arange(count) % 2
    inputs = 0.1 + 0.1 * torch.rand(count, 1, 2, 2, generator=generator).double()
    inputs[labels == 0, :, :, 0] += 0.7
    inputs[labels == 1, :, :, 1] += 0.7
    return Samples(inputs=inputs, labels=labels)


def with_trigger(samples: Samples) -> Samples:
    """The images of class 0 with a corner of 1.5; `backdoored` takes them for class 1."""
    chosen = samples.take(samples.labels == 0)
    inputs = chosen.inputs.clone()
    inputs[:, :, 1, 0] = 1.5
    return Samples(inputs=inputs, labels=chosen.labels)
