"""The units of a planted path and of its decoys, layer by layer.

A signal, about 1 where the cause is present and at most about 0 elsewhere, is passed on by k
parallel units of a layer:

* plain: unit i is relu(g (signal - t)), and carries a share of what goes on;
* stepped: two units, relu(g (signal - t)) and, subtracted from it, relu(g (signal - t) - 1).
  Together they are a step that is flat where the cause is present: no gradient is left there;
* with a backup: the k plain units have equal shares and the step after them is already full when
  one of them is on, so that each alone is enough.

A region's first layer has gates, relu((distance behind a face) / ramp), which are silent inside
the box and hold the path back outside, or stepped faces that are on inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from carelab.data.planted_signals import Signal
from carelab.data.planted_surgery import Stage

__all__ = ["Design", "Group", "draw_designs", "face_units", "path_units", "read_off", "sink_units"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """How many parallel units of a layer pass the signal on, and in which way.

    Args:
        size: how many units.
        stepped: as steps, pair by pair; an odd one out is plain.
        equal: with equal shares.
        backed: how many units of the layer before are each enough alone; 1 for no backup.
    """

    size: int
    stepped: bool
    equal: bool = False
    backed: int = 1


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Group:
    """Units to be added to a layer that together pass one signal on.

    Args:
        roles: the role of each unit.
        weight: what each reads of the stage before (units, reads, *taps).
        bias: their biases.
        readout: signal = sum of readout x activation + constant.
        constant: the constant.
    """

    roles: tuple[str, ...]
    weight: Float[Tensor, "units reads *taps"]
    bias: Float[Tensor, " units"]
    readout: Float[Tensor, " units"]
    constant: float = 0.0


def draw_designs(
    sizes: Sequence[int], *, saturated: bool, backup: bool, region: bool, generator: torch.Generator
) -> tuple[Design, ...]:
    """The design of each layer of a path.

    Args:
        sizes: how many units each layer has, from the layer where the path starts.
        saturated: at least one layer is stepped.
        backup: the units of one layer are each enough alone.
        region: the first layer has the faces of a region.
        generator: draws which layers these are.

    Raises:
        ValueError: sizes that leave no room for what is asked.

    Example:
        >>> import torch
        >>> from carelab.data.planted_paths import draw_designs
        >>> generator = torch.Generator().manual_seed(0)
        >>> path = draw_designs(
        ...     (2, 2), saturated=True, backup=True, region=False, generator=generator
        ... )
        >>> [(design.stepped, design.backed) for design in path]
        [(False, 1), (True, 2)]
    """
    first = int(region)
    steps = [
        number
        for number, size in enumerate(sizes)
        if size >= 2 and not (region and number == 0 and size % 2)
    ]
    pairs = [number for number in steps if number > first and 2 <= sizes[number - 1] <= 3]
    if (saturated and not steps) or (backup and not pairs):
        raise ValueError(
            f"sizes: got {tuple(sizes)}, with saturated={saturated} and backup={backup}; allowed: "
            "for saturation a layer of at least 2 units, for a backup one of 2 or 3 units"
            f"{' (not the first of a region)' if region else ''} before one of at least 2"
        )
    chosen = {number for number in steps if saturated and _chance(generator) < 0.5}
    if saturated and not chosen:
        chosen = {steps[_below(len(steps), generator)]}
    filled = pairs[_below(len(pairs), generator)] if backup else -1
    if backup:
        chosen = (chosen | {filled}) - {filled - 1}
    return tuple(
        Design(
            size=size,
            stepped=number in chosen,
            equal=number == filled - 1,
            backed=sizes[number - 1] if number == filled else 1,
        )
        for number, size in enumerate(sizes)
    )


def path_units(signal: Signal, design: Design, *, generator: torch.Generator) -> Group:
    """Parallel units that pass a signal on; their roles are "path" and, subtracted, "brake".

    Args:
        signal: the reading that each unit scales and shifts.
        design: how many units, in which way.
        generator: draws gains, thresholds and shares.

    Example:
        >>> import torch
        >>> from carelab.data.planted_paths import Design, path_units
        >>> from carelab.data.planted_signals import Signal
        >>> signal, generator = Signal(weight=torch.ones(1), bias=0), torch.Generator()
        >>> path_units(signal, Design(size=3, stepped=True), generator=generator).roles
        ('path', 'brake', 'path')
    """
    pairs = design.size // 2 if design.stepped else 0
    parts = pairs + (design.size - 2 * pairs)
    shares = torch.full((parts,), 1.0)
    if not design.equal:
        shares += torch.rand(parts, generator=generator)
    shares = shares / shares.sum()
    roles: list[str] = []
    gains, thresholds, readouts = [], [], []
    for part, share in enumerate(shares.tolist()):
        if part < pairs:
            gain, threshold = _step(design.backed, generator)
            roles += ["path", "brake"]
            gains += [gain, gain]
            thresholds += [gain * threshold, gain * threshold + 1]
            readouts += [share, -share]
        else:
            threshold = 0.1 + 0.15 * _chance(generator)
            roles.append("path")
            gains.append(1.0)
            thresholds.append(threshold)
            readouts.append(share / (1 - threshold))
    return _scaled(signal, roles, gains, thresholds, readouts)


def face_units(signals: Sequence[Signal], *, stepped: bool) -> Group:
    """The first units of a region's path: the signal is 1 inside the box, 0 or less outside.

    Args:
        signals: how far behind each face a state is, in ramps.
        stepped: two units a face, on inside the box; else one, the "gate", on outside.

    Example:
        >>> import torch
        >>> from carelab.data.planted_paths import face_units
        >>> from carelab.data.planted_signals import Signal
        >>> face_units([Signal(weight=torch.ones(1), bias=-0.5)], stepped=False).roles
        ('gate',)
    """
    if not stepped:
        groups = [_scaled(signal, ["gate"], [1.0], [0.0], [-1.0]) for signal in signals]
        return _joined(groups, 1.0)
    inward = [Signal(weight=-signal.weight, bias=1 - signal.bias) for signal in signals]
    # Both units of a face rise together before it; behind it the second one holds the level.
    groups = [
        _scaled(signal, ["path", "brake"], [1.0, 1.0], [0.0, 1.0], [1.0, -1.0]) for signal in inward
    ]
    return _joined(groups, 1.0 - len(signals))


def sink_units(
    dead: Float[Tensor, " units"],
    reached: Float[Tensor, "batch units"],
    stage: Stage,
    *,
    before: int,
    tap: tuple[int, ...],
    count: int,
    generator: torch.Generator,
) -> Group:
    """Units that dead ends feed, and that stay off for everything: their role is "sink".

    Args:
        dead: readout of each unit of the layer before as a dead end, 0 for the others.
        reached: what these units give, each input's highest value over the places.
        stage: the stage of the sinks.
        before: how many units of the layer before are clean.
        tap: the tap at which they are read.
        count: how many sinks.
        generator: draws the weights.

    Example:
        >>> import torch
        >>> from carelab.data.planted_paths import sink_units
        >>> from carelab.data.planted_surgery import stages
        >>> from carelab.networks import mlp
        >>> g, dead = torch.Generator().manual_seed(0), torch.ones(1)
        >>> stage, given = stages(mlp(3, (4, 4), 2, generator=g))[1], torch.ones(5, 1)
        >>> sink_units(dead, given, stage, before=4, tap=(), count=2, generator=g).roles
        ('sink', 'sink')
    """
    weight = torch.zeros(count, before + len(dead), *stage.weight.shape[2:])
    strength = dead.abs() * (0.5 + torch.rand(count, len(dead), generator=generator))
    at: tuple[slice | int, ...] = (slice(None), slice(before, None), *tap)
    weight[at] = strength
    highest = (reached @ strength.T).amax(dim=0)
    return Group(
        roles=("sink",) * count,
        weight=weight,
        bias=-(2 * highest + 0.1),
        readout=torch.ones(count),
    )


def read_off(
    readout: Float[Tensor, " units"],
    constant: float,
    stage: Stage,
    *,
    before: int,
    tap: tuple[int, ...],
) -> Signal:
    """The signal that a stage reads off the units added to the layer before.

    Args:
        readout: what each added unit counts.
        constant: added to the sum.
        stage: the stage that reads.
        before: how many units of the layer before are clean; they come first.
        tap: the tap at which it reads.

    Example:
        >>> import torch
        >>> from carelab.data.planted_paths import read_off
        >>> from carelab.data.planted_surgery import stages
        >>> from carelab.networks import mlp
        >>> stage = stages(mlp(3, (4, 4), 2, generator=torch.Generator()))[1]
        >>> read_off(torch.ones(2), 0, stage, before=4, tap=()).weight.tolist()
        [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    """
    weight = torch.zeros(before + len(readout), *stage.weight.shape[2:])
    at: tuple[slice | int, ...] = (slice(before, None), *tap)
    weight[at] = readout
    return Signal(weight=weight, bias=constant)


def _scaled(
    signal: Signal,
    roles: Sequence[str],
    gains: Sequence[float],
    thresholds: Sequence[float],
    readouts: Sequence[float],
) -> Group:
    factors = torch.tensor(gains, dtype=signal.weight.dtype)
    shifts = torch.tensor(thresholds, dtype=signal.weight.dtype)
    return Group(
        roles=tuple(roles),
        weight=factors.reshape(-1, *[1] * signal.weight.ndim) * signal.weight,
        bias=factors * signal.bias - shifts,
        readout=torch.tensor(readouts, dtype=signal.weight.dtype),
    )


def _joined(groups: Sequence[Group], constant: float) -> Group:
    return Group(
        roles=tuple(role for group in groups for role in group.roles),
        weight=torch.cat([group.weight for group in groups]),
        bias=torch.cat([group.bias for group in groups]),
        readout=torch.cat([group.readout for group in groups]),
        constant=constant,
    )


def _step(backed: int, generator: torch.Generator) -> tuple[float, float]:
    """Gain and threshold at which a signal of 1 / backed already fills the step."""
    threshold = (0.2 + 0.15 * _chance(generator)) / backed
    full = 1.4 + 0.6 * _chance(generator)
    return full / (1 / backed - threshold), threshold


def _chance(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _below(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))
