"""
Whether the server behind a `stdio` sink speaks revisions without a handshake (2026-07-28, basic/versioning, detection).

A legacy server may well answer a request that came without a handshake, in a shape that no modern client understands.
So before the first modern request it is asked what it speaks; what is known then holds for every child of the sink.
"""

from __future__ import annotations

from typing import Final, Literal, final

import trio
from msgspec.structs import replace

from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.options import MINUTE
from sluiceway.pipeline.protocol.errors import UnsupportedVersion
from sluiceway.pipeline.protocol.mcp import LEGACY_VERSIONS, MODERN_VERSIONS, Kind, MetaKey, meta_of
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request

from .eras.detection import speaks_modern

DISCOVER: Final = "server/discover"
SILENCE_S: Final = 20.0
"""Time a server has to say what it speaks; one that is silent may still be starting, and is refused for this once."""
_REMEMBER_S: Final = 5 * MINUTE
"""How long a server counts as legacy only; then it is asked again, for it may have been upgraded."""
_OK: Final = 200


@final
class StdioEra:
    """
    Args:
        name: What the upstream is called in errors: the sink's id.
        era: What it speaks; `auto` to find out.
    """

    def __init__(self, name: str, era: Literal["auto", "legacy", "modern"]) -> None:
        self._name = name
        self.is_modern = era == "modern"
        """Whether the server is known to speak revisions without a handshake."""
        self._modern_only = era == "modern"
        self._legacy_until = float("inf" if era == "legacy" else "-inf")
        self._asking = trio.Lock()

    @property
    def is_legacy(self) -> bool:
        """Whether the server is known to speak legacy revisions only."""
        return self._legacy_until > 0 and trio.current_time() < self._legacy_until

    def check(self, exchange: Exchange) -> None:
        """
        Refuse a modern client where the server is known to speak legacy revisions only.

        Raises:
            UnsupportedVersion: It is.
        """
        if self.is_legacy:
            raise self._legacy_only(exchange)

    def check_handshake(self, exchange: Exchange) -> None:
        """
        Refuse a handshake where the configuration says that the server knows none.

        Raises:
            UnsupportedVersion: So it is.
        """
        if self._modern_only:
            raise UnsupportedVersion(
                f"{self._name}: serves revisions without a handshake only",
                data={"supported": list(MODERN_VERSIONS), "requested": exchange.request.params.get("protocolVersion")},
            )

    async def call(self, exchange: Exchange, call: Service) -> Reply:
        """
        Pass a modern client's request on, once it is known that it will be understood.

        Args:
            exchange: The request.
            call: Asks the server.

        Raises:
            UnsupportedVersion: The server speaks legacy revisions only, or does not say what it speaks.
            GatewayError: As `call` does.
        """
        if not self.is_modern:
            if exchange.method == DISCOVER:
                return self._judged(exchange, await call(exchange))
            await self._find_out(exchange, call)
        return await call(exchange)

    async def _find_out(self, exchange: Exchange, call: Service) -> None:
        async with self._asking:
            if self.is_modern:
                return
            self.check(exchange)
            with trio.move_on_after(SILENCE_S):
                self._judged(exchange, await call(_question(exchange)))
                return
        raise self._legacy_only(exchange)

    def _judged(self, exchange: Exchange, reply: Reply) -> Reply:
        """The reply to `server/discover`, and what it tells."""
        if not speaks_modern(_OK, reply):
            self._legacy_until = trio.current_time() + _REMEMBER_S
            raise self._legacy_only(exchange)
        self.is_modern = True
        return reply

    def _legacy_only(self, exchange: Exchange) -> UnsupportedVersion:
        return UnsupportedVersion(
            f"{self._name}: the upstream speaks revisions with a handshake only; initialize a session",
            data={"supported": list(LEGACY_VERSIONS), "requested": exchange.client.version},
        )


def _question(exchange: Exchange) -> Exchange:
    """`server/discover` in the client's name: what it may do is for the server to know."""

    async def drop(_exchange: Exchange, _notification: Notification) -> None:
        await trio.lowlevel.checkpoint()

    wanted = (MetaKey.VERSION, MetaKey.CLIENT_CAPABILITIES, MetaKey.CLIENT_INFO)
    meta = meta_of(exchange.request.params)
    params = {"_meta": {key.value: meta[key] for key in wanted if key in meta}}
    return replace(exchange, request=Request("discover", DISCOVER, params), kind=Kind.CALL, marks={}, way_back=drop)
