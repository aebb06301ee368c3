"""Health checks and the way out: stop accepting, let what is open finish, say so."""

from __future__ import annotations

import json

import pytest
import trio

from sluiceway.pipeline.protocol.messages import Result
from sluiceway.transports.http_source.config import HttpConfig
from sluiceway.transports.http_source.endpoint import Endpoint


async def test_health_and_readiness(running, autojump_clock):
    """`/healthz` as long as the process lives; `/readyz` as long as the gateway is ready and does not drain."""
    async with running() as served:
        ready = []
        served.source.readiness = lambda: bool(ready)
        before = await served.ask("GET", "/readyz")
        ready.append(1)
        during = await served.ask("GET", "/readyz")
        head = served.connect()
        await head.send("HEAD", "/healthz")
        status, headers = await head.head()
        refused = await served.ask("POST", "/healthz", {})
        odd_host = await served.ask("GET", "/healthz", host="10.1.2.3")
        served.source.stop_accepting()
        after = await served.ask("GET", "/readyz")
        alive = await served.ask("GET", "/healthz")

        assert [(503, "not ready"), (200, "ready"), (503, "draining"), (200, "alive")] == [
            (a.status, a.json["status"]) for a in (before, during, after, alive)
        ]
        assert (200, "18", 405, 200) == (status, headers["content-length"], refused.status, odd_host.status)
        assert "GET, HEAD" == refused.headers["allow"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_is_told_to_whoever_asks_however_they_ask(running, autojump_clock, path):
    """Nothing that is wrong with such a request matters, and none of it is worth an alarm."""
    async with running() as served:
        answer = await served.ask("GET", f"{path}?access_token=x", host="10.1.2.3", origin="http://foreign.example")

        assert 200 == answer.status


async def test_draining_refuses_new_requests_and_lets_open_ones_finish(running, autojump_clock):
    """Responses say `connection: close`; idle connections are closed at once."""
    async with running() as served:
        session = await served.session()
        idle, fresh, busy = served.connect(), served.connect(), served.connect()
        await idle.send("GET", "/healthz")
        await idle.response()
        await busy.send("POST", "/mcp", served.calling("slow"), session)
        await trio.sleep(1)
        served.source.stop_accepting()
        await idle.closed()
        await fresh.closed()
        assert 1.0 == trio.current_time()
        legacy = await served.post(served.request("tools/list", 7), **session)
        hello = await served.post(served.request("initialize", 8))
        modern = await served.post_modern(served.modern("tools/list", 9))
        answer = await busy.response()
        await busy.closed()

        assert [(503, 50300, 7), (503, 50300, 8), (503, 50300, 9)] == [
            (a.status, a.code, a.json["id"]) for a in (legacy, hello, modern)
        ]
        assert (200, 5.0) == (answer.status, trio.current_time())
        for each in (legacy, modern):
            assert "close" == each.headers["connection"]


async def test_a_stream_that_began_before_the_drain_closes_its_connection_at_its_end(running, autojump_clock):
    """Its head could not say so any more; the connection does not stay for another request."""
    async with running(keep_alive=1.0) as served:
        session = await served.session()
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("slow"), session)
        _, headers = await wire.head()
        served.source.stop_accepting()
        await wire.rest()
        await wire.closed()

        assert "connection" not in headers
        assert 5.0 == trio.current_time()


async def test_the_drain_waits_until_the_last_answers_have_left(running, autojump_clock):
    """An answer that is under way to a slow reader when its exchange ends is not cut off."""
    async with running() as served:
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("slow"), await served.session())
        await trio.sleep(1)
        served.source.stop_accepting()
        await served.source.delivered()

        assert trio.current_time() >= 5.0
        assert (await wire.response()).status == 200


async def test_draining_ends_the_streams_that_only_wait(running, autojump_clock):
    """A session's GET stream ends cleanly, and no new one begins; answers to open questions still arrive."""
    async with running() as served:
        session = await served.session()
        wire, asking = served.connect(), served.connect()
        await wire.send("GET", "/mcp", None, session)
        await wire.head()
        await asking.send("POST", "/mcp", served.calling("ask"), session)
        await asking.head()
        question = await asking.next_message()
        served.source.stop_accepting()
        await wire.rest()
        again = await served.ask("GET", "/mcp", **session)
        reply = {"jsonrpc": "2.0", "id": question["id"], "result": {}}
        answered = await served.post(reply, **session)

        assert (503, 202) == (again.status, answered.status)
        assert {"answer": {}} == (await asking.next_message())["result"]


async def test_a_broken_stream_can_still_be_read_while_draining(running, autojump_clock):
    """What is in flight is what the drain waits for."""
    async with running() as served:
        session = await served.session()
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("ask"), session)
        await wire.head()
        [_, question] = await wire.next_events()
        await wire.aclose()
        served.source.stop_accepting()
        again = served.connect()
        await again.send("GET", "/mcp", None, {**session, "last_event_id": question.id})
        await again.head()
        await served.post({"jsonrpc": "2.0", "id": json.loads(question.data)["id"], "result": {}}, **session)

        assert {"answer": {}} == (await again.next_message())["result"]


async def test_the_end_of_serving_ends_sessions_and_exchanges(running, autojump_clock):
    """Nothing is left, and whoever kept something per session was told."""
    told = []

    async def sink(exchange):
        session = exchange.client.session
        session.on_close(lambda: told.append(session.id))
        if exchange.method != "initialize":
            await trio.sleep_forever()
        return Result({"protocolVersion": "2025-11-25"})

    async with running(sink) as served:
        session = await served.session()
        await served.connect().send("POST", "/mcp", served.calling("x"), session)
        await trio.sleep(1)

    assert [session["mcp_session_id"]] * 2 == told
    assert 0 == len(served.source.sessions)


@pytest.mark.parametrize("path", ["/mcp", "/healthz", "/readyz"])
async def test_an_application_that_serves_nothing_yet_says_so(path, autojump_clock):
    """503 for work, alive for health; HTTP/2 and WebSocket are refused in any case."""
    sent = []

    async def send(event):
        sent.append(event)

    async def receive():
        await trio.sleep_forever()

    app = Endpoint(HttpConfig(), lambda: True)
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "http_version": "1.1", "client": None}
    await app(scope, receive, send)
    await app({**scope, "http_version": "2"}, receive, send)
    await app({**scope, "type": "websocket"}, receive, send)

    assert [{"/healthz": 200}.get(path, 503), 505] == [e["status"] for e in sent if "status" in e]
    assert b"HTTP/1.1" in sent[3]["body"]
    assert "websocket.close" == sent[-1]["type"]
