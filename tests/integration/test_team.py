"""
`configs/team.yaml` as it ships, with real servers behind it and the Python SDK's client of two tenants in front.

The gateway and server-everything are processes of their own; the other two servers are children of the gateway.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import httpx2
import psutil
import pytest
import trio
from joserfc import jws
from joserfc.jwk import ECKey
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import ErrorData

from sluiceway.pipeline.protocol.mcp import LATEST, MetaKey

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("server-everything"), pytest.mark.timeout(120)]

ROOT: Final = Path(__file__).resolve().parents[2]
ROOM: Final = ROOT / ".node"
SLUICEWAY: Final = str(Path(sys.executable).parent / "sluiceway")
EVERYTHING: Final = ROOM / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
START_S: Final = 60.0
KEYS: Final = {name: f"slw_the-key-of-{name}-in-the-sample-change-it" for name in ("ana", "bob")}
"""Of acme and of globex, as configs/team/keys.json has them."""
TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
HELLO: Final = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
INITIALIZE: Final = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
ACCEPT: Final = {"accept": "application/json, text/event-stream"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def _listens(process: trio.Process, port: int, log: Path) -> None:
    """Wait until a process listens."""
    with trio.fail_after(START_S):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                assert process.returncode is None, await trio.Path(log).read_text()
                await trio.sleep(0.05)  # another process: nothing tells us
            else:
                return await stream.aclose()


@attrs.define(eq=False)
class Team:
    """The gateway with its three servers, on free ports."""

    nursery: trio.Nursery
    environment: Mapping[str, str]
    folder: Path
    signing: ECKey
    port: int = attrs.Factory(_free_port)
    upstream: int = attrs.Factory(_free_port)
    gateway: trio.Process = attrs.field(init=False)
    remote: trio.Process = attrs.field(init=False)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}/mcp"

    async def start_remote(self) -> None:
        """Start server-everything."""
        env = {**self.environment, "PORT": str(self.upstream)}
        self.remote = await self._start(["node", str(EVERYTHING), "streamableHttp"], self.upstream, env)

    async def start(self, **changes: Any) -> None:
        """Start the gateway, with nothing but environment variables, unless a test needs some change."""
        overlay = self.folder / "overlay.yaml"
        await trio.Path(overlay).write_text(json.dumps(changes))
        jwks = self.folder / "jwks.json"
        await trio.Path(jwks).write_text(json.dumps({"keys": [self.signing.as_dict(private=False)]}))
        env = {
            **self.environment,
            "BIND": f"127.0.0.1:{self.port}",
            "PUBLIC_URL": self.url,
            "ADMIN": f"unix:{self.folder / 'admin'}",
            "PYTHON": sys.executable,
            "FILES": str(self.folder),
            "UPSTREAM_URL": f"http://127.0.0.1:{self.upstream}/mcp",
            "JWKS": str(jwks),
            "OPEN_FOR": "1s",
            "AUDIT": str(self.folder / "audit.jsonl"),
        }
        command = [
            SLUICEWAY,
            "run",
            str(ROOT / "configs" / "team.yaml"),
            *(["--overlay", str(overlay)] * bool(changes)),
        ]
        self.gateway = await self._start(command, self.port, env)

    async def _start(self, command: list[str], port: int, env: Mapping[str, str]) -> trio.Process:
        log = self.folder / f"{port}.log"
        with log.open("ab") as output:
            start = partial(trio.run_process, command, check=False, stdout=output, stderr=output, env=env, cwd=ROOM)
            process: trio.Process = await self.nursery.start(start)
        await _listens(process, port, log)
        return process

    def token(self, **claims: Any) -> str:
        """An access token of the company's authorization server."""
        now = int(time.time())
        body = {"iss": "https://id.example.com", "aud": self.url, "sub": "eve", "org": "acme", "scope": "mcp"}
        body |= {"exp": now + 600, "iat": now} | claims
        return jws.serialize_compact({"alg": "ES256", "kid": "test"}, json.dumps(body).encode(), self.signing)

    def search_servers(self) -> list[psutil.Process]:
        """The children that run search.py, without the shims around them."""
        family = psutil.Process(self.gateway.pid).children(recursive=True)
        return [child for child in family if child.cmdline()[-1:] == ["search.py"] and not child.children()]

    def audited(self, tenant: str) -> list[Any]:
        """What the audit trail says about the calls of a tenant."""
        trail = (self.folder / "audit.jsonl").read_text(encoding="utf-8")
        return [entry for entry in map(json.loads, trail.splitlines()) if entry.get("tenant") == tenant]

    async def metrics(self) -> dict[str, float]:
        """What /metrics of the admin listener says."""
        transport = httpx2.AsyncHTTPTransport(uds=str(self.folder / "admin"))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as admin:
            text = (await admin.get("/metrics")).text
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        }


@asynccontextmanager
async def team(environment: Mapping[str, str], folder: Path, **changes: Any) -> AsyncIterator[Team]:
    """The gateway and its servers; when they are told to end, no process stays behind."""
    async with trio.open_nursery() as nursery:
        it = Team(nursery, environment, folder, ECKey.generate_key("P-256", {"kid": "test"}))
        await it.start_remote()
        try:
            await it.start(**changes)
            try:
                yield it
                family = psutil.Process(it.gateway.pid).children(recursive=True)
            finally:
                it.gateway.terminate()
            await it.gateway.wait()
        finally:
            it.remote.terminate()
    assert it.gateway.returncode == 0
    assert [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []


@asynccontextmanager
async def clients(it: Team, *keys: str, mode: str = "auto") -> AsyncIterator[list[Any]]:
    """Clients of the SDK that show these keys. (What they answer is looked at as it comes.)"""
    async with AsyncExitStack() as stack:
        found: list[Any] = []
        for key in keys:
            headers = {"x-api-key": KEYS[key]}
            http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, trust_env=False, timeout=60))
            client = Client(streamable_http_client(it.url, http_client=http), mode=mode)
            found.append(await stack.enter_async_context(client))
        yield found


async def asked(client: Any, tool: str, **arguments: Any) -> Any:
    """What a tool answers, as data."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    return result.structured_content.get("result", result.structured_content)


async def refusal(client: Any, tool: str, **arguments: Any) -> ErrorData:
    """The error with which a call is refused."""
    with pytest.raises(MCPError) as raised:
        await client.call_tool(tool, arguments)
    return raised.value.error


async def until_asked(client: Any, what: str) -> None:
    """Wait until the search server has been asked something."""
    with trio.fail_after(10):
        while what not in await asked(client, "search.questions"):  # noqa: ASYNC110  # another process: nothing tells us
            await trio.sleep(0.05)


async def test_only_who_belongs_to_a_tenant_comes_in(node: dict[str, str], tmp_path: Path) -> None:
    """Others are told where tokens are to be had; a token of the company's is as good as a key; lists differ."""
    async with team(node, tmp_path) as it, httpx2.AsyncClient(headers=ACCEPT, trust_env=False, timeout=30) as http:
        wrong = {
            "none": {},
            "key": {"x-api-key": "slw_wrong"},
            "expired": {"authorization": f"Bearer {it.token(exp=1)}"},
            "audience": {"authorization": f"Bearer {it.token(aud='https://other.example.com/mcp')}"},
            "scope": {"authorization": f"Bearer {it.token(scope='other')}"},
            "tenant": {"authorization": f"Bearer {it.token(org='initech')}"},
            "malformed": {"authorization": "Bearer a b"},
        }
        answers = {name: await http.post(it.url, json=INITIALIZE, headers=head) for name, head in wrong.items()}
        metadata = (await http.get(f"http://127.0.0.1:{it.port}/.well-known/oauth-protected-resource/mcp")).json()
        shown = {"authorization": f"Bearer {it.token()}"}
        welcome = await http.post(it.url, json=INITIALIZE, headers=shown)
        foreign = await http.post(it.url, json=INITIALIZE, headers={**shown, "origin": "https://evil.example.com"})
        async with clients(it, "ana", "bob") as (ana, bob):
            tools = [{tool.name for tool in (await client.list_tools()).tools} for client in (ana, bob)]
            resources = [len((await client.list_resources()).resources) for client in (ana, bob)]
            denied = [await refusal(bob, name) for name in ("files.list_allowed_directories", "search.rebuild", "none")]
            mine = await ana.call_tool("files.list_allowed_directories", {})

    statuses = {name: answer.status_code for name, answer in answers.items()}
    assert {
        "none": 401,
        "key": 401,
        "expired": 401,
        "audience": 401,
        "scope": 403,
        "tenant": 403,
        "malformed": 400,
    } == (statuses)
    place = f'resource_metadata="http://127.0.0.1:{it.port}/.well-known/oauth-protected-resource/mcp"'
    assert answers["none"].headers["www-authenticate"] == f'Bearer scope="mcp", {place}'
    assert [it.url] == [metadata["resource"]]
    assert (200, 403) == (welcome.status_code, foreign.status_code)
    assert {"files", "search", "everything"} == {name.partition(".")[0] for name in tools[0]}
    assert {"search.query", "search.add", "search.questions"} == tools[1]
    assert resources[0] > 0 == resources[1]
    assert [40300] * 3 == [error.code for error in denied]
    assert str(tmp_path) in mine.content[0].text


@pytest.mark.parametrize(
    ("mode", "changes"), [("legacy", {}), (LATEST, {"sinks": {"all": {"route": {"to": ["search"]}}}})]
)
async def test_what_was_asked_is_not_asked_again(
    node: dict[str, str], tmp_path: Path, mode: str, changes: dict[str, Any]
) -> None:
    """The cache answers, equal calls share one, traces reach the server, and no tenant sees what is another one's."""
    async with team(node, tmp_path, **changes) as it, clients(it, "ana", "bob", mode=mode) as (ana, bob):
        await asked(ana, "search.add", text="secret of acme")
        meta: Any = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        first = await ana.call_tool("search.query", {"text": "secret"}, meta=meta)
        again = await ana.call_tool("search.query", {"text": "secret"})
        others = await asked(bob, "search.query", text="secret")
        both: list[Any] = []

        async def slow() -> None:
            both.append(await asked(ana, "search.query", text="slow", takes_s=0.5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow)
            nursery.start_soon(slow)
        wrong = await ana.call_tool("search.query", {"text": 7})
        questions = await asked(ana, "search.questions")
        told = await it.metrics()

    data = first.structured_content.get("result", first.structured_content)
    assert ["secret of acme"] == data["found"]
    assert TRACE == data["trace"].split("-")[1]
    assert first.structured_content == again.structured_content
    assert again.meta["io.sluiceway/cache"]["state"] == "hit"
    assert data["trace"] != others["trace"]
    assert others["number"] == (2 if mode == LATEST else 1)
    assert both[0] == both[1]
    assert wrong.is_error
    assert questions.count("secret") == (2 if mode == LATEST else 1)
    assert questions.count("slow") == 1
    assert told['sluiceway_cache_hits_total{component="pipelines.main.cache"}'] >= 1
    assert told['sluiceway_dedup_joined_total{component="pipelines.main.dedup"}'] == 1
    assert told['sluiceway_access_decisions_total{component="pipelines.main.access",outcome="allowed"}'] >= 6
    labels = 'component="pipelines.main.metrics",method="tools/call",outcome="success",pipeline="main",source="public"'
    assert told[f"mcp_requests_total{{{labels}}}"] >= 6
    assert told['sluiceway_circuit_not_closed{component="sinks.search.circuit_breaker"}'] == 0


async def test_one_tenant_uses_up_its_own_limit_only(node: dict[str, str], tmp_path: Path) -> None:
    """After twenty at once globex hears when to come back; acme does not notice."""
    head = {**ACCEPT, "x-api-key": KEYS["bob"], "mcp-protocol-version": LATEST, "mcp-method": "tools/list"}
    meta = {MetaKey.VERSION: LATEST, MetaKey.CLIENT_CAPABILITIES: {}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    async with team(node, tmp_path) as it, httpx2.AsyncClient(headers=head, trust_env=False, timeout=30) as http:
        answers = [await http.post(it.url, json=body) for _ in range(30)]
        async with clients(it, "ana") as (ana,):
            assert (await ana.list_tools()).tools

    statuses = [answer.status_code for answer in answers]
    refused = answers[statuses.index(429)]
    assert [200] * 20 == statuses[:20]
    assert statuses[20:].count(200) <= 5
    assert 1 <= int(refused.headers["retry-after"]) <= 2
    assert refused.headers["ratelimit-policy"] == '"pipelines.main.rate_limit";q=20;w=20'
    assert refused.json()["error"]["data"]["reason"] == "rate_limited"
    outcomes = [entry["outcome"] for entry in it.audited("globex")]
    assert ["ok" if status == 200 else "refused" for status in statuses] == outcomes


async def test_servers_that_die_are_asked_again_or_left_alone(node: dict[str, str], tmp_path: Path) -> None:
    """A lost read is repeated, a lost write is not (case 35), a server that is gone is spared, and back by itself."""
    said: list[Any] = []

    async def call(client: Any, tool: str) -> None:
        try:
            said.append(
                await client.call_tool(tool, {"takes_s": 2} | ({"text": "x"} if tool == "search.query" else {}))
            )
        except MCPError as error:
            said.append(error.error)

    async with team(node, tmp_path) as it, clients(it, "ana") as (ana,):
        for tool, what in (("search.query", "x"), ("search.rebuild", "rebuild")):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, ana, tool)
                await until_asked(ana, what)
                for child in it.search_servers():
                    child.send_signal(signal.SIGKILL)
        before = (await ana.call_tool("everything.echo", {"message": "hello"})).content[0].text
        it.remote.kill()
        await it.remote.wait()
        gone = [await refusal(ana, "everything.echo", message="hello") for _ in range(8)]
        beside = await asked(ana, "search.query", text="meanwhile")
        await it.start_remote()
        after, missing = await until_answered(it)
        tools = {tool.name for tool in (await ana.list_tools()).tools}
        told = await it.metrics()

    repeated, lost = said
    assert [] == repeated.structured_content["found"]
    assert (50203, "outcome_unknown") == (lost.code, lost.data["reason"])
    assert ("Echo: hello", "Echo: back") == (before, after)
    reasons = [error.data["reason"] for error in gone]
    opened = reasons.index("circuit_open")
    assert ["connect_failed"] * opened + ["circuit_open"] * (8 - opened) == reasons
    assert all(0 < error.data["retry_after_ms"] <= 1100 for error in gone[opened:])
    assert {"circuit_open"} >= set(missing)
    assert "meanwhile" not in beside["found"]
    assert "everything.echo" in tools
    # and a second one, if the query beside the refusals came while the next start of its server had to wait
    assert told['sluiceway_retry_recovered_total{component="sinks.search.retry"}'] in (1, 2)
    assert 1 == told['sluiceway_circuit_opened_total{component="sinks.everything.circuit_breaker"}']
    assert 0 == told['sluiceway_circuit_not_closed{component="sinks.everything.circuit_breaker"}']


async def until_answered(it: Team) -> tuple[str, list[str]]:
    """Call until there is an answer; it, and the reasons why there was none before."""
    reasons: list[str] = []
    with trio.fail_after(20):
        while True:
            async with clients(it, "ana") as (client,):
                try:
                    result = await client.call_tool("everything.echo", {"message": "back"})
                except MCPError as error:
                    reasons.append(error.error.data["reason"])
                else:
                    return result.content[0].text, reasons
            await trio.sleep(0.1)
