"""Places: how many, for whom, in which order, and that none is ever lost."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from trio.testing import MockClock

from sluiceway.middlewares.concurrency_limit import ConcurrencyLimit
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import CapacityExceeded
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import cancel_everywhere


def _stage(bench, **options):
    return ConcurrencyLimit(ConcurrencyLimit.Config(**options), bench.context("limit"))


class Gauge:
    """A sink that takes its time and counts who is inside, in all and by key."""

    def __init__(self, seconds=1.0, key=lambda exchange: None):
        self.seconds = seconds
        self.key = key
        self.inside = Counter()
        self.most = Counter()
        self.entered = []

    async def __call__(self, exchange):
        key = self.key(exchange)
        self.inside[key] += 1
        self.most[key] = max(self.most[key], self.inside[key])
        self.entered.append(exchange.request.params.get("n"))
        try:
            await trio.sleep(self.seconds)
        finally:
            self.inside[key] -= 1
        return Result()


async def _outcome(service, exchange):
    try:
        return await service(exchange)
    except CapacityExceeded as error:
        return error


async def _all(service, exchanges):
    """What becomes of exchanges that arrive at once, in order."""
    outcomes = [None] * len(exchanges)

    async def run(index, exchange):
        outcomes[index] = await _outcome(service, exchange)

    async with trio.open_nursery() as nursery:
        for index, exchange in enumerate(exchanges):
            nursery.start_soon(run, index, exchange)
            await trio.testing.wait_all_tasks_blocked()
    return ["in" if isinstance(outcome, Result) else "refused" for outcome in outcomes]


def _calls(bench, count, method="tools/call", **kwargs):
    return [bench.exchange(method, {"name": "echo", "n": n}, **kwargs) for n in range(count)]


async def test_one_more_than_the_limit_is_refused(bench, autojump_clock):
    """With nobody allowed to wait, the exchange above `max_in_flight` is refused at once, with a hint."""
    gauge, stage = Gauge(), _stage(bench, max_in_flight=3)
    service = bench.service(gauge, stage)

    assert await _all(service, _calls(bench, 5)) == ["in"] * 3 + ["refused"] * 2
    assert gauge.most[None] == 3


async def test_a_refusal_names_the_limits_and_when_to_come_back(bench, autojump_clock):
    """The error says what is full, what to change, and carries `retry_after`."""
    service = bench.service(Gauge(), _stage(bench, max_in_flight=1, retry_after=2.5))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service, bench.exchange())
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CapacityExceeded) as caught:
            await service(bench.exchange())

    assert caught.value.retry_after_s == 2.5
    assert caught.value.message == ("limit: max_in_flight is 1 and max_waiting is 0 per all; send less, or raise one")


async def test_waiting_exchanges_get_in_in_order(bench, autojump_clock):
    """Up to `max_waiting` wait, first come first served; the next one is refused."""
    gauge = Gauge(0.1)
    service = bench.service(gauge, _stage(bench, max_in_flight=1, max_waiting=3))

    assert await _all(service, _calls(bench, 5)) == ["in"] * 4 + ["refused"]
    assert gauge.entered == [0, 1, 2, 3]


async def test_nobody_waits_longer_than_wait_at_most(bench, autojump_clock):
    """A place that does not become free in time is no place."""
    service = bench.service(Gauge(10), _stage(bench, max_in_flight=1, max_waiting=5, wait_at_most=2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service, bench.exchange())
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        with pytest.raises(CapacityExceeded) as caught:
            await service(bench.exchange())

        assert trio.current_time() - start == 2
        assert caught.value.message == "limit: no place became free within 2s"


@pytest.mark.parametrize(
    ("per", "separate"),
    [
        ("all", {"caller": False, "tenant": False, "method": False, "target": False}),
        ("caller", {"caller": True, "tenant": True, "method": False, "target": False}),
        ("tenant", {"caller": False, "tenant": True, "method": False, "target": False}),
        ("method", {"caller": False, "tenant": False, "method": True, "target": False}),
        ("target", {"caller": False, "tenant": False, "method": True, "target": True}),
    ],
)
async def test_per_says_what_is_counted_together(bench, autojump_clock, per, separate):
    """With one place per key, a second exchange gets in exactly if its key is another one."""
    base = bench.exchange(params={"name": "echo"}, caller=Caller("ana", tenant="acme"))
    others = {
        "caller": bench.exchange(params={"name": "echo"}, caller=Caller("bob", tenant="acme")),
        "tenant": bench.exchange(params={"name": "echo"}, caller=Caller("ana", tenant="globex")),
        "method": bench.exchange("prompts/get", {"name": "echo"}, caller=Caller("ana", tenant="acme")),
        "target": bench.exchange(params={"name": "other"}, caller=Caller("ana", tenant="acme")),
    }
    got_in = {}
    for what, other in others.items():
        service = bench.service(Gauge(), _stage(bench, max_in_flight=1, per=per))
        got_in[what] = await _all(service, [base, other]) == ["in", "in"]

    assert got_in == separate


async def test_keys_are_forgotten_when_nobody_uses_them(bench, autojump_clock):
    """The table of keys is as large as what is inside, and empty at the end."""
    stage = _stage(bench, max_in_flight=1, max_waiting=1, per="caller", wait_at_most=0.5)
    callers = [Caller(f"c{n % 20}") for n in range(60)]
    await _all(bench.service(Gauge(), stage), [bench.exchange(caller=caller) for caller in callers])

    assert len(stage._calls) == 0


async def test_max_keys_bounds_the_table(bench, autojump_clock):
    """A key too many is refused; keys that are in the table are served."""
    service = bench.service(Gauge(), _stage(bench, max_in_flight=2, per="caller", max_keys=2))
    exchanges = [bench.exchange(caller=Caller(name)) for name in ("a", "b", "c", "a")]

    assert await _all(service, exchanges) == ["in", "in", "refused", "in"]


async def test_listeners_do_not_take_the_places_of_requests(bench, autojump_clock):
    """LISTEN exchanges are not counted among the others, and not limited by default."""
    service = bench.service(Gauge(), _stage(bench, max_in_flight=1))
    listeners = [bench.exchange("subscriptions/listen") for _ in range(5)]

    assert await _all(service, [*listeners, bench.exchange()]) == ["in"] * 6


async def test_max_listeners_counts_them_apart(bench, autojump_clock):
    """Listeners have their own places, and never wait for one."""
    service = bench.service(Gauge(), _stage(bench, max_in_flight=1, max_waiting=9, max_listeners=2))
    listeners = [bench.exchange("subscriptions/listen") for _ in range(3)]

    assert await _all(service, [*listeners, bench.exchange()]) == ["in", "in", "refused", "in"]


async def test_a_refused_listener_is_told_which_limit(bench, autojump_clock):
    """The error of a listener names `max_listeners`."""
    service = bench.service(Gauge(), _stage(bench, max_listeners=1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service, bench.exchange("subscriptions/listen"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CapacityExceeded, match="max_listeners is 1; end a subscription, or raise it"):
            await service(bench.exchange("subscriptions/listen"))


async def test_notifications_pass_a_full_stage(bench, autojump_clock):
    """A cancel notice does not queue behind the call it is meant to end."""
    service = bench.service(Gauge(), _stage(bench, max_in_flight=1))

    assert await _all(service, [bench.exchange(), bench.exchange("notifications/cancelled")]) == ["in", "in"]


async def test_a_failing_chain_gives_its_place_back(bench):
    """Whatever is raised inside, the place is free again."""

    async def failing(exchange):
        raise ZeroDivisionError

    stage = _stage(bench, max_in_flight=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await bench.service(failing, stage)(bench.exchange())

    assert len(stage._calls) == 0


SECONDS = st.integers(0, 12).map(lambda quarters: quarters / 4)
ARRIVALS = st.lists(
    st.tuples(
        SECONDS, SECONDS, st.none() | SECONDS, st.sampled_from("ab")
    ),  # arrives, takes, is cancelled after, caller
    max_size=25,
)


class Day:
    """What happened to a list of arrivals, in virtual time."""

    def __init__(self, bench, stage, per):
        self.bench = bench
        self.per = per
        self.gauge = Gauge(key=self.key)
        self.service = bench.service(self.serve, stage)
        self.arrived = []
        self.entered = {}
        self.ended = Counter()

    def key(self, exchange):
        return exchange.caller.subject if self.per == "caller" else None

    async def serve(self, exchange):
        n = exchange.request.params["n"]
        self.entered[n] = trio.current_time()
        self.gauge.seconds = exchange.request.params["takes"]
        return await self.gauge(exchange)

    async def visit(self, n, arrival):
        at, takes, cancelled_after, caller = arrival
        await trio.sleep_until(at)
        exchange = self.bench.exchange(params={"name": "x", "n": n, "takes": takes}, caller=Caller(caller))
        self.arrived.append((self.key(exchange), n))
        with trio.move_on_after(float("inf") if cancelled_after is None else cancelled_after):
            await _outcome(self.service, exchange)
        self.ended[n] += 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals=ARRIVALS, limit=st.integers(1, 3), waiting=st.integers(0, 4), per=st.sampled_from(["all", "caller"]))
def test_laws(bench, arrivals, limit, waiting, per):
    """
    Whoever comes when, and whoever is cancelled: never more inside than there are places, first come first served,
    everybody ends once, and every place is there again afterwards.
    """
    stage = _stage(bench, max_in_flight=limit, max_waiting=waiting, wait_at_most=1.5, per=per)
    day = Day(bench, stage, per)

    async def run():
        async with trio.open_nursery() as nursery:
            for n, arrival in enumerate(arrivals):
                nursery.start_soon(day.visit, n, arrival)
        assert len(stage._calls) == 0
        assert await _all(bench.service(Gauge(), stage), _calls(bench, limit)) == ["in"] * limit

    trio.run(run, clock=MockClock(autojump_threshold=0), strict_exception_groups=True)

    assert all(most <= limit for most in day.gauge.most.values())
    assert day.ended == Counter(range(len(arrivals)))
    for key in {key for key, _ in day.arrived}:
        entries = [day.entered[n] for k, n in day.arrived if k == key and n in day.entered]
        assert entries == sorted(entries)


@pytest.mark.parametrize("target", ["first", "second"])
async def test_a_cancel_at_any_point_leaves_no_place_taken(bench, autojump_clock, target):
    """One exchange runs, one waits for its place; whichever is cancelled, wherever it is, all places are free after."""
    stage = _stage(bench, max_in_flight=1, max_waiting=1, wait_at_most=3)
    service = bench.service(Gauge(1), stage)

    @asynccontextmanager
    async def trial():
        async with trio.open_nursery() as nursery:
            if target == "second":
                nursery.start_soon(_outcome, service, bench.exchange())
                await trio.testing.wait_all_tasks_blocked()
            else:
                nursery.start_soon(_late, service, bench.exchange())
            yield lambda: _outcome(service, bench.exchange())
        assert len(stage._calls) == 0

    await cancel_everywhere(trial)


async def _late(service, exchange):
    await trio.sleep(0.5)
    await _outcome(service, exchange)


async def test_what_an_operator_sees(bench, autojump_clock):
    """Places, waiters, decisions and counters, while it works and afterwards."""
    stage = _stage(bench, max_in_flight=1, max_waiting=2, wait_at_most=1.5, max_listeners=1)
    service = bench.service(Gauge(), stage)
    exchanges = [*_calls(bench, 4), bench.exchange("subscriptions/listen")]
    async with trio.open_nursery() as nursery:
        for exchange in exchanges:
            nursery.start_soon(_outcome, service, exchange)
            await trio.testing.wait_all_tasks_blocked()
        assert stage.details() == {"in_flight": 1, "waiting": 2, "listeners": 1, "refused": 1}

    decisions = [[(made.outcome, made.cause) for made in exchange.link.decisions] for exchange in exchanges]
    assert decisions == [
        [("allow", "")],
        [("allow", "")],
        [("refuse", "wait_at_most")],
        [("refuse", "full")],
        [("allow", "")],
    ]
    assert {(figure.name, *figure.labels.values()): figure.value for figure in stage.figures()} == {
        ("concurrency_limit_in_flight",): 0,
        ("concurrency_limit_listeners",): 0,
        ("concurrency_limit_waiting",): 0,
        ("concurrency_limit_exchanges_total", "allow"): 3,
        ("concurrency_limit_exchanges_total", "refuse"): 2,
        ("concurrency_limit_waits_total",): 1,
    }


async def test_anonymous_callers_are_told_apart_by_their_addresses(bench, autojump_clock):
    """Nobody's place is not everybody's."""
    service = bench.service(Gauge(), _stage(bench, max_in_flight=1, per="caller"))
    exchanges = _calls(bench, 3)
    exchanges[1].client = replace(exchanges[1].client, address="192.0.2.2")

    assert await _all(service, exchanges) == ["in", "in", "refused"]
