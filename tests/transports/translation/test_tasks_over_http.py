"""Tasks of one era at a server of the other, with HTTP in between: names in headers, listeners, questions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from sluiceway.pipeline.client.handlers import Handlers
from sluiceway.pipeline.client.memory import open_service_client
from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import ComponentKind, Context, NoOptions, Sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import UnsupportedVersion
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, LEGACY_VERSIONS, MODERN_VERSIONS, Era, Kind, MetaKey
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.pipeline.testing import FakeSource, memory_exchange
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT

pytestmark = pytest.mark.timeout(30)
EXTENSION = "io.modelcontextprotocol/tasks"
RELATED = "io.modelcontextprotocol/related-task"
FORM = {"method": "elicitation/create", "params": {"message": "who?", "requestedSchema": {"type": "object"}}}


class ModernTaskServer(Sink):
    """A server of 2026-07-28 with one task, which asks one thing, and is done when it is told."""

    def __init__(self) -> None:
        super().__init__(NoOptions(), Context(id="k"))
        self.headers: list[str | None] = []
        self.told = trio.Event()
        self.task: dict[str, Any] = {
            "taskId": "task-1", "status": "input_required", "createdAt": "2026-01-01T00:00:00Z",
            "lastUpdatedAt": "2026-01-01T00:00:00Z", "ttlMs": None, "pollIntervalMs": 60_000,
            "inputRequests": {"a": FORM},
        }  # fmt: skip

    async def __call__(self, exchange: Exchange) -> Reply:
        await trio.lowlevel.checkpoint()
        request = exchange.request
        if exchange.client.era is Era.LEGACY:
            raise UnsupportedVersion("no handshakes", data={"supported": list(MODERN_VERSIONS)})
        if exchange.method == "server/discover":
            capabilities = {"tools": {}, "extensions": {EXTENSION: {}}}
            value: dict[str, Any] = {"supportedVersions": [LATEST], "capabilities": capabilities}
            return Result({**value, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"})
        assert EXTENSION in exchange.client.capabilities["extensions"]
        if exchange.kind is Kind.LISTEN:
            assert isinstance(request, Request)
            about = {MetaKey.SUBSCRIPTION_ID.value: request.id}
            granted = {"notifications": request.params["notifications"], "_meta": about}
            await exchange.relay(Notification("notifications/subscriptions/acknowledged", granted))
            await self.told.wait()
            await exchange.relay(Notification("notifications/tasks", {**self.task, "_meta": about}))
            await exchange.draining.wait()
            return Result({"resultType": "complete"})
        if exchange.method == "tools/call":
            return Result({"resultType": "task", **{k: v for k, v in self.task.items() if k != "inputRequests"}})
        self.headers.append(exchange.client.headers.get("mcp-name"))
        if exchange.method == "tasks/get":
            return Result({"resultType": "complete", **self.task})
        assert exchange.method == "tasks/update"
        del self.task["inputRequests"]
        name = request.params["inputResponses"]["a"]["content"]["name"]
        self.task |= {"status": "completed", "result": {"content": [{"type": "text", "text": name}]}}
        self.told.set()
        return Result({"resultType": "complete"})


class LegacyTaskServer(Sink):
    """A server of 2025-11-25 with one task, which asks who waits for it, and is done when it knows."""

    def __init__(self) -> None:
        super().__init__(NoOptions(), Context(id="k"))
        self.task: dict[str, Any] = {
            "taskId": "task-1", "status": "input_required", "createdAt": "2026-01-01T00:00:00Z",
            "lastUpdatedAt": "2026-01-01T00:00:00Z", "ttl": None,
        }  # fmt: skip

    async def __call__(self, exchange: Exchange) -> Reply:
        await trio.lowlevel.checkpoint()
        if exchange.client.era is Era.MODERN:
            raise UnsupportedVersion("handshakes only", data={"supported": list(LEGACY_VERSIONS)})
        about = {RELATED: {"taskId": "task-1"}}
        match exchange.method:
            case "initialize":
                capabilities = {"tools": {}, "tasks": {"requests": {"tools": {"call": {}}}, "cancel": {}}}
                info = {"name": "fake", "version": "1"}
                value = {"protocolVersion": LATEST_LEGACY, "capabilities": capabilities, "serverInfo": info}
                return Result(value)
            case "tools/list":
                tool = {"name": "t", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "optional"}}
                return Result({"tools": [tool]})
            case "tools/call":
                assert exchange.request.params["task"] == {}
                return Result({"task": self.task})
            case "tasks/get":
                return Result(self.task)
            case "tasks/result":
                answer = await exchange.ask("elicitation/create", {**FORM["params"], "_meta": about})
                assert isinstance(answer, Result)
                self.task["status"] = "completed"
                assert exchange.client.session is not None
                exchange.client.session.notify(Notification("notifications/tasks/status", self.task))
                return Result({"content": [{"type": "text", "text": answer.value["content"]["name"]}], "_meta": about})
            case _:
                return Result()


@asynccontextmanager
async def behind(server: Sink, era: str) -> AsyncIterator[Any]:
    """A sink that leads to a server over HTTP."""
    document = {
        "version": 1,
        "sources": {"s": {"http": {"bind": "127.0.0.1:0"}}},
        "pipelines": {"main": {"sink": "k"}},
        "sinks": {"k": {"embedded": {}}},
    }
    engine = Engine(from_data(document), overrides={(ComponentKind.SINK, "k"): server})
    async with engine.running():
        url = engine.sources["s"].urls[0]  # type: ignore[attr-defined]  # sources that listen have them
        outer = {
            "version": 1,
            "sources": {"s": {"stdio": {}}},
            "pipelines": {"main": {"sink": "up"}},
            "sinks": {"up": {"http": {"url": url, "era": era}}},
        }
        fakes = {(ComponentKind.SOURCE, "s"): FakeSource()}
        async with Engine(from_data(outer), overrides=fakes).running() as gateway:
            yield gateway.sinks["up"]


async def test_a_legacy_client_has_tasks_at_a_modern_server():
    """Created, asked about, waited for: the last look is due to what the server told of its own accord."""
    asked: list[Mapping[str, Any]] = []
    heard: list[Notification] = []

    async def elicitation(params: Mapping[str, Any]) -> Mapping[str, Any]:
        asked.append(params)
        return {"action": "accept", "content": {"name": "Ana"}}

    async def notification(notification: Notification) -> None:
        heard.append(notification)

    server = ModernTaskServer()
    handlers = Handlers(elicitation=elicitation, notification=notification)
    async with behind(server, "modern") as sink, open_service_client(sink, handlers=handlers, era="legacy") as client:
        created = await client.request("tools/call", {"name": "t", "task": {}})
        result = await client.request("tasks/result", {"taskId": "task-1"})
        status = (await client.request("tasks/get", {"taskId": "task-1"}))["status"]
        listed = await client.request("tasks/list")
        while not heard:  # noqa: ASYNC110  # it comes on another connection
            await trio.sleep(0.01)

    assert created["task"]["status"] == "input_required"
    assert [params["_meta"] for params in asked] == [{RELATED: {"taskId": "task-1"}}]
    assert result == {"content": [{"type": "text", "text": "Ana"}], "_meta": {RELATED: {"taskId": "task-1"}}}
    assert status == "completed"
    assert [task["taskId"] for task in listed["tasks"]] == ["task-1"]
    assert [(note.method, note.params["status"]) for note in heard] == [("notifications/tasks/status", "completed")]
    assert set(server.headers) == {"task-1"}


async def test_a_modern_client_has_tasks_at_a_legacy_server():
    """Created, heard of, answered, and complete: the listener is told without anybody looking."""
    declared = {"extensions": {EXTENSION: {}}, "elicitation": {}}
    about = {
        MetaKey.VERSION.value: LATEST,
        MetaKey.CLIENT_CAPABILITIES.value: declared,
        MetaKey.CLIENT_INFO.value: {"name": "peer", "version": "2"},
    }
    client = replace(MODERN_CLIENT, capabilities=declared, info={"name": "peer", "version": "2"})
    send, heard = trio.open_memory_channel[Notification](10)

    async with behind(LegacyTaskServer(), "legacy") as sink:

        def exchange(method: str, **params: Any) -> Exchange:
            return memory_exchange(method, {**params, "_meta": about}, client=client)

        async def call(method: str, **params: Any) -> Mapping[str, Any]:
            reply = await sink(exchange(method, **params))
            assert isinstance(reply, Result), reply
            return reply.value

        discovered = await call("server/discover")
        created = await call("tools/call", name="t", arguments={})
        listening = exchange("subscriptions/listen", notifications={"taskIds": ["task-1"]})
        listening.link.emit = send.send
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink, listening)
            granted, asking = await heard.receive(), await heard.receive()
            await call("tasks/update", taskId="task-1", inputResponses={"q1": {"content": {"name": "Ana"}}})
            told = await heard.receive()
            while told.params["status"] != "completed":  # the upstream's own word may come first
                told = await heard.receive()
            nursery.cancel_scope.cancel()
        seen = await call("tasks/get", taskId="task-1")

    assert discovered["capabilities"]["extensions"] == {EXTENSION: {}}
    assert (created["resultType"], created["taskId"]) == ("task", "task-1")
    assert granted.params["notifications"] == {"taskIds": ["task-1"]}
    assert asking.params["inputRequests"] == {"q1": FORM}
    assert told.params["result"] == seen["result"] == {"content": [{"type": "text", "text": "Ana"}]}
