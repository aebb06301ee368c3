"""
The HTTP/2 connections to one origin, and who gets a place on one next.

As few connections as carry the requests: the fullest one that has room is used, another is opened only when none has.
Waiting is first come, first served. What is being opened belongs to the pool, not to who waits for it: one that gives
up takes nothing from the others.
"""

from __future__ import annotations

import contextvars
import math
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, final

import trio
from attrs import define

from .connect import DialFailed
from .connection import PeerGone, Transport
from .http2_connection import Http2Connection
from .http2_state import MAX_STREAMS
from .parser import MalformedResponse
from .pool import PoolFull, PoolLimits
from .statistics import Counts, End, PoolReport

_SETTINGS_S: Final = 10.0
"""How long a peer may take to say that it speaks HTTP/2."""
_PAUSE_S: Final = 1.0
"""How long none is opened after one could not be, while there are others."""
CARE_S: Final = 5.0
"""How often `look_after` is to be called at least, in seconds."""


class SpeaksHttp1(Exception):
    """The origin wants HTTP/1.1, and that was allowed."""


@final
@define(eq=False)
class _Waiter:
    """A task that waits for a place on a connection."""

    task: trio.lowlevel.Task
    connection: Http2Connection | None = None
    failure: Exception | None = None


@final
class Http2Pool:
    """
    The HTTP/2 connections to one origin, and who waits for room on one.

    Args:
        dial: Connects; what it raises comes out of `acquire`.
        limits: See `PoolLimits`.
        max_requests: Requests with a place at the same time; None for as many as the connections carry.
        is_http2: Whether a transport that was opened speaks HTTP/2.
        on_http1: Takes one that does not.
        on_opened: Told of every connection. Must not block.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[Transport]],
        limits: PoolLimits,
        *,
        max_requests: int | None,
        is_http2: Callable[[Transport], bool],
        on_http1: Callable[[Transport], None],
        on_opened: Callable[[], None],
    ) -> None:
        self._dial = dial
        self._limits = limits
        self._max_requests = max_requests
        self._is_http2 = is_http2
        self._on_http1 = on_http1
        self._on_opened = on_opened
        self._connections: list[Http2Connection] = []
        self._waiting: deque[_Waiter] = deque()
        self._opening = 0
        self._capacity = MAX_STREAMS
        self._generation = 0
        self._no_growth_before = -math.inf
        self._closed = False
        self._counts = Counts()
        self.nursery: trio.Nursery | None = None
        """Where connections live. Set it before the first `acquire`."""

    @property
    def taken(self) -> int:
        """Requests that have a place."""
        return sum(connection.taken for connection in self._connections)

    @property
    def open(self) -> int:
        """Connections, those that are being opened included."""
        return len(self._connections) + self._opening

    @property
    def _serves(self) -> bool:
        """Whether a place may become free without another connection."""
        return any(connection.serves for connection in self._connections)

    def report(self) -> PoolReport:
        """What it counted, and how full it is."""
        idle = sum(not connection.taken for connection in self._connections)
        return PoolReport(self._counts, self.open, idle, self.taken, len(self._waiting))

    async def acquire(self) -> Http2Connection:
        """
        A connection with a place for a request, which is taken; waits in line. Not always a checkpoint.

        Raises:
            PoolFull: As many wait, or have a place, as may.
            DialFailed: None could be opened, and there is none.
            SpeaksHttp1: The origin does not speak HTTP/2, and need not.
            PeerGone: The pool was closed.
        """
        if self._closed:
            raise PeerGone(untouched=True, unsent=True)
        full = self._max_requests is not None and self.taken >= self._max_requests
        found = None if full or self._waiting else self._fullest()
        if found is not None:
            found.taken += 1
            self._counts.reused += 1
            return found
        if self.taken + len(self._waiting) >= self._most():
            self._counts.refused += 1
            raise PoolFull
        return await self._wait()

    def look_after(self, now: float) -> None:
        """Close what has rested for too long, and find peers that are dead. Called now and then. Must not block."""
        for connection in list(self._connections):
            if self._is_worn(connection, now):
                connection.retire(End.OLD)
            elif not connection.taken and now - connection.rested >= self._limits.idle_s:
                connection.retire(End.IDLE)
            connection.look_after(now)
        self._serve()

    def renew(self) -> None:
        """Use no connection again that was opened before now; requests on them are finished."""
        self._generation += 1
        for connection in list(self._connections):
            connection.retire(End.RENEWED)

    def close(self) -> None:
        """Close what is at rest now, the rest as requests end; nobody gets a place any more."""
        self._closed = True
        for connection in list(self._connections):
            connection.retire(End.CLOSED)
        self._fail(lambda: PeerGone(untouched=True, unsent=True))

    def decline(self) -> None:
        """Whoever waits is to use HTTP/1.1; connections end with the requests on them."""
        self._fail(SpeaksHttp1)
        for connection in list(self._connections):
            connection.retire(End.PEER)

    def _most(self) -> int:
        """Requests that may have a place or wait for one."""
        places = self._max_requests
        if places is None:
            places = self._limits.max_connections * self._capacity
        return places + self._limits.max_waiting

    def _fullest(self) -> Http2Connection | None:
        """The connection with most requests among those with room: the others come to rest, and are closed."""
        now, best = trio.current_time(), None
        for connection in list(self._connections):
            if connection.has_room and (best is None or connection.taken > best.taken):
                if self._is_worn(connection, now):
                    connection.retire(End.OLD)
                else:
                    best = connection
        return best

    def _is_worn(self, connection: Http2Connection, now: float) -> bool:
        """
        Whether it may take no more requests: after the hard limits, and after the soft ones where others may be opened.

        A connection under load never comes to rest, and servers commonly go away after a thousand requests.
        """
        limits, age_s = self._limits, now - connection.born
        if age_s >= limits.hard_age_s or connection.uses >= limits.hard_uses:
            return True
        replaceable = self.open < limits.max_connections or not (connection.taken or self._waiting)
        return replaceable and (age_s >= limits.soft_age_s or connection.uses >= limits.soft_uses)

    async def _wait(self) -> Http2Connection:
        waiter, since = _Waiter(trio.lowlevel.current_task()), trio.current_time()
        self._waiting.append(waiter)
        self._counts.waited += 1
        self._grow()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiting.remove(waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            self._counts.waited_s += trio.current_time() - since
        if waiter.failure is not None:
            raise waiter.failure
        assert waiter.connection is not None
        return waiter.connection

    def _serve(self) -> None:
        """Give places to who is first in line; open another connection if there are not enough."""
        while self._waiting:
            connection = self._fullest()
            if connection is None:
                self._grow()
                return
            waiter = self._waiting.popleft()
            connection.taken += 1
            waiter.connection = connection
            trio.lowlevel.reschedule(waiter.task)

    def _fail(self, failure: Callable[[], Exception]) -> None:
        """Whoever waits gets an exception of its own."""
        while self._waiting:
            waiter = self._waiting.popleft()
            waiter.failure = failure()
            trio.lowlevel.reschedule(waiter.task)

    def _grow(self) -> None:
        """Open as many connections as those who wait need, and as there may be."""
        pauses = self._capacity == 0 or trio.current_time() < self._no_growth_before
        if pauses and self._serves:
            return  # the peer takes no more for now, and would not on another one
        needed = math.ceil(len(self._waiting) / max(1, self._capacity))
        while self._opening < needed and self.open < self._limits.max_connections and not self._closed:
            assert self.nursery is not None, "nobody owns the connections: run the client first"
            self._opening += 1
            # in a context of its own: what happens on it must not be logged as caused by whoever came first
            contextvars.Context().run(self.nursery.start_soon, self._host)

    async def _host(self) -> None:
        """Open a connection, and run it until it ends."""
        generation = self._generation
        try:
            connection = await self._opened()
        except (DialFailed, SpeaksHttp1) as failure:
            self._no_growth_before = trio.current_time() + _PAUSE_S
            if isinstance(failure, SpeaksHttp1) or (self._opening == 1 and not self._serves):
                self._fail(partial(type(failure), *failure.args))
            return
        finally:
            self._opening -= 1
        await self._run(connection, generation)

    async def _opened(self) -> Http2Connection:
        """
        A connection to a peer that speaks HTTP/2.

        Raises:
            DialFailed: There is none.
            SpeaksHttp1: There is another, which was handed on.
        """
        transport = await self._dial()
        if not self._is_http2(transport):
            self._on_http1(transport)
            raise SpeaksHttp1
        begun, connection = False, Http2Connection(transport, self._changed)
        try:
            with trio.move_on_after(_SETTINGS_S):
                await connection.begin()
                begun = True
        except PeerGone as error:
            raise DialFailed("it closes the connection without a word in HTTP/2 (http2)") from error
        except MalformedResponse as error:
            raise DialFailed("it does not speak HTTP/2 there (http2)") from error
        finally:
            if not begun:
                transport.close()
        if not begun:
            raise DialFailed(f"it said nothing in HTTP/2 within {_SETTINGS_S:g} s (http2)")
        return connection

    async def _run(self, connection: Http2Connection, generation: int) -> None:
        self._connections.append(connection)
        self._counts.opened += 1
        self._capacity = connection.capacity
        if self._closed or generation != self._generation:
            connection.retire(End.CLOSED if self._closed else End.RENEWED)
        if not connection.serves:
            connection.retire(End.PEER)
        self._on_opened()
        self._serve()
        try:
            await connection.run()
        finally:
            self._connections.remove(connection)
            self._counts.ended[connection.end or End.CLOSED] += 1
            if not connection.uses and connection.end is End.PEER and not self._serves:
                self._fail(lambda: DialFailed("it closes connections before it has taken a request"))
            self._serve()

    def _changed(self, connection: Http2Connection) -> None:
        """A connection may have room, or be superfluous."""
        if connection.serves:
            self._capacity = connection.capacity
            if not connection.taken and self._is_worn(connection, trio.current_time()):
                connection.retire(End.OLD)
        self._serve()
