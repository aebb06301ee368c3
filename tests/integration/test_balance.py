"""Three real servers as one group: one is killed under load, and comes back."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from typing import Any

import trio

from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, Result
from sluiceway.pipeline.testing import PipelineHarness, legacy_client

SERVER = """
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result = {"pid": os.getpid()}
    if message["method"] == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "s"}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}


def config(era: str, **options: Any) -> dict[str, Any]:
    """A gateway over three servers."""
    child = {"stdio": {"command": [sys.executable, "-c", SERVER], "lifetime": "plain", "era": era}}
    balance = {"to": ["one", "two", "three"], "strategy": "round_robin", "slow_start": "0s", **options}
    return {
        "version": 1,
        "sources": {"test": {"stdio": {}}},
        "pipelines": {"main": {"sink": "all"}},
        "sinks": {"all": {"balance": balance}, "one": child, "two": child, "three": child},
    }


def pid_of(reply: Reply) -> int:
    """Which process has answered."""
    assert isinstance(reply, Result), reply
    return int(reply.value["pid"])


async def test_a_server_is_killed_under_load_and_nothing_unsent_is_lost() -> None:
    """What it had in flight fails; everything else is answered; and the one that is started in its place serves."""
    data = config("modern", health={"interval": "100ms", "timeout": "5s"}, eject={"base": "200ms"})
    async with PipelineHarness.from_data(data) as gateway:
        pids = {pid_of(await gateway.call("tools/call", name="warm")) for _ in range(3)}
        assert len(pids) == 3
        victim = min(pids)
        replies: list[Reply] = []

        async def client(number: int) -> None:
            for turn in range(40):
                replies.append(await gateway.call("tools/call", name="work"))
                if number == 0 and turn == 10:
                    os.kill(victim, signal.SIGKILL)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(client, number)
        lost = [reply for reply in replies if isinstance(reply, ErrorReply)]
        served = Counter(pid_of(reply) for reply in replies if isinstance(reply, Result))

        assert len(replies) == 320
        assert len(lost) <= 8  # one for each client at most: what was inside when it died
        assert {reply.data["reason"] for reply in lost} <= {"upstream_closed"}
        assert pids <= set(served)
        back: set[int] = set()
        with trio.fail_after(20):
            while len(back) < 3:
                back = {pid_of(await gateway.call("tools/call", name="again")) for _ in range(6)}

        assert victim not in back


async def test_a_session_whose_server_is_killed_is_opened_again_by_a_route() -> None:
    """In front of a group, a route repeats the handshake: a client that cannot do so itself does not notice."""
    data = config("legacy", health={"probe": "none"})
    data["sinks"]["front"] = {"route": {"to": ["all"], "prefixes": "never"}}
    data["pipelines"]["main"]["sink"] = "front"
    async with PipelineHarness.from_data(data) as gateway:
        gateway.client = legacy_client()
        session = gateway.client.session
        assert session is not None
        session.version = None
        hello = await gateway.call("initialize", HELLO)
        assert isinstance(hello, Result)
        session.version = "2025-11-25"
        home = pid_of(await gateway.call("acme/pid"))
        os.kill(home, signal.SIGKILL)
        moved = home
        with trio.fail_after(20):
            while moved == home:
                reply = await gateway.call("acme/pid")
                moved = home if isinstance(reply, ErrorReply) else pid_of(reply)
        assert not session.closed

        assert [pid_of(await gateway.call("acme/pid")) for _ in range(3)] == [moved] * 3
        session.close()
