"""
Bridges of others, `supergateway` of npm and `mcp-proxy` of PyPI: as servers behind the gateway, and in front of it.

At the far end is our demo server, at the near end the 1.x line of the Python SDK; that line is also tried without any
bridge, over HTTP+SSE and standard streams. What a bridge does not carry is in `NOT_CARRIED`.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.runtime.engine import Engine

pytestmark = [pytest.mark.real, pytest.mark.timeout(180), pytest.mark.xdist_group("bridges")]

ROOT = Path(__file__).resolve().parents[2]
ROOM = ROOT / ".mcp1"
CLIENT = str(Path(__file__).with_name("clients") / "python_sdk1.py")
SUPERGATEWAY = str(ROOT / ".node" / "node_modules" / "supergateway" / "dist" / "index.js")
MCP_PROXY = "mcp-proxy==0.13.0"
SLUICEWAY = str(Path(sys.executable).with_name("sluiceway"))

BEHIND = ["supergateway-http", "supergateway-sse", "supergateway-ws", "mcp-proxy-http", "mcp-proxy-sse"]
IN_FRONT = ["supergateway-http", "supergateway-sse", "mcp-proxy-http", "mcp-proxy-sse"]
NOT_CARRIED: dict[str, set[str]] = {
    # it answers with one JSON object, beside which there is no room for progress
    "mcp-proxy-http behind": {"question", "progress"},
    "mcp-proxy-sse behind": {"question"},
    # it makes null of ids that are text, such as those of questions, whose calls would never end
    "supergateway-ws behind": {"question"},
    "mcp-proxy-http in front": {"question"},
    "mcp-proxy-sse in front": {"question"},
    "supergateway-http in front": {"question", "progress"},
    "supergateway-sse in front": {"question", "progress"},
}
"""By bridge: `question` and `progress`, where it keeps them to itself."""


@pytest.fixture(scope="session")
def old_python() -> Path:
    """A folder of programs with `mcp-proxy` and the 1.x line of the SDK that it needs, below `.mcp1/`."""
    folder, marker = ROOM / "proxy", ROOM / "proxy.made_of"
    ROOM.mkdir(exist_ok=True)
    with (ROOM / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not marker.exists() or marker.read_text(encoding="utf-8") != MCP_PROXY:
            venv.create(folder, with_pip=True, clear=True)
            pip = (
                folder / "bin" / "python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                MCP_PROXY,
            )
            subprocess.run(pip, check=True)
            marker.write_text(MCP_PROXY, encoding="utf-8")
    return folder / "bin"


@pytest.fixture
def demo(tmp_path: Path) -> list[str]:
    """The command of a demo server on standard streams."""
    file = tmp_path / "demo.yaml"
    document = {"version": 1, "pipelines": {"main": {"sink": "up"}}, "sinks": {"up": {"embedded": {}}}}
    file.write_text(json.dumps(document), encoding="utf-8")
    return [SLUICEWAY, "run", "--stdio", str(file)]


@asynccontextmanager
async def gateway(sink: dict[str, Any]) -> AsyncIterator[str]:
    """A gateway in front of a sink, over HTTP in both forms; yields its origin."""
    sources = {"web": {"http": {"bind": "127.0.0.1:0", "sse": {}}}}
    engine = Engine(
        from_data({"version": 1, "sources": sources, "pipelines": {"main": {"sink": "up"}}, "sinks": {"up": sink}})
    )
    async with engine.running():
        front: Any = engine.sources["web"]
        yield f"http://{front.addresses[0]}"


async def seen_by_a_client(python: Path, *target: str) -> dict[str, Any]:
    """What the client says of a server."""
    done = await trio.run_process([str(python / "python"), "-W", "ignore", CLIENT, *target], capture_stdout=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def check(report: dict[str, Any], lacking: set[str]) -> None:
    """Everything that is carried came out right."""
    assert "countdown" in report["tools"]
    assert report["echoed"] == ["a", "b", "c"]
    assert report["asked"] == (0 if "question" in lacking else 1)
    assert report["booked"].startswith("A table") == ("question" not in lacking)
    assert report["progress"] == ([] if "progress" in lacking else [1.0, 2.0, 3.0])
    assert report["after"] == "after"


@asynccontextmanager
async def bridge_server(
    bridge: str, python: Path, node: dict[str, str], command: list[str], programs: Any
) -> AsyncIterator[dict[str, Any]]:
    """A bridge that serves a command on a port; yields the sink for it."""
    port = programs.free_port()
    name, _, transport = bridge.rpartition("-")
    if name == "supergateway":
        output = {"http": ["streamableHttp", "--stateful"], "sse": ["sse"], "ws": ["ws", "--messagePath", "/mcp"]}
        words = ["--stdio", " ".join(command), "--port", str(port), "--logLevel", "none", "--outputTransport"]
        run = [str(ROOT / ".node" / "bin" / "node"), SUPERGATEWAY, *words, *output[transport]]
    else:
        run = [str(python / "mcp-proxy"), "--port", str(port), "--pass-environment", "--", *command]
    async with programs.run(run, port, env=node, stdin=subprocess.PIPE) as process:
        yield {
            "http": {"http": {"url": f"http://127.0.0.1:{port}/mcp"}},
            "sse": {"sse": {"url": f"http://127.0.0.1:{port}/sse"}},
            "ws": {"websocket": {"url": f"ws://127.0.0.1:{port}/mcp"}},
        }[transport]
        await process.stdin.aclose()  # supergateway ends when its input does


@pytest.mark.parametrize("bridge", BEHIND)
async def test_a_bridge_is_a_server_behind_the_gateway(
    bridge: str, old_python: Path, node: dict[str, str], demo: list[str], programs: Any
) -> None:
    """Each form in which it serves."""
    with trio.fail_after(120):
        async with bridge_server(bridge, old_python, node, demo, programs) as sink, gateway(sink) as origin:
            unasked = ["--unasked"] if bridge == "supergateway-ws" else []
            report = await seen_by_a_client(old_python, *unasked, f"{origin}/sse")

    check(report, NOT_CARRIED.get(f"{bridge} behind", set()))


@pytest.mark.parametrize("bridge", IN_FRONT)
async def test_a_bridge_is_a_client_of_the_gateway(bridge: str, old_python: Path, node: dict[str, str]) -> None:
    """On each transport that it speaks."""
    name, _, transport = bridge.rpartition("-")
    with trio.fail_after(120):
        async with gateway({"embedded": {}}) as origin:
            url = f"{origin}/{'mcp' if transport == 'http' else 'sse'}"
            if name == "supergateway":
                option = "--streamableHttp" if transport == "http" else "--sse"
                words = [str(ROOT / ".node" / "bin" / "node"), SUPERGATEWAY, option, url, "--logLevel", "none"]
            else:
                kind = "streamablehttp" if transport == "http" else "sse"
                words = [str(old_python / "mcp-proxy"), "--transport", kind, url]
            report = await seen_by_a_client(old_python, *words)

    check(report, NOT_CARRIED.get(f"{bridge} in front", set()))


async def test_the_old_sdk_of_python_speaks_to_the_gateway_over_a_stream(old_python: Path) -> None:
    """HTTP+SSE, which its clients know as `sse_client`."""
    with trio.fail_after(120):
        async with gateway({"embedded": {}}) as origin:
            check(await seen_by_a_client(old_python, f"{origin}/sse"), set())


async def test_the_old_sdk_of_python_starts_the_gateway(old_python: Path, demo: list[str]) -> None:
    """As a server on standard streams."""
    with trio.fail_after(120):
        check(await seen_by_a_client(old_python, *demo), set())
