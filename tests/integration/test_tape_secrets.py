"""
Secrets that pass a recorded gateway over real sockets are nowhere on its tape: neither in headers, nor in params and
results, nor in ids of sessions, nor those of the configuration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from sluiceway.middlewares.auth.api_keys import ApiKey, digest_of, render_keys
from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.replay.assembly import exchanges
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.replay.recording import open_edges
from sluiceway.pipeline.runtime.serve import addresses, serve

KEY = "slw_0123456789abcdef0123456789abcdef0123456789a"
PEPPER = "pepper-canary-0123456789-0123456789"
PASSWORD = "password-canary"  # the point of it
COOKIE = "cookie-canary"


def _document(folder: Path) -> Any:
    entry = ApiKey(id="k1", digest=digest_of(PEPPER.encode(), KEY), subject="ana")
    (folder / "keys.json").write_bytes(render_keys([entry]))
    key = {"file": str(folder / "keys.json"), "pepper": {"from_env": "PEPPER"}}
    return from_data(
        {
            "version": 1,
            "sources": {"public": {"http": {"bind": "127.0.0.1:0"}}},
            "pipelines": {"main": {"chain": [{"auth_api_key": key}], "sink": "demo"}},
            "sinks": {"demo": {"embedded": {"server": "demo"}}},
        }
    )


async def _talk(url: str) -> str:
    """A legacy session that sends secrets wherever there is room; its id."""
    headers = {"x-api-key": KEY, "cookie": f"a={COOKIE}", "accept": "application/json, text/event-stream"}
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    async with httpx2.AsyncClient(base_url=url, headers=headers) as client:
        opened = await client.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
        assert opened.status_code == 200, opened.text
        session = str(opened.headers["mcp-session-id"])
        client.headers["mcp-session-id"] = session
        arguments = {"text": f"the pepper is {PEPPER}", "password": PASSWORD, "url": f"https://u:{PASSWORD}@h/"}
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "echo", "arguments": arguments}}
        assert (await client.post("/mcp", json=call)).status_code == 200
        await client.delete("/mcp")
    return session


@pytest.mark.parametrize("suffix", ["", ".gz"])
async def test_no_secret_is_on_the_tape(suffix, tmp_path, monkeypatch):
    """And yet it says who called what, in which session."""
    monkeypatch.setenv("PEPPER", PEPPER)
    path = tmp_path / f"calls.jsonl{suffix}"
    document = _document(tmp_path)
    where: list[str] = []
    ready = trio.Event()

    def note(engine: Any) -> None:
        where.extend(addresses(engine)["public"])
        ready.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(lambda: document, ready=note, edges=lambda d: open_edges(d, path)))
        with trio.fail_after(20):
            await ready.wait()
            session = await _talk(f"http://{where[0]}")
        nursery.cancel_scope.cancel()
    tape = Tape(path)
    entries = list(tape.entries())
    text = json.dumps([str(entry) for entry in entries])

    assert [canary for canary in (KEY, PEPPER, PASSWORD, COOKIE, session) if canary in text] == []
    assert tape.findings == []
    found = list(exchanges(entries))
    assert [each.begun.message.method for each in found if each.begun] == ["initialize", "tools/call"]
    assert [each.ended.caller.subject for each in found if each.ended and each.ended.caller] == ["ana", "ana"]
    assert [each.begun.client.session for each in found if each.begun and each.begun.client] == [1, 1]
