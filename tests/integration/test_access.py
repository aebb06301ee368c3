"""Tenants and rules over a real socket: sessions, lists, refusals and streams of two principals in two tenants."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.runtime.engine import Engine

PLUGIN = '''\
from sluiceway.pipeline.model.component import Middleware, middleware
from sluiceway.pipeline.model.session import Caller

TENANTS = {"ana": ["acme", "globex"], "bob": ["globex"]}


@middleware("says_who")
class SaysWho(Middleware):
    """Believes the header: for tests only."""

    role = "auth"

    async def __call__(self, exchange, call_next):
        subject = exchange.client.headers["authorization"]
        exchange.authenticate(Caller(subject, how="bearer", tenants=frozenset(TENANTS[subject])))
        return await call_next(exchange)
'''
RULES = [
    {"tenant": "acme", "allow": ["tools:echo", "tools:add"]},
    {"tenant": "globex", "allow": "tools:add"},
    {"scopes": "big", "allow": "tools:countdown"},
]
LEGACY = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
MODERN = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}


@asynccontextmanager
async def gateway(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    plugin = tmp_path / "says_who.py"
    plugin.write_text(PLUGIN, encoding="utf-8")
    chain = ["says_who", {"tenant": {"header": "x-tenant"}}, {"access": {"rules": RULES}}]
    document = from_data(
        {
            "version": 1,
            "plugins": [str(plugin)],
            "sources": {"web": {"http": {"bind": "127.0.0.1:0"}}},
            "pipelines": {"main": {"chain": chain, "sink": "demo"}},
            "sinks": {"demo": {"embedded": {"server": "demo"}}},
        }
    )
    engine = Engine(document)
    async with engine.running():
        source: Any = engine.sources["web"]
        async with httpx2.AsyncClient(base_url=f"http://{source.addresses[0]}", headers=LEGACY) as client:
            yield client


def asking(method: str, number: int = 2, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


async def open_session(client: httpx2.AsyncClient, **who: str) -> dict[str, str]:
    answer = await client.post("/mcp", json=asking("initialize", **HELLO), headers=who)
    session = {"mcp-session-id": answer.headers["mcp-session-id"], "authorization": who["authorization"]}
    await client.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=session)
    return session


def message_in(answer: httpx2.Response) -> Any:
    text = answer.text
    return json.loads(
        text.partition("data: ")[2].splitlines()[0] if text.startswith(("event:", "id:", "data:")) else text
    )


async def test_a_session_is_its_tenants_and_shows_what_that_tenant_may(tmp_path: Path) -> None:
    """Named in the handshake, the tenant holds; other tenants and other principals find no session (cases 24, 28)."""
    async with gateway(tmp_path) as client:
        session = await open_session(client, authorization="ana", **{"x-tenant": "acme"})
        listed = message_in(await client.post("/mcp", json=asking("tools/list"), headers=session))
        denied = await client.post("/mcp", json=asking("tools/call", name="increment"), headers=session)
        absent = await client.post("/mcp", json=asking("tools/call", name="nothing"), headers=session)
        stepping = await client.post("/mcp", json=asking("tools/call", name="countdown"), headers=session)
        strangers = [
            await client.post("/mcp", json=asking("tools/list"), headers={**session, **other})
            for other in ({"x-tenant": "globex"}, {"authorization": "bob"})
        ]
        stolen = await client.get("/mcp", headers={**session, "authorization": "bob", "accept": "text/event-stream"})
        async with client.stream("GET", "/mcp", headers={**session, "accept": "text/event-stream"}) as stream:
            streaming = stream.status_code
        ended = await client.request("DELETE", "/mcp", headers=session)

    assert ["echo", "add"] == [tool["name"] for tool in listed["result"]["tools"]]
    assert [403, 403, 403] == [denied.status_code, absent.status_code, stepping.status_code]
    assert "Access denied for tool: increment" == message_in(denied)["error"]["message"]
    assert message_in(denied)["error"]["data"] == message_in(absent)["error"]["data"]
    assert ["big"] == message_in(stepping)["error"]["data"]["scopes"]
    assert [404, 404, 404] == [*(each.status_code for each in strangers), stolen.status_code]
    assert (200, 200) == (streaming, ended.status_code)


@pytest.mark.parametrize(("tenant", "status"), [("globex", 200), ("acme", 403), ("nowhere", 403)])
async def test_a_modern_client_names_its_tenant_in_each_request(tmp_path: Path, tenant: str, status: int) -> None:
    """Among those of its credential; a foreign one and one that does not exist are refused alike."""
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list", "authorization": "bob"}
    async with gateway(tmp_path) as client:
        answer = await client.post(
            "/mcp", json=asking("tools/list", _meta=MODERN), headers={**headers, "x-tenant": tenant}
        )

    assert status == answer.status_code
    if status == 200:
        assert ["add"] == [tool["name"] for tool in message_in(answer)["result"]["tools"]]
        assert "public" != message_in(answer)["result"].get("cacheScope")
    else:
        error = message_in(answer)["error"]
        assert (40300, f"Tenant {tenant} not found") == (error["code"], error["message"])
        assert {"origin": "gateway", "reason": "forbidden"} == error["data"]
