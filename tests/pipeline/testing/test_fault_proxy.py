"""The proxy that breaks connections, in front of a real server: each fault as a client sees it. Real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from sluiceway.pipeline.model.faults import Fault
from sluiceway.pipeline.testing import FaultProxy, open_fault_proxy

HELLO = b"hello, server" * 3
ANSWER = b"hello, client" * 40


@asynccontextmanager
async def proxied(*faults: Fault, seed: int = 0) -> AsyncIterator[tuple[FaultProxy, list[bytes]]]:
    """A server that answers what it reads until the end of the client's side, behind a proxy."""
    heard: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                heard.append(bytes(await stream.receive_some(len(HELLO))))
                await stream.send_all(ANSWER)
            except trio.BrokenResourceError:
                return

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        async with open_fault_proxy("127.0.0.1", port, faults, seed=seed) as proxy:
            yield proxy, heard
        nursery.cancel_scope.cancel()


async def ask(proxy: FaultProxy) -> bytes:
    """What a client gets, until its connection ends; a reset is an error."""
    async with await trio.open_tcp_stream(proxy.host, proxy.port) as stream:
        await stream.send_all(HELLO)
        await stream.send_eof()
        return b"".join([bytes(chunk) async for chunk in stream])


async def test_without_faults_it_is_not_there():
    """Every byte passes, in both directions."""
    async with proxied() as (proxy, heard):
        assert await ask(proxy) == ANSWER

    assert heard == [HELLO]
    assert proxy.connections == 1
    assert proxy.address == f"{proxy.host}:{proxy.port}"


@pytest.mark.parametrize("effect", ["refuse", "reset", "crash"])
async def test_a_connection_is_reset(effect):
    """The client's operating system says so."""
    async with proxied(Fault(effect=effect, times=1, down=0.001)) as (proxy, _):
        with pytest.raises(trio.BrokenResourceError):
            await ask(proxy)


async def test_a_server_that_crashed_is_gone():
    """Connections are refused until it is back."""
    async with proxied(Fault(effect="crash", times=1, down=3600.0)) as (proxy, _):
        for _each in range(2):
            with pytest.raises(trio.BrokenResourceError):
                await ask(proxy)

    assert [harm.effect for harm in proxy.harms] == ["crash", "refuse"]


async def test_an_answer_breaks_off():
    """Orderly, in the middle."""
    async with proxied(Fault(effect="truncate")) as (proxy, _):
        got = await ask(proxy)

    assert 0 < len(got) < len(ANSWER)
    assert ANSWER.startswith(got)


async def test_an_answer_is_rubbish():
    """As long as the right one, and nothing of it."""
    async with proxied(Fault(effect="malform")) as (proxy, _):
        got = await ask(proxy)

    assert len(got) == len(ANSWER)
    assert not set(zip(got, ANSWER, strict=True)) & {(byte, byte) for byte in range(256)}


@pytest.mark.parametrize(("effect", "reached"), [("drop", []), ("hang", [HELLO])])
async def test_nothing_comes_back(effect, reached):
    """With `hang` the server has heard it."""
    got: list[bytes] = []
    async with proxied(Fault(effect=effect)) as (proxy, heard), trio.open_nursery() as nursery:

        async def client() -> None:
            got.append(await ask(proxy))

        nursery.start_soon(client)
        while not proxy.harms or heard != reached:  # noqa: ASYNC110  # sockets: nothing tells us
            await trio.sleep(0.001)
        await trio.sleep(0.02)  # for what must not come
        nursery.cancel_scope.cancel()

    assert (got, heard) == ([], reached)


async def test_answers_arrive_slowly():
    """No faster than so many bytes a second, and after their latency; but all of them."""
    async with proxied(Fault(latency=0.01, drip=20_000)) as (proxy, _):
        assert await ask(proxy) == ANSWER


async def test_a_server_that_is_not_there_resets():
    """As a port behind which nobody listens."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with open_fault_proxy("127.0.0.1", port) as proxy:
        with pytest.raises(trio.BrokenResourceError):
            await ask(proxy)


async def test_the_seed_says_which_connections_are_hit():
    """The same ones each time."""

    async def day() -> list[bool]:
        hit = []
        async with proxied(Fault(effect="truncate", share=0.5), seed=5) as (proxy, _):
            for _each in range(12):
                hit.append(len(await ask(proxy)) < len(ANSWER))  # noqa: PERF401  # awaits
        return hit

    first = await day()

    assert first == await day()
    assert 0 < sum(first) < 12
