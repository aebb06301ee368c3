"""
The upstreams of a tape: what answers a sink's calls while it is played.

A call is answered by the recorded call of the same exchange and sink whose request is the same; after that, by order.
What came back in it comes as much later or earlier as the call itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final, final

import trio
from attrs import define, field

from ..model.exchange import Exchange
from ..protocol.messages import Notification, Reply, Request, Result
from ..runtime.nursery import unwrap_single
from .entries import CallAsked, Called, CallEnded, CallRelayed, MessageData, ReplyData
from .matching import VOLATILE, Ignoring, distance
from .nearest import describe_lack
from .timeline import MAX_OPEN, CallEvent, Open, Timeline
from .values import exception_of, message_of, reply_of

Unknown = Callable[[Exchange, str, float], Awaitable[Reply]]
"""
Answers a call of a sink (its id) that is on no tape. The last argument is how many seconds the call has taken so far:
more than 0 if the tape has it, but only until it was cancelled.
"""

_TINY_S: Final = 1e-6
"""A call that begins no further than this from its time on the tape begins at its time."""


@define(eq=False)
class _Inbox:
    """What the tape has of one call, as far as the player has come."""

    events: deque[CallEvent] = field(factory=deque)
    news: trio.Event = field(factory=trio.Event)
    is_claimed: bool = False

    def put(self, entry: CallEvent) -> None:
        self.events.append(entry)
        self.news.set()
        self.news = trio.Event()

    async def get(self) -> CallEvent:
        while not self.events:
            await self.news.wait()
        return self.events.popleft()


@final
class Upstreams:
    """
    Args:
        tape: Where recorded calls are looked for.
        zero: Trio's time at its beginning.
        unknown: Answers calls that are not on it.
        lack: Told of each of these, in words.
        live: Numbers of the exchanges that are under way.
        ignored: Globs of paths that do not decide which recorded answer a request gets.
    """

    def __init__(
        self,
        tape: Timeline,
        zero: float,
        unknown: Unknown,
        lack: Callable[[str], None],
        live: Iterable[int],
        ignored: Collection[str],
    ) -> None:
        self._tape = tape
        self._zero = zero
        self._unknown = unknown
        self._lack = lack
        self._live = live
        self._ignoring = Ignoring((*VOLATILE, *ignored))
        self._inboxes: dict[int, _Inbox] = {}
        self._came_of: dict[int, list[int]] = {}
        """Calls of which something came, by exchange."""
        self._early: set[int] = set()
        """Calls that are played ahead of their time on the tape."""

    def call(self, exchange: Exchange, sink: str) -> Awaitable[Reply]:
        """Answer a call of a sink."""
        called = self._called(exchange, sink)
        if called is None:
            self._lack(self._describe(exchange, sink))
            return self._unknown(exchange, sink, 0.0)
        return self._answer(exchange, called)

    def _called(self, exchange: Exchange, sink: str) -> Called | None:
        """The recorded call that answers this one."""
        request, attempt, number, ignoring = exchange.request, exchange.attempt, exchange.link.number, self._ignoring

        def fits(open_: Open, called: Called) -> bool:
            return called.sink == sink and _is_same(open_.request_of(called), request, ignoring)

        def same(open_: Open, called: Called) -> bool:
            return called.attempt == attempt and fits(open_, called)

        tape = self._tape
        return (
            tape.call(number, same)
            or tape.call(number, fits)
            or tape.call_of(self._live, same)
            or tape.call_of_own(same)
        )

    def _describe(self, exchange: Exchange, sink: str) -> str:
        """What the tape has no answer to, and what the nearest request on it has different."""
        near = self._tape.unclaimed([exchange.link.number]) or self._tape.unclaimed(self._live)
        asked = [(open_.request_of(called), called) for open_, called in near if called.sink == sink]
        return describe_lack(exchange.request, sink, [each for each, _ in asked if each is not None], self._ignoring)

    async def _answer(self, exchange: Exchange, called: Called) -> Reply:
        """Do what the sink did, as much later or earlier as it is called."""
        shift = trio.current_time() - self._zero - called.t
        rest = self._tape.rest_of(called.call) if shift < -_TINY_S else None
        if rest is not None:
            inbox = _Inbox(deque(rest))
            self._early.add(called.call)
        else:
            inbox, shift = self._inboxes.setdefault(called.call, _Inbox()), max(shift, 0.0)
        inbox.is_claimed = True
        ended = await self._play_call(exchange, inbox, 0.0 if abs(shift) < _TINY_S else shift)
        if rest is None:
            self._inboxes.pop(called.call, None)
        if ended.reply is not None:
            return played_reply(ended.reply)
        if ended.failure is not None:
            raise exception_of(ended.failure)
        return await self._unknown(exchange, called.sink, max(ended.t - called.t, _TINY_S))

    async def _play_call(self, exchange: Exchange, inbox: _Inbox, shift: float) -> CallEnded:
        with unwrap_single():
            async with trio.open_nursery() as questions:
                while True:
                    entry = await inbox.get()
                    if shift:
                        await trio.sleep_until(self._zero + entry.t + shift)
                    match entry:
                        case CallRelayed():
                            message = message_of(entry.message)
                            if isinstance(message, Notification):
                                await exchange.relay(message)
                        case CallAsked():
                            questions.start_soon(exchange.ask, entry.message.method, entry.message.params)
                        case CallEnded():
                            questions.cancel_scope.cancel()
                            return entry

    def came(self, entry: CallEvent) -> None:
        """Something came back in a call, then: it does now."""
        call = entry.call
        if call in self._early:
            if isinstance(entry, CallEnded):
                self._early.discard(call)
            return
        inbox = self._inboxes.get(call)
        if inbox is None:
            inbox = self._inboxes[call] = _Inbox()
            self._came_of.setdefault(entry.exchange, []).append(call)
            if len(self._inboxes) > MAX_OPEN:
                self.drop(next(iter(self._came_of)))
        inbox.put(entry)

    def drop(self, exchange: int) -> None:
        """What came for an exchange, and nobody took: nobody will."""
        for call in self._came_of.pop(exchange, ()):
            inbox = self._inboxes.get(call)
            if inbox is not None and not inbox.is_claimed:
                del self._inboxes[call]


def _is_same(recorded: MessageData | None, request: Request | Notification, ignoring: Ignoring) -> bool:
    if recorded is None or recorded.method != request.method:
        return recorded is None
    return recorded.params == request.params or not distance(recorded.params, request.params, ignoring)


def played_reply(data: ReplyData) -> Reply:
    """A recorded reply; one that could not be read then cannot be read now."""
    return Result(raw=_UNREADABLE) if data.unreadable else reply_of(data)


_UNREADABLE: Final = b'{"a":0,"a":0}'
