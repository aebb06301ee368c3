"""HTTP/2 on real sockets: who gets it, with clients that are not ours, and what is left of connections."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from sluiceway.pipeline.model.options import ConfigPath
from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.transports.server_tls import ServerTlsConfig


def tls(shown: tuple[Path, Path], **options: Any) -> ServerTlsConfig:
    """The server's options."""
    return ServerTlsConfig(cert=ConfigPath(shown[0]), key=ConfigPath(shown[1]), **options)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what nobody tells of: the other side of a real socket."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110  # so it is
            await trio.sleep(0.005)


async def secure(served: Any, context: ssl.SSLContext, *offered: str) -> trio.SSLStream[trio.SocketStream]:
    """A TLS connection, shaken hands."""
    context.set_alpn_protocols(offered)
    host, _, port = served.source.addresses[0].rpartition(":")
    tcp = await trio.open_tcp_stream(host, int(port))
    stream = trio.SSLStream(tcp, context, server_hostname="localhost", https_compatible=True)
    await stream.do_handshake()
    return stream


@pytest.mark.parametrize(
    ("http2", "offered", "spoken"),
    [
        (True, ("h2", "http/1.1"), "h2"),
        (True, ("http/1.1", "h2"), "h2"),
        (True, ("http/1.1",), "http/1.1"),
        (True, ("h3",), None),
        (False, ("h2", "http/1.1"), "http/1.1"),
        (False, ("h2",), None),
    ],
)
async def test_http2_is_offered_over_tls_unless_it_is_turned_off(
    running: Any, authority: Any, http2: bool, offered: tuple[str, ...], spoken: str | None
) -> None:
    """By ALPN, before HTTP/1.1; who knows neither speaks HTTP/1.1."""
    async with running(bound=True, tls=tls(authority.issue()), http2=http2) as served:
        stream = await secure(served, authority.trusted(), *offered)
        async with stream:
            assert stream.selected_alpn_protocol() == spoken
            if spoken == "h2":
                await stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
                answer = await stream.receive_some()
                while piece := await stream.receive_some():
                    answer += piece
                assert answer[-17:] == bytes((0, 0, 8, 7, 0, 0, 0, 0, 0)) + struct.pack(">II", 0, 1)
            else:
                await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 505 ")


async def test_a_client_of_another_make_calls_and_listens(running: Any, authority: Any) -> None:
    """httpx2: many calls on one connection, a large result, an event stream; and its certificate is known."""
    certificates = []

    async def sink(exchange: Any) -> Any:
        certificates.append(exchange.client.certificate)
        if exchange.request.params.get("name") == "progress":
            await exchange.relay(Notification("notifications/progress", {"progressToken": 1, "progress": 1}))
        return Result({"text": "x" * exchange.request.params["arguments"]["size"]})

    shown = authority.issue("robot")
    options = tls(authority.issue(), client_certs="required", client_ca=ConfigPath(authority.file))
    async with running(sink, bound=True, tls=options) as served:
        url = served.source.urls[0].replace("127.0.0.1", "localhost")
        async with httpx2.AsyncClient(http1=False, http2=True, verify=authority.trusted(shown)) as client:

            async def call(size: int, name: str = "x") -> httpx2.Response:
                body = served.modern("tools/call", size, name=name, arguments={"size": size})
                headers = {k.replace("_", "-"): v for k, v in served.mirror(body).items()}
                headers["accept"] = "application/json, text/event-stream"
                return await client.post(url, json=body, headers=headers)

            answers: list[httpx2.Response] = []

            async def keep(size: int) -> None:
                answers.append(await call(size))

            async with trio.open_nursery() as nursery:
                for size in range(40):
                    nursery.start_soon(keep, size)
            large = await call(1_000_000)
            events = await call(5, "progress")

            assert {answer.http_version for answer in answers} == {"HTTP/2"}
            assert sorted(answer.json()["id"] for answer in answers) == list(range(40))
            assert len(large.json()["result"]["text"]) == 1_000_000
            assert events.headers["content-type"] == "text/event-stream"
            assert events.text.count("data:") == 2
            assert served.source.server.connections == 1
            assert [len(served.source.server.http2), served.source.server.http2[0].streams] == [1, 0]
        await until(lambda: served.source.server.connections == 0)

    assert set(certificates) == {shown[0].read_text()}


async def test_draining_loses_no_call_of_a_client_that_takes_goaway_badly(running: Any, authority: Any) -> None:
    """httpx2 gives up on what it has under way when it hears GOAWAY: so it hears it behind its answers."""
    under_way, go_on = [], trio.Event()

    async def sink(exchange: Any) -> Result:
        under_way.append(exchange)
        await go_on.wait()
        return Result()

    async with running(sink, bound=True, tls=tls(authority.issue())) as served:
        url = served.source.urls[0].replace("127.0.0.1", "localhost")
        statuses: list[int] = []
        async with httpx2.AsyncClient(http1=False, http2=True, verify=authority.trusted()) as client:

            async def call() -> None:
                body = served.modern("tools/call", 1, name="x")
                headers = {k.replace("_", "-"): v for k, v in served.mirror(body).items()}
                headers["accept"] = "application/json, text/event-stream"
                statuses.append((await client.post(url, json=body, headers=headers)).status_code)

            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(call)
                await until(lambda: len(under_way) == 20)
                served.source.stop_accepting()
                go_on.set()
        await served.source.delivered()

        assert statuses == [200] * 20


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_speaks_http2_to_it(running: Any, authority: Any) -> None:
    """The client that everybody has, on nghttp2."""
    async with running(bound=True, tls=tls(authority.issue())) as served:
        url = served.source.urls[0].replace("127.0.0.1", "localhost")
        body = served.modern("tools/list")
        lines = [f"-H{k.replace('_', '-')}: {v}" for k, v in served.mirror(body).items() if v]
        lines += ["-Hcontent-type: application/json", "-Haccept: application/json, text/event-stream"]
        command = ["curl", "-s", "--http2", "--cacert", str(authority.file), "-w", "\n%{http_version} %{http_code}"]
        done = await trio.run_process([*command, *lines, "-d", json.dumps(body), url], capture_stdout=True)
        answer, _, told = done.stdout.decode().rpartition("\n")

    assert told == "2 200"
    assert json.loads(answer)["result"] == {"method": "tools/list", "name": None}


async def test_connections_that_are_dropped_leave_no_descriptor(running: Any, authority: Any) -> None:
    """Case 9.2: 300 clients ask and go away, without GOAWAY, with FIN or RST, before, in or after their request."""
    async with running(bound=True, tls=tls(authority.issue())) as served:
        import h2.connection

        context = authority.trusted()
        before = len(os.listdir("/proc/self/fd"))

        async def client(n: int) -> None:
            stream = await secure(served, context, "h2")
            peer = h2.connection.H2Connection()
            peer.initiate_connection()
            name = "slow" if n % 3 else "x"
            body = json.dumps(served.modern("tools/call", n, name=name)).encode()
            fields = [(":method", "POST"), (":path", "/mcp"), (":scheme", "https"), (":authority", "localhost")]
            fields += [("content-type", "application/json"), ("accept", "*/*")]
            fields += [
                (k.replace("_", "-"), v) for k, v in served.mirror(served.modern("tools/call", name=name)).items()
            ]
            peer.send_headers(1, fields)
            peer.send_data(1, body, end_stream=True)
            data = peer.data_to_send()
            await stream.send_all(data[: len(data) if n % 5 else n])
            if n % 2:
                await stream.receive_some()
            if n % 4 == 0:
                option = struct.pack("ii", 1, 0)
                stream.transport_stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            await stream.transport_stream.aclose()

        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for n in range(30):
                    nursery.start_soon(client, n)
        await until(lambda: served.source.server.connections == 0)
        await until(lambda: not served.pipeline.lane.tickets)

        assert len(os.listdir("/proc/self/fd")) == before
        assert served.source.server.contained == 0
