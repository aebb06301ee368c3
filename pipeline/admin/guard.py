"""
Who may ask. Pure: headers in, verdict out.

The Host check stops DNS rebinding: a page in a browser can be made to speak to a loopback address, but then it names
its own domain. The token stops everybody else who can reach the address.
"""

from __future__ import annotations

import hmac
from typing import Final, final

from attrs import field, frozen

from .address import Address, is_literal, is_loopback

_BEARER: Final = "bearer "


@final
@frozen
class Guard:
    """The rules of one listener."""

    address: Address
    token: str | None = field(default=None, repr=False)
    """What callers must send as `Authorization: Bearer ...`; None lets everybody in who passes the Host check."""

    def host_allowed(self, host: str | None) -> bool:
        """Whether a `Host` header names this listener; on a Unix socket no browser can come."""
        if self.address.path is not None:
            return True
        if host is None:
            return False
        name = _without_port(host)
        if is_loopback(name) or name.lower() == self.address.host.lower():
            return True
        return not self.address.private and is_literal(name)

    def token_allowed(self, authorization: str | None) -> bool:
        """Whether an `Authorization` header carries the token. Takes the same time wherever they differ."""
        if self.token is None:
            return True
        if authorization is None or not authorization.lower().startswith(_BEARER):
            return False
        given = authorization[len(_BEARER) :].strip()
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.token.encode())


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host
