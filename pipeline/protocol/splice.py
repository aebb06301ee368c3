"""Changing members of a message's `_meta`, and not a byte of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from .mcp import meta_of
from .messages import Json, Notification, Request

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


def with_meta(message: Request | Notification, changes: Mapping[str, Json]) -> Request | Notification:
    """
    The same message with other members of `_meta`; the message itself if that changes nothing.

    Args:
        message: Its bytes stay as they are around what is changed.
        changes: Members to set; None removes one.
    """
    params = message.params
    meta = meta_of(params)
    if all(meta.get(key) == value for key, value in changes.items()):
        return message
    changed = {**meta, **changes}
    new = {**params, "_meta": {key: value for key, value in changed.items() if value is not None}}
    if not new["_meta"]:
        del new["_meta"]
    if isinstance(message, Notification):
        return Notification(message.method, new)
    if message.raw is None:
        return message.with_params(new)
    return Request(message.id, message.method, new, _spliced(message.raw, changes, keep=bool(meta)))


def _spliced(raw: bytes, changes: Mapping[str, Json], *, keep: bool) -> bytes:
    message = _members(raw)
    params = _members(message["params"]) if "params" in message else {}
    meta = _members(params["_meta"]) if keep else {}
    for key, value in changes.items():
        if value is None:
            meta.pop(key, None)
        else:
            meta[key] = msgspec.Raw(_encode(value))
    if meta:
        params["_meta"] = msgspec.Raw(_encode(meta))
    else:
        params.pop("_meta", None)
    message["params"] = msgspec.Raw(_encode(params))
    return _encode(message)
