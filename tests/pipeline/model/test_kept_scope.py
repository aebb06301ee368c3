"""One scope for one exchange after the other, and cancellation as exact as with a scope for each."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sluiceway.pipeline.model.kept_scope import KeptScope


async def test_what_was_not_cancelled_leaves_the_scope_to_the_next(nursery: trio.Nursery) -> None:
    """An error that passes makes no difference."""
    kept = KeptScope()
    scopes = []
    for passes in (False, True, False):
        with suppress(ValueError), kept:
            scopes.append(kept._scope)
            await trio.lowlevel.checkpoint()
            if passes:
                raise ValueError("passes")
    kept.close()
    kept.close()

    assert len({id(scope) for scope in scopes}) == 1


async def test_only_what_is_inside_is_cancelled(nursery: trio.Nursery, autojump_clock: Any) -> None:
    """The next exchange of the task has a scope of its own."""
    kept, log = KeptScope(), []

    async def task() -> None:
        for number in range(3):
            with kept:
                await trio.sleep(1)
                log.append(number)
            await trio.sleep(1)
        kept.close()

    nursery.start_soon(task)
    await trio.sleep(2.5)
    kept.cancel(reason="client")
    await trio.sleep(5)

    assert log == [0, 2]


async def test_a_cancel_that_comes_too_late_is_gone_with_its_exchange() -> None:
    """What ended before it noticed is not cancelled, and neither is what follows."""
    kept, reached = KeptScope(), False
    with kept:
        kept.cancel()
    await trio.lowlevel.checkpoint()
    with kept:
        await trio.lowlevel.checkpoint()
        reached = True
    kept.close()

    assert reached


async def test_a_cancel_from_outside_is_not_taken_for_its_own() -> None:
    """Inside of an exchange, between two, and while the scope is closed on its way."""
    kept = KeptScope()
    for inside in (True, False):
        reached = False
        with trio.CancelScope() as outer:
            try:
                with kept:
                    await trio.lowlevel.checkpoint()
                outer.cancel()
                if inside:
                    with kept:
                        await trio.sleep_forever()
                await trio.sleep_forever()
                reached = True
            finally:
                kept.close()
        assert outer.cancelled_caught
        assert not reached


async def test_a_scope_that_is_opened_in_between_and_closed_too_early_is_noticed() -> None:
    """Whoever breaks the rule hears of it at once."""
    kept = KeptScope()
    outer = trio.CancelScope()
    outer.__enter__()
    with kept:
        pass
    with pytest.raises(RuntimeError, match="corrupted"):
        outer.__exit__(None, None, None)
    await wait_all_tasks_blocked()
    kept.close()
