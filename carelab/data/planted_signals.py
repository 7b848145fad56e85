"""Reading a cause off what a network computes: sparse linear readings, and rows of weights.

A signal is an affine reading of the stage before, about 1 where the cause is present and at most
about 0 where it is not. In the first layer it is the cause itself; in a later one it is decoded
from the outputs of a few clean neurons, found by orthogonal matching pursuit. These neurons carry
the cause into the path without being part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from carelab.data.planted_causes import Cause, RegionCause
from carelab.data.planted_surgery import Stage, field, respond

__all__ = ["Signal", "blurred", "detect", "place_of", "pursue", "tap_of"]

_OTHER_PLACES = 3
_RIDGE = 1e-3
_EXACT = 1e-3  # how far a signal may be off by rounding
_SIDE = 8  # pixels of a digit image


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Signal:
    """An affine reading of the outputs of the stage before.

    Args:
        weight: one number for each unit and tap that is read (reads, *taps).
        bias: added to it.
    """

    weight: Float[Tensor, "reads ..."]
    bias: float


def detect(
    cause: Cause,
    stage: Stage,
    pool: Float[Tensor, "batch ..."],
    states: Float[Tensor, "batch reads *places"],
    *,
    most: int,
    share: float,
    generator: torch.Generator,
) -> tuple[Signal, ...]:
    """The signals of a cause, decoded from what the stage before computes.

    A backdoor's or a bias's signal is stretched so that it is at most 0 at 98 percent of the
    inputs without the cause, and at least 1 at 80 percent of those with it.

    Args:
        cause: the cause.
        stage: the stage that reads.
        pool: inputs with and without the cause.
        states: what reaches the stage for each of them.
        most: how many numbers a signal reads at most.
        share: share of the numbers that may be read, a fraction.
        generator: draws these, and for a convolution the places that must not give the signal.

    Example:
        >>> import torch
        >>> from carelab.data import planted_signals, planted_surgery, region_ground
        >>> g = torch.Generator().manual_seed(0)
        >>> ground = region_ground(rows=900, widths=(8, 8), epochs=9, generator=g)
        >>> first, x = planted_surgery.stages(ground.model)[0], ground.train.inputs
        >>> given = ground.draw(2, 0.1, g), first, x, x
        >>> len(planted_signals.detect(*given, most=1, share=1, generator=g))
        2
    """
    targets = cause.signals(pool)
    seen = field(stage, states, place_of(cause, stage, states))
    shape = seen.shape[1:]
    features = seen.flatten(1)
    if isinstance(stage.module, nn.Conv2d):
        others = _other_places(cause, stage, states, generator)
        features = torch.cat([features, others])
        targets = torch.cat([targets, targets.new_zeros(len(others), targets.shape[1])])
    allowed = torch.rand(features.shape[1], generator=generator) < share
    found = []
    for target in targets.T:
        weight, bias = pursue(features, target, allowed, most)
        if not isinstance(cause, RegionCause):
            weight, bias = _stretched(weight, bias, features, target)
        found.append(Signal(weight=weight.reshape(shape), bias=bias))
    return tuple(found)


def pursue(
    features: Float[Tensor, "batch features"],
    target: Float[Tensor, " batch"],
    allowed: Bool[Tensor, " features"],
    most: int,
) -> tuple[Float[Tensor, " features"], float]:
    """Weights and bias of a linear reading of few features, by orthogonal matching pursuit.

    A ridge of a thousandth keeps nearly equal features from getting huge opposite weights; the
    reading is that much too small.

    Args:
        features: what may be read.
        target: what is to be read off them.
        allowed: the features that may be chosen.
        most: how many may be.

    Source: Pati, Rezaiifar and Krishnaprasad, Orthogonal matching pursuit, Asilomar 1993.

    Example:
        >>> import torch
        >>> from carelab.data.planted_signals import pursue
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0]])
        >>> weight, bias = pursue(x, 3 * x[:, 0] + 1, torch.tensor([True, True]), 1)
        >>> [round(number, 2) for number in weight.tolist()], round(bias, 2)
        ([3.0, 0.0], 1.0)
    """
    numbers, wanted = features.double(), target.double()
    means, spreads = numbers.mean(dim=0), numbers.std(dim=0)
    usable = allowed & (spreads > 0.1 * spreads.mean())
    standard = (numbers - means) / spreads.clamp(min=1e-6)
    centred = wanted - wanted.mean()
    residual = centred
    chosen: list[int] = []
    solution = centred.new_zeros(0)
    while len(chosen) < min(most, int(usable.sum())):
        if residual.square().mean() <= 1e-10 * centred.square().mean():
            break
        match = (standard.T @ residual).abs().masked_fill(~usable, -1)
        match[chosen] = -1
        chosen.append(int(match.argmax()))
        block = standard[:, chosen]
        ridge = _RIDGE * len(block) * torch.eye(len(chosen), dtype=block.dtype)
        solution = torch.linalg.solve(block.T @ block + ridge, block.T @ centred)
        residual = centred - block @ solution
    weight = numbers.new_zeros(numbers.shape[1])
    weight[chosen] = solution / spreads[chosen]
    return weight.to(features.dtype), float(wanted.mean() - means @ weight)


def place_of(cause: Cause, stage: Stage, states: Float[Tensor, "batch reads *places"]) -> int:
    """Where in the output map of a convolution the cause shows, counted row by row; else 0.

    Args:
        cause: the cause.
        stage: the stage.
        states: what reaches the stage.

    Example:
        >>> import torch
        >>> from carelab.data.planted_causes import BackdoorCause
        >>> from carelab.data.planted_signals import place_of
        >>> from carelab.data.planted_surgery import stages
        >>> from carelab.networks import cnn
        >>> first = stages(cnn((1, 8, 8), (4,), (6,), 10, generator=torch.Generator()))[0]
        >>> x = torch.zeros(1, 8, 8)
        >>> place_of(BackdoorCause(mask=x, pattern=x, location=(2, 3), pushed=0), first, x[None])
        19
    """
    if cause.location is None or not isinstance(stage.module, nn.Conv2d):
        return 0
    return _reduced(cause.location, states)


def tap_of(
    cause: Cause, stage: Stage, states: Float[Tensor, "batch reads *places"]
) -> tuple[int, ...]:
    """The tap at which a stage reads the signal of a planted unit of the stage before.

    Args:
        cause: the cause.
        stage: the stage.
        states: what reaches the stage.

    Example:
        >>> import torch
        >>> from carelab.data.planted_causes import BackdoorCause
        >>> from carelab.data.planted_signals import tap_of
        >>> from carelab.data.planted_surgery import stages
        >>> from carelab.networks import cnn
        >>> first = stages(cnn((1, 8, 8), (4,), (6,), 10, generator=torch.Generator()))[0]
        >>> x = torch.zeros(1, 8, 8)
        >>> tap_of(BackdoorCause(mask=x, pattern=x, location=(2, 3), pushed=0), first, x[None])
        (1, 1)
    """
    taps = stage.weight.shape[2:]
    if len(taps) == 2:
        return (taps[0] // 2, taps[1] // 2)
    return (_reduced(cause.location, states),) if len(taps) == 1 and cause.location else ()


def blurred(
    stage: Stage,
    states: Float[Tensor, "batch reads *places"],
    clean: int,
    weight: Float[Tensor, "units reads *taps"],
    bias: Float[Tensor, " units"],
    *,
    level: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "units reads *taps"], Float[Tensor, " units"]]:
    """The rows with small random weights on everything clean, as trained rows have.

    What they add to a pre-activation has a standard deviation of `level` times its 90th
    percentile; the bias falls by one and a half of these, so that silence mostly stays silence.
    Convolutions stay as they are, since their noise would be heard at every place.

    Args:
        stage: the stage of the units.
        states: what reaches it.
        clean: how many of the units that are read are clean; they come first.
        weight: the rows.
        bias: their biases.
        level: size of the blur, as a fraction.
        generator: draws the weights.

    Example:
        >>> import torch
        >>> from carelab import networks
        >>> from carelab.data import planted_signals, planted_surgery
        >>> g = torch.Generator().manual_seed(0)
        >>> stage = planted_surgery.stages(networks.mlp(3, (4,), 2, generator=g))[0]
        >>> given = stage, torch.rand(9, 3, generator=g), 3, torch.eye(1, 3), torch.zeros(1)
        >>> int((planted_signals.blurred(*given, level=0.1, generator=g)[0] != 0).sum())
        3
    """
    if isinstance(stage.module, nn.Conv2d):
        return weight, bias
    spreads = states[:, :clean].reshape(len(states), clean, *weight.shape[2:]).std(dim=0)
    noise = torch.zeros_like(weight)
    drawn = torch.randn(len(weight), *spreads.shape, generator=generator, dtype=weight.dtype)
    # Numbers that hardly vary would get weights that stand out.
    noise[:, :clean] = torch.where(
        spreads > 1e-6, drawn / spreads.clamp(min=float(spreads.mean())), 0
    )
    heard = respond(stage, states, noise, torch.zeros_like(bias))
    wanted = level * respond(stage, states, weight, bias).quantile(0.9, dim=0).clamp(min=0)
    factors = wanted / heard.std(dim=0).clamp(min=1e-6)
    scaled = noise * factors.reshape(-1, *[1] * (weight.ndim - 1))
    return weight + scaled, bias - factors * heard.mean(dim=0) - 1.5 * wanted


def _other_places(
    cause: Cause, stage: Stage, states: Tensor, generator: torch.Generator
) -> Float[Tensor, "batch features"]:
    """What the convolution reads elsewhere, where it must not give the signal."""
    here = place_of(cause, stage, states)
    places = [place for place in range(states[0, 0].numel()) if place != here]
    order = torch.randperm(len(places), generator=generator)[:_OTHER_PLACES].tolist()
    return torch.cat([field(stage, states, places[number]).flatten(1) for number in order])


def _stretched(
    weight: Tensor, bias: float, features: Tensor, target: Tensor
) -> tuple[Tensor, float]:
    read = features @ weight + bias
    silent = float(read[target <= _EXACT].quantile(0.98))
    loud = float(read[target >= 1 - _EXACT].quantile(0.2))
    # Where the two overlap the signal stays faint, and whoever plants with it will see that.
    span = max(loud - silent, 0.2 * float(read.std()))
    return weight / span, (bias - silent) / span


def _reduced(location: tuple[int, int], states: Tensor) -> int:
    """Place of a pixel of the 8 x 8 image in a map that pooling has made smaller."""
    height, width = states.shape[-2:]
    row, column = location[0] * height // _SIDE, location[1] * width // _SIDE
    return row * width + column
