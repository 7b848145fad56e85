"""Causes: intervene on units, measure the effects and their errors, name the guilty ones."""

from carelab.causal.ablation import (
    ablation_effects,
    mean_activation,
    resampled_activation,
    score_falls,
    zero_activation,
)
from carelab.causal.attribution import gradient_activation_effects, integrated_gradient_effects
from carelab.causal.choice import ALL_LAYERS, Candidate, Choice, choose_units
from carelab.causal.effects import (
    average_causal_effect,
    contrast_error,
    curve_mean,
    neuron_effects,
    unmodified_outcome,
)
from carelab.causal.interactions import PairInteractions, pair_interactions
from carelab.causal.interventions import activations, do
from carelab.causal.kill_curves import (
    KillCurve,
    RankOverlap,
    Removal,
    kill_curve,
    passing_means,
    rank_overlap,
    reference_means,
    removed_performance,
    zeros,
)
from carelab.causal.localization import (
    care_count,
    expectation_drop,
    expectation_mean,
    expectation_range,
    guilty_neurons,
)
from carelab.causal.localizers import LOCALIZERS, Localizer
from carelab.causal.magnitude import weight_magnitudes
from carelab.causal.mediation import (
    MediatedEffects,
    class_margin,
    class_probability,
    mediated_effects,
    pair_groups,
)
from carelab.causal.outcomes import IntervenedBlock, Replacement, intervened_scores
from carelab.causal.patching import (
    first_probe_values,
    patching_average,
    patching_effects,
    patching_gain,
    reference_values,
)
from carelab.causal.shapley import shapley_effects
from carelab.causal.spectrum import ochiai_effects, tarantula_effects
from carelab.causal.uncertainty import (
    bootstrap_interval,
    confidence_interval,
    inseparable_groups,
    mean_contrasts,
    rank_units,
)

__all__ = [
    "ALL_LAYERS",
    "LOCALIZERS",
    "Candidate",
    "Choice",
    "IntervenedBlock",
    "KillCurve",
    "Localizer",
    "MediatedEffects",
    "PairInteractions",
    "RankOverlap",
    "Removal",
    "Replacement",
    "ablation_effects",
    "activations",
    "average_causal_effect",
    "bootstrap_interval",
    "care_count",
    "choose_units",
    "class_margin",
    "class_probability",
    "confidence_interval",
    "contrast_error",
    "curve_mean",
    "do",
    "expectation_drop",
    "expectation_mean",
    "expectation_range",
    "first_probe_values",
    "gradient_activation_effects",
    "guilty_neurons",
    "inseparable_groups",
    "integrated_gradient_effects",
    "intervened_scores",
    "kill_curve",
    "mean_activation",
    "mean_contrasts",
    "mediated_effects",
    "neuron_effects",
    "ochiai_effects",
    "pair_groups",
    "pair_interactions",
    "passing_means",
    "patching_average",
    "patching_effects",
    "patching_gain",
    "rank_overlap",
    "rank_units",
    "reference_means",
    "reference_values",
    "removed_performance",
    "resampled_activation",
    "score_falls",
    "shapley_effects",
    "tarantula_effects",
    "unmodified_outcome",
    "weight_magnitudes",
    "zero_activation",
    "zeros",
]
