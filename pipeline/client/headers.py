"""
The HTTP headers that repeat parts of a modern request's body (MCP 2026-07-28, streamable HTTP; SEP-2243).

Pure: request and tool declarations in, headers out.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Final

from ..protocol.mcp import target_of
from ..protocol.messages import Json, Notification, Request

_PLAIN: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_SENTINEL: Final = re.compile(r"=\?base64\?.*\?=", re.IGNORECASE | re.DOTALL)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TYPES: Final = frozenset({"string", "integer", "boolean"})


def encode_value(value: str) -> str:
    """A header value: as it is where HTTP can carry it, else wrapped as `=?base64?...?=`."""
    if value == "" or (_PLAIN.fullmatch(value) and not _SENTINEL.fullmatch(value)):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def standard_headers(message: Request | Notification, version: str) -> dict[str, str]:
    """The version, method and target of a modern message, as headers."""
    headers = {"mcp-protocol-version": version, "mcp-method": encode_value(message.method)}
    target = target_of(message.method, message.params)
    if target is not None:
        headers["mcp-name"] = encode_value(target)
    return headers


def annotated(schema: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """
    The parameters a tool's `inputSchema` wants as headers: (path in the arguments, name after `Mcp-Param-`).

    Only what is reachable through `properties` alone, and only text, integers and booleans, count.
    """
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for name, field in properties.items() if isinstance(properties, dict) else ():
        if not isinstance(field, dict):
            continue
        header = field.get("x-mcp-header")
        if isinstance(header, str) and _TOKEN.fullmatch(header) and field.get("type") in _TYPES:
            yield (*path, name), header
        yield from annotated(field, (*path, name))


def param_headers(schema: Json, arguments: Mapping[str, Json]) -> dict[str, str]:
    """The `Mcp-Param-*` headers of a call; a parameter that is absent or null has none."""
    headers = {}
    for path, name in annotated(schema):
        value: Json = arguments
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, bool):
            headers[f"mcp-param-{name.lower()}"] = "true" if value else "false"
        elif isinstance(value, (str, int)):
            headers[f"mcp-param-{name.lower()}"] = encode_value(str(value))
    return headers
