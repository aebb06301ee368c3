"""
The HTTP server of `sluiceway run`: hypercorn's parts under a serve loop of ours.

hypercorn 0.18 lets one unauthenticated connection end the whole process, cannot be told to leave HTTP/2 alone, and
waits for clients that read nothing. Here every exception of a connection is contained at that connection, only
HTTP/1.1 is spoken, and nothing a client does can hold up a shutdown.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from traceback import walk_tb
from typing import Any, Final, final

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.worker_context import WorkerContext

from .config import HttpConfig
from .connection import Connection
from .edge import MAX_HEAD
from .hosts import split_host

BACKLOG: Final = 1024
"""Connections the kernel holds for us while we are busy."""
_MAX_SITES: Final = 100
_QUIET: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
"""Clients leave; that is no event."""
_TOO_MANY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)


class _Terminated:
    """hypercorn's notion of an event, set without waiting."""

    def __init__(self) -> None:
        self._set = False

    def set_now(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set


@final
class HttpServer:
    """
    Listens, accepts, and keeps count. Bind before serving; close after.

    Args:
        application: ASGI 3, for scopes of type `http`.
        limits: The source's options.
        log: Structured logger.
    """

    def __init__(self, application: Callable[..., Awaitable[None]], limits: HttpConfig, log: Any) -> None:
        self.application: Any = application
        self.limits = limits
        self.context = WorkerContext(None)
        self._terminated = _Terminated()
        self.context.terminated = self._terminated  # type: ignore[assignment]  # what hypercorn uses of it
        self.hypercorn = _hypercorn_config(limits)
        self.addresses: tuple[str, ...] = ()
        """What it is bound to, as `host:port` or `unix:path`."""
        self.contained = 0
        """Exceptions of connections that were contained."""
        self.turned_away = 0
        """Connections beyond `max_connections`."""
        self._log = log
        self._sites: set[tuple[str, int, type]] = set()
        self._connections: set[Connection] = set()
        self._count = 0
        self._sockets: list[socket.socket] = []
        self._accepting = trio.CancelScope()

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return self._count

    def bind(self) -> None:
        """
        Open the listening sockets. From now on clients can connect; they wait until `serve`.

        Raises:
            OSError: An address is taken, or not ours.
        """
        try:
            for bind in self.limits.binds:
                self._sockets.append(_listen(bind, self.limits.stall_timeout))
        except BaseException:
            self.close()
            raise
        self.addresses = tuple(_address_of(each) for each in self._sockets)

    async def serve(self) -> None:
        """Accept until `stop_accepting`, serve until cancelled."""
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in self._sockets]
        async with trio.open_nursery() as connections:
            with self._accepting:
                if not listeners:
                    await trio.sleep_forever()  # drained before it began
                await trio.serve_listeners(self.handle, listeners, handler_nursery=connections)
            await trio.sleep_forever()

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection; every exception of it ends here."""
        if self._count >= self.limits.max_connections:
            self.turned_away += 1
            with suppress(*_QUIET):
                await stream.send_all(_TOO_MANY)
            await stream.aclose()
            return
        self._count += 1
        try:
            await Connection(self, stream).run()
        except* Exception as group:  # a boundary: one connection never ends another
            self.contain(group)
        finally:
            self._count -= 1

    def stop_accepting(self) -> None:
        """Close the listening sockets and idle connections; the others close after their current response."""
        self._terminated.set_now()
        self._accepting.cancel()
        self.close()
        for connection in list(self._connections):
            if connection.idle:
                connection.stop()

    def close(self) -> None:
        """Close the listening sockets. Idempotent."""
        for each in self._sockets:
            path = each.getsockname() if each.family == socket.AF_UNIX and each.fileno() >= 0 else None
            each.close()
            if path:
                with suppress(OSError):
                    Path(path).unlink()
        self._sockets.clear()

    # What connections report.

    def opened(self, connection: Connection) -> None:
        """It is served now."""
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """It is over."""
        self._connections.discard(connection)

    def contain(self, error: Exception) -> None:
        """Count an exception and log it, once per place it comes from, so that nobody can flood the log."""
        for leaf in _leaves(error):
            if isinstance(leaf, _QUIET):
                continue
            self.contained += 1
            site = _site_of(leaf)
            if site not in self._sites and len(self._sites) < _MAX_SITES:
                self._sites.add(site)
                self._log.error("a connection failed; logged once per place", exc_info=leaf)


def _hypercorn_config(limits: HttpConfig) -> HypercornConfig:
    config = HypercornConfig()
    config.h11_max_incomplete_size = MAX_HEAD
    config.keep_alive_max_requests = 10**9  # hypercorn would close a connection under its client's feet
    config.keep_alive_timeout = limits.idle_timeout
    config.include_server_header = False
    config.accesslog = config.errorlog = None
    return config


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


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _site_of(error: BaseException) -> tuple[str, int, type]:
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    file, line = frames[-1] if frames else ("", 0)
    return file, line, type(error)
