"""Guards: globs, and which exchanges they match."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.model.exchange import Exchange, Link
from sluiceway.pipeline.model.session import Caller, Client
from sluiceway.pipeline.model.when import When, glob, matcher
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Notification, Request


async def _emit(_: Notification) -> None:
    """Nobody listens."""


def exchange(
    method: str = "tools/call", name: str | None = "search", caller: str = "ana", tenant: str | None = "acme"
) -> Exchange:
    """An exchange with everything a guard can look at."""
    params = {} if name is None else {"name": name}
    return Exchange(
        request=Request(1, method, params), kind=Kind.CALL, source="public",
        client=Client(era=Era.MODERN, version="2026-07-28"),
        caller=Caller(caller, tenant=tenant), link=Link(_emit),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("tools/*", "tools/call", True),
        ("tools/*", "prompts/get", False),
        ("*", "", True),
        ("a*c", "abc", True),
        ("a*c", "ac", True),
        ("a*c", "abcd", False),
        ("a.c", "abc", False),
        ("a?[b]", "a?[b]", True),
        ("*\n*", "a\nb", True),
        ("abc", "abc", True),
        ("abc", "abcd", False),
    ],
)
def test_a_star_is_any_run_of_characters_and_nothing_else_is_special(pattern: str, text: str, matches: bool) -> None:
    """Anchored at both ends, by itself and among other patterns."""
    assert matches == (glob(pattern).fullmatch(text) is not None)
    assert matches == matcher([pattern])(text)
    assert matches == matcher([pattern, "never", "n*r"])(text)


@given(st.text(max_size=10), st.text(max_size=10))
def test_text_without_a_star_matches_itself_only(pattern: str, text: str) -> None:
    """Whatever characters it has."""
    literal = pattern.replace("*", "")

    assert (literal == text) == matcher([literal])(text)
    assert glob(literal).fullmatch(literal)


@given(st.lists(st.text(st.characters(exclude_characters="*"), max_size=4), min_size=1, max_size=4))
def test_a_glob_matches_what_its_pieces_enclose(pieces: list[str]) -> None:
    """Any text may stand where a star stands."""
    assert matcher(["*".join(pieces)])("in between".join(pieces))


def test_no_name_makes_a_glob_try_over_and_over() -> None:
    """With backtracking this test would not end: names come from clients."""
    pattern = "*a" * 40 + "*b"

    assert glob(pattern).fullmatch("a" * 4000) is None
    assert glob(pattern).fullmatch("a" * 4000 + "b")


def test_no_pattern_matches_nothing() -> None:
    """An empty list of patterns is no wildcard."""
    assert not matcher([])("")


@pytest.mark.parametrize(
    ("when", "matches"),
    [
        (When(), True),
        (When(method=("tools/*",)), True),
        (When(method=("tools/list", "prompts/*")), False),
        (When(name=("db_*", "search")), True),
        (When(name=("db_*",)), False),
        (When(caller=("ana",)), True),
        (When(caller=("bob",)), False),
        (When(tenant=("ac*",)), True),
        (When(tenant=("globex",)), False),
        (When(source=("public",)), True),
        (When(source=("internal",)), False),
        (When(method=("tools/call",), name=("search",), caller=("a*",), tenant=("acme",), source=("*",)), True),
        (When(method=("tools/call",), name=("search",), caller=("a*",), tenant=("acme",), source=("x",)), False),
    ],
)
async def test_every_key_that_is_given_must_match(when: When, matches: bool) -> None:
    """Of several patterns of a key, one."""
    assert matches == when.compile()(exchange())


async def test_what_an_exchange_does_not_have_matches_no_pattern() -> None:
    """No target, no tenant: not even `*`."""
    assert not When(name=("*",)).compile()(exchange("tools/list", None))
    assert not When(tenant=("*",)).compile()(exchange(tenant=None))


def test_a_glob_is_compiled_once() -> None:
    """Guards share compiled patterns."""
    assert isinstance(glob("a*"), re.Pattern)
    assert glob("a*") is glob("a*")
