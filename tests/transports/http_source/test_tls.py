"""TLS on the http source, over real loopback sockets: who is let in, what a handshake may cost, how connections end."""

from __future__ import annotations

import datetime
import json
import random
import shutil
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.options import ConfigPath, Secret
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.transports import server_tls
from sluiceway.transports.http_source.config import HttpConfig
from sluiceway.transports.http_source.source import HttpSource
from sluiceway.transports.server_tls import ServerTlsConfig, UnusableCertificate

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
ALIVE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def tls(shown: tuple[Path, Path], **options: Any) -> ServerTlsConfig:
    """The server's options."""
    return ServerTlsConfig(cert=ConfigPath(shown[0]), key=options.pop("key", shown[1]), **options)


@asynccontextmanager
async def plain(served: Any) -> AsyncIterator[trio.SocketStream]:
    """A TCP connection."""
    host, _, port = served.source.addresses[0].rpartition(":")
    with trio.fail_after(20):
        stream = await trio.open_tcp_stream(host, int(port))
        async with stream:
            yield stream


@asynccontextmanager
async def secure(served: Any, context: ssl.SSLContext) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    """A TLS connection, shaken hands."""
    async with plain(served) as stream:
        secured = trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True)
        await secured.do_handshake()
        yield secured


async def until(condition: Callable[[], object]) -> None:
    """Wait for what nobody tells of: the other side of a real socket."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110  # so it is
            await trio.sleep(0.005)


async def read_all(stream: Any) -> bytes:
    """Everything up to the end."""
    answer = b""
    while piece := await stream.receive_some():
        answer += piece
    return answer


async def ask(served: Any, context: ssl.SSLContext, data: bytes = HEALTH) -> bytes:
    """Send bytes, read to the end."""
    async with secure(served, context) as stream:
        await stream.send_all(data)
        return await read_all(stream)


async def test_requests_come_over_tls(running: Any, authority: Any) -> None:
    """HTTP/1.1 by ALPN, if the client would like nothing else that is spoken; its url says so."""
    async with running(bound=True, tls=tls(authority.issue())) as served:
        context = authority.trusted()
        context.set_alpn_protocols(["h3", "http/1.1"])
        async with secure(served, context) as stream:
            await stream.send_all(HEALTH)
            assert (await read_all(stream)).startswith(b"HTTP/1.1 200 ")

            assert stream.selected_alpn_protocol() == "http/1.1"
        assert served.source.urls == (f"https://{served.source.addresses[0]}/mcp",)
        await until(lambda: served.source.server.connections == 0)


async def test_a_large_answer_arrives_whole_and_the_end_is_announced(running: Any, authority: Any) -> None:
    """Several records; a client that insists on a goodbye gets one, though it was still saying something itself."""

    async def sink(_: Any) -> Result:
        return Result({"text": "x" * 1_000_000})

    async with running(sink, bound=True, tls=tls(authority.issue())) as served:
        body = served.modern("tools/list")
        lines = [f"{k.replace('_', '-')}: {v}" for k, v in served.mirror(body).items() if v]
        async with plain(served) as tcp:
            stream = trio.SSLStream(tcp, authority.trusted(), server_hostname="localhost", https_compatible=False)
            await stream.send_all(served.raw_post(body, *lines) + b"no request" * 1000)
            answer = await read_all(stream)
            stream.transport_stream.socket.close()

    first, _, rest = answer.partition(b"\r\n\r\n")
    message, refused, _ = rest.partition(b"HTTP/1.1 414 ")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert len(json.loads(message)["result"]["text"]) == 1_000_000
    assert refused


@pytest.mark.parametrize(
    ("asked", "shows", "let_in"),
    [
        ("off", "nothing", True),
        ("optional", "nothing", True),
        ("optional", "its own", True),
        ("optional", "a stranger's", False),
        ("optional", "an expired one", False),
        ("required", "nothing", False),
        ("required", "its own", True),
        ("required", "a stranger's", False),
    ],
)
async def test_who_is_let_in(running: Any, authority: Any, stranger: Any, asked: Any, shows: str, let_in: bool) -> None:
    """By the certificate it shows; and that is what stages see of it."""
    seen: list[str | None] = []
    expired = datetime.datetime(2020, 2, 1, tzinfo=datetime.UTC)
    shown = {
        "nothing": None,
        "its own": authority.issue("robot"),
        "a stranger's": stranger.issue("robot"),
        "an expired one": authority.issue("robot", ends=expired),
    }[shows]

    async def sink(exchange: Any) -> Result:
        seen.append(exchange.client.certificate)
        return Result()

    options = {} if asked == "off" else {"client_certs": asked, "client_ca": authority.file}
    async with running(sink, bound=True, tls=tls(authority.issue(), **options)) as served:
        body = served.modern("tools/list")
        lines = [f"{k.replace('_', '-')}: {v}" for k, v in served.mirror(body).items() if v]
        data = served.raw_post(body, *lines, "connection: close")
        if let_in:
            assert (await ask(served, authority.trusted(shown), data)).startswith(b"HTTP/1.1 200 ")
        else:
            answer = b""
            with suppress(trio.BrokenResourceError):  # in TLS 1.3 it is told after its handshake, or not at all
                answer = await ask(served, authority.trusted(shown), data)
            assert answer == b""
        failures = [entry for entry in served.log.entries if "handshake failed" in entry["event"]]

        assert served.source.server.tls.failed == (not let_in)
        assert len(failures) == (not let_in)
        assert len(seen) == let_in
        if seen and shows != "nothing":
            assert shown is not None
            assert seen == [shown[0].read_text()]


async def test_a_client_certificate_is_a_caller_of_auth_mtls(running: Any, authority: Any) -> None:
    """Nobody but the TLS layer can say which one: a header of the client's counts for nothing."""
    seen: list[Any] = []

    async def sink(exchange: Any) -> Result:
        seen.append(exchange.client.certificate)
        return Result()

    tls_ = tls(authority.issue(), client_certs="optional", client_ca=authority.file)
    async with running(sink, bound=True, tls=tls_) as served:
        body = served.modern("tools/list")
        lines = [f"{k.replace('_', '-')}: {v}" for k, v in served.mirror(body).items() if v]
        forged = "x-forwarded-client-cert: Hash=00"
        await ask(served, authority.trusted(), served.raw_post(body, *lines, forged, "connection: close"))

    assert seen == [None]


@pytest.mark.parametrize(("least", "offered", "fine"), [("TLSv1.2", "TLSv1_2", True), ("TLSv1.3", "TLSv1_2", False)])
async def test_old_versions_are_not_spoken(running: Any, authority: Any, least: Any, offered: str, fine: bool) -> None:
    """None below min_version."""
    context = authority.trusted()
    context.maximum_version = ssl.TLSVersion[offered]
    async with running(bound=True, tls=tls(authority.issue(), min_version=least)) as served:
        if fine:
            assert (await ask(served, context)).startswith(b"HTTP/1.1 200 ")
        else:
            with pytest.raises(trio.BrokenResourceError):
                await ask(served, context)


async def test_who_speaks_plain_http_is_told(running: Any, authority: Any) -> None:
    """In plain HTTP, or it could not read it."""
    async with running(bound=True, tls=tls(authority.issue())) as served, plain(served) as stream:
        await stream.send_all(HEALTH)
        answer = await read_all(stream)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"use https instead\n")


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01", b"\0" * 100], ids=["nothing", "half", "rubbish"])
async def test_a_handshake_takes_no_longer_than_handshake_timeout(running: Any, authority: Any, said: bytes) -> None:
    """A client that says nothing, stops in the middle or talks rubbish costs nothing more after that."""
    async with running(bound=True, tls=tls(authority.issue(), handshake_timeout=0.2)) as served:
        async with plain(served) as stream:
            await stream.send_all(said)
            await read_all(stream)

        assert served.source.server.tls.failed == 1
        assert (await ask(served, authority.trusted())).startswith(b"HTTP/1.1 200 ")


async def test_of_too_many_handshakes_the_longest_is_broken_off(running: Any, authority: Any) -> None:
    """Who stalls cannot keep others out: max_handshakes are under way at most."""
    tls_ = tls(authority.issue(), max_handshakes=2, handshake_timeout=60)
    async with running(bound=True, tls=tls_) as served, plain(served) as first, plain(served) as second:
        await until(lambda: served.source.server.connections == 2)
        assert (await ask(served, authority.trusted())).startswith(b"HTTP/1.1 200 ")

        assert await read_all(first) == b""
        assert served.source.server.tls.failed == 1
        await second.send_all(b"rubbish")


@pytest.mark.parametrize("when", ["handshake", "request"])
async def test_a_client_that_resets_ends_nothing_but_its_connection(running: Any, authority: Any, when: str) -> None:
    """In the handshake or after it."""
    async with running(bound=True, tls=tls(authority.issue())) as served:
        async with plain(served) as stream:
            if when == "request":
                secured = trio.SSLStream(stream, authority.trusted(), server_hostname="localhost")
                await secured.send_all(ALIVE)
                await secured.receive_some()
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: not served.source.server.connections)

        assert served.source.server.contained == 0
        assert (await ask(served, authority.trusted())).startswith(b"HTTP/1.1 200 ")


async def test_what_is_no_tls_ends_a_connection_that_was_open(running: Any, authority: Any) -> None:
    """Bytes between two records."""
    async with running(bound=True, tls=tls(authority.issue())) as served, secure(served, authority.trusted()) as stream:
        await stream.send_all(ALIVE)
        await stream.receive_some()
        await stream.transport_stream.send_all(b"rubbish" * 100)
        await until(lambda: not served.source.server.connections)

        assert served.source.server.contained == 0


async def test_a_new_certificate_serves_who_comes_next(
    running: Any, authority: Any, stranger: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a restart; a connection that is open goes on."""
    monkeypatch.setattr(server_tls, "LOOK_EVERY_S", 0.02)
    files = tmp_path / "gateway.pem", tmp_path / "gateway.key"

    def put(pair: tuple[Path, Path]) -> None:
        for source, target in zip(pair, files, strict=True):
            shutil.copy(source, tmp_path / "next")
            (tmp_path / "next").rename(target)

    put(authority.issue())
    async with running(bound=True, tls=tls(files)) as served, secure(served, authority.trusted()) as old:
        await old.send_all(ALIVE)
        await old.receive_some()
        put(stranger.issue())
        await until(lambda: any(entry["event"] == "certificate renewed" for entry in served.log.entries))
        assert (await ask(served, stranger.trusted())).startswith(b"HTTP/1.1 200 ")
        with pytest.raises(trio.BrokenResourceError):
            await ask(served, authority.trusted())
        await old.send_all(ALIVE)
        assert (await old.receive_some()).startswith(b"HTTP/1.1 200 ")


async def test_a_new_certificate_that_cannot_be_used_changes_nothing(
    running: Any, authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named in the log, once, and counted."""
    monkeypatch.setattr(server_tls, "LOOK_EVERY_S", 0.02)
    pair = authority.issue()
    cert = tmp_path / "gateway.pem"
    shutil.copy(pair[0], cert)
    async with running(bound=True, tls=tls((cert, pair[1]))) as served:
        cert.write_text("rubbish")
        await until(lambda: served.source.server.tls.certificates.refused)
        await trio.sleep(0.1)
        figures = {figure.name: figure.value for figure in served.source.figures()}

        assert figures["tls_certificate_refused_total"] == 1
        assert figures["tls_certificate_ends_seconds"] > 4e9
        assert [e["event"] for e in served.log.entries].count(
            "the new certificate cannot be used; the old one stays"
        ) == 1
        assert (await ask(served, authority.trusted())).startswith(b"HTTP/1.1 200 ")


async def test_a_certificate_that_ends_soon_is_warned_of(running: Any, authority: Any) -> None:
    """Once."""
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2)
    async with running(bound=True, tls=tls(authority.issue(ends=soon))) as served:
        await trio.testing.wait_all_tasks_blocked()
        (entry,) = [e for e in served.log.entries if e["event"] == "the certificate ends soon"]

        assert entry["days"] == 2.0


async def test_a_key_may_be_a_secret_and_encrypted(
    running: Any, authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never a file of ours."""
    cert, key = authority.issue(password=b"sesame")
    monkeypatch.setenv("TLS_KEY", key.read_text())
    monkeypatch.setenv("TLS_PASSWORD", "sesame")
    options = {"key": Secret(from_env="TLS_KEY"), "key_password": Secret(from_env="TLS_PASSWORD")}
    async with running(bound=True, tls=tls((cert, key), **options)) as served:
        assert (await ask(served, authority.trusted())).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("no file", r"tls\.cert .*none\.pem .*cannot be read: No such file"),
        ("no key", r"tls\.cert .* or its key is not what it should be, PEM"),
        ("wrong key", r"tls\.key is not the key of this certificate"),
        ("encrypted", r"name its password with tls\.key_password"),
        ("wrong password", r"tls\.cert .* or its key is not what it should be"),
        ("long password", r"tls\.cert .* or its key cannot be used"),
        ("no secret", r"tls\.key: environment variable NOPE is not set"),
        ("no authority", r"tls\.client_ca .* cannot be read"),
    ],
    ids=lambda value: value if value.replace(" ", "").isalpha() else "",
)
async def test_what_cannot_be_used_is_named_at_the_start(
    authority: Any, stranger: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, words: str
) -> None:
    """The file, what is wrong with it, and the option that would help; and nothing listens."""
    monkeypatch.setenv("WRONG", "wrong")
    monkeypatch.setenv("LONG", "x" * 2000)
    cert, key = authority.issue()
    locked = authority.issue(password=b"sesame")
    config = {
        "no file": {"cert": tmp_path / "none.pem", "key": key},
        "no key": {"cert": cert},
        "wrong key": {"cert": cert, "key": stranger.issue()[1]},
        "encrypted": {"cert": locked[0], "key": locked[1]},
        "wrong password": {"cert": locked[0], "key": locked[1], "key_password": Secret(from_env="WRONG")},
        "long password": {"cert": locked[0], "key": locked[1], "key_password": Secret(from_env="LONG")},
        "no secret": {"cert": cert, "key": Secret(from_env="NOPE")},
        "no authority": {"cert": cert, "key": key, "client_certs": "required", "client_ca": tmp_path / "none.pem"},
    }[broken]
    source = HttpSource(HttpConfig(bind="127.0.0.1:0", tls=ServerTlsConfig(**config)), Context(id="web"))
    with pytest.raises(UnusableCertificate, match=words):
        async with source.open():
            pytest.fail("it opened")  # pragma: no cover

    assert source.addresses == ()


async def test_where_others_listen_it_is_said_that_tls_has_no_effect(authority: Any) -> None:
    """Under a plain hypercorn; an operator must not believe otherwise."""
    config = HttpConfig(tls=tls(authority.issue()))
    with structlog.testing.capture_logs() as logs:
        async with HttpSource(config, Context(id="web", listen=False)).open():
            pass

    assert [entry["log_level"] for entry in logs if "tls is without effect" in entry["event"]] == ["warning"]


def test_options_that_contradict_each_other_are_refused(authority: Any) -> None:
    """A question without an authority, and an authority without a question."""
    cert, _ = authority.issue()
    with pytest.raises(ValueError, match=r"tls\.client_ca"):
        ServerTlsConfig(cert=cert, client_certs="required")
    with pytest.raises(ValueError, match="client_certs: required"):
        ServerTlsConfig(cert=cert, client_ca=cert)


async def test_idle_connections_end_with_a_drain(running: Any, authority: Any) -> None:
    """Those that still shake hands are not served any more."""
    async with running(bound=True, tls=tls(authority.issue())) as served, secure(served, authority.trusted()) as idle:
        await idle.send_all(ALIVE)
        await idle.receive_some()
        async with plain(served) as late:
            await until(lambda: served.source.server.connections == 2)
            served.source.stop_accepting()
            assert await idle.receive_some() == b""
            secured = trio.SSLStream(late, authority.trusted(), server_hostname="localhost", https_compatible=True)
            await secured.do_handshake()
            with trio.fail_after(5):  # before head_timeout
                assert await secured.receive_some() == b""


async def test_more_connections_than_max_connections_are_closed(running: Any, authority: Any) -> None:
    """There is no way to say anything to them before the handshake."""
    context = authority.trusted()
    async with running(bound=True, max_connections=1, tls=tls(authority.issue())) as served, secure(served, context):
        async with plain(served) as second:
            assert await second.receive_some() == b""

        assert served.source.server.turned_away == 1


async def test_unix_sockets_speak_it_as_well(running: Any, authority: Any, tmp_path: Path) -> None:
    """All addresses of a source are alike."""
    async with running(bound=True, bind=f"unix:{tmp_path / 's'}", tls=tls(authority.issue())) as served:
        async with await trio.open_unix_socket(str(tmp_path / "s")) as stream:
            secured = trio.SSLStream(stream, authority.trusted(), server_hostname="localhost", https_compatible=True)
            await secured.send_all(HEALTH)
            assert (await read_all(secured)).startswith(b"HTTP/1.1 200 ")
        assert served.source.urls == ()


async def test_clients_that_vanish_at_any_point_leave_nothing(running: Any, authority: Any, leak_oracle: Any) -> None:
    """After any number of bytes of a handshake and a request, politely or with a reset."""
    chance = random.Random(7)
    context = authority.trusted()
    async with running(bound=True, tls=tls(authority.issue(), max_handshakes=8)) as served:

        async def vanish(after: int, reset: bool) -> None:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
            steps: list[Callable[[], object]] = [client.do_handshake, lambda: client.write(ALIVE), client.read]
            async with plain(served) as stream:
                with suppress(trio.BrokenResourceError, EOFError):
                    while steps and after > 0:
                        with suppress(ssl.SSLWantReadError):
                            steps[0]()
                            del steps[0]
                            continue
                        data = outgoing.read()[:after]
                        after -= len(data)
                        await stream.send_all(data)
                        if after > 0:
                            incoming.write(await stream.receive_some() or _end())
                if reset:
                    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(vanish, chance.randrange(1, 1000), chance.random() < 0.5)
        await until(lambda: served.source.server.connections == 0)

        assert served.source.server.contained == 0
        assert (await ask(served, context)).startswith(b"HTTP/1.1 200 ")


def _end() -> bytes:
    raise EOFError
