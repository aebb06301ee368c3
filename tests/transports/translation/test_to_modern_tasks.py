"""Tasks of a legacy client at an upstream of 2026-07-28 that has the extension for tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    ConnectFailed,
    InvalidParams,
    SessionNotFound,
    UnsupportedVersion,
    UpstreamProtocolError,
)
from sluiceway.pipeline.protocol.mcp import MetaKey, meta_of
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Result
from sluiceway.pipeline.testing import cancel_everywhere
from sluiceway.transports.translation import task_book, to_modern_waiting

EXTENSION = "io.modelcontextprotocol/tasks"
RELATED = "io.modelcontextprotocol/related-task"
BEGAN = "2026-01-01T00:00:00Z"
OFFER = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
FORM = {"method": "elicitation/create", "params": {"message": "m", "requestedSchema": {"type": "object"}}}
DONE = {"content": [{"type": "text", "text": "done"}], "isError": False}


class TaskServer:
    """What a modern server with the extension does."""

    def __init__(self, upstream: Any) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.at_once: dict[str, Any] | None = None
        """What calls are answered with, if not with a task."""
        self.required = False
        self.updates: list[Mapping[str, Any]] = []
        self.on_update: dict[str, Any] = {"status": "completed", "result": DONE}
        self.fail: Exception | None = None
        self.upstream = upstream
        capabilities = {**upstream.discovered.value["capabilities"], "extensions": {EXTENSION: {}}}
        upstream.discovered = Result({**upstream.discovered.value, "capabilities": capabilities})
        upstream.answers |= {
            "tools/call": self.call,
            "tools/list": self.listed,
            "tasks/get": self.get,
            "tasks/update": self.update,
            "tasks/cancel": self.cancel,
        }

    @staticmethod
    def declared(exchange: Exchange) -> bool:
        declared = meta_of(exchange.request.params)[MetaKey.CLIENT_CAPABILITIES]
        assert declared == exchange.client.capabilities
        return EXTENSION in declared.get("extensions", {})

    async def listed(self, exchange: Exchange) -> Reply:
        return Result({"tools": [{"name": "t", "inputSchema": {"type": "object"}}], "resultType": "complete"})

    async def call(self, exchange: Exchange) -> Reply:
        assert "task" not in exchange.request.params
        if self.fail is not None:
            raise self.fail
        if self.required and not self.declared(exchange):
            needed = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
            return ErrorReply(-32021, "tasks only", needed)
        if self.at_once is not None or not self.declared(exchange):
            return Result({"resultType": "complete", **(self.at_once or DONE)})
        task_id = f"task-{len(self.tasks) + 1}"
        task = {
            "taskId": task_id, "status": "working", "statusMessage": "busy", "createdAt": BEGAN,
            "lastUpdatedAt": BEGAN, "ttlMs": None, "pollIntervalMs": 2000,
        }  # fmt: skip
        self.tasks[task_id] = task
        return Result({"resultType": "task", "extra": 1, **task})

    async def get(self, exchange: Exchange) -> Reply:
        assert self.declared(exchange)
        if self.fail is not None:
            raise self.fail
        task = self.tasks.get(exchange.request.params["taskId"])
        if task is None:
            return ErrorReply(-32602, "no such task", http_status=404)
        return Result({"resultType": "complete", **task})

    async def update(self, exchange: Exchange) -> Reply:
        assert self.declared(exchange)
        self.updates.append(exchange.request.params["inputResponses"])
        task = self.tasks[exchange.request.params["taskId"]]
        task.pop("inputRequests", None)
        task |= self.on_update
        return Result({"resultType": "complete"})

    async def cancel(self, exchange: Exchange) -> Reply:
        assert self.declared(exchange)
        if self.fail is not None:
            raise self.fail
        self.tasks[exchange.request.params["taskId"]]["status"] = "cancelled"
        return Result({"resultType": "complete"})


@pytest.fixture
def server(upstream: Any) -> TaskServer:
    """A server that makes a task of every call of a client that knows the extension."""
    return TaskServer(upstream)


@asynccontextmanager
async def started(kit: Any, upstream: Any, peer: Any) -> AsyncIterator[Any]:
    """A session that was offered tasks."""
    context = evolve(Context(id="up"), now=lambda: 0.0)
    async with kit.translating(upstream, context=context) as translator:
        await peer.start(translator)
        yield translator


async def create(translator: Any, peer: Any, **task: Any) -> Any:
    reply = await translator(peer.exchange("tools/call", {"name": "t", "task": task}))
    assert isinstance(reply, Result)
    return reply.value["task"]


def about(peer: Any, method: str, task_id: str) -> Exchange:
    exchange: Exchange = peer.exchange(method, {"taskId": task_id})
    return exchange


@pytest.mark.parametrize(("version", "offered"), [("2025-11-25", True), ("2025-06-18", False)])
async def test_tasks_are_offered_to_the_revision_that_has_them(autojump_clock, kit, upstream, server, version, offered):
    """With every tool, for whether a call becomes one is for the server to say; older clients hear of none."""
    peer = kit.Peer(version=version)
    async with kit.translating(upstream) as translator:
        hello = await peer.start(translator)
        tools = await translator(peer.exchange("tools/list"))
        listed = await translator(peer.exchange("tasks/list"))

    assert hello.value["capabilities"].get("tasks") == (OFFER if offered else None)
    assert tools.value["tools"][0].get("execution") == ({"taskSupport": "optional"} if offered else None)
    assert isinstance(listed, Result) is offered


async def test_an_upstream_without_the_extension_is_offered_nothing(autojump_clock, kit, upstream, peer):
    """A task that was asked for all the same is a plain call, and there are no tasks to ask for."""
    async with kit.translating(upstream) as translator:
        hello = await peer.start(translator)
        called = await translator(peer.exchange("tools/call", {"name": "t", "task": {}}))
        unknown = [
            await translator(about(peer, f"tasks/{verb}", "1"))
            for verb in ("get", "result", "list", "cancel", "update")
        ]

    assert "tasks" not in hello.value["capabilities"]
    assert called == Result({"ok": 1})
    assert {reply.code for reply in unknown} == {-32601}
    assert upstream.of("tools/call")[0].params["_meta"][MetaKey.CLIENT_CAPABILITIES].keys() == {
        "elicitation", "sampling", "roots",
    }  # fmt: skip


async def test_a_client_cannot_declare_the_extension_in_a_handshake(autojump_clock, kit, upstream, server):
    """Its calls would be answered with tasks that it does not know; other extensions are passed on."""
    peer = kit.Peer(extensions={EXTENSION: {}, "other": {}})
    async with started(kit, upstream, peer) as translator:
        assert await translator(peer.exchange("tools/call", {"name": "t"})) == Result(DONE)

    assert upstream.of("tools/call")[0].params["_meta"][MetaKey.CLIENT_CAPABILITIES] == {"extensions": {"other": {}}}


async def test_a_call_becomes_a_task_and_gives_its_result(autojump_clock, kit, upstream, server, peer):
    """Created, looked at, waited for; the result says which task it is of."""
    async with started(kit, upstream, peer) as translator:
        reply = await translator(peer.exchange("tools/call", {"name": "t", "task": {"ttl": 5}}))
        seen = await translator(about(peer, "tasks/get", "task-1"))
        server.tasks["task-1"] |= {"status": "completed", "result": {**DONE, "resultType": "complete"}, "ttlMs": 9}
        result = await translator(about(peer, "tasks/result", "task-1"))
        listed = await translator(peer.exchange("tasks/list"))

    task = {
        "taskId": "task-1", "status": "working", "statusMessage": "busy", "createdAt": BEGAN,
        "lastUpdatedAt": BEGAN, "ttl": None, "pollInterval": 2000,
    }  # fmt: skip
    assert reply == Result({"task": task, "extra": 1})
    assert seen == Result(task)
    assert result == Result({**DONE, "_meta": {RELATED: {"taskId": "task-1"}}})
    assert listed == Result({"tasks": [{**task, "status": "completed", "ttl": 9}]})


async def test_waiting_goes_by_the_interval_of_the_upstream(autojump_clock, kit, upstream, server, peer):
    """A look every two seconds, until it is over."""
    async with started(kit, upstream, peer) as translator:
        await create(translator, peer)
        upstream.lost.set()  # nobody listens
        began = trio.current_time()
        results: list[Reply] = []

        async def wait() -> None:
            results.append(await translator(about(peer, "tasks/result", "task-1")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(5)
            server.tasks["task-1"] |= {"status": "failed", "error": {"code": -5, "message": "m", "data": 1}}

        assert trio.current_time() - began == 6
        assert results == [ErrorReply(-5, "m", 1)]
        assert len(upstream.of("tasks/get")) == 4


async def test_what_the_upstream_tells_ends_the_wait_and_reaches_the_client(
    autojump_clock, kit, upstream, server, peer
):
    """The session's listener names its unfinished tasks, knows the extension, and ends with the last of them."""
    async with started(kit, upstream, peer) as translator:
        await create(translator, peer)
        await trio.testing.wait_all_tasks_blocked()
        server.tasks["task-1"] |= {"status": "completed", "result": {**DONE, "isError": True}}
        for told in (server.tasks["task-1"], {**server.tasks["task-1"], "taskId": "other"}, {"taskId": "task-1"}):
            await upstream.tell("notifications/tasks", **told)
        await upstream.tell("notifications/tasks", taskId="task-1", status="odd")
        result = await translator(about(peer, "tasks/result", "task-1"))
        await trio.sleep(0.1)
        (listener,) = upstream.listeners

    assert listener.request.params["notifications"]["taskIds"] == ["task-1"]
    assert server.declared(listener)
    statuses = [note for note in peer.heard if note.method == "notifications/tasks/status"]
    assert [(note.params["taskId"], note.params["status"], "result" in note.params) for note in statuses] == [
        ("task-1", "failed", False)
    ]
    assert result.value["isError"] is True


async def test_a_notification_wakes_who_waits(autojump_clock, kit, upstream, server, peer):
    """Long before the next look."""
    async with started(kit, upstream, peer) as translator:
        await create(translator, peer)
        server.tasks["task-1"]["pollIntervalMs"] = 50_000
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(translator, about(peer, "tasks/result", "task-1"))
            await trio.sleep(5)
            server.tasks["task-1"] |= {"status": "completed", "result": DONE}
            await upstream.tell("notifications/tasks", **server.tasks["task-1"])

        assert trio.current_time() - began == 5


async def test_a_session_that_only_has_tasks_listens_while_they_run(autojump_clock, kit, upstream, server, peer):
    """And no longer."""
    capabilities = {"tools": {}, "extensions": {EXTENSION: {}}}
    upstream.discovered = Result({**upstream.discovered.value, "capabilities": capabilities})
    async with started(kit, upstream, peer) as translator:
        await create(translator, peer)
        await trio.testing.wait_all_tasks_blocked()
        assert len(upstream.listeners) == 1
        assert upstream.of("subscriptions/listen")[0].params["notifications"] == {"taskIds": ["task-1"]}
        server.tasks["task-1"] |= {"status": "completed", "result": DONE}
        await translator(about(peer, "tasks/get", "task-1"))
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.listeners == []


async def test_questions_of_a_task_are_put_to_who_waits_for_it(autojump_clock, kit, upstream, server, peer):
    """Once each, with the task's name, and the upstream is told the answers."""

    async def answer(method: str, params: Mapping[str, Any]) -> Reply:
        await trio.sleep(3)
        return Result({"action": "accept", "content": {"n": params["message"]}})

    peer.answer = answer
    async with started(kit, upstream, peer) as translator:
        await create(translator, peer)
        server.tasks["task-1"] |= {"status": "input_required", "inputRequests": {"a": FORM, "b": FORM}}
        results: list[Reply] = []

        async def wait() -> None:
            results.append(await translator(about(peer, "tasks/result", "task-1")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)

    assert [(method, params["_meta"]) for method, params in peer.asked] == [
        ("elicitation/create", {RELATED: {"taskId": "task-1"}})
    ] * 2
    accepted = {"action": "accept", "content": {"n": "m"}}
    assert server.updates == [{"a": accepted, "b": accepted}]
    assert results == [Result({**DONE, "_meta": {RELATED: {"taskId": "task-1"}}})] * 2


async def test_an_error_in_place_of_an_answer_ends_the_task(autojump_clock, kit, upstream, server, peer):
    """The upstream cannot be told of it in any other way."""
    async with started(kit, upstream, peer) as translator:
        await create(translator, peer)
        server.tasks["task-1"] |= {"status": "input_required", "inputRequests": {"a": FORM}}
        first = await translator(about(peer, "tasks/result", "task-1"))
        second = await translator(about(peer, "tasks/result", "task-1"))

    assert first == ErrorReply(-1, "not now")
    assert second.code == -32603
    assert "cancelled" in second.message
    assert server.updates == []


async def test_a_question_nobody_could_answer_is_asked_again(autojump_clock, kit, upstream, server, peer):
    """Of whoever waits next: the first one went away."""

    async def never(method: str, params: Mapping[str, Any]) -> Reply:
        await trio.sleep_forever()
        raise AssertionError

    async def yes(method: str, params: Mapping[str, Any]) -> Reply:
        return Result({"action": "accept"})

    peer.answer = never
    async with started(kit, upstream, peer) as translator:
        await create(translator, peer)
        server.tasks["task-1"] |= {"status": "input_required", "inputRequests": {"a": FORM}}
        with trio.move_on_after(10):
            await translator(about(peer, "tasks/result", "task-1"))
        peer.answer = yes
        await translator(about(peer, "tasks/result", "task-1"))

    assert server.updates == [{"a": {"action": "accept"}}]


async def test_a_task_may_ask_only_so_much(autojump_clock, kit, upstream, server, peer):
    """And only what a client has said that it can answer."""
    async with started(kit, upstream, peer) as translator:
        for asked, match in (
            ({str(n): FORM for n in range(to_modern_waiting.MAX_QUESTIONS + 1)}, "more than 64"),
            ({"a": {"method": "tools/call"}}, "no question"),
            ([], "not an object"),
        ):
            task = await create(translator, peer)
            server.tasks[task["taskId"]] |= {"status": "input_required", "inputRequests": asked}
            with pytest.raises(UpstreamProtocolError, match=match):
                await translator(about(peer, "tasks/result", task["taskId"]))


@pytest.mark.parametrize(
    ("ttl", "kept_s"), [({}, 300), ({"ttl": 60_000}, 60), ({"ttl": 10**9}, 3600), ({"ttl": "x"}, 300), ({"ttl": 0}, 0)]
)
async def test_an_answer_at_once_is_a_task_that_is_over(autojump_clock, kit, upstream, server, peer, ttl, kept_s):
    """Kept as long as the client wishes, up to an hour; the upstream knows nothing of it."""
    server.at_once = DONE
    async with started(kit, upstream, peer) as translator:
        task = await create(translator, peer, **ttl)
        if kept_s:
            await trio.sleep(kept_s - 1)
            assert await translator(about(peer, "tasks/get", task["taskId"])) == Result(task)
            assert await translator(about(peer, "tasks/result", task["taskId"])) == Result(
                {**DONE, "_meta": {RELATED: {"taskId": task["taskId"]}}}
            )
            refused = await translator(about(peer, "tasks/cancel", task["taskId"]))
            assert (refused.code, "completed already" in refused.message) == (-32602, True)
        await trio.sleep(1)
        gone = await translator(about(peer, "tasks/get", task["taskId"]))

    assert task == {
        "taskId": task["taskId"], "status": "completed", "createdAt": "1970-01-01T00:00:00.000Z",
        "lastUpdatedAt": "1970-01-01T00:00:00.000Z", "ttl": kept_s * 1000,
    }  # fmt: skip
    assert gone.code == -32602
    assert upstream.of("tasks/get") == []


async def test_an_answer_at_once_that_says_it_failed_is_a_failed_task(autojump_clock, kit, upstream, server, peer):
    """2025-11-25 calls that failed; an error is the answer to the call itself."""
    async with started(kit, upstream, peer) as translator:
        server.at_once = {"content": [], "isError": True}
        assert (await create(translator, peer))["status"] == "failed"

        async def refuse(exchange: Exchange) -> Reply:
            return ErrorReply(-32602, "no such tool")

        upstream.answers["tools/call"] = refuse
        reply = await translator(peer.exchange("tools/call", {"name": "t", "task": {}}))

    assert reply == ErrorReply(-32602, "no such tool")


async def test_a_cancelled_task_stays_cancelled(autojump_clock, kit, upstream, server, peer):
    """At once for its client, whatever the upstream makes of it; who waits is told."""
    results: list[Any] = []
    async with started(kit, upstream, peer) as translator:
        await create(translator, peer)

        async def wait() -> None:
            results.append(await translator(about(peer, "tasks/result", "task-1")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            task = await translator(about(peer, "tasks/cancel", "task-1"))
        server.tasks["task-1"] |= {"status": "completed", "result": DONE}
        seen = await translator(about(peer, "tasks/get", "task-1"))
        again = await translator(about(peer, "tasks/cancel", "task-1"))

    assert (task.value["status"], task.value["lastUpdatedAt"]) == ("cancelled", "1970-01-01T00:00:00.000Z")
    assert seen == task
    assert again.code == -32602
    assert [(reply.code, "cancelled" in reply.message) for reply in results] == [(-32603, True)]


async def test_a_task_belongs_to_the_session_that_created_it(autojump_clock, kit, upstream, server, peer):
    """Another one is told that there is none, and the upstream is not asked."""
    other = kit.Peer("other")
    async with started(kit, upstream, peer) as translator:
        await other.start(translator)
        await create(translator, peer)
        replies = [await translator(about(other, f"tasks/{verb}", "task-1")) for verb in ("get", "result", "cancel")]
        listed = await translator(other.exchange("tasks/list"))

    assert [reply.code for reply in replies] == [-32602] * 3
    assert listed == Result({"tasks": []})
    assert upstream.of("tasks/get") == upstream.of("tasks/cancel") == []


async def test_a_task_that_the_upstream_forgot_is_forgotten(autojump_clock, kit, upstream, server, peer):
    """It says so, and it is not asked again."""
    async with started(kit, upstream, peer) as translator:
        await create(translator, peer)
        server.tasks.clear()
        first = await translator(about(peer, "tasks/cancel", "task-1"))
        second = await translator(about(peer, "tasks/result", "task-1"))

    assert first == ErrorReply(-32602, "no such task")
    assert second.code == -32602
    assert len(upstream.of("tasks/get")) == 1


async def test_a_session_has_only_so_many_tasks(autojump_clock, kit, upstream, server, peer, monkeypatch):
    """Those that are over make room, oldest first; what the upstream keeps is not ended for it."""
    monkeypatch.setattr(task_book, "MAX_TASKS", 2)
    async with started(kit, upstream, peer) as translator:
        await create(translator, peer)
        await create(translator, peer)
        with pytest.raises(CapacityExceeded, match="2 tasks"):
            await create(translator, peer)
        assert len(upstream.of("tools/call")) == 2
        server.tasks["task-2"] |= {"status": "completed", "result": DONE}
        await translator(about(peer, "tasks/get", "task-2"))
        await create(translator, peer)
        listed = await translator(peer.exchange("tasks/list"))

    assert [task["taskId"] for task in listed.value["tasks"]] == ["task-1", "task-3"]


async def test_results_are_kept_up_to_a_size(autojump_clock, kit, upstream, server, peer, monkeypatch):
    """The latest one always is."""
    monkeypatch.setattr(task_book, "MAX_BYTES", 300)
    async with started(kit, upstream, peer) as translator:
        await create(translator, peer)
        for size in (10, 200, 1000):
            server.at_once = {"content": [{"type": "text", "text": "x" * size}]}
            last = await create(translator, peer)
        listed = await translator(peer.exchange("tasks/list"))

    assert [task["taskId"] for task in listed.value["tasks"]] == ["task-1", last["taskId"]]


@pytest.mark.parametrize("version", ["2025-11-25", "2025-03-26"])
async def test_a_tool_that_must_be_a_task_is_waited_for(autojump_clock, kit, upstream, server, version):
    """Where a client calls it as no task; and it is asked what the task asks, of which it knows nothing."""
    peer = kit.Peer(version=version, elicitation={})

    async def yes(method: str, params: Mapping[str, Any]) -> Reply:
        return Result({"action": "accept"})

    peer.answer = yes
    server.required = True
    async with started(kit, upstream, peer) as translator, trio.open_nursery() as nursery:
        results: list[Reply] = []

        async def call() -> None:
            results.append(await translator(peer.exchange("tools/call", {"name": "t"})))

        nursery.start_soon(call)
        await trio.sleep(1)
        server.tasks["task-1"] |= {"status": "input_required", "inputRequests": {"a": FORM}}

    assert results == [Result(DONE)]
    assert [params for _, params in peer.asked] == [FORM["params"]]


async def test_a_task_nobody_waits_for_any_more_is_cancelled(autojump_clock, kit, upstream, server, peer):
    """If its client did not ask for one; and nobody makes the call again for it."""
    server.required = True
    async with started(kit, upstream, peer) as translator:
        with trio.move_on_after(1):
            await translator(peer.exchange("tools/call", {"name": "t"}))
        assert server.tasks["task-1"]["status"] == "cancelled"
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(ConnectFailed) as raised:
                    await translator(peer.exchange("tools/call", {"name": "t"}))
                assert not raised.value.retryable

            nursery.start_soon(call)
            await trio.sleep(1)
            server.fail = ConnectFailed("gone")

    assert len(upstream.of("tasks/cancel")) == 2


async def test_an_upstream_that_dies_leaves_its_tasks_to_be_asked_for_again(
    autojump_clock, kit, upstream, server, peer
):
    """Who waits is told; what is created is remembered."""
    async with started(kit, upstream, peer) as translator:
        await create(translator, peer)
        server.fail = ConnectFailed("gone")
        for verb in ("get", "result", "cancel"):
            with pytest.raises(ConnectFailed):
                await translator(about(peer, f"tasks/{verb}", "task-1"))
        server.fail = None
        assert (await translator(about(peer, "tasks/get", "task-1"))).value["status"] == "working"


async def test_an_upstream_that_is_another_one_now_ends_the_session(autojump_clock, kit, upstream, server, peer):
    """As with every other request."""
    async with started(kit, upstream, peer) as translator:
        await create(translator, peer)
        server.fail = UnsupportedVersion("no", data={"supported": []})
        with pytest.raises(SessionNotFound):
            await translator(about(peer, "tasks/get", "task-1"))


@pytest.mark.parametrize(
    ("method", "params"),
    [("tasks/get", {}), ("tasks/list", {"cursor": "x"}), ("tools/call", {"name": "t", "task": 1})],
)
async def test_rubbish_of_a_client_is_refused(autojump_clock, kit, upstream, server, peer, method, params):
    """Before anybody is asked."""
    async with started(kit, upstream, peer) as translator:
        with pytest.raises(InvalidParams):
            await translator(peer.exchange(method, params))

    assert upstream.of(method) == []


@pytest.mark.parametrize(
    "task",
    [
        {"status": "odd"},
        {"taskId": 5},
        {"taskId": "another"},
        {"status": "completed"},
        {"status": "failed", "error": {}},
        {"status": "completed", "result": {"resultType": "input_required"}},
    ],
)
async def test_rubbish_of_an_upstream_is_an_error(autojump_clock, kit, upstream, server, peer, task):
    """Of the upstream's."""
    async with started(kit, upstream, peer) as translator:
        await create(translator, peer)
        server.tasks["task-1"] |= task
        with pytest.raises(UpstreamProtocolError):
            await translator(about(peer, "tasks/result", "task-1"))


async def test_cancelled_everywhere_it_leaves_nothing(autojump_clock, kit, server, upstream):
    """Wherever a wait is cancelled, the task can be waited for again."""

    async def yes(method: str, params: Mapping[str, Any]) -> Reply:
        await trio.lowlevel.checkpoint()
        return Result({"action": "accept"})

    async def scenario() -> None:
        peer = kit.Peer(elicitation={})
        peer.answer = yes
        async with started(kit, upstream, peer) as translator:
            task = await create(translator, peer)
            server.tasks[task["taskId"]] |= {"status": "input_required", "inputRequests": {"a": FORM}}
            held = peer.session.state["up#to_modern"]
            try:
                await translator(about(peer, "tasks/result", task["taskId"]))
            finally:
                (entry,) = held.tasks._entries.values()
                assert entry.claimed == set() or server.tasks[task["taskId"]]["status"] == "completed"

    await cancel_everywhere(scenario)


async def test_notifications_of_nobody_are_dropped(autojump_clock, kit, upstream, server, peer):
    """An upstream that tells of a task to a session that has none says nothing to its client."""
    async with started(kit, upstream, peer):
        await trio.testing.wait_all_tasks_blocked()
        await upstream.tell("notifications/tasks", taskId="1", status="working")
        await upstream.tell("notifications/tools/list_changed")

    assert peer.heard == [Notification("notifications/tools/list_changed")]
