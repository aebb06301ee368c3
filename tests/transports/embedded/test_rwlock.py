"""The reader/writer lock."""

from __future__ import annotations

from typing import Any

import trio

from sluiceway.transports.embedded import ReadWriteLock


async def test_readers_share_a_writer_is_alone_and_not_starved(autojump_clock: Any) -> None:
    """Readers overlap; a waiting writer goes before readers that come later (S1-SM-04)."""
    lock, events = ReadWriteLock(), []

    async def read(name: str, at: float, hold: float) -> None:
        await trio.sleep(at)
        async with lock.read():
            events.append((trio.current_time() - start, f"{name} in"))
            await trio.sleep(hold)

    async def write(at: float, hold: float) -> None:
        await trio.sleep(at)
        async with lock.write():
            events.append((trio.current_time() - start, "writer in"))
            await trio.sleep(hold)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, "a", 0, 10)
        nursery.start_soon(read, "b", 1, 4)
        nursery.start_soon(write, 2, 5)
        nursery.start_soon(read, "c", 3, 1)

    assert [(0, "a in"), (1, "b in"), (10, "writer in"), (15, "c in")] == events


async def test_a_cancelled_holder_or_waiter_leaves_the_lock_free(autojump_clock: Any) -> None:
    """Neither a reader, a writer nor a waiting writer that is cancelled blocks anybody after it."""
    lock = ReadWriteLock()

    async def hold(how: Any, seconds: float) -> None:
        with trio.move_on_after(seconds):
            async with how():
                await trio.sleep_forever()

    for held, wanted in ((lock.read, lock.write), (lock.write, lock.read), (lock.write, lock.write)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, held, 5)
            await trio.sleep(1)
            nursery.start_soon(hold, wanted, 1)
        with trio.fail_after(1):
            async with lock.write():
                pass
