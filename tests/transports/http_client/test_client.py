"""One request after the other over HTTP/1.1: what a connection is good for after each response."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from contextlib import suppress

import pytest
import trio

from sluiceway.pipeline.model.origin import Origin
from sluiceway.pipeline.protocol.errors import UpstreamClosed, UpstreamProtocolError
from sluiceway.transports.http_client import client as client_module
from sluiceway.transports.http_client import known_heads
from sluiceway.transports.http_client.client import HttpClient
from sluiceway.transports.http_client.connection import PIECE
from sluiceway.transports.http_client.parser import Head, ResponseParser
from sluiceway.transports.http_client.response import Response

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"


class Scripted:
    """A connection on which this is said, piece by piece; where an error stands, that is what happens."""

    speaks_http2 = False

    def __init__(self, pieces: Iterable[bytes | type[Exception]]) -> None:
        self._pieces = iter(pieces)
        self.closed = False
        self.left = False
        self.takes = 1000
        self.in_vain = 0
        self.sent: list[bytes] = []

    def send_nowait(self, data: bytes) -> int:
        if self.left and self.takes == 1000:
            self.in_vain += 1
            raise trio.BrokenResourceError
        self.sent.append(data[: self.takes])
        return len(self.sent[-1])

    async def send_all(self, data: bytes | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self.left:
            raise trio.BrokenResourceError
        self.sent.append(bytes(data))

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        said = next(self._pieces, b"")
        if isinstance(said, type):
            raise said
        return said

    def close(self) -> None:
        self.closed = True

    def is_readable(self) -> bool:
        return False


class Origins:
    """A client, and what each of its connections says."""

    def __init__(self, *connections: Iterable[bytes | type[Exception]]) -> None:
        self._left = list(connections)
        self.opened: list[Scripted] = []
        self.client = HttpClient("up", Origin(False, "up.example", 80, "/"), self._dial, max_message=1000)
        self._head = self.client.prepare("POST", {})

    async def _dial(self) -> Scripted:
        await trio.lowlevel.checkpoint()
        self.opened.append(Scripted(self._left.pop(0)))
        return self.opened[-1]

    async def send(self, *, repeatable: bool = False) -> Response:
        return await self.client.send(self._head, b"", b"{}", repeatable=repeatable)

    async def ask(self, *, repeatable: bool = False) -> bytes:
        with self.client.faults, await self.send(repeatable=repeatable) as response:
            return await response.body(1000)


async def test_a_response_that_is_here_as_a_whole_holds_nothing():
    """Its connection is at rest before anybody reads it, and its body is there, once."""
    origin = Origins([HEAD + b"hi", HEAD + b"yo"])

    for expected in (b"hi", b"yo"):
        response = await origin.send()

        assert origin.client.taken == 0
        assert (response.whole, response.complete) == (expected, True)
        assert [await response.chunk(), await response.chunk()] == [expected, b""]
        response.finish()
        response.close()
    assert len(origin.opened) == 1


async def test_a_head_that_is_known_needs_no_parser(monkeypatch):
    """That is what it is remembered for."""
    parsers = []

    class Counted(ResponseParser):  # type: ignore[misc]  # final, but this is a spy
        def __init__(self, known: Head | None = None) -> None:
            super().__init__(known)
            parsers.append(self)

    monkeypatch.setattr(known_heads, "ResponseParser", Counted)
    origin = Origins([HEAD + b"hi"] * 5)

    answers = [await origin.ask() for _ in range(5)]

    assert answers == [b"hi"] * 5
    assert len(parsers) == 1


@pytest.mark.parametrize("cut", range(1, len(HEAD) + 2))
async def test_a_response_with_a_known_head_may_come_in_pieces(cut):
    """Then it is parsed, and the connection is used again."""
    data = HEAD + b"hi"
    origin = Origins([data, data[:cut], data[cut:], data])

    assert [await origin.ask() for _ in range(3)] == [b"hi"] * 3
    assert len(origin.opened) == 1


@pytest.mark.parametrize("known", [False, True])
async def test_a_short_response_is_read_to_its_end_at_once(known):
    """Many servers send head and body one after the other; nobody has to come back for the body."""
    origin = Origins([*[HEAD + b"hi"] * known, HEAD, b"y", b"o"])
    for _ in range(known):
        await origin.ask()

    response = await origin.send()

    assert response.whole == b"yo"
    assert origin.client.taken == 0


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("head", [b"content-length: %d" % (PIECE + 1), b"transfer-encoding: chunked"])
async def test_a_response_that_may_be_long_is_left_to_its_reader(head, known):
    """It keeps its connection, and who does not read holds the peer back."""
    head = HEAD.replace(b"content-length: 2", head)
    body = b"2\r\nhi\r\n0\r\n\r\n" if b"chunked" in head else b"x" * (PIECE + 1)
    origin = Origins([*[head, body] * known, head, body])
    for _ in range(known):
        with await origin.send() as response:
            await response.body(2 * PIECE)

    with await origin.send() as response:
        assert (response.whole, response.complete, origin.client.taken) == (None, False, 1)
        assert response.chunk_nowait() is None
        assert await response.body(2 * PIECE) == (b"hi" if b"chunked" in head else body)
    assert len(origin.opened) == 1
    assert origin.client.taken == 0


async def test_bytes_behind_a_response_with_a_known_head_end_the_connection():
    """Nobody knows whose they are."""
    origin = Origins([HEAD + b"hi", HEAD + b"hi" + HEAD + b"no"], [HEAD + b"yo"])

    assert [await origin.ask() for _ in range(3)] == [b"hi", b"hi", b"yo"]
    assert [line.closed for line in origin.opened] == [True, False]


async def test_a_connection_that_breaks_after_a_known_head_is_told_as_ever():
    """The request may have run, so it is not sent again."""
    origin = Origins([HEAD + b"hi", HEAD + b"h"], [HEAD + b"no"])
    await origin.ask()

    with pytest.raises(UpstreamClosed, match="may have run"):
        await origin.ask(repeatable=True)
    assert len(origin.opened) == 1
    assert origin.client.taken == 0


async def test_a_request_that_a_closed_connection_took_no_byte_of_goes_out_again_once():
    """On a new connection; nothing was lost, so it need not be repeatable."""
    origin = Origins([HEAD + b"hi"], [HEAD + b"yo"])
    await origin.ask()
    origin.opened[0].left = True

    assert await origin.ask() == b"yo"
    assert [line.closed for line in origin.opened] == [True, False]
    assert [len(line.sent) for line in origin.opened] == [1, 1]


async def test_what_cannot_be_written_at_once_is_written_behind_it():
    """The peer sees one request."""
    origin = Origins([HEAD + b"hi", HEAD + b"yo"])
    await origin.ask()
    [line] = origin.opened
    line.takes, whole = 10, line.sent[0]

    assert await origin.ask() == b"yo"
    assert line.sent[1:] == [whole[:10], whole[10:]]


@pytest.mark.parametrize(("repeatable", "used"), [(True, True), (True, False), (False, True)])
async def test_a_request_that_a_reset_cut_off_goes_out_again_only_if_it_may_run_twice(repeatable, used):
    """And on a connection that was used before: a new one is closed for a reason."""
    origin = Origins([*[HEAD + b"hi"] * used, trio.BrokenResourceError], [HEAD + b"yo"])
    if used:
        await origin.ask()

    if repeatable and used:
        assert await origin.ask(repeatable=True) == b"yo"
    else:
        with pytest.raises(UpstreamClosed, match="may have run"):
            await origin.ask(repeatable=repeatable)
    assert sum(len(line.sent) for line in origin.opened) == 1 + used + (repeatable and used)
    assert origin.opened[0].closed
    assert origin.client.taken == 0


async def test_a_request_is_written_in_part_and_then_lost_so_nobody_has_it():
    """It goes out again, though it may not run twice."""
    origin = Origins([HEAD + b"hi"], [HEAD + b"yo"])
    await origin.ask()
    origin.opened[0].takes, origin.opened[0].left = 10, True

    assert await origin.ask() == b"yo"
    assert [len(line.sent) for line in origin.opened] == [2, 1]


@pytest.mark.parametrize("opened", [False, True])
async def test_who_is_cancelled_before_sends_nothing(opened):
    """Whether a connection is there or not; no place stays taken."""
    origin = Origins([HEAD + b"hi", HEAD + b"yo"])
    if opened:
        await origin.ask()

    with trio.CancelScope() as scope:
        scope.cancel()
        await origin.send()

    assert scope.cancelled_caught
    assert sum(len(line.sent) for line in origin.opened) == opened
    assert origin.client.taken == 0


async def test_after_a_dead_connection_none_that_rested_is_asked():
    """The others are dead, too, more likely than not; the request goes out once more and no oftener."""
    origin = Origins([HEAD + b"hi"], [HEAD + b"hi"], [HEAD + b"yo"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(origin.ask)
        nursery.start_soon(origin.ask)
    for line in origin.opened:
        line.left = True

    assert await origin.ask() == b"yo"
    assert [line.closed for line in origin.opened] == [True, True, False]
    assert sum(line.in_vain for line in origin.opened) == 1


@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize("how", [trio.BrokenResourceError, b""])
async def test_a_failure_leaves_no_circle_behind(how, repeatable):
    """What the request held, its bytes above all, is free as soon as the error was dealt with."""
    origin = Origins([HEAD + b"hi", how], [HEAD + b"yo"])
    await origin.ask()
    gc.collect()
    gc.disable()
    try:
        with suppress(UpstreamClosed):
            await origin.ask(repeatable=repeatable)
        line = weakref.ref(origin.opened.pop(0))

        assert line() is None
    finally:
        gc.enable()


async def test_what_is_no_response_gives_nothing_back():
    """The connection is closed, and the exchange gets the error."""
    origin = Origins([b"SSH-2.0\r\n\r\n"])

    with pytest.raises(UpstreamProtocolError, match=r"not HTTP/1\.1"):
        await origin.ask()
    assert origin.opened[0].closed
    assert origin.client.taken == 0


async def test_a_request_is_one_write():
    """Head, headers and content."""
    origin = Origins([HEAD + b"hi"])
    await origin.client.send(b"POST / HTTP/1.1\r\n", b"a: b\r\n", b"{}", repeatable=False)

    assert origin.opened[0].sent == [b"POST / HTTP/1.1\r\na: b\r\ncontent-length: 2\r\n\r\n{}"]


def test_the_client_knows_what_can_go_wrong():
    """Everything that a connection raises becomes an error of the exchange."""
    assert {error.__name__ for error in client_module.FAULTS} == {
        "PeerGone",
        "MalformedResponse",
        "DialFailed",
        "PoolFull",
        "BodyTooLarge",
    }
