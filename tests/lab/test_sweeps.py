from __future__ import annotations

from pathlib import Path

import pytest

from carelab.lab import Run, RunError, folders, sweeps
from carelab.lab.sweeps import Task, read_profile, run_task, run_tasks

WRITE = "import pathlib; pathlib.Path(out_dir, f'hello-{task}.json').write_text(str(k))"


def _profile(folder: Path, text: str) -> Path:
    path = folder / "sweeps.yml"
    path.write_text(text)
    return path


def test_a_profile_gives_one_task_per_set(notebook, tmp_path):
    path = notebook(WRITE)
    tasks = read_profile(_profile(tmp_path, "hello:\n  - {k: 1}\n  - {k: 2, task: b}\n"))
    assert [(task.notebook, task.parameters) for task in tasks] == [
        (path, {"k": 1}),
        (path, {"k": 2, "task": "b"}),
    ]


@pytest.mark.parametrize(
    ("text", "parameters"), [("hello: {k: 1}", [{"k": 1}]), ("hello:", [{}]), ("", [])]
)
def test_a_profile_may_be_short(notebook, tmp_path, text, parameters):
    notebook(WRITE)
    tasks = read_profile(_profile(tmp_path, text))
    assert [task.parameters for task in tasks] == parameters


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello: [", "is no YAML"),
        ("- hello", "no mapping of notebooks"),
        ("hello: 3", "hello has 3, which sets no parameters"),
        ("hello: [{1: 2}]", "which sets no parameters"),
    ],
)
def test_a_broken_profile_is_refused(notebook, tmp_path, text, message):
    notebook(WRITE)
    with pytest.raises(ValueError, match=message):
        read_profile(_profile(tmp_path, text))


def test_a_profile_of_a_missing_notebook_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"lists gone, but there is no .*gone\.ipynb"):
        read_profile(_profile(tmp_path, "gone: {}"))
    with pytest.raises(FileNotFoundError, match="no profile at"):
        read_profile(tmp_path / "none.yml")


@pytest.fixture
def calls(monkeypatch):
    """In place of a kernel: writes the file that the notebook would, and notes the parameters."""
    noted = []

    def fake(path, parameters, out_dir, **_kwargs):
        noted.append(dict(parameters))
        if parameters.get("k") == 9:
            raise RunError("hello.ipynb: cell 3 of 3 failed")
        file = Path(out_dir) / f"hello-{parameters.get('task', 'a')}.json"
        file.write_text("{}")
        return Run(
            notebook="hello", parameters=parameters, files=(file,), executed=file, seconds=0.0
        )

    monkeypatch.setattr(sweeps, "run_notebook", fake)
    return noted


def _do(task: Task, folder: Path) -> str:
    return run_task(task, figures=folder / "figures", runs=folder / "runs").status


def test_only_results_land_among_the_figures(notebook, tmp_path):
    task = Task(notebook=notebook(WRITE), parameters={"task": "b"})
    outcome = run_task(task, figures=tmp_path / "figures", runs=tmp_path / "runs")
    assert (outcome.status, outcome.files) == ("ran", ("hello-b.json",))
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["hello-b.json"]
    executed = [path.name for path in (tmp_path / "runs" / "executed").iterdir()]
    assert executed == [f"{outcome.name}.ipynb"]
    assert _do(task, tmp_path) == "kept"


def test_a_done_run_is_kept_until_something_it_rests_on_changes(notebook, tmp_path, calls):
    path = notebook(WRITE)
    task = Task(notebook=path, parameters={"k": 1})
    assert [_do(task, tmp_path) for _ in range(3)] == ["ran", "kept", "kept"]
    assert _do(Task(notebook=path, parameters={"k": 2}), tmp_path) == "ran"
    notebook(WRITE + "  # changed")
    assert _do(task, tmp_path) == "ran"
    (tmp_path / "figures" / "hello-a.json").write_text("{'edited': 1}")
    assert _do(task, tmp_path) == "ran"
    (tmp_path / "figures" / "hello-a.json").unlink()
    assert _do(task, tmp_path) == "ran"
    assert len(calls) == 5


def test_a_change_of_the_package_runs_again(notebook, tmp_path, calls, monkeypatch):
    (tmp_path / "package").mkdir()
    module = tmp_path / "package" / "registry.py"
    module.write_text("sha256 = 1")
    monkeypatch.setattr(folders, "_PACKAGE", tmp_path / "package")
    task = Task(notebook=notebook(WRITE), parameters={})
    assert [_do(task, tmp_path) for _ in range(2)] == ["ran", "kept"]
    module.write_text("sha256 = 2")
    assert _do(task, tmp_path) == "ran"
    assert len(calls) == 2


def test_a_damaged_mark_counts_as_not_done(notebook, tmp_path, calls):
    task = Task(notebook=notebook(WRITE), parameters={})
    _do(task, tmp_path)
    (mark,) = (tmp_path / "runs" / "done").iterdir()
    for text in ("{", "[]", "{}"):
        mark.write_text(text)
        assert _do(task, tmp_path) == "ran"
    assert len(calls) == 4


def test_a_failed_task_does_not_stop_the_others(notebook, tmp_path, calls):
    path = notebook(WRITE)
    sets = [{"k": 9}, {"k": 1}]
    seen = []
    outcomes = run_tasks(
        [Task(notebook=path, parameters=parameters) for parameters in sets],
        figures=tmp_path / "figures",
        runs=tmp_path / "runs",
        report=seen.append,
    )
    assert [outcome.status for outcome in outcomes] == ["failed", "ran"]
    assert outcomes[0].message == "hello.ipynb: cell 3 of 3 failed"
    assert tuple(seen) == outcomes
    assert len(calls) == 2
    assert len(list((tmp_path / "runs" / "done").iterdir())) == 1


@pytest.mark.usefixtures("calls")
def test_two_tasks_that_write_one_file_are_refused(notebook, tmp_path):
    path = notebook(WRITE)
    tasks = [Task(notebook=path, parameters={"k": k}) for k in (1, 2)]
    with pytest.raises(ValueError, match=r"both write hello-a\.json"):
        run_tasks(tasks, figures=tmp_path / "figures", runs=tmp_path / "runs")
