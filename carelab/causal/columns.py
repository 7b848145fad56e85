"""Single numbers replaced, each read by one column of a fully connected map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import no_type_check

import torch
from torch import Tensor, nn

from carelab.causal.pieces import Pass, Passes, Piece, Run, Suffix, run_head
from carelab.records import Unit

__all__ = ["column_passes"]


# Run very often with small tensors: checking the shapes of each call, as everywhere else in the
# package, would take as long as the work. Tests compare all of it with the slow reference.
@no_type_check
def column_passes(
    suffix: Suffix, tail: Sequence[Run], pieces: Sequence[Piece], most: int
) -> Passes:
    """A function that runs the suffix with single numbers of the layer replaced, in passes.

    Args:
        suffix: what follows the layer; its map is fully connected and reads each number alone.
        tail: what comes after the map, on tensors whose last axis counts the rows.
        pieces: all rows.
        most: rows that one pass works on.

    Returns:
        A function as `updating_passes` returns it, for neurons and positions.

    Example:
        >>> import torch
        >>> from carelab.causal.columns import column_passes
        >>> from carelab.causal.pieces import Suffix, piece_of
        >>> from carelab.records import Neuron
        >>> suffix = Suffix(head=(torch.nn.ReLU(),), linear=torch.nn.Linear(3, 2), tail=())
        >>> run = column_passes(suffix, [], [piece_of(suffix, torch.rand(3, 5), slice(0, 5))], 64)
        >>> [logits.shape for *_, logits in run([Neuron("linear1", 0)], torch.rand(1, 4))]
        [torch.Size([2, 4, 5])]
    """
    wide = suffix.rectifies and len(suffix.tail) == 2
    ranges = _ranges(pieces) if wide else ()

    def run(units: Sequence[Unit], values: Tensor) -> Iterator[Pass]:
        if values.ndim > 2 or not suffix.rectifies:
            return _columns(suffix, tail, pieces, most, units, values)
        together = _largest_divisor(values.shape[1], most // pieces[0].own.shape[-1])
        if wide and together == 1:
            return _wide_columns(suffix, pieces, ranges, units, values)
        return _relu_columns(suffix, pieces, together, units, values)

    return run


@no_type_check
def _columns(
    suffix: Suffix,
    tail: Sequence[Run],
    pieces: Sequence[Piece],
    most: int,
    units: Sequence[Unit],
    values: Tensor,
) -> Iterator[Pass]:
    """Single numbers, each read by one column of a fully connected map."""
    held = run_head(suffix, values.clone(), [unit.index for unit in units])
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
    pieces: Sequence[Piece],
    together: int,
    units: Sequence[Unit],
    values: Tensor,
) -> Iterator[Pass]:
    """Single numbers held at constants, before ReLUs and fully connected maps in turn.

    W relu(x + b) = W max(x, -b) + W b takes one pass over a layer where adding and rectifying
    take two. Its last term is the same for all rows: it joins what is added to the next layer, and
    so on to the logits, where all of it is added at once.
    """
    held, chosen, columns = _read_columns(suffix, pieces, units, values)
    maps = suffix.tail[1::2]
    added = [(columns[:, None] * held[..., None]).flatten(0, 1).T]
    for module in maps:
        bias = 0 if module.bias is None else module.bias[:, None]
        added.append(module.weight @ added[-1] + bias)
    by_value = [(-layer.T).contiguous() for layer in added[:-1]]
    # For each pass the bounds -b of every layer (neurons, values together, 1).
    bounds = [[one.T[..., None] for one in layer.split(together)] for layer in by_value]
    run = partial(_values_together, list(zip(*bounds, strict=True)), maps)
    for piece in pieces:
        whole = run(piece.untouched, piece.hidden.flatten(0, -2)[chosen], columns)
        whole += added[-1].T.unflatten(0, whole.shape[::2][:2]).movedim(-1, 1)[..., None]
        logits = whole.movedim(1, 0)
        # Joining the values of a pass with the passes takes a copy, if there are several.
        yield slice(None), piece.rows, logits[:, :, 0] if together == 1 else logits.flatten(1, 2)


@no_type_check
def _read_columns(
    suffix: Suffix, pieces: Sequence[Piece], units: Sequence[Unit], values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What the map reads for each value, which of its inputs that is, and their columns."""
    held = run_head(suffix, values.clone(), [unit.index for unit in units])
    read = [_flat_index((unit.index, *unit.position), pieces[0].own.shape[:-1]) for unit in units]
    chosen = torch.tensor(read, device=held.device)
    # One column after the other in memory, since each is read for every piece and value.
    return held, chosen, suffix.linear.weight.T[chosen]


@no_type_check
def _wide_columns(
    suffix: Suffix,
    pieces: Sequence[Piece],
    ranges: Sequence[tuple[Tensor, Tensor]],
    units: Sequence[Unit],
    values: Tensor,
) -> Iterator[Pass]:
    """The same before a wide layer and one map, where each call counts.

    Only what some row and some value bring to either side of its ReLU is rectified. What stays
    below adds nothing, and what stays above is linear: W (x - h w) + W b.
    """
    held, chosen, columns = _read_columns(suffix, pieces, units, values)
    live, above = _sides(ranges, held, chosen, columns)
    module = suffix.tail[1]
    added = (columns[:, None] * held[..., None]).flatten(0, 1)
    weight, linear = module.weight[:, live].contiguous(), module.weight[:, above].contiguous()
    rises = added[:, live] @ weight.T + added[:, above] @ linear.T
    rises = rises if module.bias is None else rises + module.bias
    bounds, slopes = -added[:, live], columns[:, above] @ linear.T
    columns = columns[:, live].contiguous()
    for piece in pieces:
        own = piece.hidden.flatten(0, -2)[chosen]
        results = _one_value_a_call(bounds, weight, piece.untouched[live], own, columns)
        if len(above):
            unbent = linear @ piece.untouched[above] - own[:, None] * slopes[..., None]
            results.unflatten(0, (len(own), -1)).add_(unbent[:, None])
        yield slice(None), piece.rows, results.add_(rises[..., None]).movedim(1, 0)


@no_type_check
def _sides(
    ranges: Sequence[tuple[Tensor, Tensor]], held: Tensor, chosen: Tensor, columns: Tensor
) -> tuple[Tensor | slice, Tensor]:
    """Outputs of a map that can be on either side of zero, and those that are always above it."""
    (lowest, highest), (low, high) = ranges
    farthest = torch.maximum(held.amax(dim=1) - lowest[chosen], highest[chosen] - held.amin(dim=1))
    reach = (columns.abs() * farthest[:, None]).amax(dim=0)
    above, below = low > reach, high <= -reach
    live = ~(above | below)
    # All of them without a copy.
    return slice(None) if live.all() else live.nonzero()[:, 0], above.nonzero()[:, 0]


# Both take all memory once: taken anew for each value, it costs more than the work.
@no_type_check
def _one_value_a_call(
    bounds: Tensor, weight: Tensor, untouched: Tensor, own: Tensor, columns: Tensor
) -> Tensor:
    """W max(x - h w, -b) for each unit's h and w and each of its values' b.

    Laid out as (passes, outputs, rows).
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
    return results


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
def _ranges(pieces: Sequence[Piece]) -> list[tuple[Tensor, Tensor]]:
    """Lowest and highest of each number that a fully connected map reads, and that it makes."""
    ends = [
        [part.flatten(0, -2).aminmax(dim=-1) for part in (piece.hidden, piece.untouched)]
        for piece in pieces
    ]
    return [
        (torch.stack(low).amin(dim=0), torch.stack(high).amax(dim=0))
        for low, high in (zip(*parts, strict=True) for parts in zip(*ends, strict=True))
    ]


@no_type_check
def _flat_index(place: Sequence[int], sizes: Sequence[int]) -> int:
    index = 0
    for at, size in zip(place, sizes, strict=True):
        index = index * size + at
    return index
