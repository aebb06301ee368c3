"""
`auth_bearer`: callers who show an access token of an authorization server (OAuth 2.1; MCP 2026-07-28, authorization).

The gateway is a resource server: it verifies that each token was made by the issuer, for this gateway, for now, and
says where tokens are got and which scopes are missing. The token goes no further. See `docs/auth.md`.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import final

from attrs import define

from sluiceway.pipeline.model.component import Context, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.remembered import Remembered
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import Forbidden, MalformedCredentials, Unauthenticated, UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import Json, Reply

from .auth.bearer_config import BearerConfig
from .auth.challenges import TOKEN, split_authorization
from .auth.claims import ClaimMap, closure
from .auth.fetching import FetchFailed
from .auth.issuer import Issuer
from .auth.key_ring import KeyRing
from .auth.protected import ProtectedResource, make_metadata
from .auth.stage import Admission, AuthStage
from .auth.tokens import MAX_TOKEN, Rules, TokenRejected, UnknownKey, check_claims, expiry_of, verify


@final
@define(eq=False)
class _Endpoint:
    """A resource, and the tokens that were verified for it."""

    resource: ProtectedResource
    remembered: Remembered[bytes, tuple[int, float, Admission]]
    """By digest: the generation of keys, when it ends (seconds since 1970), and whose it is."""


@final
@middleware("auth_bearer")
class AuthBearer(AuthStage):
    """
    Establish callers by access tokens: JWTs that the issuer signed, or opaque ones that it is asked about.

    * A JWT must be signed with one of `algorithms` by a key of the issuer, name the issuer and this gateway
      (`resource` or one of `audiences`), and be valid now. A header that brings a key, or demands anything
      (`crit`), is refused.
    * Keys are found at the issuer (RFC 8414, OpenID Connect Discovery), fetched again every `refresh`, and when a
      token names one that is not known, at most every `refresh_at_most`. They outlast an issuer that is down.
    * A token that was verified is remembered by its digest until it expires.
    * `require` and `needs` say which scopes are needed; who lacks one gets 403 with all of them in the challenge, so
      that a client can ask for another token (step-up). The same is done for inner stages that name scopes.
    * The `http` source publishes what clients need to know under `/.well-known/oauth-protected-resource` (RFC 9728).

    Raises:
        Unauthenticated: No token, or one that is not accepted (HTTP 401).
        MalformedCredentials: The header is not a bearer token's (HTTP 400).
        Forbidden: The token lacks a scope (HTTP 403).
        UpstreamUnavailable: The token cannot be judged, for the issuer cannot be reached (HTTP 503).
        SessionNotFound: The session is another principal's (HTTP 404).
    """

    Config = BearerConfig

    def __init__(self, config: BearerConfig, context: Context) -> None:
        super().__init__(config, context)
        self._config = config
        claims = config.claims
        self._rules = Rules(
            config.issuer,
            frozenset(config.algorithms),
            frozenset(each.lower().removeprefix("application/") for each in config.types),
            int(config.leeway),
        )
        self._claims = ClaimMap(
            claims.subject, claims.scopes, claims.tenant, claims.tenants, claims.roles, config.prefix,
            closure(config.implies),
        )  # fmt: skip
        self._needs = tuple((need.when.compile(), frozenset(need.scopes)) for need in config.needs)
        self._required = frozenset(config.require)
        self._main = self._endpoint(config.resource)
        self._others = {source: self._endpoint(resource) for source, resource in config.resources.items()}
        self._issuer = Issuer(config, context)

    def _endpoint(self, resource: str) -> _Endpoint:
        config = self._config
        scopes = self._required.union(*(need.scopes for need in config.needs))
        metadata = make_metadata(resource, config.issuer, scopes, config.title, config.documentation)
        protected = ProtectedResource(resource, frozenset({resource, *config.audiences}), metadata)
        return _Endpoint(protected, Remembered(config.max_remembered))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Get the keys, and go on getting them. An issuer that cannot be reached leaves the stage `degraded`.

        Raises:
            LookupError: A secret is not there.
            ValueError: The keys of `jwks` are none.
            OSError: The file of `ca` cannot be read.
        """
        async with self._issuer.open():
            yield
        for endpoint in (self._main, *self._others.values()):
            endpoint.remembered.clear()

    # Requests.

    def remembered(self, exchange: Exchange) -> Admission | None:
        """See `AuthStage.remembered`: who came with a token that was verified, until it expires or keys change."""
        value = exchange.client.headers.get("authorization")
        if value is None:
            return None
        known = self._endpoint_of(exchange).remembered.get(_digest(value))
        fits = known is not None and known[0] == self._issuer.ring.changed and self.context.now() < known[1]
        return known[2] if known is not None and fits else None

    async def caller_of(self, exchange: Exchange) -> Caller | None:
        """See `AuthStage.caller_of`. A checkpoint only if the authorization server must be asked."""
        value = exchange.client.headers.get("authorization")
        if value is None:
            return None
        ring, endpoint = self._issuer.ring, self._endpoint_of(exchange)
        found = split_authorization(value)
        if found is not None and found[0] != "bearer":
            return None
        token = found[1] if found is not None else ""
        if len(token) > MAX_TOKEN or not TOKEN.fullmatch(token):
            raise self.refusal(
                exchange, MalformedCredentials, "malformed",
                f"the header authorization must be: Bearer, and one token of at most {MAX_TOKEN} characters",
                endpoint.resource.challenge(errors={"error": "invalid_request"}),
            )  # fmt: skip
        try:
            return await self._judge(token, _digest(value), endpoint, ring)
        except TokenRejected as rejected:
            raise self.refusal(
                exchange, Unauthenticated, rejected.cause, f"the token is not accepted: {rejected.cause}",
                endpoint.resource.challenge(
                    self._needed(exchange), {"error": "invalid_token", "error_description": rejected.cause}
                ),
            ) from None  # fmt: skip
        except FetchFailed as failed:
            self._note(exchange, "refuse", "authorization server unreachable")
            raise UpstreamUnavailable(
                f"{self.context.id}: the token cannot be checked now; try again", retry_after_s=ring.retry_after_s
            ) from failed

    async def _judge(self, token: str, digest: bytes, endpoint: _Endpoint, ring: KeyRing) -> Caller:
        """Verify a token that is not remembered."""
        credential = f"sha256:{digest.hex()[:16]}"
        audiences = endpoint.resource.audiences
        if not self._config.jwt or (token.count(".") != 2 and self._issuer.introspection is not None):
            assert self._issuer.introspection is not None
            answer = await self._issuer.introspection.claims_of(token, digest)
            if answer is None:
                raise TokenRejected("not active")
            check_claims(answer, self._rules, audiences, self.context.now(), complete=False)
            return self._claims.caller(answer, credential)
        claims = await self._verified(token, audiences, ring)
        caller = self._claims.caller(claims, credential)
        endpoint.remembered.keep(
            digest, (ring.changed, expiry_of(claims) + self._rules.leeway_s, self.admission(caller))
        )
        return caller

    async def _verified(self, token: str, audiences: frozenset[str], ring: KeyRing) -> Mapping[str, Json]:
        """The claims of a JWT, with newer keys if the known ones do not fit and newer ones may be had."""
        try:
            return verify(token, ring.keys, self._rules, audiences, self.context.now())
        except UnknownKey as unknown:
            rejected = unknown
        fetched = await ring.newer()
        if not ring.keys.keys:
            raise FetchFailed("there are no keys")
        if not fetched:
            raise rejected
        return verify(token, ring.keys, self._rules, audiences, self.context.now())

    def missing(self, exchange: Exchange) -> Unauthenticated:
        """See `AuthStage.missing`."""
        return self.refusal(
            exchange, Unauthenticated, "no credential", f"a token of {self._config.issuer} is needed",
            self._endpoint_of(exchange).resource.challenge(self._needed(exchange)),
        )  # fmt: skip

    # Scopes.

    def _needed(self, exchange: Exchange) -> frozenset[str]:
        """All scopes that this exchange needs."""
        if not self._needs:
            return self._required
        return self._required.union(*(scopes for applies, scopes in self._needs if applies(exchange)))

    def check(self, exchange: Exchange, caller: Caller) -> None:
        """See `AuthStage.check`."""
        needed = self._needed(exchange)
        if needed <= caller.scopes:
            return
        self._note(exchange, "refuse", "insufficient scope")
        raise Forbidden(
            f"{self.context.id}: this needs the scopes {' '.join(sorted(needed))}",
            challenge=self._step_up(exchange, needed),
            scopes=sorted(needed),
        )

    async def admit(self, exchange: Exchange, admission: Admission, call_next: Service) -> Reply:
        """See `AuthStage.admit`; tells where to get the scopes that an inner stage misses."""
        try:
            return await super().admit(exchange, admission, call_next)
        except Forbidden as error:
            if error.challenge is None and error.scopes:
                error.challenge = self._step_up(exchange, frozenset(error.scopes) | self._needed(exchange))
            raise

    def _step_up(self, exchange: Exchange, needed: frozenset[str]) -> str:
        return self._endpoint_of(exchange).resource.challenge(
            needed, {"error": "insufficient_scope", "error_description": "the token lacks a scope"}
        )

    # What is published.

    def _endpoint_of(self, exchange: Exchange) -> _Endpoint:
        return self._others.get(exchange.source, self._main)

    def resource_metadata(self, source: str) -> Mapping[str, Json] | None:
        """See `Middleware.resource_metadata`."""
        return self._others.get(source, self._main).resource.metadata

    def details(self) -> Mapping[str, Json]:
        """Counts, the keys that are known, and how often they were fetched."""
        keys: list[Json] = [key.kid for key in self._issuer.ring.keys.keys]
        remembered = sum(len(each.remembered) for each in (self._main, *self._others.values()))
        return {
            **super().details(),
            "issuer": self._config.issuer,
            "keys": keys,
            "fetches": self._issuer.ring.fetches,
            "remembered": remembered,
        }


def _digest(value: str) -> bytes:
    """Under what a token is remembered: not as it is."""
    return hashlib.sha256(value.encode("latin-1", "replace")).digest()
