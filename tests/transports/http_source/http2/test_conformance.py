"""What RFC 9113 asks of a server, row by row: frames that a client sends, and what must come of them."""

from __future__ import annotations

import json
import struct
from typing import Any

import hpack
import pytest
import trio

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END, ACK, END_HEADERS, PADDED, PRIO = 1, 1, 4, 8, 32
NO_ERROR, PROTOCOL, INTERNAL, FLOW, TIMEOUT, CLOSED, SIZE, REFUSED, CANCEL, COMPRESSION, _, CALM = range(12)
BIG = 2**31 - 1


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def block(*fields: tuple[str, str]) -> bytes:
    """Fields in HPACK, literal: what one row says does not depend on another."""
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*each) for each in fields])


GET_FIELDS = ((":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/healthz"))
BODY = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}})
POST_FIELDS = (
    (":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/mcp"),
    ("content-type", "application/json"), ("accept", "application/json, text/event-stream"),
)  # fmt: skip


def get(stream: int = 1, *more: tuple[str, str], flags: int = END | END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, block(*GET_FIELDS, *more))


def post(stream: int = 1, *more: tuple[str, str]) -> bytes:
    """A request whose body is still to come, and whose answer waits for it."""
    return frame(HEADERS, END_HEADERS, stream, block(*POST_FIELDS, *more))


def body(stream: int = 1, flags: int = END) -> bytes:
    return frame(DATA, flags, stream, BODY.encode())


def asking(*fields: tuple[str, str]) -> bytes:
    """A request of exactly these fields."""
    return frame(HEADERS, END | END_HEADERS, 1, block(*fields))


def but(name: str, *values: str) -> tuple[tuple[str, str], ...]:
    """The fields of a GET with other values for one of them; without it if there are none."""
    others = tuple(each for each in GET_FIELDS if each[0] != name)
    return (*((name, value) for value in values), *others)


def setting(code: int, value: int) -> bytes:
    return frame(SETTINGS, payload=struct.pack(">HI", code, value))


def window(increment: int, stream: int = 0) -> bytes:
    return frame(WINDOW, stream=stream, payload=struct.pack(">I", increment))


def goaway(code: int) -> str:
    return f"GOAWAY {code}"


def rst(code: int, stream: int = 1) -> str:
    return f"RST {stream} {code}"


def status(code: int, stream: int = 1) -> str:
    return f"{stream}: {code}"


RESET = frame(RST, stream=1, payload=bytes(4))
BLOCK = block(*GET_FIELDS)

ROWS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    # name: what is sent behind preface and SETTINGS, what may come of it (one of these)
    "4.1 unknown frames are ignored": (frame(0x16, stream=1, payload=b"what"), ()),
    "4.1 unknown flags are ignored": (frame(PING, 0x16, payload=bytes(8)), ("PONG",)),
    "4.1 the reserved bit is ignored": (frame(PING, 0, 1 << 31, bytes(8)), ("PONG",)),
    "4.2 a frame of 16 KiB is read": (
        post() + frame(DATA, 0, 1, b" " * 16384) + body(), (status(200),)),
    "4.2 DATA too long": (post() + frame(DATA, 0, 1, b" " * 16385), (goaway(SIZE), rst(SIZE))),
    "4.2 HEADERS too long": (frame(HEADERS, END | END_HEADERS, 1, b"\0" * 16385), (goaway(SIZE),)),
    "4.2 a frame too long is not waited for": (b"\xff\xff\xff" + frame(DATA, 0, 1)[3:], (goaway(SIZE),)),
    "4.3 no header block at all": (frame(HEADERS, END | END_HEADERS, 1, b"\x80"), (goaway(COMPRESSION),)),
    "4.3 a table that is too large": (
        frame(HEADERS, END | END_HEADERS, 1, b"\x3f\xff\xff\x0f" + BLOCK), (goaway(COMPRESSION),)),
    "4.3 PRIORITY inside a block": (
        get(flags=END) + frame(PRIORITY, stream=1, payload=bytes(4) + b"\1"), (goaway(PROTOCOL),)),
    "4.3 another stream's HEADERS inside a block": (get(flags=END) + get(3), (goaway(PROTOCOL),)),
    "5.1 idle: DATA": (frame(DATA, END, 1, b"x"), (goaway(PROTOCOL),)),
    "5.1 idle: RST_STREAM": (RESET, (goaway(PROTOCOL),)),
    "5.1 idle: WINDOW_UPDATE": (window(100, 1), (goaway(PROTOCOL),)),
    "5.1 idle: CONTINUATION": (frame(CONTINUATION, END_HEADERS, 1, BLOCK), (goaway(PROTOCOL),)),
    "5.1 idle: PRIORITY is fine": (frame(PRIORITY, stream=1, payload=bytes(4) + b"\1"), ()),
    "5.1 half closed: DATA": (get() + frame(DATA, END, 1, b"x"), (goaway(CLOSED), rst(CLOSED))),
    "5.1 half closed: HEADERS": (get() + get(), (goaway(CLOSED), rst(CLOSED), goaway(PROTOCOL))),
    "5.1 half closed: CONTINUATION": (
        get() + frame(CONTINUATION, END_HEADERS, 1, BLOCK), (goaway(CLOSED), goaway(PROTOCOL))),
    "5.1 half closed: the rest is fine": (
        get() + window(10, 1) + frame(PRIORITY, stream=1, payload=bytes(4) + b"\1"), (status(200),)),
    "5.1 reset: DATA": (post() + RESET + frame(DATA, END, 1, b"x"), (goaway(CLOSED), rst(CLOSED))),
    "5.1 reset: HEADERS": (post() + RESET + get(), (goaway(CLOSED), rst(CLOSED))),
    "5.1 reset: what crosses is ignored": (
        post() + RESET + window(10, 1) + frame(PRIORITY, stream=1, payload=bytes(4) + b"\1") + RESET, ()),
    "5.1.1 a number for servers": (get(2), (goaway(PROTOCOL),)),
    "5.1.1 a number that is too low": (get(5) + get(3), (goaway(PROTOCOL),)),
    "5.1.1 numbers may be left out": (get(5) + get(11), (status(200, 5),)),
    "5.3.1 a stream that depends on itself": (
        frame(PRIORITY, stream=1, payload=struct.pack(">IB", 1, 1)), (goaway(PROTOCOL), rst(PROTOCOL), "")),
    "5.5 an unknown frame inside a block": (
        get(flags=END) + frame(0x16, stream=1) + frame(CONTINUATION, END_HEADERS, 1), (goaway(PROTOCOL),)),
    "6.1 DATA on stream 0": (post() + frame(DATA, END, 0, b"x"), (goaway(PROTOCOL),)),
    "6.1 more padding than DATA": (post() + frame(DATA, END | PADDED, 1, b"\6hello"), (goaway(PROTOCOL),)),
    "6.1 padded DATA is read": (
        post() + frame(DATA, END | PADDED, 1, b"\5" + BODY.encode() + bytes(5)), (status(200),)),
    "6.2 HEADERS on stream 0": (get(0), (goaway(PROTOCOL),)),
    "6.2 more padding than HEADERS": (
        frame(HEADERS, END | END_HEADERS | PADDED, 1, b"\xff" + BLOCK), (goaway(PROTOCOL),)),
    "6.2 HEADERS with padding and priority": (
        frame(HEADERS, END | END_HEADERS | PADDED | PRIO, 1, b"\3" + bytes(4) + b"\1" + BLOCK + bytes(3)),
        (status(200),)),
    "6.3 PRIORITY on stream 0": (frame(PRIORITY, payload=bytes(5)), (goaway(PROTOCOL),)),
    "6.3 PRIORITY of 4 bytes": (post() + frame(PRIORITY, stream=1, payload=bytes(4)), (goaway(SIZE), rst(SIZE))),
    "6.4 RST_STREAM on stream 0": (frame(RST, payload=bytes(4)), (goaway(PROTOCOL),)),
    "6.4 RST_STREAM of 3 bytes": (post() + frame(RST, stream=1, payload=bytes(3)), (goaway(SIZE),)),
    "6.5 SETTINGS are acknowledged": (setting(4, 70000), ("ACK",)),
    "6.5 an ACK with a payload": (frame(SETTINGS, ACK, payload=bytes(6)), (goaway(SIZE),)),
    "6.5 SETTINGS of a stream": (frame(SETTINGS, stream=1, payload=bytes(6)), (goaway(PROTOCOL),)),
    "6.5 SETTINGS of 3 bytes": (frame(SETTINGS, payload=bytes(3)), (goaway(SIZE),)),
    "6.5.2 ENABLE_PUSH of 2": (setting(2, 2), (goaway(PROTOCOL),)),
    "6.5.2 INITIAL_WINDOW_SIZE of 2**31": (setting(4, 2**31), (goaway(FLOW),)),
    "6.5.2 MAX_FRAME_SIZE too small": (setting(5, 2**14 - 1), (goaway(PROTOCOL),)),
    "6.5.2 MAX_FRAME_SIZE too large": (setting(5, 2**24), (goaway(PROTOCOL),)),
    "6.5.2 unknown settings are ignored": (setting(0x4A4A, 1), ("ACK",)),
    "6.6 clients do not push": (
        frame(PUSH, END_HEADERS, 1, struct.pack(">I", 2) + BLOCK), (goaway(PROTOCOL),)),
    "6.7 a PING comes back": (frame(PING, payload=b"\1\2\3\4\5\6\7\x08"), ("PONG",)),
    "6.7 an answer to no PING is ignored": (frame(PING, ACK, payload=bytes(8)), ()),
    "6.7 PING on a stream": (frame(PING, stream=1, payload=bytes(8)), (goaway(PROTOCOL),)),
    "6.7 PING of 6 bytes": (frame(PING, payload=bytes(6)), (goaway(SIZE),)),
    "6.8 GOAWAY on a stream": (frame(GOAWAY, stream=1, payload=bytes(8)), (goaway(PROTOCOL),)),
    "6.8 GOAWAY of 7 bytes": (frame(GOAWAY, payload=bytes(7)), (goaway(SIZE),)),
    "6.9 WINDOW_UPDATE of nothing": (window(0), (goaway(PROTOCOL),)),
    "6.9 WINDOW_UPDATE of nothing, on a stream": (post() + window(0, 1), (rst(PROTOCOL), goaway(PROTOCOL))),
    "6.9 WINDOW_UPDATE of 3 bytes": (frame(WINDOW, payload=bytes(3)), (goaway(SIZE),)),
    "6.9.1 a window without end": (window(BIG) + window(BIG), (goaway(FLOW),)),
    "6.9.1 a stream's window without end": (post() + window(BIG, 1), (rst(FLOW),)),
    "6.9.2 a window without end by SETTINGS": (post() + window(BIG - 70000, 1) + setting(4, BIG), (goaway(FLOW),)),
    "6.10 a block in several frames": (
        frame(HEADERS, END, 1, BLOCK[:3]) + frame(CONTINUATION, 0, 1, BLOCK[3:9])
        + frame(CONTINUATION, END_HEADERS, 1, BLOCK[9:]), (status(200),)),
    "6.10 CONTINUATION of another stream": (
        get(flags=END) + frame(CONTINUATION, END_HEADERS, 3, b""), (goaway(PROTOCOL),)),
    "6.10 CONTINUATION on stream 0": (get(flags=END) + frame(CONTINUATION, END_HEADERS, 0), (goaway(PROTOCOL),)),
    "6.10 CONTINUATION of a block that ended": (
        get(flags=END) + frame(CONTINUATION, END_HEADERS, 1) + frame(CONTINUATION, END_HEADERS, 1),
        (goaway(PROTOCOL),)),
    "8.1 a second HEADERS that does not end the stream": (
        post() + frame(HEADERS, END_HEADERS, 1, block(("x-a", "b"))), (goaway(PROTOCOL), rst(PROTOCOL))),
    "8.1 trailers are dropped": (
        post() + body(flags=0) + frame(HEADERS, END | END_HEADERS, 1, block(("x-check", "sum"))), (status(200),)),
    "8.1 no trailers: a pseudo-header": (
        post() + frame(HEADERS, END | END_HEADERS, 1, block((":path", "/"))), (rst(PROTOCOL), goaway(PROTOCOL))),
    "8.1 no trailers: upper case": (
        post() + frame(HEADERS, END | END_HEADERS, 1, block(("X-A", "b"))), (rst(PROTOCOL), goaway(PROTOCOL))),
    "8.1.1 a body that is too short": (
        post(1, ("content-length", "1000")) + body(), (rst(PROTOCOL), goaway(PROTOCOL))),
    "8.1.1 a body that is too long": (
        post(1, ("content-length", "1")) + body(), (rst(PROTOCOL), goaway(PROTOCOL))),
    "8.1.1 a body in pieces that is too long": (
        post(1, ("content-length", "3")) + frame(DATA, 0, 1, b"ab") + frame(DATA, END, 1, b"cd"),
        (rst(PROTOCOL), goaway(PROTOCOL))),
    "8.1.1 a length that is no number": (post(1, ("content-length", "+5")), (rst(PROTOCOL), goaway(PROTOCOL))),
    "8.1.1 a length without a body": (
        frame(HEADERS, END | END_HEADERS, 1, block(*POST_FIELDS, ("content-length", "5"))),
        (rst(PROTOCOL), goaway(PROTOCOL))),
    "8.2.1 upper case": (get(1, ("X-Test", "a")), (rst(PROTOCOL),)),
    "8.2.1 a space in a name": (get(1, ("x test", "a")), (rst(PROTOCOL),)),
    "8.2.1 a colon in a name": (get(1, ("x:test", "a")), (rst(PROTOCOL),)),
    "8.2.1 an empty name": (get(1, ("", "a")), (rst(PROTOCOL),)),
    "8.2.1 a newline in a value": (get(1, ("x-test", "a\nb")), (rst(PROTOCOL),)),
    "8.2.1 a carriage return in a value": (get(1, ("x-test", "a\rb")), (rst(PROTOCOL),)),
    "8.2.1 a NUL in a value": (get(1, ("x-test", "a\0b")), (rst(PROTOCOL),)),
    "8.2.1 spaces around a value": (get(1, ("x-test", " a")), (rst(PROTOCOL),)),
    "8.2.1 a newline in a path": (asking(*but(":path", "/healthz\r\nx: y")), (rst(PROTOCOL),)),
    "8.2.2 connection": (get(1, ("connection", "close")), (rst(PROTOCOL),)),
    "8.2.2 proxy-connection": (get(1, ("proxy-connection", "close")), (rst(PROTOCOL),)),
    "8.2.2 keep-alive": (get(1, ("keep-alive", "timeout=5")), (rst(PROTOCOL),)),
    "8.2.2 upgrade": (get(1, ("upgrade", "websocket")), (rst(PROTOCOL),)),
    "8.2.2 transfer-encoding": (get(1, ("transfer-encoding", "chunked")), (rst(PROTOCOL),)),
    "8.2.2 te": (get(1, ("te", "trailers, deflate")), (rst(PROTOCOL),)),
    "8.2.2 te: trailers is fine": (get(1, ("te", "trailers")), (status(200),)),
    "8.2.3 cookies in crumbs": (get(1, ("cookie", "a=b"), ("cookie", "c=d")), (status(200),)),
    "8.3 a pseudo-header nobody knows": (asking(*GET_FIELDS, (":test", "a")), (rst(PROTOCOL),)),
    "8.3 a pseudo-header of responses": (asking(*GET_FIELDS, (":status", "200")), (rst(PROTOCOL),)),
    "8.3 a pseudo-header behind a field": (asking(("x-a", "b"), *GET_FIELDS), (rst(PROTOCOL),)),
    "8.3.1 no :method": (asking(*but(":method")), (rst(PROTOCOL),)),
    "8.3.1 two :method": (asking(*but(":method", "GET", "GET")), (rst(PROTOCOL),)),
    "8.3.1 a :method that is none": (asking(*but(":method", "GE T")), (rst(PROTOCOL),)),
    "8.3.1 no :scheme": (asking(*but(":scheme")), (rst(PROTOCOL),)),
    "8.3.1 two :scheme": (asking(*but(":scheme", "https", "https")), (rst(PROTOCOL),)),
    "8.3.1 a :scheme that is not served": (asking(*but(":scheme", "junk")), (rst(PROTOCOL),)),
    "8.3.1 no :path": (asking(*but(":path")), (rst(PROTOCOL),)),
    "8.3.1 two :path": (asking(*but(":path", "/healthz", "/healthz")), (rst(PROTOCOL),)),
    "8.3.1 an empty :path": (asking(*but(":path", "")), (rst(PROTOCOL),)),
    "8.3.1 a :path that is none": (asking(*but(":path", "healthz")), (status(400),)),
    "8.3.1 a :path that climbs": (asking(*but(":path", "/%2e%2e/healthz")), (status(400),)),
    "8.3.1 a :path with a fragment": (asking(*but(":path", "/healthz#a")), (status(400),)),
    "8.3.1 a :path beyond ASCII": (asking(*but(":path", "/h\xe9")), (status(400),)),
    "8.3.1 host differs from :authority": (get(1, ("host", "evil.example")), (rst(PROTOCOL),)),
    "8.3.1 host says the same": (get(1, ("host", "LOCALHOST")), (status(200),)),
    "8.3.1 host alone": (asking(*but(":authority"), ("host", "localhost")), (status(200),)),
    "8.3.1 two hosts": (asking(*but(":authority"), ("host", "localhost"), ("host", "localhost")), (rst(PROTOCOL),)),
    "8.4 a method in lower case": (asking(*but(":method", "get")), (status(405),)),
    "8.4 TRACE": (asking(*but(":method", "TRACE")), (status(405),)),
    "8.5 CONNECT": (asking((":method", "CONNECT"), (":authority", "localhost:80")), (status(405),)),
    "8.5 CONNECT with a path": (asking(*but(":method", "CONNECT")), (rst(PROTOCOL),)),
    "8.5 CONNECT to nowhere": (asking((":method", "CONNECT")), (rst(PROTOCOL),)),
    "RFC 8441 extended CONNECT is not offered": (
        asking(*but(":method", "CONNECT"), (":protocol", "websocket")), (rst(PROTOCOL),)),
}  # fmt: skip


async def said_to(watch: Any, served: Any, sent: bytes, greeting: bytes = PREFACE + frame(SETTINGS)) -> Any:
    """What a server says to some bytes, up to the answer to a PING behind them, or the end."""
    observer = watch(served)
    await observer.stream.send_all(greeting + sent)
    await trio.testing.wait_all_tasks_blocked()
    await observer.stream.send_all(frame(PING, payload=b"the end!"))
    await observer.until(lambda: "END" in observer.said)
    return observer


@pytest.mark.parametrize(("sent", "expected"), ROWS.values(), ids=ROWS)
async def test_what_comes_of_frames(
    running: Any, watch: Any, autojump_clock: Any, sent: bytes, expected: tuple[str, ...]
) -> None:
    """One of what the RFC allows; and a connection that is not in error goes on."""
    async with running() as served:
        observer = await said_to(watch, served, sent)
        said = [each for each in observer.said if each != "END"]
        said.remove("ACK")
        ends = [each for each in said if each.startswith(("GOAWAY", "RST"))]

        assert not expected or (set(said) & set(expected)) or ("" in expected and not said), said
        assert ends == [each for each in ends if each in expected], said
        assert observer.closed == any(each.startswith("GOAWAY") for each in said)
        assert served.source.server.contained == 0


@pytest.mark.parametrize(
    ("greeting", "expected"),
    [
        (b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", PROTOCOL),
        (b"INVALID CONNECTION PREFACE\r\n\r\n", PROTOCOL),
        (PREFACE[:-1] + b"x", PROTOCOL),
        (PREFACE + frame(PING, payload=bytes(8)), PROTOCOL),
        (PREFACE + frame(SETTINGS, ACK), PROTOCOL),
        (PREFACE + get(), PROTOCOL),
    ],
)
async def test_how_a_connection_does_not_begin(
    running: Any, watch: Any, autojump_clock: Any, greeting: bytes, expected: int
) -> None:
    """Section 3.4: the preface, and SETTINGS behind it."""
    async with running() as served:
        observer = await said_to(watch, served, b"", greeting)

        assert observer.said == [goaway(expected)]
        assert observer.closed


@pytest.mark.parametrize("size", [1, 3, 17])
async def test_bytes_may_come_cut_anywhere(running: Any, watch: Any, autojump_clock: Any, size: int) -> None:
    """A request in pieces of any size is the same request."""
    async with running() as served:
        observer = watch(served)
        sent = PREFACE + frame(SETTINGS) + post() + body()
        for at in range(0, len(sent), size):
            await observer.stream.send_all(sent[at : at + size])
        await observer.until(lambda: status(200) in observer.said)

        assert observer.said[:2] == ["ACK", status(200)]


async def test_a_window_of_one_byte_is_used(running: Any, watch: Any, autojump_clock: Any) -> None:
    """Sections 6.9.1, 6.9.2: no more than there is room for, and the rest when there is; also after it was negative."""
    async with running() as served:
        observer = watch(served)
        await observer.stream.send_all(PREFACE + setting(4, 1) + get())
        await observer.until(lambda: "1 bytes" in observer.said)
        await observer.stream.send_all(setting(4, 3))
        await observer.until(lambda: "2 bytes" in observer.said)
        await observer.stream.send_all(setting(4, 0) + window(2, 1))
        await trio.testing.wait_all_tasks_blocked()
        await observer.stream.send_all(window(100, 1))
        await observer.until(lambda: "14 bytes" in observer.said or "15 bytes" in observer.said)

        assert [each for each in observer.said if "bytes" in each] == ["1 bytes", "2 bytes", "15 bytes"]


async def test_of_several_values_of_a_setting_the_last_counts(running: Any, watch: Any, autojump_clock: Any) -> None:
    """Section 6.5.3: in order of appearance."""
    async with running() as served:
        observer = watch(served)
        both = struct.pack(">HIHI", 4, 100, 4, 1)
        await observer.stream.send_all(PREFACE + frame(SETTINGS, payload=both) + get())
        await observer.until(lambda: any("bytes" in each for each in observer.said))

        assert observer.said == ["ACK", status(200), "1 bytes"]
