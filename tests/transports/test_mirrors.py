"""What a sink knows of mirrored arguments, and what it does with it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from msgspec.structs import replace

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import HeaderMismatch
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Result
from sluiceway.pipeline.testing import MODERN_CLIENT, memory_exchange
from sluiceway.transports import mirrors as module
from sluiceway.transports.mirrors import Mirrors

REGION = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
CHANGED = Notification("notifications/tools/list_changed")
HTTP = replace(MODERN_CLIENT, transport="http")


def tool(name: str, schema: Any = REGION) -> dict[str, Any]:
    """An entry of a list."""
    return {"name": name, "inputSchema": schema}


def call(region: Any = "eu", *, name: str = "t", **headers: str) -> Exchange:
    """A call over HTTP."""
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    params = {"name": name, "arguments": {} if region is None else {"region": region}}
    return memory_exchange("tools/call", params, client=replace(HTTP, headers=sent))


def headerless(arguments: Any, name: str = "t") -> Exchange:
    """A call over stdio."""
    return memory_exchange("tools/call", {"name": name, "arguments": arguments}, client=MODERN_CLIENT)


class Lister:
    """An upstream that lists tools page by page."""

    def __init__(self, *pages: list[Any]) -> None:
        self.pages = pages
        self.cursors: list[str | None] = []

    async def __call__(self, exchange: Exchange) -> Reply:
        await trio.lowlevel.checkpoint()
        assert exchange.method == "tools/list"
        cursor = exchange.request.params.get("cursor")
        self.cursors.append(cursor)
        number = 0 if cursor is None else int(cursor)
        more = {"nextCursor": str(number + 1)} if number + 1 < len(self.pages) else {}
        return Result({"tools": self.pages[number], **more})


def learned(mirrors: Mirrors, *tools: Any) -> None:
    """A list passes."""
    mirrors.learn(memory_exchange("tools/list"), Result({"tools": list(tools)}))


async def test_headers_are_compared_with_what_passed(autojump_clock: Any) -> None:
    """A list that a client asked for is enough; nothing is asked."""
    mirrors, upstream = Mirrors(), Lister()
    learned(mirrors, tool("t"), tool("plain", {}))

    await mirrors.check(call("eu", mcp_param_region="eu"), upstream)
    await mirrors.check(call(None), upstream)
    await mirrors.check(headerless({"region": "eu"}), upstream)
    await mirrors.check(memory_exchange("tools/list", client=HTTP), upstream)
    for wrong in (call("eu", mcp_param_region="us"), call("eu"), call(None, mcp_param_region="eu")):
        with pytest.raises(HeaderMismatch):
            await mirrors.check(wrong, upstream)
    assert upstream.cursors == []


async def test_a_header_for_a_tool_that_is_not_known_makes_the_sink_list(autojump_clock: Any) -> None:
    """All pages, once, until the tools change."""
    mirrors, upstream = Mirrors(), Lister([tool("a", {})], [tool("t")])
    with pytest.raises(HeaderMismatch):
        await mirrors.check(call("eu", mcp_param_region="us"), upstream)
    await mirrors.check(call("eu", name="other", mcp_param_region="us"), upstream)
    assert upstream.cursors == [None, "1"]

    mirrors.heard(Notification("notifications/prompts/list_changed"))
    assert len(mirrors) == 1
    mirrors.heard(CHANGED)
    assert len(mirrors) == 0
    await mirrors.check(call("eu"), upstream)
    assert upstream.cursors == [None, "1"]
    await mirrors.check(call("eu", mcp_param_region="eu"), upstream)
    assert upstream.cursors == [None, "1"] * 2


async def test_a_list_that_cannot_be_had_judges_nothing(autojump_clock: Any) -> None:
    """The next header asks again."""

    async def refuse(_: Exchange) -> Reply:
        await trio.lowlevel.checkpoint()
        return ErrorReply(-32601, "what?")

    mirrors = Mirrors()
    await mirrors.check(call("eu", mcp_param_region="us"), refuse)
    with pytest.raises(HeaderMismatch):
        await mirrors.check(call("eu", mcp_param_region="us"), Lister([tool("t")]))


@pytest.mark.parametrize(
    ("value", "header"), [("e u", "e u"), (7, "7"), (7.0, "7"), (True, "true"), (False, "false"), ("", "")]
)
def test_headers_are_made_for_clients_that_have_none(value: Any, header: str) -> None:
    """As text; a client that sends headers sends its own."""
    mirrors = Mirrors()
    assert mirrors.headers(headerless({"region": value})) == {}
    learned(mirrors, tool("t"))

    assert mirrors.headers(headerless({"region": value})) == {"mcp-param-region": header}
    assert mirrors.headers(headerless({})) == {}
    assert mirrors.headers(headerless({"region": None})) == {}
    assert mirrors.headers(headerless({"region": value}, "other")) == {}
    assert mirrors.headers(call(value)) == {}


async def test_a_second_look_says_whether_it_was_worth_it(autojump_clock: Any) -> None:
    """After a refusal, the tools are listed again although they are known."""
    mirrors, upstream = Mirrors(), Lister([tool("t")])
    assert await mirrors.find(headerless({"region": "eu"}), upstream, again=True)
    assert not await mirrors.find(headerless({"region": "eu"}), upstream, again=True)
    assert not await mirrors.find(headerless({"region": "eu"}), upstream)
    assert upstream.cursors == [None, None]


def test_what_clients_drop_or_nobody_annotates_is_not_kept() -> None:
    """A forbidden annotation, one that is gone, a list that is none, and one that does not pass the gate."""
    mirrors = Mirrors()
    learned(mirrors, tool("t"), tool("bad", {"properties": {"a": {"type": "object", "x-mcp-header": "A"}}}))
    assert len(mirrors) == 1
    learned(mirrors, tool("t", {}))
    assert len(mirrors) == 0
    mirrors.learn(memory_exchange("tools/list"), Result(raw=b'{"tools":[],"x-mcp-header":1,"x-mcp-header":2}'))
    mirrors.learn(memory_exchange("prompts/list"), Result({"tools": [tool("t")]}))
    mirrors.learn(memory_exchange("tools/list"), ErrorReply(-32601, "what?"))
    assert len(mirrors) == 0


def test_the_book_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was listed first goes first."""
    monkeypatch.setattr(module, "MAX_TOOLS", 3)
    mirrors = Mirrors()
    learned(mirrors, *(tool(f"t{number}") for number in range(5)))

    assert len(mirrors) == 3
    assert mirrors.headers(headerless({"region": "eu"}, "t0")) == {}
    assert mirrors.headers(headerless({"region": "eu"}, "t4")) == {"mcp-param-region": "eu"}
