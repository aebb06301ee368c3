"""Workers as processes that do nothing but obey: who starts, who is replaced, and what all of them agree on."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from sluiceway.pipeline.model.document import Document, Run, SourceSpec
from sluiceway.pipeline.model.options import Duration
from sluiceway.pipeline.protocol.errors import ComponentError, SluicewayError
from sluiceway.pipeline.runtime.workers import fleet as fleet_module
from sluiceway.pipeline.runtime.workers import member as member_module
from sluiceway.pipeline.runtime.workers import restarts as restarts_module
from sluiceway.pipeline.runtime.workers.figures import figures_of
from sluiceway.pipeline.runtime.workers.fleet import Fleet, open_fleet
from sluiceway.pipeline.runtime.workers.member import Member, Phase
from sluiceway.pipeline.runtime.workers.messages import Answered, Ask, Snapshot
from sluiceway.pipeline.runtime.workers.plan import Plan
from sluiceway.pipeline.runtime.workers.sockets import Sockets
from sluiceway.transports.http_source.config import HttpConfig
from sluiceway.transports.http_source.source import HttpSource
from sluiceway.transports.stdio_source import StdioSource

pytestmark = pytest.mark.real
FAKE = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are fakes."""
    monkeypatch.setattr(member_module, "COMMAND", FAKE)


def document(*binds: str, hang_timeout: float = 0.0) -> Document:
    """One with a source for each address."""
    sources = {
        f"s{number}": SourceSpec(id=f"s{number}", cls=HttpSource, config=HttpConfig(bind=bind), pipeline="main")
        for number, bind in enumerate(binds)
    }
    run = Run(drain_timeout=Duration(0.0), stop_timeout=Duration(0.1), hang_timeout=Duration(hang_timeout))
    return Document(sources=sources, run=run)


def snapshot(mode: str) -> Snapshot:
    """A configuration that says how its workers behave."""
    return Snapshot(contents={"mode": mode.encode()}, matches={})


def plan(mode: str = "ready", *binds: str, hang_timeout: float = 0.0) -> Plan:
    """Its sockets are bound."""
    sockets = Sockets()
    made = document(*binds, hang_timeout=hang_timeout)
    sockets.bind(made)
    return Plan("gateway.yaml", (), made, snapshot(mode), sockets)


@asynccontextmanager
async def running(mode: str = "ready", *binds: str, size: int = 2, hang_timeout: float = 0.0) -> AsyncIterator[Fleet]:
    """A fleet that has started; drained at the end."""
    with trio.fail_after(30):
        async with open_fleet(plan(mode, *binds, hang_timeout=hang_timeout), size, random.Random(1)) as fleet:
            await fleet.start()
            yield fleet
            await fleet.drain()


async def say(fleet: Fleet, member: Member, path: str = "/", query: str = "") -> Any:
    """What a worker says of itself."""
    answer = await fleet.ask(member, lambda number: Ask(number=number, method="GET", path=path, query=query))
    return msgspec.json.decode(answer.body) if isinstance(answer, Answered) else answer


async def until_there_are(fleet: Fleet, number: int, *, but: Member | None = None) -> None:
    """Wait until so many are ready."""
    while len([each for each in fleet.those(Phase.READY) if each is not but]) < number:  # noqa: ASYNC110  # nobody tells
        await trio.sleep(0.005)


async def test_all_start_and_all_end() -> None:
    """Ready when every one is; each has a place and a name of its own."""
    async with running(size=3) as fleet:
        members = fleet.those(Phase.READY)
        said = [await say(fleet, member) for member in members]
        ready = fleet.ready

    assert ready
    assert not fleet.ready
    assert [each["slot"] for each in said] == [0, 1, 2]
    assert len({member.mark for member in members}) == 3
    assert [member.code for member in members] == [0, 0, 0]
    assert fleet.members == {}


async def test_one_that_cannot_start_ends_the_start() -> None:
    """Its exit code is told; its words are in the log already."""
    with trio.fail_after(30), pytest.raises(ComponentError, match=r"worker \d could not start \(exit code 3\)"):
        async with open_fleet(plan("dies"), 2, random.Random(1)) as fleet:
            await fleet.start()


async def test_one_that_dies_is_replaced() -> None:
    """In its place, and with the same configuration."""
    with capture_logs() as logs:
        async with running() as fleet:
            victim, other = fleet.those(Phase.READY)
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)
            await victim.gone.wait()
            assert await say(fleet, victim) is None
            await until_there_are(fleet, 2)
            after = fleet.those(Phase.READY)
            said = await say(fleet, after[0])

    assert [member.slot for member in after] == [0, 1]
    assert other in after
    assert victim not in after
    assert said["announced"] is True
    assert fleet.restarts.total == 1
    assert [line["how"] for line in logs if line["event"] == "worker died"] == ["ended by signal 9"]


async def test_dying_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something is wrong that another start does not mend."""
    monkeypatch.setattr(restarts_module, "MAX_DEATHS", 0)
    async with running() as fleet:
        victim = fleet.those(Phase.READY)[0]
        assert await say(fleet, victim, "/die") is None
        await fleet.gave_up.wait()


@pytest.mark.parametrize("stopped", [False, True])
async def test_one_that_hangs_is_ended_and_replaced(monkeypatch: pytest.MonkeyPatch, stopped: bool) -> None:
    """Whether it is busy with something that does not end, or the process itself is stopped and heeds no signal."""
    monkeypatch.setattr(fleet_module, "DEATH_S", 0.1)
    with capture_logs() as logs:
        async with running(hang_timeout=1.5) as fleet:
            victim, other = fleet.those(Phase.READY)
            if stopped:
                assert victim.pid is not None
                os.kill(victim.pid, signal.SIGSTOP)
            else:
                assert await say(fleet, victim, "/hang") is None
            await victim.gone.wait()
            await until_there_are(fleet, 2)
            after = fleet.those(Phase.READY)
            figures = {each.name: each.value for each in figures_of(fleet)}

    assert victim.code == -(signal.SIGKILL if stopped else signal.SIGABRT)
    assert [member.slot for member in after] == [0, 1]
    assert other in after
    assert [(line["worker"], line["how"]) for line in logs if line["event"] == "worker died"] == [(0, "it hung")]
    assert [line["pid"] for line in logs if line["event"] == "worker hangs, and is ended"] == [victim.pid]
    assert (figures["worker_hangs_total"], figures["worker_deaths_total"]) == (1, 1)


async def test_one_that_cannot_be_started_now_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine is out of processes; those that live go on."""
    open_process, failures = trio.lowlevel.open_process, [OSError(11, "Resource temporarily unavailable")]

    async def fails_once(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return await open_process(*args, **kwargs)

    with capture_logs() as logs:
        async with running() as fleet:
            monkeypatch.setattr(trio.lowlevel, "open_process", fails_once)
            victim, other = fleet.those(Phase.READY)
            victim.kill()
            await victim.gone.wait()
            await until_there_are(fleet, 2)
            after = fleet.those(Phase.READY)

    assert other in after
    assert [line["how"] for line in logs if line["event"] == "worker died"] == [
        "ended by signal 9", "no process: [Errno 11] Resource temporarily unavailable"
    ]  # fmt: skip


async def test_who_comes_in_the_place_of_another_during_a_reload_begins_with_its_outcome() -> None:
    """Else it would serve for ever what all others have left."""
    async with running() as fleet:
        victim, _ = fleet.those(Phase.READY)
        victim.become(Phase.DRAINING)  # of itself, so nobody asks it what it thinks of the new configuration
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fleet.reload, lambda: (document(), snapshot("slow")))
            victim.kill()
        await until_there_are(fleet, 2)
        names = [(await say(fleet, member))["name"] for member in fleet.those(Phase.READY)]

    assert names == ["slow", "slow"]


async def test_a_configuration_is_served_by_all_or_by_none() -> None:
    """What they say of it comes out once; one that is started later begins with it."""
    async with running() as fleet:
        notes = await fleet.reload(lambda: (document(), snapshot("second")))
        names = [(await say(fleet, member))["name"] for member in fleet.those(Phase.READY)]
        with pytest.raises(SluicewayError, match="worker 0: it refuses; worker 1: it refuses"):
            await fleet.reload(lambda: (document(), snapshot("refuses")))
        after = [(await say(fleet, member))["name"] for member in fleet.those(Phase.READY)]
        victim = fleet.those(Phase.READY)[0]
        victim.kill()
        await victim.gone.wait()
        await until_there_are(fleet, 2)
        later = (await say(fleet, fleet.those(Phase.READY)[0]))["name"]

    assert notes == ["restart for this"]
    assert names == after == ["second", "second"]
    assert later == "second"
    assert fleet.generation == 2


async def test_renewal_replaces_all_and_what_they_listen_on() -> None:
    """Addresses that stay keep their sockets; those that are gone are closed, and new ones are opened."""
    async with running("ready", "127.0.0.1:0", "127.0.0.1:0") as fleet:
        before, members = fleet.plan.sockets.inherited(), fleet.those(Phase.READY)
        new = document("127.0.0.1:0")
        await fleet.renew(lambda: (new, snapshot("second")))
        inherited = fleet.plan.sockets.inherited()
        after, there_are = fleet.those(Phase.READY), len(fleet.members)
        names = [(await say(fleet, member))["name"] for member in after]
        addresses = fleet.plan.sockets.addresses()
        more = document("127.0.0.1:0", "127.0.0.1:0")
        await fleet.renew(lambda: (more, snapshot("third")))
        grown = fleet.plan.sockets.addresses()

    assert not set(members) & set(after)
    assert names == ["second", "second"]
    assert there_are == 2
    assert [member.slot for member in after] == [0, 2]  # two is one more than there are at a time
    assert [member.code for member in members] == [0, 0]
    assert inherited == {"sources.s0": before["sources.s0"]}
    assert list(addresses) == ["s0"]
    assert list(grown) == ["s0", "s1"]
    assert fleet.generation == 3


async def test_a_renewal_while_all_are_dead_is_for_who_comes_in_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a configuration that kills its workers can be put right before the next pause is over."""
    monkeypatch.setattr(restarts_module, "PAUSE_S", (0.6, 0.6))
    async with running("ready", "127.0.0.1:0", size=1) as fleet:
        fleet.restarts.note_death(trio.current_time())
        (victim,) = fleet.those(Phase.READY)
        victim.kill()
        await victim.gone.wait()
        await fleet.renew(lambda: (document("127.0.0.1:0"), snapshot("second")))
        generation = fleet.generation
        await until_there_are(fleet, 1, but=victim)
        said = await say(fleet, fleet.those(Phase.READY)[0])

    assert generation == 2
    assert said["name"] == "second"


async def test_a_renewal_that_fails_leaves_the_old_workers() -> None:
    """The first new one could not start; nothing was taken away for it."""
    async with running("ready", "127.0.0.1:0") as fleet:
        members = fleet.those(Phase.READY)
        with pytest.raises(SluicewayError, match="could not start"):
            await fleet.renew(lambda: (document("127.0.0.1:0", "127.0.0.1:0"), snapshot("dies")))
        taken = fleet.plan.sockets.addresses()["s0"][0]
        with pytest.raises(ComponentError, match="cannot listen on"):
            await fleet.renew(lambda: (document("127.0.0.1:0", taken), snapshot("second")))
        after = fleet.those(Phase.READY)

    assert after == members


async def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain takes as long as it may, and no longer."""
    monkeypatch.setattr(fleet_module, "LAST_RESORT_S", 0.1)
    with capture_logs() as logs:
        async with running("stuck", size=1) as fleet:
            [member] = fleet.those(Phase.READY)

    assert member.code == -9
    assert "worker did not end in time, and is killed" in [line["event"] for line in logs]


async def test_whoever_lives_when_a_fleet_is_left_is_killed() -> None:
    """No worker outlives its supervisor's task."""
    with trio.fail_after(30):
        async with open_fleet(plan("stuck"), 2, random.Random(1)) as fleet:
            await fleet.start()
            members = fleet.those(Phase.READY)
            await fleet.stop()

    assert [member.code for member in members] == [-9, -9]


async def test_connections_are_passed_on_to_whom_they_are_for() -> None:
    """And closed if that one is no more."""
    async with running() as fleet:
        first, second = fleet.those(Phase.READY)
        await say(fleet, first, "/hand", second.mark)
        await say(fleet, first, "/hand", "w99")
        while not (said := await say(fleet, second))["taken"]:  # noqa: ASYNC110  # nobody tells
            await trio.sleep(0.005)

    assert said["taken"] == 1
    assert fleet.handed == 1


def test_a_source_for_one_process_cannot_be_bound() -> None:
    """The linter says so before; a plugin's class may be news to it."""
    spec = SourceSpec(id="p", cls=StdioSource, config=StdioSource.Config(), pipeline="main")

    with pytest.raises(ComponentError, match="stdio serves one process"):
        Sockets().bind(Document(sources={"p": spec}))
