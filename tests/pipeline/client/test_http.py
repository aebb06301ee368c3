"""The HTTP wire over scripted responses, and once over a real socket."""

import json
from contextlib import asynccontextmanager

import httpx2
import pytest
import trio

from sluiceway.pipeline.client.client import McpClient
from sluiceway.pipeline.client.errors import HttpStatus, McpError
from sluiceway.pipeline.client.handlers import Handlers
from sluiceway.pipeline.client.http import MAX_RESUMES, HttpWire, open_http_client
from sluiceway.pipeline.protocol.errors import ConnectFailed, UpstreamClosed, UpstreamProtocolError
from sluiceway.pipeline.protocol.messages import encode_json
from sluiceway.pipeline.runtime.nursery import open_background_nursery

MODERN = {"supportedVersions": ["2026-07-28"], "capabilities": {}}
LEGACY = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s"}}
FOREIGN = b'{"jsonrpc":"2.0","id":99,"result":{}}'
SESSION = {"mcp-session-id": "s-1"}


class Body(httpx2.AsyncByteStream):
    """A response body in pieces; a number is a pause, an exception is raised, None is silence for ever."""

    def __init__(self, *pieces):
        self.pieces = pieces
        self.closed = False

    async def __aiter__(self):
        for piece in self.pieces:
            if piece is None:
                await trio.sleep_forever()
            elif isinstance(piece, (int, float)):
                await trio.sleep(piece)
            elif isinstance(piece, Exception):
                raise piece
            else:
                await trio.lowlevel.checkpoint()
                yield piece

    async def aclose(self):
        self.closed = True
        await trio.lowlevel.checkpoint()


class Server:
    """Answers each HTTP request with the next of its responses, or by method for what is asked again and again."""

    def __init__(self, **by_method):
        self.by_method = {"initialize": reply(LEGACY, headers=SESSION), **by_method}
        self.requests = []

    def seen(self, *names):
        return [(r.method, *(r.headers.get(name) for name in names)) for r in self.requests]

    async def __call__(self, request):
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        message = json.loads(request.content) if request.content else {}
        key = message.get("method", request.method)
        answer = self.by_method.get(key.replace("/", "_"), accepted)
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(message)

    @asynccontextmanager
    async def talk(self, era="legacy", **handlers):
        transport = httpx2.MockTransport(self)
        async with httpx2.AsyncClient(transport=transport, timeout=None) as http, open_background_nursery() as nursery:
            wire = HttpWire(http, "http://test/mcp")
            client = McpClient(wire, Handlers(**handlers), nursery, {"name": "t", "version": "1"})
            await client.connect(era)
            yield client
            await wire.close()


def accepted(_message):
    return httpx2.Response(202)


def reply(result, status=200, headers=None):
    return lambda m: httpx2.Response(status, json={"jsonrpc": "2.0", "id": m["id"], "result": result}, headers=headers)


def error(code, message, status, data=None):
    body = {"code": code, "message": message, "data": data}
    return lambda m: httpx2.Response(status, json={"jsonrpc": "2.0", "id": m["id"], "error": body})


def raw(status, content=b"", media_type="text/html", **headers):
    return lambda _m: httpx2.Response(status, content=content, headers={"content-type": media_type, **headers})


def event(message, event_id=None):
    head = b"" if event_id is None else f"id: {event_id}\n".encode()
    return head + b"data: " + (encode_json(message) if message is not None else b"") + b"\n\n"


def stream(*pieces):
    """An event stream; a callable piece gets the request."""

    def answer(message):
        made = [piece(message) if callable(piece) else piece for piece in pieces]
        return httpx2.Response(200, stream=Body(*made), headers={"content-type": "text/event-stream; charset=utf-8"})

    return answer


def result_event(result, event_id=None):
    return lambda m: event({"jsonrpc": "2.0", "id": m["id"], "result": result}, event_id)


def note(n):
    return {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": n}}


async def test_a_legacy_session_has_its_headers_and_its_end():
    """Id and version after the handshake, DELETE at the end."""
    server = Server(ping=reply({}))
    async with server.talk() as client:
        await client.request("ping")

    assert [
        ("POST", None, None),
        ("POST", "s-1", "2025-11-25"),
        ("POST", "s-1", "2025-11-25"),
        ("DELETE", "s-1", "2025-11-25"),
    ] == server.seen("mcp-session-id", "mcp-protocol-version")
    assert server.requests[0].headers["accept"] == "application/json, text/event-stream"
    assert server.requests[0].headers["content-type"] == "application/json"


async def test_a_server_without_sessions_gets_no_delete():
    """There is nothing to end."""
    server = Server(initialize=reply(LEGACY), ping=reply({}))
    async with server.talk() as client:
        await client.request("ping")

    assert {"POST"} == {request.method for request in server.requests}


async def test_a_modern_request_repeats_its_body_in_headers():
    """No session, and no end."""
    server = Server(server_discover=reply(MODERN), tools_call=reply({"content": []}, headers=SESSION))
    async with server.talk("auto") as client:
        await client.call_tool("add")
        await client.notify("notifications/x")

    assert [
        ("POST", "2026-07-28", "server/discover", None, None),
        ("POST", "2026-07-28", "tools/call", "add", None),
        ("POST", "2026-07-28", "notifications/x", None, None),
    ] == server.seen("mcp-protocol-version", "mcp-method", "mcp-name", "mcp-session-id")


async def test_a_stream_is_read_up_to_its_reply(autojump_clock):
    """In order; comments, other events and empty data are passed over, and nobody waits for the stream's end."""
    heard = []

    async def hear(notification):
        heard.append(notification.params["data"])

    chatter = (b": hi\n\n", b"event: ping\ndata: x\n\n", event(None, "1"), event(note(1)) + event(note(2)))
    server = Server(tools_call=stream(*chatter, result_event({"content": []}), b": bye\n\n", None))
    async with server.talk() as client:
        assert {"content": []} == await client.request("tools/call", on_notification=hear)

    assert heard == [1, 2]


async def test_a_question_on_the_stream_is_answered_by_a_post():
    """In the same session, and the stream goes on."""

    async def roots(_params):
        return {"roots": []}

    asked = event({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})
    server = Server(tools_call=stream(asked, result_event({"content": []})), GET=raw(405))
    async with server.talk(roots=roots) as client:
        await client.call_tool("x")
        await trio.testing.wait_all_tasks_blocked()

    answers = [json.loads(r.content) for r in server.requests if r.content and b'"result"' in r.content]
    assert [{"jsonrpc": "2.0", "id": "q", "result": {"roots": []}}] == answers


@pytest.mark.parametrize("broken", [(), (httpx2.RemoteProtocolError("cut"),)])
async def test_a_legacy_stream_that_ends_early_is_resumed(autojump_clock, broken):
    """After the wait that the server asked for, with the last id, until the reply is there (SEP-1699)."""
    server = Server(
        tools_call=stream(b"retry: 3000\n", event(None, "e1"), *broken),
        GET=[stream(event(note(1), "e2")), stream(event({"jsonrpc": "2.0", "id": 2, "result": {}}))],
    )
    async with server.talk() as client:
        assert {} == await client.request("tools/call")

    resumed = [r for r in server.requests if r.method == "GET"]
    assert ["e1", "e2"] == [r.headers["last-event-id"] for r in resumed]
    assert ["s-1", "s-1"] == [r.headers["mcp-session-id"] for r in resumed]
    assert trio.current_time() == 6


async def test_a_stream_that_never_gets_on_is_given_up(autojump_clock):
    """Attempts without a single event are bounded, failed connections count as such."""
    get = [stream(), httpx2.ConnectError("refused")] + [stream()] * 9
    server = Server(tools_call=stream(event(None, "e1")), GET=get)
    async with server.talk() as client:
        with pytest.raises(UpstreamClosed, match="ended the stream of tools/call before its reply"):
            await client.request("tools/call")

    assert MAX_RESUMES == sum(r.method == "GET" for r in server.requests)


@pytest.mark.parametrize("get", [raw(405), raw(200, b"{}", "application/json")])
async def test_a_server_that_does_not_resume_ends_the_call(autojump_clock, get):
    """405 is final."""
    server = Server(tools_call=stream(event(None, "e1")), GET=get)
    async with server.talk() as client:
        with pytest.raises(UpstreamClosed):
            await client.request("tools/call")

    assert sum(r.method == "GET" for r in server.requests) == 1


@pytest.mark.parametrize("pieces", [(), (event(None, "e1"),), (event(None, "e1"), httpx2.ReadError("reset"))])
async def test_a_modern_stream_that_breaks_is_lost(pieces):
    """There is no resumption since 2026-07-28, whatever ids the server sends."""
    server = Server(server_discover=reply(MODERN), tools_call=stream(*pieces))
    async with server.talk("modern") as client:
        with pytest.raises(UpstreamClosed):
            await client.call_tool("x")

    assert {"POST"} == {request.method for request in server.requests}


async def test_cancelling_says_so_in_the_legacy_era_and_closes_the_stream_in_the_modern(autojump_clock):
    """Each era has its way (protocol, section 2)."""
    legacy = Server(tools_call=stream(None))
    async with legacy.talk() as client:
        with trio.move_on_after(1):
            await client.call_tool("x")
    modern = Server(server_discover=reply(MODERN), tools_call=stream(None))
    async with modern.talk("modern") as client:
        with trio.move_on_after(1):
            await client.call_tool("x")

    methods = [json.loads(r.content)["method"] for r in legacy.requests if r.content]
    assert methods == ["initialize", "notifications/initialized", "tools/call", "notifications/cancelled"]
    assert len(modern.requests) == 2


async def test_a_lost_session_is_renewed_without_its_id():
    """404 means: initialize again (2025-11-25, session management)."""
    server = Server(ping=[raw(404), reply({})])
    async with server.talk() as client:
        assert await client.request("ping") == {}

    posts = [(json.loads(r.content)["method"], r.headers.get("mcp-session-id")) for r in server.requests if r.content]
    assert [
        ("initialize", None),
        ("notifications/initialized", "s-1"),
        ("ping", "s-1"),
        ("initialize", None),
        ("notifications/initialized", "s-1"),
        ("ping", "s-1"),
    ] == posts


async def test_an_error_keeps_its_http_status():
    """Whatever the status, a JSON-RPC error is the server's answer."""
    server = Server(server_discover=reply(MODERN), tools_call=error(-32020, "header mismatch", 400, {"header": "x"}))
    async with server.talk("modern") as client:
        with pytest.raises(McpError, match="header mismatch") as caught:
            await client.call_tool("x")

    assert (-32020, {"header": "x"}, 400) == (caught.value.code, caught.value.data, caught.value.http_status)


@pytest.mark.parametrize(
    ("answer", "failure", "text"),
    [
        (raw(502, b"<h1>Bad Gateway</h1>"), HttpStatus, "HTTP 502: <h1>Bad Gateway"),
        (raw(401, b"", **{"www-authenticate": "Bearer x"}), HttpStatus, "HTTP 401"),
        (raw(202), HttpStatus, "HTTP 202"),
        (raw(500, b"{}", "application/json"), HttpStatus, r"HTTP 500: \{\}"),
        (raw(200, b"{}", "application/json"), UpstreamProtocolError, "not a JSON-RPC message"),
        (raw(200, encode_json(note(1)), "application/json"), HttpStatus, "HTTP 200"),
        (raw(200, FOREIGN, "application/json"), UpstreamProtocolError, "replied to 99"),
        (stream(b"data: nonsense\n\n"), UpstreamProtocolError, "not a JSON-RPC message"),
        (httpx2.ConnectError("refused"), ConnectFailed, "cannot be reached: refused"),
        (httpx2.ReadError(""), UpstreamClosed, "broke the connection: ReadError"),
    ],
)  # fmt: skip
async def test_what_is_not_mcp_says_what_it_is(answer, failure, text):
    """Proxies, wrong paths and broken servers."""
    async with Server(tools_call=answer).talk() as client:
        with pytest.raises(failure, match=text):
            await client.call_tool("x")


async def test_a_challenge_is_kept():
    """Whoever asks for a token says which."""
    async with Server(tools_call=raw(401, **{"www-authenticate": "Bearer realm=x"})).talk() as client:
        with pytest.raises(HttpStatus) as caught:
            await client.call_tool("x")

    assert (401, "", "Bearer realm=x") == (caught.value.status, caught.value.body, caught.value.challenge)


async def test_an_error_without_an_id_is_the_answer_of_its_stream():
    """The server could not read the id; there is only one request it can mean."""
    body = b'{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"}}'
    async with Server(tools_call=raw(400, body, "application/json")).talk() as client:
        with pytest.raises(McpError, match="Parse error"):
            await client.call_tool("x")


async def test_a_notification_that_is_refused_is_an_error():
    """The status is all there is to tell."""
    server = Server(notifications_x=raw(400, b"no"))
    async with server.talk() as client:
        with pytest.raises(HttpStatus, match="HTTP 400: no"):
            await client.notify("notifications/x")


async def test_a_body_that_does_not_end_is_given_up(monkeypatch):
    """A server cannot fill the memory."""
    async with Server(tools_call=reply({"x": "y" * 20})).talk() as client:
        monkeypatch.setattr("sluiceway.pipeline.client.http.MAX_BODY", 10)
        with pytest.raises(UpstreamProtocolError, match="larger than 10 bytes"):
            await client.call_tool("x")


async def test_the_get_stream_is_held_open_and_taken_up_again(autojump_clock):
    """What no request caused is heard across a broken connection."""
    heard = []

    async def hear(notification):
        heard.append(notification.params["data"])

    server = Server(GET=[stream(event(note(1), "g1")), httpx2.ReadError("cut"), stream(event(note(2), "g2"), None)])
    async with server.talk(notification=hear):
        await trio.sleep(10)

    gets = [r for r in server.requests if r.method == "GET"]
    assert heard == [1, 2]
    assert [None, "g1", "g1"] == [r.headers.get("last-event-id") for r in gets]


@pytest.mark.parametrize("get", [raw(405), httpx2.ConnectError("refused")])
async def test_a_server_without_a_get_stream_is_left_alone(autojump_clock, get):
    """405 is an answer; a server that is gone is not asked for ever."""

    async def hear(_notification):
        raise AssertionError("there is nothing to hear")

    server = Server(GET=get, ping=reply({}))
    async with server.talk(notification=hear) as client:
        await trio.sleep(3600)
        assert await client.request("ping") == {}

    assert sum(r.method == "GET" for r in server.requests) <= MAX_RESUMES


async def test_the_end_of_a_session_does_not_wait_for_a_dead_server(autojump_clock):
    """DELETE gets a second, and its failure is nobody's business."""

    class Hanging(Server):
        async def __call__(self, request):
            if request.method == "DELETE":
                await trio.sleep_forever()
            return await super().__call__(request)

    async with Hanging().talk():
        pass

    assert trio.current_time() == 1


async def test_a_real_connection_carries_both_eras_and_is_used_again():
    """One socket server, every kind of reply, and nothing is left."""
    connections = []

    async def serve(stream_):
        connections.append(stream_)
        buffered = b""
        while True:
            while b"\r\n\r\n" not in buffered:
                chunk = await stream_.receive_some()
                if not chunk:
                    return
                buffered += chunk
            head, _, buffered = buffered.partition(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            length = int(fields.get(b"content-length", b"0"))
            while len(buffered) < length:
                buffered += await stream_.receive_some()
            message, buffered = json.loads(buffered[:length]), buffered[length:]
            assert fields[b"x-key"] == b"k"
            if message["method"] == "server/discover":
                body, media = (
                    encode_json({"jsonrpc": "2.0", "id": message["id"], "result": MODERN}),
                    b"application/json",
                )
            else:
                body, media = (
                    event({"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}}),
                    b"text/event-stream",
                )
            await stream_.send_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: " + media + b"\r\ntransfer-encoding: chunked\r\n\r\n"
                + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
            )  # fmt: skip

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        async with open_http_client(f"http://127.0.0.1:{port}/mcp", headers={"x-key": "k"}) as client:
            for _ in range(3):
                assert await client.call_tool("x") == {"content": []}
        nursery.cancel_scope.cancel()

    assert len(connections) == 1


async def test_nobody_there_is_said_so():
    """The error names the address."""
    async with _free_port() as port:
        url = f"http://127.0.0.1:{port}/mcp"
    with pytest.raises(ConnectFailed, match=f"{url} cannot be reached"):
        async with open_http_client(url):
            raise AssertionError("there is nobody to talk to")


@asynccontextmanager
async def _free_port():
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        yield listener.socket.getsockname()[1]
