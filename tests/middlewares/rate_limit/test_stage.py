"""Who is admitted, who is refused and told what, and who waits."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from trio.testing import MockClock

from sluiceway.middlewares.rate_limit.options import Override, Weight
from sluiceway.middlewares.rate_limit.stage import RateLimit
from sluiceway.pipeline.model.component import Context, State
from sluiceway.pipeline.model.options import Rate, parse_rate
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.model.when import When
from sluiceway.pipeline.protocol.errors import CapacityExceeded, GatewayError, RateLimited
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.pipeline.testing import cancel_everywhere, check_middleware, memory_exchange

ANA, BOB = (Caller(name, "acme", how="bearer") for name in ("ana", "bob"))


def make(rate="60/min", context=None, **options):
    """A stage; rates are written as in YAML."""
    rates = parse_rate(rate) if isinstance(rate, str) else tuple(map(parse_rate, rate))
    return RateLimit(RateLimit.Config(rate=rates, **options), context or Context(id="limit"))


def call(name="echo", caller=ANA, method="tools/call", **kwargs):
    """An exchange of a caller."""
    return memory_exchange(method, {"name": name}, caller=caller, **kwargs)


async def answer(_exchange):
    """What is behind the stage."""
    return Result({"done": True})


async def outcome(stage, exchange):
    """`in`, or the seconds a refused one is told to wait."""
    try:
        await stage(exchange, answer)
    except RateLimited as error:
        return error.retry_after_s
    return "in"


async def outcomes(stage, count, **kwargs):
    """What becomes of several calls, one after the other."""
    return [await outcome(stage, call(**kwargs)) for _ in range(count)]


@pytest.mark.parametrize("weights", [(), (Weight(when=When(method=("x",)), weight=2),)], ids=["plain", "weighted"])
@pytest.mark.parametrize(
    ("per", "charged"),
    [("caller", 0), ("tenant", 0), ("address", 0), ("source", 0), (("caller", "target"), 0), ("all", 1), ("method", 1)],
)
async def test_what_the_gateway_looks_up_is_charged_to_nobody_who_sends(mock_clock, per, charged, weights):
    """But it is where an upstream is protected, for the upstream gets it."""
    stage = make("1/min", per=per, weights=weights)
    looked_up = call(method="tools/list")
    looked_up.own_accord = True
    seen = [await outcome(stage, exchange) for exchange in (looked_up, call(method="tools/list"))]

    assert seen == ["in", 60.0 if charged else "in"]


async def test_the_61st_in_a_minute_is_refused_and_somebody_else_is_not(mock_clock):
    """The defaults, with the seeds' figure (S2-MW-05): per client, and not for all together (D-30)."""
    stage = RateLimit(RateLimit.Config(), Context(id="limit"))

    assert await outcomes(stage, 61) == ["in"] * 60 + [1.0]
    assert await outcomes(stage, 60, caller=BOB) == ["in"] * 60


async def test_who_waits_as_long_as_it_is_told_is_let_in(mock_clock):
    """Exactly then, and not a millisecond before."""
    stage = make("7/min", burst=1)
    assert await outcomes(stage, 2) == ["in", 8.572]

    mock_clock.jump(8.571)
    assert await outcomes(stage, 1) == [0.001]
    mock_clock.jump(0.001)
    assert await outcomes(stage, 1) == ["in"]


async def test_a_refusal_says_what_the_limit_is_and_when_it_is_over(mock_clock):
    """The text, the data and the time: what a client sees (S2-ER-04, S2-ER-11)."""
    stage = make("100/min", burst=1)
    await outcome(stage, call())
    exchange = call()

    with pytest.raises(RateLimited) as refused:
        await stage(exchange, answer)
    error = refused.value
    assert (error.message, error.data, error.retry_after_s) == (
        "limit: rate limit exceeded: 100/min, 1 at once per caller; try again in 600ms",
        {"rate_limit": "100/min, 1 at once", "retry_after_seconds": 1},
        0.6,
    )
    assert exchange.reply_headers == {"ratelimit": '"limit";r=0;t=1', "ratelimit-policy": '"limit";q=1'}
    assert [(d.stage, d.outcome, d.cause) for d in exchange.link.decisions] == [
        ("limit", "refuse", "100/min, 1 at once per caller")
    ]


async def test_several_rates_must_all_admit_and_none_is_charged_by_a_refusal(mock_clock):
    """Two a second and five an hour: what the first refuses does not count for the second."""
    stage = make(["2/s", "5/h"])

    assert await outcomes(stage, 4) == ["in", "in", 0.5, 0.5]
    mock_clock.jump(1)
    assert await outcomes(stage, 3) == ["in", "in", 0.5]
    mock_clock.jump(1)
    assert await outcomes(stage, 3) == ["in", 718.0, 718.0]


async def test_every_rate_can_have_its_own_burst(mock_clock):
    """In the same order."""
    assert await outcomes(make(["1/s", "10/h"], burst=(3, 4)), 4) == ["in"] * 3 + [1.0]


async def test_some_requests_weigh_more_and_some_nothing(mock_clock):
    """The first weight that matches; more than the burst is the burst, or it would never fit."""
    weights = (
        Weight(when=When(name=("export_*",)), weight=3),
        Weight(when=When(method=("ping",)), weight=0),
        Weight(when=When(name=("*",)), weight=1000),
    )
    stage = make("10/s", burst=4, weights=weights)

    assert await outcomes(stage, 2, name="export_all") == ["in", 0.2]
    assert await outcomes(stage, 50, method="ping") == ["in"] * 50
    assert await outcome(stage, call("huge")) == 0.3
    mock_clock.jump(0.3)
    assert await outcome(stage, call("huge")) == "in"
    assert await outcome(stage, call(method="tools/list")) == 0.1


async def test_an_override_is_another_rate_counted_apart(mock_clock):
    """For a tenant, or for whatever a guard can name (S4-MT-05); the first that matches."""
    overrides = (
        Override(when=When(tenant=("globex",)), rate=Rate(5, 1.0)),
        Override(when=When(name=("slow",)), rate=Rate(1, 1.0), burst=2),
    )
    stage = make("1/s", overrides=overrides)
    globex = Caller("ana", "globex", how="bearer")

    assert await outcomes(stage, 2) == ["in", 1.0]
    assert await outcomes(stage, 6, caller=globex, name="slow") == ["in"] * 5 + [0.2]
    assert await outcomes(stage, 3, name="slow") == ["in", "in", 1.0]


async def test_notifications_count_but_those_that_end_something_pass(mock_clock):
    """A legacy notification costs as much as a request; a cancel notice must never be lost."""
    stage = make("2/s")

    assert await outcomes(stage, 9, method="notifications/cancelled") == ["in"] * 9
    assert await outcomes(stage, 9, method="notifications/initialized") == ["in"] * 9
    assert await outcomes(stage, 1, method="notifications/roots/list_changed") == ["in"]
    assert await outcomes(stage, 2) == ["in", 0.5]
    assert await outcomes(stage, 1, method="notifications/roots/list_changed") == [0.5]


async def test_a_listener_counts_once(mock_clock):
    """However long it listens."""
    stage = make("2/h")

    async def listen(_exchange):
        await trio.sleep(7200)
        return Result()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage, call(method="subscriptions/listen"), listen)
        await trio.testing.wait_all_tasks_blocked()
        assert await outcomes(stage, 2) == ["in", 1800.0]
        mock_clock.jump(7200)


async def test_what_waits_goes_in_order_at_the_rate(autojump_clock):
    """An outbound limit makes the 101st wait (S3-HP-02); the one that would wait too long is refused at once."""
    stage = make("100/min", wait_at_most=1.5)
    gone = []

    async def send(number):
        try:
            await stage(call(), answer)
            gone.append((number, round(trio.current_time(), 3)))
        except RateLimited as error:
            gone.append((number, error.retry_after_s))

    async with trio.open_nursery() as nursery:
        for number in range(104):
            nursery.start_soon(send, number)
            await trio.testing.wait_all_tasks_blocked()

    assert gone[:100] == [(number, 0.0) for number in range(100)]
    assert gone[100:] == [(102, 1.8), (103, 1.8), (100, 0.6), (101, 1.2)]


async def test_nobody_waits_for_longer_than_it_has(autojump_clock):
    """An exchange whose deadline comes before its turn is refused at once, and charged nothing."""
    stage = make("1/s", wait_at_most=10.0)
    await stage(call(), answer)

    assert await outcome(stage, call(deadline=0.5)) == 1.0
    assert await outcome(stage, call(deadline=-5.0)) == 1.0
    assert await outcome(stage, call(deadline=1.5)) == "in"
    assert trio.current_time() == 1.0


async def test_headers_say_what_is_left(mock_clock):
    """In each of the forms, on success; several rates show the one that leaves least."""
    shown = {}
    for style in ("ratelimit", "x-ratelimit", "none"):
        exchange = call()
        stage = make(["10/s", "1000/h"], headers=style)
        await stage(call(), answer)
        await stage(exchange, answer)
        shown[style] = exchange.reply_headers

    assert shown == {
        "ratelimit": {
            "ratelimit-policy": '"limit/1";q=10;w=1, "limit/2";q=1000;w=3600',
            "ratelimit": '"limit/1";r=8;t=1',
        },
        "x-ratelimit": {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "8", "x-ratelimit-reset": "1"},
        "none": {},
    }


async def test_a_stage_behind_another_adds_its_policy(mock_clock):
    """Both are true. The older headers have room for one: the one that leaves less."""
    outer, inner = make("5/min"), make("1000/h", Context(id="inner"), burst=3)
    exchange = call()
    await outer(exchange, lambda exchange: inner(exchange, answer))

    assert exchange.reply_headers == {
        "ratelimit-policy": '"limit";q=5;w=60, "inner";q=3',
        "ratelimit": '"limit";r=4;t=12, "inner";r=2;t=4',
    }
    for first, second in ((5, 3), (3, 5)):
        stages = [make(f"{count}/h", headers="x-ratelimit") for count in (first, second)]
        exchange = call()
        await stages[0](exchange, lambda exchange, inner=stages[1]: inner(exchange, answer))
        assert exchange.reply_headers["x-ratelimit-remaining"] == "2"
        assert exchange.reply_headers["x-ratelimit-limit"] == "3"


async def test_a_full_table_refuses_new_keys_and_forgives_nobody(mock_clock):
    """Forgetting somebody in debt would let them in again; those who owe nothing make room."""
    stage = make("1/s", max_keys=2)
    for caller in (ANA, BOB):
        await stage(call(caller=caller), answer)
    eve = Caller("eve", how="bearer")
    exchange = call(caller=eve)

    with pytest.raises(CapacityExceeded, match=r"limit: max_keys is 2, and as many keys \(caller\)") as refused:
        await stage(exchange, answer)
    assert refused.value.retry_after_s == 1.0
    assert [d.cause for d in exchange.link.decisions] == ["max_keys"]
    assert await outcomes(stage, 1) == [1.0]

    mock_clock.jump(1)
    assert await outcomes(stage, 1, caller=eve) == ["in"]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["ana", "bob", "eve"]), st.sampled_from([0.0, 0.1, 1.5])),
        max_size=25,
    ),
    st.integers(0, 2),
)
def test_in_any_interleaving_a_key_gets_burst_and_rate_and_no_less(arrivals, wait_at_most):
    """With others at the same time, with and without waiting; what is refused would not have fitted."""
    admitted, refused = {}, []

    async def main():
        stage = make("2/s", burst=3, wait_at_most=float(wait_at_most) or None)

        async def send(name, pause_s):
            await trio.sleep(pause_s)
            arrived = trio.current_time()
            try:
                await stage(call(caller=Caller(name, how="bearer")), answer)
                admitted.setdefault(name, []).append(trio.current_time())
            except RateLimited as error:
                refused.append((name, arrived, error.retry_after_s))

        async with trio.open_nursery() as nursery:
            for gap, name, pause_s in arrivals:
                nursery.start_soon(send, name, pause_s)
                await trio.sleep(gap / 4)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    for times in admitted.values():
        for first, start in enumerate(times):
            for more, end in enumerate(times[first:], 1):
                assert more <= 3 + (end - start) * 2 + 1e-6
    for name, at, retry_after_s in refused:
        gone = [each for each in admitted[name] if each <= at + wait_at_most + 1e-9]
        fits_at = max(each + (len(gone) - n - 2) / 2 for n, each in enumerate(gone))
        assert fits_at > at + wait_at_most - 1e-6
        assert retry_after_s == pytest.approx(fits_at - at, abs=0.002)


async def test_cancelled_anywhere_it_goes_on(autojump_clock):
    """Whoever gives up while it waits has used its turn, and nobody else's."""
    stage = make("1000/s", burst=1, wait_at_most=3600.0)
    await cancel_everywhere(lambda: outcome(stage, call()))

    assert await outcome(stage, call()) == "in"


@pytest.mark.parametrize("store", [None, "state"])
async def test_long_names_take_no_room(store, mock_clock):
    """A megabyte in a name is a few bytes in the table, here and in a store; two long names are two keys."""
    shaky = Shaky()
    context = Context(id="limit", stores={"state": shaky}.__getitem__)
    stage = make("1/h", context, per="target", store=store)
    async with stage.open():
        for end in "ab":
            assert await outcomes(stage, 2, name="x" * 1_000_000 + end) == ["in", pytest.approx(3600, abs=1)]
    kept = [*stage._account.ledger.states, *await shaky.keys()]

    assert len(kept) == 2
    assert max(map(len, kept)) < 60


async def test_what_an_operator_sees(mock_clock):
    """Keys, refusals and counters."""
    stage = make("1/s", overrides=(Override(when=When(name=("slow",)), rate=Rate(1, 1.0)),))
    await outcomes(stage, 3)
    await outcomes(stage, 1, name="slow")

    assert stage.details() == {"limit": "1/s per caller", "keys": 2, "refused": 2}
    assert [(figure.name, figure.value, dict(figure.labels)) for figure in stage.figures()] == [
        ("rate_limit_requests_total", 2, {"outcome": "allow"}),
        ("rate_limit_requests_total", 2, {"outcome": "refuse"}),
        ("rate_limit_waits_total", 0, {}),
        ("rate_limit_keys", 2, {}),
        ("rate_limit_store_failures_total", 0, {}),
    ]


class Shaky(MemoryStore):
    """A store that fails when it is told to."""

    def __init__(self):
        super().__init__(MemoryStore.Config(), Context(id="state"))
        self.fails = self.hangs = False
        self.asked = 0

    async def get(self, key):
        self.asked += 1
        if self.hangs:
            await trio.sleep_forever()
        if self.fails:
            raise OSError("the disk is gone")
        return await super().get(key)


def with_store(store, **options):
    """A stage on a store, and what it reports."""
    reports = []
    context = Context(id="limit", stores={"state": store}.__getitem__, report=lambda *what: reports.append(what))
    return make("1/s", context, store="state", **options), reports


async def test_counts_in_a_store_outlive_the_stage(mock_clock):
    """After a reload the same callers are in the same debt, and an override is still another account."""
    store = Shaky()
    slow = (Override(when=When(name=("slow",)), rate=Rate(1, 1.0)),)
    seen = []
    for _ in range(2):
        stage, _ = with_store(store, overrides=slow)
        async with stage.open():
            seen.append([await outcome(stage, call()), await outcome(stage, call(name="slow"))])

    assert seen == [["in", "in"], [pytest.approx(1.0, abs=0.2)] * 2]
    mock_clock.jump(10)
    assert await store.keys() == []


async def test_a_failing_store_leaves_the_limit_to_this_process(mock_clock):
    """`on_failure: open` still counts, here; the store is asked again a second later, and status tells."""
    store = Shaky()
    stage, reports = with_store(store)
    async with stage.open():
        store.fails = True
        assert await outcomes(stage, 2) == ["in", 1.0]
        assert (store.asked, stage.details()["store_failures"]) == (1, 1)
        mock_clock.jump(1)
        assert await outcomes(stage, 2) == ["in", 1.0]
        assert (store.asked, stage.details()["store_failures"]) == (2, 2)
        mock_clock.jump(1)
        store.fails = False
        assert await outcomes(stage, 2) == ["in", pytest.approx(1.0, abs=0.01)]

    assert reports == [(State.DEGRADED, "store state failed: the disk is gone"), (State.READY, "")]


async def test_a_failing_store_can_close_the_door(mock_clock):
    """`on_failure: closed` refuses with a hint that says nothing about the store's insides."""
    store = Shaky()
    store.fails = True
    stage, _ = with_store(store, on_failure="closed")
    async with stage.open():
        exchange = call()
        with pytest.raises(CapacityExceeded) as refused:
            await stage(exchange, answer)
        for _ in range(9):
            with pytest.raises(GatewayError):
                await stage(call(), answer)

    assert refused.value.message == "limit: what was used cannot be read or written now; try again later"
    assert refused.value.retry_after_s == 1.0
    assert [d.cause for d in exchange.link.decisions] == ["store"]
    assert store.asked == 1


async def test_a_store_that_hangs_holds_nobody_up_for_long(autojump_clock):
    """Two seconds the first time; then one a second asks whether it works again, and the others go on at once."""
    store = Shaky()
    store.hangs = True
    stage, _ = with_store(store, per="target")
    took = {}

    async def send(number):
        await trio.sleep(number)
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(outcome, stage, call(f"{name}{number}"))
        took[number] = trio.current_time() - start

    async with stage.open(), trio.open_nursery() as nursery:
        for number in (0, 2.5, 3.5):
            nursery.start_soon(send, number)

    assert took == {0: 2.0, 2.5: 0.0, 3.5: 2.0}
    assert store.asked == 4


async def test_what_waits_in_a_store_waits_too(autojump_clock):
    """The same turns, wherever they are counted."""
    stage, _ = with_store(Shaky(), wait_at_most=5.0)
    async with stage.open():
        assert await outcomes(stage, 3) == ["in"] * 3

    assert trio.current_time() == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rate": (Rate(1, 1.0), Rate(2, 2.0)), "burst": 5}, "2 rates, 1 bursts"),
        ({"rate": ()}, "0 rates, 0 bursts"),
        ({"burst": (0,)}, "must be positive"),
        ({"overrides": (Override(when=When(), rate=Rate(1, 1.0), burst=(1, 2)),)}, "1 rates, 2 bursts"),
        ({"trusted_proxies": ("proxy",)}, "expected an address or a network"),
        ({"per": ()}, "per names each thing"),
    ],
)
def test_options_that_mean_nothing_are_errors(options, text):
    """Found when the configuration is read."""
    with pytest.raises(ValueError, match=text):
        RateLimit.Config(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"rate": ["2/s", "1000/h"], "per": ["tenant", "target"], "max_keys": 3},
        {"rate": "2/s", "wait_at_most": "1s", "headers": "x-ratelimit"},
        {"weights": [{"when": {"method": ["*"]}, "weight": 2}], "store": "state"},
    ],
)
def test_it_keeps_the_contract(options):
    """With all it can do switched on."""
    check_middleware(RateLimit, options)


def test_no_store_before_it_is_open():
    """Constructing it looks for nothing."""
    stage, _ = with_store(Shaky())

    assert stage._account.shared is None


async def test_another_limit_under_another_name_shares_nothing(mock_clock):
    """Two stages on one store."""
    store = Shaky()
    context = Context(id="other", stores={"state": store}.__getitem__)
    one, _ = with_store(store)
    other = make("1/s", context, store="state")
    async with one.open(), other.open():
        assert await outcome(one, call()) == "in"
        assert await outcome(other, call()) == "in"
        assert await outcome(one, replace(call())) == pytest.approx(1.0, abs=0.01)
