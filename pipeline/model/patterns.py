"""
What a value is expected to be, written as data: the expectations of tests.

A mapping is partial: the keys it names must fit, others may be there; a key with dots is a path (`data.retry_after_ms`,
`content.0.text`). A list fits item by item. Text with a `*` is a glob. Anything else is itself, `true` never being 1.

A mapping whose keys begin with `$` is a test instead; several must all hold:

    {$exact: {a: 1}}            this and nothing more
    {$absent: true}             not there (null is there)
    {$matches: "[0-9]+"}        text that the regular expression matches as a whole
    {$contains: b}              text with this in it, or a list with an item that fits
    {$any: [a, b]}              fits one of them
    {$not: a}                   does not fit
    {$at_least: 1, $at_most: 3} a number from 1 to 3
    {$length: 2}                text, list or mapping of this length
    {$type: string}             string, number, integer, boolean, null, array or object
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Final, TypeAlias, final

from attrs import frozen

from ..protocol.messages import Json
from .when import glob

Path: TypeAlias = tuple[str | int, ...]
"""Keys and indices from the root of a value."""


@final
class Absent:
    """Stands for what is not there; null is something."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT: Final = Absent()


@final
@frozen
class Mismatch:
    """One place at which a value is not what is expected."""

    path: Path
    """Where, in the value."""
    expected: Json
    """The part of the pattern that does not fit."""
    actual: Json
    """What is there; `ABSENT` if nothing is."""
    pattern_path: Path = ()
    """Where, in the pattern: keys with dots are one step there."""


def mismatches(pattern: Json, actual: Json, path: Path = (), at: Path = ()) -> Iterator[Mismatch]:
    """
    Every place at which `actual` does not fit `pattern`; none if it fits.

    Args:
        pattern: What is expected, without `mistakes`.
        actual: JSON, or `ABSENT`.
        path: Where `actual` stands, for the places that come out.
        at: Where `pattern` stands, likewise.
    """
    if isinstance(pattern, Mapping) and _is_test(pattern):
        for name, argument in pattern.items():
            if not _TESTS[name](argument, actual):
                yield Mismatch(path, {name: argument}, actual, (*at, name))
    elif isinstance(pattern, Mapping) and isinstance(actual, Mapping):
        for key, inner in pattern.items():
            below, found = _walk(actual, str(key))
            yield from mismatches(inner, found, (*path, *below), (*at, key))
    elif isinstance(pattern, list | tuple) and isinstance(actual, list | tuple) and len(pattern) == len(actual):
        for index, (inner, item) in enumerate(zip(pattern, actual, strict=True)):
            yield from mismatches(inner, item, (*path, index), (*at, index))
    elif not _is_equal(pattern, actual):
        yield Mismatch(path, pattern, actual, at)


def fits(pattern: Json, actual: Json) -> bool:
    """Whether a value is what is expected."""
    return next(mismatches(pattern, actual), None) is None


def mistakes(pattern: Json, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """What is wrong with a pattern itself: where, and a sentence. Patterns with mistakes must not be matched."""
    if isinstance(pattern, Mapping) and _is_test(pattern):
        for name, argument in pattern.items():
            yield from _mistakes_of_test(str(name), argument, (*path, name))
    elif isinstance(pattern, Mapping):
        for key, inner in pattern.items():
            yield from mistakes(inner, (*path, key))
    elif isinstance(pattern, list | tuple):
        for index, inner in enumerate(pattern):
            yield from mistakes(inner, (*path, index))


def _mistakes_of_test(name: str, argument: Json, path: Path) -> Iterator[tuple[Path, str]]:
    if name not in _TESTS:
        close = get_close_matches(name[:80], _TESTS, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else "; a key of that name is matched by {$exact: ...}"
        yield path, f"unknown test {name[:80]!r}{meant} (tests: {', '.join(_TESTS)})"
        return
    if name in ("$any", "$not", "$contains"):
        yield from mistakes(argument, path)
    sentence = _argument_mistake(name, argument)
    if sentence:
        yield path, sentence


def _argument_mistake(name: str, argument: Json) -> str:
    if name == "$any" and not (isinstance(argument, list | tuple) and argument):
        return "$any takes a list of what would fit"
    if name in ("$at_least", "$at_most") and not _is_number(argument):
        return f"{name} takes a number"
    if name == "$length" and (not isinstance(argument, int) or isinstance(argument, bool)):
        return "$length takes a whole number"
    if name == "$absent" and not isinstance(argument, bool):
        return "$absent takes true or false"
    if name == "$type" and argument not in _TYPES:
        return f"$type takes one of {', '.join(_TYPES)}"
    if name == "$matches":
        if not isinstance(argument, str):
            return "$matches takes a regular expression, as text"
        try:
            re.compile(argument)
        except re.error as error:
            return f"$matches takes a regular expression: {error}"
    return ""


def _is_test(pattern: Mapping[str, Json]) -> bool:
    return any(str(key).startswith("$") for key in pattern)


def _walk(actual: Mapping[str, Json], key: str) -> tuple[Path, Json]:
    """What a key, or a path with dots, leads to."""
    if key in actual or "." not in key:
        return (key,), actual.get(key, ABSENT)
    found: Json = actual
    steps: list[str | int] = []
    for step in key.split("."):
        if isinstance(found, list | tuple) and step.isdecimal():
            steps.append(int(step))
            found = found[int(step)] if int(step) < len(found) else ABSENT
        else:
            steps.append(step)
            found = found.get(step, ABSENT) if isinstance(found, Mapping) else ABSENT
    return tuple(steps), found


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_equal(pattern: Json, actual: Json) -> bool:
    if isinstance(pattern, str) and "*" in pattern:
        return isinstance(actual, str) and glob(pattern).fullmatch(actual) is not None
    if _is_number(pattern) or _is_number(actual):
        return _is_number(pattern) and _is_number(actual) and pattern == actual
    return isinstance(pattern, bool) is isinstance(actual, bool) and pattern == actual


def _is_same(one: Json, other: Json) -> bool:
    """Equal to the last key, without globs and partial mappings."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if _is_number(one) and _is_number(other):
        return bool(one == other)
    return isinstance(one, bool) is isinstance(other, bool) and one == other and not isinstance(other, Absent)


def _contains(wanted: Json, actual: Json) -> bool:
    if isinstance(actual, str):
        return isinstance(wanted, str) and wanted in actual
    return isinstance(actual, list | tuple) and any(fits(wanted, item) for item in actual)


_TYPES: Final[Mapping[str, Callable[[Json], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "number": _is_number,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list | tuple),
    "object": lambda value: isinstance(value, Mapping),
}
_TESTS: Final[Mapping[str, Callable[[Json, Json], bool]]] = {
    "$exact": _is_same,
    "$absent": lambda wanted, actual: (actual is ABSENT) is wanted,
    "$matches": lambda regex, actual: isinstance(actual, str) and re.fullmatch(regex, actual) is not None,
    "$contains": _contains,
    "$any": lambda patterns, actual: any(fits(each, actual) for each in patterns),
    "$not": lambda pattern, actual: not fits(pattern, actual),
    "$at_least": lambda bound, actual: _is_number(actual) and actual >= bound,
    "$at_most": lambda bound, actual: _is_number(actual) and actual <= bound,
    "$length": lambda count, actual: isinstance(actual, str | list | tuple | Mapping) and len(actual) == count,
    "$type": lambda name, actual: _TYPES[name](actual),
}
