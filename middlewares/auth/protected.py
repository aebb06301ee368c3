"""
An endpoint as a protected resource: its address, what it publishes (RFC 9728), how it challenges (RFC 6750). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, final
from urllib.parse import urlsplit

from attrs import define, field

from sluiceway.pipeline.protocol.messages import EMPTY, Json

from .challenges import render_challenge

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
OFFLINE: Final = "offline_access"
"""A scope that is the client's affair with the authorization server, and no resource asks for (MCP 2026-07-28)."""


@final
@define(eq=False)
class ProtectedResource:
    """
    One endpoint.

    Args:
        resource: Its canonical address.
        audiences: Audiences of tokens that are for it.
        metadata: What it publishes.
    """

    resource: str
    audiences: frozenset[str]
    metadata: Mapping[str, Json]
    location: str = field(init=False)
    """Where the metadata is: the well-known path goes between host and path (RFC 9728 section 3.1)."""

    def __attrs_post_init__(self) -> None:
        parts = urlsplit(self.resource)
        self.location = f"{parts.scheme}://{parts.netloc}{WELL_KNOWN}{parts.path.rstrip('/')}"

    def challenge(self, scopes: Iterable[str] = (), errors: Mapping[str, str] = EMPTY) -> str:
        """
        Value of `WWW-Authenticate`.

        Args:
            scopes: All that the operation needs.
            errors: `error` and `error_description`; none when no token was sent (RFC 6750 section 3.1).
        """
        needed = " ".join(sorted(scopes))
        return render_challenge(
            "Bearer",
            {**errors, **({"scope": needed} if needed else {}), "resource_metadata": self.location},
        )


def make_metadata(
    resource: str, issuer: str, scopes: Iterable[str], title: str | None, documentation: str | None
) -> Mapping[str, Json]:
    """The metadata of an endpoint (RFC 9728 section 2)."""
    supported = sorted(set(scopes) - {OFFLINE})
    document: dict[str, Json] = {
        "resource": resource,
        "authorization_servers": [issuer],
        "bearer_methods_supported": ["header"],
    }
    if supported:
        document["scopes_supported"] = supported
    if title is not None:
        document["resource_name"] = title
    if documentation is not None:
        document["resource_documentation"] = documentation
    return document
