"""A worker, in this process: what it does when its supervisor tells it something, or is gone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import attrs
import msgspec
import pytest
import trio

from sluiceway.pipeline.model.component import Sink, Source
from sluiceway.pipeline.model.document import Document, PipelineSpec, Run, SinkSpec, SourceSpec
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import Duration
from sluiceway.pipeline.protocol.errors import SluicewayError
from sluiceway.pipeline.protocol.messages import Reply, Result
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.pipeline.runtime.serve import OK, serve
from sluiceway.pipeline.runtime.workers.board import Board
from sluiceway.pipeline.runtime.workers.channel import Channel
from sluiceway.pipeline.runtime.workers.link import ORPHANED, Link
from sluiceway.pipeline.runtime.workers.messages import (
    Announce,
    Answered,
    Ask,
    Begin,
    Count,
    Counted,
    Drain,
    Hand,
    Ping,
    Pong,
    Prepare,
    Prepared,
    Ready,
    Report,
    Snapshot,
    Stop,
    Switched,
    Take,
    Verdict,
)


@attrs.frozen
class Options:
    """What tells configurations apart."""

    name: str = "first"


class NamedSink(Sink):
    """Cannot be made, or opened, if it is called so; is opened when it may be."""

    Config = Options
    name = "named"
    may_open: trio.Event | None = None

    def __init__(self, config: Options, context: Any) -> None:
        super().__init__(config, context)
        if config.name == "unmakeable":
            raise ZeroDivisionError("a bug")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        if self.config.name == "broken":
            raise OSError("no such server")
        if self.may_open is not None:
            await self.may_open.wait()
        yield

    def details(self) -> dict[str, Any]:
        if self.config.name == "mute":
            raise ZeroDivisionError("a bug")
        return {}

    async def __call__(self, exchange: Exchange) -> Reply:
        return Result({"name": self.config.name})


class Taking(Source):
    """Keeps what other workers send."""

    Config = Options
    name = "taking"

    def __init__(self, config: Options, context: Any) -> None:
        super().__init__(config, context)
        self.taken: list[str] = []

    async def serve(self, handle: Any) -> None:
        await trio.sleep_forever()

    def take(self, stream: trio.SocketStream) -> None:
        self.taken.append("request")
        stream.socket.close()

    def adopt(self, client: socket.socket) -> None:
        self.taken.append("client")
        client.close()


def load(snapshot: Snapshot) -> Document:
    """A configuration whose only file is the name of its sink."""
    name = snapshot.contents["name"].decode()
    if name == "nameless":
        raise KeyError(name)
    if name == "unreadable":
        raise SluicewayError("it has errors")
    return Document(
        sinks={"k": SinkSpec(id="k", cls=NamedSink, config=Options(name))},
        pipelines={"main": PipelineSpec(id="main", sink="k")},
        sources={"p": SourceSpec(id="p", cls=Taking, config=Options(), pipeline="main")},
        run=Run(drain_timeout=Duration(1.0)),
    )


def snapshot_of(name: str) -> Snapshot:
    """The text of a configuration."""
    return Snapshot(contents={"name": name.encode()}, matches={})


class Supervisor:
    """The other end."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.board = Board.make(4)
        self.channel: Channel[Report] = Channel(ours, Report)
        self.engine: Engine | None = None
        self.code: int | None = None
        self.begin = Begin(
            file="gateway.yaml", overlays=[], snapshot=snapshot_of("first"), slot=1, mark="w7", secret=b"s" * 32,
            board=os.dup(self.board.descriptor), slots=4, sockets={}, announced=False,
        )  # fmt: skip
        self.link = Link(self.theirs, self.begin, load)

    async def serve(self) -> None:
        try:
            self.code = await serve(lambda: load(self.begin.snapshot), ready=self._ready, link=self.link)
        finally:
            self.link.close()

    def _ready(self, engine: Engine) -> None:
        self.engine = engine


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    """Not started yet."""
    made = Supervisor()
    yield made
    made.channel.close()
    made.board.close()


@asynccontextmanager
async def early(supervisor: Supervisor) -> AsyncIterator[Callable[[], Any]]:
    """It starts; yields what gives its next words."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, aclosing(supervisor.channel.messages()) as messages:
            nursery.start_soon(supervisor.serve)
            yield lambda: anext(messages)


@asynccontextmanager
async def worker(supervisor: Supervisor) -> AsyncIterator[Callable[[], Any]]:
    """It runs, and has said that it is ready; likewise."""
    async with early(supervisor) as hear:
        assert await hear() == (Ready(), None)
        yield hear


async def test_it_says_that_it_is_ready_and_drains_when_told(supervisor: Supervisor) -> None:
    """Whoever asks for readiness hears of it once all workers are ready; a worker that drains accepts no clients."""
    async with worker(supervisor):
        assert supervisor.engine is not None
        source = supervisor.engine.sources["p"]
        before, accepts = source.readiness(), supervisor.board.connections(1)
        await supervisor.channel.send(Announce())
        await trio.testing.wait_all_tasks_blocked(0.01)
        after = source.readiness()
        await supervisor.channel.send(Drain())

    assert (before, after, accepts) == (False, True, 0)
    assert supervisor.board.connections(1) is None
    assert supervisor.code == OK


async def test_it_ends_at_once_when_told(supervisor: Supervisor) -> None:
    """As after a second signal."""
    async with worker(supervisor):
        await supervisor.channel.send(Stop())

    assert supervisor.code == OK


async def test_it_drains_when_its_supervisor_is_gone(supervisor: Supervisor) -> None:
    """Nobody would ever tell it to."""
    async with worker(supervisor):
        supervisor.channel.close()

    assert supervisor.code == OK


@pytest.mark.parametrize("serves", [True, False])
async def test_a_configuration_is_served_when_all_have_opened_it(supervisor: Supervisor, serves: bool) -> None:
    """Until then the old one is; and it stays if others could not."""
    async with worker(supervisor) as hear:
        await supervisor.channel.send(Prepare(number=1, snapshot=snapshot_of("second")))
        prepared = await hear()
        between = _name(supervisor)
        await supervisor.channel.send(Verdict(number=2, prepared=1, serve=serves))
        switched = await hear()
        after = _name(supervisor)
        await supervisor.channel.send(Drain())

    assert prepared == (Prepared(number=1), None)
    assert switched == (Switched(number=2), None)
    assert between == "first"
    assert after == ("second" if serves else "first")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("broken", "no such server"), ("unreadable", "it has errors"), ("unmakeable", "ZeroDivisionError: a bug"),
        ("nameless", "KeyError"),
    ],
)  # fmt: skip
async def test_what_cannot_be_opened_is_said(supervisor: Supervisor, name: str, problem: str) -> None:
    """And nothing of it stays."""
    async with worker(supervisor) as hear:
        await supervisor.channel.send(Prepare(number=1, snapshot=snapshot_of(name)))
        prepared, _ = await hear()
        await supervisor.channel.send(Verdict(number=2, prepared=1, serve=False))
        switched = await hear()
        await supervisor.channel.send(Drain())

    assert problem in prepared.problem
    assert switched == (Switched(number=2), None)
    assert _name(supervisor) == "first"


async def test_a_supervisor_that_dies_in_the_middle_of_a_reload_has_decided_nothing(supervisor: Supervisor) -> None:
    """What was opened is closed, and the worker drains."""
    async with worker(supervisor) as hear:
        await supervisor.channel.send(Prepare(number=1, snapshot=snapshot_of("second")))
        await hear()
        supervisor.channel.close()

    assert _name(supervisor) == "first"
    assert supervisor.code == OK


async def test_it_answers_for_the_admin_listener(supervisor: Supervisor) -> None:
    """With the endpoints of one process, and with its counts."""
    async with worker(supervisor) as hear:
        await supervisor.channel.send(Ask(number=1, method="GET", path="/-/status"))
        answered, _ = await hear()
        await supervisor.channel.send(Ask(number=2, method="GET", path="/-/nothing"))
        missing, _ = await hear()
        await supervisor.channel.send(Count(number=3))
        counted, _ = await hear()
        await supervisor.channel.send(Drain())

    assert isinstance(answered, Answered)
    assert isinstance(counted, Counted)
    assert (answered.status, answered.content_type) == (200, "application/json")
    assert json.loads(answered.body)["ready"] is True
    assert missing.status == 404
    assert "pipeline_exchanges_total" in {figure.name for figure in counted.figures}


async def test_an_endpoint_that_fails_ends_its_answer_only(supervisor: Supervisor) -> None:
    """What components say of themselves may be wrong; the worker serves on."""
    async with worker(supervisor) as hear:
        await supervisor.channel.send(Prepare(number=1, snapshot=snapshot_of("mute")))
        await hear()
        await supervisor.channel.send(Verdict(number=2, prepared=1, serve=True))
        await hear()
        await supervisor.channel.send(Ask(number=3, method="GET", path="/-/status"))
        answered, _ = await hear()
        await supervisor.channel.send(Ping(number=4))
        alive = await hear()
        await supervisor.channel.send(Drain())

    assert answered == Answered(
        number=3, status=500, content_type="application/json", body=b'{"error":"ZeroDivisionError"}'
    )
    assert alive == (Pong(number=4), None)
    assert supervisor.code == OK


@pytest.mark.parametrize("how", ["drain", "stop", "gone"])
async def test_while_it_opens_it_says_that_it_lives_and_ends_when_told(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """An upstream may take a long time to come up; there is nothing to drain before it has."""
    monkeypatch.setattr(NamedSink, "may_open", trio.Event())
    async with early(supervisor) as hear:
        await supervisor.channel.send(Ping(number=1))
        alive = await hear()
        await supervisor.channel.send(Ask(number=2, method="GET", path="/-/status"))
        await supervisor.channel.send(Ping(number=3))
        after = await hear()
        if how == "gone":
            supervisor.channel.close()
        else:
            await supervisor.channel.send(Drain() if how == "drain" else Stop())

    assert (alive, after) == ((Pong(number=1), None), (Pong(number=3), None))
    assert supervisor.engine is None
    assert supervisor.code == OK


async def test_connections_reach_the_source_that_they_are_for(supervisor: Supervisor) -> None:
    """Those of other workers and those of clients; what is for nobody is closed."""
    ends = [socket.socketpair() for _ in range(3)]
    async with worker(supervisor):
        for (_, theirs), order in zip(
            ends,
            (Take(source="sources.p"), Take(source="sources.p", client=True), Take(source="sources.q")),
            strict=True,
        ):
            await supervisor.channel.send(order, theirs.fileno())
            theirs.close()
        closed = [await trio.to_thread.run_sync(ours.recv, 1) for ours, _ in ends]
        assert supervisor.engine is not None
        source = supervisor.engine.sources["p"]
        await supervisor.channel.send(Drain())

    for ours, _ in ends:
        ours.close()
    assert isinstance(source, Taking)
    assert source.taken == ["request", "client"]
    assert closed == [b""] * 3


async def test_it_reaches_others_by_way_of_the_supervisor(supervisor: Supervisor) -> None:
    """A connection has an end here, and one that the supervisor hands on; a client's has one there only."""
    place = supervisor.link.place
    async with worker(supervisor) as hear:
        stream = await place.reach("w9", "sources.p")
        hand, descriptor = await hear()
        with socket.socket(fileno=descriptor) as other:
            other.send(b"x")
            received = await stream.receive_some()
        at_end = await stream.receive_some()
        await stream.aclose()
        await place.move("w9", "sources.p", supervisor.board.descriptor)
        moved, client = await hear()
        os.close(client)
        await supervisor.channel.send(Drain())

    assert hand == Hand(mark="w9", source="sources.p")
    assert moved == Hand(mark="w9", source="sources.p", client=True)
    assert (received, at_end) == (b"x", b"")


async def test_its_place_among_the_others(supervisor: Supervisor) -> None:
    """Connections are counted where all see them while it accepts; keys are everybody's, and one for each purpose."""
    place, board = supervisor.link.place, supervisor.board
    place.count(2)
    before = board.connections(1)
    place.open()
    board.set(0, 1)
    ahead = place.lead()
    place.count(-1)

    assert before is None
    assert ahead == 1
    assert place.lead() == 0
    assert board.connections(1) == 1
    assert place.key("a") == place.key("a") != place.key("b")
    assert place.take_sockets("sources.p") == []
    supervisor.link.close()


def test_a_configuration_survives_the_way_to_a_worker() -> None:
    """Bytes of any kind, and every name."""
    begin = Begin(
        file="ä.yaml", overlays=["b"], snapshot=Snapshot(contents={"ä.yaml": b"\xff"}, matches={"*": ["b"]}), slot=0,
        mark="w1", secret=b"\0", board=3, slots=4, sockets={"sources.web": [4, 5]}, announced=True,
    )  # fmt: skip

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(begin), type=Begin) == begin


def _name(supervisor: Supervisor) -> str:
    assert supervisor.engine is not None
    config = supervisor.engine.document.sinks["k"].config
    return str(config.name)


@pytest.mark.real
def test_a_worker_that_hangs_is_ended_when_its_supervisor_is_gone() -> None:
    """Its event loop is not there to drain."""
    ours, theirs = socket.socketpair()
    code = (
        "import socket, sys, time; from sluiceway.pipeline.runtime.workers.link import end_when_orphaned; "
        "end_when_orphaned(socket.socket(fileno=int(sys.argv[1])), 0.0); print('up', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE) as process:
        theirs.close()
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        alive = process.poll() is None
        ours.close()
        ended = process.wait(10)

    assert alive
    assert ended == ORPHANED
