"""How large the weights around a unit are: the ranking that looks at no data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.networks import hidden_neurons, ordered_modules, pre_activation
from carelab.records import Neuron, Unit, UnitEffects

__all__ = ["weight_magnitudes"]


def weight_magnitudes(model: nn.Module, *, units: Sequence[Unit] | None = None) -> UnitEffects:
    """||incoming weights|| ||outgoing weights|| of each neuron or channel.

    The product stays the same when a ReLU's incoming weights are multiplied by c and its outgoing
    ones divided by it. The bias counts as an incoming weight. No samples, so no errors: the
    covariance is 0.

    Args:
        model: a sequential network of ``Linear`` and ``Conv2d`` layers.
        units: post-activation neurons or channels; by default all hidden ones.

    Raises:
        ValueError: a position, a whole layer, a layer that is no activation right after a weight
            layer, or a neuron beyond it.

    Source: magnitude pruning: Han et al., NeurIPS 2015, by neuron instead of by weight.

    Example:
        >>> import torch
        >>> from carelab.causal.magnitude import weight_magnitudes
        >>> from carelab.networks import mlp
        >>> model = mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> weight_magnitudes(model).effect.shape
        torch.Size([4])
    """
    chosen = tuple(hidden_neurons(model) if units is None else units)
    for unit in chosen:
        if not isinstance(unit, Neuron) or unit.position:
            raise ValueError(f"units: got {unit}; allowed: single neurons and whole channels")
    norms = {layer: _norms(model, layer) for layer in dict.fromkeys(unit.layer for unit in chosen)}
    for unit in chosen:
        width = len(norms[unit.layer])
        if not 0 <= unit.place[0] < width:
            raise ValueError(
                f"units: got {unit}; allowed: {unit.layer}[0] to {unit.layer}[{width - 1}]"
            )
    effect = torch.stack([norms[unit.layer][unit.place[0]] for unit in chosen])
    return UnitEffects(
        measure="weight magnitude",
        units=chosen,
        effect=effect,
        covariance=torch.zeros(len(chosen), len(chosen), dtype=torch.float64),
        samples=0,
    )


def _norms(model: nn.Module, layer: str) -> Float[Tensor, " neurons"]:
    modules = ordered_modules(model)
    names = [name for name, _ in modules]
    before = dict(modules)[pre_activation(model, layer)]
    # A normalisation passes on what it gets; anything else with weights would be passed over.
    behind = [
        module
        for _, module in modules[names.index(layer) + 1 :]
        if any(True for _ in module.parameters())
        and not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    ]
    if not behind or not isinstance(behind[0], nn.Linear | nn.Conv2d):
        raise ValueError(
            f"layer: got {layer!r}; allowed: an activation that a Linear or Conv2d layer reads"
        )
    incoming = _weight(before).flatten(1).square().sum(dim=1)
    bias = dict(before.named_parameters()).get("bias")
    if bias is not None:
        incoming = incoming + bias.detach().double().cpu().square()
    # A channel that was flattened is read at all its places, which stand side by side.
    outgoing = _weight(behind[0]).transpose(0, 1).reshape(len(incoming), -1).square().sum(dim=1)
    return (incoming * outgoing).sqrt()


def _weight(module: nn.Module) -> Float[Tensor, "outputs inputs ..."]:
    return module.get_parameter("weight").detach().double().cpu()
