"""Linear maps updated for units that are replaced, instead of run again.

Holding entry i of h at v changes W h + b by (v - h_i) W[:, i]; a channel changes it by the part
of W that reads the channel. What comes after the map runs in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import no_type_check

import torch
from torch import Tensor, nn

from carelab.causal.columns import column_passes
from carelab.causal.pieces import (
    Pass,
    Passes,
    Piece,
    Run,
    Suffix,
    piece_of,
    run_head,
    run_linear,
)
from carelab.causal.samples_last import (
    is_full_flatten,
    patches,
    rows_a_pass,
    rows_last,
    stretches,
)
from carelab.records import Neuron, Unit

__all__ = ["updating_passes"]

Hold = Callable[[Piece], Iterator[Tensor]]


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
        >>> from carelab.causal.pieces import Suffix
        >>> from carelab.causal.updates import updating_passes
        >>> from carelab.records import Neuron
        >>> suffix = Suffix(head=(torch.nn.ReLU(),), linear=torch.nn.Linear(3, 2), tail=())
        >>> passes = updating_passes(suffix, torch.rand(3, 5))
        >>> [logits.shape for *_, logits in passes([Neuron("linear1", 0)], torch.rand(1, 4))]
        [torch.Size([2, 4, 5])]
    """
    tail = [rows_last(module) for module in suffix.tail]
    most = rows_a_pass(_widest(suffix, tail, own), own.device)
    pieces = [piece_of(suffix, own, rows) for rows in stretches(own.shape[-1], most)]
    columns = type(suffix.linear) is nn.Linear and suffix.by_number
    by_column = column_passes(suffix, tail, pieces, most) if columns else None

    def run(units: Sequence[Unit], values: Tensor) -> Iterator[Pass]:
        one_number = 1 + len(units[0].position) == own.ndim - 1
        if one_number and columns:
            return by_column(units, values)
        return _channels(suffix, tail, pieces, units, values)

    return run


@no_type_check
def _channels(
    suffix: Suffix,
    tail: Sequence[Run],
    pieces: Sequence[Piece],
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
def _holding_constant(suffix: Suffix, like: Piece, unit: Neuron, values: Tensor) -> Hold:
    """What the linear map gives for each of the values: what they add is alike for all rows."""
    channel = slice(unit.index, unit.index + 1)
    weight = _weight_of(suffix, channel, len(like.own))
    maps = values.expand(1, *like.own.shape[1:-1], len(values)).clone()
    added = weight @ _read(suffix, run_head(suffix, maps, [unit.index]))
    added = added.view(*like.untouched.shape[:-1], len(values))
    # A pooling that comes next has its result elsewhere, so that one place serves all values.
    pools = bool(suffix.tail) and isinstance(suffix.tail[0], nn.MaxPool2d | nn.AvgPool2d)

    def hold(piece: Piece) -> Iterator[Tensor]:
        taken = _read(suffix, piece.hidden[channel])
        without = torch.addmm(piece.untouched.flatten(1), weight, taken, alpha=-1)
        without = without.view(piece.untouched.shape)
        space = torch.empty_like(without) if pools else None
        for step in range(len(values)):
            yield torch.add(without, added[..., step, None], out=space)

    return hold


@no_type_check
def _holding_at_values(suffix: Suffix, like: Piece, unit: Neuron, values: Tensor) -> Hold:
    """What the linear map gives where the unit has a value of its own in each row."""
    channel = slice(unit.index, unit.index + 1)
    weight = _weight_of(suffix, channel, len(like.own))

    def hold(piece: Piece) -> Iterator[Tensor]:
        for value in values:
            changed = piece.own[channel].clone()
            own = value if value.ndim == 0 else value[piece.rows].movedim(0, -1)
            changed[(0, *unit.position)] = own
            change = run_head(suffix, changed, [unit.index]).sub_(piece.hidden[channel])
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
def _widest(suffix: Suffix, tail: Sequence[Run], own: Tensor) -> int:
    """Most numbers a row that the linear map or a module after it makes."""
    current = run_linear(suffix, run_head(suffix, own[..., :1].clone()))
    widest = current.numel()
    for run in tail:
        current = run(current)
        widest = max(widest, current.numel())
    return widest
