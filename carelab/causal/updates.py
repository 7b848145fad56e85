"""Linear maps updated for units that are replaced, instead of run again.

Holding entry i of h at v changes W h + b by (v - h_i) W[:, i]; a channel changes it by the part
of W that reads the channel. What comes after the map runs in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import no_type_check

import torch
from torch import Tensor, nn

from carelab.causal.samples_last import (
    acts_by_number,
    is_full_flatten,
    patches,
    rows_a_pass,
    rows_last,
    stretches,
)
from carelab.records import Neuron, Unit

__all__ = ["Pass", "Passes", "Suffix", "updating_passes"]

Run = Callable[[Tensor], Tensor]
# Some steps of all units in turn, some rows, and the logits there (classes, group x steps, rows).
Pass = tuple[slice, slice, Tensor]
Passes = Callable[[Sequence[Unit], Tensor], Iterator[Pass]]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Suffix:
    """What follows a layer, taken apart at the first linear map.

    Args:
        head: modules up to the map, which act channel by channel or flatten.
        linear: the map, a ``Linear`` or a ``Conv2d`` that can be updated, or None.
        tail: what comes after it, or after the head where there is no such map.
    """

    head: tuple[nn.Module, ...]
    linear: nn.Linear | nn.Conv2d | None
    tail: tuple[nn.Module, ...]

    def updates(self, axes: int) -> bool:
        """Whether the map reads a layer with so many axes as it is, or flattened."""
        if type(self.linear) is nn.Linear:
            return axes == 1 or any(is_full_flatten(module) for module in self.head)
        return type(self.linear) is nn.Conv2d and axes == 3

    @property
    def by_number(self) -> bool:
        """Whether each number of the layer reaches the map through itself alone."""
        return all(acts_by_number(module) or is_full_flatten(module) for module in self.head)

    @property
    def rectifies(self) -> bool:
        """Whether the map and all after it are fully connected maps and ReLUs in turn."""
        kinds = [type(module) for module in (self.linear, *self.tail)]
        return len(kinds) >= 3 and kinds == [nn.Linear, *[nn.ReLU, nn.Linear] * (len(kinds) // 2)]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Piece:
    """Rows that are worked on together, without intervention."""

    rows: slice
    own: Tensor  # the layer (channels, ..., rows)
    hidden: Tensor  # what the linear map reads (channels, ..., rows)
    untouched: Tensor  # output of the linear map (outputs, ..., rows)


Hold = Callable[[_Piece], Iterator[Tensor]]


# Run very often with small tensors: checking the shapes of each call, as everywhere else in the
# package, would take as long as the work. Tests compare all of it with the slow reference.
@no_type_check
def updating_passes(suffix: Suffix, own: Tensor) -> Passes:
    """A function that runs the suffix with units of a layer replaced, in passes.

    Args:
        suffix: what follows the layer, with a linear map that can be updated.
        own: what the layer gives without intervention (channels, ..., rows).

    Returns:
        A function of units of one shape (group) and of what they are replaced by, constants
        (group, steps) or values (group, steps, rows, *shape of a unit), to passes that together
        cover all steps of all units and all rows.

    Example:
        >>> import torch
        >>> from carelab.causal.updates import Suffix, updating_passes
        >>> from carelab.records import Neuron
        >>> suffix = Suffix(head=(torch.nn.ReLU(),), linear=torch.nn.Linear(3, 2), tail=())
        >>> passes = updating_passes(suffix, torch.rand(3, 5))
        >>> [logits.shape for *_, logits in passes([Neuron("linear1", 0)], torch.rand(1, 4))]
        [torch.Size([2, 4, 5])]
    """
    tail = [rows_last(module) for module in suffix.tail]
    most = rows_a_pass(_widest(suffix, tail, own), own.device)
    pieces = [_piece(suffix, own, rows) for rows in stretches(own.shape[-1], most)]

    def run(units: Sequence[Unit], values: Tensor) -> Iterator[Pass]:
        one_number = 1 + len(units[0].position) == own.ndim - 1
        if not one_number or not suffix.by_number or type(suffix.linear) is not nn.Linear:
            return _channels(suffix, tail, pieces, units, values)
        if values.ndim == 2 and suffix.rectifies:
            return _relu_columns(suffix, pieces, most, units, values)
        return _columns(suffix, tail, pieces, most, units, values)

    return run


@no_type_check
def _columns(
    suffix: Suffix,
    tail: Sequence[Run],
    pieces: Sequence[_Piece],
    most: int,
    units: Sequence[Unit],
    values: Tensor,
) -> Iterator[Pass]:
    """Single numbers, each read by one column of a fully connected map."""
    held = _run_head(suffix, values.clone(), [unit.index for unit in units])
    steps = held.shape[1]
    sizes = pieces[0].own.shape[:-1]
    read = [_flat_index((unit.index, *unit.position), sizes) for unit in units]
    weights = suffix.linear.weight[:, read].repeat_interleave(steps, dim=1)[:, :, None]
    at_once = max(1, most // pieces[0].own.shape[-1])
    some_weights = weights.split(at_once, dim=1)
    for piece in pieces:
        own = piece.hidden.flatten(0, -2)[read]
        now = held[:, :, None] if held.ndim == 2 else held[:, :, piece.rows]
        changes = (now - own[:, None]).flatten(0, 1)
        untouched, logits = piece.untouched[:, None], []
        for change, weight in zip(changes.split(at_once), some_weights, strict=True):
            current = torch.addcmul(untouched, change, weight).flatten(1)
            for run in tail:
                current = run(current)
            logits.append(current)
        yield slice(None), piece.rows, torch.cat(logits, dim=-1).unflatten(-1, changes.shape)


@no_type_check
def _relu_columns(
    suffix: Suffix,
    pieces: Sequence[_Piece],
    most: int,
    units: Sequence[Unit],
    values: Tensor,
) -> Iterator[Pass]:
    """Single numbers held at constants, before ReLUs and fully connected maps in turn.

    W relu(x + b) = W max(x, -b) + W b takes one pass over a layer where adding and rectifying
    take two. Its last term is the same for all rows: it joins what is added to the next layer, and
    so on to the logits, where all of it is added at once.
    """
    held = _run_head(suffix, values.clone(), [unit.index for unit in units])
    read = [_flat_index((unit.index, *unit.position), pieces[0].own.shape[:-1]) for unit in units]
    chosen = torch.tensor(read, device=held.device)
    # One column after the other in memory, since each is read for every piece and value.
    columns = suffix.linear.weight.T[chosen]
    maps = suffix.tail[1::2]
    added = [(columns[:, None] * held[..., None]).flatten(0, 1).T]
    for module in maps:
        bias = 0 if module.bias is None else module.bias[:, None]
        added.append(module.weight @ added[-1] + bias)
    together = _largest_divisor(held.shape[1], most // pieces[0].own.shape[-1])
    by_value = [(-layer.T).contiguous() for layer in added[:-1]]
    if together == 1 and len(maps) == 1:  # a wide layer, where each call counts
        run = partial(_one_value_a_call, by_value[0], maps[0].weight)
    else:
        # For each pass the bounds -b of every layer (neurons, values together, 1).
        bounds = [[one.T[..., None] for one in layer.split(together)] for layer in by_value]
        run = partial(_values_together, list(zip(*bounds, strict=True)), maps)
    for piece in pieces:
        whole = run(piece.untouched, piece.hidden.flatten(0, -2)[chosen], columns)
        whole += added[-1].T.unflatten(0, whole.shape[::2][:2]).movedim(-1, 1)[..., None]
        logits = whole.movedim(1, 0)
        # Joining the values of a pass with the passes takes a copy, if there are several.
        yield slice(None), piece.rows, logits[:, :, 0] if together == 1 else logits.flatten(1, 2)


# Both take all memory once: taken anew for each value, it costs more than the work.
@no_type_check
def _one_value_a_call(
    bounds: Tensor, weight: Tensor, untouched: Tensor, own: Tensor, columns: Tensor
) -> Tensor:
    """W max(x - h w, -b) for each unit's h and w and each of its values' b.

    Laid out as (passes, outputs, 1, rows).
    """
    without, raised = torch.empty_like(untouched), torch.empty_like(untouched)
    results = untouched.new_empty(len(bounds), len(weight), untouched.shape[-1])
    passes = iter(zip(bounds[..., None].unbind(0), results.unbind(0), strict=True))
    each = len(bounds) // len(own)
    for activation, column in zip(own.unbind(0), columns[..., None].unbind(0), strict=True):
        torch.addcmul(untouched, activation, column, value=-1, out=without)
        for bound, result in islice(passes, each):
            torch.maximum(without, bound, out=raised)
            torch.mm(weight, raised, out=result)
    return results[:, :, None]


@no_type_check
def _values_together(
    bounds: Sequence[Sequence[Tensor]],
    maps: Sequence[nn.Linear],
    untouched: Tensor,
    own: Tensor,
    columns: Tensor,
) -> Tensor:
    """W ... W max(W max(x - h w, -b), -b) for each unit's h and w and each of its values' b.

    Laid out as (passes, outputs, values together, rows).
    """
    rows, together = untouched.shape[-1], bounds[0][0].shape[1]
    weights = [module.weight for module in maps]
    without = torch.empty_like(untouched)[:, None]
    raised = [untouched.new_empty(weight.shape[1], together, rows) for weight in weights]
    results = untouched.new_empty(len(bounds), len(weights[-1]), together, rows)
    passes = iter(zip(bounds, results.unbind(0), strict=True))
    each = len(bounds) // len(own)
    read = [space.flatten(1) for space in raised]
    after = [torch.empty_like(space) for space in raised[1:]]
    written = [space.flatten(1) for space in after]
    for activation, column in zip(own.unbind(0), columns[..., None].unbind(0), strict=True):
        torch.addcmul(untouched, activation, column, value=-1, out=without[:, 0])
        for lows, result in islice(passes, each):
            currents, outs = (without, *after), (*written, result.flatten(1))
            for at, (low, current, out) in enumerate(zip(lows, currents, outs, strict=True)):
                torch.maximum(current, low, out=raised[at])
                torch.mm(weights[at], read[at], out=out)
    return results


def _largest_divisor(number: int, most: int) -> int:
    """The largest divisor up to a bound, at least 1."""
    return max(one for one in range(1, number + 1) if number % one == 0 and one <= max(1, most))


@no_type_check
def _channels(
    suffix: Suffix,
    tail: Sequence[Run],
    pieces: Sequence[_Piece],
    units: Sequence[Unit],
    values: Tensor,
) -> Iterator[Pass]:
    """Channels, and single numbers in a channel of which the linear map reads more than those."""
    # Steps are joined where maps become vectors: maps are worked on in the cache, and few rows
    # make slow multiplications.
    flattens = [is_full_flatten(module) for module in suffix.tail]
    cut = flattens.index(True) + 1 if any(flattens) else 0
    steps = values.shape[1]
    for number, (unit, value) in enumerate(zip(units, values, strict=True)):
        held = slice(number * steps, (number + 1) * steps)
        each = value.ndim > 1 or unit.position
        hold = (_holding_at_values if each else _holding_constant)(suffix, pieces[0], unit, value)
        for piece in pieces:
            joined = []
            for current in hold(piece):
                for run in tail[:cut]:
                    current = run(current)
                joined.append(current)
            current = torch.stack(joined, dim=-2).flatten(-2)
            for run in tail[cut:]:
                current = run(current)
            yield held, piece.rows, current.unflatten(-1, (steps, -1))


@no_type_check
def _holding_constant(suffix: Suffix, like: _Piece, unit: Neuron, values: Tensor) -> Hold:
    """What the linear map gives for each of the values: what they add is alike for all rows."""
    channel = slice(unit.index, unit.index + 1)
    weight = _weight_of(suffix, channel, len(like.own))
    maps = values.expand(1, *like.own.shape[1:-1], len(values)).clone()
    added = weight @ _read(suffix, _run_head(suffix, maps, [unit.index]))
    added = added.view(*like.untouched.shape[:-1], len(values))
    # A pooling that comes next has its result elsewhere, so that one place serves all values.
    pools = bool(suffix.tail) and isinstance(suffix.tail[0], nn.MaxPool2d | nn.AvgPool2d)

    def hold(piece: _Piece) -> Iterator[Tensor]:
        taken = _read(suffix, piece.hidden[channel])
        without = torch.addmm(piece.untouched.flatten(1), weight, taken, alpha=-1)
        without = without.view(piece.untouched.shape)
        space = torch.empty_like(without) if pools else None
        for step in range(len(values)):
            yield torch.add(without, added[..., step, None], out=space)

    return hold


@no_type_check
def _holding_at_values(suffix: Suffix, like: _Piece, unit: Neuron, values: Tensor) -> Hold:
    """What the linear map gives where the unit has a value of its own in each row."""
    channel = slice(unit.index, unit.index + 1)
    weight = _weight_of(suffix, channel, len(like.own))

    def hold(piece: _Piece) -> Iterator[Tensor]:
        for value in values:
            changed = piece.own[channel].clone()
            own = value if value.ndim == 0 else value[piece.rows].movedim(0, -1)
            changed[(0, *unit.position)] = own
            change = _run_head(suffix, changed, [unit.index]).sub_(piece.hidden[channel])
            current = torch.addmm(piece.untouched.flatten(1), weight, _read(suffix, change))
            yield current.view(piece.untouched.shape)

    return hold


@no_type_check
def _weight_of(suffix: Suffix, channel: slice, channels: int) -> Tensor:
    """The part of the linear map's weight that reads a channel (outputs, numbers read)."""
    weight = suffix.linear.weight
    if weight.ndim == 2:
        weight = weight.unflatten(1, (channels, -1))
    return weight[:, channel].flatten(1)


@no_type_check
def _read(suffix: Suffix, channel: Tensor) -> Tensor:
    """What the linear map reads of a channel (numbers read, rows or output places x rows)."""
    if type(suffix.linear) is nn.Linear:
        return channel.flatten(0, -2)
    return patches(suffix.linear, channel)


@no_type_check
def _piece(suffix: Suffix, own: Tensor, rows: slice) -> _Piece:
    part = own[..., rows].contiguous()
    hidden = _run_head(suffix, part.clone())
    untouched = _run_linear(suffix, hidden).contiguous()
    return _Piece(rows=rows, own=part, hidden=hidden, untouched=untouched)


@no_type_check
def _run_head(suffix: Suffix, current: Tensor, channels: Sequence[int] | None = None) -> Tensor:
    """The modules before the linear map, for some channels; a flatten keeps them apart."""
    for module in suffix.head:
        if not is_full_flatten(module):
            current = rows_last(module, channels=channels)(current)
    return current


@no_type_check
def _run_linear(suffix: Suffix, hidden: Tensor) -> Tensor:
    flat = hidden.flatten(0, -2) if type(suffix.linear) is nn.Linear else hidden
    return rows_last(suffix.linear)(flat)


@no_type_check
def _widest(suffix: Suffix, tail: Sequence[Run], own: Tensor) -> int:
    """Most numbers a row that the linear map or a module after it makes."""
    current = _run_linear(suffix, _run_head(suffix, own[..., :1].clone()))
    widest = current.numel()
    for run in tail:
        current = run(current)
        widest = max(widest, current.numel())
    return widest


@no_type_check
def _flat_index(place: Sequence[int], sizes: Sequence[int]) -> int:
    index = 0
    for at, size in zip(place, sizes, strict=True):
        index = index * size + at
    return index
