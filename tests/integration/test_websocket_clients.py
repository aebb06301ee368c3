"""Clients of real SDKs against the WebSockets of the gateway: both sources that serve them, and a plain hypercorn."""

from __future__ import annotations

import fcntl
import json
import subprocess
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.document import Document
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.transports.asgi import Gateway

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

SDK = "mcp[ws]==1.30.0"
ROOM = Path(__file__).resolve().parents[2] / ".mcp1"
CLIENTS = Path(__file__).with_name("clients")


def document(source: dict[str, Any]) -> Document:
    """The demo server behind a source."""
    return from_data(
        {
            "version": 1,
            "sources": {"ws": {**source, "pipeline": "outer"}},
            "pipelines": {"outer": {"sink": "up"}},
            "sinks": {"up": {"embedded": {}}},
        }
    )


@asynccontextmanager
async def alone() -> AsyncIterator[str]:
    """The source with a listener of its own."""
    engine = Engine(document({"websocket": {"bind": "127.0.0.1:0"}}))
    async with engine.running():
        yield engine.sources["ws"].urls[0]  # type: ignore[attr-defined]  # sources that listen have them
        assert engine.pipelines["outer"].admission.in_flight == 0


@asynccontextmanager
async def beside_http() -> AsyncIterator[str]:
    """The http source."""
    engine = Engine(document({"http": {"bind": "127.0.0.1:0", "websocket": {}}}))
    async with engine.running():
        url: str = engine.sources["ws"].urls[0]  # type: ignore[attr-defined]  # likewise
        yield url.replace("http", "ws", 1)
        assert engine.pipelines["outer"].admission.in_flight == 0


@asynccontextmanager
async def under_hypercorn() -> AsyncIterator[str]:
    """A plain hypercorn, which has the sockets."""
    config = HypercornConfig()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 0.5
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        app: Any = Gateway(lambda: document({"http": {"websocket": {}}}))
        [url] = await nursery.start(partial(serve, app, config, shutdown_trigger=stop.wait, mode="asgi"))
        yield f"ws://127.0.0.1:{url.rpartition(':')[2]}/mcp"
        stop.set()


FACES = {"alone": alone, "beside_http": beside_http, "under_hypercorn": under_hypercorn}


@pytest.fixture(scope="session")
def python_sdk1() -> str:
    """A Python with the 1.x line of the SDK, in an environment of its own below `.mcp1/`."""
    python = ROOM / "venv" / "bin" / "python"
    marker = ROOM / "made_of"
    ROOM.mkdir(exist_ok=True)
    with (ROOM / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.exists() or marker.read_text(encoding="utf-8") != SDK:
            venv.create(ROOM / "venv", with_pip=True, clear=True)
            pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", SDK)
            subprocess.run(pip, check=True)
            marker.write_text(SDK, encoding="utf-8")
    return str(python)


async def report_of(command: list[str], env: dict[str, str] | None = None) -> dict[str, Any]:
    """What a client says it saw."""
    done = await trio.run_process(command, env=env, capture_stdout=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("face", FACES)
async def test_the_sdk_of_typescript_uses_the_demo_server_over_a_websocket(
    node: dict[str, str], node_clients: Path, face: str
) -> None:
    """It offers `mcp`, shakes hands, calls at the same time, is asked a question, cancels, and goes on."""
    with trio.fail_after(120):
        async with FACES[face]() as url:
            report = await report_of(["node", str(node_clients / "sdk1_websocket.mjs"), url], node)

    assert report["server"] == "sluiceway-demo"
    assert "countdown" in report["tools"]
    assert report["echoed"] == ["a", "b", "c"]
    assert report["asked"] == 1
    assert report["booked"].startswith("A table")
    assert report["cancelled"] is True
    assert report["after"] == "after"


@pytest.mark.parametrize("face", FACES)
async def test_the_sdk_of_python_uses_the_demo_server_over_a_websocket(python_sdk1: str, face: str) -> None:
    """The 1.x line, which has the transport and calls it deprecated."""
    with trio.fail_after(120):
        async with FACES[face]() as url:
            report = await report_of([python_sdk1, "-W", "ignore", str(CLIENTS / "python_sdk1.py"), url])

    assert report["server"] == "sluiceway-demo"
    assert "countdown" in report["tools"]
    assert report["echoed"] == ["a", "b", "c"]
    assert report["asked"] == 1
    assert report["booked"].startswith("A table")
    assert report["progress"] == [1.0, 2.0, 3.0]
    assert report["after"] == "after"
