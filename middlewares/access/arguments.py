"""
Tests of arguments, as data: what a call may say, without an expression language.

A test has three outcomes. It holds, it fails, or it cannot tell: a number where text was expected, a list of nothing.
Who allows needs a test that holds; who denies is content with one that cannot tell. So no spelling of a value slips
between the two. Every test takes time in proportion to the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, final

from attrs import frozen

from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.model.when import matcher
from sluiceway.pipeline.protocol.json_pointer import names_in
from sluiceway.pipeline.protocol.messages import Json

Outcome = bool | None
"""It holds, it fails, or None: it cannot tell."""

MISSING: Final = object()
"""The value of an argument that was not given."""
_NUMBERS: Final = frozenset({int, float})
"""What JSON's numbers are; `true` is none."""
ANY: Final = object()
"""The arguments of somebody who only asks what is there: tests are left out."""


def texts(value: str | Iterable[str]) -> tuple[str, ...]:
    """One text, or several, as an option takes them."""
    return (value,) if isinstance(value, str) else tuple(value)


@final
@frozen(kw_only=True)
class Condition:
    """What one argument may be; everything that is given must hold."""

    one_of: tuple[Any, ...] | None = option(
        None, doc="Texts, numbers, `true`, `false` or `null` of which it must be one.", example=["users", "orders"]
    )
    none_of: tuple[Any, ...] | None = option(
        None, doc="Texts, numbers, `true`, `false` or `null` of which it must be none.", example=["passwords"]
    )
    glob: str | tuple[str, ...] | None = option(
        None, doc="Globs, one of which it must match as a whole.", example="report-*"
    )
    prefix: str | tuple[str, ...] | None = option(
        None, doc="Texts with one of which it must begin. For paths use `under`.", example="SELECT "
    )
    under: str | tuple[str, ...] | None = option(
        None,
        doc="Folders in one of which it must be, or which it must be, as a path with `/`. A path with `..`, `.`, a "
        "backslash or a NUL is in none. Symbolic links are the upstream's.",
        example="/srv/docs",
    )
    ge: float | None = option(None, doc="Number that it must at least be.", example=0)
    gt: float | None = option(None, doc="Number that it must be more than.", example=0)
    le: float | None = option(None, doc="Number that it must at most be.", example=100)
    lt: float | None = option(None, doc="Number that it must be less than.", example=100)
    max_length: int | None = option(None, ge=0, doc="Characters that it may have, as a text.", example=1000)
    present: bool | None = option(
        None, doc="`true`: it must be given, whatever it is; `false`: it must not be.", example=False
    )
    optional: bool = option(False, doc="Whether the test holds where the argument is not given.")

    def __attrs_post_init__(self) -> None:
        for value in (*(self.one_of or ()), *(self.none_of or ())):
            if _scalar(value) is None:
                raise ValueError(f"one_of and none_of take texts, numbers, true, false and null, not {value!r}")
        tests = list(_checks(self))
        if self.present is not None and (tests or self.optional):
            raise ValueError("present: stands alone; the other tests need the argument anyway, unless it is optional")
        if self.present is None and not tests:
            raise ValueError("an argument is named without any test; say present: true if it may be anything")

    def compile(self) -> Callable[[Any], Outcome]:
        """A function from the argument's value, or `MISSING`, to the outcome."""
        if self.present is not None:
            wanted = self.present
            return lambda value: (value is not MISSING) is wanted
        checks, optional = tuple(_checks(self)), self.optional
        check = checks[0] if len(checks) == 1 else _all_of(checks)

        def test(value: Any) -> Outcome:
            if value is MISSING:
                return optional
            if isinstance(value, list):
                return every(map(check, value)) if value else None
            return check(value)

        return test


def every(outcomes: Iterable[Outcome]) -> Outcome:
    """Whether all hold: false if one fails, None if none does and one cannot tell."""
    result: Outcome = True
    for outcome in outcomes:
        if outcome is False:
            return False
        if outcome is None:
            result = None
    return result


def _all_of(checks: tuple[Callable[[Any], Outcome], ...]) -> Callable[[Any], Outcome]:
    """As `every`, of what some checks say of one value."""

    def check(value: Any) -> Outcome:
        result: Outcome = True
        for each in checks:
            outcome = each(value)
            if outcome is not True:
                if outcome is False:
                    return False
                result = None
        return result

    return check


def compile_tests(tests: Mapping[str, Condition]) -> Callable[[Json], Outcome]:
    """
    A function from the `arguments` of a call to whether all tests hold.

    Args:
        tests: By argument. A name that begins with `/` is a JSON Pointer (RFC 6901) into objects.
    """
    compiled = tuple((*_place(name), test.compile()) for name, test in tests.items())

    def holds(arguments: Json) -> Outcome:
        given = {} if arguments is None else arguments
        if not isinstance(given, dict):
            return None
        result: Outcome = True
        for name, path, test in compiled:
            outcome = test(_find(given, path) if path else given.get(name, MISSING))
            if outcome is not True:
                if outcome is False:
                    return False
                result = None
        return result

    return holds


def _place(name: str) -> tuple[str, tuple[str, ...]]:
    """An argument's name, or the path to it where one name is not enough."""
    path = names_in(name) if name.startswith("/") else (name,)
    return (path[0], ()) if len(path) == 1 else ("", path)


def _find(value: Json, path: tuple[str, ...]) -> Any:
    """The value at a path; `MISSING` if something on the way is no object, or lacks the member."""
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]
    return value


def _checks(test: Condition) -> Iterable[Callable[[Any], Outcome]]:
    if test.one_of is not None:
        allowed = frozenset(map(_scalar, test.one_of))
        yield lambda value: None if (known := _scalar(value)) is None else known in allowed
    if test.none_of is not None:
        banned = frozenset(map(_scalar, test.none_of))
        yield lambda value: None if (known := _scalar(value)) is None else known not in banned
    if test.glob is not None:
        yield _of_text(matcher(texts(test.glob)))
    if test.prefix is not None:
        beginnings = texts(test.prefix)
        yield _of_text(lambda value: value.startswith(beginnings))
    if test.under is not None:
        folders = tuple(folder.rstrip("/") for folder in texts(test.under))
        yield _of_text(lambda value: _is_under(value, folders))
    if test.max_length is not None:
        longest = test.max_length
        yield lambda value: len(value) <= longest if isinstance(value, str) else None
    yield from _bounds(test)


def _bounds(test: Condition) -> Iterable[Callable[[Any], Outcome]]:
    """One check for all bounds there are."""
    if test.ge is test.gt is test.le is test.lt is None:
        return
    least, above = (-math.inf if bound is None else bound for bound in (test.ge, test.gt))
    most, below = (math.inf if bound is None else bound for bound in (test.le, test.lt))
    if test.gt is test.lt is None:
        yield lambda value: least <= value <= most if type(value) in _NUMBERS else None
    else:
        yield lambda value: least <= value <= most and above < value < below if type(value) in _NUMBERS else None


def _of_text(check: Callable[[str], bool]) -> Callable[[Any], Outcome]:
    return lambda value: check(value) if isinstance(value, str) else None


def _scalar(value: Any) -> tuple[str, Any] | None:
    """A scalar such that equal JSON values are equal, and `true` is not 1; None for objects and lists."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, int | float):
        return ("number", value)
    if isinstance(value, str):
        return ("text", str(value))
    return ("null", None) if value is None else None


def _is_under(path: str, folders: tuple[str, ...]) -> bool:
    if not path.startswith(folders) or "\\" in path or "\0" in path:
        return False
    if "/." in path and not {"..", "."}.isdisjoint(path.split("/")):
        return False
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
