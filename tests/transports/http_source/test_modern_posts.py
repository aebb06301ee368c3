"""POSTs of the modern era: headers, statuses, streams, and that leaving is cancelling."""

from __future__ import annotations

import base64

import h11
import pytest
import trio

from sluiceway.pipeline.protocol.errors import CapacityExceeded, RateLimited
from sluiceway.pipeline.protocol.mcp import LATEST, MetaKey
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Result


async def test_a_call_is_answered_as_json(running, autojump_clock):
    """Nothing came before the reply, so the response is one JSON body."""
    async with running() as served:
        answer = await served.post_modern(served.modern("tools/call", "a", name="echo"))

        assert 200 == answer.status
        assert "application/json" == answer.headers["content-type"]
        assert {"jsonrpc": "2.0", "id": "a", "result": {"method": "tools/call", "name": "echo"}} == answer.json
        assert "mcp-session-id" not in answer.headers


async def test_a_notification_turns_the_response_into_an_event_stream_without_ids(running, autojump_clock):
    """Progress goes first, then the reply; the modern era has no event ids."""
    async with running() as served:
        answer = await served.post_modern(served.modern("tools/call", 7, name="progress"))

        assert "text/event-stream" == answer.headers["content-type"]
        assert "no-cache" == answer.headers["cache-control"]
        assert "no" == answer.headers["x-accel-buffering"]
        assert ["notifications/progress", None] == [m.get("method") for m in answer.messages]
        assert {"id": 7, "result": {"method": "tools/call", "name": "progress"}} == {
            k: answer.messages[1][k] for k in ("id", "result")
        }
        assert b"id:" not in answer.body.replace(b'"id":', b"")


async def test_the_exchange_knows_its_client(running, autojump_clock):
    """Capabilities, info, version, headers and transport are those of the request."""
    seen = []

    async def sink(exchange):
        seen.append(exchange.client)
        return Result()

    async with running(sink) as served:
        meta = {MetaKey.CLIENT_CAPABILITIES: {"sampling": {}}, MetaKey.CLIENT_INFO: {"name": "c"}}
        await served.post_modern(served.modern("tools/list", _meta=meta), x_custom="v", mcp_param_a="b")

        [client] = seen
        assert ("modern", LATEST, "http") == (client.era, client.version, client.transport)
        assert ({"sampling": {}}, {"name": "c"}) == (client.capabilities, client.info)
        assert ("v", "b") == (client.headers["x-custom"], client.headers["mcp-param-a"])
        assert client.session is None


async def test_header_names_with_underscores_are_dropped(running, autojump_clock):
    """`X_Forwarded_For` would be read as `X-Forwarded-For` by others behind us."""
    seen = []

    async def sink(exchange):
        seen.append(exchange.client.headers)
        return Result()

    async with running(sink) as served:
        body = served.modern("tools/list")
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in served.mirror(body).items() if value]
        await served.raw(served.raw_post(body, *lines, "x_forwarded_for: 1.2.3.4"))

        assert "mcp-method" in seen[0]
        assert not [name for name in seen[0] if "forwarded" in name]


BASE64_NAME = "=?base64?" + base64.b64encode("wörld".encode()).decode() + "?="


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"mcp_name": BASE64_NAME}, 200),
        ({"mcp_name": "=?base64?!!?="}, 400),
        ({"mcp_name": "=?base64?d29ybGR=?="}, 400),  # not canonical
        ({"mcp_name": "other"}, 400),
        ({"mcp_name": None}, 400),
        ({"mcp_method": "tools/list", "mcp_name": BASE64_NAME}, 400),
        ({"mcp_method": None, "mcp_name": BASE64_NAME}, 400),
        ({"mcp_protocol_version": None, "mcp_name": BASE64_NAME}, 400),
        ({"mcp_protocol_version": "2025-11-25", "mcp_name": BASE64_NAME}, 400),
        ({"mcp_name": BASE64_NAME, "mcp_param_x": "=?base64?*?="}, 400),
    ],
)
async def test_headers_must_repeat_what_the_body_says(running, autojump_clock, headers, status):
    """Case 22: a missing, malformed or different header is -32020 with the body's id; nothing is called."""
    called = []

    async def sink(exchange):
        called.append(exchange)
        return Result()

    async with running(sink) as served:
        answer = await served.post_modern(served.modern("tools/call", "id-1", name="wörld"), **headers)

        assert status == answer.status
        assert (status == 200) == bool(called)
        if status != 200:
            assert (-32020, "id-1") == (answer.code, answer.json["id"])


async def test_a_repeated_routing_header_is_a_mismatch(running, autojump_clock):
    """Readers of the first and of the last value would disagree."""
    async with running() as served:
        body = served.modern("tools/call", 1, name="a")
        lines = ["mcp-protocol-version: 2026-07-28", "mcp-method: tools/call", "mcp-name: a", "mcp-name: a"]
        answer = await served.raw(served.raw_post(body, *lines))

        assert (400, -32020) == (answer.status, answer.code)


@pytest.mark.parametrize("missing", [MetaKey.VERSION, MetaKey.CLIENT_CAPABILITIES])
@pytest.mark.parametrize("value", [None, 5])
async def test_missing_metadata_is_invalid_params(running, autojump_clock, missing, value):
    """Both required keys of `_meta` must be there, with the right type (-32602, HTTP 400)."""
    async with running() as served:
        body = served.modern("tools/list", 3)
        if value is None:
            del body["params"]["_meta"][missing]
        else:
            body["params"]["_meta"][missing] = value
        answer = await served.post_modern(body)

        assert (400, -32602, 3) == (answer.status, answer.code, answer.json["id"])


async def test_an_unsupported_version_names_those_that_are(running, autojump_clock):
    """Case 23: -32022 with `supported` and `requested`."""
    async with running() as served:
        body = served.modern("tools/list", 3, _meta={MetaKey.VERSION: "2099-01-01"})
        answer = await served.post_modern(body, mcp_protocol_version="2099-01-01")

        assert (400, -32022) == (answer.status, answer.code)
        assert ([LATEST], "2099-01-01") == tuple(answer.json["error"]["data"][k] for k in ("supported", "requested"))


@pytest.mark.parametrize("method", ["initialize", "ping", "logging/setLevel", "resources/subscribe"])
async def test_removed_methods_do_not_exist_even_though_a_legacy_client_has_them(running, autojump_clock, method):
    """Modern metadata decides the era, so the legacy answer is never given (404, -32601)."""
    async with running() as served:
        body = served.modern(method, 3, uri="a:b")
        answer = await served.post_modern(body)

        assert (404, -32601) == (answer.status, answer.code)


async def test_unknown_methods_go_through_the_chain(running, autojump_clock):
    """A vendor's method is its upstream's to judge."""
    async with running() as served:
        answer = await served.post_modern(served.modern("vendor/thing"))

        assert {"method": "vendor/thing", "name": None} == answer.json["result"]


@pytest.mark.parametrize(
    ("code", "given", "status"),
    [
        (-32700, None, 400), (-32600, None, 400), (-32601, None, 404), (-32602, None, 200), (-32603, None, 200),
        (-32020, None, 400), (-32021, None, 400), (-32022, None, 400), (1234, None, 200), (1234, 418, 418),
    ],
)  # fmt: skip
async def test_errors_have_the_status_of_their_code_unless_they_bring_one(running, autojump_clock, code, given, status):
    """The table of the modern transport; an upstream's own status is relayed."""

    async def sink(exchange):
        return ErrorReply(code, "no", http_status=given)

    async with running(sink) as served:
        answer = await served.post_modern(served.modern("tools/list"))

        assert (status, code) == (answer.status, answer.code)


async def test_the_gateways_refusals_use_http(running, autojump_clock):
    """429 with `Retry-After`, and 503."""
    errors = [RateLimited("slowly", retry_after_s=3.0), CapacityExceeded("full")]

    async def sink(exchange):
        raise errors.pop(0)

    async with running(sink) as served:
        limited = await served.post_modern(served.modern("tools/list"))
        full = await served.post_modern(served.modern("tools/list"))

        assert (429, 42900, "3") == (limited.status, limited.code, limited.headers["retry-after"])
        assert (503, 50301) == (full.status, full.code)


async def test_reply_headers_of_stages_go_out(running, autojump_clock):
    """What a stage puts into `reply_headers` stands in the response, JSON or event stream."""

    async def sink(exchange):
        exchange.reply_headers["x-request-id"] = "r1"
        if exchange.target == "progress":
            await exchange.relay(Notification("notifications/progress"))
        return Result()

    async with running(sink) as served:
        for name in ("plain", "progress"):
            answer = await served.post_modern(served.modern("tools/call", name=name))

            assert "r1" == answer.headers["x-request-id"]


@pytest.mark.parametrize("body", [{"jsonrpc": "2.0", "id": 1, "result": {}}, [{"jsonrpc": "2.0", "method": "x"}]])
async def test_responses_and_batches_are_not_modern(running, autojump_clock, body):
    """400 with -32600 for both."""
    async with running() as served:
        answer = await served.post(body, mcp_protocol_version=LATEST)

        assert (400, -32600) == (answer.status, answer.code)


async def test_a_modern_header_without_metadata_is_invalid_params(running, autojump_clock):
    """The body decides; one that claims nothing under a modern header lacks its metadata."""
    async with running() as served:
        answer = await served.post(served.request("tools/list"), mcp_protocol_version=LATEST, mcp_method="tools/list")

        assert (400, -32602) == (answer.status, answer.code)


@pytest.mark.parametrize(
    ("method", "seen"), [("notifications/cancelled", False), ("notifications/vendor", True), ("roots/x", True)]
)
async def test_notifications_are_accepted_and_only_unknown_ones_passed_on(running, autojump_clock, method, seen):
    """The core protocol has none left over HTTP; extensions may."""
    passed = []

    async def sink(exchange):
        passed.append(exchange.method)
        await exchange.relay(Notification("notifications/message"))
        return Result()

    async with running(sink) as served:
        answer = await served.post({"jsonrpc": "2.0", "method": method}, mcp_protocol_version=LATEST)

        assert (202, b"") == (answer.status, answer.body)
        assert seen == bool(passed)


async def test_a_notification_that_claims_another_version_than_its_header_is_refused(running, autojump_clock):
    """Mismatch first, then the version itself."""
    async with running() as served:
        body = {"jsonrpc": "2.0", "method": "x/y", "params": {"_meta": {MetaKey.VERSION: "2099-01-01"}}}
        mismatch = await served.post(body, mcp_protocol_version=LATEST)
        unsupported = await served.post(body, mcp_protocol_version="2099-01-01")

        assert (400, -32020) == (mismatch.status, mismatch.code)
        assert (400, -32022) == (unsupported.status, unsupported.code)


async def test_a_slow_response_becomes_a_stream_with_comments(running, autojump_clock):
    """After `keep_alive` of silence a comment goes out, and again; then the reply."""
    async with running(keep_alive=2.0) as served:
        wire = served.connect()
        body = served.modern("tools/call", name="slow", arguments={"seconds": 5})
        await wire.send("POST", "/mcp", body, served.mirror(body))
        status, headers = await wire.head()

        assert (200, "text/event-stream", 2.0) == (status, headers["content-type"], trio.current_time())
        assert "slow" == (await wire.next_message())["result"]["name"]
        assert (2, 5.0) == (wire.comments, trio.current_time())


async def test_a_client_that_takes_only_event_streams_gets_one(running, autojump_clock):
    """A single reply is one event then; an error keeps its status and is JSON."""
    async with running() as served:
        answer = await served.post_modern(served.modern("tools/call", name="a"), accept="text/event-stream")
        error = await served.post_modern(served.modern("ping"), accept="text/event-stream")

        assert "text/event-stream" == answer.headers["content-type"]
        assert "a" == answer.messages[0]["result"]["name"]
        assert 404 == error.status


async def test_leaving_cancels_at_once(running, autojump_clock):
    """Closing the connection is the cancel of the modern era: before a response as well as in the middle of one."""
    ended = []

    async def sink(exchange):
        if exchange.target == "talks":
            await exchange.relay(Notification("notifications/progress", {"progress": 1}))
        try:
            await trio.sleep(20)
        finally:
            ended.append((exchange.target, trio.current_time()))
        return Result()

    async with running(sink) as served:
        for name in ("silent", "talks"):
            wire = served.connect()
            body = served.modern("tools/call", name=name)
            await wire.send("POST", "/mcp", body, served.mirror(body))
            await trio.sleep(1)
            await wire.aclose()
            await trio.testing.wait_all_tasks_blocked()

        assert [("silent", 1.0), ("talks", 2.0)] == ended
        assert 2 == served.pipeline.cancelled
        assert 0 == served.source.server.connections


async def test_a_listener_streams_from_the_start_and_ends_with_a_result(running, autojump_clock):
    """`subscriptions/listen`: acknowledgement first, then notifications, a result when the gateway drains."""

    async def sink(exchange):
        await exchange.relay(Notification("notifications/subscriptions/acknowledged"))
        await exchange.draining.wait()
        return Result({"resultType": "complete"})

    async with running(sink) as served:
        wire = served.connect()
        body = served.modern("subscriptions/listen", 9, notifications={})
        await wire.send("POST", "/mcp", body, served.mirror(body))
        await wire.head()

        assert "notifications/subscriptions/acknowledged" == (await wire.next_message())["method"]
        served.pipeline.lane.draining.set()
        assert {"resultType": "complete"} == (await wire.next_message())["result"]


async def test_a_listener_without_news_starts_its_stream_soon(running, autojump_clock):
    """The head does not wait for the first message for long."""

    async def sink(exchange):
        await trio.sleep_forever()

    async with running(sink) as served:
        wire = served.connect()
        body = served.modern("subscriptions/listen", 9, notifications={})
        await wire.send("POST", "/mcp", body, served.mirror(body))
        status, _ = await wire.head()

        assert (200, 1.0) == (status, trio.current_time())


async def test_a_refused_listener_has_its_status(running, autojump_clock):
    """A refusal comes before the stream starts."""

    async def sink(exchange):
        raise CapacityExceeded("too many listeners")

    async with running(sink) as served:
        answer = await served.post_modern(served.modern("subscriptions/listen", 9, notifications={}))

        assert (503, 50301) == (answer.status, answer.code)


async def test_a_session_id_means_nothing(running, autojump_clock):
    """A modern request is what its body says, whatever headers of the other era it carries."""

    async def sink(exchange):
        return Result({"session": exchange.client.session is not None, "era": exchange.client.era})

    async with running(sink) as served:
        answer = await served.post_modern(served.modern("tools/list"), mcp_session_id="0" * 32, last_event_id="x_1")

        assert {"session": False, "era": "modern"} == answer.json["result"]


async def test_a_bug_outside_the_pipeline_ends_one_exchange(running, autojump_clock, monkeypatch):
    """It is logged and answered; the source goes on."""
    async with running() as served:
        monkeypatch.setattr(type(served.source._serving), "encode_reply", lambda *_: 1 / 0)
        answer = await served.post_modern(served.modern("tools/list", 4))
        monkeypatch.undo()
        after = await served.post_modern(served.modern("tools/list"))

        assert (500, -32603, 4) == (answer.status, answer.code, answer.json["id"])
        assert 200 == after.status
        assert ["an exchange failed outside its pipeline"] == [
            e["event"] for e in served.log.entries if e["log_level"] == "error"
        ]


async def test_a_reply_that_json_cannot_say_is_an_internal_error(running, autojump_clock):
    """A bug in a sink is logged with an incident, and answered."""

    async def sink(exchange):
        return Result({"bad": object()})

    async with running(sink) as served:
        answer = await served.post_modern(served.modern("tools/list"))

        assert (500, -32603) == (answer.status, answer.code)
        incident = answer.json["error"]["data"]["incident"]
        assert incident in [entry.get("incident") for entry in served.log.entries]


async def test_a_slow_reader_slows_its_own_exchange(running, autojump_clock):
    """Notifications that nobody reads make `relay` wait: true back-pressure, no pile."""
    relayed = []

    async def sink(exchange):
        for n in range(100):
            await exchange.relay(Notification("notifications/progress", {"progress": n, "pad": "x" * 1000}))
            relayed.append(n)
        return Result()

    async with running(sink) as served:
        wire = served.connect()
        wire.server.send_stream.send_all_hook = trio.sleep_forever  # or the memory stream would take everything
        body = served.modern("tools/call", name="flood")
        await wire.send("POST", "/mcp", body, served.mirror(body))
        await trio.testing.wait_all_tasks_blocked()

        assert 16 <= len(relayed) <= 2 * 16 + 2


async def test_a_long_reply_comes_in_pieces_and_breaks_off_with_its_exchange(running, autojump_clock):
    """What was written stays, and nobody takes a part of it for the whole."""

    async def sink(exchange):
        await exchange.stream(b'{"content":[')
        await trio.sleep(1)
        if exchange.request.params["name"] == "breaks":
            raise RuntimeError("a bug")
        await exchange.stream(b"]}", last=True)
        return Result()

    async with running(sink) as served:
        whole, broken = served.modern("tools/call", name="ends"), served.modern("tools/call", name="breaks")
        answer = await served.post_modern(whole)
        wire = served.connect()
        await wire.send("POST", "/mcp", broken, served.mirror(broken))
        status, headers = await wire.head()
        with pytest.raises(h11.RemoteProtocolError, match="incomplete"):
            await wire.rest()

        assert (200, {"content": []}) == (answer.status, answer.json["result"])
        assert (200, "application/json") == (status, headers["content-type"])
