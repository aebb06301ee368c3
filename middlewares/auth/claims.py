"""From the claims of a token to a caller: which claim says what, and which scopes include others. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import final

from attrs import frozen

from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.messages import Json

from .tokens import TokenRejected

_MAX_TEXT = 256
"""Characters of a subject or tenant: they become parts of keys and lines of logs."""
_MAX_VALUES = 256
"""Scopes, roles or tenants of one token."""


def claim_at(claims: Mapping[str, Json], path: str) -> Json:
    """
    The value of a claim; None if there is none.

    A claim with exactly this name wins (`https://example.com/roles`); else the dots lead into objects
    (`realm_access.roles`).
    """
    if path in claims:
        return claims[path]
    value: Json = dict(claims)
    for step in path.split("."):
        if not isinstance(value, dict) or step not in value:
            return None
        value = value[step]
    return value


def words_of(value: Json) -> frozenset[str]:
    """The words of a claim: a list of them, or one text with spaces between (RFC 8693 section 4.2)."""
    if isinstance(value, str):
        words: Sequence[str] = value.split()
    elif isinstance(value, list):
        words = [each for each in value if isinstance(each, str) and each]
    else:
        return frozenset()
    if len(words) > _MAX_VALUES or any(len(word) > _MAX_TEXT for word in words):
        raise TokenRejected("malformed claims")
    return frozenset(words)


def closure(implies: Mapping[str, Iterable[str]]) -> Mapping[str, frozenset[str]]:
    """For each scope that includes others all it includes, directly or not, itself too."""
    found: dict[str, frozenset[str]] = {}
    for scope in implies:
        seen, waiting = {scope}, [scope]
        while waiting:
            for each in implies.get(waiting.pop(), ()):
                if each not in seen:
                    seen.add(each)
                    waiting.append(each)
        found[scope] = frozenset(seen)
    return found


@final
@frozen
class ClaimMap:
    """Which claim says what; see `Claims` of the stage for the meaning of the fields."""

    subject: str
    scopes: tuple[str, ...]
    tenant: str | None
    tenants: str | None
    roles: tuple[str, ...]
    prefix: str
    """Put in front of the subject."""
    implied: Mapping[str, frozenset[str]]
    """From `closure`."""

    def caller(self, claims: Mapping[str, Json], credential: str) -> Caller:
        """
        The principal that verified claims describe.

        Raises:
            TokenRejected: They name no subject, or are not of the form they should have.
        """
        subject = _text(claim_at(claims, self.subject))
        if subject is None:
            raise TokenRejected("no subject")
        scopes = next((words_of(claims[name]) for name in self.scopes if name in claims), frozenset[str]())
        return Caller(
            self.prefix + subject,
            tenant=_text(claim_at(claims, self.tenant)) if self.tenant is not None else None,
            scopes=self.with_implied(scopes),
            how="bearer",
            roles=frozenset[str]().union(*(words_of(claim_at(claims, name)) for name in self.roles)),
            tenants=words_of(claim_at(claims, self.tenants)) if self.tenants is not None else frozenset(),
            credential=credential,
        )

    def with_implied(self, scopes: frozenset[str]) -> frozenset[str]:
        """Scopes with those they include."""
        if not self.implied:
            return scopes
        return scopes.union(*(self.implied.get(scope, ()) for scope in scopes))


def _text(value: Json) -> str | None:
    """A claim that is one text; None if it is missing or empty."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isprintable():
        raise TokenRejected("malformed claims")
    return value
