"""The breaker as a stage: what counts, who is refused and how, who is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from sluiceway.middlewares.circuit_breaker import CircuitBreaker
from sluiceway.pipeline.model.component import Middleware, State
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.protocol.errors import (
    CircuitOpen,
    ConnectFailed,
    DeadlineExceeded,
    GatewayError,
    InvalidParams,
    RateLimited,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Reply, Result
from sluiceway.pipeline.testing import FakeSink, PipelineHarness, cancel_everywhere

Step = Reply | GatewayError

CASE_33 = {"failures": 5, "probes": 1, "successes": 1, "jitter": 0.0}


class Script:
    """A sink that does what it is told, and the last of it for ever; counts its calls."""

    def __init__(self, *steps: Step, seconds: float = 0.0) -> None:
        self.steps = list(steps)
        self.seconds = seconds
        self.calls = 0

    async def __call__(self, exchange: Exchange) -> Reply:
        self.calls += 1
        step = self.steps[0] if len(self.steps) == 1 else self.steps.pop(0)
        await trio.sleep(self.seconds)
        if isinstance(step, GatewayError):
            raise step
        return step


def _stage(bench: Any, reports: list[tuple[State, str]] | None = None, **options: Any) -> CircuitBreaker:
    context = bench.context("breaker")
    if reports is not None:
        context.report = lambda state, why: reports.append((state, why))
    return CircuitBreaker(CircuitBreaker.Config(**options), context)


async def _outcome(service: Service, exchange: Exchange) -> Step:
    try:
        return await service(exchange)
    except GatewayError as error:
        return error


async def _send(service: Service, bench: Any, times: int = 1, method: str = "tools/list") -> list[Step]:
    return [await _outcome(service, bench.exchange(method)) for _ in range(times)]


def _words(outcomes: Sequence[Step]) -> list[str]:
    return [outcome.reason if isinstance(outcome, GatewayError) else "reply" for outcome in outcomes]


async def test_case_33_five_failures_open_it_and_one_probe_closes_it(bench: Any, autojump_clock: MockClock) -> None:
    """After five 5xx the next call is refused without touching the upstream; one probe after 30 s closes it."""
    reports: list[tuple[State, str]] = []
    sink = Script(*[ErrorReply(-32603, "broke", http_status=500)] * 5, Result({}))
    service = bench.service(sink, _stage(bench, reports, **CASE_33))

    assert _words(await _send(service, bench, 5)) == ["reply"] * 5
    start = trio.current_time()
    refused = (await _send(service, bench))[0]
    assert isinstance(refused, CircuitOpen)
    assert (refused.retry_after_s, trio.current_time() - start, sink.calls) == (30.0, 0.0, 5)
    await trio.sleep(29)
    assert _words(await _send(service, bench)) == ["circuit_open"]
    await trio.sleep(1)
    assert _words(await _send(service, bench, 2)) == ["reply"] * 2
    assert sink.calls == 7
    assert reports == [(State.DEGRADED, "circuit open: 5 failures in a row"), (State.READY, "")]
    assert bench.events() == ["circuit breaker opened", "circuit breaker half-open", "circuit breaker closed"]


def _deaf(error: GatewayError, **flags: bool) -> GatewayError:
    for name, value in flags.items():
        setattr(error, name, value)
    return error


@pytest.mark.parametrize(
    ("step", "opens"),
    [
        (ConnectFailed("x"), True),
        (UpstreamClosed("x"), True),
        (UpstreamUnavailable("x"), True),
        (UpstreamProtocolError("x"), True),
        (DeadlineExceeded("x", timeout_s=1), True),
        (ErrorReply(-32603, "x"), True),
        (ErrorReply(7, "x", http_status=502), True),
        (Result({"isError": True}), False),
        (ErrorReply(-32601, "x"), False),
        (ErrorReply(-32602, "x"), False),
        (ErrorReply(-32021, "x"), False),
        (ErrorReply(-32000, "x", http_status=403), False),
        (_deaf(UpstreamUnavailable("401"), retryable=False), False),
        (_deaf(UpstreamUnavailable("429"), counts=False), False),
        (RateLimited("x"), False),
        (CircuitOpen("x"), False),
        (InvalidParams("x"), False),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_only_the_upstreams_failures_count(
    bench: Any, autojump_clock: MockClock, step: Step, opens: bool
) -> None:
    """Section 6 of the protocol notes, line by line."""
    stage = _stage(bench, failures=3)
    service = bench.service(Script(step), stage)

    await _send(service, bench, 3)

    assert stage.details()["state"] == ("open" if opens else "closed")


async def test_a_call_that_its_client_cancels_counts_as_nothing(bench: Any, autojump_clock: MockClock) -> None:
    """Neither failure nor success; while half-open its place is free again."""
    stage = _stage(bench, failures=1, probes=1, successes=1, jitter=0.0)
    service = bench.service(Script(Result({}), seconds=5), stage)
    for _ in range(3):
        with trio.CancelScope() as scope:
            scope.cancel()
            await service(bench.exchange())
    assert stage.details()["failures_in_a_row"] == 0

    await _send(bench.service(Script(ConnectFailed("x")), stage), bench)
    await trio.sleep(30)
    with trio.move_on_after(1) as leaving:
        leaving.shield = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service, bench.exchange())
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel(reason="client")

    assert stage.details()["state"] == "half_open"
    assert _words(await _send(service, bench)) == ["reply"]
    assert stage.details()["state"] == "closed"


@pytest.mark.parametrize("how", ["scope", "engine", "nursery"])
async def test_a_deadline_that_passes_counts_wherever_it_stands(
    bench: Any, autojump_clock: MockClock, how: str
) -> None:
    """That of a stage around, and that of the engine, which cancels and says why."""
    stage = _stage(bench, failures=1)

    async def hang(_exchange: Exchange) -> Reply:
        if how == "nursery":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await trio.sleep_forever()
        await trio.sleep_forever()
        return Result()

    with trio.CancelScope() as scope:
        if how == "engine":
            scope.cancel(reason="deadline")
        else:
            scope.deadline = trio.current_time() + 1
        await bench.service(hang, stage)(bench.exchange())

    assert stage.details()["state"] == "open"


async def test_the_pipelines_own_timeout_counts(autojump_clock: MockClock) -> None:
    """Through the real engine: three calls of a server that hangs, and the fourth is refused."""
    data = {
        "version": 1,
        "sources": {"s": {"stdio": {}}},
        "pipelines": {"main": {"timeout": "1s", "chain": [], "sink": "a"}},
        "sinks": {"a": {"embedded": {}, "chain": [{"circuit_breaker": {"failures": 3}}]}},
    }
    async with PipelineHarness.from_data(data, sinks={"a": FakeSink.slow(60)}) as gateway:
        replies = await gateway.call_many("tools/list", times=4)

    assert [reply.data["reason"] for reply in replies if isinstance(reply, ErrorReply)] == [
        *["deadline_exceeded"] * 3,
        "circuit_open",
    ]


async def test_a_bug_behind_it_counts_as_nothing_and_comes_out(bench: Any) -> None:
    """It is ours, not the upstream's."""
    stage = _stage(bench, failures=1)

    async def broken(_exchange: Exchange) -> Reply:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await bench.service(broken, stage)(bench.exchange())

    assert stage.details()["state"] == "closed"


async def test_the_probe_that_is_one_too_many_is_refused(bench: Any, autojump_clock: MockClock) -> None:
    """Three inside at once, the fourth is told to come back soon; decisions tell them apart."""
    stage = _stage(bench, failures=1, jitter=0.0)
    await _send(bench.service(Script(ConnectFailed("x")), stage), bench)
    await trio.sleep(30)
    service = bench.service(Script(Result({}), seconds=1), stage)
    exchanges = [bench.exchange() for _ in range(4)]
    outcomes: list[Step] = []

    async def run(exchange: Exchange) -> None:
        outcomes.append(await _outcome(service, exchange))

    async with trio.open_nursery() as nursery:
        for exchange in exchanges:
            nursery.start_soon(run, exchange)

    assert sorted(_words(outcomes)) == ["circuit_open", *["reply"] * 3]
    assert sorted(d.outcome for x in exchanges for d in x.link.decisions) == ["probe", "probe", "probe", "refuse"]
    refused = next(outcome for outcome in outcomes if isinstance(outcome, CircuitOpen))
    assert refused.retry_after_s == 1.0


async def test_decisions_say_who_opened_it(bench: Any) -> None:
    """The exchange whose failure was the last one."""
    service = bench.service(Script(ConnectFailed("x")), _stage(bench, failures=2))
    first, second = bench.exchange(), bench.exchange()
    await _outcome(service, first)
    await _outcome(service, second)

    assert [(d.outcome, d.cause) for d in first.link.decisions] == []
    assert [(d.outcome, d.cause) for d in second.link.decisions] == [("open", "connect_failed")]


async def test_listeners_never_probe_and_notifications_always_pass(bench: Any, autojump_clock: MockClock) -> None:
    """A listener would keep a place for hours; for a notification nobody waits. A listener that fails counts."""
    stage = _stage(bench, failures=2, jitter=0.0)
    listen, notify = "subscriptions/listen", "notifications/roots/list_changed"
    failing = bench.service(Script(ConnectFailed("x")), stage)
    assert _words(await _send(bench.service(Script(Result({})), stage), bench, 1, listen)) == ["reply"]

    assert _words(await _send(failing, bench, 2, listen)) == ["connect_failed"] * 2
    assert _words(await _send(failing, bench, 1, listen)) == ["circuit_open"]
    assert _words(await _send(failing, bench, 1, notify)) == ["connect_failed"]
    await trio.sleep(30)

    refused = (await _send(failing, bench, 1, listen))[0]
    assert isinstance(refused, CircuitOpen)
    assert refused.retry_after_s == 1.0


def _call(bench: Any, name: str) -> Exchange:
    exchange: Exchange = bench.exchange("tools/call", {"name": name})
    return exchange


async def test_each_tool_can_have_a_breaker_of_its_own(bench: Any, autojump_clock: MockClock) -> None:
    """One broken tool leaves the others alone; status shows which one."""
    reports: list[tuple[State, str]] = []
    stage = _stage(bench, reports, failures=2, per="target", jitter=0.0)

    async def sink(exchange: Exchange) -> Reply:
        return ErrorReply(-32603, "broke") if exchange.target == "bad" else Result({})

    service = bench.service(sink, stage)
    for name in ("bad", "good", "bad", "good"):
        await _outcome(service, _call(bench, name))

    assert _words([await _outcome(service, _call(bench, name)) for name in ("bad", "good")]) == [
        "circuit_open",
        "reply",
    ]
    shown = stage.details()
    assert (shown["targets"], list(shown["not_closed"])) == (2, ["tools/call bad"])
    assert bench.lines()[0]["target"] == "bad"
    assert [state for state, _ in reports] == [State.DEGRADED]


async def test_breakers_of_targets_are_bounded(bench: Any, autojump_clock: MockClock) -> None:
    """Closed ones are forgotten, those that know something stay; what finds no place shares one."""
    stage = _stage(bench, failures=1, per="target", max_keys=2, jitter=0.0)
    broken = {"bad1", "bad2"}

    async def sink(exchange: Exchange) -> Reply:
        return ErrorReply(-32603, "broke") if exchange.target in broken else Result({})

    service = bench.service(sink, stage)
    for name in ("a", "bad1", *(f"x{n}" for n in range(50)), "bad2"):
        await _outcome(service, _call(bench, name))
    assert stage.details()["targets"] == 2
    assert list(stage.details()["not_closed"]) == ["tools/call bad1", "tools/call bad2"]

    broken.add("more")
    outcomes = [await _outcome(service, _call(bench, name)) for name in ("bad1", "other", "more", "other")]

    assert _words(outcomes) == ["circuit_open", "reply", "reply", "circuit_open"]
    assert "others" in stage.details()["not_closed"]


async def test_a_forgotten_breaker_that_hears_late_changes_nothing(bench: Any, autojump_clock: MockClock) -> None:
    """A call of a target that was forgotten meanwhile may still fail."""
    stage = _stage(bench, failures=1, per="target", max_keys=1)
    slow = bench.service(Script(ConnectFailed("x"), seconds=5), stage)
    quick = bench.service(Script(Result({})), stage)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_outcome, slow, _call(bench, "slow"))
        await trio.sleep(1)
        await _outcome(quick, _call(bench, "quick"))

    assert (stage.details()["targets"], stage.details()["not_closed"]) == (1, {})


@pytest.mark.parametrize("per", ["all", "target"])
async def test_an_operator_can_open_and_close_it(bench: Any, autojump_clock: MockClock, per: str) -> None:
    """Open holds for what comes new, too, until it is closed by hand."""
    reports: list[tuple[State, str]] = []
    stage = _stage(bench, reports, failures=1, per=per)
    sink = Script(Result({}))
    service = bench.service(sink, stage)
    await _outcome(service, _call(bench, "a"))

    await stage.act("open", {})
    await trio.sleep(10_000)
    refused = [await _outcome(service, _call(bench, name)) for name in "ab"]
    assert _words(refused) == ["circuit_open"] * 2
    assert [error.retry_after_s for error in refused if isinstance(error, CircuitOpen)] == [None, None]
    assert stage.details()["not_closed" if per == "target" else "forced"]
    await stage.act("close", {})
    assert _words([await _outcome(service, _call(bench, name)) for name in "ab"]) == ["reply"] * 2
    assert reports[-1] == (State.READY, "")


@pytest.mark.parametrize("per", ["all", "target"])
async def test_reset_forgets_everything(bench: Any, autojump_clock: MockClock, per: str) -> None:
    """Failures counted so far, and targets."""
    stage = _stage(bench, failures=2, per=per)
    service = bench.service(Script(ConnectFailed("x")), stage)
    await _outcome(service, _call(bench, "a"))

    await stage.act("reset", {})
    await _outcome(service, _call(bench, "a"))

    assert _words([await _outcome(service, _call(bench, "a"))]) == ["connect_failed"]


async def test_actions_that_make_no_sense_are_refused(bench: Any) -> None:
    """By name, and with what is expected."""
    stage = _stage(bench)

    with pytest.raises(LookupError, match="open, close, reset"):
        await stage.act("explode", {})
    with pytest.raises(ValueError, match="no arguments"):
        await stage.act("open", {"for": "ever"})


async def test_figures_count_what_happened(bench: Any) -> None:
    """State, openings, refusals."""
    stage = _stage(bench, failures=1)
    await _send(bench.service(Script(ConnectFailed("x")), stage), bench, 4)

    assert {figure.name: figure.value for figure in stage.figures()} == {
        "circuit_not_closed": 1,
        "circuit_opened_total": 1,
        "circuit_refused_total": 3,
    }


@pytest.mark.parametrize(
    ("options", "text"), [({"successes": 4, "probes": 3}, "probes"), ({"open_for": 60.0, "open_for_max": 30.0}, "max")]
)
def test_figures_that_cannot_work_are_refused(options: dict[str, Any], text: str) -> None:
    """More successes than there can be probes would never close it."""
    with pytest.raises(ValueError, match=text):
        CircuitBreaker.Config(**options)


async def test_one_upstreams_failures_leave_the_others_alone(autojump_clock: MockClock) -> None:
    """A breaker in each sink's chain; the router's other upstream answers on, and the open one recovers."""
    chain: Json = [{"circuit_breaker": {"failures": 2, "jitter": "0%", "probes": 1, "successes": 1}}]
    data = {
        "version": 1,
        "sources": {"s": {"stdio": {}}},
        "pipelines": {"main": {"chain": [], "sink": "all"}},
        "sinks": {
            "all": {"route": {"to": ["a", "b"], "separator": "."}},
            "a": {"embedded": {}, "chain": chain},
            "b": {"embedded": {}, "chain": chain},
        },
    }
    sinks = {"a": FakeSink.fail(times=2, then=Result({})), "b": FakeSink.echo()}
    async with PipelineHarness.from_data(data, sinks=sinks) as gateway:

        async def call(name: str) -> str:
            reply = await gateway.call("tools/call", name=name)
            return str(reply.data["reason"]) if isinstance(reply, ErrorReply) else "result"

        said = [await call(name) for name in ("a.x", "a.x", "a.x", "b.x")]
        await trio.sleep(30)
        said.append(await call("a.x"))

    assert said == ["connect_failed", "connect_failed", "circuit_open", "result", "result"]


async def test_it_can_be_cancelled_anywhere(autojump_clock: MockClock) -> None:
    """No place of a probe stays taken."""
    stage: tuple[type[Middleware], Any] = (CircuitBreaker, {"failures": 1, "probes": 1, "successes": 1})
    async with PipelineHarness.from_stages([stage], sink=FakeSink.slow(1)) as gateway:
        await cancel_everywhere(lambda: gateway.call("tools/list"))


@pytest.mark.parametrize(
    ("options", "refused_at"),
    [
        ({"failure_rate": 0.5, "min_calls": 10}, 10),
        ({"failure_rate": 0.5, "min_calls": 12}, 12),
        ({"failure_rate": 0.75, "min_calls": 10}, None),
        ({"failure_rate": 0.0, "min_calls": 10}, None),
        ({"failure_rate": 0.5, "min_calls": 10, "window": 5.0}, None),
    ],
)
async def test_a_share_of_failures_opens_it_as_configured(
    bench: Any, autojump_clock: MockClock, options: dict[str, Any], refused_at: int | None
) -> None:
    """A call a second, every other one fails: half of them, of so many, within so long."""
    steps: list[Step] = [Result({}), ErrorReply(-32603, "broke")] * 20
    stage = _stage(bench, failures=3, **{"window": 100.0, **options})
    service = bench.service(Script(*steps), stage)

    words = []
    for _ in range(20):
        words += _words(await _send(service, bench))
        await trio.sleep(1)

    assert (words.index("circuit_open") if "circuit_open" in words else None) == refused_at


@pytest.mark.parametrize(
    ("options", "waits"),
    [
        ({"open_for": 10.0, "open_for_max": 300.0, "jitter": 0.0}, [10.0, 20.0, 30.0]),
        ({"open_for": 10.0, "open_for_max": 15.0, "jitter": 0.0}, [10.0, 15.0, 15.0]),
        ({"open_for": 10.0, "open_for_max": 10.0, "jitter": 1.0}, [18.4, 17.6, 14.2]),
    ],
)
async def test_times_are_those_of_the_configuration(
    bench: Any, autojump_clock: MockClock, options: dict[str, Any], waits: list[float]
) -> None:
    """How long it stays open the first, second and third time in a row."""
    stage = _stage(bench, failures=1, **options)
    service = bench.service(Script(ConnectFailed("x")), stage)

    seen = []
    for _ in waits:
        await _send(service, bench)
        refused = (await _send(service, bench))[0]
        assert isinstance(refused, CircuitOpen)
        assert refused.retry_after_s is not None
        seen.append(round(refused.retry_after_s, 1))
        await trio.sleep(refused.retry_after_s)

    assert seen == waits


@pytest.mark.parametrize(
    ("options", "admitted", "state"),
    [
        ({"probes": 1, "successes": 1, "probe_timeout": 99.0}, 1, "closed"),
        ({"probes": 2, "successes": 1, "probe_timeout": 99.0}, 2, "closed"),
        ({"probes": 2, "successes": 2, "probe_timeout": 99.0}, 2, "closed"),
        ({"probes": 3, "successes": 3, "probe_timeout": 99.0}, 3, "closed"),
        ({"probes": 1, "successes": 1, "probe_timeout": 0.5}, 4, "closed"),
        ({"probes": 2, "successes": 2, "probe_timeout": 0.5}, 4, "closed"),
    ],
)
async def test_probes_are_those_of_the_configuration(
    bench: Any, autojump_clock: MockClock, options: dict[str, Any], admitted: int, state: str
) -> None:
    """Of four calls half a second apart, each of which takes ten, so many are let in; then it closes."""
    stage = _stage(bench, failures=1, jitter=0.0, **options)
    await _send(bench.service(Script(ConnectFailed("x")), stage), bench)
    await trio.sleep(30)
    sink = Script(Result({}), seconds=10)
    service = bench.service(sink, stage)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(_outcome, service, bench.exchange())
            await trio.sleep(0.5)

    assert (sink.calls, stage.details()["state"]) == (admitted, state)


async def test_a_probe_that_was_its_clients_fault_frees_its_place(bench: Any, autojump_clock: MockClock) -> None:
    """It says nothing about the upstream: the next one may try."""
    stage = _stage(bench, failures=1, probes=1, successes=1, jitter=0.0)
    await _send(bench.service(Script(ConnectFailed("x")), stage), bench)
    await trio.sleep(30)

    words = _words(await _send(bench.service(Script(InvalidParams("x"), Result({})), stage), bench, 2))

    assert words == ["invalid_params", "reply"]


async def test_a_listener_that_ends_well_is_no_success(bench: Any) -> None:
    """It ended because somebody hung up; the failures of calls in the meantime stand."""
    stage = _stage(bench, failures=2)
    await _send(bench.service(Script(ConnectFailed("x")), stage), bench)
    await _send(bench.service(Script(Result({})), stage), bench, 1, "subscriptions/listen")

    assert stage.details()["failures_in_a_row"] == 1
