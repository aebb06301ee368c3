"""The sink as a whole: its contract, its cancellation, its bounds, its end."""

from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import FakeSink, cancel_everywhere, check_sink, legacy_client, memory_exchange
from sluiceway.transports.route.config import RouteConfig
from sluiceway.transports.route.sink import MAX_VIEWS, RouteSink


async def _echo(exchange):
    """A service that keeps nothing."""
    await trio.lowlevel.checkpoint()
    member = {"tools/list": "tools", "prompts/list": "prompts", "resources/list": "resources"}.get(exchange.method)
    return Result({member: []} if member else {"method": exchange.method})


class OverFakes(RouteSink):
    """The sink with upstreams of its own."""

    def __init__(self, config, context):
        context.sinks = lambda _: _echo
        super().__init__(config, context)


def test_the_sink_keeps_the_contract():
    """Cancelled at every checkpoint, opened twice, asked for many things."""
    check_sink(OverFakes, {"to": ["one", "two"], "rules": [{"to": "one", "glob": "*"}]})


@pytest.mark.parametrize("prefixes", ["always", "never"])
@pytest.mark.parametrize("method", ["tools/list", "tools/call", "initialize", "server/discover", "resources/read"])
async def test_a_cancelled_exchange_leaves_nothing(autojump_clock, scripted, method, prefixes):
    """At whatever point: the next one is served as if nothing had been."""
    params = {"name": "one.a", "uri": "a://1", "protocolVersion": "2025-11-25"}

    @asynccontextmanager
    async def trial():
        ups = [scripted(n, delay=0.1, tools=[["a"]], resources=[["a://1"]]) for n in ("one", "two")]
        for up in ups:
            up.answers["server/discover"] = lambda _: Result({"supportedVersions": ["2026-07-28"]})
        client = legacy_client()
        config = RouteConfig(to=("one", "two"), prefixes=prefixes, collisions="first")
        sink = RouteSink(config, Context(id="sinks.all", sinks={u.name: u.sink for u in ups}.__getitem__))
        async with sink.open():
            yield lambda: sink(memory_exchange(method, params, client=client))
            await wait_all_tasks_blocked()
            client.session.version = None
            reply = await sink(memory_exchange("initialize", params, client=client))

            assert isinstance(reply, Result)
            assert "_meta" not in reply.value

    assert await cancel_everywhere(trial) > 1


async def test_a_cancelled_listener_leaves_nothing(autojump_clock):
    """Neither at the upstreams nor among those the route tells."""

    @asynccontextmanager
    async def trial():
        ups = {name: FakeSink() for name in ("one", "two")}
        sink = RouteSink(RouteConfig(to=("one", "two")), Context(id="sinks.all", sinks=ups.__getitem__))

        async def listen() -> None:
            with trio.move_on_after(20):
                await sink(memory_exchange("subscriptions/listen", {"notifications": {}}))

        async with sink.open():
            yield listen

    assert await cancel_everywhere(trial) > 5


async def test_a_closed_route_takes_no_requests(autojump_clock):
    """Before it opens and after it has closed."""
    sink = RouteSink(RouteConfig(to=("one",)), Context(id="sinks.all", sinks=lambda _: FakeSink.echo()))
    async with sink.open():
        assert Result() == await sink(memory_exchange("ping"))
    with pytest.raises(UpstreamUnavailable, match="is closed"):
        await sink(memory_exchange("ping"))


async def test_what_is_known_of_principals_is_bounded(autojump_clock):
    """The one not seen for longest is forgotten."""
    sink = RouteSink(RouteConfig(to=("one",)), Context(id="sinks.all", sinks=lambda _: FakeSink.echo()))
    async with sink.open():
        for number in range(MAX_VIEWS + 10):
            await sink(memory_exchange("ping", caller=Caller(f"c{number}")))

        assert MAX_VIEWS == sink.views
    assert 0 == sink.views


async def test_what_one_client_learned_is_not_known_to_another(autojump_clock, scripted, routed):
    """Uris may mean something else to another principal."""
    one, two = scripted("one", resources=[["x://1"]]), scripted("two", resources=[["x://1"]])
    async with routed(one, two) as gateway:
        gateway.caller = Caller("ana")
        one.lists, kept = {"resources": [[]]}, one.lists
        await gateway.call("resources/list")
        anas = await gateway.call("resources/read", uri="x://1")
        one.lists = kept
        gateway.caller = Caller("bob")
        bobs = await gateway.call("resources/read", uri="x://1")

    assert ["two", "one"] == [anas.value["by"], bobs.value["by"]]


async def test_a_session_survives_another_generation_of_the_route(autojump_clock, scripted):
    """After a reload, upstreams go on with the client they know."""
    client = legacy_client()
    up = scripted("one")
    for number in range(2):
        sink = RouteSink(RouteConfig(to=("one",)), Context(id="sinks.all", sinks=lambda _: up.sink))
        async with sink.open():
            if number == 0:
                await sink(memory_exchange("initialize", {"protocolVersion": "2025-11-25"}, client=client))
                await sink(memory_exchange("notifications/initialized", client=client))
            reply = await sink(memory_exchange("tools/call", {"name": "one.x"}, client=client))

            assert "one" == reply.value["by"]

    assert ["initialize", "notifications/initialized", "tools/call", "tools/call"] == up.methods
    assert 1 == len({exchange.client.session for exchange in up.sink.exchanges})


async def test_ids_of_a_key_that_is_configured_are_read_by_another_process(autojump_clock, scripted, monkeypatch):
    """cursor_key: cursors outlive the process that made them; without one they do not."""
    monkeypatch.setenv("ROUTE_KEY", "s3cret")
    up = scripted("one", tools=[["a"], ["b"]])

    async def ask(config, **params):
        sink = RouteSink(config, Context(id="sinks.all", sinks=lambda _: up.sink))
        async with sink.open():
            return await sink(memory_exchange("tools/list", params))

    shared = RouteConfig(to=("one",), cursor_key=Secret(from_env="ROUTE_KEY"))
    first = await ask(shared)
    second = await ask(shared, cursor=first.value["nextCursor"])

    assert ["one.b"] == [tool["name"] for tool in second.value["tools"]]
    with pytest.raises(Exception, match="not a cursor"):
        await ask(RouteConfig(to=("one",)), cursor=first.value["nextCursor"])


async def test_another_separator_and_prefix(autojump_clock, scripted, routed, all_pages):
    """separator and prefix make the names; a bare upstream has none."""
    ups = [scripted(name, tools=[["a_b"]], prompts=[["p"]]) for name in ("one", "two")]
    to = {"one": {"prefix": "my_files"}, "two": {"prefix": "", "prompts": {"deny": ["p"]}}}
    async with routed(*ups, to=to, separator="_") as gateway:
        names = await all_pages(gateway, "tools/list")
        prompts = await all_pages(gateway, "prompts/list")
        replies = [await gateway.call("tools/call", name=name) for name in names[0]]

    assert [["my_files_a_b", "a_b"]] == names
    assert [["my_files_p"]] == prompts
    assert [("one", "a_b"), ("two", "a_b")] == [(r.value["by"], r.value["params"]["name"]) for r in replies]
