"""Named layers of a sequential network: their order, their neurons, a split between two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import nn

from carelab.networks.residual import Residual
from carelab.records import Neuron

__all__ = [
    "ACTIVATIONS",
    "SILENT",
    "assemble",
    "feature_positions",
    "hidden_layers",
    "hidden_neurons",
    "ordered_modules",
    "pre_activation",
    "split",
    "width",
]

# Elementwise activations: each output number depends on the input number at its own place only.
ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Softsign,
    nn.Hardtanh,
    nn.Hardswish,
)

# In evaluation mode these pass everything on as it is.
SILENT = (nn.Identity, nn.Dropout, nn.Dropout2d)
# Modules after which position i of axis 1 still means what it meant before them.
_KEEPS_NEURONS = (
    *ACTIVATIONS,
    *SILENT,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    Residual,
)


def ordered_modules(model: nn.Module) -> tuple[tuple[str, nn.Module], ...]:
    """Name and module of each leaf of a sequential network, in the order in which they run.

    A `Residual` is one leaf: what runs inside it is not taken apart.

    Args:
        model: an ``nn.Sequential``, which may hold further ones.

    Returns:
        The leaves, with names as in ``model.named_modules()``; none for an empty network.

    Raises:
        ValueError: a module that is no plain sequence, or one module that runs twice.

    Example:
        >>> import torch
        >>> from carelab.networks import mlp, ordered_modules
        >>> model = mlp(4, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> [name for name, _ in ordered_modules(model)]
        ['linear1', 'relu1', 'linear2']
    """
    leaves = tuple(_leaves(model, ""))
    first: dict[nn.Module, str] = {}
    for name, module in leaves:
        if module in first:
            raise ValueError(
                f"model: {name} is the same module as {first[module]}, so the two have one name; "
                "allowed: a module of its own at each place, as networks.as_sequential makes it"
            )
        first[module] = name
    return leaves


def hidden_layers(model: nn.Module) -> tuple[str, ...]:
    """Names of the activations between the first and the last weight layer, in order.

    Their outputs are the post-activations of the hidden neurons. Weight layers are ``Linear``,
    ``Conv2d`` and `Residual`; activations are the elementwise ones in
    ``networks.layers.ACTIVATIONS``. What comes after the last weight layer, such as a softmax, is
    not hidden, and neither is the inside of a `Residual`.

    Args:
        model: a sequential network.

    Returns:
        The names; none for a network with fewer than two weight layers.

    Raises:
        ValueError: a network that is not sequential.

    Example:
        >>> import torch
        >>> from carelab.networks import hidden_layers, mlp
        >>> hidden_layers(mlp(4, (8, 3), 2, generator=torch.Generator().manual_seed(0)))
        ('relu1', 'relu2')
    """
    modules = ordered_modules(model)
    weights = [
        at
        for at, (_, module) in enumerate(modules)
        if _is_weight_layer(module) or isinstance(module, Residual)
    ]
    if not weights:
        return ()
    between = modules[weights[0] : weights[-1]]
    return tuple(name for name, module in between if isinstance(module, ACTIVATIONS))


def pre_activation(model: nn.Module, layer: str) -> str:
    """Name of the weight layer whose output the named activation takes.

    Args:
        model: a sequential network.
        layer: name of an activation.

    Returns:
        The name of the ``Linear`` or ``Conv2d`` right before it, dropout aside.

    Raises:
        ValueError: an unknown layer, one that is no activation, or one that takes the output of
            something else (a normalisation, a pooling, a `Residual`).

    Example:
        >>> import torch
        >>> from carelab.networks import mlp, pre_activation
        >>> pre_activation(mlp(4, (3,), 2, generator=torch.Generator().manual_seed(0)), "relu1")
        'linear1'
    """
    modules = ordered_modules(model)
    at = _position(modules, layer)
    if not isinstance(modules[at][1], ACTIVATIONS):
        known = ", ".join(name for name, module in modules if isinstance(module, ACTIVATIONS))
        raise ValueError(f"layer: got {layer!r}, which is no activation; allowed: {known}")
    before = [pair for pair in modules[:at] if not isinstance(pair[1], SILENT)]
    if before and _is_weight_layer(before[-1][1]):
        return before[-1][0]
    source = f"the output of {before[-1][0]}" if before else "the inputs"
    raise ValueError(
        f"layer: got {layer!r}, which takes {source}; "
        "allowed: an activation right after a Linear or a Conv2d"
    )


def width(model: nn.Module, layer: str) -> int:
    """Number of neurons at a module: the size of axis 1 of its output.

    Args:
        model: a sequential network.
        layer: name of a weight layer, or of a module after one that keeps its neurons apart
            (activation, pooling, dropout, batch normalisation, `Residual`).

    Returns:
        Output features of a ``Linear``, output channels of a ``Conv2d``.

    Raises:
        ValueError: an unknown layer, one before every weight layer, or one behind a module that
            mixes or renames neurons, such as a flatten.

    Example:
        >>> import torch
        >>> from carelab.networks import mlp, width
        >>> width(mlp(4, (8, 3), 2, generator=torch.Generator().manual_seed(0)), "relu2")
        3
    """
    modules = ordered_modules(model)
    for name, module in reversed(modules[: _position(modules, layer) + 1]):
        if isinstance(module, nn.Linear | nn.Conv2d):
            return module.weight.shape[0]
        if not isinstance(module, _KEEPS_NEURONS):
            raise ValueError(
                f"layer: got {layer!r}, whose neurons cannot be counted because {name} "
                f"({type(module).__name__}) does not keep those of the weight layer before it; "
                "allowed: weight layers, and activations, pooling and dropout right after them"
            )
    raise ValueError(f"layer: got {layer!r}, before which there is no weight layer; it has none")


def hidden_neurons(model: nn.Module, *, layers: Sequence[str] | None = None) -> tuple[Neuron, ...]:
    """All neurons of the hidden layers, layer by layer.

    Args:
        model: a sequential network.
        layers: names of the modules whose neurons are wanted; by default `hidden_layers`, that is
            every hidden neuron once, post-activation.

    Raises:
        ValueError: an unknown layer, or one whose neurons cannot be counted.

    Example:
        >>> import torch
        >>> from carelab.networks import hidden_neurons, mlp
        >>> model = mlp(4, (2,), 2, generator=torch.Generator().manual_seed(0))
        >>> [str(neuron) for neuron in hidden_neurons(model)]
        ['relu1[0]', 'relu1[1]']
    """
    chosen = hidden_layers(model) if layers is None else layers
    return tuple(Neuron(layer, index) for layer in chosen for index in range(width(model, layer)))


def feature_positions(
    model: nn.Module, layer: str, input_shape: Sequence[int]
) -> tuple[Neuron, ...]:
    """Every number of a feature map as a unit of its own: channel by channel, row by row.

    Args:
        model: a sequential network in evaluation mode.
        layer: name of a module that gives a feature map.
        input_shape: shape of one input (channels, height, width).

    Returns:
        channels x height x width neurons with a position each.

    Raises:
        ValueError: an unknown layer, one whose output is no feature map, or a network that is
            not sequential.

    Example:
        >>> import torch
        >>> from carelab.networks import cnn, feature_positions
        >>> model = cnn((1, 8, 8), (4,), (), 3, generator=torch.Generator().manual_seed(0))
        >>> positions = feature_positions(model, "pool1", (1, 8, 8))
        >>> len(positions), str(positions[-1])
        (64, 'pool1[3, 3, 3]')
    """
    like = next(model.parameters())
    with torch.no_grad():
        output = split(model, layer)[0](like.new_zeros(1, *input_shape))
    if output.ndim < 3:
        raise ValueError(
            f"layer: got {layer!r}, which gives {tuple(output.shape[1:])}; "
            "allowed: a layer that gives channels with positions"
        )
    channels, *sides = output.shape[1:]
    return tuple(
        Neuron(layer, channel, position)
        for channel in range(channels)
        for position in product(*map(range, sides))
    )


def split(model: nn.Module, layer: str) -> tuple[nn.Sequential, nn.Sequential]:
    """The network up to and including a module, and what follows: suffix(prefix(x)) = model(x).

    Args:
        model: a sequential network.
        layer: name of the module after which it is cut.

    Returns:
        Prefix and suffix, which share their modules with the network and keep their names; the
        suffix of the last module is empty and passes everything on.

    Raises:
        ValueError: an unknown layer, or a network that is not sequential.

    Example:
        >>> import torch
        >>> from carelab.networks import mlp, split
        >>> prefix, suffix = split(mlp(4, (3,), 2, generator=torch.Generator()), "relu1")
        >>> [name for name, _ in prefix.named_children()], suffix.linear2.in_features
        (['linear1', 'relu1'], 3)
    """
    modules = ordered_modules(model)
    cut = _position(modules, layer) + 1
    return (
        assemble(modules[:cut], training=model.training),
        assemble(modules[cut:], training=model.training),
    )


def assemble(modules: Sequence[tuple[str, nn.Module]], *, training: bool = False) -> nn.Sequential:
    """The sequential network with these leaves; the inverse of `ordered_modules`.

    Args:
        modules: name and module of each leaf, in order; a dotted name nests.
        training: the mode of the containers; that of the leaves is left alone.

    Raises:
        ValueError: a name that no module can have, a repeated one, or names whose nesting is not
            in order.

    Example:
        >>> from torch import nn
        >>> from carelab.networks.layers import assemble
        >>> assemble([("body.flat", nn.Flatten()), ("head", nn.Linear(4, 2))])[0].flat
        Flatten(start_dim=1, end_dim=-1)
    """
    network = nn.Sequential()
    network.training = training
    try:
        for name, module in modules:
            *path, leaf = name.split(".")
            container = network
            for part in path:
                if part not in container._modules:
                    container.add_module(part, nn.Sequential())
                inner = container._modules[part]
                if type(inner) is not nn.Sequential:
                    raise KeyError(f"{part} in {name} is a leaf")
                container = inner
                container.training = training
            if leaf in container._modules:
                raise KeyError(f"{name} comes twice")
            container.add_module(leaf, module)
    except (AttributeError, KeyError) as error:
        raise ValueError(f"modules: names cannot be nested: {error.args[0]}") from None
    found = [name for name, _ in _leaves(network, "")]
    if found != [name for name, _ in modules]:
        raise ValueError(f"modules: names would run in another order: {', '.join(found)}")
    return network


def _leaves(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    if type(module).forward is not nn.Sequential.forward:
        place = f"{path} ({type(module).__name__})" if path else type(module).__name__
        raise ValueError(
            f"model: got {place}; only sequential networks can be taken apart; "
            "networks.as_sequential turns a chain of modules into one"
        )
    # Not named_children(), which leaves out a module that comes a second time.
    for name, child in module._modules.items():
        full = f"{path}.{name}" if path else name
        if child is None:
            continue
        if not isinstance(child, Residual) and (isinstance(child, nn.Sequential) or child._modules):
            yield from _leaves(child, full)
        else:
            yield full, child


def _position(modules: Sequence[tuple[str, nn.Module]], layer: str) -> int:
    names = [name for name, _ in modules]
    if layer not in names:
        raise ValueError(f"layer: got {layer!r}; allowed: {', '.join(names)}")
    return names.index(layer)


def _is_weight_layer(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d)
