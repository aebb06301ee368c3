"""Orphans come to the gateway and are reaped by it; its own children are left to who waits for them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
import trio
import trio.testing

from sluiceway.pipeline.runtime.orphans import adopt_orphans, reap_adopted, reap_orphans

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans can be adopted on Linux only")

DAEMON = """
import os, sys
os.setsid()
if os.fork() == 0:
    os.close(1)
    sys.stdin.read()
    os._exit(0)
"""
"""Ends at once, and leaves a process in its session that lives as long as standard input."""


@contextmanager
def orphan() -> Iterator[tuple[int, int]]:
    """A daemon that has become our child, and what it waits for."""
    reading, writing = os.pipe()
    before = set(psutil.Process().children())
    with subprocess.Popen([sys.executable, "-S", "-c", DAEMON], stdin=reading) as parent:
        parent.wait()
    os.close(reading)
    (daemon,) = set(psutil.Process().children()) - before
    yield daemon.pid, writing
    with pytest.raises(ChildProcessError):
        os.waitpid(daemon.pid, os.WNOHANG)


def wait_zombie(pid: int) -> None:
    """Wait until a child has ended, and leave it a zombie."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_an_adopted_process_is_reaped_when_it_has_ended() -> None:
    """Not before; and nothing of it is left afterwards."""
    with adopt_orphans() as adopted, orphan() as (pid, writing):
        assert adopted
        assert reap_adopted() == 0
        os.close(writing)
        wait_zombie(pid)

        assert reap_adopted() == 1
        assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("apart", [False, True])
def test_a_child_of_our_own_is_left_to_who_waits_for_it(apart: bool) -> None:
    """Whether it leads a session or shares ours: its status is not stolen."""
    with subprocess.Popen(["/bin/sh", "-c", "exit 3"], start_new_session=apart) as child:
        wait_zombie(child.pid)

        assert reap_adopted() == 0
        assert child.wait() == 3


async def test_orphans_are_reaped_as_they_end() -> None:
    """The task looks whenever a child has ended."""
    with adopt_orphans(), orphan() as (pid, writing):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reap_orphans)
            await trio.testing.wait_all_tasks_blocked()
            os.close(writing)
            with trio.fail_after(10):
                while psutil.pid_exists(pid):  # noqa: ASYNC110  # the kernel tells nobody
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


def test_nothing_is_adopted_any_more_afterwards() -> None:
    """Who runs a gateway inside a program of its own gets that back as it was."""
    with adopt_orphans():
        with adopt_orphans():
            pass
        with orphan() as (pid, writing):
            os.close(writing)
            wait_zombie(pid)
            assert reap_adopted() == 1
