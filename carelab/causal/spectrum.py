"""Spectrum-based fault localisation for neurons: who is active when the network misbehaves?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from carelab.causal.interventions import activations, check_unit
from carelab.causal.uncertainty import mean_contrasts
from carelab.networks import check_inputs, hidden_neurons
from carelab.properties import Property
from carelab.records import Evidence, Samples, Unit, UnitEffects

__all__ = ["ochiai", "ochiai_effects", "tarantula", "tarantula_effects", "unit_activity"]

# (share of violating, share of passing samples with the unit active) -> suspicion of each unit
_Formula = Callable[[Tensor, Tensor], Tensor]
# Keeps 0 / 0 from being asked for; far below any share of samples.
_TINY = 1e-12


def tarantula(
    violating: Float[Tensor, " units"], passing: Float[Tensor, " units"]
) -> Float[Tensor, " units"]:
    """V / (v + p): how much more often a unit is active on violating than on passing samples.

    Args:
        violating: share of the violating samples on which each unit is active (units).
        passing: the same of the passing samples (units).

    Returns:
        Suspicion in [0, 1]; 0 for a unit that is never active.

    Source: Jones, Harrold, ASE 2005, with neurons for statements.

    Example:
        >>> import torch
        >>> from carelab.causal.spectrum import tarantula
        >>> tarantula(torch.tensor([0.75, 0.0]), torch.tensor([0.25, 0.0])).tolist()
        [0.75, 0.0]
    """
    return torch.where(violating > 0, violating / (violating + passing).clamp(min=_TINY), 0.0)


def ochiai(
    violating: Float[Tensor, " units"], passing: Float[Tensor, " units"]
) -> Float[Tensor, " units"]:
    """V / sqrt(v + p): cosine of being active and violating, as many samples of both kinds.

    The usual form reads counts; here violating and passing samples weigh alike, whatever their
    numbers, so that it does not hang on how many of each were at hand.

    Args:
        violating: share of the violating samples on which each unit is active (units).
        passing: the same of the passing samples (units).

    Returns:
        Suspicion in [0, 1]; 0 for a unit that is never active.

    Source: Abreu, Zoeteweij, van Gemund, PRDC 2006; for neurons: Eniser, Gerasimou, Sen,
        DeepFault, FASE 2019.

    Example:
        >>> import torch
        >>> from carelab.causal.spectrum import ochiai
        >>> ochiai(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).tolist()
        [1.0, 0.0]
    """
    return violating / (violating + passing).clamp(min=_TINY).sqrt()


def tarantula_effects(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
) -> UnitEffects:
    """Tarantula's suspicion of every unit, with delta-method errors.

    A unit is active on a sample where it is above its mean over violating and passing samples,
    both kinds weighing alike. The property itself is not asked again: the evidence says which
    samples violate it.

    Args:
        model: a network in evaluation mode.
        evidence: its violating and its passing samples are used, at least two of each.
        prop: the property that the violating samples violate.
        units: the units; by default all hidden neurons, post-activation.

    Raises:
        ValueError: an unknown unit, too few samples, or a network in training mode.

    Source: as for `tarantula`.

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records
        >>> from carelab.causal.spectrum import tarantula_effects
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> rows = records.Samples(inputs=torch.rand(9, 3))
        >>> evidence = records.Evidence(violating=rows, references=rows, passing=rows)
        >>> effects = tarantula_effects(model, evidence, fair)
    """
    return _suspicion("tarantula", tarantula, model, evidence, units)


def ochiai_effects(
    model: nn.Module,
    evidence: Evidence,
    prop: Property,
    *,
    units: Sequence[Unit] | None = None,
) -> UnitEffects:
    """Ochiai's suspicion of every unit, with delta-method errors.

    Active means what it means for `tarantula_effects`.

    Args:
        model: a network in evaluation mode.
        evidence: its violating and its passing samples are used, at least two of each.
        prop: the property that the violating samples violate.
        units: the units; by default all hidden neurons, post-activation.

    Raises:
        ValueError: an unknown unit, too few samples, or a network in training mode.

    Source: as for `ochiai`.

    Example:
        >>> import torch
        >>> from carelab import networks, properties, records
        >>> from carelab.causal.spectrum import ochiai_effects
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> rows = records.Samples(inputs=torch.rand(9, 3))
        >>> evidence = records.Evidence(violating=rows, references=rows, passing=rows)
        >>> effects = ochiai_effects(model, evidence, fair)
    """
    return _suspicion("ochiai", ochiai, model, evidence, units)


def unit_activity(
    model: nn.Module, samples: Samples, units: Sequence[Unit]
) -> Float[Tensor, "units batch"]:
    """How strongly each unit responds to each sample: its highest number there.

    A neuron or a position is one number. For a channel or a whole layer the highest of its
    numbers counts, since what it looks for (a trigger) may be in one place only.

    Args:
        model: a network in evaluation mode.
        samples: the samples.
        units: the units, at least one.

    Raises:
        ValueError: no unit, an unknown one, or a network in training mode.

    Example:
        >>> import torch
        >>> from carelab import networks, records
        >>> from carelab.causal.spectrum import unit_activity
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> units = networks.hidden_neurons(model)
        >>> unit_activity(model, records.Samples(inputs=torch.rand(9, 3)), units).shape
        torch.Size([4, 9])
    """
    if not units:
        raise ValueError("units: got none; allowed: at least one")
    check_inputs(model, samples.inputs)
    layers = list(dict.fromkeys(unit.layer for unit in units))
    recorded = activations(model, samples.inputs, layers)
    for unit in units:
        check_unit(unit, recorded[unit.layer].shape[1:])
    return torch.stack([_highest(recorded[unit.layer], unit) for unit in units])


def _highest(output: Float[Tensor, "batch ..."], unit: Unit) -> Float[Tensor, " batch"]:
    place: tuple[slice | int, ...] = (slice(None), *unit.place)
    numbers = output[place]
    return numbers.reshape(len(output), -1).amax(dim=1)


def _suspicion(
    measure: str,
    formula: _Formula,
    model: nn.Module,
    evidence: Evidence,
    units: Sequence[Unit] | None,
) -> UnitEffects:
    chosen = tuple(hidden_neurons(model) if units is None else units)
    active, inactive = _active(model, evidence, chosen)
    violating = mean_contrasts(measure, chosen, [active.double()])
    passing = mean_contrasts(measure, chosen, [inactive.double()])
    shares = [one.effect.clone().requires_grad_() for one in (violating, passing)]
    suspicion = formula(*shares)
    # Each suspicion reads its own unit's two shares only, so that the gradient of the sum holds
    # all derivatives; the delta method takes them to the covariance.
    slopes = torch.autograd.grad(suspicion.sum(), shares)
    covariance = torch.stack(
        [
            slope[:, None] * share.covariance * slope[None, :]
            for slope, share in zip(slopes, (violating, passing), strict=True)
        ]
    ).sum(dim=0)
    return UnitEffects(
        measure=measure,
        units=chosen,
        effect=suspicion.detach(),
        covariance=covariance,
        samples=min(violating.samples, passing.samples),
    )


def _active(
    model: nn.Module, evidence: Evidence, units: Sequence[Unit]
) -> tuple[Bool[Tensor, "units violating"], Bool[Tensor, "units passing"]]:
    """On which violating and which passing samples each unit is above its mean."""
    violating = unit_activity(model, evidence.violating, units)
    passing = unit_activity(model, evidence.passing, units)
    threshold = (violating.mean(dim=1) + passing.mean(dim=1))[:, None] / 2
    return violating > threshold, passing > threshold
