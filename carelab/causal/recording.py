"""What every layer computes without intervention, laid out for interventions."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.causal.samples_last import stretches
from carelab.networks import ordered_modules

__all__ = ["run_recording"]

# Numbers of the widest layer in one pass: what a pass makes stays in the processor's cache.
_NUMBERS_A_PASS = 2**20


@torch.inference_mode()
def run_recording(
    model: nn.Module, inputs: Float[Tensor, "rows ..."], layers: Collection[str]
) -> tuple[dict[str, Float[Tensor, "rows ..."]], Float[Tensor, "rows ..."]]:
    """Outputs of the named layers and of the whole network.

    In memory the rows of a recorded layer come last, so that what one unit has in all rows lies
    together.

    Args:
        model: a sequential network in evaluation mode.
        inputs: the inputs (rows, ...), at least one.
        layers: names of modules.

    Raises:
        ValueError: a layer the network does not have, or a network that is not sequential.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.causal.recording import run_recording
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> run_recording(model, torch.rand(5, 2), ["relu1"])[0]["relu1"].shape
        torch.Size([5, 3])
    """
    modules = ordered_modules(model)
    names = [name for name, _ in modules]
    for layer in layers:
        if layer not in names:
            raise ValueError(f"layer: got {layer!r}; allowed: {', '.join(names)}")
    shapes = {name: output.shape[1:] for name, output in _run(modules, inputs[:1])}
    widest = max(shape.numel() for shape in shapes.values())
    rows = len(inputs)
    numbers = {layer: inputs.new_empty(shapes[layer].numel(), rows) for layer in layers}
    outputs = inputs.new_empty(rows, *shapes[names[-1]])
    for some in stretches(rows, _NUMBERS_A_PASS // max(1, widest)):
        for name, output in _run(modules, inputs[some]):
            if name in numbers:
                numbers[name][:, some] = output.movedim(1, -1).flatten(1).t()
        outputs[some] = output
    recorded = {}
    for layer, each in numbers.items():
        channels, *space = shapes[layer]
        recorded[layer] = each.t().unflatten(1, (*space, channels)).movedim(-1, 1)
    return recorded, outputs


def _run(
    modules: Collection[tuple[str, nn.Module]], inputs: Tensor
) -> Iterator[tuple[str, Tensor]]:
    # With the channels last in memory, pooling takes a tenth of the time. A copy, since a first
    # module that works in place would overwrite the inputs.
    last = torch.channels_last if inputs.ndim == 4 else torch.contiguous_format
    hidden = inputs.clone(memory_format=last)
    for name, module in modules:
        hidden = module(hidden)
        yield name, hidden
