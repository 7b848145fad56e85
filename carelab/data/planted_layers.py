"""A hidden layer that is being widened: where new units go, and how large they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from carelab.data.planted_paths import Group
from carelab.data.planted_signals import blurred
from carelab.data.planted_surgery import Stage, incoming, respond

__all__ = ["Layer", "highest", "inflow", "widened"]

_BLUR = 0.04


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Layer:
    """A hidden layer about to be widened, and what the units added before it offer.

    Args:
        number: which hidden layer, from 0; the number of hidden layers for the last stage.
        stage: its stage in the clean network.
        states: what reaches it, from clean units and then from added ones.
        offers: by name, the readout over all units added to the layer before, and a constant.
        added: how many these are.
    """

    number: int
    stage: Stage
    states: Float[Tensor, "batch reads *places"]
    offers: Mapping[str, tuple[Tensor, float]]
    added: int

    @property
    def clean(self) -> int:
        """How many of the units that reach it are clean; they come first."""
        return self.stage.weight.shape[1]


def widened(
    layer: Layer, groups: Mapping[str, Group], *, generator: torch.Generator
) -> tuple[Tensor, Tensor, dict[str, tuple[Tensor, float]]]:
    """Weights and biases of the widened layer, and what each group of its new units offers.

    New units get small weights on everything clean, and the size of a clean unit of the layer.

    Args:
        layer: the layer.
        groups: the units to add.
        generator: draws the small weights and the sizes.

    Example:
        >>> import torch
        >>> from carelab.data.planted_layers import Layer, widened
        >>> from carelab.data.planted_surgery import stages
        >>> from carelab.networks import mlp
        >>> g = torch.Generator().manual_seed(0)
        >>> first, x = stages(mlp(3, (4,), 2, generator=g))[0], torch.rand(5, 3, generator=g)
        >>> layer = Layer(number=0, stage=first, states=x, offers={}, added=0)
        >>> widened(layer, {}, generator=g)[0].shape
        torch.Size([4, 3])
    """
    stage = layer.stage
    known = torch.cat([stage.weight, inflow(layer, generator=generator)[:, layer.clean :]], dim=1)
    if not groups:
        return known, stage.bias, {}
    weight = torch.cat([group.weight for group in groups.values()])
    bias = torch.cat([group.bias for group in groups.values()])
    roles = [role for group in groups.values() for role in group.roles]
    weight, bias = _blurred(layer, weight, bias, roles, generator)
    factors = _factors(layer, known, weight, bias, roles, generator)
    weight, bias = weight * factors.reshape(-1, *[1] * (weight.ndim - 1)), bias * factors
    offers, at = {}, 0
    for name, group in groups.items():
        here = slice(at, at + len(group.roles))
        readout = torch.zeros(len(roles))
        readout[here] = group.readout / factors[here]
        offers[name] = (readout, group.constant)
        at += len(group.roles)
    return torch.cat([known, weight]), torch.cat([stage.bias, bias]), offers


def inflow(layer: Layer, *, generator: torch.Generator) -> Float[Tensor, "units reads *taps"]:
    """The stage's weights with columns for the units added before, in which only sinks count.

    Args:
        layer: the layer.
        generator: draws the sinks' outgoing weights.

    Example:
        >>> import torch
        >>> from carelab.data.planted_layers import Layer, inflow
        >>> from carelab.data.planted_surgery import stages
        >>> from carelab.networks import mlp
        >>> g = torch.Generator().manual_seed(0)
        >>> first, x = stages(mlp(3, (4,), 2, generator=g))[0], torch.rand(5, 3, generator=g)
        >>> layer = Layer(number=0, stage=first, states=x, offers={}, added=0)
        >>> torch.equal(inflow(layer, generator=g), first.weight)
        True
    """
    stage = layer.stage
    columns = stage.weight.new_zeros(len(stage.weight), layer.added, *stage.weight.shape[2:])
    if "sink" in layer.offers:
        sinks = layer.offers["sink"][0] != 0
        drawn = torch.randn(columns[:, sinks].shape, generator=generator)
        columns[:, sinks] = drawn * stage.weight.std()
    return torch.cat([stage.weight, columns], dim=1)


def _blurred(
    layer: Layer,
    weight: Tensor,
    bias: Tensor,
    roles: Sequence[str],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Proxies read many units anyway; all others get small weights on everything clean."""
    others = torch.tensor([role != "proxy" for role in roles])
    dense, lower = blurred(
        layer.stage,
        layer.states,
        layer.clean,
        weight[others],
        bias[others],
        level=_BLUR,
        generator=generator,
    )
    weight, bias = weight.clone(), bias.clone()
    weight[others], bias[others] = dense, lower
    return weight, bias


def _factors(
    layer: Layer,
    known: Tensor,
    weight: Tensor,
    bias: Tensor,
    roles: Sequence[str],
    generator: torch.Generator,
) -> Tensor:
    """Factors that give each new unit the size of a clean unit of the layer, drawn at random.

    A sink has no activations, so the size of its incoming weights decides; it may be three times
    that of the clean unit, since what dead ends write to should not be less than what a path does.
    """
    stage = layer.stage
    clean = highest(respond(stage, layer.states, known, stage.bias)).relu()
    activity = clean.square().mean(dim=0).sqrt()
    alive = (activity > 0.1 * activity.amax()).nonzero().flatten()
    drawn = alive[torch.randint(len(alive), (len(roles),), generator=generator)]
    own = highest(respond(stage, layer.states, weight, bias)).relu().square().mean(dim=0).sqrt()
    by_weight = 3 * incoming(known)[drawn] / incoming(weight).clamp(min=1e-6)
    sinks = torch.tensor([role == "sink" for role in roles])
    return torch.where(sinks, by_weight, activity[drawn] / own.clamp(min=1e-6))


def highest(outputs: Float[Tensor, "batch units *places"]) -> Float[Tensor, "batch units"]:
    """The highest number of each unit over its places.

    Args:
        outputs: numbers of units, of channels at several places.

    Example:
        >>> import torch
        >>> from carelab.data.planted_layers import highest
        >>> highest(torch.tensor([[[[1.0, 2.0], [3.0, 0.0]]]])).tolist()
        [[3.0]]
    """
    return outputs.flatten(2).amax(dim=2) if outputs.ndim > 2 else outputs
