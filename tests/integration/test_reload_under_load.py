"""Reloads while clients call: no request fails, no child is restarted, nothing is left."""

from __future__ import annotations

import sys
from typing import Any

import psutil
import trio

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.session import Client, Session
from sluiceway.pipeline.protocol.mcp import LATEST_LEGACY, Era
from sluiceway.pipeline.protocol.messages import Notification, Request, Result
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.pipeline.testing import MODERN_CLIENT, leak_check

SERVER = """\
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        info = {"name": "s", "version": "1"}
        hello = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
        result = hello if message["method"] == "initialize" else {"pid": os.getpid()}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""
RELOADS = 25


def document(number: int) -> Any:
    """The same servers behind other stages each time: straight, and as the part of a route."""
    stage = {"timeout": {"after": f"{20 + number}s"}}
    return from_data(
        {
            "version": 1,
            "sources": {"in": {"stdio": {}, "pipeline": "straight"}},
            "pipelines": {
                "straight": {"chain": [stage], "sink": "one"},
                "merged": {"chain": [stage], "sink": "all"},
            },
            "sinks": {
                "all": {"route": {"to": ["two"]}, "chain": [stage]},
                "one": {"stdio": {"command": [sys.executable, "-c", SERVER], "lifetime": "plain"}, "chain": [stage]},
                "two": {
                    "stdio": {"command": [sys.executable, "-c", SERVER], "lifetime": "plain"},
                    "max_in_flight": 50 + number,
                },
            },
            "run": {"drain_timeout": "10s"},
        }
    )


class Peer:
    """A client that calls one pipeline again and again."""

    def __init__(self, engine: Engine, pipeline: str, name: str, client: Client) -> None:
        self.engine = engine
        self.pipeline = pipeline
        self.name = name
        self.client = client
        self.pids: set[int] = set()
        self.calls = 0
        self.served = trio.Event()

    async def ask(self, method: str, **params: Any) -> Any:
        """One exchange, in the generation of the moment."""
        message: Any = Notification(method) if method.startswith("notifications/") else Request(1, method, params)

        async def emit(_: Notification) -> None:
            await trio.lowlevel.checkpoint()

        return await self.engine.pipelines[self.pipeline].handle(message, client=self.client, emit=emit).run()

    async def run(self, done: trio.Event) -> None:
        """Call until told to stop."""
        if self.client.era is Era.LEGACY:
            hello = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
            assert isinstance(await self.ask("initialize", **hello), Result)
            await self.ask("notifications/initialized")
        while not done.is_set():
            reply = await self.ask("tools/call", name=self.name)
            assert isinstance(reply, Result), reply
            self.pids.add(reply.value["pid"])
            self.calls += 1
            self.served.set()


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


async def test_reloads_under_load_fail_no_request_and_restart_no_child() -> None:
    """Legacy sessions and modern clients, on a sink and behind a route, keep the process they have."""
    others = _children()  # a gateway that other tests of this worker share
    with trio.fail_after(60), leak_check():
        engine = Engine(document(0))
        done = trio.Event()
        sessions = [Session(id=f"s{number}", source="in", last_activity=0.0) for number in range(2)]
        peers = [
            Peer(engine, pipeline, name, client)
            for pipeline, name, session in (("straight", "x", sessions[0]), ("merged", "two.x", sessions[1]))
            for client in (MODERN_CLIENT, Client(era=Era.LEGACY, version=LATEST_LEGACY, session=session))
        ]
        engine._sources.clear()  # no test has standard streams to serve
        async with engine.running():
            async with trio.open_nursery() as nursery:
                for peer in peers:
                    nursery.start_soon(peer.run, done)
                for peer in peers:
                    await peer.served.wait()
                before = _children() - others
                for number in range(1, RELOADS + 1):
                    await engine.reload(document(number))
                after = _children() - others
                done.set()
            assert engine.status()["generation"] == RELOADS + 1
            for session in sessions:
                session.close()

    assert after == before
    assert [1] * len(peers) == [len(peer.pids) for peer in peers]
    assert len(peers) == len(set().union(*(peer.pids for peer in peers)))
    assert all(peer.calls > RELOADS for peer in peers)
    assert not [pid for pid in before if psutil.pid_exists(pid)]
