"""Tools that can only be called as tasks, called by clients that know none."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import ConnectFailed, UpstreamProtocolError
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Result

RUNS_TASKS = {"tools": {"listChanged": True}, "tasks": {"requests": {"tools": {"call": {}}}, "cancel": {}}}
YES = {"action": "accept"}


@pytest.fixture
def tasks(server: Any) -> Any:
    """A server with one tool that must be a task, and one that need not."""
    server.capabilities = RUNS_TASKS

    async def listed(exchange: Exchange) -> Reply:
        def tool(name: str, support: str) -> dict[str, Any]:
            return {"name": name, "inputSchema": {"type": "object"}, "execution": {"taskSupport": support}}

        return Result({"tools": [tool("t", "required"), tool("other", "optional")]})

    async def call(exchange: Exchange) -> Reply:
        if "task" in exchange.request.params:
            return Result({"task": {"taskId": "7", "status": "working"}})
        return Result({"content": []})

    async def result(exchange: Exchange) -> Reply:
        await exchange.ask("elicitation/create", {"message": "m"})
        return Result({"content": [exchange.request.params["taskId"]]})

    server.handlers |= {"tools/list": listed, "tools/call": call, "tasks/result": result}
    return server


async def test_it_is_called_as_a_task_and_waited_for(autojump_clock, tasks, serving):
    """Even when it asks something; which tools must be, is looked up once."""
    async with serving(tasks) as peer:
        asked = await peer.tool()
        done = await peer.retry(asked, {"q1": YES})
        other = await peer.tool("other")

    assert done["content"] == ["7"]
    assert other["content"] == []
    assert tasks.of("tools/call") == [{"name": "t", "arguments": {}, "task": {}}, {"name": "other", "arguments": {}}]
    assert len(tasks.of("tools/list")) == 1


async def test_what_clients_list_need_not_be_looked_up_until_it_changes(autojump_clock, tasks, serving):
    """The upstream says when."""
    async with serving(tasks) as peer:
        await peer.call("tools/list")
        await peer.tool("other")
        assert len(tasks.of("tools/list")) == 1
        for name in ("up", "elsewhere"):
            peer.service._context.changes.announce(name, Notification("notifications/tools/list_changed"))
        await peer.tool("other")
        await peer.tool("other")
        assert len(tasks.of("tools/list")) == 2
        (session,) = tasks.sessions
        assert len(peer.service._context.changes) == 1

    assert session.closed
    assert len(peer.service._context.changes) == 0


async def test_a_task_is_cancelled_with_its_exchange(autojump_clock, tasks, serving):
    """Whether or not the upstream still listens."""

    async def slow(exchange: Exchange) -> Reply:
        await trio.sleep_forever()
        return Result()

    tasks.handlers["tasks/result"] = slow
    async with serving(tasks) as peer:
        for capabilities in ({}, {"roots": {}}):
            with trio.move_on_after(1):
                await peer.tool(capabilities=capabilities)
            await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.tool)
                await trio.sleep(0.5)
                tasks.fail = ConnectFailed("gone")
        tasks.fail = None

    assert tasks.of("tasks/cancel")[:2] == [{"taskId": "7"}] * 2


async def test_what_is_no_task_is_an_error(autojump_clock, tasks, serving):
    """A refusal is passed on."""

    async def refuse(exchange: Exchange) -> Reply:
        return ErrorReply(-32602, "no")

    async def odd(exchange: Exchange) -> Reply:
        return Result({"task": []})

    async with serving(tasks) as peer:
        tasks.handlers["tools/call"] = refuse
        assert await peer.call("tools/call", {"name": "t"}) == ErrorReply(-32602, "no")
        tasks.handlers["tools/call"] = odd
        with pytest.raises(UpstreamProtocolError, match="none"):
            await peer.call("tools/call", {"name": "t"})


async def test_a_task_that_cannot_be_waited_for_was_begun_all_the_same(autojump_clock, tasks, serving):
    """Nobody may begin another one for the client."""

    async def away(exchange: Exchange) -> Reply:
        raise ConnectFailed("away")

    tasks.handlers["tasks/result"] = away
    async with serving(tasks) as peer:
        with pytest.raises(ConnectFailed, match="away") as raised:
            await peer.tool()

    assert not raised.value.retryable
    assert tasks.of("tasks/cancel") == [{"taskId": "7"}]
