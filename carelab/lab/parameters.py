"""The parameters cell of a notebook: what may be set, and whether a given value is allowed.

One literal a line, with an annotation and a comment that may state what is allowed::

    task: str = "embedded-census"  # network and feature; one of: embedded-census, census-race
    k: int = 13  # guilty neurons; 1 to 124
    seeds: list[int] = [0, 1, 2]  # one run each; 0 to 1000
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beartype import BeartypeConf
from beartype.door import is_bearable

__all__ = ["Parameter", "check_parameters", "parse_value", "read_parameters"]

_TAG = "parameters"
_TYPES = {"bool": bool, "dict": dict, "float": float, "int": int, "list": list, "str": str}
_NUMBER = r"[-+]?\d[\d_]*(?:\.\d*)?(?:e[-+]?\d+)?"
_RANGE = re.compile(rf"(?<![\w.])({_NUMBER}) to ({_NUMBER})(?![\w.]*\w)", re.IGNORECASE)
_CHOICES = re.compile(r"\bone of:\s*([^;]+)")
_CONF = BeartypeConf(is_pep484_tower=True)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Parameter:
    """One line of a parameters cell.

    Args:
        name: the variable that is set.
        annotation: its annotation as written, or the type of its default.
        type: that annotation as a type.
        default: the literal that stands there.
        comment: the text behind "#".
        choices: the values listed after "one of:", or empty.
        range: the two numbers of "A to B", both allowed, or None.
    """

    name: str
    annotation: str
    type: Any
    default: Any
    comment: str
    choices: tuple[str, ...]
    range: tuple[float, float] | None


def read_parameters(path: str | Path) -> tuple[Parameter, ...]:
    """The parameters that the notebook at `path` declares, in order.

    Args:
        path: the notebook file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a notebook, not exactly one cell tagged "parameters", or a line in it
            that is no literal with a name.

    Example:
        >>> import json, pathlib, shutil, tempfile
        >>> import carelab.lab.parameters as p
        >>> cell = dict(cell_type="code", metadata={"tags": ["parameters"]}, source="k: int = 3")
        >>> path = pathlib.Path(tempfile.mkdtemp(), "a.ipynb")
        >>> length = path.write_text(json.dumps({"cells": [cell]}))
        >>> [parameter.default for parameter in p.read_parameters(path)], shutil.rmtree(path.parent)
        ([3], None)
    """
    path = Path(path)
    sources = [
        cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
        for cell in _cells(path)
        if cell["cell_type"] == "code" and _TAG in cell.get("metadata", {}).get("tags", [])
    ]
    if len(sources) != 1:
        raise ValueError(
            f'path: {path} has {len(sources)} cells tagged "{_TAG}"; allowed: exactly one'
        )
    try:
        return _parse(sources[0])
    except (SyntaxError, tokenize.TokenError, ValueError) as error:
        raise ValueError(f"path: the parameters cell of {path}: {error}") from None


def check_parameters(declared: Sequence[Parameter], given: Mapping[str, Any]) -> None:
    """Refuse values that the notebook does not declare, or does not allow.

    An int passes for a float; a bool passes for nothing but a bool. A range or a list of choices
    holds for each element of a list.

    Args:
        declared: what `read_parameters` found.
        given: the value of each parameter to set.

    Raises:
        ValueError: an unknown name, a value of another type, out of range or not among the choices.

    Example:
        >>> from carelab.lab.parameters import Parameter, check_parameters
        >>> k = Parameter(name="k", annotation="int", type=int, default=1, comment="1 to 9",
        ...     choices=(), range=(1, 9))
        >>> check_parameters([k], {"k": 9})
    """
    known = {parameter.name: parameter for parameter in declared}
    for name, value in given.items():
        if name not in known:
            raise ValueError(
                f"{name}: no parameter of this notebook; it has: {', '.join(known) or 'none'}"
            )
        _check_value(known[name], value)


def parse_value(parameter: Parameter, text: str) -> Any:
    """The value that `text` stands for, read as YAML.

    Text stays text where the annotation is str ("12", "yes"), and a number that YAML 1.1 takes
    for text ("1e-3") is a number where the annotation wants one.

    Args:
        parameter: the parameter to set.
        text: the value as typed.

    Raises:
        ValueError: text that is no YAML.

    Example:
        >>> from carelab.lab.parameters import Parameter, parse_value
        >>> rate = Parameter(name="rate", annotation="float", type=float, default=0.1, comment="",
        ...     choices=(), range=None)
        >>> parse_value(rate, "1e-3")
        0.001
    """
    import yaml

    if parameter.type is str:
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"{parameter.name}: got {text!r}; allowed: a YAML value") from None
    if isinstance(value, str) and not _fits(value, parameter.type):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _cells(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"path: no notebook at {path}")
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        if all({"cell_type", "source"} <= set(cell) for cell in cells):
            return list(cells)
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"path: {path} is no Jupyter notebook (format 4)")


def _parse(source: str) -> tuple[Parameter, ...]:
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    return tuple(
        _parameter(statement, comments.get(statement.end_lineno or 0, ""))
        for statement in ast.parse(source).body
    )


def _parameter(statement: ast.stmt, comment: str) -> Parameter:
    hint: ast.expr | None = None
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=hint, value=ast.expr() as value):
            pass
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            pass
        case _:
            raise ValueError(f"line {statement.lineno} is no `name: type = literal`")
    try:
        default = ast.literal_eval(value)
    except ValueError:
        raise ValueError(f"{name} is set to {ast.unparse(value)}, which is no literal") from None
    choices, limits = _CHOICES.search(comment), _RANGE.search(comment)
    return Parameter(
        name=name,
        annotation=ast.unparse(hint) if hint else type(default).__name__,
        type=_type(hint) if hint else type(default),
        default=default,
        comment=comment,
        choices=tuple(choice.strip() for choice in choices[1].split(",")) if choices else (),
        range=(float(limits[1]), float(limits[2])) if limits else None,
    )


def _type(node: ast.expr) -> Any:
    """The type that an annotation names; built here, since a notebook is not run to read it."""
    match node:
        case ast.Name(id=name) if name in _TYPES:
            return _TYPES[name]
        case ast.Constant(value=None):
            return None
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return list[_type(item)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[key, item])):
            return dict[_type(key), _type(item)]  # type: ignore[misc]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _type(left) | _type(right)
    raise ValueError(
        f"the annotation {ast.unparse(node)}; allowed: {', '.join(_TYPES)}, None, list[...], "
        "dict[..., ...] and unions with |"
    )


def _check_value(parameter: Parameter, value: Any) -> None:
    if not _fits(value, parameter.type):
        raise ValueError(
            f"{parameter.name}: got {value!r} ({type(value).__name__}); "
            f"allowed: {parameter.annotation}"
        )
    for item in value if isinstance(value, list) else [value]:
        if parameter.choices and str(item) not in parameter.choices:
            raise ValueError(
                f"{parameter.name}: got {item!r}; allowed: one of {', '.join(parameter.choices)}"
            )
        if parameter.range and isinstance(item, int | float):
            low, high = parameter.range
            if not low <= item <= high:
                raise ValueError(f"{parameter.name}: got {item!r}; allowed: {low:g} to {high:g}")


def _fits(value: Any, annotation: Any) -> bool:
    # To Python a bool is an int; in a parameters cell `k: int = true` is a slip.
    slip = _has_bool(value) and "bool" not in str(annotation)
    return not slip and is_bearable(value, annotation, conf=_CONF)


def _has_bool(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_bool(item) for item in [*value, *value.values()])
    return any(map(_has_bool, value)) if isinstance(value, list) else isinstance(value, bool)
