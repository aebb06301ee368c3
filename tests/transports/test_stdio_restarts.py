"""Crash loops, quarantine, noise and idle stops on the mock clock: servers that exist in memory only."""

import json
import random
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from sluiceway.pipeline.model.component import ComponentKind, Context, State
from sluiceway.pipeline.model.session import Client, Session
from sluiceway.pipeline.protocol.errors import ConnectFailed, UpstreamClosed, UpstreamUnavailable
from sluiceway.pipeline.protocol.mcp import LATEST_LEGACY, Era
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.runtime.status import Row
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.restarts import RestartConfig
from sluiceway.transports.stdio_probe import ProbeConfig
from sluiceway.transports.stdio_sink import StdioSink, StdioSinkConfig


class FakeServer:
    """
    What a sink sees of a process, without one. Answers requests with its number, or does what the tool's name says.

    Args:
        pid: Its number.
        dies: Whether it exits instead of answering.
    """

    def __init__(self, pid: int, *, dies: bool) -> None:
        self.pid = pid
        self.stdin = self
        self.stdout = trio.testing.MemoryReceiveStream()
        self.stderr = trio.testing.MemoryReceiveStream()
        self.heard: list[str] = []
        self._dies = dies
        self._stuck = ""
        self._exited = trio.Event()

    def send_nowait(self, data: bytes) -> int:
        """Take nothing at once: all goes through the queue."""
        return 0

    async def send_all(self, data: bytes) -> None:
        """Hear requests."""
        await trio.lowlevel.checkpoint()
        for message in map(json.loads, data.splitlines()):
            name = message.get("params", {}).get("name")
            self.heard.append(message["method"])
            if name in ("freeze", "mumble"):
                self._stuck = name
            if self._stuck:
                if self._stuck == "mumble":
                    self.stdout.put_data(b"still working\n")
            elif self._dies or name == "die":
                self._exit()
            elif "id" in message and name != "hang":
                if name == "noise":
                    self.stdout.put_data(b"what?\n" * 101)
                answer = {"jsonrpc": "2.0", "id": message["id"], "result": {"pid": self.pid}}
                self.stdout.put_data(json.dumps(answer).encode() + b"\n")

    def close(self) -> None:
        """No more input: leave."""
        if not self._stuck:
            self._exit()

    def signal_group(self, _number: int) -> None:
        """Be ended."""
        self._exit()

    def _exit(self) -> None:
        if not self._exited.is_set():
            self._exited.set()
            self.stdout.put_eof()
            self.stderr.put_eof()

    def start_error(self) -> None:
        """It always starts."""

    def status_text(self) -> str:
        """As a real process says it."""
        return "exited with status 7" if self._exited.is_set() else "is still running"

    async def wait_exited(self) -> None:
        """Until it has ended."""
        await self._exited.wait()

    async def kill_and_reap(self) -> None:
        """It is gone."""
        await trio.lowlevel.checkpoint()
        self._exit()


class World:
    """Everything around a sink: its servers, when they were started, and what it reported."""

    def __init__(self, rng: random.Random | None = None, **options: object) -> None:
        self.dying = False
        self.failing = False
        self.starts: list[float] = []
        self.servers: list[FakeServer] = []
        self.row = Row("files", ComponentKind.SINK, watcher=lambda _id, state, why: self.states.append((state, why)))
        self.states: list[tuple[State, str]] = []
        context = Context(id="files", random=rng or random.Random(1), report=self.row.become)
        self.sink = StdioSink(StdioSinkConfig(command=("/bin/true",), **options), context, spawn=self._spawn)

    @asynccontextmanager
    async def open(self):
        """The sink, ready, as the supervisor sees it."""
        async with self.sink.open():
            self.row.become(State.READY)
            self.states.clear()
            yield self
            self.row.become(State.STOPPING)

    def _spawn(self, command: object, **_: object):
        if self.failing:
            raise OSError(8, "Exec format error")
        self.starts.append(trio.current_time())
        self.servers.append(FakeServer(len(self.starts), dies=self.dying))
        return self.servers[-1]

    async def call(self, name: str = "", session: Session | None = None, method: str = "tools/call") -> int:
        """Which server answers."""
        client = {"client": Client(era=Era.LEGACY, version=LATEST_LEGACY, session=session)} if session else {}
        reply = await self.sink(memory_exchange(method, {"name": name}, **client))
        assert isinstance(reply, Result)
        return reply.value["pid"]

    async def die(self) -> None:
        """A call that its server does not survive."""
        with pytest.raises(UpstreamClosed, match="the server exited with status 7"):
            await self.call("die")


class Longest(random.Random):
    """No luck with jitter."""

    def uniform(self, a: float, b: float) -> float:
        """The longest pause there is."""
        return b


async def test_a_crash_loop_keeps_to_its_schedule(autojump_clock):
    """Case 40: 1, 2, 4 s .. between starts, then quarantine, however often it is asked for."""
    world = World(Longest())
    world.dying = True
    refusals: list[float] = []
    async with world.open():
        start = trio.current_time()
        while trio.current_time() < start + 60:
            try:
                await world.call()
            except UpstreamClosed:
                pass
            except UpstreamUnavailable as error:
                refusals.append(error.retry_after_s or 0.0)
                await trio.sleep(0.125)

        assert [at - start for at in world.starts] == [0, 1, 3, 7, 15]
        assert max(refusals) == 60
        assert world.row.state is State.FAILED

        await trio.sleep_until(start + 76)

        assert world.row.state is State.DEGRADED
        with pytest.raises(UpstreamClosed):
            await world.call()
        with pytest.raises(UpstreamUnavailable, match=r"files: the server .*; quarantined for 60 s") as caught:
            await world.call()
        assert caught.value.event == "quarantined"
        assert len(world.starts) == 6


async def test_a_short_pause_is_waited_out_by_everybody_and_ends_in_one_start(autojump_clock):
    """Ten callers find a pause of one second: none is refused, and one server is started for all."""
    world = World(Longest())
    async with world.open():
        await world.die()
        answers: list[int] = []

        async def call() -> None:
            answers.append(await world.call())

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(call)

    assert answers == [2] * 10
    assert world.starts[1] - world.starts[0] == pytest.approx(1.0)


async def test_a_long_pause_is_told_with_its_end(autojump_clock):
    """The second pause is two seconds, too long to be waited out; a call after them is served."""
    world = World(Longest())
    async with world.open():
        await world.die()
        await world.die()
        with pytest.raises(UpstreamUnavailable, match="death 2 of 5 within 60 s; the next start waits for 2") as caught:
            await world.call()

        assert caught.value.retryable
        assert caught.value.retry_after_s == pytest.approx(2.0)
        await trio.sleep(caught.value.retry_after_s)
        assert await world.call() == 3


async def test_the_state_is_reported_on_the_way_down_and_up(autojump_clock):
    """Degraded by a death, ready by an answer, failed in quarantine, degraded on probation, ready again."""
    world = World(restart=RestartConfig(max=2, within=60.0, quarantine=30.0))
    async with world.open():
        await world.die()
        await world.call()
        await world.die()
        await trio.sleep(31)
        await world.call()

    states = [state for state, _ in world.states]
    assert states == [
        State.DEGRADED, State.READY, State.FAILED, State.STARTING, State.DEGRADED, State.READY, State.STOPPING
    ]  # fmt: skip
    assert world.states[1][1] == ""
    assert "quarantined for 30 s" in world.states[2][1]
    assert "on probation" in world.states[4][1]


async def test_a_server_that_lived_for_a_minute_has_a_clean_record(autojump_clock):
    """A death a minute is no crash loop, and each restart is within the first pause."""
    world = World(restart=RestartConfig(max=2, within=600.0))
    async with world.open():
        for _ in range(5):
            await world.call()
            await trio.sleep(61)
            await world.die()

        assert await world.call() == 6
        assert world.row.state is State.READY


async def test_a_server_that_cannot_be_started_is_a_death(autojump_clock):
    """A broken program is not tried again and again either."""
    world = World(Longest(), restart=RestartConfig(max=1))
    world.failing = True
    async with world.open():
        with pytest.raises(ConnectFailed, match="Exec format error"):
            await world.call()
        with pytest.raises(UpstreamUnavailable, match="cannot be started: Exec format error; quarantined"):
            await world.call()


async def test_a_session_that_kills_its_server_takes_it_from_nobody_else(autojump_clock):
    """Deaths of a session's child count only before its first answer: the others are its own affair."""
    world = World(Longest(), restart=RestartConfig(max=1))
    async with world.open():
        for number in range(5):
            session = Session(id=str(number), source="test")
            await world.call(session=session, method="initialize")
            with pytest.raises(UpstreamClosed):
                await world.call("die", session)

        assert world.row.state is State.READY

        world.dying = True
        with pytest.raises(UpstreamClosed):
            await world.call(session=Session(id="x", source="test"), method="initialize")
        with pytest.raises(UpstreamUnavailable, match="quarantined"):
            await world.call(session=Session(id="y", source="test"), method="initialize")
        assert world.row.state is State.FAILED


async def test_an_answer_of_a_server_from_before_the_death_proves_nothing(autojump_clock):
    """The sink stays degraded until one answers that was started after it."""
    world = World()
    old = Session(id="old", source="test")
    async with world.open():
        await world.call(session=old, method="initialize")
        await trio.sleep(5)
        await world.die()
        await trio.sleep(5)
        await world.call(session=old)

        assert world.row.state is State.DEGRADED

        await world.call()
        assert world.row.state is State.READY


async def test_a_sink_that_closes_during_a_pause_starts_nothing(autojump_clock):
    """The waiting call is refused, and the supervisor's word about the state is the last one."""
    world = World(Longest())
    refused: list[UpstreamUnavailable] = []

    async def call() -> None:
        with pytest.raises(UpstreamUnavailable, match="is closed") as caught:
            await world.call()
        refused.append(caught.value)

    async with trio.open_nursery() as nursery, world.open():
        await world.die()
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()

    assert len(refused) == 1
    assert world.states[-1][0] is State.STOPPING


async def test_a_noisy_server_is_degraded_until_a_quiet_minute(autojump_clock):
    """More than a hundred lines a minute that are not MCP; or until it is gone."""
    world = World(stop_when_idle=1000.0)
    async with world.open():
        await world.call("noise")
        await trio.sleep(61)

        assert world.row.state is State.DEGRADED
        assert "more than 100 lines a minute that are not MCP" in world.row.reason

        await trio.sleep(60)
        assert world.row.state is State.READY

        await world.call("noise")
        await trio.sleep(61)
        assert world.row.state is State.DEGRADED

        await world.die()
        await world.call()
        assert world.row.state is State.READY


async def test_a_closing_sink_reports_nothing(autojump_clock):
    """The end of a noisy server is no news then: the state is the supervisor's."""
    world = World()
    async with world.open():
        await world.call("noise")
        await trio.sleep(61)

    assert [state for state, _ in world.states] == [State.DEGRADED, State.STOPPING]


async def test_the_shared_server_is_stopped_when_nobody_used_it_for_so_long(autojump_clock):
    """Counted from the end of the latest call, never while one is under way; the next call starts another."""
    world = World(stop_when_idle=600.0)
    async with world.open(), trio.open_nursery() as nursery:
        await world.call()
        await trio.sleep(599)
        nursery.start_soon(world.call, "hang")
        await trio.sleep(5000)

        assert world.sink.children == 1

        nursery.cancel_scope.cancel()
    world = World(stop_when_idle=600.0)
    async with world.open():
        await world.call()
        await trio.sleep(599)
        await world.call()
        await trio.sleep(599)
        assert world.sink.children == 1

        await trio.sleep(2)
        assert world.sink.children == 0
        assert await world.call() == 2
        assert world.row.state is State.READY


async def test_a_sessions_server_is_not_stopped_for_being_idle(autojump_clock):
    """What it remembers would be gone, and the session with it."""
    world = World(stop_when_idle=600.0)
    session = Session(id="s", source="test")
    async with world.open():
        await world.call(session=session, method="initialize")
        await trio.sleep(6000)

        assert await world.call(session=session) == 1


@pytest.mark.parametrize(
    ("probe", "ends_s"),
    [({}, 30 + 10 + 30 + 10 + 30 + 10), ({"every": 5.0}, 45), ({"timeout": 1.0}, 93), ({"failures": 1}, 40)],
)
async def test_a_server_that_hangs_is_replaced(autojump_clock, probe, ends_s):
    """S2-IO-12: after `failures` probes, one `every` 30 s; its calls fail and say so, the next call starts another."""
    world = World(probe=ProbeConfig(**probe), stop_grace=0.0)
    async with world.open():
        assert await world.call() == 1
        began = trio.current_time()
        failures = probe.get("failures", 3)
        with pytest.raises(
            UpstreamClosed, match=rf"said nothing for {failures} probes of {probe.get('timeout', 10):g} s"
        ):
            await world.call("freeze")

        assert trio.current_time() - began == pytest.approx(ends_s)
        assert await world.call() == 2


@pytest.mark.parametrize(("name", "era"), [("hang", "legacy"), ("hang", "modern"), ("mumble", "modern")])
async def test_a_server_that_says_anything_is_left_alone(autojump_clock, name, era):
    """However long one call takes; a legacy server is pinged, a modern one is asked what it speaks."""
    world = World(probe=ProbeConfig())
    session = Session(id="s", source="test") if era == "legacy" else None
    async with world.open(), trio.open_nursery() as nursery:
        if session is not None:
            await world.call(session=session, method="initialize")
        nursery.start_soon(world.call, name, session)
        await trio.sleep(5000)

        assert len(world.starts) == 1
        asked = world.servers[0].heard
        assert asked.count("ping" if era == "legacy" else "server/discover") > 100
        nursery.cancel_scope.cancel()


async def test_a_server_is_not_probed_while_nobody_waits_for_it(autojump_clock):
    """It is left alone, and counts as idle."""
    world = World(probe=ProbeConfig(), stop_when_idle=600.0)
    async with world.open():
        await world.call()
        heard = len(world.servers[0].heard)
        await trio.sleep(599)
        assert len(world.servers[0].heard) == heard
        await trio.sleep(2)
        assert world.sink.children == 0


async def test_a_server_that_babbles_leaves_others_their_turn(autojump_clock):
    """64 KiB of what is no message take half a second in one go."""
    world, turns = World(), 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with world.open(), trio.open_nursery() as nursery:
        await world.call()
        nursery.start_soon(other)
        world.servers[0].stdout.put_data(b"x\n" * 2048)
        await world.call()
        nursery.cancel_scope.cancel()

    assert turns > 7
