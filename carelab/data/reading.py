"""Reading delimited text strictly: every fault names the file, the line and the column."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_categories", "read_columns", "read_numbers"]


def read_columns(
    text: str,
    names: Sequence[str],
    *,
    file: str,
    delimiter: str = ",",
    skip_lines: int = 0,
) -> dict[str, list[str]]:
    r"""The columns of a delimited text, as stripped strings, by name.

    Blank lines at the very end are passed over; any other line must have one field per name.

    Args:
        text: content of the file.
        names: one name per column, in order.
        file: what the error messages call the file.
        delimiter: the character between two fields.
        skip_lines: lines before the first row, such as a header.

    Raises:
        ValueError: a line of another width, or no row at all.

    Example:
        >>> from carelab.data.reading import read_columns
        >>> read_columns("1, a\n2, b\n", ["x", "y"], file="table")
        {'x': ['1', '2'], 'y': ['a', 'b']}
    """
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True))
    while rows and not rows[-1]:
        rows.pop()
    rows = rows[skip_lines:]
    if not rows:
        raise ValueError(
            f"{file}: no row after the first {skip_lines} lines; allowed: at least one"
        )
    for line, row in enumerate(rows, start=skip_lines + 1):
        if len(row) != len(names):
            raise ValueError(
                f"{file}, line {line}: got {len(row)} columns; allowed: {len(names)} "
                f"({names[0]} to {names[-1]})"
            )
    columns = zip(*rows, strict=True)
    return {name: list(map(str.strip, column)) for name, column in zip(names, columns, strict=True)}


def read_numbers(
    columns: Mapping[str, Sequence[str]],
    name: str,
    *,
    file: str,
    first_line: int = 1,
    integers: bool = False,
) -> NDArray[np.float64]:
    """One column as finite numbers.

    Args:
        columns: the columns by name, as `read_columns` gives them.
        name: the column.
        file: what the error messages call the file.
        first_line: line of the first row, for the error messages.
        integers: refuse fractions too.

    Raises:
        ValueError: a field that is no finite number (or no integer).

    Example:
        >>> from carelab.data.reading import read_numbers
        >>> read_numbers({"x": ["1", "2.5"]}, "x", file="table")
        array([1. , 2.5])
    """
    allowed = "an integer" if integers else "a finite number"
    try:
        numbers = np.array(columns[name], dtype=np.float64)
    except ValueError:  # slower, but it tells which field is at fault
        numbers = np.array([_number(field) for field in columns[name]])
    bad = ~np.isfinite(numbers)
    if integers:
        bad |= numbers != np.round(numbers)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"{file}, line {first_line + row}, column {name}: got {columns[name][row]!r}; "
            f"allowed: {allowed}"
        )
    return numbers


def read_categories(
    columns: Mapping[str, Sequence[str]],
    name: str,
    allowed: Sequence[str],
    *,
    file: str,
    first_line: int = 1,
) -> list[str]:
    """One column whose fields are all known categories.

    Args:
        columns: the columns by name, as `read_columns` gives them.
        name: the column.
        allowed: the known categories.
        file: what the error messages call the file.
        first_line: line of the first row, for the error messages.

    Raises:
        ValueError: a field that is no known category.

    Example:
        >>> from carelab.data.reading import read_categories
        >>> read_categories({"x": ["yes", "no"]}, "x", ["no", "yes"], file="table")
        ['yes', 'no']
    """
    known = set(allowed)
    for row, field in enumerate(columns[name]):
        if field not in known:
            raise ValueError(
                f"{file}, line {first_line + row}, column {name}: got {field!r}; "
                f"allowed: {', '.join(allowed)}"
            )
    return list(columns[name])


def _number(field: str) -> float:
    try:
        return float(field)
    except ValueError:
        return float("nan")
