"""Factors on guilty neurons, written into the weights; applied again or undone bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.networks import fingerprint, ordered_modules
from carelab.records import Edit, Neuron, Performance, Repair

__all__ = [
    "apply_repair",
    "edits_between",
    "outgoing_columns",
    "scale_neurons",
    "scaled_repair",
    "undo_repair",
]

# Modules between an activation and the next weight layer through which a factor passes: those
# that treat every number alike, and those that only pass a factor that is not negative.
_TRANSPARENT = (nn.Flatten, nn.Dropout, nn.Identity, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_MONOTONE = (nn.MaxPool2d, nn.AdaptiveMaxPool2d)


def scale_neurons(
    model: nn.Module, neurons: Sequence[Neuron], factors: Float[Tensor, " neurons"]
) -> tuple[nn.Module, tuple[Edit, ...]]:
    """A copy of the network in which each neuron h became factor x h, as ordinary weights.

    A pre-activation (a neuron of a weight layer) is scaled by its incoming weights and its bias;
    a post-activation by its outgoing weights, which is exact for every activation and sign.

    Args:
        model: the network; it is not changed.
        neurons: the neurons, each once.
        factors: the factor of each.

    Returns:
        The scaled copy, and the edits that lead to it.

    Raises:
        ValueError: an unknown or repeated neuron, a factor that is not finite, or one that cannot
            be written into the weights (negative before max pooling, or a module in between that
            does not let factors pass).

    Source: CARE, section 3.3.

    Example:
        >>> import torch
        >>> from carelab import networks, records, repair
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> silent, edits = repair.scale_neurons(
        ...     model, [records.Neuron("relu1", 0)], torch.zeros(1))
        >>> edits[0].parameter, edits[0].axis, edits[0].indices
        ('linear2.weight', 1, (0,))
    """
    if len(neurons) != len(factors) or len(set(neurons)) < len(neurons):
        raise ValueError(
            f"neurons, factors: got {len(set(neurons))} different neurons and {len(factors)} "
            "factors; allowed: one factor a neuron, each neuron once"
        )
    if not torch.isfinite(factors).all():
        raise ValueError("factors: got one that is not finite; allowed: finite numbers")
    scaled = deepcopy(model)
    edits: list[Edit] = []
    for layer in dict.fromkeys(neuron.layer for neuron in neurons):
        rows = [row for row, neuron in enumerate(neurons) if neuron.layer == layer]
        indices = [neurons[row].index for row in rows]
        for parameter, axis, slices, repeat in _targets(scaled, layer, indices, factors[rows]):
            weight = scaled.get_parameter(parameter)
            factor = factors[rows].repeat_interleave(repeat).to(weight)
            shape = [1] * weight.ndim
            shape[axis] = len(slices)
            picked = torch.tensor(slices, device=weight.device)
            before = weight.detach().index_select(axis, picked)
            edit = Edit(
                parameter=parameter,
                axis=axis,
                indices=tuple(slices),
                before=before.cpu(),
                after=(before * factor.reshape(shape)).cpu(),
            )
            _write(scaled, edit, edit.after)
            edits.append(edit)
    return scaled, tuple(edits)


def scaled_repair(
    model: nn.Module,
    neurons: Sequence[Neuron],
    factors: Float[Tensor, " neurons"],
    performance: Callable[[nn.Module], Performance],
    *,
    property_name: str,
    method: str,
    history: Float[Tensor, " iterations"] | None = None,
    started: float | None = None,
    seed: int = 0,
) -> Repair:
    """The record of factors written into the weights, with how the network does before and after.

    Args:
        model: a sequential network; it is not changed.
        neurons: the neurons whose activations are scaled, each once.
        factors: the factor of each.
        performance: how a network does.
        property_name: name of the property.
        method: the name that the record carries.
        history: best cost after each iteration of the search; none where nothing was searched.
        started: `time.perf_counter()` when the work on the repair began, or None: it took no time.
        seed: initial seed of the generator that drove the search.

    Raises:
        ValueError: factors that cannot be written into the weights, as for `scale_neurons`.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.repair.edits import scaled_repair
        >>> g, one = torch.Generator().manual_seed(0), cl.records.Neuron("relu1", 0)
        >>> model, done = cl.networks.mlp(2, (3,), 2, generator=g), cl.records.Performance
        >>> scaled_repair(model, [one], torch.zeros(1), property_name="a", method="b",
        ...     performance=lambda network: done(accuracy=1.0, violation_rate=0.0)).status
        'improved'
    """
    repaired, edits = scale_neurons(model, neurons, factors)
    return Repair(
        method=method,
        property_name=property_name,
        neurons=tuple(neurons),
        factors=factors,
        before=performance(model),
        after=performance(repaired),
        history=torch.zeros(0, dtype=torch.float64) if history is None else history,
        seconds=0.0 if started is None else time.perf_counter() - started,
        seed=seed,
        network=fingerprint(model),
        repaired=fingerprint(repaired),
        edits=edits,
        status="improved" if bool((factors != 1).any()) else "unchanged",
    )


def apply_repair(model: nn.Module, repair: Repair) -> nn.Module:
    """The repaired network: a copy of the original with the repair's edits written into it.

    Args:
        model: the network that the repair was made for; it is not changed.
        repair: the repair.

    Raises:
        ValueError: the network is another one than the repair was made for, or the repair does
            not lead to the network that it names.

    Example:
        >>> import torch, carelab as cl
        >>> g, one = torch.Generator().manual_seed(0), cl.records.Neuron("relu1", 0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> model = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> fixed = cl.repair.care(model, table.train, table.train, fair, [one], generator=g)
        >>> repaired = cl.repair.apply_repair(model, fixed)
    """
    _check_network(model, repair.network, "the network this repair was made for")
    repaired = deepcopy(model)
    for edit in repair.edits:
        _write(repaired, edit, edit.after)
    _check_network(repaired, repair.repaired, "edits that lead to the repaired network")
    return repaired


def undo_repair(model: nn.Module, repair: Repair) -> nn.Module:
    """The original network, bit for bit, from the repaired one.

    Args:
        model: the repaired network; it is not changed.
        repair: the repair that it went through.

    Raises:
        ValueError: the network is not the result of this repair, or undoing does not lead to the
            network that the repair was made for.

    Example:
        >>> import torch, carelab as cl
        >>> g, one = torch.Generator().manual_seed(0), cl.records.Neuron("relu1", 0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> model = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> fixed = cl.repair.care(model, table.train, table.train, fair, [one], generator=g)
        >>> repaired = cl.repair.apply_repair(model, fixed)
        >>> original = cl.repair.undo_repair(repaired, fixed)
    """
    _check_network(model, repair.repaired, "the network this repair produced")
    original = deepcopy(model)
    for edit in reversed(repair.edits):
        _write(original, edit, edit.before)
    _check_network(original, repair.network, "edits that lead back to the original network")
    return original


def edits_between(model: nn.Module, changed: nn.Module) -> tuple[Edit, ...]:
    """The edits that turn one network into another of the same layout.

    Args:
        model: the network before.
        changed: the network after.

    Returns:
        One edit for each parameter that differs, along the axis with fewer changed slices.

    Raises:
        ValueError: networks whose parameters differ in name or shape.

    Example:
        >>> import torch
        >>> from carelab import networks, repair
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> repair.edits_between(model, model)
        ()
    """
    old, new = dict(model.named_parameters()), dict(changed.named_parameters())
    if {name: p.shape for name, p in old.items()} != {name: p.shape for name, p in new.items()}:
        raise ValueError("changed: has other parameters than model; allowed: the same layout")
    edits = []
    for name, weight in old.items():
        before, after = weight.detach().cpu(), new[name].detach().cpu()
        different = before != after
        if not different.any():
            continue
        slices = [
            different.movedim(axis, 0).flatten(1).any(dim=1) if different.ndim > 1 else different
            for axis in range(min(2, different.ndim))
        ]
        axis = min(range(len(slices)), key=lambda axis: int(slices[axis].sum()))
        picked = slices[axis].nonzero().squeeze(1)
        edits.append(
            Edit(
                parameter=name,
                axis=axis,
                indices=tuple(picked.tolist()),
                before=before.index_select(axis, picked),
                after=after.index_select(axis, picked),
            )
        )
    return tuple(edits)


def outgoing_columns(model: nn.Module, neuron: Neuron) -> tuple[str, list[int]]:
    """Name of the weight that reads a neuron, and the columns of it that do.

    Args:
        model: a sequential network.
        neuron: a neuron of a hidden layer, post-activation.

    Raises:
        ValueError: an unknown layer or index, or a layer that no weight follows.

    Example:
        >>> import torch
        >>> from carelab import networks, records, repair
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> repair.outgoing_columns(model, records.Neuron("relu1", 2))
        ('linear2.weight', [2])
    """
    targets = _targets(model, neuron.layer, [neuron.index], torch.ones(1))
    name, axis, columns, _ = targets[0]
    if axis != 1:
        raise ValueError(f"neuron: got {neuron}; allowed: a neuron after its activation")
    return name, columns


def _targets(
    model: nn.Module, layer: str, indices: Sequence[int], factors: Tensor
) -> list[tuple[str, int, list[int], int]]:
    """(parameter, axis, slices, slices a neuron) whose scaling scales the neurons of a layer."""
    modules = ordered_modules(model)
    names = [name for name, _ in modules]
    if layer not in names:
        raise ValueError(f"neurons: got layer {layer!r}; allowed: {', '.join(names)}")
    module = modules[names.index(layer)][1]
    if isinstance(module, nn.Linear | nn.Conv2d):
        _check_indices(layer, indices, module.weight.shape[0])
        names = ["weight"] if module.bias is None else ["weight", "bias"]
        return [(f"{layer}.{name}", 0, list(indices), 1) for name in names]
    for name, after in modules[names.index(layer) + 1 :]:
        if isinstance(after, nn.Linear | nn.Conv2d):
            return [_outgoing(modules, layer, name, after, indices)]
        passes = isinstance(after, _TRANSPARENT) or (
            isinstance(after, _MONOTONE) and bool((factors >= 0).all())
        )
        if not passes:
            raise ValueError(
                f"factors: cannot be moved from {layer} through {name} "
                f"({type(after).__name__}); allowed: pooling with factors of at least 0, flatten, "
                "dropout, or neurons of the weight layer before it"
            )
    raise ValueError(f"neurons: no weight layer follows {layer}; allowed: hidden layers")


def _outgoing(
    modules: Sequence[tuple[str, nn.Module]],
    layer: str,
    name: str,
    after: nn.Linear | nn.Conv2d,
    indices: Sequence[int],
) -> tuple[str, int, list[int], int]:
    """Columns of the next weight layer that read the neurons; several for a flattened map."""
    width = after.weight.shape[1]
    sources = [
        module.weight.shape[0]
        for known, module in modules[: [known for known, _ in modules].index(layer)]
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    if not sources:
        raise ValueError(f"neurons: no weight layer comes before {layer}; allowed: hidden layers")
    _check_indices(layer, indices, sources[-1])
    repeat = width // sources[-1]
    columns = [index * repeat + offset for index in indices for offset in range(repeat)]
    return f"{name}.weight", 1, columns, repeat


def _check_indices(layer: str, indices: Sequence[int], width: int) -> None:
    if not all(0 <= index < width for index in indices):
        raise ValueError(f"neurons: got {layer}{list(indices)}; allowed: 0 to {width - 1}")


def _write(model: nn.Module, edit: Edit, slices: Tensor) -> None:
    weight = dict(model.named_parameters()).get(edit.parameter)
    if weight is None or not 0 <= edit.axis < weight.ndim:
        raise ValueError(
            f"repair: edits axis {edit.axis} of {edit.parameter!r}, "
            "which this network does not have"
        )
    shape = list(weight.shape)
    _check_indices(edit.parameter, edit.indices, shape[edit.axis])
    shape[edit.axis] = len(edit.indices)
    if list(slices.shape) != shape:
        raise ValueError(
            f"repair: edits {edit.parameter} with slices of shape {tuple(slices.shape)}; "
            f"allowed: {tuple(shape)}"
        )
    with torch.no_grad():
        picked = torch.tensor(edit.indices, device=weight.device)
        weight.index_copy_(edit.axis, picked, slices.to(weight))


def _check_network(model: nn.Module, expected: str, what: str) -> None:
    found = fingerprint(model)
    if found != expected:
        raise ValueError(
            f"model: got a network with fingerprint {found[:12]}; allowed: {what}, {expected[:12]}"
        )
