"""The server on real loopback sockets, once per feature that needs them."""

from __future__ import annotations

import json
import socket
import stat
import struct

import pytest
import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.transports.http_source.config import HttpConfig
from sluiceway.transports.http_source.connections import WireConnection
from sluiceway.transports.http_source.source import HttpSource


async def dial(address):
    """A TCP connection to `host:port`."""
    host, _, port = address.rpartition(":")
    return await trio.open_tcp_stream(host.strip("[]"), int(port))


async def exchange(address, data):
    """Send bytes, read to the end."""
    stream = await dial(address)
    async with stream:
        await stream.send_all(data)
        answer = b""
        while piece := await stream.receive_some():
            answer += piece
        return answer


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def ipv6():
    """Whether there is an IPv6 loopback here."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_it_serves_on_every_address_it_is_bound_to(running, tmp_path):
    """A list of them: port 0 takes a free one, Unix sockets work alike and are removed at the end."""
    path = tmp_path / "gateway.sock"
    binds = ["127.0.0.1:0", "127.0.0.1:0", f"unix:{path}", *(["[::1]:0"] if ipv6() else [])]
    async with running(bind=tuple(binds), bound=True) as served:
        first, second, unix, *rest = served.source.addresses
        for address in (first, second, *rest):
            assert (await exchange(address, HEALTH)).startswith(b"HTTP/1.1 200 ")
        stream = await trio.open_unix_socket(str(path))
        async with stream:
            await stream.send_all(HEALTH)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")

        assert len({first, second}) == 2
        assert f"unix:{path}" == unix
        assert f"http://{first}/mcp" == served.source.urls[0]
        assert len(binds) - 1 == len(served.source.urls)
    assert not path.exists()


async def test_the_remote_address_is_the_clients(running):
    """Without the port."""
    seen = []

    async def sink(exchange):
        seen.append(exchange.client.address)
        return Result()

    async with running(sink, bound=True) as served:
        body = served.modern("tools/list")
        lines = [f"{k.replace('_', '-')}: {v}" for k, v in served.mirror(body).items() if v]
        await exchange(served.source.addresses[0], served.raw_post(body, *lines, "connection: close"))

        assert ["127.0.0.1"] == seen


async def test_an_address_that_is_taken_is_named(running):
    """Opening fails with the address; what was opened before it is closed again."""
    async with running(bound=True) as served:
        [taken] = served.source.addresses
        other = HttpSource(HttpConfig(bind=("127.0.0.1:0", taken)), Context(id="other"))
        with pytest.raises(OSError, match=f"cannot listen on {taken}: Address already in use"):
            async with other.open():
                pytest.fail("it opened")  # pragma: no cover

        assert () == other.addresses


async def test_a_dead_sockets_path_is_taken_over_and_a_live_ones_is_not(running, tmp_path):
    """A crash leaves the file of a Unix socket behind; a running process owns it."""
    path = tmp_path / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with running(bind=f"unix:{path}", bound=True):
        other = HttpSource(HttpConfig(bind=f"unix:{path}"), Context(id="other"))
        with pytest.raises(OSError, match="Address already in use"):
            async with other.open():
                pytest.fail("it opened")  # pragma: no cover


async def test_socket_access_says_whose_processes_may_connect(running, tmp_path):
    """To its Unix sockets; none but the gateway's own user's otherwise."""
    path = tmp_path / "gateway.sock"
    for options, mode in (({}, 0o600), ({"socket_access": "group"}, 0o660)):
        async with running(bind=f"unix:{path}", bound=True, **options):
            assert mode == stat.S_IMODE(path.stat().st_mode)


async def test_opening_holds_the_sockets_and_closing_gives_them_back():
    """Between the two, clients can connect; under another server there is nothing to hold."""
    source = HttpSource(HttpConfig(bind="127.0.0.1:0"), Context(id="web"))
    async with source.open():
        [address] = source.addresses
        await (await dial(address)).aclose()
    with pytest.raises(OSError, match=r"refused|failed|connect"):
        await dial(address)
    guest = HttpSource(HttpConfig(bind="127.0.0.1:0"), Context(id="web", listen=False))
    async with guest.open():
        assert ((), (), None) == (guest.addresses, guest.urls, guest.server)


async def test_connections_are_counted_while_they_are_open(running):
    """`mcp_active_connections` goes up and comes down; a server that is not ours is not counted."""

    def counted(source):
        return {figure.name: figure.value for figure in source.figures()}

    async def sink(_exchange):
        return Result()

    async with running(sink, bound=True) as served:
        before = counted(served.source)
        stream = await dial(served.source.addresses[0])
        while counted(served.source)["mcp_active_connections"] == 0:
            await trio.lowlevel.checkpoint()
        during = counted(served.source)
        await stream.aclose()
        while counted(served.source)["mcp_active_connections"] == 1:
            await trio.lowlevel.checkpoint()
        after = counted(served.source)

    assert before == after
    assert (before["mcp_active_connections"], during["mcp_active_connections"]) == (0, 1)
    assert before.keys() == {
        "mcp_active_connections", "http_turned_away_total", "http_contained_total", "http_sessions",
    }  # fmt: skip
    guest = HttpSource(HttpConfig(bind="127.0.0.1:0"), Context(id="web", listen=False))
    assert counted(guest) == {}


async def test_it_stops_accepting_and_finishes_what_is_open(running):
    """The listener is closed at once; the open call is answered and its connection closed."""
    release = trio.Event()

    async def sink(exchange):
        await release.wait()
        return Result()

    async with running(sink, bound=True) as served:
        [address] = served.source.addresses
        body = served.modern("tools/list")
        lines = [f"{k.replace('_', '-')}: {v}" for k, v in served.mirror(body).items() if v]
        stream = await dial(address)
        async with stream:
            await stream.send_all(served.raw_post(body, *lines))
            while not served.pipeline.lane.tickets:
                await trio.lowlevel.checkpoint()
            served.source.stop_accepting()
            with pytest.raises(OSError, match=r"refused|failed|connect"):
                await dial(address)
            release.set()
            answer = b""
            while piece := await stream.receive_some():
                answer += piece

        assert b'"result":{}' in answer
        assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_cancels_its_modern_call(running, how):
    """By closing its end or by a reset."""
    cancelled = trio.Event()

    async def sink(exchange):
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with running(sink, bound=True) as served:
        body = served.modern("tools/list")
        lines = [f"{k.replace('_', '-')}: {v}" for k, v in served.mirror(body).items() if v]
        stream = await dial(served.source.addresses[0])
        await stream.send_all(served.raw_post(body, *lines))
        while not served.pipeline.lane.tickets:
            await trio.lowlevel.checkpoint()
        if how == "reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        await cancelled.wait()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel has no TCP_USER_TIMEOUT")
async def test_a_client_that_reads_nothing_is_cut(running):
    """`stall_timeout`: the kernel ends the connection, and with it the write that waits for it."""

    async def sink(exchange):
        return Result({"much": "x" * 30_000_000})

    async with running(sink, bound=True, stall_timeout=0.5) as served:
        body = served.modern("tools/list")
        lines = [f"{k.replace('_', '-')}: {v}" for k, v in served.mirror(body).items() if v]
        stream = await dial(served.source.addresses[0])
        async with stream:
            await stream.send_all(served.raw_post(body, *lines))
            while not served.source.server.connections:
                await trio.lowlevel.checkpoint()
            while served.source.server.connections:  # noqa: ASYNC110  # the kernel's timer, no event of ours
                await trio.sleep(0.05)

        assert 1 == served.pipeline.served


async def test_ending_does_not_wait_for_a_client_that_reads_nothing(running):
    """Writing is not shielded: a cancelled source is gone at once."""

    async def sink(exchange):
        return Result({"much": "x" * 30_000_000})

    async with running(sink, bound=True, stall_timeout=60.0) as served:
        body = served.modern("tools/list")
        lines = [f"{k.replace('_', '-')}: {v}" for k, v in served.mirror(body).items() if v]
        stream = await dial(served.source.addresses[0])
        await stream.send_all(served.raw_post(body, *lines))
        while not served.pipeline.served:
            await trio.lowlevel.checkpoint()
    await stream.aclose()


async def test_no_exception_of_a_connection_ends_another(running, monkeypatch):
    """Whatever goes wrong inside a connection is contained, logged once per place, and counted."""

    def broken(self, data):
        raise ZeroDivisionError("by accident")

    async with running(bound=True) as served:
        [address] = served.source.addresses
        with monkeypatch.context() as patch:
            patch.setattr(WireConnection, "feed", broken)
            for _ in range(3):
                assert b"" == await exchange(address, HEALTH)

        assert (await exchange(address, HEALTH)).startswith(b"HTTP/1.1 200 ")
        assert 3 == served.source.server.contained
        assert 1 == len([e for e in served.log.entries if e["log_level"] == "error"])


async def test_the_answer_arrives_even_if_the_body_was_not_read(running):
    """A refusal is not reset away: the server reads on for a moment after it."""
    async with running(bound=True) as served:
        stream = await dial(served.source.addresses[0])
        async with stream:
            head = served.raw_post(b"").replace(b"content-length: 0", b"content-length: 50000000")
            await stream.send_all(head + b" " * 2_000_000)
            answer = b""
            while piece := await stream.receive_some():
                answer += piece

        assert answer.startswith(b"HTTP/1.1 413 ")
        assert 41300 == json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]


async def test_a_drain_before_serving_accepts_nothing(running):
    """`stop_accepting` comes first, serving afterwards: there is nothing to listen on."""
    source = HttpSource(HttpConfig(bind="127.0.0.1:0"), Context(id="web"))
    async with source.open():
        source.stop_accepting()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(source.serve, None)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
