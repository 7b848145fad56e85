"""Selective guilt: how much a unit does for the fault, for each bit that it does for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carelab.causal.ablation import score_falls
from carelab.causal.uncertainty import mean_contrasts
from carelab.networks import hidden_neurons, logits
from carelab.properties import Property
from carelab.records import Evidence, Samples, Unit, UnitEffects

__all__ = [
    "absolute_effects",
    "against_passing",
    "by_margin",
    "selective_effects",
    "task_importance",
]


def task_importance(
    model: nn.Module,
    samples: Samples,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    draws: int = 2,
    batch_size: int = 32_768,
    progress: bool = False,
    generator: torch.Generator,
) -> UnitEffects:
    """Mean of max |change of a logit| when a unit takes its value at another sample.

    Logits are taken without their mean over the classes, which decides nothing. On inputs that
    behave, this is what the unit does for the network's ordinary work. Where the property
    compares probes, each is a setting of the cause (a sensitive value), and values are taken from
    the other sample at the same setting: what the cause itself does is not counted as work.

    Args:
        model: a sequential network in evaluation mode.
        samples: inputs that behave, more than `draws`.
        prop: the property, for its probes.
        units: the units; by default all hidden neurons, post-activation.
        draws: other samples that each sample takes values from.
        batch_size: rows a pass through the rest of the network; bounds the memory, and samples of
            one pass take values from each other.
        progress: show a bar.
        generator: puts the samples into the order in which they take values.

    Raises:
        ValueError: too few samples for the draws, an unknown unit, inputs of the wrong width, a
            network in training mode, or one that is not sequential.

    Source: resample ablation: Chan et al., Causal Scrubbing (2022).

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records
        >>> from carelab.causal.selectivity import task_importance
        >>> g, rows = torch.Generator().manual_seed(0), records.Samples(inputs=torch.eye(3))
        >>> model = networks.mlp(3, (4,), 2, generator=g)
        >>> other = properties.TargetClass(target=1)
        >>> bool((task_importance(model, rows, other, generator=g).effect >= 0).all())
        True
    """
    if not 1 <= draws < len(samples):
        raise ValueError(
            f"draws: got {draws} of {len(samples)} samples; allowed: 1 to {len(samples) - 1}"
        )
    chosen = tuple(hidden_neurons(model) if units is None else units)
    order = torch.randperm(len(samples), generator=generator)
    falls = score_falls(
        model,
        samples.take(order),
        _LogitChange(model=model, prop=prop),
        chosen,
        [partial(_taken, shift) for shift in range(1, draws + 1)],
        batch_size=batch_size,
        progress=progress,
    )
    # Untouched logits differ from themselves by rounding alone, which must not make it negative.
    changes = (fall.neg().clamp(min=0) for _, fall in falls)
    return mean_contrasts("task importance", chosen, changes)


def selective_effects(
    effects: UnitEffects, importance: UnitEffects, *, floor: float = 0.02
) -> UnitEffects:
    """|effect| / (importance + floor x largest |effect|): the fault bought by a bit of the task.

    A neuron of the task that the cause happens to move has an effect too, but also much to do
    where nothing is wrong; a neuron that serves the fault alone has not. The floor keeps units
    apart that matter for neither; it says from which share of the largest effect on an effect
    counts in full.

    Args:
        effects: effects on the fault, in logits.
        importance: effects on the task of the same units in the same order, in logits.
        floor: share of the largest effect, above 0.

    Returns:
        The ratios, with delta-method errors that take the two as independent and the floor as
        given.

    Raises:
        ValueError: other units, a floor of 0 or less, or a negative importance.

    Example:
        >>> import torch
        >>> from carelab import causal, records
        >>> from carelab.causal.selectivity import selective_effects
        >>> units = (records.Neuron("relu1", 0), records.Neuron("relu1", 1))
        >>> fault = causal.mean_contrasts("fault", units, [torch.tensor([[1.0, 1.0], [1.0, 1.0]])])
        >>> task = causal.mean_contrasts("task", units, [torch.tensor([[0.0, 0.0], [0.9, 0.9]])])
        >>> [round(guilt, 2) for guilt in selective_effects(fault, task, floor=0.1).effect.tolist()]
        [10.0, 1.0]
    """
    if effects.units != importance.units:
        raise ValueError("importance: got other units than effects; allowed: the same, in order")
    if floor <= 0:
        raise ValueError(f"floor: got {floor}; allowed: above 0")
    if bool((importance.effect < 0).any()):
        raise ValueError("importance: got a negative number; allowed: 0 or more")
    size = effects.effect.abs()
    most = float(size.max())
    # Where nothing has an effect, all ratios are 0, whatever the floor.
    whole = importance.effect + (floor * most if most > 0 else 1.0)
    along, against = effects.effect.sign() / whole, -size / whole.square()
    return UnitEffects(
        measure=f"selective {effects.measure}",
        units=effects.units,
        effect=size / whole,
        covariance=_scaled(effects.covariance, along) + _scaled(importance.covariance, against),
        samples=min(effects.samples, importance.samples),
    )


def absolute_effects(effects: UnitEffects) -> UnitEffects:
    """|effect| of each unit: how much it does to the outcome, whichever way it pushes.

    A unit that holds a fault back at its full height is a part of it like those that push. The
    covariances keep their size; close to 0, where the sign is not sure, they are approximate.

    Args:
        effects: signed effects.

    Example:
        >>> import torch
        >>> from carelab import causal, records
        >>> from carelab.causal.selectivity import absolute_effects
        >>> units = (records.Neuron("relu1", 0),)
        >>> fall = causal.mean_contrasts("fall", units, [torch.tensor([[-1.0, -3.0]])])
        >>> absolute_effects(fall).effect.item()
        2.0
    """
    sign = torch.where(effects.effect < 0, -1.0, 1.0).to(effects.effect)
    return UnitEffects(
        measure=f"|{effects.measure}|",
        units=effects.units,
        effect=effects.effect.abs(),
        covariance=_scaled(effects.covariance, sign),
        samples=effects.samples,
    )


def against_passing(evidence: Evidence, prop: Property, *, generator: torch.Generator) -> Evidence:
    """The same evidence with random passing samples for references, each as often as any other.

    A reference without the cause is close to its violating input, so that it moves only what
    this one way out of the fault needs; passing samples differ from it in every way there is. A
    property of several probes makes its own comparison, and keeps its references.

    Args:
        evidence: the evidence.
        prop: the property.
        generator: draws the passing samples.

    Example:
        >>> import torch
        >>> from carelab import properties, records
        >>> from carelab.causal.selectivity import against_passing
        >>> box = properties.forbidden_class(1, 2)
        >>> bad, good = (records.Samples(inputs=torch.full((3, 1), x)) for x in (1.0, 0.0))
        >>> evidence = records.Evidence(violating=bad, references=bad, passing=good)
        >>> against_passing(evidence, box, generator=torch.Generator()).references.inputs.tolist()
        [[0.0], [0.0], [0.0]]
    """
    if len(prop.probes(evidence.violating.inputs[:1])) > 1:
        return evidence
    count, rows = len(evidence.violating), len(evidence.passing)
    rounds = [torch.randperm(rows, generator=generator) for _ in range(-(-count // rows))]
    drawn = evidence.passing.take(torch.cat(rounds)[:count])
    return Evidence(violating=evidence.violating, references=drawn, passing=evidence.passing)


def by_margin(prop: Property) -> Property:
    """The same property, scored by minus its margin: in logits, which do not saturate.

    Args:
        prop: the property.

    Example:
        >>> import torch
        >>> from carelab import properties
        >>> from carelab.causal.selectivity import by_margin
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> by_margin(fair).name
        'individual fairness'
    """
    return _ByMargin(prop=prop)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _ByMargin:
    """A property whose score is minus its margin."""

    prop: Property

    @property
    def name(self) -> str:
        return self.prop.name

    def probes(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "probes batch ..."]:
        return self.prop.probes(inputs)

    def score(
        self, outputs: Float[Tensor, "*runs probes batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        return -self.prop.margin(outputs, samples)

    def margin(
        self, outputs: Float[Tensor, "*runs probes batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        return self.prop.margin(outputs, samples)

    def rate(
        self, outputs: Float[Tensor, "*runs probes batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs"]:
        return self.prop.rate(outputs, samples)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _LogitChange:
    """Outputs must stay as they are; the score is the largest change of a centred logit."""

    model: nn.Module
    prop: Property
    name: str = "unchanged outputs"

    def probes(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "probes batch ..."]:
        probes = self.prop.probes(inputs)
        # The first of several is the input with its own setting of the cause.
        return probes[1:] if len(probes) > 1 else probes

    def score(
        self, outputs: Float[Tensor, "*runs probes batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        probes = self.probes(samples.inputs)
        untouched = logits(self.model, probes.flatten(0, 1)).unflatten(0, probes.shape[:2])
        change = outputs - untouched
        return (change - change.mean(dim=-1, keepdim=True)).abs().amax(dim=-1).mean(dim=-2)

    def margin(
        self, outputs: Float[Tensor, "*runs probes batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs batch"]:
        return -self.score(outputs, samples)

    def rate(
        self, outputs: Float[Tensor, "*runs probes batch classes"], samples: Samples
    ) -> Float[Tensor, "*runs"]:
        return (self.score(outputs, samples) > 0).to(outputs.dtype).mean(dim=-1)


def _taken(shift: int, units: tuple[Unit, ...], before: Tensor, samples: slice) -> Tensor:
    """Values that units have at the sample so many places further on, at the same probe."""
    moved = before.roll(-shift, dims=1)
    places: list[tuple[slice | int, ...]] = [
        (slice(None), slice(None), *unit.place) for unit in units
    ]
    return torch.stack([moved[place] for place in places])[:, None]


def _scaled(
    covariance: Float[Tensor, "units units"], factors: Float[Tensor, " units"]
) -> Float[Tensor, "units units"]:
    return factors[:, None] * covariance * factors[None, :]
