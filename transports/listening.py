"""Listening sockets: opened as the configuration names them, closed without a trace."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, final

import trio

from .http_source.hosts import split_host

BACKLOG: Final = 1024
"""Connections the kernel holds for us while we are busy."""


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
    """

    def __init__(self, binds: Iterable[str], stall_timeout_s: float) -> None:
        self._binds = tuple(binds)
        self._stall_timeout_s = stall_timeout_s
        self._sockets: list[socket.socket] = []
        self.addresses: tuple[str, ...] = ()
        """What they are bound to, as `host:port` or `unix:path`; stays after `close`."""

    def bind(self) -> None:
        """
        Open them. From now on clients can connect; they wait until somebody accepts.

        Raises:
            OSError: An address is taken, or not ours.
        """
        try:
            for bind in self._binds:
                self._sockets.append(_listen(bind, self._stall_timeout_s))
        except BaseException:
            self.close()
            raise
        self.addresses = tuple(_address_of(each) for each in self._sockets)

    def listeners(self) -> list[trio.SocketListener]:
        """What to accept from; empty after `close`."""
        return [trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in self._sockets]

    def close(self) -> None:
        """Close them. Idempotent."""
        for each in self._sockets:
            path = each.getsockname() if each.family == socket.AF_UNIX and each.fileno() >= 0 else None
            each.close()
            if path:
                with suppress(OSError):
                    Path(path).unlink()
        self._sockets.clear()


def _listen(bind: str, stall_timeout_s: float) -> socket.socket:
    unix = bind.startswith("unix:")
    host, port = ("", None) if unix else split_host(bind) or ("", None)
    family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family)
    try:
        if unix:
            _remove_stale(bind.removeprefix("unix:"))
            opened.bind(bind.removeprefix("unix:"))
        else:
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


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that is gone; one that still listens keeps its address."""
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
