"""Expectations against what was seen: each difference is a finding. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from ...config.case_rules import resolve
from ...model.cases import Between, Decided, Expect
from ...model.figures import Distribution
from ...model.patterns import ABSENT, Mismatch, mismatches
from ...model.when import glob
from ...protocol.messages import ErrorReply, Json, Result
from ...telemetry.metrics import Snapshot
from .findings import Finding, Path, findings_of
from .observed import Observed

TOLERANCE_S: Final = 0.011
"""How exact virtual time is: deadlines fire up to 10 ms late (`runtime/deadlines.py`)."""
_METRIC: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?")
_LABEL: Final = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
_PREFIX: Final = "sluiceway_"


def check_request(expect: Expect, seen: Observed, path: Path, ids: Sequence[str]) -> list[Finding]:
    """
    What is not as expected of one request.

    Args:
        expect: What is expected.
        seen: What was seen.
        path: Place of the expectation in the case.
        ids: Every component id, for stages that are named briefly.
    """
    found: list[Finding] = []
    found += _reply(expect, seen, path)
    for name, messages in (("relayed", seen.relayed), ("asked", seen.asked)):
        pattern = getattr(expect, name)
        if pattern is not None:
            verb = "relayed to" if name == "relayed" else "asked of"
            found += findings_of(
                _messages(pattern, messages), (*path, name), f"something else was {verb} the client", name, seen.link
            )
    if expect.headers is not None:
        headers = mismatches(expect.headers, dict(seen.exchange.reply_headers))
        found += findings_of(headers, (*path, "headers"), "the headers are others", "headers", seen.link)
    found += _decided(expect, seen, path, ids)
    found += _stages(expect, seen, path, ids)
    found += _time(expect, seen, path)
    if expect.cancelled is not None and expect.cancelled is not seen.is_cancelled:
        text = "it was not cancelled" if expect.cancelled else "it was cancelled"
        found.append(Finding((*path, "cancelled"), text, "", expect.cancelled, seen.is_cancelled, subject=seen.link))
    found += check_sent(expect, seen.sent, path, seen.link)
    return found


def _reply(expect: Expect, seen: Observed, path: Path) -> Iterator[Finding]:
    reply = seen.reply
    if expect.result is not None:
        if isinstance(reply, Result):
            yield from findings_of(
                mismatches(expect.result, dict(reply.value)),
                (*path, "result"),
                "the result is another one",
                "result",
                seen.link,
            )
        else:
            text = "an error came, no result" if isinstance(reply, ErrorReply) else "no reply came"
            yield Finding((*path, "result"), text, "", {"result": expect.result}, _shown(seen), subject=seen.link)
    if expect.error is not None:
        if isinstance(reply, ErrorReply):
            actual = {"code": reply.code, "message": reply.message, "data": reply.data}
            found = mismatches(error_pattern(expect.error), actual)
            is_short = not isinstance(expect.error, Mapping)
            for each in findings_of(found, (*path, "error"), "the error is another one", "error", seen.link):
                yield (
                    Finding((*path, "error"), each.message, each.where, each.expected, each.actual, subject=seen.link)
                    if is_short
                    else each
                )
        else:
            text = "a result came, no error" if isinstance(reply, Result) else "no reply came"
            yield Finding((*path, "error"), text, "", {"error": expect.error}, _shown(seen), subject=seen.link)


def error_pattern(given: Json) -> Json:
    """A number is the code of an error, text its reason; everything else is the pattern itself."""
    if isinstance(given, str):
        return {"data": {"reason": given}}
    if isinstance(given, int) and not isinstance(given, bool):
        return {"code": given}
    return given


def _shown(seen: Observed) -> Json:
    reply = seen.reply
    if isinstance(reply, Result):
        return {"result": dict(reply.value)}
    if isinstance(reply, ErrorReply):
        return {"error": {"code": reply.code, "message": reply.message, "data": reply.data}}
    return ABSENT


def _messages(pattern: Json, messages: Sequence[Json]) -> Iterator[Mismatch]:
    """A number counts messages, a list is all of them, a test looks at the list, a mapping is the latest."""
    if isinstance(pattern, int) and not isinstance(pattern, bool):
        if pattern != len(messages):
            yield Mismatch((), f"{pattern} messages", {"messages": list(messages)} if messages else 0)
        return
    if isinstance(pattern, Mapping) and not any(str(key).startswith("$") for key in pattern):
        yield from mismatches(pattern, messages[-1] if messages else ABSENT)
        return
    yield from mismatches(pattern, list(messages))


def check_sent(expect: Expect, sent: Mapping[str, Sequence[Json]], path: Path, subject: object = None) -> list[Finding]:
    """What reached sinks otherwise than expected."""
    found: list[Finding] = []
    for sink_id, pattern in expect.sent_to.items():
        text = f"something else reached sink {sink_id}"
        where = (*path, "sent_to", sink_id)
        found += findings_of(_messages(pattern, sent.get(sink_id, ())), where, text, f"sent_to {sink_id}", subject)
    return found


def _decided(expect: Expect, seen: Observed, path: Path, ids: Sequence[str]) -> Iterator[Finding]:
    for name, wanted in expect.decided.items():
        meant = resolve(name, ids)
        decisions = [each for each in seen.link.decisions if each.stage in meant]
        shown = [f"{each.outcome}: {each.cause}" if each.cause else each.outcome for each in decisions] or ABSENT
        if wanted is None:
            is_right, expected = not decisions, "no decision"
        else:
            pattern = wanted if isinstance(wanted, Decided) else Decided(outcome=wanted)
            outcome, cause = glob(pattern.outcome), glob(pattern.cause)
            is_right = any(outcome.fullmatch(each.outcome) and cause.fullmatch(each.cause) for each in decisions)
            expected = pattern.outcome if pattern.cause == "*" else f"{pattern.outcome}: {pattern.cause}"
        if not is_right:
            where = (*path, "decided", name)
            yield Finding(where, f"{name} decided otherwise", f"decided {name}", expected, shown, subject=seen.link)


def _stages(expect: Expect, seen: Observed, path: Path, ids: Sequence[str]) -> Iterator[Finding]:
    if expect.stages is None:
        return
    passed = [run.component for run in seen.runs]
    is_same = len(passed) == len(expect.stages) and all(
        run in resolve(name, ids) for name, run in zip(expect.stages, passed, strict=True)
    )
    if not is_same:
        yield Finding(
            (*path, "stages"), "it took another way", "stages", list(expect.stages), passed, subject=seen.link
        )


def _time(expect: Expect, seen: Observed, path: Path) -> Iterator[Finding]:
    if expect.takes is None:
        return
    took, wanted = seen.ended - seen.began, expect.takes
    if isinstance(wanted, Between):
        is_right = (wanted.at_least or 0.0) - TOLERANCE_S <= took <= (wanted.at_most or took) + TOLERANCE_S
        bounds = [
            f"{word} {value:g} s"
            for word, value in (("at least", wanted.at_least), ("at most", wanted.at_most))
            if value is not None
        ]
        expected = ", ".join(bounds)
    else:
        is_right, expected = abs(took - wanted) <= TOLERANCE_S, f"{wanted:g} s"
    if not is_right:
        yield Finding((*path, "takes"), "it took another time", "", expected, f"{took:.3f} s", subject=seen.link)


def check_figures(expect: Expect, snapshot: Snapshot, path: Path) -> list[Finding]:
    """Metrics that do not say what is expected."""
    found: list[Finding] = []
    for name, pattern in expect.figures.items():
        value, hint = figure(name, snapshot)
        what = findings_of(mismatches(pattern, value), (*path, "figures", name), "the figure is another one", name)
        found += [Finding(each.path, each.message, each.where, each.expected, each.actual, hint) for each in what]
    return found


def figure(name: str, snapshot: Snapshot) -> tuple[Json, str]:
    """
    The sum of all samples of a metric, `name{label="value"}`; of a histogram, how often it observed.

    Returns:
        The value, `ABSENT` if there is no such sample; and what may have been meant.
    """
    match = _METRIC.fullmatch(name.strip())
    if match is None:
        return ABSENT, 'write name, or name{label="value"}'
    wanted = match[1].removeprefix(_PREFIX)
    labels = dict(_LABEL.findall(match[2] or ""))
    samples = [each for each in snapshot if each.name == wanted]
    fitting = [each for each in samples if labels.items() <= each.labels.items()]
    if fitting:
        return sum(sum(each.counts) if isinstance(each, Distribution) else each.value for each in fitting), ""
    if samples:
        return ABSENT, "there is " + ", ".join(sorted({_labelled(wanted, each.labels) for each in samples})[:8])
    return ABSENT, _close(wanted, {each.name for each in snapshot})


def _labelled(name: str, labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{inside}}}"


def _close(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, sorted(known), n=3)
    return f"did you mean {', '.join(close)}?" if close else "nothing has counted that"
