"""What several seeds of a safety experiment say together, in the layout of a result file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import torch
from jaxtyping import Float
from torch import Tensor

from carelab.lab.safety import SafetyRun
from carelab.lab.safety_tasks import SafetyCase
from carelab.lab.session import interval
from carelab.properties import region_box
from carelab.records import Interval, Samples
from carelab.repair import SafetyMeasures
from carelab.show.safety_plots import advisory_slice

__all__ = ["slice_window", "summarise_safety", "table_rows"]

_MEASURES = (*(field.name for field in fields(SafetyMeasures)), "generalization")


def summarise_safety(case: SafetyCase, runs: Sequence[SafetyRun]) -> dict[str, object]:
    """Results of several seeds of one task, ready for `lab.save`.

    Args:
        case: the controller.
        runs: one run a seed, of the same methods.

    Returns:
        ``network`` (source, sha256, licence), ``statement``, ``samples`` (how many of each kind,
        status and uniform share), one entry a method with the measures, ``hunted``, ``still``
        and ``neurons``, where it has them, ``seconds`` of each step, and ``seeds``. Numbers are
        means with 95 % intervals over the seeds.

    Raises:
        ValueError: no run, or runs of different methods.

    Example:
        >>> from carelab.lab.safety_embedded import embedded_case
        >>> from carelab.lab.safety_summary import summarise_safety
        >>> summarise_safety(embedded_case(rows=300, epochs=1), [])
        Traceback (most recent call last):
        ValueError: runs: got none; allowed: at least one
    """
    if not runs:
        raise ValueError("runs: got none; allowed: at least one")
    methods = {tuple(run.after) for run in runs}
    if len(methods) > 1:
        raise ValueError(f"runs: got the methods {sorted(methods)}; allowed: the same in all")
    return {
        "network": {"source": case.source, "sha256": case.sha256, "licence": case.licence},
        "statement": case.statement,
        "samples": _samples(runs),
        "before": _means([run.before for run in runs]),
        **{method: _method(runs, method) for method in runs[0].after},
        "seconds": {
            name: interval([run.seconds[name] for run in runs], lowest=0)
            for name in runs[0].seconds
        },
        "seeds": [
            {
                "seed": run.seed,
                "chosen": [str(neuron) for neuron in run.chosen.neurons],
                "candidates": dict(run.chosen.costs),
            }
            for run in runs
            if run.chosen is not None
        ],
    }


def table_rows(
    tasks: Mapping[str, Mapping[str, object]], measures: Sequence[str]
) -> dict[tuple[str, str], dict[str, float]]:
    """Means of some measures, one row for each task and method, for a table.

    Args:
        tasks: the summary of each task, as `summarise_safety` gives it.
        measures: names of the measures.

    Raises:
        ValueError: a measure that does not exist.

    Example:
        >>> from carelab.lab import interval
        >>> from carelab.lab.safety_summary import table_rows
        >>> table_rows({"a": {"ours": {"kept": interval([1.0])}}}, ["kept"])
        {('a', 'ours'): {'kept': 1.0}}
    """
    if unknown := set(measures) - {*_MEASURES, "hunted"}:
        raise ValueError(
            f"measures: got {sorted(unknown)}; allowed: hunted, {', '.join(_MEASURES)}"
        )
    return {
        (task, method): {
            name: values[name].mean for name in measures if isinstance(values.get(name), Interval)
        }
        for task, summary in tasks.items()
        for method, values in summary.items()
        if isinstance(values, Mapping) and isinstance(values.get("kept"), Interval)
    }


def slice_window(
    case: SafetyCase, violating: Samples, *, candidates: int = 24, resolution: int = 80
) -> tuple[Float[Tensor, "2 2"], dict[str, float]]:
    """A window of distances and angles, and the other inputs, where much of the box is unsafe.

    The other inputs are those of a violating point: of the first `candidates`, the one in whose
    slice most is unsafe. The window is what is unsafe there, with as much around it.

    Args:
        case: the controller.
        violating: points of the property's box that violate it, at least one.
        candidates: how many of them are tried.
        resolution: points along each axis of a slice that is tried.

    Example:
        >>> import torch, carelab as cl
        >>> from carelab.lab import safety_embedded, safety_summary
        >>> case, g = safety_embedded.embedded_case(), torch.Generator().manual_seed(0)
        >>> found = cl.properties.find_violations(case.model, case.prop, 9, draws=2000, generator=g)
        >>> window, fixed = safety_summary.slice_window(case, found.points)
    """
    points = case.normalisation.denormalise(violating.inputs[:candidates].double())
    box = torch.stack([*map(case.normalisation.denormalise, region_box(case.prop))])[:, :2]
    best, unsafe, least = points[0], points[0, :2].expand(2, 2), 0
    for point in points:
        fixed = _others(case, point)
        cut = advisory_slice(
            case.model, case.prop, case.normalisation, box, fixed, resolution=resolution
        )
        rows, columns = cut.unsafe.nonzero().T
        if len(rows) > least:
            least, best = len(rows), point
            found = torch.stack([cut.distance[rows], cut.angle[columns]], dim=1)
            unsafe = torch.stack([found.amin(dim=0), found.amax(dim=0)])
    pad = (unsafe[1] - unsafe[0]).maximum(0.08 * (box[1] - box[0]))
    whole = torch.stack([*map(case.normalisation.denormalise, case.domain)])[:, :2]
    window = torch.stack([unsafe[0] - pad, unsafe[1] + pad]).clamp(whole[0], whole[1])
    return window, _others(case, best)


def _others(case: SafetyCase, point: Float[Tensor, " features"]) -> dict[str, float]:
    return dict(zip(case.features[2:], point[2:].tolist(), strict=True))


def _samples(runs: Sequence[SafetyRun]) -> dict[str, object]:
    trials = [run.trial for run in runs]
    return {
        "status": sorted({trial.status for trial in trials}),
        "violating_share": interval(
            [trial.violating.uniform_share for trial in trials], lowest=0, highest=1
        ),
        **{
            part: {
                kind: min(len(getattr(getattr(trial, part), kind)) for trial in trials)
                for kind in ("violating", "satisfying")
            }
            for part in ("repair", "selection", "test")
        },
    }


def _means(measured: Sequence[SafetyMeasures]) -> dict[str, Interval]:
    """Intervals of the measures that every seed has."""
    columns = {name: [getattr(one, name) for one in measured] for name in _MEASURES}
    return {
        name: interval(values, lowest=0) for name, values in columns.items() if None not in values
    }


def _method(runs: Sequence[SafetyRun], method: str) -> dict[str, object]:
    found: dict[str, object] = {**_means([run.after[method] for run in runs])}
    if runs[0].still.get(method):
        names = runs[0].still[method]
        found["still"] = {name: [run.still[method][name] for run in runs] for name in names}
    if method in runs[0].repairs:
        found["hunted"] = interval([float(run.hunted[method]) for run in runs], lowest=0)
        found["neurons"] = [[str(one) for one in run.repairs[method].neurons] for run in runs]
    return found
