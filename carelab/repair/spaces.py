"""What a search may change: factors, incoming rows or outgoing columns of the guilty neurons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.networks import ordered_modules, pre_activation
from carelab.records import Neuron
from carelab.repair.edits import outgoing_columns

__all__ = ["EditSpace", "factor_space", "revive", "weight_space"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class EditSpace:
    """The vectors that a search moves in, and the weights that each stands for.

    Args:
        neurons: the neurons that may change.
        start: the vector of the network as it is (size).
        scale: a typical step along each axis (size).
        low: smallest value of every coordinate, or None without bounds.
        high: largest value of every coordinate, or None without bounds.
        parameters: the changed parameters, by name, of one vector; differentiable.
    """

    neurons: tuple[Neuron, ...]
    start: Float[Tensor, " size"]
    scale: Float[Tensor, " size"]
    low: float | None
    high: float | None
    parameters: Callable[[Tensor], Mapping[str, Tensor]]


def factor_space(
    model: nn.Module, neurons: Sequence[Neuron], *, low: float = 0.0, high: float = 2.0
) -> EditSpace:
    """One factor a neuron on its outgoing weights: CARE's edit, as a space to search in.

    Args:
        model: a sequential network.
        neurons: the neurons, post-activation, each once.
        low: smallest factor.
        high: largest factor.

    Raises:
        ValueError: no neuron, a repeated or unknown one, or bounds that do not hold 1.

    Source: CARE, section 3.3.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> space = repair.factor_space(model, networks.hidden_neurons(model)[:2])
        >>> space.parameters(torch.zeros(2))["linear2.weight"][:, :2].abs().sum().item()
        0.0
    """
    _check(neurons)
    if not low <= 1 <= high or low == high:
        raise ValueError(f"low, high: got {low}, {high}; allowed: an interval that holds 1")
    columns = {row: outgoing_columns(model, neuron) for row, neuron in enumerate(neurons)}
    kept = {name: model.get_parameter(name).detach().clone() for name, _ in columns.values()}

    def parameters(vector: Tensor) -> Mapping[str, Tensor]:
        scales = {name: torch.ones_like(weight[0]) for name, weight in kept.items()}
        for row, (name, indices) in columns.items():
            place = torch.zeros_like(scales[name])
            place[indices] = 1
            scales[name] = scales[name] + (vector[row] - 1) * place
        return {name: weight * scales[name] for name, weight in kept.items()}

    ones = torch.ones(len(neurons))
    return EditSpace(
        neurons=tuple(neurons),
        start=ones,
        scale=0.25 * (high - low) * ones,
        low=low,
        high=high,
        parameters=parameters,
    )


def weight_space(
    model: nn.Module,
    neurons: Sequence[Neuron],
    *,
    incoming: bool = True,
    outgoing: bool = True,
    fixed_inputs: Sequence[int] = (),
) -> EditSpace:
    """The weights of the neurons themselves: incoming rows with bias, outgoing columns, or both.

    Args:
        model: a sequential network.
        neurons: the neurons, post-activation, each once.
        incoming: rows and biases of the weight layer before each neuron may change.
        outgoing: columns of the weight layer after it may change.
        fixed_inputs: input columns of the network whose weights stay as they are.

    Raises:
        ValueError: no neuron, a repeated or unknown one, or neither incoming nor outgoing.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> len(repair.weight_space(model, networks.hidden_neurons(model)[:2]).start)
        10
    """
    _check(neurons)
    if not incoming and not outgoing:
        raise ValueError("incoming, outgoing: got neither; allowed: at least one of them")
    masks = _masks(model, neurons, incoming, outgoing)
    first = next(f"{name}.weight" for name, module in ordered_modules(model) if _is_linear(module))
    if first in masks:
        masks[first][:, list(fixed_inputs)] = False
    kept = {name: model.get_parameter(name).detach().clone() for name in masks}
    places = {name: mask.flatten().nonzero().squeeze(1) for name, mask in masks.items()}
    sizes = [len(place) for place in places.values()]
    spread = [
        kept[name].std(correction=0).clamp(min=1e-3).expand(len(places[name])) for name in kept
    ]

    def parameters(vector: Tensor) -> Mapping[str, Tensor]:
        return {
            name: kept[name].flatten().scatter(0, places[name], part).view_as(kept[name])
            for name, part in zip(kept, vector.split(sizes), strict=True)
        }

    return EditSpace(
        neurons=tuple(neurons),
        start=torch.cat([kept[name].flatten()[places[name]] for name in kept]),
        scale=torch.cat(spread),
        low=None,
        high=None,
        parameters=parameters,
    )


def revive(
    model: nn.Module,
    neurons: Sequence[Neuron],
    inputs: Float[Tensor, "batch features"],
    *,
    generator: torch.Generator,
) -> Mapping[str, Tensor]:
    """New incoming rows for those of the neurons that never fire, the network's function kept.

    A dead ReLU has no gradient, and no factor brings it back. Its outgoing column is set to zero
    and its incoming row drawn anew, centred on the inputs, so that a search can put it to use.

    Args:
        model: a sequential network of linear layers, in evaluation mode.
        neurons: the neurons, post-activation; those that fire are left alone.
        inputs: inputs on which a neuron counts as dead if its output never changes.
        generator: draws the rows.

    Returns:
        The changed parameters by name, to be loaded before the search.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> g = torch.Generator().manual_seed(0)
        >>> model = networks.mlp(2, (3,), 2, generator=g)
        >>> repair.revive(model, networks.hidden_neurons(model), torch.randn(99, 2, generator=g),
        ...               generator=g)
        {}
    """
    changed: dict[str, Tensor] = {}
    hidden = inputs
    for name, module in ordered_modules(model):
        source, hidden = hidden, module(hidden).detach()
        here = [neuron for neuron in neurons if neuron.layer == name]
        if not here or source.ndim != 2:
            continue
        weights = pre_activation(model, name)
        layer = model.get_submodule(weights)
        assert isinstance(layer, nn.Linear)
        before = _inputs_of(model, weights, inputs)
        for neuron in here:
            if float(hidden[:, neuron.index].std()) > 0:
                continue
            row = torch.randn(layer.in_features, generator=generator).to(layer.weight)
            response = before @ row
            # A row as strong as those of the layer's other neurons.
            row = row * source.std() / response.std().clamp(min=1e-6)
            weight = changed.setdefault(f"{weights}.weight", layer.weight.detach().clone())
            weight[neuron.index] = row
            if layer.bias is not None:
                bias = changed.setdefault(f"{weights}.bias", layer.bias.detach().clone())
                bias[neuron.index] = -(before @ row).mean()
            after, columns = outgoing_columns(model, neuron)
            column = changed.setdefault(after, model.get_parameter(after).detach().clone())
            column[:, columns] = 0
    return changed


def _inputs_of(model: nn.Module, layer: str, inputs: Tensor) -> Tensor:
    """What the named layer takes in."""
    hidden = inputs
    for name, module in ordered_modules(model):
        if name == layer:
            break
        hidden = module(hidden).detach()
    return hidden


def _masks(
    model: nn.Module, neurons: Sequence[Neuron], incoming: bool, outgoing: bool
) -> dict[str, Tensor]:
    """Which entries of which parameters belong to the neurons."""
    masks: dict[str, Tensor] = {}

    def mask(name: str) -> Tensor:
        like = model.get_parameter(name)
        return masks.setdefault(name, torch.zeros_like(like, dtype=torch.bool))

    for neuron in neurons:
        name, columns = outgoing_columns(model, neuron)  # raises where there is no such neuron
        if incoming:
            layer = pre_activation(model, neuron.layer)
            mask(f"{layer}.weight")[neuron.index] = True
            if getattr(model.get_submodule(layer), "bias", None) is not None:
                mask(f"{layer}.bias")[neuron.index] = True
        if outgoing:
            mask(name)[:, columns] = True
    return masks


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d)


def _check(neurons: Sequence[Neuron]) -> None:
    if not neurons or len(set(neurons)) < len(neurons):
        raise ValueError(f"neurons: got {len(neurons)}; allowed: at least one, and each only once")
