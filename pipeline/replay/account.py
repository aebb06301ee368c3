"""
What became of one exchange, step by step: each stage's decision and time, the line responsible, what sinks said. Pure.

Made from a tape here, or from the spans of a running gateway (`spans_told.py`); shown the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, final

import msgspec
from attrs import asdict, field, frozen

from ..model.document import Document, StageSpec
from ..model.when import When, matcher
from ..protocol.mcp import target_of
from ..protocol.messages import Json
from .assembly import RecordedCall, RecordedExchange, RecordedVisit
from .comparing import caller_name, caller_of_exchange, title_of
from .entries import DecisionData, FailureData, ReplyData

Place = Callable[[str, tuple[str | int, ...]], str]
"""Where an option of a component stands, by the component's path and the option's; `file:line:column`, or nothing."""

_INDEXED: Final = re.compile(r"(\w+)\[(\d+)\]")
_DECIDING: Final = {"rate_limit": "rate", "concurrency_limit": "max_in_flight", "load_shed": "max_in_flight"}
"""The option that a stage refuses by, where its decisions name no rule."""


@final
@frozen(kw_only=True)
class Step:
    """One stage, or one call of a sink."""

    kind: str
    """`stage` or `call`."""
    id: str
    """Component id: `pipelines.main.cache`, `sinks.files`."""
    decisions: tuple[str, ...] = ()
    """What a stage decided, with causes."""
    note: str = ""
    """Why a stage did nothing; what a sink was asked, and how it ended."""
    at_s: float | None = None
    """When it began, in seconds after the exchange did; None if nobody noted that."""
    took_s: float | None = None
    """How long it took, with everything further in; likewise."""
    place: str = ""
    """`file:line:column` of the stage or sink."""
    rule: str = ""
    """The same of the rule that decided, if the decision names one."""
    asked: Json = None
    """The request that a sink got."""
    said: Json = None
    """What came back: reply or failure, and how much before it."""


@final
@frozen(kw_only=True)
class Account:
    """One exchange."""

    title: str
    number: int = 0
    """On the tape; 0 if it is on none."""
    correlation: str = ""
    trace: str = ""
    caller: str = ""
    source: str = ""
    pipeline: str = ""
    at_s: float = 0.0
    """When it began: seconds of the tape."""
    took_s: float | None = None
    clock: str = "of the tape"
    """What the times are: `of the tape`, `virtual`, `real`."""
    steps: tuple[Step, ...] = field(factory=tuple)
    end: str = ""
    """How it ended, in a sentence."""
    reply: Json = None

    def as_json(self) -> dict[str, Json]:
        """For programs."""
        plain: dict[str, Json] = asdict(self)
        return plain


def trace_of(exchange: RecordedExchange) -> str:
    """The trace id that a client sent along, in `_meta` or in a header; empty if it sent none."""
    begun = exchange.begun
    if begun is None:
        return ""
    meta = begun.message.params.get("_meta")
    parents = [meta.get("traceparent")] if isinstance(meta, dict) else []
    parents += [] if begun.client is None else [begun.client.headers.get("traceparent")]
    parts = [each.split("-") for each in parents if isinstance(each, str)]
    return next((each[1] for each in parts if len(each) > 2), "")


def is_meant(exchange: RecordedExchange, what: str) -> bool:
    """Whether an id is this exchange's: its number, its correlation id, its trace id, or that of a call's trace."""
    if what in (str(exchange.number), trace_of(exchange)):
        return True
    if exchange.ended is not None and what == exchange.ended.correlation:
        return True
    return len(what) == 32 and any(what in _traceparent(call) for call in exchange.calls.values())


def _traceparent(call: RecordedCall) -> str:
    meta = None if call.called.message is None else call.called.message.params.get("_meta")
    return str(meta.get("traceparent", "")) if isinstance(meta, dict) else ""


def account_of(exchange: RecordedExchange, document: Document | None, place: Place, *, clock: str) -> Account:
    """
    An exchange on a tape, explained.

    Args:
        exchange: All that the tape says of it.
        document: The configuration; without it, only stages that decided something are told.
        place: Finds lines.
        clock: What the times are.
    """
    begun, ended = exchange.begun, exchange.ended
    return Account(
        number=exchange.number,
        title=title_of(exchange),
        correlation="" if ended is None else ended.correlation,
        trace=trace_of(exchange),
        caller=caller_name(caller_of_exchange(exchange)),
        source="" if begun is None else begun.source,
        pipeline="" if begun is None else begun.pipeline,
        at_s=0.0 if begun is None else begun.t,
        took_s=exchange.took,
        clock=clock,
        steps=tuple(_steps(exchange, document, place)),
        end=_end(exchange),
        reply=None if ended is None else _plain(ended.reply),
    )


def _steps(exchange: RecordedExchange, document: Document | None, place: Place) -> Iterator[Step]:
    left = list(() if exchange.ended is None else exchange.ended.decisions)
    pipeline = None if document is None or exchange.begun is None else document.pipelines.get(exchange.begun.pipeline)
    for stage in () if pipeline is None else pipeline.chain:
        yield _stage(exchange, f"pipelines.{pipeline.id}.{stage.id}" if pipeline else "", stage, left, place)
    told: set[str] = set()
    for call in exchange.calls.values():
        sink = None if document is None else document.sinks.get(call.called.sink)
        if sink is not None and sink.id not in told:
            told.add(sink.id)
            for stage in sink.chain:
                yield _stage(exchange, f"sinks.{sink.id}.{stage.id}", stage, left, place)
        yield _call(exchange, call, "" if sink is None else sink.place)
    for decision in left:  # of routers, of sinks that were not reached, of stages that are not in this configuration
        owner = None if document is None else _owner(document, decision.stage)
        yield Step(kind="stage", id=decision.stage, decisions=(_said(decision),), place=owner or "")


def _stage(exchange: RecordedExchange, id_: str, stage: StageSpec, left: list[DecisionData], place: Place) -> Step:
    mine = [each for each in left if each.stage == id_]
    left[:] = [each for each in left if each.stage != id_]
    visits = [each for each in exchange.visits.values() if each.entered.stage in (id_, stage.id)]
    start = exchange.begun.t if exchange.begun is not None else 0.0
    return Step(
        kind="stage",
        id=id_,
        decisions=tuple(map(_said, mine)),
        note="" if mine else _idle(stage, exchange, visits),
        at_s=visits[0].entered.t - start if visits else None,
        took_s=_stayed(visits),
        place=stage.place,
        rule=rule_place(stage, mine, place),
    )


def _idle(stage: StageSpec, exchange: RecordedExchange, visits: Sequence[RecordedVisit]) -> str:
    """Why a stage decided nothing."""
    if not stage.enabled:
        return "switched off"
    if stage.when is not None and (wanted := _excluded(stage.when, exchange)):
        return f"not for this exchange: its `when` wants {wanted}"
    return "" if visits else "decided nothing"


def _excluded(when: When, exchange: RecordedExchange) -> str:
    """The key of a guard that an exchange does not match; empty if it matches, as far as the tape tells."""
    begun, caller = exchange.begun, caller_of_exchange(exchange)
    if begun is None:
        return ""
    facts = {
        "method": begun.message.method,
        "name": target_of(begun.message.method, begun.message.params),
        "caller": "anonymous" if caller is None else caller.subject,
        "tenant": None if caller is None else caller.tenant,
        "source": begun.source,
    }
    for name, fact in facts.items():
        patterns = getattr(when, name)
        if patterns and (fact is None or not matcher(patterns)(fact)):
            return f"{name} {' or '.join(patterns)}"
    return ""


def rule_place(stage: StageSpec, decisions: Iterable[DecisionData], place: Place) -> str:
    """Where the rule stands that decided: one that a cause names by id or index, or the option that sets a limit."""
    for decision in decisions:
        for name, index in _INDEXED.findall(decision.cause):
            if hasattr(stage.config, name):
                return place(stage.path, (name, int(index)))
        rules: Any = getattr(stage.config, "rules", ())
        for index, rule in enumerate(rules if isinstance(rules, tuple | list) else ()):
            id_ = getattr(rule, "id", None)
            if id_ is not None and (decision.cause == id_ or decision.cause.startswith(f"{id_}:")):
                return place(stage.path, ("rules", index))
        option = _DECIDING.get(stage.cls.name)
        if option is not None:
            return place(stage.path, (option,))
    return ""


def _stayed(visits: Sequence[RecordedVisit]) -> float | None:
    """Seconds in a stage, all its visits together."""
    times = [each.left.t - each.entered.t for each in visits if each.left is not None]
    return sum(times) if times else None


def _call(exchange: RecordedExchange, call: RecordedCall, place: str) -> Step:
    start = exchange.begun.t if exchange.begun is not None else call.called.t
    request = exchange.request_of(call)
    before = [f"{len(call.relayed)} notifications"] if call.relayed else []
    before += [f"{len(call.asked)} questions"] if call.asked else []
    ended = call.ended
    said = "it had not ended" if ended is None else _said_by(ended.reply, ended.failure)
    return Step(
        kind="call",
        id=f"sinks.{call.called.sink}",
        note=f"attempt {call.called.attempt}: {', '.join([*before, said])}",
        at_s=call.called.t - start,
        took_s=call.took,
        place=place,
        asked=_plain(request),
        said=None if ended is None else _plain(ended.reply if ended.reply is not None else ended.failure),
    )


def _said_by(reply: ReplyData | None, failure: FailureData | None) -> str:
    if failure is not None:
        return f"{failure.type}: {failure.message}"
    return "it was cancelled" if reply is None else _reply(reply)


def _reply(reply: ReplyData) -> str:
    if reply.error is not None:
        data = reply.error.data
        reason = data.get("reason") if isinstance(data, dict) else None
        return f"error {reply.error.code}{f' ({reason})' if reason else ''}: {reply.error.message}"
    is_failure = bool(reply.result and reply.result.get("isError"))
    return "a result that says isError" if is_failure else "a result"


def _end(exchange: RecordedExchange) -> str:
    ended = exchange.ended
    if ended is None:
        return "its end is not on the tape"
    if ended.reply is not None:
        return _reply(ended.reply)
    return f"cancelled: {ended.cancelled}" if ended.cancelled else "nothing was to be answered"


def _owner(document: Document, component_id: str) -> str | None:
    """Where a sink is declared that a decision is of."""
    sink = document.sinks.get(component_id.removeprefix("sinks."))
    return None if sink is None else sink.place


def _said(decision: DecisionData) -> str:
    return f"{decision.outcome}: {decision.cause}" if decision.cause else decision.outcome


def _plain(value: Any) -> Json:
    plain: Json = msgspec.to_builtins(value)
    return plain
