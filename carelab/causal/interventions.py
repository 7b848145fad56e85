"""Interventions on hidden neurons, and recording of what they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.networks import check_evaluation_mode
from carelab.records import Neuron

__all__ = ["activations", "do"]


@contextmanager
def do(model: nn.Module, values: Mapping[Neuron, float]) -> Iterator[nn.Module]:
    """The network under an intervention: the neurons are held at values for every sample.

    Run to the layer, overwrite, run on: what follows recomputes, nothing else changes. The layer
    a neuron names decides what is held: the output of ``linear1`` is its pre-activation, that of
    ``relu1`` its post-activation. In a feature map the whole channel is held. The hooks come off
    at the end, also after an error, and interventions may be nested: the inner one wins.

    Args:
        model: the network.
        values: the value of each neuron.

    Yields:
        The same network, intervened on while the block lasts.

    Raises:
        ValueError: a layer the network does not have, or, on the first run, an index beyond it.

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
    by_layer: dict[str, dict[int, float]] = {}
    for neuron, value in values.items():
        by_layer.setdefault(neuron.layer, {})[neuron.index] = value
    with ExitStack() as hooks:
        for layer, held in by_layer.items():
            module = _module(model, layer)
            hooks.callback(module.register_forward_hook(_holding(layer, held)).remove)
        yield model


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
    layer: str, held: Mapping[int, float]
) -> Callable[[nn.Module, object, Tensor], Tensor]:
    def hook(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        width = output.shape[1]
        if not all(0 <= index < width for index in held):
            raise ValueError(
                f"values: got neurons {sorted(held)} of {layer}; allowed: 0 to {width - 1}"
            )
        changed = output.clone()
        for index, value in held.items():
            changed[:, index] = value
        return changed

    return hook
