"""The upstream behind gateways that start one: newline-delimited JSON, a tool `echo`, both eras, nothing else."""

from __future__ import annotations

import json
import sys

ABOUT = {"capabilities": {"tools": {}}, "serverInfo": {"name": "bench", "version": "1"}}
TOOL = {"name": "echo", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}


def _result(method: str, params: dict) -> dict | None:
    match method:
        case "tools/call":
            return {"content": [{"type": "text", "text": params["arguments"]["text"]}], "resultType": "complete"}
        case "initialize":
            return {"protocolVersion": params["protocolVersion"], **ABOUT}
        case "server/discover":
            return {"supportedVersions": ["2026-07-28"], "resultType": "complete", **ABOUT}
        case "tools/list":
            return {"tools": [TOOL], "resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"}
        case "ping":
            return {}
    return None


for line in sys.stdin.buffer:
    message = json.loads(line)
    if message.get("id") is None or "method" not in message:
        continue
    result = _result(message["method"], message.get("params") or {})
    end = {"error": {"code": -32601, "message": "no such method"}} if result is None else {"result": result}
    sys.stdout.buffer.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **end}).encode() + b"\n")
    sys.stdout.buffer.flush()
