"""Our own standard streams: who may use them meanwhile, what they may be, and that they come back as they were."""

import os
import subprocess
import sys

import pytest
import trio

from sluiceway.transports.standard_streams import standard_streams


@pytest.fixture
def pipes():
    """Three pairs of descriptors in the place of 0, 1 and 2: (ours, theirs) each."""
    stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
    ends = [stdin, stdout[::-1], stderr[::-1]]
    yield ends
    for pair in ends:
        for fd in pair:
            os.close(fd)


async def test_messages_go_through_and_prints_do_not(pipes):
    """What others read is empty, what others write goes to standard error."""
    (stdin, to_stdin), (stdout, from_stdout), (stderr, from_stderr) = pipes
    os.write(to_stdin, b"hello")
    with standard_streams(stdin, stdout, stderr) as (reader, writer):
        assert await reader.receive_some() == b"hello"
        assert os.read(stdin, 10) == b""

        os.write(stdout, b"a print")
        await writer.send_all(b"a message")

        assert os.read(from_stdout, 100) == b"a message"
        assert os.read(from_stderr, 100) == b"a print"


async def test_afterwards_the_streams_are_what_they_were(pipes):
    """Same files, blocking as before."""
    (stdin, to_stdin), (stdout, from_stdout), (stderr, _) = pipes
    with standard_streams(stdin, stdout, stderr):
        pass
    os.write(to_stdin, b"in")
    os.write(stdout, b"out")

    assert (os.read(stdin, 10), os.read(from_stdout, 10)) == (b"in", b"out")
    assert [os.get_blocking(fd) for fd in (stdin, stdout)] == [True, True]


async def test_reading_waits_without_blocking_the_loop(pipes, nursery):
    """Other tasks run while nothing comes."""
    (stdin, to_stdin), (stdout, _), (stderr, _) = pipes
    with trio.fail_after(10), standard_streams(stdin, stdout, stderr) as (reader, _):

        async def late() -> None:
            os.write(to_stdin, b"late")

        nursery.start_soon(late)

        assert await reader.receive_some() == b"late"


async def test_regular_files_work(tmp_path):
    """`gateway < requests > answers`: nothing to wait for, and writing goes on where the file stands."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"x" * 100_000)
    target.write_bytes(b"before ")
    with (
        source.open("rb") as stdin,
        target.open("ab") as stdout,
        standard_streams(stdin.fileno(), stdout.fileno(), 2) as (reader, writer),
    ):
        data = b""
        while piece := await reader.receive_some():
            data += piece
        await writer.send_all(b"after")

    assert data == b"x" * 100_000
    assert target.read_bytes() == b"before after"


async def test_a_terminal_stays_blocking_for_everybody_else():
    """The three streams of a terminal are one open file; a logger on standard error must not find it non-blocking."""
    leader, terminal = os.openpty()
    stdin, stdout, stderr = (os.dup(terminal) for _ in range(3))
    try:
        with trio.fail_after(10), standard_streams(stdin, stdout, stderr) as (reader, writer):
            assert os.get_blocking(stderr)

            await writer.send_all(b"to the screen")

            assert b"to the screen" in os.read(leader, 100)

            os.write(leader, b"typed\n")

            assert await reader.receive_some() == b"typed\n"
    finally:
        for fd in (leader, terminal, stdin, stdout, stderr):
            os.close(fd)


def test_a_closed_standard_input_is_an_error():
    """Nobody could ever speak to us."""
    fd = os.dup(1)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"), standard_streams(fd, 1, 2):
        pass


@pytest.mark.parametrize("flags", ["", "-u"])
def test_a_print_in_a_real_process_goes_to_standard_error(flags):
    """Buffered or not, before or after, by Python or by a child."""
    code = """
import os, sys, trio
from sluiceway.transports.standard_streams import standard_streams
async def main():
    print("early")
    with standard_streams() as (reader, writer):
        print("stray")
        os.system("echo child")
        await writer.send_all(b"message\\n")
    print("late")
trio.run(main)
"""
    done = subprocess.run(
        [sys.executable, *flags.split(), "-c", code], input=b"", capture_output=True, timeout=30, check=True
    )

    assert done.stdout.splitlines() == [b"early", b"message", b"late"]
    assert sorted(done.stderr.splitlines()) == [b"child", b"stray"]


def test_without_a_python_level_stdout_it_works(pipes, monkeypatch):
    """As under `pythonw`, or when a host closed it."""
    monkeypatch.setattr(sys, "stdout", None)
    (stdin, _), (stdout, _), (stderr, _) = pipes

    async def main() -> None:
        with standard_streams(stdin, stdout, stderr):
            await trio.lowlevel.checkpoint()

    trio.run(main)
