"""A server asks its client what no request caused: each client is asked for its own, and for nobody else's."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pytest
import trio

from sluiceway.pipeline.client.handlers import Handlers
from sluiceway.pipeline.client.http import open_http_client
from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.protocol.messages import Json
from sluiceway.pipeline.runtime.engine import Engine

SERVER = """\
import json, sys
def say(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
roots = None
waiting = []
for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if method == "initialize":
        info = {"name": "s", "version": "1"}
        hello = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
        say(id=message["id"], result=hello)
    elif method == "notifications/initialized":
        say(id="q", method="roots/list")
    elif method == "tools/call":
        waiting.append(message["id"])
    elif message.get("id") == "q":
        roots = message.get("result", message.get("error"))
    while roots is not None and waiting:
        say(id=waiting.pop(), result={"content": [{"type": "text", "text": json.dumps(roots)}]})
"""


@pytest.mark.parametrize("arrangement", ["straight", "routed", "over-http"])
async def test_each_client_is_asked_on_its_own_stream_and_its_answer_reaches_its_server(arrangement: str) -> None:
    """Straight to a child, through a route, and through another gateway over HTTP."""
    http = {"http": {"bind": "127.0.0.1:0"}}
    stdio = {"stdio": {"command": [sys.executable, "-S", "-c", SERVER]}}
    document: dict[str, Any] = {
        "version": 1,
        "sources": {"front": {**http, "pipeline": "main"}},
        "pipelines": {"main": {"sink": "first"}},
        "sinks": {"first": stdio},
    }
    if arrangement == "routed":
        document["sinks"] = {"first": {"route": {"to": ["up"]}}, "up": stdio}
    answers: dict[str, Any] = {}

    async def run(url: str, name: str) -> None:
        async def roots(_params: Mapping[str, Json]) -> Mapping[str, Json]:
            await trio.lowlevel.checkpoint()
            return {"roots": [{"uri": f"file:///{name}"}]}

        async with open_http_client(url, era="legacy", handlers=Handlers(roots=roots)) as client:
            tool = "up.x" if arrangement == "routed" else "x"
            answers[name] = (await client.call_tool(tool))["content"][0]["text"]

    with trio.fail_after(30):
        async with Engine(from_data(document)).running() as engine:
            source: Any = engine.sources["front"]
            if arrangement != "over-http":
                await _both(run, source.urls[0])
            else:
                outer = {**document, "sinks": {"first": {"http": {"url": source.urls[0]}}}}
                async with Engine(from_data(outer)).running() as front:
                    found: Any = front.sources["front"]
                    await _both(run, found.urls[0])

    assert {name: f'{{"roots": [{{"uri": "file:///{name}"}}]}}' for name in ("ana", "bob")} == answers


async def _both(run: Any, url: str) -> None:
    async with trio.open_nursery() as nursery:
        for name in ("ana", "bob"):
            nursery.start_soon(run, url, name)
