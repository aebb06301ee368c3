"""The parts of the protocol that no request reaches by itself."""

from __future__ import annotations

import pytest
import trio

from sluiceway.transports.http_source.protocol import MAX_UNREAD, Http1, Inbox, status_line


def body(size):
    return {"type": "http.request", "body": b"x" * size, "more_body": True}


async def test_an_inbox_holds_back_the_connection_when_it_is_full(autojump_clock):
    """Until somebody reads, or nobody will any more."""
    inbox = Inbox()
    await inbox.put(body(MAX_UNREAD))
    done = []

    async def put(size):
        await inbox.put(body(size))
        done.append(size)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert [] == done
        await inbox.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert [1] == done
        nursery.start_soon(put, MAX_UNREAD)
        await trio.testing.wait_all_tasks_blocked()
        inbox.abandon()
        await inbox.put(body(10 * MAX_UNREAD))

    assert [1, MAX_UNREAD] == done


async def test_who_left_stays_gone(autojump_clock):
    """Asked again, an inbox says so again."""
    inbox = Inbox()
    await inbox.put({"type": "http.disconnect"})

    assert ["http.disconnect"] * 2 == [(await inbox.receive())["type"] for _ in range(2)]


async def response_of(request, *messages):
    """The bytes of a response."""
    written = []

    async def write(data):
        written.append(data)

    protocol = Http1(write, lambda _: False)
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
    assert "http.request" == (await stream.receive())["type"]
    assert "http.disconnect" == (await stream.receive())["type"]


def test_an_unknown_status_has_no_phrase():
    """The space in front of it stays (RFC 9112 section 4)."""
    assert b"HTTP/1.1 299 \r\n" == status_line(299)
