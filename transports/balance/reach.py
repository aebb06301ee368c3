"""Probes that are no MCP: a connection, or a page that answers."""

from __future__ import annotations

import ssl
from typing import Final, final
from urllib.parse import urlsplit

import trio
from attrs import frozen

_MAX_LINE: Final = 4096
"""Bytes in which a status line must end."""


@final
@frozen
class Address:
    """Where a probe connects to."""

    host: str
    port: int
    path: str | None = None
    """What to GET; None if a connection is enough."""
    tls: bool = False


def parse_address(text: str) -> Address:
    """
    Read `tcp://host:port`, `http://host:port/path` or the same with https.

    Raises:
        ValueError: It is none of these.
    """
    parts = urlsplit(text)
    known = {"tcp": None, "http": 80, "https": 443}
    port = parts.port or known.get(parts.scheme)
    if parts.scheme not in known or not parts.hostname or port is None or not text.isascii() or not text.isprintable():
        raise ValueError(f"probe: expected tcp://host:port or http(s)://host:port/path, got {text!r}")
    if parts.scheme == "tcp":
        return Address(parts.hostname, port)
    query = f"?{parts.query}" if parts.query else ""
    return Address(parts.hostname, port, f"{parts.path or '/'}{query}".replace(" ", "%20"), parts.scheme == "https")


async def reach(address: Address) -> bool:
    """Whether a connection can be opened, and the page there answers 2xx. Bound it in time from outside."""
    try:
        stream = await trio.open_tcp_stream(address.host, address.port)
        if address.path is None:
            await trio.aclose_forcefully(stream)
            return True
        return await _get(stream, address)
    except (OSError, trio.BrokenResourceError, ssl.CertificateError):
        return False


async def _get(stream: trio.SocketStream, address: Address) -> bool:
    used: trio.abc.Stream = stream
    if address.tls:
        context = ssl.create_default_context()
        used = trio.SSLStream(stream, context, server_hostname=address.host, https_compatible=True)
    try:
        host = f"[{address.host}]" if ":" in address.host else address.host
        request = f"GET {address.path} HTTP/1.1\r\nhost: {host}:{address.port}\r\nconnection: close\r\n\r\n"
        await used.send_all(request.encode("ascii"))
        head = b""
        while b"\n" not in head and len(head) < _MAX_LINE:
            more = await used.receive_some(_MAX_LINE)
            if not more:
                break
            head += more
        status = head.split(b"\n", 1)[0].split(b" ")
        return len(status) > 1 and status[0].startswith(b"HTTP/1.") and status[1][:1] == b"2" and len(status[1]) == 3
    finally:
        stream.socket.close()
