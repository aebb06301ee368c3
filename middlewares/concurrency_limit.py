"""
`concurrency_limit`: how many exchanges may be inside the inner chain at once.

Places are given first come, first served. Up to `max_in_flight` exchanges run, up to `max_waiting` wait, the next one
is refused at once: a short queue smooths a burst, a long one only makes everybody late.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Final, Literal, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.keys import principal_of
from sluiceway.pipeline.model.options import SECOND, Duration, option, render_duration
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.protocol.errors import CapacityExceeded
from sluiceway.pipeline.protocol.mcp import Kind
from sluiceway.pipeline.protocol.messages import Json, Reply

_KEYS: Final[Mapping[str, Callable[[Exchange], Hashable]]] = {
    "all": lambda exchange: None,
    "caller": principal_of,
    "tenant": lambda exchange: exchange.caller.tenant,
    "method": lambda exchange: exchange.method,
    "target": lambda exchange: (exchange.method, exchange.target),
}
"""`per` in YAML -> what is counted together."""


@final
class _Places:
    """The places of one kind of exchange, by key. A key exists only while somebody is inside or waits for it."""

    def __init__(self, limit: int, max_waiting: int) -> None:
        self._limit = limit
        self._max_waiting = max_waiting
        self._by_key: dict[Hashable, trio.Semaphore] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def taken(self) -> int:
        """Places taken, of all keys."""
        return sum(self._limit - places.value for places in self._by_key.values())

    @property
    def waiting(self) -> int:
        """Exchanges that wait, for all keys."""
        return sum(places.statistics().tasks_waiting for places in self._by_key.values())

    def at(self, key: Hashable, max_keys: int) -> trio.Semaphore | None:
        """The places of one key, or None if this would be one key too many."""
        places = self._by_key.get(key)
        if places is None and len(self._by_key) < max_keys:
            places = self._by_key[key] = trio.Semaphore(self._limit, max_value=self._limit)
        return places

    def is_crowded(self, places: trio.Semaphore) -> bool:
        """Whether nobody else may wait."""
        return places.statistics().tasks_waiting >= self._max_waiting

    def forget_if_idle(self, key: Hashable, places: trio.Semaphore) -> None:
        """Drop a key that nobody uses: all places are free, so nobody waits either."""
        if places.value == self._limit:
            self._by_key.pop(key, None)


@final
@middleware("concurrency_limit")
class ConcurrencyLimit(Middleware):
    """
    Bound how many exchanges are inside the inner chain at once, in all or per caller, tenant, method or target.

    * First come, first served, per key. Who arrives while others wait does not overtake them.
    * LISTEN exchanges stay for hours and would eat the places of requests, so they have `max_listeners` places of
      their own, and never wait; without `max_listeners` they are not limited.
    * Notifications pass: a `notifications/cancelled` must not queue behind the call it is meant to end.
    * A place is free again when the reply is there or the exchange was cancelled, whatever happens inside. Who waits
      and is cancelled, by its client or at its deadline, leaves the queue at once.
    * For priorities, turns between tenants, or a limit that follows the load, use `load_shed`.

    Raises:
        CapacityExceeded: No place, with `retry_after_ms`; nothing was sent upstream.
    """

    reads_results = False
    role = "concurrency_limit"
    order = (
        Order(
            "after",
            "auth",
            "warning",
            "in front of authentication every caller is anonymous, and has no tenant",
            applies=lambda config: config.per in ("caller", "tenant"),
        ),
    )

    @frozen
    class Config:
        """Options of `concurrency_limit`."""

        max_in_flight: int = option(64, ge=1, doc="Exchanges inside at the same time, per key.")
        max_waiting: int = option(0, ge=0, doc="Exchanges that may wait, per key; above this they are refused.")
        wait_at_most: Duration = option(
            Duration(1 * SECOND), gt=0, doc="Time an exchange may wait for a place before it is refused."
        )
        max_listeners: int | None = option(
            None, ge=1, doc="LISTEN exchanges at the same time, per key; not limited when absent.", example=16
        )
        per: Literal["all", "caller", "tenant", "method", "target"] = option(
            "all", doc="What is counted together: everything, or each caller, tenant, method, or method and target."
        )
        max_keys: int = option(
            10_000, ge=1, doc="Keys with exchanges inside or waiting at the same time; a new one above this is refused."
        )
        retry_after: Duration = option(
            Duration(1 * SECOND), gt=0, doc="What refused clients are told to wait before they try again."
        )

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._key = _KEYS[config.per]
        self._max_keys = config.max_keys
        self._wait_at_most = config.wait_at_most
        self._calls = _Places(config.max_in_flight, config.max_waiting)
        self._listeners = None if config.max_listeners is None else _Places(config.max_listeners, 0)
        self._allowed = self._waited = self._refused = 0

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Take a place, go on, give it back."""
        table = self._listeners if exchange.kind is Kind.LISTEN else self._calls
        if table is None or exchange.kind is Kind.NOTIFY:
            return await call_next(exchange)
        key = self._key(exchange)
        places = table.at(key, self._max_keys)
        if places is None:
            why = f"max_keys is {self._max_keys}: too many different {self.config.per}s are busy"
            raise self._refusal(exchange, "max_keys", why)
        try:
            places.acquire_nowait()
        except trio.WouldBlock:
            await self._wait(exchange, table, places)
        try:
            self._allowed += 1
            exchange.decide(self.context.id, "allow")
            return await call_next(exchange)
        finally:
            places.release()
            table.forget_if_idle(key, places)

    async def _wait(self, exchange: Exchange, table: _Places, places: trio.Semaphore) -> None:
        if table.is_crowded(places):
            raise self._refusal(exchange, "full", self._full(table))
        with trio.move_on_after(self._wait_at_most) as scope:
            await places.acquire()
        if scope.cancelled_caught:
            why = f"no place became free within {render_duration(self._wait_at_most)}"
            raise self._refusal(exchange, "wait_at_most", why)
        self._waited += 1

    def _full(self, table: _Places) -> str:
        config = self.config
        if table is self._listeners:
            return f"max_listeners is {config.max_listeners}; end a subscription, or raise it"
        return (
            f"max_in_flight is {config.max_in_flight} and max_waiting is {config.max_waiting} per {config.per}; "
            "send less, or raise one"
        )

    def _refusal(self, exchange: Exchange, cause: str, why: str) -> CapacityExceeded:
        self._refused += 1
        exchange.decide(self.context.id, "refuse", cause)
        return CapacityExceeded(f"{self.context.id}: {why}", retry_after_s=self.config.retry_after)

    def details(self) -> Mapping[str, Json]:
        """Exchanges inside and waiting."""
        return {
            "in_flight": self._calls.taken,
            "waiting": self._calls.waiting,
            "listeners": 0 if self._listeners is None else self._listeners.taken,
            "refused": self._refused,
        }

    def figures(self) -> Iterable[Figure]:
        """Places taken, waiters, and what was decided."""
        listeners = 0 if self._listeners is None else self._listeners.taken
        decisions = "Exchanges that got a place or were refused."
        yield Figure("concurrency_limit_in_flight", self._calls.taken, "gauge", "Exchanges inside.")
        yield Figure("concurrency_limit_listeners", listeners, "gauge", "LISTEN exchanges inside, if they are limited.")
        yield Figure("concurrency_limit_waiting", self._calls.waiting, "gauge", "Exchanges that wait.")
        yield Figure("concurrency_limit_exchanges_total", self._allowed, "counter", decisions, {"outcome": "allow"})
        yield Figure("concurrency_limit_exchanges_total", self._refused, "counter", decisions, {"outcome": "refuse"})
        yield Figure("concurrency_limit_waits_total", self._waited, "counter", "Exchanges that waited for a place.")
