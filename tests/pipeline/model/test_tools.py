"""What is known of tools: learned from what passes, asked for when it is not."""

import trio

from sluiceway.pipeline.model.changes import Changes
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.model.tools import Tool, ToolBook
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Result
from sluiceway.pipeline.testing import memory_exchange


class Upstream:
    """Three tools on two pages; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.broken = False

    async def __call__(self, exchange: Exchange) -> Reply:
        assert exchange.method == "tools/list"
        assert "progressToken" not in exchange.request.params.get("_meta", {})
        cursor = exchange.request.params.get("cursor")
        assert exchange.own_accord
        assert exchange.with_client(exchange.client).fork().own_accord
        self.asked.append(cursor)
        if self.broken:
            return ErrorReply(-32603, "broken")
        if cursor is None:
            return Result({"tools": [{"name": "a"}, {"name": "b"}, "rubbish", {"no": "name"}], "nextCursor": "2"})
        return Result({"tools": [{"name": "c", "annotations": {"readOnlyHint": True}}]})


def call(name: str, tenant: str | None = None) -> Exchange:
    """A call of a tool."""
    exchange = memory_exchange("tools/call", {"name": name, "_meta": {"progressToken": 1}})
    exchange.caller = Caller("x", tenant)
    return exchange


async def test_an_unknown_tool_is_looked_up_once(autojump_clock: trio.testing.MockClock) -> None:
    """On every page; what was not there is remembered, too, until it is old."""
    upstream, book = Upstream(), ToolBook(max_age_s=60)

    found = await book.find(call("c"), upstream)
    assert found is not None
    assert found.read_only
    assert await book.find(call("a"), upstream) == Tool({"name": "a"})
    assert await book.find(call("nobody"), upstream) is None
    assert await book.find(call("nobody"), upstream) is None
    assert upstream.asked == [None, "2"] * 2

    await trio.sleep(61)
    assert book.get(call("c")) is None
    await book.find(call("c"), upstream)
    assert upstream.asked == [None, "2"] * 3


async def test_tenants_are_told_apart() -> None:
    """A tool of one tenant says nothing of the tool of the same name that another one sees."""
    upstream, book = Upstream(), ToolBook()
    await book.find(call("a", "acme"), upstream)

    assert book.get(call("a", "acme")) is not None
    assert book.get(call("a", "globex")) is None
    assert book.get(call("a")) is None


async def test_what_changed_is_asked_for_again() -> None:
    """A change of other lists is none of tools."""
    upstream, book, changes = Upstream(), ToolBook(), Changes()
    changes.listen(book.forget)
    await book.find(call("a"), upstream)
    changes.announce("s", Notification("notifications/prompts/list_changed"))
    assert len(book) == 3
    changes.announce("s", Notification("notifications/tools/list_changed"))
    assert len(book) == 0


async def test_it_is_bounded_and_an_upstream_that_fails_teaches_nothing() -> None:
    """The latest stay."""
    upstream, book = Upstream(), ToolBook(max_tools=2)
    await book.find(call("a"), upstream)
    assert len(book) == 2

    upstream.broken = True
    book.forget()
    assert await book.find(call("a"), upstream) is None
    assert len(book) == 0


def test_hints_default_to_what_is_careful() -> None:
    """As the specification has it; what is no boolean is no hint."""
    silent, odd = Tool({"name": "a"}), Tool({"name": "a", "annotations": {"readOnlyHint": "yes"}, "inputSchema": 1})
    idempotent = Tool({"name": "a", "annotations": {"idempotentHint": True}})

    assert (False, False) == (silent.read_only, silent.repeatable)
    assert (False, False, {}) == (odd.read_only, odd.repeatable, odd.input_schema)
    assert (False, True) == (idempotent.read_only, idempotent.repeatable)


async def test_what_is_used_stays_when_others_have_to_go(autojump_clock: trio.testing.MockClock) -> None:
    """`get` counts as a use: the tool that nobody asks for goes first."""
    book = ToolBook(max_tools=2)
    book.learn(call("x"), Result({"tools": [{"name": "a"}, {"name": "b"}]}))

    assert book.get(call("a")) == Tool({"name": "a"})
    book.learn(call("x"), Result({"tools": [{"name": "c"}]}))

    assert [name for name in "abc" if book.knows(call(name))] == ["a", "c"]


async def test_a_missing_tool_is_known_to_be_missing(autojump_clock: trio.testing.MockClock) -> None:
    """`knows` tells it from one that nobody has asked for yet."""
    upstream, book = Upstream(), ToolBook(max_age_s=60)
    await book.find(call("nobody"), upstream)

    assert (book.knows(call("nobody")), book.get(call("nobody"))) == (True, None)
    assert not book.knows(call("somebody"))
    await trio.sleep(61)
    assert not book.knows(call("nobody"))
