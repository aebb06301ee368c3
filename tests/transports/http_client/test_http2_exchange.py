"""Requests over HTTP/2, to a server that is written frame by frame."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from sluiceway.pipeline.protocol.errors import UpstreamClosed, UpstreamProtocolError
from sluiceway.transports.http_client.http2_state import CONNECTION_WINDOW, STREAM_WINDOW

CANCEL = 8
KIB = 1024


async def test_requests_at_the_same_time_share_a_connection(h2, autojump_clock):
    """Answers may come in any order, and each finds its request."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        asked = [await peer.request() for _ in range(3)]
        for each in reversed(asked):
            await peer.answer(each, each.body)
        await peer.serve()

    async with h2.speaking(serve) as kit:
        answers: dict[bytes, bytes] = {}

        async def one(body: bytes) -> None:
            answers[body] = await kit.ask(body)

        async with trio.open_nursery() as nursery:
            for body in (b"a", b"b", b"c"):
                nursery.start_soon(one, body)

        assert answers == {b"a": b"200 a", b"b": b"200 b", b"c": b"200 c"}
        assert len(kit.server.peers) == 1


async def test_a_request_has_the_fields_that_http2_wants(h2, autojump_clock):
    """Pseudo-fields first, names in lower case, and the length of the content."""
    seen: list[Any] = []

    async def serve(peer: Any) -> None:
        await peer.greet()
        while True:
            seen.append(await peer.request())
            await peer.answer(seen[-1])

    async with h2.speaking(serve) as kit:
        head = kit.client.prepare("POST", {"X-Key": "secret"}, "/other?q=1")
        with await kit.client.send(head, b"Mcp-Method: ping\r\n", b"{}", repeatable=False) as response:
            await response.body(10)

    assert list(seen[0].headers.items()) == [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "up.example"),
        (":path", "/other?q=1"),
        ("x-key", "secret"),
        ("mcp-method", "ping"),
        ("content-length", "2"),
    ]
    assert seen[0].body == b"{}"


async def test_requests_of_one_moment_leave_in_one_send(h2, autojump_clock):
    """Also with their content, and without a task for each."""
    sends: list[bytes] = []
    async with h2.speaking(h2.greeted) as kit:
        await kit.ask()
        transport = kit.server.transports[0]
        send_all = transport.send_all

        async def noting(data: bytes) -> None:
            sends.append(data)
            await send_all(data)

        transport.send_all = noting  # type: ignore[method-assign]  # to look on
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(kit.ask)

    assert sends[0].count(b"hello") == 20


async def test_an_event_stream_is_read_as_it_comes(h2, autojump_clock):
    """Until it is ended, or left."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        asked = await peer.request()
        await peer.send(peer.head(asked.stream_id, content_type="text/event-stream"))
        for part in (b"one", b"two"):
            await trio.sleep(1)
            await peer.send(peer.data(asked.stream_id, part))
        await peer.send(peer.data(asked.stream_id, b"", ends=True))
        await peer.serve()

    async with h2.speaking(serve) as kit:
        with await kit.send() as response:
            assert response.head.media_type == "text/event-stream"
            assert [await response.chunk() for _ in range(4)] == [b"one", b"two", b"", b""]
            assert response.complete
        assert kit.client.taken == 0


async def test_leaving_a_response_resets_its_stream_and_nothing_else(h2, autojump_clock, nothing_left):
    """The peer hears of it at once; the connection goes on."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        asked = await peer.request()
        await peer.send(peer.head(asked.stream_id), peer.data(asked.stream_id, b"part"))
        reset = await peer.until(RstStreamFrame)
        assert (reset.stream_id, reset.error_code) == (asked.stream_id, CANCEL)
        await peer.send(peer.data(asked.stream_id, b"was under way"))
        await peer.serve()

    async with h2.speaking(serve) as kit:
        with await kit.send() as response:
            assert await response.chunk() == b"part"
        response.close()
        assert await kit.ask(b"next") == b"200 next"
        assert len(kit.server.peers) == 1
        nothing_left(kit)


async def test_a_stream_whose_reply_was_read_may_be_ended_by_the_peer(h2, autojump_clock, nothing_left):
    """That is no cancel: `finish` waits for nobody, and gives the peer a moment."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        asked = await peer.request()
        await peer.send(peer.head(asked.stream_id), peer.data(asked.stream_id, b"reply"))
        await trio.sleep(1)
        await peer.send(peer.data(asked.stream_id, b"", ends=True))
        await peer.serve()

    async with h2.speaking(serve) as kit:
        with await kit.send() as response:
            assert await response.chunk() == b"reply"
            response.finish()
        await trio.sleep(2)
        nothing_left(kit)
        await kit.ask()
        assert kit.server.peers[0].count(RstStreamFrame) == 0


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_stream_that_the_peer_does_not_end_is_reset(h2, autojump_clock, nothing_left, goes_on):
    """After a moment, whether it says more or nothing."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        asked = await peer.request()
        await peer.send(peer.head(asked.stream_id), peer.data(asked.stream_id, b"reply"))
        if goes_on:
            await trio.sleep(1)
            await peer.send(peer.data(asked.stream_id, b"more"))
        reset = await peer.until(RstStreamFrame)
        assert reset.error_code == CANCEL
        await peer.serve()

    async with h2.speaking(serve) as kit:
        with await kit.send() as response:
            await response.chunk()
            response.finish()
        await trio.sleep(11)
        nothing_left(kit)
        assert kit.server.peers[0].count(RstStreamFrame) == 1


async def test_who_does_not_read_holds_back_its_own_peer_and_no_other(h2, autojump_clock):
    """A stream gets its window and no more; the connection's window opens again as bytes arrive."""
    poured = trio.Event()

    async def serve(peer: Any) -> None:
        await peer.greet()
        slow = [await peer.request() for _ in range(20)]
        for each in slow:
            await peer.send(peer.head(each.stream_id))
            await peer.pour(each.stream_id, bytes(STREAM_WINDOW))
        poured.set()
        await peer.serve()

    async with h2.speaking(serve) as kit:
        responses = []

        async def start() -> None:
            responses.append(await kit.send())

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(start)
            await poured.wait()
        assert 20 * STREAM_WINDOW > 2 * CONNECTION_WINDOW
        peer = kit.server.peers[0]
        assert [f for f in peer.seen if isinstance(f, WindowUpdateFrame) and f.stream_id] == []

        assert await kit.ask(b"quick") == b"200 quick"

        for response in responses:
            await response.chunk()
        await kit.ask()
        updates = [f for f in peer.seen if isinstance(f, WindowUpdateFrame) and f.stream_id]
        assert [each.window_increment for each in updates] == [STREAM_WINDOW] * 20
        for response in responses:
            response.close()


async def test_a_large_response_is_read_whole(h2, autojump_clock):
    """Windows are opened as it is read, not byte by byte."""
    big = bytes(range(256)) * (16 * KIB)

    async def serve(peer: Any) -> None:
        await peer.greet()
        await peer.answer(await peer.request(), big)

    async with h2.speaking(serve) as kit:
        assert await kit.ask() == b"200 " + big
        updates = [f for f in kit.server.peers[0].seen if isinstance(f, WindowUpdateFrame) and f.stream_id]
        assert 0 < len(updates) <= 2 * len(big) // STREAM_WINDOW


async def test_padding_is_given_back_to_the_peer(h2, autojump_clock):
    """It takes room in windows, though nobody reads it (section 6.1)."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        asked = await peer.request()
        await peer.send(peer.head(asked.stream_id))
        for _ in range(3 * STREAM_WINDOW // 256):
            if peer._windows.setdefault(asked.stream_id, peer._initial) < 257:
                peer._later.append(await peer._next())
            peer._windows[asked.stream_id] -= 257
            await peer.send(DataFrame(asked.stream_id, b"x", flags=["PADDED"], pad_length=255))
        await peer.send(peer.data(asked.stream_id, b"", ends=True))

    async with h2.speaking(serve) as kit:
        assert await kit.ask() == b"200 " + b"x" * (3 * STREAM_WINDOW // 256)


@pytest.mark.parametrize("stream_too", [False, True])
async def test_content_waits_for_the_peers_windows(h2, autojump_clock, stream_too):
    """Of the connection, and of the stream; it goes on when either opens."""
    body = bytes(200 * KIB)

    async def serve(peer: Any) -> None:
        peer.polite = False
        await peer.greet({SettingsFrame.INITIAL_WINDOW_SIZE: 10 if stream_too else 1 << 20})
        stream_id, got = await peer.begun(), 0
        limit = 10 if stream_too else 65535
        while got < len(body):
            data = await peer.until(DataFrame)
            got += len(data.data)
            assert got <= limit
            if got == limit and got < len(body):
                await trio.sleep(1)
                await peer.window(0, 50 * KIB)
                await peer.window(stream_id, 50 * KIB)
                limit += 50 * KIB
                limit = min(limit, len(body))
        await peer.answer(stream_id, b"%d" % got)

    async with h2.speaking(serve) as kit:
        assert await kit.ask(body) == b"200 %d" % len(body)


async def test_windows_follow_settings_that_change_on_the_way(h2, autojump_clock):
    """Also below zero (section 6.9.2)."""
    body = bytes(60 * KIB)

    async def serve(peer: Any) -> None:
        peer.polite = False
        await peer.greet({SettingsFrame.INITIAL_WINDOW_SIZE: 20 * KIB})
        stream_id, got = await peer.begun(), 0
        while got < 20 * KIB:
            got += len((await peer.until(DataFrame)).data)
        await peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 10 * KIB}))
        await peer.window(stream_id, 10 * KIB)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 50 * KIB}))
        while got < 60 * KIB:
            got += len((await peer.until(DataFrame)).data)
        await peer.answer(stream_id, b"%d" % got)

    async with h2.speaking(serve) as kit:
        assert await kit.ask(body) == b"200 %d" % len(body)


@pytest.mark.parametrize("status", [200, 413])
async def test_an_answer_may_come_before_the_request_is_complete(h2, autojump_clock, nothing_left, status):
    """A failure ends the sending; after any other the rest is still sent when the peer takes it."""

    async def serve(peer: Any) -> None:
        peer.polite = False
        await peer.greet({SettingsFrame.INITIAL_WINDOW_SIZE: 10})
        stream_id = await peer.begun()
        await peer.send(peer.head(stream_id, status))
        if status == 200:
            await trio.sleep(1)
            await peer.window(stream_id, 90)
            while "END_STREAM" not in (await peer.until(DataFrame)).flags:
                pass
        await peer.pour(stream_id, b"said", ends=True)
        peer.polite = True
        await peer.until(PingFrame)

    async with h2.speaking(serve) as kit:
        assert await kit.ask(bytes(100)) == b"%d said" % status
        await trio.testing.wait_all_tasks_blocked()
        nothing_left(kit)
        peer = kit.server.peers[0]
        assert peer.count(RstStreamFrame) == 0 or status == 413


async def test_a_whole_answer_may_come_before_the_request_is_complete(h2, autojump_clock, nothing_left):
    """With a reset that says nothing is wrong, as section 8.1 has it."""

    async def serve(peer: Any) -> None:
        peer.polite = False
        await peer.greet({SettingsFrame.INITIAL_WINDOW_SIZE: 10})
        stream_id = await peer.begun()
        await peer.answer(stream_id, b"enough", 200)
        await peer.reset(stream_id, 0)
        await peer.until(PingFrame)

    async with h2.speaking(serve) as kit:
        assert await kit.ask(bytes(100)) == b"200 enough"
        nothing_left(kit)


async def test_interim_responses_and_trailers_mean_nothing(h2, autojump_clock):
    """They are read over."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        asked = await peer.request()
        await peer.send(peer.head(asked.stream_id, 103, link="x"), peer.head(asked.stream_id, 200, a="1"))
        await peer.pour(asked.stream_id, b"body")
        trailers = peer.encoder.encode([("grpc-status", "0")])
        await peer.send(HeadersFrame(asked.stream_id, trailers, flags=["END_HEADERS", "END_STREAM"]))

    async with h2.speaking(serve) as kit:
        with await kit.send() as response:
            assert dict(response.head.headers) == {"a": "1"}
            assert await response.body(10) == b"body"


async def test_a_head_may_come_in_parts(h2, autojump_clock):
    """HEADERS and CONTINUATION are one (section 6.10)."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        asked = await peer.request()
        block = peer.encoder.encode([(":status", "200"), ("x-long", "v" * 3000), ("x-long", "w")])
        await peer.send(HeadersFrame(asked.stream_id, block[:5]))
        await peer.send(ContinuationFrame(asked.stream_id, block[5:9]))
        await peer.send(ContinuationFrame(asked.stream_id, block[9:], flags=["END_HEADERS"]))
        await peer.pour(asked.stream_id, b"ok", ends=True)

    async with h2.speaking(serve) as kit:
        with await kit.send() as response:
            assert response.head.headers["x-long"] == "v" * 3000 + ", w"
            assert await response.body(10) == b"ok"


@pytest.mark.parametrize(
    ("code", "repeated"), [(7, True), (13, True), (2, False), (8, False), (11, False), (99, False)]
)
async def test_a_stream_that_the_peer_resets(h2, autojump_clock, nothing_left, code, repeated):
    """Only what it says that it has not processed goes out again, though the request may not be repeated."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        await peer.reset((await peer.request()).stream_id, code)
        await peer.serve()

    async with h2.speaking(serve) as kit:
        if repeated:
            assert await kit.ask(b"again") == b"200 again"
        else:
            with pytest.raises(
                UpstreamClosed, match=r"reset the stream \(.*\) before its answer was complete"
            ) as caught:
                await kit.ask()
            assert not caught.value.retryable
            assert await kit.ask(b"next") == b"200 next"
        assert len(kit.server.peers) == 1
        nothing_left(kit)


async def test_a_peer_that_refuses_and_refuses_is_not_asked_for_ever(h2, autojump_clock, nothing_left):
    """What comes out may be repeated later."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        while True:
            await peer.reset((await peer.request()).stream_id, 7)

    async with h2.speaking(serve) as kit:
        with pytest.raises(UpstreamClosed, match="REFUSED_STREAM") as caught:
            await kit.ask()
        assert caught.value.retryable
        assert kit.server.peers[0].count(HeadersFrame) == 3
        nothing_left(kit)


async def test_a_reset_in_the_middle_of_a_response_is_an_error(h2, autojump_clock, nothing_left):
    """What came before it is read first."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        asked = await peer.request()
        await peer.send(peer.head(asked.stream_id), peer.data(asked.stream_id, b"part"))
        await peer.reset(asked.stream_id, 7)
        await peer.serve()

    async with h2.speaking(serve) as kit:
        with await kit.send() as response:
            assert await response.chunk() == b"part"
            with pytest.raises(UpstreamClosed, match="REFUSED_STREAM"), kit.client.faults:
                await response.chunk()
        nothing_left(kit)


async def test_a_switch_of_protocols_ends_its_stream_only(h2, autojump_clock, nothing_left):
    """There is no 101 in HTTP/2 (section 8.6)."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        await peer.send(peer.head((await peer.request()).stream_id, 101))
        assert (await peer.until(RstStreamFrame)).error_code == 1
        await peer.serve()

    async with h2.speaking(serve) as kit:
        with pytest.raises(UpstreamProtocolError, match="not HTTP/2: it switches protocols"):
            await kit.ask()
        assert await kit.ask(b"next") == b"200 next"
        nothing_left(kit)


@pytest.mark.parametrize("when", ["head", "body"])
@pytest.mark.parametrize("repeatable", [False, True])
async def test_a_peer_that_hangs_up(h2, autojump_clock, nothing_left, when, repeatable):
    """On a connection that was used before, what may be repeated is, if not a word had come."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        if peer.number == 0:
            await peer.answer(await peer.request())
            asked = await peer.request()
            if when == "body":
                await peer.send(peer.head(asked.stream_id))
                await trio.sleep(1)
            return
        await peer.serve()

    async with h2.speaking(serve) as kit:
        await kit.ask()
        if when == "head" and repeatable:
            assert await kit.ask(b"again", repeatable=True) == b"200 again"
        else:
            with pytest.raises(UpstreamClosed, match="closed the connection before its answer was complete"):
                await kit.ask(repeatable=repeatable)
        nothing_left(kit)


async def test_a_request_that_did_not_leave_as_a_whole_goes_out_again(h2, autojump_clock, nothing_left):
    """Nobody can have acted on it."""

    async def serve(peer: Any) -> None:
        if peer.number == 0:
            peer.polite = False
            await peer.greet({SettingsFrame.INITIAL_WINDOW_SIZE: 10})
            await peer.until(DataFrame)
            return
        await h2.greeted(peer)

    async with h2.speaking(serve) as kit:
        assert await kit.ask(bytes(20)) == b"200 " + bytes(20)
        nothing_left(kit)


async def test_a_silent_peer_is_asked_for_a_sign_of_life_and_given_up(h2, autojump_clock, nothing_left):
    """Whoever waits for it is told; the next request gets a new connection."""

    async def serve(peer: Any) -> None:
        if peer.number == 0:
            await peer.greet()
            peer.polite = False
            while True:
                await peer.frame()
        await h2.greeted(peer)

    async with h2.speaking(serve) as kit:
        started = trio.current_time()
        with pytest.raises(UpstreamClosed, match=r"gave no sign of life for 4[05] s"):
            await kit.ask()
        assert 40 <= trio.current_time() - started <= 50
        assert kit.server.peers[0].count(PingFrame) == 1
        assert await kit.ask(b"next") == b"200 next"
        assert not kit.server.transports[1].closed
        nothing_left(kit)


async def test_a_peer_that_thinks_for_long_but_answers_pings_is_left_in_peace(h2, autojump_clock):
    """A ping each half a minute, no more."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        asked = await peer.request()

        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                await trio.sleep(600)
                await peer.answer(asked, b"at last")

            nursery.start_soon(answer)
            while True:
                await peer.frame()

    async with h2.speaking(serve) as kit:
        assert await kit.ask() == b"200 at last"
        assert 15 <= kit.server.peers[0].count(PingFrame) <= 21


async def test_a_connection_that_rested_is_asked_as_it_is_used(h2, autojump_clock, nothing_left):
    """A peer that went without a word is found within seconds, not when somebody loses patience."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        await peer.answer(await peer.request())
        if peer.number == 0:
            peer.polite = False
            while True:
                await peer.frame()
        await peer.serve()

    async with h2.speaking(serve, idle_s=300.0) as kit:
        await kit.ask()
        await trio.sleep(60)
        started = trio.current_time()
        assert await kit.ask(b"again", repeatable=True) == b"200 ok"
        assert trio.current_time() - started <= 16
        nothing_left(kit)


@pytest.mark.parametrize("last", [0, 1, 3, 0x7FFFFFFF])
async def test_when_a_peer_goes_away_no_request_is_lost(h2, autojump_clock, nothing_left, last):
    """Those above its last stream go out again on a new connection, those below are answered on the old one."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        if peer.number:
            await peer.serve()
        asked = [await peer.request() for _ in range(3)]
        await peer.goaway(last)
        await trio.sleep(1)
        for each in asked:
            if each.stream_id <= last:
                await peer.answer(each, b"old " + each.body)
        goaway = await peer.until(GoAwayFrame)
        assert goaway.error_code == 0
        with pytest.raises(h2.Hung):
            await peer.frame()

    async with h2.speaking(serve) as kit:
        answers: list[bytes] = []

        async def one(number: int) -> None:
            answers.append(await kit.ask(b"%d" % number))

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(one, number)
            await trio.sleep(0.5)
            assert await kit.ask(b"late") == b"200 late"
        await trio.sleep(1)
        kept = min(3, (last + 1) // 2)
        assert sorted(answer.startswith(b"200 old") for answer in answers) == [False] * (3 - kept) + [True] * kept
        assert [transport.closed for transport in kit.server.transports] == [True, False]
        nothing_left(kit)


async def test_a_body_of_single_bytes_takes_no_more_than_its_window(h2, autojump_clock):
    """However it is cut into frames."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        asked = await peer.request()
        await peer.send(peer.head(asked.stream_id))
        for _ in range(100):
            await peer.send(*[peer.data(asked.stream_id, b"x")] * 100)
        await peer.send(peer.data(asked.stream_id, b"", ends=True))

    async with h2.speaking(serve) as kit:
        with await kit.send() as response:
            await trio.testing.wait_all_tasks_blocked()
            assert await response.chunk() == b"x" * 10_000
            assert await response.chunk() == b""


@pytest.mark.parametrize("then", ["answers", "hangs up"])
@pytest.mark.parametrize(
    "moment", ["before the request", "after it", "after the head", "within the body", "after the end"]
)
async def test_a_peer_may_go_away_at_any_moment(h2, autojump_clock, nothing_left, moment, then):
    """What it has taken is answered unless it hangs up; what it has not taken goes out again; nothing runs twice."""
    taken: list[int] = []

    async def serve(peer: Any) -> None:
        async def leave(at: str) -> None:
            if at == moment and peer.number == 0:
                await peer.goaway(asked.stream_id if asked is not None else 0)
                if then == "hangs up":
                    await trio.sleep(1)
                    peer.hang_up()
                    raise h2.Hung

        asked = None
        await peer.greet()
        await trio.sleep(0.1)
        await leave("before the request")
        asked = await peer.request()
        if moment != "before the request" or peer.number:
            taken.append(peer.number)
        await leave("after it")
        await peer.send(peer.head(asked.stream_id))
        await leave("after the head")
        await peer.send(peer.data(asked.stream_id, b"all "))
        await leave("within the body")
        await peer.send(peer.data(asked.stream_id, b"of it", ends=True))
        await leave("after the end")
        await peer.serve()

    async with h2.speaking(serve) as kit:
        if then == "hangs up" and moment in ("after it", "after the head", "within the body"):
            with pytest.raises(UpstreamClosed, match="before its answer was complete; the request may have run"):
                await kit.ask()
            assert taken == [0]
        else:
            assert await kit.ask() == b"200 all of it"
            assert taken == [1 if moment == "before the request" else 0]
        answer = await kit.ask(b"next")
        assert answer in (b"200 next", b"200 all of it")
        await trio.sleep(5)
        assert kit.server.transports[0].closed
        nothing_left(kit)


@pytest.mark.parametrize("resets", [False, True])
async def test_a_peer_that_hung_up_gets_no_new_requests(h2, autojump_clock, nothing_left, resets):
    """Though what was to be said to it is stuck; what was under way fails at once."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        if peer.number:
            await peer.serve()
        asked = await peer.request()
        await trio.sleep(1)
        if resets:
            await peer.raw(bytes(9))
        peer.hang_up()
        assert asked

    async with h2.speaking(serve) as kit:
        async with trio.open_nursery() as nursery:

            async def fails() -> None:
                with pytest.raises(UpstreamClosed):
                    await kit.ask()
                assert trio.current_time() < 1.5

            nursery.start_soon(fails)
            await trio.sleep(0.5)

            async def stuck(_: bytes) -> None:
                await trio.sleep_forever()

            kit.server.transports[0].send_all = stuck
            nursery.start_soon(fails)
            await trio.sleep(0.6)
            assert await kit.ask(b"next") == b"200 next"
            assert trio.current_time() < 1.5
        await trio.sleep(2)
        assert [transport.closed for transport in kit.server.transports] == [True, False]
        nothing_left(kit)
