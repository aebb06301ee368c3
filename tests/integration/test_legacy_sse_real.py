"""HTTP+SSE with real peers on both sides: the SDKs' clients in front, the SDK's server and npm's behind."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from mcp import Client
from mcp.client.sse import sse_client
from mcp.server.mcpserver import Context, MCPServer

from sluiceway.pipeline.config import from_data, load
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.transports.asgi import Gateway
from sluiceway.transports.http_source.source import HttpSource

from .sdk_client import declined, sampled, text_of

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.*is deprecated as of 2026-07-28.*"),
    # the SDK's HTTP client leaves its generators to the garbage collector
    pytest.mark.filterwarnings("ignore:Async generator '.*:ResourceWarning"),
]

ROOM = Path(__file__).resolve().parents[2] / ".node"
SAMPLE = Path(__file__).resolve().parents[2] / "configs" / "legacy_sse.yaml"
FIXTURE = str(Path(__file__).resolve().parents[1] / "conformance")


@pytest.fixture(autouse=True)
def _fixture_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The conformance fixture is a module of its own folder."""
    monkeypatch.syspath_prepend(FIXTURE)


def document(sink: dict[str, Any], bind: str = "127.0.0.1:0") -> Any:
    """A gateway that serves both HTTP transports."""
    return from_data(
        {
            "version": 1,
            "sources": {"web": {"http": {"bind": bind, "sse": {}}, "pipeline": "main"}},
            "pipelines": {"main": {"sink": "up"}},
            "sinks": {"up": sink},
        }
    )


@asynccontextmanager
async def gateway(sink: dict[str, Any]) -> AsyncIterator[str]:
    """A gateway on a free port; yields where its event streams are."""
    engine = Engine(document(sink))
    async with engine.running():
        yield _stream_of(engine)


def _stream_of(engine: Engine) -> str:
    """Where the only source of a gateway has its event streams."""
    (source,) = engine.sources.values()
    assert isinstance(source, HttpSource)
    return f"http://{source.addresses[0]}/sse"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_sdks_client_uses_everything_over_a_stream(mode: Any) -> None:
    """Tools, resources, progress, errors and questions; its messages of 2026-07-28 as well."""
    progress: list[float] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    with trio.fail_after(60):
        async with (
            gateway({"embedded": {"server": "fixture:server"}}) as address,
            Client(sse_client(address), mode=mode, sampling_callback=sampled, elicitation_callback=declined) as client,
        ):
            assert client.protocol_version == (LATEST_LEGACY if mode == "legacy" else LATEST)
            assert "simple text" in text_of(await client.call_tool("test_simple_text", {}))
            assert (await client.call_tool("test_error_handling", {})).is_error
            await client.call_tool("test_tool_with_progress", {}, progress_callback=on_progress)
            assert progress == [0, 50, 100]
            assert (await client.list_resources()).resources != []
            if mode == "legacy":
                assert "sampled" in text_of(await client.call_tool("test_sampling", {"prompt": "p"}))
                assert "decline" in text_of(await client.call_tool("test_elicitation", {"message": "m"}))


async def test_gateways_speak_it_with_each_other() -> None:
    """A stream in front of a stream in front of a stream, and many calls at once."""
    with trio.fail_after(60):
        async with (
            gateway({"embedded": {"server": "fixture:server"}}) as inner,
            gateway({"sse": {"url": inner}}) as middle,
            gateway({"sse": {"url": middle}}) as outer,
            Client(sse_client(outer), mode="legacy", sampling_callback=sampled) as one,
            Client(sse_client(outer), mode="legacy") as other,
        ):
            results: list[str] = []

            async def ask(client: Client) -> None:
                results.append(text_of(await client.call_tool("test_simple_text", {})))

            async with trio.open_nursery() as nursery:
                for number in range(40):
                    nursery.start_soon(ask, one if number % 2 else other)
            assert len(results) == 40
            assert "sampled" in text_of(await one.call_tool("test_sampling", {"prompt": "p"}))
            with trio.move_on_after(0.2) as scope:
                await one.call_tool("test_tool_with_progress", {})
            assert "simple text" in text_of(await one.call_tool("test_simple_text", {})), scope


async def test_under_a_plain_hypercorn_it_is_served_as_well(nursery: trio.Nursery, programs: Any) -> None:
    """Its server tells only who waits that a client has gone; the session ends all the same."""
    port = programs.free_port()
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    config.graceful_timeout = 1
    stop = trio.Event()
    app = Gateway(lambda: document({"embedded": {"server": "fixture:server"}}))
    nursery.start_soon(partial(serve, app, config, shutdown_trigger=stop.wait, mode="asgi"))
    with trio.fail_after(60):
        await programs.until_listening(port)
        async with Client(sse_client(f"http://127.0.0.1:{port}/sse"), mode="legacy") as client:
            assert "simple text" in text_of(await client.call_tool("test_simple_text", {}))
            source = app._sources[0]
            assert source._serving is not None
            assert len(source._serving.event_streams) == 1
        while source._serving.event_streams:  # noqa: ASYNC110  # another task of the server's
            await trio.sleep(0.05)
        stop.set()


async def test_the_sdks_server_is_spoken_to(programs: Any) -> None:
    """Its SSE application of `mcp` 2.x, on hypercorn: calls, an error, progress, a question."""
    server = MCPServer("old")

    @server.tool()
    async def work(ctx: Context) -> str:
        """Make progress."""
        await ctx.report_progress(1, 2)
        await ctx.report_progress(2, 2)
        return "done"

    @server.tool()
    async def stuck() -> str:
        """Never end."""
        ended.append("begun")
        try:
            await trio.sleep_forever()
        finally:
            ended.append("cancelled")
        return ""

    ended: list[str] = []
    progress: list[float] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    port = programs.free_port()
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    config.graceful_timeout = 1
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            application: Any = server.sse_app()
            nursery.start_soon(partial(serve, application, config, shutdown_trigger=trio.sleep_forever, mode="asgi"))
            await programs.until_listening(port)
            async with (
                gateway({"sse": {"url": f"http://127.0.0.1:{port}/sse"}}) as address,
                Client(sse_client(address), mode="legacy") as client,
            ):
                assert client.server_info.name == "old"
                assert text_of(await client.call_tool("work", {}, progress_callback=on_progress)) == "done"
                with trio.move_on_after(0.5):
                    await client.call_tool("stuck", {})
                while len(ended) < 2:  # noqa: ASYNC110  # another task of the server's
                    await trio.sleep(0.01)
                assert text_of(await client.call_tool("work", {})) == "done"
            nursery.cancel_scope.cancel()

    assert progress == [1, 2]
    assert ended == ["begun", "cancelled"]


@pytest.mark.xdist_group("server-everything")
async def test_server_everything_and_the_sdk_of_npm(node: dict[str, str], node_clients: Path, programs: Any) -> None:
    """The TypeScript SDK's server and client, with `configs/legacy_sse.yaml` in between."""
    script = ROOM / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    port = programs.free_port()
    with trio.fail_after(100):
        async with (
            programs.run(["node", str(script), "sse"], port, env={**node, "PORT": str(port)}),
            Engine(
                load(SAMPLE, env={"UPSTREAM_URL": f"http://127.0.0.1:{port}/sse", "BIND": "127.0.0.1:0"})
            ).running() as engine,
        ):
            address = _stream_of(engine)
            command = ["node", str(node_clients / "sse1.mjs"), address]
            done = await trio.run_process(command, env=node, capture_stdout=True, capture_stderr=True, check=False)
            assert done.returncode == 0, done.stderr
            report = json.loads(done.stdout)
            async with Client(sse_client(address), mode="auto") as client:
                version = client.protocol_version
                echo = text_of(await client.call_tool("echo", {"message": "a"}))

    assert report["server"] == "mcp-servers/everything"
    assert "echo" in report["tools"]
    assert report["echo"] == "Echo: häi\n"
    assert "sampled" in report["sampled"]
    # that client drops progress which comes with the reply in one piece, without us in between as well
    assert (report["progress"][:2], report["cancelled"]) == ([1, 2], True)
    assert (version, echo) == (LATEST, "Echo: a")  # translated: it prefers the modern era
