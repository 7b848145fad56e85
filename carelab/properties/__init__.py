"""Properties: what must hold of a network, and where it does not."""

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

__all__ = [
    "GroupFairness",
    "IndividualFairness",
    "Property",
    "demographic_parity",
    "drop_rows",
    "equalized_odds",
    "guided_violations",
    "individual_fairness",
    "margins",
    "observed_violations",
    "probe_outputs",
    "random_violations",
    "violates",
    "violation_rate",
    "violation_scores",
]
