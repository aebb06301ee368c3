"""
Which texts a pattern means: exact, glob, prefix or regular expression; and which of two patterns is more specific.

Methods of an embedded server are chosen by it, and names behind a `route`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final, Literal, final

from attrs import field, frozen

PatternKind = Literal["exact", "glob", "prefix", "regex"]
MAX_METHOD: Final = 256
"""Characters of a method name that patterns look at; a longer one is unknown."""

_RANK: Final = {"exact": 3, "glob": 2, "prefix": 1, "regex": 0}
_META: Final = frozenset(".^$*+?{}[]\\|()")


@final
@frozen
class Pattern:
    """
    Which methods a handler serves. In a glob `*` is any text and `?` any character; a regex is matched from the start.

    Raises:
        ValueError: A regular expression that does not compile.
    """

    text: str
    kind: PatternKind
    priority: int = 0
    _compiled: re.Pattern[str] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        try:
            object.__setattr__(self, "_compiled", re.compile(self._expression(), re.DOTALL))
        except re.error as error:
            raise ValueError(f"method pattern {self.text!r} is not a regular expression: {error}") from error

    def _expression(self) -> str:
        if self.kind == "regex":
            return self.text
        if self.kind == "exact":
            return re.escape(self.text) + r"\Z"
        if self.kind == "prefix":
            return re.escape(self.text)
        return "".join({"*": ".*", "?": "."}.get(each, re.escape(each)) for each in self.text) + r"\Z"

    def matches(self, method: str) -> bool:
        """Whether a method is served by this pattern."""
        return len(method) <= MAX_METHOD and self._compiled.match(method) is not None

    @property
    def specificity(self) -> tuple[int, bool, int, int]:
        """Greater is more specific."""
        return self.priority, self.kind == "exact", self._literal(), _RANK[self.kind]

    def _literal(self) -> int:
        if self.kind == "glob":
            return sum(each not in "*?" for each in self.text)
        if self.kind != "regex":
            return len(self.text)
        text = self.text.removeprefix("^")
        return next((at for at, each in enumerate(text) if each in _META), len(text))

    def overlaps(self, other: Pattern) -> bool:
        """Whether some method could match both; assumed of regular expressions."""
        if "regex" in (self.kind, other.kind):
            return True
        return _overlap(self._as_glob(), other._as_glob())

    def _as_glob(self) -> tuple[str, ...]:
        """Its characters; wildcards are told from literal characters by a leading NUL."""
        if self.kind == "glob":
            return tuple(f"\0{each}" if each in "*?" else each for each in self.text)
        return (*self.text, "\0*") if self.kind == "prefix" else tuple(self.text)


def _overlap(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    @cache
    def meet(i: int, j: int) -> bool:
        if i == len(left) and j == len(right):
            return True
        if i < len(left) and left[i] == "\0*":
            return meet(i + 1, j) or (j < len(right) and meet(i, j + 1))
        if j < len(right) and right[j] == "\0*":
            return meet(i, j + 1) or (i < len(left) and meet(i + 1, j))
        if i == len(left) or j == len(right):
            return False
        return ("\0?" in (left[i], right[j]) or left[i] == right[j]) and meet(i + 1, j + 1)

    return meet(0, 0)
