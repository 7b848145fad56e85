"""Data: real and embedded data sets, with their checksums, licences and parts."""

from carelab.data.adf import adf_bank, adf_census, adf_credit
from carelab.data.adf_networks import adf_network
from carelab.data.fetching import DataError
from carelab.data.generated import census_model, credit_model, embedded_census, embedded_credit
from carelab.data.planted import exposed, plant, planted_fault, planted_faults
from carelab.data.planted_assembly import PlantedFault
from carelab.data.planted_grounds import backdoor_ground, bias_ground, region_ground
from carelab.data.raw import adult, bank, compas, german
from carelab.data.registry import catalogue, check, fetch, load
from carelab.data.sampling import crossed_rows, sample_box
from carelab.data.structural import counterfactual, draw_units
from carelab.data.tables import from_table
from carelab.data.truth import causal_truth

__all__ = [
    "DataError",
    "PlantedFault",
    "adf_bank",
    "adf_census",
    "adf_credit",
    "adf_network",
    "adult",
    "backdoor_ground",
    "bank",
    "bias_ground",
    "catalogue",
    "causal_truth",
    "census_model",
    "check",
    "compas",
    "counterfactual",
    "credit_model",
    "crossed_rows",
    "draw_units",
    "embedded_census",
    "embedded_credit",
    "exposed",
    "fetch",
    "from_table",
    "german",
    "load",
    "plant",
    "planted_fault",
    "planted_faults",
    "region_ground",
    "sample_box",
]
