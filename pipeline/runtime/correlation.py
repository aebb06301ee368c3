"""
Which answer belongs to whom, on a connection that many exchanges share.

Ids towards the upstream are ours, so two clients that both sent id 1 cannot meet (architecture 1.9 and 1.11). One
reader task feeds the table with calls that never block; each exchange waits in its own task. An entry lives exactly
as long as the `with` block of its waiter, so there is nothing to time out and nothing to clean up: whatever ends the
exchange (reply, deadline, cancel, crash) ends the entry.

    with table.register(Entry()) as entry:                # in the exchange's task
        await send(Request(entry.id, method, params))
        while isinstance(item := await entry.receive(), Notification):
            await exchange.relay(item)
        return item

    table.resolve(response)                               # in the reader task
    table.post(progress_token, notification)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, final

import msgspec
import trio
from attrs import define

from ..model.changes import LIST_CHANGES, RESOURCE_UPDATED
from ..model.figures import Figure
from ..model.options import MIB
from ..model.parking import Parking
from ..protocol.errors import CapacityExceeded, GatewayError, SlowConsumer
from ..protocol.mcp import LOG_MESSAGE, PROGRESS
from ..protocol.messages import Json, Notification, Reply, Request, Response, encode_json

MAX_INBOX_BYTES: Final = 4 * MIB
"""Of what one exchange holds that its client has not taken."""

Item = Notification | Request
"""What an upstream sends before the reply: notifications, and (legacy era) questions."""


@final
@define(eq=False)
class CorrelationCounts:
    """What tables have counted: one table, or all those that are made with it, for example of one sink."""

    answered: int = 0
    """Requests that got a reply; an error the upstream sent is one."""
    response_s: float = 0.0
    """Seconds from registering to the reply, of all of them together."""
    unanswered: int = 0
    """Requests that ended without: deadline, cancel, upstream gone, slow client."""
    late: int = 0
    """Replies dropped because nobody waits for their id (any more)."""
    coalesced: int = 0
    """Notifications dropped in favour of a newer one about the same: progress, updates of a resource, of a list."""
    dropped_logs: int = 0
    """Log messages dropped because their client reads too slowly."""

    @property
    def success_rate(self) -> float:
        """`answered` as a share of all that ended, 0 to 1; 1 before the first."""
        ended = self.answered + self.unanswered
        return self.answered / ended if ended else 1.0

    @property
    def average_response_s(self) -> float:
        """Mean seconds from registering to the reply; 0 before the first."""
        return self.response_s / self.answered if self.answered else 0.0

    def figures(self, waiting: int) -> Iterator[Figure]:
        """
        All of it, as metrics of an upstream.

        Args:
            waiting: Requests that wait for a reply now.
        """
        yield Figure("upstream_waiting", waiting, "gauge", "Requests that wait for a reply of the upstream.")
        for name, value, help_text in (
            ("replies", self.answered, "Replies of the upstream."),
            ("reply_seconds", self.response_s, "How long requests waited for them, together."),
            ("unanswered", self.unanswered, "Requests that ended before they had a reply."),
            ("late_replies", self.late, "Replies on which nobody waited any more."),
            ("coalesced", self.coalesced, "Notifications that a newer one made needless for a slow client."),
            ("dropped_logs", self.dropped_logs, "Log messages that were too many for a slow client."),
        ):
            yield Figure(f"upstream_{name}_total", value, "counter", help_text)


class Entry(Parking, eq=False):
    """One request that waits for its reply, from `Correlation.register` to the end of a `with` block."""

    id: int = 0
    """The id to send upstream; also fit for a progress token. Given by the table, and so is all else."""
    _table: Correlation[Any] | None = None
    _started: float = 0.0
    _inbox: deque[Item] = msgspec.field(default_factory=deque)
    _size: int = 0
    _reply: Reply | None = None
    _error: GatewayError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        table = self._table
        assert table is not None
        del table.entries[self.id]
        if self._reply is None:
            table.counts.unanswered += 1

    @property
    def answered(self) -> bool:
        """Whether the reply has arrived; if not, an exchange that ends should tell the upstream."""
        return self._reply is not None

    async def receive(self) -> Item | Reply:
        """
        What the upstream sent next about this request, in its order; the reply is the last. One waiter at a time.

        Raises:
            SlowConsumer: The upstream sent more than the inbox holds before it was received.
            GatewayError: What `Correlation.fail_all` was called with.
        """
        if not (self._inbox or self._reply or self._error):
            await self.wait()
        else:
            await trio.lowlevel.checkpoint()
        if self._error is not None:
            raise self._error
        if self._inbox:
            item = self._inbox.popleft()
            self._size -= _size_of(item)
            return item
        assert self._reply is not None
        return self._reply

    def _fail(self, error: GatewayError) -> None:
        self._error = error
        self._inbox.clear()
        self._size = 0
        self.wake()


E = TypeVar("E", bound=Entry)


@final
class Correlation(Generic[E]):
    """
    The requests in flight on one multiplexed connection. Make a new one for a new connection, in a Trio run.

    Args:
        max_pending: Requests that may wait at once; above this `register` refuses.
        max_inbox: Notifications and questions that one entry holds unreceived. When it is full, the oldest goes of
            several that supersede each other (progress with one token, updates of one resource, changes of one list),
            else the oldest log message; else the entry fails. A reader hands over all that one read brought before
            anybody can receive it, so this is no smaller than what 64 KiB usually hold.
        max_inbox_bytes: Their texts together, likewise; a single one always fits into an empty inbox.
        counts: Where to count; the table's own unless several count together.
    """

    def __init__(
        self,
        max_pending: int = 1000,
        max_inbox: int = 256,
        max_inbox_bytes: int = MAX_INBOX_BYTES,
        counts: CorrelationCounts | None = None,
    ) -> None:
        self.counts = counts if counts is not None else CorrelationCounts()
        self._max_pending = max_pending
        self._max_inbox = max_inbox
        self._max_inbox_bytes = max_inbox_bytes
        self.entries: dict[Json, E] = {}
        """By their ids, in the order in which they came; those that have their reply, but have not left, included."""
        self._last_id = 0
        self._now = trio.lowlevel.current_clock().current_time

    @property
    def pending(self) -> int:
        """Requests that wait for their reply."""
        return sum(entry._reply is None for entry in self.entries.values())

    def register(self, entry: E) -> E:
        """
        Give an entry an id, to be used in a `with` statement at once.

        Raises:
            CapacityExceeded: `max_pending` requests wait already.
        """
        entries = self.entries
        if len(entries) >= self._max_pending:
            raise CapacityExceeded(
                f"{self._max_pending} requests to this upstream wait for a reply; raise max_pending or lower "
                "max_in_flight"
            )
        entry.id = self._last_id = self._last_id + 1
        entry._table = self
        entry._started = self._now()
        entries[entry.id] = entry
        return entry

    def resolve(self, response: Response) -> bool:
        """
        Hand a reply to its waiter. Never blocks.

        Returns:
            False if nobody waits for this id: unknown, late, or a second reply. It is dropped and counted.
        """
        counts, entry_id = self.counts, response.id
        entry = self.entries.get(entry_id) if type(entry_id) is int else None
        if entry is None or entry._reply is not None or entry._error is not None:
            counts.late += 1
            return False
        entry._reply = response.reply
        entry.wake()
        counts.response_s += self._now() - entry._started
        counts.answered += 1
        return True

    def post(self, entry_id: Json, item: Item) -> bool:
        """
        Put a notification or question into the inbox of an entry. Never blocks.

        Args:
            entry_id: What names the entry in the message: a progress token, a subscription id; of any JSON type.
            item: What came.

        Returns:
            False if nobody waits under this id; the item is dropped.
        """
        entry = self._waiting(entry_id)
        if entry is None:
            return False
        size = _size_of(item)
        if self._fits(entry, size) or self._make_room(entry, item, size):
            entry._inbox.append(item)
            entry._size += size
            entry.wake()
        elif item.method == LOG_MESSAGE:
            self.counts.dropped_logs += 1
        else:
            entry._fail(
                SlowConsumer(
                    f"{len(entry._inbox)} notifications of this request wait for its client, which reads too slowly "
                    f"({entry._size} bytes)"
                )
            )
        return True

    def _fits(self, entry: Entry, size: int) -> bool:
        room = self._max_inbox_bytes - entry._size
        return not entry._inbox or (len(entry._inbox) < self._max_inbox and size <= room)

    def fail(self, entry_id: Json, error: GatewayError) -> bool:
        """
        End one waiter that has no reply yet, because what came instead of the reply cannot be one. Never blocks.

        Returns:
            False if nobody waits under this id.
        """
        entry = self._waiting(entry_id)
        if entry is None:
            return False
        entry._fail(error)
        return True

    def fail_all(self, make_error: Callable[[], GatewayError]) -> None:
        """
        The upstream is gone: end every waiter that has no reply yet.

        Args:
            make_error: Called once for each, because an exception belongs to one task.
        """
        for entry in self.entries.values():
            if entry._reply is None and entry._error is None:
                entry._fail(make_error())

    def _waiting(self, entry_id: Json) -> E | None:
        entry = self.entries.get(entry_id) if type(entry_id) is int else None
        return entry if entry is not None and entry._reply is None and entry._error is None else None

    def _make_room(self, entry: Entry, newcomer: Item, size: int) -> bool:
        """Drop what says nothing more, then log messages, until the newcomer fits; whether it does now."""
        while not self._fits(entry, size):
            index, count = _dispensable(entry._inbox, newcomer)
            if index is None:
                return False
            entry._size -= _size_of(entry._inbox[index])
            del entry._inbox[index]
            self.counts.coalesced += count
            self.counts.dropped_logs += not count
        return True


def _size_of(item: Item) -> int:
    """Bytes of its text, more or less."""
    return len(item.body.raw if isinstance(item, Notification) else item.raw or encode_json(item.params))


def _dispensable(inbox: deque[Item], newcomer: Item) -> tuple[int | None, bool]:
    """The item that can best be spared, and whether a later one supersedes it; None if none can."""
    newer = {_superseded_by(newcomer)} - {None}
    superseded = log = None
    for index in range(len(inbox) - 1, -1, -1):
        key = _superseded_by(inbox[index])
        if key is not None:
            superseded = index if key in newer else superseded
            newer.add(key)
        elif inbox[index].method == LOG_MESSAGE:
            log = index
    return (log, False) if superseded is None else (superseded, True)


def _superseded_by(item: Item) -> tuple[str, str | int] | None:
    """What a later item must be about for this one to say nothing more; None if every one of its kind counts."""
    if item.method == PROGRESS:
        about = item.params.get("progressToken")
    elif item.method == RESOURCE_UPDATED:
        about = item.params.get("uri")
    else:
        about = "" if item.method in LIST_CHANGES else None
    return (item.method, about) if isinstance(about, str | int) else None
