"""The one loop under every causal effect: scores of all samples with some units replaced."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from carelab.causal.interventions import check_unit
from carelab.causal.recording import run_recording
from carelab.causal.suffixes import suffix_runner, unread_units
from carelab.networks import check_evaluation_mode, check_inputs, ordered_modules
from carelab.properties import Property
from carelab.records import Samples, Unit

__all__ = ["IntervenedBlock", "Replacement", "intervened_scores"]

# Some units of one layer and one shape, the layer's activations at every probe of a block of
# samples (probes, batch, ...), and which samples those are, to what the units are replaced by:
# constants (group, steps), or values (group, steps, probes, batch, *shape of a unit).
Replacement = Callable[[tuple[Unit, ...], Tensor, slice], Tensor]

# Numbers that the recorded activations of one block of samples may take together.
_MOST_RECORDED = 2**26
# Rows that the units replaced together may take, over all their steps: more of them share what a
# call costs.
_MOST_HELD = 2**17


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class IntervenedBlock:
    """Scores of a block of samples while each of some units is replaced.

    Args:
        rows: positions of the units in the sequence given (group).
        samples: which samples.
        scores: the property's score under each intervention (group, steps, batch).
        untouched: the score without intervention (batch).
    """

    rows: Int[Tensor, " group"]
    samples: slice
    scores: Float[Tensor, "group steps batch"]
    untouched: Float[Tensor, " batch"]


def intervened_scores(
    model: nn.Module,
    samples: Samples,
    prop: Property,
    units: Sequence[Unit],
    replacement: Replacement,
    *,
    steps: int = 1,
    batch_size: int = 32_768,
    progress: bool = False,
) -> Iterator[IntervenedBlock]:
    """y(x; unit := replacement) of every unit, step and sample, block by block.

    The part of the network before a layer runs once for each block of samples; for every unit
    only what follows is run again. All units of one block come before the next block, so that
    covariances between units can be summed on the way. A sample in which the unit has the value
    already, at every probe, keeps its untouched score bit for bit.

    Args:
        model: a sequential network in evaluation mode.
        samples: the samples.
        prop: the property whose score is the outcome; all its probes run under the intervention.
        units: neurons, channels, positions of feature maps or whole layers, each only once.
        replacement: what units of one layer and one shape are replaced by. It is called with
            the units (group), the layer's activations (probes, batch, ...) and the samples they
            belong to, and returns constants (group, steps) or one value for every probe and
            sample (group, steps, probes, batch, *shape of a unit).
        steps: how many replacements it returns for each unit.
        batch_size: rows a pass through the rest of the network; bounds the memory.
        progress: show a bar.

    Returns:
        An iterator over blocks, each of one layer and one shape of unit.

    Raises:
        ValueError: no sample or unit, a unit that comes twice or that the network does not have,
            a replacement of another shape, inputs of the wrong width, a network in training
            mode, one that normalises by the batch itself, or one that is not sequential.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> units, data = networks.hidden_neurons(model), records.Samples(inputs=torch.rand(9, 3))
        >>> zero = lambda units, activations, rows: torch.zeros(len(units), 1)
        >>> next(causal.outcomes.intervened_scores(model, data, fair, units, zero)).scores.shape
        torch.Size([4, 1, 9])
    """
    check_evaluation_mode(model)
    if len(samples) == 0:
        raise ValueError("samples: got none; allowed: at least one sample")
    if not units or len(set(units)) < len(units):
        raise ValueError(f"units: got {len(units)}; allowed: at least one, and each only once")
    if steps < 1 or batch_size < 1:
        raise ValueError(
            f"steps, batch_size: got {steps}, {batch_size}; allowed: at least 1 step, 1 row"
        )
    check_inputs(model, samples.inputs)
    _check_rows_are_apart(model)
    layers = dict.fromkeys(unit.layer for unit in units)
    recorded, _ = run_recording(model, samples.inputs[:1], layers)
    shapes = {layer: output.shape[1:] for layer, output in recorded.items()}
    for unit in units:
        check_unit(unit, shapes[unit.layer])
    return _blocks(
        model, samples, prop, tuple(units), replacement, shapes, steps, batch_size, progress
    )


def _blocks(
    model: nn.Module,
    samples: Samples,
    prop: Property,
    units: tuple[Unit, ...],
    replacement: Replacement,
    shapes: Mapping[str, torch.Size],
    steps: int,
    batch_size: int,
    progress: bool,
) -> Iterator[IntervenedBlock]:
    runners = {layer: suffix_runner(model, layer) for layer in shapes}
    unread = torch.tensor(unread_units(model, units, shapes))
    probes = len(prop.probes(samples.inputs[:1]))
    recorded_numbers = sum(shape.numel() for shape in shapes.values())
    most_rows = min(batch_size // steps, _MOST_RECORDED // max(1, recorded_numbers))
    block_rows = max(1, most_rows // probes)
    group = max(1, _MOST_HELD // (steps * probes * min(block_rows, len(samples))))
    starts = range(0, len(samples), block_rows)
    for start in tqdm(starts, desc="do-interventions", disable=not progress):
        where = slice(start, min(start + block_rows, len(samples)))
        block = samples.take(where)
        recorded, untouched = _run_untouched(model, block, prop, shapes)
        for layer, members in _alike(units, shapes):
            before = recorded[layer]
            with torch.inference_mode():
                run_held = runners[layer](before)
            for rows in members.split(group):
                held = tuple(units[row] for row in rows.tolist())
                with torch.inference_mode():
                    values = replacement(held, before, where)
                    _check_replacement(values, held, before, steps)
                    same = _unchanged(held, before, values)
                    same |= unread[rows, None, None].to(same.device)
                    scores = untouched.expand(same.shape).clone()
                    moved = (~same).flatten(1).any(dim=1).nonzero().flatten().tolist()
                    if moved:
                        logits = run_held([held[row] for row in moved], values[moved])
                        replaced = prop.score(logits, block)
                        scores[moved] = torch.where(same[moved], untouched, replaced)
                # Cloned outside inference mode: such tensors may be used and changed freely.
                yield IntervenedBlock(
                    rows=rows, samples=where, scores=scores.clone(), untouched=untouched.clone()
                )


def _alike(units: Sequence[Unit], layers: Collection[str]) -> Iterator[tuple[str, Tensor]]:
    """Layers, and positions of the units there that have one shape."""
    for layer in layers:
        by_axes: dict[int, list[int]] = {}
        for row, unit in enumerate(units):
            if unit.layer == layer:
                by_axes.setdefault(len(unit.place), []).append(row)
        for members in by_axes.values():
            yield layer, torch.tensor(members)


@torch.inference_mode()
def _run_untouched(
    model: nn.Module, block: Samples, prop: Property, layers: Collection[str]
) -> tuple[dict[str, Float[Tensor, "probes batch ..."]], Float[Tensor, " batch"]]:
    """Activations of the layers at every probe, and the scores without intervention."""
    inputs = prop.probes(block.inputs)
    recorded, outputs = run_recording(model, inputs.flatten(0, 1), layers)
    each = inputs.shape[:2]
    activations = {layer: output.unflatten(0, each) for layer, output in recorded.items()}
    return activations, prop.score(outputs.unflatten(0, each), block)


# As in the functions that it judges, checks of shapes would take as long as the work.
@no_type_check
def _unchanged(units: Sequence[Unit], before: Tensor, values: Tensor) -> Tensor:
    """Where a unit has its new value already, at every probe (group, steps, batch)."""
    rows = []
    for unit, value in zip(units, values.to(before), strict=True):
        own = before[(slice(None), slice(None), *unit.place)]
        numbers = tuple(range(2, own.ndim))
        if value.ndim > 1:
            same = value == own
            same = same.all(dim=[axis + 1 for axis in numbers]) if numbers else same
        elif numbers:
            low, high = own.amin(dim=numbers), own.amax(dim=numbers)
            held = value[:, None, None]
            same = (held == low) & (held == high)
        else:
            same = value[:, None, None] == own
        rows.append(same.all(dim=1))
    return torch.stack(rows)


def _check_rows_are_apart(model: nn.Module) -> None:
    for name, module in ordered_modules(model):
        normalises = isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        if normalises and module.running_mean is None:
            raise ValueError(
                f"model: {name} normalises by the batch itself, so that no sample has an outcome "
                "of its own; allowed: batch normalisation with running statistics"
            )


def _check_replacement(values: Tensor, units: Sequence[Unit], before: Tensor, steps: int) -> None:
    at: tuple[int, ...] = (0, 0, *units[0].place)
    constant = (len(units), steps)
    each = (*constant, *before.shape[:2], *before[at].shape)
    if tuple(values.shape) not in (constant, each):
        raise ValueError(
            f"replacement: returned shape {tuple(values.shape)}; allowed: {constant} for "
            f"constants, {each} for a value of each probe and sample"
        )
