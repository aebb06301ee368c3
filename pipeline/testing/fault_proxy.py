"""
A loopback TCP proxy that breaks connections as a fault plan says, byte by byte: between a gateway and a real server.

What the plan decides for an exchange elsewhere, it decides here for a connection, in the order in which they come:

    refuse     reset as soon as it is accepted
    drop       nothing gets through to the server, and nothing comes back
    hang       the server gets everything, nothing comes back
    reset      reset when the first bytes of the client's are on their way
    truncate   closed, orderly, in the middle of the server's first bytes
    malform    every byte of the server's is another one
    crash      as reset, and connections are refused for `down`

`latency` and `jitter` delay the first bytes in each direction; `drip` limits how many come back in a second.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, final

import trio
from attrs import define, field

from ..model.faults import Fault, FaultPlan, Harm

_CHUNK: Final = 64 * 1024
_LINGER: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, with no time: closing sends RST."""
_DRIP_S: Final = 0.05
"""How often a dripping connection passes something on, in seconds."""
MAX_CONNECTIONS: Final = 1000
"""Connections at the same time; more wait in the listener's queue."""


@final
@define(eq=False)
class FaultProxy:
    """A running proxy. Made by `open_fault_proxy`."""

    host: str
    """Where it listens."""
    port: int
    plan: FaultPlan
    connections: int = 0
    """How many it has accepted."""
    harms: list[Harm] = field(factory=list)
    """What it did to each of them, in order; the latest `MAX_CONNECTIONS`."""

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"


@asynccontextmanager
async def open_fault_proxy(
    host: str, port: int, faults: Sequence[Fault] = (), *, seed: int = 0, plan: FaultPlan | None = None
) -> AsyncIterator[FaultProxy]:
    """
    Listen on a free loopback port and pass every connection on to a server, as well as the faults let it.

    Leaving the block closes every connection. Needs the real clock: a mock clock does not wait for sockets.

    Args:
        host: Of the server.
        port: Likewise.
        faults: What goes wrong.
        seed: Makes the same happen again, to the same connections in order.
        plan: A plan that is made already, instead of `faults` and `seed`.

    Raises:
        OSError: No port is free.
    """
    if plan is None:
        plan = FaultPlan(faults, random.Random(seed))  # noqa: S311  # chance, not secrets
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    name = listener.socket.getsockname()
    proxy = FaultProxy(host=name[0], port=name[1], plan=plan)
    limiter = trio.CapacityLimiter(MAX_CONNECTIONS)

    async def serve(client: trio.SocketStream) -> None:
        async with limiter, client:
            await _serve(proxy, client, host, port)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        try:
            yield proxy
        finally:
            nursery.cancel_scope.cancel()


async def _serve(proxy: FaultProxy, client: trio.SocketStream, host: str, port: int) -> None:
    proxy.connections += 1
    now = trio.current_time()
    harm = Harm(effect="refuse") if proxy.plan.is_down(now) else proxy.plan.draw(now)
    proxy.harms.append(harm)
    del proxy.harms[:-MAX_CONNECTIONS]
    if harm.effect == "refuse":
        _reset_on_close(client)
        return
    if harm.effect == "drop":
        await _swallow(client)
        await trio.sleep_forever()  # that the client has ended its side is nothing that a lost packet would tell
    try:
        server = await trio.open_tcp_stream(host, port)
    except OSError:
        _reset_on_close(client)  # what a client sees of a server that is not there
        return
    async with server:
        await _pass_on(client, server, harm)


async def _pass_on(client: trio.SocketStream, server: trio.SocketStream, harm: Harm) -> None:
    """Both directions until one breaks, or both have ended."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_upwards, client, server, harm, nursery.cancel_scope)
            await _downwards(server, client, harm)
            if harm.effect == "truncate":
                nursery.cancel_scope.cancel()
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        _reset_on_close(client)  # one side broke; the other one is told by the end of its own connection


async def _upwards(client: trio.SocketStream, server: trio.SocketStream, harm: Harm, scope: trio.CancelScope) -> None:
    await _wait_for_first(client, harm.delay_s)
    async for chunk in client:
        await server.send_all(chunk)
        if harm.effect in ("reset", "crash"):
            _reset_on_close(client)
            scope.cancel()
            return
    await server.send_eof()


async def _downwards(server: trio.SocketStream, client: trio.SocketStream, harm: Harm) -> None:
    if harm.effect == "hang":
        await _swallow(server)
        await trio.sleep_forever()
    await _wait_for_first(server, harm.delay_s)
    async for chunk in server:
        if harm.effect == "truncate":
            await client.send_all(chunk[: len(chunk) // 2])
            return
        await _send(client, _garbled(chunk) if harm.effect == "malform" else bytes(chunk), harm.drip)
    await client.send_eof()


async def _send(stream: trio.SocketStream, chunk: bytes, drip: int | None) -> None:
    """Send at once, or no faster than `drip` bytes a second."""
    if drip is None:
        await stream.send_all(chunk)
        return
    size = max(1, int(drip * _DRIP_S))
    for start in range(0, len(chunk), size):
        piece = chunk[start : start + size]
        await stream.send_all(piece)
        await trio.sleep(len(piece) / drip)


async def _wait_for_first(stream: trio.SocketStream, seconds: float) -> None:
    """Wait until there is something to read, and `seconds` longer."""
    await trio.lowlevel.wait_readable(stream.socket)
    await trio.sleep(seconds)


async def _swallow(stream: trio.SocketStream) -> None:
    """Read to the end, for nobody."""
    try:
        while await stream.receive_some(_CHUNK):
            pass
    except trio.BrokenResourceError:
        return


def _garbled(chunk: bytes | bytearray) -> bytes:
    """Other bytes, as many."""
    return bytes(byte ^ 0x55 for byte in chunk)


def _reset_on_close(stream: trio.SocketStream) -> None:
    """Have the connection end with RST instead of FIN."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
