"""Repairs of ACAS Xu with a proof: one result a task, with networks and certificates on disk."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import nn

from carelab.lab.folders import check_writable, resolve
from carelab.lab.safety_embedded import named_case
from carelab.lab.safety_tasks import SafetyCase
from carelab.networks import fingerprint, read_onnx, write_onnx
from carelab.proof import Verdict, check_certificate, save_certificate, verify
from carelab.properties import SafetySamples, safety_samples
from carelab.repair import (
    LeastChange,
    RegionRepair,
    least_change_region,
    measure_safety,
    prorepair_region,
    weights_changed,
)

__all__ = [
    "METHODS",
    "ProvableResult",
    "provable_result",
    "provable_row",
    "provable_totals",
    "repaired_network",
    "total_seconds",
]

_SHARED = (
    *("records.py", "networks", "data/acasxu.py", "data/acasxu_files.py", "data/boxes.py"),
    *("properties", "proof", "repair/edits.py", "repair/safety_measurement.py"),
    *("lab/provable_safety.py", "lab/safety_tasks.py", "lab/safety_embedded.py"),
)
_OURS = ("region_repair", "region_results", "last_layer", "box_constraints", "score_moves")
_PROREPAIR = ("prorepair", "prorepair_points", "proxy_boxes", "refinement", "clauses")
# What the results of each method depend on.
METHODS: Mapping[str, tuple[str, ...]] = {
    "ours": (*_SHARED, *(f"repair/{name}.py" for name in _OURS)),
    "prorepair": (*_SHARED, *(f"repair/{name}.py" for name in _PROREPAIR)),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProvableResult:
    """What one method made of one task; rates are fractions, None where there were no points.

    Args:
        network: as the papers write it.
        property: its name.
        method: "ours" or "prorepair".
        status: "proved", "refuted" or "unknown", of the whole box, about the exported network.
        certificate_checked: the certificate was written, read back and passed the second check.
        certificate_bytes: its size.
        fidelity_domain: share of uniform points of the whole domain with the same advice.
        fidelity_box: the same in the property's box.
        fidelity_constant: the same for the best network that always advises the same.
        generalization: of test counterexamples, those that no longer violate.
        kept: of satisfying test points, those that still satisfy.
        largest_change: of a score, at the points of domain and box.
        weights_changed: share of weights and biases that differ.
        lift: what was added to whole outputs, in scores; 0 for none.
        violating: how many test counterexamples there were.
        still_held: for each other property that held before, whether it was proved again.
        rounds: boxes, boxes proved and lowest bound of each round of the search.
        seconds_repair: wall time of the search for the change.
        seconds_proof: wall time of the proofs in it.
        seconds_check: wall time of the check of the certificate.
    """

    network: str
    property: str
    method: str
    status: str
    certificate_checked: bool
    certificate_bytes: int
    fidelity_domain: float
    fidelity_box: float
    fidelity_constant: float
    generalization: float | None
    kept: float | None
    largest_change: float
    weights_changed: float
    lift: float
    violating: int
    still_held: Mapping[str, str]
    rounds: Sequence[Mapping[str, float | str]]
    seconds_repair: float
    seconds_proof: float
    seconds_check: float


def provable_row(name: str, method: str, *, folder: str, **knobs: Any) -> dict[str, Any]:
    """`provable_result` as a plain dict, for `kept_runs`.

    Args:
        name: the task, as in `named_case`.
        method: the method.
        folder: where network and certificate go.
        knobs: seed, seconds, points and samples of `provable_result`.

    Example:
        >>> import tempfile
        >>> from carelab.lab.provable_safety import provable_row
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     row = provable_row("embedded", "ours", folder=folder, points=1000, samples=100)
        >>> row["status"], row["certificate_checked"]
        ('proved', True)
    """
    return asdict(provable_result(named_case(name), method, folder=folder, **knobs))


def repaired_network(case: SafetyCase, method: str, folder: str | Path) -> nn.Module:
    """The network that `provable_result` wrote for a task.

    Args:
        case: the task.
        method: the method.
        folder: the folder that was given.

    Raises:
        FileNotFoundError: it was not written there.

    Example:
        >>> import tempfile
        >>> from carelab.lab import provable_safety, safety_embedded
        >>> case = safety_embedded.embedded_case()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     provable_safety.repaired_network(case, "ours", folder)
        Traceback (most recent call last):
        FileNotFoundError: ...
    """
    return read_onnx(_stem(case, method, resolve(folder)).with_suffix(".onnx")).eval()


def provable_result(
    case: SafetyCase,
    method: str,
    *,
    folder: str | Path,
    seed: int = 0,
    seconds: float = 60.0,
    points: int = 1_000_000,
    samples: int = 10_016,
) -> ProvableResult:
    """One task repaired by one method, exported, proved, checked a second time, and measured.

    The repaired network is written as ONNX and read back; the verdict, the certificate and all
    measures are about what was read. Repair and test use different counterexamples.

    Args:
        case: the task.
        method: "ours" (`least_change_region`) or "prorepair" (`prorepair_region`).
        folder: where NETWORK-PROPERTY-METHOD.onnx and .safetensors go; made if missing.
        seed: draws everything random.
        seconds: wall time of the search.
        points: uniform points that fidelity is measured on, in the domain and in the box.
        samples: counterexamples and satisfying points of the test, each; a fifth as many
            counterexamples are given to the repair.

    Raises:
        ValueError: an unknown method, or a certificate that fails its check.

    Example:
        >>> import tempfile
        >>> from carelab.lab import provable_safety, safety_embedded
        >>> case = safety_embedded.embedded_case()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = provable_safety.provable_result(
        ...         case, "ours", folder=folder, points=1000, samples=100)
        >>> result.violating
        100
    """
    if method not in METHODS:
        raise ValueError(f"method: got {method!r}; allowed: {', '.join(METHODS)}")
    generator = torch.Generator().manual_seed(seed)
    trial = safety_samples(
        case.model,
        case.prop,
        violating=(samples // 5, 0, samples),
        satisfying=(0, 0, samples),
        generator=generator,
    )
    repair = _repaired(case, method, trial, seconds, generator)
    place = check_writable(resolve(folder))
    write_onnx(repair.repaired, _stem(case, method, place).with_suffix(".onnx"))
    network = repaired_network(case, method, place)
    path = _stem(case, method, place).with_suffix(".safetensors")
    check = _checked(case, network, repair.verdict, path)
    measures = measure_safety(
        network, case.model, trial, case.prop, case.domain, points=points, generator=generator
    )
    return ProvableResult(
        network=case.name.partition("-")[0],
        property=case.prop.name,
        method=method,
        status=repair.verdict.status,
        certificate_checked=check.passed,
        certificate_bytes=check.size,
        fidelity_domain=measures.fidelity_domain,
        fidelity_box=measures.fidelity_box,
        fidelity_constant=measures.fidelity_constant,
        generalization=measures.generalization,
        kept=measures.kept,
        largest_change=measures.largest_change,
        weights_changed=weights_changed(network, case.model),
        lift=repair.lift if isinstance(repair, LeastChange) else 0.0,
        violating=len(trial.test.violating),
        still_held={name: verify(network, prop).status for name, prop in case.still},
        rounds=_rounds(repair),
        seconds_repair=repair.seconds_repair,
        seconds_proof=repair.seconds_proof,
        seconds_check=check.seconds,
    )


def provable_totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the tasks of a list have in common: counts, means and worst cases.

    Args:
        rows: results of one method, as plain dicts.

    Returns:
        Counts "tasks", "proved", "certificates_checked" and "still_held" (tasks that lost none of
        the other properties), mean and worst of the measures, median and worst seconds.

    Raises:
        ValueError: no row.

    Example:
        >>> from carelab.lab.provable_safety import provable_totals
        >>> provable_totals([])
        Traceback (most recent call last):
        ValueError: rows: got none; allowed: at least one
    """
    if not rows:
        raise ValueError("rows: got none; allowed: at least one")
    found: dict[str, float] = {
        "tasks": len(rows),
        "proved": sum(row["status"] == "proved" for row in rows),
        "certificates_checked": sum(bool(row["certificate_checked"]) for row in rows),
        "still_held": sum(set(row["still_held"].values()) <= {"proved"} for row in rows),
    }
    for name in ("fidelity_domain", "fidelity_box", "generalization", "kept"):
        values = [row[name] for row in rows if row[name] is not None]
        if values:
            found |= {f"{name}_mean": fmean(values), f"{name}_worst": min(values)}
    for name in ("fidelity_constant", "weights_changed"):
        found[f"{name}_mean"] = fmean(row[name] for row in rows)
    return found


def total_seconds(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median and largest wall time of search and proof together, over the tasks of a list.

    Args:
        rows: results of one method, as plain dicts.

    Example:
        >>> from carelab.lab.provable_safety import total_seconds
        >>> total_seconds([{"seconds_repair": 1.0, "seconds_proof": 2.0}])
        {'median': 3.0, 'worst': 3.0}
    """
    seconds = [row["seconds_repair"] + row["seconds_proof"] for row in rows]
    return {"median": median(seconds), "worst": max(seconds)}


def _stem(case: SafetyCase, method: str, folder: Path) -> Path:
    return folder / re.sub(r"\W+", "_", f"{case.name}-{method}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Check:
    passed: bool
    size: int
    seconds: float


def _repaired(
    case: SafetyCase,
    method: str,
    trial: SafetySamples,
    seconds: float,
    generator: torch.Generator,
) -> LeastChange | RegionRepair:
    if method == "prorepair":
        return prorepair_region(case.model, case.prop, seconds=seconds, verify_seconds=seconds)
    return least_change_region(
        case.model,
        case.prop,
        case.low,
        case.high,
        violating=trial.repair.violating,
        seconds=seconds,
        generator=generator,
    )


def _checked(case: SafetyCase, network: nn.Module, verdict: Verdict, path: Path) -> _Check:
    """The second check of a proof, by the file alone and the network as it was read back."""
    if fingerprint(network) != verdict.network:
        raise ValueError("network: the exported network is not the one of the verdict")
    if verdict.status == "unknown":
        return _Check(passed=False, size=0, seconds=0.0)
    save_certificate(verdict, case.prop, path)
    check = check_certificate(network, case.prop, path)
    return _Check(
        passed=check.status == verdict.status, size=path.stat().st_size, seconds=check.seconds
    )


def _rounds(repair: LeastChange | RegionRepair) -> list[dict[str, float | str]]:
    """What bounds tightening needs of each round; infinite bounds as those of nothing left."""
    if isinstance(repair, LeastChange):
        return [
            {
                "status": one.status,
                "boxes": one.boxes,
                "boxes_left": one.boxes_left,
                "share_proved": one.share_proved,
                "lowest": min(one.lowest, 0.0) if one.boxes_left == 0 else one.lowest,
                "lift": one.lift,
                "mean_change": one.mean_change,
                "seconds": one.seconds,
            }
            for one in repair.rounds
        ]
    return [
        {
            "status": one.verdict or "",
            "boxes": one.boxes,
            "boxes_left": one.boxes - one.proved,
            "lowest": one.lowest,
            "counterexamples": one.counterexamples,
        }
        for one in repair.refinements
    ]
