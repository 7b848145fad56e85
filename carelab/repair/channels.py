"""Neurons and channels taken out of a network: weights at zero, or layers made narrower."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy

import torch
from torch import Tensor, nn

from carelab.networks import accuracy, hidden_layers, pre_activation
from carelab.records import Neuron, Samples
from carelab.repair.edits import outgoing_columns

__all__ = ["cut_out", "keeps_accuracy", "prunable_layers", "prune_neurons", "put_back"]

# Accuracies are fractions of whole samples: a smaller difference is rounding.
_ROUNDING = 1e-9


def prunable_layers(model: nn.Module) -> tuple[str, ...]:
    """Names of the hidden layers whose neurons can be taken out one by one, in order.

    These are the activations right after a ``Linear`` or ``Conv2d`` whose outputs reach another
    one through pooling, dropout and flatten only: each neuron then owns rows of the one and
    columns of the other.

    Args:
        model: a sequential network.

    Returns:
        The names; none where nothing can be taken out.

    Raises:
        ValueError: a network that is not sequential.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.repair.channels import prunable_layers
        >>> model = networks.cnn((1, 8, 8), (4,), (5,), 3, generator=torch.Generator())
        >>> prunable_layers(model)
        ('relu1', 'relu2')
    """
    layers = []
    for layer in hidden_layers(model):
        with suppress(ValueError):
            _places(model, [Neuron(layer, 0)])
            layers.append(layer)
    return tuple(layers)


def prune_neurons(model: nn.Module, neurons: Sequence[Neuron]) -> nn.Module:
    """A copy of the network in which the neurons are gone: h = 0 for all that follows.

    Incoming rows, biases and outgoing columns are set to zero, so that the copy is an ordinary
    network of the same shape, whatever the activation does at 0.

    Args:
        model: a sequential network; it is not changed.
        neurons: neurons or whole channels of activations; none leave the network as it is.

    Raises:
        ValueError: a neuron that the network does not have, that comes twice, that is one
            position of a channel, or whose layer is not among `prunable_layers`.

    Source: Liu et al., RAID 2018, section 3.1 (there the neuron's output is removed).

    Example:
        >>> import torch
        >>> from carelab import networks, records, repair
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> pruned = repair.prune_neurons(model, [records.Neuron("relu1", 2)])
        >>> pruned.linear1.bias[2].item(), pruned.linear2.weight[:, 2].tolist()
        (0.0, [0.0, 0.0])
    """
    pruned = deepcopy(model)
    with torch.no_grad():
        for (name, axis), indices in _places(model, neurons).items():
            weight = pruned.get_parameter(name)
            weight.index_fill_(axis, torch.tensor(indices, device=weight.device), 0)
    return pruned


def cut_out(model: nn.Module, neurons: Sequence[Neuron]) -> nn.Module:
    """The smaller network without the neurons: it computes what `prune_neurons` leaves.

    To train it trains the pruned network, and nothing can grow back: `put_back` then gives the
    weights their old places.

    Args:
        model: a sequential network; it is not changed.
        neurons: neurons or whole channels of activations, at most all but one of a layer.

    Raises:
        ValueError: as for `prune_neurons`, or a layer that would be left empty.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> from carelab.repair.channels import cut_out
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> cut_out(model, [records.Neuron("relu1", 2)]).linear2
        Linear(in_features=2, out_features=2, bias=True)
    """
    smaller = deepcopy(model)
    for (name, axis), indices in _places(model, neurons).items():
        path, _, attribute = name.rpartition(".")
        layer, weight = smaller.get_submodule(path), smaller.get_parameter(name)
        kept = torch.ones(weight.shape[axis], dtype=torch.bool)
        kept[indices] = False
        if not kept.any():
            raise ValueError(
                f"neurons: got every neuron that {name} serves; allowed: all but one of a layer"
            )
        rows = kept.nonzero().squeeze(1).to(weight.device)
        narrow = nn.Parameter(weight.detach().index_select(axis, rows), weight.requires_grad)
        setattr(layer, attribute, narrow)
        if isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = layer.weight.shape
        elif isinstance(layer, nn.Conv2d):
            layer.out_channels, layer.in_channels = layer.weight.shape[:2]
    return smaller


def put_back(model: nn.Module, smaller: nn.Module, neurons: Sequence[Neuron]) -> nn.Module:
    """The weights of the smaller network at their places in the larger one, zeros elsewhere.

    Args:
        model: the network that the neurons were cut out of; it is not changed.
        smaller: what `cut_out` made of it, trained since or not.
        neurons: the neurons that were cut out.

    Raises:
        ValueError: a network of another layout than `cut_out` makes.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> from carelab.repair.channels import cut_out, put_back
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> gone = [records.Neuron("relu1", 2)]
        >>> put_back(model, cut_out(model, gone), gone).linear2.weight[:, 2].tolist()
        [0.0, 0.0]
    """
    restored = deepcopy(model)
    own, given = restored.state_dict(), smaller.state_dict()
    kept = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in own.items()}
    for (name, axis), indices in _places(model, neurons).items():
        kept[name].index_fill_(axis, torch.tensor(indices, device=kept[name].device), False)
    wanted = {name: int(mask.sum()) for name, mask in kept.items()}
    if {name: tensor.numel() for name, tensor in given.items()} != wanted:
        raise ValueError(
            "smaller: has other weights than the network without the neurons; "
            "allowed: what cut_out makes of the same model and neurons"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.masked_fill_(~kept[name], 0).masked_scatter_(kept[name], given[name])
    return restored


def keeps_accuracy(
    model: nn.Module, candidates: Iterable[nn.Module], selection: Samples, *, most_drop: float
) -> Iterator[bool]:
    """Whether accuracy(candidate) >= accuracy(model) - most_drop, one candidate after another.

    Args:
        model: the network as it is.
        candidates: pruned networks; each is asked for when its answer is, so that one that is
            pruned further in place will do.
        selection: labelled clean samples that only choose; never test rows.
        most_drop: accuracy that may be lost, as a fraction of the samples.

    Yields:
        One answer a candidate.

    Raises:
        ValueError: a `most_drop` outside [0, 1], or samples without labels.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> from carelab.repair.channels import keeps_accuracy
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> rows = records.Samples(inputs=torch.rand(9, 2), labels=torch.zeros(9).long())
        >>> list(keeps_accuracy(model, [model, model], rows, most_drop=0.0))
        [True, True]
    """
    if not 0 <= most_drop <= 1:
        raise ValueError(f"most_drop: got {most_drop}; allowed: a fraction in [0, 1]")
    least = accuracy(model, selection) - most_drop - _ROUNDING
    for candidate in candidates:
        yield accuracy(candidate, selection) >= least


def _places(model: nn.Module, neurons: Sequence[Neuron]) -> dict[tuple[str, int], list[int]]:
    """(parameter, axis) and the slices there that belong to the neurons."""
    if len(set(neurons)) < len(neurons):
        raise ValueError("neurons: got one of them twice; allowed: each neuron once")
    places: dict[tuple[str, int], list[int]] = {}
    for neuron in neurons:
        if neuron.position:
            raise ValueError(
                f"neurons: got {neuron}, one position of a channel, whose weights serve them all; "
                f"allowed: the whole channel, {Neuron(neuron.layer, neuron.index)}"
            )
        after, columns = outgoing_columns(model, neuron)
        before = pre_activation(model, neuron.layer)
        for layer in (before, after.removesuffix(".weight")):
            if getattr(model.get_submodule(layer), "groups", 1) != 1:
                raise ValueError(
                    f"neurons: got {neuron} beside {layer}, a convolution in groups; "
                    "allowed: convolutions that read all channels"
                )
        places.setdefault((f"{before}.weight", 0), []).append(neuron.index)
        bias: Tensor | None = getattr(model.get_submodule(before), "bias", None)
        if bias is not None:
            places.setdefault((f"{before}.bias", 0), []).append(neuron.index)
        places.setdefault((after, 1), []).extend(columns)
    return places
