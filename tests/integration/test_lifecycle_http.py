"""
Whole gateways over real sockets: clients that vanish, signals with calls in flight, stages replaced under load.

Everything runs under the leak oracle: a task, socket, child or deadline that is left fails the test.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import attrs
import pytest
import trio

from sluiceway.pipeline.client.http import open_http_client
from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import ComponentKind, Context, Middleware, Sink
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.protocol.messages import Notification, Reply, Result
from sluiceway.pipeline.runtime.engine import Engine

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "progressToken": "t",
}


@attrs.frozen
class NoOptions:
    """Nothing to choose."""


class CountingSink(Sink):
    """Relays progress a few times, then answers, or hangs if it is told to; counts who is inside and how they left."""

    Config = NoOptions
    name = "counting"
    inside = finished = cancelled = 0
    pause_s = 0.01

    async def __call__(self, exchange: Exchange) -> Reply:
        self.inside += 1
        done = False
        try:
            for step in range(3):
                await trio.sleep(self.pause_s)
                await exchange.relay(Notification("notifications/progress", {"progressToken": "t", "progress": step}))
                if exchange.target == "hang":
                    await trio.sleep_forever()
            done = True
            return Result({"content": [], "resultType": "complete"})
        finally:
            self.inside -= 1
            self.finished += done
            self.cancelled += not done


class PassThrough(Middleware):
    """Does nothing, and can be replaced."""

    Config = NoOptions
    name = "pass"

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        return await call_next(exchange)


def document(**http: Any) -> Any:
    return from_data(
        {
            "version": 1,
            "sources": {"web": {"http": {"bind": "127.0.0.1:0", **http}}},
            "pipelines": {"main": {"chain": ["request_id"], "sink": "k"}},
            "sinks": {"k": {"embedded": {"server": "demo"}}},
        }
    )


@asynccontextmanager
async def gateway(sink: Sink, **http: Any) -> AsyncIterator[tuple[Engine, int]]:
    """A gateway on a free port in front of a sink."""
    engine = Engine(document(**http), overrides={(ComponentKind.SINK, "k"): sink})
    async with engine.running():
        port = int(str(engine.sources["web"].addresses[0]).rpartition(":")[2])
        yield engine, port


def post(port: int, name: str = "x") -> bytes:
    body = json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": {}, "_meta": META}}
    ).encode()
    head = (
        f"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        "accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n"
        f"mcp-method: tools/call\r\nmcp-name: {name}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@pytest.mark.timeout(120)
async def test_a_thousand_vanishing_clients_leave_nothing() -> None:
    """They connect, say some or all of a request, read some or nothing of the answer, and go, most of them rudely."""
    sink = CountingSink(NoOptions(), Context(id="k"))
    chance = random.Random(7)

    async def vanish(port: int, number: int, limit: trio.CapacityLimiter) -> None:
        """Every tenth stays to the end, every tenth leaves a call that would never end, the others go any time."""
        request = post(port, "hang" if number % 10 == 1 else "x")
        async with limit:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            if chance.random() < 0.5:  # a reset instead of a farewell
                stream.socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            if number % 10 == 0:
                await stream.send_all(request)
                while b"event-stream" in await stream.receive_some():
                    await stream.receive_some()
            elif number % 10 == 1:
                await stream.send_all(request)
                await stream.receive_some()
            else:
                with trio.move_on_after(chance.uniform(0, 0.05)):
                    part = chance.choice([len(request)] * 4 + [chance.randrange(len(request))])
                    await stream.send_all(request[:part])
                    while await stream.receive_some(chance.choice([1, 100, 65536])):
                        pass
            await stream.aclose()

    async with gateway(sink) as (engine, port):
        limit = trio.CapacityLimiter(50)
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(vanish, port, number, limit)
        with trio.fail_after(10):
            while sink.inside:  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.01)

        assert sink.cancelled >= 100
        assert 0 == engine.pipelines["main"].admission.in_flight
        with trio.fail_after(10):
            while len(engine.deadlines):  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.01)


async def test_replacing_a_stage_and_reloading_under_load_fails_nobody() -> None:
    """Calls go on while a stage is replaced and the configuration reloaded, again and again."""
    sink = CountingSink(NoOptions(), Context(id="k"))
    sink.pause_s = 0.001
    answered = 0
    stop = False

    async def call(port: int) -> None:
        nonlocal answered
        async with open_http_client(f"http://127.0.0.1:{port}/mcp") as client:
            while not stop:
                await client.call_tool("x", {})
                answered += 1

    async with gateway(sink) as (engine, port), trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(call, port)
        for round_ in range(10):
            await engine.replace("main", "request_id", PassThrough(NoOptions(), Context(id=f"pass {round_}")))
            assert [] == await engine.reload(document())
        stop = True

    assert answered > 50
    assert 0 == sink.cancelled


@pytest.fixture
def served(tmp_path: Path) -> Any:
    """`sluiceway run` in a process of its own, on a free port, with the demo server."""
    config = tmp_path / "gateway.yaml"
    config.write_text(
        "version: 1\n"
        "sources: {web: {http: {bind: '127.0.0.1:0'}}}\n"
        "pipelines: {main: {chain: [request_id], sink: demo}}\n"
        "sinks: {demo: {embedded: {server: demo}}}\n"
    )
    command = [
        sys.executable,
        "-c",
        "import sys; from sluiceway.pipeline.cli import main; sys.exit(main())",
        "run",
        str(config),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    for line in process.stderr:
        event = json.loads(line) if line.startswith(b"{") else {}
        if event.get("event") == "gateway ready":
            break
    else:
        pytest.fail("the gateway did not become ready")
    yield process, int(event["web"][0].rpartition(":")[2].removesuffix("/mcp"))
    process.stderr.close()
    if process.poll() is None:
        process.kill()
    process.wait(10)


async def count_down(port: int, seconds: int, started: trio.Event, results: list[Any]) -> None:
    async def on_progress(*_: Any) -> None:
        started.set()

    async with open_http_client(f"http://127.0.0.1:{port}/mcp") as client:
        results.append(await client.call_tool("countdown", {"seconds": seconds}, on_progress=on_progress))


async def connect_until_refused(port: int) -> None:
    while True:
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
        await trio.sleep(0.01)


@pytest.mark.real
async def test_sigterm_lets_calls_in_flight_finish(served: Any) -> None:
    """And then ends the process with 0; new connections are refused meanwhile."""
    process, port = served
    results: list[Any] = []
    started = trio.Event()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_down, port, 2, started, results)
            await started.wait()
            os.kill(process.pid, signal.SIGTERM)
            with pytest.raises(OSError, match="all attempts to connect"):
                await connect_until_refused(port)
        code = await trio.to_thread.run_sync(process.wait)

    assert 1 == len(results)
    assert code == 0


@pytest.mark.real
async def test_a_second_sigterm_ends_the_process_at_once(served: Any) -> None:
    """Long before the call in flight would have ended."""
    process, port = served
    started = trio.Event()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def abandoned() -> None:
                with pytest.raises(Exception):  # noqa: B017  # however the client learns of it
                    await count_down(port, 60, started, [])

            nursery.start_soon(abandoned)
            await started.wait()
            os.kill(process.pid, signal.SIGTERM)
            await trio.sleep(0.3)
            assert process.poll() is None
            os.kill(process.pid, signal.SIGTERM)
            code = await trio.to_thread.run_sync(process.wait)

    assert code == 130
