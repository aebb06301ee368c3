"""The client over a wire that answers from a script."""

import pytest
import trio

from sluiceway.pipeline.client.client import MAX_QUESTIONS, MAX_ROUNDS
from sluiceway.pipeline.client.errors import InvalidParams, McpError, SessionLost
from sluiceway.pipeline.protocol.errors import UpstreamClosed, UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Response, Result


async def test_a_modern_request_carries_its_metadata(fake_wire):
    """Version, capabilities, client, and the log level if one is wanted; other keys stay."""
    wire = fake_wire({"server/discover": fake_wire.MODERN, "tools/list": {"tools": []}})
    async with wire.talk() as client:
        client.log_level = "debug"
        await client.request("tools/list", {"_meta": {"traceparent": "00-1"}})

    assert {
        "traceparent": "00-1",
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "tester", "version": "1"},
        "io.modelcontextprotocol/logLevel": "debug",
    } == wire.calls[1].params["_meta"]


async def test_a_legacy_request_stays_as_it_is(fake_wire):
    """No metadata is added, and every id is new."""
    wire = fake_wire({"tools/list": {"tools": []}, "ping": {}})
    async with wire.talk("legacy") as client:
        await client.request("ping")
        await client.request("tools/list", {"cursor": "x"})

    assert [{}, {"cursor": "x"}] == [call.params for call in wire.calls[1:]]
    assert len({call.id for call in wire.calls}) == 3


@pytest.mark.parametrize(
    ("reply", "error"), [(ErrorReply(-32603, "broken"), McpError), (ErrorReply(-32602, "no b"), InvalidParams)]
)
async def test_an_error_is_raised(fake_wire, reply, error):
    """With its class and its text."""
    async with fake_wire({"tools/call": reply}).talk("legacy") as client:
        with pytest.raises(error, match=reply.message):
            await client.call_tool("x")


async def test_a_failing_tool_is_a_result_and_wrong_arguments_are_not(fake_wire):
    """`isError` is the tool's word; `Invalid params` is an exception in every revision (X-23)."""
    failed = {"isError": True, "content": [{"type": "text", "text": "division by zero"}]}
    wrong = {"isError": True, "content": [{"type": "text", "text": "Invalid params: b is missing"}]}
    async with fake_wire({"tools/call": [failed, wrong]}).talk("legacy") as client:
        assert failed == await client.call_tool("divide", {"a": 1, "b": 0})
        with pytest.raises(InvalidParams, match="Invalid params: b is missing"):
            await client.call_tool("divide", {"a": 1})


async def test_every_page_of_a_list_is_fetched(fake_wire):
    """An empty cursor is a cursor."""
    pages = [{"tools": [{"name": "a"}], "nextCursor": ""}, {"tools": [{"name": "b"}], "nextCursor": "2"}, {"tools": []}]
    wire = fake_wire({"tools/list": pages})
    async with wire.talk("legacy") as client:
        assert [{"name": "a"}, {"name": "b"}] == await client.list_tools()

    assert [{}, {"cursor": ""}, {"cursor": "2"}] == [call.params for call in wire.calls[1:]]


async def test_a_list_that_goes_in_a_circle_or_never_ends_is_an_error(fake_wire, monkeypatch):
    """A broken server cannot keep the client busy for ever."""
    again = {"prompts": [], "nextCursor": "1"}
    async with fake_wire({"prompts/list": [again, again]}).talk("legacy") as client:
        with pytest.raises(UpstreamProtocolError, match="the cursor '1' twice"):
            await client.list_prompts()

    monkeypatch.setattr("sluiceway.pipeline.client.client.MAX_PAGES", 3)
    pages = [{"resources": [], "nextCursor": str(n)} for n in range(9)]
    async with fake_wire({"resources/list": pages}).talk("legacy") as client:
        with pytest.raises(UpstreamProtocolError, match="more than 3 pages"):
            await client.list_resources()


async def test_resources_and_prompts_are_fetched(fake_wire):
    """The short forms return what one is after."""
    contents = [{"uri": "demo://x", "text": "hello"}]
    wire = fake_wire({"resources/read": {"contents": contents}, "prompts/get": {"messages": []}})
    async with wire.talk("legacy") as client:
        assert contents == await client.read_resource("demo://x")
        assert await client.get_prompt("greet", {"who": "you"}) == {"messages": []}

    assert wire.calls[2].params == {"name": "greet", "arguments": {"who": "you"}}


async def test_progress_goes_to_whoever_asked_for_it(fake_wire):
    """A token is sent only then, and it is the request's own id."""
    reports = []

    async def report(*values):
        reports.append(values)

    answer = fake_wire.telling(fake_wire.progress(1, 2, "half"), fake_wire.progress(2), then={"content": []})
    wire = fake_wire({"tools/call": answer})
    async with wire.talk("legacy") as client:
        await client.call_tool("slow", on_progress=report)
        await client.call_tool("slow")

    assert reports == [(1, 2, "half"), (2, None, "")]
    assert wire.calls[1].params["_meta"] == {"progressToken": wire.calls[1].id}
    assert "_meta" not in wire.calls[2].params


async def test_notifications_on_a_requests_stream_are_heard_there_or_by_the_handler(fake_wire):
    """Whoever makes the request goes first."""
    mine, general = [], []

    async def hear_mine(notification):
        mine.append(notification.method)

    async def hear_all(notification):
        general.append(notification.method)

    answer = fake_wire.telling(Notification("notifications/message"), then={})
    async with fake_wire({"tools/call": answer}).talk("legacy", notification=hear_all) as client:
        await client.request("tools/call", on_notification=hear_mine)
        await client.request("tools/call")

    assert (["notifications/message"], ["notifications/message"]) == (mine, general)


async def test_a_question_in_the_middle_of_a_call_is_answered_while_the_call_waits(fake_wire):
    """The answer carries the question's id, with its type."""

    async def answer(params):
        await trio.lowlevel.checkpoint()
        return {"action": "accept", "content": params}

    asking = fake_wire.telling(fake_wire.question("elicitation/create", {"message": "?"}, 7), then={"content": []})
    wire = fake_wire({"tools/call": asking})
    async with wire.talk("legacy", elicitation=answer) as client:
        await client.call_tool("book")
        await trio.testing.wait_all_tasks_blocked()

    assert Response(7, Result({"action": "accept", "content": {"message": "?"}})) == wire.sent[-1]
    assert wire.calls[0].params["capabilities"] == {"elicitation": {"form": {}, "url": {}}}


async def test_questions_are_bounded(fake_wire):
    """One more than the limit is refused at once; answered ones make room."""
    go = trio.Event()

    async def answer(_params):
        await go.wait()
        return {"roots": []}

    questions = [fake_wire.question("roots/list", request_id=n) for n in range(MAX_QUESTIONS + 1)]
    wire = fake_wire({"tools/call": fake_wire.telling(*questions, then={})})
    async with wire.talk("legacy", roots=answer) as client:
        await client.request("tools/call")
        await trio.testing.wait_all_tasks_blocked()
        refused = wire.sent[1:]
        go.set()
        await trio.testing.wait_all_tasks_blocked()

    assert [MAX_QUESTIONS] == [response.id for response in refused]
    assert isinstance(refused[0].reply, ErrorReply)
    assert len(wire.sent) == 2 + MAX_QUESTIONS


async def test_input_required_is_answered_and_the_request_repeated(fake_wire):
    """Each retry has a new id, the server's state, and only the latest answers (SEP-2322)."""

    async def sample(params):
        return {"role": "assistant", "content": params["n"]}

    def ask(n, **more):
        questions = {f"q{n}": {"method": "sampling/createMessage", "params": {"n": n}}}
        return {"resultType": "input_required", "inputRequests": questions, **more}

    done = {"resultType": "complete", "content": []}
    rounds = [ask(1, requestState="s1"), ask(2), {"resultType": "input_required", "requestState": "s3"}, done]
    wire = fake_wire({"server/discover": fake_wire.MODERN, "tools/call": rounds})
    async with wire.talk(sampling=sample) as client:
        assert done == await client.call_tool("x", {"a": 1})

    retries = [{k: v for k, v in call.params.items() if k != "_meta"} for call in wire.calls[1:]]
    base = {"name": "x", "arguments": {"a": 1}}
    assert [
        base,
        {**base, "inputResponses": {"q1": {"role": "assistant", "content": 1}}, "requestState": "s1"},
        {**base, "inputResponses": {"q2": {"role": "assistant", "content": 2}}},
        {**base, "requestState": "s3"},
    ] == retries
    assert len({call.id for call in wire.calls}) == 5


async def test_a_question_nobody_answers_ends_the_request(fake_wire):
    """The client declared nothing, so the server should not have asked."""
    asks = {"resultType": "input_required", "inputRequests": {"q": {"method": "roots/list"}}}
    async with fake_wire({"server/discover": fake_wire.MODERN, "tools/call": asks}).talk() as client:
        with pytest.raises(McpError, match="does not answer roots/list"):
            await client.call_tool("x")


async def test_a_server_that_asks_for_ever_is_given_up(fake_wire):
    """The rounds are bounded."""
    wire = fake_wire({"server/discover": fake_wire.MODERN, "tools/call": {"resultType": "input_required"}})
    async with wire.talk() as client:
        with pytest.raises(UpstreamProtocolError, match=f"more than {MAX_ROUNDS} times"):
            await client.call_tool("x")

    assert len(wire.calls) == 1 + MAX_ROUNDS


async def test_a_method_that_cannot_ask_is_not_repeated(fake_wire):
    """The result of a list is a result, whatever it calls itself."""
    odd = {"resultType": "input_required"}
    async with fake_wire({"server/discover": fake_wire.MODERN, "completion/complete": odd}).talk() as client:
        assert odd == await client.request("completion/complete")


async def test_a_cancelled_request_is_announced(fake_wire, autojump_clock):
    """The notice names the request, and goes out although the caller is being cancelled."""
    wire = fake_wire({"tools/call": fake_wire.silent})
    async with wire.talk("legacy") as client:
        with trio.move_on_after(1) as scope:
            await client.call_tool("slow")

    assert scope.cancelled_caught
    assert Notification("notifications/cancelled", {"requestId": wire.calls[1].id}) == wire.sent[-1]


@pytest.mark.parametrize("failure", [UpstreamClosed("gone"), None])
async def test_what_is_over_or_needs_no_notice_is_not_announced(fake_wire, failure, autojump_clock):
    """A request that failed is over; over modern HTTP the closed stream says it."""
    wire = fake_wire({"tools/call": failure or fake_wire.silent}, announces_cancel=failure is not None)
    async with wire.talk("legacy") as client:
        with trio.move_on_after(1):
            if failure:
                with pytest.raises(UpstreamClosed):
                    await client.call_tool("x")
            else:
                await client.call_tool("x")

    assert wire.sent == [Notification("notifications/initialized")]


async def test_a_lost_session_is_renewed_once_for_all_who_lost_it(fake_wire):
    """Two requests that fail together make one new session, and both are repeated in it."""
    wire = fake_wire({"ping": [SessionLost("?"), SessionLost("?"), {}, {}]})
    async with wire.talk("legacy") as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.request, "ping")
        nursery.start_soon(client.request, "ping")

    assert wire.forgotten == 1
    assert sorted(wire.methods()) == ["initialize", "initialize", "ping", "ping", "ping", "ping"]


async def test_a_session_that_is_lost_again_at_once_is_an_error(fake_wire):
    """The client does not run in circles."""
    async with fake_wire({"ping": [SessionLost("gone"), SessionLost("gone")]}).talk("legacy") as client:
        with pytest.raises(SessionLost):
            await client.request("ping")


async def test_annotated_arguments_of_a_listed_tool_travel_as_headers(fake_wire):
    """Only in the modern era, and only for tools that were listed (SEP-2243)."""
    schema = {"properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    answers = {"tools/list": {"tools": [{"name": "x", "inputSchema": schema}]}, "tools/call": {"content": []}}
    modern = fake_wire({"server/discover": fake_wire.MODERN, **answers})
    async with modern.talk() as client:
        await client.call_tool("x", {"region": "eu"})
        await client.list_tools()
        await client.call_tool("x", {"region": "eu"})
    legacy = fake_wire(answers)
    async with legacy.talk("legacy") as client:
        await client.list_tools()
        await client.call_tool("x", {"region": "eu"})

    assert [{}, {}, {}, {"mcp-param-region": "eu"}] == modern.headers
    assert [{}, {}, {}] == legacy.headers


async def test_only_a_legacy_client_with_an_ear_listens(fake_wire):
    """What no request caused reaches the handler."""
    heard = []

    async def hear(notification):
        heard.append(notification.method)

    wire = fake_wire({})
    async with wire.talk("legacy", notification=hear):
        await wire.listening.wait()
        await wire.hear(Notification("notifications/tools/list_changed"))
    deaf, modern = fake_wire({}), fake_wire({"server/discover": fake_wire.MODERN})
    async with deaf.talk("legacy"), modern.talk(notification=hear) as client:
        await trio.testing.wait_all_tasks_blocked()
        assert client.era is Era.MODERN

    assert heard == ["notifications/tools/list_changed"]
    assert not deaf.listening.is_set()
    assert not modern.listening.is_set()


async def test_a_notification_is_sent(fake_wire):
    """A modern one carries its metadata, too."""
    wire = fake_wire({"server/discover": fake_wire.MODERN})
    async with wire.talk() as client:
        await client.notify("notifications/x", {"a": 1})

    assert wire.sent[0].params["a"] == 1
    assert wire.sent[0].params["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
