"""Safetensors files: tensors and a sealed description, read without trust, written whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from carelab.networks.whole_files import existing_file, write_whole

__all__ = ["digest", "read_tensors", "seal", "unseal", "write_tensors"]

_LIMIT = 1_000_000  # characters of description; a thousand modules take about a tenth of it


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    No code from the file is run, and memory is taken only for numbers that are really in it.

    Args:
        path: the file.

    Returns:
        The tensors by name, on the CPU and independent of the file, and the metadata.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is damaged or of another format.

    Example:
        >>> import tempfile, torch
        >>> from carelab.networks.tensorfiles import read_tensors, write_tensors
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tensors(f"{folder}/a", {"ones": torch.ones(2)}, {"note": "two"})
        ...     read_tensors(f"{folder}/a")
        ({'ones': tensor([1., 1.])}, {'note': 'two'})
    """
    file = existing_file(path)
    try:
        with safe_open(file, framework="pt", device="cpu") as content:
            # Clones, since what is read is a view of the file, which may change later.
            tensors = {
                name: content.get_tensor(name).clone()
                for name in content.keys()  # noqa: SIM118
            }
            return tensors, dict(content.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"path: {path} is damaged or no safetensors file ({error})") from None


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors and metadata to a safetensors file, which is there whole or not at all.

    Equal content gives equal files as long as the metadata has one key: safetensors writes
    several in an arbitrary order.

    Args:
        path: the file; an older one is replaced.
        tensors: the tensors by name, of any device and layout.
        metadata: texts by key.

    Raises:
        OSError: the folder is missing or cannot be written to.

    Example:
        >>> import tempfile, torch
        >>> from carelab.networks.tensorfiles import write_tensors
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tensors(f"{folder}/a", {"ones": torch.ones(2)}, {"note": "two"})
    """
    # Copies, since safetensors refuses tensors that share memory or are not contiguous.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    write_whole(path, to_bytes(copies, metadata=dict(metadata)))


def seal(content: Mapping[str, object], argument: str) -> str:
    """A description as JSON text with its own checksum in it, for the metadata of a file.

    Args:
        content: the description, of JSON's types; "version" is its format version.
        argument: name of the caller's argument that it describes, for the message.

    Raises:
        ValueError: a number that is not finite, or a description that is too long.

    Example:
        >>> from carelab.networks.tensorfiles import seal, unseal
        >>> text = seal({"version": 1, "colour": "red"}, "model")
        >>> unseal(text, "a.safetensors", version=1, keys=["colour"])["colour"]
        'red'
    """
    try:
        text = json.dumps({**content, "checksum": _checksum(content)}, allow_nan=False)
    except ValueError:
        raise ValueError(
            f"{argument}: holds a number that is not finite; allowed: finite ones"
        ) from None
    if len(text) > _LIMIT:
        raise ValueError(
            f"{argument}: too large to be described, {len(text)} characters; allowed: {_LIMIT}"
        )
    return text


def unseal(
    text: str, path: str | os.PathLike[str], *, version: int, keys: Sequence[str]
) -> dict[str, object]:
    """The description in a text written by `seal`; damage and careless edits are found.

    Args:
        text: the text.
        path: the file it was read from, for the messages.
        version: the format version that is wanted.
        keys: what it must hold besides its version, and nothing else.

    Raises:
        ValueError: a text that cannot be read, of another version, or without its checksum.

    Example:
        >>> from carelab.networks.tensorfiles import seal, unseal
        >>> unseal("{}", "a.safetensors", version=1, keys=[])
        Traceback (most recent call last):
        ...
        ValueError: path: a.safetensors has a description of version None; allowed: 1
    """
    try:
        if len(text) > _LIMIT:
            raise ValueError(f"longer than {_LIMIT} characters")
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"path: {path} has no readable description ({error})") from None
    if not isinstance(content, dict) or content.get("version") != version:
        found = content.get("version") if isinstance(content, dict) else None
        raise ValueError(f"path: {path} has a description of version {found!r}; allowed: {version}")
    checksum = content.pop("checksum", None)
    if set(content) != {"version", *keys} or checksum != _checksum(content):
        raise ValueError(f"path: {path} is damaged: its description does not have its checksum")
    return content


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Sha256 of the names, shapes, number types and bytes of tensors, in the order of the names.

    Args:
        tensors: the tensors by name, on any device.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> import torch
        >>> from carelab.networks.tensorfiles import digest
        >>> digest({"a": torch.zeros(1)}) == digest({"a": -torch.zeros(1)})
        False
    """
    result = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        result.update(f"{name!r} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        # Seen as bytes, so that types that numpy does not know (bfloat16) work too.
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        result.update(flat.view(torch.uint8).numpy().tobytes())
    return result.hexdigest()


def _checksum(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
