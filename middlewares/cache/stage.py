"""
`cache`: the stage itself. What may be kept is in `rules.py`, under which names in `names.py`, where in `tiers.py`; how
answers are fetched and kept is in `keeping.py`, and what the stage asks of its own accord in `errands.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, final

import trio

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Relay, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.keys import continues
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.model.repeating import Repeatables
from sluiceway.pipeline.model.tools import CALL
from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.failures import failure_of
from sluiceway.pipeline.protocol.mcp import Kind
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply
from sluiceway.pipeline.runtime.nursery import open_background_nursery

from ..single_flight import SingleFlight
from .config import CacheConfig
from .entry import Entry, State
from .errands import Errands
from .keeping import Ask, Keeper
from .memory_tier import MemoryTier
from .names import Selector, names_of
from .rules import Policy, Rule
from .store_tier import LowerTier, StoreTier
from .tiers import Tiers

_CALL: Final = Kind.CALL
_PURGE_BY: Final = frozenset({"key", "method", "name", "tenant"})


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

    reads_results = False
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
        self._methods = self._policy.methods
        self._tools = Repeatables((), trust_hints=config.trust_hints)
        self._flights = SingleFlight(context.id, config.max_entries, config.max_waiting)
        self._keeper = Keeper(context.id, self._policy, self._tools, self._flights, config.max_entry)
        self._errands: Errands | None = None
        self._is_cold = False
        self._hits = self._misses = self._stales = self._refreshed = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take the stores, listen for changes, warm up."""
        config, context, keeper = self.config, self.context, self._keeper
        memory = MemoryTier(config.max_entries, config.max_bytes, config.max_idle) if config.memory else None
        keeper.tiers = Tiers(memory, tuple(self._lower(name) for name in config.stores))
        stop = context.changes.listen(lambda _sink, notification: keeper.changed(notification))
        try:
            async with open_background_nursery() as nursery:
                self._errands = errands = Errands(nursery, context, config.max_refreshing, self._relay_nowhere)
                if config.stores:
                    nursery.start_soon(keeper.tiers.sweep_forever)
                self._is_cold = bool(config.warm) and self.behind is None
                if config.warm and not self._is_cold:
                    if config.warm_wait or config.warm_required:
                        await self._warm(errands)
                    else:
                        nursery.start_soon(self._warm, errands)
                try:
                    yield
                finally:
                    self._errands = None
        finally:
            stop()

    def _lower(self, store: str) -> LowerTier:
        context = self.context
        tier = StoreTier(context.store(store), f"{context.id}:", context.now)
        return LowerTier(store, tier, self.config.store_timeout, context.log)

    async def _warm(self, errands: Errands) -> None:
        await errands.warm(self.config.warm, self._warm_one, strict=self.config.warm_required)

    def __call__(self, exchange: Exchange, call_next: Service) -> Awaitable[Reply]:
        """Answer from memory, or have the answer fetched. With an answer from memory no checkpoint."""
        if exchange.kind is not _CALL or exchange.request.method not in self._methods:
            return call_next(exchange)
        return self._answer(exchange, call_next)

    async def _answer(self, exchange: Exchange, call_next: Service) -> Reply:
        if self._is_cold and self._errands is not None and self.behind is not None:
            self._is_cold = False
            self._errands.start(self._warm)
        rule = self._rule(exchange)
        if rule is None and self._tools.needs_lookup(exchange):
            await self._tools.look_up(exchange, call_next)
            rule = self._rule(exchange)
        if rule is None and exchange.method == CALL:
            exchange.decide(self.context.id, "bypass", "no rule")
            return await call_next(exchange)
        if continues(exchange) or "task" in exchange.request.params:
            exchange.decide(self.context.id, "bypass", "part of a conversation")
            return await call_next(exchange)
        exchange.hold()
        keeper, now = self._keeper, trio.current_time()
        names = names_of(exchange, shares=self._policy.shares)
        entry = keeper.find(names, now)
        if (entry is None or entry.fresh_until <= now) and keeper.tiers.lower:
            entry = await keeper.find_below(names) or entry
            now = trio.current_time()
        if entry is not None and entry.fresh_until > now:
            self._hits += 1
            return self._given(exchange, entry, now, "hit")
        ask = Ask(names, rule, entry)
        if entry is not None and entry.stale_until > now:
            self._refresh(exchange, call_next, ask)
            return self._given(exchange, entry, now, "stale", "it is refreshed")
        return await self._fetch(exchange, call_next, ask)

    async def _relay_nowhere(self, exchange: Exchange, notification: Notification) -> None:
        """The way back of the stage's own calls."""
        self._keeper.hears(exchange, notification, _stop)

    async def relay(self, exchange: Exchange, notification: Notification, forward: Relay) -> None:
        """Note what flows back, and tell those who wait for the same answer."""
        if self._keeper.hears(exchange, notification, forward):
            await forward(exchange, notification)

    def _rule(self, exchange: Exchange) -> Rule | None:
        return self._policy.rule_for(exchange.method, exchange.target, lambda: self._tools.reads(exchange))

    def _given(self, exchange: Exchange, entry: Entry, now: float, state: State, cause: str = "") -> Reply:
        """An answer that was kept, to a client."""
        self._stales += state == "stale"
        exchange.decide(self.context.id, state, cause)
        exchange.reply_headers["x-cache"] = state
        return entry.reply(now, state)

    def _refresh(self, exchange: Exchange, call_next: Service, ask: Ask) -> None:
        """Have an answer fetched anew, while its client gets the one that is there."""

        async def refresh(own: Exchange) -> None:
            self._refreshed += await self._keeper.fetch_for_nobody(own, self.behind or call_next, ask)

        if self._errands is not None:
            self._errands.refresh(ask.names.private, exchange, refresh)

    async def _fetch(self, exchange: Exchange, call_next: Service, ask: Ask) -> Reply:
        """The upstream's answer; what is there instead if it fails, and that is allowed."""
        self._misses += 1
        outcome: Reply | GatewayError
        try:
            outcome = await self._keeper.fetch(exchange, call_next, ask)
        except GatewayError as error:
            outcome = error.with_traceback(None)  # its frames hold this one: a cycle, for the collector to find
        if ask.old is not None and (instead := await self._instead(exchange, ask, outcome)) is not None:
            return instead
        if isinstance(outcome, GatewayError):
            raise outcome
        return outcome

    async def _instead(self, exchange: Exchange, ask: Ask, outcome: Reply | GatewayError) -> Reply | None:
        """What was kept, if the upstream fails; looked up again, for it may have become void meanwhile."""
        if ask.old is None or failure_of(outcome) is None:
            return None
        entry = self._keeper.find(ask.names, trio.current_time())
        if entry is None and self._keeper.tiers.lower:
            entry = await self._keeper.find_below(ask.names)
        now = trio.current_time()
        if entry is None or entry.error_until <= now:
            return None
        return self._given(exchange, entry, now, "stale", "the upstream fails")

    async def _warm_one(self, exchange: Exchange) -> bool:
        """Fetch an answer before anybody asks; whether it is kept where others find it."""
        assert self.behind is not None
        rule = self._rule(exchange)
        names = names_of(exchange, shares=self._policy.shares)
        await self._keeper.fetch_for_nobody(exchange, self.behind, Ask(names, rule, None))
        memory = self._keeper.tiers.memory
        if memory is not None:
            return memory.find(names.public, trio.current_time()) is not None
        return await self._keeper.tiers.get(names.public) is not None

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """`purge`: see `actions`."""
        if action != "purge":
            return await super().act(action, arguments)
        unknown = arguments.keys() - _PURGE_BY
        if unknown or not all(isinstance(value, str) for value in arguments.values()):
            raise ValueError(f"purge takes {', '.join(sorted(_PURGE_BY))}, each a text; all answers without any")
        methods = frozenset({arguments["method"]}) if "method" in arguments else None
        given: dict[str, Any] = {name: value for name, value in arguments.items() if name != "method"}
        removed = self._keeper.void(Selector(methods=methods, **given))
        await self._keeper.tiers.sweep()
        return {"removed": removed, "pending": sum(tier.pending for tier in self._keeper.tiers.lower)}

    def details(self) -> Mapping[str, Json]:
        """What is kept where."""
        tiers = self._keeper.tiers
        details: dict[str, Json] = {"hits": self._hits, "misses": self._misses, "stale": self._stales}
        if tiers.memory is not None:
            held = tiers.memory
            details["memory"] = {"entries": len(held), "bytes": held.bytes, "evictions": held.evicted}
        for tier in tiers.lower:
            details[f"store {tier.name}"] = {"hits": tier.hits, "failures": tier.failures, "pending": tier.pending}
        return details

    def figures(self) -> Iterable[Figure]:
        """Counters, and what is held."""
        keeper, tiers = self._keeper, self._keeper.tiers
        yield Figure("cache_hits_total", self._hits, "counter", "Exchanges answered with what was fresh.")
        yield Figure("cache_misses_total", self._misses, "counter", "Exchanges for which nothing fresh was there.")
        yield Figure("cache_stale_total", self._stales, "counter", "Exchanges answered with what was past its time.")
        yield Figure("cache_joined_total", self._flights.joined, "counter", "Misses that shared another one's call.")
        yield Figure("cache_refreshes_total", self._refreshed, "counter", "Answers refreshed in the background.")
        yield Figure("cache_kept_total", keeper.kept, "counter", "Answers taken in.")
        yield Figure("cache_invalidated_total", keeper.invalidated, "counter", "Answers that became void in memory.")
        if tiers.memory is not None:
            held, tier = tiers.memory, {"tier": "memory"}
            yield Figure("cache_entries", len(held), "gauge", "Answers held.", tier)
            yield Figure("cache_bytes", held.bytes, "gauge", "Bytes of answers held; equal ones count once.", tier)
            yield Figure("cache_duplicates_total", held.duplicates, "counter", "Answers equal to one held.", tier)
            yield Figure("cache_evictions_total", held.evicted, "counter", "Answers that had to make room.", tier)
        for below in tiers.lower:
            tier = {"tier": below.name}
            yield Figure("cache_tier_hits_total", below.hits, "counter", "Answers found in a store.", tier)
            yield Figure("cache_tier_failures_total", below.failures, "counter", "Operations that failed.", tier)


async def _stop(_exchange: Exchange, _notification: Notification) -> None:
    """Nobody hears it."""
