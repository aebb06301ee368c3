"""Who has no valid credential hears so before a long body is read, and whoever watches hears of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from sluiceway.middlewares.auth.api_keys import ApiKey, digest_of, render_keys
from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.protocol.mcp import LATEST, MetaKey
from sluiceway.pipeline.runtime.engine import Engine

KEY = "slw_" + "a" * 43
PEPPER = "pepper-of-sixteen-bytes"
ASKED = "Expect: 100-continue\r\nContent-Length: 300\r\n"


@pytest.fixture
def auth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options of `auth_api_key`, with one key."""
    monkeypatch.setenv("PEPPER", PEPPER)
    key = ApiKey(id="one", digest=digest_of(PEPPER.encode(), KEY), subject="ana")
    (tmp_path / "keys.json").write_bytes(render_keys([key]))
    return {"pepper": {"from_env": "PEPPER"}, "file": str(tmp_path / "keys.json")}


@asynccontextmanager
async def gateway(chain: list[Any]) -> AsyncIterator[tuple[Engine, int]]:
    """A gateway on a real socket, and its port."""
    document = from_data(
        {
            "version": 1,
            "sources": {"web": {"http": {"bind": "127.0.0.1:0", "aliases": True}}},
            "pipelines": {"main": {"chain": chain, "sink": "up"}},
            "sinks": {"up": {"embedded": {}}},
        }
    )
    engine = Engine(document)
    with trio.fail_after(20):
        async with engine.running():
            (url,) = engine.sources["web"].urls  # type: ignore[attr-defined]  # it is an HttpSource
            yield engine, int(url.split(":")[2].split("/")[0])


def head(more: str, path: str = "/mcp") -> bytes:
    """The head of a POST."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Accept: application/json, text/event-stream\r\n{more}\r\n"
    ).encode()


async def sent(port: int, data: bytes) -> tuple[trio.SocketStream, bytes]:
    """What comes first when this is sent, and the connection."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(data)
    return stream, bytes(await stream.receive_some(65536))


@pytest.mark.parametrize("path", ["/mcp", "/tools/call"])
@pytest.mark.parametrize(
    "more",
    [
        ASKED,
        "Content-Length: 20000\r\n",
        "Content-Length: 999999999999\r\n",
        "Transfer-Encoding: chunked\r\n",
        ASKED + "X-Api-Key: slw_wrong\r\n",
    ],
    ids=["asked", "long", "endless", "chunked", "wrong key"],
)
async def test_who_has_no_valid_credential_is_answered_before_the_body(auth, more, path):
    """With 401 and its challenge, without a 100 (Continue) before, and the connection ends."""
    async with gateway(["request_id", {"auth_api_key": auth}]) as (_, port):
        stream, answer = await sent(port, head(more, path))
        while piece := await stream.receive_some(65536):
            answer += piece
        await stream.aclose()

    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"HTTP/1.1 100 " not in answer
    assert b"www-authenticate: ApiKey" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["data"]["reason"] == "unauthenticated"


async def test_who_has_one_is_asked_for_the_body_and_served(auth):
    """As ever."""
    params = {"_meta": {MetaKey.VERSION: LATEST, MetaKey.CLIENT_CAPABILITIES: {}}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}).encode()
    more = f"X-Api-Key: {KEY}\r\nMcp-Method: tools/list\r\nMcp-Protocol-Version: {LATEST}\r\nExpect: 100-continue\r\n"
    async with gateway([{"auth_api_key": auth}]) as (_, port):
        stream, interim = await sent(port, head(f"{more}Content-Length: {len(body)}\r\n"))
        await stream.send_all(body)
        answer = bytes(await stream.receive_some(65536))
        await stream.aclose()

    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "chain",
    [
        lambda auth: [{"rate_limit": {"per": "address", "rate": "1/h"}}, {"auth_api_key": auth}],
        lambda auth: [{"auth_api_key": {**auth, "when": {"method": "tools/*"}}}],
        lambda auth: [{"auth_api_key": {**auth, "optional": True}}, "auth_anonymous"],
        lambda _: ["log"],
    ],
    ids=["limited first", "guarded", "anonymous", "open"],
)
async def test_the_order_of_execution_is_kept(auth, chain):
    """Where another stage refuses first, a guard must see the request, or anybody may come in, the body is read."""
    async with gateway(chain(auth)) as (_, port):
        stream, interim = await sent(port, head(ASKED))
        await stream.aclose()

    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_it_is_recorded_as_other_refusals_are(auth, tmp_path):
    """An audit entry of a request that nobody has read, and a security event."""
    chain = [{"audit": {"path": str(tmp_path / "audit.jsonl")}}, {"auth_api_key": auth}]
    with capture_logs() as logs:
        async with gateway(chain) as (_, port):
            stream, _ = await sent(port, head(ASKED))
            await stream.aclose()

    entries = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [
        (entry["operation"], entry["principal"], entry["outcome"], entry["reason"], entry["decisions"])
        for entry in entries
        if entry["event"] == "request"
    ] == [
        ("(unread)", "anonymous", "refused", "unauthenticated",
         ["pipelines.main.auth_api_key: refuse (no credential)"]),
    ]  # fmt: skip
    assert [line["type"] for line in logs if line["event"] == "security event"] == ["authentication_failed"]
