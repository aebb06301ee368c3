"""WebSockets that another server holds: as scopes of ASGI, and under a real hypercorn."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.document import Document
from sluiceway.transports.asgi import Gateway

PING = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"})


def document(*, chain: tuple[Any, ...] = (), second: str | None = None, **websocket: Any) -> Document:
    """A gateway with an http source that serves WebSockets, or two of them."""
    sources: dict[str, Any] = {"web": {"http": {"websocket": websocket}}}
    if second is not None:
        sources["other"] = {"http": {"bind": "127.0.0.1:8081", "path": "/other", "websocket": {"path": second}}}
    return from_data(
        {
            "version": 1,
            "sources": sources,
            "pipelines": {"main": {"chain": list(chain)}},
            "sinks": {"demo": {"embedded": {}}},
            "run": {"drain_timeout": "1s"},
        }
    )


class Visitor:
    """One scope of type `websocket`, from the server's side."""

    def __init__(self, app: Gateway) -> None:
        self.app = app
        self.sent: deque[Mapping[str, Any]] = deque()
        self._send, self._receive = trio.open_memory_channel[dict[str, Any]](10)
        self.over = trio.Event()
        self.breaks = False
        self.stuck: trio.Event | None = None
        self.say("connect")

    async def run(
        self, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED, **scope: Any
    ) -> None:
        """Be the server."""
        told = {
            "type": "websocket", "http_version": "1.1", "path": "/mcp", "query_string": b"", "client": ("10.0.0.1", 1),
            "headers": [(b"host", b"localhost")], "subprotocols": ["mcp"],
            "extensions": {"websocket.http.response": {}},
        }  # fmt: skip
        with trio.CancelScope() as life:
            task_status.started(life)
            await self.app({**told, **scope}, self._receive.receive, self._take)
        self.over.set()

    async def _take(self, event: Mapping[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if self.breaks:
            raise OSError("closed")
        if self.stuck is not None:
            with trio.CancelScope(shield=True):
                await self.stuck.wait()
        self.sent.append(event)

    def say(self, what: str, **event: Any) -> None:
        """What the server has heard."""
        self._send.send_nowait({"type": f"websocket.{what}", **event})

    @property
    def said(self) -> list[str]:
        """What the application has sent."""
        return [event["type"].removeprefix("websocket.") for event in self.sent]


@asynccontextmanager
async def hosted(configured: Document) -> AsyncIterator[tuple[Gateway, trio.Nursery]]:
    """The application between startup and shutdown. Raises `RuntimeError` if it does not start."""
    app = Gateway(lambda: configured)
    to_app, from_host = trio.open_memory_channel[dict[str, Any]](2)
    started = trio.Event()

    failures: list[str] = []

    async def send(event: Any) -> None:
        if event["type"] == "lifespan.startup.failed":
            failures.append(event["message"])
        started.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, {"type": "lifespan"}, from_host.receive, send)
        to_app.send_nowait({"type": "lifespan.startup"})
        await started.wait()
        if failures:
            raise RuntimeError(failures[0])
        yield app, nursery
        to_app.send_nowait({"type": "lifespan.shutdown"})


async def test_messages_cross_as_text_whatever_they_came_as(autojump_clock: trio.testing.MockClock) -> None:
    """Accepted with `mcp`; a client that leaves ends it."""
    async with hosted(document()) as (app, nursery):
        visitor = Visitor(app)
        nursery.start_soon(visitor.run)
        visitor.say("receive", text=PING)
        visitor.say("receive", bytes=PING.replace('"id": 1', '"id": 2').encode())
        await trio.testing.wait_all_tasks_blocked()
        visitor.say("disconnect", code=1000)
        await visitor.over.wait()

    assert visitor.said == ["accept", "send", "send"]
    assert visitor.sent[0]["subprotocol"] == "mcp"
    assert {json.loads(visitor.sent[each]["text"])["id"] for each in (1, 2)} == {1, 2}


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ({"headers": [(b"host", b"rebound.example")]}, 421),
        ({"headers": [(b"host", b"localhost"), (b"origin", b"https://evil.example")]}, 403),
        ({"headers": []}, 400),
        ({"query_string": b"access_token=x"}, 400),
        ({"subprotocols": ["graphql-ws"]}, 400),
        ({"path": "/nowhere"}, 404),
        ({"http_version": "2"}, 505),
    ],
)
async def test_who_is_refused_gets_an_answer_in_http(
    autojump_clock: trio.testing.MockClock, scope: dict[str, Any], status: int
) -> None:
    """The same as on a connection of ours; a server that cannot say it says 403."""
    async with hosted(document()) as (app, _):
        visitor, simple, left = Visitor(app), Visitor(app), Visitor(app)
        await visitor.run(**scope)
        await simple.run(**{**scope, "extensions": None})
        left._receive.receive_nowait()
        left.say("disconnect", code=1006)
        await left.run(**scope)

    assert visitor.said == ["http.response.start", "http.response.body"]
    assert visitor.sent[0]["status"] == status
    assert simple.said == ["close"]
    assert left.said == []


async def test_who_left_before_it_was_accepted_is_not_served(autojump_clock: trio.testing.MockClock) -> None:
    """There is nobody to answer."""
    async with hosted(document()) as (app, _):
        visitor = Visitor(app)
        visitor._receive.receive_nowait()
        visitor.say("disconnect", code=1006)
        await visitor.run()

    assert visitor.said == []


async def test_a_message_over_max_message_ends_it_with_1009(autojump_clock: trio.testing.MockClock) -> None:
    """Counted in bytes."""
    async with hosted(document(max_message="1KiB")) as (app, _):
        visitor = Visitor(app)
        visitor.say("receive", text="\u00e9" * 513)
        await visitor.run()

    assert visitor.said == ["accept", "close"]
    assert visitor.sent[1]["code"] == 1009


async def test_a_server_that_says_that_nobody_reads_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    """What is in flight is cancelled, and nothing is said any more."""
    async with hosted(document()) as (app, nursery):
        visitor = Visitor(app)
        nursery.start_soon(visitor.run)
        await trio.testing.wait_all_tasks_blocked()
        visitor.breaks = True
        visitor.say("receive", text=PING)
        await trio.testing.wait_all_tasks_blocked()
        visitor.say("disconnect", code=1006)
        await visitor.over.wait()

    assert visitor.said == ["accept"]


async def test_a_drain_ends_it_with_1001_and_later_ones_are_refused(autojump_clock: trio.testing.MockClock) -> None:
    """As on a connection of ours."""
    async with hosted(document()) as (app, nursery):
        visitor, late, last = Visitor(app), Visitor(app), Visitor(app)
        nursery.start_soon(visitor.run)
        await trio.testing.wait_all_tasks_blocked()
        [source] = app._sources
        source.stop_accepting()
        await visitor.over.wait()
        await late.run()
    await last.run()

    assert (visitor.sent[-1]["type"], visitor.sent[-1]["code"]) == ("websocket.close", 1001)
    assert (late.sent[0]["status"], last.sent[0]["status"]) == (503, 503)


async def test_a_server_that_gives_up_waiting_cancels_what_is_in_flight(autojump_clock: trio.testing.MockClock) -> None:
    """Its task is cancelled; the conversation ends with it, though it runs elsewhere."""
    async with hosted(document()) as (app, nursery):
        visitor = Visitor(app)
        life: trio.CancelScope = await nursery.start(visitor.run)
        await trio.testing.wait_all_tasks_blocked()
        [source] = app._sources
        life.cancel()
        await trio.testing.wait_all_tasks_blocked()

        assert source.websockets is not None
        assert len(source.websockets) == 0
        assert visitor.said == ["accept", "close"]


async def test_a_client_that_reads_nothing_does_not_hold_up_the_end(autojump_clock: trio.testing.MockClock) -> None:
    """hypercorn shields its writes: what waits there is its own, and the gateway stops without it."""
    async with hosted(document()) as (app, nursery):
        visitor = Visitor(app)
        nursery.start_soon(visitor.run)
        await trio.testing.wait_all_tasks_blocked()
        visitor.stuck = trio.Event()
        visitor.say("receive", text=PING)
        await trio.testing.wait_all_tasks_blocked()
        [source] = app._sources
        source.stop_accepting()
        await trio.sleep(10)
        assert source.websockets is not None
        assert len(source.websockets) == 0
        visitor.stuck.set()
        await visitor.over.wait()

    assert visitor.said == ["accept", "send"]


async def test_two_sources_cannot_have_websockets_at_one_place(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing would tell them apart on a shared port; with places of their own both are served."""
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="sources web and other have the same path /mcp")):
        async with hosted(document(second="/mcp")):
            pytest.fail("it started")  # pragma: no cover
    async with hosted(document(second="/ws")) as (app, _):
        visitor = Visitor(app)
        visitor.say("receive", text=PING)
        visitor.say("disconnect", code=1000)
        await visitor.run(path="/ws")

    assert visitor.said[0] == "accept"


@asynccontextmanager
async def under_hypercorn(configured: Document) -> AsyncIterator[str]:
    """A plain hypercorn on a free port; its address."""
    config = HypercornConfig()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 0.2
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        app: Any = Gateway(lambda: configured)
        [url] = await nursery.start(partial(serve, app, config, shutdown_trigger=stop.wait, mode="asgi"))
        yield f"ws://127.0.0.1:{url.rpartition(':')[2]}/mcp"
        stop.set()


async def upgrade(url: str, **headers: str) -> bytes:
    """The answer to a request to open a WebSocket, to its end."""
    host, port = url.removeprefix("ws://").removesuffix("/mcp").split(":")
    every = {
        "host": "localhost", "connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", **headers,
    }  # fmt: skip
    lines = "".join(f"{name}: {value}\r\n" for name, value in every.items())
    answer = b""
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(f"GET /mcp HTTP/1.1\r\n{lines}\r\n".encode())
        while piece := await stream.receive_some():
            answer += piece
    return answer


async def test_a_plain_hypercorn_serves_websockets(kit: Any) -> None:
    """Both eras, progress, a question, refusals, pings, and an end with a code: on real sockets."""
    with trio.fail_after(20):
        async with under_hypercorn(document()) as url:
            async with kit.speaking(url) as client:
                await client.initialize()
                tools = await client.call("tools/list", 1)
                modern = await client.call("tools/list", 2, _meta=kit.MODERN)
                with trio.fail_after(5):
                    await client.socket.ping(b"there?")
                await client.write("no JSON")
                rubbish = await client.next()
            refused = await upgrade(url, origin="https://evil.example")

    assert (tools["id"], modern["id"]) == (1, 2)
    assert "result" in tools
    assert "result" in modern
    assert rubbish["error"]["code"] == -32700
    assert refused.startswith(b"HTTP/1.1 403 ")
    assert b"allowed_origins" in refused
