"""Repairs: change the guilty neurons, keep everything else."""

from carelab.repair.backdoor_baselines import dormant_first, fine_prune, fine_tune
from carelab.repair.baselines import fairlearn_reduction, hold_constant, retrain_without
from carelab.repair.channels import prunable_layers, prune_neurons
from carelab.repair.compromise import Compromise, choose_alpha
from carelab.repair.edits import (
    apply_repair,
    edits_between,
    outgoing_columns,
    scale_neurons,
    undo_repair,
)
from carelab.repair.files import load_repair, save_repair
from carelab.repair.front import Front, pareto_optimal, repair_front, search_repair
from carelab.repair.measurement import (
    FairnessMeasures,
    FairnessTrial,
    fairness_trial,
    measure_fairness,
)
from carelab.repair.neuron_pruning import (
    adversarial_neuron_pruning,
    neuron_masks,
    prune_masked,
)
from carelab.repair.objectives import Anchors, Objective
from carelab.repair.problems import SearchProblem, search_problem
from carelab.repair.searches import Found, Search, cma_search, gradient_search, swarm_search
from carelab.repair.shares import edited_share
from carelab.repair.spaces import EditSpace, factor_space, revive, weight_space
from carelab.repair.swarm import care, care_cost, particle_swarm
from carelab.repair.targets import blind_targets
from carelab.repair.unlearning import unlearn_trigger
from carelab.repair.variants import factor_variants

__all__ = [
    "Anchors",
    "Compromise",
    "EditSpace",
    "FairnessMeasures",
    "FairnessTrial",
    "Found",
    "Front",
    "Objective",
    "Search",
    "SearchProblem",
    "adversarial_neuron_pruning",
    "apply_repair",
    "blind_targets",
    "care",
    "care_cost",
    "choose_alpha",
    "cma_search",
    "dormant_first",
    "edited_share",
    "edits_between",
    "factor_space",
    "factor_variants",
    "fairlearn_reduction",
    "fairness_trial",
    "fine_prune",
    "fine_tune",
    "gradient_search",
    "hold_constant",
    "load_repair",
    "measure_fairness",
    "neuron_masks",
    "outgoing_columns",
    "pareto_optimal",
    "particle_swarm",
    "prunable_layers",
    "prune_masked",
    "prune_neurons",
    "repair_front",
    "retrain_without",
    "revive",
    "save_repair",
    "scale_neurons",
    "search_problem",
    "search_repair",
    "swarm_search",
    "undo_repair",
    "unlearn_trigger",
    "weight_space",
]
