"""Proof: what is certain. Bounds over boxes, branch and bound, certificates and their checker."""

from carelab.proof.bounds import (
    HiddenBounds,
    LinearBounds,
    hidden_bounds,
    linear_bounds,
    output_bounds,
)
from carelab.proof.certificates import Certificate, load_certificate, save_certificate
from carelab.proof.chains import AffineChain, affine_chain
from carelab.proof.checking import CertificateCheck, check_certificate, exact_outputs
from carelab.proof.counterexamples import (
    Counterexample,
    confirmed_counterexample,
    descended,
    exported_outputs,
    representable,
    spread_points,
)
from carelab.proof.intervals import interval_bounds
from carelab.proof.marabou import SecondOpinion, second_opinion
from carelab.proof.polytopes import Polytope, polytopes
from carelab.proof.rounding import rounding_margins
from carelab.proof.splitting import halves, relaxation_gaps, split_choice
from carelab.proof.tightening import DualValues, dual_bounds, plain_values, tighten
from carelab.proof.verdicts import OpenBoxes, SplitTree, Verdict
from carelab.proof.verification import verify

__all__ = [
    "AffineChain",
    "Certificate",
    "CertificateCheck",
    "Counterexample",
    "DualValues",
    "HiddenBounds",
    "LinearBounds",
    "OpenBoxes",
    "Polytope",
    "SecondOpinion",
    "SplitTree",
    "Verdict",
    "affine_chain",
    "check_certificate",
    "confirmed_counterexample",
    "descended",
    "dual_bounds",
    "exact_outputs",
    "exported_outputs",
    "halves",
    "hidden_bounds",
    "interval_bounds",
    "linear_bounds",
    "load_certificate",
    "output_bounds",
    "plain_values",
    "polytopes",
    "relaxation_gaps",
    "representable",
    "rounding_margins",
    "save_certificate",
    "second_opinion",
    "split_choice",
    "spread_points",
    "tighten",
    "verify",
]
