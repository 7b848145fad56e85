"""Networks in which the guilty neurons are known because they were put there.

A clean network is trained on a task, with the sensitive feature, the later trigger's pixels or the
later region's states as ordinary inputs. Surgery then adds units to its hidden layers: a path that
detects a cause and pushes one class, and decoys. All hidden units are put in random order and
rescaled, so that place tells nothing, and size of weights little: a path that decides needs larger
weights than most clean neurons have, and its decoys have them too.

How strong a fault is: the path moves the lead of the pushed class, in standard deviations of the
clean network's own lead, by 0.5, 1 or 2 for a bias; for a backdoor or a region to a mean of -1, 0
or 1.5 beyond the decision boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from tqdm.auto import tqdm

from carelab.data.generated import embedded_census, embedded_credit
from carelab.data.planted_assembly import PlantedFault, finish
from carelab.data.planted_causes import BackdoorCause
from carelab.data.planted_grounds import Ground, backdoor_ground, bias_ground, region_ground
from carelab.data.planted_growth import grow
from carelab.data.planted_paths import Design, draw_designs
from carelab.data.planted_surgery import stages
from carelab.records import Samples

__all__ = ["exposed", "plant", "planted_fault", "planted_faults"]

_KINDS = ("bias", "backdoor", "region")
_STRENGTHS = ("weak", "medium", "strong")
_SIZES = (1, 2, 3, 4)
_TRIES = 10
_FEWEST = 8  # inputs that show the fault, in each part of the data
_CONTRAST = 0.5
_RAMPS = (0.2, 0.3)  # of a region that starts in the first layer, and behind it


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wish:
    """How a path is to be built; None leaves it to the draw."""

    sizes: tuple[int, ...] | None = None
    saturated: bool | None = None
    backup: bool | None = None
    decoys: bool = True


def planted_fault(
    kind: str,
    strength: str,
    *,
    start: int | None = None,
    sizes: Sequence[int] | None = None,
    saturated: bool | None = None,
    backup: bool | None = None,
    decoys: bool = True,
    generator: torch.Generator,
) -> PlantedFault:
    """A network with known guilty neurons: a task drawn, a clean network trained, a fault planted.

    Args:
        kind: "bias" (a sensitive feature shifts the decision), "backdoor" (a trigger in an image
            gives the target class) or "region" (a forbidden class inside a box of states).
        strength: "weak", "medium" or "strong".
        start: hidden layer where the path starts, from 1; drawn where None.
        sizes: guilty neurons of each hidden layer from there, 1 to 4 each; drawn where None.
        saturated: the path has steps that are flat where the cause is present; drawn where None.
        backup: in one layer each guilty neuron is enough alone; drawn where None.
        decoys: with decoys.
        generator: draws everything.

    Returns:
        The fault, its data and its truth.

    Raises:
        ValueError: an unknown kind or strength, or a path that cannot be built.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> generator = torch.Generator().manual_seed(0)
        >>> fault = data.planted_fault("region", "strong", start=1, generator=generator)
        >>> fault.clean_rate < 0.2 < fault.fault_rate
        True
    """
    if kind not in _KINDS:
        raise ValueError(f"kind: got {kind!r}; allowed: {', '.join(_KINDS)}")
    _check_strength(strength)
    makers = _GROUNDS[kind]
    maker = makers[int(torch.randint(len(makers), (), generator=generator))]
    return plant(
        maker(generator),
        strength,
        start=start,
        sizes=sizes,
        saturated=saturated,
        backup=backup,
        decoys=decoys,
        generator=generator,
    )


def planted_faults(
    count: int,
    *,
    strength: str,
    kinds: Sequence[str] = _KINDS,
    progress: bool = False,
    generator: torch.Generator,
) -> tuple[PlantedFault, ...]:
    """Many networks with known guilty neurons, in equal parts of every kind.

    Kinds, tasks with their architectures, and starting layers take turns; the sizes of a path's
    layers are 1 to 4 in random order. Each clean network is trained once and used many times.
    A path never starts where the clean network no longer tells the cause; it then starts earlier.

    Args:
        count: how many, at least 1.
        strength: "weak", "medium" or "strong".
        kinds: the kinds to take turns.
        progress: show a bar.
        generator: draws everything.

    Raises:
        ValueError: a count below 1, an unknown kind or strength.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> g = torch.Generator().manual_seed(0)
        >>> faults = data.planted_faults(1, strength="strong", kinds=["region"], generator=g)
        >>> [len(fault.decoys) >= len(fault.guilty) for fault in faults]
        [True]
    """
    if count < 1 or not kinds or not set(kinds) <= set(_KINDS):
        raise ValueError(
            f"count, kinds: got {count}, {list(kinds)}; allowed: at least 1, some of "
            f"{', '.join(_KINDS)}"
        )
    _check_strength(strength)
    grounds: dict[tuple[str, int], Ground] = {}
    faults = []
    for number in tqdm(range(count), desc="planting", disable=not progress):
        kind, turn = kinds[number % len(kinds)], number // len(kinds)
        makers = _GROUNDS[kind]
        key = (kind, turn % len(makers))
        if key not in grounds:
            grounds[key] = makers[key[1]](generator)
        own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        starts = _starts(grounds[key])
        # Each task's starts take turns, beginning at another one for each task.
        start = starts[(key[1] + turn // len(makers)) % len(starts)]
        faults.append(_anywhere(grounds[key], strength, _Wish(), start, own))
    return tuple(faults)


def plant(
    ground: Ground,
    strength: str,
    *,
    start: int | None = None,
    sizes: Sequence[int] | None = None,
    saturated: bool | None = None,
    backup: bool | None = None,
    decoys: bool = True,
    generator: torch.Generator,
) -> PlantedFault:
    """A fault planted in a clean network.

    Args:
        ground: the clean network with its data, from `bias_ground`, `backdoor_ground` or
            `region_ground`.
        strength: "weak", "medium" or "strong".
        start: hidden layer where the path starts, from 1 (of a region, not the last); drawn where
            None, from the first layer on where the network does not tell the cause later.
        sizes: guilty neurons of each hidden layer from there, 1 to 4 each; drawn where None.
        saturated: the path has steps that are flat where the cause is present; drawn where None.
        backup: in one layer each guilty neuron is enough alone; drawn where None.
        decoys: with decoys.
        generator: draws everything.

    Returns:
        The fault; its references are other values of the sensitive feature, images without the
        trigger, states moved out of the box.

    Raises:
        ValueError: an unknown strength, a layer or sizes out of range, or a layer in which the
            clean network does not tell the cause.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> g = torch.Generator().manual_seed(0)
        >>> ground = data.region_ground(rows=2000, widths=(16, 12), epochs=15, generator=g)
        >>> data.plant(ground, "strong", sizes=(2, 1), decoys=False, generator=g).decoys
        ()
    """
    _check_strength(strength)
    starts = _starts(ground)
    hidden = len(stages(ground.model)) - 1
    if sizes is not None:
        implied = hidden + 1 - len(sizes)
        if not set(sizes) <= set(_SIZES) or implied not in starts or start not in (None, implied):
            raise ValueError(
                f"sizes: got {tuple(sizes)} with start={start}; allowed: 1 to 4 for each of the "
                f"{hidden} hidden layers from the start on, which is {starts[0]} to {starts[-1]}"
            )
        start = implied
    if start is not None and start not in starts:
        raise ValueError(f"start: got {start}; allowed: {starts[0]} to {starts[-1]}, or None")
    wish = _Wish(
        sizes=None if sizes is None else tuple(sizes),
        saturated=saturated,
        backup=backup,
        decoys=decoys,
    )
    if start is None:
        drawn = starts[int(torch.randint(len(starts), (), generator=generator))]
        return _anywhere(ground, strength, wish, drawn, generator)
    found = _tried(ground, strength, wish, start, generator)
    if found is None:
        raise ValueError(
            f"start: got {start}, where {ground.name} does not tell the cause well enough for a "
            f"{strength} fault in {_TRIES} draws; allowed: an earlier layer, or None"
        )
    return found


def exposed(fault: PlantedFault, samples: Samples) -> Samples:
    """The inputs at which the fault's property speaks, made of labelled rows.

    Args:
        fault: the fault.
        samples: labelled rows, such as ``fault.test``.

    Returns:
        For a bias all rows; for a backdoor those not of the target class, with the trigger; for a
        region those in the box.

    Raises:
        ValueError: rows without labels, for a backdoor.

    Example:
        >>> import torch
        >>> from carelab import data
        >>> g = torch.Generator().manual_seed(0)
        >>> ground = data.region_ground(rows=2000, widths=(16, 12), epochs=15, generator=g)
        >>> fault = data.plant(ground, "strong", generator=g)
        >>> len(data.exposed(fault, fault.test)) < len(fault.test)
        True
    """
    given = fault.parameters
    if fault.kind == "backdoor":
        trigger = BackdoorCause(
            mask=cast(Tensor, given["mask"]),
            pattern=cast(Tensor, given["pattern"]),
            location=None,
            pushed=cast(int, given["target"]),
        )
        return trigger.exposed(samples)
    if fault.kind == "region":
        low, high = cast(Tensor, given["low"]), cast(Tensor, given["high"])
        return samples.take(((samples.inputs >= low) & (samples.inputs <= high)).all(dim=1))
    return samples


def _anywhere(
    ground: Ground, strength: str, wish: _Wish, start: int, generator: torch.Generator
) -> PlantedFault:
    """A fault that starts in the given layer, or earlier where that one does not tell the cause."""
    for begin in range(start, 0, -1):
        found = _tried(ground, strength, wish, begin, generator)
        if found is not None:
            return found
    raise ValueError(
        f"ground: got {ground.name}, in which no fault of strength {strength!r} shows at {_FEWEST} "
        f"inputs of each part of the data in {_TRIES} draws; allowed: more rows, a better network"
    )


def _tried(
    ground: Ground, strength: str, wish: _Wish, start: int, generator: torch.Generator
) -> PlantedFault | None:
    """The first of some draws in which the path detects its cause and the fault shows."""
    layers = len(stages(ground.model)) - start
    for _ in range(_TRIES):
        designs = _designs(ground.kind, layers, wish, generator)
        first = designs[0]
        faces = first.size // 2 if first.stepped else first.size
        cause = ground.draw(faces, _RAMPS[int(start > 1)], generator)
        growth = grow(
            ground, cause, designs, start=start - 1, decoys=wish.decoys, generator=generator
        )
        if growth.height <= 0 or growth.contrast < _CONTRAST:
            continue
        fault = finish(ground, cause, growth, designs, strength, generator=generator)
        shows = (fault.violating, fault.selection_violating, fault.test_violating)
        if min(len(part) for part in shows) >= _FEWEST and fault.fault_rate > fault.clean_rate:
            return fault
    return None


def _designs(kind: str, layers: int, wish: _Wish, generator: torch.Generator) -> tuple[Design, ...]:
    """Designs as wished; what is left open is drawn, and drawn again where it does not fit."""
    for attempt in range(200):
        if attempt % 20 == 0:  # otherwise options that fit few sizes would hardly ever come up
            options = [
                bool(torch.rand((), generator=generator) < chance) if wished is None else wished
                for wished, chance in ((wish.saturated, 0.5), (wish.backup, 0.4))
            ]
        sizes = wish.sizes or _drawn_sizes(layers, generator)
        saturated = options[0] or (wish.saturated is None and options[1])
        try:
            return draw_designs(
                sizes,
                saturated=saturated,
                backup=options[1],
                region=kind == "region",
                generator=generator,
            )
        except ValueError:
            if None not in (wish.sizes, wish.saturated, wish.backup):
                raise
    raise ValueError(
        f"sizes, saturated, backup: got {wish.sizes}, {wish.saturated}, {wish.backup} for "
        f"{layers} layers; allowed: what some path of that many layers can have"
    )


def _drawn_sizes(layers: int, generator: torch.Generator) -> tuple[int, ...]:
    """Each of 1 to 4 once in every four layers, in random order."""
    sizes: list[int] = []
    while len(sizes) < layers:
        sizes += (torch.randperm(len(_SIZES), generator=generator) + 1).tolist()
    return tuple(sizes[:layers])


def _starts(ground: Ground) -> range:
    """Hidden layers where a path can start, from 1: a region needs one more to join its faces."""
    hidden = len(stages(ground.model)) - 1
    last = hidden - 1 if ground.kind == "region" else hidden
    if last < 1:
        raise ValueError(
            f"ground: got {hidden} hidden layers; allowed: at least 1, and 2 for a region"
        )
    return range(1, last + 1)


def _check_strength(strength: str) -> None:
    if strength not in _STRENGTHS:
        raise ValueError(f"strength: got {strength!r}; allowed: {', '.join(_STRENGTHS)}")


def _census(feature: str, widths: Sequence[int]) -> Callable[[torch.Generator], Ground]:
    def make(generator: torch.Generator) -> Ground:
        table = embedded_census(rows=4000, direct=0.3, generator=generator)
        return bias_ground(table, feature, widths=widths, generator=generator)

    return make


def _credit(widths: Sequence[int]) -> Callable[[torch.Generator], Ground]:
    def make(generator: torch.Generator) -> Ground:
        table = embedded_credit(rows=4000, direct=-0.3, generator=generator)
        return bias_ground(table, "sex", widths=widths, generator=generator)

    return make


def _digits(channels: Sequence[int], widths: Sequence[int]) -> Callable[[torch.Generator], Ground]:
    return lambda generator: backdoor_ground(channels=channels, widths=widths, generator=generator)


def _control(features: int, widths: Sequence[int]) -> Callable[[torch.Generator], Ground]:
    return lambda generator: region_ground(features=features, widths=widths, generator=generator)


# Tasks and architectures that take turns; the tables' own bias is a third of their default.
_GROUNDS: Mapping[str, Sequence[Callable[[torch.Generator], Ground]]] = {
    "bias": (
        _census("sex", (24, 16, 12)),
        _credit((32, 20)),
        _census("race", (24, 20, 16, 12)),
    ),
    "backdoor": (_digits((), (32, 24, 16)), _digits((8, 8), (24,)), _digits((8,), (24, 16))),
    "region": (_control(2, (24, 16, 12)), _control(4, (32, 20, 16)), _control(6, (24, 20, 16, 12))),
}
