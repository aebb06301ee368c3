"""HTTP+SSE of 2024-11-05: a stream that says where to post, answers on it, and an end with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from sluiceway.pipeline.model.document import Limits
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import Unauthenticated
from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.pipeline.testing import cancel_everywhere
from sluiceway.transports.http_source.config import HttpConfig, SseConfig

SSE = SseConfig()
CANCEL = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}


class SseClient:
    """A client of the old transport, on the wire."""

    def __init__(self, served: Any, wire: Any, where: str, **headers: str | None) -> None:
        self.served = served
        self.wire = wire
        self.where = where
        self.headers = headers
        self.ready: list[Any] = []

    async def next(self) -> Any:
        """The next message of the stream."""
        while not self.ready:
            self.ready += [json.loads(event.data) for event in await self.wire.next_events()]
        return self.ready.pop(0)

    @classmethod
    async def open(cls, served: Any, path: str = "/sse", **headers: str | None) -> SseClient:
        wire = served.connect()
        await wire.send("GET", path, headers=headers)
        status, head = await wire.head()
        assert (200, "text/event-stream") == (status, head.get("content-type")), served.log.entries
        (event,) = await wire.next_events()
        assert "endpoint" == event.type
        return cls(served, wire, event.data, **headers)

    async def post(self, body: Any, **headers: str | None) -> Any:
        return await self.served.ask("POST", self.where, body, **{**self.headers, **headers})

    async def call(self, body: Any) -> Any:
        answer = await self.post(body)
        assert (202, b"") == (answer.status, answer.body)
        return await self.next()

    async def initialize(self, version: str = "2024-11-05", **capabilities: Any) -> Any:
        hello = self.served.request("initialize", 0, protocolVersion=version, capabilities=capabilities)
        return await self.call(hello)


async def test_a_client_of_2024_is_served_end_to_end(running, autojump_clock):
    """The stream names where to post; POSTs are accepted, and what follows comes as `message` events, in order."""
    async with running(sse=SSE) as served:
        client = await SseClient.open(served)
        hello = await client.initialize()
        answer = await client.post(served.calling("progress", "a", times=2))
        messages = [await client.next() for _ in range(3)]

        assert client.where.startswith("/sse?session_id=")
        assert len(client.where) >= len("/sse?session_id=") + 32
        assert "2024-11-05" == hello["result"]["protocolVersion"]
        assert 202 == answer.status
        assert [1, 2, None] == [m.get("params", {}).get("progress") for m in messages]
        assert ("a", "progress") == (messages[2]["id"], messages[2]["result"]["name"])
        assert b"event: message\ndata: {" in client.wire.raw


async def test_nothing_is_served_that_was_not_asked_for(running, autojump_clock):
    """HTTP+SSE is off unless the configuration turns it on, and has a path of its own."""
    async with running() as served:
        assert 404 == (await served.ask("GET", "/sse")).status
    async with running(sse=SseConfig(path="/old/events")) as served:
        client = await SseClient.open(served, "/old/events")

        assert client.where.startswith("/old/events?")
        assert 404 == (await served.ask("GET", "/sse")).status


@pytest.mark.parametrize("path", ["sse", "/healthz", "/mcp", "/mcp/stream"])
def test_its_path_must_be_free(path):
    """Two things cannot be served at one place."""
    with pytest.raises(ValueError, match="sse: path"):
        HttpConfig(sse=SseConfig(path=path), aliases=True)


async def test_a_question_is_asked_on_the_stream_and_answered_by_a_post(running, autojump_clock):
    """Whatever the POST that caused it."""
    async with running(sse=SSE) as served:
        client = await SseClient.open(served)
        await client.initialize(elicitation={})
        question = await client.call(served.calling("ask"))
        reply = await client.call({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}})

        assert "elicitation/create" == question["method"]
        assert {"answer": {"action": "accept"}} == reply["result"]


async def test_what_no_request_caused_comes_too(running, autojump_clock):
    """A session's notifications go out on its stream."""
    sessions = []

    async def sink(exchange):
        sessions.append(exchange.client.session)
        return Result({"protocolVersion": "2024-11-05"})

    async with running(sink, sse=SSE) as served:
        client = await SseClient.open(served)
        await client.initialize()
        sessions[0].notify(Notification("notifications/tools/list_changed"))

        assert "notifications/tools/list_changed" == (await client.next())["method"]


async def test_messages_of_2026_travel_over_it(running, autojump_clock):
    """They say everything themselves, and need no handshake."""
    async with running(sse=SSE) as served:
        client = await SseClient.open(served)

        assert "tools/list" == (await client.call(served.modern("tools/list")))["result"]["method"]


async def test_the_client_is_known_by_its_posts(running, autojump_clock):
    """Its address and headers are those of the POST; headers that mirror a body mean nothing here."""
    seen = []

    async def sink(exchange):
        seen.append(exchange.client)
        return Result({"protocolVersion": "2024-11-05"})

    async with running(sink, sse=SSE) as served:
        client = await SseClient.open(served, x_one="stream")
        await client.initialize()
        await client.post(served.request("ping"), x_one="post", mcp_param_a="b", mcp_protocol_version="2026-07-28")
        await client.next()

        assert "post" == seen[1].headers["x-one"]
        assert [] == [name for name in seen[1].headers if name.startswith("mcp-")]
        assert ("sse", "2024-11-05") == (seen[1].transport, seen[1].version)


@pytest.mark.parametrize("cut", ["vanish", "stop"])
async def test_a_stream_that_goes_away_cancels_what_is_under_way(running, autojump_clock, cut):
    """There is nobody to read it, and no way to come back; its session is over."""
    seen = []

    async def sink(exchange):
        seen.append(exchange.client.session)
        if exchange.method == "tools/call":
            try:
                await trio.sleep_forever()
            finally:
                seen.append(cut)
        return Result({"protocolVersion": "2024-11-05"})

    async with running(sink, sse=SSE) as served:
        client = await SseClient.open(served)
        await client.initialize()
        await client.post(served.calling("long"))
        if cut == "vanish":
            await trio.aclose_forcefully(client.wire.stream)
        else:
            await client.wire.aclose()
        await trio.sleep(0.1)
        late = await client.post(served.request("ping"))

        assert [cut] == [each for each in seen if isinstance(each, str)]
        assert seen[0].closed
        assert 404 == late.status
        assert set() == served.pipeline.lane.tickets


async def test_a_request_can_be_cancelled(running, autojump_clock):
    """By its id; nothing is answered then."""
    async with running(sse=SSE) as served:
        client = await SseClient.open(served)
        await client.initialize()
        await client.post(served.calling("slow"))
        await client.post(CANCEL)

        assert 2 == (await client.call(served.request("ping", 2)))["id"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/sse", 400),
        ("POST", "/sse?session_id=", 400),
        ("POST", "/sse?session_id=a&session_id=b", 400),
        ("POST", "/sse?session_id=unknown", 404),
        ("POST", "/sse?" + "&".join(f"a{n}=1" for n in range(20)), 400),
        ("DELETE", "/sse", 405),
        ("GET", "/sse?access_token=x", 400),
    ],
)
async def test_what_is_not_a_message_to_a_stream_is_refused(running, autojump_clock, method, path, status):
    """A POST needs the address that a stream was told."""
    async with running(sse=SSE) as served:
        answer = await served.ask(method, path, served.request("ping"))

        assert status == answer.status


async def test_bodies_are_checked_as_everywhere(running, autojump_clock):
    """One JSON-RPC message in UTF-8, not too long; what is none is answered in the POST."""
    async with running(sse=SSE, max_body=1000) as served:
        client = await SseClient.open(served)
        answers = [
            await client.post(b"{"),
            await client.post([served.request("ping")]),
            await client.post({"jsonrpc": "2.0", "id": None, "method": "ping"}),
            await client.post(served.request("ping", pad="x" * 1000)),
            await client.post(served.request("ping"), content_type="text/plain"),
        ]

        assert [400, 400, 400, 413, 415] == [answer.status for answer in answers]


async def test_hosts_and_origins_are_checked_on_both(running, autojump_clock):
    """A foreign page can neither open a stream nor post; one that may can do both, and ask first."""
    async with running(sse=SSE, allowed_origins=("https://a.example",)) as served:
        client = await SseClient.open(served, origin="https://a.example")
        foreign = {"origin": "https://evil.example"}
        asked = await served.ask("OPTIONS", "/sse", origin="https://a.example", access_control_request_method="POST")

        assert 403 == (await served.ask("GET", "/sse", **foreign)).status
        assert 403 == (await client.post(served.request("ping"), **foreign)).status
        assert 421 == (await served.ask("GET", "/sse", host="evil.example")).status
        assert (204, "GET, POST") == (asked.status, asked.headers["access-control-allow-methods"])
        assert "https://a.example" == (await client.post(served.request("ping"))).headers["access-control-allow-origin"]


async def test_a_client_that_takes_no_events_gets_none(running, autojump_clock):
    """406; one that says nothing gets them, as 2024-11-05 asks for no header."""
    async with running(sse=SSE) as served:
        assert 406 == (await served.ask("GET", "/sse", accept="application/json")).status
        assert await SseClient.open(served, accept=None)


async def _who(client, _message):
    """An auth stage's answer: the name in `authorization`."""
    name = client.headers.get("authorization")
    if name is None:
        raise Unauthenticated("who are you?", challenge="Bearer")
    return Caller(name)


async def test_get_and_post_pass_the_auth_stages_and_a_stream_has_one_principal(running, autojump_clock):
    """401 with the challenge without a credential; 404 with somebody else's, whatever the id."""
    async with running(sse=SSE) as served:
        served.source.identify = _who
        # what is served now was made before
        served.source._serving.identify = _who
        refused = await served.ask("GET", "/sse")
        client = await SseClient.open(served, authorization="ana")
        nobody = await client.post(served.request("ping"), authorization=None)
        other = await client.post(served.request("ping"), authorization="bob")
        answer = await client.post({"jsonrpc": "2.0", "id": "x", "result": {}}, authorization="bob")
        own = await client.call(served.request("ping", 7))

        assert [401, 401, 404, 404] == [each.status for each in (refused, nobody, other, answer)]
        assert "Bearer" == refused.headers["www-authenticate"]
        assert 7 == own["id"]


async def test_where_something_else_authenticates_words_without_a_reply_need_a_proven_credential(
    running, autojump_clock
):
    """A cancel notice or an answer reaches no chain, so it must carry what got a request through one."""

    async def sink(exchange):
        exchange.authenticate(Caller(exchange.client.headers.get("authorization", "nobody")))
        if exchange.target == "slow":
            await trio.sleep(5)
        return Result({"protocolVersion": "2024-11-05"})

    async with running(sink, sse=SSE) as served:
        client = await SseClient.open(served, authorization="ana")
        await client.initialize()
        await client.post(served.calling("slow"))
        stolen = await client.post(CANCEL, authorization="bob")
        first = await client.next()
        at = trio.current_time()
        await client.post(served.calling("slow"))
        own = await client.post(CANCEL)
        foreign = await client.call(served.request("ping", 3)) if own.status == 202 else None

        assert (404, 1, 5.0) == (stolen.status, first["id"], at)
        assert 3 == foreign["id"]
        assert 5.0 == trio.current_time()


async def test_another_principals_requests_are_refused_in_the_chain(running, autojump_clock):
    """Without auth stages at the entrance, the session itself says whose it is."""

    async def sink(exchange):
        exchange.authenticate(Caller(exchange.client.headers.get("authorization", "nobody")))
        return Result({"protocolVersion": "2024-11-05"})

    async with running(sink, sse=SSE) as served:
        client = await SseClient.open(served, authorization="ana")
        await client.initialize()
        await client.post(served.request("ping"), authorization="bob")

        assert "error" in await client.next()


async def test_a_quiet_stream_gets_comments(running, autojump_clock):
    """After `keep_alive` of silence, not sooner."""
    async with running(sse=SSE, keep_alive=10.0, idle_timeout=1000.0) as served:
        client = await SseClient.open(served)
        await trio.sleep(5)
        await client.initialize()
        await client.wire.next_events()
        first = trio.current_time()
        await client.wire.next_events()

        assert 2 == client.wire.comments
        assert [15.0, 25.0] == pytest.approx([first, trio.current_time()], abs=0.05)


async def test_a_client_that_never_says_anything_is_let_go(running, autojump_clock):
    """After `idle_timeout`; one that has said something stays as long as it reads."""
    async with running(sse=SSE, idle_timeout=30.0, keep_alive=100.0) as served:
        mute, other = await SseClient.open(served), await SseClient.open(served)
        await other.initialize()
        with pytest.raises(EOFError):
            await mute.wire.next_events()
        ended = trio.current_time()
        await trio.sleep(60)

        assert 30.0 == pytest.approx(ended, abs=0.05)
        assert 404 == (await mute.post(served.request("ping"))).status
        assert 5 == (await other.call(served.request("ping", 5)))["id"]
        assert 1 == len(served.source._serving.event_streams)


async def test_there_are_so_many_streams_and_no_more(running, autojump_clock):
    """`max_sessions` bounds them; a place is free again when one ends."""
    async with running(sse=SSE, max_sessions=2) as served:
        first, _ = await SseClient.open(served), await SseClient.open(served)
        full = await served.ask("GET", "/sse")
        figures = {figure.name: figure.value for figure in served.source.figures()}
        await first.wire.aclose()
        await trio.sleep(0.1)

        assert (503, "1") == (full.status, full.headers["retry-after"])
        assert 2 == figures["http_event_streams"]
        assert await SseClient.open(served)


async def test_a_client_has_so_many_requests_under_way(running, autojump_clock):
    """One more is refused on the stream, and the stream goes on."""
    async with running(sse=SseConfig(max_in_flight=2)) as served:
        client = await SseClient.open(served)
        await client.initialize()
        for number in (1, 2, 3):
            await client.post(served.calling("slow", number))
        messages = [await client.next() for _ in range(3)]

        assert 3 == messages[0]["id"]
        assert "max_in_flight" in messages[0]["error"]["message"]
        assert {1, 2} == {message["id"] for message in messages[1:]}


async def test_a_client_that_does_not_read_costs_no_more_than_max_unread(running, autojump_clock):
    """Its exchanges wait; what no request caused gives way; requests without end are the end."""
    sessions = []

    async def sink(exchange):
        sessions.append(exchange.client.session)
        if exchange.method == "initialize":
            return Result({"protocolVersion": "2024-11-05"})
        return Result({"pad": "x" * 50_000})

    async with running(sink, limits=Limits(max_in_flight=1000), sse=SseConfig(max_unread=100_000)) as served:
        client = await SseClient.open(served)
        await client.initialize()
        stream = next(iter(served.source._serving.event_streams.values()))
        client.wire.server.send_stream.send_all_hook = trio.sleep_forever
        for number in range(64):
            await client.post(served.calling("big", number))
        for _ in range(1000):
            sessions[0].notify(Notification("notifications/tools/list_changed"))
        size = stream._outbox.size
        statuses = set()
        for number in range(64, 4000):
            statuses.add((await client.post(served.calling("big", number, pad="y" * 50))).status)
            if 404 in statuses:
                break

        assert size <= 200_000
        assert {202, 404} == statuses
        assert sessions[0].closed


async def test_draining_lets_what_is_under_way_finish_and_then_ends_the_stream(running, autojump_clock):
    """New requests are refused on the stream, new streams in HTTP; one with nothing under way ends at once."""
    async with running(sse=SSE) as served:
        idle, busy = await SseClient.open(served), await SseClient.open(served)
        await busy.initialize()
        await busy.post(served.calling("slow"))
        served.source.stop_accepting()
        with pytest.raises(EOFError):
            await idle.wire.next_events()
        at = trio.current_time()
        await busy.post(served.request("ping", 2))
        refused, reply = [await busy.next() for _ in range(2)]
        with pytest.raises(EOFError):
            await busy.wire.next_events()
        fresh = await served.ask("GET", "/sse")

        assert 0.0 == at
        assert (2, 50300) == (refused["id"], refused["error"]["code"])
        assert (1, "slow") == (reply["id"], reply["result"]["name"])
        assert (5.0, 503) == (trio.current_time(), fresh.status)


async def test_what_is_answered_leaves_even_if_the_source_closes(running, autojump_clock):
    """A reply that was there before the end is written before the end."""
    async with running(sse=SSE) as served:
        client = await SseClient.open(served)
        stream = next(iter(served.source._serving.event_streams.values()))
        stream._outbox.put_nowait(b'{"last":1}')
        stream.end()

        assert {"last": 1} == await client.next()
        with pytest.raises(EOFError):
            await client.wire.next_events()


async def test_a_message_may_be_on_several_lines_upstream(running, autojump_clock):
    """It is one event all the same, and parses back to what it was (S4-SE-04)."""
    text = "a\nb\r\nc\u2028d"

    async def sink(_):
        return Result({"protocolVersion": "2024-11-05", "text": text})

    async with running(sink, sse=SSE) as served:
        client = await SseClient.open(served)

        assert text == (await client.initialize())["result"]["text"]


async def test_a_client_can_vanish_anywhere(running):
    """Whatever it had begun, nothing of it stays: no stream, no exchange, no deadline."""
    async with running(sse=SSE) as served:

        async def live():
            try:
                client = await SseClient.open(served)
                await client.initialize()
                await client.call(served.calling("progress"))
            finally:
                while served.wires:
                    stream = served.wires.pop().stream
                    stream.send_stream.close()
                    stream.receive_stream.close()

        await live()
        await trio.testing.wait_all_tasks_blocked()
        deadlines = len(served.source._serving.deadlines)
        await cancel_everywhere(live)
        await trio.testing.wait_all_tasks_blocked()

        assert {} == served.source._serving.event_streams
        assert set() == served.pipeline.lane.tickets
        assert deadlines == len(served.source._serving.deadlines)


async def test_rubbish_on_the_wire_ends_nothing_but_itself(running, autojump_clock):
    """Answers to nothing, unknown cancels, notifications before the handshake: 202, and nothing happens."""
    async with running(sse=SSE) as served:
        client = await SseClient.open(served)
        for body in (
            {"jsonrpc": "2.0", "id": "nobody", "result": {}},
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": {"a": 1}}},
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
        ):
            assert 202 == (await client.post(body)).status
        early = await client.call(served.request("tools/list", 9))

        assert (9, -32600) == (early["id"], early["error"]["code"])
        assert json.dumps(early)
