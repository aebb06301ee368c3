"""
What a proxy wants to hear before it passes bytes on: HTTP's CONNECT, or SOCKS 5 (RFC 1928, RFC 1929). Pure.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Generator
from typing import Final, Literal, final
from urllib.parse import urlsplit

from attrs import field, frozen

from sluiceway.pipeline.model.origin import Origin, parse_origin

_SOCKS_VERSION: Final = 5
_NO_CREDENTIALS: Final = 0
_PASSWORD: Final = 2
_REFUSALS: Final = {
    1: "it failed",
    2: "its rules forbid the upstream",
    3: "the upstream's network is unreachable",
    4: "the upstream is unreachable",
    5: "the upstream refuses the connection",
    6: "the upstream is too far away",
    7: "it knows no CONNECT",
    8: "it knows no addresses of this kind",
}
"""Reply codes (RFC 1928 section 6)."""
_ADDRESS_LENGTHS: Final = {1: 4, 4: 16}
_NAME: Final = 3


class ProxyRefused(Exception):
    """The proxy does not do what it is asked for; the text says why, as a sentence about `it`."""


@final
@frozen
class Proxy:
    """A proxy in front of an upstream."""

    scheme: Literal["http", "socks5", "socks5h"]
    host: str
    port: int
    credentials: tuple[str, str] | None = field(default=None, repr=False)
    """User and password."""

    @property
    def resolves(self) -> bool:
        """Whether it looks the upstream's name up itself; with `socks5` the gateway does."""
        return self.scheme != "socks5"

    @property
    def origin(self) -> Origin:
        """Where it is."""
        return Origin(False, self.host, self.port, "/")


def parse_proxy(url: str, credentials: tuple[str, str] | None = None) -> Proxy:
    """
    Take `http://host:port`, `socks5://host:port` or `socks5h://host:port` apart.

    Raises:
        ValueError: It is none of these, or says more; the text does not show a password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("http", "socks5", "socks5h"):
        raise ValueError("proxy: write http://, socks5:// or socks5h://, then host:port")
    try:
        origin = parse_origin(f"http://{rest}")
    except ValueError as error:
        if "@" in rest:
            raise ValueError("proxy: user and password do not belong in a url; use proxy_auth") from None
        raise ValueError(f"proxy: {error}") from error
    if origin.path != "/":
        raise ValueError("proxy: a path means nothing to a proxy; leave it out")
    if scheme != "http" and urlsplit(f"http://{rest}").port is None:
        raise ValueError(f"proxy: {scheme} has no port of its own; name it, often 1080")
    return Proxy(scheme, origin.host, origin.port, credentials)  # type: ignore[arg-type]  # it is one of the three


def connect_request(origin: Origin, credentials: tuple[str, str] | None) -> bytes:
    """The request for a tunnel (RFC 9110 section 9.3.6); credentials as RFC 7617 has it."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}"
    lines = f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n"
    if credentials is not None:
        token = base64.b64encode(":".join(credentials).encode()).decode()
        lines += f"proxy-authorization: Basic {token}\r\n"
    return f"{lines}\r\n".encode()


def negotiate(host: str, port: int, credentials: tuple[str, str] | None) -> Generator[tuple[bytes, int], bytes]:
    """
    The client's side of SOCKS 5.

    Args:
        host: A name for the proxy to look up, or an address.
        port: Of the upstream.
        credentials: User and password, in case the proxy asks.

    Yields:
        What to send, and how many bytes to wait for: exactly those are to be sent in.

    Raises:
        ProxyRefused: It does not pass us on.
    """
    methods = bytes([_NO_CREDENTIALS]) if credentials is None else bytes([_NO_CREDENTIALS, _PASSWORD])
    version, method = yield bytes([_SOCKS_VERSION, len(methods)]) + methods, 2
    _check_version(version)
    if method == _PASSWORD and credentials is not None:
        user, password = (part.encode() for part in credentials)
        said = b"\x01%c%b%c%b" % (len(user), user, len(password), password)
        _, status = yield said, 2
        if status != 0:
            raise ProxyRefused("it does not take the user and password (proxy_auth)")
    elif method != _NO_CREDENTIALS:
        raise ProxyRefused("it wants credentials" + (" (proxy_auth)" if credentials is None else " of another kind"))
    version, status, _, kind = yield b"\x05\x01\x00" + _address(host) + port.to_bytes(2, "big"), 4
    _check_version(version)
    if status != 0:
        raise ProxyRefused(_REFUSALS.get(status, f"it answers with code {status}"))
    if kind == _NAME:
        (length,) = yield b"", 1
    elif kind in _ADDRESS_LENGTHS:
        length = _ADDRESS_LENGTHS[kind]
    else:
        raise ProxyRefused("it does not speak SOCKS 5")
    yield b"", length + 2


def check_credentials(user: str, password: str) -> None:
    """
    Check what every kind of proxy can be told.

    Raises:
        ValueError: Too long for RFC 1929, empty, or ambiguous in RFC 7617; the text does not show them.
    """
    if not 1 <= len(user.encode()) <= 255 or not 1 <= len(password.encode()) <= 255:
        raise ValueError("proxy_auth: user and password have 1 to 255 bytes")
    if ":" in user or any(ord(character) < 32 for character in user + password):
        raise ValueError("proxy_auth: a user has no colon, and neither has control characters")


def _check_version(version: int) -> None:
    if version != _SOCKS_VERSION:
        raise ProxyRefused("it does not speak SOCKS 5")


def _address(host: str) -> bytes:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        if len(name) > 255:
            raise ProxyRefused("the upstream's name is too long for it") from None
        return b"\x03%c%b" % (len(name), name)
    return (b"\x01" if ip.version == 4 else b"\x04") + ip.packed
