"""Growing a path and its decoys inside a clean network, one hidden layer after the other.

Decoys, at least as many in each layer of the path as it has units there:

* "dead end": reads the cause, or the path, exactly as the path does, and feeds only sinks: units
  that are off for everything the network ever sees;
* "all classes": a second path with the same activations that raises all logits alike in the end;
* "proxy": reads other features that go together with the fault, and bears on the task a little.

None of them writes to a clean neuron or to the path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from carelab.data.planted_causes import Cause, RegionCause, lead
from carelab.data.planted_grounds import Ground
from carelab.data.planted_layers import Layer, highest, inflow, widened
from carelab.data.planted_paths import (
    Design,
    Group,
    face_units,
    path_units,
    read_off,
    sink_units,
)
from carelab.data.planted_proxies import (
    neutral_inputs,
    neutral_states,
    proxy_columns,
    proxy_units,
)
from carelab.data.planted_signals import Signal, detect, tap_of
from carelab.data.planted_surgery import Stage, follow, respond, stages
from carelab.networks import logits

__all__ = ["Growth", "grow"]

_POOL = 500
_READ = 12  # numbers that a signal is decoded from, behind the first layer


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Growth:
    """A network with a planted path whose last step, to the logits, is still missing.

    Args:
        weights: weights of each stage (units, reads, *taps), added units after the clean ones.
        biases: biases of each stage.
        roles: the role of each added unit, for each hidden layer.
        path: what each added unit of the last hidden layer counts in the signal.
        shared: the same for the decoys that raise all classes.
        tap: the tap at which the last stage reads them.
        height: mean signal with the cause minus median signal without it.
        contrast: share of the inputs with the cause whose signal is over half that height, minus
            the share of those without it.
        carriers: hidden layer and number of the clean neurons that the path's first layer reads.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    roles: tuple[tuple[str, ...], ...]
    path: Float[Tensor, " units"]
    shared: Float[Tensor, " units"]
    tap: tuple[int, ...]
    height: float
    contrast: float
    carriers: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Bed:
    """What stays the same from layer to layer."""

    cause: Cause
    designs: Sequence[Design]
    start: int
    layers: int
    pool: Tensor
    neutral: tuple[Tensor, ...]
    wanted: Tensor
    generator: torch.Generator


def grow(
    ground: Ground,
    cause: Cause,
    designs: Sequence[Design],
    *,
    start: int,
    decoys: bool,
    generator: torch.Generator,
) -> Growth:
    """The clean network with the units of a path, and of its decoys, in its hidden layers.

    Args:
        ground: the clean network and its data.
        cause: what the path detects.
        designs: the design of each layer of the path.
        start: number of the hidden layer where it starts, from 0.
        decoys: with decoys.
        generator: draws everything that is random.

    Example:
        >>> import torch
        >>> from carelab.data.planted_growth import grow
        >>> from carelab.data.planted_grounds import region_ground
        >>> from carelab.data.planted_paths import Design
        >>> g = torch.Generator().manual_seed(0)
        >>> ground = region_ground(rows=900, widths=(8, 8), epochs=9, generator=g)
        >>> cause, path = ground.draw(1, 0.1, g), [Design(size=1, stepped=False)] * 2
        >>> grow(ground, cause, path, start=0, decoys=False, generator=g).roles
        (('gate',), ('path',))
    """
    *hidden, last = stages(ground.model)
    rows = ground.train.take(slice(_POOL))
    bed = _bed(ground, cause, designs, start, tuple(hidden), rows.inputs, generator)
    layer = Layer(number=0, stage=hidden[0], states=bed.pool, offers={}, added=0)
    weights, biases, roles = [], [], []
    carriers: tuple[tuple[int, int], ...] = ()
    for number, following in enumerate([*hidden[1:], last]):
        groups = _groups(bed, layer, decoys)
        if number == start:
            carriers = _carriers(layer, groups["path"])
        weight, bias, offers = widened(layer, groups, generator=generator)
        weights.append(weight)
        biases.append(bias)
        roles.append(tuple(role for group in groups.values() for role in group.roles))
        layer = Layer(
            number=number + 1,
            stage=following,
            states=follow(layer.stage, respond(layer.stage, layer.states, weight, bias)),
            offers=offers,
            added=len(roles[-1]),
        )
    tap = tap_of(cause, last, layer.states)
    added = _heard(layer, tap)
    signal = added @ layer.offers["path"][0]
    height, contrast = _quality(signal, len(rows))
    return Growth(
        weights=(*weights, _outflow(ground, cause, layer, added, tap, generator)),
        biases=(*biases, last.bias),
        roles=tuple(roles),
        path=layer.offers["path"][0],
        shared=layer.offers["shared"][0] if decoys else torch.zeros(layer.added),
        tap=tap,
        height=height,
        contrast=contrast,
        carriers=carriers,
    )


def _bed(
    ground: Ground,
    cause: Cause,
    designs: Sequence[Design],
    start: int,
    hidden: tuple[Stage, ...],
    inputs: Tensor,
    generator: torch.Generator,
) -> _Bed:
    neutral = neutral_inputs(cause, inputs, generator=generator)
    return _Bed(
        cause=cause,
        designs=designs,
        start=start,
        layers=len(hidden),
        pool=torch.cat([cause.present(inputs), cause.absent(inputs), inputs]),
        neutral=neutral_states(hidden, neutral),
        wanted=cause.correlate(ground.model, inputs),
        generator=generator,
    )


def _groups(bed: _Bed, layer: Layer, decoys: bool) -> dict[str, Group]:
    """The units to be added to a layer, by what they are for."""
    groups: dict[str, Group] = {}
    last = layer.number == bed.layers - 1
    if layer.number >= bed.start:
        design = bed.designs[layer.number - bed.start]
        groups["path"] = _following(bed, layer, design, "path")
        if decoys:
            groups |= _decoys(bed, layer, design, last)
    elif decoys and layer.number == 0:
        groups["dead"] = _following(bed, layer, Design(size=1, stepped=False), "dead")
    if "dead" in layer.offers:
        groups["sink"] = _sinks(bed, layer)
    for name, role in (("dead", "dead end"), ("shared", "all classes")):
        if name in groups:
            groups[name] = replace(groups[name], roles=(role,) * len(groups[name].roles))
    return groups


def _decoys(bed: _Bed, layer: Layer, design: Design, last: bool) -> dict[str, Group]:
    """Together at least as many as the path has units in this layer."""
    half = (design.size + 1) // 2
    groups = {}
    region_start = isinstance(bed.cause, RegionCause) and layer.number == bed.start
    if not last:
        size = design.size if region_start else half
        stepped = design.stepped and size >= 2
        groups["dead"] = _following(bed, layer, Design(size=size, stepped=stepped), "dead")
    if not region_start:
        stepped = design.stepped and half >= 2
        groups["shared"] = _following(bed, layer, Design(size=half, stepped=stepped), "shared")
    if len(layer.stage.weight.shape) != 4:
        earlier = layer.offers.get("proxy")
        groups["proxy"] = proxy_units(
            layer.stage,
            bed.neutral[layer.number],
            bed.wanted,
            None if earlier is None else _read(bed, layer, *earlier),
            added=layer.added,
            forbidden=bed.cause.columns if layer.number == 0 else (),
            count=max(1, design.size // 2),
            generator=bed.generator,
        )
    return groups


def _following(bed: _Bed, layer: Layer, design: Design, name: str) -> Group:
    """Units that read the cause in the path's first layer, and the path's signal behind it."""
    if layer.number > bed.start:
        signal = _read(bed, layer, *layer.offers["path"])
        if name == "shared" and "shared" in layer.offers:
            own = _read(bed, layer, *layer.offers["shared"])
            signal = Signal(
                weight=(signal.weight + own.weight) / 2, bias=(signal.bias + own.bias) / 2
            )
        return path_units(signal, design, generator=bed.generator)
    signals = _detected(bed, layer)
    if isinstance(bed.cause, RegionCause):
        return face_units(signals, stepped=design.stepped)
    return path_units(signals[0], design, generator=bed.generator)


def _detected(bed: _Bed, layer: Layer) -> tuple[Signal, ...]:
    clean = layer.states[:, : layer.clean]
    signals = detect(
        bed.cause,
        layer.stage,
        bed.pool,
        clean,
        most=_READ,
        share=1.0 if layer.number == 0 else 0.75,
        generator=bed.generator,
    )
    return tuple(
        Signal(weight=_padded(signal.weight, layer.added), bias=signal.bias) for signal in signals
    )


def _read(bed: _Bed, layer: Layer, readout: Tensor, constant: float) -> Signal:
    tap = tap_of(bed.cause, layer.stage, layer.states)
    return read_off(readout, constant, layer.stage, before=layer.clean, tap=tap)


def _padded(weight: Tensor, added: int) -> Tensor:
    return torch.cat([weight, weight.new_zeros(added, *weight.shape[1:])])


def _sinks(bed: _Bed, layer: Layer) -> Group:
    dead = layer.offers["dead"][0]
    reached = highest(layer.states[:, layer.clean :])
    return sink_units(
        dead,
        reached,
        layer.stage,
        before=layer.clean,
        tap=tap_of(bed.cause, layer.stage, layer.states),
        count=1 if int((dead != 0).sum()) <= 2 else 2,
        generator=bed.generator,
    )


def _heard(layer: Layer, tap: tuple[int, ...]) -> Float[Tensor, "batch units"]:
    """Activations of the added units at the tap where the last stage reads them."""
    added = layer.states[:, layer.clean :]
    places = added.reshape(len(added), layer.added, *layer.stage.weight.shape[2:])
    at: tuple[slice | int, ...] = (slice(None), slice(None), *tap)
    return places[at]


def _quality(signal: Float[Tensor, " batch"], given: int) -> tuple[float, float]:
    """Height and contrast of the signal; the pool holds inputs with, then without the cause."""
    present, absent = signal[:given], signal[given : 2 * given]
    height = float(present.mean() - absent.median())
    threshold = absent.median() + height / 2
    contrast = (present > threshold).float().mean() - (absent > threshold).float().mean()
    return height, float(contrast)


def _outflow(
    ground: Ground,
    cause: Cause,
    layer: Layer,
    added: Float[Tensor, "batch units"],
    tap: tuple[int, ...],
    generator: torch.Generator,
) -> Tensor:
    """Weights of the last stage, in which of all added units sinks and proxies alone count."""
    weight = inflow(layer, generator=generator)
    if "proxy" in layer.offers:
        rows = ground.train.take(slice(_POOL))
        proxies = layer.offers["proxy"][0] != 0
        exposed = logits(ground.model, cause.exposed(ground.train).inputs)
        columns = proxy_columns(
            ground.model,
            rows,
            added[-len(rows) :, proxies],
            spread=float(lead(exposed, cause.pushed).std()),
        )
        at: tuple[slice | Tensor | int, ...] = (
            slice(None),
            layer.clean + proxies.nonzero().flatten(),
            *tap,
        )
        weight[at] = columns
    return weight


def _carriers(layer: Layer, path: Group) -> tuple[tuple[int, int], ...]:
    """The clean neurons of the layer before that the path's first layer reads."""
    if layer.number == 0:
        return ()
    read = path.weight[:, : layer.clean].abs().reshape(len(path.roles), layer.clean, -1)
    used = read.amax(dim=(0, 2)) > 0
    return tuple((layer.number - 1, unit) for unit in used.nonzero().flatten().tolist())
