"""
A client of 2026-07-28 that uses everything of a server that knows handshakes only: npm's `server-everything`.

Over each transport that a legacy server has: standard streams, Streamable HTTP, HTTP+SSE, and WebSocket by way of a
second gateway. The client is the MCP SDK's, and our own where the SDK's has no word for something.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
import trio
from mcp import Client
from mcp.client.subscriptions import ResourceUpdated
from mcp.shared.exceptions import MCPError
from pydantic import FileUrl

from sluiceway.pipeline.client.handlers import Handlers
from sluiceway.pipeline.client.http import open_http_client
from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.protocol.mcp import LATEST
from sluiceway.pipeline.protocol.messages import ErrorReply, Result
from sluiceway.pipeline.runtime.engine import Engine

from .sdk_client import declined, sampled, text_of

pytestmark = [
    pytest.mark.real,
    pytest.mark.xdist_group("server-everything"),
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore:.*is deprecated as of 2026-07-28.*"),
    # the SDK's HTTP client leaves its generators to the garbage collector when a call is cancelled
    pytest.mark.filterwarnings("ignore:Async generator '.*:ResourceWarning"),
]

ROOM = Path(__file__).resolve().parents[2] / ".node"
NODE = str(ROOM / "bin" / "node")
EVERYTHING = str(ROOM / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js")
WATCHED = "demo://resource/static/document/architecture.md"


@asynccontextmanager
async def gateway(sink: dict[str, Any], source: str = "http") -> AsyncIterator[tuple[Engine, str]]:
    """A gateway in front of one upstream; yields it and its address."""
    sources = {"web": {source: {"bind": "127.0.0.1:0"}, "pipeline": "main"}}
    data = {"version": 1, "sources": sources, "pipelines": {"main": {"sink": "up"}}, "sinks": {"up": sink}}
    engine = Engine(from_data(data))
    async with engine.running():
        front: Any = engine.sources["web"]
        yield engine, f"http://{front.addresses[0]}/mcp"


def stdio() -> dict[str, Any]:
    """The server as a child process."""
    return {"stdio": {"command": [NODE, EVERYTHING, "stdio"]}}


@pytest.fixture(params=["stdio", "http", "sse", "websocket"])
async def address(request: pytest.FixtureRequest, node: dict[str, str], programs: Any) -> AsyncIterator[str]:
    """A gateway in front of the server, over each transport."""
    if request.param == "stdio":
        async with gateway(stdio()) as (_, url):
            yield url
    elif request.param == "websocket":
        untranslated = {"stdio": {**stdio()["stdio"], "translate": False}}
        async with (
            gateway(untranslated, "websocket") as (_, inner),
            gateway({"websocket": {"url": inner.replace("http", "ws", 1)}}) as (_, url),
        ):
            yield url
    else:
        kind, path = ("streamableHttp", "/mcp") if request.param == "http" else ("sse", "/sse")
        port = programs.free_port()
        async with (
            programs.run([NODE, EVERYTHING, kind], port, env={**node, "PORT": str(port)}),
            gateway({request.param: {"url": f"http://127.0.0.1:{port}{path}"}}) as (_, url),
        ):
            yield url


async def _roots(context: object) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri=FileUrl("file:///one"), name="one")])


async def test_the_sdks_client_uses_everything(address: str) -> None:
    """Lists, calls, errors, progress, cancelling, and the server's questions."""
    steps: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    with trio.fail_after(60):
        async with Client(
            address,
            mode=LATEST,
            sampling_callback=sampled,
            list_roots_callback=_roots,
            elicitation_callback=declined,
        ) as client:
            assert client.protocol_version == LATEST
            assert "echo" in {tool.name for tool in (await client.list_tools()).tools}
            assert text_of(await client.call_tool("echo", {"message": "häi\n"})) == "Echo: häi\n"
            assert (await client.call_tool("echo", {})).is_error
            with pytest.raises(MCPError) as unknown:
                await client.read_resource("demo://nowhere")
            assert unknown.value.error.code == -32602
            slow = {"duration": 0.3, "steps": 3}
            await client.call_tool("trigger-long-running-operation", slow, progress_callback=on_progress)
            assert steps == [1, 2, 3]
            with trio.move_on_after(0.3) as scope:
                await client.call_tool("trigger-long-running-operation", {"duration": 60, "steps": 1})
            assert scope.cancelled_caught

            asked = await client.call_tool("trigger-sampling-request", {"prompt": "p", "maxTokens": 5})
            assert "sampled" in text_of(asked)
            assert "file:///one" in text_of(await client.call_tool("get-roots-list", {}))
            assert "declined" in text_of(await client.call_tool("trigger-elicitation-request", {}))

            assert (await client.read_resource(WATCHED)).contents != []
            prompt = await client.get_prompt("args-prompt", {"city": "Paris"})
            assert "Paris" in str(prompt.messages[0].content)


@pytest.mark.parametrize("address", ["stdio", "http"], indirect=True)  # it speaks every five seconds only
async def test_subscriptions_and_logs_arrive(address: str) -> None:
    """Each on the stream of the request that asked for it."""
    logs: list[str] = []

    async def on_log(params: types.LoggingMessageNotificationParams) -> None:
        logs.append(params.level)

    with trio.fail_after(60):
        async with Client(address, mode=LATEST, logging_callback=on_log, log_level="debug") as client:
            async with client.listen(resource_subscriptions=[WATCHED]) as stream:
                await client.call_tool("toggle-subscriber-updates", {})
                async for event in stream:
                    assert isinstance(event, ResourceUpdated)
                    assert str(event.uri) == WATCHED
                    break
            await client.call_tool("toggle-simulated-logging", {})
            while not logs:
                await client.call_tool("trigger-long-running-operation", {"duration": 6, "steps": 1})


async def test_our_own_client_is_asked_and_a_parked_call_waits_for_it(node: dict[str, str]) -> None:
    """Nobody else can take it up, and it is there for its owner afterwards."""

    async def decline(params: Any) -> dict[str, Any]:
        return {"action": "decline"}

    with trio.fail_after(60):
        async with (
            gateway(stdio()) as (engine, url),
            open_http_client(url, era="modern", handlers=Handlers(elicitation=decline)) as client,
        ):
            tool = {"name": "trigger-elicitation-request", "arguments": {}}
            asked = await client.exchange("tools/call", tool)
            assert isinstance(asked, Result)
            assert asked.value["resultType"] == "input_required"
            (key,) = asked.value["inputRequests"]
            answer = {"requestState": asked.value["requestState"], "inputResponses": {key: {"action": "decline"}}}
            stolen = await client.exchange("tools/call", {**answer, "name": "echo", "arguments": {}})
            await trio.sleep(1)
            done = await client.exchange("tools/call", {**tool, **answer})
            again = await client.exchange("tools/call", {**tool, **answer})
            at_once = await client.call_tool("trigger-elicitation-request")
            await client.exchange("tools/call", tool)  # waits when the gateway ends, and ends with it
            figures = {
                (each.name, *each.labels.values()): each.value
                for each in engine.sinks["up"].figures()
                if isinstance(each, Figure)
            }

    assert isinstance(stolen, ErrorReply)
    assert stolen.code == -32602
    assert isinstance(done, Result)
    assert "declined" in done.value["content"][0]["text"]
    assert isinstance(again, ErrorReply)
    assert "the call has ended" in again.message
    assert "declined" in at_once["content"][0]["text"]
    assert figures["translation_parkings_total", "resumed"] == 2
    assert figures["translation_parked_calls",] == 1


async def test_a_tool_that_must_be_a_task_is_waited_for(node: dict[str, str]) -> None:
    """The client sees a call like any other, with its question in the middle."""
    asked: list[str] = []

    async def accepted(context: object, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={"interpretation": "technical"})

    with trio.fail_after(60):
        async with (
            gateway(stdio()) as (_, url),
            Client(url, mode=LATEST, elicitation_callback=accepted) as client,
        ):
            done = await client.call_tool("simulate-research-query", {"topic": "x", "ambiguous": True})

    assert "Research Report" in text_of(done)
    assert len(asked) == 1


async def test_two_clients_are_asked_their_own_questions(node: dict[str, str]) -> None:
    """At the same time, of one server."""
    texts: dict[str, str] = {}

    async def visit(url: str, root: str) -> None:
        async def roots(context: object) -> types.ListRootsResult:
            return types.ListRootsResult(roots=[types.Root(uri=FileUrl(f"file:///{root}"), name=root)])

        info = types.Implementation(name=root, version="1")
        async with Client(url, mode=LATEST, list_roots_callback=roots, client_info=info) as client:
            texts[root] = text_of(await client.call_tool("get-roots-list", {}))

    with trio.fail_after(60):
        async with gateway(stdio()) as (_, url), trio.open_nursery() as nursery:
            for root in ("left", "right"):
                nursery.start_soon(visit, url, root)

    assert "file:///left" in texts["left"]
    assert "file:///right" in texts["right"]


async def test_a_server_that_dies_is_started_again_for_the_next_call(node: dict[str, str]) -> None:
    """The call in flight fails; the client need not know more."""
    with trio.fail_after(60):
        async with gateway(stdio()) as (engine, url), Client(url, mode=LATEST) as client:
            first = text_of(await client.call_tool("echo", {"message": "1"}))

            async def call() -> None:
                with pytest.raises(MCPError):
                    await client.call_tool("trigger-long-running-operation", {"duration": 60, "steps": 1})

            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                await trio.sleep(0.3)
                await engine.sinks["up"].act("restart", {})
            second = text_of(await client.call_tool("echo", {"message": "2"}))

    assert (first, second) == ("Echo: 1", "Echo: 2")


SMALL = """
import json, os, sys

SELF = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}
for line in sys.stdin:
    message = json.loads(line)
    method, params = message["method"], message.get("params", {})
    if method == "initialize":
        answer = {"result": SELF}
    elif method == "tools/list":
        answer = {"result": {"tools": []}}
    elif method == "tools/call" and params["name"] == "die":
        os._exit(3)
    elif method == "tools/call":
        answer = {"result": {"content": [{"type": "text", "text": "x" * params["arguments"]["size"]}]}}
    else:
        answer = {"error": {"code": -32601, "message": "no"}}
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
"""


@pytest.mark.parametrize("questions", [False, True])
async def test_large_results_and_sudden_ends(questions: bool) -> None:
    """A server may say much, and may die while it is asked; the next call starts another one."""
    callback = declined if questions else None
    sink = {"stdio": {"command": [sys.executable, "-c", SMALL]}}
    with trio.fail_after(60):
        async with gateway(sink) as (_, url), Client(url, mode=LATEST, elicitation_callback=callback) as client:
            assert len(text_of(await client.call_tool("talk", {"size": 5_000_000}))) == 5_000_000
            with pytest.raises(MCPError, match="exited with status 3"):
                await client.call_tool("die", {})
            assert text_of(await client.call_tool("talk", {"size": 3})) == "xxx"
