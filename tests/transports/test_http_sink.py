"""The `http` sink's options, and what it does over real sockets: names, addresses, TLS, proxies, ends of every kind."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.protocol.errors import (
    ConnectFailed,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.messages import Request, Result
from sluiceway.pipeline.testing import check_sink, memory_exchange
from sluiceway.transports.http_client import connect
from sluiceway.transports.http_client.parser import ResponseParser
from sluiceway.transports.http_sink import HttpSink
from sluiceway.transports.http_upstream.config import HttpSinkConfig, OAuthConfig, ProxyAuthConfig, TlsConfig

Serve = Callable[[trio.abc.Stream], Awaitable[None]]


def reply_to(head_and_body: bytes) -> bytes:
    """A result with the request's id; its value is the path and the Host of the request."""
    head, _, body = head_and_body.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    host = next(line.partition(": ")[2] for line in lines if line.startswith("host: "))
    answer = json.dumps(
        {"jsonrpc": "2.0", "id": json.loads(body)["id"], "result": {"at": lines[0].split()[1], "host": host}}
    )
    return (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n{answer}".encode()
    )


async def answering(stream: trio.abc.Stream, seen: list[bytes] | None = None) -> None:
    """Answer every request on a connection; requests come in one piece."""
    with trio.move_on_after(10):
        try:
            while data := await stream.receive_some(65536):
                if seen is not None:
                    seen.append(bytes(data))
                await stream.send_all(reply_to(bytes(data)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
    await trio.aclose_forcefully(stream)


@asynccontextmanager
async def listening(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a free port of loopback."""

    async def handle(stream: trio.SocketStream) -> None:
        wrapped: trio.abc.Stream = stream
        if tls is not None:
            wrapped = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        try:
            await serve(wrapped)
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(wrapped)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[HttpSink]:
    """A sink on a modern upstream, in bounded time."""
    with trio.fail_after(10):
        sink = HttpSink(HttpSinkConfig(**{"url": url, "era": "modern", **options}), Context(id="up"))
        async with sink.open():
            yield sink


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of localhost that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def server_tls(certificate: Path, *, ask: bool = False) -> ssl.SSLContext:
    """The server's side; with `ask` it wants a client certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    if ask:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate)
    return context


async def test_calls_share_a_connection():
    """The path, the query and the port of the url are used."""
    connections = 0

    async def serve(stream: trio.abc.Stream) -> None:
        nonlocal connections
        connections += 1
        await answering(stream)

    async with listening(serve) as port, opened(f"http://127.0.0.1:{port}/a?b=c") as sink:
        for _ in range(3):
            assert await sink(memory_exchange()) == Result({"at": "/a?b=c", "host": f"127.0.0.1:{port}"})

    assert connections == 1


async def test_calls_that_are_answered_with_events_share_a_connection():
    """The end of a stream that comes after its reply is read by whoever uses the connection next."""
    connections = 0

    async def serve(stream: trio.abc.Stream) -> None:
        nonlocal connections
        connections += 1
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        while data := bytes(await stream.receive_some(65536)):
            event = b"data: " + reply_to(data).partition(b"\r\n\r\n")[2] + b"\n\n"
            await stream.send_all(head + b"%x\r\n%b\r\n" % (len(event), event))
            await trio.testing.wait_all_tasks_blocked()
            await stream.send_all(b"0\r\n\r\n")
            ended.set()

    async with listening(serve) as port, opened(f"http://127.0.0.1:{port}/") as sink:
        for _ in range(3):
            ended = trio.Event()
            assert isinstance(await sink(memory_exchange()), Result)
            await ended.wait()

    assert connections == 1


async def test_a_large_request_goes_out_whole():
    """Whatever the kernel takes at a time."""
    raw = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"x":"' + b"x" * 8_000_000 + b'"}}'
    got = 0

    async def serve(stream: trio.abc.Stream) -> None:
        nonlocal got
        while got < len(raw):
            got += len(await stream.receive_some(1 << 20))
            await trio.lowlevel.checkpoint()
        await stream.send_all(reply_to(b'POST / HTTP/1.1\r\nhost: x\r\n\r\n{"id": 1}'))

    async with listening(serve) as port, opened(f"http://127.0.0.1:{port}/") as sink:
        exchange = memory_exchange()
        assert isinstance(await sink(exchange.with_request(Request(1, "tools/call", {}, raw))), Result)

    assert got > len(raw)


async def test_a_connection_that_the_peer_closed_is_replaced_unseen():
    """It was closed before the request, so even a call can be sent on another."""

    async def serve(stream: trio.abc.Stream) -> None:
        data = await stream.receive_some(65536)
        await stream.send_all(reply_to(bytes(data)))
        await stream.aclose()

    async with listening(serve) as port, opened(f"http://127.0.0.1:{port}/") as sink:
        for _ in range(3):
            assert isinstance(await sink(memory_exchange()), Result)
            await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize(("method", "repeated"), [("tools/call", False), ("tools/list", True)])
async def test_a_connection_that_breaks_under_a_request(method, repeated):
    """Case 35: on a connection that was used before, what is safe to repeat is, once; a call never."""
    got: list[bytes] = []

    async def serve(stream: trio.abc.Stream) -> None:
        data = bytes(await stream.receive_some(65536))
        got.append(data)
        await stream.send_all(reply_to(data))
        data = bytes(await stream.receive_some(65536))
        if data:
            got.append(data)
        await trio.aclose_forcefully(stream)

    async with listening(serve) as port, opened(f"http://127.0.0.1:{port}/") as sink:
        await sink(memory_exchange())
        if repeated:
            assert isinstance(await sink(memory_exchange(method)), Result)
        else:
            with pytest.raises(UpstreamClosed, match="may have run") as caught:
                await sink(memory_exchange(method))
            assert not caught.value.retryable

    assert len(got) == (3 if repeated else 2)


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: application/json\r\n\r\n{"],
)
@pytest.mark.parametrize("reset", [True, False])
async def test_an_upstream_that_breaks_off_is_a_failure(said, reset):
    """Case 32: FIN before the reply, RST in the middle."""

    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some(65536)
        if said:
            await stream.send_all(said)
        if reset:
            assert isinstance(stream, trio.SocketStream)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()

    async with listening(serve) as port, opened(f"http://127.0.0.1:{port}/") as sink:
        with pytest.raises(UpstreamClosed):
            await sink(memory_exchange())


async def test_what_is_not_http_is_a_failure():
    """The reason is named."""

    async def serve(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"SSH-2.0-OpenSSH\r\n")
        await stream.receive_some(65536)

    async with listening(serve) as port, opened(f"http://127.0.0.1:{port}/") as sink:
        with pytest.raises(UpstreamProtocolError, match=r"not HTTP/1\.1"):
            await sink(memory_exchange())


async def test_nobody_listens():
    """Case 32: connection refused, and a name that does not exist."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        async with opened(f"http://127.0.0.1:{port}/") as sink:
            with pytest.raises(ConnectFailed, match="refused") as caught:
                await sink(memory_exchange())

    assert "127.0.0.1" not in str(caught.value)  # where upstreams are is nothing for clients


class Names(trio.abc.HostnameResolver):
    """A resolver that knows what the test says."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked = 0

    async def getaddrinfo(self, host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if not self.addresses:
            raise socket.gaierror(-2, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]

    async def getnameinfo(self, *_: Any) -> Any:
        raise AssertionError("nobody asks")


async def test_a_name_that_leads_to_a_private_address_is_refused_unless_allow_private_is_set():
    """Case 44: before a connection is made; what was checked is what is connected to."""
    names = Names("127.0.0.1")
    trio.socket.set_custom_hostname_resolver(names)
    async with listening(answering) as port:
        async with opened(f"http://up.example:{port}/") as sink:
            with pytest.raises(ConnectFailed, match="allow_private"):
                await sink(memory_exchange())
        async with opened(f"http://up.example:{port}/", allow_private=True) as sink:
            assert await sink(memory_exchange()) == Result({"at": "/", "host": f"up.example:{port}"})

    assert names.asked == 2


async def test_a_name_that_does_not_exist():
    """The message does not show what the resolver said."""
    trio.socket.set_custom_hostname_resolver(Names())
    async with opened("http://up.example/") as sink:
        with pytest.raises(ConnectFailed, match="cannot be resolved"):
            await sink(memory_exchange())


async def test_the_next_address_is_tried():
    """One of two is dead: 127.0.0.2 has no listener."""
    trio.socket.set_custom_hostname_resolver(Names("127.0.0.2", "127.0.0.1"))
    async with listening(answering) as port, opened(f"http://localhost:{port}/") as sink:
        assert isinstance(await sink(memory_exchange()), Result)


async def test_connecting_takes_no_longer_than_connect_timeout(autojump_clock):
    """On the mock clock: a resolver that never answers."""

    class Never(Names):
        async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
            await trio.sleep_forever()

    trio.socket.set_custom_hostname_resolver(Never())
    sink = HttpSink(HttpSinkConfig(url="http://up.example/", connect_timeout=7.0), Context(id="up"))
    async with sink.open():
        started = trio.current_time()
        with pytest.raises(ConnectFailed, match=r"7 s \(connect_timeout\)"):
            await sink(memory_exchange())

    assert trio.current_time() - started == pytest.approx(7)


async def test_an_address_that_never_answers_costs_its_share_of_the_time(autojump_clock, monkeypatch):
    """On the mock clock: two black holes share connect_timeout."""

    async def connect_never(self: Any, address: Any) -> None:
        await trio.sleep_forever()

    trio.socket.set_custom_hostname_resolver(Names("127.0.0.1", "127.0.0.2"))
    monkeypatch.setattr("trio._socket._SocketType.connect", connect_never)
    dialer = connect.Dialer(
        origin=connect.Origin(False, "localhost", 1, "/"), timeout_s=10, tls=None, allow_private=True
    )
    with pytest.raises(connect.DialFailed, match=r"no answer|connect_timeout"):
        await dialer()


async def test_tls_trusts_what_ca_names(certificate):
    """The system does not know this certificate."""
    async with listening(answering, server_tls(certificate)) as port:
        async with opened(f"https://localhost:{port}/") as sink:
            with pytest.raises(ConnectFailed, match=r"tls\.ca"):
                await sink(memory_exchange())
        async with opened(f"https://localhost:{port}/", tls=TlsConfig(ca=certificate)) as sink:
            for _ in range(2):
                assert isinstance(await sink(memory_exchange()), Result)


async def test_tls_shows_the_client_certificate(certificate):
    """With its key in a file of its own or the same."""
    async with listening(answering, server_tls(certificate, ask=True)) as port:
        for tls, fine in (
            (TlsConfig(ca=certificate), False),
            (TlsConfig(ca=certificate, cert=certificate), True),
            (TlsConfig(ca=certificate, cert=certificate, key=certificate), True),
        ):
            async with opened(f"https://localhost:{port}/", tls=tls) as sink:
                if fine:
                    assert isinstance(await sink(memory_exchange()), Result)
                else:
                    with pytest.raises((ConnectFailed, UpstreamClosed)):
                        await sink(memory_exchange())


async def test_a_certificate_that_cannot_be_read_is_named_at_the_start(tmp_path):
    """Not at the first request."""
    sink = HttpSink(HttpSinkConfig(url="https://a.example/", tls=TlsConfig(ca=tmp_path / "none")), Context(id="up"))
    with pytest.raises(ConnectFailed, match="tls"):
        async with sink.open():
            pass


@pytest.mark.parametrize("refusal", [None, b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n", b""])
async def test_a_proxy_tunnels_to_the_upstream(refusal):
    """CONNECT first, then the same bytes as without it; its refusal is named."""
    seen: list[bytes] = []

    async def serve(stream: trio.abc.Stream) -> None:
        seen.append(bytes(await stream.receive_some(65536)))
        await stream.send_all(b"HTTP/1.1 200 Fine\r\n\r\n" if refusal is None else refusal)
        if refusal is None:
            await answering(stream)
        await stream.aclose()

    async with listening(serve) as port, opened("http://up.example/mcp", proxy=f"http://127.0.0.1:{port}") as sink:
        if refusal is None:
            assert await sink(memory_exchange()) == Result({"at": "/mcp", "host": "up.example"})
        else:
            with pytest.raises(ConnectFailed, match="proxy"):
                await sink(memory_exchange())

    assert seen[0] == b"CONNECT up.example:80 HTTP/1.1\r\nhost: up.example:80\r\n\r\n"


@pytest.mark.parametrize("fine", [True, False])
async def test_a_proxy_is_shown_proxy_auth(monkeypatch, fine):
    """Basic, as RFC 7617 has it; one that refuses it is named, and the option."""
    monkeypatch.setenv("PROXY_PASSWORD", "open sesame")
    seen: list[bytes] = []

    async def serve(stream: trio.abc.Stream) -> None:
        seen.append(bytes(await stream.receive_some(65536)))
        if fine:
            await stream.send_all(b"HTTP/1.1 200 Fine\r\n\r\n")
            await answering(stream)
        else:
            await stream.send_all(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n")
        await stream.aclose()

    auth = ProxyAuthConfig(user="Aladdin", password=Secret(from_env="PROXY_PASSWORD"))
    async with listening(serve) as port:
        proxy = f"http://127.0.0.1:{port}"
        async with opened("http://up.example/mcp", proxy=proxy, proxy_auth=auth) as sink:
            if fine:
                assert await sink(memory_exchange()) == Result({"at": "/mcp", "host": "up.example"})
            else:
                with pytest.raises(ConnectFailed, match=r"HTTP 407 \(proxy_auth\)"):
                    await sink(memory_exchange())

    assert b"\r\nproxy-authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n" in seen[0]


async def test_a_password_that_no_proxy_can_be_told_is_refused_at_the_start(monkeypatch):
    """Without showing it."""
    monkeypatch.setenv("PROXY_PASSWORD", "sesame\n")
    auth = ProxyAuthConfig(user="ana", password=Secret(from_env="PROXY_PASSWORD"))
    config = HttpSinkConfig(url="http://up.example/", proxy="http://127.0.0.1:1", proxy_auth=auth)
    with pytest.raises(ConnectFailed, match="proxy_auth") as caught:
        async with HttpSink(config, Context(id="up")).open():
            pytest.fail("it opened")  # pragma: no cover

    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "target"), [("socks5h", b"\x03\x0aup.example\0\x50"), ("socks5", b"\x01\xc0\0\x02\x01\0\x50")]
)
async def test_a_socks_proxy_passes_on_to_the_upstream(scheme, target):
    """It looks the name up itself, or is given an address that we looked up."""
    seen: list[bytes] = []

    async def serve(stream: trio.abc.Stream) -> None:
        assert await stream.receive_some(3) == b"\x05\x01\0"
        await stream.send_all(b"\x05")
        await stream.send_all(b"\0")
        seen.append(bytes(await stream.receive_some(100)))
        await stream.send_all(b"\x05\0\0\x01" + bytes(6))
        await answering(stream)

    trio.socket.set_custom_hostname_resolver(Names("192.0.2.1"))
    async with listening(serve) as port:
        proxy = f"{scheme}://127.0.0.1:{port}"
        async with opened("http://up.example/mcp", proxy=proxy, allow_private=True) as sink:
            for _ in range(2):
                assert await sink(memory_exchange()) == Result({"at": "/mcp", "host": "up.example"})

    assert seen == [b"\x05\x01\0" + target]


async def test_a_name_that_leads_to_a_private_address_is_refused_behind_socks5_too():
    """The gateway looked it up, so it can tell."""

    async def serve(stream: trio.abc.Stream) -> None:
        assert await stream.receive_some(100) == b""

    trio.socket.set_custom_hostname_resolver(Names("10.0.0.1"))
    async with listening(serve) as port, opened("http://up.example/", proxy=f"socks5://127.0.0.1:{port}") as sink:
        with pytest.raises(ConnectFailed, match="allow_private"):
            await sink(memory_exchange())


@pytest.mark.parametrize(
    ("said", "words"),
    [(b"\x05\xff", r"does not pass it on: it wants credentials \(proxy_auth\)"), (b"\x05", "broke off")],
)
async def test_a_socks_proxy_that_refuses_or_breaks_off_is_named(said, words):
    """With what it said."""

    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some(100)
        await stream.send_all(said)
        await stream.aclose()

    async with listening(serve) as port, opened("http://up.example/", proxy=f"socks5h://127.0.0.1:{port}") as sink:
        with pytest.raises(ConnectFailed, match=words):
            await sink(memory_exchange())


async def test_tls_goes_through_a_socks_proxy(certificate):
    """The proxy sees nothing of it; the certificate is checked for the upstream's name."""

    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some(3)
        await stream.send_all(b"\x05\0")
        await stream.receive_some(100)
        await stream.send_all(b"\x05\0\0\x01" + bytes(6))
        await answering(trio.SSLStream(stream, server_tls(certificate), server_side=True, https_compatible=True))

    async with listening(serve) as port:
        proxy = f"socks5h://127.0.0.1:{port}"
        async with opened("https://localhost/mcp", proxy=proxy, tls=TlsConfig(ca=certificate)) as sink:
            assert await sink(memory_exchange()) == Result({"at": "/mcp", "host": "localhost"})


async def test_headers_hold_secrets_that_are_resolved_when_it_opens(monkeypatch):
    """And never before; one that cannot be sent is not shown."""
    seen: list[bytes] = []
    config = {"headers": {"x-key": Secret(from_env="UPSTREAM_KEY"), "x-plain": "1"}}
    monkeypatch.setenv("UPSTREAM_KEY", "k3y")
    async with listening(partial(answering, seen=seen)) as port, opened(f"http://127.0.0.1:{port}/", **config) as sink:
        await sink(memory_exchange())
    assert b"\r\nx-key: k3y\r\n" in seen[0]
    assert b"\r\nx-plain: 1\r\n" in seen[0]

    for bad in ("a\nb", "€"):
        monkeypatch.setenv("UPSTREAM_KEY", bad)
        with pytest.raises(ConnectFailed, match="cannot carry") as caught:
            async with opened("http://127.0.0.1/", **config):
                pass
        assert bad not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "ftp://a"}, "http"),
        ({"proxy": "https://a"}, "proxy"),
        ({"proxy_auth": ProxyAuthConfig("ana", Secret(from_env="P"))}, "proxy_auth"),
        ({"headers": {"Host": "a"}}, "Host"),
        ({"headers": {"Mcp-Name": "a"}}, "Mcp-Name"),
        ({"headers": {"a": "b\r\nc"}}, "'a'"),
        ({"headers": {"": "b"}}, "''"),
        ({"tls": TlsConfig(key=Path("k"))}, "key"),
        (
            {
                "headers": {"Authorization": "x"},
                "oauth": OAuthConfig(token_url="http://a", client_id="c", client_secret=Secret(from_env="S")),
            },
            "authorization",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    """When the configuration is read."""
    with pytest.raises(ValueError, match=words):
        HttpSinkConfig(**{"url": "http://a", **options})


def test_a_token_endpoint_must_be_an_address():
    """When the configuration is read."""
    with pytest.raises(ValueError, match="http"):
        OAuthConfig(token_url="file:///x", client_id="c", client_secret=Secret(from_env="S"))


async def test_a_token_endpoint_that_leads_to_a_private_address_is_refused(monkeypatch):
    """Case 44: before a connection is made, and neither it nor the upstream hears of anything."""
    monkeypatch.setenv("S", "canary")
    names, heard = Names("169.254.169.254"), []
    trio.socket.set_custom_hostname_resolver(names)

    async def serve(stream: trio.abc.Stream) -> None:
        heard.append(await stream.receive_some(65536))

    oauth = OAuthConfig(token_url="http://id.example/token", client_id="c", client_secret=Secret(from_env="S"))
    async with listening(serve) as port, opened(f"http://127.0.0.1:{port}/", oauth=oauth) as sink:
        with pytest.raises(ConnectFailed, match="private address") as caught:
            await sink(memory_exchange())

    assert names.asked == 1
    assert heard == []
    assert "169.254" not in str(caught.value)


async def test_a_token_endpoint_that_redirects_is_not_followed(monkeypatch):
    """Case 44: the client's secret goes to the address that the configuration names, and no further."""
    monkeypatch.setenv("S", "canary")
    heard: list[bytes] = []

    async def elsewhere(stream: trio.abc.Stream) -> None:
        heard.append(bytes(await stream.receive_some(65536)))

    async with listening(elsewhere) as other:

        async def moved(stream: trio.abc.Stream) -> None:
            await stream.receive_some(65536)
            location = f"location: http://127.0.0.1:{other}/\r\n".encode()
            await stream.send_all(b"HTTP/1.1 307 Moved\r\ncontent-length: 0\r\n%b\r\n" % location)
            await stream.receive_some(65536)

        async with listening(moved) as port:
            oauth = OAuthConfig(
                token_url=f"http://127.0.0.1:{port}/token", client_id="c", client_secret=Secret(from_env="S")
            )
            async with opened(f"http://127.0.0.1:{other}/", oauth=oauth) as sink:
                with pytest.raises(UpstreamUnavailable, match="HTTP 307"):
                    await sink(memory_exchange())

    assert heard == []


async def test_connections_at_rest_are_closed_after_keep_idle(autojump_clock, monkeypatch):
    """On the mock clock, over memory; a connection that is in use stays."""
    from sluiceway.transports.http_upstream import reach

    closed: list[int] = []

    class Line:
        number = 0

        def send_nowait(self, data: bytes) -> int:
            return 0

        async def send_all(self, data: bytes | memoryview) -> None:
            await trio.lowlevel.checkpoint()

        async def receive_some(self, max_bytes: int) -> bytes:
            await trio.lowlevel.checkpoint()
            return reply_to(b'POST / HTTP/1.1\r\nhost: x\r\n\r\n{"id": 1}')

        def close(self) -> None:
            closed.append(1)

        def is_readable(self) -> bool:
            return False

    async def dial() -> Line:
        await trio.lowlevel.checkpoint()
        return Line()

    monkeypatch.setattr(reach, "Dialer", lambda **_: dial)
    sink = HttpSink(HttpSinkConfig(url="http://a.example/", era="modern", keep_idle=10.0), Context(id="up"))
    async with sink.open():
        await sink(memory_exchange())
        await trio.sleep(9)
        assert closed == []
        await trio.sleep(7)
        assert closed == [1]
        await sink(memory_exchange())
        await trio.sleep(60)
        assert closed == [1, 1]


def test_it_keeps_the_contract_of_sinks():
    """Against a server that is not there: every exchange fails properly, and nothing stays."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/"
        check_sink(
            HttpSink, {"url": url}, virtual_time=False, samples=[("tools/call", {"name": "n"}), ("tools/list", {})]
        )


async def test_the_parser_is_given_bytes_only():
    """What TLS returns are byte arrays, which are not kept."""
    parser = ResponseParser()
    parser.feed(bytes(bytearray(b"HTTP/1.1 204 No\r\n\r\n")))

    assert parser.complete
