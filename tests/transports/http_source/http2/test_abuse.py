"""Hostile HTTP/2 in quantity: seeded rubbish, clients that vanish anywhere. Nothing dies, nothing is left."""

from __future__ import annotations

import json
import random
import struct
from contextlib import suppress
from typing import Any

import hpack
import pytest
import trio
import trio.testing

from sluiceway.pipeline.protocol.messages import Notification, Result

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def request(rng: random.Random, stream: int) -> list[bytes]:
    """Frames of a request that may well be a good one."""
    method, path = rng.choice([("GET", "/healthz"), ("POST", "/mcp"), ("GET", "/mcp"), ("CONNECT", "/"), ("HEAD", "*")])
    fields = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
    fields += rng.sample(
        [("content-type", "application/json"), ("accept", "*/*"), ("te", "trailers"), ("cookie", "a=b"),
         ("content-length", "40"), ("Upper", "case"), ("expect", "100-continue"), ("connection", "close")],
        rng.randint(0, 5),
    )  # fmt: skip
    block = hpack.Encoder().encode(fields, huffman=rng.random() < 0.5)
    cut = rng.randrange(len(block))
    frames = [frame(1, rng.choice([0, 1]), stream, block[:cut]), frame(9, 4, stream, block[cut:])]
    if rng.random() < 0.7:
        frames = [frame(1, rng.choice([4, 5]), stream, block)]
    body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    return [*frames, frame(0, rng.choice([0, 1]), stream, body)]


def conversation(rng: random.Random) -> bytes:
    """Requests and other frames in any order, then bent in a few places."""
    frames = [frame(4, 0, 0, struct.pack(">HI", rng.randrange(8), rng.choice([0, 1, 100, 65535, 2**31])))]
    for n in range(rng.randint(1, 5)):
        frames += request(rng, 2 * n + 1)
    for _ in range(rng.randint(0, 6)):
        stream = rng.randrange(8)
        size = rng.choice([0, 1, 4, 5, 6, 8, 8, 20])
        frames.insert(
            rng.randrange(1, len(frames) + 1), frame(rng.randrange(12), rng.randrange(64), stream, rng.randbytes(size))
        )
    data = bytearray(PREFACE + b"".join(frames))
    for _ in range(rng.choice([0, 0, 1, 2, 4])):
        at = rng.randrange(len(PREFACE), len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randint(1, 20)]
            case 2:
                data[at:at] = rng.randbytes(rng.randint(1, 20))
            case _:
                data[at:at] = data[max(24, at - 40) : at]
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
async def test_rubbish_ends_nothing(running: Any, watch: Any, autojump_clock: Any, seed: int) -> None:
    """250 bent connections a seed: no exception of ours, no connection left, and the server still answers."""
    rng = random.Random(seed)

    async def client(served: Any, data: bytes, pieces: int, patience: float) -> None:
        stream = watch(served).stream
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for i in range(pieces):
                await stream.send_all(data[i * len(data) // pieces : (i + 1) * len(data) // pieces])
                await trio.sleep(rng.choice([0, 0, 0.1]))
            with trio.move_on_after(patience):
                while await stream.receive_some(65536):
                    pass
        await stream.aclose()

    async with running(max_body=10_000) as served:
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    patience = rng.choice([0.0, 1.0, 90.0])
                    nursery.start_soon(client, served, conversation(rng), rng.randint(1, 4), patience)
        await trio.testing.wait_all_tasks_blocked()

        assert [e for e in served.log.entries if e["log_level"] == "error"] == []
        assert (served.source.server.contained, served.source.server.connections) == (0, 0)
        assert len(served.pipeline.lane.tickets) == 0
        assert (await served.ask("GET", "/healthz")).status == 200


async def busy_sink(exchange: Any) -> Result:
    """Takes time at several places."""
    if exchange.method == "initialize":
        return Result({"protocolVersion": "2025-11-25"})
    await trio.sleep(0.3)
    for n in range(3):
        await exchange.relay(Notification("notifications/progress", {"progress": n}))
        await trio.sleep(0.3)
    return Result({"text": "x" * 200_000})


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_clients_that_vanish_at_random_leave_nothing(
    running: Any, dial: Any, autojump_clock: Any, era: str
) -> None:
    """With many calls each, reset or dropped at any point: modern calls are cancelled at once, legacy ones in time."""
    rng = random.Random(era)
    async with running(busy_sink, resume_window=20.0, session_idle=40.0) as served:

        async def client(n: int) -> None:
            await trio.sleep(rng.uniform(0, 3))
            peer = await dial(served, consume=rng.random() < 0.8)
            headers, body = {}, served.calling("x", n)
            if era == "legacy":
                hello = await peer.ask("POST", "/mcp", served.request("initialize", 0, protocolVersion="2025-11-25"))
                version = {"mcp_protocol_version": "2025-11-25"}
                headers = {"mcp_session_id": hello.headers["mcp-session-id"], **version}
            else:
                body = served.modern("tools/call", n, name="x")
                headers = served.mirror(body)
            streams = [await peer.send("POST", "/mcp", body, headers) for _ in range(rng.randint(1, 8))]
            with trio.move_on_after(rng.uniform(0, 2)):
                while not peer.closed:
                    await peer.pump()
                    if rng.random() < 0.2 and not peer.responses[stream := rng.choice(streams)].done:
                        peer.h2.reset_stream(stream)
                        peer.responses[stream].reset = 0
            await peer.stream.aclose()

        async with trio.open_nursery() as nursery:
            for n in range(100):
                nursery.start_soon(client, n)
        await trio.sleep(0.1)
        if era == "modern":
            assert len(served.pipeline.lane.tickets) == 0
        await trio.sleep(120)

        assert len(served.pipeline.lane.tickets) == 0
        assert (served.source.server.contained, served.source.server.connections) == (0, 0)
        assert (len(served.source.sessions), len(served.source._serving.replay)) == (0, 0)


async def test_equal_ids_on_many_streams_get_their_own_answers(running: Any, dial: Any, autojump_clock: Any) -> None:
    """Case 25 at this edge: nothing crosses between streams, or between connections."""

    async def sink(exchange: Any) -> Result:
        await trio.sleep(random.Random(exchange.request.params["arguments"]["who"]).random())
        return Result({"who": exchange.request.params["arguments"]["who"]})

    async with running(sink) as served:
        crossed = []

        async def client(first: int) -> None:
            peer = await dial(served)
            asked = {}
            for who in range(first, first + 50):
                body = served.modern("tools/call", 1, name="x", arguments={"who": who})
                asked[await peer.send("POST", "/mcp", body, served.mirror(body))] = who
            for stream, who in asked.items():
                answer = await peer.response(stream)
                if json.loads(answer.body)["result"]["who"] != who:
                    crossed.append(who)

        async with trio.open_nursery() as nursery:
            for n in range(4):
                nursery.start_soon(client, 50 * n)

        assert crossed == []
        assert served.pipeline.served == 200
