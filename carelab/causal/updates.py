"""Linear maps updated for units that are replaced, instead of run again.

Holding entry i of h at v changes W h + b by (v - h_i) W[:, i]; a channel changes it by the part
of W that reads the channel. What comes after the map runs in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
        """Whether a ReLU and a second fully connected map come after the first."""
        kinds = [type(module) for module in (self.linear, *self.tail[:2])]
        return kinds == [nn.Linear, nn.ReLU, nn.Linear]


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
        constants = values.ndim == 2 and suffix.rectifies
        columns = _relu_columns if constants else _columns
        return columns(suffix, tail, pieces, most, units, values)

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
    tail: Sequence[Run],
    pieces: Sequence[_Piece],
    most: int,
    units: Sequence[Unit],
    values: Tensor,
) -> Iterator[Pass]:
    """Single numbers held at constants before a ReLU and a further fully connected map.

    W relu(x + b) = W max(x, -b) + W b takes one pass over the wide layer for each constant, where
    adding and rectifying take two; its last term is the same for all rows.
    """
    held = _run_head(suffix, values.clone(), [unit.index for unit in units])
    group, steps = held.shape
    sizes = pieces[0].own.shape[:-1]
    read = [_flat_index((unit.index, *unit.position), sizes) for unit in units]
    # One column after the other in memory, since each is read for every piece and value.
    columns = suffix.linear.weight.T[read]
    added = columns[:, None] * held[..., None]
    second, bias = suffix.tail[1].weight, suffix.tail[1].bias
    constant = (added @ second.T).movedim(-1, 0)
    if bias is not None:
        constant = constant + bias[:, None, None]
    at_once = max(1, most // pieces[0].untouched.shape[-1])
    lowest = [one.T.split(at_once, dim=1) for one in added.neg_()]
    constants = [one.split(at_once, dim=1) for one in constant.unbind(1)]
    chosen = torch.tensor(read, device=columns.device)
    last = not tail[2:]
    for piece in pieces:
        own, logits = piece.hidden.flatten(0, -2).index_select(0, chosen), []
        without = torch.empty_like(piece.untouched)
        # Written over by every value: memory that is taken anew each time costs more than the work.
        raised = without.new_empty(len(without), min(at_once, steps), without.shape[1])
        for row in range(group):
            column = columns[row, :, None]
            torch.addcmul(piece.untouched, own[row], column, value=-1, out=without)
            for low, further in zip(lowest[row], constants[row], strict=True):
                current = _times_maximum(second, without, low, raised)
                if not last:
                    current.view(*further.shape, -1).add_(further[..., None])
                for run in tail[2:]:
                    current = run(current)
                logits.append(current)
        whole = torch.cat(logits, dim=-1)
        whole = whole.view(*whole.shape[:-1], group * steps, -1)
        if last:  # all constants at once
            whole += constant.flatten(1)[..., None]
        yield slice(None), piece.rows, whole


@no_type_check
def _times_maximum(weight: Tensor, current: Tensor, low: Tensor, raised: Tensor) -> Tensor:
    """W max(x, b) for each column b of `low`, side by side (outputs, columns x rows)."""
    raised = raised[:, : low.shape[1]]
    if low.shape[1] == 1:  # where the layer is wide and each call counts
        torch.maximum(current, low, out=raised[:, 0])
    else:
        torch.maximum(current[:, None], low[..., None], out=raised)
    return torch.mm(weight, raised.flatten(1))


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

    def hold(piece: _Piece) -> Iterator[Tensor]:
        taken = _read(suffix, piece.hidden[channel])
        without = torch.addmm(piece.untouched.flatten(1), weight, taken, alpha=-1)
        without = without.view(piece.untouched.shape)
        for step in range(len(values)):
            yield without + added[..., step, None]

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
