"""The WebSocket client of npm's `@modelcontextprotocol/sdk` 1.x against a websocket source."""

import json
from pathlib import Path

import pytest
import trio

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.runtime.engine import Engine

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


async def test_the_sdk_of_typescript_uses_the_demo_server_over_a_websocket(
    node: dict[str, str], node_clients: Path
) -> None:
    """It offers `mcp`, shakes hands, calls at the same time, is asked a question, cancels, and goes on."""
    document = {
        "version": 1,
        "sources": {"ws": {"websocket": {"bind": "127.0.0.1:0"}, "pipeline": "outer"}},
        "pipelines": {"outer": {"sink": "up"}},
        "sinks": {"up": {"embedded": {}}},
    }
    engine = Engine(from_data(document))
    with trio.fail_after(120):
        async with engine.running():
            url = engine.sources["ws"].urls[0]  # type: ignore[attr-defined]  # sources that listen have them
            command = ["node", str(node_clients / "sdk1_websocket.mjs"), url]
            done = await trio.run_process(command, env=node, capture_stdout=True)
            report = json.loads(done.stdout)
            in_flight = engine.pipelines["outer"].admission.in_flight

    assert report["server"] == "sluiceway-demo"
    assert "countdown" in report["tools"]
    assert report["echoed"] == ["a", "b", "c"]
    assert report["asked"] == 1
    assert report["booked"].startswith("A table")
    assert report["cancelled"] is True
    assert report["after"] == "after"
    assert in_flight == 0
