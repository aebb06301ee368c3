"""
`load_shed`: when there is more to do than can be done, do what matters most, fairly, and refuse the rest at once.

Up to a limit exchanges run, fixed or found out by their latency (`adaptive.py`). Above it they wait, by priority and in
turn between tenants (`queue.py`). What cannot wait is refused before anything was sent upstream: a refusal costs some
microseconds, and the client can repeat it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final, final

import trio

from sluiceway.pipeline.model.component import Context, Middleware, State, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.keys import principal_of
from sluiceway.pipeline.model.options import render_duration
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.protocol.errors import CapacityExceeded, DeadlineExceeded, UpstreamUnavailable
from sluiceway.pipeline.protocol.mcp import Kind
from sluiceway.pipeline.protocol.messages import Json, Reply
from sluiceway.pipeline.runtime.nursery import open_background_nursery

from .adaptive import Aimd
from .memory import resident_bytes
from .options import LoadShedConfig
from .queue import FairQueue, Fate, Priority, Waiter

_LOOK_S: Final = 0.25
"""Seconds between two looks at the memory, as Envoy's overload manager has it."""
_LOW_ABOVE: Final = 0.92
_ALL_ABOVE: Final = 0.95

_CAUSES: Final = ("full", "displaced", "late", "memory")
"""Why something was shed; the words in figures and decisions."""

_TURNS: Final[Mapping[str, Callable[[Exchange], str]]] = {
    "tenant": lambda exchange: exchange.caller.tenant or "",
    "caller": lambda exchange: repr(principal_of(exchange)),
    "source": lambda exchange: exchange.source,
}
"""`per` in YAML -> who takes turns."""


@final
@middleware("load_shed")
class LoadShed(Middleware):
    """
    Run as many exchanges as can be, let some wait, and shed the rest, the least important first.

    * A place goes to the highest priority that waits; within it to each tenant in turn, to several at once if
      `weights` say so; within a tenant to who came first.
    * When the queue is filled to `shed_above`, whoever comes is refused at once. Only those of high priority may fill
      the rest of it. Who comes with a higher priority takes the place of the last one of the lowest; who comes from a
      tenant with few waiting takes that of one with many.
    * With `adaptive` the number that run moves: down when more than a tenth take longer than `target`, else slowly up.
    * With `max_memory` exchanges are refused while the process is about to have more.
    * LISTEN exchanges and notifications pass, uncounted: the one would hold places for hours, the other are cheap.
    * Nothing that was refused was sent upstream: who repeats it loses nothing.

    Raises:
        CapacityExceeded: With `retry_after_ms`.
    """

    reads_results = False
    Config = LoadShedConfig
    role = "load_shed"
    order = (
        Order(
            "after",
            "auth",
            "warning",
            "in front of authentication nobody has a tenant, and all share one turn",
            applies=lambda config: config.per != "source",
        ),
    )

    def __init__(self, config: LoadShedConfig, context: Context) -> None:
        super().__init__(config, context)
        self._turn = _TURNS[config.per]
        self._priorities = tuple((rule.when.compile(), Priority[rule.priority.upper()]) for rule in config.priorities)
        self._weights = tuple((rule.when.compile(), rule.weight) for rule in config.weights)
        self._queue = FairQueue(config.max_waiting, config.threshold)
        adaptive = config.adaptive
        self._aimd = (
            None
            if adaptive is None
            else Aimd(adaptive.min_in_flight, config.max_in_flight, adaptive.target, adaptive.backoff)
        )
        self._limit = config.max_in_flight
        self._in_flight = 0
        self._pressure = 0.0
        """Share of `max_memory` that was in use at the last look."""
        self._allowed = self._waited = 0
        self._shed = Counter({(priority.name.lower(), cause): 0 for priority in Priority for cause in _CAUSES})

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Watch the memory, if there is a bound."""
        if self.config.max_memory is None:
            yield
            return
        async with open_background_nursery() as nursery:
            nursery.start_soon(self._watch_memory, self.config.max_memory)
            yield

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Take a place, go on, give it to the next."""
        if exchange.kind is not Kind.CALL:
            return await call_next(exchange)
        if self._pressure >= _LOW_ABOVE:
            self._check_memory(exchange)
        if self._in_flight < self._limit and not self._queue:
            self._in_flight += 1
        else:
            await self._wait(exchange)
        self._allowed += 1
        exchange.decide(self.context.id, "allow")
        if self._aimd is None:
            try:
                return await call_next(exchange)
            finally:
                self._leave()
        return await self._watched(self._aimd, exchange, call_next)

    async def _watched(self, aimd: Aimd, exchange: Exchange, call_next: Service) -> Reply:
        """Go on, and learn from how long it takes. What fails or is cancelled soon says nothing."""
        started_s = trio.current_time()
        answered = overloaded = False
        try:
            reply = await call_next(exchange)
            answered = True
            return reply
        except (CapacityExceeded, DeadlineExceeded, UpstreamUnavailable):
            overloaded = True
            raise
        finally:
            now_s = trio.current_time()
            if answered or overloaded or now_s - started_s > aimd.target_s:
                aimd.ended(started_s, now_s, self._in_flight, overloaded=overloaded)
                self._limit = aimd.limit
            self._leave()

    async def _wait(self, exchange: Exchange) -> None:
        """Get a place, or be refused."""
        decided = trio.Event()
        waiter = Waiter(self._priority(exchange), self._turn(exchange), decided.set, self._weight(exchange))
        loser = self._queue.offer(waiter)
        if loser is waiter:
            bound = self._queue.bound(waiter.priority)
            running = f"{self._limit} exchanges run and {len(self._queue)} wait"
            raise self._refusal(
                exchange,
                waiter.priority,
                "full",
                f"{running} (at most {bound} of {waiter.priority.name.lower()} priority)",
            )
        if loser is not None:
            loser.decide(Fate.SHED)
        settled = False
        try:
            with trio.move_on_after(self.config.wait_at_most):
                await decided.wait()
            settled = True
        finally:
            if waiter.fate is Fate.WAITING:
                self._queue.discard(waiter)
            elif waiter.fate is Fate.SERVED and not settled:
                self._leave()
        if waiter.fate is Fate.SHED:
            why = "others of higher priority, or with less waiting, came and took the place in the queue"
            raise self._refusal(exchange, waiter.priority, "displaced", why)
        if waiter.fate is Fate.WAITING:
            why = f"no place became free within {render_duration(self.config.wait_at_most)}"
            raise self._refusal(exchange, waiter.priority, "late", why)
        self._waited += 1

    def _leave(self) -> None:
        """One is done: as many as there is room for come in."""
        self._in_flight -= 1
        while self._queue and self._in_flight < self._limit:
            self._in_flight += 1
            self._queue.pop().decide(Fate.SERVED)

    def _priority(self, exchange: Exchange) -> Priority:
        for matches, priority in self._priorities:
            if matches(exchange):
                return priority
        return Priority.NORMAL

    def _weight(self, exchange: Exchange) -> int:
        return next((weight for matches, weight in self._weights if matches(exchange)), 1)

    def _check_memory(self, exchange: Exchange) -> None:
        """Refuse what memory is too short for."""
        priority = self._priority(exchange)
        if self._pressure >= _ALL_ABOVE or priority is Priority.LOW:
            why = f"{self._pressure:.0%} of max_memory is in use"
            raise self._refusal(exchange, priority, "memory", why)

    async def _watch_memory(self, budget: int) -> None:
        while True:
            before, self._pressure = self._pressure, resident_bytes() / budget
            if self._pressure >= _LOW_ABOVE > before:
                self.context.log.warning("memory is short", used=f"{self._pressure:.0%}", max_memory=budget)
                self.context.report(State.DEGRADED, f"{self._pressure:.0%} of max_memory is in use")
            elif before >= _LOW_ABOVE > self._pressure:
                self.context.report(State.READY, "")
            await trio.sleep(_LOOK_S)

    def _refusal(self, exchange: Exchange, priority: Priority, cause: str, why: str) -> CapacityExceeded:
        self._shed[priority.name.lower(), cause] += 1
        exchange.decide(self.context.id, "shed", f"{cause}, {priority.name.lower()} priority")
        return CapacityExceeded(f"{self.context.id}: {why}; try again later", retry_after_s=self.config.retry_after)

    def details(self) -> Mapping[str, Json]:
        """What runs, what waits, and the limit now."""
        return {
            "in_flight": self._in_flight,
            "limit": self._limit,
            "waiting": len(self._queue),
            "shed": self._shed.total(),
        }

    def figures(self) -> Iterable[Figure]:
        """What runs, waits, was allowed and was shed, and why."""
        yield Figure("load_shed_in_flight", self._in_flight, "gauge", "Exchanges that run.")
        yield Figure("load_shed_limit", self._limit, "gauge", "Exchanges that may run.")
        yield Figure("load_shed_waiting", len(self._queue), "gauge", "Exchanges that wait.")
        yield Figure("load_shed_allowed_total", self._allowed, "counter", "Exchanges that ran.")
        yield Figure("load_shed_waits_total", self._waited, "counter", "Exchanges that waited before they ran.")
        for (priority, cause), count in sorted(self._shed.items()):
            labels = {"priority": priority, "cause": cause}
            yield Figure("load_shed_shed_total", count, "counter", "Exchanges that were refused.", labels)
