"""Where a server is: the parts of its URL that a connection and a request need, and whether it is a public place."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, final
from urllib.parse import urlsplit

from attrs import frozen

_PORTS: Final = {"http": 80, "https": 443}
_LOOPBACK_NAMES: Final = ("localhost", ".localhost")
_NAT64: Final = b"\x00\x64\xff\x9b\x00\x00\x00\x00\x00\x00\x00\x00"
"""64:ff9b::/96 (RFC 6052): the last four bytes are an IPv4 address."""


@final
@frozen
class Origin:
    """Scheme, host and port, and the path that requests go to."""

    tls: bool
    host: str
    """A name in ASCII (IDNA), or an address without brackets."""
    port: int
    path: str
    """Begins with a slash; includes the query, if there is one."""

    @property
    def authority(self) -> str:
        """Host and port as `Host` carries them: without the port where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["https" if self.tls else "http"] else f"{host}:{self.port}"

    @property
    def names_private(self) -> bool:
        """Whether the URL itself names an address that is not public, or a loopback name: then it was meant."""
        host = self.host.lower().rstrip(".")
        if host == _LOOPBACK_NAMES[0] or host.endswith(_LOOPBACK_NAMES[1]):
            return True
        try:
            return not is_public(host)
        except ValueError:
            return False


def parse_origin(url: str) -> Origin:
    """
    Take an `http` or `https` URL apart.

    Raises:
        ValueError: It is none, or has parts that must not be in it (user and password, a fragment).
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{_shown(url)} is not an http:// or https:// address")
    if parts.username is not None or parts.password is not None:
        raise ValueError("user and password do not belong in a url; put a Secret into headers")
    if parts.fragment:
        raise ValueError(f"{_shown(url)} has a fragment, which is never sent")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or any(character <= " " or character == "\x7f" for character in path):
        raise ValueError(f"the path of {_shown(url)} must be percent-encoded ASCII")
    try:
        host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
        port = parts.port or _PORTS[parts.scheme]
    except ValueError as error:
        raise ValueError(f"{_shown(url)} has no valid host and port: {error}") from error
    if any(character <= " " for character in host):
        raise ValueError(f"{_shown(url)} has no valid host")
    return Origin(parts.scheme == "https", host, port, path)


def is_public(address: str) -> bool:
    """
    Whether an address is one of the public Internet, however it is wrapped (IPv4-mapped, NAT64, 6to4).

    Raises:
        ValueError: It is no address.
    """
    ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip.packed.startswith(_NAT64):
            inner = IPv4Address(ip.packed[-4:])
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _shown(url: str) -> str:
    """A URL for messages: short, and without what could be a password in it."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return repr(f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"[:120])
