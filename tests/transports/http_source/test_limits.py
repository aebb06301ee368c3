"""What a client may cost: sizes, times, numbers (cases 7 and 10)."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from sluiceway.pipeline.protocol.messages import Result
from sluiceway.transports.http_source.checks import Checked


async def test_a_body_over_the_limit_is_refused_at_once_by_its_length(running, autojump_clock):
    """Case 7: 413 before any of it was sent, and the connection closes."""
    async with running(max_body=1000) as served:
        for length in ("1001", "1" + "0" * 17):
            wire = served.connect()
            await wire.send_raw(
                served.raw_post(b"").replace(b"content-length: 0", f"content-length: {length}".encode())
            )
            answer = await wire.response()

            assert (413, 41300, "close") == (answer.status, answer.code, answer.headers["connection"])
            assert 0.0 == trio.current_time()
            await wire.closed()
        assert 2.0 >= trio.current_time()


async def test_a_chunked_body_is_refused_at_the_limit(running, autojump_clock):
    """Case 7: the rest is not waited for; what still comes is dropped and not kept."""
    async with running(max_body=1000) as served:
        wire = served.connect()
        head = served.raw_post(b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
        await wire.send_raw(head + b"3e8\r\n" + b" " * 1000 + b"\r\n")
        await trio.sleep(1)
        await wire.stream.send_all(b"1\r\n \r\n")
        answer = await wire.response()
        for _ in range(100):
            await wire.stream.send_all(b"fff\r\n" + b" " * 0xFFF + b"\r\n")

        assert (413, 1.0) == (answer.status, trio.current_time())
        await wire.closed()


async def test_a_body_of_exactly_the_limit_is_read(running, autojump_clock):
    """However it comes."""
    async with running(max_body=1000) as served:
        session = await served.session()
        body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'.ljust(1000)
        whole = await served.post(body, **session)
        wire = served.connect()
        lines = [f"{k.replace('_', '-')}: {v}" for k, v in session.items()]
        head = served.raw_post(b"", *lines).replace(b"content-length: 0", b"transfer-encoding: chunked")
        await wire.send_raw(
            head + b"".join(b"a\r\n%b\r\n" % body[i : i + 10] for i in range(0, 1000, 10)) + b"0\r\n\r\n"
        )

        assert [200, 200] == [whole.status, (await wire.response()).status]


@pytest.mark.parametrize("early", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "])
async def test_a_head_must_come_in_time(running, autojump_clock, early):
    """Case 10: `head_timeout` from the first moment on, however slowly the bytes drip."""
    async with running(head_timeout=10.0) as served:
        wire = served.connect()
        await wire.stream.send_all(early)

        async def drip():
            with suppress(trio.BrokenResourceError):  # it is closed in the moment of a drop
                while early:
                    await trio.sleep(1)
                    await wire.stream.send_all(b"x")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            assert b"" == await wire.closed()
            nursery.cancel_scope.cancel()

        assert 10.0 == trio.current_time()
        await trio.testing.wait_all_tasks_blocked()
        assert 0 == served.source.server.connections


async def test_a_connection_may_be_idle_for_so_long(running, autojump_clock):
    """`idle_timeout` between requests; then the next head has its own time."""
    async with running(idle_timeout=60.0, head_timeout=10.0) as served:
        wire = served.connect()
        for _ in range(3):
            await wire.send("GET", "/healthz")
            await wire.response()
            await trio.sleep(59)
        await wire.stream.send_all(b"GET ")
        assert b"" == await wire.closed()

        assert 3 * 59.0 + 10 == trio.current_time()

        other = served.connect()
        await other.send("GET", "/healthz")
        await other.response()
        before = trio.current_time()
        await other.closed()
        assert before + 60 == trio.current_time()


async def test_a_slow_body_is_cut_with_408(running, autojump_clock):
    """Case 10: after `body_grace` the average must reach `min_body_rate`."""
    async with running(body_grace=5.0, min_body_rate=100) as served:
        wire = served.connect()
        await wire.send_raw(served.raw_post(b"").replace(b"content-length: 0", b"content-length: 5000"))

        async def drip():
            while True:
                await trio.sleep(1)
                await wire.stream.send_all(b" " * 10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            answer = await wire.response()
            nursery.cancel_scope.cancel()

        assert (408, "close") == (answer.status, answer.headers["connection"])
        assert 5.0 < trio.current_time() < 6.0


async def test_a_body_that_keeps_the_rate_is_waited_for(running, autojump_clock):
    """Slow, but not too slow."""
    async with running(body_grace=5.0, min_body_rate=100) as served:
        session = await served.session()
        body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'.ljust(2000)
        lines = [f"{k.replace('_', '-')}: {v}" for k, v in session.items()]
        data = served.raw_post(body, *lines)
        wire = served.connect()
        await wire.send_raw(data[:-2000])
        for n in range(20):
            await trio.sleep(1)
            await wire.stream.send_all(body[100 * n : 100 * n + 100])

        assert 200 == (await wire.response()).status


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_forgotten(running, autojump_clock):
    """Nobody to answer, nothing left."""
    async with running() as served:
        wire = served.connect()
        await wire.send_raw(served.raw_post(b"").replace(b"content-length: 0", b"content-length: 10"))
        await trio.sleep(1)
        await wire.aclose()
        await trio.testing.wait_all_tasks_blocked()

        assert (0, 0) == (served.source.server.connections, served.source.server.contained)


async def test_connections_beyond_the_limit_are_turned_away(running, autojump_clock):
    """503 at once; those that are served go on."""
    async with running(max_connections=2) as served:
        first, second = served.connect(), served.connect()
        await trio.testing.wait_all_tasks_blocked()
        third = served.connect()
        refused = await third.closed()
        await first.send("GET", "/healthz")
        answer = await first.response()
        await second.aclose()
        await trio.testing.wait_all_tasks_blocked()
        again = await served.ask("GET", "/healthz")

        assert refused.startswith(b"HTTP/1.1 503 ")
        assert [200, 200] == [answer.status, again.status]
        assert 1 == served.source.server.turned_away


async def test_pipelined_requests_are_answered_in_order(running, autojump_clock):
    """What was read early waits for its turn."""
    async with running() as served:
        session = await served.session()
        lines = [f"{k.replace('_', '-')}: {v}" for k, v in session.items()]
        wire = served.connect()
        data = b"".join(served.raw_post(served.calling("slow", n, seconds=3 - n), *lines) for n in range(3))
        await wire.send_raw(data)
        answers = [await wire.response()]
        for _ in range(2):
            await wire.send_raw(b"")
            answers.append(await wire.response())

        assert [0, 1, 2] == [answer.json["id"] for answer in answers]
        assert 6.0 == trio.current_time()


async def test_a_client_that_left_is_noticed_even_if_it_sent_more(running, autojump_clock):
    """Reading goes on behind a request, so leaving is seen; and more than a little of it is cut."""
    async with running() as served:
        for extra in (b"GET /he", b"x" * 70_000):
            wire = served.connect()
            body = served.modern("tools/call", name="slow", arguments={"seconds": 20})
            await wire.send("POST", "/mcp", body, served.mirror(body))
            await wire.stream.send_all(extra)
            await trio.sleep(1)
            if len(extra) < 100:
                await wire.aclose()
            await trio.testing.wait_all_tasks_blocked()

        assert 2 == served.pipeline.cancelled
        assert 2.0 == trio.current_time()
        assert 0 == served.source.server.connections


async def test_expect_continue_is_answered(running, autojump_clock):
    """A client that asks first is told to go on."""
    async with running() as served:
        session = await served.session()
        lines = [f"{k.replace('_', '-')}: {v}" for k, v in session.items()]
        body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
        data = served.raw_post(body, *lines, "expect: 100-continue")
        wire = served.connect()
        await wire.send_raw(data[: -len(body)])
        interim = bytes(await wire.stream.receive_some(1000))
        await wire.stream.send_all(body)

        assert interim.startswith(b"HTTP/1.1 100 ")
        assert 200 == (await wire.response()).status


async def test_a_bug_before_the_body_was_read_does_not_hold_the_connection(running, autojump_clock, monkeypatch):
    """Nobody will read the rest; it is dropped, and the connection ends."""
    async with running() as served:

        async def broken(*_):
            await trio.sleep(1)
            raise RuntimeError("a bug")

        monkeypatch.setattr(served.source.app, "_checked", lambda _: Checked(broken, is_plain=True))
        wire = served.connect()
        await wire.send_raw(served.raw_post(b"x" * 2_000_000))
        answer = await wire.response()
        await wire.closed()
        await wire.aclose()
        await trio.testing.wait_all_tasks_blocked()

        assert (500, 0) == (answer.status, served.source.server.connections)


async def test_a_bug_in_one_request_ends_that_request(running, autojump_clock):
    """Containment: 500, logged once per place however often, counted; others go on."""

    async def sink(exchange):
        return Result()

    async with running(sink) as served:

        def broken(*_, **__):
            raise RuntimeError("a bug")

        served.source._serving.handle = broken
        body = served.modern("tools/list")
        answers = [await served.post_modern(body) for _ in range(5)]
        alive = await served.ask("GET", "/healthz")

        assert [500] * 5 == [answer.status for answer in answers]
        assert (200, 5) == (alive.status, served.source.server.contained)
        assert 1 == len([e for e in served.log.entries if e["log_level"] == "error"])
