"""The start and the end of an experiment: one generator in, one figure and one result file out."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats

import carelab
from carelab.lab.folders import check_writable, resolve
from carelab.networks.whole_files import staged
from carelab.records import Interval
from carelab.show.plots import note_data

__all__ = ["interval", "origin", "save", "start"]

_logger = logging.getLogger(__name__)
_DIGITS = 6
_CONFIDENCE = 0.95
_ADDED = ("carelab", "torch")


def start(seed: int, *, threads: int = 1) -> torch.Generator:
    """A CPU generator seeded with `seed`, on a torch set to be repeatable.

    Sets torch's threads (their number changes the sums of floats) and its deterministic
    algorithms, for the whole process.

    Args:
        seed: initial seed, 0 or more.
        threads: threads of one torch operation, 1 or more.

    Returns:
        The generator that every random function of the experiment draws from.

    Raises:
        ValueError: a negative or too large seed, or no thread.

    Example:
        >>> import carelab.lab
        >>> carelab.lab.start(seed=3).initial_seed()
        3
    """
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed: got {seed}; allowed: 0 to 2**63 - 1")
    if threads < 1:
        raise ValueError(f"threads: got {threads}; allowed: 1 or more")
    torch.set_num_threads(threads)
    # A matrix product on a GPU refuses to run deterministically without a fixed workspace.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    return torch.Generator().manual_seed(seed)


def interval(
    values: Sequence[float] | np.ndarray | torch.Tensor,
    *,
    lowest: float = -math.inf,
    highest: float = math.inf,
) -> Interval:
    """Mean +- t(0.975, n - 1) s / sqrt(n): the 95 % Student interval of a mean over n seeds.

    The ends are clipped to the range that the quantity can take. One value has no spread to
    estimate: both ends are then the value itself, and n = 1 says so.

    Args:
        values: one value per seed (seeds), all finite.
        lowest: smallest possible value of the quantity, 0 for a rate.
        highest: largest possible value of the quantity, 1 for a rate.

    Returns:
        Mean, lower end, upper end and n.

    Raises:
        ValueError: no values, more than one axis, a value that is not finite or lies outside
            [lowest, highest].

    Example:
        >>> from carelab.lab import interval
        >>> rate = interval([0.8, 0.9, 1.0], lowest=0, highest=1)
        >>> round(rate.mean, 3), round(rate.low, 3), rate.high
        (0.9, 0.652, 1.0)
    """
    given = values.detach().cpu() if isinstance(values, torch.Tensor) else values
    array = np.asarray(given, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"values: got shape {array.shape}; allowed: one axis, not empty")
    if not np.isfinite(array).all():
        raise ValueError(f"values: got {array.tolist()}; allowed: finite numbers")
    if array.min() < lowest or array.max() > highest:
        raise ValueError(f"values: got {array.tolist()}; allowed: {lowest} to {highest}")
    mean = float(array.mean())
    if len(array) == 1:
        return Interval(mean=mean, low=mean, high=mean, n=1)
    quantile = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(array) - 1))
    half = quantile * float(array.std(ddof=1)) / math.sqrt(len(array))
    low, high = max(float(lowest), mean - half), min(float(highest), mean + half)
    return Interval(mean=mean, low=low, high=high, n=len(array))


def origin(data: object) -> dict[str, str]:
    """What a result was made from: name, source, checksum and licence, as `save` notes them.

    Args:
        data: a data set, or anything else with these four.

    Example:
        >>> import torch, carelab as cl
        >>> digits = cl.data.digits(generator=torch.Generator().manual_seed(0))
        >>> cl.lab.origin(digits)["name"]
        'digits'
    """
    return {key: getattr(data, key) for key in ("name", "source", "sha256", "licence")}


def save(
    name: str,
    figure: Figure | None,
    results: Mapping[str, Any],
    *,
    out_dir: str | Path = ".runs",
) -> None:
    """Write the figure to NAME.png and the results to NAME.json.

    The same results give the same bytes: keys are sorted, floats have 6 significant digits, and
    there is no date, host or path. The versions of torch and carelab are added. Where the results
    say under `data` what they were made from, the figure says so too. Keys that
    begin with `seconds` are the ones whose values may differ between two runs of one experiment.

    Args:
        name: name of both files without their endings: letters, digits, "_", "-" and ".".
        figure: the Matplotlib figure, or None where there is nothing to draw.
        results: what was found; tensors, arrays, records, tuples and mappings are converted.
        out_dir: folder to write to, made if missing; a relative one counts from the checkout.

    Raises:
        ValueError: a name that is no file name, a value that JSON cannot hold (the message has
            its key), or one of the added keys in `results`.
        OSError: the folder cannot be written to.

    Example:
        >>> import tempfile, torch, carelab.lab
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     carelab.lab.save("hello", None, {"rate": torch.tensor(0.25)}, out_dir=folder)
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise ValueError(f"name: got {name!r}; allowed: letters, digits, '_', '-' and '.'")
    taken = sorted(set(results) & set(_ADDED))
    if taken:
        raise ValueError(f"results: got the key {taken[0]!r}, which save adds; allowed: other keys")
    plain = _plain(results, key="")
    plain |= {"torch": torch.__version__.partition("+")[0], "carelab": carelab.__version__}
    text = json.dumps(plain, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    folder = check_writable(resolve(out_dir))
    picture = folder / f"{name}.png"
    if figure is None:
        # An older picture of that name would pass for a picture of these results.
        picture.unlink(missing_ok=True)
    else:
        if "data" in plain:
            note_data(figure, _provenance(plain["data"]))
        with staged(picture) as path:
            # Matplotlib writes its version into the file unless told not to.
            figure.savefig(
                path, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None}
            )
    with staged(folder / f"{name}.json") as path:
        path.write_text(text + "\n", encoding="utf-8")
    _logger.info("wrote %s to %s", name, folder)


def _provenance(data: Mapping[str, Any]) -> str:
    """Which data a figure shows, in one line."""
    checksum = str(data.get("sha256", ""))[:12]
    return f"Data: {data.get('name')}, {data.get('source')}, sha256 {checksum}"


def _plain(value: Any, *, key: str) -> Any:
    """The value as JSON has it: dicts, lists, strings, numbers, true, false and null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float | np.floating):
        return _rounded(float(value), key=key)
    if isinstance(value, np.generic):
        return _plain(value.item(), key=key)
    if isinstance(value, torch.Tensor | np.ndarray):
        return _plain(value.tolist(), key=key)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return _plain({name: getattr(value, name) for name in names}, key=key)
    if isinstance(value, Mapping):
        wrong = [name for name in value if not isinstance(name, str)]
        if wrong:
            raise ValueError(f"results: {key} has the key {wrong[0]!r}; allowed: keys of text")
        return {name: _plain(item, key=f"{key}.{name}".lstrip(".")) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, key=f"{key}[{place}]") for place, item in enumerate(value)]
    raise ValueError(
        f"results: {key} is of type {type(value).__name__}; allowed: numbers, text, None, tensors, "
        "arrays, records, and lists and mappings of these"
    )


def _rounded(value: float, *, key: str) -> float:
    if not math.isfinite(value):
        raise ValueError(f"results: {key} is {value}; allowed: finite numbers")
    return float(f"{value:.{_DIGITS}g}")
