"""Servers behind walls: what they cannot do, and that nobody runs without the walls that were asked for."""

import os
import shutil
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.errors import ConnectFailed
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.confinement import ConfineConfig, Walls
from sluiceway.transports.stdio_sink import StdioSink, StdioSinkConfig

CHILDREN = Path(__file__).parent / "children"


def inline(name: str) -> tuple[str, ...]:
    """A server whose code is in its command line: its file might be behind the walls."""
    return (sys.executable, "-S", "-c", (CHILDREN / f"{name}.py").read_text())


GLUTTON = inline("glutton")
walled = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@asynccontextmanager
async def opened(command: tuple[str, ...] = GLUTTON, **options: object):
    """A sink whose server reads, writes and looks around when it is told to."""
    with trio.fail_after(30):
        sink = StdioSink(StdioSinkConfig(command=command, stop_grace=0.2, kill_grace=0.2, **options), Context(id="up"))
        sink._lines._era.is_modern = True  # what it finds out is the business of test_stdio_era.py
        async with sink.open():
            yield sink


async def ask(sink: StdioSink, name: str, **params: object):
    """What the server has to say."""
    reply = await sink(memory_exchange("tools/call", {"name": name, **params}))
    assert isinstance(reply, Result)
    return reply.value


@walled
async def test_only_writable_paths_can_be_written(tmp_path):
    """Everything can be read by default; even root writes nowhere else."""
    ours, closed = tmp_path / "ours", tmp_path / "closed"
    ours.mkdir()
    closed.mkdir()
    async with opened(confine=ConfineConfig(writable_paths=(ours,))) as sink:
        inside = await ask(sink, "write", path=str(ours / "file"))
        outside = await ask(sink, "write", path="/etc/sluiceway-must-not-exist")
        temporary = await ask(sink, "write", path="/tmp/sluiceway-must-not-be-outside")
        gone = await ask(sink, "write", path=str(closed / "file"))

    assert "error" not in inside
    assert (ours / "file").read_text() == "written"
    assert outside["error"] == "OSError: Read-only file system"
    assert "error" not in temporary
    assert "sluiceway-must-not-be-outside" not in os.listdir("/tmp")
    assert gone["error"] == "FileNotFoundError: No such file or directory"


@walled
async def test_only_read_only_paths_can_be_read_if_they_are_given(tmp_path):
    """Besides the system's own directories, and without being written."""
    shown, hidden = tmp_path / "shown", tmp_path / "hidden"
    for folder in (shown, hidden):
        folder.mkdir()
        (folder / "file").write_text("text")
    needed = {Path(sys.base_prefix), Path(sys.prefix)}
    async with opened(confine=ConfineConfig(read_only_paths=(*needed, shown))) as sink:
        visible = await ask(sink, "read", path=str(shown / "file"))
        written = await ask(sink, "write", path=str(shown / "file"))
        missing = await ask(sink, "read", path=str(hidden / "file"))

    assert visible["text"] == "text"
    assert written["error"] == "OSError: Read-only file system"
    assert missing["error"] == "FileNotFoundError: No such file or directory"


@walled
@pytest.mark.parametrize(("no_network", "names"), [(True, ["lo"]), (False, sorted(os.listdir("/sys/class/net")))])
async def test_no_network_leaves_a_loopback_alone(no_network, names):
    """Of the machine's interfaces none is seen."""
    async with opened(confine=ConfineConfig(no_network=no_network)) as sink:
        text = (await ask(sink, "read", path="/proc/net/dev"))["text"]

    assert sorted(line.partition(":")[0].strip() for line in text.splitlines()[2:]) == names


@walled
@pytest.mark.parametrize("confine", [None, ConfineConfig()])
async def test_behind_bubblewrap_nothing_survives_its_first_process(confine):
    """A daemon in another session goes too, for its namespace does."""
    before = set(psutil.pids())
    async with opened(inline("daemons"), lifetime="bubblewrap", confine=confine) as sink:
        reply = await ask(sink, "")
        family = psutil.Process().children(recursive=True)

        assert reply["pid"] < 10  # ids of its own
        assert len(family) >= 3
    assert [process for process in family if process.is_running() and process.pid not in before] == []


@as_root
@pytest.mark.parametrize("lifetime", ["shim", "plain"])
async def test_a_server_runs_as_the_user_it_was_given(lifetime):
    """For which no bubblewrap is needed."""
    command = ("sh", "-c", 'read line; echo "{\\"jsonrpc\\":\\"2.0\\",\\"id\\":1,\\"result\\":{\\"id\\":\\"$(id)\\"}}"')
    async with opened(command, confine=ConfineConfig(user="nobody"), lifetime=lifetime, cwd=Path("/")) as sink:
        said = (await ask(sink, ""))["id"]

    assert "(nobody)" in said
    assert "root" not in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lifetime": "plain", "confine": ConfineConfig()}, "confine needs lifetime bubblewrap or auto, not plain"),
        ({"lifetime": "shim", "confine": ConfineConfig(no_network=True)}, "confine needs lifetime bubblewrap or auto"),
        ({"confine": ConfineConfig(user="no-such-user")}, "no such user|only root can change users"),
    ],
)
async def test_what_cannot_be_had_is_an_error_at_opening(options, words):
    """Each names the option."""
    with pytest.raises(ConnectFailed, match=words):
        async with opened(**options):
            pass


async def test_without_bubblewrap_a_confined_server_does_not_run(monkeypatch):
    """Nothing is started, and the error names the package."""
    monkeypatch.setattr(shutil, "which", lambda name, **_: None if name == "bwrap" else f"/bin/{name}")
    with pytest.raises(ConnectFailed, match="install the package bubblewrap"):
        async with opened(confine=ConfineConfig()):
            pass


@walled
async def test_walls_that_do_not_stand_are_an_error_with_their_reason(tmp_path):
    """They are tried when the sink opens."""
    with pytest.raises(ConnectFailed, match=r"cannot be confined as it should be: bwrap: .*not-there"):
        async with opened(confine=ConfineConfig(writable_paths=(tmp_path / "not-there",))):
            pass


def test_only_root_may_ask_for_another_user(monkeypatch):
    """With what to do about it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConnectFailed, match="only root can change users; run as that user"):
        Walls.build("auto", ConfineConfig(user="nobody"), {})


def test_auto_is_the_shim_for_what_is_not_confined():
    """Bubblewrap does not work everywhere, the shim does."""
    walls = Walls.build("auto", None, {"CORE": 0})

    assert walls.prefix == ()
    assert walls.shim.watch
    assert not Walls.build("plain", None, {}).shim.watch
