"""Failover, counts, streams: what becomes of one exchange."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    CircuitOpen,
    ConnectFailed,
    InternalError,
    UpstreamClosed,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.messages import ErrorReply, Result
from sluiceway.pipeline.testing import memory_exchange


def decisions(exchange):
    """What was decided, in order."""
    return [(each.outcome, each.cause) for each in exchange.link.decisions]


@pytest.mark.parametrize(
    "error", [ConnectFailed("no"), UpstreamUnavailable("no"), CapacityExceeded("no"), CircuitOpen("no")]
)
async def test_what_was_not_sent_goes_to_the_next(autojump_clock, group, error):
    """Two open breakers: the third is used; each is tried once."""
    async with group(strategy="round_robin") as made:
        made.ups["a"].error = made.ups["b"].error = error
        exchange = memory_exchange("tools/call", {"name": "t"})
        assert Result({"by": "c"}) == await made.sink(exchange)

        assert decisions(exchange) == [
            ("choose", "a"), ("failover", error.reason), ("choose", "b"), ("failover", error.reason), ("choose", "c"),
        ]  # fmt: skip
        assert [len(up.seen) for up in made.ups.values()] == [1, 1, 1]
        assert made.sink.details()["failovers"] == 2


async def test_what_was_sent_is_not_sent_again(autojump_clock, group):
    """It may have run."""
    async with group(strategy="round_robin") as made:
        made.ups["a"].error = UpstreamClosed("gone")
        with pytest.raises(UpstreamClosed):
            await made.call()

        assert [len(up.seen) for up in made.ups.values()] == [1, 0, 0]


async def test_when_nobody_can_be_reached_all_are_named(autojump_clock, group):
    """503 with what the last one said; one of them back is used again."""
    async with group(strategy="round_robin") as made:
        for up in made.ups.values():
            up.error = ConnectFailed(f"{up.name} is dead")
        with pytest.raises(UpstreamUnavailable, match=r"none of a, b, c can be reached.*c is dead") as caught:
            await made.call()
        assert caught.value.http_status == 503
        made.ups["b"].error = None

        assert await made.call() == "b"


async def test_a_limit_of_our_own_is_said_as_such(autojump_clock, group):
    """If that is what the last one met."""
    async with group() as made:
        for up in made.ups.values():
            up.error = CapacityExceeded("full", retry_after_s=1)
        with pytest.raises(CapacityExceeded):
            await made.call()

        assert made.sink.details()["upstreams"]["a"]["failures"] == 0


async def test_nobody_well_is_refused_at_once(autojump_clock, group):
    """Without a panic threshold; nothing is sent."""
    async with group("a", "b", panic_threshold="0%", eject={"consecutive": 1, "max_ejected": "100%"}) as made:
        for up in made.ups.values():
            up.error = ConnectFailed("no")
        with pytest.raises(UpstreamUnavailable, match="none of a, b can be reached"):
            await made.call()
        with pytest.raises(UpstreamUnavailable, match="none of a, b is well"):
            await made.call()

        assert [len(up.seen) for up in made.ups.values()] == [1, 1]


async def test_a_later_attempt_goes_elsewhere(autojump_clock, group):
    """What a retry repeats is not sent to whom it has failed at, until it has failed at all."""
    async with group("a", "b", strategy="round_robin") as made:
        made.ups["a"].error = made.ups["b"].error = UpstreamClosed("gone")
        exchange = memory_exchange("tools/list")
        for attempt in (1, 2, 3):
            with pytest.raises(UpstreamClosed):
                await made.sink(exchange.fork(attempt))

        assert [cause for outcome, cause in decisions(exchange) if outcome == "choose"] == ["a", "b", "a"]


async def test_only_the_chosen_one_is_charged(autojump_clock, group):
    """One success and one failure move its counters and nobody else's."""
    async with group(strategy="round_robin") as made:
        made.ups["a"].delay = 0.5
        await made.call()
        made.ups["b"].answers["tools/call"] = lambda _: ErrorReply(-32603, "broken")
        await made.sink(memory_exchange("tools/call", {"name": "t"}))
        shown = made.sink.details()["upstreams"]

        assert [(each["requests"], each["failures"], each["latency_ms"]) for each in shown.values()] == [
            (1, 0, 500.0), (1, 1, 0.0), (0, 0, 0.0),
        ]  # fmt: skip


async def test_the_time_that_people_take_is_not_the_upstreams(autojump_clock, group):
    """A call that asks its client says nothing about latency."""
    async with group("a") as made:

        async def answer(method, params):
            await trio.sleep(60)
            return Result({"action": "accept"})

        async def serve(exchange):
            await exchange.ask("elicitation/create", {})
            return Result({"by": "a"})

        member = made.sink._open.group.members[0]
        member.service = serve
        await made.sink(memory_exchange("tools/call", {"name": "t"}, ask=answer))

        assert not member.vitals.latency.is_known


async def test_a_deadline_is_the_upstreams_fault_and_a_client_that_left_is_not(autojump_clock, group):
    """Both are cancellations."""
    async with group("a", "b", strategy="round_robin", eject={"consecutive": 1}) as made:
        made.ups["a"].delay = made.ups["b"].delay = 10
        with trio.move_on_after(1):
            await made.call()
        assert made.state("a") == "ready"
        with trio.move_on_after(1):
            await made.call(deadline=trio.current_time() + 1)

        assert made.state("b") == "ejected"
        assert made.in_flight == 0


async def test_ten_thousand_cancelled_calls_leave_no_count(autojump_clock, group):
    """After success, error and cancellation at any moment, nobody has anything in flight."""
    async with group("a", "b", "c", eject={"consecutive": 100_000}) as made:
        made.ups["a"].delay, made.ups["b"].delay, made.ups["c"].error = 1.0, 0.5, InternalError("bug")

        async def one(number: int) -> None:
            with trio.move_on_after(number % 7 / 10):
                with suppress(InternalError):
                    await made.call()

        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for number in range(1000):
                    nursery.start_soon(one, number)

        assert made.in_flight == 0
        assert made.sink.context.kept["ledger"].total == 0


async def test_streams_are_counted_apart_and_spread(autojump_clock, group):
    """Six of them are two each; requests do not see them; at the end none is left."""
    async with group() as made:
        for up in made.ups.values():
            up.delay = 100
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(made.sink, memory_exchange("subscriptions/listen", {"notifications": {}}))
            await wait_all_tasks_blocked()
            shown = made.sink.details()["upstreams"]
            assert [(each["listeners"], each["in_flight"]) for each in shown.values()] == [(2, 0)] * 3
            nursery.cancel_scope.cancel()

        assert made.in_flight == 0


async def test_a_stream_that_fails_is_a_failure(autojump_clock, group):
    """Its upstream went away."""
    async with group("a") as made:
        made.ups["a"].error = UpstreamClosed("gone")
        with pytest.raises(UpstreamClosed):
            await made.sink(memory_exchange("subscriptions/listen", {"notifications": {}}))

        assert made.sink.details()["upstreams"]["a"]["failures"] == 1


async def test_when_the_gateway_drains_streams_hear_of_it(autojump_clock, group):
    """The upstream's sink sees an event of its own."""
    async with group("a") as made:
        exchange = memory_exchange("subscriptions/listen", {"notifications": {}})

        async def until_draining(view):
            await view.draining.wait()
            return Result({"resultType": "complete"})

        made.sink._open.group.members[0].service = until_draining
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.sink, exchange)
            await wait_all_tasks_blocked()
            exchange.draining.set()
