"""
Who may address a source, and from which pages: the defence against DNS rebinding and foreign scripts.

A page of a foreign site reaches a local server in two ways: directly, and then its browser names the page's origin;
or under the attacker's own host name that now resolves to our address, and then `Host` is that name. So both are
checked on every request (MCP 2025-11-25 and 2026-07-28, transports, security).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, final

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})

_HOST: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?")
_ORIGIN: Final = re.compile(r"https?://([^/?#@\s]+)")


@lru_cache(maxsize=256)
def split_host(value: str) -> tuple[str, str | None] | None:
    """`Example.com:80` -> ("example.com", "80"); brackets are taken off IPv6; None if it is not `host[:port]`."""
    match = _HOST.fullmatch(value)
    if match is None or int(match[3] or 0) > 65535:
        return None
    return (match[1] or match[2]).lower().rstrip("."), match[3]


@final
class HostPolicy:
    """
    Decides about `Host` and `Origin`.

    Args:
        binds: Addresses the source listens on, as configured.
        hosts: Further hosts: `name` for all its ports, `name:port`, or `*` for all.
        origins: Further origins: `https://name[:port]`, `null`, or `*` for all but `null`.

    A source bound to loopback only is addressed by loopback names; their pages may use it. One bound to more, and not
    told its hosts, is addressed by loopback names and by IP addresses: neither can be a rebound name.
    """

    def __init__(self, binds: Iterable[str], hosts: Iterable[str], origins: Iterable[str]) -> None:
        names = {split[0] if (split := split_host(bind)) else bind for bind in binds}
        self._local = all(name in LOOPBACK_NAMES or name.startswith("127.") for name in names)
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._own = LOOPBACK_NAMES | (names if self._local else frozenset())

    def allows_host(self, value: str) -> bool:
        """Whether a `Host` header names this source. The header has been found well-formed or not by `split_host`."""
        split = split_host(value)
        if split is None:
            return False
        name, port = split
        by_nature = name in self._own or (not self._local and _is_address(name))
        if by_nature and (self._local or not self._hosts):
            return True
        shown = f"[{name}]" if ":" in name else name
        return not self._hosts.isdisjoint(("*", name, shown, f"{shown}:{port}"))

    def allows_origin(self, value: str) -> bool:
        """Whether scripts of an origin may use this source. `null` (sandboxed pages, files) must be named."""
        origin = value.lower()
        if origin in self._origins:
            return True
        match = _ORIGIN.fullmatch(origin)
        split = split_host(match[1]) if match else None
        if split is None:
            return False
        return "*" in self._origins or (self._local and split[0] in self._own)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
