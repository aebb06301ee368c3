"""
One side of a TLS connection, with an end in two steps.

`trio.SSLStream` closes its socket together with TLS: what the client had sent by then and nobody read makes the kernel
reset the connection, and the last response is lost with it (RFC 9112 section 9.6). Here `send_eof` says goodbye
(close_notify) and goes on reading, and dropping, what still comes.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Final, final

import trio

from .wire import Wire

_PIECE: Final = 64 * 1024
"""Bytes that are encrypted at a time: what waits in memory to be sent is not much more."""


@final
class TlsStream(trio.abc.Stream):
    """
    TLS over a socket. One task may read while another writes; several may not write.

    Args:
        transport: The connection; closed with this one.
        context: Of this side.
        server_name: Whom the client wants to speak to, and whose certificate it expects; None on the server's side.
    """

    def __init__(
        self, transport: trio.SocketStream | Wire, context: ssl.SSLContext, *, server_name: str | None = None
    ) -> None:
        self.socket = transport.socket
        """For addresses."""
        self.certificate: str | None = None
        """The peer's certificate, verified, in PEM; None if it has shown none. Known after the handshake."""
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name
        )
        self._sending = trio.Lock()
        self._torn = False
        self._said_goodbye = False

    @property
    def version(self) -> str:
        """What was negotiated: `TLSv1.3`."""
        return self._tls.version() or ""

    @property
    def protocol(self) -> str | None:
        """What was agreed on by ALPN; None if that was nothing."""
        return self._tls.selected_alpn_protocol()

    async def do_handshake(self) -> None:
        """
        Negotiate, as long as it takes.

        Raises:
            ssl.SSLError: The peer is not let in or not trusted, or speaks no TLS; it was told why.
            trio.BrokenResourceError: It left.
        """
        done, failure = False, None
        while not done:
            try:
                self._tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                failure = error
            await self._flush()
            if failure is not None:
                raise failure
            if not done and not await self._fill():
                raise trio.BrokenResourceError("the peer left during the handshake")
        shown = self._tls.getpeercert(binary_form=True)  # not later: nothing is known of a connection that broke
        self.certificate = None if shown is None else ssl.DER_cert_to_PEM_cert(shown)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and write all of it. Raises `trio.BrokenResourceError` if the peer is gone."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._tls.write(rest[:_PIECE]) :]
            except ssl.SSLError as error:
                raise trio.BrokenResourceError("TLS broke") from error
            await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._transport.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """
        What there is; empty at the end, announced or not: messages say where they end, so none can be cut unnoticed.

        Raises:
            trio.BrokenResourceError: After a reset, or something that is no TLS.
        """
        if self._said_goodbye:
            return bytes(await self._transport.receive_some(max_bytes))
        if self._incoming.pending or self._incoming.eof or self._tls.pending():
            await trio.lowlevel.checkpoint()  # before it is taken: what is cancelled loses nothing
        elif not await self._fill():
            self._incoming.write_eof()
        while True:
            try:
                return self._tls.read(max_bytes or _PIECE)
            except ssl.SSLWantReadError:
                await self._flush()  # the answer to a key update
                if not await self._fill():
                    self._incoming.write_eof()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                raise trio.BrokenResourceError("TLS broke") from error

    async def send_eof(self) -> None:
        """Say that nothing more will come. What is received from now on is not what the peer said, but its bytes."""
        if self._said_goodbye:
            return
        self._said_goodbye = True
        with suppress(ssl.SSLError):  # the peer's goodbye has not come yet, or never will
            self._tls.unwrap()
        await self._flush()
        await self._transport.send_eof()

    async def aclose(self) -> None:
        """Close at once; say goodbye first with `send_eof`, or not."""
        await self._transport.aclose()

    async def _fill(self) -> bool:
        """Read what there is; whether there was anything before the end."""
        data = await self._transport.receive_some(_PIECE)
        self._incoming.write(data)
        return bool(data)

    async def _flush(self) -> None:
        """Send what was encrypted. A record that was sent in part ends the connection: what follows makes no sense."""
        if not self._outgoing.pending:
            return
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            if self._torn:
                raise trio.BrokenResourceError("the connection was cut in the middle of a record")
            if data := self._outgoing.read():
                self._torn = True
                await self._transport.send_all(data)
                self._torn = False
        finally:
            self._sending.release()
