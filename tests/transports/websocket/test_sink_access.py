"""What the WebSocket sink shows and passes on the way to an upstream: tokens, proxies, refused addresses, a restart."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.transports.websocket_sink import WebSocketSink, WebSocketSinkConfig


@asynccontextmanager
async def listening(handle: Any) -> AsyncIterator[int]:
    """Serve connections on a free port."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


class Authority:
    """An authorization server."""

    def __init__(self) -> None:
        self.given = 0
        self.status = b"200 OK"
        self.asked: list[bytes] = []

    async def handle(self, stream: trio.SocketStream) -> None:
        """Answer every request on a connection."""
        async with stream:
            while data := bytes(await stream.receive_some(65536)):
                self.asked.append(data)
                self.given += 1
                body = json.dumps({"access_token": f"t{self.given}", "token_type": "Bearer"}).encode()
                head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                await stream.send_all(head % (self.status, len(body)) + body)


class Relay:
    """A proxy of one kind that leads everything to one port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.heard: list[bytes] = []

    async def tunnel(self, stream: trio.SocketStream) -> None:
        """HTTP's CONNECT."""
        self.heard.append(bytes(await stream.receive_some(65536)))
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        await self._pass(stream)

    async def socks(self, stream: trio.SocketStream) -> None:
        """SOCKS 5 with a password."""
        await stream.receive_some(65536)
        await stream.send_all(b"\x05\x02")
        self.heard.append(bytes(await stream.receive_some(65536)))
        await stream.send_all(b"\x01\x00")
        self.heard.append(bytes(await stream.receive_some(65536)))
        await stream.send_all(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
        await self._pass(stream)

    async def _pass(self, near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", self.port)

        async def pump(source: trio.SocketStream, target: trio.SocketStream) -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while data := await source.receive_some(65536):
                    await target.send_all(data)
                await target.send_eof()

        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(pump, near, far)
            nursery.start_soon(pump, far, near)


def oauth(port: int) -> dict[str, Any]:
    """Options of the sink for an authorization server."""
    return {
        "token_url": f"http://127.0.0.1:{port}/token",
        "client_id": "gate",
        "client_secret": {"from_env": "CLIENT_SECRET"},
        "scope": "tools",
        "resource": "https://up.example/mcp",
    }


async def test_oauth_gets_a_token_for_each_connection_and_another_when_it_is_refused(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The `client_id`, `client_secret`, `scope` and `resource` go to `token_url`; a 401 is asked again once."""
    monkeypatch.setenv("CLIENT_SECRET", "s")
    authority = Authority()
    async with kit.scripted_server() as server, listening(authority.handle) as port:
        up = {"websocket": {"url": server.url, "oauth": oauth(port), "close_when_idle": "20ms"}}
        async with kit.gateway({"up": up}) as gateway, kit.speaking(kit.url_of(gateway)) as client:
            first = await client.call_modern()
            await kit.until(lambda: not server.open)
            server.refuse_with, server.refuse_once = 401, True
            again = await client.call_modern(request_id=2)
            await kit.until(lambda: not server.open)
            server.refuse_with, server.refuse_once = 401, False
            refused = await client.call_modern(request_id=3)

    shown = [headers[b"authorization"] for headers in server.headers]
    assert "result" in first
    assert "result" in again
    assert "HTTP 401" in refused["error"]["message"]
    assert shown == [b"Bearer t1", b"Bearer t1", b"Bearer t2", b"Bearer t2", b"Bearer t3"]
    assert b"Basic Z2F0ZTpz" in authority.asked[0]
    assert b"scope=tools&resource=https%3A%2F%2Fup.example%2Fmcp" in authority.asked[0]


async def test_without_a_token_nothing_is_asked(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An authorization server that gives none fails the call, and says why."""
    monkeypatch.setenv("CLIENT_SECRET", "s")
    authority = Authority()
    authority.status = b"400 Bad Request"
    async with kit.scripted_server() as server, listening(authority.handle) as port:
        up = {"websocket": {"url": server.url, "oauth": oauth(port)}}
        async with kit.gateway({"up": up}) as gateway, kit.speaking(kit.url_of(gateway)) as client:
            failed = await client.call_modern()

    assert "cannot be asked" in failed["error"]["message"]
    assert "the authorization server gives the gateway no token" in failed["error"]["message"]
    assert server.headers == []


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_proxy_passes_the_websocket_on(kit: Any, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """With `proxy_auth` it is shown user and password; it looks the name up itself."""
    monkeypatch.setenv("PROXY_PASSWORD", "open sesame")
    async with kit.scripted_server() as server:
        relay = Relay(int(server.url.split(":")[2].split("/")[0]))
        async with listening(relay.tunnel if scheme == "http" else relay.socks) as port:
            up = {
                "websocket": {
                    "url": "ws://up.example/mcp",
                    "proxy": f"{scheme}://127.0.0.1:{port}",
                    "proxy_auth": {"user": "Aladdin", "password": {"from_env": "PROXY_PASSWORD"}},
                }
            }
            async with kit.gateway({"up": up}) as gateway, kit.speaking(kit.url_of(gateway)) as client:
                reply = await client.call_modern()

    assert "result" in reply
    if scheme == "http":
        assert relay.heard[0].startswith(b"CONNECT up.example:80 HTTP/1.1\r\n")
        assert b"proxy-authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n" in relay.heard[0]
    else:
        assert relay.heard == [b"\x01\x07Aladdin\x0bopen sesame", b"\x05\x01\x00\x03\x0aup.example\x00\x50"]


async def test_a_refused_address_is_a_security_event(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As over HTTP: somebody made the upstream's name lead into our own network."""

    async def resolve(_host: str, port: int, **_: Any) -> list[Any]:
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", resolve)
    told: list[str] = []
    async with (
        kit.gateway({"up": {"websocket": {"url": "ws://up.example/mcp"}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as client,
    ):
        monkeypatch.setattr(gateway.pipelines["main"], "alarm", lambda event: told.append(event.reason), raising=True)
        failed = await client.call_modern()

    assert "allow_private" in failed["error"]["message"]
    assert told == ["address_refused"]


async def test_restart_closes_connections_and_the_next_call_opens_one(kit: Any) -> None:
    """Sessions end with theirs."""
    async with kit.scripted_server() as server:
        async with (
            kit.gateway({"up": {"websocket": {"url": server.url}}}) as gateway,
            kit.speaking(kit.url_of(gateway)) as client,
        ):
            sink = gateway.sinks["up"]
            await client.call_modern()
            assert await sink.act("restart", {}) == {"stopped": 1}
            await kit.until(lambda: not server.open)
            after = await client.call_modern(request_id=2)
            with pytest.raises(LookupError, match="restart"):
                await sink.act("explode", {})

        assert "result" in after
        assert len(server.headers) == 2


async def test_what_cannot_be_sent_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret with a line end in it; a proxy's password without a proxy."""
    with pytest.raises(ValueError, match="proxy_auth"):
        WebSocketSinkConfig(url="ws://up.example/", proxy_auth=object())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sec-websocket-key is written"):
        WebSocketSinkConfig(url="ws://up.example/", headers={"sec-websocket-key": "x"})
    monkeypatch.setenv("CLIENT_SECRET", "s")
    sink = WebSocketSink(WebSocketSinkConfig(url="ws://up.example/mcp"), Context(id="up"))
    async with sink.open():
        assert await sink.act("restart", {}) == {"stopped": 0}
