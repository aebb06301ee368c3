"""The same few exchanges in every revision of MCP, over both sources and in front of every kind of sink (M88)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.protocol.mcp import LATEST, LEGACY_VERSIONS, MetaKey
from sluiceway.pipeline.runtime.engine import Engine

pytestmark = pytest.mark.real
REVISIONS = pytest.mark.parametrize("version", [*LEGACY_VERSIONS, LATEST])
META = {MetaKey.VERSION.value: LATEST, MetaKey.CLIENT_CAPABILITIES.value: {}}
COMMAND = [sys.executable, "-c", "from sluiceway.pipeline.cli import main; import sys; sys.exit(main())", "run"]


def check_tools(tools: Any) -> None:
    """S4-TE-02: each has a name, and a schema that is an object's."""
    assert [tool["name"] for tool in tools].count("echo") == 1
    assert all(tool["inputSchema"]["type"] == "object" for tool in tools)


@REVISIONS
@pytest.mark.parametrize("sink", ["stdio", "http", "embedded"])
async def test_every_revision_is_spoken_over_http(
    world: Callable[..., Any], peer: Any, sink: str, version: str
) -> None:
    """S4-TE-01 and S4-TE-02: who the server is, what it offers, what a tool says, what it does not know."""
    modern = version == LATEST
    with trio.fail_after(30):
        async with world("http" if sink == "http" else "stdio", modern=modern) as around:
            data = around.data()
            if sink == "embedded":
                data["sinks"]["up"] = {"embedded": {"server": "demo"}}
            engine = Engine(from_data(data))
            async with engine.running():
                port = int(str(engine.sources["web"].addresses[0]).rpartition(":")[2])  # type: ignore[attr-defined]  # an HTTP source
                client = peer(port, modern=modern, version="" if modern else version)
                reply = await client.start()
                if modern:
                    reply = await asked(client, "server/discover")
                    assert LATEST in reply["result"]["supportedVersions"]
                else:
                    assert reply["result"]["protocolVersion"] == version
                    assert (await asked(client, "ping"))["result"] == {}
                assert {"capabilities", "serverInfo"} <= reply["result"].keys() or modern
                assert "tools" in reply["result"]["capabilities"]
                check_tools((await asked(client, "tools/list"))["result"]["tools"])
                assert "hello" in await client.ask("echo", text="hello")
                assert (await asked(client, "no/such/method"))["error"]["code"] == -32601
                await client.leave()


async def asked(client: Any, method: str) -> Any:
    """The answer to a request without params."""
    call = await client.send(method, {})
    reply = await call.reply()
    await call.leave()
    return reply


@REVISIONS
def test_every_revision_is_spoken_over_stdio(version: str, tmp_path: Path) -> None:
    """DC-GP-17: a client that starts the gateway as its server."""
    config = tmp_path / "gateway.yaml"
    config.write_text(
        "version: 1\nsources: {in: {stdio: {}}}\npipelines: {main: {sink: demo}}\nsinks: {demo: {embedded: {}}}\n"
    )
    modern = version == LATEST
    hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    meta = {"_meta": META} if modern else {}
    lines = [
        {"id": 1, "method": "server/discover", "params": meta} if modern
        else {"id": 1, "method": "initialize", "params": hello},
        *([] if modern else [{"method": "notifications/initialized"}]),
        {"id": 2, "method": "tools/list", "params": meta},
        {"id": 3, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "hello"}, **meta}},
        {"id": 4, "method": "no/such/method", "params": meta},
    ]  # fmt: skip
    with subprocess.Popen(
        [*COMMAND, str(config)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers = {}
        for line in lines:
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **line}).encode() + b"\n")
            process.stdin.flush()
            while "id" in line and line["id"] not in answers:
                message = json.loads(process.stdout.readline())
                answers[message.get("id")] = message
        process.stdin.close()
        assert process.wait(20) == 0

    greeting = answers[1]["result"]
    assert LATEST in greeting["supportedVersions"] if modern else greeting["protocolVersion"] == version
    assert "tools" in greeting["capabilities"]
    check_tools(answers[2]["result"]["tools"])
    assert "hello" in answers[3]["result"]["content"][0]["text"]
    assert answers[4]["error"]["code"] == -32601
