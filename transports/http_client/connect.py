"""
Opening a connection: name resolution, the check of what it found, TCP, a proxy's tunnel, TLS.

The address that was checked is the one that is connected to, so a name that changes its mind between check and use
(DNS rebinding) reaches nothing.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Sequence
from typing import Final, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.origin import Origin, is_public

from ..tls_stream import TlsStream
from ..wire import Wire
from .connection import Connection, PeerGone, Transport
from .parser import MalformedResponse
from .proxies import Proxy, ProxyRefused, connect_request, negotiate

_MAX_ADDRESSES: Final = 8
"""Addresses of one name that are tried."""
_PROXY_AUTHENTICATION_REQUIRED: Final = 407


class DialFailed(Exception):
    """The origin cannot be reached; the text says why, as the end of a sentence."""


class AddressRefused(DialFailed):
    """The name leads to where this gateway must not be led (SSRF)."""


@final
class TcpTransport:
    """
    A plain TCP connection.

    Args:
        wire: Closed by `close`.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.send_nowait = wire.send_nowait
        self.send_all = wire.send_all
        self.receive_some = wire.receive
        self.close = wire.close
        self.is_readable = wire.is_readable

    @property
    def speaks_http2(self) -> bool:
        """See `Transport`."""
        return False


@final
class TlsTransport:
    """
    A TLS connection. It is closed without a farewell: nobody waits for one (RFC 9112 section 9.8).

    Args:
        stream: Hands were shaken.
        wire: What it speaks over; closed by `close`.
    """

    def __init__(self, stream: TlsStream, wire: Wire) -> None:
        self.send_all = stream.send_all
        self.receive_some = stream.receive_some
        self.close = wire.close
        self.is_readable = wire.is_readable
        self._protocol = stream.protocol

    def send_nowait(self, data: bytes) -> int:
        """Nothing: what is to be written has to be encrypted as a whole first. See `Transport`."""
        return 0

    @property
    def speaks_http2(self) -> bool:
        """See `Transport`."""
        return self._protocol == "h2"


@final
@frozen(kw_only=True)
class Dialer:
    """Opens connections to one origin."""

    origin: Origin
    timeout_s: float
    """For everything from the name to the end of the TLS handshake."""
    tls: ssl.SSLContext | None
    """Given exactly if the origin speaks TLS."""
    allow_private: bool
    """Whether names may lead to private, loopback and link-local addresses."""
    proxy: Proxy | None = None
    """What stands in between. If it resolves the name, `allow_private` has no say."""

    async def __call__(self) -> Transport:
        """
        Connect.

        Raises:
            DialFailed: With the reason.
        """
        with trio.move_on_after(self.timeout_s) as scope:
            return await self._open()
        assert scope.cancelled_caught
        raise DialFailed(f"no connection within {self.timeout_s:g} s (connect_timeout)")

    async def _open(self) -> Transport:
        proxy = self.proxy
        if proxy is None:
            transport = await _open_tcp(await self._addresses(self.origin, trusted=False))
        else:
            transport = await _open_tcp(await self._addresses(proxy.origin, trusted=True))
        done = False
        try:
            if proxy is not None and proxy.scheme == "http":
                await self._tunnel(transport, proxy)
            elif proxy is not None:
                await self._pass_through(transport, proxy)
            secured: Transport = transport if self.tls is None else await self._secure(transport, self.tls)
            done = True
            return secured
        finally:
            if not done:
                transport.close()

    async def _addresses(self, target: Origin, *, trusted: bool) -> Sequence[tuple[int, tuple[object, ...]]]:
        """What the name stands for, as (family, address), without what must not be connected to."""
        try:
            found = await trio.socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise DialFailed("its name cannot be resolved") from error
        open_to_all = self.allow_private or trusted or target.names_private
        usable = [
            (int(family), address) for family, _, _, _, address in found if open_to_all or is_public(str(address[0]))
        ]
        if not usable:
            raise AddressRefused("its name leads to a private address; set allow_private if that is meant")
        return usable[:_MAX_ADDRESSES]

    async def _tunnel(self, transport: TcpTransport, proxy: Proxy) -> None:
        request = connect_request(self.origin, proxy.credentials)
        try:
            connection = Connection(transport, trio.current_time())
            parser = await connection.read_head(await connection.ask(request))
        except (PeerGone, MalformedResponse) as error:
            raise DialFailed(f"the proxy broke off: {error}") from error
        assert parser.head is not None
        if not 200 <= parser.head.status < 300 or parser.take():
            hint = " (proxy_auth)" if parser.head.status == _PROXY_AUTHENTICATION_REQUIRED else ""
            raise DialFailed(f"the proxy refuses the tunnel with HTTP {parser.head.status}{hint}")

    async def _pass_through(self, transport: TcpTransport, proxy: Proxy) -> None:
        host = self.origin.host
        if not proxy.resolves:
            host = str((await self._addresses(self.origin, trusted=False))[0][1][0]).partition("%")[0]
        conversation = negotiate(host, self.origin.port, proxy.credentials)
        try:
            said, wanted = next(conversation)
            while True:
                if said:
                    await transport.send_all(said)
                said, wanted = conversation.send(await _receive_exactly(transport, wanted))
        except StopIteration:
            return
        except ProxyRefused as error:
            raise DialFailed(f"the proxy does not pass it on: {error}") from error
        except trio.BrokenResourceError as error:
            raise DialFailed("the proxy broke off") from error

    async def _secure(self, transport: TcpTransport, context: ssl.SSLContext) -> TlsTransport:
        stream = TlsStream(transport.wire, context, server_name=self.origin.host)
        try:
            await stream.do_handshake()
        except (ssl.SSLError, trio.BrokenResourceError) as error:
            reason = getattr(error, "verify_message", "") or "the TLS handshake failed"
            raise DialFailed(f"{reason} (tls.ca names what to trust)") from error
        return TlsTransport(stream, transport.wire)


async def _open_tcp(addresses: Sequence[tuple[int, tuple[object, ...]]]) -> TcpTransport:
    """Try one after the other; each gets its share of the time that is left, so that a dead first one costs not all."""
    failure: OSError | None = None
    for left, (family, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        share_s = max(0.0, trio.current_effective_deadline() - trio.current_time()) / left
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        connected = False
        try:
            with trio.move_on_after(share_s):
                await sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connected = True
        except OSError as error:
            failure = error
        finally:
            if not connected:
                sock.close()
        if connected:
            return TcpTransport(Wire.take(sock))
    reason = "no answer" if failure is None else os.strerror(failure.errno or 0)  # Trio's own text shows the address
    raise DialFailed(f"it cannot be connected to: {reason}") from failure


async def _receive_exactly(transport: TcpTransport, count: int) -> bytes:
    """So many bytes and no more: what follows is not for us. Raises `trio.BrokenResourceError` if there are fewer."""
    data = b""
    while len(data) < count:
        piece = await transport.receive_some(count - len(data))
        if not piece:
            raise trio.BrokenResourceError
        data += piece
    return data


def make_tls(
    ca: str | None = None,
    cert: str | None = None,
    key: str | None = None,
    *,
    protocols: Sequence[str] = ("http/1.1",),
) -> ssl.SSLContext:
    """
    What a client trusts and shows. Reads files, so call it while opening.

    Args:
        ca: File of certificates to trust instead of the system's.
        cert: File of the client's own certificate chain, if the upstream wants one.
        key: File of its private key, if that is not in `cert`.
        protocols: What to offer (ALPN), best first.

    Raises:
        OSError: A file cannot be read, or is not what it should be (`ssl.SSLError`).
    """
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(protocols)
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context
