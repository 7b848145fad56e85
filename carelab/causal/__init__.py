"""Causes: intervene on neurons, measure the effects, name the guilty ones."""

from carelab.causal.effects import (
    average_causal_effect,
    contrast_error,
    curve_mean,
    neuron_effects,
    unmodified_outcome,
)
from carelab.causal.interventions import activations, do
from carelab.causal.localization import (
    care_count,
    expectation_drop,
    expectation_mean,
    expectation_range,
    guilty_neurons,
    ranking,
)

__all__ = [
    "activations",
    "average_causal_effect",
    "care_count",
    "contrast_error",
    "curve_mean",
    "do",
    "expectation_drop",
    "expectation_mean",
    "expectation_range",
    "guilty_neurons",
    "neuron_effects",
    "ranking",
    "unmodified_outcome",
]
