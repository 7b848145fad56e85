"""The report as a file: results read from a folder, one page written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from carelab.lab.folders import check_writable, resolve
from carelab.networks.whole_files import staged
from carelab.show.report import report_page

__all__ = ["read_results", "write_report"]


def read_results(folder: str | Path) -> dict[str, dict[str, Any]]:
    """The contents of every result file in `folder`, by name without the ending.

    Args:
        folder: where `save` wrote to; a relative one counts from the checkout.

    Raises:
        FileNotFoundError: no such folder, or no result file in it.
        ValueError: a file that is no JSON object; the message has its path.

    Example:
        >>> import tempfile, carelab.lab
        >>> from carelab.lab.reporting import read_results
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     carelab.lab.save("a", None, {"rate": 0.5}, out_dir=folder)
        ...     read_results(folder)["a"]["rate"]
        0.5
    """
    folder = resolve(folder)
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"figures: no result file (*.json) in {folder}; make figures first")
    results = {}
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"figures: {path} is no JSON ({error})") from None
        if not isinstance(content, dict):
            raise ValueError(f"figures: {path} holds no JSON object")
        results[path.stem] = content
    return results


def write_report(figures: str | Path, out: str | Path) -> Path:
    """Write one self-contained page of all results in a folder, and return its path.

    Args:
        figures: folder of the result files and their pictures; relative to the checkout.
        out: the page to write; a relative path counts from the checkout.

    Raises:
        FileNotFoundError: no result file.
        ValueError: a broken result file.
        OSError: the page cannot be written.

    Example:
        >>> import tempfile, carelab.lab
        >>> from carelab.lab.reporting import write_report
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     carelab.lab.save("a", None, {"rate": 0.5}, out_dir=folder)
        ...     write_report(folder, folder + "/report.html").name
        'report.html'
    """
    out = resolve(out)
    check_writable(out.parent)
    results = read_results(figures)
    files = {name: resolve(figures) / f"{name}.png" for name in results}
    pictures = {name: path.read_bytes() for name, path in files.items() if path.is_file()}
    page = report_page(results, pictures)
    with staged(out) as partial:
        partial.write_text(page, encoding="utf-8")
    return out
