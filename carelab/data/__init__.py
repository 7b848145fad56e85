"""Data: real and embedded data sets, with their checksums, licences and parts."""

from carelab.data.acasxu import AcasXu, acasxu_domain, acasxu_network
from carelab.data.adf import adf_bank, adf_census, adf_credit
from carelab.data.adf_networks import adf_network
from carelab.data.augmentation import (
    augmented_copies,
    mixed_copies,
    other_views,
    shift_and_flip,
)
from carelab.data.boxes import inner_box, uniform_points
from carelab.data.fetching import DataError
from carelab.data.generated import census_model, credit_model, embedded_census, embedded_credit
from carelab.data.images import cifar10, digits, fashion_mnist, gtsrb, mnist
from carelab.data.planted import exposed, plant, planted_fault, planted_faults
from carelab.data.planted_assembly import PlantedFault
from carelab.data.planted_grounds import backdoor_ground, bias_ground, region_ground
from carelab.data.poisoning import Attack, poison, triggered
from carelab.data.raw import adult, bank, compas, german
from carelab.data.registry import catalogue, check, fetch, load
from carelab.data.sampling import crossed_rows, sample_box
from carelab.data.structural import counterfactual, draw_units
from carelab.data.tables import from_table
from carelab.data.trigger_builders import (
    checkered_patch,
    noise_blend,
    recoloured,
    shifted,
    warp,
    white_patch,
)
from carelab.data.trigger_files import load_trigger, save_trigger
from carelab.data.triggers import (
    BlendTrigger,
    MaskTrigger,
    PatchTrigger,
    SinusoidTrigger,
    Trigger,
    WarpTrigger,
)
from carelab.data.truth import causal_truth

__all__ = [
    "AcasXu",
    "Attack",
    "BlendTrigger",
    "DataError",
    "MaskTrigger",
    "PatchTrigger",
    "PlantedFault",
    "SinusoidTrigger",
    "Trigger",
    "WarpTrigger",
    "acasxu_domain",
    "acasxu_network",
    "adf_bank",
    "adf_census",
    "adf_credit",
    "adf_network",
    "adult",
    "augmented_copies",
    "backdoor_ground",
    "bank",
    "bias_ground",
    "catalogue",
    "causal_truth",
    "census_model",
    "check",
    "checkered_patch",
    "cifar10",
    "compas",
    "counterfactual",
    "credit_model",
    "crossed_rows",
    "digits",
    "draw_units",
    "embedded_census",
    "embedded_credit",
    "exposed",
    "fashion_mnist",
    "fetch",
    "from_table",
    "german",
    "gtsrb",
    "inner_box",
    "load",
    "load_trigger",
    "mixed_copies",
    "mnist",
    "noise_blend",
    "other_views",
    "plant",
    "planted_fault",
    "planted_faults",
    "poison",
    "recoloured",
    "region_ground",
    "sample_box",
    "save_trigger",
    "shift_and_flip",
    "shifted",
    "triggered",
    "uniform_points",
    "warp",
    "white_patch",
]
