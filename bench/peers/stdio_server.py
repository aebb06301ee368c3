"""The upstream behind gateways that start one: newline-delimited JSON, `echo` and `blob`, both eras, nothing else."""

from __future__ import annotations

import json
import sys

ABOUT = {"capabilities": {"tools": {}}, "serverInfo": {"name": "bench", "version": "1"}}
TOOLS = [
    {"name": "echo", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}},
    {"name": "blob", "inputSchema": {"type": "object", "properties": {"size": {"type": "integer"}}}},
]
RECORD = {"id": 7, "title": "a line of a table", "tags": ["a", "b"], "score": 0.25}
BLOBS: dict[int, bytes] = {}


def _blob(size: int) -> bytes:
    """A result of about so many bytes of records, encoded once."""
    if size not in BLOBS:
        rows = [RECORD] * max(1, size // len(json.dumps(RECORD)))
        result = {"content": [], "structuredContent": {"rows": rows}, "resultType": "complete"}
        BLOBS[size] = json.dumps(result).encode()
    return BLOBS[size]


def _result(method: str, params: dict) -> bytes | None:
    match method:
        case "tools/call" if params["name"] == "blob":
            return _blob(int(params["arguments"]["size"]))
        case "tools/call":
            found = {"content": [{"type": "text", "text": params["arguments"]["text"]}], "resultType": "complete"}
        case "initialize":
            found = {"protocolVersion": params["protocolVersion"], **ABOUT}
        case "server/discover":
            found = {"supportedVersions": ["2026-07-28"], "resultType": "complete", **ABOUT}
        case "tools/list":
            found = {"tools": TOOLS, "resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"}
        case "ping":
            found = {}
        case _:
            return None
    return json.dumps(found).encode()


def answer(line: bytes) -> bytes | None:
    """What is said to a message; nothing to a notification."""
    message = json.loads(line)
    if message.get("id") is None or "method" not in message:
        return None
    result = _result(message["method"], message.get("params") or {})
    end = b'"error":{"code":-32601,"message":"no such method"}}' if result is None else b'"result":%b}' % result
    return b'{"jsonrpc":"2.0","id":%b,%b' % (json.dumps(message["id"]).encode(), end)


if __name__ == "__main__":
    for each in sys.stdin.buffer:
        said = answer(each)
        if said is not None:
            sys.stdout.buffer.write(said + b"\n")
            sys.stdout.buffer.flush()
