"""The gateway as a server that a client starts: eras, ids, bounds, cancelling, the end."""

import json
import os
import random
from contextlib import asynccontextmanager
from functools import partial

import pytest
import structlog.testing
import trio
import trio.testing

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.document import Limits
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Result
from sluiceway.pipeline.runtime.chain import compile_chain
from sluiceway.pipeline.runtime.deadlines import Deadlines
from sluiceway.pipeline.runtime.pipeline import Pipeline
from sluiceway.pipeline.testing import FakeSink
from sluiceway.transports.standard_streams import standard_streams
from sluiceway.transports.stdio_source import StdioSource, StdioSourceConfig

MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"roots": {}},
}
INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"sampling": {}},
    "clientInfo": {"name": "c", "version": "1"},
}


class Client:
    """The other end of the gateway's standard streams."""

    def __init__(self, stream: trio.StapledStream, pipeline: Pipeline, source: StdioSource) -> None:
        self.pipeline = pipeline
        self.source = source
        self.stream = stream
        self.ended = trio.Event()
        self._rest = b""
        self._lines: list[bytes] = []

    async def write(self, *lines: bytes) -> None:
        """Write raw lines."""
        await self.stream.send_all(b"".join(line + b"\n" for line in lines))

    async def send(self, **message: object) -> None:
        """Write one message."""
        await self.write(json.dumps({"jsonrpc": "2.0", **message}).encode())

    async def next(self) -> dict:
        """Read one message."""
        while not self._lines:
            data = await self.stream.receive_some()
            assert data, "the gateway hung up"
            *self._lines, self._rest = (self._rest + data).split(b"\n")
        return json.loads(self._lines.pop(0))

    async def call(self, method: str, request_id: object = 1, **params: object) -> dict:
        """Send a request and read the next message."""
        await self.send(id=request_id, method=method, params=params)
        return await self.next()

    async def call_modern(self, method: str = "tools/call", request_id: object = 1, **params: object) -> dict:
        """A request of 2026-07-28."""
        return await self.call(method, request_id, **{"name": "x", "_meta": MODERN, **params})

    async def initialize(self) -> None:
        """Make the handshake."""
        reply = await self.call("initialize", "init", **INITIALIZE)
        assert "result" in reply
        await self.send(method="notifications/initialized")

    async def quiet(self) -> None:
        """Check that the gateway has nothing more to say."""
        await trio.testing.wait_all_tasks_blocked()
        await self.send(id="last", method="ping")
        assert (await self.next())["id"] == "last"


@asynccontextmanager
async def serving(sink, *, limits: Limits | None = None, **options: object):
    """A client of a stdio source in front of a sink."""
    ours, theirs = trio.testing.memory_stream_pair()
    deadlines = Deadlines()
    pipeline = Pipeline("main", compile_chain([], sink), limits or Limits(), deadlines)
    source = StdioSource(StdioSourceConfig(**options), Context(id="editor"), reader=theirs, writer=theirs)
    client = Client(ours, pipeline, source)

    async def serve() -> None:
        await source.serve(pipeline.handle)
        client.ended.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deadlines.serve)
            nursery.start_soon(serve)
            yield client
            nursery.cancel_scope.cancel()


async def answer(exchange: Exchange) -> Reply:
    """A sink that shakes hands, and tells who asked."""
    if exchange.method == "initialize":
        return Result({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}})
    client = exchange.client
    session = client.session
    return Result(
        {
            "method": exchange.method,
            "params": dict(exchange.request.params),
            "era": client.era.value,
            "version": client.version,
            "capabilities": client.capabilities,
            "transport": client.transport,
            "session": session is not None,
        }
    )


async def test_a_modern_request_is_answered_with_its_own_id():
    """Everything about the client comes from its metadata; ids keep their type."""
    async with serving(answer) as client:
        for request_id in (1, "1", -5, ""):
            reply = await client.call_modern(request_id=request_id)

            assert (reply["id"], type(reply["id"])) == (request_id, type(request_id))
        assert reply["result"] == {
            "method": "tools/call",
            "params": {"name": "x", "_meta": MODERN},
            "era": "modern",
            "version": "2026-07-28",
            "capabilities": {"roots": {}},
            "transport": "stdio",
            "session": False,
        }


async def test_its_one_client_is_counted_while_it_is_there():
    """`mcp_active_connections` is 1, and 0 before and after."""
    async with serving(answer) as client:
        await client.call_modern()
        (during,) = client.source.figures()
    (after,) = client.source.figures()

    assert [(each.name, each.value) for each in (during, after)] == [
        ("mcp_active_connections", 1),
        ("mcp_active_connections", 0),
    ]


async def test_a_legacy_client_is_known_after_its_handshake():
    """Version from the result, capabilities from the request, one session for the connection."""
    sink = FakeSink(answer)
    async with serving(sink) as client:
        await client.initialize()
        reply = await client.call("tools/call", name="x")

        result = reply["result"]
        assert [result[key] for key in ("era", "version", "capabilities", "transport", "session")] == [
            "legacy",
            "2025-11-25",
            {"sampling": {}},
            "stdio",
            True,
        ]
    assert [exchange.method for exchange in sink.exchanges] == ["initialize", "notifications/initialized", "tools/call"]
    assert len({exchange.client.session for exchange in sink.exchanges}) == 1
    session = sink.exchanges[0].client.session
    assert session is not None
    assert (session.source, session.info, session.closed) == ("editor", {"name": "c", "version": "1"}, True)


async def test_both_eras_can_be_spoken_on_one_connection():
    """A probe with `server/discover` does not decide what comes next."""
    async with serving(answer) as client:
        assert (await client.call_modern("server/discover"))["result"]["era"] == "modern"
        await client.initialize()
        assert (await client.call("tools/list"))["result"]["era"] == "legacy"
        assert (await client.call_modern("tools/list"))["result"]["session"] is False


@pytest.mark.parametrize(
    ("method", "meta", "code"),
    [
        ("tools/list", {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}, -32602),
        ("tools/list", {"io.modelcontextprotocol/clientCapabilities": {}}, -32602),
        ("tools/list", {**MODERN, "io.modelcontextprotocol/clientCapabilities": []}, -32602),
        ("tools/list", {**MODERN, "io.modelcontextprotocol/protocolVersion": 5}, -32602),
        ("server/discover", {}, -32602),
        ("tools/list", {**MODERN, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}, -32022),
        ("tools/list", {**MODERN, "io.modelcontextprotocol/protocolVersion": "2025-11-25"}, -32022),
        ("initialize", MODERN, -32601),
        ("ping", MODERN, -32601),
        ("logging/setLevel", MODERN, -32601),
        ("tools/list", {}, -32600),
    ],
)
async def test_requests_with_wrong_metadata_are_refused(method, meta, code):
    """Each with the code the revision has for it, and they reach no chain."""
    sink = FakeSink.echo()
    async with serving(sink) as client:
        reply = await client.call(method, "id", _meta=meta)

        assert (reply["id"], reply["error"]["code"]) == ("id", code)
        assert sink.exchanges == []


async def test_an_unsupported_version_is_answered_with_the_supported_ones():
    """The client can choose again."""
    async with serving(answer) as client:
        meta = {**MODERN, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}
        data = (await client.call_modern(_meta=meta))["error"]["data"]

        assert (data["supported"], data["requested"]) == (["2026-07-28"], "2099-01-01")


@pytest.mark.parametrize(
    ("line", "code", "request_id"),
    [
        (b"not json", -32700, None),
        (b'{"jsonrpc": "2.0", "id": 7, "method": 5}', -32600, 7),
        (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}', -32600, None),
        (b'{"jsonrpc": "2.0", "id": 7, "method": "ping", "params": {"a": 1, "a": 2}}', -32600, None),
        (b'[{"jsonrpc": "2.0", "id": 7, "method": "ping"}]', -32600, None),
        (b'{"jsonrpc": "2.0", "id": 7, "method": "ping", "params": "' + b"x" * 2000 + b'"}', 41300, None),
    ],
)
async def test_lines_that_are_no_message_are_answered_and_the_connection_goes_on(line, code, request_id):
    """With the id where it could be read, and null where not."""
    async with serving(answer, max_message=1024) as client:
        await client.write(line)
        reply = await client.next()

        assert (reply["id"], reply["error"]["code"]) == (request_id, code)
        assert (await client.call_modern())["result"]["method"] == "tools/call"


async def test_ping_is_welcome_before_the_handshake():
    """It needs no session (2025-11-25, basic/lifecycle)."""
    async with serving(answer) as client:
        assert (await client.call("ping"))["result"]["session"] is False


async def test_a_refused_handshake_leaves_no_session():
    """The client may try again."""
    sink = FakeSink.script([ErrorReply(-32602, "unsupported"), {"protocolVersion": "2025-06-18"}, {}])
    async with serving(sink) as client:
        assert (await client.call("initialize", **INITIALIZE))["error"]["message"] == "unsupported"
        assert (await client.call("tools/list"))["error"]["code"] == -32600
        assert (await client.call("initialize", **INITIALIZE))["result"] == {"protocolVersion": "2025-06-18"}
        assert (await client.call("tools/list"))["result"] == {}
        first, second = (exchange.client.session for exchange in sink.exchanges[:2])

        assert first is not None
        assert second is not None
        assert (first.closed, second.closed, second.version) == (True, False, "2025-06-18")


async def test_a_second_handshake_ends_the_first_session():
    """A connection has one."""
    sink = FakeSink(answer)
    async with serving(sink) as client:
        await client.initialize()
        await client.initialize()
        first, second = (e.client.session for e in sink.exchanges if e.method == "initialize")

        assert first is not None
        assert second is not None
        assert (first.closed, second.closed) == (True, False)


async def test_a_handshake_that_fails_late_does_not_end_the_next_session():
    """The second `initialize` has replaced the first by then."""
    sink = FakeSink()
    async with serving(sink) as client:
        await client.send(id=1, method="initialize", params=INITIALIZE)
        first = await sink.next()
        await client.send(id=2, method="initialize", params=INITIALIZE)
        second = await sink.next()
        await second.reply({"protocolVersion": "2025-11-25"})
        assert (await client.next())["id"] == 2
        await first.reply(ErrorReply(-1, "too late"))
        assert (await client.next())["id"] == 1
        await client.send(id=3, method="tools/list")
        await (await sink.next()).reply({})

        assert (await client.next())["result"] == {}


async def test_a_session_whose_server_died_has_to_be_opened_anew():
    """Requests of the old one are answered SessionNotFound, its notifications are dropped."""
    sink = FakeSink(answer)
    async with serving(sink) as client:
        await client.initialize()
        await client.quiet()
        session = sink.exchanges[0].client.session
        assert session is not None
        session.close()

        assert (await client.call("tools/list"))["error"]["data"]["reason"] == "session_not_found"

        count = len(sink.exchanges)
        await client.send(method="notifications/roots/list_changed")
        await client.initialize()
        await client.quiet()

        assert [e.method for e in sink.exchanges[count:]] == ["initialize", "notifications/initialized", "ping"]


async def test_a_request_waits_for_the_notifications_before_it():
    """`initialized` is through before the first call starts, however long a stage holds it."""
    sink = FakeSink()
    async with serving(sink) as client:
        await client.send(id=1, method="initialize", params=INITIALIZE)
        await (await sink.next()).reply({"protocolVersion": "2025-11-25"})
        await client.next()
        await client.send(method="notifications/initialized")
        await client.send(method="notifications/roots/list_changed")
        await client.send(id=2, method="tools/list")
        await trio.testing.wait_all_tasks_blocked()

        for method in ("notifications/initialized", "notifications/roots/list_changed", "tools/list"):
            held = await sink.next()

            assert held.method == method
            assert sink.exchanges[-1].method == method

            await held.reply({})
        assert (await client.next())["id"] == 2


async def test_notifications_without_a_sender_are_dropped():
    """Before a handshake, or claiming a revision we do not speak, they mean nothing to anybody."""
    sink = FakeSink.echo()
    async with serving(sink) as client:
        await client.send(method="notifications/initialized")
        meta = {"io.modelcontextprotocol/protocolVersion": "2099-01-01"}
        await client.send(method="notifications/x", params={"_meta": meta})
        await client.send(method="notifications/x", params={"_meta": MODERN})
        await client.call_modern()

        assert [e.method for e in sink.exchanges] == ["notifications/x", "tools/call"]
        assert sink.exchanges[0].client.era == "modern"


async def test_notifications_over_the_bound_are_dropped():
    """Nobody waits for them, and they must not pile up."""
    sink = FakeSink()
    async with serving(sink, max_in_flight=2) as client:
        for number in range(4):
            await client.send(method="notifications/x", params={"n": number, "_meta": MODERN})
        await trio.testing.wait_all_tasks_blocked()
        numbers = []
        for _ in range(2):
            held = await sink.next()
            numbers.append(held.params["n"])
            await held.reply({})
            await trio.testing.wait_all_tasks_blocked()

        assert numbers == [0, 1]
        assert len(sink.exchanges) == 2


async def test_notifications_of_an_exchange_come_before_its_reply():
    """In their order, with their bodies."""
    steps = [Notification("notifications/progress", {"progressToken": 1, "progress": n}) for n in range(3)]
    async with serving(FakeSink.script([[*steps, {"done": True}]])) as client:
        await client.send(id=1, method="tools/call", params={"name": "x", "_meta": MODERN})
        messages = [await client.next() for _ in range(4)]

        assert [m.get("params", {}).get("progress") for m in messages] == [0, 1, 2, None]
        assert messages[-1]["result"] == {"done": True}


async def test_a_question_reaches_the_client_and_its_answer_comes_back():
    """Also twice at once; an answer nobody waits for is dropped."""

    async def sink(exchange: Exchange) -> Reply:
        if exchange.method != "tools/call":
            return await answer(exchange)
        replies: list[Reply] = []

        async def ask() -> None:
            replies.append(await exchange.ask("roots/list", {"n": 1}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        return Result({"answers": sorted(r.value["n"] for r in replies if isinstance(r, Result))})

    async with serving(sink) as client:
        await client.initialize()
        await client.send(id=1, method="tools/call", params={"name": "x"})
        questions = [await client.next(), await client.next()]
        await client.send(id="unknown", result={})
        for number, question in enumerate(questions):
            assert (question["method"], question["params"]) == ("roots/list", {"n": 1})
            await client.send(id=question["id"], result={"n": number})

        assert (await client.next())["result"] == {"answers": [0, 1]}


async def test_a_modern_client_and_a_handshake_cannot_be_asked():
    """There is no way to: servers do not initiate requests any more, and nobody is known before the handshake."""

    async def sink(exchange: Exchange) -> Reply:
        reply = await exchange.ask("roots/list", {})
        assert isinstance(reply, ErrorReply)
        return Result({"code": reply.code, "protocolVersion": "2025-11-25"})

    async with serving(sink) as client:
        assert (await client.call_modern())["result"]["code"] == -32601
        assert (await client.call("initialize", **INITIALIZE))["result"]["code"] == -32601


async def test_what_no_request_caused_reaches_the_client():
    """A session's notices go out on the connection; nothing happens once it is closed."""
    sink = FakeSink(answer)
    async with serving(sink) as client:
        await client.initialize()
        await client.quiet()
        session = sink.exchanges[0].client.session
        assert session is not None
        session.notify(Notification("notifications/tools/list_changed"))

        assert (await client.next())["method"] == "notifications/tools/list_changed"

    session.notify(Notification("notifications/tools/list_changed"))


async def test_what_a_notification_causes_reaches_the_client():
    """It has no reply to come before, so it comes like a notice."""

    async def sink(exchange: Exchange) -> Reply:
        if isinstance(exchange.request, Notification):
            await exchange.relay(Notification("notifications/message", {"data": exchange.method}))
        return await answer(exchange)

    async with serving(sink) as client:
        await client.initialize()

        assert (await client.next())["params"] == {"data": "notifications/initialized"}


async def test_a_cancelled_request_gets_no_answer():
    """Neither a reply nor an error (2025-11-25, basic/utilities/cancellation); its id is free again."""
    sink = FakeSink()
    async with serving(sink) as client:
        await client.send(id=1, method="tools/call", params={"name": "x", "_meta": MODERN})
        await sink.next()
        for request_id in (True, "1", None, 99, 1, 1):
            await client.send(method="notifications/cancelled", params={"requestId": request_id})
        await client.send(id=1, method="tools/call", params={"name": "y", "_meta": MODERN})
        await (await sink.next()).reply({"second": True})

        assert (await client.next())["result"] == {"second": True}
        assert client.pipeline.cancelled == 1


async def test_a_request_can_be_cancelled_before_it_starts():
    """While it waits behind a notification; it gets no answer either."""
    sink = FakeSink()
    async with serving(sink) as client:
        await client.send(method="notifications/x", params={"_meta": MODERN})
        notification = await sink.next()
        await client.send(id=1, method="tools/call", params={"name": "x", "_meta": MODERN})
        await client.send(method="notifications/cancelled", params={"requestId": 1})
        await trio.testing.wait_all_tasks_blocked()
        await notification.reply({})
        await trio.testing.wait_all_tasks_blocked()

        assert client.pipeline.cancelled == 1
        assert client.pipeline.status()["in_flight"] == 0


async def test_a_handshake_cannot_be_cancelled():
    """MCP forbids it; the answer comes."""
    sink = FakeSink()
    async with serving(sink) as client:
        await client.send(id=1, method="initialize", params=INITIALIZE)
        held = await sink.next()
        await client.send(method="notifications/cancelled", params={"requestId": 1})
        await trio.testing.wait_all_tasks_blocked()
        await held.reply({"protocolVersion": "2025-11-25"})

        assert (await client.next())["id"] == 1


async def test_an_id_in_use_is_refused_and_does_not_disturb_its_owner():
    """Two requests with one id could not be told apart by their answers."""
    sink = FakeSink()
    async with serving(sink) as client:
        await client.send(id=1, method="tools/call", params={"name": "x", "_meta": MODERN})
        held = await sink.next()
        reply = await client.call_modern()

        assert (reply["id"], reply["error"]["code"]) == (1, -32600)

        await held.reply({"first": True})

        assert (await client.next())["result"] == {"first": True}


async def test_over_max_in_flight_the_request_is_refused_and_the_reader_goes_on():
    """Cancel notices are still seen behind it."""
    sink = FakeSink()
    async with serving(sink, max_in_flight=1) as client:
        await client.send(id=1, method="tools/call", params={"name": "x", "_meta": MODERN})
        await sink.next()
        reply = await client.call_modern(request_id=2)

        assert (reply["id"], reply["error"]["data"]["reason"]) == (2, "capacity_exceeded")

        await client.send(method="notifications/cancelled", params={"requestId": 1})
        await client.send(id=3, method="tools/call", params={"name": "x", "_meta": MODERN})
        await trio.testing.wait_all_tasks_blocked()

        assert client.pipeline.cancelled == 1


async def test_a_client_that_reads_nothing_holds_up_its_own_exchanges_only_so_far():
    """Relays wait, requests are refused, and one that goes on regardless is cut off."""

    async def sink(exchange: Exchange) -> Reply:
        while True:
            await exchange.relay(Notification("notifications/message", {"data": "x" * 500}))

    ours, theirs = trio.testing.memory_stream_pair()
    blocked = trio.testing.MemorySendStream(send_all_hook=trio.sleep_forever)
    deadlines = Deadlines()
    pipeline = Pipeline("main", compile_chain([], sink), Limits(), deadlines)
    source = StdioSource(
        StdioSourceConfig(max_in_flight=1, max_unread=2048), Context(id="editor"), reader=theirs, writer=blocked
    )
    with structlog.testing.capture_logs() as logs, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deadlines.serve)

            async def serve() -> None:
                await source.serve(pipeline.handle)
                nursery.cancel_scope.cancel()

            nursery.start_soon(serve)
            message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"_meta": MODERN}})
            for _ in range(30):
                await ours.send_all(message.encode() + b"\n")
                await trio.testing.wait_all_tasks_blocked()
            await trio.sleep_forever()

    assert [entry["log_level"] for entry in logs if entry["event"].startswith("client cut off")] == ["warning"]


async def test_when_the_client_hangs_up_its_requests_are_cancelled_and_serve_returns():
    """Its session ends, and nothing more is written."""
    sink = FakeSink(answer)
    cancelled = trio.Event()

    async def hang(exchange: Exchange) -> Reply:
        if exchange.method == "tools/call":
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()
        return await sink(exchange)

    async with serving(hang) as client:
        await client.initialize()
        await client.send(id=1, method="tools/call", params={"name": "x"})
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.send_stream.aclose()
        await client.ended.wait()

        assert cancelled.is_set()
        session = sink.exchanges[0].client.session
        assert session is not None
        assert session.closed
        assert client.pipeline.status()["in_flight"] == 0


async def test_a_last_line_without_a_line_end_is_served():
    """And what is answered before the client hangs up is written out."""
    async with serving(answer) as client:
        await client.stream.send_all(b'{"jsonrpc":"2.0","id":1,"method":"nope"}')
        await client.stream.send_stream.aclose()

        assert (await client.next())["error"]["code"] == -32600


async def test_a_client_that_stops_reading_and_hangs_up_does_not_hold_up_the_end(autojump_clock):
    """What it did not read is thrown away after a second."""
    ours, theirs = trio.testing.memory_stream_one_way_pair()
    blocked = trio.testing.MemorySendStream(send_all_hook=trio.sleep_forever)
    source = StdioSource(StdioSourceConfig(), Context(id="editor"), reader=theirs, writer=blocked)
    await ours.send_all(b"garbage\n")
    await ours.aclose()
    pipeline = Pipeline("main", compile_chain([], answer), Limits(), Deadlines())
    await source.serve(pipeline.handle)

    assert trio.current_time() == pytest.approx(1.0)


async def broken() -> None:
    """What a stream does whose other end is gone."""
    raise trio.BrokenResourceError


async def test_a_broken_input_is_a_client_that_is_gone():
    """As if it had hung up."""
    reader = trio.testing.MemoryReceiveStream(receive_some_hook=broken)
    source = StdioSource(
        StdioSourceConfig(), Context(id="editor"), reader=reader, writer=trio.testing.MemorySendStream()
    )
    pipeline = Pipeline("main", compile_chain([], answer), Limits(), Deadlines())
    with trio.fail_after(10):
        await source.serve(pipeline.handle)


async def test_a_broken_output_is_a_client_that_is_gone():
    """What is in flight is cancelled, an open question included, and nothing of that counts as a failure."""

    async def ask(exchange: Exchange) -> Reply:
        return await (exchange.ask("roots/list", {}) if exchange.method == "tools/call" else answer(exchange))

    with structlog.testing.capture_logs() as logs:
        async with serving(ask) as client:
            await client.initialize()
            await client.call("tools/call", name="x")
            writer = client.source._writer
            assert isinstance(writer, trio.StapledStream)
            assert isinstance(writer.send_stream, trio.testing.MemorySendStream)
            writer.send_stream.send_all_hook = broken
            await client.send(id=2, method="ping")
            await client.ended.wait()

    assert [entry["event"] for entry in logs] == ["the client is gone"]


async def test_without_streams_of_its_own_it_uses_ours(monkeypatch):
    """Standard input and output, for as long as it serves."""
    ours_in, client_out = os.pipe()
    client_in, ours_out = os.pipe()
    null = os.open(os.devnull, os.O_WRONLY)
    monkeypatch.setattr(
        "sluiceway.transports.stdio_source.standard_streams", partial(standard_streams, ours_in, ours_out, null)
    )
    pipeline = Pipeline("main", compile_chain([], answer), Limits(), Deadlines())
    source = StdioSource(StdioSourceConfig(), Context(id="editor"))
    stream = trio.StapledStream(trio.lowlevel.FdStream(client_out), trio.lowlevel.FdStream(client_in))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(source.serve, pipeline.handle)

            assert (await Client(stream, pipeline, source).call_modern())["result"]["era"] == "modern"

            await stream.aclose()
    for fd in (ours_in, ours_out, null):
        os.close(fd)


async def test_while_draining_new_requests_are_refused_and_old_ones_finish():
    """Whether the drain began before or during serving."""
    sink = FakeSink()
    async with serving(sink) as client:
        await client.send(id=1, method="tools/call", params={"name": "x", "_meta": MODERN})
        held = await sink.next()
        client.source.stop_accepting()

        assert (await client.call_modern(request_id=2))["error"]["data"]["reason"] == "draining"

        await held.reply({"done": True})

        assert (await client.next())["result"] == {"done": True}


async def test_a_source_told_to_stop_before_it_serves_takes_nothing():
    """The order does not matter."""
    ours, theirs = trio.testing.memory_stream_pair()
    pipeline = Pipeline("main", compile_chain([], answer), Limits(), Deadlines())
    source = StdioSource(StdioSourceConfig(), Context(id="editor"), reader=theirs, writer=theirs)
    source.stop_accepting()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.serve, pipeline.handle)
        client = Client(ours, pipeline, source)

        assert (await client.call_modern())["error"]["data"]["reason"] == "draining"

        nursery.cancel_scope.cancel()


async def test_a_deadline_is_answered(autojump_clock):
    """The pipeline's error reaches the client like any reply."""
    async with serving(FakeSink.slow(100), limits=Limits(timeout=2.0)) as client:
        reply = await client.call_modern()

        assert reply["error"]["data"]["reason"] == "deadline_exceeded"


async def test_a_reply_that_json_cannot_say_becomes_an_internal_error():
    """A sink's mistake costs one exchange, and its traceback is in the log."""

    async def sink(exchange: Exchange) -> Reply:
        return Result({"bad": object()})

    with structlog.testing.capture_logs() as logs:
        async with serving(sink) as client:
            reply = await client.call_modern()

            assert reply["error"]["code"] == -32603
            assert reply["error"]["data"]["incident"] == logs[0]["incident"]


async def test_a_thousand_requests_cancelled_at_random_points_leave_nothing():
    """Tables are empty, and the connection still works."""
    rng = random.Random(3)

    async def sink(exchange: Exchange) -> Reply:
        for _ in range(rng.randrange(4)):
            await exchange.relay(Notification("notifications/message", {"data": 1}))
            await trio.lowlevel.checkpoint()
        return await answer(exchange)

    async with serving(sink, max_in_flight=50) as client:
        for start in range(0, 1000, 20):
            lines = []
            for number in range(start, start + 20):
                request = {"id": number, "method": "tools/call", "params": {"name": "", "_meta": MODERN}}
                cancel = {"method": "notifications/cancelled", "params": {"requestId": number}}
                lines += [request] if rng.random() < 0.3 else [request, cancel]
            await client.write(*(json.dumps({"jsonrpc": "2.0", **line}).encode() for line in lines))
        while (await client.call_modern(request_id="end")).get("id") != "end":
            pass
        await trio.testing.wait_all_tasks_blocked()

        assert client.pipeline.status()["in_flight"] == 0


async def test_a_client_that_sends_a_lot_of_short_lines_leaves_others_their_turn():
    """Tens of thousands of them come in one read, and each takes its time."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with serving(answer) as client, trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await client.write(*[b'{"jsonrpc":"2.0","method":"x"}'] * 1000)
        await client.call("ping")
        nursery.cancel_scope.cancel()

    assert turns > 60
