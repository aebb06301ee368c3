"""Streams that only listen end when the gateway drains."""

from __future__ import annotations

import trio
import trio.testing

from sluiceway.transports.embedded.drains import Drains
from sluiceway.transports.embedded.subscriptions import Listener


def listener() -> Listener:
    """One that asked for nothing."""
    return Listener(1, frozenset(), frozenset())


async def test_listeners_end_with_their_own_event(autojump_clock: trio.testing.MockClock) -> None:
    """Those that know by another event go on, and so do those that were taken out."""
    one, other = trio.Event(), trio.Event()
    first, second, third, gone = (listener() for _ in range(4))
    async with trio.open_nursery() as nursery:
        drains = Drains(nursery)
        for event, who in ((one, first), (one, second), (one, gone), (other, third)):
            drains.add(event, who)
        drains.remove(one, gone)
        await trio.testing.wait_all_tasks_blocked()
        one.set()
        await trio.testing.wait_all_tasks_blocked()

        assert [True, True, False, False] == [each.finished for each in (first, second, third, gone)]
        drains.remove(one, first)
        drains.remove(other, third)


async def test_there_is_one_task_for_all_and_none_for_nobody(autojump_clock: trio.testing.MockClock) -> None:
    """Tasks are what an idle stream costs most."""
    event = trio.Event()
    listeners = [listener() for _ in range(100)]
    async with trio.open_nursery() as nursery:
        drains = Drains(nursery)
        for each in listeners:
            drains.add(event, each)
        await trio.testing.wait_all_tasks_blocked()

        assert 1 == len(nursery.child_tasks)
        for each in listeners:
            drains.remove(event, each)
        await trio.testing.wait_all_tasks_blocked()

        assert 0 == len(nursery.child_tasks)
        drains.add(event, listeners[0])
        event.set()
        await trio.testing.wait_all_tasks_blocked()
        drains.add(event, listeners[1])
        await trio.testing.wait_all_tasks_blocked()

        assert [True, True, False] == [each.finished for each in listeners[:3]]


async def test_the_last_to_leave_may_do_so_as_the_event_comes(autojump_clock: trio.testing.MockClock) -> None:
    """And whoever comes right then is finished by a task of its own."""
    event = trio.Event()
    first, second = listener(), listener()
    async with trio.open_nursery() as nursery:
        drains = Drains(nursery)
        drains.add(event, first)
        await trio.testing.wait_all_tasks_blocked()
        event.set()
        drains.remove(event, first)
        drains.add(event, second)
        await trio.testing.wait_all_tasks_blocked()

        assert (0, True) == (len(nursery.child_tasks), second.finished)
