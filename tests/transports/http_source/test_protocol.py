"""The parts of the protocol that no request reaches by itself."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.transports.http_source.edge import HeadRefused
from sluiceway.transports.http_source.heads import Heads
from sluiceway.transports.http_source.inbox import MAX_UNREAD, Inbox
from sluiceway.transports.http_source.protocol import Http1, status_line
from sluiceway.transports.http_source.request import Remote


def body(size):
    return {"type": "http.request", "body": b"x" * size, "more_body": True}


async def test_an_inbox_is_full_until_somebody_reads_or_nobody_will():
    """And says so to the connection, once each time."""
    told = []
    inbox = Inbox(lambda: told.append(inbox.is_full))
    inbox.put(body(MAX_UNREAD))
    seen = [inbox.is_full]
    inbox.put(body(1))
    seen.append(inbox.is_full)
    await inbox.receive()
    seen.append(inbox.is_full)
    await inbox.receive()
    inbox.put(body(MAX_UNREAD + 1))
    inbox.abandon()
    inbox.put(body(10 * MAX_UNREAD))
    seen.append(inbox.is_full)

    assert [False, True, False, False] == seen
    assert [False, False] == told


async def test_who_left_stays_gone(autojump_clock):
    """Asked again, an inbox says so again."""
    inbox = Inbox(lambda: None)
    inbox.put({"type": "http.disconnect"})

    assert ["http.disconnect"] * 2 == [(await inbox.receive())["type"] for _ in range(2)]


def http1(write=None):
    """The protocol of a connection without WebSockets."""
    return Http1(write, lambda _: False, Heads(), lambda: None, Remote())


async def response_of(request, *messages):
    """The bytes of a response."""
    written = []

    async def write(data):
        written.append(data)

    protocol = http1(write)
    protocol.feed(request)
    stream = protocol.next_request()
    for message in messages:
        await stream.send(message)
    return written, stream


def start(status=200, *headers):
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def piece(data, *, more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}


GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


async def test_a_whole_response_is_one_write():
    """Head and body go out together."""
    [data], stream = await response_of(GET, start(200, (b"content-length", b"2")), piece(b"ok"))

    head, _, body = data.partition(b"\r\n\r\n")
    assert (b"HTTP/1.1 200 OK", b"ok") == (head.partition(b"\r\n")[0], body)
    assert stream.answered
    assert not stream.closes


async def test_a_response_without_length_comes_in_chunks_or_ends_with_its_connection():
    """Old clients know no chunks."""
    new, _ = await response_of(GET, start(), piece(b"a", more=True), piece(b"", more=True), piece(b"b"))
    old, stream = await response_of(GET.replace(b"1.1", b"1.0"), start(), piece(b"a", more=True), piece(b"b"))

    assert [b"1\r\na\r\n", b"1\r\nb\r\n0\r\n\r\n"] == [new[0].partition(b"\r\n\r\n")[2], new[1]]
    assert [b"a", b"b"] == [old[0].partition(b"\r\n\r\n")[2], old[1]]
    assert stream.closes


@pytest.mark.parametrize("status", [200, 202, 204, 304, 404])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_whole_answer_is_what_its_parts_would_be(version, method, status):
    """The short way writes the same bytes."""
    request = GET.replace(b"1.1", version).replace(b"GET", method)
    sized = ((b"content-length", b"2"),) if status != 204 else ()
    close = ((b"connection", b"close"),)
    parts, first = await response_of(request, start(status, *close, *sized), piece(b"ok"))
    whole, second = await response_of(request)
    await second.answer(status, {"connection": "close"}, b"ok")
    await second.answer(500, {}, b"late")

    assert sorted(parts[0].split(b"\r\n")) == sorted(whole[0].split(b"\r\n"))
    assert 1 == len(whole)
    assert (first.closes, first.answered, first.started) == (second.closes, second.answered, second.started)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_what_has_no_body_gets_none(method, status):
    """Whatever the application says (RFC 9112 section 6.3)."""
    [data], _ = await response_of(GET.replace(b"GET", method.encode()), start(status), piece(b"body"))

    assert data.endswith(b"\r\n\r\n")
    assert (b"transfer-encoding" in data) == (method == "HEAD")


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\n", b"a\0"])
async def test_a_header_cannot_carry_another(value):
    """What came from somebody else ends no line."""
    with pytest.raises(ValueError, match="cannot carry"):
        await response_of(GET, start(200, (b"x-a", value)))


@pytest.mark.parametrize(
    "headers", [{"x-a": "a\r\nset-cookie: b"}, {"x-b": "", "x-a": "a\n"}, {"x-a\r\nb": "c"}, {"": "x"}]
)
async def test_nor_can_one_of_a_whole_answer(headers):
    """Neither by its value nor by its name."""
    _, stream = await response_of(GET)
    with pytest.raises(ValueError, match="response header"):
        await stream.answer(200, headers, b"ok")


async def test_headers_of_a_whole_answer_are_written_as_they_are():
    """A tab, a percent sign, and a letter of Latin-1; what HTTP has no letter for becomes a question mark."""
    written, stream = await response_of(GET)
    await stream.answer(200, {"x-a": "a\tb%s", "x-%b": "\xe9\u20ac"}, b"ok")

    assert b"x-a: a\tb%s\r\nx-%b: \xe9?\r\n" in written[0]


async def test_a_body_without_head_is_a_bug():
    """Of the application, and told as one."""
    with pytest.raises(RuntimeError, match="begin with its head"):
        await response_of(GET, piece(b"a"))


async def test_nothing_is_written_for_who_left():
    """Nor is anybody told twice."""
    _, stream = await response_of(GET)
    told = []
    stream.on_gone(lambda: told.append(1))
    stream.leave()
    stream.leave()
    await stream.send(start())

    assert [1] == told
    assert "http.disconnect" == (await stream.receive())["type"]


async def test_nobody_is_told_to_go_on_who_has_been_answered(autojump_clock):
    """A refusal needs no body; whoever drops what still comes does not ask for it (RFC 9110 section 10.1.1)."""
    request = GET.replace(b"host: a\r\n", b"host: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n")
    written, stream = await response_of(request)
    await stream.answer(401, {}, b"no")
    with trio.move_on_after(1):
        await stream.receive()

    assert [b"HTTP/1.1 401"] == [data[:12] for data in written]


def test_an_unknown_status_has_no_phrase():
    """The space in front of it stays (RFC 9112 section 4)."""
    assert b"HTTP/1.1 299 \r\n" == status_line(299)


PARTS = st.sampled_from(
    [
        b"POST /mcp HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"host: a\r\n",
        b"content-length: 3\r\n",
        b"transfer-encoding: chunked\r\n", b"connection: close\r\n", b"expect: 100-continue\r\n", b"\r\n", b"abc",
        b"3\r\nabc\r\n", b"0\r\n\r\n", b"a", b" ", b":", b"\n", b"\r", b"\0", b"x: y\r\n", b"3;e\r\n",
    ]
)  # fmt: skip
WHOLE = st.sampled_from(
    [
        b"POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
        b"POST /mcp HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ]
)


def read(pieces):
    """What a connection makes of these bytes when each request is answered as soon as it is complete."""
    protocol, seen, end = http1(), [], []
    try:
        for piece in pieces:
            stream = protocol.stream
            if stream is None:
                stream = protocol.begin(piece)
            else:
                protocol.feed(piece)
                event = protocol.next_body()
                seen[-1][2] += event["body"] if event else b""
            while stream is not None:
                if not seen or seen[-1][3] is not stream:
                    body = stream.whole or b"".join(event.get("body", b"") for event in stream.inbox._events or ())
                    seen.append([stream.method, stream.path, body, stream])
                if not stream.framing.done:
                    break
                protocol.stream = None
                stream = protocol.next_request()
    except HeadRefused:
        end = ["refused"]
    return [each[:3] for each in seen] + end


@given(st.lists(st.one_of(WHOLE, PARTS), max_size=12), st.lists(st.integers(0, 600), max_size=12))
def test_requests_are_read_alike_however_they_are_cut(parts, places):
    """Whatever is sent: requests, and perhaps a refusal; never another one because bytes came in other pieces."""
    data = b"".join(parts)
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    whole, cut = read([data]), read([data[a:b] for a, b in zip([0, *ends], ends, strict=False)])

    if (
        "refused" in whole or "refused" in cut
    ):  # what is not complete may be refused early; nothing is read instead of it
        whole, cut = (each[:-1] if each[-1:] == ["refused"] else each for each in (whole, cut))
        shorter = min(len(whole), len(cut))
        assert [each[:2] for each in whole[:shorter]] == [each[:2] for each in cut[:shorter]]
        assert abs(len(whole) - len(cut)) <= 1
    else:
        assert whole == cut
