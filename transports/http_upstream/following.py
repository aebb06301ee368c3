"""
A name that is looked up again and again: an upstream that comes, moves and goes with its DNS entries (A and AAAA).

A connection stays with the address it was opened to for minutes, and a name that leads nowhere shows only in failing
requests. A sink that follows its name notices both.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

Lookup = Callable[[], Awaitable[frozenset[str] | None]]
"""Looks a name up: the addresses it leads to, none if there is no such name, None if nobody can tell now."""

_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


def lookup_of(host: str, port: int) -> Lookup:
    """Ask the system's resolver."""

    async def lookup() -> frozenset[str] | None:
        try:
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            return frozenset() if error.errno in _NO_SUCH_NAME else None
        except (OSError, UnicodeError):
            return None
        return frozenset(str(address[0]) for _, _, _, _, address in found)

    return lookup


@final
class FollowedName:
    """
    Args:
        lookup: Finds the addresses.
        every_s: Seconds between two look-ups.
        on_moved: Called when an address is gone that there was before.
        on_presence: Called with whether the name leads anywhere: when that changes, and with False at the first
            look-up if it does not. Neither may block.
    """

    def __init__(
        self,
        lookup: Lookup,
        every_s: float,
        *,
        on_moved: Callable[[], None],
        on_presence: Callable[[bool], None],
    ) -> None:
        self._lookup = lookup
        self._every_s = every_s
        self._on_moved = on_moved
        self._on_presence = on_presence

    async def run(self) -> None:
        """Follow the name until cancelled."""
        known: frozenset[str] = frozenset()
        present = True
        while True:
            found = await self._lookup()
            if found is not None:
                if known - found:
                    self._on_moved()
                if present != bool(found):
                    present = bool(found)
                    self._on_presence(present)
                known = found
            await trio.sleep(self._every_s)
