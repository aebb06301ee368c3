"""Modern clients at an upstream that knows handshakes only."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    ConnectFailed,
    HeaderMismatch,
    InvalidParams,
    UnknownMethod,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, MetaKey
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Request, Result
from sluiceway.pipeline.testing.cancelling import cancel_everywhere

BOB = Caller("bob", how="api_key")
INFO = {"name": "fake", "version": "1"}
STAMP = {"resultType": "complete", "_meta": {MetaKey.SERVER_INFO.value: INFO}}
FRESH = {**STAMP, "ttlMs": 0, "cacheScope": "private"}


def asking(*questions: tuple[str, dict[str, Any]]) -> Any:
    """A handler that asks these one after another, and answers with what it was told."""

    async def handle(exchange: Exchange) -> Reply:
        said = []
        for method, params in questions:
            answer = await exchange.ask(method, params)
            said.append(dict(answer.value) if isinstance(answer, Result) else answer.code)
        return Result({"content": said})

    return handle


async def never(exchange: Exchange) -> Reply:
    """A handler that takes its time."""
    await trio.sleep_forever()
    return Result()


FORM = ("elicitation/create", {"message": "who?", "requestedSchema": {"type": "object"}})
YES = {"action": "accept", "content": {"name": "ana"}}


async def test_a_request_goes_through_a_session_opened_in_the_clients_name(autojump_clock, server, serving):
    """What only modern requests carry is taken out; what is not known stays."""
    async with serving(server) as peer:
        reply = await peer.call("tools/call", {"name": "t", "arguments": {"x": 1}}, meta={"mine": [1]})
        await peer.call("tools/list")

    assert reply == Result(STAMP)
    assert server.methods() == ["initialize", "notifications/initialized", "tools/call", "tools/list"]
    assert server.of("initialize") == [
        {
            "protocolVersion": LATEST_LEGACY,
            "capabilities": {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {}},
            "clientInfo": {"name": "peer", "version": "2"},
        }
    ]
    assert server.of("tools/call") == [{"name": "t", "arguments": {"x": 1}, "_meta": {"mine": [1]}}]
    assert server.of("tools/list") == [{}]


async def test_discovery_is_answered_from_the_handshake(autojump_clock, server, serving):
    """Without tasks, which are not translated; the versions are those that the gateway translates."""
    async with serving(server) as peer:
        reply = await peer.call("server/discover")

    assert isinstance(reply, Result)
    assert reply.value == {
        "supportedVersions": [LATEST],
        "capabilities": {
            "tools": {"listChanged": True},
            "resources": {"subscribe": True, "listChanged": True},
            "logging": {},
        },
        "instructions": "be kind",
        **FRESH,
    }
    assert server.methods() == ["initialize", "notifications/initialized"]


async def test_callers_do_not_share_a_session_and_neither_do_other_capabilities(autojump_clock, server, serving):
    """One caller with one set of capabilities keeps its own."""
    async with serving(server) as peer:
        for caller in (BOB, Caller("ana", how="api_key"), BOB):
            await peer.call("tools/list", caller=caller)
        await peer.call("tools/list", caller=BOB, capabilities={})
        used = [exchange.client.session for exchange in server.seen if exchange.method == "tools/list"]
        assert len(server.sessions) == 3

    assert used[0] is used[2]
    assert len(set(used)) == 3


async def test_those_who_come_together_share_one_handshake(autojump_clock, server, serving):
    """And if the first of them goes away meanwhile, it goes on for the others."""
    begun = trio.Event()

    async def slow(exchange: Exchange) -> Reply:
        begun.set()
        await trio.sleep(5)
        return Result({"protocolVersion": LATEST_LEGACY, "capabilities": {}, "serverInfo": INFO})

    server.handlers["initialize"] = slow
    replies: list[Reply] = []
    async with serving(server) as peer, trio.open_nursery() as nursery:
        leaver = trio.CancelScope()

        async def call(scope: trio.CancelScope) -> None:
            with scope:
                replies.append(await peer.call("tools/list"))

        nursery.start_soon(call, leaver)
        await begun.wait()
        nursery.start_soon(call, trio.CancelScope())
        await trio.testing.wait_all_tasks_blocked()
        leaver.cancel()

    assert replies == [Result(FRESH)]
    assert len(server.of("initialize")) == 1


async def test_a_refused_handshake_is_told_and_tried_again_by_the_next(autojump_clock, server, serving):
    """An error, a version nobody speaks, silence, and no connection at all."""
    async with serving(server) as peer:

        async def refuse(exchange: Exchange) -> Reply:
            return ErrorReply(-32600, "not you")

        server.handlers["initialize"] = refuse
        with pytest.raises(UpstreamUnavailable, match="not you"):
            await peer.call("tools/list")
        del server.handlers["initialize"]
        server.version = "1999-01-01"
        with pytest.raises(UpstreamProtocolError, match="1999"):
            await peer.call("tools/list")
        server.handlers["initialize"] = never
        with pytest.raises(UpstreamUnavailable, match="60 s"):
            await peer.call("tools/list")
        server.fail = ConnectFailed("no route")
        with pytest.raises(ConnectFailed, match="no route"):
            await peer.call("tools/list")
        assert server.sessions == []
        server.fail, server.version = None, LATEST_LEGACY
        del server.handlers["initialize"]
        assert await peer.call("tools/list") == Result(FRESH)


async def test_a_request_is_sent_again_if_the_upstream_had_forgotten_the_session(autojump_clock, server, serving):
    """It was not served; a second time is an error."""
    async with serving(server) as peer:
        await peer.tool()
        server.forget()
        assert await peer.tool() == STAMP
        assert len(server.of("initialize")) == 2
        assert len([1 for each in server.seen if each.method == "tools/call"]) == 3

        async def forgetful(exchange: Exchange) -> Reply:
            server.forget()
            return Result({"protocolVersion": LATEST_LEGACY, "capabilities": {}, "serverInfo": INFO})

        server.handlers["initialize"] = forgetful
        server.forget()
        with pytest.raises(UpstreamUnavailable, match="ended a session at once"):
            await peer.tool()


async def test_a_request_that_may_have_run_is_not_sent_again(autojump_clock, server, serving):
    """The upstream went away during it."""

    async def die(exchange: Exchange) -> Reply:
        server.forget()
        raise UpstreamClosed("gone")

    server.handlers["tools/call"] = die
    async with serving(server) as peer:
        with pytest.raises(UpstreamClosed):
            await peer.tool()
        with pytest.raises(UpstreamClosed):
            await peer.tool(capabilities={})
        del server.handlers["tools/call"]
        assert await peer.tool() == STAMP


async def test_errors_have_the_numbers_of_the_modern_era(autojump_clock, server, serving):
    """A resource that is not there is a wrong param now."""

    async def missing(exchange: Exchange) -> Reply:
        return ErrorReply(-32002, "no such resource", {"uri": "x:1"})

    server.handlers["resources/read"] = missing
    async with serving(server) as peer:
        assert await peer.call("resources/read", {"uri": "x:1"}) == ErrorReply(
            -32602, "no such resource", {"uri": "x:1"}
        )


async def test_methods_that_only_modern_servers_have_are_unknown(autojump_clock, server, serving):
    """And those that nobody knows go through."""
    async with serving(server) as peer:
        with pytest.raises(UnknownMethod):
            await peer.call("tasks/update", {"taskId": "1"})
        assert await peer.call("acme/do", {"deep": 1}) == Result(STAMP)
        assert await peer.service(peer.exchange("notifications/acme")) == Result()

    assert server.of("acme/do") == [{"deep": 1}]
    assert "notifications/acme" not in server.methods()


async def test_progress_comes_back_under_the_clients_token(autojump_clock, server, serving):
    """Two clients may use the same one; who gave none gets no progress."""

    async def work(exchange: Exchange) -> Reply:
        meta: Any = exchange.request.params.get("_meta", {})
        token = meta.get("progressToken", "invented")
        await exchange.relay(Notification("notifications/progress", {"progressToken": token, "progress": 1}))
        await exchange.relay(Notification("notifications/message", {"level": "error", "data": "unwanted"}))
        return Result()

    server.handlers["tools/call"] = work
    for capabilities in ({}, {"roots": {}}):
        async with serving(server) as peer:
            await peer.tool(meta={"progressToken": "mine"}, capabilities=capabilities)
            await peer.tool(capabilities=capabilities)

        assert peer.interim == [Notification("notifications/progress", {"progressToken": "mine", "progress": 1})]
    tokens = [params["_meta"]["progressToken"] for params in server.of("tools/call") if "_meta" in params]
    ids = [each.request.id for each in server.seen if isinstance(each.request, Request)]
    assert ids == [1, 2, 3] * 2
    assert tokens == [2, 2]


async def test_cancelling_the_exchange_cancels_the_call(autojump_clock, server, serving):
    """Whether or not it has a task of its own."""
    server.handlers["tools/call"] = never
    async with serving(server) as peer:
        for capabilities in ({}, {"roots": {}}):
            with trio.move_on_after(1):
                await peer.tool(capabilities=capabilities)
            await trio.testing.wait_all_tasks_blocked()

    assert len(server.cancelled) == 2


async def test_a_question_parks_the_call_and_the_answer_resumes_it(autojump_clock, server, serving):
    """The client is asked in a result, and calls again."""
    server.handlers["tools/call"] = asking(FORM)
    async with serving(server) as peer:
        asked = await peer.tool()
        assert asked["resultType"] == "input_required"
        assert asked["inputRequests"] == {"q1": {"method": FORM[0], "params": FORM[1]}}
        await trio.sleep(200)
        done = await peer.retry(asked, {"q1": YES, "q9": {}})
        await trio.testing.wait_all_tasks_blocked()
        assert peer.service.details() == {"held_sessions": 1, "parked_calls": 0}

    assert done == {**STAMP, "content": [YES]}
    assert len(server.of("tools/call")) == 1
    assert server.cancelled == []


async def test_questions_one_after_another_are_rounds(autojump_clock, server, serving):
    """Each with a state of its own, good for one answer."""
    server.handlers["tools/call"] = asking(FORM, ("roots/list", {}))
    async with serving(server) as peer:
        first = await peer.tool()
        second = await peer.retry(first, {"q1": YES})
        assert second["inputRequests"] == {"q2": {"method": "roots/list", "params": {}}}
        with pytest.raises(InvalidParams, match="used already"):
            await peer.retry(first, {"q1": YES})
        done = await peer.retry(second, {"q2": {"roots": []}})

    assert done["content"] == [YES, {"roots": []}]


async def test_questions_at_the_same_time_go_out_together_and_what_is_missing_is_asked_again(
    autojump_clock, server, serving
):
    """A client may answer in parts."""

    async def handle(exchange: Exchange) -> Reply:
        answers: dict[str, Any] = {}

        async def ask(name: str) -> None:
            reply = await exchange.ask("elicitation/create", {"message": name})
            assert isinstance(reply, Result)
            answers[name] = reply.value

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "a")
            nursery.start_soon(ask, "b")
        return Result({"answers": answers})

    server.handlers["tools/call"] = handle
    async with serving(server) as peer:
        asked = await peer.tool()
        keys = {each["params"]["message"]: key for key, each in asked["inputRequests"].items()}
        assert set(keys) == {"a", "b"}
        rest = await peer.retry(asked, {keys["a"]: YES})
        assert list(rest["inputRequests"]) == [keys["b"]]
        done = await peer.retry(rest, {keys["b"]: {"action": "decline"}})

    assert done["answers"] == {"a": YES, "b": {"action": "decline"}}


async def test_what_a_client_cannot_be_asked_is_refused_at_once(autojump_clock, server, serving):
    """As is everything during methods that allow no questions."""
    page = ("elicitation/create", {"mode": "url", "url": "https://x", "message": "m"})
    model = ("sampling/createMessage", {"messages": [], "tools": []})
    server.handlers["tools/call"] = asking(page, model, ("roots/list", {}), ("acme/ask", {}))
    server.handlers["tools/list"] = asking(FORM)
    async with serving(server) as peer:
        done = await peer.tool(capabilities={"elicitation": {}, "sampling": {}})
        alone = await peer.tool(capabilities={})
        listed = await peer.call("tools/list")

    assert done["content"] == [-32601] * 4
    assert alone["content"] == [-32601] * 4
    assert isinstance(listed, Result)
    assert listed.value["content"] == [-32601]


async def test_nobody_else_can_take_up_a_parked_call(autojump_clock, server, serving):
    """Not another caller, not for another tool or method, not with a changed state; and the owner still can."""
    server.handlers["tools/call"] = asking(FORM)
    async with serving(server) as peer:
        asked = await peer.tool()
        state = asked["requestState"]
        with pytest.raises(InvalidParams, match="no other worker"):
            await peer.retry(asked, {"q1": YES}, caller=BOB)
        with pytest.raises(InvalidParams, match="no other worker"):
            await peer.retry(asked, {"q1": YES}, name="other")
        with pytest.raises(InvalidParams, match="no other worker"):
            await peer.call("prompts/get", {"name": "t", "requestState": state})
        for wrong in (state[:-4] + "AAAA", "", "x" * 5000, 7, None, "ä"):
            with pytest.raises(InvalidParams, match="requestState"):
                await peer.retry({"requestState": wrong}, {"q1": YES})
        with pytest.raises(InvalidParams, match="inputResponses"):
            await peer.retry(asked, {"q1": "yes"})
        done = await peer.retry(asked, {"q1": YES})

    assert done["content"] == [YES]


@pytest.mark.parametrize("anybody", [Caller("anonymous"), Caller("guest", tenant="t", how="fixed")])
async def test_where_nobody_proved_who_calls_a_call_belongs_to_an_address(autojump_clock, server, serving, anybody):
    """It is all that is known, whatever the configuration calls everybody."""
    server.handlers["tools/call"] = asking(FORM)
    async with serving(server) as peer:
        asked = await peer.tool(caller=anybody)
        with pytest.raises(InvalidParams, match="no other caller"):
            await peer.retry(asked, {"q1": YES}, caller=anybody, address="192.0.2.2")
        assert (await peer.retry(asked, {"q1": YES}, caller=anybody))["content"] == [YES]
        await peer.call("tools/list", caller=anybody, address="192.0.2.2")

        assert len(server.sessions) == 2


async def test_two_answers_at_the_same_time_resume_it_once(autojump_clock, server, serving):
    """The second is refused, and does not disturb the first."""
    more = trio.Event()

    async def handle(exchange: Exchange) -> Reply:
        await exchange.ask(*FORM)
        await more.wait()
        return Result({"done": True})

    server.handlers["tools/call"] = handle
    outcomes: list[Any] = []
    async with serving(server) as peer:
        asked = await peer.tool()

        async def answer() -> None:
            try:
                outcomes.append(await peer.retry(asked, {"q1": YES}))
            except InvalidParams as error:
                outcomes.append(error.message)
                more.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            nursery.start_soon(answer)

    assert "used already" in outcomes[0]
    assert outcomes[1] == {**STAMP, "done": True}


async def test_a_parked_call_ends_with_its_time(autojump_clock, server, serving):
    """The upstream is told, and the client too when it comes."""
    server.handlers["tools/call"] = asking(FORM)
    async with serving(server, park_timeout=30) as peer:
        asked = await peer.tool()
        await trio.sleep(29)
        assert server.cancelled == []
        await trio.sleep(2)
        assert len(server.cancelled) == 1
        with pytest.raises(InvalidParams, match="time to answer is over"):
            await peer.retry(asked, {"q1": YES})
        counts = {(each.name, *each.labels.values()): each.value for each in peer.service.figures()}

    assert counts["translation_parkings_total", "expired"] == 1
    assert counts["translation_parked_calls",] == 0


async def test_the_time_of_a_client_that_answered_does_not_run(autojump_clock, server, serving):
    """While an exchange attends the call, that one's deadline counts."""

    async def handle(exchange: Exchange) -> Reply:
        await exchange.ask(*FORM)
        await trio.sleep(100)
        return Result({"done": True})

    server.handlers["tools/call"] = handle
    async with serving(server, park_timeout=30) as peer:
        asked = await peer.tool()
        assert (await peer.retry(asked, {"q1": YES}))["done"] is True


async def test_what_comes_while_it_is_parked_waits_up_to_a_bound(autojump_clock, server, serving):
    """The rest is counted; progress comes under the token of whoever takes it up."""

    async def handle(exchange: Exchange) -> Reply:
        meta: Any = exchange.request.params["_meta"]

        async def talk() -> None:
            await trio.sleep(5)
            for number in range(100):
                params = {"progressToken": meta["progressToken"], "progress": number}
                await exchange.relay(Notification("notifications/progress", params))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            await exchange.ask(*FORM)
        return Result()

    server.handlers["tools/call"] = handle
    async with serving(server) as peer:
        asked = await peer.tool(meta={"progressToken": "one"})
        await trio.sleep(10)
        await peer.retry(asked, {"q1": YES}, meta={"progressToken": "two"})
        await trio.testing.wait_all_tasks_blocked()
        counts = {each.name: each.value for each in peer.service.figures()}

    assert [each.params["progress"] for each in peer.interim] == list(range(64))
    assert {each.params["progressToken"] for each in peer.interim} == {"two"}
    assert counts["translation_dropped_notifications_total"] == 36


async def test_an_upstream_that_dies_while_a_call_is_parked_is_told_to_who_comes_back(autojump_clock, server, serving):
    """So is one that gave up waiting."""
    gone = trio.Event()

    async def handle(exchange: Exchange) -> Reply:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                await exchange.ask(*FORM)

            nursery.start_soon(ask)
            await gone.wait()
            nursery.cancel_scope.cancel()
        raise UpstreamClosed("gone")

    server.handlers["tools/call"] = handle
    async with serving(server) as peer:
        asked = await peer.tool()
        gone.set()
        await trio.sleep(1)
        with pytest.raises(UpstreamClosed, match="gone"):
            await peer.retry(asked, {"q1": YES})


async def test_a_question_that_is_taken_back_needs_no_answer(autojump_clock, server, serving):
    """Before the client heard of it, or after."""

    async def handle(exchange: Exchange) -> Reply:
        with trio.move_on_after(0.001):
            await exchange.ask(*FORM)
        with trio.move_on_after(5):
            await exchange.ask(*FORM)
        return Result({"done": True})

    server.handlers["tools/call"] = handle
    async with serving(server) as peer:
        asked = await peer.tool()
        assert list(asked["inputRequests"]) == ["q2"]
        await trio.sleep(6)
        assert (await peer.retry(asked, {}))["done"] is True


async def test_closing_ends_what_is_parked(autojump_clock, server, serving):
    """And an exchange that attends a call is told."""
    server.handlers["tools/call"] = asking(FORM)
    server.handlers["prompts/get"] = never
    async with serving(server) as peer:
        await peer.tool()
        async with trio.open_nursery() as nursery:

            async def attend() -> None:
                with pytest.raises(UpstreamClosed, match="before the upstream answered"):
                    await peer.call("prompts/get", {"name": "p"})

            nursery.start_soon(attend)
            await trio.testing.wait_all_tasks_blocked()
            peer.service.end()
        with pytest.raises(UpstreamUnavailable, match="closed"):
            await peer.tool()

    assert len(server.cancelled) == 2


async def test_parked_calls_are_bounded(autojump_clock, server, serving):
    """For one caller and for all; the upstream hears that nobody can be asked, and may go on."""
    server.handlers["tools/call"] = asking(FORM)
    async with serving(server, max_parked=3, max_parked_per_caller=2) as peer:
        kept = [await peer.tool() for _ in range(2)]
        assert (await peer.tool())["content"] == [-32603]
        assert (await peer.tool(caller=BOB))["resultType"] == "input_required"
        assert (await peer.tool(caller=BOB))["content"] == [-32603]
        await peer.retry(kept[0], {"q1": YES})
        await trio.testing.wait_all_tasks_blocked()
        assert (await peer.tool())["resultType"] == "input_required"


async def test_a_thousand_parked_calls_are_all_resumed(autojump_clock, server, serving):
    """Each with its own answer."""

    async def handle(exchange: Exchange) -> Reply:
        reply = await exchange.ask(*FORM)
        assert isinstance(reply, Result)
        return Result({"number": reply.value["content"]})

    server.handlers["tools/call"] = handle
    asked: dict[int, Any] = {}
    got: dict[int, Any] = {}
    async with serving(server, addressed=True, max_parked=1000, max_parked_per_caller=1000) as peer:

        async def ask(number: int) -> None:
            asked[number] = await peer.tool()

        async def answer(number: int) -> None:
            got[number] = (await peer.retry(asked[number], {"q1": {"action": "accept", "content": number}}))["number"]

        for step in (ask, answer):
            async with trio.open_nursery() as nursery:
                for number in range(1000):
                    nursery.start_soon(step, number)

    assert got == {number: number for number in range(1000)}


async def test_sessions_are_bounded_and_the_idlest_makes_room(autojump_clock, server, serving):
    """One that is in use does not."""
    callers = [Caller(f"c{number}", how="api_key") for number in range(4)]
    server.handlers["tools/call"] = never
    async with serving(server, max_sessions=2) as peer, trio.open_nursery() as nursery:
        for caller in callers[:3]:
            await peer.call("tools/list", caller=caller)
        assert [session.caller for session in server.sessions] == callers[1:3]
        for caller in callers[1:3]:
            nursery.start_soon(lambda caller=caller: peer.tool(caller=caller))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CapacityExceeded, match="max_sessions"):
            await peer.call("tools/list", caller=callers[3])
        nursery.cancel_scope.cancel()


async def test_where_the_sink_has_no_place_an_idle_session_makes_room(autojump_clock, server, serving):
    """Its process may take a while to end; if none is idle, the sink's own refusal is told."""
    server.max_sessions, server.ends_after = 1, 3.0
    async with serving(server) as peer:
        await peer.call("tools/list")
        assert await peer.call("tools/list", caller=BOB) == Result(FRESH)
        assert [session.caller for session in server.sessions] == [BOB]
        server.handlers["tools/call"] = asking(FORM)
        await peer.tool(caller=BOB)
        with pytest.raises(CapacityExceeded, match="no place"):
            await peer.call("tools/list")
        await trio.sleep(400)  # the parked call is over now, but its session does not end
        server.ends_after = 1000.0
        with pytest.raises(CapacityExceeded, match="no place"):
            await peer.call("tools/list")


async def test_one_caller_cannot_take_all_sessions(autojump_clock, server, serving):
    """Its own idlest one makes room."""
    async with serving(server, max_sessions_per_caller=2) as peer:
        for number in range(4):
            await peer.call("tools/list", capabilities={"experimental": {"n": {"x": number}}})
        await peer.call("tools/list", caller=BOB)

        assert len(server.sessions) == 3


async def test_an_idle_session_is_ended(autojump_clock, server, serving):
    """Not one that holds a parked call; and the next request opens another."""
    server.handlers["tools/call"] = asking(FORM)
    async with serving(server, session_idle=60, park_timeout=500) as peer:
        await peer.call("tools/list", caller=BOB)
        await trio.sleep(30)
        asked = await peer.tool()
        await trio.sleep(40)
        assert len(server.sessions) == 1
        await trio.sleep(100)
        assert len(server.sessions) == 1
        await peer.retry(asked, {"q1": YES})
        await trio.sleep(130)
        assert server.sessions == []
        await peer.call("tools/list", caller=BOB)
        assert len(server.sessions) == 1


async def test_pages_that_must_be_visited_first_are_asked_for_and_the_request_sent_again(
    autojump_clock, server, serving
):
    """An error of 2025-11-25 that has become a question; nothing waits at the upstream meanwhile."""
    page = {"mode": "url", "url": "https://x", "message": "log in", "elicitationId": "e1"}
    visited: list[bool] = []

    async def handle(exchange: Exchange) -> Reply:
        if visited:
            return Result({"done": True})
        return ErrorReply(-32042, "log in first", {"elicitations": [page]})

    server.handlers["tools/call"] = handle
    async with serving(server) as peer:
        asked = await peer.tool()
        assert asked["inputRequests"] == {
            "q1": {
                "method": "elicitation/create",
                "params": {"mode": "url", "url": "https://x", "message": "log in"},
            }
        }
        declined = await peer.call(
            "tools/call",
            {"name": "t", "inputResponses": {"q1": {"action": "decline"}}, "requestState": asked["requestState"]},
        )
        visited.append(True)
        done = await peer.retry(asked, {"q1": {"action": "accept"}})
        visited.clear()
        lacking = await peer.call("tools/call", {"name": "t"}, capabilities={"elicitation": {"form": {}}})

    assert isinstance(declined, ErrorReply)
    assert done["done"] is True
    assert server.of("tools/call")[1] == {"name": "t", "arguments": {}}
    assert lacking == ErrorReply(-32021, "log in first", {"requiredCapabilities": {"elicitation": {"url": {}}}})


@pytest.mark.parametrize("anybody", [Caller("anonymous"), Caller("guest", how="fixed")])
async def test_an_unaddressed_question_is_never_put_to_somebody_else(autojump_clock, server, serving, anybody):
    """Where several people may look like one caller, and two calls are under way, nobody is asked."""
    both = trio.Event()

    async def handle(exchange: Exchange) -> Reply:
        if len(server.of("tools/call")) == 2:
            both.set()
        await both.wait()
        reply = await exchange.ask(*FORM)
        return Result({"code": reply.code if isinstance(reply, ErrorReply) else 0})

    server.handlers["tools/call"] = handle
    got: list[Any] = []
    for addressed in (False, True):
        async with serving(server, addressed=addressed) as peer, trio.open_nursery() as nursery:

            async def call(peer: Any = peer) -> None:
                got.append(await peer.tool(caller=anybody))

            nursery.start_soon(call)
            nursery.start_soon(call)
        both = trio.Event()
        server.seen.clear()

    assert [each.get("code") for each in got[:2]] == [-32601, -32601]
    assert [each["resultType"] for each in got[2:]] == ["input_required"] * 2


async def test_a_client_that_is_slow_slows_its_own_call_down(autojump_clock, server, serving):
    """What the upstream says waits for it, and nothing is lost."""
    said: list[int] = []

    async def talk(exchange: Exchange) -> Reply:
        await exchange.ask(*FORM)
        for number in range(200):
            await exchange.relay(Notification("notifications/message", {"level": "info", "data": number}))
            said.append(number)
        return Result()

    heard: list[Any] = []

    async def emit(notification: Notification) -> None:
        if not heard:
            await trio.sleep(10)
            assert len(said) < 70
        heard.append(notification.params["data"])

    server.handlers["tools/call"] = talk
    async with serving(server) as peer:
        asked = await peer.tool(meta={MetaKey.LOG_LEVEL.value: "info"})
        params = {"name": "t", "inputResponses": {"q1": YES}, "requestState": asked["requestState"]}
        exchange = peer.exchange("tools/call", params, meta={MetaKey.LOG_LEVEL.value: "info"})
        exchange.link.emit = emit
        assert await peer.service(exchange) == Result(STAMP)

    assert heard == list(range(200))


async def test_an_upstream_may_not_ask_without_end(autojump_clock, server, serving):
    """So many questions of one call are open at once, and no more."""

    async def handle(exchange: Exchange) -> Reply:
        codes: list[int] = []

        async def ask() -> None:
            reply = await exchange.ask(*FORM)
            if isinstance(reply, ErrorReply):
                codes.append(reply.code)

        async with trio.open_nursery() as nursery:
            for _ in range(70):
                nursery.start_soon(ask)
        return Result({"codes": codes})

    server.handlers["tools/call"] = handle
    async with serving(server) as peer:
        asked = await peer.tool()
        done = await peer.retry(asked, dict.fromkeys(asked["inputRequests"], YES))

    assert len(asked["inputRequests"]) == 64
    assert done["codes"] == [-32603] * 6


async def test_the_rounds_of_a_call_are_bounded(autojump_clock, server, serving):
    """An upstream that never has enough is told so, and gets to answer."""
    server.handlers["tools/call"] = asking(*[FORM] * 40)
    rounds = 0
    async with serving(server) as peer:
        reply = await peer.tool()
        while reply["resultType"] == "input_required":
            rounds += 1
            reply = await peer.retry(reply, dict.fromkeys(reply["inputRequests"], YES))

    assert rounds == 32
    assert reply["content"] == [YES] * 32 + [-32603] * 8


async def test_answers_that_nobody_asked_for_are_left_out(autojump_clock, server, serving):
    """The request is a new one."""
    async with serving(server) as peer:
        reply = await peer.call("tools/call", {"name": "t", "inputResponses": {"x": YES}})

    assert reply == Result(STAMP)
    assert server.of("tools/call") == [{"name": "t"}]


async def test_headers_that_say_something_else_than_the_body_are_refused(autojump_clock, server, serving):
    """The upstream sees none, so the gateway compares in its place."""

    async def listed(exchange: Exchange) -> Reply:
        schema = {"type": "object", "properties": {"x": {"type": "string", "x-mcp-header": "X"}}}
        return Result({"tools": [{"name": "t", "inputSchema": schema}]})

    server.handlers["tools/list"] = listed
    async with serving(server) as peer:
        await peer.call("tools/list")
        exchange = peer.exchange("tools/call", {"name": "t", "arguments": {"x": "a"}})
        for value, fits in (("a", True), ("b", False)):
            client = replace(exchange.client, headers={"mcp-param-x": value})
            with nullcontext() if fits else pytest.raises(HeaderMismatch):
                await peer.service(exchange.with_client(client))


async def test_a_bug_in_the_sink_is_the_exchanges_and_not_the_gateways(autojump_clock, server, serving):
    """It comes out where the boundary is."""

    async def broken(exchange: Exchange) -> Reply:
        raise ZeroDivisionError("a bug")

    server.handlers["tools/call"] = broken
    async with serving(server) as peer:
        with pytest.raises(ZeroDivisionError, match="a bug"):
            await peer.tool()
        assert await peer.call("tools/list") == Result(FRESH)


async def test_a_call_cancelled_anywhere_leaves_nothing(autojump_clock, server, serving):
    """Not in the handshake, not with a question open, not when it is taken up."""
    server.handlers["tools/call"] = asking(FORM)

    async def trial() -> None:
        async with serving(server) as peer:
            asked = await peer.tool(meta={MetaKey.LOG_LEVEL.value: "info"})
            await peer.retry(asked, {"q1": YES})

    assert await cancel_everywhere(trial) > 20


async def test_an_exchange_cancelled_anywhere_leaves_the_others_alone(autojump_clock, server, serving):
    """Whatever becomes of it, the next call is served, and nothing is parked that nobody can take up."""
    server.handlers["tools/call"] = asking(FORM)
    async with serving(server) as peer:
        finished = False
        at = 0
        while not finished and at < 200:
            scope = trio.CancelScope()
            instrument = _CancelAt(scope, at)
            trio.lowlevel.add_instrument(instrument)
            try:
                with scope:
                    asked = await peer.tool()
                    await peer.retry(asked, {"q1": YES})
                    finished = True
            finally:
                trio.lowlevel.remove_instrument(instrument)
            at += 1
            await trio.sleep(400)
            assert peer.service.details() in ({"held_sessions": 1, "parked_calls": 0}, {})
        server.handlers.clear()
        assert await peer.tool() == STAMP

    assert 5 < at < 200


class _CancelAt(trio.abc.Instrument):
    """Cancels a scope before the k-th step of any task."""

    def __init__(self, scope: trio.CancelScope, at: int) -> None:
        self._scope, self._left = scope, at

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._left == 0:
            self._scope.cancel()
        self._left -= 1
