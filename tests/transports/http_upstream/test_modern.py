"""Modern clients on a modern upstream."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from sluiceway.pipeline.protocol.errors import (
    ConnectFailed,
    HeaderMismatch,
    UnsupportedVersion,
    UpstreamClosed,
    UpstreamFault,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.mcp import LATEST, LEGACY_VERSIONS, MetaKey
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Request, Result

PROGRESS = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "t", "progress": 1}}
DISCOVERED = {"supportedVersions": [LATEST], "capabilities": {}, "resultType": "complete"}


def echoing(upstream: Any) -> None:
    """A server that answers everything with what it got."""

    async def handle(seen: Any, answer: Any) -> None:
        if seen.rpc == "server/discover":
            await answer.result(seen, DISCOVERED)
        elif "id" in seen.json:
            await answer.result(seen, {"echo": seen.json["params"].get("name")})
        else:
            await answer.send(202)

    upstream.handle = handle


async def test_a_request_goes_out_as_the_bytes_it_was(autojump_clock, upstream, make_sink, modern):
    """Unknown members, spaces and the client's id included; headers mirror the body."""
    echoing(upstream)
    raw = b'{"jsonrpc":"2.0",  "id":"x","method":"tools/call","params":{"name":"n","future":1,"_meta":{}}}'
    exchange = modern(name="n")
    exchange = exchange.with_request(Request("x", "tools/call", {"name": "n"}, raw))
    async with make_sink(era="modern") as sink:
        assert await sink(exchange) == Result({"echo": "n"})

    (seen,) = upstream.seen
    assert raw == seen.body
    assert seen.path == "/mcp"
    assert seen.headers["host"] == "up.example"
    assert seen.headers["mcp-protocol-version"] == LATEST
    assert seen.headers["mcp-method"] == "tools/call"
    assert seen.headers["mcp-name"] == "n"


async def test_headers_follow_a_rewritten_request(autojump_clock, upstream, make_sink, modern):
    """What a stage renamed is named anew, in base64 where HTTP cannot carry it."""
    echoing(upstream)
    exchange = modern(name="old", headers={"mcp-name": "old"})
    async with make_sink(era="modern") as sink:
        await sink(exchange.with_request(exchange.request.with_params({**exchange.request.params, "name": "nö"})))

    assert upstream.seen[0].headers["mcp-name"] == "=?base64?bsO2?="


async def test_nothing_of_the_clients_headers_goes_upstream(autojump_clock, upstream, make_sink, modern):
    """Case 27: credentials, cookies and the rest stay here; only Mcp-Param-* is passed on."""
    echoing(upstream)
    canary = {"authorization": "Bearer canary", "cookie": "canary", "x-canary": "canary", "mcp-session-id": "canary"}
    async with make_sink(era="modern", headers={"x-key": "ours"}) as sink:
        await sink(modern(name="n", headers={**canary, "mcp-param-region": "eu"}))

    (seen,) = upstream.seen
    assert b"canary" not in seen.raw_head + seen.body
    assert seen.headers["mcp-param-region"] == "eu"
    assert seen.headers["x-key"] == "ours"


async def test_a_parameter_header_that_cannot_be_sent_refuses_the_request(autojump_clock, upstream, make_sink, modern):
    """Header injection ends here."""
    echoing(upstream)
    async with make_sink(era="modern") as sink:
        with pytest.raises(HeaderMismatch):
            await sink(modern(name="n", headers={"mcp-param-x": "a\r\nevil: 1"}))

    assert upstream.seen == []


async def test_events_are_relayed_in_order_before_the_reply(autojump_clock, upstream, make_sink, modern):
    """Notifications keep their token and their order."""

    async def handle(seen, answer):
        await answer.start()
        for step in range(3):
            await answer.event({**PROGRESS, "params": {"progressToken": "t", "progress": step}})
        await answer.chunk(b": keep-alive\n\n")
        await answer.chunk(b"event: ping\ndata: {}\n\n")
        await answer.event({"jsonrpc": "2.0", "id": 1, "result": {"done": True}})
        await answer.end()

    upstream.handle = handle
    interim: list[Notification] = []
    async with make_sink(era="modern") as sink:
        assert await sink(modern(interim=interim)) == Result({"done": True})

    assert [note.params["progress"] for note in interim] == [0, 1, 2]


@pytest.mark.parametrize("status", [200, 400, 404, 500])
async def test_an_error_keeps_the_status_it_came_with(autojump_clock, upstream, make_sink, modern, status):
    """What the upstream says in JSON-RPC is its word."""

    async def handle(seen, answer):
        await answer.error(seen, -32602, status, {"why": 1})

    upstream.handle = handle
    async with make_sink(era="modern") as sink:
        reply = await sink(modern())

    assert reply == ErrorReply(-32602, "no", {"why": 1})
    assert reply.http_status == status


@pytest.mark.parametrize(
    ("status", "headers", "error", "words"),
    [
        (401, {}, UpstreamUnavailable, "own credential"),
        (403, {}, UpstreamUnavailable, "own credential"),
        (429, {"retry_after": "7"}, UpstreamUnavailable, "busy"),
        (503, {"retry_after": "soon"}, UpstreamUnavailable, "busy"),
        (500, {}, UpstreamClosed, "may have run"),
        (302, {"location": "https://elsewhere.example/?secret"}, UpstreamProtocolError, "https://elsewhere.example/'"),
        (404, {}, UpstreamProtocolError, "HTTP 404"),
        (200, {"content_type": "text/html"}, UpstreamProtocolError, "text/html"),
        (202, {}, UpstreamProtocolError, "content type ''"),
    ],
)
async def test_what_is_said_in_http_alone_is_a_failure_of_the_upstream(
    autojump_clock, upstream, make_sink, modern, status, headers, error, words
):
    """Never a 401 of the client's, never a redirect that is followed."""

    async def handle(seen, answer):
        await answer.send(status, b"<html>", **headers)

    upstream.handle = handle
    async with make_sink(era="modern") as sink:
        with pytest.raises(error, match=words) as caught:
            await sink(modern())

    assert isinstance(caught.value, UpstreamFault)
    assert caught.value.retry_after_s == (7 if headers.get("retry_after") == "7" else None)
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_a_credential_that_is_refused_in_json_is_still_ours(autojump_clock, upstream, make_sink, modern, status):
    """The client must not take it for its own."""

    async def handle(seen, answer):
        await answer.error(seen, -32001, status)

    upstream.handle = handle
    async with make_sink(era="modern") as sink:
        with pytest.raises(UpstreamUnavailable, match="own credential") as caught:
            await sink(modern())

    assert not caught.value.retryable


@pytest.mark.parametrize("size", [10, 100_000, 400_000])
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_an_answer_may_come_in_as_many_pieces_as_it_likes(
    autojump_clock, upstream, make_sink, modern, size, framing
):
    """Head and body apart, and the body in parts; the connection serves the next call."""
    text = "x" * size

    async def handle(seen, answer):
        body = b'{"jsonrpc":"2.0","id":1,"result":{"text":"%b"}}' % text.encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        pieces = [body[start : start + 90_000] for start in range(0, len(body), 90_000)]
        if framing == "length":
            await answer.raw(head + b"content-length: %d\r\n\r\n" % len(body))
        else:
            await answer.raw(head + b"transfer-encoding: chunked\r\n\r\n")
        for piece in pieces:
            await (answer.raw(piece) if framing == "length" else answer.chunk(piece))
        if framing == "chunks":
            await answer.end()

    upstream.handle = handle
    async with make_sink(era="modern") as sink:
        for _ in range(3):
            assert await sink(modern()) == Result({"text": text})

    assert upstream.connections == 1


@pytest.mark.parametrize("length", [True, False])
async def test_a_notification_alone_is_relayed_and_no_reply(autojump_clock, upstream, make_sink, modern, length):
    """Whether it is here at once or not."""

    async def handle(seen, answer):
        if length:
            await answer.json(PROGRESS)
        else:
            await answer.start(content_type="application/json")
            await answer.chunk(json.dumps(PROGRESS).encode())
            await answer.end()

    upstream.handle = handle
    interim: list[Notification] = []
    async with make_sink(era="modern") as sink:
        with pytest.raises(UpstreamClosed, match="without a reply"):
            await sink(modern(interim=interim))

    assert interim == [Notification("notifications/progress", PROGRESS["params"])]


async def test_a_reply_with_another_id_is_no_reply(autojump_clock, upstream, make_sink, modern):
    """The type counts: 1 is not "1"."""

    async def handle(seen, answer):
        await answer.json({"jsonrpc": "2.0", "id": "1", "result": {}})

    upstream.handle = handle
    async with make_sink(era="modern") as sink:
        with pytest.raises(UpstreamProtocolError, match="another id"):
            await sink(modern(request_id=1))


async def test_a_server_that_asks_breaks_the_protocol(autojump_clock, upstream, make_sink, modern):
    """Servers of this revision send no requests."""

    async def handle(seen, answer):
        await answer.start()
        await answer.event({"jsonrpc": "2.0", "id": 9, "method": "roots/list"})
        await trio.sleep_forever()

    upstream.handle = handle
    async with make_sink(era="modern") as sink:
        with pytest.raises(UpstreamProtocolError, match="roots/list"):
            await sink(modern())


@pytest.mark.parametrize("how", ["end", "drop"])
async def test_a_stream_that_ends_without_a_reply_fails(autojump_clock, upstream, make_sink, modern, how):
    """Case 35: it may have run, so it is not sent again."""

    async def handle(seen, answer):
        await answer.start()
        await answer.event(PROGRESS)
        await answer.end() if how == "end" else answer.drop()

    upstream.handle = handle
    async with make_sink(era="modern") as sink:
        with pytest.raises(UpstreamClosed, match="may have run") as caught:
            await sink(modern())

    assert not caught.value.retryable
    assert len(upstream.seen) == 1


async def test_a_silent_stream_is_given_up(autojump_clock, upstream, make_sink, modern):
    """Case 45: after idle_timeout without an event."""

    async def handle(seen, answer):
        await answer.start()
        await trio.sleep_forever()

    upstream.handle = handle
    async with make_sink(era="modern", idle_timeout=300.0) as sink:
        started = trio.current_time()
        with pytest.raises(UpstreamClosed, match="300 s"):
            await sink(modern())

    assert trio.current_time() - started == pytest.approx(300)


@pytest.mark.parametrize("kind", ["length", "chunks", "event"])
async def test_a_message_over_the_limit_is_cut(autojump_clock, upstream, make_sink, modern, kind):
    """Case 45: by its stated length, or as soon as it is over."""
    sent = 0

    async def handle(seen, answer):
        nonlocal sent
        if kind == "length":
            await answer.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000000\r\n\r\n{")
            await trio.sleep_forever()
        media = "application/json" if kind == "chunks" else "text/event-stream"
        await answer.start(content_type=media)
        for _ in range(1600):
            await answer.chunk(b"data: " * (kind == "event" and sent == 0) + b"x" * 65536)
            sent += 65536

    upstream.handle = handle
    async with make_sink(era="modern", max_message=1 << 20) as sink:
        with pytest.raises(UpstreamProtocolError, match="1048576 bytes"):
            await sink(modern())

    assert sent < 3 << 20
    assert upstream.open == 0 or await _closes(upstream)


async def _closes(upstream: Any) -> bool:
    await trio.testing.wait_all_tasks_blocked()
    return upstream.open == 0


async def test_cancelling_closes_the_connection(autojump_clock, upstream, make_sink, modern):
    """Case 36: that is the cancel; the upstream sees it at once."""
    gone = trio.Event()

    async def handle(seen, answer):
        await answer.start()
        try:
            await trio.sleep_forever()
        finally:
            gone.set()

    upstream.handle = handle
    async with make_sink(era="modern") as sink:
        with trio.move_on_after(1):
            await sink(modern())
        with trio.fail_after(0.1):
            await gone.wait()


async def test_cancelling_anywhere_leaves_nothing_taken(autojump_clock, upstream, make_sink, modern):
    """At every checkpoint of a call with events."""

    async def handle(seen, answer):
        await answer.start()
        await answer.event(PROGRESS)
        await answer.event({"jsonrpc": "2.0", "id": 1, "result": {}})
        await answer.end()

    upstream.handle = handle
    async with make_sink(era="modern") as sink:
        for steps in range(40):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def cancel_later(steps: int = steps, scope: trio.CancelScope = scope) -> None:
                        for _ in range(steps):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(cancel_later)
                    await sink(modern())
                    nursery.cancel_scope.cancel()
        assert sink._upstream._client.taken == 0


async def test_a_subscription_lasts_until_the_gateway_drains(autojump_clock, upstream, make_sink, modern):
    """It keeps its id, and ends with a result that names it; the upstream sees the connection close."""
    gone = trio.Event()

    async def handle(seen, answer):
        await answer.start()
        await answer.event({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {}})
        try:
            await trio.sleep_forever()
        finally:
            gone.set()

    upstream.handle = handle
    interim: list[Notification] = []
    exchange = modern("subscriptions/listen", request_id="mine", interim=interim)
    async with make_sink(era="modern") as sink, trio.open_nursery() as nursery:

        async def drain() -> None:
            await trio.sleep(60)
            exchange.draining.set()

        nursery.start_soon(drain)
        reply = await sink(exchange)
        await gone.wait()

    assert reply == Result({"resultType": "complete", "_meta": {MetaKey.SUBSCRIPTION_ID.value: "mine"}})
    assert len(interim) == 1


async def test_the_upstream_may_end_a_subscription(autojump_clock, upstream, make_sink, modern):
    """Its own result is the reply."""

    async def handle(seen, answer):
        await answer.start()
        await answer.event({"jsonrpc": "2.0", "id": seen.json["id"], "result": {"theirs": 1}})
        await answer.end()

    upstream.handle = handle
    async with make_sink(era="modern") as sink:
        assert await sink(modern("subscriptions/listen")) == Result({"theirs": 1})


async def test_streams_do_not_take_the_connections_of_calls(autojump_clock, upstream, make_sink, modern):
    """A subscription over max_streams is refused, a call is not."""

    async def handle(seen, answer):
        if seen.rpc == "tools/call":
            await answer.result(seen, {})
        else:
            await answer.start()
            await trio.sleep_forever()

    upstream.handle = handle
    async with make_sink(era="modern", max_streams=1, max_connections=1) as sink, trio.open_nursery() as nursery:
        nursery.start_soon(sink, modern("subscriptions/listen"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Exception, match="max_streams"):
            await sink(modern("subscriptions/listen"))
        assert await sink(modern()) == Result()
        nursery.cancel_scope.cancel()


async def test_calls_wait_for_a_connection_and_no_more_than_may(autojump_clock, upstream, make_sink, modern):
    """The rest is refused at once."""
    go = trio.Event()

    async def handle(seen, answer):
        await go.wait()
        await answer.result(seen, {})

    upstream.handle = handle
    replies: list[Any] = []

    async with make_sink(era="modern", max_connections=1, max_waiting=1) as sink, trio.open_nursery() as nursery:

        async def call() -> None:
            replies.append(await sink(modern()))

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Exception, match="max_connections"):
            await sink(modern())
        go.set()

    assert replies == [Result(), Result()]
    assert upstream.connections == 1


async def test_a_notification_is_acknowledged(autojump_clock, upstream, make_sink, modern):
    """Those of extensions are passed on."""
    echoing(upstream)
    async with make_sink(era="modern") as sink:
        assert await sink(modern("notifications/custom")) == Result()

    assert upstream.seen[0].headers["mcp-method"] == "notifications/custom"


async def test_a_notification_that_is_refused_fails(autojump_clock, upstream, make_sink, modern):
    """The upstream's answer is named."""

    async def handle(seen, answer):
        await answer.send(400)

    upstream.handle = handle
    async with make_sink(era="modern") as sink:
        with pytest.raises(UpstreamProtocolError, match="HTTP 400"):
            await sink(modern("notifications/custom"))


async def test_the_era_is_found_out_once(autojump_clock, upstream, make_sink, modern):
    """By server/discover, in the client's name."""
    echoing(upstream)
    async with make_sink() as sink:
        await sink(modern(name="a", headers={"mcp-param-x": "1"}))
        await sink(modern(name="b"))

    assert [seen.rpc for seen in upstream.seen] == ["server/discover", "tools/call", "tools/call"]
    discover = upstream.seen[0]
    assert discover.json["params"]["_meta"] == {MetaKey.VERSION.value: LATEST, MetaKey.CLIENT_CAPABILITIES.value: {}}
    assert discover.headers["mcp-method"] == "server/discover"
    assert "mcp-param-x" not in discover.headers


async def test_a_client_that_asks_first_spares_the_question(autojump_clock, upstream, make_sink, modern):
    """Its own server/discover is the probe."""
    echoing(upstream)
    async with make_sink() as sink:
        assert await sink(modern("server/discover")) == Result(DISCOVERED)
        await sink(modern(name="a"))

    assert [seen.rpc for seen in upstream.seen] == ["server/discover", "tools/call"]


@pytest.mark.parametrize("method", ["server/discover", "tools/call", "notifications/custom"])
@pytest.mark.parametrize(
    ("status", "code", "data"),
    [
        (400, None, None),
        (405, None, None),
        (400, -32600, None),
        (200, -32601, None),
        (404, -32601, None),
        (400, -32022, {"supported": ["2025-11-25"]}),
    ],
)
async def test_a_legacy_upstream_is_named_as_such_and_asked_again_later(
    autojump_clock, upstream, make_sink, modern, status, code, data, method
):
    """The refusal lists what it supports, from which clients fall back."""

    async def handle(seen, answer):
        await (answer.send(status, b"x") if code is None else answer.error(seen, code, status, data))

    upstream.handle = handle
    async with make_sink() as sink:
        for _ in range(2):
            with pytest.raises(UnsupportedVersion, match="handshake") as caught:
                await sink(modern("server/discover"))
        with pytest.raises(UnsupportedVersion):
            await sink(modern(method))
        assert len(upstream.seen) == 1
        echoing(upstream)
        await trio.sleep(301)
        await sink(modern("tools/call"))

    assert caught.value.data == {"supported": list(LEGACY_VERSIONS), "requested": LATEST}


@pytest.mark.parametrize(("status", "code"), [(503, None), (500, -32603), (401, -32600)])
async def test_a_failure_tells_nothing_about_the_era(autojump_clock, upstream, make_sink, modern, status, code):
    """The next request finds out."""

    async def handle(seen, answer):
        await (answer.send(status) if code is None else answer.error(seen, code, status))

    upstream.handle = handle
    async with make_sink() as sink:
        with pytest.raises(UpstreamFault):
            await sink(modern("server/discover"))
        echoing(upstream)
        assert await sink(modern(name="a")) == Result({"echo": "a"})


@pytest.mark.parametrize("code", [-32020, -32021, -32022])
async def test_an_error_of_the_modern_era_proves_it(autojump_clock, upstream, make_sink, modern, code):
    """It is relayed, and never a reason to fall back."""

    async def handle(seen, answer):
        await answer.error(seen, code, 400, {"supported": ["2027-01-01"]})

    upstream.handle = handle
    async with make_sink() as sink:
        reply = await sink(modern("server/discover"))
        assert (await sink(modern())).code == code

    assert (reply.code, reply.http_status) == (code, 400)


async def test_a_sink_that_is_said_to_be_legacy_asks_nobody(autojump_clock, upstream, make_sink, modern):
    """The operator's word counts."""
    async with make_sink(era="legacy") as sink:
        with pytest.raises(UnsupportedVersion, match="initialize"):
            await sink(modern())

    assert upstream.connections == 0


async def test_an_upstream_that_cannot_be_reached(autojump_clock, upstream, make_sink, modern):
    """Case 32: nothing was sent, so it may be repeated."""
    upstream.refuse = True
    async with make_sink(era="modern") as sink:
        with pytest.raises(ConnectFailed, match="up: the upstream cannot be reached") as caught:
            await sink(modern())

    assert caught.value.retryable


async def test_a_closed_sink_says_so(make_sink, modern):
    """It is not asked by the engine; whoever does gets an answer."""
    async with make_sink(era="modern") as sink:
        pass
    with pytest.raises(UpstreamUnavailable, match="closed"):
        await sink(modern())


async def test_content_with_an_encoding_nobody_asked_for_is_refused(autojump_clock, upstream, make_sink, modern):
    """We say identity, and hold the upstream to it."""

    async def handle(seen, answer):
        await answer.result(seen, {}, content_encoding="gzip")

    upstream.handle = handle
    async with make_sink(era="modern") as sink:
        with pytest.raises(UpstreamProtocolError):
            await sink(modern())


async def test_headers_are_made_for_clients_that_have_none(autojump_clock, upstream, make_sink, modern):
    """A refusal makes the sink read the schemas and try once more; from then on it knows."""
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}

    async def handle(seen, answer):
        if seen.rpc == "tools/list":
            await answer.result(seen, {"tools": [{"name": "t", "inputSchema": schema}]})
        elif seen.headers.get("mcp-param-region") != "=?base64?w6Q=?=":
            await answer.error(seen, -32020, 400)
        else:
            await answer.result(seen, {"done": True})

    upstream.handle = handle
    async with make_sink(era="modern") as sink:
        for _ in range(2):
            call = modern("tools/call", name="t", arguments={"region": "\u00e4"}, transport="stdio")
            assert await sink(call) == Result({"done": True})

        refused = await sink(modern("tools/call", name="t", arguments={"region": "b"}, transport="stdio"))

    assert refused.code == -32020
    rpcs = [seen.rpc for seen in upstream.seen]
    assert ["tools/call", "tools/list", "tools/call", "tools/call", "tools/call", "tools/list"] == rpcs


async def test_headers_are_learned_from_any_clients_list(autojump_clock, upstream, make_sink, modern):
    """So the first call of a client that has none goes out with them at once."""
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}

    async def handle(seen, answer):
        await answer.result(seen, {"tools": [{"name": "t", "inputSchema": schema}]})

    upstream.handle = handle
    async with make_sink(era="modern") as sink:
        await sink(modern("tools/list"))
        await sink(modern("tools/call", name="t", arguments={"region": "eu"}, transport="stdio"))

    assert [seen.headers.get("mcp-param-region") for seen in upstream.seen] == [None, "eu"]


async def test_a_short_message_over_the_limit_is_refused_in_the_same_words(autojump_clock, upstream, make_sink, modern):
    """Whichever way it is read: with a head that came before, or one that did not."""

    async def handle(seen, answer):
        await answer.result(seen, {"text": "x" * 5000})

    upstream.handle = handle
    async with make_sink(era="modern", max_message=4096) as sink:
        for _ in range(2):
            with pytest.raises(UpstreamProtocolError, match=r"up: .* more than 4096 bytes \(max_message\)"):
                await sink(modern())
