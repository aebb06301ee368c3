"""
Keys: what makes two requests, or two callers, the same for a stage that remembers.

Every stage that keeps something between exchanges (cache, dedup, limits, idempotency) takes its keys from here, so
that none of them forgets the tenant, and none tells two spellings of the same request apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

import msgspec

from ..protocol.mcp import MetaKey
from ..protocol.messages import Json
from .exchange import Exchange
from .session import ANONYMOUS

VOLATILE_META: Final = frozenset(
    {
        MetaKey.PROGRESS_TOKEN,
        MetaKey.TRACEPARENT,
        MetaKey.TRACESTATE,
        MetaKey.BAGGAGE,
        MetaKey.CLIENT_INFO,
        MetaKey.LOG_LEVEL,
        MetaKey.TIMEOUT,
        MetaKey.IDEMPOTENCY_KEY,
    }
)
"""Members of `_meta` that never change the answer: trace context (SEP-414), progress, who asks, and how often."""

_sorted: Final = msgspec.json.Encoder(order="deterministic")


def principal_of(exchange: Exchange) -> tuple[str, str]:
    """
    (tenant, subject): who is charged, and who may see what was kept.

    Where nobody is authenticated, the session stands for the caller, and its address where there is none.
    """
    caller = exchange.caller
    if caller.how == "none" and caller.subject == ANONYMOUS.subject:
        client = exchange.client
        session = client.session
        return caller.tenant or "", f"session:{session.id}" if session is not None else f"address:{client.address}"
    return caller.tenant or "", f"caller:{caller.subject}"


def authorization_of(exchange: Exchange) -> tuple[object, ...]:
    """
    The authorization context that `private` answers belong to (MCP 2026-07-28, caching): principal and all it may do.

    Another token with other rights is another context; a renewed token with the same rights is the same one.
    """
    caller = exchange.caller
    return (*principal_of(exchange), caller.how, tuple(sorted(caller.scopes)), tuple(sorted(caller.roles)))


def request_of(exchange: Exchange) -> tuple[object, ...]:
    """
    What the request asks, canonically: revision, method, params without what never changes the answer.

    `clientCapabilities` stay in: they decide whether an upstream answers or asks back. Worked out once for all stages
    that see the same request.
    """
    request, link, version = exchange.request, exchange.link, exchange.client.version
    known = link.request_key
    if known is not None and known[0] is request and known[1] == version:
        return version, request.method, known[2]
    key = _params_of(request.params)
    link.request_key = request, version, key
    return version, request.method, key


def _params_of(params: Mapping[str, Json]) -> bytes:
    """Params, canonically, without what never changes the answer."""
    meta = params.get("_meta")
    if meta is None or not isinstance(meta, dict):  # an upstream may refuse what is no object: not the same request
        return canonical(params)
    kept = {key: value for key, value in meta.items() if key not in VOLATILE_META}
    rest = {key: value for key, value in params.items() if key != "_meta"}
    return canonical({**rest, "_meta": kept} if kept else rest)


def canonical(value: Json | Mapping[str, Json]) -> bytes:
    """JSON with sorted keys and no spaces: equal values, equal bytes, whatever the order of their members."""
    try:
        return _sorted.encode(value)
    except OverflowError:  # an integer of more than 64 bits
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def continues(exchange: Exchange) -> bool:
    """
    Whether it takes up an earlier request that was answered `input_required` (MCP 2026-07-28, SEP-2322).

    Such a request belongs to one conversation: it is never kept, joined with another one, or answered from memory.
    """
    params = exchange.request.params
    return "inputResponses" in params or "requestState" in params


def digest(*parts: object) -> str:
    """A short name (32 hex digits, 128 bits) for a tuple of texts, numbers, None, bytes and tuples of these."""
    return blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
