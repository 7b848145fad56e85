"""carelab: find the neurons guilty of a misbehaviour by their causal effect, and repair them."""

from jaxtyping import install_import_hook

from carelab import typechecking as typechecking

# Shapes and types are checked on every call, in notebooks too. The checker lets an int pass for
# a float, which notebook parameters such as `alpha: float = 1` need.
_FLOORS = ("records", "networks", "data", "properties", "causal", "proof", "repair", "show", "lab")
with install_import_hook([f"carelab.{floor}" for floor in _FLOORS], "carelab.typechecking.check"):
    from carelab import causal, data, lab, networks, proof, properties, records, repair, show

__version__ = "0.1.0"
__all__ = [
    "causal",
    "data",
    "lab",
    "networks",
    "proof",
    "properties",
    "records",
    "repair",
    "show",
]
