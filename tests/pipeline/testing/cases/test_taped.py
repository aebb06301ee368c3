"""What a test expects, as a law for replays of a tape."""

from __future__ import annotations

from typing import Any

import pytest

from sluiceway.pipeline.config import check_text
from sluiceway.pipeline.replay.assembly import RecordedExchange
from sluiceway.pipeline.replay.entries import Begun, DecisionData, Ended, ErrorData, MessageData, ReplyData
from sluiceway.pipeline.replay.playing import Played
from sluiceway.pipeline.replay.violations import Law, Run
from sluiceway.pipeline.testing.cases.taped import law_of

CONFIG = """\
version: 1
pipelines: {{main: {{chain: [cache], sink: demo}}}}
sinks: {{demo: {{embedded: {{server: demo}}}}}}
tests:
  - name: case
    sinks: {{demo: {{reply: {{content: []}}}}}}
    request: {{method: tools/call, params: {{name: find}}}}
    expect: {expect}
"""


def law(expect: str) -> Law:
    """Of a test that expects something of `find`."""
    (declared,) = check_text(CONFIG.format(expect=expect)).tests
    return law_of(declared, ["pipelines.main.cache"])


def run(name: str = "find", *, decisions: tuple[DecisionData, ...] = (), cancelled: str = "", **reply: Any) -> Run:
    """A replay of one exchange."""
    message = MessageData("tools/call", {"name": name, "arguments": {}}, 1)
    exchange = RecordedExchange(7)
    exchange.add(Begun(t=0.0, exchange=7, source="in", pipeline="main", message=message))
    exchange.add(
        Ended(t=1.0, exchange=7, reply=ReplyData(**reply) if reply else None, decisions=decisions, cancelled=cancelled)
    )
    return Run((exchange,), Played())


HIT = DecisionData("pipelines.main.cache", "hit", "fresh")


@pytest.mark.parametrize(
    ("expect", "judged", "says"),
    [
        ("{result: {content: []}}", run(result={"content": []}), None),
        ("{result: {content: []}}", run("other", result={}), None),
        ("{result: {content: []}}", run(result={"content": [1]}), "exchange 7: the result is another one, at content"),
        ("{result: {}}", run(error=ErrorData(1, "no")), "exchange 7: there is no result"),
        ("{error: 42900}", run(error=ErrorData(42900, "no")), None),
        ("{error: 42900}", run(error=ErrorData(1, "no")), "exchange 7: the error is another one, at code"),
        ("{error: 42900}", run(), "exchange 7: there is no error"),
        ("{cancelled: true}", run(cancelled="client"), None),
        ("{cancelled: true}", run(result={}), "exchange 7: it was not cancelled"),
        ("{cancelled: false}", run(cancelled="client"), "exchange 7: it was cancelled"),
        ("{decided: {cache: hit}}", run(result={}, decisions=(HIT,)), None),
        ("{decided: {cache: miss}}", run(result={}, decisions=(HIT,)), "exchange 7: cache decided otherwise"),
        ("{decided: {cache: {cause: stale}}}", run(result={}, decisions=(HIT,)), "exchange 7: cache decided otherwise"),
        ("{decided: {cache: null}}", run(result={}), None),
        ("{decided: {cache: null}}", run(result={}, decisions=(HIT,)), "exchange 7: cache decided otherwise"),
    ],
)
def test_an_exchange_that_asks_what_the_test_asks_is_held_to_it(expect: str, judged: Run, says: str | None) -> None:
    """And no other one."""
    found = law(expect)(judged)

    assert says is None if found is None else found.startswith(says or "nothing")


@pytest.mark.parametrize(
    ("expect", "said"), [("{takes: 1s}", "not to takes"), ("{sent_to: {demo: 1}}", "not to sent_to")]
)
def test_what_a_tape_does_not_tell_is_refused(expect: str, said: str) -> None:
    """It would hold without having been looked at."""
    with pytest.raises(ValueError, match=said):
        law(expect)


def test_a_test_that_expects_nothing_of_a_request_is_no_law() -> None:
    """It would always hold."""
    text = CONFIG.format(expect="{result: {}}").replace("    expect: {result: {}}\n", "    expect_last: {result: {}}\n")
    (declared,) = check_text(text).tests
    with pytest.raises(ValueError, match="expects nothing of a request"):
        law_of(declared, [])
