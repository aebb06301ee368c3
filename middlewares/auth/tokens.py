"""
Verifying a JWT access token (RFC 7519, RFC 8725, RFC 9068): pure, given keys, rules and the date.

What the attacks on JWT have in common is that the token decides how it is verified. So here it does not: the algorithm
must be one of the configured ones *and* fit the key, keys come from the configured set only, and headers that name or
bring other keys, or that ask for something to be understood, are refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final, final

from attrs import frozen

from sluiceway.pipeline.model.options import KIB
from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.gate import Limits, parse
from sluiceway.pipeline.protocol.messages import Json

from .jwks import KeySet

MAX_TOKEN: Final = 16 * KIB
"""Characters of a token."""
_MAX_KID: Final = 256
_LIMITS: Final = Limits(max_message_size=MAX_TOKEN)
_FOREIGN_KEYS: Final = ("jwk", "jku", "x5u", "x5c")
"""Headers that bring a key, or say where one is (RFC 7515 section 4.1); ours come from the issuer alone."""


class TokenRejected(Exception):
    """
    A token is not to be accepted.

    Args:
        cause: One of a few fixed phrases.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class UnknownKey(TokenRejected):
    """No key of the set fits: perhaps there is one that is newer than the set."""


@final
@frozen
class Rules:
    """What a token must be, whoever sends it."""

    issuer: str
    algorithms: frozenset[str]
    types: frozenset[str]
    """Media types a `typ` header may name, in lower case, without `application/`."""
    leeway_s: int
    """How far clocks may differ."""


@final
@frozen
class Header:
    """What of a token's header is looked at."""

    algorithm: str
    kid: str | None


def read_header(token: str, rules: Rules) -> Header:
    """
    Read the header of a token, before anything is verified.

    Raises:
        TokenRejected: It is no JWT, or asks for what is not done here.
    """
    parts = token.split(".")
    if len(parts) != 3 or len(token) > MAX_TOKEN:
        raise TokenRejected("not a JWT")
    header = _object(_decoded(parts[0]))
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str) or algorithm not in rules.algorithms:
        raise TokenRejected("algorithm not allowed")
    if "crit" in header or "b64" in header:
        raise TokenRejected("critical header not understood")
    if any(name in header for name in _FOREIGN_KEYS):
        raise TokenRejected("key in the header")
    if kid is not None and (not isinstance(kid, str) or len(kid) > _MAX_KID):
        raise TokenRejected("malformed key id")
    if kind is not None:
        name = kind.lower().removeprefix("application/") if isinstance(kind, str) else ""
        if name not in rules.types:
            raise TokenRejected("type not allowed")
    return Header(algorithm, kid)


def verify(token: str, keys: KeySet, rules: Rules, audiences: frozenset[str], now: float) -> Mapping[str, Json]:
    """
    Verify a token and return its claims.

    Args:
        token: The compact serialization.
        keys: What it may have been signed with.
        rules: What it must be.
        audiences: What it must be for: at least one of these.
        now: Seconds since 1970.

    Raises:
        UnknownKey: It names a key that is not in the set.
        TokenRejected: It is not to be accepted.
    """
    from joserfc.errors import JoseError
    from joserfc.jws import deserialize_compact

    header = read_header(token, rules)
    candidates = keys.candidates(header.algorithm, header.kid)
    if not candidates:
        raise UnknownKey("unknown key")
    registry = _registry()
    for candidate in candidates:
        try:
            found = deserialize_compact(token, candidate.key, algorithms=[header.algorithm], registry=registry)
        except (JoseError, ValueError, TypeError):
            continue
        claims = _object(found.payload or b"")
        check_claims(claims, rules, audiences, now)
        return claims
    raise TokenRejected("bad signature") if header.kid is not None else UnknownKey("bad signature")


def check_claims(
    claims: Mapping[str, Json], rules: Rules, audiences: frozenset[str], now: float, *, complete: bool = True
) -> None:
    """
    Check what a verified token says of itself: issuer, audience, and the times between which it is valid.

    Args:
        claims: What it says.
        rules: What it must say.
        audiences: One of these it must be for.
        now: Seconds since 1970.
        complete: Whether it must name its issuer and its end: a JWT must, an introspection response need not.

    Raises:
        TokenRejected: It is for somebody else, or for another time.
    """
    from joserfc.errors import ClaimError, ExpiredTokenError
    from joserfc.jwt import JWTClaimsRegistry

    registry = JWTClaimsRegistry(
        now=int(now),
        leeway=rules.leeway_s,
        iss={"essential": complete, "value": rules.issuer},
        aud={"essential": True, "values": sorted(audiences)},
        exp={"essential": complete},
    )
    if isinstance(claims.get("aud"), list) and not claims["aud"]:
        raise TokenRejected("wrong audience")
    try:
        registry.validate(dict(claims))
    except ExpiredTokenError as error:
        raise TokenRejected("expired") from error
    except ClaimError as error:
        raise TokenRejected(_CLAIM_CAUSES.get(error.claim, "malformed claims")) from error


_CLAIM_CAUSES: Final[Mapping[str, str]] = {
    "iss": "wrong issuer",
    "aud": "wrong audience",
    "exp": "no expiry",
    "nbf": "not valid yet",
    "iat": "issued in the future",
}


def expiry_of(claims: Mapping[str, Json]) -> float:
    """When a token that was verified ends, in seconds since 1970; at once if it does not say."""
    expiry = claims.get("exp")
    return float(expiry) if isinstance(expiry, int | float) else 0.0


def _decoded(part: str) -> bytes:
    """Base64url without padding, and nothing else (RFC 7515 section 2)."""
    if not part.isascii() or "=" in part or "+" in part or "/" in part:
        raise TokenRejected("not a JWT")
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise TokenRejected("not a JWT") from error


def _object(data: bytes) -> dict[str, Json]:
    """A JSON object in which no name stands twice: parsers would disagree about which one counts."""
    try:
        value = parse(data, _LIMITS)
    except GatewayError as error:
        raise TokenRejected("not a JWT") from error
    if not isinstance(value, dict):
        raise TokenRejected("not a JWT")
    return value


def _registry() -> Any:
    """joserfc's table of algorithms, without its warnings about names (RFC 9864) and its own limit on headers."""
    global _made
    if _made is None:
        from joserfc.jws import JWSRegistry

        class Registry(JWSRegistry):
            """The algorithm was checked before."""

            max_header_length = 4 * KIB
            max_payload_length = MAX_TOKEN

            def get_alg(self, name: str) -> Any:
                return self.algorithms[name]

        _made = Registry(strict_check_header=False)
    return _made


_made: Any = None
