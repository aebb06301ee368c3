"""Processes of our own: environment, streams, exit, and that nothing of them is left."""

import errno
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import trio

from sluiceway.transports.pipes import ReadEnd
from sluiceway.transports.process import Process, Tail, child_environment, find_executable

GRANDCHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
                          "print('up', flush=True); time.sleep(600)"], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def running(code: str, *, env: dict[str, str] | None = None, cwd: Path | None = None):
    """A Python child that is killed and reaped at the end, within bounded time."""
    process = Process.spawn([sys.executable, "-c", code], cwd=cwd, env=dict(os.environ) if env is None else env)
    try:
        with trio.fail_after(20):
            yield process
    finally:
        await process.kill_and_reap()


async def vanish(pid: int) -> None:
    """Wait until a killed process that is not our child is gone, or at most a zombie of somebody else."""
    with trio.fail_after(10):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110  # nothing tells us
            await trio.sleep(0.01)


async def read_all(stream: ReadEnd) -> bytes:
    """Everything until end of file."""
    data = b""
    while piece := await stream.receive_some():
        data += piece
    return data


def test_environment_is_an_allowlist_with_the_declared_variables_over_it():
    """Secrets of the gateway do not reach a child; what the configuration declares does, and wins."""
    parent = {"PATH": "/bin", "HOME": "/home/a", "LC_ALL": "C", "AWS_SECRET_ACCESS_KEY": "s", "LANG": "en", "LCX": "1"}

    assert child_environment(parent, {"LANG": "de", "TOKEN": "t"}) == {
        "PATH": "/bin",
        "HOME": "/home/a",
        "LC_ALL": "C",
        "LANG": "de",
        "TOKEN": "t",
    }


def test_executables_are_looked_up_as_exec_will(tmp_path):
    """A bare name on the child's PATH, a path relative to the child's directory, and nothing else."""
    program = tmp_path / "bin" / "serve"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    assert find_executable("serve", cwd=None, path=str(program.parent)) == str(program)
    assert find_executable("bin/serve", cwd=tmp_path, path="") == str(program)
    assert find_executable("bin/serve", cwd=None, path="") is None
    assert find_executable("nowhere", cwd=tmp_path, path=str(tmp_path)) is None


async def test_a_child_is_spoken_to_over_its_pipes():
    """Standard input arrives, standard output and error come back, the status is known."""
    code = "import sys; data = sys.stdin.read(); print(data.upper()); print('note', file=sys.stderr); sys.exit(3)"
    async with running(code) as process:
        assert process.status_text() == "is still running"

        await process.stdin.send_all(b"hello")
        process.stdin.close()

        assert await read_all(process.stdout) == b"HELLO\n"
        assert await read_all(process.stderr) == b"note\n"
        await process.wait_exited()
        assert process.status_text() == "exited with status 3"
    assert process.reaped
    assert process.status_text() == "exited with status 3"


async def test_a_child_leads_its_own_session_and_gets_exactly_its_environment(tmp_path):
    """No controlling terminal and no signals of ours; directory and variables as asked for."""
    code = "import os; print(os.getsid(0) == os.getpid(), os.getcwd(), sorted(os.environ))"
    async with running(code, env={"ONLY": "this"}, cwd=tmp_path) as process:
        words = (await read_all(process.stdout)).decode()

    assert words.startswith(f"True {tmp_path} ")
    assert "'ONLY'" in words
    assert "PATH" not in words


@pytest.mark.parametrize(
    ("number", "text"),
    [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGRTMIN + 3, f"was killed by signal {signal.SIGRTMIN + 3}")],
)
async def test_a_signal_that_ended_a_child_is_named(number, text):
    """The status says which signal it was, before and after it was reaped."""
    async with running("import time; time.sleep(600)") as process:
        process.signal_group(number)
        await process.wait_exited()

        assert process.status_text() == text
    assert process.status_text() == text


async def test_kill_and_reap_ends_grandchildren_that_ignore_signals():
    """The whole group goes, and no zombie stays; doing it twice is harmless."""
    async with running(GRANDCHILD) as process:
        grandchild = int(await process.stdout.receive_some())

        assert psutil.pid_exists(grandchild)
    await process.kill_and_reap()

    assert not psutil.pid_exists(process.pid)
    await vanish(grandchild)


async def test_a_group_can_be_killed_after_its_leader_left():
    """The leader stays a zombie until then, so its id still names the group."""
    async with running(GRANDCHILD) as process:
        grandchild = int(await process.stdout.receive_some())
        process.stdin.close()
        await process.wait_exited()

        assert psutil.Process(grandchild).status() != psutil.STATUS_ZOMBIE

        await process.kill_and_reap()
        await vanish(grandchild)


async def test_exit_is_noticed_without_pidfds(monkeypatch):
    """Where the system has none, a thread waits instead."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    async with running("") as process:
        await process.wait_exited()

        assert process.status_text() == "exited with status 0"


async def test_waiting_for_a_reaped_child_returns_at_once():
    """There is nothing to wait for any more."""
    async with running("") as process:
        await process.kill_and_reap()
        await process.wait_exited()


async def test_a_program_that_cannot_start_leaves_no_descriptor():
    """The error comes out, and all six ends of the pipes are closed."""
    before = psutil.Process().num_fds()

    with pytest.raises(FileNotFoundError):
        Process.spawn(["/nowhere/at/all"], cwd=None, env={})

    assert psutil.Process().num_fds() == before


async def test_running_out_of_descriptors_leaves_none_behind(monkeypatch):
    """A pipe that cannot be made closes those that were."""
    before = psutil.Process().num_fds()
    made: list[tuple[int, int]] = []

    def two_pipes(real=os.pipe) -> tuple[int, int]:
        if len(made) == 2:
            raise OSError(errno.EMFILE, "too many open files")
        made.append(real())
        return made[-1]

    monkeypatch.setattr(os, "pipe", two_pipes)

    with pytest.raises(OSError, match="too many open files"):
        Process.spawn(["/bin/true"], cwd=None, env={})

    assert psutil.Process().num_fds() == before


async def test_spawning_does_not_leave_the_calling_thread(monkeypatch):
    """A parent-death signal is tied to the thread that forks, so that must be one that stays."""
    from threading import get_ident

    threads: list[int] = []
    real = subprocess.Popen.__init__

    def init(self, *args, **kwargs) -> None:
        threads.append(get_ident())
        real(self, *args, **kwargs)

    monkeypatch.setattr(subprocess.Popen, "__init__", init)
    async with running(""):
        pass

    assert threads == [get_ident()]


def test_tail_keeps_the_last_lines_and_an_unfinished_one():
    """Oldest first, empty lines left out; each piece yields the lines it completed."""
    tail = Tail(2)

    assert [tail.feed(piece) for piece in (b"one\ntw", b"o\n\nthr", b"ee\nfo", b"ur")] == [
        ["one"],
        ["two"],
        ["three"],
        [],
    ]
    assert tail.lines() == ["two", "three", "four"]


def test_tail_memory_is_bounded_by_lines_and_by_line_length():
    """Neither many lines nor an endless one grow it."""
    tail = Tail(3)
    for _ in range(100):
        tail.feed(b"x" * 10_000)
    tail.feed(b"\n" + b"y" * 5000 + b"\nz\n")

    assert [len(line) for line in tail.lines()] == [1024, 1024, 1]


def test_tail_hides_secrets_and_survives_bytes_that_are_not_text():
    """Declared secrets never reach an error text, longest first; bad UTF-8 is replaced."""
    tail = Tail(5, ["abc", "abcdef", ""])
    tail.feed(b"key abcdef and abc\n\xff\n")

    assert tail.lines() == ["key *** and ***", "�"]
