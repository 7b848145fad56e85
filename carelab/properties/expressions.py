"""Nested expressions in parentheses, as SMT-LIB and VNN-LIB write them, with their lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import shorten

__all__ = ["Expression", "parse_expressions"]

_TOKEN = re.compile(r";[^\n]*|[()]|[^\s();]+|\n")
_DEEPEST = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Expression:
    """A word, or a list of expressions in parentheses.

    Args:
        line: the line that it starts in, from 1.
        word: the word, or empty for a list.
        items: the parts of a list, or empty.
    """

    line: int
    word: str = ""
    items: tuple[Expression, ...] = ()

    def is_call(self, word: str, arguments: int | None = None) -> bool:
        """Whether it is a list that starts with the word, with so many arguments after it."""
        if not self.items or self.items[0].word != word:
            return False
        return arguments is None or len(self.items) == arguments + 1

    def error(self, reason: str) -> ValueError:
        """What to raise where this expression makes no sense."""
        return ValueError(f"line {self.line}: {shorten(str(self), 60)} {reason}")

    def __str__(self) -> str:
        """The expression as it is written."""
        return self.word or f"({' '.join(str(item) for item in self.items)})"


def parse_expressions(text: str) -> Iterator[Expression]:
    """The expressions of a text, one after the other; what follows a semicolon is a comment.

    Args:
        text: the text.

    Raises:
        ValueError: a word outside parentheses, parentheses that do not match, or too deep ones.

    Example:
        >>> from carelab.properties.expressions import parse_expressions
        >>> [str(one) for one in parse_expressions("(<= X_0 1) ; a bound")]
        ['(<= X_0 1)']
    """
    line = 1
    # Lists that are still open: the line of each, and its parts so far.
    open_lists: list[tuple[int, list[Expression]]] = []
    for token in _TOKEN.findall(text):
        if token == "\n":
            line += 1
        elif token == "(":
            open_lists.append((line, []))
            if len(open_lists) > _DEEPEST:
                raise ValueError(f"line {line}: nested too deeply; allowed: {_DEEPEST} levels")
        elif token == ")":
            if not open_lists:
                raise ValueError(f"line {line}: a parenthesis closes that none has opened")
            start, items = open_lists.pop()
            found = Expression(line=start, items=tuple(items))
            if open_lists:
                open_lists[-1][1].append(found)
            else:
                yield found
        elif not token.startswith(";"):
            if not open_lists:
                raise ValueError(f"line {line}: {token!r} stands outside parentheses")
            open_lists[-1][1].append(Expression(line=line, word=token))
    if open_lists:
        raise ValueError(f"line {open_lists[-1][0]}: a parenthesis opens that none closes")
