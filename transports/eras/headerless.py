"""
The modern era where a message has no headers around it: stdio, WebSocket.

2026-07-28, basic/versioning and basic/transports/stdio. All metadata is in the body, so there is nothing to compare it
with; who claims nothing is of the legacy era.
"""

from __future__ import annotations

from sluiceway.pipeline.protocol.errors import InvalidParams, UnknownMethod
from sluiceway.pipeline.protocol.mcp import LATEST, METHODS, MetaKey, meta_of, method_of
from sluiceway.pipeline.protocol.messages import Request

from .modern import check_version


def is_modern(request: Request) -> bool:
    """Whether a request claims to be of a stateless revision, rightly or not: by its metadata, or by its method."""
    meta = meta_of(request.params)
    return MetaKey.VERSION in meta or MetaKey.CLIENT_CAPABILITIES in meta or not method_of(request.method).legacy


def check_request(request: Request) -> None:
    """
    Check the metadata that a modern request must carry, and whether its method still exists.

    Raises:
        InvalidParams: A required `_meta` key is missing or has the wrong type (-32602).
        UnsupportedVersion: The claimed version is not one we speak (-32022).
        UnknownMethod: The method was removed in this revision (-32601).
    """
    meta = meta_of(request.params)
    for key, kind, noun in ((MetaKey.VERSION, str, "a string"), (MetaKey.CLIENT_CAPABILITIES, dict, "an object")):
        if not isinstance(meta.get(key), kind):
            raise InvalidParams(f"params._meta needs {key}, {noun}, in every request of {LATEST}")
    check_version(meta[MetaKey.VERSION])
    row = METHODS.get(request.method)
    if row is not None and not row.modern:
        raise UnknownMethod(f"{request.method} does not exist in {meta[MetaKey.VERSION]}")
