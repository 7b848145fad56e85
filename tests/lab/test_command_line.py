from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

import carelab
from carelab import lab
from carelab.lab import command_line
from carelab.lab.command_line import main

WRITE = """\
import json, pathlib
pathlib.Path(out_dir, f"hello-{task}.json").write_text(json.dumps({"title": task, "k": k}))
"""


def _run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A checkout of its own: the command line looks for notebooks and figures there."""
    monkeypatch.setattr(command_line, "checkout", lambda: tmp_path)
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def _furnish(notebook, house: Path, profile: str, text: str, cell: str = WRITE) -> None:
    notebook(cell).rename(house / "notebooks" / "hello.ipynb")
    (house / "notebooks" / profile).write_text(text)


def test_version():
    assert _run("--version").output == f"carelab, version {carelab.__version__}\n"


def test_help_lists_the_commands():
    output = _run("--help").output
    for command in ("run", "demo", "figures", "report", "data"):
        assert f"\n  {command} " in output
    assert "Example" not in output


def test_run_prints_what_it_wrote(notebook, tmp_path, monkeypatch):
    path = notebook(WRITE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = _run("run", f"../{path.name}", "-p", "k", "7", "-p", "task", "b", "--out", "out")
    assert result.exit_code == 0, result.output
    out = tmp_path / "elsewhere" / "out"
    assert json.loads((out / "hello-b.json").read_text())["k"] == 7
    assert result.stdout.splitlines()[0] == str(out / "hello-b.json")
    assert "hello took" in result.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["-p", "kk", "1"], "kk: no parameter of this notebook"),
        (["-p", "k", "many"], "k: got 'many' (str); allowed: int"),
        (["-p", "k", "10"], "k: got 10; allowed: 1 to 9"),
        (["-p", "k", "[1"], "k: got '[1'; allowed: a YAML value"),
        (["-p", "task", "z"], "task: got 'z'; allowed: one of a, b"),
    ],
)
def test_a_bad_parameter_is_one_line_on_stderr(notebook, tmp_path, settings, message):
    result = _run("run", notebook(WRITE), *settings, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {message}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


def test_debug_shows_where_an_error_comes_from(notebook):
    result = _run("--debug", "run", notebook(WRITE), "-p", "kk", "1")
    assert isinstance(result.exception, ValueError)


def test_a_missing_notebook_and_a_missing_argument_differ_in_exit_code(tmp_path):
    assert _run("run", tmp_path / "none.ipynb").exit_code == 1
    assert _run("run").exit_code == 2


def test_a_notebook_of_the_checkout_is_found_by_name(notebook, house):
    _furnish(notebook, house, "smoke.yml", "")
    result = _run("run", "hello", "-p", "k", "0")
    assert "k: got 0; allowed: 1 to 9" in result.stderr


def test_demo_runs_its_profile_and_writes_the_report(notebook, house):
    _furnish(notebook, house, "demo.yml", "hello: [{task: a}, {task: b}]")
    result = _run("demo", "--out", house / "demo")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"Report: {house / 'demo' / 'report.html'}"
    names = {path.name for path in (house / "demo").iterdir()}
    assert {"hello-a.json", "hello-b.json", "report.html"} < names


def test_figures_runs_what_is_asked_for_and_fails_if_one_run_failed(notebook, house):
    _furnish(notebook, house, "sweeps.yml", "hello: [{k: 1}]", cell="1 / 0")
    result = _run("figures", "hello")
    assert result.exit_code == 1
    assert "failed  hello.ipynb: cell 3 of 3 failed with ZeroDivisionError" in result.stdout
    assert result.stderr == "Error: 1 of 1 runs failed\n"
    assert list((house / "figures").iterdir()) == []
    result = _run("figures", "goodbye")
    assert result.stderr == "Error: notebooks: got 'goodbye'; allowed: hello\n"


def test_report_names_the_page(tmp_path):
    lab.save("a", None, {"title": "A"}, out_dir=tmp_path)
    result = _run("report", "--figures", tmp_path, "--out", tmp_path / "page.html")
    assert (result.exit_code, result.output) == (0, f"{tmp_path / 'page.html'}\n")
    assert _run("report", "--figures", tmp_path / "none").exit_code == 1


def test_ctrl_c_exits_with_130(notebook, monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "run_notebook", interrupt)
    result = _run("run", notebook(WRITE))
    assert result.exit_code == 130
    assert result.stderr == "Interrupted: nothing of this run was kept.\n"


@dataclass
class _Status:
    name: str
    path: str
    status: str
    detail: str = ""


def test_data_list_shows_every_set_and_where_it_is():
    lines = _run("data", "list").stdout.splitlines()
    assert len(lines) == len(carelab.data.catalogue())
    assert any(line.startswith("embedded-census") and " embedded " in line for line in lines)


def test_data_fetch_of_an_embedded_set_needs_no_file():
    assert _run("data", "fetch", "embedded-census").stdout == (
        "embedded-census is embedded and needs no file\n"
    )
    result = _run("data", "fetch", "nonsense")
    assert result.exit_code == 1
    assert "nonsense" in result.stderr


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("missing", 0), ("wrong checksum", 1)])
def test_data_check_fails_on_a_wrong_checksum_only(monkeypatch, status, code):
    found = (_Status(name="adult", path="adult/adult.data", status=status),)
    monkeypatch.setattr(sys.modules["carelab"].data, "check", lambda: found)
    result = _run("data", "check")
    assert result.exit_code == code
    assert f"{status:<14}  adult: adult/adult.data" in result.stdout
