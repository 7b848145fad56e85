"""Interventions on hidden neurons, and recording of what they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.networks import check_evaluation_mode
from carelab.records import Unit, WholeLayer

__all__ = ["activations", "check_unit", "do"]


@contextmanager
def do(model: nn.Module, values: Mapping[Unit, float | Tensor]) -> Iterator[nn.Module]:
    """The network under an intervention: the units are held at values for every sample.

    Run to the layer, overwrite, run on: what follows recomputes, nothing else changes. The layer
    a unit names decides what is held: the output of ``linear1`` is its pre-activation, that of
    ``relu1`` its post-activation. In a feature map a neuron is a whole channel, a neuron with a
    position the one number there; a `WholeLayer` is everything. The hooks come off at the end,
    also after an error, and interventions may be nested: the inner one wins. Where two units
    overlap, the later one wins.

    Args:
        model: the network.
        values: the value of each unit: a number, or a tensor that broadcasts to its place in the
            layer's output (batch, *shape of the unit), such as one value for each sample.

    Yields:
        The same network, intervened on while the block lasts.

    Raises:
        ValueError: a layer the network does not have, or, on the first run, a unit that is not
            in it or a value of another shape.

    Source: Pearl, Causality (2009), section 3.2; CARE, section 3.1.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, records
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> with causal.do(model, {records.Neuron("relu1", i): 0.0 for i in range(3)}):
        ...     held = model(torch.rand(1, 2))
        >>> bool((held == model.linear2.bias).all())
        True
    """
    by_layer: dict[str, dict[Unit, float | Tensor]] = {}
    for unit, value in values.items():
        by_layer.setdefault(unit.layer, {})[unit] = value
    with ExitStack() as hooks:
        for layer, held in by_layer.items():
            module = _module(model, layer)
            hooks.callback(module.register_forward_hook(_holding(held)).remove)
        yield model


def check_unit(unit: Unit, shape: Sequence[int]) -> None:
    """Refuse a unit that is not in an output of that shape.

    Args:
        unit: the unit.
        shape: shape of the output of its layer for one row: (neurons), or (channels, height,
            width) for a feature map.

    Raises:
        ValueError: an index or a position beyond the output, or a position of another length.

    Example:
        >>> from carelab.causal.interventions import check_unit
        >>> from carelab.records import Neuron
        >>> check_unit(Neuron("relu1", 3, (0, 5)), (4, 8, 8))
    """
    if isinstance(unit, WholeLayer):
        return
    place, sizes = unit.place, tuple(shape)
    fits = len(place) in {1, len(sizes)} and len(place) <= len(sizes)
    if fits and all(0 <= at < size for at, size in zip(place, sizes, strict=False)):
        return
    if not sizes:
        raise ValueError(
            f"unit: got {unit}; allowed: the whole of {unit.layer}, which is one number"
        )
    last = [str(size - 1) for size in sizes]
    whole = f"{unit.layer}[0] to {unit.layer}[{last[0]}]"
    positions = f"{unit.layer}[{', '.join('0' * len(last))}] to {unit.layer}[{', '.join(last)}]"
    allowed = whole if len(sizes) == 1 else f"{whole}, or {positions}"
    raise ValueError(f"unit: got {unit}; allowed: {allowed}")


def activations(
    model: nn.Module,
    inputs: Float[Tensor, "batch ..."],
    layers: Sequence[str],
    *,
    batch_size: int = 8192,
) -> dict[str, Float[Tensor, "batch ..."]]:
    """Outputs of the named layers for every input, as detached copies.

    Args:
        model: the network, in evaluation mode.
        inputs: the inputs (batch, ...).
        layers: names of modules.
        batch_size: inputs a pass.

    Returns:
        The output of each layer (batch, neurons, ...), in the order asked for.

    Raises:
        ValueError: an unknown layer, no input, or a network in training mode.

    Example:
        >>> import torch
        >>> from carelab import causal, networks
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> causal.activations(model, torch.rand(5, 2), ["relu1"])["relu1"].shape
        torch.Size([5, 3])
    """
    check_evaluation_mode(model)
    if len(inputs) == 0 or batch_size < 1:
        raise ValueError(
            f"inputs, batch_size: got {len(inputs)} rows, {batch_size}; allowed: at least 1, 1"
        )
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}

    def record(layer: str) -> Callable[[nn.Module, object, Tensor], None]:
        # A clone, since an in-place activation that follows would overwrite the output.
        return lambda module, arguments, output: parts[layer].append(output.detach().clone())

    with ExitStack() as hooks, torch.no_grad():
        for layer in parts:
            hooks.callback(_module(model, layer).register_forward_hook(record(layer)).remove)
        for block in inputs.split(batch_size):
            model(block)
    return {layer: torch.cat(blocks) for layer, blocks in parts.items()}


def _module(model: nn.Module, layer: str) -> nn.Module:
    modules = dict(model.named_modules())
    if layer not in modules or not layer:
        known = ", ".join(name for name in modules if name)
        raise ValueError(f"layer: got {layer!r}; allowed: {known}")
    return modules[layer]


def _holding(
    held: Mapping[Unit, float | Tensor],
) -> Callable[[nn.Module, object, Tensor], Tensor]:
    def hook(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        changed = output.clone()
        for unit, value in held.items():
            check_unit(unit, output.shape[1:])
            at: tuple[slice | int, ...] = (slice(None), *unit.place)
            place = changed[at]
            place.copy_(_broadcast(unit, value, place))
        return changed

    return hook


def _broadcast(unit: Unit, value: float | Tensor, place: Tensor) -> Tensor:
    given = torch.as_tensor(value, dtype=place.dtype, device=place.device)
    try:
        return given.expand(place.shape)
    except RuntimeError:
        raise ValueError(
            f"values: got shape {tuple(given.shape)} for {unit}; allowed: a number, or a shape "
            f"that broadcasts to {tuple(place.shape)}"
        ) from None
