"""Listening sockets: opened as the configuration names them, closed without a trace."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, final

import trio

from sluiceway.pipeline.model.worker import Worker

from .fairness import FairListener
from .http_source.hosts import split_host

BACKLOG: Final = 1024
"""Connections the kernel holds for us while we are busy."""

SocketAccess = Literal["owner", "group", "all"]
"""Whose processes may connect to a Unix socket."""
_MODES: Final[dict[SocketAccess, int]] = {"owner": 0o600, "group": 0o660, "all": 0o666}


def check_binds(binds: Iterable[str]) -> None:
    """
    Check addresses to listen on, without opening anything.

    Raises:
        ValueError: There is none, or one is not `host:port`, `[ipv6]:port` or `unix:path`.
    """
    binds = tuple(binds)
    if not binds:
        raise ValueError("bind: name at least one address, such as 127.0.0.1:8080")
    for bind in binds:
        if not bind.startswith("unix:") and (split_host(bind) or ("", None))[1] is None:
            raise ValueError(f"bind: {bind!r} is not host:port, [ipv6]:port or unix:path")


@final
class Listening:
    """
    The listening sockets of one source.

    Args:
        binds: Addresses, as `check_binds` takes them.
        stall_timeout_s: Seconds a client may leave what was sent to it unread (TCP_USER_TIMEOUT, Linux only).
        access: Whose processes may connect to Unix sockets.
        worker: The place of this process among several, and `source`, the component id: then the sockets are those
            that the supervisor has bound, and connections are accepted in fairness to the other workers.
        source: See `worker`.
    """

    def __init__(
        self,
        binds: Iterable[str],
        stall_timeout_s: float,
        access: SocketAccess = "owner",
        worker: Worker | None = None,
        source: str = "",
    ) -> None:
        self._binds = tuple(binds)
        self._stall_timeout_s = stall_timeout_s
        self._access: SocketAccess = access
        self._worker = worker
        self._source = source
        self._sockets: list[socket.socket] = []
        self._files: dict[str, tuple[int, int]] = {}
        """Unix sockets that are ours: path -> device and inode."""
        self.addresses: tuple[str, ...] = ()
        """What they are bound to, as `host:port` or `unix:path`; stays after `close`."""

    def bind(self) -> None:
        """
        Open them. From now on clients can connect; they wait until somebody accepts.

        Raises:
            OSError: An address is taken, or not ours.
        """
        if self._worker is not None:
            self._sockets = self._worker.take_sockets(self._source)
            self.addresses = tuple(_address_of(each) for each in self._sockets)
            return
        try:
            for bind in self._binds:
                if bind.startswith("unix:"):
                    self._sockets.append(self._listen_unix(bind))
                else:
                    self._sockets.append(_listen(bind, self._stall_timeout_s))
        except BaseException:
            self.close()
            raise
        self.addresses = tuple(_address_of(each) for each in self._sockets)

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """Those that are open, for a supervisor that has them accepted from elsewhere."""
        return self._sockets

    def listeners(self) -> list[trio.abc.Listener[trio.SocketStream]]:
        """What to accept from; empty after `close`."""
        if self._worker is not None:
            return [FairListener(each, self._worker) for each in self._sockets]
        return [trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in self._sockets]

    def count(self, difference: int) -> None:
        """Note connections that were opened, or closed (negative), for the other workers if there are any."""
        if self._worker is not None:
            self._worker.count(difference)

    def close(self) -> None:
        """Close them. Idempotent."""
        for each in self._sockets:
            each.close()
        self._sockets.clear()
        for path, identity in self._files.items():
            with suppress(OSError):
                if _identity(path) == identity:  # else somebody has put another in its place
                    Path(path).unlink()
        self._files.clear()

    def _listen_unix(self, bind: str) -> socket.socket:
        path = bind.removeprefix("unix:")
        opened = socket.socket(socket.AF_UNIX)
        try:
            _remove_stale(path)
            opened.bind(path)
            self._files[path] = _identity(path)
            os.chmod(path, _MODES[self._access])  # nobody can connect before it listens
            opened.listen(BACKLOG)
        except OSError as error:
            opened.close()
            raise OSError(error.errno, f"cannot listen on {bind}: {error.strerror or error}") from error
        return opened


def _listen(bind: str, stall_timeout_s: float) -> socket.socket:
    host, port = split_host(bind) or ("", None)
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(stall_timeout_s * 1000))
        opened.bind((host, int(port or 0)))
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise OSError(error.errno, f"cannot listen on {bind}: {error.strerror}") from error
    return opened


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that is gone; one that still listens keeps its address, and a file its place."""
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
        except OSError:
            pass  # nothing there, or nothing of ours: binding will tell


def _address_of(opened: socket.socket) -> str:
    name = opened.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
