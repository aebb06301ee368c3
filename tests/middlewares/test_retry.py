"""What is tried again, how often, when, where; and everything that must not be."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from sluiceway.middlewares.retry import Retry
from sluiceway.pipeline.model.component import Context, Middleware
from sluiceway.pipeline.model.exchange import Exchange, Link, Service
from sluiceway.pipeline.model.options import Rate
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    CircuitOpen,
    ConnectFailed,
    DeadlineExceeded,
    Forbidden,
    GatewayError,
    OutcomeUnknown,
    RateLimited,
    SessionNotFound,
    UnsupportedVersion,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.mcp import method_of
from sluiceway.pipeline.protocol.messages import EMPTY, ErrorReply, Json, Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.chain import Stage, compile_chain
from sluiceway.pipeline.testing import MODERN_CLIENT, FakeSink, PipelineHarness, cancel_everywhere

Step = Reply | GatewayError
PROGRESS = Notification("notifications/progress", {"progressToken": 1, "progress": 1})
PLENTY: Mapping[str, Any] = {"budget": 1.0, "reserve": Rate(1000, 1.0)}
"""A budget that is never in the way."""


class Script:
    """A sink that does what it is told, and the last of it for ever; notes when it was called, and the attempt."""

    def __init__(self, *steps: Step, seconds: float = 0.0, relays: bool = False, asks: bool = False) -> None:
        self.steps = list(steps)
        self.seconds = seconds
        self.relays = relays
        self.asks = asks
        self.times: list[float] = []
        self.attempts: list[int] = []
        self.seen: list[Exchange] = []

    async def __call__(self, exchange: Exchange) -> Reply:
        self.times.append(trio.current_time())
        self.attempts.append(exchange.attempt)
        self.seen.append(exchange)
        step = self.steps[0] if len(self.steps) == 1 else self.steps.pop(0)
        if self.relays:
            await exchange.relay(PROGRESS)
        if self.asks:
            await exchange.ask("elicitation/create", {})
        await trio.sleep(self.seconds)
        if isinstance(step, GatewayError):
            raise step
        return step

    @property
    def waits(self) -> list[float]:
        """Seconds between the calls."""
        return [round(b - a, 6) for a, b in zip(self.times, self.times[1:], strict=False)]


def _stage(bench: Any, sinks: Mapping[str, Service] = EMPTY, **options: Any) -> Retry:
    context = bench.context("retry")
    context.sinks = sinks.__getitem__
    return Retry(Retry.Config(**{**PLENTY, **options}), context)


async def _outcome(service: Service, exchange: Exchange) -> Step:
    try:
        return await service(exchange)
    except GatewayError as error:
        return error


def _decisions(exchange: Exchange) -> list[str]:
    return [f"{d.outcome}: {d.cause}" for d in exchange.link.decisions]


async def _one(bench: Any, sink: Service, method: str = "tools/list", **options: Any) -> tuple[Step, list[str]]:
    """What becomes of one exchange, and what was decided about it."""
    exchange = bench.exchange(method)
    outcome = await _outcome(bench.service(sink, _stage(bench, **options)), exchange)
    return outcome, _decisions(exchange)


async def test_a_read_that_fails_is_tried_again(bench: Any, autojump_clock: MockClock) -> None:
    """Up to three attempts in all; each knows its number."""
    sink = Script(UpstreamClosed("a"), ErrorReply(-32603, "b"), Result({"c": 1}))

    outcome, decisions = await _one(bench, sink)

    assert (outcome, sink.attempts) == (Result({"c": 1}), [1, 2, 3])
    assert decisions == ["repeat: upstream_closed at attempt 1", "repeat: error -32603 at attempt 2"]
    lines = [line for line in bench.lines() if line["event"] == "attempt failed, trying again"]
    assert [(line["attempt"], line["error"], line["max_attempts"]) for line in lines] == [
        (1, "upstream_closed", 3),
        (2, "error -32603", 3),
    ]
    assert [line["delay_s"] for line in lines] == sink.waits


async def test_the_last_error_comes_out_with_the_number_of_attempts(bench: Any, autojump_clock: MockClock) -> None:
    """Class, code and data of the last one stay; those of an upstream's error, too."""
    error = UpstreamClosed("gone", data={"exit": 3})
    failed, decisions = await _one(bench, Script(ConnectFailed("x"), ConnectFailed("y"), error))
    answered, _ = await _one(bench, Script(ErrorReply(-32603, "z", {"why": "w"}, http_status=500)))
    bare, _ = await _one(bench, Script(ErrorReply(-32603, "z", "text")))

    assert isinstance(failed, UpstreamClosed)
    assert (failed.data, error.data, failed.message) == ({"exit": 3, "attempts": 3}, {"exit": 3}, "gone")
    assert decisions[-1] == "give_up: attempts"
    assert answered == ErrorReply(-32603, "z", {"why": "w", "attempts": 3})
    assert isinstance(answered, ErrorReply)
    assert answered.http_status == 500
    assert bare == ErrorReply(-32603, "z", "text")


@pytest.mark.parametrize(
    ("step", "read", "call"),
    [
        (ConnectFailed("x"), 3, 3),
        (UpstreamUnavailable("x"), 3, 3),
        (CircuitOpen("x"), 3, 3),
        (CapacityExceeded("x"), 3, 3),
        (RateLimited("x"), 3, 3),
        (UpstreamClosed("x"), 3, 1),
        (DeadlineExceeded("x", timeout_s=1), 3, 1),
        (ErrorReply(-32603, "x"), 3, 1),
        (ErrorReply(1, "x", http_status=503), 3, 1),
        (UpstreamProtocolError("x"), 1, 1),
        (Forbidden("x"), 1, 1),
        (ErrorReply(-32602, "x"), 1, 1),
        (ErrorReply(-32000, "x"), 1, 1),
        (Result({"isError": True}), 1, 1),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_the_table_of_failures(bench: Any, autojump_clock: MockClock, step: Step, read: int, call: int) -> None:
    """What was not sent is repeated for everything; what may have run only for reads; the rest never."""
    counts = []
    for method in ("tools/list", "tools/call"):
        sink = Script(step)
        await _one(bench, sink, method)
        counts.append(len(sink.times))

    assert counts == [read, call]


async def test_case_35_a_call_that_is_lost_is_not_repeated(bench: Any, autojump_clock: MockClock) -> None:
    """A tool may have side effects: the client is told that nobody knows."""
    sink = Script(UpstreamClosed("the server ended", data={"exit": 1}))

    outcome, decisions = await _one(bench, sink, "tools/call")

    assert len(sink.times) == 1
    assert isinstance(outcome, OutcomeUnknown)
    assert (outcome.http_status, outcome.reason, outcome.data) == (502, "outcome_unknown", {"exit": 1})
    assert decisions == ["give_up: not_repeatable"]


@pytest.mark.parametrize(
    ("method", "step", "reason"),
    [
        ("tools/call", DeadlineExceeded("x", timeout_s=1), "deadline_exceeded"),
        ("subscriptions/listen", UpstreamClosed("x"), "upstream_closed"),
        ("notifications/roots/list_changed", UpstreamClosed("x"), "upstream_closed"),
    ],
)
async def test_only_a_lost_call_is_of_unknown_outcome(bench: Any, method: str, step: GatewayError, reason: str) -> None:
    """A time-out says so itself; a listener has no effects."""
    outcome, _ = await _one(bench, Script(step), method)

    assert isinstance(outcome, GatewayError)
    assert outcome.reason == reason


async def test_what_takes_up_an_earlier_request_is_repeated_only_if_it_was_not_sent(
    bench: Any, autojump_clock: MockClock
) -> None:
    """Its answer belongs to one conversation."""
    counts = []
    for step in (UpstreamClosed("x"), ConnectFailed("x")):
        sink = Script(step)
        exchange = bench.exchange("resources/read", {"uri": "a", "requestState": "s"})
        await _outcome(bench.service(sink, _stage(bench)), exchange)
        counts.append(len(sink.times))

    assert counts == [1, 3]


async def test_tools_that_are_listed_are_repeated(bench: Any, autojump_clock: MockClock) -> None:
    """`repeat` names tools by glob."""
    counts = []
    for repeat in ((), ("ec*",), ("other",)):
        sink = Script(UpstreamClosed("x"))
        await _one(bench, sink, "tools/call", repeat=repeat)
        counts.append(len(sink.times))

    assert counts == [1, 3, 1]


async def test_hints_are_believed_only_of_a_trusted_upstream(bench: Any, autojump_clock: MockClock) -> None:
    """With `trust_hints` its list is fetched once, and what it says is idempotent is repeated."""
    listed = Result({"tools": [{"name": "echo", "annotations": {"idempotentHint": True}}]})
    methods = []
    for trust_hints in (False, True):
        seen: list[str] = []

        async def sink(exchange: Exchange, seen: list[str] = seen) -> Reply:
            seen.append(exchange.method)
            if exchange.method == "tools/list":
                return listed
            raise UpstreamClosed("x")

        stage = _stage(bench, trust_hints=trust_hints)
        async with stage.open():
            await _outcome(bench.service(sink, stage), bench.exchange())
        methods.append(seen)

    assert methods == [["tools/call"], ["tools/list", "tools/call", "tools/call", "tools/call"]]


async def test_hints_are_learned_from_lists_that_pass(bench: Any, autojump_clock: MockClock) -> None:
    """No lookup is needed when the client has listed; `list_changed` makes one necessary again."""
    seen: list[str] = []

    async def sink(exchange: Exchange) -> Reply:
        seen.append(exchange.method)
        return Result({"tools": [{"name": "echo"}]})

    stage = _stage(bench, trust_hints=True)
    service = bench.service(sink, stage)
    async with stage.open():
        for method in ("tools/list", "tools/call"):
            await service(bench.exchange(method))
        assert seen == ["tools/list", "tools/call"]
        stage.context.changes.announce("a", Notification("notifications/tools/list_changed"))
        await service(bench.exchange("tools/call"))

    assert seen[2:] == ["tools/list", "tools/call"]
    assert len(stage.context.changes) == 0


async def test_nothing_is_repeated_once_the_client_has_seen_something(bench: Any, autojump_clock: MockClock) -> None:
    """A notification was relayed, or the user was asked: a second time would show."""
    relayed, decisions = await _one(bench, Script(UpstreamClosed("x"), relays=True))

    async def answer(_method: str, _params: Mapping[str, Json]) -> Reply:
        return Result({})

    sink, exchange = Script(UpstreamClosed("x"), asks=True), bench.exchange("prompts/get", {"name": "p"})
    exchange.link.ask = answer
    await _outcome(bench.service(sink, _stage(bench)), exchange)

    assert isinstance(relayed, UpstreamClosed)
    assert decisions == ["give_up: shown"]
    assert (len(bench.sent), len(sink.times), _decisions(exchange)) == (1, 1, ["give_up: shown"])


async def test_an_attempt_that_lost_is_heard_no_more(bench: Any, autojump_clock: MockClock) -> None:
    """Whatever its sink still tries to relay is dropped; the one that won is heard."""
    sink = Script(ConnectFailed("x"), ConnectFailed("x"), Result({}))
    await _one(bench, sink)

    for exchange in sink.seen[1:]:
        await exchange.relay(PROGRESS)

    assert len(bench.sent) == 1


@pytest.mark.parametrize(
    ("preset", "waits"),
    [("seed-turbomcp", [0.1, 0.2, 0.4]), ("seed-2025", [1.0, 2.0, 4.0]), (None, [0.084442, 0.151591])],
)
async def test_the_presets_are_the_series_they_are_named_after(
    bench: Any, autojump_clock: MockClock, preset: str | None, waits: list[float]
) -> None:
    """100, 200, 400 ms; 1, 2, 4 s; exactly. Two waits with full jitter without a preset."""
    sink = Script(ErrorReply(-32603, "x"))

    await _one(bench, sink, **({} if preset is None else {"preset": preset}))

    assert sink.waits == waits


async def test_each_option_of_the_series_changes_what_it_says(bench: Any, autojump_clock: MockClock) -> None:
    """Alone, and on top of a preset."""

    async def waits(**options: Any) -> list[float]:
        sink = Script(ErrorReply(-32603, "x"))
        await _one(bench, sink, **{"jitter": "none", **options})
        return sink.waits

    assert await waits() == [0.1, 0.2]
    assert await waits(max_attempts=1) == []
    assert await waits(max_attempts=4, multiplier=3.0) == [0.1, 0.3, 0.9]
    assert await waits(max_attempts=5, base_delay=1.0) == [1.0, 2.0, 4.0, 8.0]
    assert await waits(max_attempts=5, base_delay=1.0, max_delay=3.0) == [1.0, 2.0, 3.0, 3.0]
    assert await waits(jitter="slight", base_delay=1.0) == [1.103327, 2.154773]
    assert await waits(preset="seed-2025", max_attempts=2) == [1.0]
    assert await waits(preset="gentle") == [0.1, 0.2, 0.4]


async def test_full_jitter_is_the_default(bench: Any, autojump_clock: MockClock) -> None:
    """Seeded, so the same every time; never longer than the delay."""
    first, second = Script(ConnectFailed("x")), Script(ConnectFailed("x"))
    await _one(bench, first)
    await _one(bench, second)

    assert first.waits == second.waits
    assert 0 < first.waits[0] < 0.1
    assert 0 < first.waits[1] < 0.2


async def test_a_wish_to_be_asked_later_is_honoured(bench: Any, autojump_clock: MockClock) -> None:
    """`Retry-After` up to `max_delay`; for a longer one nobody waits."""
    patient = Script(UpstreamUnavailable("busy", retry_after_s=3.0), ErrorReply(-32603, "x", {"retry_after_ms": 2000}))
    outcome, _ = await _one(bench, patient)
    assert patient.waits == [3.0, 2.0]

    hasty = Script(UpstreamUnavailable("busy", retry_after_s=3.0))
    outcome, decisions = await _one(bench, hasty, max_delay=2.0)

    assert isinstance(outcome, UpstreamUnavailable)
    assert (outcome.retry_after_s, decisions, len(hasty.times)) == (3.0, ["give_up: retry_after"], 1)


async def test_an_attempt_that_could_not_end_in_time_is_not_begun(bench: Any, autojump_clock: MockClock) -> None:
    """The last error comes at once, instead of a time-out later; the nearest deadline counts."""
    sink = Script(ConnectFailed("x"))
    with trio.move_on_after(0.25):
        outcome, decisions = await _one(bench, sink, jitter="none", base_delay=0.15, max_attempts=5)

    assert isinstance(outcome, ConnectFailed)
    assert (sink.waits, decisions[-1]) == ([0.15], "give_up: deadline")

    sink = Script(ConnectFailed("x"))
    exchange = bench.exchange("tools/list")
    exchange.link.deadline = trio.current_time() + 1
    await _outcome(bench.service(sink, _stage(bench, jitter="none", base_delay=0.1, least_time=0.95)), exchange)
    assert (sink.waits, _decisions(exchange)) == ([], ["give_up: deadline"])


async def test_a_cancel_ends_the_wait_at_once(bench: Any, autojump_clock: MockClock) -> None:
    """Nobody waits for the back-off of a client that left."""
    sink = Script(ConnectFailed("x"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: _one(bench, sink, jitter="none", base_delay=10.0))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert (len(sink.times), trio.current_time() - sink.times[0]) == (1, 1.0)


@pytest.mark.parametrize(
    ("on", "codes", "calls"),
    [
        (("unreachable",), (), [2, 1, 1]),
        (("lost", "garbled"), (), [1, 2, 1]),
        (("error",), (-32000,), [1, 1, 2]),
        ((), (), [1, 1, 1]),
    ],
)
async def test_only_failures_in_on_and_codes_are_repeated(
    bench: Any, autojump_clock: MockClock, on: tuple[str, ...], codes: tuple[int, ...], calls: list[int]
) -> None:
    """What is not listed is answered at once."""
    counts = []
    for step in (ConnectFailed("x"), UpstreamProtocolError("x"), ErrorReply(-32000, "x")):
        sink = Script(step, Result({}))
        await _one(bench, sink, on=on, codes=codes)
        counts.append(len(sink.times))

    assert counts == calls


async def test_failover_goes_to_the_next_sink_at_once(bench: Any, autojump_clock: MockClock) -> None:
    """Each sink once, without waiting; then round again, with back-off."""
    main, replica, spare = Script(ConnectFailed("x")), Script(UpstreamClosed("y")), Script(ConnectFailed("z"))
    stage = _stage(
        bench, {"replica": replica, "spare": spare}, failover=("replica", "spare"), jitter="none", max_attempts=5
    )
    exchange = bench.exchange("tools/list")
    async with stage.open():
        outcome = await _outcome(bench.service(main, stage), exchange)

    assert [round(t - main.times[0], 3) for t in (*main.times, *replica.times, *spare.times)] == [0, 0.4, 0, 1.2, 0]
    assert isinstance(outcome, UpstreamClosed)
    assert outcome.data == {"attempts": 5}
    assert _decisions(exchange)[:2] == [
        "failover: connect_failed at attempt 1, to replica",
        "failover: upstream_closed at attempt 2, to spare",
    ]


BOUND: Sequence[tuple[str, Mapping[str, Json]]] = (
    ("tools/call", {"name": "a", "requestState": "s"}),
    ("tools/list", {"cursor": "2"}),
    ("tasks/get", {"taskId": "t"}),
)
"""Requests that take up what one upstream has given out."""


@pytest.mark.parametrize(("method", "params"), BOUND)
async def test_what_one_upstream_has_given_out_stays_with_it(
    bench: Any, autojump_clock: MockClock, method: str, params: Mapping[str, Json]
) -> None:
    """Another sink knows no such state, cursor or task; the own one is tried again, with back-off."""
    main, spare = Script(ConnectFailed("x")), Script(Result({}))
    stage = _stage(bench, {"spare": spare}, failover=("spare",), jitter="none")
    async with stage.open():
        await _outcome(bench.service(main, stage), bench.exchange(method, params))

    assert (main.waits, spare.times) == ([0.1, 0.2], [])


async def test_failover_after_an_unsent_failure_costs_no_budget(bench: Any, autojump_clock: MockClock) -> None:
    """A dead upstream with a healthy spare: every request is served, however many there are."""
    main, spare = Script(ConnectFailed("x")), Script(Result({"spare": True}))
    stage = _stage(bench, {"spare": spare}, failover=("spare",), budget=0.0, reserve=Rate(1, 1000.0))
    service = bench.service(main, stage)
    async with stage.open():
        outcomes = [await _outcome(service, bench.exchange()) for _ in range(50)]

    assert outcomes == [Result({"spare": True})] * 50


@pytest.mark.parametrize("stranger", [SessionNotFound("no such session"), UnsupportedVersion("legacy only")])
async def test_a_sink_that_does_not_know_the_client_is_passed_over(
    bench: Any, autojump_clock: MockClock, stranger: GatewayError
) -> None:
    """A legacy session lives where its handshake was: the client must not be told to begin again for our failover."""
    spare, other = Script(stranger), Script(Result({"other": 1}))
    stage = _stage(bench, {"spare": spare, "other": other}, failover=("spare", "other"))
    alone = _stage(bench, {"spare": spare}, failover=("spare",), max_attempts=2)
    own = Script(ConnectFailed("x"), stranger)
    async with stage.open(), alone.open():
        served = await _outcome(bench.service(Script(ConnectFailed("x")), stage), bench.exchange())
        failed = await _outcome(bench.service(Script(ConnectFailed("x")), alone), bench.exchange())
    its_own = await _outcome(bench.service(own, _stage(bench)), bench.exchange())

    assert served == Result({"other": 1})
    assert isinstance(failed, ConnectFailed)
    assert its_own is stranger


async def test_failover_through_the_gateway_uses_the_other_sinks_own_chain(autojump_clock: MockClock) -> None:
    """An open breaker in front of one sink sends everything to the other."""
    breaker: Json = {"circuit_breaker": {"failures": 1}}
    data = {
        "version": 1,
        "sources": {"s": {"stdio": {}}},
        "pipelines": {"main": {"chain": [], "sink": "a"}},
        "sinks": {
            "a": {"embedded": {}, "chain": [{"retry": {"failover": ["b"]}}, breaker]},
            "b": {"embedded": {}, "chain": [breaker]},
        },
    }
    dead, alive = FakeSink.fail(times=99, then=Result({})), FakeSink.echo()
    async with PipelineHarness.from_data(data, sinks={"a": dead, "b": alive}) as gateway:
        replies = await gateway.call_many("tools/list", times=10)

    assert [type(reply) for reply in replies] == [Result] * 10
    assert (len(dead.requests), len(alive.requests)) == (1, 10)


async def test_case_34_a_full_outage_is_not_amplified(bench: Any, autojump_clock: MockClock) -> None:
    """100 requests a second, three retries each: at most 1.2 times the requests and one a second reach the upstream."""
    sink = Script(UpstreamClosed("down"))
    stage = Retry(Retry.Config(max_attempts=4), bench.context("retry"))
    service = bench.service(sink, stage)
    seconds, requests = 30, 0

    async with trio.open_nursery() as nursery:
        for _ in range(seconds * 100):
            requests += 1
            nursery.start_soon(_outcome, service, bench.exchange("tools/list"))
            await trio.sleep(0.01)

    assert requests < len(sink.times) <= 1.2 * requests + seconds
    assert len(sink.times) <= requests + seconds + 2
    assert stage.details()["given_up"] == {"budget": requests}


async def test_an_outage_after_good_times_stays_within_the_budget(bench: Any, autojump_clock: MockClock) -> None:
    """Ten good seconds pay for as many repetitions as 20 % of their successes, and no more."""
    sink = Script(*[Result({})] * 1000, UpstreamClosed("down"))
    service = bench.service(sink, Retry(Retry.Config(max_attempts=4), bench.context("retry")))
    async with trio.open_nursery() as nursery:
        for _ in range(2000):
            nursery.start_soon(_outcome, service, bench.exchange("tools/list"))
            await trio.sleep(0.01)

    assert len(sink.times) <= 1.2 * 2000 + 20


async def test_a_success_is_deposited_once_however_often_it_was_tried(bench: Any, autojump_clock: MockClock) -> None:
    """A repeated success pays as much as any other; an answer that is an error about the request pays, too."""
    stage = _stage(bench, budget=0.5, reserve=Rate(1, 1.0))
    service = bench.service(Script(ConnectFailed("x"), Result({})), stage)

    await service(bench.exchange())
    assert stage.details()["budget"] == pytest.approx(0.5, abs=0.11)
    await bench.service(Script(ErrorReply(-32602, "x")), stage)(bench.exchange())

    assert stage.details()["budget"] == pytest.approx(1.0, abs=0.11)


async def test_details_and_figures_count(bench: Any, autojump_clock: MockClock) -> None:
    """What was repeated, what that saved, and why the rest was given up."""
    stage = _stage(bench)
    for steps in ([ConnectFailed("x"), Result({})], [ConnectFailed("x")], [UpstreamClosed("x")]):
        await _outcome(bench.service(Script(*steps), stage), bench.exchange())

    assert {k: v for k, v in stage.details().items() if k != "budget"} == {
        "repeated": 3,
        "recovered": 1,
        "given_up": {"attempts": 1, "not_repeatable": 1},
    }
    assert [(f.name, f.value, dict(f.labels)) for f in stage.figures()] == [
        ("retry_repeated_total", 3, {}),
        ("retry_recovered_total", 1, {}),
        ("retry_given_up_total", 1, {"why": "attempts"}),
        ("retry_given_up_total", 1, {"why": "not_repeatable"}),
    ]


async def test_a_bug_comes_out_as_it_is(bench: Any) -> None:
    """Also from a repetition."""
    steps: list[Any] = [ConnectFailed("x"), ZeroDivisionError()]

    async def sink(_exchange: Exchange) -> Reply:
        raise steps.pop(0)

    with pytest.raises(ZeroDivisionError):
        await bench.service(sink, _stage(bench, base_delay=0.001))(bench.exchange("tools/list"))


def _exchange(method: str) -> Exchange:
    async def emit(_notification: Notification) -> None:
        await trio.lowlevel.checkpoint()

    return Exchange(
        request=Request(1, method, {"name": "t"}), kind=method_of(method).kind, client=MODERN_CLIENT, link=Link(emit)
    )


FAILURES: Sequence[Step] = (
    ConnectFailed("x"),
    UpstreamClosed("x"),
    CapacityExceeded("x", retry_after_s=0.5),
    DeadlineExceeded("x", timeout_s=1),
    ErrorReply(-32603, "x"),
    ErrorReply(-32602, "x"),
    Result({}),
    Result({}),
)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    attempts=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.2, 0.5]),
    reserve=st.sampled_from([0.5, 1.0, 4.0]),
    requests=st.integers(1, 120),
)
def test_attempts_never_exceed_the_maximum_nor_the_budget(
    seed: int, attempts: int, share: float, reserve: float, requests: int
) -> None:
    """Law: whatever fails and however requests interleave. And no call with side effects runs twice."""
    rng = random.Random(seed)
    tried: dict[int, int] = {}
    ran: dict[int, int] = {}
    good = 0

    async def sink(exchange: Exchange) -> Reply:
        nonlocal good
        key = id(exchange.link)
        tried[key] = tried.get(key, 0) + 1
        await trio.sleep(rng.random())
        step = rng.choice(FAILURES)
        unsent = isinstance(step, GatewayError) and step.retryable
        if exchange.method == "tools/call" and not unsent:
            ran[key] = ran.get(key, 0) + 1
        if isinstance(step, GatewayError):
            raise step
        good += not (isinstance(step, ErrorReply) and step.code == -32603)
        return step

    async def main() -> float:
        config = Retry.Config(max_attempts=attempts, budget=share, reserve=Rate(reserve, 1.0))
        stage = Retry(config, Context(id="retry", random=rng))
        service = compile_chain([Stage("retry", stage)], sink).service
        start = trio.current_time()
        exchanges = [_exchange(rng.choice(["tools/list", "tools/call"])) for _ in range(requests)]
        async with trio.open_nursery() as nursery:
            for exchange in exchanges:
                nursery.start_soon(_outcome, service, exchange)
                await trio.sleep(rng.random() / 10)
        assert len(tried) == requests
        return trio.current_time() - start

    elapsed = trio.run(main, clock=MockClock(autojump_threshold=0))

    assert max(tried.values()) <= attempts
    repeated = sum(tried.values()) - requests
    assert repeated <= share * good + reserve * elapsed + max(1.0, reserve) + 1e-6
    assert max(ran.values(), default=0) <= 1


def test_ten_thousand_faulted_calls_have_no_side_effect_twice() -> None:
    """R6: calls of tools nobody vouches for, every second one of which fails in some way."""
    rng = random.Random(6)
    ran: dict[int, int] = {}

    async def sink(exchange: Exchange) -> Reply:
        step = rng.choice([ConnectFailed("x"), UpstreamClosed("x"), ErrorReply(-32603, "x"), *[Result({})] * 3])
        if not (isinstance(step, GatewayError) and step.retryable):
            ran[id(exchange.link)] = ran.get(id(exchange.link), 0) + 1
        if isinstance(step, GatewayError):
            raise step
        return step

    async def main() -> list[Exchange]:
        stage = Retry(Retry.Config(), Context(id="retry", random=rng))
        service = compile_chain([Stage("retry", stage)], sink).service
        exchanges = [_exchange("tools/call") for _ in range(10_000)]
        for exchange in exchanges:
            await _outcome(service, exchange)
        return exchanges

    exchanges = trio.run(main, clock=MockClock(autojump_threshold=0))

    assert len(exchanges) == 10_000
    assert max(ran.values()) == 1


async def test_it_can_be_cancelled_anywhere(autojump_clock: MockClock) -> None:
    """In an attempt, and while it waits for the next."""
    stage: tuple[type[Middleware], Any] = (Retry, {"reserve": "1000/s"})
    sink = FakeSink.fail(times=10**6, then=Result({}))
    async with PipelineHarness.from_stages([stage], sink=sink) as gateway:
        await cancel_everywhere(lambda: gateway.call("tools/list"))


def fickle(failure: ErrorReply | GatewayError) -> bool | None:
    """What somebody knows of an upstream: its -32001 passes, what it says is hopeless does not."""
    if "hopeless" in failure.message:
        return False
    return True if isinstance(failure, ErrorReply) and failure.code == -32001 else None


@pytest.mark.parametrize(
    ("first", "calls"),
    [
        (ErrorReply(-32001, "busy"), 2),
        (ErrorReply(-32002, "no"), 1),
        (ErrorReply(-32603, "broken"), 2),
        (ErrorReply(-32603, "hopeless"), 1),
        (UpstreamClosed("gone"), 2),
        (UpstreamClosed("gone, and hopeless"), 1),
    ],
)
async def test_a_classifier_says_what_is_worth_another_try(
    bench: Any, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, first: Step, calls: int
) -> None:
    """A function by its import path: yes, no, or as without it."""
    monkeypatch.setitem(sys.modules, "retrying_of_a_test", sys.modules[__name__])
    stage, sink = _stage(bench, classifier="retrying_of_a_test:fickle"), Script(first, Result({}))
    async with stage.open():
        outcome = await _outcome(compile_chain([Stage("retry", stage)], sink).service, bench.exchange("tools/list"))

    assert calls == len(sink.times)
    assert (Result({}) if calls == 2 else first) == outcome


async def test_a_classifier_makes_nothing_repeatable(
    bench: Any, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that may have side effects is not made twice, whatever it says."""
    monkeypatch.setitem(sys.modules, "retrying_of_a_test", sys.modules[__name__])
    stage, sink = _stage(bench, classifier="retrying_of_a_test:fickle"), Script(ErrorReply(-32001, "busy"))
    async with stage.open():
        await _outcome(compile_chain([Stage("retry", stage)], sink).service, bench.exchange("tools/call"))

    assert len(sink.times) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("no_such_module:f", "cannot be imported"),
        ("json:no_such", "cannot be imported"),
        ("json:__name__", "no function"),
    ],
)
async def test_a_classifier_that_is_not_there_is_told_at_the_start(bench: Any, path: str, text: str) -> None:
    """And not with the first failure."""
    with pytest.raises(LookupError, match=text):
        async with _stage(bench, classifier=path).open():
            pass


@pytest.mark.parametrize("path", ["json", "json:", ":f", "a b:c", "a:b.c"])
def test_a_classifier_is_written_as_module_and_function(path: str) -> None:
    """What is no import path is told by `check`."""
    with pytest.raises(ValueError, match="module:function"):
        Retry.Config(classifier=path)
