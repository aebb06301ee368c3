"""
`hedge`: ask a second time when the first answer takes unusually long, and take whichever comes first.

It cures the long tail, not the outage: attempts that fail are a matter for `retry`. What it costs is bounded by its
budget; what it may do is what a retry may do: only what may be sent twice, and only while the client has seen nothing.
See "The Tail at Scale" (Dean and Barroso, CACM 56/2, 2013).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, final

import trio
from attrs import define, field, frozen

from sluiceway.pipeline.model.budget import Budget
from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Relay, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import MILLISECOND, Duration, Rate, Ratio, option, render_duration
from sluiceway.pipeline.model.order import Advice, Order
from sluiceway.pipeline.model.repeating import Repeatables, may_repeat_any
from sluiceway.pipeline.model.when import When
from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.failures import failure_of
from sluiceway.pipeline.protocol.mcp import Kind
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply
from sluiceway.pipeline.runtime.nursery import unwrap_single

from .latencies import Latencies

Outcome = Reply | GatewayError
"""What came of an attempt."""

_ANSWERS_QUESTIONS: Final = frozenset({"elicitation", "sampling", "roots"})
"""Capabilities of clients that upstreams may ask; two attempts would ask twice."""


@final
@define(eq=False)
class _Attempt:
    """One of the attempts of a race."""

    exchange: Exchange
    race: _Race
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    outcome: Outcome | None = None


@final
@define(eq=False)
class _Race:
    """The attempts of one exchange. Once one of them leads, no other one is heard."""

    attempts: list[_Attempt] = field(factory=list)
    leader: _Attempt | None = None
    changed: trio.Event = field(factory=trio.Event)

    def lead(self, attempt: _Attempt) -> bool:
        """The attempt wants to be heard: it leads if none does, and the others are told to stop."""
        if self.leader is None:
            self.leader = attempt
            for other in self.attempts:
                if other is not attempt:
                    other.exchange.mute()
                    other.scope.cancel(reason="another attempt answered first")
            self.changed.set()
        return self.leader is attempt

    def finish(self, attempt: _Attempt, outcome: Outcome) -> None:
        """An attempt has ended. A good answer leads; a failure waits for what the others bring."""
        attempt.outcome = outcome
        if failure_of(outcome) is None:
            self.lead(attempt)
        self.changed.set()

    def result(self) -> Outcome | None:
        """What the race has come to: the leader's outcome, or the first one's if all have failed; None if not yet."""
        if self.leader is not None:
            return self.leader.outcome
        if any(attempt.outcome is None for attempt in self.attempts):
            return None
        return self.attempts[0].outcome

    def end(self, stage_id: str) -> None:
        """It is over, and nothing leads from one to the other any more: no cycle is left for the collector."""
        for attempt in self.attempts:
            attempt.exchange.marks.pop(stage_id, None)
        self.attempts.clear()
        self.leader = None


@final
@middleware("hedge")
class Hedge(Middleware):
    """
    Send a read a second time if its answer takes longer than usual; the first good answer wins, the loser is cancelled.

    * How long is usual is measured: `percentile` of the latest answers to the same method and target, or a fixed
      `after`. Without enough samples nothing is sent twice.
    * Only what may be sent twice: reads, what `repeat` lists, and, with `trust_hints`, tools that say so. Never what
      takes up an earlier request, and nothing for a client that the upstream might ask something.
    * As soon as one attempt relays a notification it is the only one: the client never sees two.
    * Second attempts cost a budget, as repetitions of `retry` do. A failed attempt is no reason for another one.
    """

    role = "hedge"
    replays = True
    order = (
        Order("after", "cache", "error", "a second attempt must not be answered by the first one's entry"),
        Order("after", "dedup", "error", "a second attempt would be joined with the first one"),
        Order("before", "hedge", "warning", "the attempts of two hedges on one way multiply"),
    )

    @frozen
    class Config:
        """Options of `hedge`."""

        after: Duration | None = option(
            None, gt=0, doc="Time after which a second attempt begins; measured when absent.", example="300ms"
        )
        percentile: Ratio = option(
            Ratio(0.95), gt=0, doc="Share of the latest answers that came sooner than a second attempt begins."
        )
        min_samples: int = option(20, ge=2, doc="Answers that must have been measured for `percentile` to be used.")
        window: int = option(128, ge=2, le=4096, doc="Latest answers that are looked at, per method and target.")
        least: Duration = option(
            Duration(10 * MILLISECOND), gt=0, doc="A second attempt never begins earlier than this, however fast it is."
        )
        max_attempts: int = option(2, ge=2, le=5, doc="Attempts at the same time, the first included.")
        repeat: tuple[str, ...] = option(
            (),
            doc="Tools, and methods other than `tools/call`, that may run twice, as globs; beside reads.",
            example=["search_*"],
        )
        trust_hints: bool = option(
            False, doc="Believe the upstream's `readOnlyHint` and `idempotentHint`; fetches its list of tools."
        )
        budget: Ratio = option(Ratio(0.05), ge=0, doc="Second attempts allowed as a share of recent answers.")
        reserve: Rate = option(Rate(1, 1.0), doc="Second attempts allowed without any answer.")
        max_keys: int = option(
            256, ge=1, doc="Methods and targets that are measured; above this the one not used for longest goes."
        )

        def __attrs_post_init__(self) -> None:
            if self.min_samples > self.window:
                raise ValueError(f"min_samples is {self.min_samples} but window is {self.window}; raise window")

    @classmethod
    def advise(cls, config: Config, when: When | None, sinks: Sequence[str]) -> Iterable[Advice]:
        """A hedge that may send nothing of what it is for a second time."""
        vouched = config.repeat or config.trust_hints
        if not vouched and when is not None and not may_repeat_any(when.method):
            yield Advice(
                "hedge/not-repeatable", "error", f"is meant for {', '.join(when.method)}, which it may not send twice",
                "it may have side effects", "list tools that may run twice under repeat, or remove the stage",
            )  # fmt: skip

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._repeatables = Repeatables(config.repeat, trust_hints=config.trust_hints)
        self._budget = Budget(config.budget, config.reserve.count / config.reserve.per_s)
        self._latencies: OrderedDict[tuple[str, str | None], Latencies] = OrderedDict()
        self._sent = 0
        self._won = 0
        self._unaffordable = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hear of tools that change."""
        stop = self._repeatables.listen(self.context.changes)
        try:
            yield
        finally:
            stop()

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Measure what may be sent twice; race it if there is something to go by."""
        if exchange.kind is not Kind.CALL:
            return await call_next(exchange)
        if self._repeatables.book is not None and self._repeatables.needs_lookup(exchange):
            await self._repeatables.look_up(exchange, call_next)
        if not self._repeatables.covers(exchange) or _may_be_asked(exchange):
            return await call_next(exchange)
        latencies = self._latencies_of(exchange)
        start = trio.current_time()
        delay_s = self._delay_s(latencies)
        reply = await (call_next(exchange) if delay_s is None else self._race(exchange, call_next, delay_s))
        if failure_of(reply) is None:
            now = trio.current_time()
            self._budget.deposit(now)
            latencies.add(now - start)
            self._repeatables.learn(exchange, reply)
        return reply

    async def relay(self, exchange: Exchange, notification: Notification, forward: Relay) -> None:
        """Let only the attempt be heard that spoke first."""
        attempt = exchange.marks.get(self.context.id)
        if not isinstance(attempt, _Attempt) or attempt.race.lead(attempt):
            await forward(exchange, notification)

    async def _race(self, exchange: Exchange, call_next: Service, delay_s: float) -> Reply:
        race = _Race()
        with unwrap_single():
            async with trio.open_nursery() as nursery:
                self._start(race, exchange, call_next, nursery)
                for _ in range(self.config.max_attempts - 1):
                    if await _settled_within(race, delay_s) or not self._affords(exchange, delay_s):
                        break
                    self._start(race, exchange, call_next, nursery)
                await _settled(race)
                nursery.cancel_scope.cancel(reason="another attempt answered first")
        outcome = race.result()
        assert outcome is not None
        if race.leader is not None and race.leader is not race.attempts[0]:
            self._won += 1
        race.end(self.context.id)
        if isinstance(outcome, GatewayError):
            raise outcome
        return outcome

    def _start(self, race: _Race, exchange: Exchange, call_next: Service, nursery: trio.Nursery) -> None:
        attempt = _Attempt(exchange.fork(exchange.attempt + len(race.attempts)), race)
        attempt.exchange.marks[self.context.id] = attempt
        race.attempts.append(attempt)
        nursery.start_soon(_run, attempt, call_next)

    def _affords(self, exchange: Exchange, delay_s: float) -> bool:
        """Whether there is budget for another attempt; takes it."""
        if not self._budget.withdraw(trio.current_time()):
            self._unaffordable += 1
            exchange.decide(self.context.id, "give_up", "budget")
            return False
        self._sent += 1
        exchange.decide(self.context.id, "hedge", f"no answer within {render_duration(round(delay_s, 6))}")
        return True

    def _delay_s(self, latencies: Latencies) -> float | None:
        config: Hedge.Config = self.config
        if config.after is not None:
            return max(config.after, config.least)
        if len(latencies) < config.min_samples:
            return None
        return max(latencies.quantile(config.percentile), config.least)

    def _latencies_of(self, exchange: Exchange) -> Latencies:
        key = (exchange.method, exchange.target)
        known = self._latencies.get(key)
        if known is None:
            known = self._latencies[key] = Latencies(self.config.window)
            if len(self._latencies) > self.config.max_keys:
                self._latencies.popitem(last=False)
        else:
            self._latencies.move_to_end(key)
        return known

    def details(self) -> Mapping[str, Json]:
        """Second attempts: sent, won, and not afforded; what is measured."""
        return {
            "sent": self._sent,
            "won": self._won,
            "not_afforded": self._unaffordable,
            "measured": len(self._latencies),
        }

    def figures(self) -> Iterable[Figure]:
        """Second attempts: sent, won, and not afforded."""
        return (
            Figure("hedge_sent_total", self._sent, "counter", "Attempts begun because the one before took long."),
            Figure("hedge_won_total", self._won, "counter", "Exchanges that such an attempt has answered."),
            Figure("hedge_not_afforded_total", self._unaffordable, "counter", "Attempts not begun for want of budget."),
        )


async def _run(attempt: _Attempt, call_next: Service) -> None:
    with attempt.scope:
        try:
            outcome: Outcome = await call_next(attempt.exchange)
        except GatewayError as error:
            outcome = error.with_traceback(None)  # its frames hold this one: a cycle, for the collector to find
        attempt.race.finish(attempt, outcome)


async def _settled(race: _Race) -> None:
    """Wait until the race has come to something."""
    while race.result() is None:
        race.changed = trio.Event()
        await race.changed.wait()


async def _settled_within(race: _Race, seconds: float) -> bool:
    """Whether it has within so many seconds, or one attempt leads by having been heard: then there is no other one."""
    with trio.move_on_after(seconds):
        while race.leader is None and race.result() is None:
            race.changed = trio.Event()
            await race.changed.wait()
    return race.leader is not None or race.result() is not None


def _may_be_asked(exchange: Exchange) -> bool:
    """Whether the upstream could put a question to the client in the course of this exchange."""
    return exchange.link.ask is not None and not _ANSWERS_QUESTIONS.isdisjoint(exchange.client.capabilities)
