"""Many exchanges on one connection: each gets what is its own, and the upstream hears of every end."""

import json
from contextlib import asynccontextmanager

import pytest
import structlog
import trio
import trio.testing

from sluiceway.pipeline.model.session import Client, Session
from sluiceway.pipeline.protocol.codec import decode_upstream
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    MessageTooLarge,
    SlowConsumer,
    UpstreamClosed,
    UpstreamProtocolError,
)
from sluiceway.pipeline.protocol.mcp import LATEST_LEGACY, Era
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Request, Result
from sluiceway.pipeline.runtime.correlation import CorrelationCounts
from sluiceway.pipeline.testing import MODERN_CLIENT, cancel_everywhere, memory_exchange
from sluiceway.transports.multiplex import Multiplexer
from sluiceway.transports.outbox import Outbox

SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
LOG_LEVEL = "io.modelcontextprotocol/logLevel"


class Upstream:
    """The other end of a multiplexed connection, as the test plays it."""

    def __init__(self, *, session: Session | None = None, max_pending: int = 100, max_unsent: int = 100_000) -> None:
        self.at_once: list[bytes] = []
        self.outbox = Outbox(max_unsent, self._write_at_once)
        self.announced: list[Notification] = []
        self.nursery: trio.Nursery | None = None
        self.mux = Multiplexer(
            "files",
            self.outbox,
            structlog.get_logger(),
            session=session,
            max_pending=max_pending,
            counts=CorrelationCounts(),
            spawn=self.spawn,
            announce=self.announced.append,
        )
        self.ours, self.theirs = trio.testing.memory_stream_one_way_pair()
        self._heard_in, self._heard = trio.open_memory_channel[dict](1000)

    def _write_at_once(self, data: bytes) -> int:
        """Note what need not wait for company, and let it go the usual way."""
        self.at_once.append(data)
        return 0

    def spawn(self, function: object, question: Request) -> None:
        """Run a task of the connection."""
        assert self.nursery is not None
        self.nursery.start_soon(function, question)

    async def listen(self) -> None:
        """Read what the gateway sends."""
        rest = b""
        async for data in self.theirs:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._heard_in.send_nowait(json.loads(line))

    async def next(self) -> dict:
        """The next message the gateway sent."""
        return await self._heard.receive()

    async def quiet(self) -> list[dict]:
        """What else the gateway sent once everybody waits."""
        await trio.testing.wait_all_tasks_blocked()
        return [self._heard.receive_nowait() for _ in range(self._heard.statistics().current_buffer_used)]

    def say(self, **message: object) -> None:
        """Send one message to the gateway."""
        self.mux.receive(decode_upstream(json.dumps({"jsonrpc": "2.0", **message}).encode()))

    def reply(self, to: dict, result: dict) -> None:
        """Answer a request."""
        self.say(id=to["id"], result=result)

    def notify(self, method: str, **params: object) -> None:
        """Send a notification."""
        self.say(method=method, params=params)


@asynccontextmanager
async def connected(**options):
    """An upstream whose outbox is being emptied."""
    upstream = Upstream(**options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upstream.outbox.run, upstream.ours)
        nursery.start_soon(upstream.listen)
        yield upstream
        nursery.cancel_scope.cancel()


def legacy(session: Session) -> Client:
    """The client of a session."""
    return Client(era=Era.LEGACY, version=LATEST_LEGACY, session=session)


def a_session(notices: list[Notification] | None = None) -> Session:
    """A session that collects what is sent outside of requests."""
    return Session(id="s", source="test", notify=(notices if notices is not None else []).append)


class Calls:
    """Runs exchanges and keeps their outcomes by a label."""

    def __init__(self, nursery: trio.Nursery, upstream: Upstream) -> None:
        self._nursery = nursery
        self._mux = upstream.mux
        self.outcomes: dict[str, object] = {}
        self.scopes: dict[str, trio.CancelScope] = {}

    def start(self, label: str, exchange) -> None:
        """Start one exchange in a task of its own."""
        scope = self.scopes[label] = trio.CancelScope()

        async def run() -> None:
            with scope:
                try:
                    self.outcomes[label] = await self._mux.call(exchange)
                except Exception as error:
                    self.outcomes[label] = error

        self._nursery.start_soon(run)


@pytest.fixture
async def upstream():
    """A connection that modern clients share."""
    async with connected() as shared:
        yield shared


async def test_shuffled_replies_reach_who_asked_with_bodies_untouched(upstream, nursery):
    """A hundred exchanges with the same client id each get their own reply."""
    calls = Calls(nursery, upstream)
    for number in range(100):
        calls.start(str(number), memory_exchange("tools/call", {"name": str(number)}))
    requests = [await upstream.next() for _ in range(100)]
    for request in sorted(requests, key=lambda request: hash(request["params"]["name"])):
        upstream.reply(request, {"echo": request["params"]["name"], "future": [1.5]})
    await trio.testing.wait_all_tasks_blocked()

    assert len({request["id"] for request in requests}) == 100
    assert calls.outcomes == {str(n): Result({"echo": str(n), "future": [1.5]}) for n in range(100)}
    assert upstream.mux.in_flight == 0


async def test_an_error_of_the_upstream_is_a_reply(upstream, nursery):
    """It is data, with its code and data as they came."""
    calls = Calls(nursery, upstream)
    calls.start("a", memory_exchange())
    upstream.say(id=(await upstream.next())["id"], error={"code": -32602, "message": "no", "data": {"x": 1}})
    await trio.testing.wait_all_tasks_blocked()

    assert calls.outcomes == {"a": ErrorReply(-32602, "no", {"x": 1})}


async def test_progress_comes_back_under_the_clients_token_with_its_type(upstream, nursery):
    """Two clients that chose the same token do not mix, and the reply comes last."""
    calls = Calls(nursery, upstream)
    first: list[Notification] = []
    second: list[Notification] = []
    calls.start("a", memory_exchange(params={"_meta": {"progressToken": 1}}, interim=first))
    calls.start("b", memory_exchange(params={"_meta": {"progressToken": 1}}, interim=second))
    requests = [await upstream.next(), await upstream.next()]
    tokens = [request["params"]["_meta"]["progressToken"] for request in requests]
    for token in tokens:
        upstream.notify("notifications/progress", progressToken=token, progress=token, unknown="kept")
    for request in requests:
        upstream.reply(request, {})
    await trio.testing.wait_all_tasks_blocked()

    assert len(set(tokens)) == 2
    assert sorted(n.params["progress"] for n in first + second) == sorted(tokens)
    assert [[n.params["progressToken"], n.params["unknown"]] for n in first + second] == [[1, "kept"]] * 2


async def test_progress_that_is_late_or_unknown_is_dropped(upstream, nursery):
    """Nobody gets it, and it is counted."""
    calls = Calls(nursery, upstream)
    relayed: list[Notification] = []
    calls.start("a", memory_exchange(params={"_meta": {"progressToken": "t"}}, interim=relayed))
    request = await upstream.next()
    upstream.reply(request, {})
    for token in (request["id"], 99, "t", True, None):
        upstream.notify("notifications/progress", progressToken=token, progress=1)
    await trio.testing.wait_all_tasks_blocked()

    assert relayed == []
    assert upstream.mux.unclaimed == 5


async def test_a_cancelled_exchange_tells_the_upstream_with_the_upstreams_id(upstream, nursery):
    """The late reply is dropped."""
    calls = Calls(nursery, upstream)
    calls.start("a", memory_exchange(request_id="mine"))
    request = await upstream.next()
    calls.scopes["a"].cancel()

    assert await upstream.next() == {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": request["id"]},
    }

    upstream.reply(request, {})
    await trio.testing.wait_all_tasks_blocked()

    assert calls.outcomes == {}


async def test_a_cancelled_exchange_whose_request_has_not_left_never_reaches_the_upstream(nursery):
    """There is nothing to take back, so neither is sent."""
    upstream = Upstream()
    calls = Calls(nursery, upstream)
    calls.start("a", memory_exchange(params={"n": 1}))
    calls.start("b", memory_exchange(params={"n": 2}))
    await trio.testing.wait_all_tasks_blocked()
    calls.scopes["a"].cancel()
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(upstream.outbox.run, upstream.ours)
    nursery.start_soon(upstream.listen)

    assert [message["params"] for message in await upstream.quiet()] == [{"n": 2}]

    upstream.mux.close(lambda: UpstreamClosed("over"))
    upstream.outbox.close()
    upstream.ours.close()


async def test_a_handshake_cannot_be_cancelled(nursery):
    """MCP forbids a cancel notice for `initialize`."""
    session = a_session()
    async with connected(session=session) as upstream:
        calls = Calls(nursery, upstream)
        calls.start("a", memory_exchange("initialize", client=legacy(session)))
        await upstream.next()
        calls.scopes["a"].cancel()

        assert await upstream.quiet() == []


async def test_cancelling_anywhere_leaves_nothing():
    """Whatever the step, no entry stays, and what the upstream heard of it is closed."""

    async def trial() -> None:
        async with connected(session=(session := a_session())) as upstream, trio.open_nursery() as nursery:

            async def ask(method, params):
                await trio.lowlevel.checkpoint()
                return Result({"roots": []})

            async def play() -> None:
                request = await upstream.next()
                upstream.notify("notifications/progress", progressToken=request["id"], progress=1)
                upstream.say(id=5, method="roots/list")
                answer = await upstream.next()
                if answer.get("id") == 5:
                    upstream.reply(request, {})

            nursery.start_soon(play)
            exchange = memory_exchange(
                params={"_meta": {"progressToken": 1}}, client=legacy(session), ask=ask, interim=[]
            )
            try:
                await upstream.mux.call(exchange)
            finally:
                nursery.cancel_scope.cancel()

                assert upstream.mux.in_flight == 0
                assert upstream.mux.questions == 0

    assert await cancel_everywhere(trial) > 5


async def test_more_requests_than_max_pending_are_refused(nursery):
    """The bound is per connection, and the message names it."""
    async with connected(max_pending=2) as upstream:
        calls = Calls(nursery, upstream)
        for label in ("a", "b"):
            calls.start(label, memory_exchange())
        await trio.testing.wait_all_tasks_blocked()

        with pytest.raises(CapacityExceeded, match="max_pending"):
            await upstream.mux.call(memory_exchange())

        upstream.mux.close(lambda: UpstreamClosed("over"))
        await trio.testing.wait_all_tasks_blocked()


async def test_an_upstream_that_does_not_read_sheds_requests_and_loses_courtesies(nursery):
    """Nothing piles up: requests and notifications are refused, answers to its pings dropped."""
    upstream = Upstream(max_unsent=100)
    calls = Calls(nursery, upstream)
    calls.start("a", memory_exchange(params={"long": "x" * 200}))
    await trio.testing.wait_all_tasks_blocked()
    size = upstream.outbox.size

    with pytest.raises(CapacityExceeded, match="is not reading; at most 100 may"):
        await upstream.mux.call(memory_exchange())
    with pytest.raises(CapacityExceeded):
        upstream.mux.notify(Notification("notifications/roots/list_changed"))
    upstream.say(id=1, method="ping")

    assert upstream.outbox.size == size

    upstream.mux.close(lambda: UpstreamClosed("over"))


async def test_client_notifications_are_forwarded_but_not_their_cancel_notices(upstream):
    """The ids in a client's cancel notice are the client's."""
    upstream.mux.notify(Notification("notifications/cancelled", {"requestId": 1}))
    upstream.mux.notify(Notification("notifications/roots/list_changed", {"future": 1}))

    assert await upstream.quiet() == [
        {"jsonrpc": "2.0", "method": "notifications/roots/list_changed", "params": {"future": 1}}
    ]


async def test_the_end_of_the_connection_fails_everybody_now_and_later(upstream, nursery):
    """Each gets an error of its own, and the first reason stays."""
    calls = Calls(nursery, upstream)
    for label in ("a", "b"):
        calls.start(label, memory_exchange())
    await trio.testing.wait_all_tasks_blocked()
    upstream.mux.close(lambda: UpstreamClosed("crashed"))
    upstream.mux.close(lambda: UpstreamClosed("again"))
    await trio.testing.wait_all_tasks_blocked()

    assert [str(outcome) for outcome in calls.outcomes.values()] == ["crashed", "crashed"]
    assert len(set(map(id, calls.outcomes.values()))) == 2
    with pytest.raises(UpstreamClosed, match="crashed"):
        await upstream.mux.call(memory_exchange())
    with pytest.raises(UpstreamClosed, match="crashed"):
        upstream.mux.notify(Notification("notifications/initialized"))


async def test_a_connection_that_is_ending_takes_no_more_requests(upstream):
    """Between its last write and its end the outbox is closed."""
    upstream.outbox.close()

    with pytest.raises(UpstreamClosed, match="files: the connection to the upstream is ending"):
        await upstream.mux.call(memory_exchange())


async def test_pings_of_the_upstream_are_answered_here(upstream):
    """Ids of both types come back as they were; no client is bothered."""
    upstream.say(id=1, method="ping")
    upstream.say(id="1", method="ping")

    assert await upstream.quiet() == [
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"jsonrpc": "2.0", "id": "1", "result": {}},
    ]


async def test_questions_go_to_the_client_of_the_exchange_and_several_at_once_are_answered(nursery):
    """Both are open at the same time; answers carry the upstream's ids and are told apart by them."""
    session = a_session()
    release = trio.Event()

    async def ask(method, params):
        if method == "roots/list":
            await release.wait()
            return ErrorReply(-1, "User rejected")
        release.set()
        return Result({"asked": params})

    relayed: list[Notification] = []
    async with connected(session=session) as upstream:
        calls = Calls(nursery, upstream)
        calls.start("a", memory_exchange(client=legacy(session), ask=ask, interim=relayed))
        request = await upstream.next()
        upstream.say(id="q1", method="roots/list")
        upstream.notify("notifications/message", level="info", data="between")
        upstream.say(id=2, method="sampling/createMessage", params={"messages": [], "future": 1})

        assert await upstream.next() == {
            "jsonrpc": "2.0",
            "id": 2,
            "result": {"asked": {"messages": [], "future": 1}},
        }
        assert await upstream.next() == {
            "jsonrpc": "2.0",
            "id": "q1",
            "error": {"code": -1, "message": "User rejected"},
        }

        upstream.reply(request, {"done": True})
        await trio.testing.wait_all_tasks_blocked()

    assert calls.outcomes == {"a": Result({"done": True})}
    assert [n.params["data"] for n in relayed] == ["between"]
    assert upstream.mux.questions == 0


async def test_a_question_without_an_exchange_is_refused(nursery):
    """Nobody to ask: method not found, rather than a guess."""
    async with connected(session=a_session()) as upstream:
        upstream.say(id=1, method="elicitation/create", params={})

        assert (await upstream.next())["error"]["code"] == -32601


async def test_on_a_shared_connection_a_question_goes_to_the_only_exchange_or_to_nobody(upstream, nursery):
    """With two in flight it cannot be known whose it is."""

    async def ask(method, params):
        return Result({"by": method})

    calls = Calls(nursery, upstream)
    calls.start("a", memory_exchange(ask=ask))
    await upstream.next()
    upstream.say(id=1, method="roots/list")

    assert (await upstream.next())["result"] == {"by": "roots/list"}

    calls.start("b", memory_exchange(ask=ask))
    await upstream.next()
    upstream.say(id=2, method="roots/list")

    assert (await upstream.next())["error"]["code"] == -32601

    upstream.mux.close(lambda: UpstreamClosed("over"))
    await trio.testing.wait_all_tasks_blocked()


async def test_a_refusal_of_the_source_is_an_answer_to_the_question(nursery):
    """Too many open questions at the client are an error to the upstream, not the end of the exchange."""
    session = a_session()

    async def ask(method, params):
        raise CapacityExceeded("64 questions are open")

    async with connected(session=session) as upstream:
        calls = Calls(nursery, upstream)
        calls.start("a", memory_exchange(client=legacy(session), ask=ask))
        request = await upstream.next()
        upstream.say(id=1, method="roots/list")

        assert (await upstream.next())["error"]["data"]["reason"] == "capacity_exceeded"

        upstream.reply(request, {})
        await trio.testing.wait_all_tasks_blocked()

    assert calls.outcomes == {"a": Result({})}


async def asked_forever(method, params):
    """A client that never answers."""
    await trio.sleep_forever()


async def test_questions_end_with_their_exchange_and_the_upstream_gets_an_answer(nursery):
    """It is not left waiting for somebody who has gone, whether the exchange was cancelled or answered."""
    session = a_session()
    async with connected(session=session) as upstream:
        calls = Calls(nursery, upstream)
        for label in ("cancelled", "answered"):
            calls.start(label, memory_exchange(client=legacy(session), ask=asked_forever))
            request = await upstream.next()
            upstream.say(id=label, method="roots/list")
            await trio.testing.wait_all_tasks_blocked()
            if label == "cancelled":
                calls.scopes[label].cancel()
            else:
                upstream.reply(request, {})
            answer = await upstream.next()

            assert (answer["id"], answer["error"]["message"]) == (label, "the request that caused this has ended")
            assert upstream.mux.questions == 0

            await upstream.quiet()


async def test_a_question_can_be_taken_back(nursery):
    """Its client is asked no longer, nothing is answered, and the exchange goes on."""
    session = a_session()
    cancelled = trio.Event()

    async def ask(method, params):
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with connected(session=session) as upstream:
        calls = Calls(nursery, upstream)
        calls.start("a", memory_exchange(client=legacy(session), ask=ask))
        request = await upstream.next()
        upstream.say(id=1, method="roots/list")
        await trio.testing.wait_all_tasks_blocked()
        upstream.say(id=2, method="roots/list")
        for question_id in (2, 1, 1, True, None, 77):  # 2 before anybody looked at it
            upstream.notify("notifications/cancelled", requestId=question_id)

        assert await upstream.quiet() == []
        assert cancelled.is_set()

        upstream.reply(request, {})
        await trio.testing.wait_all_tasks_blocked()

    assert calls.outcomes == {"a": Result({})}


async def test_a_question_taken_back_as_its_answer_comes_is_not_answered(nursery):
    """The upstream must not hear of it any more."""
    session = a_session()
    answered = trio.Event()

    async def ask(method, params):
        await answered.wait()
        return Result()

    async with connected(session=session) as upstream:
        calls = Calls(nursery, upstream)
        calls.start("a", memory_exchange(client=legacy(session), ask=ask))
        request = await upstream.next()
        upstream.say(id=1, method="roots/list")
        await trio.testing.wait_all_tasks_blocked()
        answered.set()
        upstream.notify("notifications/cancelled", requestId=1)

        assert await upstream.quiet() == []

        upstream.reply(request, {})
        await trio.testing.wait_all_tasks_blocked()


async def test_questions_are_bounded_and_their_ids_are_unique(nursery):
    """The sixty-fifth is refused, and so is one that reuses an open id."""
    session = a_session()
    async with connected(session=session) as upstream:
        calls = Calls(nursery, upstream)
        calls.start("a", memory_exchange(client=legacy(session), ask=asked_forever))
        await upstream.next()
        upstream.say(id=0, method="roots/list")
        upstream.say(id=0, method="roots/list")
        await trio.testing.wait_all_tasks_blocked()
        for number in range(1, 65):
            upstream.say(id=number, method="roots/list")
            await trio.testing.wait_all_tasks_blocked()

        assert [(m["id"], m["error"]["code"]) for m in await upstream.quiet()] == [(0, -32600), (64, -32603)]

        calls.scopes["a"].cancel()
        await trio.testing.wait_all_tasks_blocked()


async def test_logs_of_a_session_go_to_its_latest_exchange_or_to_the_session(nursery):
    """They are never dropped while somebody of the session can take them."""
    notices: list[Notification] = []
    session = a_session(notices)
    first: list[Notification] = []
    second: list[Notification] = []
    async with connected(session=session) as upstream:
        calls = Calls(nursery, upstream)
        calls.start("a", memory_exchange(client=legacy(session), interim=first))
        await upstream.next()
        calls.start("b", memory_exchange(client=legacy(session), interim=second))
        latest = await upstream.next()
        upstream.notify("notifications/message", data=1)
        upstream.reply(latest, {})
        await trio.testing.wait_all_tasks_blocked()
        upstream.notify("notifications/message", data=2)
        await trio.testing.wait_all_tasks_blocked()
        upstream.mux.close(lambda: UpstreamClosed("over"))
        await trio.testing.wait_all_tasks_blocked()
        upstream.notify("notifications/message", data=3)

    assert [[n.params["data"] for n in got] for got in (first, second, notices)] == [[2], [1], [3]]


async def test_on_a_shared_connection_logs_reach_only_who_asked_for_them_and_is_alone(upstream, nursery):
    """A log message of one client never reaches another."""
    relayed: list[Notification] = []
    calls = Calls(nursery, upstream)
    calls.start("a", memory_exchange(params={"_meta": {LOG_LEVEL: "debug"}}, interim=relayed))
    request = await upstream.next()
    upstream.notify("notifications/message", data="alone")
    await trio.testing.wait_all_tasks_blocked()
    calls.start("b", memory_exchange(interim=relayed))
    await upstream.next()
    upstream.notify("notifications/message", data="two in flight")
    upstream.reply(request, {})
    await trio.testing.wait_all_tasks_blocked()
    upstream.notify("notifications/message", data="not asked for")
    upstream.notify("notifications/tools/list_changed")
    await trio.testing.wait_all_tasks_blocked()

    assert [n.params["data"] for n in relayed] == ["alone"]
    assert upstream.mux.unclaimed == 3

    upstream.mux.close(lambda: UpstreamClosed("over"))
    await trio.testing.wait_all_tasks_blocked()


async def test_what_no_request_caused_goes_to_the_session(nursery):
    """Change notifications keep their bodies, whatever is in them."""
    notices: list[Notification] = []
    async with connected(session=a_session(notices)) as upstream:
        upstream.notify("notifications/tools/list_changed")
        upstream.notify("notifications/resources/updated", uri="a", future=1)

    assert notices == [
        Notification("notifications/tools/list_changed"),
        Notification("notifications/resources/updated", {"uri": "a", "future": 1}),
    ]


async def test_a_task_keeps_its_progress_token_after_its_request_was_answered(nursery):
    """2025-11-25: the token lives as long as the task; the oldest of very many are forgotten."""
    notices: list[Notification] = []
    session = a_session(notices)
    async with connected(session=session) as upstream:
        calls = Calls(nursery, upstream)
        for number in range(257):
            params = {"task": {"ttl": 1000}, "_meta": {"progressToken": f"t{number}"}}
            calls.start(str(number), memory_exchange(params=params, client=legacy(session)))
            upstream.reply(await upstream.next(), {"task": {"taskId": "x", "status": "working"}})
            await trio.testing.wait_all_tasks_blocked()
        calls.start("no token", memory_exchange(params={"task": {}}, client=legacy(session)))
        upstream.reply(await upstream.next(), {"task": {}})
        await trio.testing.wait_all_tasks_blocked()
        for token in (1, 2, 257, 258):
            upstream.notify("notifications/progress", progressToken=token, progress=1)

    assert [n.params["progressToken"] for n in notices] == ["t1", "t256"]


async def test_a_subscription_is_known_by_the_clients_own_id(upstream, nursery):
    """Acknowledgement, changes and the end of two listeners carry the id their client chose, and do not mix."""
    calls = Calls(nursery, upstream)
    relayed: dict[object, list[Notification]] = {"l1": [], 1: []}
    for request_id, interim in relayed.items():
        calls.start(str(request_id), memory_exchange("subscriptions/listen", request_id=request_id, interim=interim))
        request = await upstream.next()
        upstream.notify(
            "notifications/subscriptions/acknowledged", _meta={SUBSCRIPTION: request["id"], "x": 1}, notifications={}
        )
        upstream.notify("notifications/resources/updated", _meta={SUBSCRIPTION: request["id"]}, uri=str(request_id))
    upstream.notify("notifications/tools/list_changed", _meta={SUBSCRIPTION: 99})
    upstream.reply(request, {"resultType": "complete", "_meta": {SUBSCRIPTION: request["id"], "y": 2}})
    await trio.testing.wait_all_tasks_blocked()

    for request_id, interim in relayed.items():
        assert [n.params for n in interim] == [
            {"_meta": {SUBSCRIPTION: request_id, "x": 1}, "notifications": {}},
            {"_meta": {SUBSCRIPTION: request_id}, "uri": str(request_id)},
        ]
    assert calls.outcomes == {"1": Result({"resultType": "complete", "_meta": {SUBSCRIPTION: 1, "y": 2}})}
    assert upstream.mux.unclaimed == 1

    calls.scopes["l1"].cancel()


async def test_a_listener_ends_when_the_gateway_drains_and_the_upstream_is_told(upstream, nursery):
    """The client gets the graceful end the protocol has for it; the upstream a cancel notice."""
    exchange = memory_exchange("subscriptions/listen", request_id="l")
    calls = Calls(nursery, upstream)
    calls.start("a", exchange)
    request = await upstream.next()
    exchange.draining.set()

    assert (await upstream.next())["params"] == {"requestId": request["id"]}
    assert calls.outcomes == {"a": Result({"resultType": "complete", "_meta": {SUBSCRIPTION: "l"}})}


async def test_the_upstream_ends_a_subscription_with_a_cancel_notice(upstream, nursery):
    """2026-07-28 on stdio; it cannot cancel anything else that way."""
    calls = Calls(nursery, upstream)
    calls.start("listen", memory_exchange("subscriptions/listen", request_id="l"))
    listen = await upstream.next()
    calls.start("call", memory_exchange())
    call = await upstream.next()
    upstream.notify("notifications/cancelled", requestId=call["id"])
    upstream.notify("notifications/cancelled", requestId=True)  # not 1, although Python says so

    assert await upstream.quiet() == []
    assert calls.outcomes == {}

    upstream.notify("notifications/cancelled", requestId=listen["id"])

    assert await upstream.quiet() == []
    assert calls.outcomes == {"listen": Result({"resultType": "complete", "_meta": {SUBSCRIPTION: "l"}})}

    upstream.reply(call, {})
    await trio.testing.wait_all_tasks_blocked()


async def test_a_client_that_reads_slowly_fails_alone(upstream, nursery):
    """The reader never waits: the inbox fills, that exchange ends, the other one is served."""
    calls = Calls(nursery, upstream)
    slow = memory_exchange("subscriptions/listen")

    async def stuck(notification: Notification) -> None:
        await trio.sleep_forever()

    slow.link.emit = stuck
    calls.start("slow", slow)
    listen = await upstream.next()
    calls.start("fast", memory_exchange())
    request = await upstream.next()
    upstream.notify("notifications/tools/list_changed", _meta={SUBSCRIPTION: listen["id"]})
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(70):
        upstream.notify("notifications/tools/list_changed", _meta={SUBSCRIPTION: listen["id"]})
    upstream.reply(request, {})
    await trio.testing.wait_all_tasks_blocked()

    assert calls.outcomes == {"fast": Result({})}

    calls.scopes["slow"].cancel()

    assert (await upstream.next())["params"] == {"requestId": listen["id"]}


async def test_the_inbox_of_a_client_that_never_reads_ends_its_exchange(upstream, nursery):
    """SlowConsumer says what happened, and the upstream is told to stop."""
    calls = Calls(nursery, upstream)
    calls.start("a", memory_exchange("subscriptions/listen"))
    listen = await upstream.next()
    for number in range(257):
        uri = f"a:{number}"
        upstream.notify("notifications/resources/updated", uri=uri, _meta={SUBSCRIPTION: listen["id"]})

    assert (await upstream.next())["params"] == {"requestId": listen["id"]}
    assert isinstance(calls.outcomes["a"], SlowConsumer)


async def test_garbage_fails_the_exchange_it_was_for_and_is_counted(upstream, nursery):
    """A reply that is no message but carries an id ends that exchange; the others wait on."""
    calls = Calls(nursery, upstream)
    calls.start("a", memory_exchange())
    first = await upstream.next()
    calls.start("b", memory_exchange())
    second = await upstream.next()
    error = UpstreamProtocolError("its result is not an object")
    error.request_id = first["id"]
    upstream.mux.receive(error)
    upstream.mux.receive(UpstreamProtocolError("noise"))
    upstream.mux.receive(MessageTooLarge("the message is larger than max_message_size"))
    upstream.reply(second, {})
    await trio.testing.wait_all_tasks_blocked()

    assert isinstance(calls.outcomes["a"], UpstreamProtocolError)
    assert str(calls.outcomes["a"]) == "files: its result is not an object"
    assert calls.outcomes["b"] == Result({})
    assert upstream.mux.noise == 3


async def test_a_notification_whose_body_is_ambiguous_is_garbage(upstream):
    """Which key counts, parsers disagree about; so nobody gets it, and the reader goes on."""
    upstream.mux.receive(decode_upstream(b'{"jsonrpc":"2.0","method":"x","params":{"a":1,"a":2}}'))
    upstream.say(id=1, method="ping")

    assert (await upstream.next())["id"] == 1
    assert upstream.mux.noise == 1


async def test_an_answer_that_is_too_long_fails_the_only_exchange(upstream, nursery):
    """With one request in flight there is no doubt whose it was, whoever listens besides."""
    calls = Calls(nursery, upstream)
    calls.start("listen", memory_exchange("subscriptions/listen"))
    calls.start("a", memory_exchange(client=MODERN_CLIENT))
    await trio.testing.wait_all_tasks_blocked()
    upstream.mux.receive(MessageTooLarge("the message is larger than 1024 bytes"))
    await trio.testing.wait_all_tasks_blocked()

    assert isinstance(calls.outcomes["a"], UpstreamProtocolError)
    assert list(calls.outcomes) == ["a"]

    calls.scopes["listen"].cancel()


async def test_a_request_that_a_stage_made_is_sent_as_it_says(upstream, nursery):
    """Without received bytes the params count."""
    calls = Calls(nursery, upstream)
    calls.start("a", memory_exchange().with_request(Request(9, "tools/call", {"name": "renamed"})))

    assert (await upstream.next())["params"] == {"name": "renamed"}

    calls.scopes["a"].cancel()


async def test_every_notification_is_announced_whoever_it_is_for(autojump_clock: trio.testing.MockClock) -> None:
    """Caches learn of changes that no client of this connection can be told of."""
    upstream = Upstream()
    upstream.notify("notifications/tools/list_changed")
    upstream.notify("notifications/resources/updated", uri="a:b")

    assert ["notifications/tools/list_changed", "notifications/resources/updated"] == [
        each.method for each in upstream.announced
    ]
    assert upstream.mux.unclaimed == 2


async def test_a_question_without_a_request_goes_to_the_session_the_connection_belongs_to(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """The answer goes back under the upstream's id; what it takes back is not answered, nor what is open at the end."""
    asked: list[str] = []

    async def ask(method: str, params: object) -> Result:
        asked.append(method)
        if len(asked) > 1:
            await trio.sleep_forever()
        return Result({"roots": []})

    session = Session(id="s", source="t", ask=ask)
    async with connected(session=session) as upstream:
        upstream.nursery = nursery
        upstream.say(id="q", method="roots/list")
        assert await upstream.next() == {"jsonrpc": "2.0", "id": "q", "result": {"roots": []}}

        upstream.say(id="q2", method="roots/list")
        upstream.say(id="q3", method="roots/list")
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.mux.questions == 2
        upstream.notify("notifications/cancelled", requestId="q2")
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.mux.questions == 1
        upstream.mux.close(lambda: UpstreamClosed("over"))
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.mux.questions == 0
        assert await upstream.quiet() == []
        assert upstream.mux.unclaimed == 0


async def test_only_a_call_that_is_alone_is_written_at_once(nursery):
    """Others are joined; who only listens is no company."""
    async with connected() as upstream:
        calls = Calls(nursery, upstream)
        calls.start("listener", memory_exchange("subscriptions/listen", {"notifications": {}}))
        listener = await upstream.next()
        calls.start("first", memory_exchange())
        first = await upstream.next()
        calls.start("second", memory_exchange())
        second = await upstream.next()
        for call in (first, second):
            upstream.reply(call, {})
        await trio.testing.wait_all_tasks_blocked()
        calls.start("third", memory_exchange())
        third = await upstream.next()

        assert [json.loads(line)["id"] for line in upstream.at_once] == [
            each["id"] for each in (listener, first, third)
        ]
        for call in (third, listener):
            upstream.reply(call, {})


async def test_a_call_that_is_cancelled_before_it_begins_sends_nothing():
    """Neither the request nor a notice that takes it back."""
    async with connected() as upstream:
        with trio.CancelScope() as scope:
            scope.cancel()
            await upstream.mux.call(memory_exchange())

        assert scope.cancelled_caught
        assert await upstream.quiet() == []
