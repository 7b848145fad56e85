"""Repairs in small safetensors files, to be applied again or undone later."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from carelab.networks.tensorfiles import digest, read_tensors, seal, unseal, write_tensors
from carelab.records import Edit, Neuron, Performance, Repair

__all__ = ["load_repair", "save_repair"]

_KEY = "carelab_repair"
_VERSION = 1
_TEXTS = ("method", "property_name", "network", "repaired", "status")
_KEYS = (*_TEXTS, "seconds", "seed", "neurons", "before", "after", "edits", "tensors")
_STATUSES = ("improved", "unchanged")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_Kind = TypeVar("_Kind", str, int, float)


def save_repair(repair: Repair, path: str | os.PathLike[str]) -> None:
    """Write a repair to a safetensors file that alone applies or undoes it.

    The file holds the factors, the history and the old and new slices of each edit as tensors,
    and the rest as JSON in its metadata, with a format version and checksums. It holds no
    network: that is known by its fingerprint. Equal repairs give equal files. The file is there
    whole or not at all.

    Args:
        repair: the repair.
        path: the file; an older one is replaced.

    Raises:
        ValueError: a repair that contradicts itself, such as one with more factors than neurons.
        OSError: the folder is missing or cannot be written to.

    Example:
        >>> import tempfile, torch, carelab as cl
        >>> g, one = torch.Generator().manual_seed(0), cl.records.Neuron("relu1", 0)
        >>> table = cl.data.embedded_census(rows=400, generator=g)
        >>> model = cl.networks.mlp(9, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(table, "sex")
        >>> fixed = cl.repair.care(model, table.train, table.train, fair, [one], generator=g)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cl.repair.save_repair(fixed, f"{folder}/a.safetensors")
    """
    try:
        _check_consistency(repair)
    except ValueError as error:
        raise ValueError(f"repair: contradicts itself, {error}") from None
    tensors = _tensors(repair)
    description = {
        "version": _VERSION,
        **{name: getattr(repair, name) for name in _TEXTS},
        "seconds": float(repair.seconds),
        "seed": repair.seed,
        "neurons": [[neuron.layer, neuron.index] for neuron in repair.neurons],
        "before": _rates(repair.before),
        "after": _rates(repair.after),
        "edits": [[edit.parameter, edit.axis, list(edit.indices)] for edit in repair.edits],
        "tensors": digest(tensors),
    }
    write_tensors(path, tensors, {_KEY: seal(description, "repair")})


def load_repair(path: str | os.PathLike[str]) -> Repair:
    """The repair in a file written by `save_repair`, bit for bit.

    No code from the file is run. The checksums find damage and careless edits; they are no
    signature. Whether the repair fits a network is seen when it is applied.

    Args:
        path: the file.

    Returns:
        The repair, its tensors on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is damaged, of another kind or version, or whose parts contradict
            one another.

    Example:
        >>> import tempfile, torch, carelab as cl
        >>> g, one = torch.Generator().manual_seed(0), cl.records.Neuron("relu1", 0)
        >>> data, m = cl.data.embedded_census(generator=g), cl.networks.mlp(9, (8,), 2, generator=g)
        >>> fair = cl.properties.individual_fairness(data, "sex")
        >>> fixed = cl.repair.care(m, data.selection, data.selection, fair, [one], generator=g)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cl.repair.save_repair(fixed, f"{folder}/a.safetensors")
        ...     same = cl.repair.load_repair(f"{folder}/a.safetensors")
    """
    tensors, metadata = read_tensors(path)
    if _KEY not in metadata:
        raise ValueError(
            f"path: {path} holds no description of a repair; allowed: a file written by save_repair"
        )
    content = unseal(metadata[_KEY], path, version=_VERSION, keys=_KEYS)
    try:
        _check_tensors(tensors)
        if digest(tensors) != content["tensors"]:
            raise ValueError("its tensors do not have their checksum")
        repair = _rebuild(content, tensors)
        _check_consistency(repair)
    except ValueError as error:
        raise ValueError(f"path: {path} is damaged or holds no sound repair: {error}") from None
    return repair


def _tensors(repair: Repair) -> dict[str, Tensor]:
    tensors = {"factors": repair.factors, "history": repair.history}
    for number, edit in enumerate(repair.edits):
        tensors[f"edit{number}.before"] = edit.before
        tensors[f"edit{number}.after"] = edit.after
    return tensors


def _rates(performance: Performance) -> list[float]:
    return [float(performance.accuracy), float(performance.violation_rate)]


def _rebuild(content: Mapping[str, object], tensors: Mapping[str, Tensor]) -> Repair:
    """The repair that a description and its tensors state; nothing in them is taken on trust."""
    entries = _items(content["edits"], "edits")
    names = {"factors", "history"}
    names |= {f"edit{n}.{side}" for n in range(len(entries)) for side in ("before", "after")}
    if set(tensors) != names:
        wrong = ", ".join(sorted(names ^ set(tensors))[:5])
        raise ValueError(f"its tensors are not those it describes: {wrong}")
    texts = {name: _typed(content[name], name, str) for name in _TEXTS}
    return Repair(
        **texts,
        neurons=tuple(_neuron(entry) for entry in _items(content["neurons"], "neurons")),
        factors=tensors["factors"],
        before=_performance(content["before"], "before"),
        after=_performance(content["after"], "after"),
        history=tensors["history"],
        seconds=_typed(content["seconds"], "seconds", float),
        seed=_typed(content["seed"], "seed", int),
        edits=tuple(_edit(entry, number, tensors) for number, entry in enumerate(entries)),
    )


def _neuron(entry: object) -> Neuron:
    layer, index = _items(entry, "neuron", 2)
    return Neuron(_typed(layer, "neuron's layer", str), _typed(index, "neuron's index", int))


def _performance(entry: object, name: str) -> Performance:
    accuracy, rate = (_typed(value, name, float) for value in _items(entry, name, 2))
    return Performance(accuracy=accuracy, violation_rate=rate)


def _edit(entry: object, number: int, tensors: Mapping[str, Tensor]) -> Edit:
    name = f"edit{number}"
    parameter, axis, indices = _items(entry, name, 3)
    before, after = tensors[f"{name}.before"], tensors[f"{name}.after"]
    _check_slices(before, after, name)
    return Edit(
        parameter=_typed(parameter, f"{name}.parameter", str),
        axis=_typed(axis, f"{name}.axis", int),
        indices=tuple(
            _typed(index, f"{name}.indices", int) for index in _items(indices, f"{name}.indices")
        ),
        before=before,
        after=after,
    )


def _typed(value: object, name: str, kind: type[_Kind]) -> _Kind:
    # By exact type, since True is an int to isinstance.
    if type(value) is not kind:
        raise ValueError(f"its {name} is {value!r}; allowed: {kind.__name__}")
    return value


def _items(value: object, name: str, count: int | None = None) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"its {name} is {value!r}; allowed: list")
    if count is not None and len(value) != count:
        raise ValueError(f"its {name} has {len(value)} entries; allowed: {count}")
    return value


def _check_tensors(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            allowed = ", ".join(map(str, _DTYPES))
            raise ValueError(f"its {name} is {tensor.dtype}; allowed: {allowed}")
        if name in ("factors", "history") and tensor.ndim != 1:
            raise ValueError(f"its {name} has {tensor.ndim} axes; allowed: 1")


def _check_consistency(repair: Repair) -> None:
    """Raises where the parts contradict one another; the same when written and when read."""
    _check_tensors(_tensors(repair))
    if len(repair.factors) not in (0, len(repair.neurons)):
        raise ValueError(
            f"it has {len(repair.factors)} factors for {len(repair.neurons)} neurons; "
            "allowed: one each"
        )
    repeated = len(set(repair.neurons)) < len(repair.neurons)
    if repeated or any(neuron.index < 0 for neuron in repair.neurons):
        raise ValueError("its neurons repeat or have negative indices; allowed: each once, from 0")
    for rate in (*_rates(repair.before), *_rates(repair.after)):
        if not 0 <= rate <= 1:
            raise ValueError(f"it states a rate of {rate}; allowed: 0 to 1")
    if not 0 <= repair.seconds < float("inf"):
        raise ValueError(f"its seconds are {repair.seconds}; allowed: a finite time")
    if repair.status not in _STATUSES:
        raise ValueError(f"its status is {repair.status!r}; allowed: {', '.join(_STATUSES)}")
    for name, value in (("network", repair.network), ("repaired", repair.repaired)):
        if not re.fullmatch("[0-9a-f]{64}", value):
            raise ValueError(f"its {name} is {value[:70]!r}; allowed: a fingerprint, 64 hex digits")
    for number, edit in enumerate(repair.edits):
        _check_edit(edit, f"edit{number}")


def _check_edit(edit: Edit, name: str) -> None:
    _check_slices(edit.before, edit.after, name)
    if not 0 <= edit.axis < edit.before.ndim:
        raise ValueError(
            f"its {name} counts along axis {edit.axis}; allowed: 0 to {edit.before.ndim - 1}"
        )
    distinct = set(edit.indices)
    if len(distinct) != len(edit.indices) or any(index < 0 for index in distinct):
        raise ValueError(f"its {name} has repeated or negative indices; allowed: each once, from 0")
    if len(edit.indices) != edit.before.shape[edit.axis]:
        raise ValueError(
            f"its {name} has {edit.before.shape[edit.axis]} slices for {len(edit.indices)} "
            "indices; allowed: one each"
        )


def _check_slices(before: Tensor, after: Tensor, name: str) -> None:
    if before.shape != after.shape or before.dtype != after.dtype:
        raise ValueError(
            f"its {name} replaces {before.dtype} of shape {tuple(before.shape)} by "
            f"{after.dtype} of shape {tuple(after.shape)}; allowed: the same"
        )
