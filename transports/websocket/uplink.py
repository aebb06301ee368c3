"""
One connection to an upstream, from the dial to the end, and what its end means.

It takes exchanges at once: what they say waits in the outbox until the WebSocket is open, and fails as not connected if
it never opens. So callers that come together share one dial, and one who leaves takes its words back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.origin import Origin
from sluiceway.pipeline.protocol.codec import decode_upstream
from sluiceway.pipeline.protocol.errors import ConnectFailed, GatewayError, UpstreamClosed, UpstreamFault
from sluiceway.pipeline.protocol.gate import Limits
from sluiceway.pipeline.protocol.messages import Message
from sluiceway.pipeline.runtime.nursery import unwrap_single

from ..http_client.connect import AddressRefused, DialFailed
from ..http_client.connection import Transport
from ..http_upstream.oauth import TokenSource
from ..lines import until_idle
from ..multiplex import Multiplexer
from ..outbox import Outbox
from .handshake import SUBPROTOCOL
from .wire import GOING_AWAY, Gone, Refused, Wire, WireLimits, connect

_NORMAL: Final = 1000
_POLITE: Final = (_NORMAL, GOING_AWAY)
"""Close codes of a server that is well."""
_UNAUTHORIZED: Final = 401
_LAST_WORDS_S: Final = 1.0
"""How long an upstream may take to read what was still to be said, cancel notices most of all."""


class _NoToken(Exception):
    """The authorization server gives no token; the text says why."""


@final
@frozen(kw_only=True)
class Target:
    """Where an upstream is, and how to ask it for a WebSocket."""

    name: str
    """What it is called in errors: the sink's id."""
    origin: Origin
    dial: Callable[[], Awaitable[Transport]]
    headers: tuple[tuple[str, str], ...]
    tokens: TokenSource | None
    """Where the bearer token comes from; None for none."""
    timeout_s: float
    """For the handshake; the dial has its own."""
    limits: WireLimits


@final
class Uplink:
    """
    A connection and the exchanges on it.

    Args:
        target: Where it goes.
        connection: What the upstream says goes there.
        outbox: What the connection says to it comes from there.
        idle_s: Seconds without a request after which it is closed; None for never.
        on_loss: Told at once when it ends though nobody had asked for that. Must not block.
        log: A structured logger.
    """

    def __init__(
        self,
        target: Target,
        connection: Multiplexer,
        outbox: Outbox,
        *,
        idle_s: float | None,
        on_loss: Callable[[Uplink], None],
        log: Any,
    ) -> None:
        self.connection = connection
        self.started_at = trio.current_time()
        """Trio clock seconds."""
        self.proven = False
        """It has answered a request."""
        self.ended = trio.Event()
        """Nothing of it is left."""
        self._target = target
        self._outbox = outbox
        self._idle_s = idle_s
        self._on_loss = on_loss
        self._log = log
        self._codec = Limits(max_message_size=target.limits.max_message)
        self._is_open = False
        self._is_ending = False
        self._asked_to_end = False
        self._why = "was left by the gateway"
        self._event = ""
        self._dialling = trio.CancelScope()
        self._transport: Transport | None = None
        self._reading = trio.CancelScope()

    @property
    def is_ending(self) -> bool:
        """It takes no more exchanges."""
        return self._is_ending

    @property
    def end_text(self) -> str:
        """How it ended; follows the words `the server`."""
        return self._why

    def stop(self) -> None:
        """End it politely, in its own task. Idempotent."""
        if not self._is_ending:
            self._is_ending = self._asked_to_end = True
            self._outbox.close()
            self._dialling.cancel()
            if self._transport is not None and not self._is_open:
                self._transport.close()  # which ends the handshake
            self._reading.deadline = trio.current_time() + _LAST_WORDS_S

    async def run(self) -> None:
        """Serve until the connection is over. Nothing of it is left afterwards."""
        try:
            with unwrap_single():
                await self._live()
        except DialFailed as error:
            self._event = "address_refused" if isinstance(error, AddressRefused) else ""
            self._end(f"cannot be reached: {error}")
        except _NoToken as error:
            self._end(f"cannot be asked: {error}")
        except Refused as error:
            self._end(f"opens no WebSocket: {error}")
        finally:
            self._is_ending = True
            self._outbox.close()
            self.connection.close(self._last_words)
            self._log.info("connection ended", why=self._why, unclaimed=self.connection.unclaimed)
            self.ended.set()

    async def _live(self) -> None:
        token = await self._token()
        try:
            await self._talk(token)
        except Refused as refused:
            if refused.status != _UNAUTHORIZED or self._target.tokens is None or token is None:
                raise
            self._target.tokens.refused(token)
        else:
            return
        await self._talk(await self._token())  # nothing was said yet, so it may be said with another token

    def _step(self) -> trio.CancelScope:
        """For one step of the way to an open WebSocket; over at once when it was asked to end."""
        self._dialling = trio.CancelScope()
        if self._asked_to_end:
            self._dialling.cancel()
        return self._dialling

    async def _token(self) -> str | None:
        if self._target.tokens is None:
            return None
        token = None
        with self._step():
            try:
                token = await self._target.tokens.token()
            except GatewayError as error:
                raise _NoToken(error.message) from error
        return token

    async def _talk(self, token: str | None) -> None:
        target, self._transport = self._target, None
        with self._step():
            self._transport = await target.dial()
        if self._transport is None:
            return
        credential = () if token is None else (("authorization", f"Bearer {token}"),)
        async with connect(
            self._transport, target.origin.authority, target.origin.path, subprotocols=(SUBPROTOCOL,),
            headers=(*target.headers, *credential), limits=target.limits, timeout_s=target.timeout_s,
        ) as wire:  # fmt: skip
            self._is_open = True
            self.started_at = trio.current_time()
            self._log.info("connection opened", subprotocol=wire.subprotocol)
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._write, wire)
                if self._idle_s is not None:
                    tasks.start_soon(self._stop_when_idle, self._idle_s)
                with self._reading:
                    await self._read(wire)
                if self._asked_to_end:
                    await wire.close(_NORMAL)
                tasks.cancel_scope.cancel()

    async def _read(self, wire: Wire) -> None:
        while True:
            try:
                data = await wire.receive()
            except Gone as gone:
                polite = gone.code in _POLITE and not self.connection.in_flight and self.proven
                self._end(f"closed the connection: {gone}", counts=not polite)
                return
            self.connection.receive(self._decoded(data))

    def _decoded(self, data: bytes) -> Message | GatewayError:
        try:
            return decode_upstream(data, self._codec)
        except GatewayError as error:
            return error

    async def _write(self, wire: Wire) -> None:
        try:
            await self._outbox.run_each(wire.send)
            self._reading.cancel()
        except Gone:
            self._outbox.close()  # whoever reads sees it too

    async def _stop_when_idle(self, idle_s: float) -> None:
        await until_idle(self, idle_s)
        self._log.info("connection closed: nobody used it", idle_s=idle_s)
        self.stop()

    def _end(self, why: str, *, counts: bool = True) -> None:
        """It ended by itself, or never began."""
        if not self._is_ending:
            self._is_ending = True
            self._why = why
            if counts:
                self._on_loss(self)

    def _last_words(self) -> UpstreamFault:
        if not self._is_open:
            failed = ConnectFailed(f"{self._target.name}: the server {self._why}")
            failed.event = self._event
            return failed
        return UpstreamClosed(f"{self._target.name}: the server {self._why}; it had not answered")
