"""
What components of a worker know of the others: `run.workers` serves one configuration with several processes.

The supervisor holds the listening sockets and every worker accepts from them, so a client meets any of them. A session
lives where it began: its id carries the mark of that worker, and whoever meets another worker's session passes it on.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import trio

if TYPE_CHECKING:
    from .component import Context

SEPARATOR: Final = "."
"""Stands in the id of a session between what is unguessable and the mark of its worker."""


class Binding(Protocol):
    """The listening sockets of one source, held by the supervisor on behalf of all workers."""

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """In the order of the source's addresses; empty before `bind` and after `close`."""
        ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """What they are bound to, as `host:port` or `unix:path`."""
        ...

    def bind(self) -> None:
        """Open them. Raises OSError: an address is taken, or not ours."""
        ...

    def close(self) -> None:
        """Close them. Idempotent."""
        ...


@runtime_checkable
class Shareable(Protocol):
    """A source class whose clients may meet any of several workers. Others need `workers: 1`."""

    def binding(self, config: Any) -> Binding:
        """The sockets of a source with these options, not open yet. A class method; must not do any I/O."""
        ...


@runtime_checkable
class Relayed(Protocol):
    """A source that serves what clients of its own said to another worker."""

    def take(self, stream: trio.SocketStream) -> None:
        """Serve a connection that another worker has made with `Worker.reach`. Closes it. Never blocks."""
        ...

    def adopt(self, client: socket.socket) -> None:
        """Serve a client that another worker had, between two of its requests. Closes it. Never blocks."""
        ...


class Worker(Protocol):
    """One of several processes, as its own components see it."""

    @property
    def mark(self) -> str:
        """Names this process among all that the supervisor ever starts."""
        ...

    @property
    def is_announced(self) -> bool:
        """Whether all workers have been ready once: before that, the gateway is not."""
        ...

    def key(self, purpose: str) -> str:
        """What all workers of this run know and nobody else; another one for each purpose."""
        ...

    def take_sockets(self, source: str) -> list[socket.socket]:
        """The listening sockets of a source, by component id; the caller closes them. None are left afterwards."""
        ...

    def count(self, difference: int) -> None:
        """Note connections that were opened, or closed (negative)."""
        ...

    def lead(self) -> int:
        """How many connections more it has than the worker that accepts and has fewest: let that one accept."""
        ...

    async def reach(self, mark: str, source: str) -> trio.SocketStream:
        """
        A connection to the same source in another worker. The caller closes it.

        It is at its end at once if there is no such worker any more.
        """
        ...

    async def move(self, mark: str, source: str, client: int) -> None:
        """Give a client's connection, a descriptor that stays the caller's, to the same source in another worker."""
        ...


def marked(session_id: str, worker: Worker | None) -> str:
    """The id of a session that lives in this worker; as it is where there is only one process."""
    return session_id if worker is None else f"{session_id}{SEPARATOR}{worker.mark}"


def elsewhere(session_id: str, worker: Worker | None) -> str | None:
    """The mark of another worker in a session id; None if there is none, or it is ours."""
    mark = session_id.rpartition(SEPARATOR)[2] if SEPARATOR in session_id else ""
    return None if worker is None or not mark or mark == worker.mark else mark


def key_of_run(context: Context) -> str:
    """A key that lasts as long as the gateway runs, for what clients must bring back; each worker has the same."""
    worker = context.worker
    return context.new_id() + context.new_id() if worker is None else worker.key(context.id)
