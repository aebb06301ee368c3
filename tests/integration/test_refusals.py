"""
Every refusal as a client sees it: over HTTP and over stdio, in both eras, with both tables of codes.

The table is `refusals.yaml`; docs/errors.md says what the words mean. One gateway serves all rows: each of its stages
is guarded by the name of a tool, so what is called decides who refuses.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import httpx2
import pytest
import trio
import trio.testing
import yaml
from joserfc import jws
from joserfc.jwk import ECKey

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import ComponentKind, Context, Sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import Size
from sluiceway.pipeline.model.pins import write_lock
from sluiceway.pipeline.model.tools import Tool
from sluiceway.pipeline.protocol.errors import (
    CODE_TABLES,
    AuditUnavailable,
    ConnectFailed,
    MissingCapability,
    SlowConsumer,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, MetaKey
from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, Result
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.transports.stdio_source import StdioSource, StdioSourceConfig

ROWS: Final[list[dict[str, Any]]] = yaml.safe_load(Path(__file__).with_name("refusals.yaml").read_text("utf-8"))
VIEWS: Final = ("http modern", "http legacy", "stdio modern", "stdio legacy")
ISSUER: Final = "https://id.example.com"
RESOURCE: Final = "https://gateway.example.com/mcp"
SHOWN: Final = ("www-authenticate", "retry-after", "ratelimit", "ratelimit-policy", "allow")
META: Final = {MetaKey.VERSION: LATEST, MetaKey.CLIENT_CAPABILITIES: {}}
HELLO: Final = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
INITIALIZE: Final = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HELLO}
SCHEMA: Final = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
OPENS_A_SESSION: Final = ("good", "globex")
"""Credentials that are accepted at all: a session belongs to whoever opens it."""
TOOLS: Final = [{"name": name, "inputSchema": SCHEMA} for name in ("fits", "fits_error", "pinned")]
CHAIN: Final[list[dict[str, Any]]] = [
    {"auth_bearer": {"id": "strict", "when": {"name": "strict"}}},
    {"auth_bearer": {"id": "open", "optional": True, "needs": [{"when": {"name": "scoped"}, "scopes": ["deep"]}]}},
    {"auth_anonymous": {}},
    {"tenant": {"tenants": {"acme": {}}, "when": {"name": "of_a_tenant"}}},
    {"access": {"rules": [{"scopes": "deep", "allow": "tools:stepped"}], "when": {"name": ["denied", "stepped"]}}},
    {"pin": {"unknown": "allow", "when": {"name": "pinned"}}},
    {"validate": {"id": "validate", "when": {"name": "fits"}}},
    {"validate": {"id": "validate_error", "refuse_as": "error", "when": {"name": "fits_error"}}},
    {"rate_limit": {"rate": "1/h", "per": "all", "when": {"name": "limited"}}},
    {"concurrency_limit": {"max_in_flight": 1, "when": {"name": "crowded"}}},
    {"load_shed": {"max_in_flight": 1, "max_waiting": 0, "when": {"name": "shed"}}},
    {"dedup": {"when": {"name": "keyed"}}},
    {"retry": {"when": {"name": "lost"}}},
    {"circuit_breaker": {"failures": 1, "open_for": "1h", "open_for_max": "1h", "jitter": "0%",
                         "when": {"name": "broken"}}},
    {"timeout": {"after": "50ms", "when": {"name": "slow"}}},
]  # fmt: skip


@attrs.frozen
class NoOptions:
    """Nothing to choose."""


class Upstream(Sink):
    """Does what the name of the tool says."""

    Config = NoOptions
    name = "up"

    def __init__(self) -> None:
        super().__init__(NoOptions(), Context(id="up"))
        self.entered = trio.Event()
        self.go = trio.Event()

    def again(self) -> None:
        """Hold the next calls anew."""
        self.entered, self.go = trio.Event(), trio.Event()

    async def __call__(self, exchange: Exchange) -> Reply:
        await trio.lowlevel.checkpoint()
        match exchange.method, exchange.target:
            case "initialize", _:
                return Result({**HELLO, "serverInfo": {"name": "up", "version": "1"}})
            case "tools/list", _:
                return Result({"tools": TOOLS, "resultType": "complete"})
            case "acme/none", _:
                return ErrorReply(-32601, "Method not found")
            case _, "crowded" | "shed" | "held":
                self.entered.set()
                await self.go.wait()
            case _, "slow":
                await trio.sleep_forever()
            case _, "unreachable":
                raise ConnectFailed("sinks.up: the upstream cannot be reached")
            case _, "closed" | "lost" | "broken":
                raise UpstreamClosed("sinks.up: the upstream closed the connection before it answered")
            case _, "garbled":
                raise UpstreamProtocolError("sinks.up: the upstream sent something that is not MCP")
            case _, "unavailable":
                raise UpstreamUnavailable("sinks.up: the upstream is in quarantine", retry_after_s=60)
            case _, "unrecorded":
                raise AuditUnavailable("pipelines.main.audit: the call cannot be recorded, so it is not made")
            case _, "unread":
                raise SlowConsumer("sinks.up: 100 notifications wait for the client, which reads too slowly")
            case _, "incapable":
                raise MissingCapability(
                    "sinks.up: this needs a client that can be asked", data={"required": ["sampling"]}
                )
            case _, "buggy":
                raise ZeroDivisionError("the canary of a bug")
            case _, "none":
                return ErrorReply(-32602, "Unknown tool: none")
        return Result({"content": [], "resultType": "complete"})


@attrs.define(eq=False)
class Gateway:
    """The gateway of all rows, and what a client needs to reach it."""

    engine: Engine
    upstream: Upstream
    web: httpx2.AsyncClient
    pipe: trio.StapledStream[Any, Any]
    key: ECKey
    ids: int = 0
    sessions: dict[str | None, str] = attrs.Factory(dict)
    """Sessions over HTTP, by whose credentials opened them."""
    received: dict[Any, Any] = attrs.Factory(dict)
    """What came back over stdio, by id."""
    arrived: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    def token(self, kind: str) -> str:
        """Credentials of a kind, right or wrong in one way."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": RESOURCE,
            "sub": "ana",
            "org": "acme",
            "iat": now,
            "exp": now + 600,
        }
        wrong: dict[str, dict[str, Any]] = {
            "expired": {"exp": 1}, "audience": {"aud": "https://other.example.com"}, "globex": {"org": "globex"},
        }  # fmt: skip
        return (
            "a b"
            if kind == "malformed"
            else jws.serialize_compact({"alg": "ES256", "kid": "k"}, json.dumps(claims | wrong.get(kind, {})), self.key)
        )

    async def listen(self) -> None:
        """Take in what comes over stdio."""
        buffer = b""
        async for chunk in self.pipe:
            *lines, buffer = (buffer + bytes(chunk)).split(b"\n")
            for message in map(json.loads, lines):
                self.received[message.get("id")] = message
                self.arrived.unpark_all()

    def message(self, row: Mapping[str, Any], era: str) -> dict[str, Any]:
        """The request of a row."""
        self.ids += 1
        meta = {**(META if era == "modern" else {}), **row.get("meta", {})}
        about = {} if "method" in row else {"name": row["tool"], "arguments": row.get("arguments", {})}
        method = row.get("method", "tools/call")
        return {"jsonrpc": "2.0", "id": self.ids, "method": method, "params": {**about, "_meta": meta}}

    async def head(self, row: Mapping[str, Any], era: str) -> dict[str, str]:
        """The headers of a row over HTTP; of the legacy era with those of a session."""
        token = row.get("token")
        shown = {"authorization": f"Bearer {self.token(token)}"} if token else {}
        if era == "modern":
            named = {"mcp-name": row["tool"]} if "tool" in row else {}
            return {**shown, **named, "mcp-protocol-version": LATEST, "mcp-method": row.get("method", "tools/call")}
        owner = token if token in OPENS_A_SESSION else None
        if owner not in self.sessions:
            opened = await self.web.post("/mcp", json=INITIALIZE, headers=shown if owner else {})
            self.sessions[owner] = opened.headers["mcp-session-id"]
        return {**shown, "mcp-session-id": self.sessions[owner], "mcp-protocol-version": LATEST_LEGACY}

    async def ask(self, row: Mapping[str, Any], view: str) -> dict[str, Any]:
        """Send the request of a row, and say what came back."""
        way, era = view.split()
        message = self.message(row, era)
        body = row.get("body", "0" * row.get("body_bytes", 0)) or json.dumps(message)
        if way == "http":
            sent = {**await self.head(row, era), "content-type": "application/json", **row.get("headers", {})}
            content = self.across_a_drain(body) if "draining" in row else body
            return _said(await self.web.post("/mcp", content=content, headers=sent))
        if era == "legacy" and 0 not in self.received:
            await self.over_stdio(json.dumps(INITIALIZE), 0)
        said = await self.over_stdio(body, None if row.keys() & {"body", "body_bytes"} else message["id"])
        return {"error": said.get("error"), **_failed(said)}

    async def over_stdio(self, line: str, id_: int | None) -> dict[str, Any]:
        """Send a line, and wait for the answer with this id."""
        self.received.pop(id_, None)
        await self.pipe.send_all(line.encode() + b"\n")
        while id_ not in self.received:
            await self.arrived.park()
        said: dict[str, Any] = self.received[id_]
        return said

    async def across_a_drain(self, body: str) -> AsyncIterator[bytes]:
        """A body of which half has been sent when the gateway begins to drain."""
        yield body[:20].encode()
        await trio.testing.wait_all_tasks_blocked(0.05)
        self.engine.sources["web"].stop_accepting()
        yield body[20:].encode()

    async def cancelled(self, row: Mapping[str, Any], view: str) -> dict[str, Any]:
        """A call that its client cancels: what is answered, and what comes over stdio up to the next answer."""
        message = self.message(row, "legacy")
        notice = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": message["id"]}}
        if view.startswith("stdio"):
            await self.ask({"tool": "fine"}, view)
            await self.pipe.send_all(json.dumps(message).encode() + b"\n")
            await self.upstream.entered.wait()
            await self.pipe.send_all(json.dumps(notice).encode() + b"\n")
            await self.ask({"tool": "fine"}, view)
            return {"error": self.received.get(message["id"])}
        head = await self.head(row, "legacy")
        answers: list[httpx2.Response] = []

        async def call() -> None:
            answers.append(await self.web.post("/mcp", json=message, headers=head))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await self.upstream.entered.wait()
            await self.web.post("/mcp", json=notice, headers=head)
        return _said(answers[0])

    async def observe(self, row: Mapping[str, Any], view: str) -> dict[str, Any]:
        """Do what a row says, and tell what its client sees at the end."""
        self.upstream.again()
        if "cancel" in row:
            return await self.cancelled(row, view)
        if "draining" in row and view.startswith("stdio"):
            self.engine.sources["editor"].stop_accepting()
        for _ in range(row.get("before", 0)):
            await self.ask({**row, **row.get("first", {})}, view)
        if "beside" not in row:
            return await self.ask(row, view)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.ask, row, view)
            await self.upstream.entered.wait()
            said = await self.ask(row, view)
            self.upstream.go.set()
        return said


def _said(answer: httpx2.Response) -> dict[str, Any]:
    """Status, headers and error of a response, without what differs from run to run."""
    text = answer.text
    if answer.headers.get("content-type") == "text/event-stream":
        (text,) = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
    body = json.loads(text) if text else {}
    shown = {name: answer.headers[name] for name in SHOWN if name in answer.headers}
    return {"status": answer.status_code, "headers": shown, "error": body.get("error"), **_failed(body)}


def _failed(body: Mapping[str, Any]) -> dict[str, Any]:
    """The failed result of a tool, which is how some calls are refused."""
    result = body.get("result", {})
    return {"result": {k: v for k, v in result.items() if k != "resultType"}} if result.get("isError") else {}


def _steady(said: dict[str, Any]) -> dict[str, Any]:
    """Waits of about an hour are an hour, and incidents have no number."""
    text = json.dumps(said)
    text = re.sub(r'"retry_after_ms": 3[56]\d{5}\b', '"retry_after_ms": 3600000', text)
    text = re.sub(r"(t=|\"retry-after\": \"|\"retry_after_seconds\": )3(5\d\d|600)\b", r"\g<1>3600", text)
    text = re.sub(r"try again in [\w.]+", "try again in 1h", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "INCIDENT", text)
    found: dict[str, Any] = json.loads(text)
    return found


@asynccontextmanager
async def gateway(tmp_path: Path, table: str) -> AsyncIterator[Gateway]:
    """The gateway of all rows, on a real socket and on a pipe."""
    key = ECKey.generate_key("P-256", {"kid": "k"})
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [key.as_dict(private=False)]}), encoding="utf-8")
    (tmp_path / "tools.lock.json").write_bytes(write_lock([Tool({**TOOLS[-1], "description": "What it was."})]))
    bearer = {
        "issuer": ISSUER,
        "resource": RESOURCE,
        "jwks": {"from_file": str(tmp_path / "jwks.json")},
        "claims": {"tenant": "org"},
    }
    more: dict[str, dict[str, Any]] = {"auth_bearer": bearer, "pin": {"lock": str(tmp_path / "tools.lock.json")}}
    chain = [{name: {**more.get(name, {}), **options}} for stage in CHAIN for name, options in stage.items()]
    document = from_data(
        {
            "version": 1,
            "sources": {"web": {"http": {"bind": "127.0.0.1:0", "max_body": "4KiB"}}, "editor": {"stdio": {}}},
            "pipelines": {"main": {"chain": chain, "sink": "up"}},
            "sinks": {"up": {"embedded": {}}},
            "run": {"error_codes": table},
        }
    )
    upstream = Upstream()
    ours, theirs = trio.testing.memory_stream_pair()
    editor = StdioSource(StdioSourceConfig(max_message=Size(4096)), Context(id="editor"), reader=theirs, writer=theirs)
    overrides = {(ComponentKind.SINK, "up"): upstream, (ComponentKind.SOURCE, "editor"): editor}
    async with Engine(document, overrides=overrides).running() as engine:
        web: Any = engine.sources["web"]
        headers = {"accept": "application/json, text/event-stream"}
        async with (
            httpx2.AsyncClient(base_url=f"http://{web.addresses[0]}", headers=headers, trust_env=False) as client,
            trio.open_nursery() as nursery,
        ):
            it = Gateway(engine, upstream, client, ours, key)
            nursery.start_soon(it.listen)
            yield it
            nursery.cancel_scope.cancel()


def expected(row: Mapping[str, Any], view: str, table: str) -> dict[str, Any]:
    """What the table says about a row in one view of it."""
    way, era = view.split()
    said: dict[str, Any] = {**row["says"], **(row.get("stdio") or {} if way == "stdio" else {})}
    if (error := said["error"]) is not None:
        code = error["code"]
        said["error"] = {**error, "code": code[table] if isinstance(code, dict) else code}
    return said if way == "stdio" else {"status": row["status"][era], "headers": row.get("shows", {}), **said}


@pytest.mark.parametrize("table", sorted(CODE_TABLES))
@pytest.mark.parametrize("view", VIEWS)
async def test_a_refusal_reads_as_the_table_says(tmp_path: Path, view: str, table: str) -> None:
    """Status, headers, code, reason, message, and when to come back."""
    rows = [row for row in ROWS if view in row.get("views", VIEWS)]
    async with gateway(tmp_path, table) as it:
        seen = {row["row"]: _steady(await it.observe(row, view)) for row in rows}

    assert {row["row"]: expected(row, view, table) for row in rows} == seen


def test_no_reason_is_missing() -> None:
    """Every reason that the gateway can give has a row."""
    errors = [row["says"].get("error") or {} for row in ROWS]

    assert CODE_TABLES["spec"].keys() - {error.get("data", {}).get("reason") for error in errors} == set()
