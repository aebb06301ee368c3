"""Which requests may be sent twice, and how the hints of tools are learned."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from sluiceway.pipeline.model.changes import Changes
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.repeating import LOOKUP_PAUSE_S, Repeatables
from sluiceway.pipeline.protocol.errors import ConnectFailed
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply, Result
from sluiceway.pipeline.testing import memory_exchange


def _call(name: str, **params: Json) -> Exchange:
    return memory_exchange("tools/call", {"name": name, **params})


TOOLS = [
    {"name": "read", "annotations": {"readOnlyHint": True}},
    {"name": "put", "annotations": {"idempotentHint": True}},
    {"name": "pay", "annotations": {"destructiveHint": False}},
    {"name": "odd", "annotations": {"idempotentHint": "yes"}},
]


class Upstream:
    """Lists its tools, or fails to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.listed = 0

    async def __call__(self, exchange: Exchange) -> Reply:
        self.listed += 1
        if self.fails:
            raise ConnectFailed("down")
        return Result({"tools": TOOLS})


@pytest.mark.parametrize(
    ("exchange", "expected"),
    [
        (memory_exchange("tools/list"), True),
        (memory_exchange("resources/read", {"uri": "a"}), True),
        (memory_exchange("resources/read", {"uri": "a", "requestState": "s"}), False),
        (memory_exchange("prompts/get", {"name": "a", "inputResponses": {}}), False),
        (memory_exchange("initialize"), False),
        (memory_exchange("tasks/cancel", {"taskId": "t"}), False),
        (memory_exchange("vendor/unknown"), False),
        (memory_exchange("vendor/listed"), True),
        (memory_exchange("subscriptions/listen"), False),
        (memory_exchange("notifications/roots/list_changed"), False),
        (_call("pay"), False),
        (_call("db_get"), True),
        (_call("db_get", requestState="s"), False),
        (_call("read"), False),
    ],
    ids=lambda value: f"{value.method}-{value.target}" if isinstance(value, Exchange) else None,
)
async def test_reads_and_what_is_listed_may_be_sent_twice(exchange: Exchange, expected: bool) -> None:
    """Never what takes up an earlier request, and a tool only if somebody vouches for it."""
    assert Repeatables(["db_*", "vendor/listed"], trust_hints=False).covers(exchange) == expected


async def test_trusted_hints_are_looked_up_once(autojump_clock: MockClock) -> None:
    """Read-only and idempotent tools are repeatable; anything else is not, rubbish included."""
    upstream, repeatables = Upstream(), Repeatables([], trust_hints=True)

    assert repeatables.needs_lookup(_call("read"))
    await repeatables.look_up(_call("read"), upstream)
    assert [tool["name"] for tool in TOOLS if repeatables.covers(_call(str(tool["name"])))] == ["read", "put"]
    assert [tool["name"] for tool in TOOLS if repeatables.reads(_call(str(tool["name"])))] == ["read"]
    assert not repeatables.needs_lookup(_call("read"))
    assert not repeatables.needs_lookup(memory_exchange("tools/list"))
    assert upstream.listed == 1


async def test_a_listing_that_fails_is_not_tried_again_soon(autojump_clock: MockClock) -> None:
    """An upstream that is down must not get twice the requests."""
    repeatables = Repeatables(["listed"], trust_hints=True)

    await repeatables.look_up(_call("read"), Upstream(fails=True))
    assert not repeatables.covers(_call("read"))
    assert not repeatables.needs_lookup(_call("read"))
    await trio.sleep(LOOKUP_PAUSE_S)
    assert repeatables.needs_lookup(_call("read"))
    assert not repeatables.needs_lookup(_call("listed"))


async def test_lists_that_pass_are_learned_and_forgotten_when_they_change(autojump_clock: MockClock) -> None:
    """A client that lists first spares the lookup; `list_changed` makes void what was known."""
    changes, repeatables = Changes(), Repeatables([], trust_hints=True)
    stop = repeatables.listen(changes)

    repeatables.learn(memory_exchange("tools/list"), Result({"tools": TOOLS}))
    assert repeatables.covers(_call("read"))
    changes.announce("files", Notification("notifications/tools/list_changed"))
    assert not repeatables.covers(_call("read"))
    stop()
    assert len(changes) == 0


async def test_a_list_that_cannot_be_read_teaches_nothing() -> None:
    """It is the client's to see; the stage stays out of it."""

    repeatables = Repeatables([], trust_hints=True)

    repeatables.learn(memory_exchange("tools/list"), Result(raw=b'{"tools": [], "tools": []}'))
    repeatables.learn(memory_exchange("tools/call", {"name": "a"}), Result({"tools": TOOLS}))

    assert not repeatables.covers(_call("read"))


async def test_without_trust_hints_are_not_even_kept() -> None:
    """Nothing listens, nothing is learned, nothing is looked up."""
    changes, repeatables = Changes(), Repeatables([], trust_hints=False)
    stop = repeatables.listen(changes)
    repeatables.learn(memory_exchange("tools/list"), Result({"tools": TOOLS}))

    assert (len(changes), repeatables.needs_lookup(_call("read")), repeatables.reads(_call("read"))) == (
        0,
        False,
        False,
    )
    stop()
