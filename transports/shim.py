"""
What stands between the gateway and a server: starts it within its limits, and ends it when the gateway is gone.

A program of its own, run as `python -I -S shim.py FD watch|exec LIMITS USER -- COMMAND ...`, with nothing but the
standard library: it starts in some twenty milliseconds, and is the server's parent for as long as that lives.

`FD` is one end of a socket pair whose other end only the gateway has. When that end is closed (the gateway was killed),
everything the server started gets SIGTERM, and SIGKILL a second later; a byte from it means SIGKILL at once. Orphans
come to this process instead of to init (Linux, PR_SET_CHILD_SUBREAPER), so not even a grandchild with a session of its
own escapes. When the server exits, what it left behind is killed and its exit status becomes ours.

With `exec` nobody stays to watch: the limits are set, and the server takes this process over.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import socket
import sys
import time
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_TERM_GRACE_S = 1.0
_KILL_WITHIN_S = 3.0
"""A process stuck in the kernel is not waited for any longer."""
_CANNOT_START = 127


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _environment() -> dict[bytes, bytes]:
    """The environment that we were given, without what the interpreter adds to it (LC_CTYPE, PEP 538)."""
    try:
        with open("/proc/self/environ", "rb") as file:
            pairs = [pair.partition(b"=") for pair in file.read().split(b"\0") if pair]
    except OSError:
        return dict(os.environb)
    return {name: value for name, _, value in pairs}


def _restrict(limits: str, user: str) -> None:
    """Set `NAME=NUMBER,...` of `resource.RLIMIT_NAME`, soft and hard, then become `UID:GID`. Either may be empty."""
    for name, _, value in (limit.partition("=") for limit in limits.split(",") if limit):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (int(value), int(value)))
    if user:
        uid, _, gid = user.partition(":")
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))


def _execute(command: list[str], environment: dict[bytes, bytes]) -> None:
    """
    `os.execvpe`, which imports a module for it: another user may not be able to read the interpreter's library.

    Raises:
        OSError: The most telling of what was wrong with the program in all places of PATH.
    """
    folders = os.fsdecode(environment.get(b"PATH", b"/bin:/usr/bin")).split(os.pathsep)
    places = [""] if "/" in command[0] else folders
    reason: OSError | None = None
    for place in places:
        try:
            os.execve(os.path.join(place, command[0]), command, environment)  # noqa: S606  # no shell is wanted
        except OSError as error:
            if reason is None or isinstance(reason, FileNotFoundError):
                reason = error
    assert reason is not None
    raise reason


def _become(lifeline: socket.socket, limits: str, user: str, command: list[str], *, watched: bool) -> None:
    """Turn into the server; say why if that is impossible. Does not return."""
    try:
        environment = _environment()
        _restrict(limits, user)
        if watched:  # forgotten when the user changes, so it comes after that
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        _execute(command, environment)
    except (OSError, ValueError) as error:
        lifeline.send(str(getattr(error, "strerror", None) or error).encode())
    finally:
        os._exit(_CANNOT_START)


def _descendants(server: int) -> list[int]:
    """Everybody below us; only the server where there is no /proc to look them up in."""
    parents: dict[int, list[int]] = {}
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return [server]
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            # pid (name) state ppid ..., and a name may hold anything
            parents.setdefault(int(file.read().rpartition(b")")[2].split()[1]), []).append(pid)
    found, queue = [], [os.getpid()]
    while queue:
        below = parents.get(queue.pop(), [])
        found += below
        queue += below
    return found


class _Family:
    """The server and everything that came of it, seen by its parent."""

    def __init__(self, server: int, alarm: int) -> None:
        self.server = server
        self.status: int | None = None
        self.extinct = False
        self._alarm = alarm

    def reap(self) -> None:
        """Collect who has ended, adopted orphans included."""
        with suppress(BlockingIOError):
            os.read(self._alarm, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.extinct = True
                return
            if pid == 0:
                return
            if pid == self.server:
                self.status = status

    def signal_all(self, number: int) -> None:
        """Send a signal to each of them."""
        for pid in _descendants(self.server):
            with suppress(OSError):
                os.kill(pid, number)

    def wait(self, seconds: float) -> None:
        """Wait until nobody is left, or the time is over."""
        end = time.monotonic() + seconds
        while not self.extinct and (left := end - time.monotonic()) > 0:
            select.select([self._alarm], [], [], left)
            self.reap()

    def end(self, *, politely: bool) -> None:
        """Leave nobody behind."""
        self.reap()
        if politely and not self.extinct:
            self.signal_all(signal.SIGTERM)
            self.wait(_TERM_GRACE_S)
        end = time.monotonic() + _KILL_WITHIN_S
        while not self.extinct and time.monotonic() < end:
            self.signal_all(signal.SIGKILL)  # again and again: they may be starting others at this very moment
            self.wait(0.02)


def _watch(lifeline: socket.socket, limits: str, user: str, command: list[str]) -> int:
    """Run the server until it, or the gateway, is gone; returns its wait status."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    server = os.fork()
    if server == 0:
        _become(lifeline, limits, user, command, watched=True)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they are for the group that we share with the server
    alarm, ring = os.pipe()
    os.set_blocking(alarm, False)
    os.set_blocking(ring, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # whoever waits for the end of the server's pipes must not wait for us
        os.dup2(nothing, fd)
    family = _Family(server, alarm)
    family.reap()
    orphaned = False
    while family.status is None:
        if lifeline.fileno() in select.select([lifeline.fileno(), alarm], [], [])[0]:
            orphaned = not lifeline.recv(1)
            break
        family.reap()
    family.end(politely=orphaned)
    return family.status if family.status is not None else signal.SIGKILL


def _end_like(status: int) -> None:
    """Exit as the server did: with its code, or by its signal."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError, ValueError):  # SIGKILL needs no default action
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def main(arguments: list[str]) -> None:
    """Run one server, as the module says. Does not return."""
    fd, mode, limits, user, _, *command = arguments
    lifeline = socket.socket(fileno=int(fd))
    lifeline.set_inheritable(False)
    if mode == "exec":
        _become(lifeline, limits, user, command, watched=False)
    _end_like(_watch(lifeline, limits, user, command))


if __name__ == "__main__":
    main(sys.argv[1:])
