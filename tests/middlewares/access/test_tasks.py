"""Whose a task is, where that is kept in a store."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from msgspec.structs import replace

from sluiceway.middlewares.access.config import Rule
from sluiceway.middlewares.access.stage import Access
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import CapacityExceeded, Forbidden, GatewayError
from sluiceway.pipeline.protocol.messages import Reply, Result
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.pipeline.testing import MODERN_CLIENT, cancel_everywhere, memory_exchange

ANA, BOB = (Caller(name, "acme", how="bearer") for name in ("ana", "bob"))
CLIENT = replace(MODERN_CLIENT, capabilities={"extensions": {"io.modelcontextprotocol/tasks": {}}})


class Flaky(MemoryStore):
    """A store that fails when it is told to."""

    def __init__(self) -> None:
        super().__init__(MemoryStore.Config(), Context(id="state"))
        self.fails = False

    async def get(self, key: str) -> bytes | None:
        if self.fails:
            raise OSError("the disk is gone")
        return await super().get(key)

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        if self.fails:
            raise OSError("the disk is gone")
        await super().put(key, value, ttl_s=ttl_s)


def stage_on(store: MemoryStore, **options: Any) -> Access:
    """A stage of one process, or of one generation."""
    context = Context(id="access", stores={"state": store}.__getitem__)
    return Access(Access.Config(rules=(Rule(allow="*"),), store="state", **options), context)


async def ask(stage: Access, method: str, params: Any, reply: Reply, caller: Caller = ANA) -> Reply | GatewayError:
    """What becomes of one exchange."""

    async def inner(_: Exchange) -> Reply:
        await trio.lowlevel.checkpoint()
        return reply

    try:
        return await stage(memory_exchange(method, params, caller=caller, client=CLIENT), inner)
    except GatewayError as error:
        return error


async def make(stage: Access, task: str) -> None:
    """Have ana make a task."""
    await ask(stage, "tools/call", {"name": "build"}, Result({"taskId": task}))


async def test_another_process_knows_whose_a_task_is(autojump_clock: Any) -> None:
    """Its owner may ask for it, list it and listen to it there; nobody else may, and nobody once it is too old."""
    store, done = Flaky(), Result({})
    first, second = stage_on(store, task_age=100.0), stage_on(store, task_age=100.0)
    tasks = Result({"tasks": [{"taskId": "t1"}, {"taskId": "t2"}, {"taskId": 3}]})
    async with first.open(), second.open():
        await make(first, "t1")
        own = await ask(second, "tasks/get", {"taskId": "t1"}, done)
        listed = await ask(second, "tasks/list", {}, tasks)
        others = [
            await ask(second, "tasks/get", {"taskId": "t1"}, done, BOB),
            await ask(second, "tasks/get", {"taskId": "t2"}, done),
            await ask(second, "tasks/get", {"taskId": ["t1"]}, done),
        ]
        theirs = await ask(second, "tasks/list", {}, tasks, BOB)
        await trio.sleep(101)
        late = await ask(second, "tasks/get", {"taskId": "t1"}, done)

    assert own == done
    assert listed == Result({"tasks": [{"taskId": "t1"}]})
    assert theirs == Result({"tasks": []})
    assert [type(each) for each in (*others, late)] == [Forbidden] * 4


async def test_without_a_store_another_process_knows_nothing(autojump_clock: Any) -> None:
    """A task that nobody is known to have made is refused."""
    first, second = (Access(Access.Config(rules=(Rule(allow="*"),)), Context(id="access")) for _ in range(2))
    async with first.open(), second.open():
        await make(first, "t1")

        assert isinstance(await ask(second, "tasks/get", {"taskId": "t1"}, Result({})), Forbidden)


async def test_a_store_that_fails_gives_no_task_to_anybody_who_might_not_own_it(autojump_clock: Any) -> None:
    """What this process knows it still knows; for the rest it says that it cannot tell now."""
    store = Flaky()
    stage = stage_on(store)
    async with stage.open():
        store.fails = True
        await make(stage, "t1")
        own = await ask(stage, "tasks/get", {"taskId": "t1"}, Result({}))
        other = await ask(stage, "tasks/get", {"taskId": "t2"}, Result({}))
        listed = await ask(stage, "tasks/list", {}, Result({"tasks": [{"taskId": "t2"}]}))

    assert own == Result({})
    assert [type(each) for each in (other, listed)] == [CapacityExceeded] * 2
    assert isinstance(other, CapacityExceeded)
    assert other.retry_after_s == 1.0


@pytest.mark.parametrize("method", ["tools/call", "tasks/get", "tasks/list"])
async def test_it_can_be_cancelled_anywhere(method: str, autojump_clock: Any) -> None:
    """Also while the store is asked."""
    stage = stage_on(Flaky())
    async with stage.open():
        reply = Result({"taskId": "t1", "tasks": [{"taskId": "t1"}]})
        params = {"taskId": "t2", "name": "build"}

        assert await cancel_everywhere(lambda: ask(stage, method, params, reply)) > 0
