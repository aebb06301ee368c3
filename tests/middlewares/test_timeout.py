"""The time an inner chain gets, who may move it, and what is said when it is over."""

from __future__ import annotations

import pytest
import trio

from sluiceway.middlewares.timeout import Override, Timeout
from sluiceway.pipeline.model.when import When
from sluiceway.pipeline.protocol.errors import DeadlineExceeded
from sluiceway.pipeline.protocol.messages import Notification, Result

PROGRESS = Notification("notifications/progress", {"progressToken": 1, "progress": 1})
LOG_MESSAGE = Notification("notifications/message", {"level": "info", "data": "still here"})


def _stage(bench, stage_id="timeout", **options):
    return Timeout(Timeout.Config(**options), bench.context(stage_id))


def _sleeper(seconds, every=None, notification=PROGRESS):
    """A sink that takes `seconds`, and relays something `every` so many seconds."""

    async def sink(exchange):
        left = seconds
        while every is not None and left > every:
            await trio.sleep(every)
            left -= every
            await exchange.relay(notification)
        await trio.sleep(left)
        return Result({"slept": seconds})

    return sink


async def test_a_reply_in_time_passes(bench, autojump_clock):
    """The stage changes nothing about a reply that is there in time."""
    reply = await bench.service(_sleeper(9.9), _stage(bench, after=10))(bench.exchange())

    assert reply == Result({"slept": 9.9})


async def test_a_slow_chain_is_cancelled_and_refused(bench, autojump_clock):
    """After `after` seconds the inner chain is cancelled, and the error says how long it had."""
    cancelled_at = []

    async def slow(exchange):
        try:
            await trio.sleep_forever()
        finally:
            cancelled_at.append(trio.current_time() - start)

    start = trio.current_time()
    with pytest.raises(DeadlineExceeded) as caught:
        await bench.service(slow, _stage(bench, after=10))(bench.exchange())

    assert cancelled_at == [10]
    assert caught.value.data == {"timeout_ms": 10_000}
    assert caught.value.message == "no answer within 10s (after of timeout); report progress, or raise the limit"


async def test_the_error_can_be_seen_by_a_stage_around_it(bench, autojump_clock):
    """A retry around the stage gets an exception, not a cancellation, and can call again."""
    attempts = []

    async def slow_once(exchange):
        attempts.append(trio.current_time())
        await trio.sleep(100 if len(attempts) == 1 else 1)
        return Result()

    service = bench.service(slow_once, _stage(bench, after=10))
    exchange = bench.exchange()
    with pytest.raises(DeadlineExceeded):
        await service(exchange)
    reply = await service(exchange)

    assert reply == Result()
    assert attempts[1] - attempts[0] == 10


@pytest.mark.parametrize(("outer", "inner"), [(5, 50), (50, 5)])
async def test_the_nearest_deadline_wins(bench, autojump_clock, outer, inner):
    """Of two stages the shorter time counts, wherever it stands; what is inside sees it as its deadline."""
    seen = []

    async def slow(exchange):
        seen.append(exchange.deadline - trio.current_time())
        await trio.sleep_forever()

    service = bench.service(slow, _stage(bench, "outer", after=outer), _stage(bench, "inner", after=inner))
    with pytest.raises(DeadlineExceeded) as caught:
        await service(bench.exchange())

    assert caught.value.data == {"timeout_ms": 5000}
    assert seen == [5]


async def test_the_engines_nearer_deadline_is_seen_inside(bench, autojump_clock):
    """The stage never gives an exchange more time than it has."""
    exchange = bench.exchange()
    exchange.link.deadline = trio.current_time() + 3
    seen = []

    async def sink(inner):
        seen.append(inner.deadline - trio.current_time())
        return Result()

    await bench.service(sink, _stage(bench, after=10))(exchange)

    assert seen == [3]


async def test_progress_starts_the_time_anew(bench, autojump_clock):
    """A call that reports progress every 8 s may take longer than 10 s."""
    reply = await bench.service(_sleeper(40, every=8), _stage(bench, after=10))(bench.exchange())

    assert reply == Result({"slept": 40})
    assert bench.sent == [PROGRESS] * 4


async def test_on_progress_keep_gives_no_more_time(bench, autojump_clock):
    """With `keep`, progress is relayed and changes nothing."""
    start = trio.current_time()
    with pytest.raises(DeadlineExceeded):
        await bench.service(_sleeper(40, every=8), _stage(bench, after=10, on_progress="keep"))(bench.exchange())

    assert trio.current_time() - start == 10
    assert bench.sent == [PROGRESS]


async def test_other_notifications_give_no_more_time(bench, autojump_clock):
    """A log message is not progress."""
    with pytest.raises(DeadlineExceeded):
        await bench.service(_sleeper(40, 8, LOG_MESSAGE), _stage(bench, after=10))(bench.exchange())

    assert bench.sent == [LOG_MESSAGE]


async def test_at_most_ends_an_exchange_whatever_it_reports(bench, autojump_clock):
    """Progress moves the deadline up to `at_most`, and the error names that limit."""
    start = trio.current_time()
    with pytest.raises(DeadlineExceeded) as caught:
        await bench.service(_sleeper(100, every=8), _stage(bench, after=10, at_most=35))(bench.exchange())

    assert trio.current_time() - start == 35
    assert caught.value.data == {"timeout_ms": 35_000}
    assert caught.value.message == "no answer within 35s, in spite of progress (at_most of timeout)"


async def test_an_after_above_at_most_stands(bench, autojump_clock):
    """`at_most` limits what progress adds, not what was given in the first place; progress takes nothing away."""
    reply = await bench.service(_sleeper(45, every=8), _stage(bench, after=50, at_most=20))(bench.exchange())
    assert reply == Result({"slept": 45})

    with pytest.raises(DeadlineExceeded) as caught:
        await bench.service(_sleeper(100), _stage(bench, after=50, at_most=20))(bench.exchange())

    assert caught.value.data == {"timeout_ms": 50_000}


async def test_listeners_last_when_nothing_limits_them(bench, autojump_clock):
    """A LISTEN exchange has no timeout by default."""
    reply = await bench.service(_sleeper(86_400), _stage(bench, after=10))(bench.exchange("subscriptions/listen"))

    assert reply == Result({"slept": 86_400})


async def test_idle_after_ends_a_silent_listener(bench, autojump_clock):
    """Any notification keeps a LISTEN exchange alive; silence ends it, however late."""
    listener = bench.exchange("subscriptions/listen")
    alive = await bench.service(_sleeper(7200, 500, LOG_MESSAGE), _stage(bench, idle_after=600))(listener)
    start = trio.current_time()
    with pytest.raises(DeadlineExceeded) as caught:
        await bench.service(_sleeper(7200, 700, LOG_MESSAGE), _stage(bench, idle_after=600))(listener)

    assert alive == Result({"slept": 7200})
    assert trio.current_time() - start == 600
    assert caught.value.message == "nothing happened for 10m (idle_after of timeout)"


@pytest.mark.parametrize(
    ("method", "name", "given"),
    [("tools/call", "export_all", 120), ("tools/call", "echo", 20), ("resources/read", "file:///a", 5)],
)
async def test_the_first_override_that_matches_counts(bench, autojump_clock, method, name, given):
    """Overrides go by method and target; what none of them matches gets `after`."""
    overrides = (
        Override(when=When(method=("tools/call",), name=("export_*",)), after=120),
        Override(when=When(method=("tools/*",)), after=20),
        Override(when=When(method=("tools/call",)), after=1),
    )
    params = {"uri": name} if method == "resources/read" else {"name": name}
    with pytest.raises(DeadlineExceeded) as caught:
        await bench.service(_sleeper(1000), _stage(bench, after=5, overrides=overrides))(bench.exchange(method, params))

    assert caught.value.data == {"timeout_ms": given * 1000}


async def test_an_outside_cancel_is_not_a_timeout(bench, autojump_clock):
    """A cancel from around the stage passes through it, and nothing of the stage stays behind."""
    exchange = bench.exchange()
    with trio.move_on_after(1) as scope:
        await bench.service(_sleeper(100), _stage(bench, after=10))(exchange)

    assert scope.cancelled_caught
    assert exchange.marks == {}


async def test_an_attempt_forked_inside_moves_the_same_deadline(bench, autojump_clock):
    """Progress of a retry inside the stage counts for the stage around it."""

    async def forking(exchange):
        return await _sleeper(40, every=8)(exchange.fork())

    assert await bench.service(forking, _stage(bench, after=10))(bench.exchange()) == Result({"slept": 40})
