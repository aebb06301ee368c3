"""
Connections of the admin listener: hypercorn's HTTP/1.1 with what it lacks (reliability, findings 1 and 2).

Every exception of a connection ends with that connection, there is no way up to HTTP/2, and the number of connections
is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import h11
import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, LifespanState
from starlette.types import ASGIApp

MAX_CONNECTIONS: Final = 64
"""Connections at the same time; further ones are closed at once."""


async def serve_connections(app: ASGIApp, listeners: list[trio.SocketListener], accepting: Callable[[], None]) -> None:
    """
    Serve an ASGI application over HTTP/1.1 until cancelled. The listeners stay the caller's.

    Args:
        app: Gets `http` and `websocket` scopes; there is no lifespan.
        listeners: Bound and listening.
        accepting: Called once connections are accepted.
    """
    config = Config()
    config.include_server_header = False
    context = WorkerContext(None)
    wrapped = ASGIWrapper(app)  # type: ignore[arg-type]  # starlette and hypercorn each type ASGI in their own words
    open_count = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal open_count
        if open_count >= MAX_CONNECTIONS:
            await stream.aclose()
            return
        open_count += 1
        try:
            await _Connection(wrapped, config, context, ConnectionState(LifespanState()), stream).run()  # type: ignore[arg-type]  # TCPServer takes plain streams, too
        except Exception:  # the boundary: whatever a connection brings about ends here
            structlog.get_logger().exception("admin connection failed")
        finally:
            open_count -= 1

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        accepting()


@final
class _Connection(TCPServer):
    async def run(self) -> None:
        """Serve one connection to its end."""
        try:
            async with TaskGroup() as tasks:
                self._task_group = tasks
                self.protocol = _Http1(  # type: ignore[assignment]  # has what TCPServer uses of a ProtocolWrapper
                    self.app,
                    self.config,
                    self.context,
                    tasks,
                    ConnectionState(self.state),
                    False,
                    None,
                    None,
                    self.protocol_send,
                )
                await self.protocol.initiate()
                await self.idle_task.restart(tasks, self._idle_timeout)
                await self._read_data()
        finally:
            await self._close()  # noqa: ASYNC102  # aclose closes the socket even when it is cancelled


@final
class _Http1(H11Protocol):
    async def _check_protocol(self, event: h11.Request) -> None:
        """Nothing is upgraded to HTTP/2: an `Upgrade: h2c` is ignored, and the preface is a bad method."""
