import numpy as np
import pytest

from carelab.data.reading import read_categories, read_columns, read_numbers


def test_columns_are_stripped_and_end_at_blank_lines() -> None:
    columns = read_columns(
        "head\n1 ;a \n2; b\n\n", ["x", "y"], file="f", delimiter=";", skip_lines=1
    )
    assert columns == {"x": ["1", "2"], "y": ["a", "b"]}


def test_quoted_field_may_hold_the_delimiter() -> None:
    assert read_columns('1,"a,b"\n', ["x", "y"], file="f") == {"x": ["1"], "y": ["a,b"]}


@pytest.mark.parametrize("line", ["1,2,3", "1", ""])
def test_line_of_another_width(line: str) -> None:
    with pytest.raises(ValueError, match=r"f, line 3: got \d columns; allowed: 2 \(x to y\)"):
        read_columns(f"x,y\n1,2\n{line}\n1,2\n", ["x", "y"], file="f", skip_lines=1)


def test_no_row() -> None:
    with pytest.raises(ValueError, match="f: no row after the first 1 lines"):
        read_columns("x,y\n\n", ["x", "y"], file="f", skip_lines=1)


def test_numbers() -> None:
    numbers = read_numbers({"x": ["-1", "2.5", "1e3"]}, "x", file="f")
    np.testing.assert_array_equal(numbers, [-1, 2.5, 1000])


@pytest.mark.parametrize("field", ["nan", "", "?", "inf", "1,5"])
def test_field_that_is_no_number(field: str) -> None:
    with pytest.raises(ValueError, match=r"f, line 5, column x: got .*; allowed: a finite number"):
        read_numbers({"x": ["1", field]}, "x", file="f", first_line=4)


def test_fraction_where_integers_are_due() -> None:
    with pytest.raises(ValueError, match=r"f, line 2, column x: got '1.5'; allowed: an integer"):
        read_numbers({"x": ["1", "1.5"]}, "x", file="f", integers=True)


def test_unknown_category() -> None:
    assert read_categories({"x": ["a", "?"]}, "x", ["a", "?"], file="f") == ["a", "?"]
    with pytest.raises(ValueError, match="f, line 3, column x: got 'c'; allowed: a, b"):
        read_categories({"x": ["a", "c"]}, "x", ["a", "b"], file="f", first_line=2)
