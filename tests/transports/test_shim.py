"""Between the gateway and a server: nothing of the server survives either, however either ends."""

import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import structlog.testing
import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.session import Client, Session
from sluiceway.pipeline.protocol.errors import UpstreamClosed
from sluiceway.pipeline.protocol.mcp import LATEST_LEGACY, Era
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.process import Process, Shim
from sluiceway.transports.stdio_sink import StdioSink, StdioSinkConfig

CHILDREN = Path(__file__).parent / "children"
SLUICEWAY = str(Path(sys.executable).parent / "sluiceway")
INITIALIZE = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}  # fmt: skip
ANSWERING = ("sed", "-nu", r's/.*"id":\([0-9]*\).*/{"jsonrpc":"2.0","id":\1,"result":{}}/p')
"""A server that starts faster than any interpreter."""


async def vanish(*pids: int) -> None:
    """Wait until processes are gone, or at most zombies of somebody else."""
    with trio.fail_after(10):
        for pid in pids:
            while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
                await trio.sleep(0.01)


@asynccontextmanager
async def opened(name: str = "plain", **options: object):
    """A sink with short graces, in bounded time."""
    command = (sys.executable, "-S", str(CHILDREN / f"{name}.py"))
    options = {"command": command, "stop_grace": 0.2, "kill_grace": 0.2, **options}
    with trio.fail_after(240):
        sink = StdioSink(StdioSinkConfig(**options), Context(id="files"))
        sink._lines._era.is_modern = True  # what it finds out is the business of test_stdio_era.py
        async with sink.open():
            yield sink


async def ask(sink: StdioSink, name: str = "", session: Session | None = None, method: str = "tools/call"):
    """What the server answers."""
    client = {"client": Client(era=Era.LEGACY, version=LATEST_LEGACY, session=session)} if session else {}
    reply = await sink(memory_exchange(method, {"name": name}, **client))
    assert isinstance(reply, Result)
    return reply.value


@pytest.mark.parametrize("name", ["plain", "stubborn", "family", "daemons"])
async def test_a_gateway_that_is_killed_leaves_no_server(name, tmp_path):
    """`kill -9` of a whole gateway: polite children, deaf ones, their children, and daemons that got away."""
    config = tmp_path / "gateway.yaml"
    config.write_text(f"""
version: 1
sources: {{in: {{stdio: {{}}, pipeline: main}}}}
pipelines: {{main: {{chain: [], sink: up}}}}
sinks: {{up: {{stdio: {{command: [{sys.executable}, "-S", {CHILDREN / name}.py]}}}}}}
""")
    gateway = subprocess.Popen(  # noqa: ASYNC220  # a millisecond, and a plain object to kill
        [SLUICEWAY, "run", str(config)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with gateway:
        assert gateway.stdin is not None
        assert gateway.stdout is not None
        gateway.stdin.write(json.dumps(INITIALIZE).encode() + b"\n")
        gateway.stdin.flush()
        reply = json.loads(await trio.to_thread.run_sync(gateway.stdout.readline))
        family = {process.pid for process in psutil.Process(gateway.pid).children(recursive=True)}

        assert "result" in reply
        assert {value for key, value in reply["result"].items() if key in ("pid", "grandchild", "daemon")} <= family
        assert len(family) >= 2  # the shim, and the server

        gateway.send_signal(signal.SIGKILL)
    await vanish(*family)


@pytest.mark.parametrize("how", ["closed", "exits"])
async def test_a_daemon_of_a_server_goes_with_it(how):
    """It left the process group and has another parent, and is found all the same."""
    async with opened("daemons") as sink:
        reply = await ask(sink)
        if how == "exits":
            assert (await ask(sink, "exit"))["pid"] == reply["pid"]
            await vanish(reply["daemon"])

    assert not psutil.pid_exists(reply["pid"])
    assert not psutil.pid_exists(reply["daemon"])


@pytest.mark.parametrize("how", ["closed", "exits"])
async def test_a_daemon_of_a_server_that_nobody_watches_goes_with_it(how):
    """It is found by its environment."""
    async with opened("daemons", lifetime="plain") as sink:
        reply = await ask(sink)
        if how == "exits":
            assert (await ask(sink, "exit"))["pid"] == reply["pid"]
            await vanish(reply["daemon"])

    await vanish(reply["daemon"])
    assert not psutil.pid_exists(reply["pid"])


async def test_a_gateway_that_stops_leaves_no_daemon_nor_zombie_of_a_server_that_nobody_watches(tmp_path):
    """The daemon was adopted by the gateway, which reaps it."""
    config = tmp_path / "gateway.yaml"
    command = f"[{sys.executable}, -S, {CHILDREN / 'daemons.py'}]"
    config.write_text(f"""
version: 1
sources: {{in: {{stdio: {{}}, pipeline: main}}}}
pipelines: {{main: {{chain: [], sink: up}}}}
sinks: {{up: {{stdio: {{command: {command}, lifetime: plain, stop_grace: 100ms, kill_grace: 100ms}}}}}}
""")
    gateway = await trio.lowlevel.open_process(
        [SLUICEWAY, "run", str(config)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert gateway.stdin is not None
    assert gateway.stdout is not None
    with trio.fail_after(60):
        await gateway.stdin.send_all(json.dumps(INITIALIZE).encode() + b"\n")
        reply = json.loads(await gateway.stdout.receive_some())["result"]
        assert psutil.Process(reply["daemon"]).ppid() == gateway.pid
        gateway.terminate()
        await gateway.wait()
    await gateway.stdout.aclose()

    assert gateway.returncode == 0
    await vanish(reply["daemon"])


async def test_a_server_ends_when_its_shim_is_killed():
    """The kernel sees to it, and the call fails like with any other death."""
    async with opened("echo") as sink:
        pid = (await ask(sink))["pid"]
        os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
        with pytest.raises(UpstreamClosed, match=r"was killed by SIGKILL|closed its standard"):
            await ask(sink, "hang")

        await vanish(pid)


async def test_a_server_does_not_outlive_its_shim_although_nobody_looks():
    """Gateway and shim can be killed together; what is left then is the kernel's to do."""
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    process = Process.spawn([sys.executable, "-S", "-c", code], cwd=None, env={}, shim=Shim())
    try:
        with trio.fail_after(10):
            server = int(await process.stdout.receive_some())
        os.kill(process.pid, signal.SIGKILL)
        await vanish(server)
    finally:
        await process.kill_and_reap()


async def test_without_a_shim_nobody_stands_between():
    """lifetime plain: the server is a child of ours, started in the same way otherwise."""
    async with opened("echo", lifetime="plain") as sink:
        pid = (await ask(sink))["pid"]

        assert psutil.Process(pid).ppid() == os.getpid()
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import sys; sys.exit(3)", "exited with status 3"),
        ("import os; os.abort()", "was killed by SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
    ],
)
@pytest.mark.parametrize("watch", [True, False])
async def test_the_end_of_a_server_is_seen_through_the_shim(code, text, watch):
    """With its exit code, or its signal."""
    process = Process.spawn([sys.executable, "-S", "-c", code], cwd=None, env={}, shim=Shim(watch=watch))
    try:
        with trio.fail_after(10):
            await process.wait_exited()

        assert process.status_text() == text
        assert process.start_error() is None
    finally:
        await process.kill_and_reap()


@pytest.mark.parametrize("watch", [True, False])
async def test_what_cannot_be_started_says_why(watch):
    """The reason comes over the lifeline, where no server can write."""
    process = Process.spawn(["/nowhere/at/all"], cwd=None, env={}, shim=Shim(watch=watch))
    try:
        with trio.fail_after(10):
            await process.wait_exited()

        assert process.start_error() == "No such file or directory"
    finally:
        await process.kill_and_reap()
    assert process.start_error() == "No such file or directory"


async def test_the_shim_adds_nothing_to_the_environment():
    """Python sets LC_CTYPE for itself where no locale is given; the server does not see it."""
    process = Process.spawn(["/usr/bin/env"], cwd=None, env={"ONLY": "this"}, shim=Shim())
    try:
        with trio.fail_after(10):
            assert await process.stdout.receive_some() == b"ONLY=this\n"
    finally:
        await process.kill_and_reap()


@pytest.mark.timeout(240)
async def test_a_thousand_vanishing_clients_leave_no_process():
    """Sessions that end in the middle of a call, and before their server has even started."""
    before = set(psutil.Process().children(recursive=True))
    with structlog.testing.capture_logs():
        async with opened(command=ANSWERING, max_children=1000) as sink, trio.open_nursery() as nursery:
            room = trio.CapacityLimiter(8)

            async def visit(number: int) -> None:
                session = Session(id=str(number), source="test")
                async with room:
                    with trio.move_on_after(0.001 * (number % 60)):
                        await ask(sink, session=session, method="initialize")
                        await ask(sink, session=session)
                    session.close()
                    while sink.children > 16:  # noqa: ASYNC110  # bounded by `opened`
                        await trio.sleep(0.005)

            for number in range(1000):
                nursery.start_soon(visit, number)

    assert set(psutil.Process().children(recursive=True)) == before
