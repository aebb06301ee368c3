"""
The admin listener: who it listens for and for how long.

Started by whoever serves the gateway, beside the engine, so that status can be asked while the gateway drains.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from ..model.document import Admin
from ..protocol.errors import ComponentError
from .address import Address, parse_address
from .guard import Guard

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from .app import Status
    from .endpoints import Gateway

NAME: Final = "run.admin"
"""What errors call the listener."""
STALL_MS: Final = 5000
"""How long sent bytes may stay unacknowledged before the kernel cuts the connection, in milliseconds."""


async def serve_admin(
    admin: Admin,
    status: Status,
    gateway: Gateway | None = None,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """
    Serve the admin endpoints until cancelled.

    Args:
        admin: Address and token.
        status: Returns the engine's status; asked for each request.
        gateway: Whose metrics, traces and components are shown; without it, status is all there is.
        task_status: Told the addresses, with the port the system chose, once connections are accepted.

    Raises:
        ComponentError: The address is not one, cannot be bound, or needs a token; or the token cannot be read.
    """
    from .app import admin_app
    from .endpoints import endpoints_of

    def make(guard: Guard) -> ASGIApp:
        return admin_app(guard, status, () if gateway is None else endpoints_of(gateway))

    await serve_app(admin, make, task_status=task_status)


async def serve_app(
    admin: Admin,
    make: Callable[[Guard], ASGIApp],
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """
    Serve an application of one's own at the admin address; see `serve_admin`.

    Args:
        admin: Address and token.
        make: Makes the application, which must let through only what the guard allows.
        task_status: Told the addresses.

    Raises:
        ComponentError: As for `serve_admin`.
    """
    from .connections import serve_connections

    guard = _guard(admin)
    async with _open_listeners(guard.address) as listeners:
        app = make(guard)
        await serve_connections(app, listeners, lambda: task_status.started([_name(each) for each in listeners]))


def _guard(admin: Admin) -> Guard:
    try:
        address = parse_address(admin.bind)
        token = None if admin.token is None else admin.token.resolve()
    except (ValueError, LookupError) as error:
        raise ComponentError(NAME, "open", str(error)) from error
    if token is None and address.path is None:
        raise ComponentError(NAME, "open", f"everybody on this machine can reach {address}; set run.admin.token")
    if token == "":
        raise ComponentError(NAME, "open", "the token is empty")
    return Guard(address, token)


@asynccontextmanager
async def _open_listeners(address: Address) -> AsyncIterator[list[trio.SocketListener]]:
    try:
        if address.path is not None:
            listeners = [_unix_listener(address.path)]
        else:
            listeners = await trio.open_tcp_listeners(address.port, host=address.host)
            for listener in listeners:
                listener.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALL_MS)
    except OSError as error:
        raise ComponentError(NAME, "open", f"{address} cannot be bound: {error}") from error
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.socket.close()
        if address.path is not None:
            address.path.unlink(missing_ok=True)


def _unix_listener(path: Path) -> trio.SocketListener:
    """Bind a socket that only this user may open, in the place of one that nobody listens on."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _alive(path):
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.listen()
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


def _name(listener: trio.SocketListener) -> str:
    name = listener.socket.getsockname()
    return str(Address(name[0], name[1]) if isinstance(name, tuple) else Address(path=Path(name)))
