"""
The scripted server of the matrix: both eras, and no transport.

A transport hands each message to `receive`, with a function that says something on the stream of that message and never
waits. The standard library only, for it also runs in a child that should start at once (`child.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Json = Any
Say = Callable[[dict[str, Any]], None]

LARGE = 2 << 20
"""Bytes of the large result."""
WATCHED = "file:///watched"
MODERN = "2026-07-28"
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
SUBSCRIPTION_KEY = "io.modelcontextprotocol/subscriptionId"
CAPABILITIES = {"tools": {"listChanged": True}, "resources": {"subscribe": True, "listChanged": True}}
TOOLS = ("echo", "fail", "count", "wait", "ask", "change", "large", "die")
QUESTION: dict[str, Any] = {
    "mode": "form",
    "message": "Who is it?",
    "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
}


class Server:
    """
    Args:
        modern: Which of the two eras it speaks; it knows nothing of the other one.
        report: Told of each request, and of each that its client gave up.
    """

    def __init__(self, modern: bool, report: Callable[[dict[str, Any]], None]) -> None:
        self.modern = modern
        self.report = report
        self.hearers: dict[object, Say] = {}
        """By session: where a legacy client hears what belongs to no request."""
        self._listeners: dict[tuple[object, Json], Say] = {}
        self._asked: dict[str, tuple[Json, Say]] = {}

    def receive(self, message: dict[str, Any], say: Say, die: Callable[[], None], connection: object = None) -> None:
        """
        Take one message.

        Args:
            message: A request, a notification or a response.
            say: Sends something on the stream that belongs to it.
            die: Ends the server as hard as its transport allows.
            connection: What request ids are unique on.
        """
        request_id: Json = message.get("id")
        method, params = message.get("method"), message.get("params") or {}
        if method is None:
            asked_by, answer = self._asked.pop(request_id)
            answer(_text(asked_by, message["result"]["content"]["name"]))
        elif request_id is None:
            self.report({"what": "notice", "method": method})
            if method == "notifications/cancelled":
                self.gone(params["requestId"], "notice", connection)
        elif self.modern != (params.get("_meta", {}).get(VERSION_KEY) == MODERN):
            say(_error(request_id, -32022 if self.modern else -32601, f"{method} is of another era"))
        else:
            self._request(method, params, request_id, say, die, connection)

    def gone(self, request_id: Json, how: str, connection: object = None) -> None:
        """The client of a request has given it up: by a `notice`, or by having `closed` its stream."""
        self._listeners.pop((connection, request_id), None)
        self.report({"what": "gone", "id": request_id, "how": how})

    def _request(self, method: str, params: Json, request_id: Json, say: Say, die: Callable[[], None],
                 connection: object) -> None:  # fmt: skip
        self.report({"what": "request", "method": method, "name": params.get("name"), "id": request_id})
        about = {"capabilities": CAPABILITIES, "serverInfo": {"name": "scripted", "version": "1"}}
        if method == "tools/call":
            self._call(params, request_id, say, die)
        elif method == "subscriptions/listen":
            granted = {"_meta": {SUBSCRIPTION_KEY: request_id}, "notifications": params["notifications"]}
            say({"method": "notifications/subscriptions/acknowledged", "params": granted})
            self._listeners[connection, request_id] = say
        elif method == ("server/discover" if self.modern else "initialize"):
            version = {"supportedVersions": [MODERN]} if self.modern else {"protocolVersion": params["protocolVersion"]}
            say(_result(request_id, {**version, **about}))
        elif method == "tools/list":
            tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
            say(_result(request_id, {"tools": tools, "ttlMs": 0, "cacheScope": "private"}))
        elif method in ("ping", "resources/subscribe", "resources/unsubscribe"):
            say(_result(request_id, {}))
        else:
            say(_error(request_id, -32601, f"{method} is not known here"))

    def _call(self, params: Json, request_id: Json, say: Say, die: Callable[[], None]) -> None:
        name, token = params["name"], params.get("_meta", {}).get("progressToken")
        if name == "echo":
            say(_text(request_id, params["arguments"]["text"]))
        elif name == "fail":
            say(_result(request_id, {"content": [{"type": "text", "text": "it failed"}], "isError": True}))
        elif name in ("count", "wait"):
            for done in (1, 2) if name == "count" else (1,):
                progress = {"progressToken": token, "progress": done, "total": 2}
                say({"method": "notifications/progress", "params": progress})
            if name == "count":
                say(_text(request_id, "counted"))
        elif name == "ask":
            self._ask(params, request_id, say)
        elif name == "change":
            self._tell_of_changes()
            say(_text(request_id, "changed"))
        elif name == "large":
            say(_text(request_id, "x" * LARGE))
        elif name == "die":
            die()
        else:
            say(_error(request_id, -32602, f"no tool {name}"))

    def _ask(self, params: Json, request_id: Json, say: Say) -> None:
        if not self.modern:
            question = f"question-{len(self._asked)}-{request_id}"
            self._asked[question] = request_id, say
            say({"id": question, "method": "elicitation/create", "params": QUESTION})
        elif answers := params.get("inputResponses"):
            say(_text(request_id, answers["who"]["content"]["name"]))
        else:
            asked = {"who": {"method": "elicitation/create", "params": QUESTION}}
            say(_result(request_id, {"resultType": "input_required", "inputRequests": asked, "requestState": "one"}))

    def _tell_of_changes(self) -> None:
        changed = {"method": "notifications/tools/list_changed"}
        updated = {"method": "notifications/resources/updated", "params": {"uri": WATCHED}}
        for hear in self.hearers.values():
            hear({**changed, "params": {}})
            hear(updated)
        for (_, listener), hear in self._listeners.items():
            meta = {"_meta": {SUBSCRIPTION_KEY: listener}}
            hear({**changed, "params": meta})
            hear({**updated, "params": {"uri": WATCHED, **meta}})


def _result(request_id: Json, result: dict[str, Any]) -> dict[str, Any]:
    return {"id": request_id, "result": {"resultType": "complete", **result}}


def _text(request_id: Json, text: str) -> dict[str, Any]:
    return _result(request_id, {"content": [{"type": "text", "text": text}]})


def _error(request_id: Json, code: int, message: str) -> dict[str, Any]:
    return {"id": request_id, "error": {"code": code, "message": message}}
