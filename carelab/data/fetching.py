"""Finding the files of a data set: the user's folder, then the cache, then the official address.

Every file is checked against its sha256 each time it is asked for, wherever it came from. No
other file or data set ever stands in for one that is missing or damaged.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
from tqdm.auto import tqdm

__all__ = [
    "DataError",
    "FileStatus",
    "RemoteFile",
    "Source",
    "cache_folder",
    "file_status",
    "obtain",
    "user_folder",
]

logger = logging.getLogger(__name__)

_VARIABLE = "CARELAB_DATA"
_RETRIES = 2
_TIMEOUT = 30.0  # seconds without an answer
_ABANDONED = 3600.0  # seconds after which a partial download cannot be another process's


class DataError(OSError):
    """A data file is missing, damaged or cannot be fetched; the message says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """One file of an official source.

    Args:
        path: where it lies below the data folder or the cache, with forward slashes.
        address: the official address.
        sha256: checksum that the file must have, 64 hexadecimal digits.
        size: its length in bytes.
    """

    path: str
    address: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a data set or a published network comes from.

    Args:
        name: its name in the registry, such as "adult".
        description: what it is, in one line.
        licence: the licence that its source states.
        files: its files, the main one first; none where the package generates the data.
    """

    name: str
    description: str
    licence: str
    files: tuple[RemoteFile, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class FileStatus:
    """What is known of one file without fetching it.

    Args:
        name: the data set that it belongs to.
        path: its path below the data folder or the cache.
        found: "CARELAB_DATA", "cache" or "to download".
        status: "ok", "missing" or "wrong checksum".
        detail: what is wrong and what to do, or empty.
    """

    name: str
    path: str
    found: str
    status: str
    detail: str = ""


def user_folder() -> Path | None:
    """The folder that the environment variable CARELAB_DATA names, or None where it is not set.

    Raises:
        DataError: CARELAB_DATA names a folder that does not exist.

    Example:
        >>> from carelab.data.fetching import user_folder
        >>> folder = user_folder()
        >>> folder is None or folder.is_dir()
        True
    """
    named = os.environ.get(_VARIABLE, "").strip()
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"{_VARIABLE} names {folder}, which is no folder; create it, correct the variable, "
            "or unset it to use the cache"
        )
    return folder


def cache_folder() -> Path:
    """The folder that downloads are kept in, such as ~/.cache/carelab on Linux.

    Example:
        >>> from carelab.data.fetching import cache_folder
        >>> cache_folder().name
        'carelab'
    """
    return Path(pooch.os_cache("carelab"))


def file_status(source: Source, *, verify: bool = True) -> tuple[FileStatus, ...]:
    """Where each file of a source lies now, and whether its checksum holds.

    Args:
        source: the data set or network.
        verify: compute checksums; without it a file that exists counts as "ok".

    Raises:
        DataError: CARELAB_DATA names a folder that does not exist.

    Example:
        >>> from carelab.data.fetching import Source, file_status
        >>> file_status(Source(name="mine", description="", licence="MIT"))
        ()
    """
    statuses = []
    for file in source.files:
        found, path = _locate(file)
        fault = _fault(path, file) if path is not None and verify else ""
        status = "missing" if path is None else "wrong checksum" if fault else "ok"
        statuses.append(
            FileStatus(name=source.name, path=file.path, found=found, status=status, detail=fault)
        )
    return tuple(statuses)


def obtain(source: Source, *, progress: bool = True) -> tuple[Path, ...]:
    """Paths of a source's files, each with the right checksum, downloaded where necessary.

    Each file is looked for in the folder named by CARELAB_DATA, then in the cache, and is
    downloaded into the cache last. A damaged file in the user's folder is an error, because it
    is the user's; one in the cache is fetched again.

    Args:
        source: the data set or network.
        progress: show a bar while a file downloads.

    Returns:
        One path per file, in the order of `source.files`.

    Raises:
        DataError: a damaged file in CARELAB_DATA, a download that failed or has the wrong
            checksum, a cache that cannot be written; the message says what to do.

    Example:
        >>> from carelab.data.fetching import Source, obtain
        >>> obtain(Source(name="mine", description="no files", licence="MIT"))
        ()
    """
    return tuple(_obtain_file(file, progress) for file in source.files)


def _locate(file: RemoteFile) -> tuple[str, Path | None]:
    folder = user_folder()
    if folder is not None and (folder / file.path).is_file():
        return _VARIABLE, folder / file.path
    if (cache_folder() / file.path).is_file():
        return "cache", cache_folder() / file.path
    return "to download", None


def _fault(path: Path, file: RemoteFile) -> str:
    size = path.stat().st_size
    if size < file.size:
        return f"{path} is truncated: {size} of {file.size} bytes"
    try:
        found = pooch.file_hash(str(path), alg="sha256")
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if found != file.sha256:
        return f"{path} has the wrong checksum: sha256 {found}, expected {file.sha256}"
    return ""


def _obtain_file(file: RemoteFile, progress: bool) -> Path:
    found, path = _locate(file)
    fault = _fault(path, file) if path is not None else ""
    if path is not None and not fault:
        return path
    if fault and found == _VARIABLE:
        raise DataError(
            f"{fault}; replace it with the file from {file.address}, or delete it so that it is "
            "fetched from there"
        )
    if fault:
        logger.warning("%s; fetching it again", fault)
    return _download(file, progress)


def _download(file: RemoteFile, progress: bool) -> Path:
    cache = cache_folder()
    target = cache / file.path
    _prepare(target.parent)
    fetcher = pooch.create(
        path=cache,
        base_url="",
        registry={file.path: f"sha256:{file.sha256}"},
        urls={file.path: file.address},
        retry_if_failed=_RETRIES,
    )
    by_hand = (
        f"put the file at {target} by hand or into a folder named by {_VARIABLE} (as "
        f"{file.path}), or use embedded-census, embedded-credit or digits, which need no file"
    )
    try:
        _fetch(fetcher, file, progress)
    except ValueError:  # the checksum, after the retries
        raise DataError(
            f"what {file.address} serves has the wrong checksum (expected sha256 {file.sha256}), "
            f"so nothing was kept; {by_hand}"
        ) from None
    except OSError as error:
        raise DataError(
            f"{file.path} could not be fetched from {file.address} ({_reason(error)}); {by_hand}"
        ) from None
    return target


def _fetch(fetcher: pooch.Pooch, file: RemoteFile, progress: bool) -> None:
    """Download one file under a bar; an answer that breaks off is closed at once."""
    bar = tqdm(desc=file.path, total=file.size, unit="B", unit_scale=True, disable=not progress)
    with bar, ExitStack() as stack:

        def close_at_the_end(answer: Any, **_: Any) -> None:
            stack.callback(answer.close)

        hooks = {"response": close_at_the_end}
        downloader = pooch.HTTPDownloader(progressbar=bar, timeout=_TIMEOUT, hooks=hooks)
        fetcher.fetch(file.path, downloader=downloader)


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        # What a killed download leaves behind carries a random name, so it is never taken for
        # the file itself; it only has to go some day.
        for partial in folder.glob("tmp????????"):
            with suppress(FileNotFoundError):  # another process may have finished it just now
                if time.time() - partial.stat().st_mtime > _ABANDONED:
                    partial.unlink()
    except OSError as error:
        raise DataError(
            f"the cache folder {folder} cannot be written ({_reason(error)}); make it writable, "
            f"or name a folder that holds the files in {_VARIABLE}"
        ) from None


def _reason(error: OSError) -> str:
    """What went wrong, without the nest of exceptions that the network layer reports."""
    if error.strerror:
        return error.strerror
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    return type(error).__name__
