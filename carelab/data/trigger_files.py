"""Triggers in small safetensors files: a trigger can be kept and used again bit for bit."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from carelab.data.triggers import (
    BlendTrigger,
    MaskTrigger,
    PatchTrigger,
    SinusoidTrigger,
    Trigger,
    WarpTrigger,
)
from carelab.networks.tensorfiles import digest, read_tensors, seal, unseal, write_tensors

__all__ = ["load_trigger", "save_trigger"]

_KEY = "carelab_trigger"
_VERSION = 1
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_KINDS = {
    "patch": PatchTrigger,
    "blend": BlendTrigger,
    "warp": WarpTrigger,
    "sinusoid": SinusoidTrigger,
    "mask": MaskTrigger,
}
# What each kind is made of: tensors with their axes (a number where the length is fixed), numbers
# with their type.
_TENSORS: Mapping[str, Mapping[str, tuple[int | None, ...]]] = {
    "patch": {"pattern": (None, None, None)},
    "blend": {"pattern": (None, None, None)},
    "warp": {"field": (None, None, 2)},
    "sinusoid": {},
    "mask": {"mask": (1, None, None), "pattern": (None, None, None)},
}
_NUMBERS: Mapping[str, Mapping[str, type[int] | type[float]]] = {
    "patch": {"row": int, "column": int},
    "blend": {"ratio": float},
    "warp": {},
    "sinusoid": {"amplitude": float, "frequency": int},
    "mask": {},
}


def save_trigger(trigger: Trigger, path: str | os.PathLike[str]) -> None:
    """Write a trigger to a safetensors file that alone rebuilds it.

    The file holds its tensors and, as JSON in its metadata, its kind and numbers, with a format
    version and checksums. Equal triggers give equal files. The file is there whole or not at all.

    Args:
        trigger: a patch, blend, warp, sinusoid or mask trigger.
        path: the file; an older one is replaced.

    Raises:
        ValueError: another kind of trigger.
        OSError: the folder is missing or cannot be written to.

    Example:
        >>> import tempfile
        >>> from carelab import data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data.save_trigger(data.white_patch((1, 28, 28)), f"{folder}/a.safetensors")
        ...     data.load_trigger(f"{folder}/a.safetensors").name
        'patch'
    """
    kind = next((name for name, known in _KINDS.items() if type(trigger) is known), None)
    if kind is None:
        raise ValueError(
            f"trigger: got a {type(trigger).__name__}; allowed: {', '.join(_KINDS)} triggers"
        )
    tensors = {name: getattr(trigger, name) for name in _TENSORS[kind]}
    description = {
        "version": _VERSION,
        "kind": kind,
        "numbers": {
            name: number(getattr(trigger, name)) for name, number in _NUMBERS[kind].items()
        },
        "tensors": digest(tensors),
    }
    write_tensors(path, tensors, {_KEY: seal(description, "trigger")})


def load_trigger(path: str | os.PathLike[str]) -> Trigger:
    """The trigger in a file written by `save_trigger`, bit for bit.

    No code from the file is run. The checksums find damage and careless edits; they are no
    signature.

    Args:
        path: the file.

    Returns:
        The trigger, its tensors on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is damaged, of another kind or version, or that describes no
            trigger.

    Example:
        >>> import tempfile
        >>> from carelab import data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stripes = data.SinusoidTrigger(amplitude=0.1, frequency=6)
        ...     data.save_trigger(stripes, f"{folder}/a.safetensors")
        ...     data.load_trigger(f"{folder}/a.safetensors").frequency
        6
    """
    tensors, metadata = read_tensors(path)
    if _KEY not in metadata:
        raise ValueError(
            f"path: {path} holds no description of a trigger; "
            "allowed: a file written by save_trigger"
        )
    content = unseal(metadata[_KEY], path, version=_VERSION, keys=["kind", "numbers", "tensors"])
    try:
        if digest(tensors) != content["tensors"]:
            raise ValueError("its tensors do not have their checksum")
        return _rebuilt(content["kind"], content["numbers"], tensors)
    except ValueError as error:
        raise ValueError(f"path: {path} is damaged or holds no sound trigger: {error}") from None


def _rebuilt(kind: object, numbers: object, tensors: Mapping[str, Tensor]) -> Trigger:
    """The trigger that a description and its tensors state; nothing in them is taken on trust."""
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"it is of kind {kind!r}; allowed: {', '.join(_KINDS)}")
    if not isinstance(numbers, dict) or {n: type(v) for n, v in numbers.items()} != _NUMBERS[kind]:
        raise ValueError(f"its numbers are {numbers!r}; a {kind} has {', '.join(_NUMBERS[kind])}")
    if set(tensors) != set(_TENSORS[kind]):
        raise ValueError(f"its tensors are {sorted(tensors)}; a {kind} has {list(_TENSORS[kind])}")
    for name, axes in _TENSORS[kind].items():
        found = tensors[name]
        fits = len(axes) == found.ndim and all(
            length in (None, size) for length, size in zip(axes, found.shape, strict=True)
        )
        if not fits or found.dtype not in _DTYPES:
            raise ValueError(f"its {name} has shape {tuple(found.shape)} and type {found.dtype}")
    trigger: Trigger = _KINDS[kind](**numbers, **tensors)
    return trigger
