"""The `sse` sink: a stream for a session, POSTs beside it, and what becomes of both."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    ConnectFailed,
    InvalidMessage,
    SessionNotFound,
    UnsupportedVersion,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.mcp import LATEST_LEGACY
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Result
from sluiceway.pipeline.testing import cancel_everywhere, check_sink, memory_exchange
from sluiceway.pipeline.testing.exchanges import legacy_client
from sluiceway.transports.http_upstream.event_feed import endpoint_path
from sluiceway.transports.sse_sink import SseSink, SseSinkConfig

SERVER = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "serverInfo": {"name": "fake", "version": "1"}}
CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
URL = "http://up.example/sse"


def event(data: Any, kind: str = "message", event_id: str = "") -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"id: {event_id}\n" if event_id else "").encode() + f"event: {kind}\ndata: {text}\n\n".encode()


class Server:
    """A server of 2024-11-05; tests say what it does with calls."""

    def __init__(self, upstream: Any) -> None:
        self.upstream = upstream
        self.streams: list[Any] = []
        self.left = 0
        self.listening = trio.Event()
        """Somebody came back."""
        self.endpoint = "/messages?s={}"
        self.ids = False
        self.resumes = False
        self.sent = 0
        self.taken = 202
        upstream.handle = self.handle

    @property
    def stream(self) -> Any:
        return self.streams[-1]

    async def say(self, message: Any) -> None:
        self.sent += 1
        await self.stream.chunk(event(message, event_id=str(self.sent) if self.ids else ""))

    async def handle(self, seen: Any, answer: Any) -> None:
        if seen.method == "GET":
            await self.listen(seen, answer)
            return
        await self.take(seen, answer)

    async def listen(self, seen: Any, answer: Any) -> None:
        await answer.start()
        self.streams.append(answer)
        number = 1 if self.resumes else len(self.streams)
        await answer.chunk(event(self.endpoint.format(number), "endpoint", "e" if self.ids else ""))
        if len(self.streams) > 1:
            self.listening.set()
        try:
            await trio.sleep_forever()
        finally:
            self.left += 1

    async def take(self, seen: Any, answer: Any) -> None:
        await answer.send(self.taken)
        message = seen.json
        if seen.rpc == "initialize":
            await self.say({"jsonrpc": "2.0", "id": message["id"], "result": SERVER})
        elif seen.rpc == "tools/call":
            await self.call(message)
        elif seen.rpc == "ping":
            await self.say({"jsonrpc": "2.0", "id": message["id"], "result": {}})

    async def call(self, message: Any) -> None:
        await self.say({"jsonrpc": "2.0", "id": message["id"], "result": {"done": True}})


@pytest.fixture
def server(upstream: Any) -> Server:
    return Server(upstream)


@asynccontextmanager
async def opened(context: Context | None = None, **options: Any) -> AsyncIterator[SseSink]:
    """An open sink."""
    sink = SseSink(SseSinkConfig(**{"url": URL, **options}), context or Context(id="up"))
    async with sink.open():
        yield sink


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_a_session_is_a_stream_and_requests_are_posted_where_it_says(autojump_clock, upstream, server, peer):
    """The client's own handshake goes first; when its session ends, so does the stream."""
    async with opened() as sink:
        assert await peer.start(sink) == Result(SERVER)
        assert await sink(peer.exchange("tools/call", {"name": "n"})) == Result({"done": True})
        peer.session.close()
        await settle()
        assert (sink.sessions, server.left) == (0, 1)
        told = {figure.name: figure.value for figure in sink.figures()}

    assert (told["sse_streams"], told["upstream_waiting"]) == (0, 0)
    assert (told["sse_events_total"], told["upstream_replies_total"]) == (3, 2)  # where to post, and two replies
    assert [each.method for each in upstream.seen] == ["GET", "POST", "POST", "POST"]
    assert [each.path for each in upstream.seen] == ["/sse", *["/messages?s=1"] * 3]
    assert upstream.of("initialize")[0].json["params"]["capabilities"] == {"roots": {}}
    assert "mcp-session-id" not in upstream.seen[-1].headers


async def test_ids_and_tokens_are_ours_upstream_and_the_clients_again_on_the_way_back(
    autojump_clock, server, upstream, peer
):
    """Notifications before the reply are relayed, those that no request caused go to the session."""
    changes = []
    context = Context(id="up")
    context.changes.listen(lambda sink, notification: changes.append((sink, notification.method)))

    async def call(message):
        token = message["params"]["_meta"]["progressToken"]
        assert token == message["id"]
        progress = {"progressToken": token, "progress": 1}
        await server.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress})
        await server.say(CHANGED)
        await server.say({"jsonrpc": "2.0", "id": message["id"], "result": {}})

    server.call = call
    async with opened(context) as sink:
        await peer.start(sink)
        await sink(peer.exchange("tools/call", {"_meta": {"progressToken": "t"}}, request_id="x"))

    assert [each.params for each in peer.interim] == [{"progressToken": "t", "progress": 1}]
    assert peer.notices == [Notification("notifications/tools/list_changed")]
    assert changes == [("up", "notifications/tools/list_changed")]


async def test_a_question_reaches_the_client_and_its_answer_the_upstream(autojump_clock, server, upstream, peer):
    """While the request that caused it is in flight."""

    async def ask(method, _params):
        return Result({"asked": method})

    async def call(message):
        server.pending = message["id"]
        await server.say({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {}})

    async def take(seen, answer):
        await Server.take(server, seen, answer)
        if seen.rpc == "answer":
            await server.say({"jsonrpc": "2.0", "id": server.pending, "result": seen.json["result"]})

    server.call, server.take = call, take
    async with opened() as sink:
        await peer.start(sink)
        reply = await sink(peer.exchange("tools/call", ask=ask))

    assert reply == Result({"asked": "elicitation/create"})


async def test_a_request_that_is_cancelled_is_taken_back_upstream(autojump_clock, server, upstream, peer):
    """With its id there, after its own POST, and at once."""

    async def call(_message):
        pass

    server.call = call
    async with opened() as sink:
        await peer.start(sink)
        with trio.move_on_after(1):
            await sink(peer.exchange("tools/call", request_id="mine"))
        await settle()
        at = trio.current_time()

    (notice,) = upstream.of("notifications/cancelled")
    assert notice.json["params"] == {"requestId": upstream.of("tools/call")[0].json["id"]}
    assert at == 1


async def test_a_notice_does_not_overtake_the_request_it_is_about(autojump_clock, server, upstream, peer):
    """It waits a second for a POST under way, and then breaks that off."""

    noticed = trio.Event()

    async def take(seen, answer):
        if seen.rpc == "notifications/cancelled":
            noticed.set()
        if seen.rpc == "tools/call":
            await trio.sleep(0.5 if seen.json["params"]["name"] == "slow" else 100)
        await Server.take(server, seen, answer)

    async def call(_message):
        pass

    server.take, server.call = take, call
    times = []
    async with opened() as sink:
        await peer.start(sink)
        for name in ("slow", "stuck"):
            start = trio.current_time()
            with trio.move_on_after(0.1):
                await sink(peer.exchange("tools/call", {"name": name}))
            await noticed.wait()
            noticed = trio.Event()
            times.append(round(trio.current_time() - start, 1))

    assert times == [0.5, 1.1]


async def test_a_request_that_is_cancelled_before_it_leaves_never_does(autojump_clock, server, upstream, peer):
    """Nor does a notice."""
    async with opened() as sink:
        await peer.start(sink)
        with trio.CancelScope() as scope:
            scope.cancel()
            await sink(peer.exchange("tools/call"))
        await settle()

    assert upstream.of("tools/call") == upstream.of("notifications/cancelled") == []


async def test_a_modern_client_is_told_that_there_are_handshakes_only(autojump_clock, server, upstream, modern):
    """With the revisions that are spoken; nothing is asked of the upstream for that."""
    async with opened(translate=False) as sink:
        with pytest.raises(UnsupportedVersion) as caught:
            await sink(modern())

    assert LATEST_LEGACY in caught.value.data["supported"]
    assert upstream.seen == []


async def test_who_has_no_session_may_ping(autojump_clock, server, peer):
    """Everything else needs one that is known here."""
    stranger = legacy_client()
    async with opened() as sink:
        with pytest.raises(SessionNotFound):
            await sink(peer.exchange("tools/list"))
        assert await sink(peer.exchange("notifications/initialized")) == Result()
        nobody = legacy_client()
        assert nobody.session is not None
    client = type(stranger)(era=stranger.era, version=None)
    sink = SseSink(SseSinkConfig(url=URL), Context(id="up"))
    assert await sink(memory_exchange("ping", client=client)) == Result()
    with pytest.raises(InvalidMessage):
        await sink(memory_exchange("tools/list", client=client))
    with pytest.raises(UpstreamUnavailable):
        await sink(peer.exchange("initialize"))


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ("/messages?s=1", "/messages?s=1"),
        ("?s=1", "/a/sse?s=1"),
        ("b", "/a/b"),
        ("http://Up.example/x", "/x"),
        ("http://up.example:80/x", "/x"),
        ("https://up.example/x", None),
        ("http://up.example:81/x", None),
        ("http://evil.example/x", None),
        ("//evil.example/x", None),
        ("http://up.example@evil.example/x", None),
        ("ftp://up.example/x", None),
        ("/x y", None),
        ("http://[/", None),
    ],
)
def test_an_endpoint_must_be_at_the_streams_own_origin(data, path):
    """Scheme, host and port; anything else is refused."""
    if path is None:
        with pytest.raises(ValueError, match=r"\w"):
            endpoint_path("http://up.example/a/sse", data)
    else:
        assert endpoint_path("http://up.example/a/sse", data) == path


async def test_a_foreign_endpoint_gets_nothing(autojump_clock, server, upstream, peer):
    """The handshake fails, and says why; not a byte is posted."""
    server.endpoint = "http://evil.example/{}"
    async with opened() as sink:
        with pytest.raises(UpstreamProtocolError, match=r"evil\.example"):
            await peer.start(sink)
        await settle()

    assert [each.method for each in upstream.seen] == ["GET"]


async def _not_found(_seen, answer):
    await answer.send(404)


async def _json(_seen, answer):
    await answer.json({})


async def _redirect(_seen, answer):
    await answer.send(302, location="http://elsewhere.example/")


async def _secret(_seen, answer):
    await answer.send(401)


async def _mute(_seen, answer):
    await answer.start()
    await trio.sleep_forever()


async def _short(_seen, answer):
    await answer.start()
    await answer.end()


@pytest.mark.parametrize(
    ("listen", "error", "text"),
    [
        (_not_found, UpstreamProtocolError, "HTTP 404"),
        (_json, UpstreamProtocolError, "use the http sink"),
        (_redirect, UpstreamProtocolError, "redirects"),
        (_secret, UpstreamUnavailable, "credential"),
        (_mute, UpstreamProtocolError, "names no endpoint"),
        (_short, UpstreamClosed, "ended its event stream"),
    ],
)
async def test_what_is_no_event_stream_fails_the_handshake(autojump_clock, server, peer, listen, error, text):
    """With what is wrong about it."""
    server.listen = listen
    async with opened() as sink:
        with pytest.raises(error, match=text):
            await peer.start(sink)
        await trio.sleep(2)
        assert sink.sessions == 0


async def test_an_upstream_that_cannot_be_reached_may_be_tried_elsewhere(autojump_clock, server, upstream, peer):
    """Nothing was sent."""
    upstream.refuse = True
    async with opened() as sink:
        with pytest.raises(ConnectFailed) as caught:
            await peer.start(sink)

    assert caught.value.retryable


async def test_a_handshake_that_is_refused_leaves_no_session(autojump_clock, server, peer):
    """The upstream's error is the answer."""

    async def take(seen, answer):
        await answer.send(202)
        await server.say({"jsonrpc": "2.0", "id": seen.json["id"], "error": {"code": -32602, "message": "no"}})

    server.take = take
    async with opened() as sink:
        reply = await sink(peer.exchange("initialize"))
        await settle()

        assert (reply, sink.sessions) == (ErrorReply(-32602, "no"), 0)


@pytest.mark.parametrize("end", ["end", "drop"])
async def test_a_stream_that_breaks_is_the_end_of_its_session(autojump_clock, server, upstream, peer, end):
    """What is in flight fails and says so; the client is told to initialize again, and can."""

    async def call(_message):
        if end == "end":
            await server.stream.end()
        server.stream.drop()

    server.call = call
    async with opened() as sink:
        await peer.start(sink)
        with pytest.raises(UpstreamClosed, match="session is lost; the request may have run"):
            await sink(peer.exchange("tools/call"))
        with pytest.raises(SessionNotFound):
            await sink(peer.exchange("tools/call"))
        await trio.sleep(2)

        assert peer.session.closed
        assert sink.sessions == 0
        again = type(peer)("another")
        assert await again.start(sink) == Result(SERVER)


async def test_a_stream_with_ids_is_resumed_where_it_broke(autojump_clock, server, upstream, peer):
    """Nothing is lost and nothing comes twice; what came is counted."""
    server.ids = server.resumes = True

    async def call(message):
        await server.stream.chunk(b"retry: 3000\n\n")
        await server.say(CHANGED)
        server.stream.drop()
        await server.listening.wait()
        await server.say({"jsonrpc": "2.0", "id": message["id"], "result": {"done": 2}})

    server.call = call
    async with opened() as sink:
        await peer.start(sink)
        reply = await sink(peer.exchange("tools/call"))
        figures = {figure.name: figure.value for figure in sink.figures()}

        assert reply == Result({"done": 2})
        assert len(peer.notices) == 1
        assert not peer.session.closed
    gets = [each for each in upstream.seen if each.method == "GET"]
    assert [each.headers.get("last-event-id") for each in gets] == [None, "2"]
    assert 1 == figures["sse_reconnects_total"]
    assert 5 == figures["sse_events_total"]
    assert (1, True) == (figures["sse_streams"], figures["sse_bytes_total"] > 100)


@pytest.mark.parametrize("how", ["another endpoint", "404", "500", "unreachable"])
async def test_a_stream_that_is_not_taken_up_again_is_lost(autojump_clock, server, upstream, peer, how):
    """At once if the server says so, after some tries if it says nothing."""
    server.ids = True
    server.resumes = how != "another endpoint"

    async def call(_message):
        if how in ("404", "500"):
            server.listen = lambda _seen, answer: answer.send(int(how))
        upstream.refuse = how == "unreachable"
        server.stream.drop()

    server.call = call
    async with opened() as sink:
        await peer.start(sink)
        with pytest.raises((UpstreamClosed, UpstreamUnavailable), match="session is lost"):
            await sink(peer.exchange("tools/call"))
        await trio.sleep(2)

        assert peer.session.closed


async def test_an_upstream_that_forgot_the_session_has_ended_it(autojump_clock, server, peer):
    """A POST that is answered 404: the session is over, though the stream is open."""
    async with opened() as sink:
        await peer.start(sink)
        server.taken = 404
        with pytest.raises(SessionNotFound):
            await sink(peer.exchange("tools/call"))
        await trio.sleep(2)

        assert peer.session.closed
        assert server.left == 1


async def test_a_request_that_is_not_taken_fails(autojump_clock, server, upstream, peer):
    """What the POST says in JSON-RPC is the answer; what it says in HTTP alone is a failure."""

    async def take(seen, answer):
        if seen.rpc == "tools/call":
            await answer.error(seen, -32602, 400)
        elif seen.rpc in ("tools/list", "notifications/roots/list_changed"):
            await answer.send(500)
        else:
            await Server.take(server, seen, answer)

    server.take = take
    async with opened() as sink:
        await peer.start(sink)
        assert (await sink(peer.exchange("tools/call"))).code == -32602
        with pytest.raises(UpstreamClosed, match="HTTP 500"):
            await sink(peer.exchange("tools/list"))
        with pytest.raises(UpstreamClosed):
            await sink(peer.exchange("notifications/roots/list_changed"))
        assert await sink(peer.exchange("notifications/cancelled", {"requestId": 1})) == Result()
        assert await sink(peer.exchange("ping")) == Result({})


async def test_a_silent_stream_is_asked_whether_it_lives(autojump_clock, server, upstream, peer):
    """After `idle_timeout`; who answers stays, who does not is given up."""
    async with opened(idle_timeout=30.0) as sink:
        await peer.start(sink)
        await trio.sleep(100)
        alive = len(upstream.of("ping"))
        assert (alive, peer.session.closed) == (3, False)
        server.take = lambda _seen, answer: answer.send(202)
        with pytest.raises(UpstreamClosed, match="idle_timeout"):
            await sink(peer.exchange("tools/call"))

    assert trio.current_time() == pytest.approx(130, abs=2)


async def test_garbage_on_the_stream_is_counted_and_the_stream_goes_on(autojump_clock, server, peer):
    """Other event types mean nothing; a message over the limit is the end."""

    async def call(message):
        await server.stream.chunk(event("{", "message") + event("x", "error") + event("", "message") + b": hello\n\n")
        await server.say({"jsonrpc": "2.0", "id": message["id"], "result": {"pad": "x" * message["params"]["size"]}})

    server.call = call
    async with opened(max_message=2000) as sink:
        await peer.start(sink)
        assert await sink(peer.exchange("tools/call", {"size": 1})) == Result({"pad": "x"})
        with pytest.raises(UpstreamProtocolError, match="max_message"):
            await sink(peer.exchange("tools/call", {"size": 5000}))


async def test_only_so_many_requests_and_bytes_wait(autojump_clock, server, upstream, peer, nursery):
    """`max_pending` replies to come, `max_unsent` bytes to be taken; more is refused at once."""

    async def take(seen, answer):
        if seen.rpc == "tools/call":
            await trio.sleep(100)
        await Server.take(server, seen, answer)

    server.take = take
    async with opened(max_pending=3, max_unsent=3000) as sink:
        await peer.start(sink)
        nursery.start_soon(sink, peer.exchange("tools/call", {"pad": "x" * 2000}))
        await settle()
        with pytest.raises(CapacityExceeded, match="3000"):
            await sink(peer.exchange("tools/call", {"pad": "x" * 2000}, request_id=2))
        for number in (3, 4):
            nursery.start_soon(sink, peer.exchange("tools/call", request_id=number))
        await settle()
        with pytest.raises(CapacityExceeded, match="max_pending"):
            await sink(peer.exchange("tools/call", request_id=5))
        nursery.cancel_scope.cancel()


async def test_headers_hold_the_sinks_own_credential_and_nothing_of_the_clients(
    autojump_clock, server, upstream, peer, monkeypatch
):
    """On the stream and on POSTs."""
    monkeypatch.setenv("TOKEN", "Bearer s3cret")
    async with opened(headers={"authorization": Secret(from_env="TOKEN")}) as sink:
        await peer.start(sink)

    assert {each.headers["authorization"] for each in upstream.seen} == {"Bearer s3cret"}


async def test_closing_the_sink_closes_its_streams_and_says_what_was_left_to_say(
    autojump_clock, server, upstream, peer, nursery
):
    """What is in flight fails, and is taken back upstream."""
    failures = []

    async def call(_message):
        pass

    async def ask(sink):
        try:
            await sink(peer.exchange("tools/call"))
        except SessionNotFound as error:
            failures.append(error)

    server.call = call
    async with opened() as sink:
        await peer.start(sink)
        nursery.start_soon(ask, sink)
        await settle()
    await settle()

    assert len(failures) == 1
    assert len(upstream.of("notifications/cancelled")) == 1
    assert server.left == 1


async def test_a_session_can_be_cancelled_anywhere(server, upstream, peer):
    """No stream, no request and no connection stays."""

    async def live():
        async with opened() as sink:
            client = type(peer)("s")
            try:
                await client.start(sink)
                await sink(client.exchange("tools/call"))
            finally:
                client.session.close()

    await cancel_everywhere(live)

    assert upstream.open == 0


def test_the_sink_keeps_the_contract():
    """Clients that cannot be served are refused, whatever happens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/sse"
        check_sink(
            SseSink, {"url": url}, virtual_time=False, samples=[("tools/call", {"name": "n"}), ("tools/list", {})]
        )


async def test_restart_ends_sessions_and_opens_new_connections(autojump_clock, upstream, server, peer):
    """Streams end, clients initialize again, on connections of their own; a closed sink is not restarted."""
    async with opened() as sink:
        await peer.start(sink)
        before = upstream.connections
        assert await sink.act("restart", {}) == {"sessions": 1}
        assert await sink.act("restart", {}) == {"sessions": 0}
        await trio.sleep(2)
        assert peer.session.closed
        assert (sink.sessions, server.left) == (0, 1)
        again = type(peer)("again")
        assert await again.start(sink) == Result(SERVER)
        assert upstream.connections > before
        with pytest.raises(LookupError, match="it has: restart"):
            await sink.act("explode", {})
    with pytest.raises(UpstreamUnavailable):
        await sink.act("restart", {})
