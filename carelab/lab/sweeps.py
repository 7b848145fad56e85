"""Many runs: which parameter sets belong to which notebook, and which runs are done already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from carelab.lab.folders import check_writable, source_key
from carelab.lab.runs import RunError, run_name, run_notebook
from carelab.networks.whole_files import staged

__all__ = ["Outcome", "Task", "read_profile", "run_task", "run_tasks"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Task:
    """One run to do.

    Args:
        notebook: the notebook file.
        parameters: what to set in it.
    """

    notebook: Path
    parameters: Mapping[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Outcome:
    """What became of one task.

    Args:
        name: name of the run.
        status: "ran", "kept" (an earlier run of the same task still holds) or "failed".
        files: names of the result files in the folder of figures.
        message: why it failed, or empty.
    """

    name: str
    status: str
    files: tuple[str, ...]
    message: str = ""


def read_profile(path: str | Path) -> tuple[Task, ...]:
    """The tasks that a profile lists, for notebooks in the folder of the profile.

    A profile is a YAML file with one entry per notebook, its name without the ending; below it
    stands one set of parameters, or a list of sets, one for each run.

    Args:
        path: the profile, such as `notebooks/sweeps.yml`.

    Raises:
        FileNotFoundError: no such profile, or a notebook that it names is missing.
        ValueError: the profile is not of that form.

    Example:
        >>> import pathlib, tempfile
        >>> from carelab.lab.sweeps import read_profile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = [pathlib.Path(folder, name) for name in ("sweeps.yml", "a.ipynb")]
        ...     sizes = [file.write_text(text) for file, text in zip(files, ("a: [{k: 1}]", ""))]
        ...     print([dict(task.parameters) for task in read_profile(files[0])])
        [{'k': 1}]
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: no profile at {path}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"path: {path} is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ValueError(f"path: {path} holds no mapping of notebooks to parameters")
    return tuple(
        Task(notebook=_notebook(path, stem), parameters=parameters)
        for stem, sets in content.items()
        for parameters in _sets(path, stem, sets)
    )


def run_task(
    task: Task, *, figures: str | Path, runs: str | Path, progress: bool = False
) -> Outcome:
    """Do one task unless an earlier run of it still holds.

    It holds while the notebook, its parameters, torch and the package's source, which has the
    checksums of all data, are the same, and the files are as that run left them.

    Args:
        task: the notebook and its parameters.
        figures: folder of the result files.
        runs: folder of the executed notebooks and of the notes on what is done.
        progress: show a bar that counts cells.

    Raises:
        ValueError, OSError, RunError: as `run_notebook`.

    Example:
        >>> import pathlib
        >>> from carelab.lab.sweeps import Task, run_task
        >>> task = Task(notebook=pathlib.Path("none.ipynb"), parameters={})
        >>> run_task(task, figures=".", runs=".")
        Traceback (most recent call last):
        FileNotFoundError: path: no notebook at none.ipynb
    """
    if not task.notebook.is_file():
        raise FileNotFoundError(f"path: no notebook at {task.notebook}")
    figures = check_writable(figures)
    marks = check_writable(Path(runs) / "done")
    name = run_name(task.notebook, task.parameters)
    mark, key = marks / f"{name}.json", _key(task)
    done = _read_mark(mark)
    if done.get("key") == key and _as_left(figures, done["files"]):
        return Outcome(name=name, status="kept", files=tuple(done["files"]))
    mark.unlink(missing_ok=True)
    run = run_notebook(
        task.notebook,
        task.parameters,
        figures,
        progress=progress,
        executed_dir=Path(runs) / "executed",
    )
    files = {str(path.relative_to(figures)): _sha256(path.read_bytes()) for path in run.files}
    with staged(mark) as partial:
        partial.write_text(json.dumps({"key": key, "files": files}, indent=2), encoding="utf-8")
    return Outcome(name=name, status="ran", files=tuple(files))


def run_tasks(
    tasks: Sequence[Task],
    *,
    figures: str | Path,
    runs: str | Path,
    progress: bool = False,
    report: Callable[[Outcome], None] | None = None,
) -> tuple[Outcome, ...]:
    """Do the tasks one after another; a failed one does not stop the others.

    Args:
        tasks: what to do.
        figures: folder of the result files.
        runs: folder of the executed notebooks and of the notes on what is done.
        progress: show a bar that counts cells.
        report: called with each outcome as it comes.

    Raises:
        ValueError: a parameter that a notebook does not allow, or two tasks that write one file.
        OSError: a folder that cannot be written to.

    Example:
        >>> from carelab.lab.sweeps import run_tasks
        >>> run_tasks([], figures="figures", runs=".runs")
        ()
    """
    outcomes: list[Outcome] = []
    owners: dict[str, str] = {}
    for task in tasks:
        try:
            outcome = run_task(task, figures=figures, runs=runs, progress=progress)
        except RunError as error:
            name = run_name(task.notebook, task.parameters)
            outcome = Outcome(name=name, status="failed", files=(), message=str(error))
        for file in outcome.files:
            if file in owners:
                raise ValueError(
                    f"tasks: {owners[file]} and {outcome.name} both write {file}; allowed: "
                    "notebooks that name their results after their parameters"
                )
            owners[file] = outcome.name
        outcomes.append(outcome)
        if report is not None:
            report(outcome)
    return tuple(outcomes)


def _notebook(profile: Path, stem: Any) -> Path:
    notebook = profile.parent / f"{stem}.ipynb"
    if not notebook.is_file():
        raise FileNotFoundError(f"path: {profile} lists {stem}, but there is no {notebook}")
    return notebook


def _sets(profile: Path, stem: str, sets: Any) -> list[dict[str, Any]]:
    listed = sets if isinstance(sets, list) else [sets or {}]
    for parameters in listed:
        if not isinstance(parameters, dict) or not all(isinstance(key, str) for key in parameters):
            raise ValueError(
                f"path: {profile}: {stem} has {parameters!r}, which sets no parameters"
            )
    return listed


def _key(task: Task) -> str:
    parameters = json.dumps(task.parameters, sort_keys=True, default=str)
    parts = [source_key(), _sha256(task.notebook.read_bytes()), parameters, torch.__version__]
    return _sha256("\n".join(parts).encode())


def _read_mark(mark: Path) -> dict[str, Any]:
    try:
        content = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("files"), dict) else {}


def _as_left(folder: Path, files: Mapping[str, str]) -> bool:
    return all(
        (folder / name).is_file() and _sha256((folder / name).read_bytes()) == sha256
        for name, sha256 in files.items()
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
