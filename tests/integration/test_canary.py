"""
Goal S7: what is secret in a request is in no log line and no audit entry, however the request ends.

Through a whole gateway with auth, log, trace, audit and access; metrics and traces have a test of their own beside the
admin listener.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog
from msgspec.structs import replace

from sluiceway.middlewares.access.stage import Access
from sluiceway.middlewares.audit.stage import Audit
from sluiceway.middlewares.auth.api_keys import ApiKey, digest_of, render_keys
from sluiceway.middlewares.auth_api_key import AuthApiKey
from sluiceway.middlewares.log import Log
from sluiceway.middlewares.request_id import RequestId
from sluiceway.middlewares.trace import Trace
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.telemetry.log import configure_logging
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

CANARY = "c4n4ry-0123456789abcdef"
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("tools/call", {"name": "pay", "arguments": {"api_key": CANARY, "deep": [{"Pass-Word": CANARY}], "n": 1}}),
    ("tools/call", {"name": "pay", "arguments": {}, "_meta": {"baggage": f"token={CANARY}", "com.x/secret": CANARY}}),
    ("resources/read", {"uri": f"https://ana:{CANARY}@host/x?access_token={CANARY}"}),
    ("prompts/get", {"name": "greet", "arguments": {"token": CANARY}}),
]


@pytest.mark.parametrize("key", [CANARY, "k3y-of-ana-0123456789"])
async def test_no_canary_is_in_logs_or_audit(key, tmp_path, monkeypatch, capsys):
    """Neither of a caller who is let in, nor of one who is refused; nor the gateway's own secrets."""
    before = structlog.get_config()
    pepper = f"pepper-{CANARY}"
    monkeypatch.setenv("PEPPER", pepper)
    monkeypatch.setenv("AUDIT_KEY", f"audit-{CANARY}")
    keys = tmp_path / "keys.json"
    keys.write_bytes(
        render_keys([ApiKey(id="one", digest=digest_of(pepper.encode(), "k3y-of-ana-0123456789"), subject="ana")])
    )
    trail = tmp_path / "audit.jsonl"
    stages: list[Any] = [
        RequestId,
        Trace,
        (Log, {"level": "info"}),
        (Audit, {"path": str(trail), "checkpoint_key": {"from_env": "AUDIT_KEY"}}),
        (AuthApiKey, {"file": str(keys), "pepper": {"from_env": "PEPPER"}}),
        (Access, {"rules": [{"subject": "ana", "allow": "tools:pay"}]}),
    ]
    configure_logging("debug", "json")
    try:
        replies = [{"content": [{"type": "text", "text": CANARY}]}] * 8
        async with PipelineHarness.from_stages(stages, sink=FakeSink.script(replies)) as gateway:
            headers = {"x-api-key": key, "authorization": f"Basic {CANARY}", "cookie": CANARY}
            session = Session(id=CANARY, source="test", version="2025-06-18")
            gateway.client = replace(gateway.client, headers=headers, session=session)
            for method, params in REQUESTS:
                await gateway.call(method, **params)
    finally:
        structlog.configure(**before)
    written = trail.read_text()
    entries = [json.loads(line) for line in written.splitlines()]
    said = capsys.readouterr()

    assert len([entry for entry in entries if entry["event"] == "request"]) == len(REQUESTS)
    assert "request started" in said.err
    assert CANARY not in written
    assert CANARY not in said.err + said.out
