"""
The names under which answers are kept, and which of them something makes void. Pure.

A name says in clear what the answer is about, so that whoever invalidates need not know the request: method, tenant,
whose it is, a digest of everything that decides the answer, target. Whose it is comes from the authorization context:
an answer that is `private` is found by nobody else. A `public` one is found by everybody of the same tenant.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Final, final

from attrs import frozen

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.keys import authorization_of, canonical, digest, request_of
from sluiceway.pipeline.model.when import glob

EVERYBODY: Final = "*"
"""Whose a public answer is."""


@final
@frozen
class Names:
    """Where the answer to one exchange can be."""

    tenant: str
    whose: str
    """Digest of the authorization context; of a legacy client also its session, of a modern one its capabilities."""
    private: str
    public: str
    """Empty where nothing is shared."""


@lru_cache(maxsize=4096)
def _whose(authorization: Hashable, sender: Hashable) -> str:
    return digest(authorization, sender)


def names_of(exchange: Exchange, *, shares: bool) -> Names:
    """The names of the answer to an exchange; `shares` tells whether there can be public ones."""
    authorization, client = authorization_of(exchange), exchange.client
    if client.session is not None:
        sender: object = client.session.id
    else:
        sender = canonical(client.capabilities) if client.capabilities else None
    whose = _whose(authorization, sender)
    method, target, request = exchange.method, exchange.target or "", request_of(exchange)
    tenant = _plain(exchange.caller.tenant or "")
    private = f"{method}\t{tenant}\t{whose}\t{digest(request)}\t{target}"
    if not shares:
        return Names(tenant, whose, private, "")
    if exchange.request.row.cacheable:  # by the specification method and params alone, whoever asks
        params = {key: value for key, value in exchange.request.params.items() if key != "_meta"}
        request = (exchange.client.version, canonical(params))
    public = f"{method}\t{tenant}\t{EVERYBODY}\t{digest(exchange.caller.tenant, request)}\t{target}"
    return Names(tenant, whose, private, public)


def _plain(tenant: str) -> str:
    """A tenant as it stands in names; the digest tells apart what this does not."""
    return tenant.replace("\t", " ")


@final
@frozen(kw_only=True)
class Selector:
    """Some of the names: those for which all that is given is true."""

    methods: frozenset[str] | None = None
    tenant: str | None = None
    whose: frozenset[str] | None = None
    name: str | None = None
    """Glob of the target."""
    key: str | None = None
    """The whole name."""
    uri: str | None = None
    """A resource that changed: also what is below it, and what it is below (MCP: it may be a sub-resource)."""

    def compile(self) -> Callable[[str], bool]:
        """A predicate over names."""
        match = glob(self.name).fullmatch if self.name is not None else None
        tenant = None if self.tenant is None else _plain(self.tenant)

        def matches(name: str) -> bool:
            method, owner, whose, _, target = name.split("\t", 4)
            return (
                (self.methods is None or method in self.methods)
                and (tenant is None or owner == tenant)
                and (self.whose is None or whose in self.whose)
                and (match is None or match(target) is not None)
                and (self.key is None or name == self.key)
                and (self.uri is None or target.startswith(self.uri) or self.uri.startswith(target))
            )

        return matches


EVERYTHING: Final = Selector()
"""All names."""
