"""configs/capabilities.yaml does what it says: the example of S4-CA-07 among it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sluiceway.pipeline.config import load
from sluiceway.pipeline.model.session import ANONYMOUS, Caller
from sluiceway.pipeline.protocol.messages import ErrorReply
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

SAMPLE = Path(__file__).resolve().parents[3] / "configs" / "capabilities.yaml"
USER = Caller("user-123", how="bearer")
EDITOR = Caller("eve", how="bearer", roles=frozenset({"editor"}))
ADMIN = Caller("ada", how="bearer", roles=frozenset({"admin"}))
WRITER = Caller("ada", how="bearer", roles=frozenset({"admin"}), scopes=frozenset({"counters:write"}))


@pytest.mark.parametrize(
    ("caller", "method", "params", "passes"),
    [
        (ANONYMOUS, "tools/call", {"name": "echo"}, True),
        (ANONYMOUS, "tools/call", {"name": "increment"}, False),
        (ANONYMOUS, "resources/read", {"uri": "files/a"}, False),
        (USER, "resources/read", {"uri": "files/a/b"}, True),
        (USER, "resources/read", {"uri": "files/../etc/passwd"}, False),
        (USER, "resources/subscribe", {"uri": "files/a/b"}, False),
        (USER, "resources/read", {"uri": "database/public/orders"}, True),
        (USER, "resources/read", {"uri": "database/private/orders"}, False),
        (USER, "resources/read", {"uri": "database/public/secret-orders"}, False),
        (USER, "tools/call", {"name": "query"}, True),
        (USER, "tools/call", {"name": "query_secret"}, False),
        (EDITOR, "tools/call", {"name": "add_note", "arguments": {"title": "a", "text": "milk"}}, True),
        (EDITOR, "tools/call", {"name": "add_note", "arguments": {"title": "a", "text": "my password is"}}, False),
        (ADMIN, "resources/read", {"uri": "note://a"}, True),
        (ADMIN, "tools/call", {"name": "reset_counter"}, False),
        (WRITER, "tools/call", {"name": "reset_counter"}, True),
    ],
)
async def test_who_may_do_what(
    caller: Caller, method: str, params: dict[str, Any], passes: bool, autojump_clock: Any
) -> None:
    """By subject, by role, by scope, by action, by argument; and a refusal never reaches the server."""
    sink = FakeSink.echo()
    async with PipelineHarness(load(SAMPLE), sinks={"demo": sink}) as gateway:
        gateway.caller = caller
        reply = await gateway.call(method, params)

    assert passes == (len(sink.requests) == 1)
    assert passes == (not isinstance(reply, ErrorReply))


async def test_the_hundred_and_first_read_of_a_minute_is_refused(autojump_clock: Any) -> None:
    """S4-CA-05."""
    async with PipelineHarness(load(SAMPLE), sinks={"demo": FakeSink.echo()}) as gateway:
        gateway.caller = USER
        replies = [await gateway.call("resources/read", uri="files/a") for _ in range(101)]

    assert [100] == [number for number, reply in enumerate(replies) if isinstance(reply, ErrorReply)]
