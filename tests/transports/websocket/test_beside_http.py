"""WebSockets on the listener of the `http` source: when a request becomes one, and when it stays a request."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog
import trio
from structlog.testing import LogCapture

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.pipeline.testing import check_source
from sluiceway.transports.http_source.config import HttpConfig
from sluiceway.transports.http_source.source import HttpSource
from sluiceway.transports.websocket.config import WebSocketConfig
from sluiceway.transports.websocket_source import WebSocketSource, WebSocketSourceConfig

UPGRADE = (
    "host: localhost\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: mcp\r\n"
)
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


def asking(target: str = "/mcp", extra: str = "", *, method: str = "GET", version: str = "1.1") -> bytes:
    """A request to open a WebSocket."""
    return f"{method} {target} HTTP/{version}\r\n{UPGRADE}{extra}\r\n".encode()


class Gateway:
    """A running gateway whose http source serves WebSockets, and connections to it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.source: Any = engine.sources["web"]
        self.url = self.source.urls[0].replace("http", "ws", 1)

    async def dial(self) -> trio.SocketStream:
        """A connection."""
        host, port = self.source.addresses[0].split(":")
        return await trio.open_tcp_stream(host, int(port))

    async def answer(self, data: bytes) -> bytes:
        """The first that comes back for some bytes on a connection of their own."""
        async with await self.dial() as stream:
            await stream.send_all(data)
            return bytes(await stream.receive_some(65536))

    @property
    def figures(self) -> dict[str, float]:
        """What the source counts."""
        return {figure.name: figure.value for figure in self.source.figures()}


def document(websocket: Any, **options: Any) -> Any:
    """A gateway's configuration."""
    options = {"bind": "127.0.0.1:0", **options, **({} if websocket is None else {"websocket": websocket})}
    return from_data(
        {
            "version": 1,
            "sources": {"web": {"http": options}},
            "pipelines": {"main": {}},
            "sinks": {"demo": {"embedded": {}}},
        }
    )


async def test_http_is_served_before_and_beside_a_websocket(kit: Any) -> None:
    """A kept-alive connection becomes a WebSocket with its second request; others go on with HTTP."""
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    frame = bytes([0x81, 0x80 | len(ping)]) + bytes(4) + ping
    engine = Engine(document({}))
    async with engine.running():
        gateway = Gateway(engine)
        async with await gateway.dial() as stream, kit.speaking(gateway.url) as other:
            await stream.send_all(HEALTH)
            alive = bytes(await stream.receive_some(65536))
            await stream.send_all(asking() + frame)
            heard = b""
            while b'"id":1' not in heard:
                heard += await stream.receive_some(65536)
            hello = await other.initialize()
            open_now = gateway.figures["http_websockets"]
            beside = await gateway.answer(HEALTH)

    assert alive.startswith(b"HTTP/1.1 200 ")
    assert heard.startswith(b"HTTP/1.1 101 ")
    assert "result" in hello
    assert open_now == 2
    assert beside.startswith(b"HTTP/1.1 200 ")


async def test_a_websocket_asked_for_behind_another_request_opens_after_its_answer() -> None:
    """All in one segment: what is read early is handled in its turn, the first message on the WebSocket included."""
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    frame = bytes([0x81, 0x80 | len(ping)]) + bytes(4) + ping
    engine = Engine(document({}))
    async with engine.running(), await Gateway(engine).dial() as stream:
        await stream.send_all(HEALTH + asking() + frame)
        heard = b""
        while b'"id":1' not in heard:
            heard += await stream.receive_some(65536)

    assert heard.startswith(b"HTTP/1.1 200 ")
    assert heard.index(b'{"status":"alive"}') < heard.index(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (asking(), b"101"),
        (asking("/other"), b"404"),
        (asking("/healthz"), b"200"),
        (asking(version="1.0"), b"405"),  # which knows no upgrades
        (asking(method="DELETE"), b"405"),
        (asking(extra="content-length: 1\r\n"), b"400"),
        (asking(extra="origin: https://evil.example\r\n"), b"403"),
        (asking("/mcp?access_token=x"), b"400"),
    ],
)
async def test_a_request_becomes_a_websocket_where_there_are_any_and_is_one_like_others_elsewhere(
    request_: bytes, status: bytes
) -> None:
    """`Upgrade` may be ignored (RFC 9110 section 7.8); what asks for a WebSocket at its path is held to its rules."""
    engine = Engine(document({}))
    async with engine.running():
        answer = await Gateway(engine).answer(request_)

    assert answer.split(b" ")[1] == status


async def test_path_gives_websockets_a_place_of_their_own() -> None:
    """Then the endpoint has none, and its place has nothing else."""
    engine = Engine(document({"path": "/ws"}))
    async with engine.running():
        gateway = Gateway(engine)
        own = await gateway.answer(asking("/ws"))
        endpoint = await gateway.answer(asking("/mcp"))
        plain = await gateway.answer(b"GET /ws HTTP/1.1\r\nhost: localhost\r\n\r\n")

    assert [each.split(b" ")[1] for each in (own, endpoint, plain)] == [b"101", b"405", b"404"]


async def test_nobody_gets_a_websocket_where_none_was_configured() -> None:
    """Without `websocket` the request is one like others, and nothing is counted."""
    engine = Engine(document(None))
    async with engine.running():
        gateway = Gateway(engine)
        answer = await gateway.answer(asking())
        figures = gateway.figures

    assert answer.split(b" ")[1] == b"405"
    assert "http_websockets" not in figures


async def test_refusals_are_security_events() -> None:
    """A page of a foreign site, and bytes that parsers read differently, are told; in both sources."""
    for kind in ("http", "websocket"):
        told: list[tuple[str, str | None]] = []
        options: Any = {"bind": "127.0.0.1:0", **({"websocket": {}} if kind == "http" else {})}
        engine = Engine(
            from_data(
                {
                    "version": 1,
                    "sources": {"web": {kind: options}},
                    "pipelines": {"main": {}},
                    "sinks": {"demo": {"embedded": {}}},
                }
            )
        )
        async with engine.running():
            gateway = Gateway(engine)
            object.__setattr__(
                gateway.source.context, "alarm", lambda event, told=told: told.append((event.reason, event.address))
            )
            await gateway.answer(asking(extra="origin: https://evil.example\r\n"))
            await gateway.answer(asking(extra="x: a\r\n b\r\n"))

        assert told == [("foreign_origin", "127.0.0.1"), ("smuggling", "127.0.0.1")]


async def test_without_sockets_of_its_own_the_other_source_says_that_it_is_of_no_use() -> None:
    """Under a plain hypercorn, whoever configured it learns what to write instead."""
    log = LogCapture()
    logger = structlog.wrap_logger(None, processors=[log], wrapper_class=structlog.make_filtering_bound_logger(10))
    source = WebSocketSource(WebSocketSourceConfig(), Context(id="ws", log=logger, listen=False))
    async with source.open():
        addresses = source.addresses

    assert addresses == ()
    assert "use `websocket` of `http`" in log.entries[0]["event"]


def test_the_http_source_keeps_the_contract_with_websockets_too(kit: Any) -> None:
    """Opened twice, cancelled, drained; with a client on a WebSocket."""

    async def drive(source: HttpSource) -> None:
        async with kit.speaking(source.urls[0].replace("http", "ws", 1)) as client:
            assert (await client.call("ping", 1))["id"] == 1

    check_source(HttpSource, {"bind": "127.0.0.1:0", "websocket": {}}, drive=drive, virtual_time=False)


@pytest.mark.parametrize("path", ["ws", "/healthz", "/a b"])
def test_paths_that_are_none(path: str) -> None:
    """Refused when the configuration is read."""
    with pytest.raises(ValueError, match="websocket: path"):
        HttpConfig(websocket=WebSocketConfig(path=path))
