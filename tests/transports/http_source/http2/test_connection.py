"""HTTP/2 as a well-behaved client sees it: the same endpoint as over HTTP/1.1."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes

from sluiceway.pipeline.protocol.errors import Unauthenticated
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.transports.sse_codec import COMMENT, EventDecoder


def events(body: bytes) -> list[Any]:
    """What the events of a body say."""
    return [json.loads(event.data) for event in EventDecoder(1 << 20).feed(body) if event.data]


async def test_a_call_is_answered(running: Any, dial: Any, autojump_clock: Any) -> None:
    """A modern call gets its result as JSON, without the headers of HTTP/1.1 connections."""
    async with running() as served:
        peer = await dial(served)
        body = served.modern("tools/call", 7, name="x")
        answer = await peer.ask("POST", "/mcp", body, served.mirror(body))

        assert (answer.status, answer.json["id"]) == (200, 7)
        assert answer.headers["content-type"] == "application/json"
        assert {"connection", "transfer-encoding", "date"} & set(answer.headers) == {"date"}


async def test_calls_are_served_side_by_side(running: Any, dial: Any, autojump_clock: Any) -> None:
    """Each is answered when it is ready, whatever came before it."""
    async with running() as served:
        peer = await dial(served)
        done = []
        streams = {}
        for seconds in (5, 3, 1, 4, 2):
            body = served.modern("tools/call", seconds, name="slow", arguments={"seconds": seconds})
            streams[await peer.send("POST", "/mcp", body, served.mirror(body))] = seconds
        while len(done) < 5:
            await peer.pump()
            done += [n for s, n in streams.items() if peer.responses[s].ended and n not in done]

        assert done == [1, 2, 3, 4, 5]
        assert trio.current_time() == 5.0


async def test_an_event_stream_has_its_comments(running: Any, dial: Any, autojump_clock: Any) -> None:
    """Progress comes as events, silence as comments, the result last; other streams go on meanwhile."""
    async with running(keep_alive=1.0) as served:
        peer = await dial(served)
        slow = served.modern("tools/call", 1, name="slow", arguments={"seconds": 4.5})
        progress = served.modern("tools/call", 2, name="progress")
        stream = await peer.send("POST", "/mcp", slow, served.mirror(slow))
        other = await peer.ask("POST", "/mcp", progress, served.mirror(progress))
        answer = await peer.response(stream)

        assert [message.get("method", message.get("id")) for message in events(other.body)] == [
            "notifications/progress",
            2,
        ]
        assert [message["id"] for message in events(answer.body)] == [1]
        assert answer.body.count(COMMENT) == 4
        assert answer.headers["content-type"] == "text/event-stream"


async def test_a_reset_cancels_that_exchange_and_no_other(running: Any, dial: Any, autojump_clock: Any) -> None:
    """In the modern era, at once."""
    async with running() as served:
        peer = await dial(served)
        body = served.modern("tools/call", 1, name="slow")
        first, second = [await peer.send("POST", "/mcp", body, served.mirror(body)) for _ in range(2)]
        await trio.sleep(1)
        assert len(served.pipeline.lane.tickets) == 2
        peer.h2.reset_stream(first, ErrorCodes.CANCEL)
        await peer.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert len(served.pipeline.lane.tickets) == 1
        answer = await peer.response(second)

        assert (answer.status, trio.current_time()) == (200, 5.0)
        assert peer.responses[first].status == 0


async def test_a_legacy_exchange_runs_on_without_its_stream(running: Any, dial: Any, autojump_clock: Any) -> None:
    """And is resumed on another one, with Last-Event-ID."""
    async with running() as served:
        session = await served.session()
        peer = await dial(served)
        first = await peer.send("POST", "/mcp", served.calling("ask"), session)
        await peer.until(lambda: b"elicitation" in peer.responses[first].body)
        [_, question] = EventDecoder(1 << 20).feed(peer.responses[first].body)
        peer.h2.reset_stream(first, ErrorCodes.CANCEL)
        again = await peer.send("GET", "/mcp", None, {**session, "last_event_id": question.id})
        reply = {"jsonrpc": "2.0", "id": json.loads(question.data)["id"], "result": {"a": 1}}
        accepted = await peer.ask("POST", "/mcp", reply, session)
        answer = await peer.response(again)

        assert accepted.status == 202
        assert events(answer.body)[-1]["result"] == {"answer": {"a": 1}}


async def test_a_client_that_leaves_cancels_all_it_asked_for(running: Any, dial: Any, autojump_clock: Any) -> None:
    """Without a word, or in the middle of a frame."""
    async with running() as served:
        for rest in (b"", b"\0\0\x10"):
            peer = await dial(served)
            body = served.modern("tools/call", 1, name="slow")
            for _ in range(3):
                await peer.send("POST", "/mcp", body, served.mirror(body))
            await trio.sleep(1)
            await peer.raw(rest)
            await peer.stream.aclose()
            await trio.testing.wait_all_tasks_blocked()

            assert len(served.pipeline.lane.tickets) == 0
            assert served.source.server.connections == 0
        assert served.source.server.contained == 0


async def test_what_was_read_as_the_client_left_is_not_served(running: Any, dial: Any, autojump_clock: Any) -> None:
    """Writing has found it gone; a request that was on its way to us by then would have nobody to cancel it."""
    said: list[bytes] = []

    class Leaving:
        """A client that is gone as soon as something is written, and whose last words are read all the same."""

        protocol = "h2"

        async def send_all(self, data: bytes) -> None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError

        async def receive_some(self, _max_bytes: int) -> bytes:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            return said.pop(0) if said else b""

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    async with running() as served:
        client, ours = trio.testing.memory_stream_pair()
        peer = type(await dial(served))(client)
        body = served.modern("tools/call", 1, name="slow")
        for say in (peer.start(), peer.send("POST", "/mcp", body, served.mirror(body))):
            await say
            said.append(bytes(await ours.receive_some()))
        said[:] = [b"".join(said)]
        served.nursery.start_soon(served.source.server.handle, Leaving())
        await trio.sleep(5)

        assert not said
        assert len(served.pipeline.lane.tickets) == 0
        assert served.source.server.connections == 1


@pytest.mark.parametrize(("code", "statuses"), [(0, [200, 200]), (2, [0, 0])])
async def test_a_client_may_say_goaway_in_mid_call(
    running: Any, dial: Any, autojump_clock: Any, code: int, statuses: list[int]
) -> None:
    """It is still answered, then the connection ends; with an error it ends at once."""
    async with running() as served:
        peer = await dial(served)
        body = served.modern("tools/call", 1, name="slow")
        streams = [await peer.send("POST", "/mcp", body, served.mirror(body)) for _ in range(2)]
        await peer.raw(bytes((0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, code)))
        await peer.until_closed()

        assert [peer.responses[stream].status for stream in streams] == statuses
        assert peer.goaways == [(streams[-1], 0)]
        assert trio.current_time() == (5.0 if code == 0 else 0.0)


async def test_sessions_work_as_over_http_1(running: Any, dial: Any, autojump_clock: Any) -> None:
    """Handshake, event stream, end: one connection, which is not the session."""
    async with running() as served:
        peer, other = await dial(served), await dial(served)
        hello = await peer.ask("POST", "/mcp", served.request("initialize", 0, protocolVersion="2025-11-25"))
        session = {"mcp_session_id": hello.headers["mcp-session-id"], "mcp_protocol_version": "2025-11-25"}
        listening = await peer.send("GET", "/mcp", None, session)
        answer = await other.ask("POST", "/mcp", served.calling("x"), session)
        ended = await other.ask("DELETE", "/mcp", None, session)
        stream = await peer.response(listening)
        late = await peer.ask("POST", "/mcp", served.calling("x"), session)

        assert [each.status for each in (hello, answer, ended, stream, late)] == [200, 200, 200, 200, 404]


async def test_the_endpoint_checks_what_it_always_checks(running: Any, dial: Any, autojump_clock: Any) -> None:
    """Host, origin, path, method, media types, credentials in the query; and answers OPTIONS and HEAD."""
    async with running() as served:
        peer = await dial(served)
        body = served.modern("tools/list")
        mirror = served.mirror(body)
        preflight = {"origin": "http://localhost", "access-control-request-method": "POST"}

        async def status(*args: Any, **kwargs: Any) -> int:
            return (await peer.ask(*args, **kwargs)).status

        assert await status("POST", "/mcp", body, {**mirror, ":authority": "evil.example"}) == 421
        assert await status("POST", "/mcp", body, {**mirror, ":authority": None}) == 400
        assert await status("POST", "/mcp", body, {**mirror, ":authority": "u@localhost"}) == 400
        assert await status("POST", "/mcp", body, {**mirror, "origin": "https://evil.example"}) == 403
        assert await status("POST", "/other", body, mirror) == 404
        assert await status("PUT", "/mcp", body, mirror) == 405
        assert await status("POST", "/mcp", body, {**mirror, "content-type": "text/plain"}) == 415
        assert await status("POST", "/mcp", body, {**mirror, "accept": "text/html"}) == 406
        assert await status("POST", "/mcp?access_token=1", body, mirror) == 400
        assert await status("POST", "/mcp", body, {**mirror, "mcp-method": "tools/call"}) == 400
        assert await status("OPTIONS", "/mcp", None, preflight) == 204
        head = await peer.ask("HEAD", "/healthz")

        assert (head.status, head.headers["content-length"], head.body) == (200, "18", b"")
        assert served.source.server.connections == 1


async def test_what_the_exchange_knows_of_its_client(running: Any, dial: Any, autojump_clock: Any) -> None:
    """Headers as over HTTP/1.1: host, cookies in one; and nothing of HTTP/2."""
    seen: list[Any] = []

    async def sink(exchange: Any) -> Result:
        seen.append(dict(exchange.client.headers))
        return Result()

    async with running(sink) as served:
        peer = await dial(served)
        body = served.modern("tools/list")
        mirror = {k.replace("_", "-"): v for k, v in served.mirror(body).items() if v}
        fields = [(":method", "POST"), (":scheme", "https"), (":path", "/mcp?a=b"), (":authority", "localhost:8443")]
        fields += [("content-type", "application/json"), ("accept", "*/*"), ("cookie", "a=b"), ("cookie", "c=d")]
        fields += [*mirror.items(), ("x_forwarded_for", "1.2.3.4"), ("te", "trailers")]
        await peer.response(await peer.request(fields, json.dumps(body).encode()))
        [headers] = seen

        assert headers["host"] == "localhost:8443"
        assert headers["cookie"] == "a=b; c=d"
        assert not [name for name in headers if name.startswith(":") or "_" in name]


async def test_answers_are_compressed_if_that_is_wanted(running: Any, dial: Any, autojump_clock: Any) -> None:
    """`compress_from` holds for every version of HTTP."""

    async def sink(_: Any) -> Result:
        return Result({"text": "x" * 10_000})

    async with running(sink, compress_from=1000) as served:
        peer = await dial(served)
        body = served.modern("tools/list")
        answer = await peer.ask("POST", "/mcp", body, {**served.mirror(body), "accept-encoding": "gzip"})

        assert answer.headers["content-encoding"] == "gzip"
        assert len(json.loads(gzip.decompress(answer.body))["result"]["text"]) == 10_000


async def test_a_client_that_asks_first_is_told_to_go_on(running: Any, dial: Any, autojump_clock: Any) -> None:
    """100 (Continue) when the body is wanted; none when the request is refused without it, or it comes unasked."""
    async with running() as served:
        peer = await dial(served)
        body = served.modern("tools/list")
        expecting = {**served.mirror(body), "expect": "100-continue"}
        stream = await peer.send("POST", "/mcp", None, expecting, end=False)
        response = peer.responses[stream]
        await peer.until(lambda: response.interim)
        peer.h2.send_data(stream, json.dumps(body).encode(), end_stream=True)
        await peer.flush()
        await peer.response(stream)
        refused = await peer.send("POST", "/other", None, expecting, end=False)
        impatient = await peer.ask("POST", "/mcp", body, expecting)

        assert (response.interim, response.status) == ([100], 200)
        refused_response = await peer.response(refused)
        assert (refused_response.interim, refused_response.status) == ([], 404)
        assert (impatient.interim, impatient.status) == ([], 200)


async def test_who_is_refused_unread_is_not_asked_for_its_body(running: Any, dial: Any, autojump_clock: Any) -> None:
    """401 without a 100 (Continue), while a short body is read in any case."""
    async with running() as served:

        async def refuse(_: Any) -> None:
            raise Unauthenticated("who?", challenge="Toy")

        served.source._serving.refuse_unread = refuse
        peer = await dial(served)
        body = served.modern("tools/list")
        stream = await peer.send("POST", "/mcp", None, {**served.mirror(body), "expect": "100-continue"}, end=False)
        response = await peer.response(stream)
        short = await peer.ask("POST", "/mcp", body, served.mirror(body))

        assert (response.interim, response.status, response.headers["www-authenticate"]) == ([], 401, "Toy")
        assert short.status == 200


async def test_a_body_is_read_as_it_comes_and_as_long_as_it_may_be(
    running: Any, dial: Any, autojump_clock: Any
) -> None:
    """Windows are opened as it is read: much more than one of them fits through."""
    async with running(max_body=2_000_000) as served:
        peer = await dial(served)
        body = served.modern("tools/call", 1, name="x", arguments={"text": "x" * 1_500_000})
        data = json.dumps(body).encode()
        stream = await peer.send("POST", "/mcp", None, served.mirror(body), end=False)
        while data:
            room = min(peer.h2.local_flow_control_window(stream), 16384, len(data))
            if room:
                peer.h2.send_data(stream, data[:room], end_stream=room == len(data))
                data = data[room:]
                await peer.flush()
            else:
                await peer.pump()

        assert (await peer.response(stream)).status == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_long_is_refused(running: Any, dial: Any, autojump_clock: Any, declared: bool) -> None:
    """413, and RST_STREAM with NO_ERROR: the rest need not be sent. The connection goes on."""
    async with running(max_body=10_000) as served:
        peer = await dial(served)
        headers = {"content-length": "1000000"} if declared else {}
        stream = await peer.send("POST", "/mcp", b"x" * 11_000, headers, end=False)
        answer = await peer.response(stream)
        await peer.until(lambda: answer.reset is not None)

        assert (answer.status, answer.reset) == (413, ErrorCodes.NO_ERROR)
        assert (await peer.ask("GET", "/healthz")).status == 200


@pytest.mark.parametrize("started", [False, True])
async def test_a_bug_ends_one_request(running: Any, dial: Any, autojump_clock: Any, started: bool) -> None:
    """500, or RST_STREAM with INTERNAL_ERROR if something was said already; it is logged, and others go on."""
    async with running() as served:
        application = served.source.server.application

        async def broken(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] != "/bug":
                await application(scope, receive, send)
                return
            if started:
                await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
                await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise RuntimeError("a bug")

        served.source.server.application = broken
        peer = await dial(served)
        answer = await peer.ask("GET", "/bug")
        fine = await peer.ask("GET", "/healthz")

        assert (answer.status, answer.reset) == ((200, ErrorCodes.INTERNAL_ERROR) if started else (500, None))
        assert fine.status == 200
        assert served.source.server.contained == 1


async def test_what_is_said_after_the_client_left_goes_nowhere(running: Any, dial: Any, autojump_clock: Any) -> None:
    """An application sees the disconnect, its callback is called once, and what it sends is dropped."""
    told: list[Any] = []

    async with running() as served:

        async def application(scope: Any, receive: Any, send: Any) -> None:
            scope["extensions"]["sluiceway.on_gone"](lambda: told.append("gone"))
            told.append((await receive())["more_body"])
            told.append((await receive())["type"])
            told.append((await receive())["type"])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x"})
            scope["extensions"]["sluiceway.on_gone"](lambda: told.append("gone already"))

        served.source.server.application = application
        peer = await dial(served)
        stream = await peer.send("GET", "/x")
        await trio.testing.wait_all_tasks_blocked()
        peer.h2.reset_stream(stream)
        await peer.flush()
        await trio.testing.wait_all_tasks_blocked()

        assert told == [False, "gone", "http.disconnect", "http.disconnect", "gone already"]
        assert peer.responses[stream].status == 0
