"""Folders of the lab: where the checkout is, where results may go, and what they are made from."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

__all__ = ["check_writable", "checkout", "resolve", "source_key"]

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGE = Path(__file__).resolve().parents[1]


def checkout() -> Path:
    """The folder of the checkout that this package was installed from.

    Returns:
        The folder that holds `notebooks/`, `figures/` and `pyproject.toml`.

    Raises:
        FileNotFoundError: the package was installed without its checkout.

    Example:
        >>> from carelab.lab.folders import checkout
        >>> (checkout() / "pyproject.toml").exists()
        True
    """
    if not (_ROOT / "pyproject.toml").is_file():
        raise FileNotFoundError(
            "carelab is installed without its checkout, so its notebooks are not at hand; "
            "clone the repository and run make setup there"
        )
    return _ROOT


def resolve(folder: str | Path) -> Path:
    """The absolute path of a folder; a relative one counts from the checkout.

    A notebook run by hand starts in its own folder, one run by command starts elsewhere; counted
    from the checkout, both write to the same place. Without a checkout the current folder counts.

    Args:
        folder: absolute, or relative to the checkout; "~" is the home folder.

    Example:
        >>> from carelab.lab.folders import checkout, resolve
        >>> resolve(".runs") == checkout() / ".runs"
        True
    """
    base = _ROOT if (_ROOT / "pyproject.toml").is_file() else Path.cwd()
    return base / Path(folder).expanduser()


def check_writable(out_dir: str | Path) -> Path:
    """The absolute path of `out_dir`, made if missing, after a trial write.

    Call it before the work starts, so that a folder that cannot be written to costs nothing.

    Args:
        out_dir: the folder; a relative one counts from the checkout.

    Raises:
        OSError: the folder cannot be made or written to.

    Example:
        >>> import tempfile
        >>> from carelab.lab import check_writable
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_writable(folder + "/new").name
        'new'
    """
    folder = resolve(out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"out_dir: cannot write to {folder} ({error.strerror})") from None
    return folder


def source_key(*parts: str) -> str:
    """SHA-256 of the package's source, which has the checksums of all data: results age with it.

    Args:
        parts: the floors and modules that count, such as "networks", "records.py" or
            "data/images.py"; by default all.

    Example:
        >>> from carelab.lab.folders import source_key
        >>> source_key("networks") == source_key("data")
        False
    """
    files = [(file.relative_to(_PACKAGE), file) for file in sorted(_PACKAGE.rglob("*.py"))]
    listed = "".join(
        f"{name.as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}\n"
        for name, file in files
        if not parts or name.parts[0] in parts or name.as_posix() in parts
    )
    return hashlib.sha256(listed.encode()).hexdigest()
