"""Repairs: change the guilty neurons, keep everything else."""

from carelab.repair.baselines import hold_constant
from carelab.repair.compromise import Compromise, choose_alpha
from carelab.repair.edits import apply_repair, scale_neurons, undo_repair
from carelab.repair.files import load_repair, save_repair
from carelab.repair.measurement import (
    FairnessMeasures,
    FairnessTrial,
    fairness_trial,
    measure_fairness,
)
from carelab.repair.swarm import care, care_cost, particle_swarm
from carelab.repair.variants import factor_variants

__all__ = [
    "Compromise",
    "FairnessMeasures",
    "FairnessTrial",
    "apply_repair",
    "care",
    "care_cost",
    "choose_alpha",
    "factor_variants",
    "fairness_trial",
    "hold_constant",
    "load_repair",
    "measure_fairness",
    "particle_swarm",
    "save_repair",
    "scale_neurons",
    "undo_repair",
]
