"""A client that calls a service in its own process."""

import pytest
import trio

from sluiceway.pipeline.client.handlers import Handlers
from sluiceway.pipeline.client.memory import MAX_UNASKED, open_service_client
from sluiceway.pipeline.protocol.errors import UpstreamUnavailable
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Result

MODERN = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
LEGACY = {"protocolVersion": "2025-06-18", "capabilities": {}}


class Service:
    """Remembers its exchanges."""

    def __init__(self, **answers):
        self.answers = {"server_discover": ErrorReply(-32601, "no"), "initialize": Result(LEGACY), **answers}
        self.exchanges = []

    async def __call__(self, exchange):
        await trio.lowlevel.checkpoint()
        self.exchanges.append(exchange)
        if exchange.method == "tools/call":
            await exchange.relay(Notification("notifications/progress", {"progressToken": 3, "progress": 1}))
            answer = await exchange.ask("roots/list", {})
            return Result({"asked": answer.value})
        if exchange.kind is Kind.NOTIFY:
            return Result()
        return self.answers[exchange.method.replace("/", "_")]


async def test_a_legacy_service_gets_a_session_like_from_a_source():
    """Version and capabilities are known after the handshake, and the session ends with the block."""

    async def roots(_params):
        return {"roots": ["r"]}

    service, reports = Service(), []

    async def report(*values):
        reports.append(values)

    async with open_service_client(service, handlers=Handlers(roots=roots)) as client:
        result = await client.call_tool("x", on_progress=report)
        session = service.exchanges[-1].client.session

        assert ("2025-06-18", {"roots": {}}, False) == (session.version, session.capabilities, session.closed)

    assert [
        ("server/discover", Era.MODERN, False),
        ("initialize", Era.LEGACY, True),
        ("notifications/initialized", Era.LEGACY, True),
        ("tools/call", Era.LEGACY, True),
    ] == [(e.method, e.client.era, e.client.session is not None) for e in service.exchanges]
    assert result == {"asked": {"roots": ["r"]}}
    assert reports == [(1, None, "")]
    assert session.closed


async def test_a_modern_service_gets_no_session():
    """Every exchange carries what there is to know."""
    service = Service(server_discover=Result(MODERN), tools_list=Result({"tools": []}))
    async with open_service_client(service) as client:
        assert await client.list_tools() == []

    assert service.exchanges[-1].client.session is None
    assert service.exchanges[-1].client.version == "2026-07-28"


async def test_what_a_session_is_notified_of_is_heard_up_to_a_bound():
    """Nothing blocks, and nothing grows: what is over the bound is dropped."""
    heard = []

    async def hear(notification):
        heard.append(notification.method)

    service = Service()
    async with open_service_client(service, handlers=Handlers(notification=hear)):
        session = service.exchanges[-1].client.session
        for number in range(MAX_UNASKED + 5):
            session.notify(Notification(f"n{number}"))
        await trio.testing.wait_all_tasks_blocked()

    assert [f"n{number}" for number in range(MAX_UNASKED)] == heard


async def test_an_error_of_the_service_comes_out_as_it_is():
    """There is nothing in between that could change it."""

    async def broken(_exchange):
        raise UpstreamUnavailable("closed for today")

    with pytest.raises(UpstreamUnavailable, match="closed for today"):
        async with open_service_client(broken):
            raise AssertionError("there is nobody to talk to")
