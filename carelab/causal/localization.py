"""Which neurons are guilty: CARE's ranking of interventional expectations."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from carelab.records import CausalEffects, Neuron

__all__ = [
    "care_count",
    "expectation_drop",
    "expectation_mean",
    "expectation_range",
    "guilty_neurons",
    "ranking",
]


def expectation_mean(effects: CausalEffects) -> Float[Tensor, " neurons"]:
    """Mean over v of E[y | do(neuron = v)]: how CARE ranks neurons for fairness.

    Args:
        effects: the interventional expectations.

    Source: CARE, section 3.2. Known weakness: holding a mediator cuts the path, so that a true
        mediator of the sensitive feature ranks low.

    Example:
        >>> from carelab import causal
        >>> causal.expectation_mean.__name__
        'expectation_mean'
    """
    return effects.expectation.mean(dim=1)


def expectation_range(effects: CausalEffects) -> Float[Tensor, " neurons"]:
    """Largest minus smallest E[y | do(neuron = v)]: CARE's ranking for backdoors and safety.

    Args:
        effects: the interventional expectations.

    Source: CARE, section 3.2.

    Example:
        >>> from carelab import causal
        >>> causal.expectation_range.__name__
        'expectation_range'
    """
    return effects.expectation.amax(dim=1) - effects.expectation.amin(dim=1)


def expectation_drop(effects: CausalEffects) -> Float[Tensor, " neurons"]:
    """E[y] - mean over v of E[y | do(neuron = v)]: how much holding the neuron stops the outcome.

    Holding a mediator at any constant cuts the path that runs through it, so that the neurons
    that carry a sensitive feature to the label have a large drop, and dead neurons none.

    Args:
        effects: the interventional expectations.

    Source: the reverse of CARE's ranking for fairness, which it replaces: there dead neurons,
        which change nothing, rank above every mediator.

    Example:
        >>> from carelab import causal
        >>> causal.expectation_drop.__name__
        'expectation_drop'
    """
    return effects.unmodified - effects.expectation.mean(dim=1)


def ranking(
    effects: CausalEffects,
    *,
    summary: Callable[[CausalEffects], Float[Tensor, " neurons"]] = expectation_mean,
) -> Int[Tensor, " neurons"]:
    """Positions of the neurons in the effects, most guilty first; ties keep their order.

    Args:
        effects: the interventional expectations.
        summary: one number a neuron; higher is guiltier.

    Raises:
        ValueError: a summary that is not finite for some neuron.

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> effects = causal.neuron_effects(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> sorted(causal.ranking(effects).tolist())
        [0, 1, 2, 3]
    """
    guilt = summary(effects)
    if not torch.isfinite(guilt).all():
        raise ValueError("effects: the summary is not finite for some neuron; allowed: numbers")
    return guilt.argsort(descending=True, stable=True)


def guilty_neurons(
    effects: CausalEffects,
    *,
    count: int | None = None,
    summary: Callable[[CausalEffects], Float[Tensor, " neurons"]] = expectation_mean,
) -> tuple[Neuron, ...]:
    """The neurons chosen for repair: the first `count` of the ranking.

    Args:
        effects: the interventional expectations.
        count: how many, from 1 to all; by default CARE's tenth (`care_count`).
        summary: one number a neuron; higher is guiltier.

    Raises:
        ValueError: a count below 1 or beyond the number of neurons.

    Source: CARE, section 3.2 and table 2 (10 % of the neurons for fairness).

    Example:
        >>> import torch
        >>> from carelab import causal, networks, properties, records
        >>> model = networks.mlp(3, (4,), 2, generator=torch.Generator().manual_seed(0))
        >>> fair = properties.IndividualFairness(columns=(1,), values=torch.tensor([[0.0], [1.0]]))
        >>> effects = causal.neuron_effects(model, records.Samples(inputs=torch.rand(9, 3)), fair)
        >>> len(causal.guilty_neurons(effects, count=2))
        2
    """
    total = len(effects.neurons)
    wanted = care_count(total) if count is None else count
    if not 1 <= wanted <= total:
        raise ValueError(f"count: got {wanted} guilty neurons of {total}; allowed: 1 to {total}")
    return tuple(effects.neurons[row] for row in ranking(effects, summary=summary)[:wanted])


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
