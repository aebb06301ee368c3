"""Tasks of a modern client, under the extension, at an upstream with the tasks of 2025-11-25."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    ConnectFailed,
    InvalidParams,
    MissingCapability,
    UnknownMethod,
    UpstreamProtocolError,
)
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Result
from sluiceway.pipeline.testing import cancel_everywhere
from sluiceway.transports.translation import held_task, to_legacy_held_tasks

EXTENSION = "io.modelcontextprotocol/tasks"
RELATED = {"_meta": {"io.modelcontextprotocol/related-task": {"taskId": "task-1"}}}
KNOWS = {"extensions": {EXTENSION: {}}, "elicitation": {}}
BEGAN = "2026-01-01T00:00:00Z"
DONE = {"content": [{"type": "text", "text": "done"}]}
BAD = {"content": [], "isError": True}
YES = {"action": "accept"}
BOB = Caller("bob", how="api_key")


class Tasks:
    """What a legacy server with tasks does."""

    def __init__(self, server: Any) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.asks: list[str] = []
        """Messages of the questions that are asked of who waits."""
        self.answers: list[Any] = []
        self.outcome: Reply = Result({**DONE, **RELATED})
        self.done = trio.Event()
        self.fail: Exception | None = None
        self.server = server
        self.unaddressed = False
        server.capabilities = {
            "tools": {"listChanged": True}, "tasks": {"requests": {"tools": {"call": {}}}, "cancel": {}},
        }  # fmt: skip
        server.handlers |= {
            "tools/list": self.listed,
            "tools/call": self.call,
            "tasks/get": self.get,
            "tasks/result": self.result,
            "tasks/cancel": self.cancel,
        }

    async def listed(self, exchange: Exchange) -> Reply:
        supports = {"t": "optional", "required": "required", "never": "forbidden", "old": None}

        def tool(name: str, how: str | None) -> dict[str, Any]:
            execution = {"execution": {"taskSupport": how}} if how else {}
            return {"name": name, "inputSchema": {"type": "object"}, **execution}

        return Result({"tools": [tool(name, how) for name, how in supports.items()]})

    async def call(self, exchange: Exchange) -> Reply:
        if "task" not in exchange.request.params or exchange.request.params.get("arguments") == {"plain": True}:
            return Result(DONE)
        task_id = f"task-{len(self.tasks) + 1}"
        self.tasks[task_id] = {
            "taskId": task_id, "status": "working", "statusMessage": "busy", "createdAt": BEGAN,
            "lastUpdatedAt": BEGAN, "ttl": 600_000, "pollInterval": 500,
        }  # fmt: skip
        return Result({"task": self.tasks[task_id]})

    async def get(self, exchange: Exchange) -> Reply:
        if self.fail is not None:
            raise self.fail
        task = self.tasks.get(exchange.request.params["taskId"])
        return ErrorReply(-32602, "no such task") if task is None else Result(task)

    async def result(self, exchange: Exchange) -> Reply:
        if self.fail is not None:
            raise self.fail
        ask = exchange.ask if not self.unaddressed else self.server.sessions[-1].ask
        for message in self.asks:
            answer = await ask("elicitation/create", {"message": message, **RELATED})
            self.answers.append(answer)
        if not self.asks:
            await self.done.wait()
        return self.outcome

    async def cancel(self, exchange: Exchange) -> Reply:
        task = self.tasks.get(exchange.request.params["taskId"])
        if task is None:
            return ErrorReply(-32602, "no such task")
        task["status"] = "cancelled"
        return Result(task)

    def say(self, **more: Any) -> None:
        """Tell of a new state without having been asked."""
        self.tasks["task-1"] |= more
        self.server.say("notifications/tasks/status", self.tasks["task-1"])


@pytest.fixture
def tasks(server: Any) -> Tasks:
    """A server that runs tools as tasks."""
    return Tasks(server)


async def look(peer: Any, task_id: str = "task-1", **more: Any) -> Any:
    reply = await peer.call("tasks/get", {"taskId": task_id}, capabilities=KNOWS, **more)
    assert isinstance(reply, Result), reply
    return {key: value for key, value in reply.value.items() if key != "_meta"}


async def update(peer: Any, answers: Mapping[str, Any]) -> Any:
    params = {"taskId": "task-1", "inputResponses": answers}
    return await peer.call("tasks/update", params, capabilities=KNOWS)


@pytest.mark.parametrize(
    ("name", "capabilities", "kind"),
    [
        ("t", KNOWS, "task"),
        ("required", KNOWS, "task"),
        ("never", KNOWS, "complete"),
        ("old", KNOWS, "complete"),
        ("t", {}, "complete"),
    ],
)
async def test_a_call_is_a_task_where_both_sides_can(autojump_clock, tasks, serving, name, capabilities, kind):
    """The tool may be called as one, and the client declares the extension."""
    async with serving(tasks.server, addressed=True) as peer:
        result = await peer.tool(name, capabilities=capabilities)

    assert result["resultType"] == kind
    assert ("task" in tasks.server.of("tools/call")[0]) is (kind == "task")


@pytest.mark.parametrize("has", [True, False])
async def test_the_extension_is_offered_where_the_upstream_has_tasks(autojump_clock, tasks, serving, has):
    """The capability of the older revision is not; without either, methods and filters mean nothing."""
    if not has:
        tasks.server.capabilities = {"tools": {}}
    async with serving(tasks.server) as peer:
        reply = await peer.call("server/discover")
        for method in ("tasks/get", "tasks/update", "tasks/cancel", "tasks/result", "tasks/list"):
            known = has and method not in ("tasks/result", "tasks/list")
            with pytest.raises(MissingCapability if known else UnknownMethod):
                await peer.call(method, {"taskId": "task-1"})

    assert reply.value["capabilities"].get("extensions") == ({EXTENSION: {}} if has else None)
    assert "tasks" not in reply.value["capabilities"]


async def test_a_task_is_looked_at_until_it_is_complete(autojump_clock, tasks, serving):
    """Its result stands in it; nobody waits at the upstream while it works."""
    async with serving(tasks.server, addressed=True) as peer:
        created = await peer.tool(capabilities=KNOWS)
        working = await look(peer)
        assert tasks.server.of("tasks/result") == []
        tasks.done.set()
        tasks.tasks["task-1"]["status"] = "completed"
        done = await look(peer)
        again = await look(peer)

    common = {
        "taskId": "task-1", "statusMessage": "busy", "createdAt": BEGAN, "lastUpdatedAt": BEGAN, "ttlMs": 600_000,
        "pollIntervalMs": 500,
    }  # fmt: skip
    assert {key: value for key, value in created.items() if key != "_meta"} == {
        **common, "status": "working", "resultType": "task",
    }  # fmt: skip
    assert working == {**common, "status": "working", "resultType": "complete"}
    assert done == again == {**common, "status": "completed", "resultType": "complete", "result": DONE}
    assert len(tasks.server.of("tasks/get")) == 2


@pytest.mark.parametrize(
    ("status", "outcome", "told"),
    [
        ("failed", Result({**BAD, **RELATED}), {"status": "completed", "result": BAD}),
        ("failed", ErrorReply(-5, "m"), {"status": "failed", "error": {"code": -5, "message": "m"}}),
        ("failed", ErrorReply(-5, "m", 1), {"status": "failed", "error": {"code": -5, "message": "m", "data": 1}}),
        ("cancelled", ErrorReply(-5, "m"), {"status": "cancelled"}),
    ],
)  # fmt: skip
async def test_ends_are_told_as_the_extension_has_them(autojump_clock, tasks, serving, status, outcome, told):
    """A tool that says that it failed has been called; only an error is a failure."""
    tasks.outcome = outcome
    tasks.done.set()
    async with serving(tasks.server, addressed=True) as peer:
        await peer.tool(capabilities=KNOWS)
        tasks.tasks["task-1"]["status"] = status
        seen = await look(peer)

    assert {key: seen[key] for key in told} == told
    assert seen.keys() - told.keys() == {
        "taskId", "statusMessage", "createdAt", "lastUpdatedAt", "ttlMs", "pollIntervalMs", "resultType",
    }  # fmt: skip


@pytest.mark.parametrize("unaddressed", [True, False])
async def test_questions_of_a_task_are_answered_by_updates(autojump_clock, tasks, serving, unaddressed):
    """On the stream of who waits, or on the session's own: they say whose they are. Each key is asked once."""
    tasks.asks, tasks.unaddressed = ["one", "two"], unaddressed
    async with serving(tasks.server, addressed=not unaddressed) as peer:
        await peer.tool(capabilities=KNOWS)
        tasks.tasks["task-1"]["status"] = "input_required"
        first = await look(peer)
        again = await look(peer)
        acknowledged = await update(peer, {"q1": YES, "other": YES})
        await trio.testing.wait_all_tasks_blocked()
        second = await look(peer)
        await update(peer, {"q1": {"action": "late"}, "q2": {"action": "decline"}})
        await trio.testing.wait_all_tasks_blocked()
        done = await look(peer)

    assert first["status"] == "input_required"
    assert first["inputRequests"] == again["inputRequests"] == {
        "q1": {"method": "elicitation/create", "params": {"message": "one"}}
    }  # fmt: skip
    assert acknowledged.value["resultType"] == "complete"
    assert list(second["inputRequests"]) == ["q2"]
    assert done["status"] == "completed"
    assert tasks.answers == [Result(YES), Result({"action": "decline"})]


async def test_what_nobody_answers_or_can_answer_is_refused(autojump_clock, tasks, serving, monkeypatch):
    """The upstream is told, and the task goes on."""
    monkeypatch.setattr(held_task, "MAX_QUESTIONS", 1)
    async with serving(tasks.server, addressed=True, park_timeout=10) as peer:
        await peer.tool(capabilities=KNOWS)
        (session,) = tasks.server.sessions
        about = {"message": "m", **RELATED}
        replies: list[Any] = []

        async def ask(method: str) -> None:
            replies.append(await session.ask(method, about))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "elicitation/create")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, "elicitation/create")
            nursery.start_soon(ask, "sampling/createMessage")
        seen = await look(peer)

    assert sorted(reply.message for reply in replies) == [
        "1 questions are open; wait for an answer",
        "the client has not answered in time",
        "this client cannot be asked: sampling/createMessage",
    ]
    assert seen["status"] == "working"


async def test_listeners_are_told_of_their_tasks(autojump_clock, tasks, serving):
    """Those that they name and that are the caller's; they need not look at them."""
    async with serving(tasks.server, addressed=True) as peer:
        await peer.tool(capabilities=KNOWS)
        heard: list[Notification] = []
        wanted = {"taskIds": ["task-1", "task-9"]}
        exchange = peer.exchange("subscriptions/listen", {"notifications": wanted}, capabilities=KNOWS)
        exchange.link.emit = _into(heard)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.service, exchange)
            await trio.testing.wait_all_tasks_blocked()
            tasks.say(statusMessage="half")
            tasks.server.say("notifications/tasks/status", {"taskId": "task-1", "status": "odd"})
            tasks.server.say("notifications/tasks/status", {**tasks.tasks["task-1"], "taskId": "task-9"})
            await trio.testing.wait_all_tasks_blocked()
            tasks.done.set()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        (held,) = peer.service._sessions._held.values()
        assert held.tasks["task-1"].listeners == set()

    assert heard[0].params["notifications"] == {"taskIds": ["task-1"]}
    assert [(note.method, note.params["status"], note.params["statusMessage"]) for note in heard[1:]] == [
        ("notifications/tasks", "working", "half"),
        ("notifications/tasks", "completed", "half"),
    ]
    assert heard[2].params["result"] == DONE
    assert heard[2].params["_meta"] == {"io.modelcontextprotocol/subscriptionId": exchange.request.id}


def _into(heard: list[Notification]) -> Any:
    async def emit(notification: Notification) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(notification)

    return emit


async def test_who_listens_need_not_look_after_a_failure(autojump_clock, tasks, serving):
    """The upstream is asked again, less and less often; nobody asks for a task to which nobody listens."""
    async with serving(tasks.server, addressed=True) as peer:
        await peer.tool(capabilities=KNOWS)
        heard: list[Notification] = []
        wanted = {"taskIds": ["task-1"]}
        exchange = peer.exchange("subscriptions/listen", {"notifications": wanted}, capabilities=KNOWS)
        exchange.link.emit = _into(heard)
        tasks.fail = ConnectFailed("gone")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.service, exchange)
            await trio.sleep(5)
            assert len(tasks.server.of("tasks/result")) == 3
            tasks.fail = None
            tasks.done.set()
            await trio.sleep(3)
            nursery.cancel_scope.cancel()

    assert [note.params["status"] for note in heard[1:]] == ["completed"]
    assert len(tasks.server.of("tasks/result")) == 4


@pytest.mark.parametrize("wanted", [5, [5], ["x"] * 1001])
async def test_rubbish_in_a_filter_is_refused(autojump_clock, tasks, serving, wanted):
    """As other parts of it are; and so are clients that do not declare the extension."""
    async with serving(tasks.server) as peer:
        with pytest.raises(InvalidParams, match="taskIds"):
            await peer.call("subscriptions/listen", {"notifications": {"taskIds": wanted}}, capabilities=KNOWS)
        with pytest.raises(MissingCapability):
            await peer.call("subscriptions/listen", {"notifications": {"taskIds": ["x"]}})


async def test_a_cancelled_task_is_cancelled_there_and_stays_so(autojump_clock, tasks, serving):
    """Who waits for it at the upstream waits no more; once it is over, there is nothing to cancel."""
    async with serving(tasks.server, addressed=True) as peer:
        await peer.tool(capabilities=KNOWS)
        tasks.tasks["task-1"]["status"] = "input_required"
        await look(peer)
        assert len(tasks.server.of("tasks/result")) == 1
        for _ in range(2):
            reply = await peer.call("tasks/cancel", {"taskId": "task-1"}, capabilities=KNOWS)
            assert reply.value["resultType"] == "complete"
        await trio.testing.wait_all_tasks_blocked()
        assert len(tasks.server.cancelled) == 1
        assert (await look(peer))["status"] == "cancelled"

    assert len(tasks.server.of("tasks/cancel")) == 1


async def test_a_task_belongs_to_the_caller_that_created_it(autojump_clock, tasks, serving):
    """Another one is told that there is none, and the upstream is not asked; the caller's other sessions find it."""
    async with serving(tasks.server) as peer:
        await peer.tool(capabilities=KNOWS)
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            params = {"taskId": "task-1", "inputResponses": {}}
            reply = await peer.call(method, params, capabilities=KNOWS, caller=BOB)
            assert (reply.code, "not found" in reply.message) == (-32602, True)
        other = await peer.call("tasks/get", {"taskId": "task-1"}, capabilities={**KNOWS, "roots": {}})
        none = await peer.call("tasks/get", {"taskId": 5}, capabilities=KNOWS)

    assert other.value["status"] == "working"
    assert none.code == -32602
    assert len(tasks.server.of("tasks/get")) == 1


async def test_a_session_has_only_so_many_tasks(autojump_clock, tasks, serving, monkeypatch):
    """Those that are over make room, the oldest first; and those with long results."""
    monkeypatch.setattr(to_legacy_held_tasks, "MAX_TASKS", 2)
    tasks.done.set()
    async with serving(tasks.server, addressed=True) as peer:
        await peer.tool(capabilities=KNOWS)
        await peer.tool(capabilities=KNOWS)
        with pytest.raises(CapacityExceeded, match="2 tasks"):
            await peer.tool(capabilities=KNOWS)
        assert len(tasks.server.of("tools/call")) == 2
        for name in ("task-1", "task-2"):
            tasks.tasks[name]["status"] = "completed"
            await look(peer, name)
        await peer.tool(capabilities=KNOWS)
        (held,) = peer.service._sessions._held.values()
        assert list(held.tasks) == ["task-2", "task-3"]
        monkeypatch.setattr(to_legacy_held_tasks, "MAX_BYTES", 1)
        await peer.tool(capabilities=KNOWS)
        assert list(held.tasks) == ["task-3", "task-4"]
        assert {each.name: each.value for each in peer.service.figures()}["translation_tasks"] == 2


@pytest.mark.parametrize(("ttl", "held_s"), [(5000, 5), (None, 3600), (10**9, 24 * 3600)])
async def test_a_task_is_held_for_its_time(autojump_clock, ttl, held_s):
    """Or an hour where it has none, and a day at most; its client is told."""
    task = held_task.HeldTask("x", {"taskId": "x", "status": "working", "ttlMs": ttl}, {}, 1.0)

    assert task.scope.deadline - trio.current_time() == held_s
    assert task.details()["ttlMs"] == held_s * 1000


async def test_a_task_whose_time_is_over_is_forgotten(autojump_clock, tasks, serving):
    """And its session may end."""
    async with serving(tasks.server, addressed=True) as peer:
        await peer.tool(capabilities=KNOWS)
        await trio.sleep(599)
        (held,) = peer.service._sessions._held.values()
        assert held.users == 1
        await trio.sleep(2)
        assert (held.tasks, held.users) == ({}, 0)
        reply = await peer.call("tasks/get", {"taskId": "task-1"}, capabilities=KNOWS)

    assert reply.code == -32602


async def test_an_upstream_that_dies_is_told_to_who_looks(autojump_clock, tasks, serving):
    """The task is asked for again once it is back."""
    async with serving(tasks.server, addressed=True) as peer:
        await peer.tool(capabilities=KNOWS)
        tasks.tasks["task-1"]["status"] = "completed"
        tasks.fail = ConnectFailed("gone")
        with pytest.raises(ConnectFailed):
            await look(peer)
        tasks.server.handlers["tasks/get"] = _always(Result(tasks.tasks["task-1"]))
        assert (await look(peer))["status"] == "working"
        tasks.fail = None
        tasks.done.set()
        assert (await look(peer))["status"] == "completed"


async def test_an_upstream_that_forgot_a_task_says_so(autojump_clock, tasks, serving):
    """Its own error; to a cancellation, too. What is no task is its error."""
    async with serving(tasks.server, addressed=True) as peer:
        await peer.tool(capabilities=KNOWS)
        tasks.tasks.clear()
        for method in ("tasks/get", "tasks/cancel"):
            reply = await peer.call(method, {"taskId": "task-1"}, capabilities=KNOWS)
            assert reply == ErrorReply(-32602, "no such task")
        tasks.server.handlers["tasks/get"] = _always(Result({"status": "odd"}))
        with pytest.raises(UpstreamProtocolError, match="odd"):
            await look(peer)
        with pytest.raises(InvalidParams, match="inputResponses"):
            await update(peer, 5)  # type: ignore[arg-type]  # rubbish is what it is about


def _always(reply: Reply) -> Any:
    async def handle(exchange: Exchange) -> Reply:
        return reply

    return handle


async def test_an_answer_in_place_of_a_task_is_the_answer(autojump_clock, tasks, serving):
    """Refusals, too."""
    async with serving(tasks.server) as peer:
        params = {"name": "t", "arguments": {"plain": True}}
        reply = await peer.call("tools/call", params, capabilities=KNOWS)
        tasks.server.handlers["tools/call"] = _always(ErrorReply(-1, "no"))
        refused = await peer.call("tools/call", params, capabilities=KNOWS)

    assert (reply.value["resultType"], reply.value["content"]) == ("complete", DONE["content"])
    assert refused == ErrorReply(-1, "no")


async def test_an_id_that_is_used_again_is_of_the_latest_task(autojump_clock, tasks, serving):
    """The upstream has forgotten the first."""
    async with serving(tasks.server, addressed=True) as peer:
        await peer.tool(capabilities=KNOWS)
        tasks.tasks.clear()
        await peer.tool(capabilities=KNOWS)
        await trio.testing.wait_all_tasks_blocked()
        (held,) = peer.service._sessions._held.values()
        assert list(held.tasks) == ["task-1"]
        assert held.users == 1


async def test_cancelled_everywhere_nothing_is_left(autojump_clock, server, serving):
    """No task of ours outlives the sink, wherever a client goes away."""

    async def scenario() -> None:
        tasks = Tasks(server)
        tasks.asks = ["one"]
        async with serving(server, addressed=True) as peer:
            created = await peer.tool(capabilities=KNOWS)
            tasks.tasks[created["taskId"]]["status"] = "input_required"
            await look(peer, created["taskId"])
            await update(peer, {"q1": YES})
            await look(peer, created["taskId"])

    await cancel_everywhere(scenario)
