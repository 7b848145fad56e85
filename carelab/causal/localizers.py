"""Localisers: ways to say how guilty each unit is, behind one protocol.

Patching, ablation and attribution give signed effects. A fault may have parts that hold it back
at its full height or until its cause appears, so that most localisers rank by the size of the
effect, which finds more of a planted fault than the sign does; the exceptions say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from carelab.causal.ablation import ablation_effects, mean_activation, zero_activation
from carelab.causal.attribution import gradient_activation_effects, integrated_gradient_effects
from carelab.causal.effects import neuron_effects
from carelab.causal.localization import expectation_drop, expectation_mean, expectation_range
from carelab.causal.magnitude import weight_magnitudes
from carelab.causal.patching import patching_average, patching_effects, patching_gain
from carelab.causal.selectivity import (
    absolute_effects,
    against_passing,
    by_margin,
    selective_effects,
    task_importance,
)
from carelab.causal.shapley import shapley_effects
from carelab.causal.spectrum import ochiai_effects, tarantula_effects
from carelab.networks import hidden_neurons
from carelab.properties import Property
from carelab.records import CausalEffects, Evidence, Neuron, Samples, Unit, UnitEffects

__all__ = ["LOCALIZERS", "Localizer"]

# Values that each neuron is held at. CARE takes 16 for fairness and 4 elsewhere.
_STEPS = 16


@runtime_checkable
class Localizer(Protocol):
    """A way to say how guilty each unit is of what the violating samples show.

    Higher is guiltier. By default all hidden neurons are ranked, post-activation; in a feature
    map these are the channels. Where the numbers come from samples, they carry their errors.

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records
        >>> from carelab.causal.localizers import LOCALIZERS
        >>> g = torch.Generator().manual_seed(0)
        >>> rows = records.Samples(inputs=torch.eye(3))
        >>> model = networks.mlp(3, (4,), 2, generator=g)
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> evidence = records.Evidence(violating=rows, references=rows, passing=rows)
        >>> effects = LOCALIZERS["patching"](model, evidence, fair, generator=g)
    """

    def __call__(
        self,
        model: nn.Module,
        evidence: Evidence,
        prop: Property,
        *,
        units: Sequence[Unit] | None = None,
        generator: torch.Generator,
    ) -> UnitEffects:
        """The guilt of each unit, in the order of the units."""
        ...


def _care_mean(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """CARE's published ranking for fairness: mean over v of E[y | do(neuron = v)]."""
    seen = evidence.violating
    return expectation_mean(_curves(model, seen, seen, prop, units))


def _care_range(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """CARE's published ranking for backdoors and safety: largest minus smallest E[y | do].

    As published, over inputs that behave, with values from the range over these and the violating
    ones. A property that makes its own comparison is asked on the violating ones.
    """
    several = len(prop.probes(evidence.violating.inputs[:1])) > 1
    samples = evidence.violating if several else evidence.references
    return expectation_range(_curves(model, samples, _both(evidence), prop, units))


def _mediation_drop(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """Mean over v of y - E[y | do(neuron = v)]: how much holding the neuron stops the outcome."""
    curves = _curves(model, evidence.violating, _both(evidence), prop, units)
    return absolute_effects(expectation_drop(curves))


def _patching(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """What the score falls by when one unit gets its value without the cause."""
    references = _references(evidence, prop)
    return absolute_effects(
        patching_effects(model, evidence.violating, prop, references=references, units=units)
    )


def _patching_gain(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """What the score of the reference rises by when one unit gets its value with the cause."""
    references = _references(evidence, prop)
    return absolute_effects(
        patching_gain(model, evidence.violating, prop, references=references, units=units)
    )


def _patching_both(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """Mean of the two directions of patching one unit."""
    references = _references(evidence, prop)
    return absolute_effects(
        patching_average(model, evidence.violating, prop, references=references, units=units)
    )


def _selective_patching(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """Shapley patching from passing samples, for each bit of what the unit does on these.

    Compared with inputs drawn as they come, every part of a fault differs; what differs for
    another reason also differs among passing samples, and is divided away. The cause itself is
    held equal there where the property can set it.
    """
    seen = against_passing(evidence, prop, generator=generator)
    effects = shapley_effects(model, seen, by_margin(prop), units=units, generator=generator)
    importance = task_importance(model, evidence.passing, prop, units=units, generator=generator)
    return selective_effects(effects, importance)


def _selective_gradients(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """The same with captum's integrated gradients for Shapley values."""
    seen = against_passing(evidence, prop, generator=generator)
    effects = integrated_gradient_effects(model, seen, by_margin(prop), units=units)
    importance = task_importance(model, evidence.passing, prop, units=units, generator=generator)
    return selective_effects(effects, importance)


def _shapley_patching(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """Patching of groups of units: each one's Shapley value of what the cause does, in logits."""
    effects = shapley_effects(model, evidence, by_margin(prop), units=units, generator=generator)
    return absolute_effects(effects)


def _zero_ablation(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """What the score falls by when one unit is held at 0."""
    return absolute_effects(
        ablation_effects(model, evidence.violating, prop, replacement=zero_activation, units=units)
    )


def _mean_ablation(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """What the score falls by when one unit is held at its mean over the passing samples."""
    mean = mean_activation(model, evidence.passing)
    return absolute_effects(
        ablation_effects(model, evidence.violating, prop, replacement=mean, units=units)
    )


def _gradient_activation(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """Captum's gradient x activation of the score; signed, which finds more here."""
    return gradient_activation_effects(model, evidence, prop, units=units)


def _integrated_gradients(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """Captum's layer integrated gradients of the score from the references to the violations."""
    return absolute_effects(integrated_gradient_effects(model, evidence, prop, units=units))


def _tarantula(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """Spectrum-based: how much more often active on violating than on passing samples."""
    return tarantula_effects(model, evidence, prop, units=units)


def _ochiai(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """Spectrum-based: cosine of being active and of violating."""
    return ochiai_effects(model, evidence, prop, units=units)


def _magnitude(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """Norm of the incoming times norm of the outgoing weights; looks at no sample."""
    return weight_magnitudes(model, units=units)


def _random(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
    generator: torch.Generator,
) -> UnitEffects:
    """A random order: what any ranking must beat."""
    chosen = tuple(hidden_neurons(model) if units is None else units)
    return UnitEffects(
        measure="random",
        units=chosen,
        effect=torch.rand(len(chosen), generator=generator, dtype=torch.float64),
        covariance=torch.zeros(len(chosen), len(chosen), dtype=torch.float64),
        samples=0,
    )


LOCALIZERS: Mapping[str, Localizer] = MappingProxyType(
    {
        "selective_patching": _selective_patching,
        "selective_gradients": _selective_gradients,
        "shapley_patching": _shapley_patching,
        "patching_both": _patching_both,
        "patching": _patching,
        "patching_gain": _patching_gain,
        "mediation_drop": _mediation_drop,
        "mean_ablation": _mean_ablation,
        "zero_ablation": _zero_ablation,
        "integrated_gradients": _integrated_gradients,
        "gradient_activation": _gradient_activation,
        "care_range": _care_range,
        "care_mean": _care_mean,
        "tarantula": _tarantula,
        "ochiai": _ochiai,
        "magnitude": _magnitude,
        "random": _random,
    }
)


def _references(evidence: Evidence, prop: Property) -> Samples | None:
    """The references, or None where the property's own probes say what the cause is."""
    several = len(prop.probes(evidence.violating.inputs[:1])) > 1
    return None if several else evidence.references


def _both(evidence: Evidence) -> Samples:
    return Samples(inputs=torch.cat([evidence.violating.inputs, evidence.references.inputs]))


def _curves(
    model: nn.Module,
    samples: Samples,
    ranged: Samples,
    prop: Property,
    units: Sequence[Unit] | None,
) -> CausalEffects:
    """E[y | do(neuron = v)] over the samples, for values over the range seen in `ranged`."""
    neurons: list[Neuron] | None = None
    if units is not None:
        neurons = [unit for unit in units if isinstance(unit, Neuron) and not unit.position]
        if len(neurons) < len(units):
            raise ValueError(
                "units: got a position or a whole layer; allowed: single neurons and channels, "
                "which can be held at one value"
            )
    return neuron_effects(model, samples, prop, neurons=neurons, steps=_STEPS, range_samples=ranged)
