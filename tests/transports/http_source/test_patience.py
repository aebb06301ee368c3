"""Calls that wait are hurried in their order, each at its time."""

from __future__ import annotations

import trio

from sluiceway.pipeline.runtime.deadlines import Deadlines
from sluiceway.transports.http_source.patience import Patience


class Waiter:
    """A call that notes when it was hurried."""

    def __init__(self) -> None:
        self.hurried: float | None = None

    def hurry(self) -> None:
        self.hurried = trio.current_time()


async def test_each_is_hurried_when_it_has_waited_and_only_then(nursery: trio.Nursery, autojump_clock: object) -> None:
    """Those that ended before are not; one that comes after a pause has its own time."""
    deadlines = Deadlines()
    nursery.start_soon(deadlines.serve)
    patience = Patience(deadlines, 15)
    first, ended, second, late = (Waiter() for _ in range(4))
    patience.add(first)
    await trio.sleep(1)
    patience.add(ended)
    await trio.sleep(1)
    patience.add(second)
    await trio.sleep(5)
    patience.discard(ended)
    await trio.sleep(93)
    patience.add(late)
    await trio.sleep(50)
    patience.discard(late)

    assert [15.0, None, 17.0, 115.0] == [each.hurried for each in (first, ended, second, late)]
    assert (0, 0) == (len(patience), len(deadlines))
    nursery.cancel_scope.cancel()
