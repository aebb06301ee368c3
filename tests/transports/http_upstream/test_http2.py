"""The `http` sink over HTTP/2: real sockets, real TLS, and hypercorn as the server."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hypercorn.trio
import pytest
import trio
from hypercorn.config import Config

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.errors import ConnectFailed
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.http_sink import HttpSink
from sluiceway.transports.http_upstream.config import HttpSinkConfig, TlsConfig


async def app(scope: Any, receive: Any, send: Any) -> None:
    """A modern server whose every result says over which version of HTTP it was asked."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    request = json.loads(body)
    result = {"over": scope["http_version"], "echo": request["params"].get("arguments"), "resultType": "complete"}
    answer = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()
    if request["params"].get("name") == "stream":
        progress = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send(
            {"type": "http.response.body", "body": b"data: %b\n\n" % json.dumps(progress).encode(), "more_body": True}
        )
        await send({"type": "http.response.body", "body": b"data: %b\n\n" % answer})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": answer})


@asynccontextmanager
async def serving(
    certificate: tuple[Path, Path] | None = None,
    *,
    alpn: tuple[str, ...] = ("h2", "http/1.1"),
    keep_alive_max_requests: int = 1000,
) -> AsyncIterator[str]:
    """Hypercorn on a free port; yields its address."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = None
    config.alpn_protocols = list(alpn)
    config.graceful_timeout = 1.0
    config.keep_alive_max_requests = keep_alive_max_requests
    if certificate is not None:
        config.certfile, config.keyfile = map(str, certificate)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        serve = partial(hypercorn.trio.serve, app, config, shutdown_trigger=stop.wait, mode="asgi")
        (address,) = await nursery.start(serve)
        yield address.replace("127.0.0.1", "localhost")
        stop.set()


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[HttpSink]:
    """A sink on a modern upstream, in bounded time."""
    with trio.fail_after(20):
        sink = HttpSink(HttpSinkConfig(**{"url": f"{url}/mcp", "era": "modern", **options}), Context(id="up"))
        async with sink.open():
            yield sink


async def over(sink: HttpSink, name: str = "plain", arguments: Any = None) -> tuple[str, Any, int]:
    """Over which version a call went, what came back of its arguments, and how many notifications came before."""
    interim: list[Any] = []
    reply = await sink(memory_exchange("tools/call", {"name": name, "arguments": arguments}, interim=interim))
    assert isinstance(reply, Result)
    return reply.value["over"], reply.value["echo"], len(interim)


async def test_http2_is_spoken_where_the_handshake_chooses_it(authority: Any) -> None:
    """With `auto` and ALPN; streams and large content included, all on one connection."""
    tls = TlsConfig(ca=authority.file)
    async with serving(authority.issue()) as url, opened(url, http2="auto", tls=tls) as sink:
        assert await over(sink) == ("2", None, 0)
        assert await over(sink, "stream", "x") == ("2", "x", 1)
        big = "b" * 1_000_000
        assert await over(sink, arguments=big) == ("2", big, 0)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(over, sink, "plain", number)

        figures = {(f.name, *f.labels.values()): f.value for f in sink.figures()}
        assert figures["pool_opened_total", "call"] == 1
        assert figures["pool_reused_total", "call"] == 52


@pytest.mark.parametrize(("http2", "expected"), [("auto", "1.1"), ("never", "1.1")])
async def test_http1_is_spoken_where_the_handshake_chooses_it(authority: Any, http2: str, expected: str) -> None:
    """The connection on which that was found out is used; or HTTP/2 was not even offered."""
    tls = TlsConfig(ca=authority.file)
    alpn = ("http/1.1",) if http2 == "auto" else ("h2", "http/1.1")
    async with serving(authority.issue(), alpn=alpn) as url, opened(url, http2=http2, tls=tls) as sink:
        assert (await over(sink))[0] == expected
        assert (await over(sink))[0] == expected
        figures = {(f.name, *f.labels.values()): f.value for f in sink.figures()}
        assert figures["pool_opened_total", "call"] == 1


async def test_http2_is_spoken_without_asking_where_it_is_known() -> None:
    """Prior knowledge, without TLS."""
    async with serving() as url, opened(url, http2="always") as sink:
        assert await over(sink) == ("2", None, 0)
        assert sink.details()["connections"] == {"call": {"open": 1, "idle": 1, "requests": 0, "waiting": 0}}


async def test_a_server_without_http2_is_named_as_such() -> None:
    """`always` takes nothing else."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        async with opened(f"http://localhost:{listener.socket.getsockname()[1]}", http2="always") as sink:
            with pytest.raises(ConnectFailed, match="does not speak HTTP/2"):
                await over(sink)
        nursery.cancel_scope.cancel()


def test_where_there_is_no_handshake_nothing_can_be_chosen_in_it() -> None:
    """`auto` needs https."""
    with pytest.raises(ValueError, match="http2: auto asks in the TLS handshake"):
        HttpSinkConfig(url="http://up.example/mcp", http2="auto")


async def test_a_client_certificate_is_shown_over_http2(authority: Any) -> None:
    """As over HTTP/1.1."""
    cert, key = authority.issue("gate")
    certificate = authority.issue()
    asked = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
        context.load_cert_chain(*map(str, certificate))
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["h2"])
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            assert (await tls.receive_some(24)).startswith(b"PRI * HTTP/2.0")
            asked.set()
        except trio.BrokenResourceError:
            pass
        await trio.aclose_forcefully(tls)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        url = f"https://localhost:{listener.socket.getsockname()[1]}"
        shown = TlsConfig(ca=authority.file, cert=cert, key=key)
        async with opened(url, http2="auto", tls=shown) as sink:
            with pytest.raises(ConnectFailed, match="HTTP/2"):
                await over(sink)
        nursery.cancel_scope.cancel()

    assert asked.is_set()


async def test_a_server_that_goes_away_now_and_then_loses_no_call() -> None:
    """Hypercorn ends a connection after so many requests, whatever is under way on it."""
    async with serving(keep_alive_max_requests=1100) as url, opened(url, http2="always") as sink:
        answers = []

        async def many() -> None:
            for number in range(100):
                _, echo, _ = await over(sink, arguments=number)
                answers.append(echo)

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(many)

        assert sorted(answers) == sorted(list(range(100)) * 12)
        figures = {(f.name, *f.labels.values()): f.value for f in sink.figures()}
        assert figures["pool_opened_total", "call"] == 2


async def test_http2_goes_through_a_proxy(authority: Any) -> None:
    """TLS and ALPN are between the gateway and the upstream: the proxy passes bytes on."""
    asked: list[bytes] = []

    async def proxy(stream: trio.SocketStream) -> None:
        asked.append(bytes(await stream.receive_some(4096)).partition(b"\r\n")[0])
        onward = await trio.open_tcp_stream("127.0.0.1", int(asked[-1].split(b" ")[1].rpartition(b":")[2]))
        await stream.send_all(b"HTTP/1.1 200 Connected\r\n\r\n")

        async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
            async for data in source:
                await sink.send_all(data)
            await sink.send_eof()

        async with stream, onward, trio.open_nursery() as nursery:
            nursery.start_soon(pump, stream, onward)
            nursery.start_soon(pump, onward, stream)

    async with serving(authority.issue()) as url, trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, proxy, 0, host="127.0.0.1"))
        through = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with opened(url, http2="auto", tls=TlsConfig(ca=authority.file), proxy=through) as sink:
            assert (await over(sink))[0] == "2"
            assert (await over(sink))[0] == "2"
        nursery.cancel_scope.cancel()

    assert asked == [b"CONNECT %b HTTP/1.1" % url.removeprefix("https://").encode()]


async def test_a_sink_that_starts_anew_opens_new_connections(authority: Any) -> None:
    """What an operator asks for, and what following its name comes to."""
    async with serving() as url, opened(url, http2="always") as sink:
        await over(sink)
        await sink.act("restart", {})
        await over(sink)
        figures = {(f.name, *f.labels.values()): f.value for f in sink.figures()}
        assert (figures["pool_opened_total", "call"], figures["pool_closed_total", "call", "renewed"]) == (2, 1)
