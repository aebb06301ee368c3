"""Hostile input in quantity: seeded rubbish, clients that vanish anywhere. Nothing dies, nothing is left."""

from __future__ import annotations

import json
import random

import pytest
import trio

from sluiceway.pipeline.protocol.messages import Notification, Result

JSON = b"Host: localhost\r\nContent-Type: application/json\r\nAccept: */*\r\n"
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
SEEDS = [
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nMcp-Session-Id: %b\r\nAccept: text/event-stream\r\n\r\n" % (b"0" * 32),
    b"POST /mcp HTTP/1.1\r\n" + JSON + b"Content-Length: 40\r\n\r\n" + PING,
    b"POST /mcp HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n28\r\n" + PING + b"\r\n0\r\n\r\n",
    b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x85\x00\x00\x00\x00hello",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"HTTP2-Settings: AA\r\n\r\n",
    b"DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n",
]
SPLICES = [
    b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\t", b"%00", b"..", b"chunked", b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"\xff", b"0" * 30,
    b"Host: x\r\n", b"HTTP/1.0", b"HTTP/2.0", b"{", b"[[[", b'"',
]  # fmt: skip


def mutate(rng: random.Random) -> bytes:
    """One to three seeds, bent in one to eight places."""
    data = bytearray(b"".join(rng.choice(SEEDS) for _ in range(rng.randint(1, 3))))
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data[at:at] = rng.choice(SPLICES)
            case 1:
                del data[at : at + rng.randint(1, 20)]
            case 2:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 3:
                data[at:at] = data[at : at + rng.randint(1, 40)]
            case 4:
                data[at:] = rng.randbytes(rng.randint(0, 60))
    return bytes(data)


@pytest.mark.parametrize("seed", range(6))
async def test_rubbish_ends_nothing(running, autojump_clock, seed):
    """500 bent connections a seed: no exception of ours, no connection left, and the server still answers."""
    rng = random.Random(seed)

    async def client(served, data, pieces, patience):
        wire = served.connect()
        try:
            for i in range(pieces):
                await wire.stream.send_all(data[i * len(data) // pieces : (i + 1) * len(data) // pieces])
                await trio.sleep(rng.choice([0, 0, 0.1]))
            with trio.move_on_after(patience):
                await wire.closed()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await wire.aclose()

    async with running(max_body=10_000) as served:
        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(client, served, mutate(rng), rng.randint(1, 4), rng.choice([0.0, 1.0, 30.0]))
        await trio.testing.wait_all_tasks_blocked()

        assert [] == [e for e in served.log.entries if e["log_level"] == "error"]
        assert (0, 0) == (served.source.server.contained, served.source.server.connections)
        assert 200 == (await served.ask("GET", "/healthz")).status


async def busy_sink(exchange):
    """Takes time at several places."""
    if exchange.method == "initialize":
        return Result({"protocolVersion": "2025-11-25"})
    await trio.sleep(0.3)
    for n in range(3):
        await exchange.relay(Notification("notifications/progress", {"progress": n}))
        await trio.sleep(0.3)
    if exchange.client.session is not None:
        await exchange.ask("roots/list", {})
    return Result()


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_clients_that_vanish_at_random_leave_nothing(running, autojump_clock, era):
    """Hundreds connect, call and go away at any point: modern calls are cancelled at once, legacy ones in time."""
    rng = random.Random(era)
    async with running(busy_sink, resume_window=20.0, session_idle=40.0) as served:

        async def client(n):
            await trio.sleep(rng.uniform(0, 5))
            headers = {}
            body = served.calling("x", n)
            if era == "legacy":
                headers = await served.session()
            else:
                body = served.modern("tools/call", n, name="x")
                headers = served.mirror(body)
            data = served.raw_post(body, *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()))
            wire = served.connect()
            cut = len(data) if rng.random() < 0.8 else rng.randrange(len(data))
            await wire.stream.send_all(data[:cut])
            with trio.move_on_after(rng.choice([0, rng.uniform(0, 2)])):
                await wire.closed()
            await wire.aclose()

        async with trio.open_nursery() as nursery:
            for n in range(300):
                nursery.start_soon(client, n)
        await trio.sleep(0.1)
        if era == "modern":
            assert 0 == len(served.pipeline.lane.tickets)
        await trio.sleep(120)

        assert 0 == len(served.pipeline.lane.tickets)
        assert (0, 0) == (served.source.server.contained, served.source.server.connections)
        assert (0, 0) == (len(served.source.sessions), len(served.source._serving.replay))
        assert 0 == served.source._serving.replay.size
        assert 0 == len(served.source._serving.deadlines)


async def test_two_principals_with_equal_ids_get_their_own_answers(running, autojump_clock):
    """Case 25 at this edge: equal ids on many connections and sessions never cross."""

    async def sink(exchange):
        if exchange.method == "initialize":
            return Result({"protocolVersion": "2025-11-25"})
        await trio.sleep(random.Random(exchange.request.params["arguments"]["who"]).random())
        return Result({"who": exchange.request.params["arguments"]["who"]})

    async with running(sink) as served:
        crossed = []

        async def client(who):
            session = await served.session()
            for _ in range(5):
                answer = await served.post(served.calling("x", 1, who=who), **session)
                if answer.json["result"]["who"] != who:
                    crossed.append(who)

        async with trio.open_nursery() as nursery:
            for who in range(100):
                nursery.start_soon(client, who)

        assert [] == crossed
        assert json.dumps(served.pipeline.served) == "600"
