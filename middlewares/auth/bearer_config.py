"""The options of `auth_bearer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from attrs import frozen

from sluiceway.pipeline.model.options import (
    DAY,
    MINUTE,
    SECOND,
    ConfigPath,
    Duration,
    Secret,
    option,
)
from sluiceway.pipeline.model.origin import parse_origin
from sluiceway.pipeline.model.when import When

from .discovery import check_issuer
from .jwks import ASYMMETRIC, SYMMETRIC
from .stage import optional_option


@final
@frozen
class Claims:
    """Which claims say what. A dot leads into an object, unless a claim has exactly the name."""

    subject: str = option("sub", doc="Claim of the subject.")
    scopes: tuple[str, ...] = option(("scope", "scp"), doc="Claims of the scopes; the first that is there counts.")
    tenant: str | None = option(None, doc="Claim of the tenant.", example="org")
    tenants: str | None = option(None, doc="Claim of further tenants to choose from.", example="orgs")
    roles: tuple[str, ...] = option((), doc="Claims of the roles; all count.", example=["realm_access.roles"])


@final
@frozen
class Introspect:
    """How opaque tokens are asked about (RFC 7662)."""

    client_id: str = option(doc="The gateway's name at the authorization server.", example="sluiceway")
    client_secret: Secret = option(doc="Its password there.", example={"from_env": "INTROSPECTION_SECRET"})
    url: str | None = option(
        None, doc="The introspection endpoint; the discovered one when absent.", example="https://id.example.com/introspect"
    )  # fmt: skip
    remember: Duration = option(
        Duration(30 * SECOND), gt=0, le=10 * MINUTE,
        doc="How long an answer is believed: a token that was revoked is accepted for that long.",
    )  # fmt: skip

    def __attrs_post_init__(self) -> None:
        if self.url is not None:
            check_issuer(self.url)


@final
@frozen(kw_only=True)
class Need:
    """Scopes that some exchanges need."""

    when: When = option(doc="The exchanges meant, as in the guard of a stage.", example={"name": "delete_*"})
    scopes: tuple[str, ...] = option(doc="All of these are needed.", example=["files:write"])


@final
@frozen
class BearerConfig:
    """Options of `auth_bearer`."""

    issuer: str = option(doc="The authorization server, exactly as it calls itself.", example="https://id.example.com")
    resource: str = option(
        doc="This gateway's own address, as clients know it: what tokens must be made for.",
        example="https://gateway.example.com/mcp",
    )
    resources: Mapping[str, str] = option(
        factory=dict,
        doc="Other addresses of some sources, by source id, where a pipeline serves several endpoints.",
        example={"partners": "https://gateway.example.com/partners"},
    )
    audiences: tuple[str, ...] = option(
        (),
        doc="Further audiences that mean this gateway, for authorization servers that do not know its address.",
        example=["sluiceway"],
    )
    algorithms: tuple[str, ...] = option(
        ASYMMETRIC,
        doc="Algorithms of signatures. Symmetric ones (HS256) only by themselves, and only with a key of your own in "
        "`jwks`.",
    )
    types: tuple[str, ...] = option(
        ("at+jwt", "jwt"), doc="What a token's `typ` may say; a token without one is accepted."
    )
    jwks: Secret | None = option(
        None, doc="The keys, in a file or variable of your own, in place of those that the issuer publishes.",
        example={"from_file": "./jwks.json"},
    )  # fmt: skip
    jwks_url: str | None = option(
        None, doc="Where the keys are, in place of looking it up at the issuer.",
        example="https://id.example.com/jwks.json",
    )  # fmt: skip
    introspection: Introspect | None = option(
        None, doc="Ask the authorization server about tokens that are no JWT.",
        example={"client_id": "sluiceway", "client_secret": {"from_env": "INTROSPECTION_SECRET"}},
    )  # fmt: skip
    jwt: bool = option(True, doc="Whether tokens may be JWTs; off, every token is asked about by `introspection`.")
    leeway: Duration = option(
        Duration(30 * SECOND), ge=0, le=5 * MINUTE, doc="How far this machine's clock and the issuer's may differ."
    )
    claims: Claims = option(Claims(), doc="Which claims say what.", example={"roles": ["realm_access.roles"]})
    prefix: str = option(
        "", doc="Put in front of every subject, so that subjects of two issuers, or of keys, are never the same.",
        example="idp:",
    )  # fmt: skip
    implies: Mapping[str, tuple[str, ...]] = option(
        factory=dict, doc="Scopes that include others, directly or through others.",
        example={"files:write": ["files:read"]},
    )  # fmt: skip
    require: tuple[str, ...] = option((), doc="Scopes that every exchange needs.", example=["mcp"])
    needs: tuple[Need, ...] = option(
        (), doc="Scopes that some exchanges need besides.",
        example=[{"when": {"name": "delete_*"}, "scopes": ["files:write"]}],
    )  # fmt: skip
    title: str | None = option(
        None, doc="What the gateway is called in its published metadata.", example="Example tools"
    )
    documentation: str | None = option(
        None, doc="Where people read about it; published.", example="https://docs.example.com/mcp"
    )
    refresh: Duration = option(Duration(10 * MINUTE), gt=0, doc="How often keys are fetched.")
    refresh_at_most: Duration = option(
        Duration(30 * SECOND), gt=0, doc="Time between two fetches at least, whatever keys tokens name."
    )
    keep_stale: Duration = option(
        Duration(1 * DAY), ge=0, doc="How long keys are kept while the issuer cannot be reached."
    )
    fetch_timeout: Duration = option(
        Duration(5 * SECOND), gt=0, le=1 * MINUTE, doc="Time for one answer of the authorization server."
    )
    max_remembered: int = option(
        10_000, ge=1, doc="Verified tokens that are remembered, by digest, until they expire; the oldest goes first."
    )
    allow_private: bool = option(
        False,
        doc="Whether names of the authorization server may lead to private, loopback or link-local addresses. An "
        "address that is written here as such is allowed anyway.",
    )
    ca: ConfigPath | None = option(
        None, doc="File of certificates to trust in place of the system's.", example="./tls/ca.pem"
    )
    optional: bool = optional_option()

    def __attrs_post_init__(self) -> None:
        check_issuer(self.issuer)
        for resource in (self.resource, *self.resources.values()):
            parse_origin(resource)
        if self.jwks is not None and self.jwks_url is not None:
            raise ValueError("jwks, jwks_url: keys come from one place; keep one of them")
        if self.jwks_url is not None:
            check_issuer(self.jwks_url)
        self._check_algorithms()
        if not self.jwt and self.introspection is None:
            raise ValueError("jwt: off, and no introspection; then no token is ever accepted")

    def _check_algorithms(self) -> None:
        unknown = set(self.algorithms) - {*ASYMMETRIC, *SYMMETRIC}
        if unknown or not self.algorithms:
            raise ValueError(f"algorithms: {sorted(unknown)} are not among {', '.join((*ASYMMETRIC, *SYMMETRIC))}")
        symmetric = set(self.algorithms) & {*SYMMETRIC}
        if symmetric and (symmetric != set(self.algorithms) or self.jwks is None):
            raise ValueError(
                f"algorithms: {sorted(symmetric)} must stand alone, with a key in jwks; mixed with others, a public "
                "key could be used as a secret one"
            )

    @property
    def symmetric(self) -> bool:
        """Whether signatures are made with a key that both sides know."""
        return self.algorithms[0] in SYMMETRIC
