"""Resource limits hold in the server and nowhere else."""

import resource
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.options import MIB
from sluiceway.pipeline.protocol.errors import ConnectFailed, UpstreamClosed
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.server_limits import LimitsConfig
from sluiceway.transports.stdio_sink import StdioSink, StdioSinkConfig

GLUTTON = (sys.executable, "-S", str(Path(__file__).parent / "children" / "glutton.py"))


@asynccontextmanager
async def opened(**options: object):
    """A sink whose server tries to exceed its limits when it is told to."""
    with trio.fail_after(30):
        sink = StdioSink(StdioSinkConfig(command=GLUTTON, stop_grace=0.2, kill_grace=0.2, **options), Context(id="up"))
        sink._lines._era.is_modern = True  # what it finds out is the business of test_stdio_era.py
        async with sink.open():
            yield sink


async def ask(sink: StdioSink, name: str, **params: object):
    """What the server has to say."""
    reply = await sink(memory_exchange("tools/call", {"name": name, **params}))
    assert isinstance(reply, Result)
    return reply.value


@pytest.mark.parametrize("lifetime", ["shim", "plain"])
async def test_by_default_open_files_are_bounded_and_nothing_dumps_core(lifetime):
    """Nothing else is limited that is not limited for us; our own limits are as before."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with opened(lifetime=lifetime) as sink:
        reply = await ask(sink, "open_files")

    limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1] for name in ("AS", "FSIZE", "CPU")}
    assert reply["limits"] == {"NOFILE": 256, "CORE": 0, **limits}
    assert reply["error"] == "OSError: Too many open files"
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


async def test_memory_that_a_server_may_not_have_is_refused_to_it():
    """The server fails, or survives as this one does; the gateway goes on."""
    async with opened(limits=LimitsConfig(memory=256 * MIB)) as sink:
        assert (await ask(sink, "memory"))["error"].startswith("MemoryError")


async def test_a_file_may_not_grow_beyond_file_size(tmp_path):
    """It stops at the limit."""
    path = tmp_path / "big"
    async with opened(limits=LimitsConfig(file_size=1 * MIB)) as sink:
        assert (await ask(sink, "file_size", path=str(path)))["error"] == "OSError: File too large"

    assert path.stat().st_size == 1 * MIB


async def test_a_server_that_used_up_its_cpu_time_is_killed():
    """Both limits are the same, so there is no second signal to survive until."""
    async with opened(limits=LimitsConfig(cpu_time=0.5)) as sink:
        with pytest.raises(UpstreamClosed, match=r"SIGKILL|SIGXCPU|closed its standard output"):
            await ask(sink, "cpu_time")


async def test_limits_are_what_the_options_say():
    """Each under its own name, CPU time rounded up to seconds."""
    config = LimitsConfig(memory=64 * MIB, cpu_time=1.5, open_files=32, file_size=MIB)

    assert config.rlimits() == {"AS": 64 * MIB, "CPU": 2, "NOFILE": 32, "FSIZE": MIB, "CORE": 0}


def test_a_limit_above_our_own_is_an_error_for_all_but_root(monkeypatch):
    """Found when the sink opens, not when the first server fails to start."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))

    with pytest.raises(ConnectFailed, match=r"limits\.open_files is 256, but the gateway itself has only 100"):
        LimitsConfig().rlimits()

    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert LimitsConfig().rlimits()["NOFILE"] == 256
