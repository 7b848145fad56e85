"""Repairs: change the guilty neurons, keep everything else."""

from carelab.repair.baselines import hold_constant
from carelab.repair.edits import apply_repair, scale_neurons, undo_repair
from carelab.repair.swarm import care, care_cost, particle_swarm
from carelab.repair.variants import factor_variants

__all__ = [
    "apply_repair",
    "care",
    "care_cost",
    "factor_variants",
    "hold_constant",
    "particle_swarm",
    "scale_neurons",
    "undo_repair",
]
