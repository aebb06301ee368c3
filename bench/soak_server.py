"""The smallest stdio server that `soak.py` can use: `echo` answers, `countdown` never does; both eras."""

import json
import sys

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "countdown")]
ABOUT = {"capabilities": {"tools": {}}, "serverInfo": {"name": "soak", "version": "1"}}
ANSWERS = {
    "initialize": {"protocolVersion": "2025-11-25", **ABOUT},
    "server/discover": {"supportedVersions": ["2026-07-28"], "resultType": "complete", **ABOUT},
    "tools/list": {"tools": TOOLS, "resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"},
    "tools/call": {"content": [], "resultType": "complete"},
}

for line in sys.stdin:
    message = json.loads(line)
    method, request_id = message["method"], message.get("id")
    if request_id is None or message.get("params", {}).get("name") == "countdown":
        continue
    reply = {"result": ANSWERS[method]} if method in ANSWERS else {"error": {"code": -32601, "message": "no"}}
    print(json.dumps({"jsonrpc": "2.0", "id": request_id, **reply}), flush=True)
