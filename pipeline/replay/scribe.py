"""
From the exchanges to the disk: a bounded queue, and one task that writes what has gathered in a thread.

Putting an entry in never waits and costs a microsecond: rendering, masking and writing happen in the thread, which lets
the event loop in between entries. What finds no room, or cannot be written, is counted, and the tape says where and how
much is missing.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Final, final

import structlog
import trio

from ..model.figures import Figure
from ..model.options import render_size
from ..runtime.nursery import farewell, open_background_nursery
from .entries import Entry, Lost, Trailer
from .writing import TapeWriter

GATHER_S: Final = 0.1
"""Seconds that entries gather before they are written."""
SYNC_S: Final = 1.0
"""Seconds after which what was written is made safe from a power cut."""
AGAIN_S: Final = 5.0
"""Seconds after which a tape that could not be written is tried again."""
LAST_S: Final = 5.0
"""Seconds that closing waits for what is still to be written."""
YIELD_EVERY: Final = 16
"""Entries that the thread renders before it lets others have the interpreter."""
AT_ONCE: Final = 512
"""Entries that are written with one call."""
OVERHEAD: Final = 400
"""Bytes that an entry holds in memory beside its messages, roughly."""

Make = Callable[..., Entry]
"""Makes an entry of a time and further arguments; called in the thread."""

_Waiting = tuple[float, Make, tuple[Any, ...]]


@final
class Scribe:
    """
    Args:
        writer: Where entries go.
        clock: Seconds since the recording began.
        max_waiting: Bytes that may wait to be written, roughly.
        inline: Write in the event loop instead of a thread, which mock clocks do not wait for; for tests.
    """

    def __init__(
        self, writer: TapeWriter, clock: Callable[[], float], max_waiting: int, *, inline: bool = False
    ) -> None:
        self.writer = writer
        self.lost = 0
        """Entries that are not on the tape."""
        self.failure = ""
        """Why nothing can be written now; empty if it can."""
        self.do = _do_inline if inline else _do_in_thread
        """Does something that blocks."""
        self._clock = clock
        self._max_waiting = max_waiting
        self._queue: deque[_Waiting] = deque()
        self._weight = 0
        self._untold = 0
        self._why = ""
        self._again = 0.0
        self._news = trio.Event()
        self._awake = False
        self._done = 0
        self._closing = False
        self._ended = trio.Event()
        self._sync_due = float("inf")
        self._log: Any = structlog.get_logger()

    @property
    def waiting(self) -> int:
        """Bytes that wait to be written, roughly."""
        return self._weight

    def figures(self) -> Iterable[Figure]:
        """What was written, what is missing, and what waits."""
        yield Figure("recording_entries_total", self.writer.written, "counter", "Lines of the tape.")
        yield Figure("recording_written_bytes_total", self.writer.bytes, "counter", "Bytes of the tape.")
        yield Figure("recording_lost_total", self.lost, "counter", "Entries that are not on the tape.")
        yield Figure("recording_waiting_bytes", self.waiting, "gauge", "Bytes that wait to be written, roughly.")

    def put(self, weight: int, make: Make, *arguments: Any) -> None:
        """
        Have an entry made and written soon; or count it, if too many wait.

        Args:
            weight: Bytes that its arguments hold, roughly.
            make: Makes it, in the thread, of the time now and the arguments; these must not change any more.
            arguments: Its further arguments.
        """
        t = self._clock()
        if self._weight + weight > self._max_waiting or (self.failure and t < self._again):
            self._lose(1, self.failure or f"more than {render_size(self._max_waiting)} waited to be written")
            return
        queue = self._queue
        if self._untold:
            queue.append((t, _lost, (self._untold, self._why)))
            self._untold = 0
        self._weight += weight + OVERHEAD
        queue.append((t, make, arguments))
        if not self._awake:
            self._awake = True
            self._news.set()

    def note(self, t: float, make: Make, *arguments: Any) -> None:
        """Likewise, from any thread, without waking anybody: it is written with what comes next."""
        self._queue.append((t, make, arguments))

    def _lose(self, entries: int, why: str) -> None:
        self.lost += entries
        self._untold += entries
        self._why = why

    # The task.

    async def begin(self) -> None:
        """
        Begin the tape. If the disk is full, nothing is written until it has room.

        Raises:
            OSError: It cannot be begun.
        """
        try:
            await self.do(self.writer.open)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.pause(error)

    async def serve(self) -> None:
        """Write what comes, until told to close and nothing is left."""
        try:
            while True:
                await self._wait()
                if self._queue:
                    await self._write()
                if self._clock() >= self._sync_due or self._closing:
                    await self._sync()
                if self._closing and not self._queue:
                    return
        finally:
            self._ended.set()

    async def _wait(self) -> None:
        """Until there are entries, and some more have gathered; or it is time to make safe what was written."""
        if not self._closing:
            with trio.move_on_after(max(0.0, self._sync_due - self._clock())):
                await self._news.wait()
        if not self._closing:
            await trio.sleep(GATHER_S)

    async def _write(self) -> None:
        batch, self._queue = self._queue, deque()
        weight = self._weight  # it is held until it is written
        if not self._closing:
            self._news, self._awake = trio.Event(), False
        self._done = 0
        try:
            await self.do(self._write_batch, batch)
        except OSError as error:
            self.pause(error)
            self._take_back(islice(batch, self._done, None))
        else:
            self._recover()
            self._sync_due = min(self._sync_due, self._clock() + SYNC_S)
        finally:
            self._weight -= weight

    def _take_back(self, unwritten: Iterable[_Waiting]) -> None:
        """Count what could not be written; what was to be told of earlier losses is to be told again."""
        for _, make, arguments in unwritten:
            if make is _lost:
                self._untold += arguments[0]
            else:
                self._lose(1, self.failure)

    def _write_batch(self, batch: Iterable[_Waiting]) -> None:
        entries: list[Entry] = []
        for number, (t, make, arguments) in enumerate(batch, 1):
            entries.append(make(t, *arguments))
            if number % YIELD_EVERY == 0:
                time.sleep(0)
            if len(entries) == AT_ONCE:
                self._append(entries)
        self._append(entries)

    def _append(self, entries: list[Entry]) -> None:
        self.writer.append(entries)
        self._done += len(entries)
        entries.clear()

    async def _sync(self) -> None:
        self._sync_due = float("inf")
        try:
            await self.do(self.writer.sync)
        except OSError as error:
            self.pause(error)

    def pause(self, error: OSError) -> None:
        """Write nothing for a while, for it cannot be done."""
        why = error.strerror or str(error)
        if why != self.failure:
            self._log.error("recording paused", tape=str(self.writer.path), reason=why, again_in_s=AGAIN_S)
        self.failure = self._why = why
        self._again = self._clock() + AGAIN_S

    def _recover(self) -> None:
        if self.failure:
            self._log.info("recording goes on", tape=str(self.writer.path), lost=self.lost)
            self.failure = ""

    def give_up(self) -> None:
        """Say that not everything was written: the thread hangs."""
        self._log.error("the tape was not written to its end", tape=str(self.writer.path), waiting=len(self._queue))

    async def close(self) -> None:
        """Take what is there as the last, and end when it is written."""
        self._closing = True
        self._news.set()
        await self._ended.wait()

    def end(self) -> None:
        """Write the last lines, if possible, and close the tape. Blocks."""
        t = self._clock()
        missing = [_lost(t, self._untold, self._why)] if self._untold else []
        try:
            self.writer.close([*missing, Trailer(t=t, lost=self.lost)])
        except OSError as error:
            self._log.error("the tape has no end", tape=str(self.writer.path), reason=error.strerror or str(error))


async def _do_in_thread(blocking: Callable[..., None], *arguments: Any) -> None:
    await trio.to_thread.run_sync(blocking, *arguments, abandon_on_cancel=True)


async def _do_inline(blocking: Callable[..., None], *arguments: Any) -> None:
    await trio.lowlevel.checkpoint()
    blocking(*arguments)


def _lost(t: float, entries: int, reason: str) -> Entry:
    return Lost(t=t, entries=entries, reason=reason)


@asynccontextmanager
async def open_scribe(scribe: Scribe) -> AsyncIterator[None]:
    """Have what is put in written while the block runs, and, within `LAST_S`, what is left then."""
    async with open_background_nursery() as nursery:
        nursery.start_soon(scribe.serve)
        try:
            yield
        finally:
            with farewell(LAST_S) as scope:
                await scribe.close()  # noqa: ASYNC102  # farewell is a bounded shield
                await scribe.do(scribe.end)  # noqa: ASYNC102  # likewise
            if scope.cancelled_caught:
                scribe.give_up()
