"""A source served in memory, and an HTTP/1.1 client for it that sees everything on the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import h11
import pytest
import structlog
import trio
import trio.testing
from attrs import define, field, frozen
from structlog.testing import LogCapture

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.document import Limits
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.worker import Worker
from sluiceway.pipeline.protocol.mcp import LATEST, MetaKey
from sluiceway.pipeline.protocol.messages import Notification, Reply, Result
from sluiceway.pipeline.runtime.chain import compile_chain
from sluiceway.pipeline.runtime.deadlines import Deadlines
from sluiceway.pipeline.runtime.pipeline import Pipeline
from sluiceway.transports.http_source.config import HttpConfig
from sluiceway.transports.http_source.source import HttpSource
from sluiceway.transports.sse_codec import Event, EventDecoder

SinkFunction = Callable[[Exchange], Awaitable[Reply]]

JSON_HEADERS = {
    "host": "localhost",
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
}


@frozen
class Answered:
    """A complete response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Event]:
        return EventDecoder(1 << 20).feed(self.body)

    @property
    def messages(self) -> list[Any]:
        """The JSON of every event that has data."""
        return [json.loads(event.data) for event in self.events if event.data]

    @property
    def code(self) -> int:
        return self.json["error"]["code"]


class Wire:
    """One client connection."""

    def __init__(self, stream: Any, server: Any = None) -> None:
        self.stream = stream
        self.server = server
        """The other end, in memory."""
        self.h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        self.decoder = EventDecoder(1 << 20)
        self.raw = b""
        """Everything received."""
        self.comments = 0

    async def send(
        self, method: str, path: str = "/mcp", body: Any = None, headers: Mapping[str, str | None] | None = None
    ) -> None:
        """Send one request; a header of None is left out, `_` in its name means `-`."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        every = {"content-length": str(len(data))} | (JSON_HEADERS if method == "POST" else {"host": "localhost"})
        if method == "GET":
            every |= {"accept": "text/event-stream"}
        every |= {k.replace("_", "-"): v for k, v in (headers or {}).items()}
        lines = [(k, v) for k, v in every.items() if v is not None]
        if self.h11.our_state is h11.DONE:
            self.h11.start_next_cycle()
        head = self.h11.send(h11.Request(method=method, target=path, headers=lines))
        await self.stream.send_all(head + self.h11.send(h11.Data(data=data)) + self.h11.send(h11.EndOfMessage()))

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are, and expect a response to them."""
        if self.h11.our_state is h11.DONE:
            self.h11.start_next_cycle()
        self.h11.send(h11.Request(method="POST", target="/", headers=[("host", "localhost"), ("content-length", "0")]))
        self.h11.send(h11.EndOfMessage())
        await self.stream.send_all(data)

    async def event(self) -> Any:
        """The next h11 event."""
        while (event := self.h11.next_event()) is h11.NEED_DATA:
            data = bytes(await self.stream.receive_some(65536))
            self.raw += data
            self.h11.receive_data(data)
        return event

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next response."""
        event = await self.event()
        while isinstance(event, h11.InformationalResponse):
            event = await self.event()
        assert isinstance(event, h11.Response), event
        return event.status_code, {k.decode(): v.decode() for k, v in event.headers}

    async def rest(self) -> bytes:
        """The body from here to its end."""
        body = b""
        while isinstance(event := await self.event(), h11.Data):
            body += bytes(event.data)
        assert isinstance(event, h11.EndOfMessage), event
        return body

    async def response(self) -> Answered:
        """The next response, whole."""
        status, headers = await self.head()
        return Answered(status, headers, await self.rest())

    async def next_events(self) -> list[Event]:
        """The events of the next chunk of an event stream; None of them if it is a comment."""
        event = await self.event()
        if isinstance(event, h11.EndOfMessage):
            raise EOFError
        assert isinstance(event, h11.Data), event
        if bytes(event.data).startswith(b":"):
            self.comments += 1
        return self.decoder.feed(bytes(event.data))

    async def next_message(self) -> Any:
        """The JSON of the next event that has data."""
        while True:
            for event in await self.next_events():
                if event.data:
                    return json.loads(event.data)

    async def closed(self) -> bytes:
        """What still comes before the server closes."""
        rest = b""
        while data := bytes(await self.stream.receive_some(65536)):
            rest += data
        return rest

    async def aclose(self) -> None:
        await self.stream.aclose()


def raw_post(body: Any, *lines: str) -> bytes:
    """A POST as bytes; `lines` are headers beside Host, Content-Type, Accept and Content-Length."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"{name}: {value}" for name, value in JSON_HEADERS.items()]
    head = ["POST /mcp HTTP/1.1", *head, f"content-length: {len(data)}", *lines, "", ""]
    return "\r\n".join(head).encode() + data


def request(method: str, request_id: Any = 1, /, **params: Any) -> dict[str, Any]:
    """A JSON-RPC request."""
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def modern(method: str, request_id: Any = 1, /, **params: Any) -> dict[str, Any]:
    """A request of the modern era."""
    meta = {MetaKey.VERSION: LATEST, MetaKey.CLIENT_CAPABILITIES: {}, **params.pop("_meta", {})}
    return request(method, request_id, **params, _meta=meta)


def mirror(body: Mapping[str, Any]) -> dict[str, str | None]:
    """The headers that go with a modern request."""
    params = body["params"]
    name = params.get("name", params.get("uri"))
    return {"mcp_protocol_version": LATEST, "mcp_method": body["method"], "mcp_name": name}


def calling(name: str, request_id: Any = 1, /, **arguments: Any) -> dict[str, Any]:
    return request("tools/call", request_id, name=name, arguments=arguments)


@define(eq=False)
class Served:
    """A source that serves, and what is around it."""

    source: HttpSource
    pipeline: Pipeline
    nursery: trio.Nursery
    log: LogCapture
    wires: list[Wire] = field(factory=list)

    raw_post = staticmethod(raw_post)
    request = staticmethod(request)
    modern = staticmethod(modern)
    mirror = staticmethod(mirror)
    calling = staticmethod(calling)

    def connect(self) -> Wire:
        """A new connection, in memory."""
        client, server = trio.testing.memory_stream_pair()
        assert self.source.server is not None
        self.nursery.start_soon(self.source.server.handle, server)
        self.wires.append(Wire(client, server))
        return self.wires[-1]

    async def ask(self, method: str, path: str = "/mcp", body: Any = None, **headers: str | None) -> Answered:
        """One request on a connection of its own."""
        wire = self.connect()
        await wire.send(method, path, body, headers)
        answer = await wire.response()
        await wire.aclose()
        return answer

    async def raw(self, data: bytes) -> Answered:
        """The response to some bytes on a connection of their own."""
        wire = self.connect()
        await wire.send_raw(data)
        answer = await wire.response()
        await wire.aclose()
        return answer

    async def post(self, body: Any, **headers: str | None) -> Answered:
        return await self.ask("POST", "/mcp", body, **headers)

    async def post_modern(self, body: Any, **headers: str | None) -> Answered:
        """POST a modern request with the headers that go with it, or others."""
        return await self.post(body, **{**mirror(body), **headers})

    async def session(self, version: str = "2025-11-25", **headers: str | None) -> dict[str, str | None]:
        """Initialize; the headers of further requests."""
        answer = await self.post(request("initialize", 0, protocolVersion=version, capabilities={}), **headers)
        assert answer.status == 200, answer
        return {**headers, "mcp_session_id": answer.headers["mcp-session-id"], "mcp_protocol_version": version}


async def echo_sink(exchange: Exchange) -> Reply:
    """Handshakes; `progress` relays one notification first, `ask` asks, `slow` takes its time; others echo."""
    params = exchange.request.params
    if exchange.method == "initialize":
        return Result({"protocolVersion": params["protocolVersion"], "capabilities": {}, "serverInfo": {"name": "t"}})
    name = params.get("name")
    if name == "slow":
        await trio.sleep(params.get("arguments", {}).get("seconds", 5))
    if name == "progress":
        for n in range(params.get("arguments", {}).get("times", 1)):
            await exchange.relay(Notification("notifications/progress", {"progressToken": 1, "progress": n + 1}))
    if name == "ask":
        answer = await exchange.ask("elicitation/create", {"message": "?"})
        assert isinstance(answer, Result)
        return Result({"answer": dict(answer.value)})
    return Result({"method": exchange.method, "name": name})


Running = Callable[..., AbstractAsyncContextManager[Served]]


@asynccontextmanager
async def _running(
    sink: SinkFunction = echo_sink,
    *,
    limits: Limits | None = None,
    bound: bool = False,
    worker: Worker | None = None,
    **options: Any,
) -> AsyncIterator[Served]:
    log = LogCapture()
    logger = structlog.wrap_logger(None, processors=[log], wrapper_class=structlog.make_filtering_bound_logger(10))
    context = Context(id="web", log=logger, worker=worker)
    source = HttpSource(HttpConfig(bind=options.pop("bind", "127.0.0.1:0"), **options), context)
    deadlines = Deadlines()
    pipeline = Pipeline("main", compile_chain((), sink), limits or Limits(), deadlines)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.serve)
        if bound:
            source.server.bind()  # type: ignore[union-attr]  # it listens
        nursery.start_soon(source.serve, pipeline.handle)
        while source.sessions is None:
            await trio.lowlevel.checkpoint()
        served = Served(source, pipeline, nursery, log)
        yield served
        for wire in served.wires:
            await trio.aclose_forcefully(wire.stream)
        source.server.close()  # type: ignore[union-attr]  # likewise
        nursery.cancel_scope.cancel()


@pytest.fixture
def running() -> Running:
    """Makes an async context in which a source serves: `async with running(sink, **options) as served`."""
    return _running
