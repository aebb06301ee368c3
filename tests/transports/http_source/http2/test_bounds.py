"""What one HTTP/2 client may cost: streams, windows, header lists, times."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes

from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.transports.http_source.http2.wire import HIGH_WATER, MAX_PIECE


async def large_sink(_: Any) -> Result:
    """Answers with more than any window."""
    return Result({"text": "x" * 1_000_000})


def window(stream: int, size: int) -> bytes:
    return bytes((0, 0, 4, 8, 0)) + struct.pack(">II", stream, size)


async def test_a_stream_too_many_is_refused_and_the_others_go_on(running: Any, dial: Any, autojump_clock: Any) -> None:
    """The client is told of max_streams; who does not heed it may send the request again, elsewhere or later."""
    async with running(max_streams=3) as served:
        peer = await dial(served)
        body = served.modern("tools/call", 7, name="slow")
        streams = [await peer.send("POST", "/mcp", body, served.mirror(body)) for _ in range(5)]
        answers = [await peer.response(stream) for stream in streams]
        again = await peer.ask("POST", "/mcp", body, served.mirror(body))

        assert peer.settings[3] == 3
        assert [(a.status, a.reset) for a in answers] == [*[(200, None)] * 3, *[(0, ErrorCodes.REFUSED_STREAM)] * 2]
        assert again.status == 200
        assert trio.current_time() == 10.0


async def test_a_client_that_opens_no_window_loses_its_request(running: Any, dial: Any, autojump_clock: Any) -> None:
    """After stall_timeout, as if it had left; its other requests and its connection go on."""
    async with running(large_sink, stall_timeout=4.0) as served:
        peer = await dial(served, consume=False)
        body = served.modern("tools/list")
        stream = await peer.send("POST", "/mcp", body, served.mirror(body))
        answer = await peer.response(stream)

        assert (answer.status, answer.reset, len(answer.body)) == (200, ErrorCodes.CANCEL, 65535)
        assert trio.current_time() == 4.0
        peer.h2.increment_flow_control_window(100_000)
        assert (await peer.ask("GET", "/healthz")).status == 200


async def test_an_exchange_waits_for_its_client(running: Any, dial: Any, autojump_clock: Any) -> None:
    """What a client does not take stays where it is made: neither the window nor the socket is overrun."""
    made: list[int] = []

    async def sink(exchange: Any) -> Result:
        for n in range(1000):
            await exchange.relay(Notification("notifications/progress", {"progress": n, "message": "x" * 1000}))
            made.append(n)
        return Result()

    async with running(sink, stall_timeout=30.0) as served:
        peer = await dial(served, consume=False)
        body = served.modern("tools/call", 1, name="x")
        stream = await peer.send("POST", "/mcp", body, served.mirror(body))
        await trio.testing.wait_all_tasks_blocked()
        before = len(made)
        peer.consume = True
        await peer.pump()
        await peer.until(lambda: len(peer.responses[stream].body) >= 65535)
        peer.h2.increment_flow_control_window(65535)
        peer.h2.increment_flow_control_window(65535, stream)
        await peer.flush()
        answer = await peer.response(stream)

        assert before < 120
        assert (len(made), answer.ended) == (1000, True)


async def test_a_byte_now_and_then_holds_no_response(running: Any, dial: Any, autojump_clock: Any) -> None:
    """A window must be opened by a KiB in each stall_timeout."""
    async with running(large_sink, stall_timeout=10.0) as served:
        peer = await dial(served, consume=False)
        body = served.modern("tools/list")
        stream = await peer.send("POST", "/mcp", body, served.mirror(body))
        response = peer.responses[stream]
        await peer.until(lambda: len(response.body) == 65535)
        for _ in range(9):
            await trio.sleep(1)
            await peer.raw(window(0, 1) + window(stream, 1))
        await trio.sleep(0.5)
        assert len(served.pipeline.lane.tickets) == 0
        [connection] = served.source.server.http2
        assert connection.streams == 1
        await trio.sleep(1)

        assert connection.streams == 0


async def test_a_fair_reader_is_never_cut(running: Any, dial: Any, autojump_clock: Any) -> None:
    """A KiB in each stall_timeout is enough, however long it takes."""
    async with running(large_sink, stall_timeout=10.0) as served:
        peer = await dial(served, consume=False)
        body = served.modern("tools/list")
        stream = await peer.send("POST", "/mcp", body, served.mirror(body))
        response = peer.responses[stream]
        await peer.until(lambda: len(response.body) == 65535)
        for n in range(1, 21):
            await trio.sleep(9)
            peer.h2.increment_flow_control_window(1024)
            peer.h2.increment_flow_control_window(1024, stream)
            await peer.flush()
            await peer.until(lambda: len(response.body) == 65535 + 1024 * n)  # noqa: B023  # it is called at once

        assert response.reset is None


async def test_a_client_that_reads_nothing_loses_its_connection(running: Any, autojump_clock: Any) -> None:
    """After stall_timeout; what waits for it until then is bounded, however many responses there are."""
    async with running(large_sink, stall_timeout=4.0) as served:
        client, server = trio.testing.lockstep_stream_pair()
        server.protocol = "h2"  # type: ignore[attr-defined]  # as TlsStream has
        served.nursery.start_soon(served.source.server.handle, server)
        import h2.connection

        peer = h2.connection.H2Connection()
        peer.local_settings[4] = 2**31 - 1
        peer.initiate_connection()
        peer.increment_flow_control_window(2**30)
        body = served.modern("tools/list")
        headers = {k.replace("_", "-"): v for k, v in served.mirror(body).items() if v}
        fields = [(":method", "POST"), (":scheme", "https"), (":path", "/mcp"), (":authority", "localhost")]
        fields += [("content-type", "application/json"), ("accept", "*/*"), *headers.items()]
        import json

        for stream in range(1, 200, 2):
            peer.send_headers(stream, fields)
            peer.send_data(stream, json.dumps(body).encode(), end_stream=True)
        await client.send_all(peer.data_to_send())
        await trio.testing.wait_all_tasks_blocked()
        [connection] = served.source.server.http2
        waiting = connection.wire.pending, connection.streams
        await trio.sleep(5)
        over = served.source.server.connections, served.source.server.contained, connection.streams
        await client.aclose()

        assert waiting[0] <= HIGH_WATER + MAX_PIECE + 100 * 100
        assert waiting[1] == 100
        assert over == (0, 0, 0)


async def test_a_body_nobody_reads_is_not_taken_in(running: Any, dial: Any, autojump_clock: Any) -> None:
    """64 KiB of a stream and 1 MiB of a connection wait; then the client has to."""
    async with running() as served:

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await trio.sleep(100)

        served.source.server.application = application
        peer = await dial(served)
        await peer.until(lambda: peer.settings)
        await peer.pump()
        sent = 0
        for _ in range(30):
            stream = await peer.send("POST", "/mcp", None, {}, end=False)
            while room := min(peer.h2.local_flow_control_window(stream), 16384):
                peer.h2.send_data(stream, b"x" * room)
                sent += room
                await peer.flush()
        await trio.testing.wait_all_tasks_blocked()

        assert sent == 1024 * 1024
        assert peer.h2.outbound_flow_control_window == 0


async def test_what_was_not_read_of_a_body_opens_the_window_of_the_connection(
    running: Any, dial: Any, autojump_clock: Any
) -> None:
    """Requests that are refused or reset with a body under way do not use it up."""
    async with running(max_body=1000) as served:
        peer = await dial(served)
        for n in range(60):
            stream = await peer.send("POST", "/mcp", b"x" * 16_000, {"content-length": "60000"}, end=False)
            if n % 2:
                peer.h2.reset_stream(stream)
                await peer.flush()
            else:
                await peer.until(lambda: peer.responses[stream].reset is not None)  # noqa: B023  # called at once
        await trio.testing.wait_all_tasks_blocked()
        await peer.ask("GET", "/healthz")

        assert peer.h2.outbound_flow_control_window > 512 * 1024


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([("x-large", "x" * 20_000)], 431),
        ([(f"x-{n}", "x") for n in range(120)], 431),
        ([("cookie", f"c{n}=1") for n in range(120)], 200),
    ],
)
async def test_header_lists_are_bounded(
    running: Any, dial: Any, autojump_clock: Any, fields: list[tuple[str, str]], status: int
) -> None:
    """As over HTTP/1.1, and the client is told (MAX_HEADER_LIST_SIZE); the connection goes on."""
    async with running() as served:
        peer = await dial(served)
        first = [(":method", "GET"), (":scheme", "https"), (":path", "/healthz"), (":authority", "localhost")]
        answer = await peer.response(await peer.request([*first, *fields]))

        assert answer.status == status
        assert peer.settings[6] == 16 * 1024
        assert (await peer.ask("GET", "/healthz")).status == 200
        assert (await peer.ask("GET", "/healthz?" + "x" * 9000)).status == 414


async def test_a_slow_body_is_refused(running: Any, dial: Any, autojump_clock: Any) -> None:
    """408 when it comes slower than min_body_rate, or not at all."""
    async with running() as served:
        peer = await dial(served)
        stream = await peer.send("POST", "/mcp", b"{", {}, end=False)
        answer = await peer.response(stream)
        await peer.until(lambda: answer.reset is not None)

        assert (answer.status, answer.reset) == (408, ErrorCodes.NO_ERROR)
        assert 5.0 <= trio.current_time() < 5.1


GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
PING = bytes((0, 0, 8, 6, 0, 0, 0, 0, 0)) + bytes(8)


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (b"", 10.0),
        (GREETING[:10], 10.0),
        (GREETING[:-3], 10.0),
        (GREETING, 60.0),
        (GREETING + bytes((0, 0, 5, 1, 5, 0, 0, 0, 1)), 10.0),
        (GREETING + bytes((0, 0, 0, 1, 1, 0, 0, 0, 1)), 10.0),
        (GREETING + PING[:9], 60.0),
    ],
    ids=[
        "nothing",
        "half a preface",
        "half the settings",
        "no request",
        "half a HEADERS",
        "half a block",
        "half a PING",
    ],
)
async def test_a_client_that_says_nothing_more_is_not_waited_for(
    running: Any, watch: Any, autojump_clock: Any, sent: bytes, seconds: float
) -> None:
    """head_timeout for a beginning, idle_timeout between requests; then GOAWAY without blame."""
    async with running() as served:
        observer = watch(served)
        await observer.stream.send_all(sent)
        await observer.until(lambda: False)

        assert observer.said[-1] == "GOAWAY 0"
        assert trio.current_time() == seconds


async def test_pings_do_not_keep_an_idle_connection(running: Any, dial: Any, autojump_clock: Any) -> None:
    """idle_timeout counts from the last request on, and not while there is one."""
    async with running(idle_timeout=10.0) as served:
        peer = await dial(served)
        body = served.modern("tools/call", 1, name="slow", arguments={"seconds": 30})
        await peer.ask("POST", "/mcp", body, served.mirror(body))
        with trio.move_on_after(9):
            while True:
                peer.h2.ping(bytes(8))
                await peer.flush()
                await trio.sleep(1)
        await peer.until_closed()

        assert trio.current_time() == 40.0
        assert peer.goaways == [(1, 0)]


async def test_half_a_header_block_ends_a_connection_that_is_busy_too(
    running: Any, dial: Any, autojump_clock: Any
) -> None:
    """Nothing else could be read behind it anyway."""
    async with running() as served:
        peer = await dial(served)
        body = served.modern("tools/call", 1, name="slow", arguments={"seconds": 100})
        await peer.send("POST", "/mcp", body, served.mirror(body))
        await peer.until(lambda: peer.settings)
        await trio.sleep(5)
        await peer.raw(bytes((0, 0, 0, 1, 1, 0, 0, 0, 9)))
        await peer.until_closed()

        assert trio.current_time() == 15.0
        assert len(served.pipeline.lane.tickets) == 0
