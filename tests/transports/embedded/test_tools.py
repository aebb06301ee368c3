"""Tools: decorated functions and command-style classes, calls and their failures."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import trio

from sluiceway.pipeline.protocol.errors import Forbidden
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.transports.embedded import (
    Audio,
    Context,
    Denied,
    Embedded,
    Image,
    InternalError,
    InvalidParams,
    InvalidRequest,
    Link,
    NotFound,
    Server,
    Text,
    Tool,
    ToolError,
    ToolResult,
)

SCHEMA = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
OLD = "2025-06-18"


@attrs.frozen
class Answer:
    value: int


class Search(Tool):
    name = "search"
    description = "Search"
    schema = SCHEMA

    def __init__(self) -> None:
        self.ran = 0

    async def execute(self, arguments: Mapping[str, Any], context: Context) -> str:
        self.ran += 1
        return f"found {arguments['query']} for {context.caller.subject}"


def test_a_class_tool_and_a_decorated_one_are_listed_alike() -> None:
    """Both give name, description and a schema (S3-TC-01)."""
    server = Server("s")
    server.add_tool(Search())

    @server.tool(title="Look", annotations={"readOnlyHint": True}, icons=[{"src": "https://x/y.png"}], meta={"a": 1})
    def look(query: str) -> str:
        """
        Look for
        something.

        Not shown.
        """
        return query

    listed = [tool.definition() for tool in server.tools.values()]

    assert {"name": "search", "description": "Search", "inputSchema": SCHEMA} == listed[0]
    assert {
        "name": "look",
        "title": "Look",
        "description": "Look for something.",
        "inputSchema": {**SCHEMA, "additionalProperties": False},
        "annotations": {"readOnlyHint": True},
        "icons": [{"src": "https://x/y.png"}],
        "_meta": {"a": 1},
    } == listed[1]


async def test_bad_arguments_never_execute(connect: Any, version: str) -> None:
    """Both kinds validate first, and say which parameter is wrong (S3-TC-02, S3-TC-04)."""
    server, search = Server("s"), Search()
    server.add_tool(search)
    ran: list[str] = []

    @server.tool()
    def look(query: str) -> str:
        ran.append(query)
        return query

    async with connect(server, version=version) as peer:
        results = [
            await peer.call(name, raw=True, **arguments)
            for name in ("search", "look")
            for arguments in ({}, {"query": 1})
        ]
        good = await peer.call("search", query="x")

    assert all(result["isError"] for result in results)
    assert all("Invalid params: " in text and "query" in text for text in (r["content"][0]["text"] for r in results))
    assert ("found x for anonymous", 1, []) == (good, search.ran, ran)


async def test_bad_arguments_are_a_protocol_error_for_older_clients(connect: Any) -> None:
    """Up to 2025-06-18 they are -32602 (D-15)."""
    server = Server("s")
    server.add_tool(Search())

    async with connect(server, version=OLD) as peer:
        error = await peer.error("tools/call", {"name": "search", "arguments": {}})

    assert -32602 == error.code
    assert "query" in error.message


async def test_an_unknown_tool_and_malformed_params_are_protocol_errors(connect: Any, version: str) -> None:
    """-32602 in every revision."""
    server = Server("s")
    server.add_tool(Search())

    async with connect(server, version=version) as peer:
        errors = [
            await peer.error("tools/call", params)
            for params in ({"name": "nope"}, {"name": 7}, {"name": "search", "arguments": [1]})
        ]

    if version == "2026-07-28":
        assert [-32602] * 2 == [error.code for error in errors[:2]]
    assert "unknown tool: nope" == errors[0].message


async def test_return_values_become_content(connect: Any, version: str) -> None:
    """Text, data, blocks, mixtures, nothing, and whole results."""
    server = Server("s")

    def serve(name: str, value: Any) -> None:
        server.tool(name=name)(lambda: value)

    serve("text", "hello")
    serve("none", None)
    serve("number", 7)
    serve("data", {"a": [1]})
    serve("image", Image(b"\x01", meta={"k": 1}))
    serve("audio", Audio(b"\x01"))
    serve("resource", Embedded("r://1", b"\x01"))
    serve("link", Link("r://1", "one", size=1))
    serve("mixed", [Text("a", annotations={"priority": 1.0}), "b", {"c": 1}])
    serve("whole", ToolResult(content=("x",), structured={"y": 1}, meta={"z": 1}))

    async with connect(server, version=version) as peer:
        found = {name: await peer.call(name, raw=True) for name in server.tools}

    assert [{"type": "text", "text": "hello"}] == found["text"]["content"]
    assert [] == found["none"]["content"]
    assert "7" == found["number"]["content"][0]["text"]
    assert '{"a":[1]}' == found["data"]["content"][0]["text"]
    assert [{"type": "image", "data": "AQ==", "mimeType": "image/png", "_meta": {"k": 1}}] == found["image"]["content"]
    assert "audio" == found["audio"]["content"][0]["type"]
    blob = {"uri": "r://1", "mimeType": "application/octet-stream", "blob": "AQ=="}
    assert [{"type": "resource", "resource": blob}] == found["resource"]["content"]
    assert [{"type": "resource_link", "uri": "r://1", "name": "one", "size": 1}] == found["link"]["content"]
    assert ["a", "b", '{"c":1}'] == [block["text"] for block in found["mixed"]["content"]]
    assert {"content": [{"type": "text", "text": "x"}], "structuredContent": {"y": 1}, "_meta": {"z": 1}} == found[
        "whole"
    ]


async def test_a_declared_result_is_structured(connect: Any, version: str) -> None:
    """A class as return type gives an output schema, structured content, and the same as text."""
    server = Server("s")

    @server.tool()
    def answer() -> Answer:
        return Answer(42)

    async with connect(server, version=version) as peer:
        listed = (await peer.result("tools/list"))["tools"][0]
        result = await peer.call("answer", raw=True)

    assert {"value": {"type": "integer"}} == listed["outputSchema"]["properties"]
    assert {"content": [{"type": "text", "text": '{"value":42}'}], "structuredContent": {"value": 42}} == result


async def test_older_clients_get_only_content_they_know(connect: Any) -> None:
    """Links since 2025-06-18, audio since 2025-03-26; before, a line of text."""
    server = Server("s")
    server.tool(name="both")(lambda: [Link("r://1", "one"), Audio(b"")])

    async with connect(server, version="2025-03-26") as peer:
        newer = [block["type"] for block in (await peer.call("both", raw=True))["content"]]
    async with connect(server, version="2024-11-05") as peer:
        older = [block.get("text") for block in (await peer.call("both", raw=True))["content"]]

    assert ["text", "audio"] == newer
    assert ["one: r://1", "[audio, audio/wav]"] == older


async def test_structured_content_that_is_no_object_is_for_modern_clients(connect: Any) -> None:
    """Legacy revisions know only objects."""
    server = Server("s")
    server.tool(name="items")(lambda: ToolResult(content=("[1]",), structured=[1]))

    async with connect(server) as peer:
        legacy = await peer.call("items", raw=True)
    async with connect(server, version="2026-07-28") as peer:
        modern = await peer.call("items", raw=True)

    assert ("structuredContent" in legacy, [1]) == (False, modern["structuredContent"])


@pytest.mark.parametrize(
    ("raised", "text"),
    [
        (ToolError("disk full"), "disk full"),
        (InvalidParams("age: Must be 18 or older"), "Invalid params: age: Must be 18 or older"),
        (NotFound("User not found"), "User not found"),
        (InvalidRequest("not now"), "not now"),
        (InternalError("password=hunter2"), "internal error, incident "),
        (RuntimeError("password=hunter2"), "internal error, incident "),
    ],
)
async def test_a_failing_tool_is_a_result(connect: Any, version: str, raised: Exception, text: str) -> None:
    """`isError` with the text; what was not meant for the client stays in the log (S3-CL-05, S1-DB-05)."""
    server = Server("s")

    @server.tool()
    def fail() -> None:
        raise raised

    async with connect(server, version=version) as peer:
        result = await peer.call("fail", raw=True)

    assert result["isError"]
    assert result["content"][0]["text"].startswith(text)
    assert "hunter2" not in str(result)


async def test_a_denied_call_is_the_gateways_forbidden(connect: Any, version: str) -> None:
    """Denied is an auth error with HTTP 403, not a result (D-15)."""
    server = Server("s")

    @server.tool()
    def fail() -> None:
        raise Denied("not yours", data={"need": "admin"})

    async with connect(server, version=version) as peer:
        with pytest.raises(Forbidden, match="not yours") as caught:
            await peer.call("fail")

    assert ({"need": "admin"}, 403) == (caught.value.data, caught.value.http_status)


async def test_sync_async_and_threaded_functions_all_serve(connect: Any) -> None:
    """A sync function runs in the exchange's task, a threaded one elsewhere."""
    server = Server("s")
    here = threading.get_ident()

    @server.tool()
    def inline() -> bool:
        return threading.get_ident() == here

    @server.tool(thread=True)
    def aside() -> bool:
        return threading.get_ident() == here

    class Command(Tool):
        name = "command"

        def execute(self, arguments: Any, context: Context) -> None:
            assert {} == arguments

    server.add_tool(Command())

    async with connect(server) as peer:
        said = [await peer.call("inline"), await peer.call("aside")]
        nothing = await peer.call("command", raw=True)

    assert (["true", "false"], []) == (said, nothing["content"])


async def test_cancelling_the_exchange_cancels_the_tool_exactly_there(connect: Any, autojump_clock: Any) -> None:
    """The handler runs in the exchange's own task: its cleanup runs, and nothing goes on."""
    server = Server("s")
    events: list[str] = []

    @server.tool()
    async def slow() -> None:
        try:
            await trio.sleep(10)
            events.append("went on")
        finally:
            events.append(f"stopped at {trio.current_time() - start:g}")

    async with connect(server) as peer:
        start = trio.current_time()
        with trio.move_on_after(3):
            await peer.call("slow")

    assert ["stopped at 3"] == events


def test_duplicates_are_refused_unless_replaced() -> None:
    """A name is taken once; `replace` keeps its place in the list."""
    server = Server("s")
    server.add_tool(Search())
    server.tool(name="other")(lambda: None)

    with pytest.raises(ValueError, match="tool 'search' is registered already"):
        server.add_tool(Search())
    replacement = Search()
    server.add_tool(replacement, replace=True)

    assert ["search", "other"] == list(server.tools)
    assert server.tools["search"] is replacement


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "nonsense"}, "not a usable JSON Schema"),
        ({"$ref": "https://example.com/schema.json"}, "nothing is fetched"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_at_registration(schema: dict[str, Any], problem: str) -> None:
    """A broken schema and one that points to the network: nothing is ever fetched (SEP-2106)."""
    tool = Search()
    tool.schema = schema

    with pytest.raises(ValueError, match=problem):
        Server("s").add_tool(tool)


def test_a_tool_without_a_name_or_without_execute_says_so() -> None:
    """A command needs both."""
    with pytest.raises(ValueError, match="Tool needs a name"):
        Server("s").add_tool(Tool())
    with pytest.raises(TypeError, match="does not implement execute"):
        Tool().execute({}, None)  # type: ignore[arg-type]


def test_decorated_functions_stay_what_they_are() -> None:
    """They can be called in tests without a server."""
    server = Server("s")

    @server.tool()
    def double(n: int) -> int:
        return 2 * n

    assert 4 == double(2)


async def test_a_hundred_increments_at_once_make_a_hundred(connect: Any) -> None:
    """State changed without a checkpoint needs no lock (S1-SM-03)."""
    server = Server("s")
    total = 0

    @server.tool()
    async def increment() -> int:
        nonlocal total
        await trio.lowlevel.checkpoint()
        total += 1
        return total

    async with connect(server) as peer, trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(peer.call, "increment")

    assert (100, Era.LEGACY) == (total, peer.era)
