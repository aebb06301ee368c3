"""
Whether what was asked or answered is what the tape has, and where it is not. Pure.

Values that were masked when the tape was made (`***:` and a fingerprint) stand for something that nobody knows any
more, so any two of them are taken for equal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, final

from attrs import frozen

from ..model.keys import VOLATILE_META
from ..model.when import matcher
from ..protocol.messages import Json
from .masking import is_masked

MISSING: Final = "(nothing)"
"""Stands where one side has a value and the other has none."""
VOLATILE: Final = tuple(f"params._meta.{key}" for key in sorted(VOLATILE_META))
"""What never decides which recorded answer a request gets: trace context, progress tokens, who asks, and how often."""

_MOST: Final = 1000
"""Places at which two values differ that are told apart."""


@final
@frozen
class Place:
    """Where two JSON values differ."""

    path: str
    """Keys and indices, joined by dots."""
    before: Json
    after: Json


@final
class Ignoring:
    """
    Paths that do not count.

    Args:
        paths: Globs, such as `params._meta.*` or `reply.result.content.*.text`.
    """

    def __init__(self, paths: Collection[str] = ()) -> None:
        self.paths = tuple(paths)
        self._hides = matcher(self.paths) if self.paths else None

    def __call__(self, path: str) -> bool:
        """Whether a path, or anything that it lies in, does not count."""
        hides = self._hides
        if hides is None:
            return False
        while path:
            if hides(path):
                return True
            path = path.rpartition(".")[0]
        return False


def differences(before: Json, after: Json, path: str, ignoring: Ignoring) -> Iterator[Place]:
    """
    Where two values differ, deepest places first told apart; the first thousand of them.

    Args:
        before: What the tape has.
        after: What there is now.
        path: Where they stand.
        ignoring: What does not count.
    """
    for number, place in enumerate(_differences(before, after, path, ignoring)):
        if number == _MOST:
            return
        yield place


def _differences(before: Any, after: Any, path: str, ignoring: Ignoring) -> Iterator[Place]:
    if before == after and type(before) is type(after):
        return
    if ignoring(path) or (is_masked(before) and is_masked(after)):
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            below = f"{path}.{key}" if path else str(key)
            yield from _differences(before.get(key, MISSING), after.get(key, MISSING), below, ignoring)
    elif _is_list(before) and _is_list(after):
        for index in range(max(len(before), len(after))):
            pair = [each[index] if index < len(each) else MISSING for each in (before, after)]
            yield from _differences(pair[0], pair[1], f"{path}.{index}", ignoring)
    elif not _same_number(before, after):
        yield Place(path, before, after)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _same_number(before: Any, after: Any) -> bool:
    """1 and 1.0 are one number to JSON; true is none."""
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (before, after))
    return numbers and before == after


def distance(before: Json, after: Json, ignoring: Ignoring) -> int:
    """At how many places two values differ."""
    return sum(1 for _ in differences(before, after, "params", ignoring))
