"""Background nurseries: children live as long as the body, whatever happens outside; `farewell` bounds a last word."""

from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sluiceway.pipeline.runtime.nursery import farewell, open_background_nursery, unwrap_single
from sluiceway.pipeline.testing.cancelling import cancel_everywhere


def test_a_group_of_one_comes_out_as_its_member():
    """However deeply it is nested, and with the cause it had."""
    cause = KeyError("why")
    error = ValueError("the one")
    error.__cause__ = cause

    with pytest.raises(ValueError, match="the one") as caught, unwrap_single():
        raise BaseExceptionGroup("outer", [ExceptionGroup("inner", [error])])

    assert caught.value is error
    assert caught.value.__cause__ is cause


def test_a_group_of_several_stays_a_group():
    """Nothing is lost: the whole group comes out."""
    group = ExceptionGroup("both", [ValueError("one"), KeyError("two")])

    with pytest.raises(ExceptionGroup) as caught, unwrap_single():
        raise group

    assert caught.value is group


def test_a_group_around_a_group_of_several_comes_out_as_the_inner_one():
    """Only layers of one are taken off."""
    inner = ExceptionGroup("both", [ValueError("one"), KeyError("two")])

    with pytest.raises(ExceptionGroup) as caught, unwrap_single():
        raise ExceptionGroup("outer", [inner])

    assert caught.value is inner


def test_what_is_no_group_passes():
    """Other exceptions are none of its business, and no exception is fine."""
    with unwrap_single():
        pass

    with pytest.raises(KeyError), unwrap_single():
        raise KeyError


async def test_children_end_with_the_body():
    """Leaving the body cancels them; nobody has to stop them."""
    ended = []

    async def child():
        try:
            await trio.sleep_forever()
        finally:
            ended.append("child")

    async with open_background_nursery() as nursery:
        nursery.start_soon(child)
        await wait_all_tasks_blocked()
        ended.append("body")

    assert ended == ["body", "child"]


async def test_a_cancel_from_outside_reaches_children_only_after_the_body(autojump_clock):
    """While a cancelled body still unwinds, a writer in the nursery still writes."""
    written = []
    send, receive = trio.open_memory_channel[str](0)

    async def writer():
        written.append(await receive.receive())
        await trio.sleep_forever()

    with trio.move_on_after(1), send, receive:
        async with open_background_nursery() as nursery:
            nursery.start_soon(writer)
            try:
                await trio.sleep_forever()
            finally:
                with farewell(1):
                    await send.send("cancelled")

    assert written == ["cancelled"]


async def test_a_crash_of_a_child_cancels_the_body_and_comes_out_alone():
    """At once, and not in a group."""

    async def child():
        raise ValueError("crashed")

    async def body():
        async with open_background_nursery() as nursery:
            nursery.start_soon(child)
            await trio.sleep_forever()

    with pytest.raises(ValueError, match="crashed"):
        await body()


async def test_an_exception_of_the_body_comes_out_alone():
    """Children are cancelled, and the exception is not in a group."""

    async def body():
        async with open_background_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise KeyError("body")

    with pytest.raises(KeyError, match="body"):
        await body()


async def test_failures_of_body_and_child_come_out_together():
    """Neither hides the other."""

    async def child():
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("child")

    async def both():
        async with open_background_nursery() as nursery:
            nursery.start_soon(child)
            await wait_all_tasks_blocked()
            raise KeyError("body")

    with pytest.RaisesGroup(
        pytest.RaisesExc(KeyError), pytest.RaisesExc(ValueError), flatten_subgroups=True, allow_unwrapped=False
    ):
        await both()


async def test_it_can_be_cancelled_at_any_point():
    """Also while it opens, where a cancelled start would wait for a shielded task without end."""

    @asynccontextmanager
    async def trial():
        ended = []

        async def child():
            try:
                await trio.sleep_forever()
            finally:
                ended.append(True)

        async def body():
            async with open_background_nursery() as nursery:
                started.append(True)
                nursery.start_soon(child)
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()

        started: list[bool] = []
        yield body
        assert ended == started

    assert await cancel_everywhere(trial) > 4


async def test_opened_in_a_cancelled_scope_it_is_cancelled_and_does_not_hang():
    """The body is not entered."""
    entered = False

    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_background_nursery():
            entered = True

    assert scope.cancelled_caught
    assert not entered


async def test_a_farewell_is_said_in_a_cancelled_scope_and_bounded(autojump_clock):
    """The shield holds for the time given, and no longer."""
    said = []

    with trio.CancelScope() as scope:
        scope.cancel()
        with farewell(2):
            await trio.sleep(1)
            said.append("goodbye")
            await trio.sleep(5)
            said.append("too much")

    assert said == ["goodbye"]
    assert trio.current_time() == 2
