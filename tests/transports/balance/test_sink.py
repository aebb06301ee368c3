"""The sink as a whole: its contract, its options, what an operator can tell it."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import pytest
import trio
import yaml
from trio.testing import wait_all_tasks_blocked

from sluiceway.pipeline.config import ConfigError, check_text, from_data
from sluiceway.pipeline.model.component import Context, State
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import ComponentError, ConnectFailed, UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import (
    FakeSink,
    PipelineHarness,
    cancel_everywhere,
    check_sink,
    legacy_client,
    memory_exchange,
)
from sluiceway.transports.balance.config import BalanceConfig, HealthConfig
from sluiceway.transports.balance.sink import BalanceSink


class LastOne:
    """A strategy of somebody else's: the last upstream, or the one that the key names."""

    def __init__(self, rng: random.Random) -> None:
        self.random = rng

    def choose(self, upstreams, key, now):
        return next((each for each in upstreams if key == each.id.encode()), upstreams[-1])


async def _echo(exchange):
    await trio.lowlevel.checkpoint()
    return Result({"method": exchange.method})


class OverFakes(BalanceSink):
    """The sink with upstreams of its own."""

    def __init__(self, config, context):
        context.sinks = lambda _: _echo
        super().__init__(config, context)


def test_the_sink_keeps_the_contract():
    """Cancelled at every checkpoint, opened twice, asked for many things."""
    check_sink(OverFakes, {"to": ["one", "two"], "health": {"probe": "none"}})


@pytest.mark.parametrize("method", ["tools/call", "subscriptions/listen", "initialize", "tasks/get"])
async def test_a_cancelled_exchange_leaves_nothing(autojump_clock, method):
    """At whatever point: nothing in flight, and the next one is served as if nothing had been."""

    @asynccontextmanager
    async def trial():
        fails = FakeSink.fail(times=1, then=FakeSink.slow(0.1))
        config = BalanceConfig(to=("a", "b"), strategy="round_robin", health=HealthConfig(probe="none"))
        sink = BalanceSink(config, Context(id="sinks.all", sinks={"a": fails, "b": FakeSink.slow(0.1)}.__getitem__))
        client = {"client": legacy_client()} if method == "initialize" else {}
        async with sink.open():
            yield lambda: sink(memory_exchange(method, {"name": "t", "taskId": "1", "notifications": {}}, **client))
            await wait_all_tasks_blocked()
            upstreams = sink.details()["upstreams"].values()
            assert [(each["in_flight"], each["listeners"]) for each in upstreams] == [(0, 0), (0, 0)]
            assert isinstance(await sink(memory_exchange("tools/list")), Result)

    assert await cancel_everywhere(trial) > 1


async def test_a_closed_group_takes_no_requests(autojump_clock, group):
    """Before it opens and after it has closed; it has nothing to show or to do then."""
    async with group("a") as made:
        await made.call()
    with pytest.raises(UpstreamUnavailable, match="is closed"):
        await made.call()
    assert made.sink.details() == {}
    assert list(made.sink.figures()) == []
    with pytest.raises(ValueError, match="is not open"):
        await made.sink.act("drain", {"upstream": "a"})


async def test_an_upstream_is_drained_while_it_serves(autojump_clock, group):
    """What is inside is answered, sessions stay, streams end well, nothing new comes; until it is taken back."""
    async with group("a", "b", strategy="round_robin") as made:
        client = legacy_client()
        await made.sink(memory_exchange("initialize", {"protocolVersion": "2025-11-25"}, client=client))  # a
        await made.call()  # b
        made.ups["a"].delay = 5
        answers: list[str] = []
        ended: list[object] = []
        member = made.sink._open.group.members[0]
        service = member.service

        async def serve(exchange):
            if exchange.method == "subscriptions/listen":
                await exchange.draining.wait()
                return Result({"resultType": "complete"})
            return await service(exchange)

        async def call() -> None:
            answers.append(await made.call())

        async def listen() -> None:
            ended.append(await made.sink(memory_exchange("subscriptions/listen", {"notifications": {}})))

        member.service = serve
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            shown = await made.sink.act("drain", {"upstream": "a"})
            assert shown["upstreams"]["a"]["state"] == "drained"
            assert shown["upstreams"]["a"]["in_flight"] == 1
            assert await made.calls(4) == {"b": 4}
            assert await made.call(client=client) == "a"
        assert answers == ["a"]
        assert ended == [Result({"resultType": "complete"})]
        await made.sink.act("undrain", {"upstream": "a"})

        assert set(await made.calls(4)) == {"a", "b"}


async def test_no_request_is_lost_while_an_upstream_drains(autojump_clock, group):
    """A thousand, and two of three upstreams drained among them."""
    async with group() as made:
        for up in made.ups.values():
            up.delay = 0.05
        answers = []

        async def one(number: int) -> None:
            await trio.sleep(number / 100)
            answers.append(await made.call())

        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(one, number)
            for name, at in (("a", 3), ("b", 3)):
                await trio.sleep(at)
                await made.sink.act("drain", {"upstream": name})
        late = answers[-300:]

        assert len(answers) == 1000
        assert set(late) == {"c"}


async def test_what_an_operator_says_outlives_a_reload(autojump_clock, group):
    """And so does what failures have taught."""
    kept: dict = {}
    options = {"eject": {"consecutive": 1}, "panic_threshold": "0%"}
    async with group(kept=kept, **options) as made:
        made.ups["b"].error = ConnectFailed("no")
        await made.calls(10)
        await made.sink.act("drain", {"upstream": "a"})
    async with group(kept=kept, **options) as made:
        assert [made.state(name) for name in "abc"] == ["drained", "ejected", "ready"]
        assert await made.calls(5) == {"c": 5}


@pytest.mark.parametrize("arguments", [{}, {"upstream": "z"}, {"upstream": "a", "now": True}])
async def test_an_action_names_an_upstream(autojump_clock, group, arguments):
    """One that there is."""
    async with group("a", "b") as made:
        with pytest.raises(ValueError, match="expected upstream=<id>, one of: a, b"):
            await made.sink.act("drain", arguments)
        with pytest.raises(LookupError, match="has no action"):
            await made.sink.act("explode", arguments)


async def test_figures_are_those_of_every_upstream(autojump_clock, group):
    """By its id."""
    async with group("a", "b", strategy="round_robin") as made:
        made.ups["a"].delay = 0.25
        await made.call()
        figures = {(each.name, each.labels.get("upstream")): each.value for each in made.sink.figures()}

        assert figures["balance_requests_total", "a"] == 1
        assert figures["balance_latency_seconds", "a"] == 0.25
        assert figures["balance_usable", "b"] == 1
        assert figures["balance_failovers_total", None] == 0


async def test_failures_in_a_row_put_an_upstream_out_and_time_brings_it_back(autojump_clock, group):
    """For `base`, the second time for twice that, never for longer than `max`; the supervisor hears of it."""
    eject = {"consecutive": 2, "base": "10s", "max": "15s", "window": "1h"}
    async with group("a", "b", strategy="round_robin", eject=eject) as made:
        made.ups["a"].error = ConnectFailed("no")
        for seconds in (10, 15, 15):
            await made.calls(4)
            assert made.state("a") == "ejected"
            assert made.reports[-1] == (State.DEGRADED, "1 of 2 upstreams are out: a")
            assert await made.calls(5) == {"b": 5}
            await trio.sleep(seconds - 0.1)
            assert made.state("a") == "ejected"
            await trio.sleep(0.2)
            assert made.state("a") == "ready"


async def test_failures_far_apart_are_not_in_a_row(autojump_clock, group):
    """After `window` they count anew."""
    async with group("a", "b", strategy="round_robin", eject={"consecutive": 2, "window": "5s"}) as made:
        made.ups["a"].error = ConnectFailed("no")
        for _ in range(4):
            await made.calls(1)
            await trio.sleep(6)
        assert made.state("a") == "ready"


async def test_only_a_share_may_be_out(autojump_clock, group):
    """Of four, half: the third one that fails stays, and failover goes around it."""
    async with group(
        "a", "b", "c", "d", strategy="round_robin", eject={"consecutive": 1, "max_ejected": "50%"}, panic_threshold="0%"
    ) as made:
        for name in "abc":
            made.ups[name].error = ConnectFailed("no")
        assert await made.calls(20) == {"d": 20}

        assert [made.state(name) for name in "abcd"] == ["ejected", "ejected", "ready", "ready"]


async def test_if_too_many_are_out_all_are_used(autojump_clock, group):
    """Below `panic_threshold`, which is shown."""
    async with group("a", "b", "c", eject={"consecutive": 1, "max_ejected": "100%"}, panic_threshold="60%") as made:
        for name in "ab":
            made.ups[name].error = ConnectFailed("no")
        await made.calls(20)
        assert made.sink.details()["panics"]
        for up in made.ups.values():
            up.error = None

        assert set(await made.calls(50)) == {"a", "b", "c"}


async def test_who_is_back_starts_slowly(autojump_clock, group):
    """With a small part of what the other one gets."""
    async with group("a", "b", strategy="random", slow_start="60s") as made:
        await made.call()
        await made.sink.act("drain", {"upstream": "a"})
        await made.sink.act("undrain", {"upstream": "a"})
        assert made.state("a") == "warming"
        early = (await made.calls(400))["a"]
        await trio.sleep(61)

        assert made.state("a") == "ready"
        assert early < 60 < 150 < (await made.calls(400))["a"]


async def test_weights_are_those_of_the_configuration(autojump_clock, group):
    """A weight of 0 gets nothing."""
    to = {"a": {"weight": 3}, "b": {"weight": 1}, "c": {"weight": 0}}
    async with group(to=to, strategy="weighted") as made:
        counts = await made.calls(400)

        assert 260 < counts["a"] < 340
        assert counts["c"] == 0
        assert made.state("c") == "drained"


async def test_keys_stay_where_they_are(autojump_clock, group):
    """Callers by default, spread over all; and in another process the same."""
    callers = [Caller(f"user {number}", tenant=f"tenant {number % 5}", how="bearer") for number in range(50)]
    homes = []
    for _ in range(2):
        async with group(strategy="consistent_hash") as made:
            first = [await made.call(caller=caller) for caller in callers]
            assert [await made.call(caller=caller) for caller in callers] == first
            homes.append(first)
    assert homes[0] == homes[1]
    assert set(homes[0]) == {"a", "b", "c"}
    async with group(strategy="consistent_hash", hash={"by": "tenant"}) as made:
        by_tenant = [await made.call(caller=caller) for caller in callers]
        assert by_tenant == by_tenant[:5] * 10
    async with group(strategy="consistent_hash", hash={"virtual_nodes": 1}) as made:
        assert [await made.call(caller=caller) for caller in callers] != homes[0]


async def test_a_bounded_load_spills_over(autojump_clock, group):
    """Ten calls of one caller: with a factor nobody has more than its part of them, without one has all."""
    for bound, most in ((None, 10), (1.25, 5)):
        options = {"by": "caller"} if bound is None else {"by": "caller", "bounded_load": bound}
        async with group(strategy="consistent_hash", hash=options) as made:
            for up in made.ups.values():
                up.delay = 1
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(made.call)
            assert max(up.peak for up in made.ups.values()) == most


async def test_a_strategy_of_ones_own(autojump_clock, group):
    """By its import path; it is given the key."""
    own = f"{__name__}:LastOne"
    async with group(strategy=own, hash={"by": "header:x-upstream"}) as made:
        assert await made.calls(3) == {"c": 3}
    for broken in (f"{__name__}:Nothing", "no.such.module:Class"):
        with pytest.raises(ComponentError, match=r"strategy: .* cannot be had"):
            async with group(strategy=broken):
                pass


async def test_an_upstream_has_a_probe_of_its_own(group):
    """A port, while the others are sent what `health.probe` says."""

    async def hang_up(stream):
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, hang_up, 0)
        port = listeners[0].socket.getsockname()[1]
        to = {"a": {"probe": f"tcp://127.0.0.1:{port}"}, "b": {"probe": "tcp://127.0.0.1:1"}, "c": {}}
        health = {"probe": "discover", "interval": "20ms", "timeout": "5s", "unhealthy_after": 1}
        async with group(to=to, health=health) as made:
            with trio.fail_after(20):
                while made.state("b") != "down" or not made.ups["c"].probes:  # noqa: ASYNC110  # real sockets
                    await trio.sleep(0.01)
            assert made.state("a") == "ready"
            assert made.ups["a"].probes == made.ups["b"].probes == 0
        nursery.cancel_scope.cancel()


async def test_a_modern_notification_goes_to_one(autojump_clock, group):
    """But for a cancellation, whose id is the client's own."""
    async with group("a", "b") as made:
        await made.sink(memory_exchange("notifications/cancelled", {"requestId": 1}))
        assert [up.seen for up in made.ups.values()] == [[], []]
        await made.sink(memory_exchange("notifications/acme", {}))

        assert sorted(len(up.seen) for up in made.ups.values()) == [0, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to": []}, "names no sink"),
        ({"to": ["a", "a"]}, "names a sink twice"),
        ({"to": {"a": {"weight": 0}}}, "every weight is 0"),
        ({"to": {"a": {"probe": "10.0.0.1"}}}, "expected tcp://host:port"),
        ({"strategy": "fastest"}, "'fastest' is none of"),
        ({"hash": {"by": "header:"}}, "is none of caller, tenant, session, target"),
        ({"eject": {"base": "1m", "max": "1s"}}, "max is shorter than base"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, said):
    """When the file is read."""
    with pytest.raises(ConfigError, match=said):
        from_data(
            {
                "version": 1,
                "pipelines": {"main": {"sink": "all"}},
                "sinks": {"all": {"balance": {"to": ["a"], **options}}, "a": {"embedded": {"expose": []}}},
            }
        )


def test_stages_in_front_of_a_group_have_one_upstream():
    """A retry there is right: its attempts go to another one. In front of a route it would be a warning."""
    data = {
        "version": 1,
        "sources": {"test": {"stdio": {}}},
        "pipelines": {"main": {"chain": ["retry"], "sink": "all"}},
        "sinks": {"a": {"embedded": {}}, "b": {"embedded": {}}},
    }
    rules = []
    for router in ("balance", "route"):
        data["sinks"]["all"] = {router: {"to": ["a", "b"]}}
        rules.append([problem.rule for problem in check_text(yaml.safe_dump(data)).problems])

    assert rules == [[], ["order/retry-over-several-sinks"]]


async def test_the_engine_knows_it_as_a_router(autojump_clock):
    """Attempts are counted at the upstreams, and a chain of each sees its part."""
    data = {
        "version": 1,
        "sources": {"test": {"stdio": {}}},
        "pipelines": {"main": {"sink": "all"}},
        "sinks": {
            "all": {"balance": {"to": ["a", "b"], "strategy": "round_robin", "health": {"probe": "none"}}},
            "a": {"embedded": {"expose": []}, "max_in_flight": 1},
            "b": {"embedded": {"expose": []}},
        },
    }
    a, b = FakeSink(), FakeSink.echo()
    async with PipelineHarness.from_data(data, sinks={"a": a, "b": b}) as gateway:
        first = gateway.start("tools/list")
        held = await a.next()
        await gateway.call_many("tools/list", times=3)
        await held.reply({"tools": []})

        assert await first.wait() == Result({"tools": []})
        assert len(b.requests) == 3
