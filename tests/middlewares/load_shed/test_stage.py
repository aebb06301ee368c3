"""What runs, what waits, what is refused; and that overload costs nothing but what is too much."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from sluiceway.middlewares.load_shed import memory as memory_module
from sluiceway.middlewares.load_shed import stage as stage_module
from sluiceway.middlewares.load_shed.memory import resident_bytes
from sluiceway.middlewares.load_shed.options import Adaptive, PriorityRule, Share
from sluiceway.middlewares.load_shed.stage import LoadShed
from sluiceway.pipeline.model.component import Context, State
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.model.when import When
from sluiceway.pipeline.protocol.errors import CapacityExceeded, InvalidParams, UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import cancel_everywhere, check_middleware, memory_exchange

PRIORITIES = (
    PriorityRule(when=When(name=("vital",)), priority="high"),
    PriorityRule(when=When(name=("batch",)), priority="low"),
)


def make(context=None, **options):
    """A stage with priorities by the name of the tool: `vital`, `batch`, and all others."""
    return LoadShed(LoadShed.Config(**{"priorities": PRIORITIES, **options}), context or Context(id="shed"))


def call(number=0, name="echo", tenant="acme", method="tools/call"):
    """An exchange of a tenant."""
    return memory_exchange(method, {"name": name, "n": number}, caller=Caller("ana", tenant, how="bearer"))


class Server:
    """What is behind the stage: takes a second, and notes who came in and how many were in at once."""

    def __init__(self, seconds=1.0):
        self.seconds = seconds
        self.inside = self.most = 0
        self.entered = []
        self.times = {}

    async def __call__(self, exchange):
        self.inside += 1
        self.times[exchange.request.params["n"]] = trio.current_time()
        self.most = max(self.most, self.inside)
        self.entered.append(exchange.request.params["n"])
        try:
            await trio.sleep(self.seconds)
        finally:
            self.inside -= 1
        return Result()


async def outcome(stage, exchange, server):
    """`in`, or the text of the refusal."""
    try:
        await stage(exchange, server)
    except CapacityExceeded as error:
        return error.message
    return "in"


async def together(stage, server, exchanges):
    """What becomes of exchanges that come at once, in order."""
    outcomes = {}

    async def send(index, exchange):
        outcomes[index] = await outcome(stage, exchange, server)

    async with trio.open_nursery() as nursery:
        for index, exchange in enumerate(exchanges):
            nursery.start_soon(send, index, exchange)
            await trio.testing.wait_all_tasks_blocked()
    return [outcomes[index] for index in sorted(outcomes)]


async def test_so_many_run_so_many_wait_and_the_next_is_refused(autojump_clock):
    """First come, first served; a refusal says what is full, and when to come back."""
    stage, server = make(max_in_flight=2, max_waiting=5, wait_at_most=60.0, retry_after=3.0), Server()
    exchanges = [call(number) for number in range(8)]
    outcomes = await together(stage, server, exchanges)

    full = "shed: 2 exchanges run and 4 wait (at most 4 of normal priority); try again later"
    assert outcomes == ["in"] * 6 + [full] * 2
    assert (server.times, server.most) == ({0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 2}, 2)
    decisions = [[(d.stage, d.outcome, d.cause) for d in exchange.link.decisions] for exchange in exchanges]
    assert decisions == [[("shed", "allow", "")]] * 6 + [[("shed", "shed", "full, normal priority")]] * 2


@pytest.mark.parametrize(("shed_above", "waiting"), [(0.8, 800), (800, 800), (1.0, 1000), (5000, 1000), (0, 0)])
async def test_the_queue_is_refused_above_a_share_or_a_number(shed_above, waiting, autojump_clock):
    """The 801st queued of a thousand (S0-CP-05, X-17)."""
    stage, server = make(max_in_flight=1, shed_above=shed_above, wait_at_most=1e6, retry_after=0.01), Server(0.001)
    started = trio.current_time()
    outcomes = await together(stage, server, [call(number) for number in range(waiting + 2)])

    assert Counter(text == "in" for text in outcomes) == {True: waiting + 1, False: 1}
    assert outcomes[-1] != "in"
    assert trio.current_time() - started == pytest.approx((waiting + 1) * 0.001)


async def test_what_matters_more_is_served_first_and_shed_last(autojump_clock):
    """A vital call finds a place in a queue full of others, and one of the least important has to go."""
    stage, server = make(max_in_flight=1, max_waiting=3, shed_above=1.0, wait_at_most=60.0), Server()
    names = ["echo", "batch", "batch", "echo", "vital", "batch"]
    outcomes = await together(stage, server, [call(number, name) for number, name in enumerate(names)])

    displaced = "shed: others of higher priority, or with less waiting, came and took the place in the queue"
    assert outcomes == [
        "in",
        "in",
        f"{displaced}; try again later",
        "in",
        "in",
        "shed: 1 exchanges run and 3 wait (at most 3 of low priority); try again later",
    ]
    assert server.entered == [0, 4, 3, 1]


@pytest.mark.parametrize("per", ["tenant", "caller", "source"])
async def test_a_flood_of_one_delays_another_by_one(per, autojump_clock):
    """Each tenant, caller or source gets its turn, and room in the queue."""
    stage, server = make(max_in_flight=1, max_waiting=6, shed_above=1.0, wait_at_most=60.0, per=per), Server()

    def one_of(who, number):
        return memory_exchange(
            "tools/call",
            {"n": number},
            caller=Caller("ana" if per == "source" else who, "acme" if per != "tenant" else who, how="bearer"),
            source_id=who,
        )

    flood = [one_of("globex", number) for number in range(10)]
    outcomes = await together(stage, server, [*flood, one_of("acme", 100), one_of("acme", 101)])

    assert server.entered == [0, 1, 100, 2, 101, 3, 4]
    assert [text == "in" for text in outcomes] == [True] * 5 + [False] * 5 + [True] * 2


async def test_a_turn_serves_as_many_as_its_weight_says(autojump_clock):
    """While both wait, gold gets three for each one of the other."""
    weights = (Share(when=When(tenant=("go*",)), weight=3),)
    stage, server = make(max_in_flight=1, max_waiting=20, wait_at_most=60.0, weights=weights), Server()
    await together(
        stage,
        server,
        [*(call(number, tenant="tin") for number in range(4)), *(call(100 + n, tenant="gold") for n in range(6))],
    )

    assert server.entered == [0, 1, 100, 101, 102, 2, 103, 104, 105, 3]


async def test_who_waits_too_long_is_refused(autojump_clock):
    """And leaves the queue; the next one gets the place."""
    stage, server = make(max_in_flight=1, max_waiting=5, wait_at_most=1.5), Server()
    outcomes = await together(stage, server, [call(number) for number in range(3)])

    assert outcomes == ["in", "in", "shed: no place became free within 1.5s; try again later"]
    assert stage.details() == {"in_flight": 0, "limit": 1, "waiting": 0, "shed": 1}


async def test_listeners_and_notifications_pass(autojump_clock):
    """Neither counts, and neither waits."""
    stage, server = make(max_in_flight=1, max_waiting=0), Server()
    methods = ["subscriptions/listen", "notifications/cancelled", "tools/call", "subscriptions/listen"]

    assert await together(stage, server, [call(method=method) for method in methods]) == ["in"] * 4
    assert server.most == 4


async def test_slow_answers_lower_the_limit_and_fast_ones_raise_it(autojump_clock):
    """Within its bounds; details tell."""
    adaptive = Adaptive(target=0.5, min_in_flight=2, backoff=0.5)
    stage, server = make(max_in_flight=16, adaptive=adaptive, wait_at_most=600.0), Server(1.0)
    for limit in (8, 4, 2, 2):
        await together(stage, server, [call(number) for number in range(20)])
        assert stage.details()["limit"] <= limit
    server.seconds = 0.1
    await together(stage, server, [call(number) for number in range(200)])

    assert 4 <= stage.details()["limit"] <= 16


@pytest.mark.parametrize(
    ("error", "took_s", "limit"),
    [
        (UpstreamUnavailable("busy"), 0.0, 1),
        (CapacityExceeded("full"), 0.0, 1),
        (InvalidParams("no"), 0.0, 2),
        (InvalidParams("no"), 2.0, 1),
    ],
)
async def test_what_fails_for_overload_counts_and_what_fails_soon_does_not(error, took_s, limit, autojump_clock):
    """A busy upstream is believed; a mistake of the client says nothing, unless it took too long."""
    stage = make(max_in_flight=2, adaptive=Adaptive(target=1.0, min_in_flight=1, backoff=0.5))

    async def fail(_exchange):
        await trio.sleep(took_s)
        raise error

    await trio.sleep(2)
    for _ in range(10):
        with pytest.raises(type(error)):
            await stage(call(), fail)

    assert stage.details()["limit"] == limit


async def test_short_memory_refuses_low_priority_first_and_then_all(autojump_clock, monkeypatch):
    """Above 92 % and above 95 % of the budget, and no longer than it lasts; status and the log tell."""
    used = 0.5
    monkeypatch.setattr(stage_module, "resident_bytes", lambda: used * 1000)
    reports = []
    stage = make(Context(id="shed", report=lambda *what: reports.append(what)), max_memory=1000)
    seen = []
    async with stage.open():
        for used in (0.5, 0.92, 0.95, 0.5):  # the lambda above reads it
            await trio.sleep(0.3)
            seen.append([await outcome(stage, call(name=name), Server()) == "in" for name in ("batch", "echo")])
            if used == 0.95:
                assert await outcome(stage, call(), Server()) == "shed: 95% of max_memory is in use; try again later"

    assert seen == [[True, True], [False, True], [False, False], [True, True]]
    assert reports == [(State.DEGRADED, "92% of max_memory is in use"), (State.READY, "")]


def test_the_memory_of_this_process_is_known(monkeypatch, tmp_path):
    """Megabytes, and not more than there can be; with procfs and without."""
    assert 5e6 < resident_bytes() < 1e12
    monkeypatch.setattr(memory_module, "_STATM", tmp_path / "none")
    assert 5e6 < resident_bytes() < 1e12


async def test_nothing_is_lost_when_the_refused_come_back(autojump_clock):
    """Five thousand requests at once, each repeated until it is let in: every one is done, exactly once (S0-LB-04)."""
    stage, server = make(max_in_flight=12, max_waiting=1000, wait_at_most=60.0, retry_after=0.1), Server(0.001)
    refused = 0

    async def send(number):
        nonlocal refused
        while True:
            try:
                return await stage(call(number), server)
            except CapacityExceeded as error:
                refused += 1
                await trio.sleep(error.retry_after_s)

    async with trio.open_nursery() as nursery:
        for number in range(5000):
            nursery.start_soon(send, number)

    assert sorted(server.entered) == list(range(5000))
    assert server.most == 12
    assert refused >= 5000 - 12 - 800


@pytest.mark.parametrize("adaptive", [None, Adaptive(target=0.15)], ids=["fixed", "adaptive"])
async def test_three_times_the_capacity_does_no_harm(adaptive, autojump_clock):
    """
    Goal R8, in virtual time, over 60 s: at least 80 % of the peak is done, nine of ten admitted take no more than twice
    what they take alone and 99 of 100 no more than that and the wait, and who is refused is told at once.

    The server does ten at once in 0.1 s each: 100 a second. With more it becomes slower by the square of the excess,
    as a server does that runs out of something. The fixed limit is right; the adaptive one starts at three times that.
    """
    stage = make(max_in_flight=10 if adaptive is None else 30, max_waiting=20, wait_at_most=0.1, adaptive=adaptive)
    inside = 0
    took, told = [], []

    async def serve(_exchange):
        nonlocal inside
        inside += 1
        try:
            await trio.sleep(0.1 * max(1.0, inside / 10) ** 2)
        finally:
            inside -= 1
        return Result()

    async def send(tenant):
        start = trio.current_time()
        try:
            await stage(call(tenant=tenant), serve)
            took.append((start, trio.current_time() - start))
        except CapacityExceeded:
            told.append(trio.current_time() - start)

    rng = random.Random(1)
    async with trio.open_nursery() as nursery:
        while trio.current_time() < 60:
            nursery.start_soon(send, rng.choice("abc"))
            await trio.sleep(rng.expovariate(300))

    settled = sorted(seconds for start, seconds in took if start > 20)
    assert len(settled) >= 0.8 * 100 * 40
    assert settled[len(settled) * 90 // 100] <= (0.2 if adaptive is None else 0.35)
    assert settled[len(settled) * 99 // 100] <= (0.2 + 1e-9 if adaptive is None else 0.5)
    assert min(told) == 0
    assert max(told) <= 0.1 + 1e-9


async def test_cancelled_anywhere_every_place_comes_back(autojump_clock):
    """While it runs, while it waits, and as it is given the place."""
    for adaptive in (None, Adaptive(target=0.5)):
        stage, server = make(max_in_flight=1, max_waiting=5, wait_at_most=60.0, adaptive=adaptive), Server()

        async def two(stage=stage, server=server):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outcome, stage, call(), server)
                nursery.start_soon(outcome, stage, call(), server)

        await cancel_everywhere(two)

        assert stage.details()["in_flight"] == stage.details()["waiting"] == 0
        assert await outcome(stage, call(), server) == "in"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["echo", "vital", "batch"]),
            st.sampled_from(["acme", "globex", None]),
            st.sampled_from([0.0, 0.1, 0.3]),
            st.sampled_from([None, 0.05, 0.4]),
        ),
        max_size=40,
    ),
    st.integers(1, 3),
    st.integers(0, 8),
)
@settings(max_examples=60)
def test_never_more_than_the_limit_and_lines_keep_their_order(arrivals, limit, max_waiting):
    """In any interleaving, with cancellations: everybody ends, every place comes back, nobody of a line overtakes."""
    server = Server(0.25)

    async def main():
        stage = make(max_in_flight=limit, max_waiting=max_waiting, shed_above=1.0, wait_at_most=0.6)

        async def send(number, name, tenant, cancel_after):
            with trio.move_on_after(float("inf") if cancel_after is None else cancel_after):
                await outcome(stage, call(number, name, tenant), server)

        async with trio.open_nursery() as nursery:
            for number, (name, tenant, pause, cancel_after) in enumerate(arrivals):
                nursery.start_soon(send, number, name, tenant, cancel_after)
                await trio.testing.wait_all_tasks_blocked()
                await trio.sleep(pause)
        return stage.details()

    details = trio.run(main, clock=MockClock(autojump_threshold=0))

    assert (details["in_flight"], details["waiting"]) == (0, 0)
    assert server.most <= limit
    for line in {(name, tenant) for name, tenant, _, _ in arrivals}:
        entered = sorted(number for number in server.entered if arrivals[number][:2] == line)
        assert all(server.times[one] <= server.times[other] for one, other in pairwise(entered))


async def test_what_an_operator_sees(autojump_clock):
    """Figures for what runs and waits, and for what was shed, by priority and cause."""
    stage = make(max_in_flight=1, max_waiting=1, shed_above=1.0, wait_at_most=60.0)
    await together(stage, Server(), [call(number) for number in range(3)])
    figures = {(figure.name, *figure.labels.values()): figure.value for figure in stage.figures() if figure.value}

    assert figures == {
        ("load_shed_limit",): 1,
        ("load_shed_allowed_total",): 2,
        ("load_shed_waits_total",): 1,
        ("load_shed_shed_total", "normal", "full"): 1,
    }


def test_a_least_above_the_most_is_an_error():
    """It would never move."""
    with pytest.raises(ValueError, match=r"adaptive\.min_in_flight is 8, more than max_in_flight, 4"):
        LoadShed.Config(max_in_flight=4, adaptive=Adaptive(target=1.0, min_in_flight=8))


@pytest.mark.parametrize(
    "options",
    [
        {"max_in_flight": 1, "max_waiting": 8, "per": "caller"},
        {"max_in_flight": 2, "max_waiting": 0, "max_memory": "100GiB"},
        {"max_in_flight": 2, "adaptive": {"target": "100ms", "min_in_flight": 1}, "per": "source"},
    ],
)
def test_it_keeps_the_contract(options, monkeypatch):
    """With all it can do switched on; four looks at the memory in each second of a day would take the day."""
    monkeypatch.setattr(stage_module, "_LOOK_S", 900.0)
    check_middleware(LoadShed, options)
