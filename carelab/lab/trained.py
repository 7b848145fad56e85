"""Trained networks, kept: each is trained once, and read again while nothing behind it changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from carelab.lab.folders import check_writable, source_key
from carelab.networks import load, save
from carelab.networks.tensorfiles import digest

__all__ = ["cached_network", "network_key"]

_log = logging.getLogger(__name__)
# What trains a network: the sources on which its weights depend. Reading other formats and other
# kinds of data is not among them, so that work on these trains nothing anew.
_SOURCES = (
    "records.py",
    *(
        f"networks/{name}.py"
        for name in (
            "architectures",
            "convolutional",
            "inputs",
            "layers",
            "residual",
            "starts",
            "training",
        )
    ),
    *(
        f"data/{name}.py"
        for name in (
            "augmentation",
            "image_files",
            "images",
            "poisoning",
            "sampling",
            "trigger_builders",
            "triggers",
        )
    ),
)


def cached_network(
    build: Callable[[], nn.Module],
    describes: Mapping[str, object],
    *,
    folder: str | Path | None = None,
) -> nn.Module:
    """The network that `build` trains, read from its file where it was trained before.

    The file is named after `network_key`, so that another seed, attack, torch or training code
    means another file. It is there whole or not at all: two processes may train the same network
    at once, and the last one's file, which holds the same weights, stays. A damaged file is
    trained anew, with a warning in the log.

    Args:
        build: trains the network; a sequential one of the kinds that `networks.save` writes.
        describes: everything that decides what `build` returns and is no code of the package:
            name and sha256 of the data set, attack, plan, activation, training options, seed.
        folder: where the files are kept, made if missing; a relative one counts from the
            checkout. By default `.runs/networks`.

    Returns:
        The network as its file holds it, on the CPU, in evaluation mode.

    Raises:
        ValueError: a description that is no plain value, or a network that no file can hold.
        OSError: the folder cannot be written to.

    Example:
        >>> import tempfile, torch
        >>> from carelab import lab, networks
        >>> build = lambda: networks.mlp(4, (3,), 2, generator=torch.Generator().manual_seed(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     one, two = (lab.cached_network(build, {"seed": 0}, folder=folder) for _ in "ab")
        >>> networks.fingerprint(one) == networks.fingerprint(two)
        True
    """
    key = network_key(describes)
    path = check_writable(".runs/networks" if folder is None else folder) / f"{key}.safetensors"
    if path.is_file():
        try:
            return load(path)
        except ValueError as error:
            _log.warning("%s; training the network anew", error)
    _log.info("training a network, to be kept in %s", path)
    save(build(), path)
    # Read back, so that the first call returns what every later one does.
    return load(path)


def network_key(describes: Mapping[str, object]) -> str:
    """Sha256 of everything that decides the weights of a trained network.

    To the description come torch's version, its number of threads and the instructions of the
    processor, which change the sums of floats, and the sources that build, feed and train networks.

    Args:
        describes: texts, numbers, None, classes, tensors, records, and lists and mappings of these.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: a value of another type, or a number that is not finite; the message has its
            key.

    Example:
        >>> from carelab.lab.trained import network_key
        >>> network_key({"seed": 0}) == network_key({"seed": 1})
        False
    """
    made_of = {
        "describes": {key: _plain(value, key) for key, value in describes.items()},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "sources": source_key(*_SOURCES),
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def _plain(value: object, key: str) -> object:
    """The value as JSON has it, without rounding; tensors by checksum, records by kind."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"describes: {key} is {value}; allowed: finite numbers")
        return value
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Tensor):
        return {"tensor": digest({"tensor": value})}
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        fields = {name: _plain(getattr(value, name), f"{key}.{name}") for name in names}
        return {"record": type(value).__name__, **fields}
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: _plain(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item, f"{key}[{place}]") for place, item in enumerate(value)]
    raise ValueError(
        f"describes: {key} is a {type(value).__name__}; allowed: texts, numbers, None, classes, "
        "tensors, records, and lists and mappings (with texts as keys) of these"
    )
