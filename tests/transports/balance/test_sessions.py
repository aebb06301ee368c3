"""Legacy sessions stay where they are, as long as that is there."""

from __future__ import annotations

import pytest
import trio

from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    ConnectFailed,
    SessionNotFound,
    UpstreamClosed,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.messages import ErrorReply, Result
from sluiceway.pipeline.testing import legacy_client, memory_exchange

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}


async def opened(made, name="one"):
    """A client that has shaken hands, and with whom."""
    client = legacy_client(session_id=name)
    reply = await made.sink(memory_exchange("initialize", HELLO, client=client))
    return client, reply.value["serverInfo"]["name"]


async def test_a_session_stays_with_whom_it_has_shaken_hands(autojump_clock, group):
    """Requests and notifications; others are elsewhere, spread as requests are."""
    async with group(strategy="round_robin") as made:
        clients = [await opened(made, name) for name in ("one", "two", "three")]
        assert [home for _, home in clients] == ["a", "b", "c"]
        for client, home in clients:
            await made.sink(memory_exchange("notifications/initialized", client=client))
            assert [await made.call(client=client) for _ in range(3)] == [home] * 3

        assert made.ups["b"].methods == ["initialize", "notifications/initialized", *["tools/call"] * 3]
        assert [each["sessions"] for each in made.sink.details()["upstreams"].values()] == [1, 1, 1]


async def test_a_handshake_goes_on_to_the_next(autojump_clock, group):
    """The one that answered is the session's."""
    async with group("a", "b", strategy="round_robin") as made:
        made.ups["a"].error = ConnectFailed("no")

        assert (await opened(made))[1] == "b"


async def test_a_handshake_that_is_refused_pins_nothing(autojump_clock, group):
    """The next one may go elsewhere."""
    async with group("a", "b", strategy="round_robin") as made:
        made.ups["a"].answers["initialize"] = lambda _: ErrorReply(-32602, "no")
        client = legacy_client()
        await made.sink(memory_exchange("initialize", HELLO, client=client))
        with pytest.raises(SessionNotFound):
            await made.call(client=client)
        await made.sink(memory_exchange("initialize", HELLO, client=client))

        assert await made.call(client=client) == "b"


@pytest.mark.parametrize("error", [ConnectFailed("dead"), UpstreamUnavailable("known to be down")])
async def test_when_its_upstream_is_gone_the_session_is_over(autojump_clock, group, error):
    """The client is told to initialize again; the session ends a little later, so that this can still be said."""
    async with group("a", "b", strategy="round_robin") as made:
        client, _ = await opened(made)
        made.ups["a"].error = error
        with pytest.raises(SessionNotFound, match="a, which had this session, is gone"):
            await made.call(client=client)
        assert not client.session.closed
        await trio.sleep(2)
        assert client.session.closed

        assert (await opened(made, "again"))[1] == "b"


async def test_a_session_that_has_nowhere_else_to_go_stays(autojump_clock, group):
    """The failure is said as it is."""
    async with group("a") as made:
        client, _ = await opened(made)
        made.ups["a"].error = ConnectFailed("dead")
        with pytest.raises(ConnectFailed):
            await made.call(client=client)
        made.ups["a"].error = None

        assert await made.call(client=client) == "a"


@pytest.mark.parametrize("error", [CapacityExceeded("full"), UpstreamClosed("lost"), ErrorReply(-32603, "broken")])
async def test_other_failures_do_not_move_a_session(autojump_clock, group, error):
    """Not even those that put its upstream out for everybody else."""
    async with group("a", "b", strategy="round_robin", eject={"consecutive": 1}) as made:
        client, _ = await opened(made)
        if isinstance(error, ErrorReply):
            made.ups["a"].answers["tools/call"] = lambda _: error
            await made.sink(memory_exchange("tools/call", {"name": "t"}, client=client))
        else:
            made.ups["a"].error = error
            with pytest.raises(type(error)):
                await made.call(client=client)
        made.ups["a"].error = None
        made.ups["a"].answers.clear()

        assert await made.call(client=client) == "a"


async def test_a_session_of_an_upstream_that_probes_find_down_is_over(autojump_clock, group):
    """A server that hangs is left without waiting for it."""
    health = {"probe": "discover", "interval": "1s", "timeout": "500ms"}
    async with group("a", "b", strategy="round_robin", health=health) as made:
        client, _ = await opened(made)
        made.ups["a"].delay = 1000
        await trio.sleep(5)
        began = trio.current_time()
        with pytest.raises(SessionNotFound):
            await made.call(client=client)

        assert trio.current_time() == began


async def test_an_upstream_that_has_forgotten_a_session_loses_it(autojump_clock, group):
    """Its word is passed on, and a new handshake goes anywhere."""
    async with group("a", "b", strategy="round_robin") as made:
        client, _ = await opened(made)
        made.ups["a"].error = SessionNotFound("no such session")
        with pytest.raises(SessionNotFound):
            await made.call(client=client)
        await made.sink(memory_exchange("initialize", HELLO, client=client))

        assert await made.call(client=client) == "b"


async def test_a_stranger_may_ping_and_notify(autojump_clock, group):
    """A session without a handshake has no upstream yet."""
    async with group("a") as made:
        client = legacy_client()
        assert Result() == await made.sink(memory_exchange("notifications/initialized", client=client))
        assert made.ups["a"].seen == []
        await made.sink(memory_exchange("ping", client=client))

        assert made.ups["a"].methods == ["ping"]


async def test_sessions_outlive_a_reload(autojump_clock, group):
    """The next generation finds them where they were; one that ends is forgotten."""
    kept: dict = {}
    async with group("a", "b", strategy="round_robin", kept=kept) as made:
        client, _ = await opened(made)
    assert client.session._on_close == []  # a closed generation holds on to nobody
    async with group("b", "a", strategy="round_robin", kept=kept) as made:
        assert [await made.call(client=client) for _ in range(2)] == ["a", "a"]
        client.session.close()

        assert [each["sessions"] for each in made.sink.details()["upstreams"].values()] == [0, 0]


async def test_a_session_of_an_upstream_that_was_removed_is_over(autojump_clock, group):
    """Nobody else has it."""
    async with group("a", strategy="round_robin") as made:
        client, _ = await opened(made)
    async with group("b") as made:
        with pytest.raises(SessionNotFound):
            await made.call(client=client)
