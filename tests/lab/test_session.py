from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import carelab
from carelab import lab


@pytest.fixture
def _torch_as_found():
    yield
    torch.use_deterministic_algorithms(False)


def _picture() -> Figure:
    figure = Figure()
    figure.subplots().plot([0, 1], [1, 0])
    return figure


def _saved(folder: Path, **results: Any) -> dict[str, Any]:
    lab.save("result", None, results, out_dir=folder)
    return json.loads((folder / "result.json").read_text())


@pytest.mark.usefixtures("_torch_as_found")
def test_start_returns_the_same_stream_for_the_same_seed():
    first, second = torch.rand(5, generator=lab.start(7)), torch.rand(5, generator=lab.start(7))
    assert torch.equal(first, second)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("_torch_as_found")
def test_start_sets_the_threads():
    try:
        lab.start(0, threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_start_refuses_a_seed_out_of_range(seed):
    with pytest.raises(ValueError, match=r"seed: got .*; allowed: 0 to"):
        lab.start(seed)


def test_start_refuses_no_thread():
    with pytest.raises(ValueError, match="threads: got 0"):
        lab.start(0, threads=0)


def test_interval_by_hand():
    # s = 1, t(0.975, 2) = 4.302653 (any table), so the half width is 4.302653 / sqrt(3).
    found = lab.interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert found.high == pytest.approx(2 + 2.484138, abs=1e-6)
    assert found.n == 3


def test_interval_is_clipped_to_what_is_possible():
    found = lab.interval(torch.tensor([0.0, 1.0]), lowest=0, highest=1)
    assert (found.low, found.mean, found.high) == (0.0, 0.5, 1.0)


def test_interval_of_one_value_is_the_value():
    found = lab.interval([0.25])
    assert (found.mean, found.low, found.high, found.n) == (0.25, 0.25, 0.25, 1)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.randoms())
def test_interval_does_not_depend_on_the_order(values, random):
    shuffled = random.sample(values, len(values))
    first, second = lab.interval(values), lab.interval(shuffled)
    assert first.low <= first.mean <= first.high
    assert [first.mean, first.low, first.high] == pytest.approx(
        [second.mean, second.low, second.high], abs=1e-12
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "not empty"),
        (np.zeros((2, 2)), "one axis"),
        ([0.1, math.nan], "finite"),
        ([0.1, 1.2], "allowed: 0 to 1"),
    ],
)
def test_interval_refuses(values, message):
    with pytest.raises(ValueError, match=f"values: got.*{message}"):
        lab.interval(values, lowest=0, highest=1)


def test_save_converts_everything_a_result_may_hold(tmp_path):
    found = _saved(
        tmp_path,
        tensor=torch.tensor([[1.0, 2.0]]),
        array=np.arange(2),
        scalar=np.float32(0.1),
        count=np.int64(3),
        flag=True,
        nothing=None,
        pair=(1, "a"),
        record=lab.interval([0.5]),
    )
    assert found == {
        "tensor": [[1.0, 2.0]],
        "array": [0, 1],
        "scalar": 0.1,
        "count": 3,
        "flag": True,
        "nothing": None,
        "pair": [1, "a"],
        "record": {"mean": 0.5, "low": 0.5, "high": 0.5, "n": 1},
        "torch": torch.__version__.partition("+")[0],
        "carelab": carelab.__version__,
    }


def test_save_rounds_to_six_digits_and_sorts_the_keys(tmp_path):
    _saved(tmp_path, b=1 / 3, a=123456.789)
    text = (tmp_path / "result.json").read_text()
    assert '"a": 123457.0,\n  "b": 0.333333,' in text


def test_save_writes_the_same_bytes_twice(tmp_path):
    for folder in ("first", "second"):
        lab.save("result", _picture(), {"rate": 0.5}, out_dir=tmp_path / folder)
    for name in ("result.png", "result.json"):
        first, second = (tmp_path / folder / name for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    assert b"Software" not in (tmp_path / "first" / "result.png").read_bytes()
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == [
        "result.json",
        "result.png",
    ]


def test_save_without_a_figure_leaves_no_older_picture(tmp_path):
    lab.save("result", _picture(), {}, out_dir=tmp_path)
    lab.save("result", None, {}, out_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@dataclass(frozen=True)
class _Holder:
    rates: list[float]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"rates": {"after": [0.1, math.nan]}}, r"rates\.after\[1\] is nan"),
        ({"holder": _Holder(rates=[math.inf])}, r"holder\.rates\[0\] is inf"),
        ({"model": object()}, "model is of type object"),
        ({"table": {1: 2}}, "table has the key 1"),
        ({"torch": "2"}, "'torch', which save adds"),
    ],
)
def test_save_refuses_before_it_writes(tmp_path, results, message):
    with pytest.raises(ValueError, match=message):
        lab.save("result", _picture(), results, out_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden", "a b"])
def test_save_refuses_what_is_no_file_name(tmp_path, name):
    with pytest.raises(ValueError, match="name: got"):
        lab.save(name, None, {}, out_dir=tmp_path)


def test_save_keeps_the_older_files_when_drawing_fails(tmp_path):
    class Broken(Figure):
        def savefig(self, *_args: Any, **_kwargs: Any) -> None:
            raise RuntimeError("no ink")

    lab.save("result", _picture(), {"rate": 0.5}, out_dir=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RuntimeError, match="no ink"):
        lab.save("result", Broken(), {"rate": 0.7}, out_dir=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
