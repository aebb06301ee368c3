"""
One answer that is kept, and how it is given out again. Pure.

Its members are the bytes the upstream sent, `ttlMs` and `_meta` apart: those are written anew each time, for the time
that is left and for where the answer comes from. Nothing else of a payload is ever touched.
"""

from __future__ import annotations

from typing import Final, Literal, final

import msgspec
from attrs import frozen

from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, Result, encode_json

PROVENANCE: Final = "io.sluiceway/cache"
"""The key of `_meta` that says that an answer was kept, and for how long."""
State = Literal["hit", "stale"]
"""Fresh; or past its time, because it is being refreshed, or the upstream fails."""

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode
_error: Final = msgspec.json.Decoder(tuple[int, str, msgspec.Raw, int | None]).decode


@final
@frozen
class Entry:
    """A kept answer. Times are absolute seconds of the Trio clock."""

    body: bytes
    """The members of the result without the last brace; of an error, code, message, data and status as a list."""
    meta: bytes
    """The members of `_meta`, without braces."""
    is_error: bool
    has_hints: bool
    """The upstream said how long it is good, so what is left of that is handed on."""
    born: float
    """When the upstream was asked."""
    fresh_until: float
    stale_until: float
    """Until then it may be given out while it is refreshed."""
    error_until: float
    """Until then it may be given out when the upstream fails."""

    @property
    def kept_until(self) -> float:
        """When it is of no use any more."""
        return max(self.fresh_until, self.stale_until, self.error_until)

    def reply(self, now: float, state: State | None) -> Reply:
        """The answer as a client gets it; without `state` nothing is said of the cache."""
        if self.is_error:
            code, message, data, status = _error(self.body)
            return ErrorReply(code, message, msgspec.json.decode(data), status)
        parts = [self.body]
        if self.has_hints:
            parts.append(b'"ttlMs":%d' % max(0, int((self.fresh_until - now) * 1000 + 1e-6)))
        meta = [self.meta] if self.meta else []
        if state is not None:
            age_ms = int((now - self.born) * 1000 + 1e-6)
            meta.append(b'"io.sluiceway/cache":{"state":"%s","age_ms":%d}' % (state.encode(), age_ms))
        if meta:
            parts.append(b'"_meta":{%s}' % b",".join(meta))
        return Result(raw=b"{%s}" % b",".join(filter(None, parts)))


def bodies_of(reply: Reply) -> tuple[bytes, bytes] | None:
    """
    What of a reply is kept: its members, and those of its `_meta`; None if it is nothing that can be kept.

    The members are byte for byte what they were.
    """
    if isinstance(reply, ErrorReply):
        return encode_json([reply.code, reply.message, reply.data, reply.http_status]), b""
    members = _members(reply.raw)
    members.pop("ttlMs", None)
    meta = members.pop("_meta", None)
    if meta is None:
        return _encode(members)[1:-1], b""
    try:
        kept = _members(meta)
    except msgspec.ValidationError:
        return None
    kept.pop(PROVENANCE, None)
    return _encode(members)[1:-1], _encode(kept)[1:-1]


def value_of(reply: Result) -> dict[str, object] | None:
    """The members of a result; None if it does not pass the gate, and is for its client to refuse."""
    try:
        return dict(reply.value)
    except UpstreamProtocolError:
        return None
