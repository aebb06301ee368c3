"""The result of a tool as text for people. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from ..protocol.messages import Json
from .output import printable


def render_result(result: Mapping[str, Json]) -> str:
    """Every content block on lines of its own; the structured content where there is no other."""
    lines = [printable(line) for block in result.get("content", ()) for line in _block(block)]
    if not lines and "structuredContent" in result:
        return json.dumps(result["structuredContent"], indent=2, ensure_ascii=False)
    return "\n".join(lines)


def _block(block: Mapping[str, Json]) -> Iterator[str]:
    kind = block.get("type")
    if kind == "text":
        yield str(block.get("text", ""))
    elif kind in ("image", "audio"):
        yield f"[{kind}, {block.get('mimeType', 'unknown type')}, {_decoded_size(block.get('data'))} bytes]"
    elif kind == "resource_link":
        yield f"[resource {block.get('uri')}]"
    elif kind == "resource":
        resource = block.get("resource", {})
        text = resource.get("text")
        yield str(text) if text is not None else f"[resource {resource.get('uri')}]"
    else:
        yield f"[{kind}]"


def _decoded_size(data: Json) -> int:
    """Bytes behind a base64 text (RFC 4648, section 4)."""
    return len(data) * 3 // 4 - data[-2:].count("=") if isinstance(data, str) else 0
