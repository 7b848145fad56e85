from __future__ import annotations

from pathlib import Path

import pytest

from carelab.lab import kept_runs as module
from carelab.lab.kept_runs import kept_runs


def counted(folder: str, number: int, *, add: int = 0) -> dict[str, int]:
    """Leaves a file for each call, and fails for 13."""
    path = Path(folder) / f"{number}"
    calls = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(calls))
    if number == 13:
        raise ValueError("number: got 13; allowed: others")
    return {"sum": number + add, "calls": calls}


def test_results_come_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    wanted = [(str(tmp_path), number) for number in (3, 1, 2)]
    found = kept_runs(counted, wanted, {"add": 10}, workers=1)
    assert [one["sum"] for one in found] == [13, 11, 12]


def test_two_processes_give_the_same(tmp_path: Path) -> None:
    wanted = [(str(tmp_path), number) for number in (3, 1, 2)]
    found = kept_runs(counted, wanted, {}, workers=2)
    assert [one["sum"] for one in found] == [3, 1, 2]


def test_a_kept_run_is_not_done_again(tmp_path: Path) -> None:
    wanted = [(str(tmp_path), 5)]
    for _ in range(2):
        (one,) = kept_runs(counted, wanted, {}, keep=tmp_path / "kept", workers=1)
    assert one["calls"] == 1


def test_other_knobs_or_sources_are_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [(str(tmp_path), 5)]
    kept_runs(counted, wanted, {}, keep=tmp_path / "kept", workers=1)
    (other,) = kept_runs(counted, wanted, {"add": 1}, keep=tmp_path / "kept", workers=1)
    assert other == {"sum": 6, "calls": 2}
    monkeypatch.setattr(module, "source_key", lambda *parts: "changed")
    (again,) = kept_runs(counted, wanted, {}, keep=tmp_path / "kept", workers=1)
    assert again["calls"] == 3


def test_a_failing_run_does_not_take_the_others_along(tmp_path: Path) -> None:
    wanted = [(str(tmp_path), number) for number in (13, 1)]
    with pytest.raises(ValueError, match="got 13"):
        kept_runs(counted, wanted, {}, keep=tmp_path / "kept", workers=1)
    assert (tmp_path / "1").read_text() == "1"
    assert len(list((tmp_path / "kept").glob("*.json"))) == 1


@pytest.mark.parametrize(("wanted", "workers"), [([], 1), ([("a", 1)], 0), ([("a", 1)] * 2, 1)])
def test_refuses_nothing_twice_and_nobody(
    wanted: list[tuple[str, int]], workers: int, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="wanted, workers: got"):
        kept_runs(counted, wanted, {}, workers=workers)
