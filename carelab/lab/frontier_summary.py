"""Many frontier runs at once, and what they say together: means, choices, gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from carelab.lab.frontier import FrontierRun, frontier_run
from carelab.lab.frontier_bench import FrontierPoint
from carelab.lab.kept_runs import kept_runs
from carelab.lab.session import interval
from carelab.records import Interval, Neuron

__all__ = ["chosen_point", "frontier_runs", "summarise_frontier"]

_TRAINED = "-trained"
# What the repair is asked for: unfair rates down by so much, on rows and on the box.
_FALL = 0.95
_MEASURES = tuple(field.name for field in fields(FrontierPoint) if field.type == "float")
_SIGNED = ("accuracy_drop", "selection_drop")


def frontier_runs(
    tasks: Sequence[str],
    seeds: Sequence[int],
    *,
    workers: int = 2,
    keep: str | Path | None = None,
    progress: bool = False,
    **knobs: object,
) -> tuple[FrontierRun, ...]:
    """One frontier run for each task and seed, in processes of one thread each.

    A run that fails does not stop the others; its error is raised when they are done. What is
    kept in a folder is not computed again, so that a second call does only what was missing.

    Args:
        tasks: names as for `fairness_task`; with "-trained" at the end, on a network trained
            here on the raw table instead of the published one.
        seeds: the seeds.
        workers: processes; 1 runs everything in this one. Results do not depend on it.
        keep: folder in which finished runs are kept, or None. They hold while the package's
            source and the knobs stay the same.
        progress: show a bar.
        knobs: passed on to `frontier_run`.

    Returns:
        The runs, task by task, in the order of tasks and seeds.

    Raises:
        ValueError: no task or seed, one that comes twice, or no worker.

    Example:
        >>> from carelab.lab.frontier_summary import frontier_runs
        >>> runs = frontier_runs(["embedded-credit"], [0], workers=1, steps=2, box=40, budget=1)
        >>> len(runs)
        1
    """
    wanted = [(task, seed) for task in tasks for seed in seeds]
    found = kept_runs(
        _row, wanted, knobs, keep=keep, workers=workers, label="frontier", progress=progress
    )
    return tuple(_run(row) for row in found)


def _row(task: str, seed: int, **knobs: Any) -> dict[str, Any]:
    kind = "trained" if task.endswith(_TRAINED) else "default"
    return asdict(frontier_run(task.removesuffix(_TRAINED), kind, seed=seed, **knobs))


def _run(row: Mapping[str, Any]) -> FrontierRun:
    """The run that was written as a row."""
    return FrontierRun(
        **{
            **row,
            "before": FrontierPoint(**row["before"]),
            "points": tuple(FrontierPoint(**point) for point in row["points"]),
            "guilty": tuple(
                Neuron(one["layer"], one["index"], tuple(one["position"])) for one in row["guilty"]
            ),
        }
    )


def chosen_point(run: FrontierRun, *, most_edited: float = 1.0) -> FrontierPoint:
    """The point of our front that the selection rows choose: fair enough, then most accurate.

    Of our points that edit at most a share of the neurons, those whose unfair rate on selection
    rows and selection box fell by 95 % or more; among them the one that costs least accuracy
    there. Where none fell as much, the one that left least.

    Args:
        run: the run.
        most_edited: hidden neurons that may be edited, as a fraction.

    Raises:
        ValueError: no point of ours edits so few neurons.

    Example:
        >>> from carelab.lab.frontier import frontier_run
        >>> from carelab.lab.frontier_summary import chosen_point
        >>> run = frontier_run("embedded-credit", seed=0, steps=2, box=40, budget=1)
        >>> chosen_point(run).method
        'ours'
    """
    ours = [p for p in run.points if p.method == "ours" and p.edited_share <= most_edited]
    if not ours:
        raise ValueError(f"most_edited: got {most_edited}; no point of ours edits so few neurons")
    before = run.before

    def left(point: FrontierPoint) -> float:
        return max(
            point.selection_rows / max(before.selection_rows, 1e-9),
            point.selection_box / max(before.selection_box, 1e-9),
        )

    fair = [point for point in ours if left(point) <= 1 - _FALL]
    return min(fair, key=lambda p: p.selection_drop) if fair else min(ours, key=left)


def summarise_frontier(
    tasks: Sequence[str], runs: Sequence[FrontierRun], *, share: float = 0.1
) -> dict[str, object]:
    """Results of all tasks in the layout of a result file, ready for `lab.save`.

    Args:
        tasks: the tasks, as given to `frontier_runs`.
        runs: its runs, the same number of seeds for each task, in its order.
        share: hidden neurons that may be edited in the verdict on few neurons, as a fraction.

    Returns:
        ``tasks``: for each task ``before`` and for each method its points, every measure as mean
        and 95 % interval over the seeds; ``verdict``: for each task what the choice by selection
        rows gave, with few neurons and with any number, and the ``gap``: by how much accuracy
        the best point of CARE, of the reduction or of the constant lies above our front;
        ``gaps`` has it for each of them.

    Raises:
        ValueError: runs that do not divide among the tasks.

    Example:
        >>> from carelab.lab.frontier_summary import frontier_runs, summarise_frontier
        >>> runs = frontier_runs(["embedded-credit"], [0], workers=1, steps=2, box=40, budget=1)
        >>> sorted(summarise_frontier(["embedded-credit"], runs))
        ['tasks', 'verdict']
    """
    if not tasks or len(runs) % len(tasks) or not runs:
        raise ValueError(
            f"runs: got {len(runs)} for {len(tasks)} tasks; allowed: equally many each"
        )
    each = len(runs) // len(tasks)
    parts = {task: runs[at * each : (at + 1) * each] for at, task in enumerate(tasks)}
    return {
        "tasks": {task: _task_summary(part) for task, part in parts.items()},
        "verdict": {task: _verdict(part, share) for task, part in parts.items()},
    }


def _task_summary(runs: Sequence[FrontierRun]) -> dict[str, object]:
    summary: dict[str, object] = {"before": _means([run.before for run in runs])}
    for method in dict.fromkeys(point.method for point in runs[0].points):
        own = [[point for point in run.points if point.method == method] for run in runs]
        summary[method] = [
            {"knob": same[0].knob, **_means(same)} for same in zip(*own, strict=True)
        ]
    return summary


def _means(points: Sequence[FrontierPoint]) -> dict[str, Interval]:
    return {
        name: interval(
            [getattr(point, name) for point in points],
            lowest=-1 if name in _SIGNED else 0,
            highest=1,
        )
        for name in _MEASURES
    }


def _verdict(runs: Sequence[FrontierRun], share: float) -> dict[str, object]:
    constant = [_single(run, "hold_constant") for run in runs]
    few = [chosen_point(run, most_edited=share) for run in runs]
    free = [chosen_point(run) for run in runs]
    apart = [_gaps(run) for run in runs]
    return {
        "hold_constant_drop": interval([p.accuracy_drop for p in constant], lowest=-1, highest=1),
        "few_neurons": _choice(runs, few),
        "any_neurons": _choice(runs, free),
        "gap": interval([max(gaps.values()) for gaps in apart], lowest=-1, highest=1),
        "gaps": {
            name: interval([gaps[name] for gaps in apart], lowest=-1, highest=1)
            for name in apart[0]
        },
        "layers": [run.layer for run in runs],
        "guilty": [[str(neuron) for neuron in run.guilty] for run in runs],
    }


def _choice(runs: Sequence[FrontierRun], points: Sequence[FrontierPoint]) -> dict[str, object]:
    falls = {
        name: interval(
            [
                1 - getattr(point, name) / max(getattr(run.before, name), 1e-9)
                for run, point in zip(runs, points, strict=True)
            ]
        )
        for name in ("unfair_rate_rows", "unfair_rate_box")
    }
    return {
        "fall_rows": falls["unfair_rate_rows"],
        "fall_box": falls["unfair_rate_box"],
        "accuracy_drop": interval([p.accuracy_drop for p in points], lowest=-1, highest=1),
        "edited_share": interval([p.edited_share for p in points], lowest=0, highest=1),
        "knobs": [point.knob for point in points],
    }


def _gaps(run: FrontierRun) -> dict[str, float]:
    """Accuracy by which each rival beats all our points that are at least as fair."""
    rivals = [p for p in run.points if p.method in ("care", "hold_constant", "fairlearn_reduction")]
    ours = [p for p in run.points if p.method == "ours"]

    def above(rival: FrontierPoint) -> float:
        as_fair = [
            point.accuracy
            for point in ours
            if point.unfair_rate_rows <= rival.unfair_rate_rows
            and point.unfair_rate_box <= rival.unfair_rate_box
        ]
        return rival.accuracy - max(as_fair, default=0.0)

    return {f"{rival.method} {rival.knob}".strip(): above(rival) for rival in rivals}


def _single(run: FrontierRun, method: str) -> FrontierPoint:
    return next(point for point in run.points if point.method == method)
