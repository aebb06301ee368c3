"""The supervisor, in this process, with fake workers: signals, exit codes, and the admin listener."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from sluiceway.pipeline.model.document import Admin, Document, Run, SourceSpec
from sluiceway.pipeline.model.options import Duration
from sluiceway.pipeline.protocol.errors import SluicewayError
from sluiceway.pipeline.runtime.serve import COULD_NOT_START, CRASHED, INTERRUPTED, OK
from sluiceway.pipeline.runtime.workers import member as member_module
from sluiceway.pipeline.runtime.workers import process as process_module
from sluiceway.pipeline.runtime.workers import restarts as restarts_module
from sluiceway.pipeline.runtime.workers.messages import Snapshot
from sluiceway.pipeline.runtime.workers.process import supervise
from sluiceway.transports.http_source.config import HttpConfig
from sluiceway.transports.http_source.source import HttpSource

pytestmark = pytest.mark.real
FAKE = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are fakes."""
    monkeypatch.setattr(member_module, "COMMAND", FAKE)


class Supervisor:
    """One that is served in the background of a test."""

    def __init__(self, folder: Path, mode: str, bind: str) -> None:
        self.mode = mode
        self.socket = folder / "admin.sock"
        self.bind = bind
        self.code: int | None = None
        self.ready = trio.Event()
        self.addresses: dict[str, list[str]] = {}
        self.logs: list[Any] = []

    def load(self) -> tuple[Document, Snapshot]:
        if self.mode == "unreadable":
            raise SluicewayError("it has errors")
        source = SourceSpec(id="web", cls=HttpSource, config=HttpConfig(bind=self.bind), pipeline="main")
        run = Run(drain_timeout=Duration(0.0), stop_timeout=Duration(0.1), admin=Admin(bind=f"unix:{self.socket}"))
        contents = {"mode": self.mode.encode()}
        return Document(sources={"web": source}, run=run), Snapshot(contents=contents, matches={})

    def _on_ready(self, addresses: dict[str, list[str]]) -> None:
        self.addresses = addresses
        self.ready.set()

    async def serve(self) -> None:
        self.code = await supervise(self.load, [Path("gateway.yaml")], workers=2, ready=self._on_ready)

    async def said(self, event: str) -> Any:
        """The line of the log that says this, as soon as it is there."""
        while not (found := [line for line in self.logs if line["event"] == event]):  # noqa: ASYNC110  # nobody tells
            await trio.sleep(0.005)
        return found[-1]

    async def ask(self, path: str, method: str = "GET") -> tuple[int, Any]:
        """Status and JSON, or text, of the admin listener."""
        async with await trio.open_unix_socket(str(self.socket)) as stream:
            wire = h11.Connection(h11.CLIENT)
            headers = [("host", "localhost"), ("content-length", "0")]
            await stream.send_all(wire.send(h11.Request(method=method, target=path, headers=headers)) or b"")
            wire.send(h11.EndOfMessage())
            body, status = b"", 0
            while not isinstance(event := wire.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    wire.receive_data(await stream.receive_some())
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
        return status, msgspec.json.decode(body) if body.startswith(b"{") else body.decode()


@pytest.fixture
def supervised(tmp_path: Path) -> Any:
    """Makes an async context in which a supervisor runs; it has ended when the context is left."""

    @asynccontextmanager
    async def made(mode: str = "ready", bind: str = "127.0.0.1:0") -> AsyncIterator[Supervisor]:
        supervisor = Supervisor(tmp_path, mode, bind)
        with trio.fail_after(30), capture_logs() as supervisor.logs:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.serve)
                yield supervisor

    return made


Supervised = Callable[..., Any]


def kill_self(number: int) -> None:
    """As an operator would."""
    os.kill(os.getpid(), number)


async def test_sigterm_drains_and_exits_with_0(supervised: Supervised) -> None:
    """Nobody can connect any more."""
    async with supervised() as supervisor:
        await supervisor.ready.wait()
        kill_self(signal.SIGTERM)

    host, _, port = supervisor.addresses["web"][0].rpartition(":")
    with socket.socket() as probe:
        assert probe.connect_ex((host, int(port))) != 0
    assert supervisor.code == OK


async def test_a_second_signal_does_not_wait(supervised: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that do not end are killed."""
    monkeypatch.setattr(process_module, "LAST_RESORT_S", 0.1)
    async with supervised("stuck") as supervisor:
        await supervisor.ready.wait()
        kill_self(signal.SIGTERM)
        await supervisor.said("gateway draining")
        kill_self(signal.SIGTERM)

    assert supervisor.code == INTERRUPTED


async def test_a_signal_before_all_are_ready_ends_the_start(supervised: Supervised) -> None:
    """Ctrl-C is told from a stop."""
    async with supervised() as supervisor:
        await trio.testing.wait_all_tasks_blocked(0.01)
        kill_self(signal.SIGINT)

    assert supervisor.code == INTERRUPTED
    assert not supervisor.ready.is_set()


async def test_what_cannot_start_exits_with_3(supervised: Supervised) -> None:
    """An address that is taken, and a worker that ends."""
    codes = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for mode, bind in (("ready", f"127.0.0.1:{taken.getsockname()[1]}"), ("dies", "127.0.0.1:0")):
            async with supervised(mode, bind) as supervisor:
                pass
            codes.append(supervisor.code)

    assert codes == [COULD_NOT_START, COULD_NOT_START]


async def test_workers_that_die_again_and_again_end_the_gateway(
    supervised: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever started it knows better."""
    monkeypatch.setattr(restarts_module, "MAX_DEATHS", 0)
    async with supervised() as supervisor:
        await supervisor.ready.wait()
        _, answer = await supervisor.ask("/-/workers")
        os.kill(answer["workers"][0]["pid"], signal.SIGKILL)

    assert supervisor.code == CRASHED


async def test_sighup_and_sigusr2_change_what_workers_serve(supervised: Supervised) -> None:
    """Or say why not."""
    async with supervised() as supervisor:
        await supervisor.ready.wait()
        supervisor.mode = "second"
        kill_self(signal.SIGHUP)
        reloaded = await supervisor.said("reloaded")
        noted = await supervisor.said("needs a restart; SIGUSR2 renews the workers one by one")
        supervisor.mode = "unreadable"
        kill_self(signal.SIGHUP)
        refused = await supervisor.said("reload refused; every worker goes on with the running configuration")
        kill_self(signal.SIGUSR2)
        ended = await supervisor.said("renewal ended early")
        supervisor.mode = "third"
        kill_self(signal.SIGUSR2)
        renewed = await supervisor.said("workers renewed")
        kill_self(signal.SIGTERM)

    assert (reloaded["generation"], renewed["generation"]) == (2, 3)
    assert noted["what"] == "restart for this"
    assert refused["error"] == ended["error"] == "it has errors"


async def test_the_admin_listener_speaks_for_all(supervised: Supervised) -> None:
    """And for each, by its number."""
    async with supervised() as supervisor:
        await supervisor.ready.wait()
        asked = {
            path: await supervisor.ask(path)
            for path in (
                "/-/live", "/-/ready", "/-/workers", "/-/metrics", "/-/workers/1/x", "/-/workers/x/x", "/-/audit",
                "/-/components/run.workers",
            )
        }  # fmt: skip
        wrong = await supervisor.ask("/-/components/run.workers/nothing", "POST")
        renewed = await supervisor.ask("/-/components/run.workers/renew", "POST")
        await supervisor.said("workers renewed")
        kill_self(signal.SIGTERM)

    assert asked["/-/live"] == (200, {"live": True})
    assert asked["/-/ready"] == (200, {"ready": True})
    assert [row["state"] for row in asked["/-/workers"][1]["workers"]] == ["ready", "ready"]
    assert "sluiceway_calls_total 2.0" in asked["/-/metrics"][1]
    assert asked["/-/workers/1/x"][1]["slot"] == 1
    assert asked["/-/workers/x/x"] == (404, {"error": "no worker 'x'; there are: 0, 1"})
    assert asked["/-/audit"][1]["slot"] == 0
    assert asked["/-/components/run.workers"][1]["state"] == "ready"
    assert wrong[0] == 404
    assert renewed == (200, {"result": None})
