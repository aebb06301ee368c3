"""A modern server that answers late and out of order, with progress, and tells every listener of every few answers."""

import json
import os
import random
import select
import sys
from collections.abc import Iterator

META = "io.modelcontextprotocol/subscriptionId"


def say(**message: object) -> None:
    """Write one message; flushed with the batch."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")


def answer(message: dict) -> None:
    """Two words of progress, and what was asked."""
    params = message["params"]
    for step in (1, 2):
        who = params["arguments"]["who"]
        told = {"progressToken": params["_meta"]["progressToken"], "progress": step, "message": who}
        say(method="notifications/progress", params=told)
    say(id=message["id"], result={"resultType": "complete", "content": [], "of": params["arguments"]})


def lines() -> Iterator[bytes | None]:
    """The lines of standard input; None when there is none for a moment."""
    rest = b""
    while True:
        if not select.select([0], [], [], 0.02)[0]:
            yield None
            continue
        data = os.read(0, 65536)
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        yield from whole


def answer_all() -> None:
    """In an order of its own; and eight notices for every listener."""
    rng.shuffle(waiting)
    for each in waiting:
        answer(each)
    waiting.clear()
    for listen_id, uri in listeners.items():
        for _ in range(8):
            say(method="notifications/resources/updated", params={"uri": uri, "_meta": {META: listen_id}})
    sys.stdout.flush()


rng = random.Random(17)
waiting: list[dict] = []
listeners: dict[object, str] = {}
for line in lines():
    if line is None:
        if waiting:
            answer_all()
        continue
    request = json.loads(line)
    if request["method"] == "subscriptions/listen":
        listeners[request["id"]] = request["params"]["notifications"]["resourceSubscriptions"][0]
        acknowledged = {"_meta": {META: request["id"]}, "notifications": request["params"]["notifications"]}
        say(method="notifications/subscriptions/acknowledged", params=acknowledged)
        sys.stdout.flush()
    elif request["method"] == "tools/call":
        waiting.append(request)
        if len(waiting) >= 16:
            answer_all()
