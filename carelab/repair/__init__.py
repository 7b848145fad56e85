"""Repairs: change the guilty neurons, keep everything else."""

from carelab.repair.backdoor_baselines import dormant_first, fine_prune, fine_tune
from carelab.repair.baselines import fairlearn_reduction, hold_constant, retrain_without
from carelab.repair.box_constraints import box_constraints
from carelab.repair.channels import prunable_layers, prune_neurons
from carelab.repair.clauses import Clauses, label_clauses, safe_clauses
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
from carelab.repair.last_layer import (
    Constraints,
    LastLayer,
    last_layer,
    least_change,
    point_constraints,
)
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
from carelab.repair.prorepair import Refinement, RegionRepair, prorepair_region
from carelab.repair.prorepair_points import (
    PointRepair,
    box_distance,
    centre_distance,
    feature_layer,
    prorepair_points,
)
from carelab.repair.proxy_boxes import ProxyBoxes, proxy_boxes
from carelab.repair.refinement import SplitRule, random_side, steepest_side, widest_side
from carelab.repair.region_repair import least_change_region
from carelab.repair.region_results import LeastChange, ProofRound
from carelab.repair.safety_baselines import (
    constant_advice,
    fine_tune_advice,
    nearest_safe_advice,
)
from carelab.repair.safety_measurement import (
    SafetyMeasures,
    fidelity,
    measure_safety,
    measure_safety_of,
    weights_changed,
)
from carelab.repair.safety_repair import care_safety, repair_safety
from carelab.repair.score_moves import ScoreMove, advice_of, score_moves
from carelab.repair.searches import Found, Search, cma_search, gradient_search, swarm_search
from carelab.repair.shares import edited_share
from carelab.repair.spaces import EditSpace, factor_space, revive, weight_space
from carelab.repair.swarm import care, care_cost, particle_swarm
from carelab.repair.targets import blind_targets
from carelab.repair.unlearning import unlearn_trigger
from carelab.repair.variants import factor_variants

__all__ = [
    "Anchors",
    "Clauses",
    "Compromise",
    "Constraints",
    "EditSpace",
    "FairnessMeasures",
    "FairnessTrial",
    "Found",
    "Front",
    "LastLayer",
    "LeastChange",
    "Objective",
    "PointRepair",
    "ProofRound",
    "ProxyBoxes",
    "Refinement",
    "RegionRepair",
    "SafetyMeasures",
    "ScoreMove",
    "Search",
    "SearchProblem",
    "SplitRule",
    "adversarial_neuron_pruning",
    "advice_of",
    "apply_repair",
    "blind_targets",
    "box_constraints",
    "box_distance",
    "care",
    "care_cost",
    "care_safety",
    "centre_distance",
    "choose_alpha",
    "cma_search",
    "constant_advice",
    "dormant_first",
    "edited_share",
    "edits_between",
    "factor_space",
    "factor_variants",
    "fairlearn_reduction",
    "fairness_trial",
    "feature_layer",
    "fidelity",
    "fine_prune",
    "fine_tune",
    "fine_tune_advice",
    "gradient_search",
    "hold_constant",
    "label_clauses",
    "last_layer",
    "least_change",
    "least_change_region",
    "load_repair",
    "measure_fairness",
    "measure_safety",
    "measure_safety_of",
    "nearest_safe_advice",
    "neuron_masks",
    "outgoing_columns",
    "pareto_optimal",
    "particle_swarm",
    "point_constraints",
    "prorepair_points",
    "prorepair_region",
    "proxy_boxes",
    "prunable_layers",
    "prune_masked",
    "prune_neurons",
    "random_side",
    "repair_front",
    "repair_safety",
    "retrain_without",
    "revive",
    "safe_clauses",
    "save_repair",
    "scale_neurons",
    "score_moves",
    "search_problem",
    "search_repair",
    "steepest_side",
    "swarm_search",
    "undo_repair",
    "unlearn_trigger",
    "weight_space",
    "weights_changed",
    "widest_side",
]
