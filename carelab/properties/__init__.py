"""Properties: what must hold of a network, and where it does not."""

from carelab.properties.acasxu import AcasXuProperty, acasxu_property
from carelab.properties.attack_success import attack_success_rate
from carelab.properties.backdoor import TargetClass, TargetClasses
from carelab.properties.counterexamples import ViolationSearch, find_violations
from carelab.properties.discrimination import (
    drop_rows,
    guided_violations,
    observed_violations,
    random_violations,
)
from carelab.properties.fairness import IndividualFairness, individual_fairness
from carelab.properties.groups import GroupFairness, demographic_parity, equalized_odds
from carelab.properties.hunts import region_box
from carelab.properties.judging import (
    Property,
    margins,
    probe_outputs,
    violates,
    violation_rate,
    violation_scores,
)
from carelab.properties.planted import planted_property
from carelab.properties.regions import (
    OutputRegion,
    OutputRegions,
    forbidden_class,
    never_lowest,
    required_lowest,
)
from carelab.properties.safety_samples import SafetyPart, SafetySamples, safety_samples
from carelab.properties.trigger_detection import (
    Detection,
    detect_target,
    detect_target_by_deviation,
)
from carelab.properties.trigger_moments import estimate_trigger
from carelab.properties.trigger_search import (
    Reconstruction,
    reconstruct_blend,
    reconstruct_trigger,
    reconstruct_triggers,
)
from carelab.properties.vnnlib import parse_vnnlib, read_vnnlib

__all__ = [
    "AcasXuProperty",
    "Detection",
    "GroupFairness",
    "IndividualFairness",
    "OutputRegion",
    "OutputRegions",
    "Property",
    "Reconstruction",
    "SafetyPart",
    "SafetySamples",
    "TargetClass",
    "TargetClasses",
    "ViolationSearch",
    "acasxu_property",
    "attack_success_rate",
    "demographic_parity",
    "detect_target",
    "detect_target_by_deviation",
    "drop_rows",
    "equalized_odds",
    "estimate_trigger",
    "find_violations",
    "forbidden_class",
    "guided_violations",
    "individual_fairness",
    "margins",
    "never_lowest",
    "observed_violations",
    "parse_vnnlib",
    "planted_property",
    "probe_outputs",
    "random_violations",
    "read_vnnlib",
    "reconstruct_blend",
    "reconstruct_trigger",
    "reconstruct_triggers",
    "region_box",
    "required_lowest",
    "safety_samples",
    "violates",
    "violation_rate",
    "violation_scores",
]
