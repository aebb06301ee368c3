"""What a test expects, as a law for replays of a tape: of every exchange that asks what the test asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from ...config.case_rules import Declared, resolve, sendings
from ...model.cases import Decided, Expect, RequestGiven
from ...model.patterns import mismatches
from ...model.when import glob
from ...protocol.messages import Json
from ...replay.assembly import RecordedExchange
from ...replay.violations import Law, Run
from .checks import error_pattern

UNDERSTOOD: Final = ("result", "error", "decided", "cancelled")
"""Expectations that a tape can be held to."""


def law_of(declared: Declared, ids: Sequence[str]) -> Law:
    """
    What is expected of the requests of a test.

    Args:
        declared: The test.
        ids: Every component id, for stages that are named briefly.

    Raises:
        ValueError: Nothing is expected of a request, or something that a tape does not tell.
    """
    wanted = [
        (each.request, each.expect)
        for _, each in sendings(declared.case)
        if each.request is not None and each.expect is not None
    ]
    name = declared.case.name
    if not wanted:
        raise ValueError(f"{name!r} expects nothing of a request")
    for _, expect in wanted:
        others = [field for field in _given(expect) if field not in UNDERSTOOD]
        if others:
            raise ValueError(f"{name!r}: a tape is held to {', '.join(UNDERSTOOD)}, not to {others[0]}")

    def law(run: Run) -> str | None:
        for exchange in run.exchanges:
            for request, expect in wanted:
                if _asks(exchange, request):
                    for wrong in _wrong(exchange, expect, ids):
                        return f"exchange {exchange.number}: {wrong}"
        return None

    return law


def _given(expect: Expect) -> Iterator[str]:
    fresh = Expect()
    for name in ("relayed", "asked", "headers", "stages", "sent_to", "figures", "takes", *UNDERSTOOD):
        if getattr(expect, name) != getattr(fresh, name):
            yield name


def _asks(exchange: RecordedExchange, request: RequestGiven) -> bool:
    """Whether an exchange's request has all that the test's has."""
    begun = exchange.begun
    if begun is None or not begun.source or begun.message.method != request.method:
        return False
    return not any(mismatches(dict(request.params), begun.message.params))


def _wrong(exchange: RecordedExchange, expect: Expect, ids: Sequence[str]) -> Iterator[str]:
    ended = exchange.ended
    reply: Any = None if ended is None else ended.reply
    is_cancelled = ended is not None and ended.cancelled == "client"
    if expect.cancelled is not None and expect.cancelled is not is_cancelled:
        yield "it was cancelled" if is_cancelled else "it was not cancelled"
    if expect.result is not None:
        yield from _against(expect.result, None if reply is None else reply.result, "result")
    if expect.error is not None:
        error = None if reply is None else msgspec.to_builtins(reply.error)
        yield from _against(error_pattern(expect.error), error, "error")
    for name, wanted in expect.decided.items():
        meant = resolve(name, ids)
        found = [each for each in (() if ended is None else ended.decisions) if each.stage in meant]
        if not _is_right(wanted, [(each.outcome, each.cause) for each in found]):
            yield f"{name} decided otherwise"


def _against(pattern: Json, actual: Json, what: str) -> Iterator[str]:
    if actual is None:
        yield f"there is no {what}"
        return
    for each in mismatches(pattern, actual):
        yield f"the {what} is another one, at {'.'.join(map(str, each.path)) or 'its top'}"


def _is_right(wanted: str | Decided | None, found: Sequence[tuple[str, str]]) -> bool:
    if wanted is None:
        return not found
    pattern = wanted if isinstance(wanted, Decided) else Decided(outcome=wanted)
    outcome, cause = glob(pattern.outcome), glob(pattern.cause)
    return any(outcome.fullmatch(word) and cause.fullmatch(why) for word, why in found)
