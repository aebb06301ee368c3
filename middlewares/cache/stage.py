"""
`cache`: the stage itself. What may be kept is in `rules.py`, under which names in `names.py`, where in `tiers.py`.

An exchange is answered from memory, or follows a call that is under way for the same answer, or makes it. Nothing that
became void while a call was under way is kept of that call: the upstream may have answered before the change.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, final

import trio
from attrs import define, frozen

from sluiceway.pipeline.model.changes import LIST_CHANGES, RESOURCE_UPDATED
from sluiceway.pipeline.model.component import Context, Middleware, Order, middleware
from sluiceway.pipeline.model.exchange import Exchange, Relay, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.keys import continues
from sluiceway.pipeline.model.repeating import Repeatables
from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.failures import failure_of
from sluiceway.pipeline.protocol.mcp import LOG_MESSAGE, PROGRESS, Kind
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Result
from sluiceway.pipeline.runtime.nursery import open_background_nursery

from ..single_flight import Flight, SingleFlight, progress_token
from .config import CacheConfig
from .entry import Entry, bodies_of, value_of
from .errands import Errands
from .names import EVERYBODY, Names, Selector, names_of
from .rules import Policy, Rule, Terms, is_bad_cursor
from .tiers import LowerTier, MemoryTier, StoreTier, Tiers

_MISSED_BY_NOBODY: Final = frozenset({PROGRESS, LOG_MESSAGE})
"""Notifications that a client can do without; an answer that came with others is not kept."""
_PURGE_BY: Final = frozenset({"key", "method", "name", "tenant"})


@final
@define(eq=False)
class _Fetch:
    """What is known of one call for an answer."""

    name: str
    """The private name of the answer."""
    is_plain: bool = True
    """Nothing was relayed that a client would miss if the answer came from memory."""


@final
@define(eq=False)
class _Counts:
    """What became of exchanges, since the stage was made."""

    hits: int = 0
    misses: int = 0
    stale: int = 0
    refreshed: int = 0
    kept: int = 0
    invalidated: int = 0


@final
@frozen
class Ask:
    """One exchange that wants an answer that may be kept."""

    names: Names
    rule: Rule | None
    old: Entry | None
    """What is still there, but not fresh."""


@final
@middleware("cache")
class Cache(Middleware):
    """
    Answer from memory what was answered before, for as long as it is good.

    * Results of 2026-07-28 say themselves how long they are good (`ttlMs`) and for whom (`cacheScope`); that is obeyed
      without any option, and options only make it less. What says nothing, and every tool, is kept only if one of
      `rules` covers it. Tools are covered by name, or as tools that say they only read if `trust_hints` believes them.
    * An answer belongs to the principal and the rights with which it was asked for, and to the session of a legacy
      client. `public` ones are shared within a tenant, where `trust_public` or a rule says so.
    * Void at once: what a `list_changed` or `resources/updated` is about, from whichever upstream, also if the answer
      is under way at that moment; all pages of a list when one of its cursors is refused; what an operator purges.
    * Never kept: questions (`input_required`), requests that answer them, tasks, errors (but see `negative_ttl`), and
      answers that came with notifications other than progress and log messages, or with questions to the client.
    * Equal requests that miss at the same time are one call. Failures of a store cost time, never an answer.
    * What comes from here says so in `_meta` (`io.sluiceway/cache`: `state`, `age_ms`), and tells the `ttlMs` that is
      left. Payloads are byte for byte what they were.
    """

    role = "cache"
    replays = True
    order = (
        Order(
            "after", "auth", "error", "a cache in front of authentication can answer one tenant with another one's data"
        ),
        Order("after", "tenant", "error", "tenants that are not told apart yet would share answers"),
        Order("after", "access", "warning", "an answer would be given out before it is known who may have it"),
        Order("before", "retry", "error", "a repeated attempt must not be answered by its own first attempt"),
    )
    actions = {
        "purge": "Forget answers: all, or those of a `key`, a `method`, a `name` (glob of tools or uris), a `tenant`."
    }
    Config = CacheConfig

    def __init__(self, config: CacheConfig, context: Context) -> None:
        super().__init__(config, context)
        self._policy = Policy(
            config.rules,
            max_ttl_s=config.max_ttl,
            trust_public=config.trust_public,
            stale_s=config.stale_while_revalidate,
            error_s=config.stale_if_error,
            negative_s=config.negative_ttl or 0.0,
            tool_errors=config.negative_tool_errors,
        )
        self._tools = Repeatables((), trust_hints=config.trust_hints)
        self._flights = SingleFlight(context.id, config.max_entries, config.max_waiting)
        self._counts = _Counts()
        self._tiers = Tiers(None, ())
        self._errands: Errands | None = None
        self._is_cold = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take the stores, listen for changes, warm up."""
        config, context = self.config, self.context
        memory = MemoryTier(config.max_entries, config.max_bytes, config.max_idle) if config.memory else None
        self._tiers = Tiers(memory, tuple(self._lower(name) for name in config.stores))
        stop = context.changes.listen(self._changed)
        try:
            async with open_background_nursery() as nursery:
                self._errands = errands = Errands(nursery, context, config.max_refreshing, self._relay_nowhere)
                if self._tiers.lower:
                    nursery.start_soon(self._tiers.sweep_forever)
                self._is_cold = bool(config.warm) and self.behind is None
                if config.warm and not self._is_cold:
                    if config.warm_wait or config.warm_required:
                        await self._warm(errands, strict=config.warm_required)
                    else:
                        nursery.start_soon(self._warm, errands)
                yield
        finally:
            stop()
            self._errands = None

    def _lower(self, store: str) -> LowerTier:
        context = self.context
        tier = StoreTier(context.store(store), f"{context.id}:", context.now)
        return LowerTier(store, tier, self.config.store_timeout, context.log)

    async def _warm(self, errands: Errands, *, strict: bool = False) -> None:
        await errands.warm(self.config.warm, self._warm_one, strict=strict)

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Answer from memory, or have the answer fetched. With an answer from memory no checkpoint."""
        if exchange.kind is not Kind.CALL or exchange.method not in self._policy.methods:
            return await call_next(exchange)
        if self._is_cold and self._errands is not None and self.behind is not None:
            self._is_cold = False
            self._errands.start(self._warm)
        rule = await self._rule(exchange, call_next)
        if rule is None and exchange.method == "tools/call":
            exchange.decide(self.context.id, "bypass", "no rule")
            return await call_next(exchange)
        if continues(exchange) or "task" in exchange.request.params:
            exchange.decide(self.context.id, "bypass", "part of a conversation")
            return await call_next(exchange)
        names, now = names_of(exchange, shares=self._policy.shares), trio.current_time()
        entry = self._find(names, now)
        if (entry is None or entry.fresh_until <= now) and self._tiers.lower:
            entry = await self._find_below(names) or entry
            now = trio.current_time()
        ask = Ask(names, rule, entry)
        if entry is not None and entry.fresh_until > now:
            self._counts.hits += 1
            exchange.decide(self.context.id, "hit")
            return entry.reply(now, "hit")
        if entry is not None and entry.stale_until > now:
            return self._stale(exchange, call_next, ask, entry, now)
        return await self._fetch(exchange, call_next, ask)

    async def _relay_nowhere(self, exchange: Exchange, notification: Notification) -> None:
        """The way back of the stage's own calls."""
        await self.relay(exchange, notification, _stop)

    async def relay(self, exchange: Exchange, notification: Notification, forward: Relay) -> None:
        """Note what flows back, and tell those who wait for the same answer."""
        self._changed("", notification)
        flight = exchange.marks.get(self.context.id)
        if isinstance(flight, Flight):
            if isinstance(flight.about, _Fetch) and notification.method not in _MISSED_BY_NOBODY:
                flight.about.is_plain = False
            if not flight.hears(notification, forward):
                return
        await forward(exchange, notification)

    async def _rule(self, exchange: Exchange, call_next: Service) -> Rule | None:
        def only_reads() -> bool:
            return self._tools.reads(exchange)

        rule = self._policy.rule_for(exchange.method, exchange.target, only_reads)
        if rule is None and self._tools.needs_lookup(exchange):
            await self._tools.look_up(exchange, call_next)
            rule = self._policy.rule_for(exchange.method, exchange.target, only_reads)
        return rule

    def _find(self, names: Names, now: float) -> Entry | None:
        """The better of what memory has for a principal and for everybody."""
        memory = self._tiers.memory
        if memory is None:
            return None
        private = memory.find(names.private, now)
        if not self._policy.shares or (private is not None and private.fresh_until > now):
            return private
        public = memory.find(names.public, now)
        return private if public is None else public

    async def _find_below(self, names: Names) -> Entry | None:
        now = trio.current_time()
        found = await self._tiers.get(names.private)
        if not self._policy.shares or (found is not None and found.fresh_until > now):
            return found
        return await self._tiers.get(names.public) or found

    def _stale(self, exchange: Exchange, call_next: Service, ask: Ask, entry: Entry, now: float) -> Reply:
        """Answer at once with what is there, and have it refreshed."""
        self._counts.stale += 1
        started = self._errands is not None and self._errands.refresh(
            ask.names.private, exchange, lambda own: self._errand(own, self.behind or call_next, ask)
        )
        exchange.decide(self.context.id, "stale", "refreshing" if started else "refresh under way")
        return entry.reply(now, "stale")

    async def _errand(self, exchange: Exchange, call_next: Service, ask: Ask) -> None:
        """Fetch in an exchange of the stage's own, which nobody follows: what it relays has no way to a client."""
        exchange.decide(self.context.id, "refresh")
        key, names = (ask.names.private, "errand"), ask.names
        if self._flights.may_lead(names.whose, key):
            await self._flights.lead(
                names.whose, key, exchange, self._fetching(call_next, ask), about=_Fetch(names.private)
            )
            self._counts.refreshed += 1

    async def _fetch(self, exchange: Exchange, call_next: Service, ask: Ask) -> Reply:
        """The upstream's answer; what is there instead if it fails, and that is allowed."""
        self._counts.misses += 1
        try:
            reply = await self._lead_or_follow(exchange, call_next, ask)
        except GatewayError as error:
            instead = self._instead(exchange, ask, error)
            if instead is None:
                raise
            return instead
        return self._instead(exchange, ask, reply) or reply

    def _instead(self, exchange: Exchange, ask: Ask, outcome: Reply | GatewayError) -> Reply | None:
        entry, now = ask.old, trio.current_time()
        if entry is None or entry.error_until <= now or failure_of(outcome) is None:
            return None
        self._counts.stale += 1
        exchange.decide(self.context.id, "stale", "the upstream fails")
        return entry.reply(now, "stale")

    async def _lead_or_follow(self, exchange: Exchange, call_next: Service, ask: Ask) -> Reply:
        flights, names, stage = self._flights, ask.names, self.context.id
        # a call that reports progress serves those who want none as well, but not the other way round
        wants_progress = progress_token(exchange) is not None
        for wants in (True,) if wants_progress else (True, False):
            flight = flights.find(names.whose, (names.private, wants))
            if flight is not None:
                exchange.decide(stage, "join")
                return await flights.follow(
                    names.whose, (names.private, wants), flight, exchange, self._fetching(call_next, ask)
                )
        key = (names.private, wants_progress)
        if not flights.may_lead(names.whose, key):
            exchange.decide(stage, "bypass", "full")
            return await call_next(exchange)
        exchange.decide(stage, "miss")
        fetching = self._fetching(call_next, ask)
        return await flights.lead(names.whose, key, exchange, fetching, about=_Fetch(names.private))

    def _fetching(self, call_next: Service, ask: Ask) -> Service:
        async def fetch(exchange: Exchange) -> Reply:
            flight = exchange.marks.get(self.context.id)
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
            self._void(Selector(methods=frozenset({exchange.method}), tenant=ask.names.tenant, whose=whose))
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
        bodies, now = bodies_of(reply), trio.current_time()
        if bodies is None or len(bodies[0]) + len(bodies[1]) > self.config.max_entry:
            return reply
        # as of when it was received (caching: "received at + ttlMs"); a slow upstream's answer is no shorter-lived
        fresh_until = now + terms.ttl_s
        entry = Entry(
            body=bodies[0],
            meta=bodies[1],
            is_error=isinstance(reply, ErrorReply),
            has_hints=terms.has_hints,
            born=born,
            fresh_until=fresh_until,
            stale_until=fresh_until + terms.stale_s if terms.stale_s else fresh_until,
            error_until=fresh_until + terms.error_s if terms.error_s else fresh_until,
        )
        self._counts.kept += 1
        names = ask.names
        await self._tiers.put(names.public if terms.is_public else names.private, entry, lambda: flight.is_sealed)
        if ask.old is not None and self._policy.shares:
            await self._tiers.delete(names.private if terms.is_public else names.public)
        is_lowered = isinstance(reply, Result) and terms.has_hints and _says_more(reply, terms.ttl_s)
        return entry.reply(now, None) if is_lowered else reply

    async def _forget(self, names: Names) -> None:
        await self._tiers.delete(names.private)
        if self._policy.shares:
            await self._tiers.delete(names.public)

    def _void(self, selector: Selector) -> int:
        """Forget answers, and keep none of those under way; how many were forgotten in memory."""
        # a key is one answer's; the calls that may bring it are known by what they are about
        about = selector if selector.key is None else _about(selector.key)
        matches = about.compile()
        self._flights.seal(lambda flight: isinstance(flight.about, _Fetch) and matches(flight.about.name))
        count = self._tiers.invalidate(selector)
        self._counts.invalidated += count
        return count

    def _changed(self, sink: str, notification: Notification) -> None:
        """Something an upstream said is not so any more."""
        lists = LIST_CHANGES.get(notification.method)
        if lists is not None:
            if self._tools.book is not None:
                self._tools.book.forget(sink, notification)
            self._void(Selector(methods=frozenset(lists)))
        elif notification.method == RESOURCE_UPDATED:
            uri = notification.params.get("uri")
            self._void(Selector(methods=frozenset({"resources/read"}), uri=uri if isinstance(uri, str) else None))

    async def _warm_one(self, exchange: Exchange) -> bool:
        """Fetch an answer before anybody asks; whether it is kept where others find it."""
        assert self.behind is not None
        rule = self._policy.rule_for(exchange.method, exchange.target, lambda: self._tools.reads(exchange))
        names = names_of(exchange, shares=self._policy.shares)
        await self._errand(exchange, self.behind, Ask(names, rule, None))
        memory = self._tiers.memory
        if memory is not None:
            return memory.find(names.public, trio.current_time()) is not None
        return await self._tiers.get(names.public) is not None

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """`purge`: see `actions`."""
        if action != "purge":
            return await super().act(action, arguments)
        unknown = arguments.keys() - _PURGE_BY
        if unknown or not all(isinstance(value, str) for value in arguments.values()):
            raise ValueError(f"purge takes {', '.join(sorted(_PURGE_BY))}, each a text; all answers without any")
        methods = frozenset({arguments["method"]}) if "method" in arguments else None
        given: dict[str, Any] = {name: value for name, value in arguments.items() if name != "method"}
        removed = self._void(Selector(methods=methods, **given))
        await self._tiers.sweep()
        return {"removed": removed, "pending": sum(tier.pending for tier in self._tiers.lower)}

    def details(self) -> Mapping[str, Json]:
        """What is kept where."""
        memory, counts = self._tiers.memory, self._counts
        details: dict[str, Json] = {"hits": counts.hits, "misses": counts.misses, "stale": counts.stale}
        if memory is not None:
            details["memory"] = {"entries": len(memory), "bytes": memory.bytes, "evictions": memory.evicted}
        for name, tier in self._tiers.rows():
            details[f"store {name}"] = {"hits": tier.hits, "failures": tier.failures, "pending": tier.pending}
        return details

    def figures(self) -> Iterable[Figure]:
        """Counters, and what is held."""
        counts, memory = self._counts, self._tiers.memory
        yield Figure("cache_hits_total", counts.hits, "counter", "Exchanges answered with what was fresh.")
        yield Figure("cache_misses_total", counts.misses, "counter", "Exchanges for which nothing fresh was there.")
        yield Figure("cache_stale_total", counts.stale, "counter", "Exchanges answered with what was past its time.")
        yield Figure("cache_joined_total", self._flights.joined, "counter", "Misses that shared another one's call.")
        yield Figure("cache_refreshes_total", counts.refreshed, "counter", "Answers refreshed in the background.")
        yield Figure("cache_kept_total", counts.kept, "counter", "Answers taken in.")
        yield Figure("cache_invalidated_total", counts.invalidated, "counter", "Answers that became void in memory.")
        if memory is not None:
            tier = {"tier": "memory"}
            yield Figure("cache_entries", len(memory), "gauge", "Answers held.", tier)
            yield Figure("cache_bytes", memory.bytes, "gauge", "Bytes of answers held.", tier)
            yield Figure("cache_evictions_total", memory.evicted, "counter", "Answers that had to make room.", tier)
        for name, below in self._tiers.rows():
            tier = {"tier": name}
            yield Figure("cache_tier_hits_total", below.hits, "counter", "Answers found in a store.", tier)
            yield Figure("cache_tier_failures_total", below.failures, "counter", "Operations that failed.", tier)


async def _stop(_exchange: Exchange, _notification: Notification) -> None:
    """Nobody hears it."""


def _about(key: str) -> Selector:
    """What a name is about, whoever asks."""
    method, _, _, _, target = (*key.split("\t", 4), *[""] * 5)[:5]
    return Selector(methods=frozenset({method}), uri=target)


def _says_more(reply: Result, ttl_s: float) -> bool:
    said = reply.value.get("ttlMs")
    return isinstance(said, int | float) and said > ttl_s * 1000
