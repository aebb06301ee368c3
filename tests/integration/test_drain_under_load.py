"""Case 38: SIGTERM with a hundred calls under way and fifty streams that listen; the gateway has its own process."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

CALLS = 100
STREAMS = 25
"""Of either kind."""
META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
META["progressToken"] = "t"
GATEWAY = {
    "version": 1,
    "sources": {"web": {"http": {"bind": "127.0.0.1:0", "sse": {}, "websocket": {"path": "/ws"}}}},
    "pipelines": {"main": {"chain": ["request_id"], "sink": "demo"}},
    "sinks": {"demo": {"embedded": {"server": "demo"}}},
    "run": {"drain_timeout": "60s", "log_level": "info"},
}
"""What waits 60 seconds here has missed the drain: calls take three."""
COMMAND = [sys.executable, "-c", "from sluiceway.pipeline.cli import main; import sys; sys.exit(main())", "run"]


class Wire:
    """One connection, and what came on it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.heard = b""

    async def post(self, method: str, **params: Any) -> None:
        """Send a request of a modern client."""
        body = message(method, **params)
        name = f"Mcp-Name: {params['name']}\r\n" if "name" in params else ""
        await self.stream.send_all(
            b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"MCP-Protocol-Version: 2026-07-28\r\nAccept: application/json, text/event-stream\r\n"
            + f"Mcp-Method: {method}\r\n{name}Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    async def until(self, what: bytes) -> None:
        """Read until that came."""
        while what not in self.heard:
            piece = bytes(await self.stream.receive_some(65536))
            assert piece, f"{what!r} did not come, but {self.heard!r}"
            self.heard += piece

    async def rest(self) -> None:
        """Read until the gateway closes."""
        while piece := bytes(await self.stream.receive_some(65536)):
            self.heard += piece


def message(method: str, **params: Any) -> bytes:
    """A request of 2026-07-28."""
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}).encode()


def countdown() -> dict[str, Any]:
    """A call that takes three seconds, and tells of each."""
    return {"name": "countdown", "arguments": {"seconds": 3}}


async def open_websocket(wire: Wire) -> None:
    """Ask for it, and call on it."""
    await wire.stream.send_all(
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
        b"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mcp\r\n\r\n"
    )
    await wire.until(b"\r\n\r\n")
    body = message("tools/call", **countdown())
    await wire.stream.send_all(bytes((0x81, 0xFE)) + len(body).to_bytes(2, "big") + bytes(4) + body)


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[tuple[subprocess.Popen[bytes], int]]:
    """`sluiceway run`; yields its process and its port."""
    config, log = folder / "gateway.yaml", folder / "log"
    config.write_text(json.dumps(GATEWAY))
    with log.open("wb") as output:
        process = subprocess.Popen([*COMMAND, str(config)], stderr=output)  # noqa: ASYNC220  # a millisecond
    try:
        ready: list[str] = []
        while not ready:
            await trio.sleep(0.05)
            assert process.poll() is None, log.read_text()
            ready = [line for line in log.read_text().splitlines() if "gateway ready" in line]
        yield process, int(json.loads(ready[0])["web"][0].rpartition(":")[2].removesuffix("/mcp"))
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(120)
async def test_a_drain_loses_no_call_and_ends_every_stream_in_order(tmp_path: Path) -> None:
    """Nobody new gets in, a hundred calls are answered, streams end with their last chunk or frame, the exit is 0."""
    with trio.fail_after(100):
        async with gateway(tmp_path) as (process, port):

            async def connect() -> Wire:
                return Wire(await trio.open_tcp_stream("127.0.0.1", port))

            listeners, streams, calls = [[await connect() for _ in range(n)] for n in (STREAMS, STREAMS, CALLS)]
            websocket = await connect()
            for wire in listeners:
                await wire.post("subscriptions/listen", notifications={"toolsListChanged": True})
            for wire in streams:
                await wire.stream.send_all(b"GET /sse HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
            for wire in (*listeners, *streams):
                await wire.until(b"text/event-stream")
            await open_websocket(websocket)
            for wire in calls:
                await wire.post("tools/call", **countdown())
            await calls[-1].until(b"notifications/progress")
            await websocket.until(b"notifications/progress")
            process.send_signal(signal.SIGTERM)
            await listeners[0].rest()
            with pytest.raises(OSError, match="failed"):
                await trio.open_tcp_stream("127.0.0.1", port)
            async with trio.open_nursery() as nursery:
                for wire in (*listeners[1:], *streams, *calls, websocket):
                    nursery.start_soon(wire.rest)
            code = await trio.to_thread.run_sync(process.wait)
            for wire in (*listeners, *streams, *calls, websocket):
                await wire.stream.aclose()

    assert code == 0
    assert [b"Lift-off!" in wire.heard for wire in (*calls, websocket)] == [True] * (CALLS + 1)
    assert [b'"resultType":"complete"' in wire.heard for wire in listeners] == [True] * STREAMS
    assert [wire.heard[-5:] for wire in (*listeners, *streams)] == [b"0\r\n\r\n"] * 2 * STREAMS
    assert re.search(rb"\x88.\x03\xe9[ -~]*$", websocket.heard), "no close frame with 1001"
