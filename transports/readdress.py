"""
What a gateway changes in a message, and nothing else of it: ids, progress tokens, subscription ids.

A proxy that rebuilds messages from the fields it knows loses those it does not (`_meta`, everything published later).
So a request keeps all its bytes but the ones of its id and its token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from sluiceway.pipeline.protocol.codec import encode_message
from sluiceway.pipeline.protocol.mcp import MetaKey, meta_of
from sluiceway.pipeline.protocol.messages import Json, Notification, Request, RequestId

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode
_FIRST: Final = b'{"jsonrpc":"2.0","id":'
_LAST: Final = b',"jsonrpc":"2.0","id":'
_TOKEN: Final = MetaKey.PROGRESS_TOKEN.value


def readdress(request: Request, upstream_id: int) -> bytes:
    """
    A request as it goes upstream: with our id and, if it asks for progress, our token; all else as it was.

    The token is the id: both are unique among what is in flight on one connection, which is all that MCP asks.
    """
    raw, wants_progress = request.raw, _TOKEN in request.meta
    if raw is None:
        params = request.params
        if wants_progress:
            params = {**params, "_meta": {**request.meta, _TOKEN: upstream_id}}
        return encode_message(Request(upstream_id, request.method, params))
    if not wants_progress:  # its id is the second member, or the last one, with most clients
        old = _encode(request.id)
        start = _FIRST + old + b","  # what the ends look like of a text that passed the gate is part of nothing inside
        if raw.startswith(start):
            return b"%b%d,%b" % (_FIRST, upstream_id, raw[len(start) :])
        end = _LAST + old + b"}"
        if raw.endswith(end):
            return b"%b%b%d}" % (raw[: -len(end)], _LAST, upstream_id)
    number = msgspec.Raw(b"%d" % upstream_id)
    message = _members(raw)
    message["id"] = number
    if wants_progress:
        params_members = _members(message["params"])
        meta = _members(params_members["_meta"])
        meta[_TOKEN] = number
        params_members["_meta"] = msgspec.Raw(_encode(meta))
        message["params"] = msgspec.Raw(_encode(params_members))
    return _encode(message)


def with_token(notification: Notification, token: Json) -> Notification:
    """The same progress under another token."""
    return Notification(notification.method, {**notification.params, "progressToken": token})


def with_subscription(members: Mapping[str, Json], subscription_id: RequestId) -> dict[str, Json]:
    """The same params or result, said to belong to another subscription."""
    return {**members, "_meta": {**meta_of(members), MetaKey.SUBSCRIPTION_ID.value: subscription_id}}
