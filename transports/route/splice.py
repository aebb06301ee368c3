"""Changing one member of a request and not a byte of the others."""

from __future__ import annotations

from typing import Final

import msgspec

from sluiceway.pipeline.protocol.messages import Json, Request

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


def with_param(request: Request, path: tuple[str, ...], value: str) -> Request:
    """
    The same request with another text at a place of its params.

    Args:
        request: Its params must have objects all along the path.
        path: Keys, from the params down.
        value: The new text.
    """
    params = _changed(request.params, path, value)
    if request.raw is None:
        return request.with_params(params)
    message = _members(request.raw)
    message["params"] = _spliced(message["params"], path, value)
    return Request(request.id, request.method, params, _encode(message))


def _changed(members: Json, path: tuple[str, ...], value: str) -> Json:
    key, *rest = path
    return {**members, key: _changed(members[key], tuple(rest), value) if rest else value}


def _spliced(raw: msgspec.Raw, path: tuple[str, ...], value: str) -> msgspec.Raw:
    members = _members(raw)
    key, *rest = path
    members[key] = _spliced(members[key], tuple(rest), value) if rest else msgspec.Raw(_encode(value))
    return msgspec.Raw(_encode(members))
