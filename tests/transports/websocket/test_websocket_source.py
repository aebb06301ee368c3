"""
WebSockets on real sockets: who may come, eras, ids, bounds, cancelling, questions, the end.

Both sources that serve them, `websocket` on a listener of its own and `http` beside HTTP, do it alike.
"""

import json
import stat
from collections import deque
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from trio_websocket import ConnectionClosed, connect_websocket_url

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.document import Limits
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import Unauthenticated
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Result
from sluiceway.pipeline.runtime.chain import compile_chain
from sluiceway.pipeline.runtime.deadlines import Deadlines
from sluiceway.pipeline.runtime.pipeline import Pipeline
from sluiceway.pipeline.testing import check_source
from sluiceway.transports.http_source.config import HttpConfig
from sluiceway.transports.http_source.source import HttpSource
from sluiceway.transports.server_tls import ServerTlsConfig
from sluiceway.transports.websocket.config import WebSocketConfig
from sluiceway.transports.websocket_source import WebSocketSource, WebSocketSourceConfig


class Held:
    """One request that waits in a sink."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.cancelled = trio.Event()
        self.answered = trio.Event()
        self.result: dict[str, object] = {}

    def reply(self, result: dict[str, object]) -> None:
        """Answer it."""
        self.result = result
        self.answered.set()


class HoldingSink:
    """A sink in which every request waits for what the test says."""

    def __init__(self) -> None:
        self._came: deque[Held] = deque()
        self._news = trio.Event()

    async def __call__(self, exchange: Exchange) -> Reply:
        held = Held(exchange)
        self._came.append(held)
        self._news.set()
        try:
            await held.answered.wait()
        finally:
            if not held.answered.is_set():
                held.cancelled.set()
        return Result(held.result)

    async def next(self) -> Held:
        """The next request."""
        while not self._came:
            self._news = trio.Event()
            await self._news.wait()
        return self._came.popleft()


class Serving:
    """A source in front of a sink."""

    def __init__(self, source: WebSocketSource | HttpSource, pipeline: Pipeline) -> None:
        self.source = source
        self.pipeline = pipeline

    @property
    def url(self) -> str:
        """Where it is."""
        return self.source.urls[0].replace("http", "ws", 1)

    async def connected(self, count: int) -> None:
        """Wait until it has so many connections."""
        while self.connections != count:  # noqa: ASYNC110  # clients leave behind sockets
            await trio.sleep(0.005)

    @property
    def connections(self) -> int:
        """How many it has, by its own figures."""
        return int(next(iter(self.source.figures())).value)


def alone(options: dict[str, Any]) -> WebSocketSource:
    """A source with a listener of its own."""
    return WebSocketSource(WebSocketSourceConfig(**{"bind": "127.0.0.1:0", **options}), Context(id="ws"))


def beside_http(options: dict[str, Any]) -> HttpSource:
    """A source that serves HTTP as well."""
    of_clients = {field.name for field in attrs.fields(WebSocketConfig)} - {"path"}
    websocket = WebSocketConfig(**{name: value for name, value in options.items() if name in of_clients})
    rest = {name: value for name, value in options.items() if name not in of_clients}
    return HttpSource(HttpConfig(**{"bind": "127.0.0.1:0", "websocket": websocket, **rest}), Context(id="ws"))


@asynccontextmanager
async def run_source(make, sink, *, limits: Limits | None = None, identify=None, **options: object):
    """Run a source on a free port."""
    deadlines = Deadlines()
    pipeline = Pipeline("main", compile_chain([], sink), limits or Limits(), deadlines)
    source = make(options)
    if identify is not None:
        source.identify = identify
    with trio.fail_after(30):
        async with source.open(), trio.open_nursery() as nursery:
            nursery.start_soon(deadlines.serve)
            nursery.start_soon(source.serve, pipeline.handle)
            yield Serving(source, pipeline)
            nursery.cancel_scope.cancel()


@pytest.fixture(params=[alone, beside_http], ids=["alone", "beside_http"])
def serving(request):
    """Runs a source of each kind."""
    return partial(run_source, request.param)


async def tell(exchange: Exchange) -> Reply:
    """A sink that shakes hands, and tells who asked."""
    if exchange.method == "initialize":
        return Result({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}})
    client = exchange.client
    return Result(
        {
            "method": exchange.method,
            "params": dict(exchange.request.params),
            "era": client.era.value,
            "version": client.version,
            "capabilities": client.capabilities,
            "transport": client.transport,
            "address": client.address,
            "session": client.session is not None,
            "key": client.headers.get("x-api-key"),
        }
    )


async def test_a_modern_request_is_answered_with_its_own_id(serving, kit):
    """Everything about the client comes from its metadata, and its headers from the handshake; ids keep their type."""
    async with serving(tell) as source, kit.speaking(source.url, x_api_key="k") as client:
        for request_id in (1, "1", -5, ""):
            reply = await client.call_modern(request_id=request_id)

            assert (reply["id"], type(reply["id"])) == (request_id, type(request_id))
        assert client.socket.subprotocol == "mcp"
        assert reply["result"] == {
            "method": "tools/call",
            "params": {"name": "echo", "_meta": kit.MODERN},
            "era": "modern",
            "version": "2026-07-28",
            "capabilities": {"roots": {}},
            "transport": "websocket",
            "address": "127.0.0.1",
            "session": False,
            "key": "k",
        }


async def test_a_connection_is_a_legacy_session_from_its_handshake_to_its_end(serving, kit):
    """What `initialize` said holds for later requests, and modern ones stand on the same connection."""
    sessions = []

    async def watch(exchange: Exchange) -> Reply:
        if exchange.client.session is not None and exchange.client.session not in sessions:
            sessions.append(exchange.client.session)
        return await tell(exchange)

    async with serving(watch) as source:
        async with kit.speaking(source.url) as client:
            before = await client.call("tools/list", 0)
            await client.initialize()
            legacy = await client.call("tools/list", 1)
            modern = await client.call_modern(request_id=2)

            assert before["error"]["code"] == -32600
            assert (legacy["result"]["era"], legacy["result"]["version"]) == ("legacy", "2025-11-25")
            assert legacy["result"]["capabilities"] == kit.INITIALIZE["capabilities"]
            assert (modern["result"]["era"], modern["result"]["session"]) == ("modern", False)
            assert [session.closed for session in sessions] == [False]
        await source.connected(0)

        assert [session.closed for session in sessions] == [True]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 101),
        ({"origin": "http://localhost:3000"}, 101),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
async def test_pages_of_foreign_origins_are_refused_before_anything_is_accepted(serving, headers, status):
    """Only `Origin` tells a page of another site: 403 for it, and no exchange."""
    async with serving(tell) as source:
        answer = await upgrade(source, **headers)

    assert int(answer.split(b" ")[1]) == status


async def test_allowed_hosts_and_allowed_origins_admit_whom_they_name(serving, kit):
    """A name that is not listed is 421, an origin 403; listed ones are served."""
    hosts, origins = ("gateway.example",), ("https://app.example",)
    async with serving(tell, allowed_hosts=hosts, allowed_origins=origins) as source:
        good = await upgrade(source, host="gateway.example", origin="https://app.example")
        bad_host = await upgrade(source, host="rebound.example")
        bad_origin = await upgrade(source, origin="https://other.example")

    assert [each.split(b" ")[1] for each in (good, bad_host, bad_origin)] == [b"101", b"421", b"403"]


KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {
    "host": "localhost",
    "connection": "keep-alive, Upgrade",
    "upgrade": "WebSocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": KEY,
    "sec-websocket-protocol": "mcp",
}


async def upgrade(source: Serving, target: str = "/mcp", method: str = "GET", extra: str = "", **headers: str | None):
    """Send a request to open a WebSocket as raw bytes; the answer, up to what fits in one read."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in {**UPGRADE, **named}.items() if value is not None]
    head = "\r\n".join([f"{method} {target} HTTP/1.1", *lines]) + "\r\n" + extra + "\r\n"
    return await raw(source, head.encode())


def frame(message: bytes) -> bytes:
    """A text frame of a client, masked with zeros."""
    if len(message) < 126:
        return bytes([0x81, 0x80 | len(message)]) + bytes(4) + message
    return bytes([0x81, 0x80 | 126]) + len(message).to_bytes(2, "big") + bytes(4) + message


async def raw(source: Serving, data: bytes) -> bytes:
    """Send bytes; the first that comes back."""
    host, port = source.source.addresses[0].split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(data)
        return bytes(await stream.receive_some(65536))


@pytest.mark.parametrize(
    ("given", "status", "header"),
    [
        ({}, 101, b"sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        ({"sec_websocket_protocol": None}, 101, b""),
        ({"sec_websocket_protocol": "graphql-ws, mcp"}, 101, b"sec-websocket-protocol: mcp"),
        ({"sec_websocket_protocol": "graphql-ws"}, 400, b""),
        ({"sec_websocket_extensions": "permessage-deflate"}, 101, b""),
        ({"upgrade": None}, 426, b"upgrade: websocket"),
        ({"upgrade": "h2c"}, 426, b"upgrade: websocket"),
        ({"connection": "close"}, 426, b""),
        ({"sec_websocket_version": "8"}, 426, b"sec-websocket-version: 13"),
        ({"sec_websocket_key": "short"}, 400, b""),
        ({"sec_websocket_key": None}, 400, b""),
        ({"sec_websocket_key": "\u00e9"}, 400, b""),
        ({"host": None}, 400, b""),
        ({"host": "rebound.example"}, 421, b""),
        ({"content_length": "3"}, 400, b""),
        ({"transfer_encoding": "chunked"}, 400, b""),
        ({"extra": f"sec-websocket-key: {KEY}\r\n"}, 400, b""),
        ({"extra": "origin: http://localhost\r\norigin: https://evil.example\r\n"}, 400, b""),
        ({"target": "/"}, 404, b""),
        ({"target": "/mcp?access_token=x"}, 400, b"www-authenticate"),
        ({"target": "/../mcp"}, 400, b""),
        ({"method": "POST"}, 405, b"allow: get"),
        ({"extra": "x: a\r\n b\r\n"}, 400, b""),
    ],
)
async def test_a_request_to_open_a_websocket_must_be_in_order(given, status, header):
    """RFC 6455 section 4.2.1, and what the edge guard refuses. No extension is ever accepted."""
    async with run_source(alone, tell) as source:
        answer = await upgrade(source, **given)

    assert int(answer.split(b" ")[1]) == status
    assert header in answer.lower()
    assert b"sec-websocket-extensions" not in answer.lower()


async def test_what_comes_right_behind_the_request_is_not_lost(serving):
    """A client need not wait for the answer before it writes: the frame in the same segment is read."""
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
    async with serving(tell) as source:
        host, port = source.source.addresses[0].split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(f"GET /mcp HTTP/1.1\r\n{lines}\r\n".encode() + frame(message))
            heard = b""
            while b'"method":"ping"' not in heard:
                heard += await stream.receive_some(65536)


async def test_case_1_rubbish_behind_the_request_ends_its_own_connection_and_nothing_else(serving, kit):
    """One byte is the beginning of a frame; with the next it is found to be none, and that is said with 1002."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
    async with serving(tell) as source, kit.speaking(source.url) as other:
        host, port = source.source.addresses[0].split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(f"GET /mcp HTTP/1.1\r\n{lines}\r\n".encode() + b"x")
            head = bytes(await stream.receive_some(65536))
            await stream.send_all(b"x")
            end = b""
            while piece := await stream.receive_some(65536):
                end += piece
        await source.connected(1)

        assert "result" in await other.call_modern()
        assert next(figure.value for figure in source.source.figures() if "contained" in figure.name) == 0
    assert head.startswith(b"HTTP/1.1 101 ")
    assert end[:1] + end[2:4] == b"\x88" + (1002).to_bytes(2, "big")


async def test_case_13_a_cookie_makes_no_page_of_a_foreign_site_welcome(serving):
    """Browsers send it along with whatever a page opens; nobody is even asked who the client is."""
    asked = []

    async def identify(client, message):
        asked.append(client)

    async with serving(tell, identify=identify) as source:
        answer = await upgrade(source, origin="https://evil.example", cookie="session=good")

    assert answer.startswith(b"HTTP/1.1 403 ")
    assert asked == []


async def test_head_timeout_ends_who_does_not_ask(serving):
    """A connection that says nothing, or only half, is closed."""
    async with serving(tell, head_timeout=0.05) as source:
        assert await raw(source, b"GET /mcp HTTP/1.1\r\nHost") == b""


async def test_max_connections_turns_others_away(serving, kit):
    """One more than allowed is answered 503; when one leaves there is room again."""
    async with serving(tell, max_connections=1) as source:
        async with kit.speaking(source.url):
            answer = await upgrade(source)

            assert answer.startswith(b"HTTP/1.1 503 ")
        await source.connected(0)
        async with kit.speaking(source.url) as client:
            assert "result" in await client.call_modern()
        figures = {figure.name: figure.value for figure in source.source.figures()}

    assert next(value for name, value in figures.items() if name.endswith("_turned_away_total")) == 1


async def test_an_auth_stage_refuses_before_the_websocket_is_open(serving, kit):
    """Who is not known gets 401 and the challenge, as over HTTP; the headers of the handshake say who it is."""

    async def identify(client, message):
        if client.headers.get("authorization") != "Bearer good":
            raise Unauthenticated("no", challenge='Bearer realm="x"')

    async with serving(tell, identify=identify) as source:
        refused = await upgrade(source)
        accepted = await upgrade(source, authorization="Bearer good")

    assert refused.startswith(b"HTTP/1.1 401 ")
    assert b'www-authenticate: Bearer realm="x"' in refused
    assert accepted.startswith(b"HTTP/1.1 101 ")


async def test_binary_messages_are_read_as_json_and_rubbish_is_answered(serving, kit):
    """JSON is JSON in either kind of message; what is none is an error without an id, and the connection stays."""
    async with serving(tell) as source, kit.speaking(source.url) as client:
        await client.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode())
        binary = await client.next()
        await client.write(b"\xff\xfe")
        rubbish = await client.next()
        await client.write('{"jsonrpc":"2.0","id":2,"method":"ping","id":3}')
        twice = await client.next()
        await client.write("[]")
        batch = await client.next()
        last = await client.call("ping", 4)

    assert (binary["id"], last["id"]) == (1, 4)
    assert (rubbish["error"]["code"], rubbish.get("id")) == (-32700, None)
    assert twice["error"]["code"] == -32600
    assert batch["error"]["code"] == -32600


async def test_a_message_over_max_message_ends_the_connection_with_1009(serving, kit):
    """One byte less is served. However it is cut into frames, bytes are counted."""
    async with serving(tell, max_message=2048) as source, kit.speaking(source.url) as client:
        frame = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"})
        await client.write(frame + " " * (2048 - len(frame)))
        fits = await client.next()
        await client.write("\u00e9" * 1025)
        end = await client.closed()

    assert fits["id"] == 1
    assert end[0] == 1009


async def test_requests_beyond_max_in_flight_per_connection_are_refused_and_the_reader_goes_on(serving, kit):
    """Shed, never pause: the cancel notice behind the refused request is seen."""
    sink = HoldingSink()
    async with serving(sink, max_in_flight_per_connection=1) as source, kit.speaking(source.url) as client:
        await client.send(id=1, method="tools/call", params={"name": "x", "_meta": kit.MODERN})
        call = await sink.next()
        refused = await client.call_modern(request_id=2)
        await client.send(method="notifications/cancelled", params={"requestId": 1})
        await call.cancelled.wait()
        await client.send(id=3, method="tools/call", params={"name": "x", "_meta": kit.MODERN})
        (await sink.next()).reply({})
        last = await client.next()

    assert refused["error"]["data"]["reason"] == "capacity_exceeded"
    assert last["id"] == 3


async def test_pings_are_answered_while_work_is_pending(serving, kit):
    """No business holds the reader."""
    sink = HoldingSink()
    async with serving(sink) as source, kit.speaking(source.url) as client:
        await client.send(id=1, method="tools/call", params={"name": "x", "_meta": kit.MODERN})
        call = await sink.next()
        with trio.fail_after(5):
            await client.socket.ping(b"there?")
        call.reply({})

        assert (await client.next())["id"] == 1


async def test_everything_of_a_client_that_leaves_is_cancelled(serving, kit):
    """With a close frame or without one."""
    for polite in (True, False):
        sink = HoldingSink()
        async with serving(sink) as source:
            async with kit.speaking(source.url) as client:
                calls = []
                for request_id in range(3):
                    await client.send(id=request_id, method="tools/call", params={"name": "x", "_meta": kit.MODERN})
                    calls.append(await sink.next())
                if not polite:
                    await trio.aclose_forcefully(client.socket._stream)
            for call in calls:
                await call.cancelled.wait()
            await source.connected(0)

            assert source.pipeline.admission.in_flight == 0


async def test_notifications_come_before_the_reply_in_order(serving, kit):
    """Progress of one request, and nothing else, on the connection that asked."""

    async def busy(exchange: Exchange) -> Reply:
        for step in range(5):
            await exchange.relay(Notification("notifications/progress", {"progressToken": "t", "progress": step}))
        return Result({})

    async with serving(busy) as source, kit.speaking(source.url) as client:
        await client.send(
            id=1, method="tools/call", params={"name": "x", "_meta": {**kit.MODERN, "progressToken": "t"}}
        )
        seen = [await client.next() for _ in range(6)]

    assert [each.get("params", {}).get("progress") for each in seen] == [0, 1, 2, 3, 4, None]


async def test_a_legacy_client_is_asked_on_its_own_connection(serving, kit):
    """A question in mid-call reaches the client, and its answer the sink; a modern client cannot be asked."""

    async def curious(exchange: Exchange) -> Reply:
        if exchange.method == "initialize":
            return Result({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}})
        answer = await exchange.ask("roots/list", {})
        return answer if isinstance(answer, ErrorReply) else Result({"answer": answer.value})

    async with serving(curious) as source, kit.speaking(source.url) as client:
        await client.initialize()
        question = await client.call("tools/call", 1, name="x")
        await client.send(id=question["id"], result={"roots": []})
        legacy = await client.next()
        modern = await client.call_modern(request_id=2)

    assert question["method"] == "roots/list"
    assert legacy["result"] == {"answer": {"roots": []}}
    assert modern["error"]["code"] == -32601


async def test_a_drain_answers_what_is_under_way_and_closes_with_1001(serving, kit):
    """New requests are refused with `draining`, idle connections close at once, busy ones after their answers."""
    sink = HoldingSink()
    async with serving(sink) as source, kit.speaking(source.url) as busy, kit.speaking(source.url) as idle:
        await busy.send(id=1, method="tools/call", params={"name": "x", "_meta": kit.MODERN})
        call = await sink.next()
        source.source.stop_accepting()
        refused = await busy.call_modern(request_id=2)
        left = await idle.closed()
        call.reply({"done": True})
        answered = await busy.next()
        end = await busy.closed()
        with pytest.raises(OSError):
            await raw(source, b"x")

    assert refused["error"]["data"]["reason"] == "draining"
    assert answered["result"] == {"done": True}
    assert (left[0], end[0]) == (1001, 1001)


async def test_a_hard_end_says_1001_too(serving, kit):
    """A source that is cancelled leaves each client with a close frame, and waits for nobody."""
    sink = HoldingSink()
    async with trio.open_nursery() as nursery:
        async with serving(sink) as source:
            socket = await connect_websocket_url(nursery, source.url, subprotocols=["mcp"])
            await socket.send_message(
                json.dumps(
                    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x", "_meta": kit.MODERN}}
                )
            )
            call = await sink.next()
        with pytest.raises(ConnectionClosed) as closed:
            await socket.get_message()
        await trio.aclose_forcefully(socket._stream)

    assert call.cancelled.is_set()
    assert closed.value.reason is not None
    assert closed.value.reason.code == 1001


async def test_ping_interval_and_ping_timeout_cut_a_client_that_gives_no_sign_of_life(serving, kit):
    """One that answers no ping is gone, with what it had in flight; one that answers stays."""
    sink = HoldingSink()
    async with serving(sink, ping_interval=0.02, ping_timeout=0.1) as source, kit.speaking(source.url) as alive:
        host, port = source.source.addresses[0].split(":")
        lines = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
        message = json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x", "_meta": kit.MODERN}}
        ).encode()
        async with await trio.open_tcp_stream(host, int(port)) as dead:
            await dead.send_all(f"GET /mcp HTTP/1.1\r\n{lines}\r\n".encode() + frame(message))
            call = await sink.next()
            await call.cancelled.wait()
            await source.connected(1)
        await alive.send(id=2, method="ping")
        (await sink.next()).reply({})

        assert (await alive.next())["id"] == 2


async def test_a_client_that_reads_nothing_holds_up_nobody_and_costs_max_unread(serving, kit):
    """Its exchanges wait behind what it does not read, others are served, and in the end it is cut."""
    big = "x" * 1_000_000

    async def flood(exchange: Exchange) -> Reply:
        return Result({"big": big})

    async with serving(flood, max_unread=2_000_000, ping_interval=0.05, ping_timeout=0.3) as source:
        host, port = source.source.addresses[0].split(":")
        lines = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
        async with await trio.open_tcp_stream(host, int(port)) as greedy:
            request = f"GET /mcp HTTP/1.1\r\n{lines}\r\n".encode()
            for number in range(60):
                meta = {"name": "x", "_meta": kit.MODERN}
                request += frame(
                    json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": meta}).encode()
                )
            await greedy.send_all(request)
            async with kit.speaking(source.url) as other:
                assert "result" in await other.call_modern()
            await source.connected(0)

            assert source.pipeline.admission.in_flight == 0


async def test_tls_serves_wss_and_tells_which_certificate_a_client_showed(serving, kit, authority):
    """With `client_certs`, an auth stage finds it on every exchange."""
    cert, key = authority.issue()
    shown = []

    async def look(exchange: Exchange) -> Reply:
        shown.append(exchange.client.certificate)
        return Result({})

    tls = ServerTlsConfig(cert=cert, key=key, client_certs="required", client_ca=authority.file)
    async with serving(look, tls=tls) as source:
        context = authority.trusted(authority.issue("ana"))
        async with kit.speaking(source.url, context=context) as client:
            await client.call_modern()

    assert source.url.startswith("wss://")
    assert shown[0].startswith("-----BEGIN CERTIFICATE-----")


async def test_socket_access_says_whose_processes_may_connect_to_a_unix_socket(serving, kit, tmp_path):
    """One may bind a path in place of an address; the file says who comes in."""
    path = tmp_path / "ws"
    async with serving(tell, bind=f"unix:{path}", socket_access="group") as source:
        mode = stat.S_IMODE(path.stat().st_mode)
        async with await trio.open_unix_socket(str(path)) as stream:
            lines = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
            await stream.send_all(f"GET /mcp HTTP/1.1\r\n{lines}\r\n".encode())
            answer = await stream.receive_some(4096)

        assert source.source.addresses == (f"unix:{path}",)

    assert mode == 0o660
    assert answer.startswith(b"HTTP/1.1 101 ")


async def test_path_is_where_the_endpoint_is_and_must_be_one():
    """Nothing else is served; what is no path is refused when the configuration is read."""
    async with run_source(alone, tell, path="/other") as source:
        assert (await upgrade(source, target="/other")).startswith(b"HTTP/1.1 101 ")
        assert (await upgrade(source, target="/mcp")).startswith(b"HTTP/1.1 404 ")
    with pytest.raises(ValueError, match="path"):
        WebSocketSourceConfig(path="mcp")
    with pytest.raises(ValueError, match="bind"):
        WebSocketSourceConfig(bind=())


async def test_hundreds_of_clients_that_vanish_leave_nothing(serving, kit):
    """In the middle of handshakes, calls and answers."""
    sink = HoldingSink()
    async with serving(sink, max_connections=500) as source:

        async def vanish(index: int) -> None:
            host, port = source.source.addresses[0].split(":")
            stream = await trio.open_tcp_stream(host, int(port))
            lines = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
            message = json.dumps(
                {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x", "_meta": kit.MODERN}}
            ).encode()
            data = f"GET /mcp HTTP/1.1\r\n{lines}\r\n".encode()
            data += frame(message)
            await stream.send_all(data[: len(data) * (index % 10 + 1) // 10])
            if index % 10 > 7:
                await stream.receive_some(1024)
            await trio.aclose_forcefully(stream)

        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for index in range(100):
                    nursery.start_soon(vanish, index)
        await source.connected(0)

        assert source.pipeline.admission.in_flight == 0
        assert next(figure.value for figure in source.source.figures() if "contained" in figure.name) == 0


def test_the_source_keeps_the_contract(kit):
    """Opened twice, cancelled, drained; with a client on a real socket."""

    async def drive(source: WebSocketSource) -> None:
        async with kit.speaking(source.urls[0]) as client:
            assert (await client.call("ping", 1))["id"] == 1

    check_source(WebSocketSource, {"bind": "127.0.0.1:0"}, drive=drive, virtual_time=False)
