"""Verdicts in small files, for others to check."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from carelab.networks.tensorfiles import digest, read_tensors, seal, unseal, write_tensors
from carelab.proof.polytopes import Polytope
from carelab.proof.tightening import DualValues
from carelab.proof.verdicts import SplitTree, Verdict
from carelab.properties import OutputRegion, OutputRegions

__all__ = ["Certificate", "load_certificate", "save_certificate"]

_KEY = "carelab_certificate"
_VERSION = 1
_POLYTOPE = ("matrix", "limits", "low", "high")
_TREE: Mapping[str, torch.dtype] = {
    "split_on": torch.int32,
    "split_at": torch.float64,
    "weights": torch.float64,
    "slopes": torch.uint8,
    "multiplier_at": torch.int64,
    "multipliers": torch.float32,
}


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Certificate:
    """What a file claims; nothing of it is believed before `check_certificate` has checked it.

    Args:
        status: "proved" or "refuted".
        property_name: name of the property.
        network: sha256 of the network's weights (`networks.fingerprint`).
        polytopes: the property's polytopes and boxes, float64.
        trees: for "proved", the cuts and dual values for each polytope.
        counterexample: for "refuted", the input (features), float64.
    """

    status: str
    property_name: str
    network: str
    polytopes: tuple[Polytope, ...]
    trees: tuple[SplitTree, ...] = ()
    counterexample: Float[Tensor, " features"] | None = None


def save_certificate(
    verdict: Verdict, prop: OutputRegion | OutputRegions, path: str | os.PathLike[str]
) -> None:
    """Write a proof or a counterexample to a safetensors file that can be checked without search.

    The file holds the network's fingerprint, the property, and for a proof the cuts of the box
    and, for each part, a byte for each hidden neuron and a number for each row of the polytope.
    Equal verdicts give equal files. The file is there whole or not at all.

    Args:
        verdict: a verdict that is "proved" or "refuted".
        prop: the property that was verified.
        path: the file; an older one is replaced.

    Raises:
        ValueError: an unknown verdict, or a property that is not its own.
        OSError: the folder is missing or cannot be written to.

    Example:
        >>> import tempfile, torch
        >>> from carelab import networks, proof, properties
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> prop = properties.never_lowest(0, 2, low=torch.zeros(2), high=torch.ones(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     proof.save_certificate(proof.verify(model, prop), prop, f"{folder}/a.safetensors")
    """
    if verdict.status not in ("proved", "refuted"):
        raise ValueError(f"verdict: got status {verdict.status!r}; allowed: 'proved', 'refuted'")
    regions = prop.regions if isinstance(prop, OutputRegions) else (prop,)
    proved = verdict.status == "proved"
    trees = verdict.trees if proved else ()
    if verdict.property_name != prop.name or (proved and len(trees) != len(regions)):
        raise ValueError(
            f"prop: got {prop.name!r} for a verdict on {verdict.property_name!r}; allowed: the "
            "property that was verified"
        )
    tensors: dict[str, Tensor] = {}
    for number, region in enumerate(regions):
        for name in _POLYTOPE:
            tensors[f"{number}.{name}"] = getattr(region, name).double()
    for number, tree in enumerate(trees):
        tensors.update({f"{number}.{name}": value for name, value in _tree_tensors(tree).items()})
    if verdict.counterexample is not None:
        tensors["counterexample"] = verdict.counterexample.double()
    description = {
        "version": _VERSION,
        "status": verdict.status,
        "property": verdict.property_name,
        "network": verdict.network,
        "polytopes": len(regions),
        "tensors": digest(tensors),
    }
    write_tensors(path, tensors, {_KEY: seal(description, "verdict")})


def load_certificate(path: str | os.PathLike[str]) -> Certificate:
    """The claim in a file written by `save_certificate`; reading it proves nothing yet.

    Args:
        path: the file.

    Returns:
        The claim.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is damaged, of another format or version, or not complete.

    Example:
        >>> import tempfile, torch
        >>> from carelab import networks, proof, properties
        >>> model = networks.mlp(2, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> prop = properties.never_lowest(0, 2, low=torch.zeros(2), high=torch.ones(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     proof.save_certificate(proof.verify(model, prop), prop, f"{folder}/a.safetensors")
        ...     certificate = proof.load_certificate(f"{folder}/a.safetensors")
    """
    tensors, metadata = read_tensors(path)
    if _KEY not in metadata:
        raise ValueError(f"path: {path} is no certificate; allowed: a file of save_certificate")
    keys = ["status", "property", "network", "polytopes", "tensors"]
    content = unseal(metadata[_KEY], path, version=_VERSION, keys=keys)
    if digest(tensors) != content["tensors"]:
        raise ValueError(f"path: {path} is damaged: its numbers do not have their checksum")
    count, status = content["polytopes"], content["status"]
    if not isinstance(count, int) or count < 1 or status not in ("proved", "refuted"):
        raise ValueError(f"path: {path} is damaged: status {status!r} on {count!r} polytopes")
    try:
        return Certificate(
            status=str(status),
            property_name=str(content["property"]),
            network=str(content["network"]),
            polytopes=tuple(_polytope(tensors, number) for number in range(count)),
            trees=tuple(_tree(tensors, number) for number in range(count))
            if status == "proved"
            else (),
            counterexample=_tensor(tensors, "counterexample", torch.float64, 1)
            if status == "refuted"
            else None,
        )
    except ValueError as error:
        raise ValueError(f"path: {path} is no complete certificate: {error}") from None


def _tree_tensors(tree: SplitTree) -> dict[str, Tensor]:
    values = tree.values
    tensors = {
        "split_on": tree.split_on,
        "split_at": tree.split_at,
        "weights": values.weights,
        "slopes": values.slopes,
    }
    if values.multipliers is not None and bool((values.multipliers != 0).any()):
        # Few neurons have a phase, and fewer a multiplier: only these are written.
        flat = values.multipliers.flatten()
        tensors["multiplier_at"] = flat.nonzero().squeeze(1)
        tensors["multipliers"] = flat[tensors["multiplier_at"]]
    return tensors


def _polytope(tensors: Mapping[str, Tensor], number: int) -> Polytope:
    matrix, limits, low, high = (
        _tensor(tensors, f"{number}.{name}", torch.float64, 2 if name == "matrix" else 1)
        for name in _POLYTOPE
    )
    if len(matrix) != len(limits) or len(low) != len(high):
        raise ValueError(f"the numbers of polytope {number} do not fit together")
    return Polytope(matrix=matrix, limits=limits, low=low, high=high)


def _tree(tensors: Mapping[str, Tensor], number: int) -> SplitTree:
    axes = {"weights": 2, "slopes": 2}
    found = {
        name: _tensor(tensors, f"{number}.{name}", dtype, axes.get(name, 1))
        for name, dtype in _TREE.items()
        if f"{number}.{name}" in tensors or not name.startswith("multiplier")
    }
    slopes = found["slopes"]
    parts = len(found["weights"])
    if len(found["split_at"]) != len(found["split_on"]) or len(slopes) != parts:
        raise ValueError(f"its dual values are not those of {parts} parts")
    multipliers = None
    if "multiplier_at" in found:
        at, numbers = found["multiplier_at"], found.get("multipliers", slopes[:0, :0].flatten())
        if len(at) != len(numbers) or bool(((at < 0) | (at >= slopes.numel())).any()):
            raise ValueError("multipliers that belong to no neuron of a part")
        multipliers = torch.zeros(slopes.numel()).index_put((at,), numbers.float())
        multipliers = multipliers.view_as(slopes)
    return SplitTree(
        split_on=found["split_on"],
        split_at=found["split_at"],
        values=DualValues(weights=found["weights"], slopes=slopes, multipliers=multipliers),
    )


def _tensor(tensors: Mapping[str, Tensor], name: str, dtype: torch.dtype, axes: int) -> Tensor:
    if name not in tensors:
        raise ValueError(f"{name} is missing")
    tensor = tensors[name]
    if tensor.dtype != dtype or tensor.ndim != axes or not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} is not {axes} axes of finite {dtype}")
    return tensor
