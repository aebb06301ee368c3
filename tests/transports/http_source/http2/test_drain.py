"""The way out over HTTP/2: GOAWAY in two steps, and no call is lost."""

from __future__ import annotations

import json
from typing import Any

import trio
import trio.testing

from sluiceway.pipeline.protocol.messages import Result
from sluiceway.transports.sse_codec import EventDecoder

LAST = 2**31 - 1


async def test_calls_in_flight_are_answered(running: Any, dial: Any, autojump_clock: Any) -> None:
    """Then comes GOAWAY without a last stream, then GOAWAY with it, then the end."""
    async with running() as served:
        peer = await dial(served)
        body = served.modern("tools/call", 1, name="slow")
        streams = [await peer.send("POST", "/mcp", body, served.mirror(body)) for _ in range(20)]
        await trio.sleep(1)
        served.source.stop_accepting()
        served.source.stop_accepting()
        await peer.until(lambda: all(peer.responses[stream].ended for stream in streams))
        before = list(peer.goaways)
        await peer.until_closed()

        assert before == []
        assert [peer.responses[stream].status for stream in streams] == [200] * 20
        assert peer.goaways == [(LAST, 0), (streams[-1], 0)]
        assert trio.current_time() == 5.0


async def test_goaway_waits_until_the_answers_are_heard(running: Any, dial: Any, autojump_clock: Any) -> None:
    """A PING goes first; a client that does not answer it is told after a second, and only once."""
    async with running() as served:
        peer = await dial(served)
        peer.answers_pings = False
        body = served.modern("tools/call", 1, name="slow")
        stream = await peer.send("POST", "/mcp", body, served.mirror(body))
        await trio.sleep(1)
        served.source.stop_accepting()
        await peer.until_closed()

        assert peer.responses[stream].status == 200
        assert peer.goaways == [(1, 0)]
        assert trio.current_time() == 6.0


async def test_an_idle_connection_is_closed_when_its_client_has_heard(
    running: Any, dial: Any, watch: Any, autojump_clock: Any
) -> None:
    """At once for one that answers the PING, after a second for one that does not, or has not even begun."""
    async with running() as served:
        peer, deaf, mute = await dial(served), await dial(served), watch(served)
        deaf.answers_pings = False
        await trio.testing.wait_all_tasks_blocked()
        served.source.stop_accepting()
        await peer.until_closed()
        heard = trio.current_time()
        await deaf.until_closed()
        await mute.until(lambda: False)

        assert (heard, trio.current_time()) == (0.0, 1.0)
        assert peer.goaways == deaf.goaways == [(LAST, 0), (0, 0)]


async def test_a_request_that_crosses_is_answered(running: Any, dial: Any, autojump_clock: Any) -> None:
    """It is told to try elsewhere, as its client is from now on; and answers to questions still count."""
    async with running() as served:
        session = await served.session()
        peer = await dial(served)
        asking = await peer.send("POST", "/mcp", served.calling("ask"), session)
        await peer.until(lambda: b"elicitation" in peer.responses[asking].body)
        served.source.stop_accepting()
        body = served.modern("tools/list")
        late = await peer.send("POST", "/mcp", body, served.mirror(body))
        found = EventDecoder(1 << 20).feed(peer.responses[asking].body)
        question = json.loads(next(event.data for event in found if event.data))
        reply = {"jsonrpc": "2.0", "id": question["id"], "result": {}}
        answer = await peer.ask("POST", "/mcp", reply, session)
        await peer.until_closed()

        assert (peer.responses[late].status, peer.responses[late].headers["retry-after"]) == (503, "1")
        assert answer.status == 202
        assert b'"answer":{}' in peer.responses[asking].body
        assert peer.responses[asking].ended
        assert peer.goaways[-1] == (5, 0)


async def test_streams_that_only_listen_are_ended(running: Any, dial: Any, autojump_clock: Any) -> None:
    """They would hold up the drain for ever."""
    async with running() as served:
        session = await served.session()
        peer = await dial(served)
        stream = await peer.send("GET", "/mcp", None, session)
        await trio.sleep(1)
        served.source.stop_accepting()
        await peer.until_closed()

        assert peer.responses[stream].ended
        assert trio.current_time() == 1.0


async def test_a_client_that_goes_on_asking_does_not_hold_up_the_drain(
    running: Any, dial: Any, autojump_clock: Any
) -> None:
    """It has heard that it should not; when nothing is left that it asked for, that is the end."""
    async with running() as served:
        peer = await dial(served)
        body = served.modern("tools/call", 1, name="slow")
        await peer.send("POST", "/mcp", body, served.mirror(body))
        await trio.sleep(1)
        served.source.stop_accepting()
        while not peer.closed:
            try:
                await peer.ask("GET", "/healthz")
            except trio.BrokenResourceError:
                break
            await trio.sleep(0.5)

        assert trio.current_time() < 6.0


async def test_the_source_waits_until_its_answers_have_left(running: Any, dial: Any, autojump_clock: Any) -> None:
    """Draining is not over when the exchange is, but when a client that reads slowly has what it said."""

    async def sink(_: Any) -> Result:
        return Result({"text": "x" * 300_000})

    async with running(sink) as served:
        peer = await dial(served, consume=False)
        body = served.modern("tools/list")
        stream = await peer.send("POST", "/mcp", body, served.mirror(body))
        response = peer.responses[stream]
        await peer.until(lambda: len(response.body) == 65535)
        served.source.stop_accepting()
        over = trio.Event()

        async def deliver() -> None:
            await served.source.delivered()
            over.set()

        served.nursery.start_soon(deliver)
        await trio.testing.wait_all_tasks_blocked()
        assert (len(served.pipeline.lane.tickets), over.is_set()) == (0, False)
        peer.h2.increment_flow_control_window(1_000_000)
        peer.h2.increment_flow_control_window(1_000_000, stream)
        await peer.flush()
        await peer.until_closed()
        await peer.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert over.is_set()

        assert len(response.json["result"]["text"]) == 300_000
