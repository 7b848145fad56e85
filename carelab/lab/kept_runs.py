"""Independent runs in several processes, each kept when done, so that a stopped set goes on."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from carelab.lab.folders import check_writable, source_key
from carelab.lab.session import start
from carelab.networks.whole_files import staged

__all__ = ["kept_runs"]

Run = tuple[str | int, ...]


def kept_runs(
    run: Callable[..., Mapping[str, Any]],
    wanted: Sequence[Run],
    knobs: Mapping[str, Any],
    *,
    keep: str | Path | None = None,
    sources: Sequence[str] = (),
    workers: int = 2,
    label: str = "runs",
    progress: bool = False,
) -> tuple[dict[str, Any], ...]:
    """The results of run(*one, **knobs) for each of the wanted, computed or read back.

    A kept result holds while its sources and the knobs stay the same. A run that fails
    does not take the others along: they are done and kept, then its error is raised.

    Args:
        run: a function of a module, whose result can be written as JSON.
        wanted: the positional arguments of each run, no two alike.
        knobs: the keyword arguments of all, of plain values.
        keep: folder in which finished runs are kept, or None.
        sources: the parts of the package that results depend on, as for `source_key`; by default
            all of it.
        workers: processes of one thread each; 1 runs all in this process.
        label: what the bar says.
        progress: show a bar.

    Returns:
        One result for each of the wanted, in their order, as read from JSON.

    Raises:
        ValueError: nothing wanted, something twice, or no worker.

    Example:
        >>> from carelab.lab.kept_runs import kept_runs
        >>> kept_runs(dict, [()], {"rate": 0.5}, workers=1)
        ({'rate': 0.5},)
    """
    if not wanted or len(set(wanted)) < len(wanted) or workers < 1:
        raise ValueError(
            f"wanted, workers: got {[list(one) for one in wanted]}, {workers}; allowed: at least "
            "one run, none twice, at least one worker"
        )
    folder = None if keep is None else check_writable(keep)
    key = source_key(*sources)
    files = {one: _file(folder, run, one, knobs, key) for one in wanted}
    done = {one: found for one, path in files.items() if (found := _read(path)) is not None}
    left = [one for one in wanted if one not in done]
    failed: list[Exception] = []
    with ExitStack() as stack:
        bar = stack.enter_context(
            tqdm(total=len(wanted), initial=len(done), desc=label, disable=not progress)
        )
        jobs = {one: partial(_kept, run, one, dict(knobs), files[one]) for one in left}
        for one, result in _results(jobs, workers, stack):
            try:
                done[one] = result()
            except Exception as error:
                failed.append(error)
            bar.update()
    if failed:
        raise failed[0]
    return tuple(done[one] for one in wanted)


def _results(
    jobs: Mapping[Run, Callable[[], dict[str, Any]]], workers: int, stack: ExitStack
) -> Iterable[tuple[Run, Callable[[], dict[str, Any]]]]:
    """Each run with a call that gives its result, as they end."""
    if workers == 1 or not jobs:
        return jobs.items()
    context = multiprocessing.get_context("spawn")
    pool = stack.enter_context(
        ProcessPoolExecutor(workers, context, initializer=start, initargs=(0,))
    )
    submitted = {pool.submit(job): one for one, job in jobs.items()}
    return ((submitted[job], job.result) for job in as_completed(submitted))


def _kept(
    run: Callable[..., Mapping[str, Any]], one: Run, knobs: Mapping[str, Any], path: Path | None
) -> dict[str, Any]:
    text = json.dumps(dict(run(*one, **knobs)))
    if path is not None:
        with staged(path) as partly:
            partly.write_text(text, encoding="utf-8")
    return dict(json.loads(text))


def _file(
    folder: Path | None,
    run: Callable[..., object],
    one: Run,
    knobs: Mapping[str, Any],
    sources: str,
) -> Path | None:
    if folder is None:
        return None
    made_of = json.dumps([run.__module__, run.__qualname__, one, knobs, sources])
    key = hashlib.sha256(made_of.encode()).hexdigest()[:8]
    name = re.sub(r"[^\w.]+", "_", "-".join(str(part) for part in one))
    return folder / f"{name}-{key}.json"


def _read(path: Path | None) -> dict[str, Any] | None:
    if path is None or not path.is_file():
        return None
    return dict(json.loads(path.read_text(encoding="utf-8")))
