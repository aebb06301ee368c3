"""
`dedup`: equal requests at the same time are one call upstream, and a call with an idempotency key happens once.

Two things that look alike and are not. Requests that only read may share a call, because making it once or ten times
is the same: that needs no word of the client, and nothing is kept (`single_flight.py`). A call that does something may
be repeated only by a client that says so, with a key of its own; then its outcome is kept, and given again to whoever
sends the key again (`idempotency.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final, final

from attrs import frozen

from sluiceway.pipeline.model.changes import LIST_CHANGES, RESOURCE_UPDATED
from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Relay, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.keys import authorization_of, canonical, continues, digest, principal_of, request_of
from sluiceway.pipeline.model.options import DAY, MIB, Duration, Size, option
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.model.repeating import Repeatables
from sluiceway.pipeline.model.store import Store
from sluiceway.pipeline.model.tools import CALL
from sluiceway.pipeline.protocol.mcp import METHODS, STATEFUL, Kind, MetaKey
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply
from sluiceway.pipeline.stores.memory import MemoryStore

from .idempotency import HEADER, MEMBER, KeyReused, Outcomes, key_of, unknown
from .single_flight import Flight, SingleFlight, progress_token

SHARED: Final = frozenset(name for name, row in METHODS.items() if row.repeatable and name not in STATEFUL)
"""Methods whose calls may always be shared."""
_CALL: Final = Kind.CALL
_NEVER_KEYED: Final = frozenset({"initialize", "tasks/update"})


@final
@middleware("dedup")
class Dedup(Middleware):
    """
    Let equal requests that are under way at the same time share one call upstream.

    * Equal means: same principal with the same rights, same revision, method, params and capabilities. Legacy sessions
      do not share with each other. Trace context, progress tokens and who asks make no difference.
    * Shared are reads, as the method table has them. `tools/call` only for the tools that `repeat` lists, or that say
      they only read (`readOnlyHint`) if `trust_hints` believes them. Never a request that answers an `input_required`.
    * Everybody gets the notifications of the call, under a progress token of their own. Whoever cancels leaves the
      others alone. If that is who made the call, the one that has waited longest makes it anew.
    * An answer is shared whatever it says, errors included. Only what is about the one who made the call is not: its
      deadline, or that its client reads slowly. Then the next one makes the call.
    * A request never shares a call that began before its principal's latest call of any other kind ended, or before
      the upstream announced a change: it would be answered from the past.

    A client that sends an idempotency key (header `Idempotency-Key`, or `io.sluiceway/idempotencyKey` in `_meta`) with
    a call that is no read gets the outcome of the first such call of its principal, for as long as `outcome_ttl`.

    Raises:
        KeyReused: The same idempotency key came with another request; HTTP 409.
        OutcomeUnknown: The first call with this key ended before its answer came, and may have run.
        CapacityExceeded: The store of outcomes does not work; the call was not made.
    """

    reads_results = False
    role = "dedup"
    replays = True
    order = (
        Order("after", "auth", "error", "in front of authentication all callers are one, and would share answers"),
        Order("after", "tenant", "error", "tenants that are not told apart yet would share answers"),
        Order("after", "access", "warning", "an answer would be shared before it is known who may have it"),
        Order(
            "before", "retry", "error", "a repeated attempt would wait for, or be answered by, its own first attempt"
        ),
    )

    @frozen
    class Config:
        """Options of `dedup`."""

        repeat: tuple[str, ...] = option(
            (), doc="Tools whose calls may be shared, as globs: they change nothing.", example=["search_*"]
        )
        trust_hints: bool = option(
            False,
            doc="Believe tools that say they only read. Set it only if every upstream behind the stage is trusted.",
        )
        max_flights: int = option(10_000, ge=1, doc="Calls that can be shared at once; above this each makes its own.")
        max_waiting: int = option(1_000, ge=1, doc="Exchanges that may wait for one call; others make it themselves.")
        outcome_ttl: Duration | None = option(
            Duration(DAY), gt=0, doc="How long the outcome of an idempotency key is kept; null to ignore the keys."
        )
        max_outcome: Size = option(
            Size(MIB), ge=1, doc="Largest outcome that is kept; of a larger one only that there was one."
        )
        max_keys: int = option(10_000, ge=1, doc="Idempotency keys kept at most, if there is no `store`.")
        store: str | None = option(
            None,
            doc="Store of the outcomes: to survive a restart, or for several gateways. Memory without.",
            example="state",
        )

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._tools = Repeatables(config.repeat, trust_hints=config.trust_hints)
        self._knows = self._tools.knows
        self._flights = SingleFlight(context.id, config.max_flights, config.max_waiting)
        self._outcomes: Outcomes | None = None
        self._conflicts = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take the store, and listen for changes."""
        config = self.config
        if config.outcome_ttl is not None:
            store = self.context.store(config.store) if config.store else _memory(self.context.id, config.max_keys)
            leases = store if config.store else _memory(self.context.id, config.max_keys)
            self._outcomes = Outcomes(store, leases, f"{self.context.id}:", config.outcome_ttl, config.max_outcome)
        stop = self.context.changes.listen(self._changed)
        try:
            yield
        finally:
            stop()
            self._outcomes = None

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Follow the call that is under way, or make it."""
        if exchange.kind is not _CALL:
            return await call_next(exchange)
        request = exchange.request
        method = request.method
        if method in SHARED or (self._knows and method == CALL and await self._only_reads(exchange, call_next)):
            if not continues(exchange) and "task" not in exchange.request.params:
                exchange.hold()
                return await self._share(exchange, call_next)
        elif (
            (HEADER in exchange.client.headers or MEMBER in request.meta)
            and self._outcomes is not None
            and method not in _NEVER_KEYED
        ):
            key = None if continues(exchange) else key_of(exchange)
            if key is not None:
                exchange.hold()
                call_next = self._keyed(self._outcomes, key, call_next)
        try:
            return await call_next(exchange)
        finally:
            if self._flights.count:
                self._flights.seal(_is_read, principal_of(exchange))

    async def relay(self, exchange: Exchange, notification: Notification, forward: Relay) -> None:
        """Tell those who wait for this call, then its own client."""
        self._changed("", notification)
        flight = exchange.marks.get(self.context.id)
        if not isinstance(flight, Flight) or flight.hears(notification, forward):
            await forward(exchange, notification)

    async def _only_reads(self, exchange: Exchange, call_next: Service) -> bool:
        if self._tools.needs_lookup(exchange):
            await self._tools.look_up(exchange, call_next)
        return self._tools.reads(exchange)

    async def _share(self, exchange: Exchange, call_next: Service) -> Reply:
        authorization = authorization_of(exchange)
        who, flights, stage = authorization[:2], self._flights, self.context.id
        wants_progress = progress_token(exchange) is not None
        key = (request_of(exchange), authorization, _sender(exchange))
        # a call that reports progress serves those who want none as well, but not the other way round
        for each in ((key, True),) if wants_progress else ((key, True), (key, False)):
            flight = flights.find(who, each)
            if flight is not None:
                exchange.decide(stage, "join")
                self.context.log.debug("request shares a call", method=exchange.method)
                return await flights.follow(who, each, flight, exchange, call_next)
        if not flights.may_lead(who, (key, wants_progress)):
            exchange.decide(stage, "bypass", "full")
            return await call_next(exchange)
        exchange.decide(stage, "lead")
        reply = await flights.lead(who, (key, wants_progress), exchange, call_next)
        self._tools.learn(exchange, reply)
        return reply

    def _keyed(self, outcomes: Outcomes, key: str, call_next: Service) -> Service:
        async def once(exchange: Exchange) -> Reply:
            who, flights, stage = principal_of(exchange), self._flights, self.context.id
            name, content = digest(who, key), digest(*request_of(exchange))
            flight = flights.find(who, name)
            if flight is not None and flight.about != content:
                self._conflicts += 1
                exchange.decide(stage, "refuse", "idempotency key of another request")
                raise KeyReused(
                    "this idempotency key belongs to another request; use a key of its own for each request"
                )
            if flight is not None:
                exchange.decide(stage, "join", "idempotency key")
                return await flights.follow(who, name, flight, exchange, call_next)

            async def first(exchange: Exchange) -> Reply:
                return await outcomes.run(stage, name, content, exchange, call_next)

            if not flights.may_lead(who, name):
                return await first(exchange)
            return await flights.lead(
                who, name, exchange, first, about=content, is_repeatable=False, lost=unknown
            )  # fmt: skip

        return once

    def _changed(self, sink: str, notification: Notification) -> None:
        """Who asks after a change is not answered from before it."""
        lists = LIST_CHANGES.get(notification.method)
        if lists is not None:
            self._flights.seal(lambda flight: flight.method in lists)
            if self._tools.book is not None:
                self._tools.book.forget(sink, notification)
        elif notification.method == RESOURCE_UPDATED:
            self._flights.seal(lambda flight: flight.method == "resources/read")

    def details(self) -> Mapping[str, Json]:
        """Calls under way that can be shared."""
        return {"under_way": self._flights.count}

    def figures(self) -> Iterable[Figure]:
        """Counters."""
        flights, replayed = self._flights, self._outcomes.replayed if self._outcomes is not None else 0
        return (
            Figure("dedup_led_total", flights.led, "counter", "Calls that others could share."),
            Figure("dedup_joined_total", flights.joined, "counter", "Exchanges that shared the call of another one."),
            Figure("dedup_handed_over_total", flights.handed_over, "counter", "Calls made anew by who waited."),
            Figure("dedup_replayed_total", replayed, "counter", "Outcomes of idempotency keys given again."),
            Figure("dedup_under_way", flights.count, "gauge", "Calls under way that others can share."),
        )


def _is_read(flight: Flight) -> bool:
    return flight.is_repeatable


def _sender(exchange: Exchange) -> Hashable:
    """What decides answers and notifications beyond the request: session, capabilities, how much is logged."""
    client = exchange.client
    if client.session is not None:
        return client.session.id
    level = exchange.request.meta.get(MetaKey.LOG_LEVEL)
    return canonical(client.capabilities) if client.capabilities else b"", level if isinstance(level, str) else None


def _memory(stage: str, max_keys: int) -> Store:
    return MemoryStore(MemoryStore.Config(max_entries=max_keys), Context(id=f"{stage}.outcomes"))
