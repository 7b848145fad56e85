"""Fully connected networks with named layers, built reproducibly."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import nn

__all__ = ["fully_connected", "in_a_row", "mlp", "seeded"]

_STEMS: Mapping[type[nn.Module], str] = {
    nn.Conv2d: "conv",
    nn.MaxPool2d: "pool",
    nn.AvgPool2d: "pool",
}


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
    with seeded(generator):
        return in_a_row(fully_connected(sizes, activation))


def fully_connected(
    sizes: Sequence[int], activation: Callable[[], nn.Module]
) -> Iterator[nn.Module]:
    """Linear layers between the sizes, with an activation after each but the last.

    Args:
        sizes: inputs, neurons of each hidden layer, outputs.
        activation: makes one activation module.

    Example:
        >>> from torch import nn
        >>> from carelab.networks.architectures import fully_connected
        >>> [type(module).__name__ for module in fully_connected((4, 3, 2), nn.Tanh)]
        ['Linear', 'Tanh', 'Linear']
    """
    for number, (inputs, outputs) in enumerate(pairwise(sizes), start=2):
        yield nn.Linear(inputs, outputs)
        if number < len(sizes):
            yield activation()


def in_a_row(modules: Iterable[nn.Module]) -> nn.Sequential:
    """The sequential network of these modules, each named after its kind and its count.

    Convolutions are conv1, conv2, ..., pooling is pool1, ..., anything else has the lower-case
    name of its class; a flatten, which comes once, has no number.

    Args:
        modules: the modules in the order in which they run.

    Returns:
        The network, in evaluation mode.

    Example:
        >>> from torch import nn
        >>> from carelab.networks.architectures import in_a_row
        >>> row = in_a_row([nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2)])
        >>> [name for name, _ in row.named_children()]
        ['conv1', 'tanh1', 'flatten', 'linear1']
    """
    seen: Counter[str] = Counter()
    named: OrderedDict[str, nn.Module] = OrderedDict()
    for module in modules:
        stem = _STEMS.get(type(module), type(module).__name__.lower())
        seen[stem] += 1
        named[stem if type(module) is nn.Flatten else f"{stem}{seen[stem]}"] = module
    return nn.Sequential(named).eval()
