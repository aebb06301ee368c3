"""
The last good answer to each request, in a store: what a fallback can give while nobody else answers.

Kept per authorization context (tenant, principal, scopes, roles) and canonical request, so nobody gets an answer that
was given to somebody else. The store bounds how many there are; each is gone after its time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import msgspec
from attrs import define

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.keys import authorization_of, continues, digest, request_of
from sluiceway.pipeline.model.store import Store
from sluiceway.pipeline.protocol.errors import ComponentError, GatewayError
from sluiceway.pipeline.protocol.messages import Result

_ALSO: Final = frozenset({"prompts/get", "completion/complete"})
"""Methods that only read, beside those that MCP calls cacheable. (A task's state is no use when it is old.)"""


class _Entry(msgspec.Struct, array_like=True):
    """How an answer is stored."""

    at: float
    """When it was given, in seconds since 1970."""
    result: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Entry).decode


@final
@define(eq=False)
class KeptAnswers:
    """Keeps and finds answers; a store that fails is as good as an empty one."""

    owner: str
    """Id of the stage: the beginning of its keys."""
    store: Store
    ttl_s: float
    """Seconds for which an answer is kept."""
    max_bytes: int
    """Longer answers are not kept."""
    now: Callable[[], float]
    """The date, in seconds since 1970."""
    reads: Callable[[Exchange], bool]
    """Whether a call of a tool only reads."""

    def suits(self, exchange: Exchange) -> bool:
        """Whether the answer to such a request is worth keeping: reads, and never one turn of a conversation."""
        request = exchange.request
        return (request.row.cacheable or request.method in _ALSO or self.reads(exchange)) and not continues(exchange)

    async def keep(self, exchange: Exchange, reply: Result) -> bool:
        """Keep a good answer; whether it was. Not one that asks something, is a tool's failure, or is too long."""
        try:
            raw = reply.raw
            if len(raw) > self.max_bytes or not _is_complete(reply, raw):
                return False
            await self.store.put(self._key(exchange), _encode(_Entry(self.now(), raw)), ttl_s=self.ttl_s)
        except (GatewayError, ComponentError):
            return False
        return True

    async def find(self, exchange: Exchange) -> tuple[Result, float] | None:
        """The last good answer to this request, and its age in seconds."""
        try:
            stored = await self.store.get(self._key(exchange))
            entry = None if stored is None else _decode(stored)
        except (GatewayError, ComponentError, msgspec.DecodeError):
            return None
        return None if entry is None else (Result(raw=entry.result), max(0.0, self.now() - entry.at))

    def _key(self, exchange: Exchange) -> str:
        return f"{self.owner}:{digest(authorization_of(exchange), request_of(exchange))}"


def _is_complete(reply: Result, raw: bytes) -> bool:
    """Whether it is a final, successful answer. Its body is decoded only if the bytes leave a doubt."""
    if b"resultType" in raw and reply.value.get("resultType", "complete") != "complete":
        return False
    return b"isError" not in raw or reply.value.get("isError") is not True
