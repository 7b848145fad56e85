"""Interactions: what two units do together that neither does alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from carelab.causal.interventions import activations, check_unit, do
from carelab.causal.outcomes import Replacement
from carelab.causal.uncertainty import streamed_mean
from carelab.networks import check_evaluation_mode, check_inputs, ordered_modules, split
from carelab.properties import Property
from carelab.records import Samples, Unit, UnitEffects

__all__ = ["PairInteractions", "pair_interactions"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PairInteractions:
    """Interaction of every two of some units, with its standard error.

    With E the fall of the score when units are replaced, the interaction of u and v is
    E(u, v) - E(u) - E(v): positive where either is enough for the fault, so that only replacing
    both helps; negative where both lie on one path, so that replacing the second adds nothing.

    Args:
        single: E of each unit by itself.
        interaction: of each two units (units, units); symmetric, zero on the diagonal.
        standard_error: of each interaction (units, units); zero on the diagonal.
    """

    single: UnitEffects
    interaction: Float[Tensor, "units units"]
    standard_error: Float[Tensor, "units units"]

    @property
    def units(self) -> tuple[Unit, ...]:
        """The units, in the order of every axis."""
        return self.single.units

    @property
    def joint(self) -> Float[Tensor, "units units"]:
        """E(u, v): fall of the score when both are replaced; on the diagonal E(u)."""
        both = self.single.effect[:, None] + self.single.effect[None, :] + self.interaction
        return both.diagonal_scatter(self.single.effect)


def pair_interactions(
    model: nn.Module,
    samples: Samples,
    prop: Property,
    units: Sequence[Unit],
    *,
    replacement: Replacement,
    batch_size: int = 8192,
    progress: bool = False,
) -> PairInteractions:
    """E(u, v) - E(u) - E(v), with E(.) = E[y - y(units := replacement)], of every two units.

    The units may stand in different layers: both are replaced by what they are replaced by
    alone, computed from the untouched run, while all else recomputes. Costs one run of the
    network behind the earlier unit for each pair, so give it the first units of a ranking.

    Args:
        model: a sequential network in evaluation mode.
        samples: inputs that show the fault.
        prop: the property whose score is y.
        units: at least two neurons, positions, channels or whole layers.
        replacement: `zero_activation`, `mean_activation(...)`, `first_probe_values`,
            `reference_values(...)`, or another function that returns one value for each unit.
        batch_size: rows a pass; bounds the memory.
        progress: show a bar.

    Returns:
        Single effects and interactions, with their standard errors.

    Raises:
        ValueError: fewer than two units or samples, a unit that comes twice or is unknown, a
            network in training mode, or one that is not sequential.

    Source: VanderWeele, Explanation in Causal Inference (2015), chapter 9: interaction on the
        additive scale.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4, 2), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> data, values = records.Samples(inputs=torch.rand(9, 3)), causal.first_probe_values
        >>> two = networks.hidden_neurons(model)[3:5]
        >>> causal.pair_interactions(model, data, fair, two, replacement=values).joint.shape
        torch.Size([2, 2])
    """
    _check(model, samples, units, batch_size)
    count = len(units)
    pairs = list(combinations(range(count), 2))
    first, second = torch.tensor(pairs).unbind(dim=1)

    def contrasts() -> Iterator[Float[Tensor, "rows batch"]]:
        falls = _falls(model, samples, prop, units, pairs, replacement, batch_size, progress)
        for fall in falls:
            single, both = fall[:count], fall[count:]
            yield torch.cat([single, both - single[first] - single[second]])

    mean, covariance, seen = streamed_mean(contrasts())
    error = covariance.diagonal().clamp(min=0).sqrt()
    return PairInteractions(
        single=UnitEffects(
            measure="fall when replaced",
            units=tuple(units),
            effect=mean[:count],
            covariance=covariance[:count, :count],
            samples=seen,
        ),
        interaction=_symmetric(mean[count:], first, second, count),
        standard_error=_symmetric(error[count:], first, second, count),
    )


@torch.no_grad()
def _falls(
    model: nn.Module,
    samples: Samples,
    prop: Property,
    units: Sequence[Unit],
    pairs: Sequence[tuple[int, int]],
    replacement: Replacement,
    batch_size: int,
    progress: bool,
) -> Iterator[Float[Tensor, "rows batch"]]:
    """What the score falls by when each unit, then each pair, is replaced."""
    depth = {name: number for number, (name, _) in enumerate(ordered_modules(model))}
    layers = list(dict.fromkeys(unit.layer for unit in units))
    rests = {layer: split(model, layer)[1] for layer in layers}
    together = [(row,) for row in range(len(units))] + list(pairs)
    block_rows = max(1, batch_size // len(prop.probes(samples.inputs[:1])))
    for start in range(0, len(samples), block_rows):
        where = slice(start, min(start + block_rows, len(samples)))
        block = samples.take(where)
        probes = prop.probes(block.inputs)
        recorded = activations(model, probes.flatten(0, 1), layers, batch_size=batch_size)
        for unit in units:
            check_unit(unit, recorded[unit.layer].shape[1:])
        shape = probes.shape[:2]
        values = [
            _for_each_row(replacement((unit,), recorded[unit.layer].unflatten(0, shape), where))
            for unit in units
        ]
        untouched = prop.score(model(probes.flatten(0, 1)).unflatten(0, shape), block)
        falls = []
        for rows in tqdm(together, desc="pairs", disable=not progress):
            held = {units[row]: values[row] for row in rows}
            layer = min((unit.layer for unit in held), key=depth.__getitem__)
            outputs = _run_held(rests[layer], recorded[layer], layer, held)
            falls.append(untouched - prop.score(outputs.unflatten(0, shape), block))
        yield torch.stack(falls)


def _run_held(
    rest: nn.Sequential,
    recorded: Float[Tensor, "rows ..."],
    layer: str,
    held: Mapping[Unit, Tensor],
) -> Float[Tensor, "rows classes"]:
    """Logits with the units of the layer overwritten, and those behind it held."""
    current = recorded.clone()
    later = {}
    for unit, value in held.items():
        if unit.layer == layer:
            place: tuple[int | slice, ...] = (slice(None), *unit.place)
            current[place] = value
        else:
            later[unit] = value
    with do(rest, later):
        return rest(current)


def _for_each_row(values: Tensor) -> Tensor:
    """(1, 1) to a constant, or (1, 1, probes, batch, ...) to one value a row (rows, ...)."""
    if values.shape[:2] != (1, 1) or values.ndim == 3:
        raise ValueError(
            f"replacement: returned shape {tuple(values.shape)} for one unit; allowed: (1, 1), or "
            "(1, 1, probes, batch, ...)"
        )
    return values[0, 0] if values.ndim == 2 else values[0, 0].flatten(0, 1)


def _symmetric(
    numbers: Float[Tensor, " pairs"], first: Tensor, second: Tensor, count: int
) -> Float[Tensor, "units units"]:
    square = numbers.new_zeros(count, count)
    square[first, second] = numbers
    square[second, first] = numbers
    return square


def _check(model: nn.Module, samples: Samples, units: Sequence[Unit], batch_size: int) -> None:
    check_evaluation_mode(model)
    check_inputs(model, samples.inputs)
    if len(units) < 2 or len(set(units)) < len(units):
        raise ValueError(f"units: got {len(units)}; allowed: at least two, and each only once")
    if len(samples) < 2 or batch_size < 1:
        raise ValueError(
            f"samples, batch_size: got {len(samples)}, {batch_size}; allowed: at least 2 samples, "
            "1 row"
        )
