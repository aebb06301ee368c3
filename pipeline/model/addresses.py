"""
Where a request comes from, behind proxies that are trusted to say so.

`X-Forwarded-For` is a list to which every proxy appends whom it got the request from. Only what our own proxies wrote
can be believed, and they wrote at the right end. So it is read from the right, as long as the one who wrote an entry
is trusted; the first address that is not one of ours is the client. Whatever stands left of that, the client wrote.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias, final

from .session import Client

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_LONGEST: Final = 64
"""Characters of an address with its port and zone; longer text is none."""
_HOPS: Final = 32
"""Proxies in a row that are believed in."""


def parse_network(text: str) -> Network:
    """
    `10.0.0.0/8`, `fd00::/8`, or one address.

    Raises:
        ValueError: It is neither; the text says what is expected.
    """
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(f"expected an address or a network such as 10.0.0.0/8, got {text[:80]!r}") from None


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """
    An address, with or without port, brackets and zone; None if it is none.

    IPv4 in IPv6 (`::ffff:192.0.2.1`) is IPv4: the same client must not be two.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


@final
class Proxies:
    """
    The proxies in front of the gateway.

    Args:
        trusted: Networks they are in, as `parse_network` reads them.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = tuple(map(parse_network, trusted))

    def client_address(self, client: Client) -> str | None:
        """
        The address of who sent a request, normalised, as far as it can be believed.

        None where the transport has no addresses (stdio), and the text itself where it is no IP address (a Unix
        socket's name). What a trusted proxy wrote that is no address counts as that proxy's own request.
        """
        if client.address is None:
            return None
        nearest = parse_address(client.address) if len(client.address) <= _LONGEST else None
        if nearest is None:
            return client.address
        return str(self._origin(nearest, client.headers.get("x-forwarded-for", "")) if self._trusted else nearest)

    def _origin(self, nearest: Address, forwarded: str) -> Address:
        for _ in range(_HOPS):
            if not forwarded or not self._is_trusted(nearest):
                return nearest
            forwarded, _, last = forwarded.rpartition(",")
            said = parse_address(last) if len(last) <= _LONGEST else None
            if said is None:
                return nearest
            nearest = said
        return nearest

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


@lru_cache(maxsize=4096)
def neighbourhood(address: str, ipv6_prefix: int) -> str:
    """
    What counts as one sender: an IPv4 address, or an IPv6 network of `ipv6_prefix` bits.

    A subscriber gets a whole IPv6 network, usually of 64 bits, and may send from any address in it (RFC 6177).
    """
    parsed = parse_address(address)
    if not isinstance(parsed, IPv6Address):
        return address
    return str(IPv6Network((parsed, ipv6_prefix), strict=False))
