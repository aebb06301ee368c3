"""Children that misbehave, ends of every kind, and that none of it leaves a process, a descriptor or a task."""

import random
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import structlog.testing
import trio
import trio.testing

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.session import Client, Session
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    GatewayError,
    SessionNotFound,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.mcp import LATEST_LEGACY, Era
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.stdio_sink import StdioSink, StdioSinkConfig

CHILDREN = Path(__file__).parent / "children"


class NoPause(random.Random):
    """Restarts are at once; how long they wait is the business of test_stdio_restarts.py."""

    def uniform(self, a: float, b: float) -> float:
        """The shortest there is."""
        return a


@asynccontextmanager
async def opened(name: str = "echo", **options: object):
    """A sink with short graces, in bounded time."""
    command = (sys.executable, "-S", str(CHILDREN / f"{name}.py"))
    options = {"command": command, "stop_grace": 0.2, "kill_grace": 0.2, **options}
    with trio.fail_after(30):
        sink = StdioSink(StdioSinkConfig(**options), Context(id="files", random=NoPause()))
        sink._lines._era.is_modern = True  # what it finds out is the business of test_stdio_era.py
        async with sink.open():
            yield sink


def exchange_of(name: str = "", session: Session | None = None, method: str = "tools/call", **params: object):
    """An exchange that asks a fake server for something."""
    client = {"client": Client(era=Era.LEGACY, version=LATEST_LEGACY, session=session)} if session else {}
    return memory_exchange(method, {"name": name, **params}, **client)


async def vanish(pid: int) -> None:
    """Wait until a process is gone, or at most a zombie of somebody else."""
    with trio.fail_after(10):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_a_child_that_floods_standard_error_still_answers():
    """Case 41: ten megabytes do not stall it, and only so many lines reach the log."""
    with structlog.testing.capture_logs() as logs:
        async with opened() as sink:
            assert await sink(exchange_of("flood")) == Result()

    assert sum(entry["event"] == "server stderr" for entry in logs) == 100


async def test_noise_on_standard_output_is_dropped_and_warned_of_once():
    """Case 41: lines that are not MCP do not disturb the answer between them."""
    with structlog.testing.capture_logs() as logs:
        async with opened() as sink:
            assert await sink(exchange_of("garbage")) == Result({"after": "noise"})

    assert [entry["log_level"] for entry in logs if "is not MCP" in entry["event"]] == ["warning"]
    assert [entry["noise"] for entry in logs if entry["event"] == "server ended"] == [6]


async def test_an_endless_line_fails_its_request_and_memory_stays_bounded():
    """Case 41: 200 MB in one line are cut, the child is kept, and later lines are read."""
    before = psutil.Process().memory_info().rss
    async with opened(max_message=64 * 1024) as sink:
        with pytest.raises(UpstreamProtocolError, match=r"files: .*65536"):
            await sink(exchange_of("giant", pieces=3200))

        assert psutil.Process().memory_info().rss - before < 16 * 1024 * 1024
        assert isinstance(await sink(exchange_of("small")), Result)
        assert sink.children == 1


async def test_a_child_that_closes_standard_output_is_replaced():
    """No answer can come any more: its calls fail, it is killed, and the next call starts another."""
    async with opened() as sink:
        with pytest.raises(UpstreamClosed, match="closed its standard output before it answered; its last words: no"):
            await sink(exchange_of("close stdout"))

        assert isinstance(await sink(exchange_of()), Result)


async def test_a_last_line_without_a_line_end_counts():
    """A child that answers and exits at once is heard to the end."""
    async with opened() as sink:
        assert await sink(exchange_of("unfinished")) == Result({"last": True})


async def test_a_dying_child_does_not_hold_up_its_successor():
    """While one is on its way out the next already serves, and the end of the old one does not touch it."""
    async with opened() as sink, trio.open_nursery() as nursery:

        async def last_call() -> None:
            with pytest.raises(UpstreamClosed):
                await sink(exchange_of("close stdout"))

        await sink(exchange_of())
        nursery.start_soon(last_call)
        while sink.children < 2:
            with trio.move_on_after(0.02):
                await sink(exchange_of())
        first = await sink(exchange_of())
        while sink.children > 1:  # noqa: ASYNC110  # bounded by `opened`
            await trio.sleep(0.01)

        assert isinstance(first, Result)
        again = await sink(exchange_of())
        assert isinstance(again, Result)
        assert again.value["pid"] == first.value["pid"]


async def test_a_child_that_closes_standard_input_is_replaced():
    """It can hear nothing any more: the next call finds the pipe broken and fails, the one after it is served."""
    async with opened() as sink:
        assert await sink(exchange_of("close stdin")) == Result({"stdin": "closed"})
        with pytest.raises(UpstreamClosed, match="closed its standard input before it answered"):
            await sink(exchange_of("too late"))

        assert isinstance(await sink(exchange_of()), Result)


async def test_a_child_that_never_reads_is_noticed_and_can_be_left():
    """Requests pile up to max_unsent and no further; cancelling one works, and stopping it too."""
    async with opened("deaf", max_unsent=100_000) as sink:
        refused: list[CapacityExceeded] = []

        async def call() -> None:
            try:
                await sink(exchange_of(text="x" * 60_000))
            except CapacityExceeded as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(5):  # the first goes into the pipe whole, the second in part
                nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

        assert len(refused) == 3
        assert "bytes wait to be read by the upstream" in str(refused[0])


@pytest.mark.parametrize(("name", "number"), [("slow_to_leave", "SIGTERM"), ("stubborn", "SIGKILL")])
async def test_a_child_that_ignores_the_end_of_its_input_is_ended(name, number):
    """SIGTERM for those who heed it, SIGKILL for the others, and it is reaped (case 42)."""
    with structlog.testing.capture_logs() as logs:
        async with opened(name) as sink:
            reply = await sink(exchange_of())

    assert isinstance(reply, Result)
    assert not psutil.pid_exists(reply.value["pid"])
    assert [entry["status"] for entry in logs if entry["event"] == "server ended"] == [f"was killed by {number}"]


async def test_a_polite_child_is_not_signalled():
    """Closing its input is enough; it exits by itself."""
    with structlog.testing.capture_logs() as logs:
        async with opened(stop_grace=20) as sink:
            await sink(exchange_of())

    assert [entry["status"] for entry in logs if entry["event"] == "server ended"] == ["exited with status 0"]


@pytest.mark.parametrize("how", ["sink", "session"])
async def test_grandchildren_go_with_their_family(how):
    """Whatever a server started is ended with it, although it ignores SIGTERM."""
    session = Session(id="s", source="test")
    async with opened("family") as sink:
        reply = await sink(exchange_of(session=session, method="initialize"))
        assert isinstance(reply, Result)
        if how == "session":
            session.close()
            await vanish(reply.value["grandchild"])

    assert not psutil.pid_exists(reply.value["pid"])
    await vanish(reply.value["grandchild"])


async def test_calls_in_flight_when_the_sink_closes_fail():
    """They are told who stopped the server; later ones find no sink."""
    async with trio.open_nursery() as nursery:
        errors: list[GatewayError] = []

        async def call(sink: StdioSink) -> None:
            try:
                await sink(exchange_of("hang"))
            except GatewayError as error:
                errors.append(error)

        async with opened("stubborn") as sink:
            await sink(exchange_of())
            nursery.start_soon(call, sink)
            await trio.testing.wait_all_tasks_blocked()

        with pytest.raises(UpstreamUnavailable, match="is closed"):
            await sink(exchange_of())

    assert [str(error) for error in errors] == ["files: the server was stopped by the gateway before it answered"]


async def test_a_hard_cancel_kills_at_once():
    """A closing sink that is cancelled (its stop_timeout ran out) does not wait for graces."""
    with trio.CancelScope() as scope:
        async with opened("stubborn", stop_grace=600, kill_grace=600) as sink:
            reply = await sink(exchange_of())
            assert isinstance(reply, Result)
            pid = reply.value["pid"]
            scope.cancel()

    assert not psutil.pid_exists(pid)


async def test_the_handshake_of_a_session_and_its_end_at_the_same_time():
    """A session that closes while its child starts leaves no child."""
    session = Session(id="s", source="test")
    async with opened() as sink:
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises((UpstreamClosed, SessionNotFound)):  # whichever is first
                    await sink(exchange_of("hang", session=session, method="initialize"))

            nursery.start_soon(call)
            await trio.lowlevel.checkpoint()
            session.close()
        while sink.children:  # noqa: ASYNC110  # bounded by `opened`
            await trio.sleep(0.01)


async def test_a_thousand_exchanges_cancelled_at_random_points_leave_nothing():
    """Process, descriptors and tables are what they were; the suite's leak oracle looks at the rest."""
    rng = random.Random(7)
    session = Session(id="s", source="test")
    async with opened() as sink:
        before = await sink(exchange_of())
        await sink(exchange_of(session=session, method="initialize"))
        descriptors = psutil.Process().num_fds()

        async def call(delay: float) -> None:
            with trio.move_on_after(delay):
                name = rng.choice(["", "hang", "heard"])
                await sink(exchange_of("hang" if name == "hang" else "", rng.choice([session, None])))

        for _ in range(20):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(call, rng.random() * 0.02)

        after = await sink(exchange_of())
        assert isinstance(before, Result)
        assert isinstance(after, Result)
        assert after.value["pid"] == before.value["pid"]
        assert sink.children == 2
        assert psutil.Process().num_fds() == descriptors
        assert sum(child.connection.in_flight for child in sink._lines.running) == 0


async def test_restart_stops_the_processes_and_the_next_call_starts_one():
    """An operator can have a server started again; a session ends with its process."""
    session = Session(id="s", source="test", notify=lambda _: None)
    async with opened() as sink:
        first = (await sink(exchange_of("pid"))).value["pid"]
        await sink(exchange_of(session=session, method="initialize"))
        assert await sink.act("restart", {}) == {"stopped": 2}
        assert await sink.act("restart", {}) == {"stopped": 0}
        assert (await sink(exchange_of("pid"))).value["pid"] != first
        await vanish(first)
        with pytest.raises(SessionNotFound):
            await sink(exchange_of(session=session))
        with pytest.raises(LookupError, match="it has: restart"):
            await sink.act("explode", {})
