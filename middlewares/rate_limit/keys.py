"""What is counted together: the key of an exchange, as text that no two different things share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, TypeAlias

from sluiceway.pipeline.model.addresses import Proxies, neighbourhood
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.keys import digest
from sluiceway.pipeline.model.session import ANONYMOUS

Per: TypeAlias = Literal["all", "caller", "tenant", "method", "target", "source", "address"]
"""What `per` in YAML can name."""
Key: TypeAlias = Callable[[Exchange], str]

LONGEST: Final = 120
"""Characters of a key that is kept as it is."""


def key_of(per: Sequence[Per], trusted_proxies: Iterable[str] = (), ipv6_prefix: int = 64) -> Key:
    """
    A function from exchange to key, which has yet to be `bounded`.

    Args:
        per: What the key is made of; none twice.
        trusted_proxies: Networks of proxies whose `X-Forwarded-For` counts.
        ipv6_prefix: Bits of an IPv6 address that make a sender.

    Raises:
        ValueError: Nothing, or something twice, is named, or a network is none.
    """
    if not per or len(set(per)) != len(per):
        raise ValueError(f"per names each thing to count by once, got {list(per)}")
    proxies = Proxies(trusted_proxies)

    def address(exchange: Exchange) -> str:
        client = exchange.client
        found = proxies.client_address(client)
        if found is not None:
            return neighbourhood(found, ipv6_prefix)
        return "" if client.session is None else f"session {client.session.id}"

    def caller(exchange: Exchange) -> str:
        who = exchange.caller
        if who.how == "none" and who.subject == ANONYMOUS.subject:  # sessions are free: the address is who it is
            tenant = who.tenant or ""
            return f"{len(tenant)}:{tenant}@{address(exchange)}"
        return who.principal

    parts: dict[Per, Key] = {
        "all": lambda exchange: "",
        "caller": caller,
        "tenant": lambda exchange: exchange.caller.tenant or "",
        "method": lambda exchange: exchange.request.method,
        "target": lambda exchange: f"{exchange.request.method} {exchange.target or ''}",
        "source": lambda exchange: exchange.source,
        "address": address,
    }
    if len(per) == 1:
        return parts[per[0]]
    several = tuple(parts[each] for each in per)
    return lambda exchange: "".join([f"{len(text)}:{text}" for text in [part(exchange) for part in several]])


def bounded(key: str) -> str:
    """A long key as its digest: clients choose names of any length."""
    return key if len(key) <= LONGEST else f"#{digest(key)}"
