"""
`concurrency_limit`: how many exchanges may be inside the inner chain at once.

Places are given first come, first served. Up to `max_in_flight` exchanges run, up to `max_waiting` wait, the next one
is refused at once: a short queue smooths a burst, a long one only makes everybody late.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Final, Literal, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.component import Context, Middleware, Order, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.options import SECOND, Duration, option, render_duration
from sluiceway.pipeline.protocol.errors import CapacityExceeded
from sluiceway.pipeline.protocol.mcp import Kind
from sluiceway.pipeline.protocol.messages import Reply

_KEYS: Final[Mapping[str, Callable[[Exchange], Hashable]]] = {
    "all": lambda exchange: None,
    "caller": lambda exchange: (exchange.caller.tenant, exchange.caller.subject),
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
    * A place is free again when the reply is there or the exchange was cancelled, whatever happens inside.

    Raises:
        CapacityExceeded: No place, with `retry_after_ms`; nothing was sent upstream.
    """

    role = "concurrency_limit"
    order = (
        Order(
            "after", "auth", "warning", "in front of authentication every caller is anonymous, and all share one place"
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

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Take a place, go on, give it back."""
        table = self._listeners if exchange.kind is Kind.LISTEN else self._calls
        if table is None or exchange.kind is Kind.NOTIFY:
            return await call_next(exchange)
        key = self._key(exchange)
        places = table.at(key, self._max_keys)
        if places is None:
            raise self._refusal(f"max_keys is {self._max_keys}: too many different {self.config.per}s are busy")
        try:
            places.acquire_nowait()
        except trio.WouldBlock:
            await self._wait(table, places)
        try:
            return await call_next(exchange)
        finally:
            places.release()
            table.forget_if_idle(key, places)

    async def _wait(self, table: _Places, places: trio.Semaphore) -> None:
        if table.is_crowded(places):
            raise self._refusal(self._full(table))
        with trio.move_on_after(self._wait_at_most) as scope:
            await places.acquire()
        if scope.cancelled_caught:
            raise self._refusal(f"no place became free within {render_duration(self._wait_at_most)}")

    def _full(self, table: _Places) -> str:
        config = self.config
        if table is self._listeners:
            return f"max_listeners is {config.max_listeners}; end a subscription, or raise it"
        return (
            f"max_in_flight is {config.max_in_flight} and max_waiting is {config.max_waiting} per {config.per}; "
            "send less, or raise one"
        )

    def _refusal(self, why: str) -> CapacityExceeded:
        return CapacityExceeded(f"{self.context.id}: {why}", retry_after_s=self.config.retry_after)
