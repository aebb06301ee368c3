"""
The headers of a request to an upstream: made from the body that goes out, never copied from the client's.

2026-07-28, basic/transports/streamable-http, and SEP-2243. A stage may have rewritten the request, so what mirrors it
is computed anew. `Mcp-Param-*` alone is passed on as it came, for the server to compare; it is made only for clients
that do not speak HTTP (`mirrors.py`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Final

from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.errors import HeaderMismatch
from sluiceway.pipeline.protocol.mcp import LATEST, MetaKey
from sluiceway.pipeline.protocol.messages import EMPTY, Notification, Request
from sluiceway.pipeline.protocol.trace_context import baggage_in, context_in

from ..eras.legacy import SESSION_HEADER
from ..eras.modern import METHOD_HEADER, NAME_HEADER, PARAM_PREFIX, VERSION_HEADER
from ..http_client.client import render_headers

_TRACEPARENT: Final = MetaKey.TRACEPARENT.value
_TRACESTATE: Final = MetaKey.TRACESTATE.value
_BAGGAGE: Final = MetaKey.BAGGAGE.value
_AS_IT_IS: Final = re.compile("00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-3]")
"""A `traceparent` of this version, with flags that we pass on: what `trace` stages write."""
_known_lines: Final[dict[tuple[str | None, str, str | None], bytes]] = {}
"""The same few are sent with every call: by version, method, and what it is about."""
_MAX_KNOWN: Final = 1024
"""Of these are remembered; the one that was made first makes room."""
_MAX_LINES: Final = 512
"""Bytes of those that are."""
_PLAIN: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


def encode_value(value: str) -> str:
    """A header value as it is where HTTP can carry it, else wrapped in the base64 sentinel."""
    if value == "" or (_PLAIN.fullmatch(value) and not value.lower().startswith("=?base64?")):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def modern_headers(message: Request | Notification, client: Client, mirrored: Mapping[str, str] = EMPTY) -> bytes:
    """
    Header lines of a modern message.

    Args:
        message: As it goes out.
        client: Who sent it; of its headers only `Mcp-Param-*` is used.
        mirrored: `Mcp-Param-*` headers of a client that has no headers to send.

    Raises:
        HeaderMismatch: One of those cannot be sent.
    """
    said = client.version, message.method, message.target
    lines = _known_lines.get(said) or _lines(*said)
    if mirrored or PARAM_PREFIX in " ".join(client.headers):  # nearly never; asking each name takes three times as long
        return lines + _param_lines(client, mirrored)
    return lines


def _lines(version: str | None, method: str, target: str | None) -> bytes:
    headers = {VERSION_HEADER: version or LATEST, METHOD_HEADER: encode_value(method)}
    if target is not None:
        headers[NAME_HEADER] = encode_value(target)
    lines = render_headers(headers)
    if len(lines) <= _MAX_LINES:
        if len(_known_lines) >= _MAX_KNOWN:
            _known_lines.pop(next(iter(_known_lines)), None)  # a gateway in another thread may have done so
        _known_lines[version, method, target] = lines
    return lines


def _param_lines(client: Client, mirrored: Mapping[str, str]) -> bytes:
    headers = {name: encode_value(value) for name, value in mirrored.items()}
    headers.update((name, value) for name, value in client.headers.items() if name.startswith(PARAM_PREFIX))
    try:
        return render_headers(headers)
    except ValueError as error:
        raise HeaderMismatch(f"a header {PARAM_PREFIX}* cannot be passed on; encode its value in base64") from error


def legacy_headers(session_id: str | None, version: str | None) -> bytes:
    """
    Header lines of a message within a legacy session; none before the handshake is done.

    Args:
        session_id: The upstream's, if it gave one.
        version: What was negotiated.
    """
    headers = {} if session_id is None else {SESSION_HEADER: session_id}
    if version is not None:
        headers[VERSION_HEADER] = version
    return render_headers(headers)


def trace_headers(message: Request | Notification) -> bytes:
    """
    Header lines that say where a message stands in a trace: its own `_meta` (SEP-414), once more.

    Proxies and meshes on the way read headers only. What is not valid there stays in `_meta` alone.
    """
    meta = message.meta
    parent = meta.get(_TRACEPARENT)
    if type(parent) is str and _TRACESTATE not in meta and _BAGGAGE not in meta and _AS_IT_IS.fullmatch(parent):
        return b"traceparent: %b\r\n" % parent.encode()  # as it would be rendered, at a third of the cost
    headers = {}
    if parent is not None and (context := context_in(meta)) is not None:
        headers[_TRACEPARENT] = context.traceparent
        if context.state:
            headers[_TRACESTATE] = context.state
    if _BAGGAGE in meta and (baggage := baggage_in(meta)):
        headers[_BAGGAGE] = baggage
    return render_headers(headers) if headers else b""
