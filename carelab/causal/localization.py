"""Which neurons are guilty: one number for each from its curve of E[y | do(neuron = v)]."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from carelab.causal.uncertainty import rank_units
from carelab.records import CausalEffects, Neuron, UnitEffects

__all__ = [
    "care_count",
    "expectation_drop",
    "expectation_mean",
    "expectation_range",
    "guilty_neurons",
]


def expectation_mean(effects: CausalEffects) -> UnitEffects:
    """Mean over v of E[y | do(neuron = v)]: how CARE ranks neurons for fairness.

    Args:
        effects: the interventional expectations.

    Returns:
        One mean outcome a neuron, with the covariance between neurons.

    Source: CARE, section 3.2. Known weakness: holding a mediator cuts the path, so that a true
        mediator of the sensitive feature ranks low.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> effects = causal.neuron_effects(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> causal.expectation_mean(effects).effect.shape
        torch.Size([4])
    """
    # The mean is the mean change plus the untouched outcome, so their covariances add up.
    untouched = effects.covariance[:, -1, -1]
    shared = effects.covariance[:, :-1, -1].mean(dim=1) - untouched
    added = shared[:, None] + shared[None, :] + untouched[:, None]
    return _of_neurons(
        effects,
        "mean interventional expectation",
        effects.expectation.mean(dim=1),
        effects.mean_covariance + added / effects.samples,
    )


def expectation_range(effects: CausalEffects) -> UnitEffects:
    """Largest minus smallest E[y | do(neuron = v)]: CARE's ranking for backdoors and safety.

    Its errors are those of the difference between the two values v at which the curve is highest
    and lowest, taken as given (delta method); of different neurons they are not known together,
    so the covariance is zero off the diagonal. Being a largest difference, it is above 0 by
    chance alone.

    Args:
        effects: the interventional expectations.

    Returns:
        One range a neuron.

    Source: CARE, section 3.2.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> effects = causal.neuron_effects(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> bool((causal.expectation_range(effects).effect >= 0).all())
        True
    """
    high, highest = effects.expectation.max(dim=1)
    low, lowest = effects.expectation.min(dim=1)
    row = torch.arange(len(effects.neurons))
    own = effects.covariance.diagonal(dim1=1, dim2=2)
    both = own[row, highest] + own[row, lowest]
    variance = both - 2 * effects.covariance[row, highest, lowest]
    return _of_neurons(
        effects,
        "range of the interventional expectation",
        high - low,
        torch.diag(variance.clamp(min=0) / effects.samples),
    )


def expectation_drop(effects: CausalEffects) -> UnitEffects:
    """E[y] - mean over v of E[y | do(neuron = v)]: how much holding the neuron stops the outcome.

    Holding a mediator at any constant cuts the path that runs through it, so that the neurons
    that carry a sensitive feature to the label have a large drop, and dead neurons none.

    Args:
        effects: the interventional expectations.

    Returns:
        One drop a neuron, with the covariance between neurons.

    Source: the reverse of CARE's ranking for fairness, which it replaces: there dead neurons,
        which change nothing, rank above every mediator.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> effects = causal.neuron_effects(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> causal.expectation_drop(effects).standard_error.shape
        torch.Size([4])
    """
    return _of_neurons(
        effects,
        "drop of the expectation under do()",
        effects.unmodified - effects.expectation.mean(dim=1),
        effects.mean_covariance,
    )


def guilty_neurons(effects: UnitEffects, *, count: int | None = None) -> tuple[Neuron, ...]:
    """The neurons chosen for repair: the `count` of the highest effect; ties keep their order.

    Args:
        effects: one number a neuron, higher is guiltier: `expectation_drop(...)`,
            `patching_effects(...)` and so on.
        count: how many, from 1 to all; by default CARE's tenth (`care_count`).

    Raises:
        ValueError: a count below 1 or beyond the number of neurons, a whole layer among the
            units, or an effect that is not finite.

    Source: CARE, section 3.2 and table 2 (10 % of the neurons for fairness).

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> effects = causal.neuron_effects(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> len(causal.guilty_neurons(causal.expectation_drop(effects), count=2))
        2
    """
    total = len(effects.units)
    wanted = care_count(total) if count is None else count
    if not 1 <= wanted <= total:
        raise ValueError(f"count: got {wanted} guilty neurons of {total}; allowed: 1 to {total}")
    neurons = tuple(unit for unit in rank_units(effects).units if isinstance(unit, Neuron))
    if len(neurons) < total:
        layers = ", ".join(str(unit) for unit in effects.units if not isinstance(unit, Neuron))
        raise ValueError(
            f"effects: got whole layers ({layers}); allowed: neurons; rank_units ranks any unit"
        )
    return neurons[:wanted]


def care_count(neurons: int) -> int:
    """A tenth of the neurons, rounded up: 13 of 124 for CARE's fairness networks.

    Args:
        neurons: how many there are.

    Source: CARE, section 4.1.

    Example:
        >>> from carelab.causal import care_count
        >>> care_count(124)
        13
    """
    return math.ceil(neurons / 10)


def _of_neurons(
    effects: CausalEffects,
    measure: str,
    effect: Float[Tensor, " neurons"],
    covariance: Float[Tensor, "neurons neurons"],
) -> UnitEffects:
    return UnitEffects(
        measure=measure,
        units=effects.neurons,
        effect=effect,
        covariance=covariance,
        samples=effects.samples,
    )
