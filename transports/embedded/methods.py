"""
Methods of a server's own, chosen by pattern: exact, glob, prefix or regular expression.

The most specific pattern wins: higher priority, then exact before any other, then more literal characters, then glob
before prefix before regex. Two patterns that could match one method and are equally specific are refused when the
second is registered, so that a method never depends on the order of registration.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from sluiceway.pipeline.protocol.mcp import METHODS

from ..patterns import Pattern
from .handlers import Handler


@final
class Routes:
    """The registered patterns."""

    def __init__(self) -> None:
        self._routes: dict[Pattern, Handler] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def add(self, pattern: Pattern, handler: Handler, *, replace: bool) -> None:
        """
        Register a handler.

        Raises:
            ValueError: MCP itself has that method, or an equally specific pattern could match the same method.
        """
        if pattern.kind == "exact" and pattern.text in METHODS:
            raise ValueError(f"{pattern.text} is MCP's own method; use the decorator for what it serves")
        for other in self._rivals(pattern):
            if not (replace and other == pattern):
                raise ValueError(
                    f"methods {pattern.text!r} ({pattern.kind}) and {other.text!r} ({other.kind}) are equally specific "
                    "and could match the same method; give one of them a priority"
                )
        self._routes[pattern] = handler

    def _rivals(self, pattern: Pattern) -> Iterable[Pattern]:
        return [each for each in self._routes if each.specificity == pattern.specificity and each.overlaps(pattern)]

    def find(self, method: str) -> Handler | None:
        """The handler of the most specific pattern that matches, or None."""
        matching = [each for each in self._routes if each.matches(method)]
        return self._routes[max(matching, key=lambda each: each.specificity)] if matching else None
