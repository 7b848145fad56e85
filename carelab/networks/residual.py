"""Residual networks: blocks that add something to what they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.networks.architectures import fully_connected, in_a_row, seeded
from carelab.networks.convolutional import check_image
from carelab.networks.starts import initialise_

__all__ = ["Residual", "residual_network"]


class Residual(nn.Module):
    """x + body(x).

    In a sequential network it counts as one module, whose inside is not taken apart: channel i of
    its output is channel i of what it was given, plus something.

    Args:
        body: modules whose output has the shape of their input.
    """

    def __init__(self, body: nn.Sequential) -> None:
        """Keep the body."""
        super().__init__()
        self.body = body

    def forward(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """What was given, plus what the body makes of it."""
        added = self.body(inputs)
        if added.shape != inputs.shape:
            raise ValueError(
                f"body: gives {tuple(added.shape[1:])} for {tuple(inputs.shape[1:])}; "
                "allowed: modules that keep the shape"
            )
        return inputs + added


def residual_network(
    image: Sequence[int],
    channels: Sequence[int],
    blocks: int,
    classes: int,
    *,
    widths: Sequence[int] = (128,),
    activation: Callable[[], nn.Module] = nn.ReLU,
    generator: torch.Generator,
) -> nn.Sequential:
    """A small residual network without normalisation that returns logits.

    One stage per entry of `channels`: a 3 x 3 convolution, the activation, then `blocks` times a
    `Residual` (convolution, activation, convolution) and the activation; max pooling by 2 between
    the stages, average pooling by 2 after the last. Then come fully connected layers, so that the
    last stage and they have units that plain weights read. Modules are named conv1, relu1,
    residual1, relu2, ..., pool1, ..., flatten, linear1, ...

    Args:
        image: (channels, height, width) of one input, whose numbers are in [0, 1].
        channels: output channels of each stage.
        blocks: residual blocks of each stage.
        classes: number of outputs.
        widths: neurons of each fully connected hidden layer; may be empty.
        activation: makes one activation module.
        generator: draws the initial weights.

    Returns:
        The network, float32, on the CPU, in evaluation mode.

    Raises:
        ValueError: an image that is not (channels, height, width), no stage, a size below 1, or
            more stages than the image has pixels.

    Source: He et al., CVPR 2016; without normalisation as Zhang et al., Fixup, ICLR 2019: what a
        block adds starts at 0. Departs: no further factors and biases; blocks with sigmoids start
        as plain layers.

    Example:
        >>> import torch
        >>> from carelab.networks import residual_network
        >>> g = torch.Generator().manual_seed(0)
        >>> model = residual_network((1, 8, 8), (4, 8), 1, 10, widths=(), generator=g)
        >>> [name for name, _ in model.named_children()][:6]
        ['conv1', 'relu1', 'residual1', 'relu2', 'pool1', 'conv2']
    """
    _check_sizes(image, channels, blocks, widths, classes)
    with seeded(generator):
        modules = _modules(image, channels, blocks, [*widths, classes], activation)
        network = in_a_row(modules)
        initialise_(network)
        for module in network:
            if isinstance(module, Residual):
                _initialise_body_(module.body)
    return network


def _modules(
    image: Sequence[int],
    channels: Sequence[int],
    blocks: int,
    sizes: Sequence[int],
    activation: Callable[[], nn.Module],
) -> Iterator[nn.Module]:
    """The modules of a residual network, in the order in which they run."""
    depth, height, width = image
    for stage, outputs in enumerate(channels, start=1):
        yield nn.Conv2d(depth, outputs, 3, padding=1)
        yield activation()
        for _ in range(blocks):
            first, second = (nn.Conv2d(outputs, outputs, 3, padding=1) for _ in range(2))
            yield Residual(in_a_row([first, activation(), second]))
            yield activation()
        yield nn.MaxPool2d(2) if stage < len(channels) else nn.AvgPool2d(2)
        depth, height, width = outputs, height // 2, width // 2
    yield nn.Flatten()
    yield from fully_connected([depth * height * width, *sizes], activation)


@torch.no_grad()
def _initialise_body_(body: nn.Sequential) -> None:
    first, activation, second = body
    assert isinstance(second, nn.Conv2d)
    assert second.bias is not None
    if isinstance(activation, nn.Sigmoid):
        # A sigmoid of what another one gave leaves a quarter of its spread: no signal would come
        # through several blocks that start as the identity. Here the body brings it all, and its
        # bias moves the middle of what it is added to, 1/2, to 0 as well.
        initialise_(nn.Sequential(first, activation, second, activation))
        second.bias -= 0.5
    else:
        initialise_(body)
        nn.init.zeros_(second.weight)
        nn.init.zeros_(second.bias)


def _check_sizes(
    image: Sequence[int],
    channels: Sequence[int],
    blocks: int,
    widths: Sequence[int],
    classes: int,
) -> None:
    check_image(image)
    if not channels or min([*channels, blocks, *widths, classes]) < 1:
        raise ValueError(
            f"channels, blocks, widths, classes: got {tuple(channels)}, {blocks}, "
            f"{tuple(widths)}, {classes}; allowed: sizes of at least 1 and at least one stage"
        )
    if min(image[1:]) // 2 ** len(channels) < 1:
        raise ValueError(
            f"image: got {tuple(image)}, which {len(channels)} poolings by 2 leave empty; "
            "allowed: fewer stages or a larger image"
        )
