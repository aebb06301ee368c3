"""Clients that send what costs us more than them (reliability, HTTP/2 abuse): each is ended, and nothing is left."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import hpack
import pytest
import trio
from h2.errors import ErrorCodes

DATA, HEADERS, PRIORITY, RST, SETTINGS, _, PING, _, WINDOW, CONTINUATION = range(10)
END, END_HEADERS, PADDED = 1, 4, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CALM = ErrorCodes.ENHANCE_YOUR_CALM


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def block(*more: tuple[str, str], path: str = "/healthz", method: str = "GET") -> bytes:
    fields = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path), *more]
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*each) for each in fields])


SOME = frame(HEADERS, END_HEADERS, 1, block(path="/mcp", method="POST"))

FLOODS = {
    "PING": frame(PING, payload=bytes(8)) * 2000,
    "answers to no PING": frame(PING, 1, payload=bytes(8)) * 2000,
    "SETTINGS": frame(SETTINGS) * 2000,
    "SETTINGS that say much": frame(SETTINGS, payload=struct.pack(">HI", 4, 70000) * 2000) * 20,
    "acknowledged SETTINGS": frame(SETTINGS, 1) * 2000,
    "PRIORITY": frame(PRIORITY, stream=3, payload=bytes(4) + b"\1") * 2000,
    "WINDOW_UPDATE": frame(WINDOW, payload=struct.pack(">I", 1)) * 2000,
    "unknown frames": frame(0x77, stream=1, payload=b"?") * 2000,
    "empty DATA": SOME + frame(DATA, 0, 1) * 2000,
    "DATA of padding": SOME + frame(DATA, PADDED, 1, b"\3" + bytes(3)) * 2000,
    "reset streams": b"".join(
        frame(HEADERS, END | END_HEADERS, n, block()) + frame(RST, 0, n, bytes(4)) for n in range(1, 2001, 2)
    ),
    "malformed requests": b"".join(
        frame(HEADERS, END | END_HEADERS, n, block(("connection", "close"))) for n in range(1, 2001, 2)
    ),
    "streams whose window overflows": b"".join(
        frame(HEADERS, END_HEADERS, n, block(path="/mcp", method="POST"))
        + frame(WINDOW, 0, n, struct.pack(">I", 2**31 - 1))
        for n in range(1, 2001, 2)
    ),
    "empty CONTINUATION": frame(HEADERS, END, 1, b"") + frame(CONTINUATION, 0, 1) * 2000,
    "small CONTINUATION": frame(HEADERS, END, 1, b"") + frame(CONTINUATION, 0, 1, b"\x82") * 2000,
    "large CONTINUATION": frame(HEADERS, END, 1, b"") + frame(CONTINUATION, 0, 1, b"\x82" * 16384) * 5,
    "an HPACK bomb": frame(
        HEADERS, END | END_HEADERS, 1, hpack.Encoder().encode([("a", "a" * 4000)], huffman=False) + b"\xbe" * 10_000
    ),
}  # fmt: skip


@pytest.mark.parametrize("sent", FLOODS.values(), ids=FLOODS)
async def test_a_flood_ends_its_connection(
    running: Any, dial: Any, watch: Any, autojump_clock: Any, sent: bytes
) -> None:
    """With ENHANCE_YOUR_CALM, and a count; other connections go on, and it is no fault of ours."""
    async with running() as served:
        other = await dial(served)
        flooder = watch(served)
        with suppress(trio.BrokenResourceError):
            await flooder.stream.send_all(PREFACE + frame(SETTINGS) + sent)
        await flooder.until(lambda: False)
        await flooder.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()

        assert flooder.said[-1] == f"GOAWAY {CALM}"
        assert [each for each in flooder.said if "GOAWAY" in each] == flooder.said[-1:]
        assert (await other.ask("GET", "/healthz")).status == 200
        assert served.source.server.floods == 1
        assert served.source.server.contained == 0
        assert served.source.server.connections == 1
        assert len(served.source.server.http2) == 1
        assert {"http2_floods_total": 1.0, "http2_connections": 1.0, "http2_streams": 0.0} == {
            figure.name: figure.value for figure in _http2_figures(served)
        }


def _http2_figures(served: Any) -> list[Any]:
    from sluiceway.transports.http_source.source import _http2_figures

    return list(_http2_figures(served.source.server))


@pytest.mark.parametrize(
    "sent",
    [
        frame(PING, payload=bytes(8)),
        frame(SETTINGS, payload=struct.pack(">HI", 4, 70000)),
        frame(PRIORITY, stream=1, payload=bytes(4) + b"\1"),
        frame(WINDOW, payload=struct.pack(">I", 1)),
    ],
)
async def test_what_is_sent_now_and_then_is_no_flood(running: Any, dial: Any, autojump_clock: Any, sent: bytes) -> None:
    """900 at once, and 50 a second for as long as it likes."""
    async with running(idle_timeout=1000.0) as served:
        peer = await dial(served)
        await peer.raw(sent * 800)
        for _ in range(60):
            await trio.sleep(1)
            await peer.raw(sent * 50)

        assert (await peer.ask("GET", "/healthz")).status == 200
        assert served.source.server.floods == 0


async def test_who_reads_much_may_open_its_windows_often(running: Any, dial: Any, autojump_clock: Any) -> None:
    """A client that gives back each KiB as it reads is no flood: what is sent earns it that."""
    from sluiceway.pipeline.protocol.messages import Result

    async def sink(_: Any) -> Result:
        return Result({"text": "x" * 3_000_000})

    async with running(sink) as served:
        peer = await dial(served, consume=False)
        body = served.modern("tools/call", 1, name="x")
        stream = await peer.send("POST", "/mcp", body, served.mirror(body))
        response, taken = peer.responses[stream], 0
        while not response.done and await peer.pump():
            while len(response.body) - taken >= 1024:
                taken += 1024
                peer.h2.increment_flow_control_window(1024)
                if not response.done:
                    peer.h2.increment_flow_control_window(1024, stream)
            await peer.flush()

        assert len(response.json["result"]["text"]) == 3_000_000
        assert served.source.server.floods == 0


async def test_rapid_reset_costs_no_more_than_the_streams_that_are_allowed(
    running: Any, dial: Any, autojump_clock: Any
) -> None:
    """CVE-2023-44487: a reset stream makes no room for another as long as something of it runs."""
    seen: list[int] = []

    async def sink(exchange: Any) -> Any:
        seen.append(len(served.pipeline.lane.tickets))
        await trio.sleep_forever()

    async with running(sink, max_streams=10) as served:
        peer = await dial(served)
        body = served.modern("tools/call", 1, name="x")
        for _ in range(30):
            streams = [await peer.send("POST", "/mcp", body, served.mirror(body)) for _ in range(5)]
            await trio.testing.wait_all_tasks_blocked()
            for stream in streams:
                peer.h2.reset_stream(stream, ErrorCodes.CANCEL)
            try:
                await peer.flush()
            except trio.BrokenResourceError:
                break
            await trio.testing.wait_all_tasks_blocked()
        await peer.until_closed()
        await trio.testing.wait_all_tasks_blocked()

        assert [code for _, code in peer.goaways] == [CALM]
        assert len(seen) == 105
        assert max(seen) <= 10
        assert len(served.pipeline.lane.tickets) == 0


async def test_a_header_table_of_any_size_is_offered_in_vain(running: Any, dial: Any, autojump_clock: Any) -> None:
    """What we remember for a client is bounded by us (SETTINGS_HEADER_TABLE_SIZE)."""
    async with running() as served:
        peer = await dial(served)
        await peer.raw(frame(SETTINGS, payload=struct.pack(">HI", 1, 2**31)))
        for n in range(300):
            await peer.ask("GET", f"/none{n}" + "x" * 100)
        [connection] = served.source.server.http2

        assert connection.wire._h2.encoder.header_table_size == 4096
        assert connection.wire._h2.encoder.header_table._current_size <= 4096


async def test_settings_nobody_knows_are_not_kept(running: Any, dial: Any, autojump_clock: Any) -> None:
    """There are 65,536 of them; h2 would keep each."""
    async with running() as served:
        peer = await dial(served)
        for n in range(100, 2000, 100):
            await peer.raw(frame(SETTINGS, payload=b"".join(struct.pack(">HI", n + i, i) for i in range(100))))
        assert (await peer.ask("GET", "/healthz")).status == 200
        [connection] = served.source.server.http2

        assert max(connection.wire._h2.remote_settings) <= 8
