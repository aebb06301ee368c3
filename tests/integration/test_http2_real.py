"""A whole gateway whose upstream is spoken to in HTTP/2: the MCP SDK's client in front, the SDK's own server behind."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from mcp import Client

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY
from sluiceway.pipeline.runtime.engine import Engine

from .sdk_client import text_of

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.*is deprecated as of 2026-07-28.*"),
    # the SDK's HTTP client leaves its generators to the garbage collector when a call is cancelled
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2.*:ResourceWarning"),
]

SDK_SERVER = """
import anyio
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("sdk")
seen = {"cancelled": 0}


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


@server.tool()
def big() -> str:
    return "b" * 1_000_000


@server.tool()
async def count(ctx: Context) -> str:
    for step in (1, 2, 3):
        await ctx.report_progress(step, 3)
    return "counted"


@server.tool()
async def sleep() -> str:
    try:
        await anyio.sleep(60)
    except anyio.get_cancelled_exc_class():
        seen["cancelled"] += 1
        raise
    return "slept"


@server.tool()
def cancelled() -> int:
    return seen["cancelled"]


inner = server.streamable_http_app()


async def app(scope, receive, send):
    assert scope["type"] != "http" or scope["http_version"] == "2", scope
    await inner(scope, receive, send)
"""


@asynccontextmanager
async def sdk_server(folder: Path, programs: Any) -> AsyncIterator[str]:
    """The SDK's server under hypercorn, in a process of its own, which takes nothing but HTTP/2; yields its address."""
    await trio.Path(folder / "sdk_server.py").write_text(SDK_SERVER)
    port = programs.free_port()
    hypercorn = str(Path(sys.executable).parent / "hypercorn")
    command = [hypercorn, "-k", "trio", "-b", f"127.0.0.1:{port}", "sdk_server:app"]
    async with programs.run(command, port, cwd=folder):
        yield f"http://127.0.0.1:{port}/mcp"


@asynccontextmanager
async def gateway(url: str) -> AsyncIterator[tuple[Engine, str]]:
    """A gateway in front of it; yields it and its address."""
    document = from_data(
        {
            "version": 1,
            "sources": {"web": {"http": {"bind": "127.0.0.1:0"}, "pipeline": "main"}},
            "pipelines": {"main": {"sink": "up"}},
            "sinks": {"up": {"http": {"url": url, "http2": "always"}}},
        }
    )
    engine = Engine(document)
    async with engine.running():
        yield engine, f"http://{engine.sources['web'].addresses[0]}/mcp"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_everything_arrives_over_http2(mode: str, tmp_path: Path, programs: Any) -> None:
    """In both eras: calls, many at once, progress, large results, cancels."""
    progress: list[float] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    with trio.fail_after(90):
        async with (
            sdk_server(tmp_path, programs) as url,
            gateway(url) as (engine, address),
            Client(address, mode=mode) as client,
        ):
            assert client.protocol_version == (LATEST_LEGACY if mode == "legacy" else LATEST)
            assert "add" in {tool.name for tool in (await client.list_tools()).tools}
            assert text_of(await client.call_tool("count", {}, progress_callback=on_progress)) == "counted"
            assert progress == [1, 2, 3]
            assert len(text_of(await client.call_tool("big", {}))) == 1_000_000

            async def add(number: int) -> None:
                assert text_of(await client.call_tool("add", {"a": number, "b": 1})) == str(number + 1)

            async with trio.open_nursery() as nursery:
                for number in range(40):
                    nursery.start_soon(add, number)

            with trio.move_on_after(0.5) as scope:
                await client.call_tool("sleep", {})
            assert scope.cancelled_caught
            while text_of(await client.call_tool("cancelled", {})) != "1":  # noqa: ASYNC110  # another process: nothing tells us
                await trio.sleep(0.05)

            figures = {(f.name, *f.labels.values()): f.value for f in engine.sinks["up"].figures()}
            assert figures["pool_opened_total", "call"] == 1
