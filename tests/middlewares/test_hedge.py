"""Second attempts: when, for what, who wins, and that nobody hears the loser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from sluiceway.middlewares.hedge import Hedge
from sluiceway.pipeline.model.component import Middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.options import Rate
from sluiceway.pipeline.protocol.errors import ConnectFailed, GatewayError, UpstreamClosed
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Result
from sluiceway.pipeline.testing import FakeSink, PipelineHarness, cancel_everywhere

PLENTY: Mapping[str, Any] = {"budget": 1.0, "reserve": Rate(1000, 1.0)}
PROGRESS = Notification("notifications/progress", {"progressToken": 1, "progress": 1})

Step = Reply | GatewayError


class Upstream:
    """Takes so many seconds for each attempt in turn (the last for ever) and answers with its number, or fails."""

    def __init__(self, *plan: float | tuple[float, Step], relay_at: float | None = None) -> None:
        self.plan = list(plan)
        self.relay_at = relay_at
        self.attempts: list[int] = []
        self.times: list[float] = []
        self.cancelled: list[int] = []
        self.seen: list[Exchange] = []

    async def __call__(self, exchange: Exchange) -> Reply:
        number = len(self.attempts)
        self.attempts.append(exchange.attempt)
        self.times.append(trio.current_time())
        self.seen.append(exchange)
        step = self.plan[min(number, len(self.plan) - 1)]
        seconds, outcome = step if isinstance(step, tuple) else (step, Result({"by": number}))
        done = False
        try:
            if self.relay_at is not None:
                await trio.sleep(self.relay_at)
                await exchange.relay(Notification(PROGRESS.method, {"progressToken": number}))
                seconds -= self.relay_at
            await trio.sleep(seconds)
            done = True
        finally:
            if not done:
                self.cancelled.append(number)
        if isinstance(outcome, GatewayError):
            raise outcome
        return outcome


def _stage(bench: Any, **options: Any) -> Hedge:
    return Hedge(Hedge.Config(**{**PLENTY, **options}), bench.context("hedge"))


async def _one(bench: Any, upstream: Service, stage: Hedge, exchange: Exchange | None = None) -> Step:
    try:
        reply: Reply = await bench.service(upstream, stage)(exchange or bench.exchange("tools/list"))
    except GatewayError as error:
        return error
    return reply


async def test_the_second_attempt_wins_and_the_first_is_cancelled(bench: Any, autojump_clock: MockClock) -> None:
    """It begins after the delay; its answer is the answer; the upstream is told to stop the other one."""
    upstream, stage, exchange = Upstream(10, 1), _stage(bench, after=2.0), bench.exchange("tools/list")
    start = trio.current_time()

    assert await _one(bench, upstream, stage, exchange) == Result({"by": 1})
    assert (trio.current_time() - start, upstream.cancelled, upstream.attempts) == (3.0, [0], [1, 2])
    assert [(d.outcome, d.cause) for d in exchange.link.decisions] == [("hedge", "no answer within 2s")]
    assert {f.name: f.value for f in stage.figures()} == {
        "hedge_sent_total": 1,
        "hedge_won_total": 1,
        "hedge_not_afforded_total": 0,
    }


async def test_the_first_can_still_win(bench: Any, autojump_clock: MockClock) -> None:
    """Then the second is cancelled."""
    upstream, stage = Upstream(3, 10), _stage(bench, after=2.0)

    assert await _one(bench, upstream, stage) == Result({"by": 0})
    assert (upstream.cancelled, stage.details()["won"]) == ([1], 0)


async def test_a_quick_answer_is_not_asked_for_twice(bench: Any, autojump_clock: MockClock) -> None:
    """Nor is one that fails quickly: that is a matter for `retry`."""
    for plan in (1.0, (1.0, UpstreamClosed("x"))):
        upstream = Upstream(plan)
        await _one(bench, upstream, _stage(bench, after=2.0))

        assert len(upstream.attempts) == 1


@pytest.mark.parametrize(
    ("method", "params", "options", "attempts"),
    [
        ("tools/list", {}, {}, 2),
        ("resources/read", {"uri": "a"}, {}, 2),
        ("resources/read", {"uri": "a", "requestState": "s"}, {}, 1),
        ("tools/call", {"name": "echo"}, {}, 1),
        ("tools/call", {"name": "echo"}, {"repeat": ("ec*",)}, 2),
        ("vendor/unknown", {}, {}, 1),
        ("subscriptions/listen", {}, {}, 1),
        ("notifications/roots/list_changed", {}, {}, 1),
    ],
)
async def test_only_what_may_be_sent_twice_is(
    bench: Any, autojump_clock: MockClock, method: str, params: dict[str, Json], options: dict[str, Any], attempts: int
) -> None:
    """The same rules as for a retry."""
    upstream = Upstream(10, 1)

    await _one(bench, upstream, _stage(bench, after=1.0, **options), bench.exchange(method, params))

    assert len(upstream.attempts) == attempts


async def test_trusted_hints_allow_it_for_tools(bench: Any, autojump_clock: MockClock) -> None:
    """The list is fetched once, and forgotten when it changes."""
    methods = []
    for trust_hints in (False, True):
        seen: list[str] = []

        async def sink(exchange: Exchange, seen: list[str] = seen) -> Reply:
            seen.append(exchange.method)
            if exchange.method == "tools/list":
                return Result({"tools": [{"name": "echo", "annotations": {"readOnlyHint": True}}]})
            await trio.sleep(1.5)
            return Result({})

        stage = _stage(bench, after=1.0, trust_hints=trust_hints)
        async with stage.open():
            await _one(bench, sink, stage, bench.exchange())
            stage.context.changes.announce("a", Notification("notifications/tools/list_changed"))
        assert len(stage.context.changes) == 0
        methods.append(seen)

    assert methods == [["tools/call"], ["tools/list", "tools/call", "tools/call"]]


@pytest.mark.parametrize(("capabilities", "attempts"), [({"elicitation": {}}, 1), ({"sampling": {}}, 1), ({}, 2)])
async def test_nobody_is_asked_twice(
    bench: Any, autojump_clock: MockClock, capabilities: dict[str, Json], attempts: int
) -> None:
    """A client that the upstream might ask something gets one attempt."""

    async def ask(_method: str, _params: Mapping[str, Json]) -> Reply:
        return Result({})

    exchange = bench.exchange("tools/list")
    exchange.link.ask = ask
    exchange = exchange.with_client(replace(exchange.client, capabilities=capabilities))
    upstream = Upstream(10, 1)

    await _one(bench, upstream, _stage(bench, after=1.0), exchange)

    assert len(upstream.attempts) == attempts


async def test_the_first_that_is_heard_is_the_only_one(bench: Any, autojump_clock: MockClock) -> None:
    """Both relay progress: the client sees that of one, and its answer, though the other would be quicker."""
    upstream = Upstream(20, 3, relay_at=2.0)

    assert await _one(bench, upstream, _stage(bench, after=1.0)) == Result({"by": 0})
    assert [n.params["progressToken"] for n in bench.sent] == [0]
    assert upstream.cancelled == [1]
    for exchange in upstream.seen:
        await exchange.relay(PROGRESS)
    assert len(bench.sent) == 2


async def test_the_one_that_lost_can_ask_nothing_more(bench: Any, autojump_clock: MockClock) -> None:
    """Even if its sink tries after the end."""
    asked: list[str] = []

    async def ask(method: str, _params: Mapping[str, Json]) -> Reply:
        asked.append(method)
        return Result({})

    exchange, upstream = bench.exchange("tools/list"), Upstream(10, 1)
    exchange.link.ask = ask
    await _one(bench, upstream, _stage(bench, after=1.0), exchange)

    for attempt in upstream.seen:
        await attempt.ask("elicitation/create", {})

    assert len(asked) == 1


async def test_nothing_is_sent_twice_once_something_was_relayed(bench: Any, autojump_clock: MockClock) -> None:
    """Progress before the delay is over: there is no second attempt at all."""
    upstream = Upstream(20, 1, relay_at=0.5)

    await _one(bench, upstream, _stage(bench, after=1.0))

    assert len(upstream.attempts) == 1


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (((3, UpstreamClosed("a")), 5), Result({"by": 1})),
        ((6, (1, ConnectFailed("b"))), Result({"by": 0})),
        (((3, UpstreamClosed("a")), (5, ConnectFailed("b"))), "upstream_closed"),
        ((9, (1, ErrorReply(-32603, "broke"))), Result({"by": 0})),
        ((9, (1, ErrorReply(-32602, "bad"))), ErrorReply(-32602, "bad")),
    ],
)
async def test_a_failure_waits_for_what_the_other_brings(
    bench: Any, autojump_clock: MockClock, plan: tuple[Any, ...], expected: Reply | str
) -> None:
    """The first good answer wins; if none is, the first attempt's failure comes out."""
    outcome = await _one(bench, Upstream(*plan), _stage(bench, after=1.0))

    assert (outcome.reason if isinstance(outcome, GatewayError) else outcome) == expected


async def test_a_leader_that_fails_has_failed(bench: Any, autojump_clock: MockClock) -> None:
    """It was heard, so nothing else can be."""
    upstream = Upstream((20, UpstreamClosed("x")), relay_at=2.0)

    assert isinstance(await _one(bench, upstream, _stage(bench, after=1.0)), UpstreamClosed)
    assert upstream.cancelled == [1]


@pytest.mark.parametrize(("max_attempts", "times"), [(2, [0.0, 1.0]), (4, [0.0, 1.0, 2.0, 3.0])])
async def test_there_are_never_more_attempts_than_allowed(
    bench: Any, autojump_clock: MockClock, max_attempts: int, times: list[float]
) -> None:
    """Each begins a delay after the one before."""
    upstream = Upstream(30)

    await _one(bench, upstream, _stage(bench, after=1.0, max_attempts=max_attempts))

    assert [t - upstream.times[0] for t in upstream.times] == times


async def test_second_attempts_cost_a_budget(bench: Any, autojump_clock: MockClock) -> None:
    """Without budget there is one attempt; a share of answers, and so many a second."""
    for options, sent in (
        ({"budget": 0.0, "reserve": Rate(1, 1000.0)}, 1),
        ({"budget": 0.0, "reserve": Rate(1, 10.0)}, 3),
        ({"budget": 1.0, "reserve": Rate(1, 1000.0)}, 10),
    ):
        stage = _stage(bench, after=1.0, **options)
        for _ in range(10):
            await _one(bench, Upstream(2.5), stage)

        assert stage.details()["sent"] == sent


async def test_the_delay_is_measured(bench: Any, autojump_clock: MockClock) -> None:
    """Nineteen of twenty answers took a second, one ten: at 90 % a second attempt begins after one, at 100 % after ten.

    Below `min_samples` there is none; `window` forgets the slow one; never before `least`.
    """

    async def second_at(last: float = 1.0, **options: Any) -> float | None:
        stage = _stage(bench, **options)
        for seconds in (10.0, *[1.0] * 18, last):
            await _one(bench, Upstream((seconds, Result({})), 99), stage)
        upstream = Upstream(60, 60)
        await _one(bench, upstream, stage)
        return upstream.times[1] - upstream.times[0] if len(upstream.times) > 1 else None

    assert await second_at(percentile=0.9) == 1.0
    assert await second_at(percentile=1.0) == 10.0
    assert await second_at(percentile=1.0, window=19, min_samples=19) == 1.0
    assert await second_at(min_samples=21) is None
    assert await second_at(percentile=0.9, least=4.0) == 4.0


async def test_methods_and_targets_are_measured_apart_and_bounded(bench: Any, autojump_clock: MockClock) -> None:
    """The one not used for longest is forgotten."""
    stage = _stage(bench, min_samples=2, max_keys=2)
    for uri in ("a", "b", "a", "c"):
        await _one(bench, Upstream(1), stage, bench.exchange("resources/read", {"uri": uri}))

    assert stage.details()["measured"] == 2
    attempts = []
    for uri in ("a", "b"):
        upstream = Upstream(60)
        await _one(bench, upstream, stage, bench.exchange("resources/read", {"uri": uri}))
        attempts.append(len(upstream.attempts))
    assert attempts == [2, 1]


async def test_failures_are_not_measured(bench: Any, autojump_clock: MockClock) -> None:
    """An upstream that refuses at once would make everything look slow."""
    stage = _stage(bench, min_samples=2)
    for _ in range(5):
        await _one(bench, Upstream((0.0, ErrorReply(-32603, "x"))), stage)
        await _one(bench, Upstream((0.0, ConnectFailed("x"))), stage)
    upstream = Upstream(60)

    await _one(bench, upstream, stage)

    assert len(upstream.attempts) == 1


async def test_a_bug_comes_out_as_it_is(bench: Any, autojump_clock: MockClock) -> None:
    """Not in a group, though it happened in a nursery."""

    async def broken(_exchange: Exchange) -> Reply:
        await trio.sleep(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await _one(bench, broken, _stage(bench, after=2.0))


def test_a_window_that_is_too_small_is_refused() -> None:
    """It would never hold enough samples."""
    with pytest.raises(ValueError, match="raise window"):
        Hedge.Config(min_samples=50, window=20)


async def test_it_can_be_cancelled_anywhere(autojump_clock: MockClock) -> None:
    """With one attempt under way, and with two."""
    stage: tuple[type[Middleware], Any] = (Hedge, {"after": "1s", "reserve": "1000/s"})
    async with PipelineHarness.from_stages([stage], sink=FakeSink.slow(3)) as gateway:
        await cancel_everywhere(lambda: gateway.call("tools/list"))
