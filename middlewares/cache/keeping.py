"""
Fetching answers and keeping them: one call for equal requests, and nothing kept that has become void meanwhile.

Whatever makes answers void reaches those that are just being fetched, too: the upstream may have answered before the
change. Their calls are sealed, so that nobody who asks later waits for them, and nothing is kept of them.
"""

from __future__ import annotations

from typing import Final, final

import trio
from attrs import define, frozen

from sluiceway.pipeline.model.changes import LIST_CHANGES, RESOURCE_UPDATED
from sluiceway.pipeline.model.exchange import Exchange, Relay, Service
from sluiceway.pipeline.model.repeating import Repeatables
from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.failures import failure_of
from sluiceway.pipeline.protocol.mcp import LOG_MESSAGE, PROGRESS
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Result

from ..single_flight import Flight, SingleFlight, progress_token
from .entry import Entry, bodies_of, value_of
from .names import EVERYBODY, Names, Selector
from .rules import Policy, Rule, Terms, is_bad_cursor
from .tiers import Tiers

_MISSED_BY_NOBODY: Final = frozenset({PROGRESS, LOG_MESSAGE})
"""Notifications that a client can do without; an answer that came with others is not kept."""


@final
@define(eq=False)
class _Fetch:
    """What is known of one call for an answer."""

    name: str
    """The private name of the answer."""
    is_plain: bool = True
    """Nothing was relayed that a client would miss if the answer came from memory."""


@final
@frozen
class Ask:
    """One exchange that wants an answer that may be kept."""

    names: Names
    rule: Rule | None
    old: Entry | None
    """What is still there, but not fresh."""


@final
class Keeper:
    """
    Fetches answers for one stage, and keeps those that may be kept.

    Args:
        stage: Its id.
        policy: What may be kept.
        tools: What is known of tools; told of lists that pass.
        flights: Calls under way.
        max_entry: Bytes of the largest answer that is kept.
    """

    def __init__(self, stage: str, policy: Policy, tools: Repeatables, flights: SingleFlight, max_entry: int) -> None:
        self._stage = stage
        self._policy = policy
        self._tools = tools
        self._flights = flights
        self._max_entry = max_entry
        self.tiers = Tiers(None, ())
        """Where answers are; the stage sets it when it opens."""
        self.kept = 0
        """Answers taken in."""
        self.invalidated = 0
        """Answers in memory that became void."""

    def find(self, names: Names, now: float) -> Entry | None:
        """The better of what memory has for a principal and for everybody."""
        memory = self.tiers.memory
        if memory is None:
            return None
        private = memory.find(names.private, now)
        if not self._policy.shares or (private is not None and private.fresh_until > now):
            return private
        public = memory.find(names.public, now)
        return private if public is None else public

    async def find_below(self, names: Names) -> Entry | None:
        """The same of what the stores have."""
        now = trio.current_time()
        found = await self.tiers.get(names.private)
        if not self._policy.shares or (found is not None and found.fresh_until > now):
            return found
        return await self.tiers.get(names.public) or found

    async def fetch(self, exchange: Exchange, call_next: Service, ask: Ask) -> Reply:
        """The upstream's answer, by a call of its own or that of somebody who asks for the same."""
        flights, names, stage = self._flights, ask.names, self._stage
        # a call that reports progress serves those who want none as well, but not the other way round
        wants_progress = progress_token(exchange) is not None
        fetching = self._fetching(call_next, ask)
        for wants in (True,) if wants_progress else (True, False):
            flight = flights.find(names.whose, (names.private, wants))
            if flight is not None:
                exchange.decide(stage, "join")
                return await flights.follow(names.whose, (names.private, wants), flight, exchange, fetching)
        key = (names.private, wants_progress)
        if not flights.may_lead(names.whose, key):
            exchange.decide(stage, "bypass", "full")
            return await call_next(exchange)
        exchange.decide(stage, "miss")
        return await flights.lead(names.whose, key, exchange, fetching, about=_Fetch(names.private))

    async def fetch_for_nobody(self, exchange: Exchange, call_next: Service, ask: Ask) -> bool:
        """
        Fetch in an exchange of the stage's own, which nobody follows: what it relays has no way to a client.

        Returns:
            False if too many calls are under way.
        """
        exchange.decide(self._stage, "refresh")
        names, key = ask.names, (ask.names.private, "errand")
        if not self._flights.may_lead(names.whose, key):
            return False
        fetching = self._fetching(call_next, ask)
        await self._flights.lead(names.whose, key, exchange, fetching, about=_Fetch(names.private))
        return True

    def hears(self, exchange: Exchange, notification: Notification, forward: Relay) -> bool:
        """Note what flows back, and tell those who wait for the same answer; whether it goes on to the client."""
        self.changed(notification)
        flight = exchange.marks.get(self._stage)
        if not isinstance(flight, Flight):
            return True
        if isinstance(flight.about, _Fetch) and notification.method not in _MISSED_BY_NOBODY:
            flight.about.is_plain = False
        return flight.hears(notification, forward)

    def _fetching(self, call_next: Service, ask: Ask) -> Service:
        async def fetch(exchange: Exchange) -> Reply:
            flight = exchange.marks.get(self._stage)
            if not isinstance(flight, Flight):  # it waited for an answer that was for somebody else only
                return await call_next(exchange)
            return await self._fetch_and_keep(flight, exchange, call_next, ask)

        return fetch

    async def _fetch_and_keep(self, flight: Flight, exchange: Exchange, call_next: Service, ask: Ask) -> Reply:
        """What the one does that makes the call."""
        asked, born = exchange.link.asked, trio.current_time()
        reply = await call_next(exchange)
        self._tools.learn(exchange, reply)
        fetch = flight.about
        assert isinstance(fetch, _Fetch)
        if is_bad_cursor(exchange.method, exchange.request.params, reply):
            whose = frozenset({ask.names.whose, EVERYBODY})
            self.void(Selector(methods=frozenset({exchange.method}), tenant=ask.names.tenant, whose=whose))
        if flight.is_sealed or not fetch.is_plain or exchange.link.asked != asked:
            return reply
        terms = self._terms(exchange, ask.rule, reply)
        if terms is None:
            if ask.old is not None and failure_of(reply) is None:
                await self._forget(ask.names)  # the upstream has said something newer
            return reply
        return await self._keep(flight, ask, reply, terms, born)

    def _terms(self, exchange: Exchange, rule: Rule | None, reply: Reply) -> Terms | None:
        if isinstance(reply, ErrorReply):
            return self._policy.terms_for_error(reply)
        value = value_of(reply)
        return None if value is None else self._policy.terms_for(exchange.method, value, rule)

    async def _keep(self, flight: Flight, ask: Ask, reply: Reply, terms: Terms, born: float) -> Reply:
        """Put an answer into the tiers; the answer, with the time it is good by our own reckoning."""
        bodies, now = bodies_of(reply), trio.current_time()
        if bodies is None or len(bodies[0]) + len(bodies[1]) > self._max_entry:
            return reply
        fresh_until = now + terms.ttl_s  # from when it was received (2026-07-28, server/utilities/caching)
        entry = Entry(
            body=bodies[0],
            meta=bodies[1],
            is_error=isinstance(reply, ErrorReply),
            has_hints=terms.has_hints,
            born=born,
            fresh_until=fresh_until,
            stale_until=fresh_until + terms.stale_s,
            error_until=fresh_until + terms.error_s,
        )
        self.kept += 1
        names = ask.names
        await self.tiers.put(names.public if terms.is_public else names.private, entry, lambda: flight.is_sealed)
        if ask.old is not None and self._policy.shares:
            await self.tiers.delete(names.private if terms.is_public else names.public)
        is_lowered = isinstance(reply, Result) and terms.has_hints and _says_more(reply, terms.ttl_s)
        return entry.reply(now, None) if is_lowered else reply

    async def _forget(self, names: Names) -> None:
        await self.tiers.delete(names.private)
        if self._policy.shares:
            await self.tiers.delete(names.public)

    def void(self, selector: Selector) -> int:
        """Forget answers, and keep none of those under way; how many were forgotten in memory."""
        # a key is one answer's; the calls that may bring it are known by what they are about
        matches = (selector if selector.key is None else _about(selector.key)).compile()
        self._flights.seal(lambda flight: isinstance(flight.about, _Fetch) and matches(flight.about.name))
        count = self.tiers.invalidate(selector)
        self.invalidated += count
        return count

    def changed(self, notification: Notification) -> None:
        """Something an upstream said is not so any more. Never blocks."""
        lists = LIST_CHANGES.get(notification.method)
        if lists is not None:
            if self._tools.book is not None:
                self._tools.book.forget("", notification)
            self.void(Selector(methods=frozenset(lists)))
        elif notification.method == RESOURCE_UPDATED:
            self.void(Selector(methods=frozenset({"resources/read"}), uri=_uri_of(notification)))


def _uri_of(notification: Notification) -> str | None:
    """The resource it names; None if it names none that can be read, and may mean any."""
    try:
        uri = notification.params.get("uri")
    except UpstreamProtocolError:
        return None
    return uri if isinstance(uri, str) else None


def _about(key: str) -> Selector:
    """What a name is about, whoever asks."""
    method, _, _, _, target = (*key.split("\t", 4), *[""] * 5)[:5]
    return Selector(methods=frozenset({method}), uri=target)


def _says_more(reply: Result, ttl_s: float) -> bool:
    said = reply.value.get("ttlMs")
    return isinstance(said, int | float) and said > ttl_s * 1000
