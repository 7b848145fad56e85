"""One run of a notebook: parameters checked before it starts, results renamed into place after."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carelab.lab.folders import check_writable
from carelab.lab.parameters import Parameter, check_parameters, read_parameters
from carelab.networks.whole_files import staged

if TYPE_CHECKING:
    from nbformat import NotebookNode

__all__ = ["Run", "RunError", "run_name", "run_notebook"]

_KERNEL = "python3"
_INJECTED = "injected-parameters"


class RunError(RuntimeError):
    """A run that started and did not end well; the message says where and why."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Run:
    """One finished run of a notebook.

    Args:
        notebook: its file name without the ending.
        parameters: what was set.
        files: the result files, in the folder asked for.
        executed: the executed notebook.
        seconds: wall time.
    """

    notebook: str
    parameters: Mapping[str, Any]
    files: tuple[Path, ...]
    executed: Path
    seconds: float


def run_name(path: str | Path, parameters: Mapping[str, Any]) -> str:
    """The name of one run: the notebook's, its text parameters and a digest of all of them.

    Args:
        path: the notebook file.
        parameters: what is set; with none, the name is the notebook's own.

    Example:
        >>> from carelab.lab.runs import run_name
        >>> run_name("10_fairness.ipynb", {"task": "census-age", "k": 3})
        '10_fairness-census-age-ebf0cf'
    """
    stem = Path(path).stem
    if not parameters:
        return stem
    text = json.dumps(parameters, sort_keys=True, default=str)
    words = [str(value) for _, value in sorted(parameters.items()) if isinstance(value, str)]
    slug = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(words)).strip("-")[:40]
    return "-".join(part for part in (stem, slug, _digest(text)) if part)


def run_notebook(
    path: str | Path,
    parameters: Mapping[str, Any],
    out_dir: str | Path,
    *,
    progress: bool = False,
    timeout: int | None = None,
    executed_dir: str | Path | None = None,
) -> Run:
    """Run a notebook with these parameters; its result files end up in `out_dir`, all or none.

    The notebook writes to a hidden folder inside `out_dir`, given to it as its own parameter
    `out_dir`. When the last cell has ended, the files are renamed into place, the executed
    notebook last. The kernel is the Python that runs this function, in the notebook's folder.

    Args:
        path: the notebook file.
        parameters: the value of each parameter to set; the others keep their defaults.
        out_dir: folder of the results, made if missing; a relative one counts from the checkout.
        progress: show a bar that counts cells.
        timeout: seconds that one cell may take, or None for no limit.
        executed_dir: folder of the executed notebook, `out_dir` if None.

    Returns:
        Which files were written, and how long it took.

    Raises:
        FileNotFoundError: no such notebook.
        ValueError: no parameters cell, or a parameter that it does not allow.
        OSError: a folder that cannot be written to.
        ImportError: the extra "notebooks" is not installed.
        RunError: a failing cell, a dead kernel or a time-out; the partly executed notebook is
            kept as NAME.failed.ipynb and nothing else is written.

    Example:
        >>> import carelab.lab
        >>> carelab.lab.run_notebook("missing.ipynb", {}, ".runs")
        Traceback (most recent call last):
        FileNotFoundError: path: no notebook at missing.ipynb
    """
    path = Path(path)
    declared = read_parameters(path)
    _check(declared, parameters)
    folder = check_writable(out_dir)
    kept = check_writable(executed_dir or out_dir)
    name = run_name(path, parameters)
    default = next(str(item.default) for item in declared if item.name == "out_dir")
    begin = time.perf_counter()
    staging = Path(tempfile.mkdtemp(dir=folder, prefix=f".{name}-", suffix=".partial"))
    try:
        notebook = _parameterized(path, {**parameters, "out_dir": str(staging)})
        error = _execute(notebook, cwd=path.resolve().parent, progress=progress, timeout=timeout)
        _tidy(notebook, staging, default)
        failed = kept / f"{name}.failed.ipynb"
        stop = _stop(notebook, error, timeout)
        if stop:
            _write(notebook, failed)
            raise RunError(f"{path.name}: {stop}; see {failed}")
        files = _move(staging, folder)
        executed = kept / f"{name}.ipynb"
        _write(notebook, executed)
        # A note of an older failure would speak against the run that now went well.
        failed.unlink(missing_ok=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    seconds = time.perf_counter() - begin
    return Run(
        notebook=path.stem,
        parameters=dict(parameters),
        files=files,
        executed=executed,
        seconds=seconds,
    )


def _check(declared: tuple[Parameter, ...], parameters: Mapping[str, Any]) -> None:
    if "out_dir" in parameters:
        raise ValueError("out_dir: is no parameter to set; give the folder as out_dir of the run")
    if "out_dir" not in [parameter.name for parameter in declared]:
        raise ValueError("path: the notebook declares no parameter out_dir to write its results to")
    check_parameters(declared, parameters)


def _parameterized(path: Path, parameters: Mapping[str, Any]) -> NotebookNode:
    """The notebook with papermill's cell of parameters in it."""
    try:
        import nbformat
        from papermill.parameterize import parameterize_notebook
    except ImportError as error:
        raise ImportError(
            f"{error.name} is missing; to run notebooks, install the extra: "
            "pip install 'carelab[notebooks]', or make setup in the checkout"
        ) from None
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"path: {path} is no valid notebook ({reason})") from None
    notebook.metadata["papermill"] = {}
    for cell in notebook.cells:
        cell.metadata.setdefault("tags", [])
    return parameterize_notebook(notebook, dict(parameters), kernel_name=_KERNEL, language="python")


def _execute(
    notebook: NotebookNode, *, cwd: Path, progress: bool, timeout: int | None
) -> Exception | None:
    """Execute in place; what killed the kernel or ran out of time, or None.

    The engine is called below `papermill.execute_notebook`, which works on a copy: after a dead
    kernel or a time-out the outputs so far would be lost with it.
    """
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.engines import papermill_engines
    from traitlets.config import Config

    try:
        papermill_engines.execute_notebook_with_engine(
            None,
            notebook,
            _KERNEL,
            output_path=None,
            progress_bar=progress,
            execution_timeout=timeout,
            shutdown_kernel="immediate",
            resources={"metadata": {"path": str(cwd)}},
            config=Config({"KernelManager": {"transport_encryption": "auto"}}),
        )
    except (CellTimeoutError, DeadKernelError) as error:
        return error
    return None


def _stop(notebook: NotebookNode, error: Exception | None, timeout: int | None) -> str | None:
    """Where and why the run stopped, in one line; None if it ended well."""
    import nbclient.exceptions

    own = [cell for cell in notebook.cells if _INJECTED not in cell.metadata.get("tags", [])]
    begun = [place for place, cell in enumerate(own) if cell.metadata.papermill["start_time"]]
    if not begun:
        return None if error is None else f"the kernel did not start ({error})"
    cell = own[begun[-1]]
    where = f"cell {begun[-1] + 1} of {len(own)}"
    if isinstance(error, nbclient.exceptions.CellTimeoutError):
        return f"{where} took longer than {timeout} s"
    if error is not None:
        return f"the kernel died in {where}"
    if not cell.metadata.papermill["exception"]:
        return None
    for output in cell.outputs:
        if output.output_type == "error":
            reason = f"{output.ename}: {output.evalue}".strip().partition("\n")[0]
            return f"{where} failed with {reason.rstrip(':')}"
    return f"{where} failed"


def _tidy(notebook: NotebookNode, staging: Path, default: str) -> None:
    """Forget this machine's folders, and what papermill says of cells that never ran."""
    report = notebook.metadata.papermill
    report.get("parameters", {}).pop("out_dir", None)
    for cell in notebook.cells:
        if cell.metadata.papermill["start_time"] is None:
            cell.metadata.papermill["status"] = "pending"
        if _INJECTED in cell.metadata.get("tags", []):
            cell.source = cell.source.replace(json.dumps(str(staging)), json.dumps(default))


def _move(staging: Path, folder: Path) -> tuple[Path, ...]:
    """Rename the finished files into place: pictures before the result files that speak of them."""
    files = [path for path in staging.rglob("*") if path.is_file()]
    moved = []
    for path in sorted(files, key=lambda path: (path.suffix == ".json", path)):
        target = folder / path.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
        moved.append(target)
    return tuple(moved)


def _write(notebook: NotebookNode, path: Path) -> None:
    import nbformat

    with staged(path) as file:
        nbformat.write(notebook, file)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
