"""The behaviours of the matrix: each does one thing through a gateway, and fails if it does not come out right."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio
from attrs import define

from .book import Book
from .clients import Client
from .crossings import End
from .server import LARGE, SUBSCRIPTION_KEY, TOOLS, WATCHED


@define(eq=False)
class Crossing:
    """A client, and what the upstream saw."""

    client: Client
    seen: Book
    upstream: End

    @property
    def closes_streams(self) -> bool:
        """Whether the upstream hears of a cancelled call by its stream's end."""
        return self.upstream.era == "modern" and self.upstream.transport in ("http", "http2")


async def list_tools(crossing: Crossing) -> None:
    """`tools/list`."""
    reply = await crossing.client.ask("tools/list", {})
    names = {tool["name"] for tool in reply["result"]["tools"]}
    assert names >= set(TOOLS) - ({"die"} if crossing.upstream.era == "both" else set())


async def call(crossing: Crossing) -> None:
    """`tools/call`."""
    assert text(await crossing.client.call("echo", text="grüße\n")) == "grüße\n"


async def error(crossing: Crossing) -> None:
    """Both ways to fail."""
    failed = await crossing.client.call("fail")
    assert failed["result"]["isError"] is True
    assert text(failed) == "it failed"
    unknown = await crossing.client.call("nothing")
    assert unknown["error"]["code"] == -32602
    assert "nothing" in unknown["error"]["message"]


async def progress(crossing: Crossing) -> None:
    """Two reports, then the result."""
    start = len(crossing.client.book.entries)
    call_id = await crossing.client.begin("tools/call", {"name": "count", "arguments": {}})
    assert text(await crossing.client.reply(call_id)) == "counted"
    came = crossing.client.book.entries[start:]
    reports = [entry["params"] for entry in came if entry.get("method") == "notifications/progress"]
    assert [(each["progressToken"], each["progress"]) for each in reports] == [(call_id, 1), (call_id, 2)]
    assert [each.get("method") for each in came if "method" in each or each.get("id") == call_id][:2] == [
        "notifications/progress"
    ] * 2


async def cancel(crossing: Crossing) -> None:
    """The upstream is told in the way of its era and transport, and the client hears no answer."""
    start = len(crossing.client.book.entries)
    call_id = await crossing.client.begin("tools/call", {"name": "wait", "arguments": {}})
    await crossing.client.heard("notifications/progress", start)
    request = await crossing.seen.wait_for(lambda entry: entry["what"] == "request" and entry["name"] == "wait")
    await crossing.client.give_up(call_id)
    how = "cancelled" if crossing.upstream.era == "both" else "closed" if crossing.closes_streams else "notice"
    told = {"what": "gone", "id": request["id"], "how": how}
    await crossing.seen.wait_for(lambda entry: entry == told)
    await call(crossing)
    answers = [each for each in crossing.client.book.entries[start:] if each.get("id") == call_id]
    assert [each for each in answers if "lost" not in each and "method" not in each] == []


async def question(crossing: Crossing) -> None:
    """Asked on the stream of the call, or in its result."""
    client, start = crossing.client, len(crossing.client.book.entries)
    answer = {"action": "accept", "content": {"name": "Ana"}}
    call_id = await client.begin("tools/call", {"name": "ask", "arguments": {}})
    if client.modern:
        result = (await client.reply(call_id))["result"]
        assert result["resultType"] == "input_required"
        ((key, asked),) = result["inputRequests"].items()
        assert asked["method"] == "elicitation/create"
        state = {"requestState": result["requestState"]} if "requestState" in result else {}
        again = {"name": "ask", "arguments": {}, "inputResponses": {key: answer}, **state}
        call_id = await client.begin("tools/call", again)
    else:
        asked = await client.heard("elicitation/create", start)
        await client.say({"id": asked["id"], "result": answer})
    assert asked["params"]["message"] == "Who is it?"
    assert text(await client.reply(call_id)) == "Ana"


async def notification(crossing: Crossing) -> None:
    """Subscribed as the era has it."""
    client, start, listener = crossing.client, len(crossing.client.book.entries), None
    if client.modern:
        wanted = {"toolsListChanged": True, "resourceSubscriptions": [WATCHED]}
        listener = await client.begin("subscriptions/listen", {"notifications": wanted})
        await client.heard("notifications/subscriptions/acknowledged", start)
    else:
        assert "result" in await client.ask("resources/subscribe", {"uri": WATCHED})
    assert text(await client.call("change")) == "changed"
    updated = await client.heard("notifications/resources/updated", start)
    assert updated["params"]["uri"] == WATCHED
    changed = await client.heard("notifications/tools/list_changed", start)
    if listener is not None:
        for each in (updated, changed):
            assert each["params"]["_meta"][SUBSCRIPTION_KEY] == listener
        await client.give_up(listener)


async def large_result(crossing: Crossing) -> None:
    """Whole."""
    assert text(await crossing.client.call("large")) == "x" * LARGE


async def death(crossing: Crossing) -> None:
    """In the middle of a call; then it is there again."""
    reply = await crossing.client.call("die")
    assert "error" in reply, reply
    assert reply["error"]["data"]["reason"] in ("upstream_closed", "upstream_unavailable"), reply
    while True:
        again = await crossing.client.call("echo", text="again")
        if "result" in again:
            break
        if not crossing.client.modern:
            await crossing.client.start()
        await trio.sleep(0.05)
    assert text(again) == "again"


def text(reply: dict[str, object]) -> str:
    """What a tool said."""
    assert isinstance(reply.get("result"), Mapping), reply
    result = reply["result"]
    assert isinstance(result, Mapping)
    said: str = result["content"][0]["text"]
    return said


CHECKS: dict[str, Callable[[Crossing], Awaitable[None]]] = {
    "list": list_tools, "call": call, "error": error, "progress": progress, "cancel": cancel, "question": question,
    "notification": notification, "large result": large_result, "death": death,
}  # fmt: skip
"""In the order in which they are tried; death is the last."""
