"""Methods by pattern."""

from __future__ import annotations

from typing import Any

import pytest

from sluiceway.transports.embedded import Context, NotFound, Server
from sluiceway.transports.patterns import Pattern


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (Pattern("db/*", "exact"), "db/*", "db/query"),
        (Pattern("db/*", "glob"), "db/query", "dbx/query"),
        (Pattern("db/?", "glob"), "db/a", "db/ab"),
        (Pattern("auth/", "prefix"), "auth/login", "author"),
        (Pattern(r"^api/v\d+/.*$", "regex"), "api/v2/x", "api/vx/x"),
    ],
)
def test_each_kind_matches_what_it_says(pattern: Pattern, matching: str, other: str) -> None:
    """Exact matches only itself, a glob its expansions, a prefix its continuations, a regex its language (S0-RR)."""
    assert (True, False) == (pattern.matches(matching), pattern.matches(other))


def test_a_name_too_long_to_be_a_method_matches_nothing() -> None:
    """No pattern looks at more than 256 characters."""
    assert not Pattern("x", "prefix").matches("x" * 257)


def test_a_bad_regular_expression_fails_when_it_is_registered() -> None:
    """The text names the pattern."""
    with pytest.raises(ValueError, match=r"api/\("):
        Server("s").method("api/(", kind="regex")


async def test_the_most_specific_pattern_serves_a_method(connect: Any, version: str) -> None:
    """Exact before longer literal text before shorter, whatever the order of registration."""
    server = Server("s")

    def serve(pattern: str, **options: Any) -> None:
        @server.method(pattern, **options)
        def handler() -> dict[str, str]:
            return {"by": pattern}

    serve("*")
    serve("db/*")
    serve("db/query")
    serve("db/", kind="prefix")
    serve(r"db/\w+", kind="regex")
    serve("audit/*", priority=-1)

    async with connect(server, version=version) as peer:
        served = [(await peer.result(name))["by"] for name in ("db/query", "db/other", "auth", "audit/x")]

    assert ["db/query", "db/*", "*", "*"] == served


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"pattern": "db/*"}, {"pattern": "db/*"}),
        ({"pattern": "a*c"}, {"pattern": "*ac"}),
        ({"pattern": "a?", "kind": "glob"}, {"pattern": "?b", "kind": "glob"}),
        ({"pattern": "**b", "priority": 1}, {"pattern": "*b*", "priority": 1}),
        ({"pattern": "x/.*", "kind": "regex"}, {"pattern": "x/.+", "kind": "regex"}),
    ],
)
def test_equally_specific_patterns_that_meet_are_refused(first: dict[str, Any], second: dict[str, Any]) -> None:
    """A tie is an error when the second one is registered."""
    server = Server("s")
    server.method(**first)(lambda: None)

    with pytest.raises(ValueError, match="priority"):
        server.method(**second)(lambda: None)


def test_patterns_that_never_meet_or_differ_in_priority_are_fine() -> None:
    """Only real ambiguity is refused, and `replace` replaces."""
    server = Server("s")

    for pattern, options in (
        ("db/*", {}),
        ("ab/*", {}),
        ("a?", {}),
        ("a??", {}),
        ("b?", {}),
        ("db/*", {"priority": 1}),
        ("db/*", {"replace": True}),
    ):
        server.method(pattern, **options)(lambda: None)

    assert 6 == len(server.routes)


def test_mcp_methods_cannot_be_taken() -> None:
    """The kit serves MCP's own methods itself."""
    with pytest.raises(ValueError, match="MCP's own method"):
        Server("s").method("tools/list")(lambda: None)


async def test_a_handler_gets_params_and_dispatches_further(connect: Any, version: str) -> None:
    """A pattern's handler knows the method, takes members of params, and may refuse the method by name (S0-RR-06)."""
    server = Server("s")

    @server.method("db/*")
    async def database(ctx: Context, sql: str = "") -> dict[str, str]:
        if ctx.method not in ("db/query", "db/transaction", "db/migrate"):
            raise NotFound(f"no method {ctx.method}")
        return {"method": ctx.method, "sql": sql}

    async with connect(server, version=version) as peer:
        result = await peer.result("db/query", {"sql": "select 1", "unknown": True})
        refused = await peer.error("db/drop")
        unmatched = await peer.error("fs/list")
        wrong = await peer.error("db/query", {"sql": 1})

    assert {"method": "db/query", "sql": "select 1"} == result
    assert (-32602, "no method db/drop") == (refused.code, refused.message)
    assert (-32601, "method not found: fs/list") == (unmatched.code, unmatched.message)
    assert (-32602, "sql: Expected `str`, got `int`") == (wrong.code, wrong.message)


async def test_a_result_that_is_no_object_is_a_bug(connect: Any) -> None:
    """None is an empty object; anything but an object fails with an incident."""
    server = Server("s")
    server.method("none")(lambda: None)
    server.method("list")(lambda: [1])

    async with connect(server) as peer:
        empty = await peer.result("none")
        with pytest.raises(Exception, match="incident"):
            await peer.send("list")

    assert {} == empty
