"""Streams that break and go on: `Last-Event-ID`, the resume window, the session's own stream (DC-GP-16)."""

from __future__ import annotations

import pytest
import trio

from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.transports.http_source.stream import MessageStream


async def counting_sink(exchange):
    """Relays one numbered notification a second, as many as asked for."""
    if exchange.method == "initialize":
        return Result({"protocolVersion": exchange.request.params["protocolVersion"]})
    arguments = exchange.request.params["arguments"]
    for n in range(1, arguments["times"] + 1):
        await exchange.relay(Notification("notifications/progress", {"progress": n}))
        await trio.sleep(1)
    return Result({"done": True})


def progress(messages):
    """The numbers of progress notifications; `done` for the reply."""
    return [m["params"]["progress"] if "params" in m else "done" for m in messages]


async def drop_after(served, wire, seconds):
    """Cut a connection, after some time; the id of the last event it got."""
    await trio.sleep(seconds)
    await wire.next_events()
    last = wire.decoder._id
    await wire.aclose()
    return last


async def read_on(served, session, last):
    wire = served.connect()
    await wire.send("GET", "/mcp", None, {**session, "last_event_id": last})
    return await wire.response()


async def test_a_cut_stream_resumes_without_loss_or_duplicate(running, autojump_clock):
    """DC-GP-16: the exchange went on meanwhile, and the GET brings exactly what the client has not seen."""
    async with running(counting_sink) as served:
        session = await served.session()
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("x", times=5), session)
        await wire.head()
        last = await drop_after(served, wire, 0.5)
        await trio.sleep(2)
        answer = await read_on(served, session, last)

        assert last.endswith("_1")
        assert [2, 3, 4, 5, "done"] == progress(answer.messages)
        assert 0 == served.pipeline.cancelled


@pytest.mark.parametrize("after", [0, 1, 3, 6])
async def test_a_finished_stream_can_be_read_again_from_any_event(running, autojump_clock, after):
    """A client may not have got what was sent; the events stay for the resume window."""
    async with running(counting_sink, resume_window=30.0) as served:
        session = await served.session()
        first = await served.post(served.calling("x", times=5), **session)
        last = first.events[-1].id.rpartition("_")[0] + f"_{after}"
        answer = await read_on(served, session, last)
        await trio.sleep(31)
        late = await read_on(served, session, last)

        assert [1, 2, 3, 4, 5, "done"][after:] == progress(answer.messages)
        assert 410 == late.status
        assert 0 == len(served.source._serving.replay) - 1  # the standalone stream's place


async def test_an_exchange_nobody_comes_back_for_is_cancelled_after_the_resume_window(running, autojump_clock):
    """A dropped legacy connection is no cancel, but not for ever."""
    async with running(counting_sink, resume_window=10.0, keep_alive=1.5) as served:
        session = await served.session()
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("x", times=28), session)
        await wire.head()
        last = await drop_after(served, wire, 1)
        await trio.sleep(9.5)
        assert 0 == served.pipeline.cancelled
        await trio.sleep(1)
        answer = await read_on(served, session, last)

        assert 1 == served.pipeline.cancelled
        assert 410 == answer.status


async def test_coming_back_in_time_stops_the_clock(running, autojump_clock):
    """And leaving again starts it anew."""
    async with running(counting_sink, resume_window=3.0) as served:
        session = await served.session()
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("x", times=12), session)
        await wire.head()
        seen, last = [], ""
        for _ in range(3):
            await trio.sleep(2.5)
            for event in await wire.next_events():
                seen.append(event.id)
                last = event.id
            await wire.aclose()
            await trio.sleep(1)
            wire = served.connect()
            await wire.send("GET", "/mcp", None, {**session, "last_event_id": last})
            await wire.head()
        rest = [event.id for event in wire.decoder.feed(await wire.rest())]

        assert list(range(14)) == sorted({int(i.rpartition("_")[2]) for i in seen + rest})
        assert 0 == served.pipeline.cancelled


async def test_a_client_that_left_before_any_event_cannot_resume_but_is_not_cancelled(
    running, autojump_clock, monkeypatch
):
    """It has no id; its exchange runs on within the window, and nothing it says is kept."""
    finished, kept = [], []
    monkeypatch.setattr(MessageStream, "_append", lambda self, message: kept.append(message))

    async def sink(exchange):
        if exchange.method == "initialize":
            return Result({"protocolVersion": "2025-11-25"})
        await trio.sleep(3 if exchange.target == "short" else 20)
        for _ in range(100):
            await exchange.relay(Notification("notifications/progress"))
        finished.append(exchange.target)
        return Result()

    async with running(sink, resume_window=10.0) as served:
        session = {"mcp_session_id": served.source.sessions.open({}, {}).session.id}
        for n, name in enumerate(("short", "long")):
            wire = served.connect()
            await wire.send("POST", "/mcp", served.calling(name, n), session)
            await trio.sleep(1)
            await wire.aclose()
        await trio.sleep(15)

        assert ["short"] == finished
        assert 1 == served.pipeline.cancelled
        assert [] == kept


async def test_only_so_many_events_are_kept(running, autojump_clock):
    """`resume_events` bounds a stream: who missed more is told 410, who missed less gets all."""
    async with running(counting_sink, resume_events=16) as served:
        session = await served.session()
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("x", times=25), session)
        await wire.head()
        last = await drop_after(served, wire, 0)
        stream = last.rpartition("_")[0]
        await trio.sleep(27)
        lost = await read_on(served, session, last)
        found = await read_on(served, session, f"{stream}_10")

        assert 410 == lost.status
        assert [*range(11, 26), "done"] == progress(found.messages)


async def test_only_so_many_bytes_are_kept_and_the_oldest_stream_forgets_first(running, autojump_clock):
    """`resume_bytes` bounds all streams together."""
    async with running(counting_sink, resume_bytes=700) as served:
        session = await served.session()
        first = await served.post(served.calling("x", 1, times=5), **session)
        second = await served.post(served.calling("x", 2, times=5), **session)
        statuses = [
            (await read_on(served, session, answer.events[-1].id.rpartition("_")[0] + "_0")).status
            for answer in (first, second)
        ]

        assert [410, 200] == statuses
        assert served.source._serving.replay.size <= 700


@pytest.mark.parametrize("last", ["nonsense", "_", "abc_", "abc_x", "f" * 32 + "_1", "f" * 32 + "_" + "9" * 30])
async def test_foreign_event_ids_are_refused(running, autojump_clock, last):
    """Only ids of this session's streams name anything."""
    async with running(counting_sink) as served:
        session, other = await served.session(), await served.session()
        mine = await served.post(served.calling("x", times=1), **session)
        answers = [await read_on(served, session, last), await read_on(served, other, mine.events[-1].id)]

        assert [410, 410] == [answer.status for answer in answers]


async def test_an_event_id_of_the_future_is_refused(running, autojump_clock):
    """And the exchange it would have broken into is not kept alive by the attempt."""
    async with running(counting_sink, resume_window=5.0) as served:
        session = await served.session()
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("x", times=20), session)
        await wire.head()
        last = await drop_after(served, wire, 0)
        answer = await read_on(served, session, last.rpartition("_")[0] + "_99")
        await trio.sleep(6)

        assert 410 == answer.status
        assert 1 == served.pipeline.cancelled


async def test_a_newer_reader_takes_over(running, autojump_clock):
    """A client whose old connection is half dead comes back on a new one; the old one ends."""
    async with running(counting_sink) as served:
        session = await served.session()
        old = served.connect()
        await old.send("POST", "/mcp", served.calling("x", times=4), session)
        await old.head()
        events = await old.next_events()
        await trio.sleep(1.5)
        answer = await read_on(served, session, events[-1].id)
        seen = [e.id for e in events] + [e.id for e in old.decoder.feed(await old.rest())]

        assert [2, 3, 4, "done"] == progress(answer.messages)
        assert len(seen) < 4


async def test_a_session_has_a_stream_for_what_no_request_caused(running, autojump_clock):
    """`session.notify` reaches an open GET stream at once, and waits for one otherwise."""
    sessions = []

    async def sink(exchange):
        sessions.append(exchange.client.session)
        return Result({"protocolVersion": "2025-11-25"})

    async with running(sink, keep_alive=5.0) as served:
        session = await served.session()
        sessions[0].notify(Notification("notifications/tools/list_changed"))
        wire = served.connect()
        await wire.send("GET", "/mcp", None, session)
        status, headers = await wire.head()
        first = await wire.next_message()
        sessions[0].notify(Notification("notifications/prompts/list_changed"))
        second = await wire.next_message()
        await wire.next_events()

        assert (200, "text/event-stream") == (status, headers["content-type"])
        assert ["notifications/tools/list_changed", "notifications/prompts/list_changed"] == [
            m["method"] for m in (first, second)
        ]
        assert (1, 5.0) == (wire.comments, trio.current_time())


async def test_the_sessions_own_stream_resumes_too_and_forgets_the_oldest_first(running, autojump_clock):
    """Nothing twice; what overflowed while nobody listened is counted."""
    sessions = []

    async def sink(exchange):
        sessions.append(exchange.client.session)
        return Result({"protocolVersion": "2025-06-18"})

    async with running(sink, resume_events=16) as served:
        session = await served.session("2025-06-18")

        def notify(*numbers):
            for n in numbers:
                sessions[0].notify(Notification("notifications/message", {"n": n}))

        async def read(last=None):
            wire = served.connect()
            await wire.send("GET", "/mcp", None, {**session, "last_event_id": last})
            await wire.head()
            events = await wire.next_events()
            await wire.aclose()
            return events

        notify(*range(1, 4))
        first = await read()
        notify(4)
        again = await read(first[0].id)
        notify(*range(5, 30))
        late = await read()

        assert ["_1", "_2", "_3"] == [e.id[-2:] for e in first]
        assert ["_2", "_3", "_4"] == [e.id[-2:] for e in again]
        assert list(range(14, 30)) == [int(e.id.rpartition("_")[2]) for e in late]
        found = served.source.sessions.find(session["mcp_session_id"])
        assert 9 == found.standalone.dropped


async def test_a_deleted_session_ends_its_stream(running, autojump_clock):
    """The GET is complete then, and keeps nothing."""
    async with running(counting_sink) as served:
        session = await served.session()
        wire = served.connect()
        await wire.send("GET", "/mcp", None, session)
        await wire.head()
        await served.ask("DELETE", "/mcp", **session)
        await wire.rest()

        assert 0 == len(served.source._serving.replay)
