"""
`retry`: try again what failed and may be tried again, without making an outage worse.

*May* it be repeated? What was never sent always may; what was sent only if a second time changes nothing
(`model/repeating.py`, `protocol/failures.py`). *Should* it? Only while there are attempts, budget and time left, and
nothing of the failed attempt has reached the client. The new id of each attempt is the sink's business, and so are the
repetitions the protocol itself asks for (a forgotten session, another revision).
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, cast, final

import trio
from attrs import evolve, frozen

from sluiceway.pipeline.model.budget import Budget
from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import MILLISECOND, Duration, Rate, Ratio, option
from sluiceway.pipeline.model.order import Advice, Order
from sluiceway.pipeline.model.repeating import Repeatables, is_bound, may_repeat_any
from sluiceway.pipeline.model.when import When
from sluiceway.pipeline.protocol.errors import GatewayError, OutcomeUnknown, SessionNotFound, UnsupportedVersion
from sluiceway.pipeline.protocol.failures import UNSENT, Failure, failure_of, name_of, retry_after_of
from sluiceway.pipeline.protocol.mcp import Kind
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Reply, Result

from .backoff import PRESETS, Backoff, Jitter

_NOTIFY: Final = Kind.NOTIFY
_FUNCTION: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
Outcome = Reply | GatewayError
"""What came of an attempt."""
Classifier = Callable[[ErrorReply | GatewayError], bool | None]
"""Says whether a failure is worth another try; None if it does not know. Must not block."""


@final
@frozen
class _Next:
    """An attempt that is to be made."""

    delay_s: float
    service: int
    """0 for the inner chain, n for the n-th sink of `failover`."""


@final
@middleware("retry")
class Retry(Middleware):
    """
    Repeat what failed: reads, what `repeat` lists, and anything that was never sent. Put it into `sinks.<id>.chain`.

    * Never after a notification or a question of the failed attempt has reached the client, and never what takes up an
      earlier request (`inputResponses`, `requestState`), unless it was not sent.
    * `tools/call` may have side effects. It is repeated only if it was not sent, if `repeat` lists the tool, or, with
      `trust_hints`, if the tool says that it is read-only or idempotent. If such a call is lost on the way, its client
      gets `outcome_unknown`.
    * Repetitions cost a budget: `budget` of the successes of the last ten seconds, and `reserve` at any time. When it
      is used up, failures are answered at once: a retry must not make an outage worse.
    * An attempt that could not end before the exchange's deadline is not begun. A longer `Retry-After` than
      `max_delay` is not waited for.
    * With `failover`, the next attempt goes to the next sink of the list, at once and, if nothing was sent, without
      cost, as long as there is one that was not tried. It does not pass the stages between this one and its own sink:
      put those that every attempt must pass (redaction, headers) in front of this stage.
    * After the last attempt the client gets the last error, with the number of `attempts` in its data.
    """

    reads_results = False
    role = "retry"
    replays = True
    order = (
        Order("before", "retry", "warning", "the attempts of two retries on one way multiply; keep the inner one"),
        Order("after", "cache", "error", "a repeated attempt must not be answered by its own first attempt"),
        Order("after", "dedup", "error", "a repeated attempt must not be joined with its own first attempt"),
    )

    @frozen
    class Config:
        """Options of `retry`."""

        preset: Literal["standard", "gentle", "seed-turbomcp", "seed-2025"] = option(
            "standard", doc="A series of delays: the values of the next five options where they are absent."
        )
        max_attempts: int | None = option(
            None, ge=1, le=5, doc="Tries in all, the first included; 3 in the preset `standard`.", example=3
        )
        base_delay: Duration | None = option(
            None, gt=0, doc="Time to wait after the first try; 100ms in `standard`.", example="100ms"
        )
        multiplier: float | None = option(
            None, ge=1, le=10, doc="Each wait is so many times the one before; 2 in `standard`.", example=2.0
        )
        max_delay: Duration | None = option(
            None, gt=0, doc="Longest wait, jitter and `Retry-After` included; 10s in `standard`.", example="2s"
        )
        jitter: Jitter | None = option(
            None,
            doc="`full`: any part of the wait; `slight`: 85% to 115% of it; `none`. `full` in `standard`.",
            example="full",
        )
        on: tuple[Literal["unreachable", "refused", "lost", "timeout", "error", "garbled"], ...] = option(
            ("unreachable", "refused", "lost", "timeout", "error"),
            doc="Failures that are worth another try: the upstream cannot be reached; a stage behind this one refuses; "
            "the upstream goes away, takes too long, answers 5xx or -32603, or answers what is not MCP.",
        )
        codes: tuple[int, ...] = option(
            (), doc="Further error codes of the upstream that mean the same as -32603.", example=[-32000]
        )
        classifier: str | None = option(
            None,
            doc="A function of yours that is given each `ErrorReply` and `GatewayError`, and says whether another try "
            "is worth it: true makes an `error` of it, false is the end, and None leaves it to the options above. What "
            "must not run twice still is not repeated.",
            example="my_company.retrying:is_transient",
        )
        repeat: tuple[str, ...] = option(
            (),
            doc="Tools, and methods other than `tools/call`, that may run twice, as globs; beside reads.",
            example=["search_*"],
        )
        trust_hints: bool = option(
            False, doc="Believe the upstream's `readOnlyHint` and `idempotentHint`; fetches its list of tools."
        )
        budget: Ratio = option(Ratio(0.2), ge=0, doc="Repetitions allowed as a share of recent successes.")
        reserve: Rate = option(Rate(1, 1.0), doc="Repetitions allowed without any success.")
        least_time: Duration = option(
            Duration(50 * MILLISECOND), gt=0, doc="Time an attempt needs at least; with less left it is not begun."
        )
        failover: tuple[str, ...] = option(
            (), doc="Sinks that get the next attempts, in this order.", example=["replica"], refers="sink"
        )

        def __attrs_post_init__(self) -> None:
            if self.classifier is not None and not _FUNCTION.fullmatch(self.classifier):
                raise ValueError(f"classifier: {self.classifier!r:.80} is not module:function")

    @classmethod
    def advise(cls, config: Config, when: When | None, sinks: Sequence[str]) -> Iterable[Advice]:
        """A retry that cannot repeat what it is for, and one for several upstreams."""
        vouched = config.repeat or config.trust_hints or not ({"lost", "timeout", "error", "garbled"} & set(config.on))
        if not vouched and when is not None and not may_repeat_any(when.method):
            yield Advice(
                "retry/not-repeatable", "error", f"is meant for {', '.join(when.method)}, which it may not repeat",
                "it may have side effects: without somebody who vouches for it, only what was never sent is repeated",
                "list tools that may run twice under repeat, or set trust_hints for an upstream you trust, or say "
                "on: [unreachable, refused]",
            )  # fmt: skip
        if len(sinks) > 1:
            yield Advice(
                "order/retry-over-several-sinks", "warning", f"stands in front of several sinks: {', '.join(sinks)}",
                "they share one budget: a bad upstream uses up the repetitions of the others",
                "put it into sinks.<id>.chain of each",
            )  # fmt: skip

    @classmethod
    def in_force(cls, config: Config) -> Config:
        """With the values of the preset."""
        preset = PRESETS[config.preset]
        series: dict[str, Any] = {
            "max_attempts": preset.max_attempts, "base_delay": preset.base_delay_s, "multiplier": preset.multiplier,
            "max_delay": preset.max_delay_s, "jitter": preset.jitter,
        }  # fmt: skip
        absent = {name: value for name, value in series.items() if getattr(config, name) is None}
        return evolve(config, preset="standard", **absent)

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        given = {name: getattr(config, name) for name in ("max_attempts", "multiplier", "jitter")}
        given |= {"base_delay_s": config.base_delay, "max_delay_s": config.max_delay}
        preset = PRESETS[config.preset]
        self._backoff: Backoff = evolve(preset, **{name: value for name, value in given.items() if value is not None})
        self._on = frozenset(Failure(name) for name in config.on)
        self._codes = frozenset(config.codes)
        self._repeatables = Repeatables(config.repeat, trust_hints=config.trust_hints)
        self._learns = self._repeatables.book is not None
        """Whether it keeps what tools say of themselves."""
        self._budget = Budget(config.budget, config.reserve.count / config.reserve.per_s)
        self._least_time_s: float = config.least_time
        self._failover: tuple[Service, ...] = ()
        self._classify: Classifier | None = None
        self._clock = trio.current_time
        self._repeated = 0
        self._recovered = 0
        self._given_up: Counter[str] = Counter()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Find the sinks of `failover`, the classifier, and the clock, which is faster to ask directly; hear of tools that
        change.

        Raises:
            LookupError: The classifier, or a sink, is not there.
        """
        if self.config.classifier is not None:
            self._classify = _function(self.config.classifier)
        self._clock = trio.lowlevel.current_clock().current_time
        self._failover = tuple(self.context.sink(name) for name in self.config.failover)
        stop = self._repeatables.listen(self.context.changes)
        try:
            yield
        finally:
            stop()
            self._failover = ()

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Try once; see what can be done if that fails."""
        if exchange.kind is _NOTIFY:
            return await call_next(exchange)
        learns = self._learns
        if learns and self._repeatables.needs_lookup(exchange):
            await self._repeatables.look_up(exchange, call_next)
        link = exchange.link
        shown = link.relayed + link.asked  # `exchange.shown`, without a call
        outcome: Outcome
        try:
            outcome = await call_next(exchange)
        except GatewayError as error:
            outcome = error.with_traceback(None)  # its frames hold this one: a cycle, for the collector to find
        if type(outcome) is Result:
            self._budget.deposit(self._clock())
            if learns:
                self._repeatables.learn(exchange, outcome)
            return outcome
        if self._failure_of(outcome) is not None:
            return await self._repeat(exchange, call_next, outcome, shown)
        return self._succeed(exchange, outcome)

    def _failure_of(self, outcome: Outcome) -> Failure | None:
        known = isinstance(outcome, ErrorReply) and outcome.code in self._codes
        failure = Failure.ERROR if known else failure_of(outcome)
        if self._classify is None or isinstance(outcome, Result):
            return failure
        match self._classify(outcome):
            case None:
                return failure
            case False:
                return None
        return failure if failure in self._on else Failure.ERROR

    def _succeed(self, exchange: Exchange, outcome: Outcome) -> Reply:
        """An answer, or an error that is nobody's failure: the upstream works."""
        if isinstance(outcome, GatewayError):
            raise outcome
        self._budget.deposit(self._clock())
        if self._learns:
            self._repeatables.learn(exchange, outcome)
        return outcome

    async def _repeat(self, exchange: Exchange, call_next: Service, outcome: Outcome, shown: int) -> Reply:
        """Repeat a first attempt that failed, until one does not, or there is a reason to stop."""
        services = (call_next, *self._failover)
        attempts = 1
        while True:
            failure = self._failure_of(outcome)
            if failure is None:
                self._recovered += 1
                return self._succeed(exchange, outcome)
            coming = self._judge(exchange, failure, outcome, attempts, shown)
            if isinstance(coming, str):
                return self._give_up(exchange, failure, outcome, attempts, coming)
            self._announce(exchange, outcome, attempts, coming)
            await trio.sleep(coming.delay_s)
            attempts += 1
            attempt = exchange.fork(exchange.attempt + attempts - 1)
            before = outcome
            try:
                outcome = await services[coming.service](attempt)
            except GatewayError as error:
                strange = coming.service and isinstance(error, SessionNotFound | UnsupportedVersion)
                # a sink that does not know this client is no reason to lose what another one said
                outcome = before if strange else error.with_traceback(None)
            if self._failure_of(outcome) is not None:
                attempt.mute()

    def _judge(self, exchange: Exchange, failure: Failure, outcome: Outcome, attempts: int, shown: int) -> _Next | str:
        """The next attempt, or in a word why there is none."""
        unsent = failure in UNSENT
        if failure not in self._on:
            return "excluded"
        if not unsent and not self._repeatables.covers(exchange):
            return "not_repeatable"
        if exchange.shown != shown:
            return "shown"
        if attempts >= self._backoff.max_attempts:
            return "attempts"
        others = 0 if is_bound(exchange) else len(self._failover)
        service = attempts % (others + 1)
        fresh = attempts <= others
        delay_s = 0.0 if fresh else self._backoff.delay_s(attempts, self.context.random)
        wanted_s = None if fresh else retry_after_of(outcome)
        if wanted_s is not None:
            if wanted_s > self._backoff.max_delay_s:
                return "retry_after"
            delay_s = max(delay_s, wanted_s)
        now = trio.current_time()
        if exchange.deadline - now <= delay_s + self._least_time_s:
            return "deadline"
        if not (fresh and unsent) and not self._budget.withdraw(now):
            return "budget"
        return _Next(delay_s, service)

    def _announce(self, exchange: Exchange, outcome: Outcome, attempts: int, coming: _Next) -> None:
        """Say that there is another attempt, and where."""
        self._repeated += 1
        what = name_of(outcome)
        word, where = ("failover", self.config.failover[coming.service - 1]) if coming.service else ("repeat", "")
        exchange.decide(self.context.id, word, f"{what} at attempt {attempts}{where and f', to {where}'}")
        self.context.log.warning(
            "attempt failed, trying again",
            method=exchange.method,
            attempt=attempts,
            max_attempts=self._backoff.max_attempts,
            error=what,
            delay_s=round(coming.delay_s, 6),
            **({"sink": where} if where else {}),
        )

    def _give_up(self, exchange: Exchange, failure: Failure, outcome: Outcome, attempts: int, why: str) -> Reply:
        """The last failure, with the number of attempts if there was more than one."""
        self._given_up[why] += 1
        exchange.decide(self.context.id, "give_up", why)
        if attempts > 1:
            self.context.log.warning(
                "all attempts failed", method=exchange.method, attempts=attempts, error=name_of(outcome), why=why
            )
        if isinstance(outcome, ErrorReply):
            data = outcome.data if outcome.data is not None else {}
            known = attempts > 1 and isinstance(data, dict)
            return evolve(outcome, data={**data, "attempts": attempts}) if known else outcome
        assert isinstance(outcome, GatewayError)
        if failure is Failure.LOST and why == "not_repeatable" and _has_effects(exchange):
            raise OutcomeUnknown(
                f"{outcome.message}; {exchange.method} is not repeated, for it may have side effects", data=outcome.data
            ) from outcome
        raise outcome.with_data(attempts=attempts) if attempts > 1 else outcome

    def details(self) -> Mapping[str, Json]:
        """What was repeated, with what success, and what is left of the budget."""
        return {
            "repeated": self._repeated,
            "recovered": self._recovered,
            "given_up": dict(self._given_up),
            "budget": round(self._budget.balance(trio.current_time()), 1),
        }

    def figures(self) -> Iterable[Figure]:
        """Repetitions, recoveries, and why it gave up."""
        yield Figure("retry_repeated_total", self._repeated, "counter", "Attempts beyond the first of their exchange.")
        yield Figure("retry_recovered_total", self._recovered, "counter", "Exchanges that a repetition has saved.")
        for why, count in self._given_up.items():
            yield Figure(
                "retry_given_up_total", count, "counter", "Failures that were not repeated again.", {"why": why}
            )


def _function(path: str) -> Classifier:
    """
    A function by its import path.

    Raises:
        LookupError: There is none.
    """
    module, _, name = path.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise LookupError(f"classifier: {path} cannot be imported: {error}") from error
    if not callable(found):
        raise LookupError(f"classifier: {path} is no function")
    classify: Classifier = cast("Any", found)  # what it takes and gives is its author's word
    return classify


def _has_effects(exchange: Exchange) -> bool:
    return exchange.kind is Kind.CALL and not exchange.request.row.repeatable
