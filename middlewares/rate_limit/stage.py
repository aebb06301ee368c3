"""
`rate_limit`: so many requests per time, for each caller, tenant, tool, address or combination of these.

The arithmetic is in `pipeline/model/gcra.py`: one number a key, no timers. By default the numbers are kept in this
process, and nothing is awaited; with `store` they outlive it, and count for all who share the store.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final, final

import trio
from attrs import define

from sluiceway.pipeline.model.component import Context, Middleware, State, middleware
from sluiceway.pipeline.model.exchange import MAX_DECISIONS, Decision, Exchange, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.gcra import NS_PER_S, Ledger, LedgerFull, Limit, nanoseconds
from sluiceway.pipeline.model.options import render_duration
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.protocol.errors import CapacityExceeded, GatewayError, RateLimited
from sluiceway.pipeline.protocol.mcp import Kind
from sluiceway.pipeline.protocol.messages import Json, Reply

from .fields import Fields
from .keys import bounded, key_of
from .options import RateLimitConfig, limit_of, with_bursts
from .shared import SharedLedger, StoreFailed
from .turnstile import Turnstile, turnstile

_UNCOUNTED: Final = frozenset({"notifications/cancelled", "notifications/initialized"})
"""What ends a request, or a handshake: refusing it would cost more than it saves."""
_NOTIFY: Final = Kind.NOTIFY
_SENDERS: Final = frozenset({"caller", "tenant", "address", "source"})
"""What `per` says of a limit on what somebody may send; any other protects what is behind it."""
_PAUSE_S: Final = 1.0
"""Seconds in which a store that failed is left alone."""


@final
@define(eq=False)
class _Account:
    """One limit with all its keys."""

    limit: Limit
    ledger: Ledger
    fields: Fields
    shared: SharedLedger | None = None
    """While the stage is open, if it has a store."""


@final
@middleware("rate_limit")
class RateLimit(Middleware):
    """
    Admit so many requests per time and key; refuse the rest at once, or let them wait for their turn.

    * A key gets at most `burst + rate x time`, and is never refused what fits into that. Several rates must all admit;
      who is refused by one is charged by none.
    * Notifications count, as requests of the same caller do; a LISTEN exchange counts once, however long it lasts.
      Only `notifications/cancelled` and `notifications/initialized` always pass.
    * `caller` is the tenant and subject of who authenticated. Anonymous callers are told apart by their address, and
      by their session only where there is no address: a session costs nothing to open.
    * What the gateway looks up on its own accord (`tools/list`, for `validate`, `cache`, `retry` and others in front of
      this stage) is charged where upstreams are protected, and never to a caller, tenant, address or source.
    * Who waits has taken its turn already, and is charged even if it is cancelled before.
    * Without `store` the counts are gone after a reload, and are those of one worker.

    Raises:
        RateLimited: With the exact `retry_after_ms`; nothing was charged, nothing was sent upstream.
        CapacityExceeded: `max_keys` keys are in debt, or the store failed and `on_failure` is `closed`.
    """

    reads_results = False
    Config = RateLimitConfig
    role = "rate_limit"
    order = (
        Order(
            "after",
            "auth",
            "error",
            "in front of authentication every caller is anonymous, and has no tenant",
            applies=lambda config: not {"caller", "tenant"}.isdisjoint(config.parts),
        ),
        Order(
            "after",
            "cache",
            "info",
            "what the cache answers will be charged, though whoever is protected by this limit is not asked",
            # how much somebody may send is another question: then hits count, too (requirements D-31)
            applies=lambda config: _SENDERS.isdisjoint(config.parts),
        ),
    )

    @classmethod
    def in_force(cls, config: RateLimitConfig) -> RateLimitConfig:
        """With the bursts that follow from the rates."""
        return with_bursts(config)

    def __init__(self, config: RateLimitConfig, context: Context) -> None:
        super().__init__(config, context)
        self._clock = trio.current_time
        self._per = " and ".join(config.parts)
        self._key = key_of(config.parts, config.trusted_proxies, config.ipv6_prefix)
        self._is_of_senders = not _SENDERS.isdisjoint(config.parts)
        self._weights = tuple((each.when.compile(), each.weight) for each in config.weights)
        self._account = self._make_account(limit_of(config.rate, config.burst), context.id)
        self._overrides: tuple[tuple[Callable[[Exchange], bool], _Account], ...] = tuple(
            (each.when.compile(), self._make_account(limit_of(each.rate, each.burst), f"{context.id}:{number}"))
            for number, each in enumerate(config.overrides, 1)
        )
        self._wait_at_most = config.wait_at_most or 0.0
        is_plain = not (self._weights or self._overrides or self._wait_at_most or config.store)
        self._is_plain = is_plain and len(self._account.limit.windows) == 1
        """Every request is charged alike, at once."""
        self._turnstile = self._make_turnstile()
        self._store_back_at = -math.inf
        """When a store that failed is asked again."""
        self._allow = Decision(context.id, "allow")
        self._allowed = self._refused = self._waited = self._failures = 0

    def _make_account(self, limit: Limit, name: str) -> _Account:
        config: RateLimitConfig = self.config
        return _Account(limit, Ledger(limit, config.max_keys), Fields(config.headers, name, limit))

    def _make_turnstile(self) -> Turnstile:
        account = self._account
        return turnstile(account.limit.windows[0], account.ledger, account.fields, self._key, self._clock)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Find the store, and the clock: asking it directly takes half the time of `trio.current_time`."""
        self._clock = trio.lowlevel.current_clock().current_time
        self._turnstile = self._make_turnstile()
        if self.config.store is not None:
            store = self.context.store(self.config.store)
            for account in self._accounts():
                account.shared = SharedLedger(account.limit, store, account.fields.name)
        try:
            yield
        finally:
            for account in self._accounts():
                account.shared = None

    def __call__(self, exchange: Exchange, call_next: Service) -> Awaitable[Reply]:
        """Charge, then go on."""
        if exchange.own_accord and self._is_of_senders:
            return call_next(exchange)
        if not self._is_plain or exchange.kind is _NOTIFY:
            return self._charge_and_go_on(exchange, call_next)
        try:
            wait_ns = self._turnstile(exchange)
        except LedgerFull as full:
            raise self._full(exchange, full) from None
        if wait_ns:
            raise self._limited(exchange, self._account.limit, wait_ns)
        self._allowed += 1
        decisions = exchange.link.decisions
        if len(decisions) < MAX_DECISIONS:  # what `decide` does, with a decision that is made already
            decisions.append(self._allow)
        return call_next(exchange)

    async def _charge_and_go_on(self, exchange: Exchange, call_next: Service) -> Reply:
        await self._charge_as_chosen(exchange)
        self._allowed += 1
        exchange.decide(self.context.id, "allow")
        return await call_next(exchange)

    async def _charge_as_chosen(self, exchange: Exchange) -> None:
        """Charge where the limit or the weight depends on the exchange, where it may wait, or with a store."""
        account, weight = self._choose(exchange)
        if not weight:
            return
        patience_ns = self._patience_ns(exchange) if self._wait_at_most else 0
        if account.shared is None:
            wait_ns = self._charge(exchange, account, weight, patience_ns)
        else:
            wait_ns = await self._charge_shared(exchange, account, account.shared, weight, patience_ns)
        if wait_ns:
            self._waited += 1
            await trio.sleep(wait_ns / NS_PER_S)

    def _choose(self, exchange: Exchange) -> tuple[_Account, int]:
        """Which limit is meant, and what the exchange weighs."""
        if exchange.request.method in _UNCOUNTED:
            return self._account, 0
        account = next((account for matches, account in self._overrides if matches(exchange)), self._account)
        weight = next((weight for matches, weight in self._weights if matches(exchange)), 1)
        return account, min(weight, account.limit.burst)

    def _patience_ns(self, exchange: Exchange) -> int:
        """How long this exchange may wait: not until its own end."""
        left_s = exchange.deadline - trio.current_time()
        return nanoseconds(min(self._wait_at_most, left_s)) if left_s > 0 else 0  # minus infinity once it is cancelled

    def _charge(self, exchange: Exchange, account: _Account, weight: int, patience_ns: int) -> int:
        """Charge in this process; nanoseconds to wait."""
        now_ns = nanoseconds(self._clock())
        try:
            wait_ns, state = account.ledger.charge(bounded(self._key(exchange)), now_ns, weight, patience_ns)
        except LedgerFull as full:
            raise self._full(exchange, full) from None
        account.fields.write(exchange.reply_headers, state, now_ns)
        if wait_ns > patience_ns:
            raise self._limited(exchange, account.limit, wait_ns)
        return wait_ns

    async def _charge_shared(
        self, exchange: Exchange, account: _Account, shared: SharedLedger, weight: int, patience_ns: int
    ) -> int:
        """Charge in the store; nanoseconds to wait."""
        now_s = trio.current_time()
        if now_s >= self._store_back_at:
            if self._store_back_at != -math.inf:
                self._store_back_at = now_s + _PAUSE_S  # one asks whether it works again, the others do not wait for it
            try:
                wait_ns, state, now_ns = await shared.take(bounded(self._key(exchange)), weight, patience_ns)
            except StoreFailed as error:
                self._leave_alone(error)
            else:
                self._store_works()
                account.fields.write(exchange.reply_headers, state, now_ns)
                if wait_ns > patience_ns:
                    raise self._limited(exchange, account.limit, wait_ns)
                return wait_ns
        if self.config.on_failure == "closed":
            raise self._refusal(exchange, "store", "what was used cannot be read or written now", _PAUSE_S)
        return self._charge(exchange, account, weight, patience_ns)

    def _limited(self, exchange: Exchange, limit: Limit, wait_ns: int) -> RateLimited:
        """What a key hears that has used its rate."""
        self._refused += 1
        wait_s = _whole_ms(wait_ns)
        exchange.decide(self.context.id, "refuse", f"{limit} per {self._per}")
        return RateLimited(
            f"{self.context.id}: rate limit exceeded: {limit} per {self._per}; try again in {render_duration(wait_s)}",
            data={"rate_limit": str(limit), "retry_after_seconds": max(1, math.ceil(wait_s))},
            retry_after_s=wait_s,
        )

    def _full(self, exchange: Exchange, full: LedgerFull) -> GatewayError:
        """What a new key hears when there is no place for it."""
        why = f"max_keys is {self.config.max_keys}, and as many keys ({self._per}) have used some of their rate"
        return self._refusal(exchange, "max_keys", why, _whole_ms(full.relief_ns))

    def _refusal(self, exchange: Exchange, cause: str, why: str, retry_after_s: float) -> GatewayError:
        self._refused += 1
        exchange.decide(self.context.id, "refuse", cause)
        return CapacityExceeded(f"{self.context.id}: {why}; try again later", retry_after_s=retry_after_s)

    def _leave_alone(self, error: StoreFailed) -> None:
        """The store failed: work without it for a while."""
        self._failures += 1
        if self._store_back_at == -math.inf:
            self.context.log.warning("rate limit store failed", store=self.config.store, error=str(error))
            self.context.report(State.DEGRADED, f"store {self.config.store} failed: {error}")
        self._store_back_at = trio.current_time() + _PAUSE_S

    def _store_works(self) -> None:
        if self._store_back_at != -math.inf:
            self._store_back_at = -math.inf
            self.context.report(State.READY, "")

    def _accounts(self) -> Iterable[_Account]:
        return (self._account, *(account for _, account in self._overrides))

    def details(self) -> Mapping[str, Json]:
        """The limit, and the keys in debt."""
        details: dict[str, Json] = {
            "limit": f"{self._account.limit} per {self._per}",
            "keys": sum(len(account.ledger) for account in self._accounts()),
            "refused": self._refused,
        }
        return {**details, "store_failures": self._failures} if self.config.store is not None else details

    def figures(self) -> Iterable[Figure]:
        """What was allowed, refused, made to wait; the keys held; failures of the store."""
        decisions = "Requests that the limit allowed or refused."
        yield Figure("rate_limit_requests_total", self._allowed, "counter", decisions, {"outcome": "allow"})
        yield Figure("rate_limit_requests_total", self._refused, "counter", decisions, {"outcome": "refuse"})
        yield Figure("rate_limit_waits_total", self._waited, "counter", "Requests that waited for their turn.")
        keys = sum(len(account.ledger) for account in self._accounts())
        yield Figure("rate_limit_keys", keys, "gauge", "Keys held in this process.")
        yield Figure("rate_limit_store_failures_total", self._failures, "counter", "Failures of the store.")


def _whole_ms(ns: int) -> float:
    """Seconds, rounded up to milliseconds: who waits for so long is not too early."""
    return -(-ns // 1_000_000) / 1000
