"""
Whole gateways with the `http` sink, over real sockets: the MCP SDK's client in front of them, real servers behind.

The server behind is a second gateway with the conformance fixture, the SDK's own server, or `server-everything` of npm.
"""

from __future__ import annotations

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

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.*is deprecated as of 2026-07-28.*"),
    # the SDK's HTTP client leaves its generators to the garbage collector when a call is cancelled
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2.*:ResourceWarning"),
]

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


def _text(result: types.CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, types.TextContent))


async def _sampled(context: object, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    return types.CreateMessageResult(
        role="assistant", content=types.TextContent(type="text", text="sampled"), model="none"
    )


async def _declined(context: object, params: types.ElicitRequestParams) -> types.ElicitResult:
    return types.ElicitResult(action="decline")


async def test_through_two_gateways_everything_arrives(mode: str) -> None:
    """Tools, resources, prompts, completion, progress, cancelling and, in the legacy era, the server's questions."""
    progress: list[float] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    with trio.fail_after(60):
        async with (
            chained() as address,
            Client(address, mode=mode, sampling_callback=_sampled, elicitation_callback=_declined) as client,
        ):
            assert client.protocol_version == (LATEST_LEGACY if mode == "legacy" else LATEST)
            assert "test_simple_text" in {tool.name for tool in (await client.list_tools()).tools}
            assert "simple text" in _text(await client.call_tool("test_simple_text", {}))
            assert (await client.call_tool("test_error_handling", {})).is_error

            await client.call_tool("test_tool_with_progress", {}, progress_callback=on_progress)
            assert progress == [0, 50, 100]

            resources = (await client.list_resources()).resources
            assert (await client.read_resource(str(resources[0].uri))).contents != []
            assert (await client.list_prompts()).prompts != []
            if mode == "legacy":
                assert "sampled" in _text(await client.call_tool("test_sampling", {"prompt": "p"}))
                assert "decline" in _text(await client.call_tool("test_elicitation", {"message": "m"}))


async def test_many_calls_at_once_never_cross(mode: str) -> None:
    """Two clients with equal ids get their own answers."""
    with trio.fail_after(60):
        async with chained() as address, Client(address, mode=mode) as one, Client(address, mode=mode) as other:

            async def ask(client: Client, number: int) -> None:
                if number % 2:
                    assert "simple text" in _text(await client.call_tool("test_simple_text", {}))
                else:
                    assert (await client.call_tool("test_image_content", {})).content[0].type == "image"

            async with trio.open_nursery() as nursery:
                for number in range(60):
                    nursery.start_soon(ask, one, number)
                    nursery.start_soon(ask, other, number + 1)
