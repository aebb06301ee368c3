"""
What a replay made differently: exchange by exchange, as they come. Pure.

Compared are replies, what was relayed and asked, decisions, reply headers, and what reached which sink; times are not,
for a gateway of the real world takes some. Decisions of stages that were stood in for are left out, and so are ids if
the configuration is another one than that of the tape.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from difflib import SequenceMatcher
from typing import Any, Final, final

import msgspec
from attrs import frozen

from ..protocol.mcp import target_of
from ..protocol.messages import Json
from .assembly import Assembly, RecordedExchange
from .entries import CallerData, DecisionData, Entry, ReplyData
from .matching import MISSING, Ignoring, Place, differences
from .tokens import PLACES

MAX_KEPT: Final = 200
"""Exchanges whose differences are kept; after that they are counted."""

_LONG: Final = 1000
"""Rows of two lists together, above which they are compared by position: to align them takes the square of that."""

_IDS: Final = ("correlation", "reply.error.data.incident", "headers.x-request-id", "headers.x-correlation-id")
"""Where ids stand that every run makes anew."""

_TIMES: Final = (
    "headers.ratelimit",
    "headers.retry-after",
    "reply.error.data.retry_after_ms",
    "reply.error.data.retry_after_seconds",
)
"""Where it stands how long to wait: a real gateway takes its time until it says so, a virtual one none."""
_WAIT: Final = re.compile(r"try again in [0-9.]+ ?[a-z]+")
"""The same in the text of an error."""


@final
@frozen
class Changed:
    """An exchange that went differently."""

    number: int
    t: float
    """When it began, in seconds of the tape."""
    title: str
    """Method and target."""
    caller: str
    """Subject and tenant; empty if nobody knows."""
    places: tuple[Place, ...]


@final
class Comparison:
    """
    Compares two tapes of the same clients while they are read.

    Args:
        apart: Component ids of stages whose decisions do not count.
        ids: Whether ids count.
        ignored: Globs of paths that do not count: `reply.result.content.*`, `calls.*.request.params.arguments.now`.
    """

    def __init__(self, *, apart: Collection[str] = (), ids: bool = True, ignored: Collection[str] = ()) -> None:
        self.compared = 0
        """Exchanges that both have."""
        self.partial = 0
        """Exchanges of which the tape has only a part; they are not compared."""
        self.changed: list[Changed] = []
        """Those that went differently; the first `MAX_KEPT`."""
        self.count = 0
        """How many went differently."""
        self.kinds: Counter[tuple[str, str]] = Counter()
        """What was decided, and what instead, with how often; the first `MAX_KEPT` kinds."""
        self._apart = frozenset(apart)
        self._ignoring = Ignoring((*ignored, *PLACES, *_TIMES, *(() if ids else _IDS)))
        self._then, self._now = Assembly(), Assembly()
        self._waiting: tuple[dict[int, deque[RecordedExchange]], dict[int, deque[RecordedExchange]]] = ({}, {})
        """What one side has ended and the other has not: as much as is ahead or under way."""

    def hear(self, entry: Entry) -> None:
        """Take an entry of the tape."""
        exchange = self._then.add(entry)
        if exchange is not None:
            self._pair(exchange, 0)

    def see(self, entry: Entry) -> None:
        """Take an entry of the replay."""
        exchange = self._now.add(entry)
        if exchange is not None:
            self._pair(exchange, 1)

    def finish(self) -> None:
        """Nothing more comes: what has no counterpart, or did not end, is compared as it is."""
        for side, assembly in enumerate((self._then, self._now)):
            for exchange in assembly.rest():
                self._pair(exchange, side)
        for number in sorted({*self._waiting[0], *self._waiting[1]}):
            then, now = (list(side.get(number, ())) for side in self._waiting)
            for index in range(max(len(then), len(now))):
                self._compare(_at(then, index), _at(now, index))
        self.changed.sort(key=lambda each: each.number)

    def _pair(self, exchange: RecordedExchange, side: int) -> None:
        others = self._waiting[1 - side].get(exchange.number)
        if not others:
            self._waiting[side].setdefault(exchange.number, deque()).append(exchange)
            return
        other = others.popleft()
        if not others:
            del self._waiting[1 - side][exchange.number]
        self._compare(*((exchange, other) if side == 0 else (other, exchange)))

    def _compare(self, then: RecordedExchange | None, now: RecordedExchange | None) -> None:
        if then is not None and not _is_comparable(then):
            self.partial += 1
            return
        if then is not None and now is not None:
            self.compared += 1
        places = tuple(self._places(then, now))
        if not places:
            return
        self.count += 1
        for place in places:
            kind = (str(place.before), str(place.after))
            if place.path == "decisions" and (kind in self.kinds or len(self.kinds) < MAX_KEPT):
                self.kinds[kind] += 1
        known = then or now
        if known is not None and len(self.changed) < MAX_KEPT:
            self.changed.append(_changed(known, places))

    def _places(self, then: RecordedExchange | None, now: RecordedExchange | None) -> Iterator[Place]:
        if then is None or now is None:
            yield Place("exchange", _whether(then), _whether(now))
            return
        before, after = self._facts(then), self._facts(now)
        for key, value in before.items():
            if key in ("decisions", "relayed", "asked"):
                yield from _rows(key, value, after[key], self._ignoring)
            else:
                yield from differences(value, after[key], key, self._ignoring)

    def _facts(self, exchange: RecordedExchange) -> dict[str, Any]:
        """What is compared of an exchange."""
        ended, calls = exchange.ended, exchange.calls.values()
        return {
            "cancelled": "" if ended is None else ended.cancelled,
            "reply": _reply(None if ended is None else ended.reply),
            "decisions": [_decision(each) for each in ended.decisions if each.stage not in self._apart]
            if ended is not None
            else [],
            "relayed": [_plain(each.message) for each in exchange.relayed],
            "asked": [_plain(each.message) for each in exchange.asked],
            "calls": [{"sink": each.called.sink, "request": _plain(exchange.request_of(each))} for each in calls],
            "headers": {} if ended is None else ended.headers,
            "correlation": "" if ended is None else ended.correlation,
        }


def _rows(key: str, before: list[Any], after: list[Any], ignoring: Ignoring) -> Iterator[Place]:
    """What was taken out of a list, and what was put in: in a list, one thing more must not change all behind it."""
    if not any(differences(before, after, key, ignoring)):
        return
    if len(before) + len(after) > _LONG:
        yield from differences(before, after, key, ignoring)
        return
    texts = [[msgspec.json.encode(each, order="deterministic") for each in side] for side in (before, after)]
    for tag, i, j, k, m in SequenceMatcher(None, texts[0], texts[1], autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        gone, come = before[i:j], after[k:m]
        for index in range(max(len(gone), len(come))):
            pair = _at(gone, index, MISSING), _at(come, index, MISSING)
            if pair[0] is MISSING or pair[1] is MISSING or isinstance(pair[0], str):
                if not ignoring(key):
                    yield Place(key, *pair)
            else:
                yield from differences(*pair, f"{key}.{i + index}", ignoring)


def _is_comparable(exchange: RecordedExchange) -> bool:
    """Whether the tape has both ends of an exchange; one that a component began by itself has no end of its own."""
    return exchange.begun is not None and (exchange.ended is not None or not exchange.begun.source)


def _at(values: list[Any], index: int, missing: Any = None) -> Any:
    return values[index] if index < len(values) else missing


def _plain(value: Any) -> Json:
    plain: Json = msgspec.to_builtins(value)
    return plain


def _reply(reply: ReplyData | None) -> Json:
    plain = _plain(reply)
    if reply is not None and reply.error is not None and _is_ours(reply.error.data):
        plain["error"]["message"] = _WAIT.sub("try again later", reply.error.message)
    return plain


def _is_ours(data: Json) -> bool:
    return isinstance(data, dict) and data.get("origin") == "gateway"


def _decision(decision: DecisionData) -> str:
    return f"{decision.stage}: {decision.outcome}{f' ({decision.cause})' if decision.cause else ''}"


def _whether(exchange: RecordedExchange | None) -> str:
    return MISSING if exchange is None else "there"


def _changed(exchange: RecordedExchange, places: tuple[Place, ...]) -> Changed:
    begun = exchange.begun
    t = begun.t if begun is not None else exchange.entries[0].t
    return Changed(exchange.number, t, title_of(exchange), caller_name(caller_of_exchange(exchange)), places)


def title_of(exchange: RecordedExchange) -> str:
    """Method and target of an exchange."""
    if exchange.begun is None:
        return "(its beginning is missing)"
    message = exchange.begun.message
    return f"{message.method} {target_of(message.method, message.params) or ''}".rstrip()


def caller_of_exchange(exchange: RecordedExchange) -> CallerData | None:
    """Who an exchange was of, as far as anybody found out."""
    callers: Iterable[CallerData | None] = (
        None if exchange.ended is None else exchange.ended.caller,
        *(call.called.caller for call in exchange.calls.values()),
        None if exchange.begun is None else exchange.begun.caller,
    )
    return next((each for each in callers if each is not None), None)


def caller_name(caller: CallerData | None) -> str:
    """`ana`, or `ana of acme`."""
    if caller is None:
        return ""
    return caller.subject if caller.tenant is None else f"{caller.subject} of {caller.tenant}"
