"""Tasks of one era at a server of the other, with HTTP in between: names in headers, listeners, questions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from sluiceway.pipeline.client.handlers import Handlers
from sluiceway.pipeline.client.memory import open_service_client
from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import ComponentKind, Context, NoOptions, Sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import UnsupportedVersion
from sluiceway.pipeline.protocol.mcp import LATEST, MODERN_VERSIONS, Era, Kind, MetaKey
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.engine import Engine

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
        async with Engine(from_data(outer), listen=False).running() as gateway:
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
