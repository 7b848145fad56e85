"""Every notebook: its form, its parameters in each profile, and two equal runs."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from carelab.lab import run_notebook
from carelab.lab.parameters import check_parameters, read_parameters
from carelab.lab.sweeps import read_profile

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
PATHS = sorted(
    path for path in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
PROFILES = sorted(NOTEBOOKS.glob("*.yml"))
SECONDS_A_CELL = 300

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def _code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def _listed_as(path: Path) -> str:
    return path.relative_to(NOTEBOOKS).with_suffix("").as_posix()


def test_the_smoke_profile_lists_every_notebook_once():
    listed = [_listed_as(task.notebook) for task in read_profile(NOTEBOOKS / "smoke.yml")]
    assert sorted(listed) == sorted(map(_listed_as, PATHS))
    assert PATHS


@every_notebook
def test_a_notebook_is_valid_and_stripped(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    for cell in _code(path):
        assert cell.outputs == []
        assert cell.execution_count is None


@every_notebook
def test_the_parameters_cell_has_what_every_notebook_has(path):
    declared = read_parameters(path)
    names = {parameter.name for parameter in declared}
    assert {"device", "out_dir"} <= names
    assert names & {"seed", "seeds"}
    check_parameters(declared, {parameter.name: parameter.default for parameter in declared})
    assert all(parameter.comment for parameter in declared), "each line says what it sets"


@every_notebook
def test_a_notebook_is_short_and_defines_nothing(path):
    assert len(nbformat.read(path, as_version=4).cells) <= 25
    for cell in _code(path):
        assert len(cell.source.splitlines()) <= 15, cell.source
        assert not re.search(r"^\s*[%!]", cell.source, re.MULTILINE), cell.source
        defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, defined)]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_a_profile_sets_only_what_its_notebooks_allow(profile):
    for task in read_profile(profile):
        assert "out_dir" not in task.parameters
        check_parameters(read_parameters(task.notebook), task.parameters)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} in a result file")


def _results(folder: Path) -> dict[str, Any]:
    return {
        path.name: json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        for path in folder.glob("*.json")
    }


def _untimed(value: Any) -> Any:
    """The value without its times, which are all that two runs may differ in."""
    if isinstance(value, dict):
        return {key: _untimed(one) for key, one in value.items() if not key.startswith("seconds")}
    return [_untimed(one) for one in value] if isinstance(value, list) else value


@pytest.mark.notebooks
@every_notebook
def test_two_runs_in_the_smoke_profile_are_equal(path, tmp_path):
    (task,) = [task for task in read_profile(NOTEBOOKS / "smoke.yml") if task.notebook == path]
    found = []
    for name in ("first", "second"):
        run_notebook(path, task.parameters, tmp_path / name, timeout=SECONDS_A_CELL)
        found.append(_untimed(_results(tmp_path / name)))
    assert found[0] == found[1]
    assert found[0], "a notebook saves its answer"
    assert all((tmp_path / "first" / name).with_suffix(".png").is_file() for name in found[0])
