"""Connections on real sockets, which have no task, and on other streams, which have one: both do the same."""

from __future__ import annotations

import gc
import json
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.mcp import MetaKey
from sluiceway.pipeline.protocol.messages import Notification, Reply, Result
from sluiceway.transports.http_source.connection import MAX_RECV, Connection
from sluiceway.transports.http_source.connections import StreamConnection
from sluiceway.transports.http_source.inbox import MAX_UNREAD
from sluiceway.transports.http_source.said import MAX_SAID
from sluiceway.transports.wire import Wire


async def until(condition: Callable[[], object]) -> None:
    """Wait for what the kernel brings about."""
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110  # so it is
            await trio.sleep(0.001)


async def dial(served: Any, buffer: int | None = None) -> trio.SocketStream:
    """A TCP connection to the source."""
    host, _, port = served.source.addresses[0].rpartition(":")
    sock = trio.socket.socket()
    if buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    await sock.connect((host, int(port)))
    return trio.SocketStream(sock)


def post(served: Any, body: Any) -> bytes:
    """A modern request as bytes."""
    lines = [f"{k.replace('_', '-')}: {v}" for k, v in served.mirror(body).items() if v]
    data: bytes = served.raw_post(body, *lines)
    return data


async def read_answers(stream: Any, count: int) -> list[Any]:
    """The bodies of so many answers."""
    data, found = b"", []
    while len(found) < count:
        head, end, rest = data.partition(b"\r\n\r\n")
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if end and len(rest) >= length:
            found.append(json.loads(rest[:length]))
            data = rest[length:]
            continue
        piece = await stream.receive_some(65536)
        assert piece, "it ended early"
        data += piece
    return found


def connections_of(served: Any) -> list[Connection]:
    """Those that are open."""
    return [each for each in served.source.server._connections if isinstance(each, Connection)]


async def test_who_sends_without_end_does_not_keep_others_waiting(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some reads the others have their turn, and then it goes on where it was."""
    reads, turns = 0, 0

    async def other() -> None:
        nonlocal turns
        while reads < 20:
            turns += 1
            await trio.lowlevel.checkpoint()

    def feed(connection: Connection, data: bytes) -> None:
        nonlocal reads
        reads += 1
        assert reads < 1000, "it is never done"
        if not data:
            connection.close()

    async with running(bound=True) as served:
        stream = await dial(served)
        await until(lambda: connections_of(served))
        monkeypatch.setattr(Connection, "feed", feed)
        monkeypatch.setattr(Wire, "receive_nowait", lambda _wire, size: bytes(size) if reads < 20 else b"")
        served.nursery.start_soon(other)
        with suppress(trio.BrokenResourceError):
            await stream.send_all(b"a")
        await until(lambda: not connections_of(served))
        await stream.aclose()

    assert turns > 5


async def test_a_connection_at_rest_has_no_task(running: Any) -> None:
    """Neither before its first request nor after it; and all of them share the timer."""

    def tasks() -> int:
        return trio.lowlevel.current_statistics().tasks_living

    async with running(bound=True) as served:
        first = await dial(served)
        await first.send_all(post(served, served.modern("tools/list")))
        await read_answers(first, 1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        before = tasks()
        streams = [await dial(served) for _ in range(20)]
        for stream in streams[:10]:
            await stream.send_all(post(served, served.modern("tools/list")))
            await read_answers(stream, 1)
        await until(lambda: len(connections_of(served)) == 21)
        await trio.testing.wait_all_tasks_blocked(0.01)

        assert before == tasks()
        assert 21 == len(served.source.server.deadlines)
        for stream in (first, *streams):
            await stream.aclose()
        await until(lambda: served.source.server.connections == 0)
        assert 0 == len(served.source.server.deadlines)


async def test_many_requests_at_once_are_answered_in_order_and_others_have_their_turn(running: Any) -> None:
    """A client that sends them behind each other does not keep the process to itself."""
    turns = [0]

    async def others() -> None:
        while True:
            turns[0] += 1
            await trio.lowlevel.checkpoint()

    async def sink(exchange: Exchange) -> Reply:
        seen.append(turns[0])
        return Result()

    seen: list[int] = []
    async with running(sink, bound=True) as served:
        stream = await dial(served)
        served.nursery.start_soon(others)
        await stream.send_all(b"".join(post(served, served.modern("tools/list", n)) for n in range(100)))
        answers = await read_answers(stream, 100)
        await stream.aclose()

    assert list(range(100)) == [answer["id"] for answer in answers]
    assert len(set(seen)) >= 4  # of seven rounds; in two that follow each other the same may be seen


@pytest.mark.parametrize("bound", [True, False], ids=["socket", "stream"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_body_that_nobody_reads_is_not_read_from_the_connection(
    running: Any, monkeypatch: pytest.MonkeyPatch, bound: bool, framing: str
) -> None:
    """Back-pressure: what waits is bounded, and all of it arrives once somebody reads."""
    free = trio.Event()

    async def busy(*_: object) -> None:
        await free.wait()

    async with running(bound=bound, max_body=8_000_000) as served:
        monkeypatch.setattr(served.source._serving, "refuse_unread", busy)
        body = served.modern("tools/call", name="x", arguments={"a": "x" * 3_000_000})
        data = post(served, body)
        if framing == "chunks":
            head, _, text = data.partition(b"\r\n\r\n")
            length = b"content-length: %d" % len(text)
            chunks = (text[at : at + 100_000] for at in range(0, len(text), 100_000))
            framed = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks)
            data = head.replace(length, b"transfer-encoding: chunked") + b"\r\n\r\n" + framed + b"0\r\n\r\n"
        stream = await dial(served) if bound else served.connect().stream
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            await until(lambda: any(each.is_paused for each in connections_of(served)))
            [connection] = connections_of(served)
            request = connection._protocol.stream
            assert request is not None
            waiting = request.inbox._size
            free.set()
            [answer] = await read_answers(stream, 1)

        assert waiting <= MAX_UNREAD + MAX_RECV
        assert {"method": "tools/call", "name": "x"} == answer["result"]
        await stream.aclose()


@pytest.mark.parametrize("bound", [True, False], ids=["socket", "stream"])
@pytest.mark.parametrize("closing", [False, True], ids=["kept", "closing"])
async def test_a_client_that_was_answered_may_send_a_long_request_at_once(
    running: Any, monkeypatch: pytest.MonkeyPatch, bound: bool, closing: bool
) -> None:
    """It has its answer before the request before is over; it waits for that, and is not cut for sending too much."""
    free = trio.Event()

    async with running(bound=bound) as served:
        server = served.source.server
        serve = server.application.serve

        async def serve_and_linger(*given: Any) -> None:
            await serve(*given)
            await free.wait()

        monkeypatch.setattr(server.application, "serve", serve_and_linger, raising=False)
        stream = await dial(served) if bound else served.connect().stream
        await stream.send_all(post(served, served.modern("tools/list", 1)))
        await read_answers(stream, 1)
        long = served.modern("tools/call", 2, name="x", arguments={"a": "x" * 1_000_000})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, post(served, long))
            await until(lambda: any(each.is_paused for each in connections_of(served)))
            if closing:
                server.stop_accepting()
            free.set()
            if closing:
                assert b"" == await stream.receive_some(65536)
            else:
                assert 2 == (await read_answers(stream, 1))[0]["id"]
        await stream.aclose()


MORE = {"x-a": "b"}


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_requests_that_say_the_same_are_one_clients(running: Any, era: str) -> None:
    """On one connection, for as long as they do; one with another head, or from elsewhere, is looked at."""
    seen: list[Client] = []

    async def sink(exchange: Any) -> Result:
        seen.append(exchange.client)
        return Result({"protocolVersion": "2025-11-25"})

    async with running(sink, bound=True) as served:
        stream, other = await dial(served), await dial(served)
        message, head = served.modern("tools/list"), {}
        if era == "legacy":
            message, head = served.request("tools/list"), await served.session()
            seen.clear()
        head = {**(served.mirror(message) if era == "modern" else {}), **head}
        for at, more in [(stream, {}), (stream, {}), (stream, MORE), (stream, MORE), (other, MORE)]:
            lines = [f"{name.replace('_', '-')}: {value}" for name, value in {**head, **more}.items() if value]
            await at.send_all(served.raw_post(message, *lines))
            await read_answers(at, 1)
        await stream.aclose()
        await other.aclose()

    one, again, with_more, with_more_again, elsewhere = seen
    assert one is again
    assert with_more is with_more_again
    assert one is not with_more
    assert elsewhere is not with_more
    assert "b" == with_more.headers["x-a"]


async def test_long_metadata_does_not_stay_with_its_connection(running: Any) -> None:
    """What an idle client makes us keep is small."""
    seen: list[Client] = []

    async def sink(exchange: Any) -> Result:
        seen.append(exchange.client)
        return Result()

    async with running(sink, bound=True) as served:
        stream = await dial(served)
        for _ in range(2):
            info = {"name": "x" * MAX_SAID}
            await stream.send_all(post(served, served.modern("tools/list", _meta={MetaKey.CLIENT_INFO: info})))
            await read_answers(stream, 1)
        await stream.aclose()

    assert seen[0] is not seen[1]
    assert seen[0].info == seen[1].info


@pytest.mark.parametrize("over", ["tcp", "memory"])
async def test_what_a_head_carried_goes_with_its_connection_and_not_with_the_next_collection(
    running: Any, over: str
) -> None:
    """Its credential, and what followed from it: a connection is part of a cycle."""
    async with running(bound=True) as served:
        heads, connections = served.source.server.heads, served.source.server._connections
        stream = served.connect().stream if over == "memory" else await dial(served)
        message = served.modern("tools/call", 1, name="x")
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in served.mirror(message).items()]
        gc.disable()
        try:
            await stream.send_all(served.raw_post(message, "authorization: Bearer secret", *lines))
            await read_answers(stream, 1)
            await until(lambda: all(each.idle for each in connections))
            remote = next(iter(connections))._protocol.remote
            seen = [len(heads), remote.said is not None]
            await stream.aclose()
            await until(lambda: not connections)
            seen += [len(heads), remote.said is not None]
        finally:
            gc.enable()

        assert [1, True, 0, False] == seen


async def test_what_arrives_as_its_connection_is_closed_is_not_taken(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was on its way to the task that reads."""
    fed: list[bytes] = []

    def feed(connection: Connection, data: bytes) -> None:
        fed.append(data)
        Connection.feed(connection, data)

    monkeypatch.setattr(StreamConnection, "feed", feed)
    async with running() as served:
        stream: Any = served.connect().stream
        await stream.send_all(b"GET /hea")
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = served.source.server._connections

        pump = stream.send_stream.send_all_hook

        async def pump_and_close() -> None:
            await pump()
            connection.close()

        stream.send_stream.send_all_hook = pump_and_close
        await stream.send_all(b"lthz HTTP/1.1\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()

    assert [b"GET /hea"] == fed


async def test_a_long_answer_to_a_slow_reader_arrives_whole(running: Any) -> None:
    """Written in parts, while the client already sends its next request."""

    async def sink(exchange: Exchange) -> Reply:
        return Result({"text": "x" * 5_000_000})

    async with running(sink, bound=True) as served:
        stream = await dial(served, buffer=8192)
        await stream.send_all(post(served, served.modern("tools/list", 1)))
        await until(lambda: served.pipeline.served == 1)
        await trio.sleep(0.01)
        await stream.send_all(post(served, served.modern("tools/list", 2)))
        first, second = await read_answers(stream, 2)
        await stream.aclose()

    assert [(1, 5_000_000), (2, 5_000_000)] == [(each["id"], len(each["result"]["text"])) for each in (first, second)]


@pytest.mark.parametrize("seed", range(3))
async def test_a_client_that_leaves_at_any_moment_cancels_its_call_and_nothing_else(running: Any, seed: int) -> None:
    """Before its head, in its body, during its call, between its events, while it is written to: nothing is left."""
    rng = random.Random(seed)
    started, ended, finished = [0], [0], [0]

    async def sink(exchange: Exchange) -> Reply:
        started[0] += 1
        try:
            for n in range(3):
                await trio.sleep(rng.random() * 0.004)
                if rng.random() < 0.3:
                    await exchange.relay(Notification("notifications/progress", {"progressToken": 1, "progress": n}))
            finished[0] += 1
            return Result({"text": "x" * rng.choice([1, 300_000])})
        finally:
            ended[0] += 1

    async with running(sink, bound=True) as served:

        async def leaver(n: int) -> None:
            stream = await dial(served)
            data = post(served, served.modern("tools/call", n, name="x"))
            cut = rng.choice([len(data), rng.randrange(len(data))])
            await stream.send_all(data[:cut])
            await trio.sleep(rng.random() * 0.01)
            if rng.random() < 0.5:
                await stream.send_eof()
            await stream.aclose()

        async def stayer(n: int) -> None:
            stream = await dial(served)
            await stream.send_all(post(served, served.modern("tools/call", n, name="x")))
            data = b""
            while b'"result"' not in data or not data.endswith((b"}", b"0\r\n\r\n")):
                piece = await stream.receive_some()
                assert piece, data[-200:]
                data += piece
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            for n in range(60):
                nursery.start_soon(leaver, n)
                nursery.start_soon(stayer, 1000 + n)
        await until(lambda: served.source.server.connections == 0 and not served.pipeline.lane.tickets)

        assert started == ended
        assert finished[0] >= 60
        assert (0, 0) == (served.source.server.contained, len(served.source._serving.patience.times))
        assert [] == [e for e in served.log.entries if e["log_level"] == "error"]


async def test_the_end_of_the_server_closes_every_connection(running: Any) -> None:
    """Idle ones, those in the middle of a request, and those that are being answered."""

    async def sink(exchange: Exchange) -> Reply:
        await trio.sleep_forever()
        raise AssertionError

    async with running(sink, bound=True) as served:
        idle, half, busy = [await dial(served) for _ in range(3)]
        data = post(served, served.modern("tools/list"))
        await half.send_all(data[:-5])
        await busy.send_all(data)
        await until(lambda: served.pipeline.lane.tickets and len(connections_of(served)) == 3)
    for stream in (idle, half, busy):
        with trio.fail_after(5):
            with suppress(trio.BrokenResourceError):
                assert b"" == await stream.receive_some()
        await stream.aclose()

    assert 0 == served.source.server.connections


async def test_a_bug_while_a_request_is_handed_on_ends_its_connection(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is contained there, whoever's task it is in."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("by accident")

    async with running(bound=True) as served:
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "_behind", broken)
            stream = await dial(served)
            await stream.send_all(post(served, served.modern("tools/list")))
            while await stream.receive_some():
                pass
            await stream.aclose()
        after = await dial(served)
        await after.send_all(post(served, served.modern("tools/list")))

        assert 1 == len(await read_answers(after, 1))
        assert 1 == served.source.server.contained
        await after.aclose()
