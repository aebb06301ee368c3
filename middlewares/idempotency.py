"""
Idempotency keys: a client that does not know whether its call arrived sends it again, and it still happens once.

The record of a key goes one way: nothing -> `started` -> `done`, with the outcome. `started` is written before the
upstream hears of the call, by compare and swap, so of all gateways that share the store one makes the call. If that
one is lost (its client left, the process died), the call may have run or not: the record says `unknown`, or its lease
is over, and whoever repeats is told so. It is never run a second time on a guess.
"""

from __future__ import annotations

import math
from typing import Final, Literal, final

import msgspec
import trio
from attrs import frozen

from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.store import Store
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    GatewayError,
    InvalidParams,
    OutcomeUnknown,
    SluicewayError,
)
from sluiceway.pipeline.protocol.mcp import MetaKey
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Reply, Result, encode_json
from sluiceway.pipeline.runtime.nursery import farewell

HEADER: Final = "idempotency-key"
"""The header (draft-ietf-httpapi-idempotency-key-header)."""
MEMBER: Final = MetaKey.IDEMPOTENCY_KEY.value
"""The member of `_meta` that says the same."""
MAX_KEY: Final = 255
"""Characters of a key."""
_POLL_S: Final = 0.05
_LEASE_MARGIN_S: Final = 1.0
_FAREWELL_S: Final = 1.0


@final
class KeyReused(InvalidParams):
    """The key belongs to another request of the same principal."""

    http_status = 409


def key_of(exchange: Exchange) -> str | None:
    """
    The idempotency key a client sent, or None.

    Raises:
        InvalidParams: It is empty, too long, no text, or header and `_meta` do not say the same.
    """
    named = exchange.request.meta.get(MEMBER)
    sent = exchange.client.headers.get(HEADER)
    if named is None and sent is None:
        return None
    key = named if named is not None else sent
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY:
        raise InvalidParams(f"an idempotency key is a text of 1 to {MAX_KEY} characters; use a random one")
    if sent is not None and sent != key:
        raise InvalidParams(f"the header {HEADER} and {MetaKey.IDEMPOTENCY_KEY} in _meta differ; send one of them")
    return key


def unknown() -> OutcomeUnknown:
    """What whoever repeats a call is told when nobody knows what became of it."""
    return OutcomeUnknown(
        "the first request with this idempotency key ended before its answer came, and may have run; find out, then "
        "use another key"
    )


@final
@frozen
class _Record:
    """What is known of a key."""

    state: Literal["started", "done", "unknown"]
    content: str
    """Digest of the request the key belongs to."""
    reply: str | None = None
    """The outcome's `result` as JSON text, if it is one and was small enough."""
    error: dict[str, Json] | None = None
    """The outcome's `error`."""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Record).decode


@final
class Outcomes:
    """
    The records of one stage.

    Args:
        store: Where they are.
        leases: Where it stands who is making a call; the same one, if others share it.
        prefix: Of its keys.
        ttl_s: Seconds an outcome is kept.
        max_outcome: Bytes of the largest outcome that is kept; of a larger one only that it was.
    """

    def __init__(self, store: Store, leases: Store, prefix: str, ttl_s: float, max_outcome: int) -> None:
        self._store = store
        self._leases = leases
        self._prefix = prefix
        self._ttl_s = ttl_s
        self._max_outcome = max_outcome
        self.replayed = 0
        """Outcomes given again."""

    async def run(self, stage: str, name: str, content: str, exchange: Exchange, call_next: Service) -> Reply:
        """
        The outcome of a key: a stored one, or that of the call, made now.

        Args:
            stage: Id of the stage, for the decision.
            name: Digest of principal and key.
            content: Digest of the request.
            exchange: Its exchange.
            call_next: Makes the call.

        Raises:
            KeyReused: The key belongs to a request with other content.
            OutcomeUnknown: Somebody made the call, and nobody knows what became of it.
            CapacityExceeded: The store does not work; nothing was sent.
        """
        key = self._prefix + name
        try:
            record = await self._claim(key, content, exchange)
        except GatewayError:
            raise
        except (SluicewayError, OSError, msgspec.DecodeError) as error:
            raise CapacityExceeded(
                "idempotency keys cannot be recorded at the moment, so the call was not made; try again",
                retry_after_s=1.0,
            ) from error
        if record is None:
            exchange.decide(stage, "lead", "idempotency key")
            return await self._make(key, content, exchange, call_next)
        exchange.decide(stage, "hit", f"idempotency key {record.state}")
        self.replayed += 1
        return _outcome(record)

    async def _claim(self, key: str, content: str, exchange: Exchange) -> _Record | None:
        """Become the one who makes the call (None), or wait until somebody else has."""
        started = _encode(_Record("started", content))
        while True:
            held = await self._store.get(key)
            if held is None:
                await self._leases.put(key + ":lease", b"", ttl_s=self._lease_s(exchange))
                if await self._store.swap(key, None, started, ttl_s=self._ttl_s):
                    return None
                continue
            record = _decode(held)
            if record.content != content:
                raise KeyReused(
                    "this idempotency key belongs to another request; use a key of its own for each request"
                )
            if record.state != "started" or await self._leases.get(key + ":lease") is None:
                return record
            await trio.sleep(_POLL_S)

    def _lease_s(self, exchange: Exchange) -> float:
        left = exchange.deadline - trio.current_time() + _LEASE_MARGIN_S
        return self._ttl_s if math.isinf(left) else max(_LEASE_MARGIN_S, min(left, self._ttl_s))

    async def _make(self, key: str, content: str, exchange: Exchange, call_next: Service) -> Reply:
        """Make the call and write down what came of it, whatever that is."""
        record: _Record | None = _Record("unknown", content)
        try:
            reply = await call_next(exchange)
            record = _done(content, reply, self._max_outcome)
        except GatewayError as error:
            if error.retryable:
                record = None  # nothing was sent
            raise
        finally:
            with farewell(_FAREWELL_S):
                await self._write(key, record)  # noqa: ASYNC102  # farewell is a bounded shield
        return reply

    async def _write(self, key: str, record: _Record | None) -> None:
        """Never fails: a record that cannot be written stays `started`, which is `unknown` when its lease is over."""
        try:
            if record is None:
                await self._store.delete(key)
            else:
                await self._store.put(key, _encode(record), ttl_s=self._ttl_s)
            await self._leases.delete(key + ":lease")
        except (SluicewayError, OSError):
            return


def _done(content: str, reply: Reply, max_outcome: int) -> _Record | None:
    """The record of an outcome; None if the call was only asked something, and has done nothing yet (SEP-2322)."""
    if isinstance(reply, ErrorReply):
        error = {"code": reply.code, "message": reply.message, "data": reply.data, "http_status": reply.http_status}
        return _Record("done", content, error=error if len(encode_json(error)) <= max_outcome else None)
    if reply.value.get("resultType") == "input_required":
        return None
    return _Record("done", content, reply=reply.raw.decode() if len(reply.raw) <= max_outcome else None)


def _outcome(record: _Record) -> Reply:
    if record.state != "done":
        raise unknown()
    if record.reply is not None:
        return Result(raw=record.reply.encode())
    if record.error is not None:
        return ErrorReply(**record.error)
    raise OutcomeUnknown("the request with this idempotency key has been answered; its answer was too large to be kept")
