"""The lessons: what each must have, that it runs, and that its exercises tell right from wrong."""

from __future__ import annotations

import ast
import itertools
import re
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import pytest

from carelab.lab import teaching

FOLDER = Path(__file__).resolve().parents[1] / "notebooks" / "teaching"
LESSONS = sorted(FOLDER.glob("*.ipynb"))
SECONDS_A_LESSON = 60

# What a learner may come up with, as written in the cell, for every exercise.
WRONG = {
    "answer_mean": ["2.0", "1.5", "0.9", "-1", "'one'", "True", "float('nan')"],
    "answer_value": ["1.5", "2.0", "4", "'half'"],
    "answer_neurons": [
        "[str(decoy)]",
        "[str(decoy), str(culprit)]",
        "['relu9[0]']",
        "[]",
        "[str(one) for one in neurons]",
        "[str(one) for one in neurons if one not in fault.roles][:2]",
    ],
    "answer_strengths": [
        "[0.0, 0.0, 0.0]",
        "[1.0, 1.0, 1.0]",
        "[0.0, 1.0]",
        "[0, 9, 0]",
        "'0 2 1'",
    ],
    "answer_count": ["1", "2.5", "0", "48", "'eight'"],
    "answer_bound": ["1.0", "2.0", "1.4", "float('inf')"],
    "answer_parts": ["8", "1", "10", "True"],
}

every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def _cells(path: Path) -> list[nbformat.NotebookNode]:
    return list(nbformat.read(path, as_version=4).cells)


def _tagged(path: Path, tag: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in _cells(path) if tag in cell.metadata.get("tags", [])]


def _answer(cell: nbformat.NotebookNode) -> str:
    """The variable that an exercise asks for: the one that its first line sets to None."""
    line = ast.parse(cell.source).body[0]
    assert isinstance(line, ast.AnnAssign)
    assert isinstance(line.value, ast.Constant)
    assert line.value.value is None
    return ast.unparse(line.target)


def _exercises(path: Path) -> dict[str, tuple[str, str]]:
    """{variable: (the exercise's code after it, the code of the solution that follows)}."""
    found = {}
    cells = _cells(path)
    for cell, behind in itertools.pairwise(cells):
        if "exercise" in cell.metadata.get("tags", []):
            solution = re.fullmatch(
                r"<details>\n<summary>Solution</summary>\n\n.+\n\n```python\n(.+)\n```\n\n</details>",
                behind.source,
                re.DOTALL,
            )
            assert solution is not None, behind.source
            found[_answer(cell)] = (cell.source.partition("\n")[2], solution[1])
    return found


def _run(path: Path, out_dir: Path) -> dict[str, Any]:
    """What a lesson's cells leave behind, run from top to bottom as nobody has answered."""
    space: dict[str, Any] = {}
    for number, cell in enumerate(_cells(path)):
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{path.stem}, cell {number}", "exec"), space)
        if "parameters" in cell.metadata.get("tags", []):
            space["out_dir"] = str(out_dir)
    return space


@pytest.fixture(scope="module", params=LESSONS, ids=lambda path: path.stem)
def lesson(request, tmp_path_factory):
    begin = time.process_time()
    with mpl.rc_context():
        space = _run(request.param, tmp_path_factory.mktemp("lesson"))
    return request.param, space, time.process_time() - begin


def test_the_lessons_are_there_and_the_notes_speak_of_each():
    assert [path.stem[:2] for path in LESSONS] == ["01", "02", "03", "04", "05"]
    notes = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in LESSONS:
        assert f"`{path.stem}`" in notes
        assert f"## {int(path.stem[:2])}. " in notes


@every_lesson
def test_a_lesson_has_all_its_parts(path):
    cells = _cells(path)
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert "**Question.**" in texts[0]
    assert "minutes" in texts[0]
    assert texts[-1].startswith("## Take-away")
    assert _tagged(path, "prediction")
    assert len(_exercises(path)) == len(_tagged(path, "exercise")) >= 1
    sources = "\n".join(cell.source for cell in cells)
    assert "teaching.outcome(" in sources
    assert "teaching.explore(" in sources
    # A prediction comes before what came out, and the exercise after it.
    assert sources.index("teaching.prediction(") < sources.index("teaching.outcome(")
    assert sources.index("teaching.outcome(") < sources.index("teaching.exercise(")


@every_lesson
def test_the_exercises_of_a_lesson_have_wrong_answers_to_try(path):
    assert set(_exercises(path)) <= set(WRONG)


@pytest.mark.notebooks
def test_a_lesson_takes_less_than_a_minute(lesson):
    path, _, seconds = lesson
    # Processor time, which other work on the machine does not lengthen.
    assert seconds < SECONDS_A_LESSON, path.stem


@pytest.mark.notebooks
def test_an_exercise_takes_its_own_solution(lesson):
    path, space, _ = lesson
    for code, solution in _exercises(path).values():
        tried = dict(space)
        exec(f"{solution}\nshown = ({_check_of(code)})", tried)
        assert tried["shown"].status == "right", tried["shown"].message
        exec(f"{solution}\n{code}", dict(space))


@pytest.mark.notebooks
def test_an_exercise_refuses_wrong_answers_and_says_why(lesson):
    path, space, _ = lesson
    for name, (code, _) in _exercises(path).items():
        for wrong in WRONG[name]:
            with pytest.raises(teaching.WrongAnswer, match=r".{8,}\."):
                exec(f"{name} = {wrong}\n{code}", dict(space))


@pytest.mark.notebooks
def test_a_lesson_compares_the_prediction_with_what_came_out(lesson):
    _, space, _ = lesson
    shown = [teaching.outcome(space["guess"], option, "") for option in space["options"]]
    for chosen in space["options"]:
        space["guess"].value = chosen
        right = ["Right" in one.value for one in shown]
        assert right == [option == chosen for option in space["options"]]


def _check_of(code: str) -> str:
    """The call of the check inside the exercise's call, with the answer."""
    call = ast.parse(code).body[-1]
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    check, answer = call.value.args
    return f"{ast.unparse(check)}({ast.unparse(answer)})"
