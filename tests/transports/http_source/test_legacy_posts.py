"""POSTs of the legacy era: handshake, sessions, batches, questions, cancel notices."""

from __future__ import annotations

import pytest
import trio

from sluiceway.pipeline.model.security import Refusal
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import CapacityExceeded, Forbidden, Unauthenticated
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Result


async def test_the_handshake_opens_a_session_with_the_version_of_its_result(running, autojump_clock):
    """The session is passed in while its version is still open, and known by its header afterwards."""
    seen = []

    async def sink(exchange):
        session = exchange.client.session
        seen.append((exchange.method, exchange.client.version, session.version, session.info))
        return Result({"protocolVersion": "2025-06-18"})

    async with running(sink) as served:
        hello = served.request("initialize", 0, protocolVersion="2099-01-01", clientInfo={"name": "c"}, capabilities=5)
        answer = await served.post(hello)
        headers = {"mcp_session_id": answer.headers["mcp-session-id"]}
        await served.post(served.request("tools/list"), **headers)

        assert ("initialize", None, None, {"name": "c"}) == seen[0]
        assert ("tools/list", "2025-06-18", "2025-06-18", {"name": "c"}) == seen[1]
        assert len(answer.headers["mcp-session-id"]) >= 32


@pytest.mark.parametrize("progress", [False, True])
async def test_a_refused_handshake_leaves_no_session(running, autojump_clock, progress):
    """An error is no agreement."""
    sessions = []

    async def sink(exchange):
        sessions.append(exchange.client.session)
        if progress:
            await exchange.relay(Notification("notifications/message"))
        return ErrorReply(-32602, "no")

    async with running(sink) as served:
        answer = await served.post(served.request("initialize"))

        assert 200 == answer.status
        assert "mcp-session-id" not in answer.headers
        assert sessions[0].closed
        assert 0 == len(served.source.sessions)


async def test_a_slow_handshake_names_its_session_as_soon_as_it_streams(running, autojump_clock):
    """The header can only go out with the head; the session stands when the result does."""

    async def sink(exchange):
        await trio.sleep(3)
        return Result({"protocolVersion": "2025-11-25"})

    async with running(sink, keep_alive=1.0) as served:
        wire = served.connect()
        await wire.send("POST", "/mcp", served.request("initialize"), {"mcp_session_id": "a stale one"})
        _, headers = await wire.head()
        stream = await wire.rest()
        answer = await served.post(served.request("ping"), mcp_session_id=headers["mcp-session-id"])

        assert 200 == answer.status
        assert b"id: " not in stream


async def test_a_result_without_a_version_means_the_assumed_one(running, autojump_clock):
    """2025-03-26 is what a client without a version header speaks."""

    async def sink(exchange):
        return Result({"version": exchange.client.version})

    async with running(sink) as served:
        answer = await served.post(served.request("initialize"))
        listed = await served.post(
            served.request("tools/list"), mcp_session_id=answer.headers["mcp-session-id"], mcp_protocol_version=None
        )

        assert {"version": "2025-03-26"} == listed.json["result"]


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"mcp_session_id": None}, 400, -32600),
        ({"mcp_session_id": "0" * 32}, 404, 40400),
        ({"mcp_protocol_version": "2099-01-01"}, 400, -32022),
        ({"mcp_protocol_version": "2025-06-18"}, 200, None),
        ({"mcp_protocol_version": None}, 200, None),
    ],
)
async def test_requests_need_their_session_and_a_version_we_speak(running, autojump_clock, headers, status, code):
    """Missing 400, unknown 404, unsupported 400; absent version header is fine (case 24, and 23 in the legacy era)."""
    async with running() as served:
        session = await served.session()
        answer = await served.post(served.request("tools/list", "q"), **{**session, **headers})

        assert status == answer.status
        assert code == answer.json.get("error", {}).get("code")
        assert "q" == answer.json["id"]
        if code == -32022:
            assert "2025-11-25" in answer.json["error"]["data"]["supported"]


async def test_an_ended_session_is_unknown_and_what_it_had_in_flight_is_cancelled(running, autojump_clock):
    """DELETE is 200, then everything is 404."""
    async with running() as served:
        session = await served.session()
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("slow"), session)
        await trio.sleep(1)
        ended = await served.ask("DELETE", "/mcp", **session)
        late = await wire.response()
        again = await served.post(served.request("tools/list"), **session)
        twice = await served.ask("DELETE", "/mcp", **session)

        assert (200, 202, 404, 404) == (ended.status, late.status, again.status, twice.status)
        assert 1 == served.pipeline.cancelled
        assert 0 == len(served.source.sessions)


async def test_an_idle_session_ends_and_a_busy_one_does_not(running, autojump_clock):
    """`session_idle` counts from the last message; a request in flight or an open stream keeps a session."""
    async with running(session_idle=10.0, keep_alive=60.0) as served:
        idle, asking, listening = [await served.session() for _ in range(3)]
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("slow", arguments={}), asking)
        slow = served.connect()
        await slow.send("POST", "/mcp", served.calling("slow", 2, seconds=15), asking)
        stream = served.connect()
        await stream.send("GET", "/mcp", None, listening)
        await trio.sleep(9)
        assert 3 == len(served.source.sessions)
        await trio.sleep(2)
        assert 2 == len(served.source.sessions)
        statuses = [(await served.post(served.request("tools/list", 9), **s)).status for s in (idle, asking, listening)]

        assert [404, 200, 200] == statuses
        assert 1 == served.source.sessions.expired
        await trio.sleep(30)
        assert 1 == len(served.source.sessions)


async def test_too_many_sessions_end_the_one_idle_longest_or_refuse(running, autojump_clock):
    """`max_sessions` is a bound: the idle make room, the busy do not."""
    async with running(max_sessions=2) as served:
        first, second = await served.session(), await served.session()
        await served.post(served.request("tools/list"), **first)
        third = await served.session()
        statuses = [(await served.post(served.request("tools/list"), **s)).status for s in (first, second, third)]
        for session in (first, third):
            await served.connect().send("POST", "/mcp", served.calling("slow"), session)
        await trio.sleep(1)
        refused = await served.post(served.request("initialize", 5))

        assert [200, 404, 200] == statuses
        assert 1 == served.source.sessions.evicted
        assert (503, 50301, "1") == (refused.status, refused.code, refused.headers["retry-after"])


async def test_errors_travel_in_a_200_unless_http_has_its_own_word(running, autojump_clock):
    """Legacy clients take a JSON-RPC error from a 200; authentication and sessions are HTTP's to tell."""
    errors = [
        CapacityExceeded("full"), ErrorReply(-32601, "no", http_status=404),
        Unauthenticated("who?", challenge="Bearer"), Forbidden("no"),
    ]  # fmt: skip

    async def sink(exchange):
        if exchange.method == "initialize":
            return Result({"protocolVersion": "2025-11-25"})
        error = errors.pop(0)
        if isinstance(error, ErrorReply):
            return error
        raise error

    async with running(sink) as served:
        session = await served.session()
        answers = [await served.post(served.request("tools/list"), **session) for _ in range(4)]

        assert [(200, 50301), (200, -32601), (401, 40100), (403, 40300)] == [(a.status, a.code) for a in answers]
        assert "Bearer" == answers[2].headers["www-authenticate"]


async def test_progress_comes_with_event_ids_that_count_up(running, autojump_clock):
    """2025-11-25 streams open with an id and empty data; earlier revisions do not, for their clients parse it."""
    async with running() as served:
        for version, numbers in (("2025-11-25", [0, 1, 2]), ("2025-06-18", [1, 2])):
            session = await served.session(version)
            answer = await served.post(served.calling("progress"), **session)
            ids = [event.id.rpartition("_") for event in answer.events]

            assert numbers == [int(number) for _, _, number in ids]
            assert 1 == len({stream for stream, _, _ in ids})
            assert ("" == answer.events[0].data) == (numbers[0] == 0)
            assert (1000 if numbers[0] == 0 else None) == answer.events[0].retry_ms


async def test_2024_11_05_sessions_have_no_event_ids(running, autojump_clock):
    """That revision knew no resumption."""
    async with running() as served:
        session = await served.session("2024-11-05")
        answer = await served.post(served.calling("progress"), **{**session, "mcp_protocol_version": None})

        assert ["", ""] == [event.id for event in answer.events]


async def test_a_client_that_takes_only_event_streams_gets_one(running, autojump_clock):
    """A success is an event; a refusal keeps its status."""

    async def sink(exchange):
        if exchange.target == "no":
            raise Forbidden("no")
        return Result({"protocolVersion": "2025-11-25"})

    async with running(sink) as served:
        session = {**await served.session(), "accept": "text/event-stream"}
        answer = await served.post(served.calling("a"), **session)
        refused = await served.post(served.calling("no"), **session)

        assert ("text/event-stream", 403) == (answer.headers["content-type"], refused.status)
        assert 1 == answer.messages[0]["id"]


async def test_a_slow_response_becomes_a_stream_and_keeps_it_alive(running, autojump_clock):
    """As in the modern era, after `keep_alive` of silence."""
    async with running(keep_alive=2.0) as served:
        session = await served.session()
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("slow"), session)
        _, headers = await wire.head()

        assert (2.0, "text/event-stream") == (trio.current_time(), headers["content-type"])
        assert "slow" == (await wire.next_message())["result"]["name"]
        assert (1, 5.0) == (wire.comments, trio.current_time())


async def test_a_question_goes_out_on_the_stream_and_its_answer_comes_on_another_post(running, autojump_clock):
    """Server-to-client requests of the legacy era; the answer is accepted with 202."""
    async with running() as served:
        session = await served.session()
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("ask"), session)
        await wire.head()
        question = await wire.next_message()
        reply = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}
        answered = await served.post(reply, **session)
        result = await wire.next_message()

        assert "elicitation/create" == question["method"]
        assert (202, b"") == (answered.status, answered.body)
        assert {"answer": {"action": "accept"}} == result["result"]


async def test_an_answer_reaches_only_the_session_that_was_asked(running, autojump_clock):
    """Case 21: an unknown id is accepted and dropped; another session's answer resolves nothing."""
    async with running() as served:
        asked, other = await served.session(), await served.session()
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("ask"), asked)
        await wire.head()
        question = await wire.next_message()
        reply = {"jsonrpc": "2.0", "id": question["id"], "result": {"from": "other"}}
        statuses = [
            (await served.post(reply, **other)).status,
            (await served.post({**reply, "id": "?"}, **asked)).status,
        ]
        await served.post({**reply, "result": {"from": "asked"}}, **asked)

        assert [202, 202] == statuses
        assert {"answer": {"from": "asked"}} == (await wire.next_message())["result"]


async def test_a_cancel_notice_cancels_the_request_of_that_id_in_that_session(running, autojump_clock):
    """The cancelled POST ends without a message; unknown ids, and other sessions' notices, do nothing."""
    async with running() as served:
        session, other = await served.session(), await served.session()
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("slow", 1, seconds=9), session)
        await trio.sleep(1)

        def notice(request_id):
            return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}

        for request_id, who in (("1", session), (1, other), (True, session), (None, session), ([1], session)):
            assert 202 == (await served.post(notice(request_id), **who)).status
        assert 0 == served.pipeline.cancelled
        await served.post(notice(1), **session)
        answer = await wire.response()

        assert (202, b"", 1.0) == (answer.status, answer.body, trio.current_time())
        assert 1 == served.pipeline.cancelled
        events = served.connect()
        await events.send("POST", "/mcp", served.calling("slow", 2), {**session, "accept": "text/event-stream"})
        await trio.sleep(1)
        await served.post(notice(2), **session)
        assert 202 == (await events.response()).status


async def test_a_cancelled_stream_ends_without_a_reply(running, autojump_clock):
    """What became an event stream just ends."""

    async def sink(exchange):
        if exchange.method == "initialize":
            return Result({"protocolVersion": "2025-06-18"})
        await exchange.relay(Notification("notifications/progress"))
        await trio.sleep(20)
        return Result()

    async with running(sink) as served:
        session = await served.session("2025-06-18")
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("x", 4), session)
        await wire.head()
        await wire.next_message()
        await served.post(
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 4}}, **session
        )

        assert b"" == await wire.rest()


async def test_an_id_in_flight_cannot_be_used_again(running, autojump_clock):
    """Two answers under one id could be taken for each other; when the first ended, the id is free."""
    async with running() as served:
        session, other = await served.session(), await served.session()
        wire = served.connect()
        await wire.send("POST", "/mcp", served.calling("slow", 1), session)
        await trio.sleep(1)
        same = await served.post(served.calling("a", 1), **session)
        text = await served.post(served.calling("a", "1"), **session)
        elsewhere = await served.post(served.calling("a", 1), **other)
        await wire.response()
        again = await served.post(served.calling("a", 1), **session)

        assert (400, -32600, 1) == (same.status, same.code, same.json["id"])
        assert [200, 200, 200] == [text.status, elsewhere.status, again.status]


async def test_notifications_are_handled_before_they_are_accepted(running, autojump_clock):
    """So `initialized` has arrived when the next request does. What they relay goes to the session's own stream."""
    seen = []

    async def sink(exchange):
        if exchange.method == "initialize":
            return Result({"protocolVersion": "2025-11-25"})
        await trio.sleep(1)
        seen.append(exchange.method)
        await exchange.relay(Notification("notifications/message", {"level": "info"}))
        return Result()

    async with running(sink) as served:
        session = await served.session()
        answer = await served.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, **session)

        assert (202, ["notifications/initialized"]) == (answer.status, seen)
        wire = served.connect()
        await wire.send("GET", "/mcp", None, session)
        await wire.head()
        assert "notifications/message" == (await wire.next_message())["method"]


async def test_batches_go_through_the_chain_one_by_one_in_2025_03_26(running, autojump_clock):
    """Case 19: the answer is an array in the same order; notifications and responses in it have none."""
    seen = []

    async def sink(exchange):
        if exchange.method == "initialize":
            return Result({"protocolVersion": "2025-03-26"})
        seen.append(exchange.method)
        return Result({"method": exchange.method})

    async with running(sink) as served:
        session = await served.session("2025-03-26")
        batch = [
            served.request("tools/list", 1), {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
            {"jsonrpc": "2.0", "id": "?", "result": {}}, served.request("prompts/list", "b"),
        ]  # fmt: skip
        answer = await served.post(batch, **session)
        alone = await served.post([served.request("tools/list", 3)], **session)
        silent = await served.post([batch[1]], **session)

        assert [(1, "tools/list"), ("b", "prompts/list")] == [(m["id"], m["result"]["method"]) for m in answer.json]
        assert [
            "tools/list",
            "notifications/roots/list_changed",
            "prompts/list",
            "tools/list",
            batch[1]["method"],
        ] == seen
        assert [3] == [m["id"] for m in alone.json]
        assert (202, b"") == (silent.status, silent.body)


async def test_a_batch_with_progress_streams_its_answers(running, autojump_clock):
    """Each reply is an event of its own then."""
    async with running() as served:
        session = await served.session("2025-03-26")
        answer = await served.post([served.calling("a", 1), served.calling("progress", 2)], **session)

        assert [1, None, 2] == [m.get("id") for m in answer.messages]


@pytest.mark.parametrize(
    ("version", "batch"),
    [
        ("2025-03-26", []),
        ("2025-06-18", [{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}]),
        ("2025-11-25", [{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}]),
    ],
)
async def test_batches_that_may_not_be_are_refused_whole(running, autojump_clock, version, batch):
    """Empty, or of other revisions: 400, -32600."""
    async with running() as served:
        session = await served.session(version)
        answer = await served.post(batch, **session)

        assert (400, -32600, None) == (answer.status, answer.code, answer.json["id"])
        assert 1 == served.pipeline.served  # the handshake


@pytest.mark.parametrize(
    ("element", "request_id", "reason"),
    [
        (5, None, "one JSON object"),
        ({"jsonrpc": "2.0", "id": 2, "method": "a/b", "params": []}, 2, "params must be an object"),
        ({"jsonrpc": "2.0", "id": 2, "method": "initialize", "params": {}}, 2, "initialize must not"),
        ({"jsonrpc": "2.0", "id": 1, "method": "a/b"}, None, "id 1 is in use"),
        (
            {"jsonrpc": "2.0", "id": 2, "method": "a/b",
             "params": {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}},
            2, "another revision",
        ),
        (
            {"jsonrpc": "2.0", "method": "a/b",
             "params": {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}},
            None, "another revision",
        ),
    ],
)  # fmt: skip
async def test_a_bad_element_of_a_batch_is_refused_and_the_others_served(
    running, autojump_clock, element, request_id, reason
):
    """JSON-RPC 2.0, section 6; an id that another request of the batch has would not say which one is meant."""
    async with running() as served:
        session = await served.session("2025-03-26")
        answer = await served.post([served.calling("a", 1), element, served.calling("b", 3)], **session)
        alone = await served.post([element, element], **session)
        refusals = [m for m in answer.json if "error" in m]

        assert (200, 3) == (answer.status, len(answer.json))
        assert {1, 3} == {m["id"] for m in answer.json if "result" in m}
        assert [(request_id, -32600)] == [(m["id"], m["error"]["code"]) for m in refusals]
        assert reason in refusals[0]["error"]["message"]
        assert (200, 2) == (alone.status, len(alone.json))


async def test_a_client_that_prefers_events_gets_refusals_of_its_batch_as_events(running, autojump_clock):
    """One for each element, before the replies; also where there is none."""
    async with running() as served:
        session = await served.session("2025-03-26")
        headers = {**session, "accept": "text/event-stream, application/json;q=0.5"}
        mixed = await served.post([served.calling("a", 1), 5], **headers)
        alone = await served.post([5, 6], **headers)

        assert [None, 1] == [m["id"] for m in mixed.messages]
        assert [-32600, -32600] == [m["error"]["code"] for m in alone.messages]


async def test_of_a_bad_batch_an_alarm_is_raised_once(running, autojump_clock):
    """As for any message that is refused at the edge, and however many elements are bad."""
    alarms: list[Refusal] = []
    async with running() as served:
        session = await served.session("2025-03-26")
        served.source.context.alarm = alarms.append
        await served.post([1, 2, 3], **session)

        assert ["invalid_message"] == [alarm.reason for alarm in alarms]


def authenticating(owner_header="authorization"):
    """A sink behind an auth stage: the header is the principal."""

    async def sink(exchange):
        subject = exchange.client.headers.get(owner_header)
        if subject is None:
            raise Unauthenticated("who are you?")
        exchange.authenticate(Caller(subject.split("-")[0]))
        if exchange.method == "initialize":
            return Result({"protocolVersion": "2025-11-25"})
        if exchange.target == "ask":
            return await exchange.ask("roots/list", {})
        return Result({"for": exchange.caller.subject})

    return sink


async def test_another_principals_session_does_not_exist(running, autojump_clock):
    """Case 24: POST, GET, DELETE, answers and cancel notices of others are 404, with the body of an unknown session."""
    async with running(authenticating()) as served:
        session = await served.session(authorization="ana-1")
        stranger = {**session, "authorization": "bob-1"}
        reply = {"jsonrpc": "2.0", "id": "x", "result": {}}
        notice = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
        unknown = await served.post(served.request("tools/list"), **{**stranger, "mcp_session_id": "0" * 32})
        answers = [
            await served.post(served.request("tools/list"), **stranger),
            await served.ask("GET", "/mcp", **stranger),
            await served.ask("DELETE", "/mcp", **stranger),
            await served.post(reply, **stranger),
            await served.post(notice, **stranger),
            await served.ask("DELETE", "/mcp", **{**session, "authorization": None}),
        ]

        assert [404] * 6 == [a.status for a in answers]
        assert {unknown.json["error"]["message"]} == {a.json["error"]["message"] for a in answers}
        assert unknown.body == answers[0].body
        assert 200 == (await served.post(served.request("tools/list"), **session)).status


async def test_a_principal_may_renew_its_credential(running, autojump_clock):
    """A new token that passed the chain is good for GET and DELETE too; one that did not is not."""
    async with running(authenticating()) as served:
        session = await served.session(authorization="ana-1")
        renewed = {**session, "authorization": "ana-2"}
        before = await served.ask("DELETE", "/mcp", **renewed)
        await served.post(served.request("tools/list"), **renewed)
        for n in range(20):
            await served.post(served.request("tools/list"), **{**session, "authorization": f"ana-{n + 3}"})
        forgotten = await served.ask("DELETE", "/mcp", **renewed)
        latest = await served.ask("DELETE", "/mcp", **{**session, "authorization": "ana-22"})

        assert [404, 404, 200] == [before.status, forgotten.status, latest.status]


async def test_an_unauthenticated_request_is_told_so_by_http(running, autojump_clock):
    """401 before anything else is said about the session."""
    async with running(authenticating()) as served:
        session = await served.session(authorization="ana-1")
        answer = await served.post(served.request("tools/list"), **{**session, "authorization": None})

        assert (401, 40100) == (answer.status, answer.code)


@pytest.mark.parametrize(
    ("method", "headers", "status", "allow"),
    [
        ("GET", {}, 405, "POST"),
        ("DELETE", {}, 405, "POST"),
        ("GET", {"mcp_protocol_version": "2026-07-28"}, 405, "POST"),
        ("GET", {"mcp_protocol_version": "2025-11-25"}, 400, None),
        ("DELETE", {"mcp_protocol_version": "2025-06-18"}, 400, None),
        ("GET", {"mcp_session_id": "0" * 32}, 404, None),
        ("PUT", {}, 405, "GET, POST, DELETE"),
        ("HEAD", {}, 405, "GET, POST, DELETE"),
        ("PATCH", {}, 405, "GET, POST, DELETE"),
        ("OPTIONS", {}, 405, "GET, POST, DELETE"),
    ],
)
async def test_methods_that_are_not_used(running, autojump_clock, method, headers, status, allow):
    """A client that names no session has POST only."""
    async with running() as served:
        wire = served.connect()
        await wire.send(method, "/mcp", None, headers)
        got, answered = await wire.head()

        assert (status, allow) == (got, answered.get("allow"))


async def test_a_get_must_take_event_streams(running, autojump_clock):
    """406 otherwise."""
    async with running() as served:
        session = await served.session()
        answer = await served.ask("GET", "/mcp", **session, accept="application/json")

        assert 406 == answer.status


@pytest.mark.parametrize("accept", ["application/json, text/event-stream", "text/event-stream, application/json"])
async def test_a_bug_outside_the_pipeline_is_answered(running, autojump_clock, monkeypatch, accept):
    """As an error, and not as if the client had taken its request back; the session goes on."""
    async with running() as served:
        session = await served.session()
        monkeypatch.setattr(type(served.source._serving), "encode_reply", lambda *_: 1 / 0)
        answer = await served.post(served.calling("x", 4), **session, accept=accept)
        monkeypatch.undo()
        after = await served.post(served.calling("x", 4), **session)

        assert 200 == after.status
        assert (500, -32603, 4) == (answer.status, answer.code, answer.json["id"])
