"""
A server process: spawned in a session and group of its own, listened to, and ended without leftovers.

Spawning is a plain `subprocess.Popen` in the caller's thread, the main one. Trio's `open_process` forks in a cached
worker thread, and a parent-death signal set there kills the child ten seconds later, when that thread retires; fork
and exec take under a millisecond, so there is nothing to move away.

What the child starts stays in its process group, which is what signals go to. The leader is reaped only after the last
signal: as long as it is a zombie its process id, which is also the group's, cannot belong to anybody else. With a
watching shim (shim.py) the leader is the shim: it finds those too who left the group, and ends them all when we die.
Without one, who left the group is found by its environment (kinship.py).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.options import KIB
from sluiceway.pipeline.runtime.nursery import farewell

from .kinship import VARIABLE, end_family, new_mark
from .pipes import ReadEnd, WriteEnd

_PASSED_ON: Final = frozenset(
    {"HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TEMP", "TERM", "TMP", "TMPDIR", "TZ", "USER"}
)
"""What a child inherits besides `LC_*`: where things are and how to talk, never what somebody may do."""

_MAX_LINE: Final = 1 * KIB
"""Bytes kept of one line of stderr."""

_REAP_WITHIN_S: Final = 5.0
"""How long a killed process may take to vanish; longer only if it hangs in the kernel."""
_SHIM_WITHIN_S: Final = 1.0
"""How long the shim may take to end the family before its group is killed over its head."""
_SHIM: Final = str(Path(__file__).with_name("shim.py"))


def child_environment(parent: Mapping[str, str], declared: Mapping[str, str]) -> dict[str, str]:
    """A child's environment: an allowlist of the parent's variables, and over it what the configuration declares."""
    inherited = {key: value for key, value in parent.items() if key in _PASSED_ON or key.startswith("LC_")}
    return inherited | dict(declared)


def find_executable(command: str, *, cwd: Path | None, path: str | None) -> str | None:
    """
    Where the system would find `command`, as `exec` does after changing to `cwd`; None if nowhere.

    Args:
        command: The first word of a command line.
        cwd: The child's working directory; None for ours.
        path: The child's `PATH`.
    """
    if os.path.dirname(command):
        return shutil.which(str((cwd or Path()) / command))
    return shutil.which(command, path=path)


@final
@frozen
class Shim:
    """What is to be done on a server's side of the fork (shim.py)."""

    watch: bool = True
    """Somebody stays between us and the server, and ends it when we are gone."""
    limits: Mapping[str, int] = {}
    """Resource limits by the end of their names in `resource` (`NOFILE`, `CORE`), soft and hard."""
    user: tuple[int, int] | None = None
    """User and group id that the server changes to; only root can."""

    def command_line(self, fd: int, command: Sequence[str]) -> list[str]:
        """The command that starts `command`; `fd` is the shim's end of the lifeline."""
        limits = ",".join(f"{name}={value}" for name, value in self.limits.items())
        user = "" if self.user is None else "{}:{}".format(*self.user)
        mode = "watch" if self.watch else "exec"
        return [sys.executable, "-I", "-S", _SHIM, str(fd), mode, limits, user, "--", *command]


@final
class Tail:
    """
    The last lines of a stream of text that nobody may have time to read.

    Args:
        max_lines: Lines kept; each is cut at 1 KiB.
        hidden: Values that must not be quoted; they are shown as `***`.
    """

    def __init__(self, max_lines: int, hidden: Sequence[str] = ()) -> None:
        self._lines: deque[str] = deque(maxlen=max_lines)
        self._partial = b""
        self._hidden = sorted({line for value in hidden for line in value.splitlines() if line}, key=len, reverse=True)

    def feed(self, data: bytes) -> list[str]:
        """
        Take bytes as they come; memory stays bounded whatever they are.

        Returns:
            The lines they completed, without empty ones and without hidden values.
        """
        *whole, rest = data.split(b"\n")
        if whole:
            whole[0] = self._partial + whole[0]
            self._partial = b""
        self._partial = (self._partial + rest)[:_MAX_LINE]
        lines = list(filter(None, map(self._text, whole)))
        self._lines.extend(lines)
        return lines

    def lines(self) -> list[str]:
        """What is kept, oldest first, an unfinished line included."""
        unfinished = self._text(self._partial)
        return [*self._lines, unfinished] if unfinished else list(self._lines)

    def _text(self, line: bytes) -> str:
        text = line.decode("utf-8", "replace").rstrip()
        for value in self._hidden:
            text = text.replace(value, "***")
        return text[:_MAX_LINE]


@final
class Process:
    """
    A running child and our ends of its three pipes, which are non-blocking.

    Made by `spawn`; whoever has one calls `kill_and_reap` in the end, on every path.
    """

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        stdin: WriteEnd,
        stdout: ReadEnd,
        stderr: ReadEnd,
        lifeline: socket.socket | None = None,
        mark: str | None = None,
    ) -> None:
        self._popen = popen
        self._lifeline = lifeline
        self._mark = mark
        self._start_error = ""
        self.stdin = stdin
        """Writes to the child's standard input."""
        self.stdout = stdout
        """Reads the child's standard output."""
        self.stderr = stderr
        """Reads the child's standard error; somebody must, or the child blocks when the pipe is full."""

    @classmethod
    def spawn(
        cls, command: Sequence[str], *, cwd: Path | None, env: Mapping[str, str], shim: Shim | None = None
    ) -> Process:
        """
        Start a program. Blocks until `exec` succeeded or failed: about a millisecond.

        With a shim it is the shim that was started by then; see `start_error`.

        Raises:
            OSError: It could not be started, or there are no descriptors left.
        """
        with ExitStack() as theirs, ExitStack() as ours:

            def from_child() -> tuple[int, ReadEnd]:
                read_fd, write_fd = os.pipe()
                theirs.callback(os.close, write_fd)
                end = ReadEnd(read_fd)
                ours.callback(end.close)
                return write_fd, end

            child_in, write_fd = os.pipe()
            theirs.callback(os.close, child_in)
            stdin = WriteEnd(write_fd)
            ours.callback(stdin.close)
            (child_out, stdout), (child_err, stderr) = from_child(), from_child()
            lifeline: socket.socket | None = None
            kept: tuple[int, ...] = ()
            if shim is not None:
                lifeline, theirs_of_it = socket.socketpair()
                ours.callback(lifeline.close)
                theirs.callback(theirs_of_it.close)
                kept = (theirs_of_it.fileno(),)
                command = shim.command_line(kept[0], command)
            mark = None if shim is not None and shim.watch else new_mark()
            popen = subprocess.Popen(  # noqa: S603  # a list from the operator's configuration; no shell
                list(command),
                stdin=child_in,
                stdout=child_out,
                stderr=child_err,
                cwd=cwd,
                env=dict(env) if mark is None else {**env, VARIABLE: mark},
                start_new_session=True,
                pass_fds=kept,
            )
            ours.pop_all()
        return cls(popen, stdin, stdout, stderr, lifeline, mark)

    @property
    def pid(self) -> int:
        """Process id of the leader; also the id of its group."""
        return self._popen.pid

    @property
    def reaped(self) -> bool:
        """Whether the leader is gone for good."""
        return self._popen.returncode is not None

    def start_error(self) -> str | None:
        """Why the shim could not start the server; known once it has exited. None if it could, or there is no shim."""
        if self._lifeline is not None and self._lifeline.fileno() >= 0 and not self._start_error:
            with suppress(OSError):  # nothing was said
                self._start_error = self._lifeline.recv(_MAX_LINE, socket.MSG_DONTWAIT).decode("utf-8", "replace")
        return self._start_error or None

    def status_text(self) -> str:
        """How the leader ended: `exited with status 3`, `was killed by SIGSEGV`, or `is still running`."""
        code = self._exit_code()
        if code is None:
            return "is still running"
        if code >= 0:
            return f"exited with status {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"

    def _exit_code(self) -> int | None:
        """The leader's exit status as `Popen.returncode` spells it, read without reaping."""
        if self._popen.returncode is not None:
            return self._popen.returncode
        info = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if info is None:
            return None
        return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status

    async def wait_exited(self) -> None:
        """Wait until the leader has ended. It stays a zombie until `kill_and_reap`. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        if self.reaped:
            return
        try:
            pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux, or a sandbox that forbids it
            flags = os.WEXITED | os.WNOWAIT
            await trio.to_thread.run_sync(os.waitid, os.P_PID, self.pid, flags, abandon_on_cancel=True)
            return
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to everything in the child's group; harmless when all of it has ended."""
        if not self.reaped:
            with suppress(ProcessLookupError, PermissionError):  # macOS says EPERM about a group of zombies
                os.killpg(self.pid, number)

    async def kill_and_reap(self) -> None:
        """
        End what is left of the family at once, reap the leader and close our pipes. Idempotent.

        Shielded, for a few seconds at most: a process stuck in the kernel is left to be reaped later.
        """
        if self._lifeline is not None and self._lifeline.fileno() >= 0:
            self.start_error()
            with suppress(OSError):  # nobody listens: there is no shim any more, or it does not watch
                self._lifeline.send(b"k")
                with farewell(_SHIM_WITHIN_S):
                    await self.wait_exited()
            self._lifeline.close()
        self.signal_group(signal.SIGKILL)
        for end in (self.stdin, self.stdout, self.stderr):
            end.close()
        with farewell(_REAP_WITHIN_S):
            await self.wait_exited()
            self._popen.wait()
            if self._mark is not None:
                await end_family(self._mark)
                self._mark = None
