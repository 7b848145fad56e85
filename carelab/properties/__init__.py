"""Properties: what must hold of a network, and where it does not."""

from carelab.properties.backdoor import TargetClass
from carelab.properties.discrimination import (
    drop_rows,
    guided_violations,
    observed_violations,
    random_violations,
)
from carelab.properties.fairness import IndividualFairness, individual_fairness
from carelab.properties.groups import GroupFairness, demographic_parity, equalized_odds
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

__all__ = [
    "GroupFairness",
    "IndividualFairness",
    "OutputRegion",
    "OutputRegions",
    "Property",
    "TargetClass",
    "demographic_parity",
    "drop_rows",
    "equalized_odds",
    "forbidden_class",
    "guided_violations",
    "individual_fairness",
    "margins",
    "never_lowest",
    "observed_violations",
    "planted_property",
    "probe_outputs",
    "random_violations",
    "required_lowest",
    "violates",
    "violation_rate",
    "violation_scores",
]
