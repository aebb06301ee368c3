"""
Whole gateways with the `http` sink, over real sockets: the MCP SDK's client in front of them, real servers behind.

The server behind is a second gateway with the conformance fixture, the SDK's own server, or `server-everything` of npm.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
import trio
from mcp import Client

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY
from sluiceway.pipeline.runtime.engine import Engine

from .sdk_client import declined, sampled, text_of

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.*is deprecated as of 2026-07-28.*"),
    # the SDK's HTTP client leaves its generators to the garbage collector when a call is cancelled
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2.*:ResourceWarning"),
]

ROOM = Path(__file__).resolve().parents[2] / ".node"
FIXTURE = str(Path(__file__).resolve().parents[1] / "conformance")


@asynccontextmanager
async def gateway(sink: dict[str, Any], **pipeline: Any) -> AsyncIterator[tuple[Engine, str]]:
    """A gateway on a free port; yields it and its address."""
    document = from_data(
        {
            "version": 1,
            "sources": {"web": {"http": {"bind": "127.0.0.1:0"}, "pipeline": "main"}},
            "pipelines": {"main": {"sink": "up", **pipeline}},
            "sinks": {"up": sink},
        }
    )
    engine = Engine(document)
    async with engine.running():
        yield engine, f"http://{engine.sources['web'].addresses[0]}/mcp"


@asynccontextmanager
async def chained() -> AsyncIterator[str]:
    """A gateway in front of a gateway in front of the conformance fixture."""
    async with (
        gateway({"embedded": {"server": "fixture:server"}}) as (_, inner),
        gateway({"http": {"url": inner}}) as (_, outer),
    ):
        yield outer


@pytest.fixture(autouse=True)
def _fixture_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The conformance fixture is a module of its own folder."""
    monkeypatch.syspath_prepend(FIXTURE)


@pytest.fixture(params=["legacy", "auto"])
def mode(request: pytest.FixtureRequest) -> str:
    """How the SDK's client finds out which era the server speaks."""
    return request.param


async def test_through_two_gateways_everything_arrives(mode: str) -> None:
    """Tools, resources, prompts, completion, progress, cancelling and, in the legacy era, the server's questions."""
    progress: list[float] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    with trio.fail_after(60):
        async with (
            chained() as address,
            Client(address, mode=mode, sampling_callback=sampled, elicitation_callback=declined) as client,
        ):
            assert client.protocol_version == (LATEST_LEGACY if mode == "legacy" else LATEST)
            assert "test_simple_text" in {tool.name for tool in (await client.list_tools()).tools}
            assert "simple text" in text_of(await client.call_tool("test_simple_text", {}))
            assert (await client.call_tool("test_error_handling", {})).is_error

            await client.call_tool("test_tool_with_progress", {}, progress_callback=on_progress)
            assert progress == [0, 50, 100]

            resources = (await client.list_resources()).resources
            assert (await client.read_resource(str(resources[0].uri))).contents != []
            assert (await client.list_prompts()).prompts != []
            if mode == "legacy":
                assert "sampled" in text_of(await client.call_tool("test_sampling", {"prompt": "p"}))
                assert "decline" in text_of(await client.call_tool("test_elicitation", {"message": "m"}))


async def test_many_calls_at_once_never_cross(mode: str) -> None:
    """Two clients with equal ids get their own answers."""
    with trio.fail_after(60):
        async with chained() as address, Client(address, mode=mode) as one, Client(address, mode=mode) as other:

            async def ask(client: Client, number: int) -> None:
                if number % 2:
                    assert "simple text" in text_of(await client.call_tool("test_simple_text", {}))
                else:
                    assert (await client.call_tool("test_image_content", {})).content[0].type == "image"

            async with trio.open_nursery() as nursery:
                for number in range(60):
                    nursery.start_soon(ask, one, number)
                    nursery.start_soon(ask, other, number + 1)


SDK_SERVER = """
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("sdk")


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


@server.tool()
async def count(ctx: Context) -> str:
    for step in (1, 2, 3):
        await ctx.report_progress(step, 3)
    return "counted"


@server.resource("memo://one")
def one() -> str:
    return "first"


app = server.streamable_http_app()
"""


async def test_the_sdks_own_server_in_its_own_process(mode: str, tmp_path: Path, programs: Any) -> None:
    """It speaks both eras; the client gets the one it asks for."""
    progress: list[float] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    await trio.Path(tmp_path / "sdk_server.py").write_text(SDK_SERVER)
    port = programs.free_port()
    hypercorn = str(Path(sys.executable).parent / "hypercorn")
    command = [hypercorn, "-k", "trio", "-b", f"127.0.0.1:{port}", "sdk_server:app"]
    with trio.fail_after(60):
        async with (
            programs.run(command, port, cwd=tmp_path),
            gateway({"http": {"url": f"http://127.0.0.1:{port}/mcp"}}) as (_, address),
            Client(address, mode=mode) as client,
        ):
            assert client.protocol_version == (LATEST_LEGACY if mode == "legacy" else LATEST)
            assert client.server_info.name == "sdk"
            assert [tool.name for tool in (await client.list_tools()).tools] == ["add", "count"]
            assert text_of(await client.call_tool("add", {"a": 40, "b": 2})) == "42"
            assert text_of(await client.call_tool("count", {}, progress_callback=on_progress)) == "counted"
            assert progress == [1, 2, 3]
            assert (await client.read_resource("memo://one")).contents[0].text == "first"


@pytest.mark.xdist_group("server-everything")
async def test_server_everything_over_streamable_http(mode: str, node: dict[str, str], programs: Any) -> None:
    """
    A legacy server of npm: its questions, logs and progress arrive. A client that prefers the modern era is translated
    for, and has no log messages of no request.
    """
    progress: list[float] = []
    logs: list[str] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    async def on_log(params: types.LoggingMessageNotificationParams) -> None:
        logs.append(params.level)

    port = programs.free_port()
    script = ROOM / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    command = ["node", str(script), "streamableHttp"]
    with trio.fail_after(90):
        async with (
            programs.run(command, port, env={**node, "PORT": str(port)}),
            gateway({"http": {"url": f"http://127.0.0.1:{port}/mcp"}}) as (_, address),
            Client(
                address,
                mode=mode,
                logging_callback=on_log,
                sampling_callback=sampled,
                elicitation_callback=declined,
            ) as client,
        ):
            assert client.protocol_version == (LATEST_LEGACY if mode == "legacy" else LATEST)
            assert client.server_info.name == "mcp-servers/everything"
            assert "echo" in {tool.name for tool in (await client.list_tools()).tools}
            assert text_of(await client.call_tool("echo", {"message": "häi\n"})) == "Echo: häi\n"

            slow = {"duration": 0.3, "steps": 3}
            await client.call_tool("trigger-long-running-operation", slow, progress_callback=on_progress)
            assert progress == [1, 2, 3]
            with trio.move_on_after(0.3) as scope:
                await client.call_tool("trigger-long-running-operation", {"duration": 60, "steps": 1})
            assert scope.cancelled_caught

            sampling = {"prompt": "p", "maxTokens": 5}
            assert "sampled" in text_of(await client.call_tool("trigger-sampling-request", sampling))
            assert "decline" in text_of(await client.call_tool("trigger-elicitation-request", {}))
            assert len((await client.list_resources()).resources) > 3
            prompt = await client.get_prompt("args-prompt", {"city": "Paris"})
            assert "Paris" in prompt.messages[0].content.text

            if mode != "legacy":
                return
            await client.set_logging_level("debug")
            await client.call_tool("toggle-simulated-logging", {})
            with trio.fail_after(15):
                while not logs:  # noqa: ASYNC110  # bounded
                    await trio.sleep(0.02)
