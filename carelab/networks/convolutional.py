"""Convolutional networks with named layers, and the ones that papers on backdoors use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from carelab.networks.architectures import fully_connected, in_a_row, seeded
from carelab.networks.starts import initialise_

__all__ = ["PAPER_PLANS", "Plan", "check_image", "cnn", "conv_network", "paper_network"]

_STEP = re.compile(r"p|[cs][1-9][0-9]{0,5}")


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Plan:
    """The sizes of a convolutional network.

    Args:
        image: (channels, height, width) of one input.
        layers: the convolutions and poolings in order, as `conv_network` takes them.
        widths: neurons of each fully connected hidden layer.
        classes: number of outputs.
        kernel: side of the square convolution kernels.
    """

    image: tuple[int, int, int]
    layers: tuple[str, ...]
    widths: tuple[int, ...]
    classes: int
    kernel: int = 3


# CARE's networks, and one of this package for 8 x 8 digits.
PAPER_PLANS: Mapping[str, Plan] = {
    "nn4": Plan(
        image=(3, 32, 32),
        layers=("s32", "c32", "p", "s64", "c64", "p", "s128", "c128", "p"),
        widths=(512,),
        classes=43,
    ),
    "nn5": Plan(
        image=(1, 28, 28), layers=("s16", "p", "s32", "p"), widths=(512,), classes=10, kernel=5
    ),
    "nn6": Plan(
        image=(1, 28, 28), layers=("c32", "p", "c64", "p", "c128"), widths=(128,), classes=10
    ),
    "cifar": Plan(
        image=(3, 32, 32),
        layers=("c32", "c32", "p", "c64", "c64", "p"),
        widths=(512,),
        classes=10,
    ),
    "digits": Plan(image=(1, 8, 8), layers=("s16", "p", "s32", "p"), widths=(64,), classes=10),
}


def paper_network(
    name: str, *, activation: Callable[[], nn.Module] = nn.ReLU, generator: torch.Generator
) -> nn.Sequential:
    """A network of `PAPER_PLANS`, as `conv_network` builds it, that returns logits.

    "nn4" is for GTSRB, "nn5" for MNIST, "nn6" for Fashion-MNIST and "cifar" for CIFAR-10, as in
    the paper; "digits" is a small one of this package for scikit-learn's digits.

    Args:
        name: which one.
        activation: makes one activation module; the papers use ReLU.
        generator: draws the initial weights.

    Returns:
        The network, float32, on the CPU, in evaluation mode.

    Raises:
        ValueError: an unknown name.

    Source: CARE, networks NN4 to NN6 and that of CIFAR-10. Departs: the initial weights.

    Example:
        >>> import torch
        >>> from carelab.networks import paper_network
        >>> model = paper_network("digits", generator=torch.Generator().manual_seed(0))
        >>> model(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    if name not in PAPER_PLANS:
        raise ValueError(f"name: got {name!r}; allowed: {', '.join(PAPER_PLANS)}")
    plan = PAPER_PLANS[name]
    return conv_network(
        plan.image,
        plan.layers,
        plan.widths,
        plan.classes,
        kernel=plan.kernel,
        activation=activation,
        generator=generator,
    )


def conv_network(
    image: Sequence[int],
    plan: Sequence[str],
    widths: Sequence[int],
    classes: int,
    *,
    kernel: int = 3,
    activation: Callable[[], nn.Module] = nn.ReLU,
    generator: torch.Generator,
) -> nn.Sequential:
    """A convolutional network that returns logits.

    Its plan is a list such as ("c32", "c32", "p", "s64", "p"): cN is a convolution with N output
    channels that reads whole windows only, sN one that pads with zeros to keep the sides, both
    with the activation after them; p is max pooling by 2. Then come fully connected layers.
    Modules are named conv1, relu1, pool1, ..., flatten, linear1, ..., each kind counted by itself.
    The initial weights suit the activation (`networks.starts`): sigmoids learn too.

    Args:
        image: (channels, height, width) of one input, whose numbers are in [0, 1].
        plan: convolutions and poolings in order, at least one convolution.
        widths: neurons of each fully connected hidden layer; may be empty.
        classes: number of outputs.
        kernel: side of the square convolution kernels, odd.
        activation: makes one activation module.
        generator: draws the initial weights.

    Returns:
        The network, float32, on the CPU, in evaluation mode.

    Raises:
        ValueError: an image that is not (channels, height, width), a step of another form, an
            even kernel, a size below 1, or a map that has no pixel left.

    Example:
        >>> import torch
        >>> from carelab.networks import conv_network
        >>> g = torch.Generator().manual_seed(0)
        >>> model = conv_network((1, 8, 8), ("c4", "p"), (16,), 10, generator=g)
        >>> [name for name, _ in model.named_children()]
        ['conv1', 'relu1', 'pool1', 'flatten', 'linear1', 'relu2', 'linear2']
    """
    _check_plan(plan, widths, classes)
    with seeded(generator):
        network = in_a_row(_modules(image, plan, widths, classes, kernel, 2, activation))
        initialise_(network)
    return network


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
    """A small convolutional network that returns logits, with torch's default initial weights.

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
    if not channels or min([*channels, *widths, classes]) < 1:
        raise ValueError(
            f"channels, widths, classes: got {tuple(channels)}, {tuple(widths)}, {classes}; "
            "allowed: sizes of at least 1 and at least one block"
        )
    plan = [step for outputs in channels for step in (f"s{outputs}", "p")]
    with seeded(generator):
        return in_a_row(_modules(image, plan, widths, classes, kernel, pool, activation))


def check_image(image: Sequence[int]) -> None:
    """Raise a ValueError unless the image is (channels, height, width), each at least 1.

    Args:
        image: the sizes.

    Example:
        >>> from carelab.networks.convolutional import check_image
        >>> check_image((1, 8, 8))
    """
    if len(image) != 3 or min(image) < 1:
        raise ValueError(
            f"image: got {tuple(image)}; allowed: (channels, height, width), each at least 1"
        )


def _modules(
    image: Sequence[int],
    plan: Iterable[str],
    widths: Sequence[int],
    classes: int,
    kernel: int,
    pool: int,
    activation: Callable[[], nn.Module],
) -> Iterator[nn.Module]:
    """The modules of a convolutional network, in the order in which they run."""
    check_image(image)
    if kernel < 1 or kernel % 2 == 0 or pool < 1:
        raise ValueError(
            f"kernel, pool: got {kernel}, {pool}; allowed: an odd kernel, a pool of at least 1"
        )
    depth, *sides = image
    for step in plan:
        if step == "p":
            yield nn.MaxPool2d(pool)
            sides = [side // pool for side in sides]
        else:
            padding = kernel // 2 if step[0] == "s" else 0
            outputs = int(step[1:])
            yield nn.Conv2d(depth, outputs, kernel, padding=padding)
            yield activation()
            sides = [side + 2 * padding - kernel + 1 for side in sides]
            depth = outputs
        if min(sides) < 1:
            raise ValueError(
                f"image: got {tuple(image)}, of which {step} leaves no pixel; "
                "allowed: fewer steps, a smaller kernel or a larger image"
            )
    yield nn.Flatten()
    yield from fully_connected([depth * sides[0] * sides[1], *widths, classes], activation)


def _check_plan(plan: Sequence[str], widths: Sequence[int], classes: int) -> None:
    wrong = [step for step in plan if not _STEP.fullmatch(step)]
    if wrong or all(step == "p" for step in plan):
        raise ValueError(
            f"plan: got {tuple(plan)}; allowed: cN and sN, convolutions with N channels, at least "
            "one of them, and p, a pooling"
        )
    if min([*widths, classes]) < 1:
        raise ValueError(
            f"widths, classes: got {tuple(widths)}, {classes}; allowed: sizes of at least 1"
        )
