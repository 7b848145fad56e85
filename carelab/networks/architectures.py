"""Small architectures with named layers, built reproducibly."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import nn

__all__ = ["cnn", "mlp", "seeded"]


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Let layer constructors, which ignore generators, draw from `generator`.

    The global random state is forked, seeded from the generator, and put back at the end.

    Args:
        generator: source of the seed; it advances by one draw.

    Example:
        >>> import torch
        >>> from carelab.networks import seeded
        >>> with seeded(torch.Generator().manual_seed(0)):
        ...     layer = torch.nn.Linear(2, 3)
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    # Seeding reaches the states of all GPUs in use, so these are put back too.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else range(0)
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def mlp(
    features: int,
    widths: Sequence[int],
    classes: int,
    *,
    activation: Callable[[], nn.Module] = nn.ReLU,
    generator: torch.Generator,
) -> nn.Sequential:
    """A fully connected network, features - widths - classes, that returns logits.

    Its modules are named linear1, relu1, ..., linearN (N = hidden layers + 1), where "relu" is
    the lower-case name of the activation's class.

    Args:
        features: number of inputs.
        widths: neurons of each hidden layer, at least one layer.
        classes: number of outputs.
        activation: makes one activation module.
        generator: draws the initial weights.

    Returns:
        The network, float32, on the CPU, in evaluation mode.

    Raises:
        ValueError: a size below 1, or no hidden layer.

    Example:
        >>> import torch
        >>> from carelab.networks import mlp
        >>> model = mlp(4, (8, 3), 2, generator=torch.Generator().manual_seed(0))
        >>> [name for name, _ in model.named_children()]
        ['linear1', 'relu1', 'linear2', 'relu2', 'linear3']
    """
    sizes = [features, *widths, classes]
    if not widths or min(sizes) < 1:
        raise ValueError(
            f"features, widths, classes: got {features}, {tuple(widths)}, {classes}; "
            "allowed: sizes of at least 1 and at least one hidden layer"
        )
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    with seeded(generator):
        for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
            modules[f"linear{number}"] = nn.Linear(inputs, outputs)
            if number <= len(widths):
                unit = activation()
                modules[f"{type(unit).__name__.lower()}{number}"] = unit
    return nn.Sequential(modules).eval()


def cnn(
    image: Sequence[int],
    channels: Sequence[int],
    widths: Sequence[int],
    classes: int,
    *,
    kernel: int = 3,
    pool: int = 2,
    activation: Callable[[], nn.Module] = nn.ReLU,
    generator: torch.Generator,
) -> nn.Sequential:
    """A small convolutional network that returns logits.

    One block per entry of `channels`: a same-padded convolution, the activation, max pooling;
    then the flattened map through fully connected layers. Modules are named conv1, relu1, pool1,
    ..., flatten, linear1, ... with activations numbered by depth.

    Args:
        image: (channels, height, width) of one input.
        channels: output channels of each block.
        widths: neurons of each fully connected hidden layer; may be empty.
        classes: number of outputs.
        kernel: side of the square convolution kernel, odd.
        pool: side and stride of the pooling window.
        activation: makes one activation module.
        generator: draws the initial weights.

    Returns:
        The network, float32, on the CPU, in evaluation mode.

    Raises:
        ValueError: an image that is not (channels, height, width), an even kernel, no block, or
            more pooling than the image has pixels.

    Example:
        >>> import torch
        >>> from carelab.networks import cnn
        >>> model = cnn((1, 8, 8), (4,), (16,), 10, generator=torch.Generator().manual_seed(0))
        >>> model(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    _check_sizes(image, channels, widths, classes, kernel, pool)
    depth, height, width = image
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    with seeded(generator):
        for number, outputs in enumerate(channels, start=1):
            modules[f"conv{number}"] = nn.Conv2d(depth, outputs, kernel, padding=kernel // 2)
            unit = activation()
            modules[f"{type(unit).__name__.lower()}{number}"] = unit
            modules[f"pool{number}"] = nn.MaxPool2d(pool)
            depth, height, width = outputs, height // pool, width // pool
        modules["flatten"] = nn.Flatten()
        sizes = [depth * height * width, *widths, classes]
        for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
            modules[f"linear{number}"] = nn.Linear(inputs, outputs)
            if number <= len(widths):
                unit = activation()
                name = type(unit).__name__.lower()
                modules[f"{name}{len(channels) + number}"] = unit
    return nn.Sequential(modules).eval()


def _check_sizes(
    image: Sequence[int],
    channels: Sequence[int],
    widths: Sequence[int],
    classes: int,
    kernel: int,
    pool: int,
) -> None:
    if len(image) != 3 or min(image) < 1:
        raise ValueError(
            f"image: got {tuple(image)}; allowed: (channels, height, width), each at least 1"
        )
    if not channels or min([*channels, *widths, classes]) < 1:
        raise ValueError(
            f"channels, widths, classes: got {tuple(channels)}, {tuple(widths)}, {classes}; "
            "allowed: sizes of at least 1 and at least one block"
        )
    if kernel < 1 or kernel % 2 == 0 or pool < 1:
        raise ValueError(
            f"kernel, pool: got {kernel}, {pool}; allowed: an odd kernel, a pool of at least 1"
        )
    if min(image[1:]) // pool ** len(channels) < 1:
        raise ValueError(
            f"image: got {tuple(image)}, which {len(channels)} poolings by {pool} leave empty; "
            "allowed: fewer blocks, a smaller pool or a larger image"
        )
