"""configs/tls.yaml as it ships, with certificates of its own: what who is let in may do, and what a reload leaves."""

from __future__ import annotations

import json
import shutil
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from sluiceway.pipeline.config import load
from sluiceway.pipeline.model.component import Source
from sluiceway.pipeline.protocol.mcp import LATEST, MetaKey
from sluiceway.pipeline.runtime.engine import Engine

SHIPPED = Path(__file__).resolve().parents[3] / "configs" / "tls.yaml"


@pytest.fixture
def config(authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sample on free addresses."""
    (tmp_path / "tls").mkdir()
    cert, key = authority.issue()
    shutil.copy(cert, tmp_path / "tls" / "gateway.pem")
    shutil.copy(key, tmp_path / "tls" / "gateway.key")
    shutil.copy(authority.file, tmp_path / "tls" / "ca.pem")
    text = SHIPPED.read_text()
    assert '["127.0.0.1:8443", "[::1]:8443"]' in text
    file = tmp_path / "tls.yaml"
    file.write_text(text.replace('["127.0.0.1:8443", "[::1]:8443"]', '["127.0.0.1:0", "127.0.0.1:0"]'))
    monkeypatch.chdir(tmp_path)
    return file


def let_guests_do_everything(config: Path) -> None:
    """Change the rules."""
    config.write_text(config.read_text().replace('allow: ["tools:echo"]', 'allow: "*"'))


def addresses(engine: Engine, source: str) -> list[str]:
    """What a source is bound to."""
    found: Source = engine.sources[source]
    return list(getattr(found, "addresses"))  # noqa: B009  # sources need not have any


def calling(tool: str) -> bytes:
    """A call of the modern era, as bytes."""
    meta = {MetaKey.VERSION: LATEST, MetaKey.CLIENT_CAPABILITIES: {}}
    arguments = {"text": "x"} if tool == "echo" else {"a": 1, "b": 2}
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    head = (
        f"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nmcp-method: tools/call\r\n"
        f"accept: application/json, text/event-stream\r\nmcp-protocol-version: {LATEST}\r\nmcp-name: {tool}\r\n"
        f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


async def say(stream: trio.abc.Stream, data: bytes) -> tuple[int, Any]:
    """The status of the answer, and what it says."""
    async with stream:
        await stream.send_all(data)
        answer = b""
        while piece := await stream.receive_some():
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


async def call(engine: Engine, context: ssl.SSLContext, tool: str, address: int = 0) -> int:
    """The status of a call over TLS."""
    host, _, port = addresses(engine, "network")[address].rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    secured = trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True)
    return (await say(secured, calling(tool)))[0]


async def test_a_certificate_says_who_may_do_what(config: Path, authority: Any, tmp_path: Path) -> None:
    """Guests have one tool, agents all; each listener of the gateway has callers of its own."""
    with trio.fail_after(30):
        async with Engine(load(config)).running() as engine:
            agent = authority.trusted(authority.issue("robot"))
            assert await call(engine, agent, "add") == 200
            assert await call(engine, agent, "add", address=1) == 200
            assert await call(engine, authority.trusted(), "echo") == 200
            assert await call(engine, authority.trusted(), "add") == 403

            assert stat.S_IMODE((tmp_path / "sluiceway.sock").stat().st_mode) == 0o600
            status, answer = await say(await trio.open_unix_socket("sluiceway.sock"), calling("echo"))
            assert status == 200
            assert not answer["result"].get("isError")
    assert not (tmp_path / "sluiceway.sock").exists()


async def test_a_reload_leaves_listeners_and_connections_alone(config: Path, authority: Any, tmp_path: Path) -> None:
    """The same sockets serve another chain; a connection that was open goes on."""
    with trio.fail_after(30):
        async with Engine(load(config)).running() as engine:
            before = addresses(engine, "network"), (tmp_path / "sluiceway.sock").stat().st_ino
            host, _, port = before[0][0].rpartition(":")
            stream = await trio.open_tcp_stream(host, int(port))
            old = trio.SSLStream(stream, authority.trusted(), server_hostname="localhost", https_compatible=True)
            await old.do_handshake()
            beside = await trio.open_unix_socket("sluiceway.sock")
            let_guests_do_everything(config)
            assert await engine.reload(load(config)) == []

            assert (addresses(engine, "network"), (tmp_path / "sluiceway.sock").stat().st_ino) == before
            assert (await say(old, calling("add")))[0] == 200
            assert (await say(beside, calling("add")))[0] == 200
            assert await call(engine, authority.trusted(), "add") == 200
