"""
Any client at any upstream: what the two have in common is used as it is, and only else something is translated.

A sink tells by `UnsupportedVersion` that its upstream does not speak the client's kind of revision, and remembers it
for a while. Stages see nothing of this: what they get is of the client's era, whatever the upstream's is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, final

import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import MINUTE
from sluiceway.pipeline.protocol.errors import UnsupportedVersion
from sluiceway.pipeline.protocol.mcp import LEGACY_VERSIONS, MODERN_VERSIONS, Era, ErrorCode
from sluiceway.pipeline.protocol.messages import EMPTY, ErrorReply, Json, Notification, Reply, Result
from sluiceway.pipeline.runtime.nursery import open_background_nursery

from .config import TranslationConfig
from .to_legacy import ToLegacy
from .to_modern import ToModern

_REMEMBER_S: Final = 5 * MINUTE
"""How long an upstream counts as one of a single era; then it is asked again, for it may have been upgraded."""
_KNOWS_NO_HANDSHAKES: Final = frozenset(
    {ErrorCode.METHOD_NOT_FOUND, ErrorCode.HEADER_MISMATCH, ErrorCode.UNSUPPORTED_PROTOCOL_VERSION}
)
"""Answers to `initialize` of an upstream of the modern era alone (2026-07-28, basic/versioning)."""


@final
class Translator:
    """
    Args:
        call: The sink's own way to the upstream, which serves a client only if the upstream has the client's era.
        context: The sink's.
        translate: Whether anything is translated at all.
        config: Bounds of what is held for modern clients.
        addressed: See `ToLegacy`.
    """

    def __init__(
        self,
        call: Callable[[Exchange], Coroutine[Any, Any, Reply]],
        context: Context,
        *,
        translate: bool,
        config: TranslationConfig,
        addressed: bool = False,
    ) -> None:
        self._call = call
        self._name = context.id
        self._log = context.log
        self._translate = translate
        self._to_modern = ToModern(context.id, call, context)
        self._to_legacy = ToLegacy(context.id, call, context, config, addressed=addressed)
        self._only: Era | None = None
        self._until = float("-inf")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Host what is held and heard in the background, while the sink's own way to the upstream is open."""
        async with open_background_nursery() as nursery:
            self._to_modern.start(nursery)
            self._to_legacy.start(nursery)
            try:
                yield
            finally:
                self._to_modern.end()
                self._to_legacy.end()

    def __call__(self, exchange: Exchange) -> Coroutine[Any, Any, Reply]:
        """
        When awaited, ask the upstream in the client's era if it has that, and in the other one if not. Raises as the
        sink does.

        Raises:
            UnsupportedVersion: Nothing is to be translated, or the upstream speaks nothing that we speak.
        """
        if not self._translate:
            return self._call(exchange)
        if exchange.client.era is Era.MODERN:
            return self._serve_modern(exchange)
        session = exchange.client.session
        if session is not None and self._to_modern.knows(session):
            exchange.decide(self._name, "translate", "legacy to modern")
            return self._to_modern(exchange)
        if session is not None and exchange.method == "initialize":
            return self._shake_hands(exchange)
        return self._call(exchange)

    def tell(self, notification: Notification) -> None:
        """Tell clients whose sessions end here of a change that the upstream cannot tell of itself. Never blocks."""
        self._to_modern.tell(notification)

    def figures(self) -> Iterator[Figure]:
        """What is translated."""
        if self._translate:
            yield from self._to_modern.figures()
            yield from self._to_legacy.figures()

    def details(self) -> Mapping[str, Json]:
        """For `status`: the only era of the upstream, if it has only one, and what is held for clients of the other."""
        if self._only is None:
            return EMPTY
        return {"upstream_era": self._only.value, **self._to_modern.details(), **self._to_legacy.details()}

    async def _serve_modern(self, exchange: Exchange) -> Reply:
        """A modern client's request."""
        if not self._speaks_only(Era.LEGACY):
            try:
                return await self._call(exchange)
            except UnsupportedVersion as error:
                if not _offers(error, LEGACY_VERSIONS):
                    raise
            self._remember(Era.LEGACY)
        exchange.hold()  # members of the other era are added to the result
        exchange.decide(self._name, "translate", "modern to legacy")
        try:
            return await self._to_legacy(exchange)
        except UnsupportedVersion:
            self._only = None
            raise

    async def _shake_hands(self, exchange: Exchange) -> Reply:
        """A legacy client's handshake: the upstream's own, if it has one."""
        refusal: ErrorReply | None = None
        if not self._speaks_only(Era.MODERN):
            try:
                reply = await self._call(exchange)
            except UnsupportedVersion as error:
                if not _offers(error, MODERN_VERSIONS):
                    raise
            else:
                if isinstance(reply, Result):
                    return reply
                refusal = None if reply.code in _KNOWS_NO_HANDSHAKES else reply
        try:
            reply = await self._to_modern.introduce(exchange, refusal)
        except UnsupportedVersion:
            self._only = None
            raise
        if isinstance(reply, Result):
            self._remember(Era.MODERN)
        return reply

    def _speaks_only(self, era: Era) -> bool:
        """Whether the upstream was found to be of one era alone, not long ago."""
        return self._only is era and trio.current_time() < self._until

    def _remember(self, era: Era) -> None:
        if self._only is not era:
            self._log.info("clients of the other era are translated for", upstream=era.value)
        self._only, self._until = era, trio.current_time() + _REMEMBER_S


def _offers(error: UnsupportedVersion, versions: Sequence[str]) -> bool:
    """Whether an upstream that does not speak a client's revision speaks one of these."""
    supported = error.data.get("supported")
    return isinstance(supported, list) and any(version in supported for version in versions)
