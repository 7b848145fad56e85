"""Data: real and embedded data sets, with their checksums, licences and parts."""

from carelab.data.adf import adf_bank, adf_census, adf_credit
from carelab.data.adf_networks import adf_network
from carelab.data.fetching import DataError
from carelab.data.generated import census_model, credit_model, embedded_census, embedded_credit
from carelab.data.raw import adult, bank, compas, german
from carelab.data.registry import catalogue, check, fetch, load
from carelab.data.sampling import sample_box
from carelab.data.structural import counterfactual, draw_units
from carelab.data.tables import from_table
from carelab.data.truth import causal_truth

__all__ = [
    "DataError",
    "adf_bank",
    "adf_census",
    "adf_credit",
    "adf_network",
    "adult",
    "bank",
    "catalogue",
    "causal_truth",
    "census_model",
    "check",
    "compas",
    "counterfactual",
    "credit_model",
    "draw_units",
    "embedded_census",
    "embedded_credit",
    "fetch",
    "from_table",
    "german",
    "load",
    "sample_box",
]
