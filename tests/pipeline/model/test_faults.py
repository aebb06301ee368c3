"""Fault plans: what happens to whom is a function of the plan, the seed and the order."""

from __future__ import annotations

from random import Random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.faults import Fault, FaultPlan, StoreFault
from sluiceway.pipeline.model.suffering import suffer
from sluiceway.pipeline.protocol.errors import (
    ConnectFailed,
    GatewayError,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, Result
from sluiceway.pipeline.testing import memory_exchange


def plan_of(*faults: Fault, seed: int = 0) -> FaultPlan:
    """A plan with a seed."""
    return FaultPlan(faults, Random(seed))


@given(st.integers(0, 2**32), st.floats(0.01, 1))
def test_the_same_seed_does_the_same(seed, share):
    """Two plans of one seed agree on every arrival."""
    fault = Fault(effect="reset", share=share, latency=0.1, jitter=1.0)
    one, other = plan_of(fault, seed=seed), plan_of(fault, seed=seed)

    assert [one.draw(0.0) for _ in range(50)] == [other.draw(0.0) for _ in range(50)]


def test_what_one_fault_does_depends_on_no_other():
    """Another fault behind it changes nothing for the first one."""
    fault = Fault(effect="reset", share=0.5)
    alone, beside = plan_of(fault), plan_of(fault, Fault(latency=1.0, share=0.5))

    assert [alone.draw(0).effect for _ in range(99)] == [beside.draw(0).effect for _ in range(99)]


def test_some_are_skipped_and_it_ends_after_some_times():
    """`skip` counts arrivals, `times` counts hits."""
    plan = plan_of(Fault(effect="refuse", skip=2, times=3))

    assert [plan.draw(0).effect for _ in range(7)] == [None, None, "refuse", "refuse", "refuse", None, None]
    assert plan.harmed == 3


def test_a_share_is_a_share():
    """Of many arrivals about as many are hit as the share says."""
    plan = plan_of(Fault(effect="refuse", share=0.2))

    assert 150 < sum(plan.draw(0).effect is not None for _ in range(1000)) < 250


def test_delays_add_up_and_the_first_effect_counts():
    """Faults are tried in order."""
    harm = plan_of(Fault(latency=1.0), Fault(effect="reset", latency=2.0), Fault(effect="hang", drip=10)).draw(0.0)

    assert (harm.delay_s, harm.effect, harm.drip) == (3.0, "reset", 10)


@pytest.mark.parametrize("make", [Fault, StoreFault])
def test_a_fault_that_harms_nobody_is_a_mistake(make):
    """It says what could go wrong."""
    with pytest.raises(ValueError, match="nothing goes wrong"):
        make(share=0.5)


async def answered(_: Exchange) -> Reply:
    await trio.lowlevel.checkpoint()
    return Result({"text": "x" * 91})


@pytest.mark.parametrize(
    ("effect", "error", "reached"),
    [
        ("refuse", ConnectFailed, False),
        ("reset", UpstreamClosed, False),
        ("crash", UpstreamClosed, False),
        ("truncate", UpstreamClosed, True),
        ("malform", UpstreamProtocolError, True),
    ],
)
async def test_each_effect_has_its_failure(effect, error, reached):
    """And some come after the upstream was asked, so that it may have run."""
    asked = []

    async def upstream(exchange: Exchange) -> Reply:
        asked.append(exchange)
        return await answered(exchange)

    exchange = memory_exchange()
    with pytest.raises(GatewayError) as caught:
        await suffer(plan_of(Fault(effect=effect)), exchange, upstream, "fault")

    assert type(caught.value) is error
    assert bool(asked) is reached
    assert [(each.stage, each.outcome, each.cause) for each in exchange.link.decisions] == [("fault", "harm", effect)]


@pytest.mark.parametrize(("effect", "reached"), [("drop", 0), ("hang", 1)])
async def test_what_is_lost_is_never_answered(effect, reached, autojump_clock):
    """Only whoever waits gives up; of a request that was dropped the upstream knows nothing."""
    asked = []

    async def upstream(exchange: Exchange) -> Reply:
        asked.append(exchange)
        return await answered(exchange)

    with trio.move_on_after(1e6) as scope:
        await suffer(plan_of(Fault(effect=effect)), memory_exchange(), upstream)

    assert scope.cancelled_caught
    assert len(asked) == reached


async def test_answers_are_late_by_latency_and_size(autojump_clock):
    """Latency, and then so many bytes a second."""
    began = trio.current_time()
    assert await suffer(plan_of(Fault(latency=2.0, drip=51)), memory_exchange(), answered) == Result({"text": "x" * 91})

    assert trio.current_time() - began == pytest.approx(2.0 + 102 / 51)


async def test_errors_drip_too(autojump_clock):
    """What the upstream answers is an answer, whatever it says."""

    async def upstream(_: Exchange) -> Reply:
        return ErrorReply(-1, "no")

    assert await suffer(plan_of(Fault(drip=1)), memory_exchange(), upstream) == ErrorReply(-1, "no")
    assert trio.current_time() > 10


async def test_a_server_that_crashed_is_gone_for_a_while(autojump_clock):
    """And then it is back."""
    plan = plan_of(Fault(effect="crash", times=1, down=5.0))
    with pytest.raises(UpstreamClosed):
        await suffer(plan, memory_exchange(), answered)
    await trio.sleep(4.9)
    with pytest.raises(UpstreamUnavailable):
        await suffer(plan, memory_exchange(), answered, "fault")
    await trio.sleep(0.2)

    assert isinstance(await suffer(plan, memory_exchange(), answered), Result)
