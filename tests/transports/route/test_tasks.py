"""Tasks go by their ids, which say whose they are; what upstreams say of a task names it as its client knows it."""

import trio
from msgspec.structs import replace

from sluiceway.pipeline.model.session import ANONYMOUS, Caller
from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.pipeline.testing import MODERN_CLIENT, FakeSink, legacy_client
from sluiceway.transports.task_ids import TaskIds

ABOUT = {"_meta": {"io.modelcontextprotocol/related-task": {"taskId": "1"}}}


async def test_a_task_goes_to_whoever_made_it(autojump_clock, scripted, routed):
    """Its id says so: two upstreams may number theirs alike, and no gateway has to remember."""
    one, two = scripted("one", tasks=[["1"]]), scripted("two", tasks=[["1"]])
    two.answers["tools/call"] = lambda _: Result({"task": {"taskId": "1"}})
    async with routed(one, two) as gateway:
        gateway.client = legacy_client()
        made = await gateway.call("tools/call", name="two.x", task={})
        listed = await gateway.call("tasks/list")
    ids = [made.value["task"]["taskId"], *(task["taskId"] for task in listed.value["tasks"])]
    async with routed(one, two) as another:
        another.client = legacy_client()
        replies = [await another.call("tasks/get", taskId=each) for each in ids]

    assert [("two", "1"), ("one", "1"), ("two", "1")] == [(r.value["by"], r.value["params"]["taskId"]) for r in replies]


async def test_a_task_of_nobody_is_refused(autojump_clock, scripted, routed):
    """No upstream is asked: one that says yes to everything would have it."""
    one, two = scripted("one"), scripted("two")
    two.answers["tools/call"] = lambda _: Result({"task": {"taskId": "1"}})
    async with routed(one, two) as gateway:
        gateway.client = legacy_client()
        made = await gateway.call("tools/call", name="two.x", task={})
    async with routed(one, scripted("three")) as gateway:
        gateway.client = legacy_client()
        replies = [await gateway.call("tasks/get", taskId=each) for each in ("1", 1, made.value["task"]["taskId"])]

    assert [-32602] * 3 == [reply.code for reply in replies]
    assert ["unknown task: 1", "tasks/get needs params.taskId, a string"] == [reply.message for reply in replies[:2]]
    assert "two" in replies[2].message
    assert [] == one.methods


async def test_with_a_key_a_task_is_its_callers_alone(autojump_clock, scripted, routed, monkeypatch):
    """Whoever gets hold of its id has nothing; the same client has it at another gateway with that key."""
    monkeypatch.setenv("ROUTE_KEY", "a secret of some length")
    two = scripted("two")
    two.answers["tools/call"] = lambda _: Result({"resultType": "task", "taskId": "1", "status": "working"})
    gateway = routed(two, cursor_key={"from_env": "ROUTE_KEY"})
    again = routed(two, cursor_key={"from_env": "ROUTE_KEY"})
    async with gateway, again:
        for each in (gateway, again):
            each.caller = Caller("ana", tenant="acme")
            each.client = replace(MODERN_CLIENT, capabilities={"extensions": {"io.modelcontextprotocol/tasks": {}}})
        made = await gateway.call("tools/call", name="two.x")
        found = await again.call("tasks/get", taskId=made.value["taskId"])
        again.caller = Caller("bo", tenant="acme")
        refused = await again.call("tasks/get", taskId=made.value["taskId"])

    assert "1" != made.value["taskId"]
    assert "1" == found.value["params"]["taskId"]
    assert -32602 == refused.code


async def test_a_result_that_only_looks_like_a_task_is_left_alone(autojump_clock, scripted, routed):
    """Nobody asked for a task."""
    one = scripted("one")
    one.answers["tools/call"] = lambda _: Result({"content": [], "task": {"taskId": "1"}, "taskId": "2"})
    async with routed(one, scripted("two")) as gateway:
        gateway.client = legacy_client()
        reply = await gateway.call("tools/call", name="one.x")

    assert {"content": [], "task": {"taskId": "1"}, "taskId": "2"} == reply.value


async def test_questions_and_words_of_a_task_name_it_as_the_client_knows_it(autojump_clock, scripted, routed):
    """Relayed or asked; what the client answers names it as the upstream knows it."""
    asked, answers = [], []

    async def ask(method, params):
        asked.append(params)
        return Result({"action": "accept", "_meta": params["_meta"]})

    async def work(exchange):
        await exchange.relay(Notification("notifications/tasks/status", {"taskId": "1", "status": "working", **ABOUT}))
        await exchange.relay(Notification("notifications/message", {"level": "info"}))
        answers.append(await exchange.ask("elicitation/create", {"message": "sure?", **ABOUT}))
        return Result({"content": [], **ABOUT})

    async with routed(("one", FakeSink(work)), scripted("two")) as gateway:
        gateway.ask = ask
        call = gateway.start("tasks/result", {"taskId": TaskIds(None).seal(ANONYMOUS, "one", "1")})
        reply = await call.wait()
        heard = call.interim

    known = TaskIds(None).seal(ANONYMOUS, "one", "1")
    related = {"_meta": {"io.modelcontextprotocol/related-task": {"taskId": known}}}
    assert {"content": [], **related} == reply.value
    assert [{"taskId": known, "status": "working", **related}, {"level": "info"}] == [each.params for each in heard]
    assert [{"message": "sure?", **related}] == asked
    assert [{"action": "accept", **ABOUT}] == [each.value for each in answers]


async def test_a_listener_hears_of_its_tasks_from_whose_they_are(autojump_clock, routed):
    """Each upstream is told of its own only, as it knows them; strangers' are nobody's."""
    ids = TaskIds(None)
    mine, other = ids.seal(ANONYMOUS, "one", "1"), ids.seal(ANONYMOUS, "two", "1")
    one, two = FakeSink(), FakeSink()
    async with routed(("one", one), ("two", two)) as gateway:
        call = gateway.start("subscriptions/listen", notifications={"taskIds": [mine, other, "1", 7]})
        first, second = await one.next(), await two.next()
        first.relay("notifications/subscriptions/acknowledged", {"notifications": {"taskIds": ["1"]}})
        second.relay("notifications/subscriptions/acknowledged", {"notifications": {}})
        first.relay("notifications/tasks", {"taskId": "1", "status": "completed"})
        await trio.testing.wait_all_tasks_blocked()
        said = [each.params for each in call.interim]
        wanted = [each.params["notifications"] for each in (first, second)]
        call.cancel()

    assert [{"taskIds": ["1"]}, {"taskIds": ["1"]}] == wanted
    assert {"taskIds": [mine]} == said[0]["notifications"]
    assert mine == said[1]["taskId"]


async def test_what_is_said_to_a_session_names_tasks_as_it_knows_them(autojump_clock, routed):
    """Outside of any exchange: told, or asked."""
    told, asked = [], []

    async def ask(method, params):
        asked.append(params)
        return Result({"action": "decline"})

    async def silent(_exchange):
        return Result({"content": []})

    one = FakeSink(silent)
    async with routed(("one", one)) as gateway:
        gateway.client = legacy_client()
        gateway.client.session.notify, gateway.client.session.ask = told.append, ask
        await gateway.call("tools/call", name="one.x")
        session = one.exchanges[0].client.session
        session.notify(Notification("notifications/tasks/status", {"taskId": "1", "status": "working"}))
        answer = await session.ask("elicitation/create", {"message": "sure?", **ABOUT})

    known = TaskIds(None).seal(ANONYMOUS, "one", "1")
    assert [{"taskId": known, "status": "working"}] == [each.params for each in told]
    assert [known] == [each["_meta"]["io.modelcontextprotocol/related-task"]["taskId"] for each in asked]
    assert Result({"action": "decline"}) == answer
