"""Effects of patching: a unit is given the value that it has without the cause, or with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.causal.ablation import score_falls
from carelab.causal.outcomes import Replacement
from carelab.causal.recording import run_recording
from carelab.causal.uncertainty import mean_contrasts
from carelab.networks import check_evaluation_mode, check_inputs, hidden_neurons
from carelab.properties import Property
from carelab.records import Samples, Unit, UnitEffects

__all__ = [
    "first_probe_values",
    "patching_average",
    "patching_effects",
    "patching_gain",
    "reference_values",
]


def patching_effects(
    model: nn.Module,
    samples: Samples,
    prop: Property,
    *,
    references: Samples | None = None,
    units: Sequence[Unit] | None = None,
    batch_size: int = 32_768,
    progress: bool = False,
) -> UnitEffects:
    """E[y(x) - y(x; unit := its value at the reference)]: how much curing the unit helps.

    Positive: the unit carries the fault. Everything else of the run stays as it is, so that the
    effect is that of the paths through the unit alone. Two units of which each is enough for the
    fault show no effect here, but do in `patching_gain`.

    Args:
        model: a sequential network in evaluation mode.
        samples: inputs that show the fault.
        prop: the property whose score is y.
        references: row by row the same inputs without the cause; the unit gets, at each probe,
            its value at the same probe of the reference. By default the first probe of each
            sample is the reference of all its probes, which is what a property needs that
            compares probes with each other, such as individual fairness.
        units: neurons, positions, channels or whole layers; by default all hidden neurons.
        batch_size: rows a pass through the rest of the network; bounds the memory.
        progress: show a bar.

    Returns:
        The effect of each unit, in the order of the units, with the covariance between units.

    Raises:
        ValueError: no references for a property of one probe, references that are not paired
            with the samples, fewer than two samples, an unknown unit, inputs of the wrong width,
            a network in training mode, or one that is not sequential.

    Source: Vig et al., Investigating Gender Bias in Language Models Using Causal Mediation
        Analysis (2020); Meng et al., Locating and Editing Factual Associations in GPT (2022).

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> effects = causal.patching_effects(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> effects.covariance.shape
        torch.Size([4, 4])
    """
    chosen = tuple(hidden_neurons(model) if units is None else units)
    cured = _cured(model, samples, prop, references, chosen, batch_size, progress)
    return mean_contrasts("fall when cured", chosen, cured)


def patching_gain(
    model: nn.Module,
    samples: Samples,
    prop: Property,
    *,
    references: Samples | None = None,
    units: Sequence[Unit] | None = None,
    batch_size: int = 32_768,
    progress: bool = False,
) -> UnitEffects:
    """E[y(r; unit := its value at the sample) - y(r)]: how much the unit alone brings back.

    `patching_effects` the other way round: r is the reference's run, in which the unit gets the
    value that it has under the cause. Positive: the unit carries the fault. Two units that only
    together are enough for the fault show no effect here, but do in `patching_effects`.

    Args:
        model: a sequential network in evaluation mode.
        samples: inputs that show the fault.
        prop: the property whose score is y.
        references: row by row the same inputs without the cause. By default every probe of the
            reference's run is the first probe of the sample.
        units: neurons, positions, channels or whole layers; by default all hidden neurons.
        batch_size: rows a pass through the rest of the network; bounds the memory.
        progress: show a bar.

    Returns:
        The effect of each unit, in the order of the units, with the covariance between units.

    Raises:
        ValueError: as `patching_effects`.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> gain = causal.patching_gain(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> bool((gain.effect >= 0).all())
        True
    """
    chosen = tuple(hidden_neurons(model) if units is None else units)
    infected = _infected(model, samples, prop, references, chosen, batch_size, progress)
    return mean_contrasts("gain when infected", chosen, infected)


def patching_average(
    model: nn.Module,
    samples: Samples,
    prop: Property,
    *,
    references: Samples | None = None,
    units: Sequence[Unit] | None = None,
    batch_size: int = 32_768,
    progress: bool = False,
) -> UnitEffects:
    """Mean of `patching_effects` and `patching_gain`, with the errors of that mean.

    It is the Shapley value of the unit in the game of two players, the unit and all the rest: a
    unit counts that is needed for the fault, or enough for it, and one that is both counts twice
    as much.

    Args:
        model: a sequential network in evaluation mode.
        samples: inputs that show the fault.
        prop: the property whose score is y.
        references: row by row the same inputs without the cause, as for `patching_effects`.
        units: neurons, positions, channels or whole layers; by default all hidden neurons.
        batch_size: rows a pass through the rest of the network; bounds the memory.
        progress: show bars.

    Returns:
        The effect of each unit, in the order of the units, with the covariance between units.

    Raises:
        ValueError: as `patching_effects`.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> both = causal.patching_average(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> len(both.effect)
        4
    """
    chosen = tuple(hidden_neurons(model) if units is None else units)
    # One bar for the two that run side by side.
    cured = _cured(model, samples, prop, references, chosen, batch_size, progress)
    infected = _infected(model, samples, prop, references, chosen, batch_size, False)
    means = ((fall + gain) / 2 for fall, gain in zip(cured, infected, strict=True))
    return mean_contrasts("mean of fall when cured and gain when infected", chosen, means)


def reference_values(model: nn.Module, references: Samples, prop: Property) -> Replacement:
    """What a unit is at the same probe of the reference of the same row.

    Args:
        model: a sequential network in evaluation mode.
        references: one row for each sample that is going to be patched.
        prop: the property that makes the probes.

    Raises:
        ValueError: inputs that the network cannot take, or a network in training mode.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> others = records.Samples(inputs=torch.rand(9, 3))
        >>> patch = causal.reference_values(model, others, fair)
        >>> patch(networks.hidden_neurons(model), torch.rand(3, 5, 4), slice(0, 5)).shape
        torch.Size([4, 1, 3, 5])
    """
    check_evaluation_mode(model)
    check_inputs(model, references.inputs)
    last: tuple[str, slice] = ("", slice(0, 0))
    recorded = references.inputs

    def replaced(units: tuple[Unit, ...], before: Tensor, samples: slice) -> Tensor:
        nonlocal last, recorded
        if (units[0].layer, samples) != last:
            # Only the latest layer and block are kept: memory stays that of one block.
            last = (units[0].layer, samples)
            probes = prop.probes(references.inputs[samples])
            # Recorded as the engine does: a unit that is the same there is so to the last bit.
            outputs, _ = run_recording(model, probes.flatten(0, 1), [last[0]])
            recorded = outputs[last[0]].unflatten(0, probes.shape[:2])
        return _values_of(units, recorded)

    return replaced


def first_probe_values(units: tuple[Unit, ...], before: Tensor, samples: slice) -> Tensor:
    """What a unit is at the first probe of the same sample, for all of its probes.

    Args:
        units: units of one layer and one shape (group).
        before: the layer's activations (probes, batch, ...).
        samples: which samples these are.

    Returns:
        Values (group, 1, probes, batch, *shape of a unit).

    Example:
        >>> import torch
        >>> from carelab import causal, records
        >>> before = torch.tensor([[[1.0]], [[2.0]]])
        >>> causal.first_probe_values((records.Neuron("relu1", 0),), before, slice(0, 1)).flatten()
        tensor([1., 1.])
    """
    return _values_of(units, before[:1].expand_as(before))


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _AtFirstProbe:
    """A property all of whose probes are the first one: the run in which nothing differs."""

    prop: Property

    @property
    def name(self) -> str:
        return self.prop.name

    def probes(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "probes batch ..."]:
        probes = self.prop.probes(inputs)
        return probes[:1].expand_as(probes).contiguous()

    def score(
        self, outputs: Float[Tensor, "*runs probes batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        return self.prop.score(outputs, samples)

    def margin(
        self, outputs: Float[Tensor, "*runs probes batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        return self.prop.margin(outputs, samples)

    def rate(
        self, outputs: Float[Tensor, "*runs probes batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs"]:
        return self.prop.rate(outputs, samples)


def _cured(
    model: nn.Module,
    samples: Samples,
    prop: Property,
    references: Samples | None,
    units: Sequence[Unit],
    batch_size: int,
    progress: bool,
) -> Iterator[Tensor]:
    """What the score of each sample falls by (units, batch), block by block."""
    _check_references(samples, prop, references)
    patch = first_probe_values if references is None else reference_values(model, references, prop)
    falls = score_falls(
        model, samples, prop, units, patch, batch_size=batch_size, progress=progress
    )
    return (fall for _, fall in falls)


def _infected(
    model: nn.Module,
    samples: Samples,
    prop: Property,
    references: Samples | None,
    units: Sequence[Unit],
    batch_size: int,
    progress: bool,
) -> Iterator[Tensor]:
    """What the score of each reference rises by (units, batch), block by block."""
    _check_references(samples, prop, references)
    run, judged = (samples, _AtFirstProbe(prop=prop)) if references is None else (references, prop)
    patch = reference_values(model, samples, prop)
    falls = score_falls(model, run, judged, units, patch, batch_size=batch_size, progress=progress)
    return (-fall for _, fall in falls)


def _check_references(samples: Samples, prop: Property, references: Samples | None) -> None:
    if references is not None and len(references) != len(samples):
        raise ValueError(
            f"references: got {len(references)} for {len(samples)} samples; allowed: one for each, "
            "row by row"
        )
    if references is None and len(samples) and len(prop.probes(samples.inputs[:1])) < 2:
        raise ValueError(
            f"references: got none, and {prop.name} has a single probe, so that nothing tells the "
            "cause from its absence; allowed: one reference for each sample"
        )


def _values_of(
    units: Sequence[Unit], recorded: Float[Tensor, "probes batch ..."]
) -> Float[Tensor, "group 1 probes batch ..."]:
    values = []
    for unit in units:
        place: tuple[int | slice, ...] = (slice(None), slice(None), *unit.place)
        values.append(recorded[place])
    return torch.stack(values)[:, None]
