"""The leak oracle: each kind of thing is found when it stays and not when it goes."""

import os
import socket
import subprocess
import sys
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sluiceway.pipeline.testing import leaks
from sluiceway.pipeline.testing.leaks import Leak, LeakOracle, leak_check, run_clean

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")


@pytest.fixture
def impatient(monkeypatch):
    """No grace: what is left is left."""
    monkeypatch.setattr(leaks, "GRACE_S", 0.0)


def test_nothing_left_is_no_finding():
    """Opening and closing leaves nothing."""
    with leak_check():
        reader, writer = os.pipe()
        os.close(reader)
        os.close(writer)


def test_an_exception_of_the_body_goes_first(impatient):
    """What a failing body leaves does not hide why it failed."""
    left = []

    def body():
        left.extend(os.pipe())
        raise KeyError("the reason")

    with pytest.raises(KeyError, match="the reason"), leak_check():
        body()

    for descriptor in left:
        os.close(descriptor)


@needs_proc
def test_an_open_file_is_named(tmp_path, impatient):
    """The report has the path."""
    path = tmp_path / "forgotten.txt"
    path.touch()
    oracle = LeakOracle()
    descriptor = os.open(path, os.O_RDONLY)

    with pytest.raises(Leak, match=r"file descriptor \d+: .*forgotten\.txt"):
        oracle.check()

    os.close(descriptor)
    oracle.check()


@needs_proc
def test_an_open_socket_is_named_by_its_addresses(impatient):
    """A listening socket has no peer, a connected one has."""
    with leak_check() as oracle, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0]:
            findings = "\n".join(oracle.findings())

            assert f"AF_INET ('127.0.0.1', {port}), no peer" in findings
            assert f"to ('127.0.0.1', {port})" in findings
            assert f"to {client.getsockname()}" in findings


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_running_child_and_an_unreaped_one_are_told_apart(impatient):
    """The report has the command, and says whether it still runs."""
    oracle = LeakOracle()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert child.stdin is not None

    with pytest.raises(Leak, match=rf"child process {child.pid}, running: .*input"):
        oracle.check()

    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    with pytest.raises(Leak, match=rf"child process {child.pid}, ended, not waited for"):
        oracle.check()

    child.wait()
    oracle.check()


def test_a_thread_that_stays_is_named(impatient):
    """Threads count unless they are idle ones of Trio's cache."""
    oracle = LeakOracle()
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="forgotten", daemon=True)
    thread.start()

    with pytest.raises(Leak, match="thread 'forgotten'"):
        oracle.check()

    done.set()
    thread.join()
    oracle.check()


def test_a_thread_that_is_ending_gets_its_grace(monkeypatch):
    """A thread that ends while the oracle waits is not left behind."""
    may_end = threading.Event()
    thread = threading.Thread(target=may_end.wait, daemon=True)

    def end_meanwhile(_seconds):
        may_end.set()
        thread.join()

    oracle = LeakOracle()
    thread.start()
    monkeypatch.setattr(leaks.time, "sleep", end_meanwhile)
    oracle.check()

    assert not thread.is_alive()


async def test_trios_idle_threads_are_tolerated():
    """The thread cache keeps threads for ten seconds by design."""
    with leak_check():
        await trio.to_thread.run_sync(lambda: None)


async def test_a_task_that_stays_is_named_with_its_line(nursery, impatient):
    """The report says where the task waits, by the innermost line outside Trio."""

    async def waiting():
        await trio.sleep_forever()

    oracle = LeakOracle()
    nursery.start_soon(waiting, name="forgotten")
    await wait_all_tasks_blocked()

    with pytest.raises(Leak, match=r"task 'forgotten', at test_leaks\.py:\d+ in waiting"):
        oracle.check()


def test_a_watched_table_may_hold_what_it_held_and_no_more(impatient):
    """Entries that were there when watching began are fine; new ones are reported; fewer are fine."""
    table = {"old": 1}
    oracle = LeakOracle()
    oracle.watch("sessions", table.__len__)
    oracle.check()

    table["new"] = 2

    with pytest.raises(Leak, match="sessions: 2 entries, 1 before"):
        oracle.check()

    table.clear()
    oracle.check()


def test_without_proc_there_are_no_descriptors(monkeypatch):
    """Where there is no /proc, descriptors and children are not watched, and nothing fails."""

    def no_proc(_path):
        raise FileNotFoundError

    with leak_check():
        monkeypatch.setattr(os, "listdir", no_proc)
        monkeypatch.setattr(sys, "platform", "darwin")

        assert leaks.Snapshot.take().descriptors == frozenset()
        assert leaks.Snapshot.take().children == frozenset()

        monkeypatch.undo()


def test_a_process_that_has_gone_is_described_all_the_same():
    """Between finding a child and describing it the child may go."""
    assert leaks._describe_child(2**22 + 1) == "child process 4194305, running: ?"


def test_run_clean_passes_arguments_and_results():
    """It is `trio.run` when nothing is left."""

    async def main(number):
        await trio.lowlevel.checkpoint()
        return number + trio.current_time()

    assert run_clean(main, 2, clock=trio.testing.MockClock()) == 2


def test_run_clean_finds_a_system_task():
    """A system task outlives the main function."""

    async def main():
        trio.lowlevel.spawn_system_task(trio.sleep_forever, name="forgotten")

    with pytest.raises(Leak, match="task 'forgotten', in Trio"):
        run_clean(main)


def test_run_clean_finds_a_timer():
    """An armed deadline that nobody waits for any more is left behind."""

    async def main():
        trio.lowlevel.spawn_system_task(trio.sleep, 60)
        await wait_all_tasks_blocked()

    with pytest.raises(Leak, match="a timer, due in 60 s"):
        run_clean(main, clock=trio.testing.MockClock())
