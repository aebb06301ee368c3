"""What one upstream has begun goes back to it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import ConnectFailed, InvalidParams, UpstreamClosed
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Result
from sluiceway.pipeline.testing import MODERN_CLIENT, memory_exchange
from sluiceway.transports.translation.task_messages import EXTENSION

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


KNOWS_TASKS = replace(MODERN_CLIENT, capabilities={"extensions": {EXTENSION: {}}})
"""It takes tasks for answers."""


async def make_task(made, caller=ALICE):
    """Have a task made; its id as the client knows it."""
    reply = await made.sink(memory_exchange("tools/call", {"name": "t"}, caller=caller, client=KNOWS_TASKS))
    return reply.value["taskId"]


def says_task(exchange):
    """An upstream that has a task `1`, as all have who number theirs alike."""
    return Result({"resultType": "task", "taskId": "1"})


async def test_equal_upstreams_may_number_their_tasks_alike(autojump_clock, group):
    """Ids say whose each is; upstreams see their own, and so does another process that knows nothing of this one."""
    async with group("a", "b", strategy="round_robin") as made, group("a", "b") as other:
        for up in made.ups.values():
            up.answers["tools/call"] = says_task
            up.answers["tasks/get"] = lambda x, up=up: Result({"taskId": x.request.params["taskId"], "by": up.name})
        for up in other.ups.values():
            up.answers["tasks/cancel"] = lambda _, up=up: Result({"by": up.name})
        tasks = [await make_task(made) for _ in range(2)]
        known = [(await made.sink(memory_exchange("tasks/get", {"taskId": task}))).value for task in tasks]
        cancelled = [await other.sink(memory_exchange("tasks/cancel", {"taskId": task})) for task in tasks]
        asked = [up.seen[-1].request.params for up in (*made.ups.values(), *other.ups.values())]

    assert tasks[0] != tasks[1]
    assert known == [{"taskId": task, "by": name} for task, name in zip(tasks, "ab", strict=True)]
    assert cancelled == [Result({"by": "a"}), Result({"by": "b"})]
    assert asked == [{"taskId": "1"}] * 4


async def test_what_an_upstream_tells_of_its_task_names_it_as_the_client_knows_it(autojump_clock, group):
    """Statuses while a call runs."""
    told = []
    async with group("a") as made:
        made.ups["a"].answers["tools/call"] = says_task
        made.ups["a"].tells = Notification("notifications/tasks", {"taskId": "1", "status": "working"})
        task = (await made.sink(memory_exchange("tools/call", {"name": "t"}, client=KNOWS_TASKS, interim=told))).value

    assert [each.params["taskId"] for each in told] == [task["taskId"]]
    assert task["taskId"] != "1"


async def test_who_listens_to_tasks_listens_where_they_are(autojump_clock, group):
    """A stream has one upstream, that of the first; what the others have it does not acknowledge."""
    async with group("a", "b", strategy="round_robin") as made:
        for up in made.ups.values():
            up.answers["tools/call"] = says_task
        first, second = [await make_task(made) for _ in range(2)]
        for ids in ([second], [second, "unknown"], ["unknown"], "odd"):
            await made.sink(memory_exchange("subscriptions/listen", {"notifications": {"taskIds": ids}}))
        listened = {
            name: [x.request.params["notifications"]["taskIds"] for x in up.seen if x.method == "subscriptions/listen"]
            for name, up in made.ups.items()
        }

    assert first != second
    assert listened["b"][:2] == [["1"], ["1"]]
    assert sorted(map(str, listened["a"] + listened["b"][2:])) == ["['unknown']", "odd"]


async def test_with_a_key_a_task_is_for_whom_it_was_made_alone(autojump_clock, group, monkeypatch):
    """Nobody else can ask for it, nor can ids be made up."""
    monkeypatch.setenv("BALANCE_KEY", "x" * 32)
    async with group("a", seal_key={"from_env": "BALANCE_KEY"}) as made:
        made.ups["a"].answers["tools/call"] = says_task
        task = await make_task(made)
        assert Result({"by": "a"}) == await made.sink(memory_exchange("tasks/get", {"taskId": task}, caller=ALICE))
        for caller, known in ((Caller("bob"), task), (ALICE, "1")):
            with pytest.raises(InvalidParams, match="there is no such task"):
                await made.sink(memory_exchange("tasks/get", {"taskId": known}, caller=caller))


async def test_the_task_of_an_upstream_that_has_left_is_looked_for_with_the_others(autojump_clock, group):
    """They may share what they know of tasks; by the id that they gave it."""
    async with group("a", "b", strategy="round_robin") as made:
        made.ups["a"].answers["tools/call"] = says_task
        task = await make_task(made)
    async with group("b", "c") as made:
        made.ups["b"].answers["tasks/get"] = lambda _: ErrorReply(-32602, "no such task")
        reply = await made.sink(memory_exchange("tasks/get", {"taskId": task}))
        asked = made.ups["c"].seen[-1].request.params

    assert reply == Result({"by": "c"})
    assert asked == {"taskId": "1"}


async def test_an_unknown_task_is_looked_for(autojump_clock, group):
    """One that was made unasked, so its id says nothing. If nobody knows it, the last one's word stands."""
    async with group("a", "b", "c") as made:
        for name in "ac":
            made.ups[name].answers["tasks/get"] = lambda _: ErrorReply(-32602, "no such task")
        assert Result({"by": "b"}) == await made.sink(memory_exchange("tasks/get", {"taskId": "t"}))
        assert [len(up.seen) for up in made.ups.values()] == [1, 1, 0]
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
