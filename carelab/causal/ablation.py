"""Effects of cutting a path: a unit replaced by zero, its mean, or its value elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.causal.interventions import activations
from carelab.causal.outcomes import Replacement, intervened_scores
from carelab.causal.uncertainty import mean_contrasts
from carelab.networks import check_evaluation_mode, hidden_neurons
from carelab.properties import Property
from carelab.records import Samples, Unit, UnitEffects

__all__ = [
    "ablation_effects",
    "mean_activation",
    "resampled_activation",
    "score_falls",
    "zero_activation",
]


def ablation_effects(
    model: nn.Module,
    samples: Samples,
    prop: Property,
    *,
    replacement: Replacement | Sequence[Replacement],
    units: Sequence[Unit] | None = None,
    batch_size: int = 32_768,
    progress: bool = False,
) -> UnitEffects:
    """E[y - y(unit := replacement)]: how much the score falls when the unit is cut.

    Positive: the unit carries the fault. The samples are paired with themselves, so that the
    errors are those of the differences.

    Args:
        model: a sequential network in evaluation mode.
        samples: inputs that show the fault.
        prop: the property whose score is y.
        replacement: `zero_activation`, `mean_activation(...)`, or another function of the kind of
            `outcomes.Replacement` that returns one value per unit; or several, such as
            `resampled_activation(...)`, over which y(unit := replacement) is averaged.
        units: neurons, positions, channels or whole layers; by default all hidden neurons.
        batch_size: rows a pass through the rest of the network; bounds the memory.
        progress: show a bar.

    Returns:
        The effect of each unit, in the order of the units, with the covariance between units.

    Raises:
        ValueError: fewer than two samples, no replacement, an unknown unit, inputs of the wrong
            width, a network in training mode, or one that is not sequential.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> data, zero = records.Samples(inputs=torch.rand(9, 3)), causal.zero_activation
        >>> causal.ablation_effects(model, data, fair, replacement=zero).effect.shape
        torch.Size([4])
    """
    chosen = tuple(hidden_neurons(model) if units is None else units)
    falls = score_falls(
        model, samples, prop, chosen, replacement, batch_size=batch_size, progress=progress
    )
    return mean_contrasts("fall when cut", chosen, (fall for _, fall in falls))


def score_falls(
    model: nn.Module,
    samples: Samples,
    prop: Property,
    units: Sequence[Unit],
    replacement: Replacement | Sequence[Replacement],
    *,
    batch_size: int = 32_768,
    progress: bool = False,
) -> Iterator[tuple[slice, Float[Tensor, "units batch"]]]:
    """y(x) - y(x; unit := replacement) of every unit and sample, block of samples by block.

    Args:
        model: a sequential network in evaluation mode.
        samples: the samples.
        prop: the property whose score is y.
        units: the units, each only once.
        replacement: what they are replaced by; several are averaged over.
        batch_size: rows a pass through the rest of the network; bounds the memory.
        progress: show a bar.

    Returns:
        An iterator over blocks: which samples, and what their score falls by (units, batch).

    Raises:
        ValueError: no replacement, or what `outcomes.intervened_scores` refuses.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> units, data = networks.hidden_neurons(model), records.Samples(inputs=torch.rand(9, 3))
        >>> blocks = causal.score_falls(model, data, fair, units, causal.zero_activation)
        >>> [(rows.stop, tuple(falls.shape)) for rows, falls in blocks]
        [(9, (4, 9))]
    """
    several = (replacement,) if callable(replacement) else tuple(replacement)
    if not several:
        raise ValueError("replacement: got none; allowed: one function or several")
    blocks = intervened_scores(
        model,
        samples,
        prop,
        units,
        several[0] if len(several) == 1 else _one_after_another(several),
        steps=len(several),
        batch_size=batch_size,
        progress=progress,
    )

    def gathered() -> Iterator[tuple[slice, Tensor]]:
        where, falls = slice(0, 0), torch.empty(0)
        for block in blocks:
            if block.samples != where:
                if len(falls):
                    yield where, falls
                where = block.samples
                falls = block.untouched.new_empty(len(units), len(block.untouched))
            # Subtracted before the mean over steps: what changes nothing falls by exactly 0.
            falls[block.rows] = (block.untouched - block.scores).mean(dim=1)
        yield where, falls

    return gathered()


def zero_activation(units: tuple[Unit, ...], before: Tensor, samples: slice) -> Tensor:
    """0 for every unit: the replacement of zero ablation.

    Args:
        units: units of one layer (group).
        before: the layer's activations (probes, batch, ...).
        samples: which samples these are.

    Returns:
        Zeros (group, 1).

    Example:
        >>> import torch
        >>> from carelab import causal, records
        >>> units = (records.Neuron("relu1", 0), records.Neuron("relu1", 1))
        >>> causal.zero_activation(units, torch.rand(1, 5, 3), slice(0, 5)).tolist()
        [[0.0], [0.0]]
    """
    return before.new_zeros(len(units), 1)


def mean_activation(
    model: nn.Module, background: Samples, *, batch_size: int = 8192
) -> Replacement:
    """Mean of each unit over the background, position by position: for mean ablation.

    The means of a layer are taken when the first of its units is replaced, and kept.

    Args:
        model: a sequential network in evaluation mode.
        background: samples that the mean runs over, such as inputs that behave.
        batch_size: inputs a pass.

    Raises:
        ValueError: no background, or a network in training mode.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> mean = causal.mean_activation(model, records.Samples(inputs=torch.rand(50, 3)))
        >>> mean(networks.hidden_neurons(model), torch.rand(1, 5, 4), slice(0, 5)).shape
        torch.Size([4, 1, 1, 5])
    """
    check_evaluation_mode(model)
    if len(background) == 0:
        raise ValueError("background: got no sample; allowed: at least one to take the mean of")
    means: dict[str, Tensor] = {}

    def replaced(units: tuple[Unit, ...], before: Tensor, samples: slice) -> Tensor:
        layer = units[0].layer
        if layer not in means:
            total = torch.zeros((), dtype=torch.float64)
            for block in background.inputs.split(batch_size):
                output = activations(model, block, [layer])[layer]
                total = total + output.sum(dim=0, dtype=torch.float64).cpu()
            means[layer] = total / len(background)
        mean = torch.stack([means[layer][unit.place] for unit in units]).to(before)
        probes, batch = before.shape[:2]
        return mean[:, None, None, None].expand(-1, 1, probes, batch, *mean.shape[1:])

    return replaced


def resampled_activation(
    model: nn.Module,
    background: Samples,
    *,
    draws: int = 8,
    batch_size: int = 8192,
    generator: torch.Generator,
) -> tuple[Replacement, ...]:
    """Values that the unit has at random rows of the background: for resample ablation.

    Each draw gives sample i another row than row i, so that the samples may be their own
    background, and no row twice. All units take theirs from the same row, and all probes of a
    sample have the same value, which cuts the path from what differs between probes. Errors of
    effects take the background as given.

    Args:
        model: a sequential network in evaluation mode.
        background: samples to draw from; the activations of layers in use are kept.
        draws: how many rows each sample draws, below the number of background rows.
        batch_size: inputs a pass.
        generator: draws the rows.

    Returns:
        One replacement a draw; `ablation_effects` averages over them.

    Raises:
        ValueError: too many draws for the background, none, or a network in training mode.

    Source: Chan et al., Causal Scrubbing (2022), for resample ablation.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> data, draws = records.Samples(inputs=torch.rand(50, 3)), torch.Generator()
        >>> len(causal.resampled_activation(model, data, draws=3, generator=draws))
        3
    """
    check_evaluation_mode(model)
    rows = len(background)
    if not 1 <= draws < rows:
        raise ValueError(
            f"draws: got {draws} of a background of {rows} samples; allowed: 1 to {rows - 1}"
        )
    # Rows stand in a random circle; a draw takes the row so many places further on.
    circle = torch.randperm(rows, generator=generator)
    place = circle.argsort()
    shifts = 1 + torch.randperm(rows - 1, generator=generator)[:draws]
    kept: dict[str, Tensor] = {}

    def draw(shift: int) -> Replacement:
        def replaced(units: tuple[Unit, ...], before: Tensor, samples: slice) -> Tensor:
            layer = units[0].layer
            if layer not in kept:
                kept[layer] = activations(model, background.inputs, [layer], batch_size=batch_size)[
                    layer
                ]
            own = torch.arange(samples.start, samples.stop) % rows
            drawn = circle[(place[own] + shift) % rows].to(before.device)
            values = torch.stack([_at(unit, kept[layer])[drawn] for unit in units])
            probes = before.shape[0]
            return values[:, None, None].expand(-1, 1, probes, *values.shape[1:])

        return replaced

    return tuple(draw(int(shift)) for shift in shifts)


def _one_after_another(replacements: Sequence[Replacement]) -> Callable[..., Tensor]:
    """The replacements as the steps of one."""

    def replaced(units: tuple[Unit, ...], before: Tensor, samples: slice) -> Tensor:
        parts = [replacement(units, before, samples) for replacement in replacements]
        shape = max((part.shape for part in parts), key=len)
        # Constants beside values of each sample: the constants hold for all samples.
        return torch.cat(
            [
                part.reshape(*part.shape, *[1] * (len(shape) - part.ndim)).expand(shape)
                for part in parts
            ],
            dim=1,
        )

    return replaced


def _at(unit: Unit, output: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
    place: tuple[int | slice, ...] = (slice(None), *unit.place)
    return output[place]
