"""
Single flight: equal requests that are under way at the same time share one call.

Who comes first leads: it makes the call in its own exchange, under its own deadline. Those who come while it is under
way follow: each waits in its own task, gets every notification of the call under its own progress token, and then the
same reply. A leader that leaves without an answer (its client cancelled, its time was over) hands over to the follower
that has waited longest, which makes the call anew. So nobody waits on a task that nobody owns, a cancelled client
costs nobody else the answer, and the upstream is left alone when the last one has gone.

What equal means, and which requests may share at all, is for the stages to decide: `dedup` and `cache`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Final, TypeVar, final

import trio

from sluiceway.pipeline.model.exchange import Exchange, Relay, Service
from sluiceway.pipeline.protocol.errors import DeadlineExceeded, GatewayError, SlowConsumer, UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import LOG_MESSAGE, PROGRESS, MetaKey
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply, Result

MAX_INBOX: Final = 64
"""Notifications that a follower has not taken yet; then older progress and log messages give way."""
_LEADERS_OWN: Final = (DeadlineExceeded, SlowConsumer)
"""Failures that say something about the leader, and nothing about the call."""

Who = Hashable
"""A principal, as `keys.principal_of` names it."""


@final
class _Follower:
    """One exchange that waits for another one's call."""

    __slots__ = ("inbox", "is_slow", "leads", "lot", "seen", "token")

    def __init__(self, exchange: Exchange) -> None:
        self.token: Json = progress_token(exchange)
        self.inbox: deque[tuple[Relay, Notification]] = deque()
        self.lot = trio.lowlevel.ParkingLot()
        self.seen: float = float("-inf")
        """Latest progress it was told."""
        self.is_slow = False
        """More came than its inbox holds."""
        self.leads = False
        """The call is its own now."""

    def tell(self, notification: Notification, forward: Relay) -> None:
        """Put a notification of the call into the inbox. Never blocks."""
        if notification.method == PROGRESS:
            if self.token is None or not self.advances(notification):
                return
            notification = Notification(PROGRESS, {**notification.params, "progressToken": self.token})
        if len(self.inbox) < MAX_INBOX or self._make_room():
            self.inbox.append((forward, notification))
        elif notification.method not in (PROGRESS, LOG_MESSAGE):
            self.is_slow = True
        self.lot.unpark()

    def advances(self, notification: Notification) -> bool:
        """Whether progress goes on, as it must (MCP, basic/utilities/progress); a call made anew starts anew."""
        progress = notification.params.get("progress")
        if isinstance(progress, int | float):
            if progress <= self.seen:
                return False
            self.seen = progress
        return True

    def _make_room(self) -> bool:
        for method in (PROGRESS, LOG_MESSAGE):
            for index, (_, notification) in enumerate(self.inbox):
                if notification.method == method:
                    del self.inbox[index]
                    return True
        return False


@final
class Flight:
    """One call under way, and who waits for it."""

    __slots__ = ("about", "followers", "is_over", "is_repeatable", "is_sealed", "leader", "method", "outcome", "target")

    def __init__(self, exchange: Exchange, about: object, *, is_repeatable: bool) -> None:
        self.method = exchange.method
        self.target = exchange.target
        self.about = about
        """What the stage wants to know of it later."""
        self.followers: dict[_Follower, None] = {}
        self.leader: _Follower | None = None
        """The follower that took over; None while the first leader leads."""
        self.outcome: Reply | GatewayError | None = None
        self.is_over = False
        """Nobody else may wait; `outcome` is the answer, or everybody goes on alone."""
        self.is_sealed = False
        """Something has changed since it began: who comes now must not share it, nothing may be kept of it."""
        self.is_repeatable = is_repeatable
        """Whether a follower may make the call anew."""

    def hears(self, notification: Notification, forward: Relay) -> bool:
        """Tell the followers of a notification; whether the leader is to be told as well. Never blocks."""
        if not self.followers and self.leader is None:
            return True
        if notification.method == PROGRESS and not _is_readable(notification):
            return True  # nobody's token can be put into it; the leader's own client may judge it
        for follower in self.followers:
            follower.tell(notification, forward)
        return self.leader is None or notification.method != PROGRESS or self.leader.advances(notification)

    def settle(self, outcome: Reply | GatewayError | None) -> None:
        """The call is over. Wakes everybody."""
        self.outcome = outcome
        self.is_over = True
        for follower in self.followers:
            follower.lot.unpark()

    def hand_over(self) -> bool:
        """The leader left without an answer: the next one leads. False if there is no next one, or must be none."""
        if not self.followers or not self.is_repeatable:
            return False
        follower = next(iter(self.followers))
        del self.followers[follower]
        self.leader = follower
        follower.leads = True
        follower.lot.unpark()
        return True


@final
class SingleFlight:
    """
    The calls under way at one stage, by principal and key.

    Args:
        stage_id: Key of the stage's mark on exchanges.
        max_flights: Calls that can be shared at the same time; further ones are made by themselves.
        max_waiting: Followers of one call; further ones make the call themselves.
    """

    def __init__(self, stage_id: str, max_flights: int, max_waiting: int) -> None:
        self._id = stage_id
        self._max_flights = max_flights
        self._max_waiting = max_waiting
        self._flights: dict[Who, dict[Hashable, Flight]] = {}
        self.count = 0
        """Calls under way that others can share."""
        self.joined = 0
        """Exchanges that followed another one, since the stage was made."""
        self.led = 0
        """Calls that others could have followed."""
        self.handed_over = 0
        """Calls made anew because their leader left."""

    def find(self, who: Who, key: Hashable) -> Flight | None:
        """The call under way for a key that one more may follow."""
        flight = self._flights.get(who, {}).get(key) if self.count else None
        return flight if flight is not None and len(flight.followers) < self._max_waiting else None

    def may_lead(self, who: Who, key: Hashable) -> bool:
        """Whether there is room for one more call, and none under way for this key (with as many as may follow it)."""
        return self.count < self._max_flights and key not in self._flights.get(who, ())

    async def lead(
        self,
        who: Who,
        key: Hashable,
        exchange: Exchange,
        call_next: Service,
        *,
        about: object = None,
        is_repeatable: bool = True,
        lost: Callable[[], GatewayError] | None = None,
    ) -> Reply:
        """
        Make the call, and let others follow it. Only if it `may_lead`.

        Args:
            who: The principal.
            key: What followers have in common with it.
            exchange: The leader's.
            call_next: The call.
            about: For the stage; see `Flight.about`.
            is_repeatable: Whether a follower may make the call anew when the leader leaves.
            lost: What followers are told otherwise.
        """
        flight = Flight(exchange, about, is_repeatable=is_repeatable)
        self._flights.setdefault(who, {})[key] = flight
        self.count += 1
        self.led += 1
        return await self._lead(who, key, flight, exchange, call_next, lost)

    async def _lead(
        self,
        who: Who,
        key: Hashable,
        flight: Flight,
        exchange: Exchange,
        call_next: Service,
        lost: Callable[[], GatewayError] | None,
    ) -> Reply:
        exchange.marks[self._id] = flight
        try:
            reply = await call_next(exchange)
            self._end(who, key, flight, reply if _is_for_all(flight, reply) else None)
        except GatewayError as error:
            if not isinstance(error, _LEADERS_OWN):
                self._end(who, key, flight, error if flight.followers else None)
            raise
        finally:
            exchange.marks.pop(self._id, None)
            if not flight.is_over:
                self._leave(who, key, flight, lost)
        return reply

    async def follow(self, who: Who, key: Hashable, flight: Flight, exchange: Exchange, call_next: Service) -> Reply:
        """
        Wait for somebody else's call, or take it over.

        Raises:
            SlowConsumer: More notifications of the call came than the client took.
            GatewayError: The call failed; everybody who shared it is told the same.
        """
        self.joined += 1
        follower = _Follower(exchange)
        flight.followers[follower] = None
        has_waited = False
        try:
            await self._wait(flight, follower, exchange)
            has_waited = True
        finally:
            flight.followers.pop(follower, None)
            if follower.leads and not has_waited:  # the call was handed over at the very moment at which this one left
                self._leave(who, key, flight, None)
        if follower.leads:
            self.handed_over += 1
            return await self._lead(who, key, flight, exchange, call_next, None)
        if isinstance(flight.outcome, GatewayError):
            raise _twin(flight.outcome) from flight.outcome
        if flight.outcome is None:
            return await call_next(exchange)
        return flight.outcome

    async def _wait(self, flight: Flight, follower: _Follower, exchange: Exchange) -> None:
        """Take what the call relays until it is over, or ours. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while True:
            while follower.inbox:
                forward, notification = follower.inbox.popleft()
                await forward(exchange, notification)
            if follower.is_slow:
                raise SlowConsumer(
                    f"{MAX_INBOX} notifications of this request wait for its client, which reads too slowly"
                )
            if flight.is_over or follower.leads:
                return
            await follower.lot.park()

    def _leave(self, who: Who, key: Hashable, flight: Flight, lost: Callable[[], GatewayError] | None) -> None:
        if not flight.hand_over():
            self._end(who, key, flight, lost() if lost is not None else None)

    def _end(self, who: Who, key: Hashable, flight: Flight, outcome: Reply | GatewayError | None) -> None:
        flight.settle(outcome)
        self._drop(who, key, flight)

    def _drop(self, who: Who, key: Hashable, flight: Flight) -> None:
        flights = self._flights.get(who)
        if flights is not None and flights.get(key) is flight:
            del flights[key]
            self.count -= 1
            if not flights:
                del self._flights[who]

    def flights(self) -> Iterator[tuple[Who, Hashable, Flight]]:
        """Every call under way that others can follow."""
        for who, flights in list(self._flights.items()):
            for key, flight in list(flights.items()):
                yield who, key, flight

    def seal(self, is_affected: Callable[[Flight], bool], who: Who | None = None) -> None:
        """
        Something changes: who comes from now on does not share calls that began before.

        Args:
            is_affected: Which calls.
            who: Only those of one principal.
        """
        if not self.count:
            return
        for owner, key, flight in self.flights():
            if (who is None or owner == who) and is_affected(flight):
                flight.is_sealed = True
                self._drop(owner, key, flight)


def progress_token(exchange: Exchange) -> Json:
    """The token under which an exchange wants to hear of progress; None if it does not."""
    return exchange.request.meta.get(MetaKey.PROGRESS_TOKEN)


def _is_readable(notification: Notification) -> bool:
    try:
        return notification.params is not None
    except UpstreamProtocolError:
        return False


def _is_for_all(flight: Flight, reply: Reply) -> bool:
    """
    Whether followers may have the reply, too. Not if it begins something between the upstream and one client: a
    question (`input_required`, SEP-2322), a task. Then each of them makes the call by itself.
    """
    if not flight.is_repeatable or not flight.followers or not isinstance(reply, Result):
        return True
    return bool(reply.value.get("resultType", "complete") == "complete")


_E = TypeVar("_E", bound=GatewayError)


def _twin(error: _E) -> _E:
    """The same error for another task: an exception belongs to the one that raises it."""
    twin = type(error).__new__(type(error), *error.args)
    twin.__dict__.update(error.__dict__)
    return twin
