"""
`circuit_breaker`: stop asking an upstream that fails, and find out by itself when it works again.

The machine is in `breaker.py`; this is the thin shell around it: what counts, who is told, who is refused. There is
no timer: a breaker is half-open as soon as its time is over, whether anybody asks or not, because the state is computed
from the clock when it is looked at.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import ClassVar, Final, Literal, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.component import Context, Middleware, State, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import MINUTE, SECOND, Duration, Ratio, option
from sluiceway.pipeline.model.order import Advice, Order
from sluiceway.pipeline.model.when import When
from sluiceway.pipeline.protocol.errors import CircuitOpen, GatewayError
from sluiceway.pipeline.protocol.failures import blames_upstream, name_of
from sluiceway.pipeline.protocol.mcp import Kind
from sluiceway.pipeline.protocol.messages import Json, Reply, Result

from .breaker import Breaker, Circuit, Pass, Rules

_NOTIFY: Final = Kind.NOTIFY
_LISTEN: Final = Kind.LISTEN
_ALL: Final = ("", "")
"""The key of the one breaker of everything; with `per: target`, of those that found no place."""
_LOOKED_AT: Final = 16
"""Breakers that are looked at to find one to forget."""
_SHOWN: Final = 20
"""Targets that status shows."""


@final
@middleware("circuit_breaker")
class CircuitBreaker(Middleware):
    """
    Refuse calls while an upstream fails. Put it into `sinks.<id>.chain`, inside `retry`: one breaker per upstream.

    * It opens after `failures` in a row, or when `failure_rate` of at least `min_calls` calls within `window` failed.
    * What counts: the upstream cannot be reached, closes, breaks MCP, answers 5xx or -32603, or lets a deadline pass.
      What does not: a tool that fails (`isError`), errors about the request, 401, 403 and 429, refusals of stages, and
      calls that their client cancelled.
    * After `open_for` it is half-open: `probes` calls at once may pass, the others are refused. `successes` of them
      close it, one failure opens it again, for longer each time.
    * LISTEN exchanges are refused while it is not closed, and never are probes: they would keep a place for hours.
      Notifications pass: nobody waits for an answer.

    Raises:
        CircuitOpen: With `retry_after_ms`; the upstream was not touched.
    """

    reads_results = False
    role = "circuit_breaker"
    order = (
        Order("after", "retry", "warning", "each attempt of a retry should ask the breaker, and feed it"),
        Order("after", "cache", "info", "answers from a cache would be refused while the upstream is down"),
        Order("after", "fallback", "warning", "a refusal of the breaker could not be answered by the fallback"),
    )
    actions: ClassVar[Mapping[str, str]] = {
        "open": "Refuse every call until it is closed by hand.",
        "close": "Let calls pass again, wherever it is not closed.",
        "reset": "Let calls pass again, and forget every failure and target.",
    }

    @frozen
    class Config:
        """Options of `circuit_breaker`."""

        failures: int = option(5, ge=1, doc="Failures in a row that open it.")
        failure_rate: Ratio = option(
            Ratio(0.5), ge=0, doc="Share of failures within `window` that opens it, too; 0% for never."
        )
        min_calls: int = option(20, ge=1, doc="Calls within `window` below which their share of failures says nothing.")
        window: Duration = option(Duration(10 * SECOND), gt=0, doc="How far back calls are looked at for the share.")
        open_for: Duration = option(
            Duration(30 * SECOND),
            gt=0,
            doc="Time it stays open; twice that when it opens a second time without having closed, and so on.",
        )
        open_for_max: Duration = option(
            Duration(5 * MINUTE), gt=0, doc="Longest time it stays open, however often a probe has failed."
        )
        jitter: Ratio = option(
            Ratio(0.1), ge=0, doc="Share by which a time may be longer, so that several gateways do not probe at once."
        )
        probes: int = option(3, ge=1, doc="Calls that may be inside at once while it is half-open.")
        successes: int = option(2, ge=1, doc="Probes that must succeed for it to close; at most `probes`.")
        probe_timeout: Duration = option(
            Duration(30 * SECOND),
            gt=0,
            doc="Time after which a probe without an answer gives its place to another one.",
        )
        per: Literal["all", "target"] = option(
            "all", doc="One breaker for everything behind it, or one for each tool, prompt or resource."
        )
        max_keys: int = option(
            1000, ge=1, doc="Breakers with `per: target`; above this the closed one that was not used for longest goes."
        )

        def __attrs_post_init__(self) -> None:
            if self.successes > self.probes:
                raise ValueError(
                    f"successes is {self.successes} but probes is {self.probes}: raise probes, or lower successes"
                )
            if self.open_for_max < self.open_for:
                raise ValueError("open_for_max is shorter than open_for; raise it")

    @classmethod
    def advise(cls, config: Config, when: When | None, sinks: Sequence[str]) -> Iterable[Advice]:
        """One breaker for several upstreams."""
        if len(sinks) > 1 and config.per == "all":
            yield Advice(
                "order/circuit_breaker-over-several-sinks", "warning",
                f"stands in front of several sinks: {', '.join(sinks)}",
                "one bad upstream would open the circuit for all", "put it into sinks.<id>.chain of each",
            )  # fmt: skip

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._rules = Rules(
            failures=config.failures,
            failure_rate=config.failure_rate,
            min_calls=config.min_calls,
            window_s=config.window,
            open_for_s=config.open_for,
            open_for_max_s=config.open_for_max,
            jitter=config.jitter,
            probes=config.probes,
            successes=config.successes,
            probe_timeout_s=config.probe_timeout,
        )
        self._by_target = config.per == "target"
        self._breakers: OrderedDict[tuple[str, str], Breaker] = OrderedDict()
        self._not_closed: dict[tuple[str, str], None] = {}
        self._only = self._make(_ALL)
        self._forced = False
        self._refused = 0
        self._opened = 0
        self._clock = trio.current_time

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Find the clock: asking it directly takes half the time of `trio.current_time`."""
        self._clock = trio.lowlevel.current_clock().current_time
        yield

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Ask the breaker, go on, tell it what came of it."""
        kind = exchange.kind
        if kind is _NOTIFY:
            return await call_next(exchange)
        breaker = self._breaker_of(exchange) if self._by_target else self._only
        leave = breaker.free or self._enter(breaker, exchange)
        told = False
        try:
            reply = await call_next(exchange)
            told = True
            if type(reply) is not Result and blames_upstream(reply):
                self._fail(breaker, leave, exchange, name_of(reply))
            elif kind is not _LISTEN:
                breaker.succeeded(leave, self._clock())
            return reply
        except GatewayError as error:
            told = True
            if blames_upstream(error):
                self._fail(breaker, leave, exchange, error.reason)
            else:
                breaker.dropped(leave)
            raise
        finally:
            if not told:
                self._abandon(breaker, leave, exchange)

    def _enter(self, breaker: Breaker, exchange: Exchange) -> Pass:
        """A pass of a breaker that is not closed, or the refusal."""
        now = trio.current_time()
        leave = breaker.enter(now) if exchange.kind is not _LISTEN else None
        if leave is not None:
            exchange.decide(self.context.id, "probe")
            return leave
        wait_s = breaker.retry_after_s(now)
        state = breaker.state
        self._refused += 1
        exchange.decide(self.context.id, "refuse", state.value)
        if breaker.forced:
            raise CircuitOpen(f"{self.context.id}: an operator has opened it; it stays so until it is closed")
        if state is Circuit.OPEN:
            why = "the upstream has failed too often lately; it is asked again later"
        else:
            why = f"the upstream is being tried again with at most {self.config.probes} calls at once"
        raise CircuitOpen(f"{self.context.id}: {why}", retry_after_s=wait_s)

    def _fail(self, breaker: Breaker, leave: Pass, exchange: Exchange, what: str) -> None:
        opened = self._opened
        breaker.failed(leave, trio.current_time())
        if self._opened != opened:
            exchange.decide(self.context.id, "open", what)

    def _abandon(self, breaker: Breaker, leave: Pass, exchange: Exchange) -> None:
        """
        Neither an answer nor an error of ours: cancelled, or a bug. A deadline is the upstream's fault, a client that
        left is not. Trio records in the exception what was cancelled and why; nothing is caught here.
        """
        if _is_deadline(sys.exc_info()[1]):
            self._fail(breaker, leave, exchange, "deadline")
        else:
            breaker.dropped(leave)

    def _breaker_of(self, exchange: Exchange) -> Breaker:
        """The breaker of an exchange's target; the common one if there are too many."""
        key = (exchange.method, exchange.target or "")
        breakers = self._breakers
        breaker = breakers.get(key)
        if breaker is not None:
            breakers.move_to_end(key)
            return breaker
        if len(breakers) >= self.config.max_keys and not self._forget_one():
            return self._only
        breaker = breakers[key] = self._make(key)
        if self._forced:
            breaker.force(Circuit.OPEN, trio.current_time())
        return breaker

    def _forget_one(self) -> bool:
        """Make room among those not used for longest; one that is not closed knows something and stays."""
        for key in tuple(islice(self._breakers, _LOOKED_AT)):
            if self._breakers[key].state is Circuit.CLOSED:
                del self._breakers[key]
                return True
        return False

    def _make(self, key: tuple[str, str]) -> Breaker:
        def watch(state: Circuit, why: str, seconds: float) -> None:
            if key is _ALL or self._breakers.get(key) is breaker:  # a forgotten one may still hear of old calls
                self._changed(key, state, why, seconds)

        breaker = Breaker(self._rules, self.context.random, watch)
        return breaker

    def _changed(self, key: tuple[str, str], state: Circuit, why: str, seconds: float) -> None:
        """A breaker changed its state: log it, and tell the supervisor."""
        log = self.context.log
        target = {} if key is _ALL else {"method": key[0], "target": key[1][:200]}
        if state is Circuit.OPEN:
            self._opened += 1
            self._not_closed[key] = None
            log.warning("circuit breaker opened", why=why, seconds=round(seconds, 3), **target)
        elif state is Circuit.HALF_OPEN:
            log.info("circuit breaker half-open", why=why, **target)
        else:
            self._not_closed.pop(key, None)
            log.info("circuit breaker closed", why=why, **target)
        if not self._not_closed:
            self.context.report(State.READY, "")
        elif state is Circuit.OPEN:
            self.context.report(State.DEGRADED, f"circuit open: {why}")

    def details(self) -> Mapping[str, Json]:
        """State, failures in a row, and until when; with `per: target` those that are not closed."""
        now = trio.current_time()
        if not self._by_target:
            return {**_describe(self._only, now), "refused": self._refused, "opened": self._opened}
        shown = {
            " ".join(key).strip() or "others": _describe(self._all(key), now)
            for key in islice(self._not_closed, _SHOWN)
        }  # fmt: skip
        return {"targets": len(self._breakers), "not_closed": shown, "refused": self._refused, "opened": self._opened}

    def figures(self) -> Iterable[Figure]:
        """Breakers that are not closed, how often one opened, and what was refused."""
        return (
            Figure("circuit_not_closed", len(self._not_closed), "gauge", "Breakers that are open or half-open."),
            Figure("circuit_opened_total", self._opened, "counter", "How often a breaker opened."),
            Figure("circuit_refused_total", self._refused, "counter", "Exchanges refused by an open breaker."),
        )

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """Open, close or reset, for all targets."""
        if action not in self.actions:
            return await super().act(action, arguments)
        if arguments:
            raise ValueError(f"{action} takes no arguments")
        await trio.lowlevel.checkpoint()
        self._forced = action == "open"
        state = Circuit.OPEN if self._forced else Circuit.CLOSED
        for breaker in (self._only, *self._breakers.values()):
            if breaker.state is not state or breaker.forced != self._forced or action == "reset":
                breaker.force(state, trio.current_time())
        if action == "reset" and self._by_target:
            self._breakers.clear()
        return dict(self.details())

    def _all(self, key: tuple[str, str]) -> Breaker:
        return self._only if key is _ALL else self._breakers[key]


def _describe(breaker: Breaker, now: float) -> dict[str, Json]:
    state = breaker.look(now)
    described: dict[str, Json] = {"state": state.value, "failures_in_a_row": breaker.consecutive}
    if state is Circuit.OPEN and not breaker.forced:
        described["retry_after_ms"] = round((breaker.until - now) * 1000)
    if breaker.forced:
        described["forced"] = True
    return described


def _is_deadline(error: BaseException | None) -> bool:
    """Whether a cancellation is that of a deadline: the engine's, or that of a scope around."""
    if isinstance(error, BaseExceptionGroup):
        return any(_is_deadline(each) for each in error.exceptions)
    return isinstance(error, trio.Cancelled) and "deadline" in (error.source, error.reason)
