"""
A stdio server of both eras that does what the name of a tool says, and reports what it sees to a socket of the test.

Usage: scripted.py PORT [FLAG]. While the file FLAG exists, it cannot start.
"""

import json
import os
import socket
import sys
from pathlib import Path

port, *flag = sys.argv[1:]
if flag and Path(flag[0]).exists():
    sys.stderr.write("fatal: the licence has expired\n")
    sys.exit(3)

book = socket.create_connection(("127.0.0.1", int(port)))
held = []
ABOUT = {"capabilities": {"tools": {}}, "serverInfo": {"name": "scripted", "version": "1"}}


ECHO = {"name": "echo", "description": "Says it again.", "inputSchema": {"type": "object"}}


def report(**entry: object) -> None:
    """Write into the test's book."""
    book.sendall(json.dumps({"pid": os.getpid(), **entry}).encode() + b"\n")


def say(**message: object) -> None:
    """Write one message."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def answer(request_id: object, said: object) -> None:
    """A tool's result."""
    say(id=request_id, result={"content": [{"type": "text", "text": said}], "resultType": "complete"})


for line in sys.stdin:
    message = json.loads(line)
    method, params, request_id = message["method"], message.get("params", {}), message.get("id")
    if request_id is None:
        report(what="notice", method=method, params=params)
        continue
    report(what="request", method=method, id=request_id, name=params.get("name"))
    if method == "initialize":
        say(id=request_id, result={"protocolVersion": params["protocolVersion"], **ABOUT})
    elif method == "server/discover":
        say(id=request_id, result={"supportedVersions": ["2026-07-28"], "resultType": "complete", **ABOUT})
    elif method == "tools/list":
        say(id=request_id, result={"tools": [ECHO], "resultType": "complete"})
    elif method == "ping":
        say(id=request_id, result={})
    elif method != "tools/call":
        say(id=request_id, error={"code": -32601, "message": f"{method} is not known here"})
    elif params["name"] == "crash":
        os._exit(7)
    elif params["name"] in ("hang", "hold"):
        if "progressToken" in params.get("_meta", {}):
            token = params["_meta"]["progressToken"]
            say(method="notifications/progress", params={"progressToken": token, "progress": 1})
        held += [request_id] * (params["name"] == "hold")
    else:
        for each in held if params["name"] == "release" else []:
            answer(each, "held")
        answer(request_id, params.get("arguments", {}).get("text", ""))
