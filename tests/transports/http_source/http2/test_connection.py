"""HTTP/2 as a well-behaved client sees it: the same endpoint as over HTTP/1.1."""

from __future__ import annotations

from typing import Any


async def test_a_call_is_answered(running: Any, dial: Any, autojump_clock: Any) -> None:
    """A modern call over HTTP/2 gets its result as JSON."""
    async with running() as served:
        peer = await dial(served)
        body = served.modern("tools/call", 7, name="x")
        answer = await peer.ask("POST", "/mcp", body, served.mirror(body))

        assert answer.status == 200
        assert answer.json["id"] == 7
        assert answer.headers["content-type"] == "application/json"
        assert "connection" not in answer.headers
        assert "date" in answer.headers
