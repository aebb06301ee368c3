"""
What a legacy session hears from a modern upstream: one `subscriptions/listen`, kept open for as long as it lives.

2026-07-28, basic/patterns/subscriptions. A listener says at its beginning what it wants to hear, so with every
subscription a new one is opened, and the one before is closed when the new one is acknowledged: nothing is missed in
between, and what both tell is told twice, which is harmless. Subscriptions that come meanwhile share the next one. A
listener that the upstream loses is opened again, after a pause, and the client is told that anything may have changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any, Final, final

import trio
from attrs import define, field, frozen

from sluiceway.pipeline.model.changes import RESOURCE_UPDATED
from sluiceway.pipeline.protocol.errors import CapacityExceeded, GatewayError, UpstreamClosed, UpstreamUnavailable
from sluiceway.pipeline.protocol.mcp import ErrorCode
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Result
from sluiceway.pipeline.runtime.nursery import unwrap_single

from .to_modern_messages import legacy_notification

MAX_URIS: Final = 1000
"""Resources that one session may watch."""
PAUSES_S: Final = (1.0, 60.0)
"""Shortest and longest pause before an upstream is listened to again; it doubles, with jitter."""
SILENCE_S: Final = 20.0
"""Time an upstream has to acknowledge a listener."""
FILTERS: Final = {
    "toolsListChanged": ("tools", "notifications/tools/list_changed"),
    "promptsListChanged": ("prompts", "notifications/prompts/list_changed"),
    "resourcesListChanged": ("resources", "notifications/resources/list_changed"),
}
"""Filter of a listener -> the server's capability with `listChanged`, and what is heard."""

_ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"


@final
@frozen
class Wish:
    """What a session wants to hear."""

    lists: tuple[str, ...]
    """Keys of `FILTERS`."""
    uris: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    """Ids of tasks whose states it wants to hear; where the upstream does not tell, they are asked for."""

    def __bool__(self) -> bool:
        return bool(self.lists or self.uris or self.tasks)

    def covers(self, other: Wish) -> bool:
        """Whether who hears this hears no less than `other`, and no more but of tasks that are over."""
        return (self.lists, self.uris) == (other.lists, other.uris) and set(self.tasks) >= set(other.tasks)

    def notifications(self) -> dict[str, Json]:
        """As the params of a listener say it."""
        asked: dict[str, Json] = dict.fromkeys(self.lists, True)
        if self.uris:
            asked["resourceSubscriptions"] = list(self.uris)
        if self.tasks:
            asked["taskIds"] = list(self.tasks)
        return asked

    def changes(self) -> Iterator[Notification]:
        """Everything that it is about may have changed."""
        for key in self.lists:
            yield Notification(FILTERS[key][1])
        for uri in self.uris:
            yield Notification(RESOURCE_UPDATED, {"uri": uri})


Open = Callable[[Wish, Callable[[Notification], None]], Awaitable[Reply]]
"""Listens to the upstream until it ends that; hands over what is heard."""


@final
@define(eq=False)
class _Stream:
    """One listener at the upstream."""

    wish: Wish
    """What was asked for; once it is acknowledged, what was granted of the uris."""
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    settled: trio.Event = field(factory=trio.Event)
    """It is acknowledged, or has failed."""
    acknowledged: bool = False
    began: float = 0.0
    end: Result | ErrorReply | GatewayError | None = None
    """How it ended; None as long as it has not."""


@final
@define(eq=False)
class _Waiter:
    """A `resources/subscribe` that is not answered yet."""

    uri: str
    outcome: ErrorReply | GatewayError | None = None
    done: trio.Event = field(factory=trio.Event)

    def settle(self, outcome: ErrorReply | GatewayError | None) -> None:
        """Have it answered: None is success."""
        self.outcome = outcome
        self.done.set()


@final
class Listening:
    """
    One session's ear at the upstream.

    Args:
        name: What the upstream is called in errors.
        lists: Keys of `FILTERS` that the session hears of besides; call `adjust` when they change.
        uris: The resources it watches; kept up to date here.
        tasks: Ids of the tasks it hears of; call `adjust` when they change.
        open_stream: Listens.
        tell: Takes what is heard, as the session hears it. Must not block.
        missed: Takes what may have changed while nobody listened. Must not block.
        random: Spreads what is tried again.
        log: A structured logger.
        resumed: Somebody has listened before, and not up to now.
    """

    def __init__(
        self,
        name: str,
        lists: Callable[[], tuple[str, ...]],
        uris: dict[str, None],
        tasks: Callable[[], tuple[str, ...]],
        open_stream: Open,
        tell: Callable[[Notification], None],
        missed: Callable[[Notification], None],
        random: Random,
        log: Any,
        *,
        resumed: bool,
    ) -> None:
        self._name = name
        self._lists = lists
        self._uris = uris
        self._tasks = tasks
        self._open = open_stream
        self._tell = tell
        self._missed = missed
        self._random = random
        self._log = log
        self._scope = trio.CancelScope()
        self._news = trio.Event()
        self._waiters: list[_Waiter] = []
        self._stream: _Stream | None = None
        self._nursery: trio.Nursery | None = None
        self._pause_s = PAUSES_S[0]
        self._lost = resumed

    @property
    def is_open(self) -> bool:
        """Whether the upstream is being listened to."""
        return self._stream is not None and self._stream.end is None

    def end(self) -> None:
        """Listen no more. Idempotent, never blocks."""
        self._scope.cancel()

    def adjust(self) -> None:
        """What the session wishes may have changed."""
        self._news.set()

    async def run(self) -> None:
        """Listen until `end`."""
        try:
            with self._scope, unwrap_single():
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    while True:
                        await self._wait(await self._open_anew())
        finally:
            for waiter in self._waiters:
                waiter.settle(UpstreamUnavailable(f"{self._name}: is closed, and takes no more subscriptions"))

    async def watch(self, uri: str) -> Reply:
        """
        Watch a resource from now on; answered as soon as the upstream has acknowledged it.

        Raises:
            CapacityExceeded: `MAX_URIS` are watched.
            UpstreamFault: The upstream failed.
        """
        if self.is_open and self._stream is not None and uri in self._stream.wish.uris and uri in self._uris:
            await trio.lowlevel.checkpoint()
            return Result()
        if uri not in self._uris and len(self._uris) >= MAX_URIS:
            raise CapacityExceeded(f"{self._name}: this session watches {MAX_URIS} resources; unsubscribe from some")
        waiter = _Waiter(uri)
        self._waiters.append(waiter)
        self._uris[uri] = None
        self._news.set()
        try:
            await waiter.done.wait()
        finally:
            self._waiters.remove(waiter)
            if not waiter.done.is_set():
                self._drop(uri)
        if isinstance(waiter.outcome, GatewayError):
            raise waiter.outcome
        return Result() if waiter.outcome is None else waiter.outcome

    def unwatch(self, uri: str) -> None:
        """Watch a resource no more."""
        self._uris.pop(uri, None)
        self._news.set()

    async def _wait(self, pause_s: float) -> None:
        """Until there is something to do, and no longer than that."""
        with trio.move_on_after(pause_s):
            await self._news.wait()

    async def _open_anew(self) -> float:
        """
        Have the upstream listened to as the session wishes.

        Returns:
            Seconds after which to try again.
        """
        self._news = trio.Event()
        wish, current = Wish(self._lists(), tuple(self._uris), self._tasks()), self._stream
        if current is not None and current.end is not None:
            if trio.current_time() - current.began > PAUSES_S[1]:
                self._pause_s = PAUSES_S[0]
            self._stream, self._lost = None, True
            return self._next_pause()
        if not wish:
            self._close(current)
            self._stream = None
            return float("inf")
        if current is not None and current.wish.covers(wish):
            return float("inf")
        stream = _Stream(wish, began=trio.current_time())
        assert self._nursery is not None
        self._nursery.start_soon(self._hold, stream)
        with trio.move_on_after(SILENCE_S):
            await stream.settled.wait()
        if stream.acknowledged:
            self._take(stream, wish)
            self._close(current)
            return 0.0
        stream.scope.cancel()
        return self._fail(stream)

    def _take(self, stream: _Stream, asked: Wish) -> None:
        """A listener was acknowledged: it is the one, and those who waited for it are answered."""
        self._stream = stream
        refused = set(asked.uris) - set(stream.wish.uris)
        for uri in refused:
            self._uris.pop(uri, None)
        for waiter in self._waiters:
            if waiter.uri in refused:
                waiter.settle(
                    ErrorReply(
                        int(ErrorCode.RESOURCE_NOT_FOUND),
                        "the server does not tell of changes of this resource",
                        {"uri": waiter.uri},
                    )
                )
            elif waiter.uri in stream.wish.uris:
                waiter.settle(None)
        if self._lost:
            self._lost = False
            for change in stream.wish.changes():
                self._missed(change)

    def _fail(self, stream: _Stream) -> float:
        """A listener could not be opened: those who waited for it are told, and the others wait."""
        failure = stream.end
        if failure is None or isinstance(failure, Result):
            failure = UpstreamUnavailable(f"{self._name}: the upstream acknowledges no subscription")
        waiters = [waiter for waiter in self._waiters if waiter.uri in stream.wish.uris]
        for waiter in waiters:
            waiter.settle(failure)
            self._drop(waiter.uri)
        if waiters:
            return 0.0
        self._lost = True
        self._log.warning("an upstream is not heard", upstream=self._name, error=failure.message)
        if isinstance(failure, ErrorReply) and failure.code == ErrorCode.METHOD_NOT_FOUND:
            return float("inf")
        return self._next_pause()

    def _drop(self, uri: str) -> None:
        """Forget what somebody wanted to watch and does not, unless it was watched before."""
        if self._stream is None or uri not in self._stream.wish.uris:
            self._uris.pop(uri, None)
        self._news.set()

    def _next_pause(self) -> float:
        pause = self._pause_s * (0.5 + self._random.random() / 2)
        self._pause_s = min(2 * self._pause_s, PAUSES_S[1])
        return pause

    def _close(self, stream: _Stream | None) -> None:
        if stream is not None:
            stream.scope.cancel()

    async def _hold(self, stream: _Stream) -> None:
        """The task of one listener."""
        end: Reply | GatewayError = UpstreamClosed(f"{self._name}: the subscription was closed")
        try:
            with stream.scope:
                end = await self._open(stream.wish, lambda notification: self._heard(stream, notification))
        except GatewayError as error:
            end = error
        finally:
            stream.end = end
            stream.settled.set()
            if self._stream is stream:
                self._news.set()

    def _heard(self, stream: _Stream, notification: Notification) -> None:
        if not stream.acknowledged:
            stream.acknowledged = True
            stream.settled.set()
        if notification.method != _ACKNOWLEDGED:
            self._tell(legacy_notification(notification))
            return
        granted = notification.params.get("notifications")
        uris = granted.get("resourceSubscriptions") if isinstance(granted, dict) else None
        kept = tuple(uri for uri in stream.wish.uris if isinstance(uris, list) and uri in uris)
        stream.wish = Wish(stream.wish.lists, kept, stream.wish.tasks)
