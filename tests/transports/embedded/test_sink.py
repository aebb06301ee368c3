"""The sink's options, and finding its server."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.protocol.errors import ComponentError, UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.transports.embedded import Context as Request
from sluiceway.transports.embedded import Server
from sluiceway.transports.embedded.sink import EmbeddedSink

MODERN = "2026-07-28"


def made(**options: Any) -> EmbeddedSink:
    return EmbeddedSink(EmbeddedSink.Config(**options), Context(id="kit"))


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of a user's own."""
    module = ModuleType("users_own")
    server = Server("own", version="3")
    server.tool(name="t")(lambda: "own")
    module.server = server  # type: ignore[attr-defined]
    module.make = lambda: server  # type: ignore[attr-defined]
    module.number = 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "users_own", module)
    return module


@pytest.mark.parametrize("target", ["users_own:server", "users_own:make"])
async def test_python_and_yaml_build_the_same_server(connect: Any, module: Any, target: str) -> None:
    """A server named in a configuration gives what the object gives (S0-HC-01)."""
    async with connect(module.server) as peer:
        expected = await peer.result("initialize", {"protocolVersion": "2025-11-25"})
        peer.sink = made(server=target)
        async with peer.sink.open():
            actual = await peer.result("initialize", {"protocolVersion": "2025-11-25"})

    assert expected == actual


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("nonsense", "neither module:attribute nor one of demo"),
        ("no.such.module:server", "ModuleNotFoundError"),
        ("users_own:missing", "AttributeError"),
        ("users_own:number", "is a int, not a Server"),
    ],
)
async def test_a_server_that_cannot_be_found_stops_the_start(module: Any, target: str, problem: str) -> None:
    """The text names the target and what is wrong with it."""
    with pytest.raises(ComponentError, match=problem):
        async with made(server=target).open():
            pass


async def test_an_operator_may_give_another_name_and_version(connect: Any, version: str) -> None:
    """`name` and `version` override the server's own."""
    async with connect(Server("own", version="3"), version=version, name="given") as peer:
        info = peer.sink._runtime.info

    assert {"name": "given", "version": "3"} == info
    sink = EmbeddedSink.serving(Server("own"), version="4")
    async with sink.open():
        assert sink._runtime is not None
        assert "4" == sink._runtime.info["version"]


async def test_a_sink_that_is_not_open_is_unavailable(connect: Any) -> None:
    """Before and after its life it refuses."""
    async with connect(Server("s")) as peer:
        exchange, sink = peer.exchange("ping"), peer.sink

    with pytest.raises(UpstreamUnavailable, match="not open"):
        await sink(exchange)


async def test_the_named_store_is_the_handlers_store(connect: Any) -> None:
    """`store:` gives `ctx.store`; without it a handler says what is missing."""
    server = Server("s")

    class Fake:
        async def get(self, key: str) -> bytes:
            return key.encode()

    @server.tool()
    async def read(ctx: Request) -> str:
        return (await ctx.store.get("k") or b"").decode()

    async with connect(server, stores={"notes": Fake()}, store="notes") as peer:
        assert "k" == await peer.call("read")
    async with connect(server) as peer:
        result = await peer.call("read", raw=True)

    assert "`store:`" in result["content"][0]["text"]


async def test_processes_that_share_a_key_continue_each_others_requests(
    connect: Any, tmp_path: Path, autojump_clock: Any
) -> None:
    """With `state_key` a retry may go to another process; without, its state is refused there."""
    key = tmp_path / "key"
    key.write_text("a long and random text\n")
    server = Server("s")

    @server.tool()
    async def ask(ctx: Request) -> str:
        return (await ctx.elicit("Sure?", {"type": "object", "properties": {}}, key="sure")).action

    async def retry_elsewhere(**options: Any) -> Any:
        async with connect(server, version=MODERN, **options) as one, connect(server, version=MODERN, **options) as two:
            first = await one.result("tools/call", {"name": "ask"})
            answered = {"sure": {"action": "accept", "content": {}}}
            retry = {"name": "ask", "inputResponses": answered, "requestState": first["requestState"]}
            return await two.send("tools/call", retry)

    shared = await retry_elsewhere(state_key=Secret(from_file=key))
    alone = await retry_elsewhere()

    assert isinstance(shared, Result)
    assert -32602 == alone.code


async def test_a_missing_key_stops_the_start(connect: Any) -> None:
    """A secret that cannot be read is named."""
    with pytest.raises(LookupError, match="NO_SUCH_KEY"):
        async with connect(Server("s"), state_key=Secret(from_env="NO_SUCH_KEY")):
            pass


async def test_one_server_may_be_open_twice(connect: Any) -> None:
    """A reload opens the new sink before the old one closes; changes reach both."""
    server = Server("s")
    async with connect(server) as old:
        async with connect(server) as new:
            await old.result("ping")
            await new.result("ping")
            server.tool(name="t")(lambda: None)
        server.tools.remove("t")

    assert (2, 1) == (len(old.told), len(new.told))
