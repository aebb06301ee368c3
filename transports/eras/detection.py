"""What an upstream's answer to `server/discover` tells about its era (2026-07-28, basic/versioning)."""

from __future__ import annotations

from typing import Final

from sluiceway.pipeline.protocol.mcp import LEGACY_VERSIONS, ErrorCode
from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, Result

MODERN_CODES: Final = frozenset(
    {ErrorCode.HEADER_MISMATCH, ErrorCode.MISSING_CLIENT_CAPABILITY, ErrorCode.UNSUPPORTED_PROTOCOL_VERSION}
)
"""Errors that only a server of 2026-07-28 sends (basic/versioning)."""

_NOT_SPOKEN: Final = frozenset({400, 404, 405, 406, 415, 501})
"""What a server answers that does not understand a request of another era."""


def speaks_modern(status: int, reply: Reply | None) -> bool | None:
    """
    What the answer to `server/discover` tells about an upstream (2026-07-28, basic/versioning).

    Args:
        status: HTTP status of the answer.
        reply: The JSON-RPC message in it; None if there is none.

    Returns:
        Whether it is of the modern era; None if the answer tells nothing about that.
    """
    if isinstance(reply, Result):
        return True
    if reply is not None and reply.code in MODERN_CODES:
        return not _offers_legacy_only(reply)
    return False if status in _NOT_SPOKEN or (reply is not None and status < 300) else None


def _offers_legacy_only(error: ErrorReply) -> bool:
    supported = error.data.get("supported") if isinstance(error.data, dict) else None
    return isinstance(supported, list) and supported != [] and all(version in LEGACY_VERSIONS for version in supported)
