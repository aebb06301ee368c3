"""Both ends keep the contracts of their kinds; a websocket source in front of a websocket sink carries everything."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from sluiceway.pipeline.testing import check_sink, memory_exchange
from sluiceway.transports.websocket_sink import WebSocketSink

PLAIN = Path(__file__).resolve().parents[1] / "children" / "plain.py"


@pytest.fixture
def upstream() -> Iterator[str]:
    """A server in a process of its own: checkers run Trio themselves, and count the sockets of this one."""
    command = [sys.executable, str(PLAIN.with_name("websocket.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


class Warm(WebSocketSink):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]  # final for users
    """The sink with its connection open: what serves a connection waits for work, and is meant to stay."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open, and make the first use."""
        async with super().open():
            await self(memory_exchange("tools/list"))
            yield


def test_the_sink_keeps_the_contract(upstream: str) -> None:
    """With a real connection, cancelled at every checkpoint."""
    check_sink(Warm, {"url": upstream}, virtual_time=False)


SINKS = {
    "embedded": lambda _url: {"up": {"embedded": {}}},
    "stdio": lambda _url: {"up": {"stdio": {"command": [sys.executable, "-S", str(PLAIN)]}}},
    "websocket": lambda url: {"up": {"websocket": {"url": url}}},
}


@pytest.mark.parametrize("sink", SINKS)
async def test_both_eras_are_served_by_every_sink(kit: Any, sink: str) -> None:
    """One connection, a session and stateless requests: list and call, through each kind of sink."""
    async with kit.gateway({"up": {"embedded": {}}}) as inner:
        sinks = SINKS[sink](kit.url_of(inner))
        async with kit.gateway(sinks) as gateway, kit.speaking(kit.url_of(gateway)) as client:
            hello = await client.initialize()
            legacy = await client.call("tools/list", 1)
            modern = await client.call("tools/list", 2, _meta=kit.MODERN)

    assert "result" in hello
    assert (legacy["id"], modern["id"]) == (1, 2)
    assert "result" in legacy
    assert "result" in modern


async def test_two_gateways_in_a_row_carry_progress_questions_and_large_results(kit: Any) -> None:
    """Everything that crosses two WebSockets comes out as it went in, under the client's own ids and tokens."""

    async def busy(socket_: Any) -> None:
        while True:
            message = json.loads(await socket_.get_message())
            if message.get("method") == "tools/call":
                token = message["params"]["_meta"]["progressToken"]
                for step in range(3):
                    params = {"progressToken": token, "progress": step}
                    await socket_.send_message(
                        json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
                    )
                await socket_.send_message(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "roots/list"}))
                answer = json.loads(await socket_.get_message())
                await kit.reply(socket_, message["id"], {"roots": answer["result"], "big": "\u00e9" * 1_000_000})
            elif "id" in message:
                await kit.reply(socket_, message["id"], kit.reply_of(message))

    async with kit.scripted_server() as server, kit.gateway({"up": {"websocket": {"url": server.url}}}) as inner:
        server.script = busy
        outer = {"up": {"websocket": {"url": kit.url_of(inner)}}}
        async with kit.gateway(outer) as gateway, kit.speaking(kit.url_of(gateway)) as client:
            client.socket._max_message_size = 1 << 24
            await client.initialize()
            await client.send(id=5, method="tools/call", params={"name": "x", "_meta": {"progressToken": "mine"}})
            progress = [await client.next() for _ in range(3)]
            question = await client.next()
            await client.send(id=question["id"], result={"roots": [1]})
            answer = await client.next()

    assert [each["params"] for each in progress] == [{"progressToken": "mine", "progress": n} for n in range(3)]
    assert question["method"] == "roots/list"
    assert (answer["id"], answer["result"]["roots"]) == (5, {"roots": [1]})
    assert answer["result"]["big"] == "\u00e9" * 1_000_000


async def test_an_upstream_that_dies_without_a_word_fails_what_is_in_flight(kit: Any) -> None:
    """No close frame, just a reset: the calls fail at once."""
    asked = trio.Event()

    async def hold(socket_: Any) -> None:
        while True:
            message = json.loads(await socket_.get_message())
            if message["method"] == "tools/call":
                asked.set()
            else:
                await kit.reply(socket_, message["id"], kit.reply_of(message))

    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as client,
    ):
        server.script = hold
        await client.send(id=1, method="tools/call", params={"name": "x", "_meta": kit.MODERN})
        await asked.wait()
        raw = server.open[0]._stream.socket
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        raw.close()
        failed = await client.next()

    assert failed["error"]["data"]["reason"] == "upstream_closed"
