"""Legacy clients at real servers of the modern era, through each sink: nothing is missing that the eras share."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from sluiceway.pipeline.client.errors import McpError
from sluiceway.pipeline.client.handlers import Handlers
from sluiceway.pipeline.client.memory import open_service_client
from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import ComponentKind
from sluiceway.pipeline.protocol.errors import UnsupportedVersion
from sluiceway.pipeline.protocol.mcp import LATEST_LEGACY
from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.pipeline.testing import FakeSource, legacy_client, memory_exchange
from sluiceway.transports import lines
from sluiceway.transports.embedded.sink import EmbeddedSink

HERE = Path(__file__).parent
CLI = "from sluiceway.pipeline.cli import main; main()"
pytestmark = pytest.mark.timeout(60)


def tour() -> Any:
    """The server of `tour.py`, made anew."""
    spec = importlib.util.spec_from_file_location("tour", HERE / "tour.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build()


@asynccontextmanager
async def serving(transport: str, tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    """The server of `tour.py` behind a transport; yields the options of a sink that leads to it."""
    if transport == "stdio":
        config = tmp_path / "tour.yaml"
        config.write_text("version: 1\nsources: {s: {stdio: {}}}\npipelines: {main: {sink: k}}\n"
                          "sinks: {k: {embedded: {server: 'tour:server'}}}\n")  # fmt: skip
        path = os.pathsep.join([str(HERE), *filter(None, sys.path)])
        yield {"command": [sys.executable, "-c", CLI, "run", str(config), "--stdio"], "env": {"PYTHONPATH": path}}
        return
    document = {
        "version": 1,
        "sources": {"s": {transport: {"bind": "127.0.0.1:0"}, "pipeline": "main"}},
        "pipelines": {"main": {"sink": "k"}},
        "sinks": {"k": {"embedded": {}}},
    }
    sink = EmbeddedSink.serving(tour())
    engine = Engine(from_data(document), overrides={(ComponentKind.SINK, "k"): sink})
    async with engine.running():
        yield {"url": engine.sources["s"].urls[0]}  # type: ignore[attr-defined]  # sources that listen have them


@asynccontextmanager
async def behind(transport: str, tmp_path: Path, **options: Any) -> AsyncIterator[Any]:
    """A sink that leads there, and knows that the server is of the modern era."""
    async with serving(transport, tmp_path) as where:
        document = {
            "version": 1,
            "sources": {"s": {"stdio": {}}},
            "pipelines": {"main": {"sink": "up"}},
            "sinks": {"up": {transport: {**where, "era": "modern", **options}}},
        }
        async with Engine(
            from_data(document), overrides={(ComponentKind.SOURCE, "s"): FakeSource()}
        ).running() as engine:
            yield engine.sinks["up"]


class Client:
    """The answers of a client, and what it heard."""

    def __init__(self) -> None:
        self.heard: list[Notification] = []
        self.handlers = Handlers(
            sampling=self.sampling, elicitation=self.elicitation, roots=self.roots, notification=self.notification
        )

    async def sampling(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"role": "assistant", "model": "m", "content": {"type": "text", "text": "Hi"}}

    async def elicitation(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"action": "accept", "content": {"name": params["message"]}}

    async def roots(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"roots": [{"uri": "file:///home"}]}

    async def notification(self, notification: Notification) -> None:
        self.heard.append(notification)


async def until(condition: Any) -> None:
    """Until something is so; the test's own time-out ends the wait."""
    while not await condition():  # noqa: ASYNC110  # what is waited for may be in another process
        await trio.sleep(0.01)


@pytest.mark.parametrize("transport", ["http", "websocket", "stdio"])
async def test_a_legacy_client_misses_nothing_of_a_modern_server(transport, tmp_path):
    """Lists, calls, errors, questions, progress, logs, subscriptions, cancellation, large results."""
    me, progress, logged = Client(), [], []

    async def on_progress(done: float, total: float | None, message: str) -> None:
        progress.append(done)

    async def on_notification(notification: Notification) -> None:
        logged.append(notification)

    async with (
        behind(transport, tmp_path) as sink,
        open_service_client(sink, handlers=me.handlers, era="legacy") as client,
    ):
        assert client.version == "2025-11-25"
        assert client.server.info["name"] == "tour"
        assert "interview" in {tool["name"] for tool in await client.list_tools()}

        said = await client.call_tool("interview")
        assert said["content"][0]["text"] == "Who? Hi file:///home"
        assert "resultType" not in said

        await client.request("logging/setLevel", {"level": "info"})
        counting = {"name": "count", "arguments": {"to": 2}}
        await client.request("tools/call", counting, on_progress=on_progress, on_notification=on_notification)
        assert (await client.call_tool("fail"))["isError"] is True
        assert len((await client.call_tool("large"))["content"][0]["text"]) == 1_000_000
        with pytest.raises(McpError) as missing:
            await client.read_resource("thing://2")
        assert missing.value.code == -32002
        assert await client.request("ping") == {}

        await client.request("resources/subscribe", {"uri": "thing://1"})
        await client.call_tool("touch")
        updated = Notification("notifications/resources/updated", {"uri": "thing://1"})

        async def heard() -> bool:
            return updated in me.heard

        await until(heard)
        await client.request("resources/unsubscribe", {"uri": "thing://1"})

        with trio.CancelScope() as scope:

            async def on_first(done: float, total: float | None, message: str) -> None:
                scope.cancel()

            await client.call_tool("hang", on_progress=on_first)

        async def gave_up() -> bool:
            return bool((await client.call_tool("given_up"))["content"][0]["text"] == "1")

        await until(gave_up)

    assert progress == [1, 2]
    assert [n.params["data"] for n in logged if n.method == "notifications/message"] == ["step 1", "step 2"]


@pytest.mark.parametrize("transport", ["http", "websocket", "stdio"])
async def test_without_translate_clients_are_refused(transport, tmp_path):
    """`translate: false` keeps the eras apart."""
    async with behind(transport, tmp_path, translate=False) as sink:
        with pytest.raises(UnsupportedVersion):
            async with open_service_client(sink, era="legacy"):
                pytest.fail("was served")


REFUSING = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "initialize":
        answer = {"error": {"code": -32022, "message": "no", "data": {"supported": ["2026-07-28"]}}}
    elif message.get("method") == "server/discover":
        answer = {"result": {"supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete"}}
    else:
        answer = {"result": {"tools": [], "resultType": "complete"}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
"""


async def test_a_child_that_refused_a_handshake_leaves_its_place_to_the_one_that_all_share(monkeypatch):
    """The session lives on without it, and the next one does not start another."""
    monkeypatch.setattr(lines, "_LAST_ANSWERS_S", 0.0)  # a session whose child was lost ends at once
    document = {
        "version": 1,
        "sources": {"s": {"stdio": {}}},
        "pipelines": {"main": {"sink": "up"}},
        "sinks": {"up": {"stdio": {"command": [sys.executable, "-S", "-c", REFUSING], "max_children": 1}}},
    }
    clients = [legacy_client(session_id=name) for name in ("one", "other")]
    hello = {"protocolVersion": LATEST_LEGACY, "capabilities": {}}
    async with Engine(from_data(document), overrides={(ComponentKind.SOURCE, "s"): FakeSource()}).running() as engine:
        sink = engine.sinks["up"]
        for client in clients:
            assert client.session is not None
            client.session.version = None
            assert isinstance(await sink(memory_exchange("initialize", hello, client=client)), Result)
        for client in clients:
            assert await sink(memory_exchange("tools/list", client=client)) == Result({"tools": []})
        closed = [client.session.closed for client in clients if client.session is not None]

    assert closed == [False, False]
