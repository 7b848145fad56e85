from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from carelab.lab import RunError, run_notebook, runs
from carelab.lab.runs import run_name

WRITE = """\
import json, pathlib
pathlib.Path(out_dir, f"hello-{task}.json").write_text(json.dumps({"k": k, "task": task}))
"""


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_run_puts_its_files_into_place(notebook, tmp_path):
    out = tmp_path / "out"
    run = run_notebook(notebook(WRITE, "import os; os.getcwd()"), {"k": 5, "task": "b"}, out)
    assert json.loads((out / "hello-b.json").read_text()) == {"k": 5, "task": "b"}
    assert run.files == (out / "hello-b.json",)
    assert run.executed.parent == out
    assert _names(out) == sorted(["hello-b.json", run.executed.name])
    executed = nbformat.read(run.executed, as_version=4)
    shown = [output.data["text/plain"] for output in executed.cells[-1].outputs]
    assert shown == [repr(str(tmp_path))], "the kernel runs in the notebook's folder"
    executed.cells[-1].outputs = []
    assert str(tmp_path) not in json.dumps(executed), "no other trace of this machine"


def test_a_failing_cell_is_named_and_nothing_but_the_notebook_is_kept(notebook, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RunError) as raised:
        run_notebook(notebook(WRITE, "1 / 0", "print('never')"), {}, out)
    kept = out / "hello.failed.ipynb"
    assert str(raised.value) == (
        f"hello.ipynb: cell 4 of 5 failed with ZeroDivisionError: division by zero; see {kept}"
    )
    assert _names(out) == [kept.name]
    cells = nbformat.read(kept, as_version=4).cells
    assert [cell.metadata.papermill.status for cell in cells[-2:]] == ["failed", "pending"]


def test_a_dead_kernel_is_told_from_a_finished_one(notebook, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RunError, match=r"the kernel died in cell 4 of 5; see .*failed\.ipynb"):
        run_notebook(notebook(WRITE, "import os; os._exit(1)", "1"), {}, out)
    assert _names(out) == ["hello.failed.ipynb"]


def test_a_cell_that_takes_too_long_is_stopped(notebook, tmp_path):
    out = tmp_path / "out"
    slow = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
    with pytest.raises(RunError, match="cell 3 of 3 took longer than 1 s"):
        run_notebook(notebook(slow), {}, out, timeout=1)
    kept = nbformat.read(out / "hello.failed.ipynb", as_version=4)
    assert not _alive(int(kept.cells[-1].outputs[0].text))


def test_ctrl_c_leaves_neither_files_nor_a_kernel(notebook, tmp_path):
    out = tmp_path / "out"
    path = notebook(
        "import os, pathlib, time\npathlib.Path(out_dir, 'pid').write_text(str(os.getpid()))\n"
        "time.sleep(60)"
    )
    code = "from carelab.lab.command_line import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", str(path), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        kernel = _wait_for_pid(out, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors == "Interrupted: nothing of this run was kept.\n"
    assert _names(out) == []
    assert not _alive(kernel)


def _wait_for_pid(out: Path, process: subprocess.Popen[str]) -> int:
    limit = time.monotonic() + 60
    while time.monotonic() < limit and process.poll() is None:
        text = [path.read_text() for path in out.glob(".*.partial/pid")]
        if text and text[0]:
            return int(text[0])
        time.sleep(0.05)
    raise AssertionError(f"the notebook did not start: {process.communicate()}")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def _no_kernel(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a kernel was about to start")

    monkeypatch.setattr(runs, "_execute", refuse)


@pytest.mark.usefixtures("_no_kernel")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kk": 1}, "kk: no parameter of this notebook; it has: k, task, seed, out_dir"),
        ({"k": "a"}, r"k: got 'a' \(str\); allowed: int"),
        ({"k": True}, r"k: got True \(bool\); allowed: int"),
        ({"k": 10}, "k: got 10; allowed: 1 to 9"),
        ({"task": "c"}, "task: got 'c'; allowed: one of a, b"),
        ({"out_dir": "x"}, "out_dir: is no parameter to set"),
    ],
)
def test_a_bad_parameter_is_refused_before_a_kernel_starts(notebook, tmp_path, parameters, message):
    with pytest.raises(ValueError, match=message):
        run_notebook(notebook(WRITE), parameters, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("_no_kernel")
def test_a_folder_in_the_way_is_refused_before_a_kernel_starts(notebook, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="out_dir: cannot write to"):
        run_notebook(notebook(WRITE), {}, tmp_path / "file" / "out")


@pytest.mark.usefixtures("_no_kernel")
def test_a_notebook_without_out_dir_is_refused(notebook, tmp_path):
    with pytest.raises(ValueError, match="declares no parameter out_dir"):
        run_notebook(notebook(WRITE, parameters="k: int = 1"), {}, tmp_path / "out")


def test_without_papermill_the_extra_is_named(notebook, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill.parameterize", None)
    with pytest.raises(ImportError, match=r"pip install 'carelab\[notebooks\]'"):
        run_notebook(notebook(WRITE), {}, tmp_path / "out")
    assert _names(tmp_path / "out") == []


def test_run_names_differ_where_parameters_do():
    assert run_name("a.ipynb", {}) == "a"
    names = {run_name("a.ipynb", {"task": "x/y", "k": k}) for k in range(20)}
    assert len(names) == 20
    assert all(name.startswith("a-x-y-") for name in names)
    assert run_name("a.ipynb", {"k": 1, "s": 2}) == run_name("a.ipynb", {"s": 2, "k": 1})
