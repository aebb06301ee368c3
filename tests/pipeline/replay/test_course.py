"""The order in which a replay lets things happen, told from small tapes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from sluiceway.pipeline.replay.clock import TapeClock
from sluiceway.pipeline.replay.course import NUMBER, Course, Stride
from sluiceway.pipeline.replay.entries import (
    Begun,
    Called,
    CallEnded,
    CancelAsked,
    Ended,
    Entry,
    MessageData,
    StageEntered,
)

CALL = MessageData("tools/call", {"name": "a"}, 1)

Body = Callable[["Stage"], Awaitable[None]]


class Stage:
    """A run in which tasks take turns, and what they did."""

    def __init__(self, course: Course, clock: TapeClock, nursery: trio.Nursery) -> None:
        self.course = course
        self.clock = clock
        self.stride = Stride(clock, course)
        self.done: list[tuple[float, str]] = []
        self._nursery = nursery

    def start(self, exchange: int, *steps: tuple[float, Entry], name: str | None = None) -> None:
        """A task of an exchange: sleeps up to each time, then does what an entry says."""
        self._nursery.start_soon(self._run, exchange, steps, name=name)

    async def _run(self, exchange: int, steps: tuple[tuple[float, Entry], ...]) -> None:
        NUMBER.set(exchange)
        for at, entry in steps:
            await trio.sleep_until(max(at, trio.current_time()))
            self.course.saw(entry)
            self.done.append((round(trio.current_time(), 6), f"{type(entry).__name__} {exchange}"))

    async def deliver(self, entry: Entry | None, at: float) -> None:
        """What the player does with an entry that comes from outside."""
        await self.stride.reach(at, entry)
        if entry is not None:
            self.done.append((round(trio.current_time(), 6), f"in {entry.n}"))


def run(entries: list[Entry], body: Body) -> list[tuple[float, str]]:
    """Run a body under the course of a tape; what was done, in order."""
    done: list[tuple[float, str]] = []

    async def main() -> None:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, TapeClock)
        course = Course(trio.current_time())
        for _ in course.watched(iter(entries)):
            pass
        with course.taken(lambda _until: None):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(clock.serve)
                stage = Stage(course, clock, nursery)
                await body(stage)
                done.extend(stage.done)
                nursery.cancel_scope.cancel()

    trio.run(main, clock=TapeClock())
    return done


def begun(n: int, exchange: int, t: float = 0.0) -> Begun:
    """A client's message."""
    return Begun(n=n, t=t, exchange=exchange, source="in", message=CALL)


def ended(n: int, exchange: int, t: float, cancelled: str = "") -> Ended:
    """The end of an exchange."""
    return Ended(n=n, t=t, exchange=exchange, cancelled=cancelled)


def test_whose_entry_is_first_runs_first() -> None:
    """Of two that can run at one instant, whichever was made first."""
    first, second = ended(1, 2, 1.0), ended(2, 1, 1.0)

    async def body(stage: Stage) -> None:
        stage.start(1, (1.0, second))
        stage.start(2, (1.0, first))
        await stage.deliver(None, 1.0)

    assert run([first, second], body) == [(1.0, "Ended 2"), (1.0, "Ended 1")]


def test_what_comes_in_takes_its_turn_among_what_happens() -> None:
    """Between two ends at the same instant, if that is where it stands."""
    entries: list[Entry] = [ended(1, 1, 1.0), begun(2, 3, 1.0), ended(3, 2, 1.0)]

    async def body(stage: Stage) -> None:
        stage.start(2, (1.0, entries[2]))
        stage.start(1, (1.0, entries[0]))
        await stage.deliver(entries[1], 1.0)
        stage.start(3, (1.0, entries[1]))
        await stage.deliver(None, 1.0)

    assert [what for _, what in run(entries, body)] == ["Ended 1", "in 2", "Begun 3", "Ended 2"]


def test_a_timer_that_was_late_waits_for_what_had_come_in_before() -> None:
    """Its time was earlier, but on the real clock it fired after the input."""
    entries: list[Entry] = [begun(1, 2, 1.004), ended(2, 1, 1.006)]

    async def body(stage: Stage) -> None:
        stage.start(1, (1.0, entries[1]))
        await stage.deliver(entries[0], 1.004)
        stage.start(2, (1.004, entries[0]))
        await stage.deliver(None, 1.006)

    assert run(entries, body) == [(1.004, "in 1"), (1.004, "Begun 2"), (1.004, "Ended 1")]


def test_a_timer_waits_for_nothing_that_is_far_away() -> None:
    """What comes in long after is no reason to be late."""
    entries: list[Entry] = [begun(1, 2, 1.5), ended(2, 1, 1.6)]

    async def body(stage: Stage) -> None:
        stage.start(1, (1.0, entries[1]))
        await stage.deliver(entries[0], 1.5)
        await stage.deliver(None, 1.6)

    assert run(entries, body) == [(1.0, "Ended 1"), (1.5, "in 1")]


def test_what_never_happens_holds_up_nobody() -> None:
    """A gateway of another configuration leaves the course; what comes in still comes in."""
    entries: list[Entry] = [ended(1, 9, 0.5), begun(2, 1, 1.0), ended(3, 1, 1.0)]

    async def body(stage: Stage) -> None:
        await stage.deliver(entries[1], 1.0)
        stage.start(1, (1.0, entries[1]), (1.0, entries[2]))
        await stage.deliver(None, 1.0)

    assert [what for _, what in run(entries, body)] == ["in 2", "Begun 1", "Ended 1"]


def test_tasks_named_after_sinks_do_what_happened_there() -> None:
    """Two that one exchange has begun are told apart by the sinks that they ask."""
    entries: list[Entry] = [
        StageEntered(n=1, t=1.0, exchange=1, visit=1, stage="sinks.two.retry"),
        Called(n=2, t=1.0, exchange=1, call=1, sink="two"),
        Called(n=3, t=1.0, exchange=1, call=2, sink="one"),
        CallEnded(n=4, t=2.0, exchange=1, call=2),
        CallEnded(n=5, t=2.0, exchange=1, call=1),
    ]

    async def body(stage: Stage) -> None:
        stage.start(1, (1.0, entries[2]), (2.0, entries[3]), name="one")
        stage.start(1, (1.0, entries[0]), (1.0, entries[1]), (2.0, entries[4]), name="two")
        await stage.deliver(None, 2.0)

    at_one, at_two = "Called 1", "StageEntered 1"
    assert [what for _, what in run(entries, body)] == [at_two, "Called 1", at_one, "CallEnded 1", "CallEnded 1"]


def test_a_cancellation_is_no_entry_that_an_exchange_makes() -> None:
    """It comes from outside, and can stand before the beginning."""
    entries: list[Entry] = [CancelAsked(n=1, t=1.0, exchange=1, by="client"), begun(2, 1, 1.0)]

    async def body(stage: Stage) -> None:
        await stage.deliver(entries[0], 1.0)
        await stage.deliver(entries[1], 1.0)
        stage.start(1, (1.0, entries[1]))
        await stage.deliver(None, 1.0)

    assert [what for _, what in run(entries, body)] == ["in 1", "in 2", "Begun 1"]


def test_whoever_notices_a_deadline_runs_before_whom_it_cuts_off() -> None:
    """Two timers of one instant: the exchange was cancelled, and is cancelled again."""
    entries: list[Entry] = [CallEnded(n=1, t=1.0, exchange=1, call=1), ended(2, 1, 1.0, "deadline")]

    async def body(stage: Stage) -> None:
        stage.start(1, (1.0, entries[0]), (1.0, entries[1]))
        stage.start(0, (1.0, begun(9, 0)))
        await stage.deliver(None, 1.0)

    assert [what for _, what in run(entries, body)] == ["Begun 0", "CallEnded 1", "Ended 1"]
