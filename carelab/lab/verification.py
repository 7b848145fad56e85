"""Many verification queries: each decided, its certificate written and checked, its result kept."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from carelab.lab.folders import check_writable
from carelab.lab.kept_runs import kept_runs
from carelab.lab.verification_queries import known_answer, query_network
from carelab.proof import check_certificate, save_certificate, verify
from carelab.properties import acasxu_property

__all__ = [
    "QueryResult",
    "query_result",
    "verification_results",
    "verification_totals",
]

# What an answer and its time depend on; other ways to verify are not among them.
_SOURCES = (
    "networks",
    "properties/acasxu.py",
    "properties/regions.py",
    *(
        f"proof/{name}.py"
        for name in (
            "bounds",
            "certificates",
            "chains",
            "checking",
            "counterexamples",
            "covering",
            "duality",
            "intervals",
            "polytopes",
            "rounding",
            "splitting",
            "tightening",
            "verdicts",
            "verification",
            "waiting",
        )
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryResult:
    """What became of one query: does a network have a property?

    Args:
        network: its name, such as "N2,9".
        property: number of the property, as in `properties.acasxu_property`.
        status: "proved", "refuted" or "unknown".
        expected: the answer that is known from elsewhere, or empty.
        confirmed_by: for "refuted", as in `Verdict`.
        boxes: how many boxes were bounded.
        boxes_left: how many were undecided at the end.
        share_proved: fraction of the box that is proved.
        certificate_checked: the certificate passed the check that does not search.
        certificate_bytes: size of its file, 0 where there is none.
        seconds: of the processor for the search, since other work on the machine must not count.
        seconds_check: of the processor for writing, reading and checking the certificate.
    """

    network: str
    property: int
    status: str
    expected: str
    confirmed_by: tuple[str, ...]
    boxes: int
    boxes_left: int
    share_proved: float
    certificate_checked: bool
    certificate_bytes: int
    seconds: float
    seconds_check: float


def query_result(
    name: str,
    number: int,
    *,
    seconds: float = 60.0,
    patience: float = 1.0,
    keep: str | Path | None = None,
) -> QueryResult:
    """The answer to one query, with its certificate written, read back and checked.

    Args:
        name: the network, as in `query_network`.
        number: property 1 to 10 of ACAS Xu; of number 6 the first box.
        seconds: time that the search may take.
        patience: wall time after which it gives up, in units of `seconds`; above 1 where other work
            keeps the processor busy.
        keep: folder that keeps the certificate, or None.

    Raises:
        ValueError: a network or property that does not exist.

    Example:
        >>> from carelab.lab.verification import query_result
        >>> result = query_result("drawn-0", 1)
        >>> result.status, result.certificate_checked
        ('proved', True)
    """
    model, prop = query_network(name), acasxu_property(number).regions[0]
    began = time.process_time()
    verdict = verify(model, prop, seconds=seconds * patience)
    searched = time.process_time() - began
    checked, size = False, 0
    began = time.process_time()
    if verdict.status != "unknown":
        with tempfile.TemporaryDirectory() as passing:
            folder = Path(passing) if keep is None else check_writable(keep)
            path = folder / f"{name.replace(',', '_')}-phi{number}.safetensors"
            save_certificate(verdict, prop, path)
            size = path.stat().st_size
            checked = check_certificate(model, prop, path).status == verdict.status
    return QueryResult(
        network=name,
        property=number,
        status=verdict.status,
        expected=known_answer(name, number),
        confirmed_by=verdict.confirmed_by,
        boxes=verdict.boxes,
        boxes_left=verdict.boxes_left,
        share_proved=verdict.share_proved,
        certificate_checked=checked,
        certificate_bytes=size,
        seconds=searched,
        seconds_check=time.process_time() - began,
    )


def verification_results(
    networks: Sequence[str],
    properties: Sequence[int],
    *,
    seconds: float = 60.0,
    patience: float = 1.0,
    workers: int = 2,
    keep: str | Path | None = None,
    progress: bool = False,
) -> tuple[QueryResult, ...]:
    """One result for each network and property, in processes of one thread each.

    Args:
        networks: names, as in `query_network`.
        properties: numbers of properties of ACAS Xu.
        seconds: time that each search may take.
        patience: as in `query_result`.
        workers: queries at a time; 1 runs all in this process.
        keep: folder in which results and certificates are kept, so that a second call does only
            what is missing, or None. An answer holds while the sources stay the same and it took
            no longer than `seconds`; "unknown" is tried again.
        progress: show a bar.

    Returns:
        The results, network by network.

    Raises:
        ValueError: nothing asked for, a query that comes twice, no worker, an unknown name, or a
            certificate that fails its check.

    Example:
        >>> from carelab.lab.verification import verification_results
        >>> results = verification_results(["drawn-0"], [1, 3], workers=1)
        >>> [result.certificate_checked for result in results]
        [True, True]
    """
    wanted = [(name, number) for name in networks for number in properties]
    knobs: dict[str, Any] = {"seconds": seconds, "patience": patience}
    knobs |= {} if keep is None else {"keep": str(Path(keep) / "certificates")}
    rows = kept_runs(
        _row,
        wanted,
        knobs,
        keep=keep,
        sources=_SOURCES,
        workers=workers,
        label="queries",
        progress=progress,
    )
    return tuple(QueryResult(**{**row, "confirmed_by": tuple(row["confirmed_by"])}) for row in rows)


def verification_totals(results: Sequence[QueryResult]) -> dict[str, int | float]:
    """How many queries ended how, and what it took.

    Args:
        results: the results.

    Returns:
        Counts of "queries", of each status, of "contradictions" (an answer that differs from the
        known one), "certificates_checked" and "expected" (queries whose answer is known), and sums
        of the bytes of the certificates and of the boxes.

    Example:
        >>> from carelab.lab.verification import query_result, verification_totals
        >>> totals = verification_totals([query_result("drawn-0", 1)])
        >>> totals["queries"], totals["proved"], totals["contradictions"]
        (1, 1, 0)
    """
    statuses = [result.status for result in results]
    decided = [result for result in results if result.status != "unknown"]
    return {
        "queries": len(results),
        **{status: statuses.count(status) for status in ("proved", "refuted", "unknown")},
        "expected": sum(result.expected != "" for result in results),
        "contradictions": sum(result.expected not in ("", result.status) for result in decided),
        "certificates_checked": sum(result.certificate_checked for result in results),
        "certificate_bytes": sum(result.certificate_bytes for result in results),
        "boxes": sum(result.boxes for result in results),
    }


def _row(name: str, number: int, **knobs: Any) -> dict[str, Any]:
    return asdict(query_result(name, number, **knobs))
