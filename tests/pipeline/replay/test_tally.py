"""What became of exchanges, counted; and what upstreams are supposed to answer."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from sluiceway.pipeline.protocol.errors import UpstreamClosed
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.replay import repertoire, tally
from sluiceway.pipeline.replay.assembly import RecordedExchange, exchanges
from sluiceway.pipeline.replay.entries import (
    Begun,
    Called,
    CallEnded,
    CallerData,
    DecisionData,
    Ended,
    ErrorData,
    FailureData,
    MessageData,
    ReplyData,
)
from sluiceway.pipeline.replay.repertoire import Repertoire
from sluiceway.pipeline.replay.report import duration, render_html
from sluiceway.pipeline.replay.simulating import Side, Simulated
from sluiceway.pipeline.replay.tally import Latencies, Tallies, outcome_of
from sluiceway.pipeline.testing import memory_exchange


def gateway_error(reason: str) -> ReplyData:
    """What the gateway says when it does not answer."""
    return ReplyData(error=ErrorData(1, reason, {"origin": "gateway", "reason": reason}))


DONE = ReplyData(result={"content": []})


def exchange(
    number: int = 1, tool: str = "find", *, took: float = 1.0, outcome: Any = DONE, at: float = 0.0,
    params: dict[str, Any] | None = None, sink: str = "up", kind: str = "call", **ended: Any,
) -> RecordedExchange:  # fmt: skip
    """One exchange with one call of a sink."""
    message = MessageData("tools/call", {"name": tool, "arguments": params or {}}, number)
    key = "failure" if isinstance(outcome, FailureData) else "reply"
    return next(
        exchanges(
            [
                Begun(t=at, exchange=number, source="in", kind=kind, message=message),
                Called(t=at, exchange=number, call=number, sink=sink),
                CallEnded(t=at + took, exchange=number, call=number, **{key: outcome}),
                Ended(t=at + took, exchange=number, **{"reply": DONE, **ended}),
            ]
        )
    )


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        ({"reply": DONE}, ("answered", "")),
        ({"reply": ReplyData(result={"isError": True})}, ("tool_error", "")),
        ({"reply": ReplyData(error=ErrorData(-32000, "no"))}, ("error", "")),
        ({"cancelled": "client"}, ("cancelled", "")),
        ({"reply": gateway_error("deadline_exceeded")}, ("timed_out", "deadline_exceeded")),
        ({"reply": gateway_error("upstream_closed")}, ("failed", "upstream_closed")),
        ({"reply": gateway_error("capacity_exceeded")}, ("shed", "capacity_exceeded")),
        ({"reply": gateway_error("rate_limited")}, ("refused", "rate_limited")),
    ],
)
def test_every_exchange_ends_in_one_way(ended, expected):
    """And has a reason if the gateway did not answer."""
    assert outcome_of(Ended(t=0.0, exchange=1, **ended)) == expected


@pytest.mark.parametrize(
    ("stage", "outcome", "counted"),
    [
        ("cache", "hit", "cached"),
        ("cache", "stale", "cached"),
        ("cache", "miss", ""),
        ("dedup", "join", "joined"),
        ("retry", "repeat", "retried"),
        ("retry", "give_up", ""),
        ("hedge", "hedge", "hedged"),
        ("fallback", "fallback", "fell_back"),
        ("rate_limit", "allow", ""),
    ],
)
def test_what_stages_did_is_counted(stage, outcome, counted):
    """Their ids say what they are where the configuration is not known."""
    tallies = Tallies(None, 10.0)
    tallies.add(exchange(decisions=(DecisionData(f"pipelines.main.{stage}", outcome),)))

    assert dict(tallies.all.counts) == {"answered": 1} | ({counted: 1} if counted else {})


def test_movements_of_breakers_are_kept():
    """With what moved them."""
    tallies = Tallies(None, 10.0)
    opened, refused = (DecisionData("sinks.up.circuit_breaker", each, "5 of 6") for each in ("open", "refuse"))
    tallies.add(exchange(decisions=(opened, refused), took=2.0))

    assert tallies.moves == [{"t": 2.0, "stage": "sinks.up.circuit_breaker", "to": "open", "cause": "5 of 6"}]


def test_listeners_and_what_did_not_end_are_not_counted():
    """They have no time that means anything."""
    tallies = Tallies(None, 10.0)
    unended = exchange()
    unended.ended = None
    tallies.add(unended)
    tallies.add(exchange(kind="listen"))

    assert tallies.all.requests == 0


def test_tables_have_bounds(monkeypatch):
    """What has no row of its own is counted with others."""
    monkeypatch.setattr(tally, "MAX_ROWS", 2)
    monkeypatch.setattr(tally, "MAX_REFUSALS", 2)
    tallies = Tallies(None, 10.0)
    for number in range(1, 6):
        tallies.add(exchange(number, f"t{number}", reply=gateway_error("forbidden")))

    assert {key: each.requests for key, each in tallies.by_target.items()} == {
        "tools/call t1": 1,
        "tools/call t2": 1,
        "(others)": 3,
    }
    assert (len(tallies.refusals), tallies.all.counts["refused"]) == (2, 5)


def test_times_are_known_to_a_twentieth():
    """Nothing takes nothing; without times there is no quantile."""
    times = Latencies()
    for number in range(1, 101):
        times.add(number / 10)
    none, zero = Latencies(), Latencies()
    zero.add(0.0)

    assert times.quantile(0.5) == pytest.approx(5.0, rel=0.06)
    assert times.quantile(1.0) == pytest.approx(10.0, rel=0.06)
    assert (none.quantile(0.5), zero.quantile(0.5)) == (None, 0.0)
    assert times.curve()[-1][1] == 1.0


@pytest.mark.parametrize(
    ("seconds", "expected"), [(None, "-"), (0.0, "0 ms"), (0.012, "12 ms"), (1.5, "1.5 s"), (300.0, "300 s")]
)
def test_times_are_told_shortly(seconds, expected):
    """To two digits."""
    assert duration(seconds) == expected


def test_the_page_shows_what_people_wrote_as_text():
    """Names of tools are theirs to choose, and no markup of ours."""
    tallies = Tallies(None, 10.0)
    tallies.add(exchange(1, "<script>alert(1)</script>", caller=CallerData(subject='"><img>', tenant="&")))
    opened = DecisionData("sinks.up.circuit_breaker", "open", "<b>")
    tallies.add(exchange(2, reply=gateway_error("rate_limited"), decisions=(opened,)))
    sides = [Side(name=name, tallies=tallies, supposed=number) for number, name in enumerate(("then", "now"))]
    page = render_html(Simulated(before=sides[0], after=sides[1], span_s=10.0), "<t>")

    assert "<script" not in page
    assert "<img" not in page
    assert "<b>&lt;" not in page
    assert "&lt;script&gt;" in page
    assert "1 answers of upstreams are supposed" in page


def test_a_page_of_nothing_is_a_page():
    """Without plots of nothing."""
    sides = [Side(name=name, tallies=Tallies(None, 0.0)) for name in ("then", "now")]
    page = render_html(Simulated(before=sides[0], after=sides[1], span_s=0.0), "t")

    assert "Nothing was answered." in page
    assert "Nothing was refused." in page
    assert "None moved." in page


def knowing(*recorded: RecordedExchange) -> Repertoire:
    """What some exchanges taught."""
    found = Repertoire()
    found.learn(recorded)
    return found


def answer(number: int) -> ReplyData:
    """One of several results."""
    return ReplyData(result={"n": number})


async def test_the_nearest_request_of_the_target_answers(autojump_clock):
    """After the time that it took."""
    known = knowing(
        exchange(1, params={"a": 1, "b": 1}, outcome=answer(1)), exchange(2, params={"a": 2}, outcome=answer(2))
    )
    zero = trio.current_time()
    reply = await known.suppose(memory_exchange("tools/call", {"name": "find", "arguments": {"a": 3}}), "up", 0.0)

    assert reply == Result({"n": 2})
    assert trio.current_time() - zero == pytest.approx(1)
    assert (known.supposed, known.unanswered) == (1, 0)


async def test_failures_are_supposed_too(autojump_clock):
    """As they were."""
    known = knowing(exchange(outcome=FailureData("UpstreamClosed", "gone", "upstream_closed")))

    with pytest.raises(UpstreamClosed):
        await known.suppose(memory_exchange("tools/call", {"name": "find", "arguments": {}}), "up", 0.0)


async def test_a_call_goes_on_from_where_it_was_cut_off(autojump_clock):
    """It takes the rest of a time that is longer; or without end, if there is none."""
    known = knowing(exchange(1, took=1.0), exchange(2, took=5.0))
    call = memory_exchange("tools/call", {"name": "find", "arguments": {}})
    zero = trio.current_time()
    await known.suppose(call, "up", 2.0)

    assert trio.current_time() - zero == pytest.approx(3)
    with trio.move_on_after(1000) as scope:
        await known.suppose(call, "up", 6.0)
    assert scope.cancelled_caught


async def test_another_sink_with_that_target_answers(autojump_clock):
    """The new configuration may have another name for it."""
    known = knowing(exchange(outcome=answer(7)))

    assert await known.suppose(
        memory_exchange("tools/call", {"name": "find", "arguments": {}}), "other", 0.0
    ) == Result({"n": 7})


def test_what_is_kept_has_bounds(monkeypatch):
    """Of each target, of targets, and of bytes."""
    monkeypatch.setattr(repertoire, "MAX_ANSWERS", 3)
    monkeypatch.setattr(repertoire, "MAX_TARGETS", 2)
    known = knowing(*(exchange(number, f"t{number % 4}", outcome=answer(number)) for number in range(1, 100)))

    assert {key[2]: len(shelf.answers) for key, shelf in known._shelves.items()} == {"t1": 3, "t2": 3, None: 3}

    monkeypatch.setattr(repertoire, "MAX_BYTES", 10)
    assert knowing(exchange()).nearest("up", "tools/call", {"name": "find"}) is None


def test_a_sample_is_fair(monkeypatch):
    """Later answers have their chance."""
    monkeypatch.setattr(repertoire, "MAX_ANSWERS", 10)
    known = knowing(*(exchange(number, outcome=answer(number)) for number in range(1, 1001)))
    kept = [each.reply.result["n"] for shelf in known._shelves.values() for each in shelf.answers]

    assert len(set(kept)) == 10
    assert max(kept) > 500
