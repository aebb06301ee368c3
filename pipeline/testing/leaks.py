"""
The leak oracle: what a piece of code left behind.

A snapshot names everything that ought to be as it was before: Trio tasks, child processes, file descriptors (sockets
among them), threads, and the sizes of tables somebody asked to watch. Two snapshots are compared; a difference becomes
a `Leak` that lists each thing with what is known about it. A comparison without a difference costs well under a
millisecond, so that every test of a suite can run under it.

Children and descriptors are read from `/proc`; on systems without it those two are not watched.
"""

from __future__ import annotations

import gc
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, final

import trio
from attrs import define, field, frozen

GRACE_S: Final = 1.0
"""Real seconds that threads, children and descriptors get to disappear before they count as left behind."""
_TRIO_THREAD: Final = "Trio thread "
"""Name of an idle thread of Trio's cache, which lives on for ten seconds by design; a busy one has its job's name."""
_FOREIGN_THREAD: Final = "Dummy-"
"""Name that `threading` gives to threads it did not start; it does not notice when they end."""


class Leak(AssertionError):
    """Something was left behind; the message lists what."""


@final
@frozen
class Snapshot:
    """What exists at one moment."""

    tasks: frozenset[trio.lowlevel.Task]
    """Every task below the root; empty outside `trio.run`."""
    children: frozenset[int]
    """Process ids of our children, zombies included."""
    descriptors: frozenset[tuple[int, str]]
    """Open file descriptors with what they refer to."""
    threads: frozenset[threading.Thread]
    """Running threads but the idle ones of Trio's cache."""
    tables: Mapping[str, int]
    """Sizes of what is watched, by name."""

    @classmethod
    def take(cls, tables: Mapping[str, Callable[[], int]] | None = None) -> Snapshot:
        """Look around now."""
        return cls(
            _tasks(),
            _children(),
            _descriptors(),
            frozenset(t for t in threading.enumerate() if not t.name.startswith((_TRIO_THREAD, _FOREIGN_THREAD))),
            {name: size() for name, size in (tables or {}).items()},
        )

    def left_in(self, later: Snapshot) -> list[str]:
        """One line for each thing that exists in a later snapshot and does not in this one."""
        lines = [_describe_task(task) for task in later.tasks - self.tasks]
        lines += [_describe_child(pid) for pid in sorted(later.children - self.children)]
        lines += [_describe_descriptor(fd, target) for fd, target in sorted(later.descriptors - self.descriptors)]
        lines += [f"thread {thread.name!r}" for thread in later.threads - self.threads]
        for name, size in later.tables.items():
            before = self.tables.get(name, 0)
            if size > before:
                lines.append(f"{name}: {size} entries, {before} before")
        return lines


@final
@define(eq=False)
class LeakOracle:
    """Compares the moment it was made with the moment of `check`."""

    _tables: dict[str, Callable[[], int]] = field(factory=dict, init=False)
    _sizes: dict[str, int] = field(factory=dict, init=False)
    _before: Snapshot = field(factory=Snapshot.take, init=False)

    def watch(self, name: str, size: Callable[[], int]) -> None:
        """
        Watch a table too: a store's `size`, a session table's `__len__`. What it holds now is what it may hold later.

        Args:
            name: What it is called in the report.
            size: Says how many entries there are; called now and in `check`.
        """
        self._tables[name] = size
        self._sizes[name] = size()

    def findings(self) -> list[str]:
        """One line for each thing that is left behind at this moment; empty if nothing is."""
        before = self._before
        known = Snapshot(before.tasks, before.children, before.descriptors, before.threads, self._sizes)
        return known.left_in(Snapshot.take(self._tables))

    def check(self) -> None:
        """
        Blocks for up to a second if something seems to be left, never otherwise.

        Raises:
            Leak: Something is left behind that neither a garbage collection nor a second's grace removed.
        """
        if not self.findings():
            return
        gc.collect()
        latest = time.monotonic() + GRACE_S
        while found := self.findings():
            if time.monotonic() > latest or not _may_pass(self._before, Snapshot.take()):
                raise Leak("left behind:\n" + "\n".join(f"  {line}" for line in found))
            time.sleep(0.01)


@contextmanager
def leak_check() -> Iterator[LeakOracle]:
    """
    Raise `Leak` if the body leaves something behind; an exception of the body goes first.

    Works inside and outside `trio.run`. Inside, let background tasks come to rest before the body ends
    (`await trio.testing.wait_all_tasks_blocked()`).
    """
    oracle = LeakOracle()
    yield oracle
    oracle.check()


def run_clean(async_fn: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """
    `trio.run`, which also fails if a task or a timer is left when the main function has returned.

    Raises:
        Leak: A task of the system nursery or an armed deadline is left.
    """

    async def main() -> Any:
        before = _tasks()
        result = await async_fn(*args)
        lines = [_describe_task(task) for task in _tasks() - before]
        wait_s = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if wait_s != math.inf:
            lines.append(f"a timer, due in {wait_s:g} s")
        if lines:
            raise Leak("left behind:\n" + "\n".join(f"  {line}" for line in lines))
        return result

    return trio.run(main, **kwargs)


def _may_pass(before: Snapshot, now: Snapshot) -> bool:
    """Whether something is left that can end without this thread's help; tasks and tables cannot."""
    return bool(now.children - before.children or now.descriptors - before.descriptors or now.threads - before.threads)


def _tasks() -> frozenset[trio.lowlevel.Task]:
    if not trio.lowlevel.in_trio_run():
        return frozenset()
    found = set()
    root = trio.lowlevel.current_root_task()
    assert root is not None
    queue = [root]
    while queue:
        task = queue.pop()
        found.add(task)
        queue += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return frozenset(found)


def _children() -> frozenset[int]:
    if sys.platform != "linux":
        return frozenset()
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:  # a microsecond instead of a walk through /proc
        return frozenset()
    me = str(os.getpid())
    return frozenset(int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _stat(pid)[1] == me)


def _stat(pid: str | int) -> tuple[str, str]:
    """State and parent of a process; empty if it has gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except OSError:
        return "", ""
    return state, parent


def _descriptors() -> frozenset[tuple[int, str]]:
    found = set()
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return frozenset()
    for name in names:
        with suppress(OSError):  # the descriptor of the listing itself is gone by now
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return frozenset(found)


def _describe_task(task: trio.lowlevel.Task) -> str:
    return f"task {task.name!r}, {where(task)}"


def where(task: trio.lowlevel.Task) -> str:
    """Where a task is: the innermost line outside Trio."""
    place = "in Trio"
    for frame, line in task.iter_await_frames():
        if not frame.f_globals.get("__name__", "").startswith("trio."):
            place = f"at {os.path.basename(frame.f_code.co_filename)}:{line} in {frame.f_code.co_name}"
    return place


def _describe_child(pid: int) -> str:
    state = {"Z": "ended, not waited for"}.get(_stat(pid)[0], "running")
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        command = ""
    return f"child process {pid}, {state}: {command or '?'}"


def _describe_descriptor(fd: int, target: str) -> str:
    if target.startswith("socket:"):
        with suppress(OSError):
            return f"socket {fd}: {_describe_socket(fd)}"
    return f"file descriptor {fd}: {target}"


def _describe_socket(fd: int) -> str:
    with socket.socket(fileno=os.dup(fd)) as twin:
        name = twin.getsockname()
        try:
            peer = twin.getpeername()
        except OSError:
            return f"{twin.family.name} {name}, no peer"
        return f"{twin.family.name} {name} to {peer}"
