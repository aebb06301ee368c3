"""
`fallback`: something better than an error while an upstream is not there.

Only while it is *not there*: an upstream that answers "no such tool" or "not allowed" has answered, and hiding that
behind a fallback would hide bugs and refusals. Every makeshift answer says in its `_meta` that it is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, final

from attrs import frozen

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import KIB, Duration, Size, option
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.model.repeating import Repeatables, is_bound
from sluiceway.pipeline.model.when import When
from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.failures import UNSENT, Failure, failure_of, name_of
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Json, Reply, Result

from .kept_answers import KeptAnswers

Outcome = Reply | GatewayError
"""What came of the inner chain."""

PROVENANCE: Final = "io.sluiceway/fallback"
"""Key of `_meta` that says where a makeshift answer comes from, and why there is none of the upstream's."""

_LISTS: Final[Mapping[str, str]] = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
"""Lists -> the member that holds their entries."""


@final
@frozen(kw_only=True)
class Answer:
    """A fixed answer to some requests."""

    when: When = option(doc="The requests meant, as in the guard of a stage.", example={"name": "weather"})
    result: Mapping[str, Any] = option(
        doc="The result they get.", example={"content": [{"type": "text", "text": "not available now"}]}
    )


@final
@middleware("fallback")
class Fallback(Middleware):
    """
    Answer in another way while an upstream is not there. In this order, the first that can:

    * `sink`: ask another sink. A call that may have run is asked there only if it may run twice: reads, tools that
      `reads` lists, and, with `trust_hints`, tools that say so; and never after something was relayed. What takes up
      something that the upstream has given out (a cursor, a task, a `requestState`) is not asked elsewhere.
    * `keep`: the last good answer to the same request of the same caller, from `store`. Only reads are kept.
    * `answers`: a fixed answer; the first entry that matches.
    * `empty_lists`: an empty list, so that one dead upstream does not take the lists of all others with it.

    `on` says which failures count as not being there; errors about the request never do. The answer's `_meta` has
    `io.sluiceway/fallback` with `from`, the `reason`, and, for kept answers, their age. If nothing can, the client gets
    the failure as it is.
    """

    reads_results = False
    role = "fallback"
    replays = True
    order = (
        Order("after", "auth", "error", "answers kept for callers that nobody knows would be given to anybody"),
        Order("before", "cache", "warning", "makeshift answers would be kept in the cache as if they were real"),
        Order("before", "retry", "warning", "a makeshift answer would be given before anything was tried again"),
    )

    @frozen
    class Config:
        """Options of `fallback`."""

        on: tuple[Literal["unreachable", "refused", "lost", "timeout", "error", "garbled"], ...] = option(
            ("unreachable", "lost", "timeout"),
            doc="Failures that count as not being there: it cannot be reached or its circuit is open; a stage behind "
            "this one refuses; it goes away; it takes too long; it answers 500 or -32603; it answers what is not MCP.",
        )
        sink: str | None = option(None, doc="A sink that is asked instead.", example="replica", refers="sink")
        reads: tuple[str, ...] = option((), doc="Tools that only read, as globs.", example=["search_*"])
        trust_hints: bool = option(
            False, doc="Believe the upstream's `readOnlyHint` and `idempotentHint`; fetches its list of tools."
        )
        keep: Duration | None = option(
            None, gt=0, doc="Time for which the last good answers are kept; needs `store`.", example="1h"
        )
        store: str | None = option(None, doc="Where they are kept.", example="answers")
        max_bytes: Size = option(Size(256 * KIB), ge=1, doc="Longer answers are not kept.")
        answers: tuple[Answer, ...] = option(
            (),
            doc="Fixed answers; the first that matches counts.",
            example=[{"when": {"name": "weather"}, "result": {"content": []}}],
        )
        empty_lists: bool = option(False, doc="Answer lists with an empty one.")

        def __attrs_post_init__(self) -> None:
            if (self.keep is None) != (self.store is None):
                raise ValueError("keep and store belong together: give both, or neither")

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._on = frozenset(Failure(name) for name in config.on)
        self._repeatables = Repeatables(config.reads, trust_hints=config.trust_hints)
        self._answers: tuple[tuple[Callable[[Exchange], bool], Mapping[str, Json]], ...] = tuple(
            (answer.when.compile(), answer.result) for answer in config.answers
        )
        self._sink: Service | None = None
        self._kept: KeptAnswers | None = None
        self._given: Counter[str] = Counter()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Find sink and store; hear of tools that change."""
        config, context = self.config, self.context
        self._sink = None if config.sink is None else context.sink(config.sink)
        if config.store is not None:
            store, reads = context.store(config.store), self._repeatables.reads
            self._kept = KeptAnswers(context.id, store, config.keep, config.max_bytes, context.now, reads)
        stop = self._repeatables.listen(context.changes)
        try:
            yield
        finally:
            stop()
            self._sink = self._kept = None

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Ask the inner chain; do what can be done if it is not there."""
        if exchange.kind is not Kind.CALL:
            return await call_next(exchange)
        if self._repeatables.book is not None and self._repeatables.needs_lookup(exchange):
            await self._repeatables.look_up(exchange, call_next)
        keeper = self._kept if self._kept is not None and self._kept.suits(exchange) else None
        if keeper is not None:
            exchange.hold()
        shown = exchange.shown
        outcome: Outcome
        try:
            outcome = await call_next(exchange)
        except GatewayError as error:
            outcome = error.with_traceback(None)  # its frames hold this one: a cycle, for the collector to find
        if isinstance(outcome, Result):
            self._repeatables.learn(exchange, outcome)
            if keeper is not None:
                await keeper.keep(exchange, outcome)
            return outcome
        failure = failure_of(outcome)
        if failure is not None and failure in self._on:
            makeshift = await self._makeshift(exchange, outcome, failure, exchange.shown != shown)
            if makeshift is not None:
                return makeshift
        if isinstance(outcome, GatewayError):
            raise outcome
        return outcome

    async def _makeshift(self, exchange: Exchange, outcome: Outcome, failure: Failure, seen: bool) -> Reply | None:
        """The first answer that can be given instead; None if there is none."""
        allowed = not seen and not is_bound(exchange) and (failure in UNSENT or self._repeatables.covers(exchange))
        if self._sink is not None and allowed:
            other = await _ask(self._sink, exchange)
            if other is not None:
                return self._give(exchange, outcome, other, {"from": "sink", "sink": self.config.sink})
        if self._kept is not None and self._kept.suits(exchange):
            found = await self._kept.find(exchange)
            if found is not None:
                return self._give(exchange, outcome, found[0], {"from": "kept", "age_ms": round(found[1] * 1000)})
        for matches, result in self._answers:
            if matches(exchange):
                return self._give(exchange, outcome, Result(result), {"from": "answer"})
        member = _LISTS.get(exchange.method) if self.config.empty_lists else None
        if member is not None:
            return self._give(exchange, outcome, Result({member: []}), {"from": "empty", "status": "error"})
        return None

    def _give(self, exchange: Exchange, outcome: Outcome, reply: Reply, origin: Mapping[str, Json]) -> Reply:
        """Record a makeshift answer, and say in it what it is."""
        where, reason = str(origin["from"]), name_of(outcome)
        self._given[where] += 1
        exchange.decide(self.context.id, "fallback", f"{where}: {reason}")
        self.context.log.warning("upstream failed, using fallback", method=exchange.method, used=where, error=reason)
        if not isinstance(reply, Result):
            return reply
        value = dict(reply.value)
        meta = value.get("_meta")
        value["_meta"] = {**(meta if isinstance(meta, dict) else {}), PROVENANCE: {**origin, "reason": reason}}
        if where != "sink":
            _as_of_now(exchange, value)
        return Result(value)

    def details(self) -> Mapping[str, Json]:
        """Makeshift answers given, by where they came from."""
        return {"given": dict(self._given)}

    def figures(self) -> Iterable[Figure]:
        """Makeshift answers given, by where they came from."""
        for where, count in self._given.items():
            yield Figure(
                "fallback_answers_total", count, "counter", "Answers given instead of an upstream's.", {"from": where}
            )


async def _ask(sink: Service, exchange: Exchange) -> Reply | None:
    """The other sink's answer, errors about the request included; None if it is not there either."""
    attempt = exchange.fork()
    try:
        reply = await sink(attempt)
    except GatewayError:
        attempt.mute()
        return None
    if failure_of(reply) is not None:
        attempt.mute()
        return None
    return reply


def _as_of_now(exchange: Exchange, value: dict[str, Json]) -> None:
    """What revisions since 2026-07-28 want of a result; and nobody may take it for fresh (server/utilities/caching)."""
    if exchange.client.era is Era.MODERN:
        value.setdefault("resultType", "complete")
        if exchange.request.row.cacheable:
            value.setdefault("cacheScope", "private")
            value["ttlMs"] = 0
