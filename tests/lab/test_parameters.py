from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carelab.lab.parameters import Parameter, check_parameters, parse_value, read_parameters


def _declared(notebook, line):
    return read_parameters(notebook(parameters=line))


def test_a_line_gives_name_type_default_and_what_is_allowed(notebook):
    task, k = _declared(
        notebook,
        'task: str = "a # b"  # the network; one of: a # b, c\nk: int = 13  # neurons; 1 to 124',
    )
    assert (task.name, task.type, task.default, task.choices) == (
        "task",
        str,
        "a # b",
        ("a # b", "c"),
    )
    assert (k.type, k.default, k.range, k.comment) == (int, 13, (1, 124), "neurons; 1 to 124")


def test_a_line_without_annotation_has_the_type_of_its_default(notebook):
    (rate,) = _declared(notebook, "rate = -0.5")
    assert (rate.type, rate.default, rate.range) == (float, -0.5, None)


@pytest.mark.parametrize(
    ("line", "good", "bad"),
    [
        ("x: int = 1", [0, -3], [1.5, "a", True, None, [1]]),
        ("x: float = 1.0", [2, 0.5], ["a", True, None]),
        ("x: bool = True", [False], [0, 1, "yes"]),
        ("x: str = 'a'", ["b", ""], [1, None, ["a"]]),
        ("x: list[int] = [1]", [[], [1, 2]], [[1.5], [True], ["a"], 1, "12"]),
        ("x: list[list[float]] = []", [[[1, 2.5]]], [[1.0], [[True]]]),
        ("x: dict[str, int] = {}", [{"a": 1}], [{"a": "b"}, {1: 1}, []]),
        ("x: int | None = None", [None, 3], ["a", True, 1.5]),
        ("x: list[bool] = []", [[True]], [[1]]),
        ("x: int = 1  # 1 to 9", [1, 9], [0, 10]),
        ("x: float = 0.1  # fraction; -0.5 to 1e0", [-0.5, 1], [-0.51, 1.01, math.nan]),
        ("x: list[int] = [1]  # each; 0 to 3", [[0, 3], []], [[0, 4]]),
        ("x: str = 'a'  # one of: a, b", ["a", "b"], ["c", "a, b"]),
        ("x: list[str] = []  # one of: a, b; several may be given", [["a", "b"]], [["a", "c"]]),
    ],
)
def test_values_that_fit_and_values_that_do_not(notebook, line, good, bad):
    declared = _declared(notebook, line)
    for value in good:
        check_parameters(declared, {"x": value})
    for value in bad:
        with pytest.raises(ValueError, match=r"^x: got .*; allowed: "):
            check_parameters(declared, {"x": value})


def test_an_unknown_name_lists_the_known_ones(notebook):
    declared = _declared(notebook, "a = 1\nb = 2")
    with pytest.raises(ValueError, match="c: no parameter of this notebook; it has: a, b"):
        check_parameters(declared, {"a": 3, "c": 1})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x = 1 + y", "x is set to 1 \\+ y, which is no literal"),
        ("x: Tensor = 1", "the annotation Tensor; allowed: "),
        ("import os", "line 1 is no"),
        ("x: int", "line 1 is no"),
        ("x = (", "parameters cell"),
    ],
)
def test_a_cell_that_holds_more_than_literals_is_refused(notebook, line, message):
    with pytest.raises(ValueError, match=message):
        _declared(notebook, line)


def test_a_notebook_without_parameters_cell_is_refused(notebook):
    with pytest.raises(ValueError, match='has 0 cells tagged "parameters"; allowed: exactly one'):
        read_parameters(notebook("1", parameters=None))


def test_a_missing_notebook_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no notebook at .*none\.ipynb"):
        read_parameters(tmp_path / "none.ipynb")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 3}', '{"cells": [{}]}'])
def test_a_file_that_is_no_notebook_is_refused(tmp_path, text):
    path = tmp_path / "a.ipynb"
    path.write_text(text)
    with pytest.raises(ValueError, match="is no Jupyter notebook"):
        read_parameters(path)


@pytest.mark.parametrize(
    ("line", "text", "value"),
    [
        ("x: int = 1", "12", 12),
        ("x: float = 1.0", "1e-3", 1e-3),
        ("x: float | None = None", "1e3", 1e3),
        ("x: float | None = None", "null", None),
        ("x: str = 'a'", "12", "12"),
        ("x: str = 'a'", "yes", "yes"),
        ("x: list[int] = []", "[1, 2]", [1, 2]),
        ("x: bool = True", "false", False),
        ("x: int = 1", "abc", "abc"),
    ],
)
def test_text_from_the_command_line(notebook, line, text, value):
    (parameter,) = _declared(notebook, line)
    assert parse_value(parameter, text) == value


def test_text_that_is_no_yaml_is_refused(notebook):
    (parameter,) = _declared(notebook, "x: list[int] = []")
    with pytest.raises(ValueError, match=r"x: got '\[1,'; allowed: a YAML value"):
        parse_value(parameter, "[1,")


@given(st.integers(), st.integers(0, 50), st.integers(0, 50))
def test_a_range_holds_exactly_between_its_ends(value, low, width):
    parameter = Parameter(
        name="x",
        annotation="int",
        type=int,
        default=low,
        comment="",
        choices=(),
        range=(low, low + width),
    )
    if low <= value <= low + width:
        check_parameters([parameter], {"x": value})
    else:
        with pytest.raises(ValueError, match="x: got"):
            check_parameters([parameter], {"x": value})
