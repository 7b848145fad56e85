"""Many variants of a network, differing in the factors of a few neurons, run in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.networks import check_evaluation_mode, ordered_modules, split
from carelab.records import Neuron

__all__ = ["factor_variants"]


def factor_variants(
    model: nn.Module,
    inputs: Float[Tensor, "batch ..."],
    neurons: Sequence[Neuron],
    *,
    batch_size: int = 65_536,
) -> Callable[[Float[Tensor, "particles neurons"]], Float[Tensor, "particles batch classes"]]:
    """Logits of the network, for any number of factor vectors at once.

    What comes before the first of the neurons is the same for every variant: it runs here, once.
    The function returned runs the rest for all particles in one batched pass.

    Args:
        model: a sequential network in evaluation mode.
        inputs: the inputs (batch, ...).
        neurons: the neurons whose activations are scaled.
        batch_size: particles x inputs a pass; bounds the memory.

    Returns:
        A function from factors (particles, neurons) to logits (particles, batch, classes).

    Raises:
        ValueError: no neuron, or one of an unknown layer; a network in training mode.

    Example:
        >>> import torch
        >>> from carelab import networks, records, repair
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> run = repair.factor_variants(model, torch.rand(5, 2), [records.Neuron("relu1", 0)])
        >>> run(torch.tensor([[0.0], [1.0]])).shape
        torch.Size([2, 5, 2])
    """
    check_evaluation_mode(model)
    order = [name for name, _ in ordered_modules(model)]
    if not neurons or any(neuron.layer not in order for neuron in neurons):
        raise ValueError(
            f"neurons: got {[str(neuron) for neuron in neurons]}; allowed: at least one, "
            f"of {', '.join(order)}"
        )
    first = min((neuron.layer for neuron in neurons), key=order.index)
    prefix, suffix = split(model, first)
    with torch.inference_mode():
        hidden = torch.cat([prefix(block) for block in inputs.split(batch_size)])
    positions: dict[str, list[int]] = {}
    for row, neuron in enumerate(neurons):
        positions.setdefault(neuron.layer, []).append(row)

    def scaled(layer: str, activation: Tensor, factors: Tensor) -> Tensor:
        rows = positions[layer]
        scale = factors.new_ones(len(factors), activation.shape[2])
        scale[:, [neurons[row].index for row in rows]] = factors[:, rows]
        return activation * scale.reshape(len(factors), 1, -1, *[1] * (activation.ndim - 3))

    @torch.inference_mode()
    def run(factors: Tensor) -> Tensor:
        factors = factors.to(hidden)
        outputs = []
        for block in hidden.split(max(1, batch_size // len(factors))):
            shape = (len(factors), len(block))
            current = scaled(first, block.unsqueeze(0), factors)
            for name, module in ordered_modules(suffix):
                current = module(current.flatten(0, 1)).unflatten(0, shape)
                if name in positions:
                    current = scaled(name, current, factors)
            outputs.append(current)
        return torch.cat(outputs, dim=1)

    return run
