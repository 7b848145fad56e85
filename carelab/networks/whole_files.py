"""Files that are read only where they can be what they claim, and are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["existing_file", "staged", "write_whole"]


def existing_file(path: str | os.PathLike[str], *, largest: int | None = None) -> Path:
    """The path of a file that exists and is not too large to be read.

    Args:
        path: the file.
        largest: bytes that it may have, or None for any number.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is larger.

    Example:
        >>> import tempfile
        >>> from carelab.networks.whole_files import existing_file, write_whole
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(f"{folder}/a", b"abc")
        ...     existing_file(f"{folder}/a", largest=3).name
        'a'
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"path: there is no file {path}")
    size = file.stat().st_size
    if largest is not None and size > largest:
        raise ValueError(f"path: {path} is too large, {size} bytes; allowed: {largest}")
    return file


@contextmanager
def staged(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well.

    Args:
        path: the file to write; an older one stays untouched until the new one is complete.

    Raises:
        OSError: the folder is missing or cannot be written to.

    Example:
        >>> import pathlib, tempfile
        >>> from carelab.networks.whole_files import staged
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with staged(pathlib.Path(folder) / "a.txt") as file:
        ...         length = file.write_text("whole")
    """
    file = Path(path)
    # Not tempfile: its files are private, and a result has the rights of any other new file.
    partial = file.with_name(f".{file.name}-{secrets.token_hex(8)}.partial")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that nobody ever sees a part of it; an older one is replaced at the end.

    Args:
        path: the file.
        content: what it shall hold.

    Raises:
        OSError: the folder is missing or cannot be written to.

    Example:
        >>> import pathlib, tempfile
        >>> from carelab.networks.whole_files import write_whole
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(f"{folder}/a", b"abc")
        ...     [file.name for file in pathlib.Path(folder).iterdir()]
        ['a']
    """
    with staged(path) as partial, partial.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
