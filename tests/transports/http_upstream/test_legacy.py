"""Legacy clients on a legacy upstream: a session for a session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.errors import (
    InvalidMessage,
    SessionNotFound,
    UnsupportedVersion,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.mcp import LATEST_LEGACY, MODERN_VERSIONS
from sluiceway.pipeline.protocol.messages import ErrorReply, Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.pipeline.testing.exchanges import legacy_client

SERVER = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "serverInfo": {"name": "fake", "version": "1"}}
RESULT = {"jsonrpc": "2.0", "id": 1, "result": {"done": True}}
PROGRESS = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "t", "progress": 1}}
CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
QUESTION = {"jsonrpc": "2.0", "id": "q", "method": "roots/list", "params": {"deep": 1}}


class Server:
    """A legacy server with sessions; tests say what it does with calls and with the standalone stream."""

    def __init__(self, upstream: Any) -> None:
        self.sessions = 0
        self.known: set[str] = set()
        self.refuse: Callable[[Any], Awaitable[None]] = lambda answer: answer.send(404)
        """How it answers who has no session that it knows."""
        self.upstream = upstream
        upstream.handle = self.handle

    async def handle(self, seen: Any, answer: Any) -> None:
        if seen.method == "GET":
            await self.listen(seen, answer)
        elif seen.method == "DELETE":
            self.known.discard(seen.headers.get("mcp-session-id"))
            await answer.send(200)
        elif seen.rpc == "initialize":
            self.sessions += 1
            self.known.add(f"up-{self.sessions}")
            await answer.result(seen, SERVER, mcp_session_id=f"up-{self.sessions}")
        elif seen.headers.get("mcp-session-id") not in self.known:
            await self.refuse(answer)
        elif "method" in seen.json and "id" in seen.json:
            await self.call(seen, answer)
        else:
            await answer.send(202)

    async def call(self, seen: Any, answer: Any) -> None:
        await answer.result(seen, {"done": True})

    async def listen(self, seen: Any, answer: Any) -> None:
        await answer.send(405)


@pytest.fixture
def server(upstream: Any) -> Server:
    """The server of a test."""
    return Server(upstream)


async def test_a_session_is_opened_by_the_clients_own_handshake(autojump_clock, upstream, server, make_sink, peer):
    """Whole; later requests carry its id and version, and its end is told."""
    async with make_sink() as sink:
        assert await peer.start(sink) == Result(SERVER)
        assert await sink(peer.exchange("tools/call", {"name": "n"})) == Result({"done": True})
        peer.session.close()
        await trio.testing.wait_all_tasks_blocked()
        assert sink.sessions == 0

    hello, initialized, call = (
        upstream.of("initialize")[0],
        upstream.of("notifications/initialized")[0],
        upstream.of("tools/call")[0],
    )
    assert hello.json["params"]["capabilities"] == {"roots": {}}
    assert "mcp-session-id" not in hello.headers
    assert "mcp-protocol-version" not in hello.headers
    for each in (initialized, call, upstream.seen[-1]):
        assert each.headers["mcp-session-id"] == "up-1"
        assert each.headers["mcp-protocol-version"] == LATEST_LEGACY
    assert upstream.seen[-1].method == "DELETE"
    assert not any(name.startswith("mcp-method") for name in call.headers)


async def test_closing_the_sink_ends_its_sessions(autojump_clock, upstream, server, make_sink, peer):
    """Each is told to the upstream."""
    async with make_sink() as sink:
        await peer.start(sink)

    assert [seen.method for seen in upstream.seen][-1] == "DELETE"


async def test_an_upstream_without_sessions_is_served_as_well(autojump_clock, upstream, make_sink, peer):
    """No id, no DELETE; a 404 is only an answer."""

    async def handle(seen, answer):
        if seen.method == "GET":
            await answer.send(405)
        elif seen.rpc == "initialize":
            await answer.result(seen, SERVER)
        elif seen.rpc == "tools/call":
            await answer.error(seen, -32601, 404)
        else:
            await answer.send(202)

    upstream.handle = handle
    async with make_sink() as sink:
        await peer.start(sink)
        assert await sink(peer.exchange("tools/call")) == ErrorReply(-32601, "no")
        assert await sink(peer.exchange("notifications/roots/list_changed")) == Result()

    assert "DELETE" not in [seen.method for seen in upstream.seen]


NO_SESSION = {"code": -32000, "message": "Bad Request: No valid session ID provided"}


@pytest.mark.parametrize(("status", "error"), [(404, None), (404, NO_SESSION), (400, NO_SESSION)])
async def test_a_forgotten_session_is_renewed_once_and_the_request_repeated(
    autojump_clock, upstream, server, make_sink, peer, status, error
):
    """
    It was not served, so even a call may go out again; those who fail together renew together. The spec's word for it
    is 404, that of many servers is the example's they were made of.
    """
    replies: list[Any] = []
    if error is not None:
        server.refuse = lambda answer: answer.json({"jsonrpc": "2.0", "id": None, "error": error}, status)
    async with make_sink() as sink:
        await peer.start(sink)
        server.known.clear()

        async def call(number: int) -> None:
            replies.append(await sink(peer.exchange("tools/call", request_id=number)))

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(call, number)
        assert server.known == {"up-2"}

    assert replies == [Result({"done": True})] * 5
    assert len(upstream.of("initialize")) == 2
    assert upstream.of("initialize")[0].body == upstream.of("initialize")[1].body
    assert len(upstream.of("notifications/initialized")) == 2


@pytest.mark.parametrize("how", ["refused", "other version", "no reply"])
async def test_a_session_that_cannot_be_renewed_ends(autojump_clock, upstream, server, make_sink, peer, how):
    """The client is told to initialize again, and its own session ends a moment later."""
    async with make_sink() as sink:
        await peer.start(sink)

        async def handle(seen, answer):
            if seen.method != "POST" or seen.rpc != "initialize" or how == "refused":
                await answer.send(404)
            elif how == "no reply":
                await answer.start()
                await answer.end()
            else:
                await answer.result(seen, {**SERVER, "protocolVersion": "2025-06-18"}, mcp_session_id="x")

        upstream.handle = handle
        with pytest.raises(SessionNotFound, match="initialize again"):
            await sink(peer.exchange("tools/call"))
        assert not peer.session.closed
        await trio.sleep(2)
        assert peer.session.closed
        with pytest.raises(SessionNotFound):
            await sink(peer.exchange("tools/call"))


@pytest.mark.parametrize(("code", "message"), [(-32000, "Bad Request: no"), (-32602, "no such session of yours")])
async def test_other_errors_are_the_upstreams_word(autojump_clock, upstream, server, make_sink, peer, code, message):
    """A 400 that is not about the session goes to the client, and the session stays."""
    async with make_sink() as sink:
        await peer.start(sink)
        error = {"code": code, "message": message}
        server.call = lambda seen, answer: answer.json({"jsonrpc": "2.0", "id": 1, "error": error}, 400)
        reply = await sink(peer.exchange("tools/call"))

    assert reply == ErrorReply(code, message)
    assert len(upstream.of("initialize")) == 1


async def test_a_session_that_is_lost_again_at_once_ends(autojump_clock, upstream, server, make_sink, peer):
    """It is renewed once for a request, not for ever."""
    async with make_sink() as sink:
        await peer.start(sink)
        original = server.handle

        async def handle(seen, answer):
            if seen.method == "POST" and seen.rpc == "tools/call":
                server.known.clear()
            await original(seen, answer)

        upstream.handle = handle
        with pytest.raises(SessionNotFound):
            await sink(peer.exchange("tools/call"))

    assert len(upstream.of("tools/call")) == 2


async def test_progress_is_relayed_before_the_reply(autojump_clock, upstream, server, make_sink, peer):
    """On the stream of the request."""

    async def call(seen, answer):
        await answer.start()
        await answer.event(PROGRESS)
        await answer.event(RESULT)
        await answer.end()

    server.call = call
    async with make_sink() as sink:
        await peer.start(sink)
        assert await sink(peer.exchange("tools/call")) == Result({"done": True})

    assert [note.params["progress"] for note in peer.interim] == [1]


async def test_a_question_goes_to_the_client_whose_request_caused_it(autojump_clock, upstream, server, make_sink, peer):
    """Its answer is posted back with the upstream's id; a ping needs no client; even on one connection."""
    answered = trio.Event()

    async def call(seen, answer):
        await answer.start()
        await answer.event({"jsonrpc": "2.0", "id": 5, "method": "ping"})
        await answer.event(QUESTION)
        await answer.event(PROGRESS)
        await answered.wait()
        await answer.event(RESULT)
        await answer.end()

    original = server.handle

    async def handle(seen, answer):
        await original(seen, answer)
        if seen.method == "POST" and seen.json.get("id") == "q":
            answered.set()

    asked: list[Any] = []

    async def ask(method: str, params: Any) -> Result:
        asked.append((method, params))
        await trio.sleep(1)
        return Result({"roots": []})

    server.call, upstream.handle = call, handle
    async with make_sink(max_connections=1) as sink:
        await peer.start(sink)
        assert await sink(peer.exchange("tools/call", ask=ask)) == Result({"done": True})

    assert asked == [("roots/list", {"deep": 1})]
    assert sorted((seen.json for seen in upstream.of("answer")), key=lambda answer: str(answer["id"])) == [
        {"id": 5, "jsonrpc": "2.0", "result": {}},
        {"id": "q", "jsonrpc": "2.0", "result": {"roots": []}},
    ]
    assert len(peer.interim) == 1


async def test_a_question_can_be_taken_back(autojump_clock, upstream, server, make_sink, peer):
    """The client is not waited for, and the notice is not relayed: its id means nothing to the client."""
    cancelled = trio.Event()

    async def call(seen, answer):
        await answer.start()
        await answer.event(QUESTION)
        await trio.sleep(1)
        await answer.event({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "q"}})
        await cancelled.wait()
        await answer.event(RESULT)
        await answer.end()

    async def ask(method: str, params: Any) -> Result:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        return Result()

    server.call = call
    async with make_sink() as sink:
        await peer.start(sink)
        await sink(peer.exchange("tools/call", ask=ask))

    assert upstream.of("answer") == []
    assert peer.interim == []


@pytest.mark.parametrize(("token", "heard"), [(7, True), ("7", False), (8, False)])
async def test_progress_on_the_standalone_stream_is_the_requests_that_has_its_token(
    autojump_clock, upstream, server, make_sink, peer, token, heard
):
    """Relayed with that request; the session's, if no request has it."""
    called, go = trio.Event(), trio.Event()
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}

    async def listen(seen, answer):
        await answer.start()
        await called.wait()
        await answer.event(note)
        await trio.sleep_forever()

    async def call(seen, answer):
        called.set()
        await go.wait()
        await answer.result(seen, {})

    server.listen, server.call = listen, call
    async with make_sink() as sink, trio.open_nursery() as nursery:
        await peer.start(sink)
        nursery.start_soon(sink, peer.exchange("tools/call", {"name": "x", "_meta": {"progressToken": 7}}))
        nursery.start_soon(sink, peer.exchange("tools/call", {"name": "y"}, request_id=2))
        await trio.testing.wait_all_tasks_blocked()
        go.set()

    assert [each.params["progress"] for each in peer.interim] == ([1] if heard else [])
    assert len(peer.notices) == (not heard)


async def test_progress_of_two_requests_with_one_token_is_the_sessions(
    autojump_clock, upstream, server, make_sink, peer
):
    """A client must not do that; nobody guesses which it is."""
    go = trio.Event()

    async def listen(seen, answer):
        await answer.start()
        await trio.sleep(1)
        await answer.event({**PROGRESS, "params": {"progressToken": 7, "progress": 1}})
        await trio.sleep_forever()

    async def call(seen, answer):
        await go.wait()
        await answer.result(seen, {})

    server.listen, server.call = listen, call
    async with make_sink() as sink, trio.open_nursery() as nursery:
        await peer.start(sink)
        for number in (1, 2):
            params = {"name": "x", "_meta": {"progressToken": 7}}
            nursery.start_soon(sink, peer.exchange("tools/call", params, request_id=number))
        await trio.sleep(2)
        go.set()

    assert (peer.interim, len(peer.notices)) == ([], 1)


async def test_of_strayed_progress_a_slow_client_gets_the_latest(autojump_clock, upstream, server, make_sink, peer):
    """Nothing queues up, nobody else waits for it, and with the reply it is over."""
    heard: list[int] = []

    async def listen(seen, answer):
        await answer.start()
        await trio.sleep(1)
        for step in range(5):
            await answer.event({**PROGRESS, "params": {"progressToken": 7, "progress": step}})
        await answer.event(CHANGED)
        await trio.sleep_forever()

    async def call(seen, answer):
        await trio.sleep(16)
        await answer.result(seen, {})

    async def relay(_exchange, notification):
        heard.append(notification.params["progress"])
        await trio.sleep(10)

    server.listen, server.call = listen, call
    async with make_sink() as sink:
        await peer.start(sink)
        exchange = peer.exchange("tools/call", {"name": "x", "_meta": {"progressToken": 7}})
        await sink(exchange.with_relay(relay))

    assert heard == [0, 4]
    assert [note.method for note in peer.notices] == ["notifications/tools/list_changed"]


async def test_a_question_on_the_standalone_stream_needs_exactly_one_exchange(
    autojump_clock, upstream, server, make_sink, peer
):
    """With one in flight it is that one's; with none or two it is refused, never guessed."""
    ask_now, answered = [trio.Event() for _ in range(3)], [trio.Event() for _ in range(3)]
    go = trio.Event()

    async def listen(seen, answer):
        await answer.start()
        for number, event in enumerate(ask_now):
            await event.wait()
            await answer.event({**QUESTION, "id": number})
        await answer.event({"jsonrpc": "2.0", "id": 9, "method": "ping"})
        await answer.event(CHANGED)
        await trio.sleep_forever()

    async def call(seen, answer):
        await go.wait()
        await answer.result(seen, {})

    original = server.handle

    async def handle(seen, answer):
        await original(seen, answer)
        if seen.method == "POST" and seen.rpc == "answer" and seen.json["id"] != 9:
            answered[seen.json["id"]].set()

    async def ask(method: str, params: Any) -> Result:
        return Result({"roots": []})

    server.listen, server.call, upstream.handle = listen, call, handle
    async with make_sink() as sink, trio.open_nursery() as nursery:
        await peer.start(sink)
        for number in range(3):
            ask_now[number].set()
            await answered[number].wait()
            nursery.start_soon(sink, peer.exchange("tools/call", request_id=number, ask=ask))
            await trio.testing.wait_all_tasks_blocked()
        go.set()
        await trio.testing.wait_all_tasks_blocked()

    answers = {seen.json["id"]: seen.json for seen in upstream.of("answer")}
    assert answers[0]["error"]["code"] == -32601
    assert answers[1]["result"] == {"roots": []}
    assert answers[2]["error"]["code"] == -32601
    assert answers[9]["result"] == {}
    assert [note.method for note in peer.notices] == ["notifications/tools/list_changed"]


async def test_a_question_of_the_standalone_stream_can_be_taken_back_there(
    autojump_clock, upstream, server, make_sink, peer
):
    """What is not about a question is the session's."""
    asked, cancelled = trio.Event(), trio.Event()

    async def listen(seen, answer):
        await answer.start()
        await asked.wait()
        await answer.event(QUESTION)
        await trio.sleep(1)
        for asked_id in ("other", "q"):
            note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": asked_id}}
            await answer.event(note)
        await trio.sleep_forever()

    async def call(seen, answer):
        asked.set()
        await cancelled.wait()
        await answer.result(seen, {})

    async def ask(method: str, params: Any) -> Result:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        return Result()

    server.listen, server.call = listen, call
    async with make_sink() as sink:
        await peer.start(sink)
        await sink(peer.exchange("tools/call", ask=ask))

    assert [note.params["requestId"] for note in peer.notices] == ["other"]
    assert upstream.of("answer") == []


async def test_an_exchange_that_is_cancelled_is_cancelled_upstream(autojump_clock, upstream, server, make_sink, peer):
    """Case 36: with the client's id, for both sessions are one; a closed connection alone would say nothing."""

    async def call(seen, answer):
        await answer.start()
        await trio.sleep_forever()

    server.call = call
    async with make_sink() as sink:
        await peer.start(sink)
        with trio.move_on_after(1):
            await sink(peer.exchange("tools/call", request_id="mine"))
        (notice,) = upstream.of("notifications/cancelled")

    assert notice.json["params"] == {"requestId": "mine"}
    assert notice.headers["mcp-session-id"] == "up-1"


async def test_a_cancel_that_cannot_be_told_is_dropped(autojump_clock, upstream, server, make_sink, peer):
    """The farewell is bounded, and its failure is nobody's."""

    async def call(seen, answer):
        upstream.refuse = True
        await answer.start()
        await trio.sleep_forever()

    server.call = call
    async with make_sink(keep_idle=0.001) as sink:
        await peer.start(sink)
        with trio.move_on_after(1) as scope:
            await sink(peer.exchange("tools/call"))
        assert scope.cancelled_caught


async def test_a_clients_own_cancel_notice_is_not_passed_on(autojump_clock, upstream, server, make_sink, peer):
    """Whoever owns the exchange cancels it."""
    async with make_sink() as sink:
        await peer.start(sink)
        assert await sink(peer.exchange("notifications/cancelled", {"requestId": 1})) == Result()

    assert upstream.of("notifications/cancelled") == []


async def test_the_standalone_stream_reaches_the_session_and_is_resumed(
    autojump_clock, upstream, server, make_sink, peer
):
    """After a break it goes on behind the last event, when the upstream said so."""
    ids: list[str | None] = []

    async def listen(seen, answer):
        ids.append(seen.headers.get("last-event-id"))
        if len(ids) == 4:
            await answer.send(503)
            return
        await answer.start()
        await answer.event(None, event_id=f"e{len(ids)}", retry=500)
        await answer.event(CHANGED, event_id=f"f{len(ids)}")
        if len(ids) == 2:
            answer.drop()
        elif len(ids) == 1:
            await answer.end()
        else:
            await trio.sleep_forever() if len(ids) > 4 else await answer.end()

    server.listen = listen
    async with make_sink() as sink:
        await peer.start(sink)
        await trio.sleep(60)

    assert ids == [None, "f1", "f2", "f3", "f3"]
    assert len(peer.notices) == 4
    assert upstream.seen[-1].method == "DELETE"


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_an_upstream_without_a_standalone_stream_is_not_asked_again(
    autojump_clock, upstream, server, make_sink, peer, status
):
    """405 means there is none."""

    async def listen(seen, answer):
        await answer.send(status)

    server.listen = listen
    async with make_sink() as sink:
        await peer.start(sink)
        await trio.sleep(600)

    assert [seen.method for seen in upstream.seen].count("GET") == 1


async def test_a_broken_answer_is_resumed(autojump_clock, upstream, server, make_sink, peer):
    """SEP-1699: the upstream may close the stream after an event id; the rest comes on a GET."""
    started = trio.current_time()

    async def call(seen, answer):
        await answer.start()
        await answer.event(None, event_id="a-1", retry=2000)
        await answer.end()

    async def listen(seen, answer):
        if seen.headers.get("last-event-id") != "a-1":
            await answer.send(405)
            return
        await answer.start()
        await answer.event(PROGRESS, event_id="a-2")
        await answer.event(RESULT, event_id="a-3")
        await answer.end()

    server.call, server.listen = call, listen
    async with make_sink() as sink:
        await peer.start(sink)
        assert await sink(peer.exchange("tools/call")) == Result({"done": True})

    assert trio.current_time() - started == pytest.approx(2)
    assert len(peer.interim) == 1


async def test_resuming_has_a_bound(autojump_clock, upstream, server, make_sink, peer):
    """An upstream that only ever closes is given up."""

    async def call(seen, answer):
        await answer.start()
        await answer.event(None, event_id="a-1")
        answer.drop()

    async def listen(seen, answer):
        if "last-event-id" not in seen.headers:
            await answer.send(405)
            return
        await answer.start()
        await answer.end()

    server.call, server.listen = call, listen
    async with make_sink() as sink:
        await peer.start(sink)
        with pytest.raises(UpstreamClosed):
            await sink(peer.exchange("tools/call"))

    assert [seen.headers.get("last-event-id") for seen in upstream.seen].count("a-1") == 5


@pytest.mark.parametrize("with_id", [True, False])
async def test_a_broken_answer_that_cannot_be_resumed_fails(autojump_clock, upstream, server, make_sink, peer, with_id):
    """No event id, or no events kept."""

    async def call(seen, answer):
        await answer.start()
        await answer.event(PROGRESS, event_id="x" if with_id else "")
        answer.drop()

    server.call = call
    async with make_sink() as sink:
        await peer.start(sink)
        with pytest.raises(UpstreamClosed):
            await sink(peer.exchange("tools/call"))

    assert len(upstream.of("tools/call")) == 1


@pytest.mark.parametrize(("code", "status"), [(-32601, 404), (-32022, 400), (-32020, 400)])
async def test_a_modern_upstream_is_named_as_such(autojump_clock, upstream, make_sink, peer, code, status):
    """It knows no handshakes; the refusal says what it supports."""

    async def handle(seen, answer):
        await answer.error(seen, code, status)

    upstream.handle = handle
    async with make_sink() as sink:
        with pytest.raises(UnsupportedVersion, match="without a handshake") as caught:
            await peer.start(sink)
        await trio.testing.wait_all_tasks_blocked()
        assert sink.sessions == 0

    assert caught.value.data == {"supported": list(MODERN_VERSIONS), "requested": LATEST_LEGACY}


async def test_a_handshake_that_is_refused_leaves_no_session(autojump_clock, upstream, make_sink, peer):
    """The upstream's error is the client's."""

    async def handle(seen, answer):
        await answer.error(seen, -32602, 200 if len(upstream.seen) == 1 else 400)

    upstream.handle = handle
    async with make_sink() as sink:
        for _ in range(2):
            assert await sink(peer.exchange("initialize")) == ErrorReply(-32602, "no")
            await trio.testing.wait_all_tasks_blocked()
            assert sink.sessions == 0


async def test_a_session_id_must_be_visible_ascii(autojump_clock, upstream, make_sink, peer):
    """MCP, basic/transports; it goes into a header of ours."""

    async def handle(seen, answer):
        await answer.result(seen, SERVER, mcp_session_id="ünsound")

    upstream.handle = handle
    async with make_sink() as sink:
        with pytest.raises(UpstreamProtocolError, match="visible ASCII"):
            await sink(peer.exchange("initialize"))


async def test_a_session_may_end_while_the_upstream_is_away(autojump_clock, upstream, server, make_sink, peer):
    """The DELETE is lost, and nothing else."""
    async with make_sink(keep_idle=0.001) as sink:
        await peer.start(sink)
        await trio.sleep(1)
        upstream.refuse = True
        peer.session.close()
        await trio.testing.wait_all_tasks_blocked()
        assert sink.sessions == 0

    assert "DELETE" not in [seen.method for seen in upstream.seen]


async def test_a_second_handshake_is_for_the_upstream_to_refuse(autojump_clock, upstream, server, make_sink, peer):
    """It goes to the same session."""
    async with make_sink() as sink:
        await peer.start(sink)
        await sink(peer.exchange("initialize", {"protocolVersion": LATEST_LEGACY}))
        assert sink.sessions == 1


async def test_a_notification_that_is_refused_fails(autojump_clock, upstream, server, make_sink, peer):
    """The upstream's status is named."""
    async with make_sink() as sink:
        await peer.start(sink)
        server.known.clear()
        with pytest.raises(UpstreamProtocolError, match="404"):
            await sink(peer.exchange("notifications/roots/list_changed"))


async def test_who_has_no_session_may_only_ping(autojump_clock, upstream, make_sink):
    """Nothing goes upstream for it."""
    stranger = legacy_client()
    stranger = type(stranger)(era=stranger.era, version=None)
    async with make_sink() as sink:
        assert await sink(memory_exchange("ping", client=stranger)) == Result()
        with pytest.raises(InvalidMessage, match="initialize first"):
            await sink(memory_exchange("tools/list", client=stranger))

    assert upstream.connections == 0


async def test_a_session_of_an_earlier_configuration_has_to_start_again(autojump_clock, upstream, make_sink, peer):
    """What the upstream kept for it is not known here; its notifications mean nothing."""
    async with make_sink() as sink:
        assert await sink(peer.exchange("notifications/roots/list_changed")) == Result()
        with pytest.raises(SessionNotFound):
            await sink(peer.exchange("tools/call"))


async def test_a_sink_that_is_said_to_be_modern_opens_no_session(autojump_clock, upstream, make_sink, peer):
    """The operator's word counts, where nothing is translated."""
    async with make_sink(era="modern", translate=False) as sink:
        with pytest.raises(UnsupportedVersion):
            await peer.start(sink)

    assert upstream.connections == 0


async def test_ten_thousand_equal_ids_of_two_sessions_never_cross(upstream, server, make_sink, peer):
    """Case 25, a sample of it: each session gets the answers to its own requests."""
    other = type(peer)("other")

    async def call(seen, answer):
        await answer.result(seen, {"for": seen.headers["mcp-session-id"], "name": seen.json["params"]["name"]})

    server.call = call
    async with make_sink(max_connections=8) as sink:
        await peer.start(sink)
        await other.start(sink)

        async def ask(who: Any, session_id: str) -> None:
            for number in range(50):
                reply = await sink(who.exchange("tools/call", {"name": f"{session_id}{number}"}, request_id=1))
                assert reply == Result({"for": session_id, "name": f"{session_id}{number}"})

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(ask, peer, "up-1")
                nursery.start_soon(ask, other, "up-2")

    assert upstream.connections <= 24


async def test_changes_are_announced_from_every_stream(autojump_clock, upstream, server, make_sink, peer):
    """Those within a request's stream as much as those on the standalone one."""

    async def call(seen: Any, answer: Any) -> None:
        await answer.start()
        await answer.event({**CHANGED, "method": "notifications/prompts/list_changed"})
        await answer.event(RESULT)
        await answer.end()

    async def listen(seen: Any, answer: Any) -> None:
        await answer.start()
        await answer.event(CHANGED)
        await trio.sleep_forever()

    server.call, server.listen = call, listen
    context, told = Context(id="up"), []
    context.changes.listen(lambda sink, notification: told.append((sink, notification.method)))
    async with make_sink(context) as sink:
        await peer.start(sink)
        await trio.testing.wait_all_tasks_blocked()
        await sink(peer.exchange("tools/call", {"name": "n"}))
        peer.session.close()
        await trio.testing.wait_all_tasks_blocked()

    assert [("up", "notifications/tools/list_changed"), ("up", "notifications/prompts/list_changed")] == told


@pytest.mark.parametrize("ending", ["client", "sink"])
async def test_a_handshake_that_is_cancelled_leaves_no_session_behind(
    autojump_clock, upstream, server, make_sink, peer, ending
):
    """The upstream opens one all the same; its answer says which one there is to be ended."""
    handle = server.handle

    async def slow(seen: Any, answer: Any) -> None:
        if seen.method == "POST" and seen.rpc == "initialize":
            await trio.sleep(0.5)
        await handle(seen, answer)

    upstream.handle = slow
    async with make_sink() as sink:
        with trio.move_on_after(0.2):
            await peer.start(sink)
        if ending == "client":
            await trio.sleep(1)
            assert sink.sessions == 0
            assert server.known == set()

    assert server.sessions == 1
    assert server.known == set()


@pytest.mark.parametrize("ending", ["client", "session", "sink"])
async def test_a_renewal_that_is_cancelled_leaves_no_session_behind(
    autojump_clock, upstream, server, make_sink, peer, ending
):
    """It goes on without those who waited, and what it opens is the session's, or is ended with it."""
    async with make_sink() as sink:
        await peer.start(sink)
        server.known.clear()
        handle = server.handle

        async def slow(seen: Any, answer: Any) -> None:
            await handle(seen, answer) if seen.method != "POST" or seen.rpc != "initialize" else await late(
                seen, answer
            )

        async def late(seen: Any, answer: Any) -> None:
            server.sessions += 1
            server.known.add("up-2")
            await trio.sleep(0.5)
            await answer.result(seen, SERVER, mcp_session_id="up-2")

        upstream.handle = slow
        with trio.move_on_after(0.2):
            await sink(peer.exchange("tools/call"))
        assert server.known == {"up-2"}
        if ending == "client":
            await trio.sleep(1)
            assert await sink(peer.exchange("tools/call")) == Result({"done": True})
        elif ending == "session":
            peer.session.close()
            await trio.sleep(1)
            assert sink.sessions == 0
            assert server.known == set()

    assert server.sessions == 2
    assert server.known == set()


async def test_a_handshake_without_an_end_is_given_up(autojump_clock, upstream, make_sink, peer):
    """Nothing waits for it for ever."""

    async def never(seen: Any, answer: Any) -> None:
        await trio.sleep_forever()

    upstream.handle = never
    async with make_sink() as sink:
        with trio.move_on_after(1):
            await peer.start(sink)
        assert sink.sessions == 1
        await trio.sleep(11)
        assert sink.sessions == 0
        before = trio.current_time()
        with trio.move_on_after(1):
            await peer.start(sink)
    assert trio.current_time() - before < 3


async def test_a_session_that_ends_during_its_handshake_has_not_been_opened(
    autojump_clock, nursery, upstream, make_sink, peer
):
    """Whoever waits for it is told, and not left waiting."""

    async def never(seen: Any, answer: Any) -> None:
        await trio.sleep_forever()

    upstream.handle = never
    failures: list[Exception] = []

    async def start() -> None:
        try:
            await peer.start(sink)
        except SessionNotFound as error:
            failures.append(error)

    async with make_sink() as sink:
        nursery.start_soon(start)
        await trio.sleep(1)
        peer.session.close()
        await trio.sleep(11)
        assert len(failures) == 1
        assert sink.sessions == 0


@pytest.mark.parametrize("in_flight", [0, 2])
async def test_a_question_that_is_nobodys_request_goes_to_the_session(
    autojump_clock, upstream, server, make_sink, peer, in_flight
):
    """On its own stream; the answer goes back, and the upstream may take the question back."""
    asked: list[tuple[str, Any]] = []

    async def listen(seen: Any, answer: Any) -> None:
        await answer.start()
        await trio.sleep(1)
        await answer.event(QUESTION)
        await answer.event({**QUESTION, "id": "late"})
        await trio.sleep(1)
        await answer.event({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "late"}})
        await trio.sleep_forever()

    async def call(seen: Any, answer: Any) -> None:
        await trio.sleep(5)
        await answer.result(seen, {})

    async def ask(method: str, params: Any) -> Result:
        asked.append((method, dict(params)))
        if len(asked) == 2:
            await trio.sleep_forever()
        return Result({"roots": []})

    async def wrong(method: str, params: Any) -> Result:
        raise AssertionError("this request has caused no question")

    server.listen, server.call = listen, call
    peer.session.ask = ask
    async with make_sink() as sink, trio.open_nursery() as nursery:
        await peer.start(sink)
        for number in range(in_flight):
            nursery.start_soon(sink, peer.exchange("tools/call", request_id=number, ask=wrong))
        await trio.sleep(6)

    assert asked == [("roots/list", {"deep": 1})] * 2
    assert [{"jsonrpc": "2.0", "id": "q", "result": {"roots": []}}] == [seen.json for seen in upstream.of("answer")]
    assert [] == peer.notices


async def test_restart_ends_sessions_and_opens_new_connections(autojump_clock, upstream, server, make_sink, peer):
    """The client initializes again; what was under way comes to its end."""
    replies: list[Any] = []
    async with make_sink() as sink, trio.open_nursery() as nursery:
        await peer.start(sink)

        async def slow(seen: Any, answer: Any) -> None:
            await trio.sleep(0.5)
            await answer.result(seen, {"done": True})

        server.call = slow

        async def call() -> None:
            replies.append(await sink(peer.exchange("tools/call")))

        nursery.start_soon(call)
        await trio.sleep(0.1)
        before = upstream.connections
        assert await sink.act("restart", {}) == {"sessions": 1}
        assert await sink.act("restart", {}) == {"sessions": 0}
        with pytest.raises(SessionNotFound):
            await sink(peer.exchange("tools/call"))
        await trio.sleep(2)
        assert replies == [Result({"done": True})]
        assert peer.session.closed
        again = type(peer)("again")
        await again.start(sink)
        assert server.known == {"up-2"}
        assert upstream.connections > before


async def test_a_closed_sink_is_not_restarted(autojump_clock, upstream, make_sink):
    """And it knows no other action."""
    async with make_sink() as sink:
        with pytest.raises(LookupError, match="it has: restart"):
            await sink.act("explode", {})
    with pytest.raises(UpstreamUnavailable):
        await sink.act("restart", {})


@pytest.mark.parametrize(("answers_after_s", "called_at"), [(0.1, 0.1), (60.0, 0.25)])
async def test_a_first_call_waits_for_the_stream_on_which_it_may_be_asked(
    autojump_clock, upstream, server, make_sink, peer, answers_after_s, called_at
):
    """Servers drop questions while there is no stream; of one that never begins a moment is waited for, once."""
    calls: list[float] = []

    async def listen(seen, answer):
        await trio.sleep(answers_after_s)
        await answer.start()
        await trio.sleep_forever()

    async def call(seen, answer):
        calls.append(trio.current_time() - start)
        await answer.result(seen, {"done": True})

    server.listen, server.call = listen, call
    async with make_sink() as sink:
        await peer.start(sink)
        start = trio.current_time()
        await sink(peer.exchange("tools/call"))
        await sink(peer.exchange("tools/call"))

    assert calls == pytest.approx([called_at, called_at])
