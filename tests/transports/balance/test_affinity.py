"""What one upstream has begun goes back to it."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import ConnectFailed, InvalidParams, UpstreamClosed
from sluiceway.pipeline.protocol.messages import ErrorReply, Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.balance.affinity import MAX_TASKS, Affinity
from sluiceway.transports.seals import Seals

ALICE = Caller("alice", how="api_key")


async def page(made, cursor=None, caller=ALICE, method="tools/list"):
    """One page of a list."""
    params = {} if cursor is None else {"cursor": cursor}
    return (await made.sink(memory_exchange(method, params, caller=caller))).value


async def test_a_cursor_goes_back_to_who_made_it(autojump_clock, group):
    """As it was; whatever the strategy says."""
    async with group("a", "b", strategy="round_robin") as made:
        for name, up in made.ups.items():
            up.answers["tools/list"] = lambda _, name=name: Result({"tools": [], "nextCursor": f"{name}-2", "x": 1})
        first = await page(made)
        await made.call()
        await page(made, first["nextCursor"])

        assert first["nextCursor"] != "a-2"
        assert first["x"] == 1
        assert [x.request.params for x in made.ups["a"].seen if "cursor" in x.request.params] == [{"cursor": "a-2"}]


async def test_a_cursor_of_somebody_or_something_else_is_refused(autojump_clock, group):
    """Another caller's, another list's, one that was made up."""
    async with group("a") as made:
        made.ups["a"].answers["tools/list"] = lambda _: Result({"tools": [], "nextCursor": "2"})
        cursor = (await page(made))["nextCursor"]
        for bad in (
            page(made, cursor, Caller("bob")),
            page(made, cursor, method="prompts/list"),
            page(made, "2"),
            page(made, 5),
        ):
            with pytest.raises(InvalidParams, match="cursor"):
                await bad


async def test_a_question_half_answered_goes_back_to_who_asked(autojump_clock, group):
    """Its request state is sealed, and bound to the tool."""
    async with group("a", "b", strategy="round_robin") as made:
        made.ups["a"].answers["tools/call"] = lambda _: Result({"resultType": "input_required", "requestState": "s"})
        reply = await made.sink(memory_exchange("tools/call", {"name": "t"}))
        again = {"name": "t", "requestState": reply.value["requestState"], "inputResponses": {}}
        await made.call()
        await made.sink(memory_exchange("tools/call", again))
        assert made.ups["a"].seen[-1].request.params == {**again, "requestState": "s"}

        with pytest.raises(InvalidParams, match="requestState"):
            await made.sink(memory_exchange("tools/call", {**again, "name": "other"}))


async def test_what_no_upstream_has_any_more_cannot_go_on(autojump_clock, group):
    """Its upstream was removed, and the key is the same."""
    secret = {"from_env": "BALANCE_KEY"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BALANCE_KEY", "x" * 32)
        async with group("a", seal_key=secret) as made:
            made.ups["a"].answers["tools/list"] = lambda _: Result({"tools": [], "nextCursor": "2"})
            cursor = (await page(made))["nextCursor"]
        async with group("a", seal_key=secret) as made:
            await page(made, cursor)
        async with group("b", seal_key=secret) as made:
            with pytest.raises(InvalidParams, match="a, which this goes on with, is gone"):
                await page(made, cursor)
    assert Secret(from_env="BALANCE_KEY")


async def test_what_is_no_cursor_stays_as_it_is(autojump_clock, group):
    """No text, an error, or the word in some text."""
    async with group("a") as made:
        for value in ({"tools": [], "nextCursor": None}, {"tools": [{"name": '"nextCursor"'}]}):
            made.ups["a"].answers["tools/list"] = lambda _, value=value: Result(value)
            assert await page(made) == value
        made.ups["a"].answers["tools/list"] = lambda _: ErrorReply(-32000, "no")
        assert ErrorReply(-32000, "no") == await made.sink(memory_exchange("tools/list"))


async def test_a_task_belongs_to_who_made_it(autojump_clock, group):
    """For the caller who had it made; in both shapes."""
    async with group("a", "b", "c", strategy="round_robin") as made:
        made.ups["a"].answers["tools/call"] = lambda _: Result({"task": {"taskId": "t1"}})
        made.ups["b"].answers["tools/call"] = lambda _: Result({"resultType": "task", "taskId": "t2"})
        for _ in range(2):
            await made.sink(memory_exchange("tools/call", {"name": "t"}, caller=ALICE))
        for task, owner in (("t1", "a"), ("t2", "b"), ("t1", "a")):
            reply = await made.sink(memory_exchange("tasks/get", {"taskId": task}, caller=ALICE))
            assert reply == Result({"by": owner})


async def test_an_unknown_task_is_looked_for(autojump_clock, group):
    """Everybody is asked until one knows it; that is remembered. If nobody does, the last one's word stands."""
    async with group("a", "b", "c") as made:
        for name in "ac":
            made.ups[name].answers["tasks/get"] = lambda _: ErrorReply(-32602, "no such task")
        for _ in range(2):
            assert Result({"by": "b"}) == await made.sink(memory_exchange("tasks/get", {"taskId": "t"}))
        assert [len(up.seen) for up in made.ups.values()] == [1, 2, 0]
        made.ups["b"].answers["tasks/get"] = made.ups["a"].answers["tasks/get"]
        reply = await made.sink(memory_exchange("tasks/get", {"taskId": "other"}))

        assert reply == ErrorReply(-32602, "no such task")


async def test_a_task_may_be_with_whom_cannot_be_reached(autojump_clock, group):
    """Then nobody says that there is none; who has it is found around a dead one, and a lost word is not repeated."""
    async with group("a", "b") as made:
        made.ups["a"].error = ConnectFailed("dead")
        made.ups["b"].answers["tasks/get"] = lambda _: ErrorReply(-32602, "no such task")
        with pytest.raises(ConnectFailed):
            await made.sink(memory_exchange("tasks/get", {"taskId": "t"}))
        made.ups["b"].answers.clear()
        assert Result({"by": "b"}) == await made.sink(memory_exchange("tasks/get", {"taskId": "u"}))
        made.ups["a"].error = UpstreamClosed("lost")
        with pytest.raises(UpstreamClosed):
            await made.sink(memory_exchange("tasks/cancel", {"taskId": "v"}))


def test_tasks_are_forgotten_in_the_end():
    """The one not used for longest first."""
    affinity = Affinity(Seals(b"key"))
    for number in range(MAX_TASKS):
        affinity.note(ALICE, str(number), "a")
    assert affinity.owner(ALICE, "0") == "a"
    affinity.note(ALICE, "new", "a")

    assert len(affinity) == MAX_TASKS
    assert affinity.owner(ALICE, "0") == "a"
    assert affinity.owner(ALICE, "1") is None
