"""The `http` sink over HTTP/2, with TLS, to Node's implementation of it (nghttp2)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.http_sink import HttpSink
from sluiceway.transports.http_upstream.config import HttpSinkConfig, TlsConfig

SERVER = Path(__file__).resolve().parents[1] / "children" / "http2_server.mjs"
NODE = shutil.which("node")

pytestmark = [pytest.mark.real, pytest.mark.skipif(NODE is None, reason="there is no Node here")]


@asynccontextmanager
async def node_server(authority: Any) -> AsyncIterator[str]:
    """The server in a process of its own; yields its address."""
    assert NODE is not None
    command = [NODE, str(SERVER), *map(str, authority.issue())]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
        process = await nursery.start(run)
        port = b""
        while not port.endswith(b"\n"):
            port += await process.stdout.receive_some()
        yield f"https://localhost:{int(port)}/mcp"
        await process.stdin.aclose()


@asynccontextmanager
async def opened(authority: Any, **options: Any) -> AsyncIterator[HttpSink]:
    """A sink on that server, in bounded time."""
    with trio.fail_after(30):
        async with node_server(authority) as url:
            known = {"url": url, "era": "modern", "http2": "auto", "tls": TlsConfig(ca=authority.file)}
            sink = HttpSink(HttpSinkConfig(**{**known, **options}), Context(id="up"))
            async with sink.open():
                yield sink


async def call(sink: HttpSink, name: str, arguments: Any = None, interim: list[Any] | None = None) -> Any:
    """What a tool answers."""
    params = {"name": name, "arguments": arguments}
    reply = await sink(memory_exchange("tools/call", params, interim=[] if interim is None else interim))
    assert isinstance(reply, Result)
    return reply.value["value"]


async def test_calls_events_and_large_content_share_a_connection(authority: Any) -> None:
    """Both ways, with the server's windows and ours."""
    async with opened(authority) as sink:
        assert await call(sink, "echo", {"a": 1}) == {"a": 1}
        told: list[Any] = []
        assert await call(sink, "events", interim=told) == "told"
        assert [each.params["data"] for each in told] == [0, 1, 2]
        big = "x" * 3_000_000
        assert await call(sink, "echo", big) == big
        assert len(await call(sink, "big", 5_000_000)) == 5_000_000
        assert (await call(sink, "counts"))["sessions"] == 1


async def test_the_servers_limit_of_streams_is_kept(authority: Any) -> None:
    """Ten at a time on each connection; more wait, or go on another."""
    async with opened(authority, max_connections=1) as sink:
        answers = []

        async def one() -> None:
            answers.append(await call(sink, "slow"))

        async with trio.open_nursery() as nursery:
            for _ in range(35):
                nursery.start_soon(one)

        assert answers == ["at last"] * 35
        counts = await call(sink, "counts")
        assert (counts["most"], counts["sessions"]) == (10, 1)


async def test_a_cancel_reaches_the_server(authority: Any) -> None:
    """Stream by stream; the connection goes on."""
    async with opened(authority) as sink:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(call, sink, "never")
            assert await call(sink, "slow") == "at last"
            nursery.cancel_scope.cancel()
        while (await call(sink, "counts"))["cancelled"] < 8:
            pass
        assert (await call(sink, "counts"))["sessions"] == 1


async def test_what_the_server_refuses_goes_out_again(authority: Any) -> None:
    """REFUSED_STREAM means that nothing was done."""
    async with opened(authority) as sink:
        assert await call(sink, "refuse") == "taken"
        assert (await call(sink, "counts"))["refused"] == 2


async def test_a_server_that_says_goodbye_loses_no_call(authority: Any) -> None:
    """What is under way is answered, what comes next goes on a new connection."""
    async with opened(authority) as sink:
        answers = []

        async def one(name: str) -> None:
            answers.append(await call(sink, name))

        for _ in range(5):
            async with trio.open_nursery() as nursery:
                for name in ("slow", "slow", "leave", "echo", "slow", "echo"):
                    nursery.start_soon(one, name)

        assert len(answers) == 30
        assert answers.count("after goodbye") == 5
        assert answers.count("at last") == 15
        assert (await call(sink, "counts"))["sessions"] >= 5
