"""`cancel_everywhere`: every point is hit, and what is left behind is reported with its place."""

from contextlib import asynccontextmanager

import pytest
import trio

from sluiceway.pipeline.testing.cancelling import cancel_everywhere
from sluiceway.pipeline.testing.leaks import Leak


async def test_every_point_of_a_wait_is_cancelled_until_it_completes():
    """A coroutine with two checkpoints has points before and after each of its three steps."""
    outcomes = []

    async def two_checkpoints():
        try:
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            outcomes.append("cancelled")
            raise
        outcomes.append("completed")

    points = await cancel_everywhere(two_checkpoints)

    assert outcomes[0] == "completed"
    assert outcomes[-1] == "completed"
    assert outcomes.count("cancelled") >= 4
    assert points == len(outcomes) - 2


async def test_a_coroutine_without_a_checkpoint_has_one_point():
    """The one before its only step."""

    async def nothing():
        pass

    assert await cancel_everywhere(nothing) == 1


async def test_a_token_that_a_cancelled_wait_keeps_is_found():
    """A limiter that is not released on every path fails the check that stands after the run."""
    limiter = trio.CapacityLimiter(1)

    async def leaky():
        await limiter.acquire_on_behalf_of(limiter)
        await trio.lowlevel.checkpoint()
        limiter.release_on_behalf_of(limiter)

    @asynccontextmanager
    async def trial():
        yield leaky
        assert limiter.borrowed_tokens == 0

    with pytest.raises(AssertionError) as caught:
        await cancel_everywhere(trial)

    assert "in leaky" in caught.value.__notes__[0]


async def test_only_the_call_is_cancelled_and_not_what_surrounds_it():
    """The context manager of a trial runs to its end in every run."""
    entered = left = 0

    @asynccontextmanager
    async def trial():
        nonlocal entered, left
        entered += 1
        await trio.lowlevel.checkpoint()
        yield trio.lowlevel.checkpoint
        await trio.lowlevel.checkpoint()
        left += 1

    points = await cancel_everywhere(trial)

    assert entered == left == points + 2


async def test_the_place_of_the_cancellation_is_in_a_note():
    """Whatever a run raises after its cancellation says at which line it was cancelled."""

    async def fragile():
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            raise ValueError("the cleanup failed") from None

    with pytest.raises(ValueError, match="the cleanup failed") as caught:
        await cancel_everywhere(fragile)

    assert "cancelled before step 0" in caught.value.__notes__[0]


async def test_a_task_that_outlives_its_exchange_is_a_leak(nursery):
    """A background task that only a cancelled run leaves in somebody else's nursery is reported."""

    async def exchange():
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            nursery.start_soon(trio.sleep_forever, name="forgotten")
            raise

    with pytest.raises(Leak, match="task 'forgotten'") as caught:
        await cancel_everywhere(exchange)

    assert "cancelled before step 0" in caught.value.__notes__[0]


async def test_what_the_first_run_opens_for_all_is_no_leak(nursery):
    """A task that is started once and shared, as a pool's reader is, may stay."""
    started = []

    async def exchange():
        if not started:
            started.append(True)
            nursery.start_soon(trio.sleep_forever, name="shared")
        await trio.lowlevel.checkpoint()

    assert await cancel_everywhere(exchange) > 0


async def test_tasks_that_the_exchange_starts_are_counted(autojump_clock):
    """The points of child tasks belong to the exchange."""
    in_child = 0

    async def child():
        nonlocal in_child
        try:
            await trio.sleep(1)
        except trio.Cancelled:
            in_child += 1
            raise

    async def alone():
        await trio.sleep(1)

    async def with_child():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)

    assert await cancel_everywhere(with_child) > await cancel_everywhere(alone)
    assert in_child > 0


async def test_a_loop_without_end_is_given_up():
    """`max_points` bounds the number of runs."""

    async def stubborn():
        for _ in range(100):
            await trio.lowlevel.checkpoint()

    with pytest.raises(AssertionError, match="not finished after 5 points"):
        await cancel_everywhere(stubborn, max_points=5)


async def test_a_failure_of_the_first_run_comes_out_as_it_is():
    """Nothing was cancelled yet, so nothing is added."""

    async def broken():
        raise ValueError("broken anyway")

    with pytest.raises(ValueError, match="broken anyway") as caught:
        await cancel_everywhere(broken)

    assert not getattr(caught.value, "__notes__", [])
