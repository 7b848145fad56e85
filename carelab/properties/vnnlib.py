"""Reading safety properties from VNN-LIB files, the verification competition's format."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product

import torch

from carelab.networks.whole_files import existing_file
from carelab.properties.expressions import Expression, parse_expressions
from carelab.properties.regions import OutputRegion, OutputRegions

__all__ = ["parse_vnnlib", "read_vnnlib"]

_LARGEST_FILE = 2**26  # bytes
_MOST_CASES = 10_000
_MOST_STATEMENTS = 10_000_000
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """A sum of variables times numbers, and a number.

    Args:
        factors: the number of each variable that occurs, such as {"X_0": 1.0}.
        constant: the number that is added.
    """

    factors: Mapping[str, float]
    constant: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Atom:
    """The statement that a linear expression is at most 0.

    Args:
        linear: the expression.
        line: where it stands.
    """

    linear: Linear
    line: int


# Statements that hold together; a formula is a list of such cases of which one holds.
Case = tuple[Atom, ...]


def read_vnnlib(path: str | os.PathLike[str], *, scale: float = 1.0) -> tuple[OutputRegions, ...]:
    """The properties in a VNN-LIB file, one for each input box in it.

    The file describes what must not be: inputs in a box whose outputs are in one of several
    polytopes. Conjunctions, disjunctions (of boxes, of polytopes, of both) and linear expressions
    are understood; boxes have the numbers of the file in float64.

    Args:
        path: the file.
        scale: as in `OutputRegion`.

    Returns:
        The properties in the order of their boxes in the file, each named after the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: what the file says cannot be read as boxes and polytopes: an unknown variable,
            an input without a bound, bounds that contradict each other, other syntax; the message
            says in which line.

    Source: VNN-LIB, https://www.vnnlib.org, as used in VNN-COMP 2021.

    Example:
        >>> from carelab import properties
        >>> phi = properties.read_vnnlib("prop_2.vnnlib")  # doctest: +SKIP
        >>> phi[0].regions[0].matrix.shape  # doctest: +SKIP
        torch.Size([4, 5])
    """
    file = existing_file(path, largest=_LARGEST_FILE)
    try:
        return parse_vnnlib(file.read_text(encoding="utf-8"), name=file.stem, scale=scale)
    except UnicodeDecodeError:
        raise ValueError(f"path: {path} is no VNN-LIB file: not a text") from None
    except ValueError as error:
        raise ValueError(f"path: {path}, {error}") from None


def parse_vnnlib(
    text: str, *, name: str = "safety", scale: float = 1.0
) -> tuple[OutputRegions, ...]:
    """The properties in the text of a VNN-LIB file, one for each input box in it.

    Args:
        text: the text.
        name: what the properties are called; with several boxes each gets its number.
        scale: as in `OutputRegion`.

    Raises:
        ValueError: as in `read_vnnlib`.

    Example:
        >>> from carelab.properties import parse_vnnlib
        >>> text = "(declare-const X_0 Real) (declare-const Y_0 Real) (assert (>= Y_0 2))"
        >>> text += "(assert (>= X_0 0)) (assert (<= X_0 1))"
        >>> parse_vnnlib(text)[0].regions[0].limits
        tensor([-2.], dtype=torch.float64)
    """
    variables: dict[str, int] = {}
    asserted: list[list[Case]] = []
    line = 1
    for expression in parse_expressions(text):
        if expression.is_call("declare-const", 2) or expression.is_call("declare-fun", 3):
            _declare(expression, variables)
        elif expression.is_call("assert", 1):
            asserted.append(_cases(expression.items[1], variables))
            line = expression.line
        else:
            raise expression.error("is no declaration and no assertion")
    inputs, outputs = (_count(variables, letter) for letter in "XY")
    boxes: dict[tuple[tuple[float, ...], tuple[float, ...]], list[OutputRegion]] = {}
    for case in _together(asserted, line):
        box = _box(case, inputs)
        boxes.setdefault(box, []).append(_region(case, box, outputs, scale, name))
    several = len(boxes) > 1
    return tuple(
        OutputRegions(regions=tuple(regions), name=f"{name}, box {number}" if several else name)
        for number, regions in enumerate(boxes.values(), start=1)
    )


def _declare(expression: Expression, variables: dict[str, int]) -> None:
    name, kind = expression.items[1].word, expression.items[-1].word
    letter, _, index = name.partition("_")
    if letter not in ("X", "Y") or not index.isdecimal() or str(int(index)) != index:
        raise expression.error("declares another name than X_0, X_1, ... or Y_0, Y_1, ...")
    if kind != "Real" or (len(expression.items) == 4 and expression.items[2].items):
        raise expression.error("declares something that is no real number")
    if name in variables:
        raise expression.error(f"declares {name} again")
    variables[name] = int(index)


def _count(variables: Mapping[str, int], letter: str) -> int:
    numbers = sorted(number for name, number in variables.items() if name[0] == letter)
    if not numbers or numbers != list(range(len(numbers))):
        raise ValueError(
            f"declares {letter} with numbers {numbers}; allowed: 0, 1, ... without a gap"
        )
    return len(numbers)


def _cases(formula: Expression, variables: Mapping[str, int]) -> list[Case]:
    """The formula as a list of cases, of which at least one holds."""
    if formula.is_call("or") and len(formula.items) > 1:
        return [case for part in formula.items[1:] for case in _cases(part, variables)]
    if formula.is_call("and") and len(formula.items) > 1:
        return _together([_cases(part, variables) for part in formula.items[1:]], formula.line)
    for comparison, sign in (("<=", 1.0), (">=", -1.0)):
        if formula.is_call(comparison, 2):
            left, right = (_linear(side, variables) for side in formula.items[1:])
            difference = _sum([_times(left, sign), _times(right, -sign)])
            return [(Atom(linear=difference, line=formula.line),)]
    raise formula.error("is not supported; allowed: and, or, <= and >= of two sides")


def _together(parts: Sequence[Sequence[Case]], line: int) -> list[Case]:
    """The cases in which all parts hold: what is certain, with each choice among the rest."""
    certain = [atom for part in parts if len(part) == 1 for atom in part[0]]
    choices = [part for part in parts if len(part) != 1]
    count = math.prod(len(part) for part in choices)
    if count > _MOST_CASES or count * len(certain) > _MOST_STATEMENTS:
        raise ValueError(
            f"line {line}: {count} cases of {len(certain)} and more statements; allowed: "
            f"{_MOST_CASES} cases and {_MOST_STATEMENTS} statements"
        )
    return [(*certain, *chain.from_iterable(choice)) for choice in product(*choices)]


def _linear(term: Expression, variables: Mapping[str, int]) -> Linear:
    """A term as a sum of variables times numbers."""
    if not term.items:
        if term.word[:1].isalpha() or term.word[:1] == "_":
            if term.word not in variables:
                raise term.error("is a variable that is not declared before")
            return Linear(factors={term.word: 1.0})
        return Linear(factors={}, constant=_number(term))
    parts = [_linear(part, variables) for part in term.items[1:]]
    if term.is_call("+") and parts:
        return _sum(parts)
    if term.is_call("-") and parts:
        rest = [_times(part, -1.0) for part in parts[1:]]
        return _sum([parts[0], *rest]) if rest else _times(parts[0], -1.0)
    if term.is_call("*", 2):
        numbers = [part.constant for part in parts if not part.factors]
        if numbers:
            return _times(parts[1] if not parts[0].factors else parts[0], numbers[0])
    raise term.error("is no linear expression; allowed: +, -, and * with a number")


def _number(term: Expression) -> float:
    if not _NUMBER.fullmatch(term.word):
        raise term.error("is neither a number nor a variable")
    number = float(term.word)
    if not math.isfinite(number):
        raise term.error("is no finite number")
    return number


def _sum(parts: Sequence[Linear]) -> Linear:
    factors: dict[str, float] = {}
    for part in parts:
        for name, factor in part.factors.items():
            factors[name] = factors.get(name, 0.0) + factor
    constant = math.fsum(part.constant for part in parts)
    return Linear(factors={n: f for n, f in factors.items() if f != 0}, constant=constant)


def _times(part: Linear, number: float) -> Linear:
    factors = {name: factor * number for name, factor in part.factors.items() if number != 0}
    return Linear(factors=factors, constant=part.constant * number)


def _about(case: Case, letter: str) -> Iterator[Atom]:
    """The statements of a case about the inputs (X) or the outputs (Y)."""
    for atom in case:
        letters = {name[0] for name in atom.linear.factors}
        if len(letters) != 1:
            raise ValueError(
                f"line {atom.line}: compares inputs with outputs, or no variable at all; allowed: "
                "either inputs or outputs"
            )
        if letters == {letter}:
            yield atom


def _box(case: Case, inputs: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Smallest and largest values of the inputs in a case."""
    low, high = [-math.inf] * inputs, [math.inf] * inputs
    line = 0
    for atom in _about(case, "X"):
        if len(atom.linear.factors) != 1:
            raise ValueError(
                f"line {atom.line}: relates inputs to each other; allowed: bounds of one input each"
            )
        ((name, factor),) = atom.linear.factors.items()
        number, line = int(name[2:]), atom.line
        bound = (0.0 - atom.linear.constant) / factor
        if factor > 0:
            high[number] = min(high[number], bound)
        else:
            low[number] = max(low[number], bound)
        if low[number] > high[number]:
            raise ValueError(
                f"line {line}: {name} is at least {low[number]} and at most {high[number]}, which "
                "leaves an empty box; allowed: bounds that some input keeps"
            )
    for number, ends in enumerate(zip(low, high, strict=True)):
        for bound, word in zip(ends, ("lower", "upper"), strict=True):
            if math.isinf(bound):
                raise ValueError(
                    f"X_{number} has no {word} bound{f' beside line {line}' if line else ''}; "
                    "allowed: inputs with two bounds"
                )
    return tuple(low), tuple(high)


def _region(
    case: Case,
    box: tuple[tuple[float, ...], tuple[float, ...]],
    outputs: int,
    scale: float,
    name: str,
) -> OutputRegion:
    """The polytope of outputs in a case, with its box."""
    atoms = tuple(_about(case, "Y"))
    if not atoms:
        raise ValueError("says nothing about the outputs of a box; allowed: at least one bound")
    matrix = torch.zeros(len(atoms), outputs, dtype=torch.float64)
    for row, atom in enumerate(atoms):
        for variable, factor in atom.linear.factors.items():
            matrix[row, int(variable[2:])] = factor
    limits = [0.0 - atom.linear.constant for atom in atoms]
    low, high = (torch.tensor(bounds, dtype=torch.float64) for bounds in box)
    return OutputRegion(
        matrix=matrix,
        limits=torch.tensor(limits, dtype=torch.float64),
        low=low,
        high=high,
        scale=scale,
        name=name,
    )
