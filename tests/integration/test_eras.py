"""The SDK's client in its legacy mode at the SDK's server without its legacy half: nothing of ours at either end."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
import trio
from mcp import Client, MCPError

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.protocol.mcp import LATEST_LEGACY
from sluiceway.pipeline.runtime.engine import Engine

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.*is deprecated as of 2026-07-28.*"),
    # the SDK's HTTP client leaves its generators to the garbage collector when a call is cancelled
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2.*:ResourceWarning"),
]

SERVER = str(Path(__file__).resolve().parents[1] / "conformance" / "one_era.py")


@asynccontextmanager
async def engine(sink: Mapping[str, Any], source: str = "http") -> AsyncIterator[str]:
    """A gateway on a free port in front of a sink; yields its address."""
    document = {
        "version": 1,
        "sources": {"front": {source: {"bind": "127.0.0.1:0"}, "pipeline": "main"}},
        "pipelines": {"main": {"sink": "up"}},
        "sinks": {"up": sink},
    }
    running = Engine(from_data(document))
    async with running.running():
        yield running.sources["front"].urls[0]  # type: ignore[attr-defined]  # sources that listen have them


@asynccontextmanager
async def behind(transport: str, programs: Any) -> AsyncIterator[str]:
    """A gateway whose upstream is that server; over WebSockets another gateway stands in front of it."""
    if transport == "stdio":
        async with engine({"stdio": {"command": [sys.executable, SERVER, "modern", "stdio"]}}) as address:
            yield address
        return
    port = programs.free_port()
    async with programs.run([sys.executable, SERVER, "modern", "http", str(port)], port):
        sink: dict[str, Any] = {"http": {"url": f"http://127.0.0.1:{port}/mcp"}}
        if transport == "http":
            async with engine(sink) as address:
                yield address
            return
        sink["http"]["translate"] = False
        async with engine(sink, "websocket") as inner, engine({"websocket": {"url": inner}}) as address:
            yield address


class Answers:
    """What the client's user, model and file system say."""

    def __init__(self) -> None:
        self.changed: list[str] = []
        self.logged: list[str] = []

    def client(self, address: str) -> Any:
        """A client of the legacy era."""
        return Client(
            address, mode="legacy", sampling_callback=self.sampled, elicitation_callback=self.filled,
            list_roots_callback=self.roots, logging_callback=self.on_log, message_handler=self.on_message,
        )  # fmt: skip

    async def sampled(self, context: object, params: Any) -> types.CreateMessageResult:
        said = types.TextContent(type="text", text="Paris")
        return types.CreateMessageResult(role="assistant", content=said, model="none")

    async def filled(self, context: object, params: Any) -> types.ElicitResult:
        values = {"string": "Ana", "boolean": True}
        properties = params.requested_schema["properties"]
        return types.ElicitResult(
            action="accept", content={name: values[each["type"]] for name, each in properties.items()}
        )

    async def roots(self, context: object) -> types.ListRootsResult:
        return types.ListRootsResult.model_validate({"roots": [{"uri": "file:///home"}]})

    async def on_log(self, params: types.LoggingMessageNotificationParams) -> None:
        self.logged.append(str(params.data))

    async def on_message(self, message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.changed.append("tools")


def text_of(result: Any) -> str:
    """The texts of a result."""
    return "\n".join(block.text for block in result.content if block.type == "text")


@pytest.mark.parametrize("transport", ["http", "stdio", "websocket"])
async def test_the_sdks_legacy_client_uses_the_sdks_modern_server(transport: str, programs: Any) -> None:
    """Found out by itself: the server refuses the handshake, and says what it speaks."""
    answers, progress = Answers(), []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    with trio.fail_after(60):
        async with behind(transport, programs) as address, answers.client(address) as client:
            assert client.protocol_version == LATEST_LEGACY
            assert client.server_info.name == "sdk-conformance"
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert "test_simple_text" in tools
            assert "simple text" in text_of(await client.call_tool("test_simple_text", {}))
            assert (await client.call_tool("test_error_handling", {})).is_error
            await client.call_tool("test_tool_with_progress", {}, progress_callback=on_progress)

            for name, said in (
                ("test_input_required_result_elicitation", "Ana"),
                ("test_input_required_result_sampling", "Paris"),
                ("test_input_required_result_list_roots", "file:///home"),
            ):
                assert said in text_of(await client.call_tool(name, {}))
            for name in ("request_state", "multiple_inputs", "multi_round"):
                asked = await client.call_tool(f"test_input_required_result_{name}", {})
                assert not asked.is_error
            prompt = await client.get_prompt("test_input_required_result_prompt", {})
            assert "Ana" in prompt.messages[0].content.text

            with pytest.raises(MCPError) as missing:
                await client.read_resource("test://nowhere")
            assert missing.value.error.code == -32002
            assert (await client.read_resource("test://static-text")).contents[0].text
            assert await client.complete(
                types.PromptReference(type="ref/prompt", name="x"), {"name": "a", "value": "pa"}
            )

            await client.set_logging_level("info")
            await client.call_tool("test_tool_with_logging", {})
            await client.call_tool("test_trigger_tool_change", {})
            while not answers.changed or len(answers.logged) < 3:  # noqa: ASYNC110  # bounded by the time-out
                await trio.sleep(0.02)

            with trio.move_on_after(0.02) as scope:
                await client.call_tool("test_tool_with_progress", {})
            assert scope.cancelled_caught
            assert "simple text" in text_of(await client.call_tool("test_simple_text", {}))

    assert progress == [0, 50, 100]
    assert answers.changed == ["tools"]
