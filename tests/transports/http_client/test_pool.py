"""Who gets which connection, and how long connections are kept."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from sluiceway.transports.http_client.connection import Connection
from sluiceway.transports.http_client.parser import ResponseParser
from sluiceway.transports.http_client.pool import Pool, PoolFull, PoolLimits


class Line:
    """A transport that only knows whether it is closed and what it will say."""

    def __init__(self) -> None:
        self.closed = False
        self.readable = False
        self.says = b""

    def send_nowait(self, data: bytes) -> int:
        return 0

    async def send_all(self, data: bytes | memoryview) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int) -> bytes:
        if self.says == b"?":
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return self.says

    def close(self) -> None:
        self.closed = True

    def is_readable(self) -> bool:
        return self.readable

    @property
    def speaks_http2(self) -> bool:
        return False


def pool_of(**limits: Any) -> tuple[Pool, list[Line]]:
    """A pool, and every transport that it opened."""
    lines: list[Line] = []

    async def dial() -> Line:
        await trio.sleep(1)
        lines.append(Line())
        return lines[-1]

    return Pool(dial, PoolLimits(**limits)), lines


async def test_the_connection_used_last_is_used_next(autojump_clock):
    """The others grow old below it."""
    pool, lines = pool_of()
    first, second = await pool.acquire(), await pool.acquire()
    pool.release(first, reusable=True)
    pool.release(second, reusable=True)

    assert await pool.acquire() is second
    assert await pool.acquire() is first
    assert len(lines) == 2
    assert (pool.taken, pool.idle) == (2, 0)


async def test_what_cannot_be_used_again_is_closed(autojump_clock):
    """And its place is free."""
    pool, lines = pool_of()
    pool.release(await pool.acquire(), reusable=False)

    assert lines[0].closed
    assert (pool.taken, pool.idle) == (0, 0)


async def test_who_waits_is_served_in_order(autojump_clock):
    """With the connection that came back, or with leave to open one."""
    pool, lines = pool_of(max_connections=1)
    held = await pool.acquire()
    order: list[tuple[int, Connection]] = []

    async def wait(number: int) -> None:
        order.append((number, await pool.acquire()))

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
        assert pool.waiting == 3
        pool.release(held, reusable=True)
        await trio.testing.wait_all_tasks_blocked()
        assert order == [(0, held)]
        pool.release(held, reusable=False)
        await trio.sleep(2)
        assert [number for number, _ in order] == [0, 1]
        assert order[1][1] is not held
        pool.release(order[1][1], reusable=True)

    assert [number for number, _ in order] == [0, 1, 2]
    assert len(lines) == 2
    assert pool.taken == 1


async def test_only_so_many_may_wait(autojump_clock):
    """One more is refused; one that gives up makes room."""
    pool, _ = pool_of(max_connections=1, max_waiting=1)
    held = await pool.acquire()
    with trio.move_on_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.acquire)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(PoolFull):
                await pool.acquire()
    pool.release(held, reusable=True)

    assert (pool.waiting, pool.taken, pool.idle) == (0, 0, 1)


async def test_a_place_is_given_back_when_connecting_fails(autojump_clock):
    """By an error, or by a cancel."""
    fail = True

    async def dial() -> Line:
        await trio.sleep(1)
        if fail:
            raise OSError
        return Line()

    pool = Pool(dial, PoolLimits(max_connections=1))
    with pytest.raises(OSError):
        await pool.acquire()
    fail = False
    with trio.move_on_after(0.5):
        await pool.acquire()
    assert pool.taken == 0
    await pool.acquire()


@pytest.mark.parametrize("age_s", [29.0, 31.0])
async def test_a_connection_rests_for_so_long(autojump_clock, age_s):
    """Then it is closed: by the sweep, or by who would have got it."""
    pool, lines = pool_of(idle_s=30.0)
    one, other = await pool.acquire(), await pool.acquire()
    pool.release(one, reusable=True)
    pool.release(other, reusable=True)
    await trio.sleep(age_s)

    assert (await pool.acquire() is other) is (age_s < 30)
    pool.sweep()
    assert lines[0].closed is (age_s > 30)


@pytest.mark.parametrize(
    ("limits", "uses", "age_s", "kept", "kept_for_a_waiter"),
    [
        ({}, 1, 0, True, True),
        ({}, 1000, 0, False, True),
        ({}, 1, 301, False, True),
        ({}, 10_000, 0, False, False),
        ({}, 1, 601, False, False),
    ],
)
async def test_an_old_connection_is_let_go_unless_somebody_waits(
    autojump_clock, limits, uses, age_s, kept, kept_for_a_waiter
):
    """Softly first, then in any case."""
    for waited_for, expected in ((False, kept), (True, kept_for_a_waiter)):
        pool, lines = pool_of(max_connections=1)
        connection = await pool.acquire()
        connection.uses = uses
        await trio.sleep(age_s)
        async with trio.open_nursery() as nursery:
            if waited_for:
                nursery.start_soon(pool.acquire)
                await trio.testing.wait_all_tasks_blocked()
            pool.release(connection, reusable=True)
            assert lines[0].closed is not expected


async def test_a_connection_that_the_peer_closed_is_not_used(autojump_clock):
    """Nor is one on which something came that nobody asked for."""
    pool, lines = pool_of()
    pool.release(await pool.acquire(), reusable=True)
    lines[0].readable = True

    assert (await pool.acquire()).transport is lines[1]
    assert lines[0].closed


async def test_after_a_dead_connection_none_that_rested_is_used(autojump_clock):
    """The peer has probably restarted."""
    pool, lines = pool_of()
    taken = [await pool.acquire() for _ in range(3)]
    for each in taken:
        pool.release(each, reusable=True)

    assert (await pool.acquire(fresh=True)).transport is lines[3]
    assert [line.closed for line in lines] == [True, True, True, False]


@pytest.mark.parametrize(
    ("readable", "says", "used"),
    [(False, b"", False), (True, b"0\r\n\r\n", True), (True, b"", False), (True, b"nonsense", False),
     (True, b"?", False), (True, b"1\r\nx\r\n0\r\n\r\n", False)],
)  # fmt: skip
async def test_an_end_that_was_still_missing_is_read_first(autojump_clock, readable, says, used):
    """If it came, the connection is as good as any; nobody waits for it."""
    pool, lines = pool_of()
    connection = await pool.acquire()
    connection.ending = ResponseParser()
    connection.ending.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    pool.release(connection, reusable=True)
    lines[0].readable, lines[0].says = readable, says

    assert (await pool.acquire() is connection) is used
    assert lines[0].closed is not used
    assert pool.taken == 1


async def test_a_closed_pool_keeps_nothing(autojump_clock):
    """What is at rest is closed now, the rest as it comes back."""
    pool, lines = pool_of()
    one, other = await pool.acquire(), await pool.acquire()
    pool.release(one, reusable=True)
    pool.close()
    assert [line.closed for line in lines] == [True, False]
    pool.release(other, reusable=True)

    assert lines[1].closed
    assert (pool.taken, pool.idle) == (0, 0)


def ended(pool: Pool) -> dict[str, int]:
    """How many connections were closed, by reason."""
    return {end.value: count for end, count in pool.report().counts.ended.items() if count}


async def test_caps_hold_under_races(autojump_clock):
    """Many tasks, some cancelled at any moment, connections that fail: never more than allowed, never a place lost."""
    lines: list[Line] = []
    open_now = most = 0

    async def dial() -> Line:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        try:
            await trio.sleep(0.01)
            if len(lines) % 5 == 4:
                raise OSError
        finally:
            open_now -= 1
        lines.append(Line())
        return lines[-1]

    pool = Pool(dial, PoolLimits(max_connections=4, soft_uses=7, hard_uses=9))
    served = failed = cancelled = 0

    async def one(number: int) -> None:
        nonlocal served, failed, cancelled
        with trio.move_on_after(0.003 * (number % 50) if number % 2 else 1000) as scope:
            try:
                connection = await pool.acquire()
            except OSError:
                failed += 1
                lines.append(Line())
                lines[-1].closed = True
                return
            try:
                connection.uses += 1
                assert sum(not line.closed for line in lines) <= 4
                await trio.sleep(0.001 * (number % 7))
                served += 1
            finally:
                pool.release(connection, reusable=number % 11 != 0 and not scope.cancel_called)
        cancelled += scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        for number in range(500):
            nursery.start_soon(one, number)
            if number % 9 == 0:
                await trio.sleep(0.005)

    report = pool.report()
    assert served + failed + cancelled == 500
    assert min(served, failed, cancelled) > 10
    assert most <= 4
    assert (report.requests, report.waiting) == (0, 0)
    assert report.open == report.idle == sum(not line.closed for line in lines) <= 4
    assert report.counts.opened - sum(report.counts.ended.values()) == report.open
    assert set(ended(pool)) == {"cut", "old"}


async def test_what_happens_in_a_pool_is_counted(autojump_clock):
    """Opened, reused, waited for and how long, refused, and closed by reason."""
    pool, lines = pool_of(max_connections=1, max_waiting=1, idle_s=30.0)
    held = await pool.acquire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.acquire)
        await trio.sleep(3)
        with pytest.raises(PoolFull):
            await pool.acquire()
        assert (pool.report().requests, pool.report().waiting) == (1, 1)
        pool.release(held, reusable=True)
    counts = pool.report().counts
    assert (counts.opened, counts.reused, counts.waited, counts.waited_s, counts.refused) == (1, 1, 1, 3.0, 1)

    pool.release(held, reusable=True)
    await trio.sleep(31)
    pool.sweep()
    pool.release(await pool.acquire(), reusable=False)
    pool.release(await pool.acquire(), reusable=True)
    lines[2].readable = True
    connection = await pool.acquire()
    pool.renew()
    pool.release(connection, reusable=True)
    connection = await pool.acquire()
    connection.uses = 10_000
    pool.release(connection, reusable=True)
    connection = await pool.acquire()
    pool.close()
    pool.release(connection, reusable=True)

    assert ended(pool) == {"idle": 1, "cut": 1, "peer": 1, "renewed": 1, "old": 1, "closed": 1}
    assert pool.report().open == 0


@pytest.mark.parametrize(("taken", "closed"), [(0, False), (1, True)])
async def test_a_connection_that_was_opened_elsewhere_takes_a_place_if_there_is_one(autojump_clock, taken, closed):
    """Else it is closed."""
    pool, _ = pool_of(max_connections=1)
    for _ in range(taken):
        await pool.acquire()
    line = Line()
    pool.adopt(line)

    assert line.closed is closed
    assert closed or (await pool.acquire()).transport is line


async def test_who_is_cancelled_while_a_connection_settles_leaves_nothing(autojump_clock):
    """It is closed, and its place is free."""
    pool, lines = pool_of(max_connections=1)
    connection = await pool.acquire()
    connection.ending = ResponseParser()
    pool.release(connection, reusable=True)
    lines[0].readable, lines[0].says = True, b"?"

    with trio.move_on_after(0.01) as scope:
        await pool.acquire()

    assert scope.cancelled_caught
    assert lines[0].closed
    assert (pool.taken, pool.idle) == (0, 0)


async def test_a_connection_at_rest_is_had_at_once_only_if_it_can_be_used_as_it_is(autojump_clock):
    """Too old, left by its peer, or with an end still to come: then it takes longer."""
    pool, lines = pool_of(idle_s=10)
    connection = await pool.acquire()
    assert pool.acquire_nowait() is None

    pool.release(connection, reusable=True)
    lines[0].readable = True
    assert pool.acquire_nowait() is None
    lines[0].readable, connection.ending = False, ResponseParser()
    assert pool.acquire_nowait() is None
    connection.ending = None
    assert pool.acquire_nowait() is connection
    assert pool.acquire_nowait() is None

    pool.release(connection, reusable=True)
    await trio.sleep(10)
    assert pool.acquire_nowait() is None
    assert (pool.taken, pool.idle, pool.open) == (0, 1, 1)


async def test_no_more_are_had_at_once_than_there_may_be(autojump_clock):
    """Whatever is at rest."""
    pool, _ = pool_of(max_connections=1)
    first = await pool.acquire()
    pool.release(first, reusable=True)

    assert pool.acquire_nowait() is first
    assert pool.acquire_nowait() is None
    assert pool.taken == 1


async def test_every_place_is_counted_once(autojump_clock):
    """Of connections that were opened elsewhere, and of dead ones in whose place another one stands."""
    pool, lines = pool_of(max_connections=3)
    pool.adopt(Line())
    assert (pool.open, pool.idle, pool.taken) == (1, 1, 0)

    found = [await pool.acquire() for _ in range(3)]
    for connection in found:
        pool.release(connection, reusable=True)
    for connection in found:
        connection.transport.readable = True  # type: ignore[attr-defined]  # it is a line
    assert await pool.acquire() not in found
    assert (pool.open, pool.idle, pool.taken) == (1, 0, 1)
    assert len(lines) == 3


@pytest.mark.parametrize(("wait_s", "usable"), [(14, True), (15, False)])
async def test_no_rest_is_longer_than_a_connection_may_live(autojump_clock, wait_s, usable):
    """Also if it comes to rest shortly before."""
    pool, _ = pool_of(idle_s=30, soft_age_s=50, hard_age_s=60)
    connection = await pool.acquire()
    await trio.sleep(45)
    pool.release(connection, reusable=True)

    await trio.sleep(wait_s)

    assert (pool.acquire_nowait() is connection) == usable


async def test_a_pool_that_was_closed_stays_so(autojump_clock):
    """Even if new connections are asked for."""
    pool, lines = pool_of()
    connection = await pool.acquire()
    await trio.sleep(1)
    pool.close()
    pool.renew()
    pool.release(connection, reusable=True)

    assert lines[0].closed
    assert ended(pool) == {"closed": 1}
