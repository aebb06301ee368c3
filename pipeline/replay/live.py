"""
Send what clients sent, as a tape has it, to a gateway that runs, and compare what it answers.

Requests and notifications are sent at their times, or faster, and cancelled when they were. Handshakes are made anew:
a legacy session of the tape is a session of its own. Who listens does so until it ended on the tape, or the tape ends;
what is heard is not compared: it comes of the world outside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Final, final

import msgspec
import trio
from attrs import define, field, frozen

from ..client.client import McpClient
from ..client.errors import HttpStatus, McpError
from ..protocol.errors import GatewayError
from ..protocol.mcp import Era
from ..protocol.messages import ErrorReply, Json, Notification, Reply, Request
from ..runtime.nursery import unwrap_single
from .comparing import MAX_KEPT, Changed
from .entries import Begun, CancelAsked, Ended, Entry, ReplyData, SessionClosed
from .masking import Masking
from .matching import Ignoring, Place, differences
from .reading import Tape
from .tokens import PLACES, Tokens
from .values import Render, message_of

MAX_SESSIONS: Final = 1000
"""Legacy sessions at the same time; further ones share the last one's."""
MAX_LISTENERS: Final = 1000
"""Listeners at the same time; further ones are left out."""
MAX_WAITING: Final = 100_000
"""Replies of the tape or of the gateway whose counterpart is still to come."""

OpenClient = Callable[[Era], AbstractAsyncContextManager[McpClient]]
"""Opens a connection to the gateway."""

_HANDSHAKE: Final = frozenset({"initialize", "notifications/initialized", "notifications/cancelled", "server/discover"})
_FAILURES: Final = (GatewayError, HttpStatus, McpError)


@final
@frozen(kw_only=True)
class Resent:
    """What a gateway answered."""

    sent: int
    """Requests and notifications."""
    answered: int
    listened: int
    """Listeners that were sent, too."""
    failed: int
    """Requests that nobody answered: it could not be reached, or does not speak MCP."""
    compared: int
    count: int
    """Answers that are different."""
    changed: list[Changed]
    """The first `MAX_KEPT` of them."""
    took_s: float


@define(eq=False)
class _Connection:
    """A client of the gateway, in a task of its own."""

    client: McpClient
    closing: trio.Event = field(factory=trio.Event)


@final
class Resender:
    """
    Args:
        open_client: Connects.
        speed: How many seconds of the tape pass in one; 0 for as fast as it goes.
        max_in_flight: Requests under way at the same time. While there are so many, nothing more is sent.
        ignored: Globs of paths that are not compared, such as `reply.result.content.*`.
    """

    def __init__(
        self, open_client: OpenClient, speed: float, max_in_flight: int, ignored: Collection[str] = ()
    ) -> None:
        self._open = open_client
        self._speed = speed
        self._places = trio.Semaphore(max_in_flight)
        self._ignoring = Ignoring((*ignored, *PLACES, "reply.error.data.incident"))
        self._render = Render(Masking(b"live"))
        self._connections: dict[int, _Connection] = {}
        """By number of their session; 0 for clients without one."""
        self._scopes: dict[int, trio.CancelScope] = {}
        self._listeners: dict[int, trio.CancelScope] = {}
        self._tokens = Tokens()
        self._sent_as: dict[int, Begun] = {}
        """What was sent, and is not compared yet."""
        self._then: dict[int, ReplyData | None] = {}
        self._now: dict[int, ReplyData] = {}
        self._sent = self._answered = self._listened = self._failed = self._compared = self._count = 0
        self._changed: list[Changed] = []

    async def run(self, tape: Tape) -> Resent:
        """
        Send all of a tape, and wait for the answers.

        Raises:
            GatewayError: The gateway cannot be reached.
            HttpStatus: It does not speak MCP.
        """
        began, zero = time.monotonic(), trio.current_time()
        with unwrap_single():
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as nursery:
                    for entry in tape.entries():
                        if self._speed and self._is_due(entry):
                            await trio.sleep_until(zero + entry.t / self._speed)
                        await self._deliver(entry, nursery, connections)
                for scope in self._listeners.values():
                    scope.cancel()
                for connection in self._connections.values():
                    connection.closing.set()
        changed = sorted(self._changed, key=lambda each: each.number)
        return Resent(
            sent=self._sent, answered=self._answered, listened=self._listened, failed=self._failed,
            compared=self._compared, count=self._count, changed=changed, took_s=time.monotonic() - began,
        )  # fmt: skip

    def _is_due(self, entry: Entry) -> bool:
        """Whether a client does something, at its time."""
        if isinstance(entry, Ended):
            return entry.exchange in self._listeners
        return isinstance(entry, Begun | CancelAsked | SessionClosed)

    async def _deliver(self, entry: Entry, nursery: trio.Nursery, connections: trio.Nursery) -> None:
        match entry:
            case Begun(kind="listen"):
                if entry.source and len(self._listeners) < MAX_LISTENERS:
                    await self._listen(entry, connections)
            case Begun() if entry.source and entry.message.method not in _HANDSHAKE:
                await self._begin(entry, nursery, connections)
            case CancelAsked():
                scope = self._scopes.get(entry.exchange) or self._listeners.get(entry.exchange)
                if scope is not None:
                    scope.cancel()
            case Ended() if entry.exchange in self._listeners:
                self._listeners[entry.exchange].cancel()
            case Ended() if entry.exchange in self._sent_as:
                self._tokens.gave(entry.exchange, entry.reply)
                self._settle(entry.exchange, then=entry.reply)
            case SessionClosed():
                connection = self._connections.pop(entry.session, None)
                if connection is not None:
                    connection.closing.set()

    async def _begin(self, entry: Begun, nursery: trio.Nursery, connections: trio.Nursery) -> None:
        client = await self._client(entry, connections)
        message, self._sent = message_of(self._tokens.brought(entry.message)), self._sent + 1
        if isinstance(message, Notification):
            try:
                await client.notify(message.method, message.params)
            except _FAILURES:
                self._failed += 1
            return
        await self._places.acquire()
        if len(self._sent_as) < MAX_WAITING:
            self._sent_as[entry.exchange] = entry
        scope = self._scopes[entry.exchange] = trio.CancelScope()
        nursery.start_soon(self._call, client, message, entry, scope)

    async def _listen(self, entry: Begun, connections: trio.Nursery) -> None:
        client, message = await self._client(entry, connections), message_of(entry.message)
        scope = self._listeners[entry.exchange] = trio.CancelScope()
        self._sent, self._listened = self._sent + 1, self._listened + 1
        connections.start_soon(self._hear, client, message, entry.exchange, scope)

    async def _hear(
        self, client: McpClient, request: Request | Notification, exchange: int, scope: trio.CancelScope
    ) -> None:
        try:
            with scope:
                await client.exchange(request.method, request.params, _drop)
        except _FAILURES:
            self._failed += 1
        finally:
            del self._listeners[exchange]

    async def _call(self, client: McpClient, request: Request, entry: Begun, scope: trio.CancelScope) -> None:
        reply: Reply | None = None
        try:
            with scope:
                reply = await client.exchange(request.method, request.params, _drop)
        except _FAILURES as error:
            reply = ErrorReply(0, f"{type(error).__name__}: {error}")
            self._failed += 1
        else:
            self._answered += reply is not None
            self._tokens.gives(entry.exchange, reply)
        finally:
            del self._scopes[entry.exchange]
            self._places.release()
        if reply is None:
            self._sent_as.pop(entry.exchange, None)
        elif entry.exchange in self._sent_as:
            self._settle(entry.exchange, now=self._render.reply(reply, request.method))

    async def _client(self, entry: Begun, connections: trio.Nursery) -> McpClient:
        """The connection of a session of the tape."""
        number = 0 if entry.client is None else entry.client.session or 0
        connection = self._connections.get(number)
        if connection is None and len(self._connections) >= MAX_SESSIONS:
            connection = next(reversed(self._connections.values()))
        if connection is None:
            era = Era.LEGACY if number or (entry.client and entry.client.era == Era.LEGACY) else Era.MODERN
            connection = self._connections[number] = await connections.start(self._hold, era)
        return connection.client

    async def _hold(self, era: Era, task_status: trio.TaskStatus[_Connection]) -> None:
        async with self._open(era) as client:
            connection = _Connection(client)
            task_status.started(connection)
            await connection.closing.wait()

    def _settle(self, exchange: int, *, then: ReplyData | None = None, now: ReplyData | None = None) -> None:
        """Compare, once both are known."""
        if now is None:
            self._then[exchange] = then
        else:
            self._now[exchange] = now
        if exchange not in self._then or exchange not in self._now:
            return
        begun, before, after = self._sent_as.pop(exchange), self._then.pop(exchange), self._now.pop(exchange)
        self._compared += 1
        places = tuple(differences(_plain(before), _plain(after), "reply", self._ignoring))
        if places:
            self._count += 1
            if len(self._changed) < MAX_KEPT:
                self._changed.append(_changed(begun, places))


async def _drop(_message: Notification | Request) -> None:
    """What comes before a reply is not compared."""
    await trio.lowlevel.checkpoint()


def _plain(value: ReplyData | None) -> Json:
    plain: Json = msgspec.to_builtins(value)
    return plain


def _changed(begun: Begun, places: tuple[Place, ...]) -> Changed:
    name = begun.message.params.get("name") or begun.message.params.get("uri") or ""
    return Changed(begun.exchange, begun.t, f"{begun.message.method} {name}".rstrip(), "", places)
