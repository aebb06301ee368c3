"""Both sides of TLS against Python's own, and against each other, on a pair of real sockets."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from sluiceway.transports.tls_stream import TlsStream
from sluiceway.transports.wire import Wire


def server_context(authority: Any, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """What a server shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    context.load_cert_chain(*authority.issue())
    return context


@asynccontextmanager
async def pair(
    authority: Any, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> AsyncIterator[tuple[trio.SSLStream[trio.SocketStream], TlsStream]]:
    """A client and a server that have shaken hands."""
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in socket.socketpair())
    client = trio.SSLStream(theirs, authority.trusted(), server_hostname="localhost", https_compatible=False)
    server = TlsStream(ours, server_context(authority, version))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            await server.do_handshake()
        try:
            yield client, server
        finally:
            await trio.aclose_forcefully(theirs)
            await trio.aclose_forcefully(server)


async def read_all(stream: Any) -> bytes:
    """Up to the end."""
    data = b""
    while piece := await stream.receive_some():
        data += piece
    return data


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_bytes_go_both_ways_at_once(authority: Any, version: ssl.TLSVersion) -> None:
    """More than fits into any buffer on the way; the end is announced, and insisted on by the client."""
    data = bytes(range(256)) * 10_000
    got: dict[str, bytes] = {}

    async with pair(authority, version) as (client, server):

        async def read_client() -> None:
            got["client"] = await read_all(client)

        async def read_server() -> None:
            received = b""
            while len(received) < len(data):
                received += await server.receive_some(100_000)
            got["server"] = received

        async with trio.open_nursery() as reading:
            reading.start_soon(read_client)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send_all, data)
                nursery.start_soon(server.send_all, data)
                nursery.start_soon(read_server)
            await server.send_eof()
        assert server.version == version.name.replace("_", ".")

    assert got == {"client": data, "server": data}


async def test_after_the_goodbye_what_still_comes_can_be_dropped(authority: Any) -> None:
    """Closing over unread bytes would reset what was sent; they are read as they are until the client has left."""
    async with pair(authority) as (client, server):
        await server.send_all(b"answer")
        await server.send_eof()
        await server.send_eof()
        await client.send_all(b"x" * 50_000)
        await client.transport_stream.send_eof()

        assert len(await read_all(server)) > 50_000
        assert await client.receive_some() == b"answer"
        assert await client.receive_some() == b""


async def test_a_client_that_says_goodbye_has_ended(authority: Any) -> None:
    """As one that closes without a word has."""
    async with pair(authority) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.unwrap)
        assert await server.receive_some() == b""
        await server.send_eof()
    async with pair(authority, ssl.TLSVersion.TLSv1_2) as (client, server):
        await client.transport_stream.aclose()
        assert await server.receive_some() == b""


async def test_a_record_that_was_sent_in_part_ends_the_connection(authority: Any) -> None:
    """What would follow makes no sense to the client; nothing does."""
    async with pair(authority) as (_client, server):
        with trio.move_on_after(0.1) as patience:
            await server.send_all(b"x" * 50_000_000)  # nobody reads
        assert patience.cancelled_caught
        with pytest.raises(trio.BrokenResourceError, match="middle of a record"):
            await server.send_all(b"more")


async def test_a_read_that_is_cancelled_loses_nothing(authority: Any) -> None:
    """Time limits cancel reads."""
    async with pair(authority) as (client, server):
        for _ in range(3):
            with trio.move_on_after(0.01):
                await server.receive_some()
        await client.send_all(b"late")

        assert await server.receive_some() == b"late"


async def test_reading_what_is_there_already_is_a_checkpoint(authority: Any) -> None:
    """So a client that never pauses cannot keep others waiting."""
    async with pair(authority) as (client, server):
        await client.send_all(b"two")
        assert await server.receive_some(1) == b"t"
        with trio.testing.assert_checkpoints():
            assert await server.receive_some(1) == b"w"


async def test_writing_to_a_client_that_is_gone_breaks(authority: Any) -> None:
    """With Trio's word for it."""
    async with pair(authority) as (client, server):
        await client.transport_stream.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await server.send_all(b"x" * 10_000_000)
    async with pair(authority) as (_, server):
        await server.wait_send_all_might_not_block()
        await server.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await server.send_all(b"x")


async def test_who_it_was_is_known_after_it_broke_too(authority: Any) -> None:
    """A request that came before the rubbish is still served; OpenSSL knows nothing of the handshake any more."""
    async with pair(authority) as (client, server):
        await client.transport_stream.send_all(b"no record of TLS")
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()

        assert server.certificate is None


async def test_what_is_no_tls_breaks_it(authority: Any) -> None:
    """In the middle of a connection."""
    async with pair(authority) as (client, server):
        await client.transport_stream.send_all(b"rubbish" * 10)
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await server.send_all(b"x")


async def test_a_client_of_ours_speaks_to_a_server_of_ours(authority: Any) -> None:
    """Over wires; a long answer and the end that nobody announces included."""
    ours, theirs = (Wire(each) for each in socket.socketpair())
    client = TlsStream(ours, authority.trusted(), server_name="localhost")
    server = TlsStream(theirs, server_context(authority))
    data, got = bytes(range(256)) * 2_000, b""

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.do_handshake)
            await client.do_handshake()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.send_all, data)
            while len(got) < len(data):
                got += await client.receive_some(100_000)
        await client.send_all(b"hello")
        assert await server.receive_some() == b"hello"
        theirs.close()
        assert await client.receive_some() == b""
    ours.close()

    assert got == data
    assert client.certificate is not None


async def test_a_client_insists_on_the_name_it_wanted(authority: Any) -> None:
    """It tells the server, and says why."""
    ours, theirs = (Wire(each) for each in socket.socketpair())
    client = TlsStream(ours, authority.trusted(), server_name="elsewhere.example")
    server = TlsStream(theirs, server_context(authority))
    told: list[Exception] = []

    async def serve() -> None:
        try:
            await server.do_handshake()
            await server.receive_some()
        except (ssl.SSLError, trio.BrokenResourceError) as error:
            told.append(error)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with pytest.raises(ssl.SSLCertVerificationError, match=r"elsewhere\.example"):
                await client.do_handshake()
    ours.close()
    theirs.close()

    assert len(told) == 1
