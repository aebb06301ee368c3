"""
The keys that tokens are verified with (RFC 7517), and which of them a token may mean. Pure.

A key is for signatures, of a type that fits the algorithm, and public: a symmetric key is never taken from a set that
was fetched, or whoever can read that public set could sign with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, final

from attrs import frozen

from sluiceway.pipeline.model.options import KIB
from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.gate import Limits, parse
from sluiceway.pipeline.protocol.messages import Json

ASYMMETRIC: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA",
)  # fmt: skip
"""Algorithms with a private and a public key (RFC 7518, RFC 8037, RFC 9864)."""
SYMMETRIC: Final = ("HS256", "HS384", "HS512")
"""Algorithms with a key that both sides know."""

MAX_JWKS: Final = 256 * KIB
MAX_KEYS: Final = 100
_MAX_CANDIDATES: Final = 8
"""Keys tried for a token that names none."""
_LEAST_RSA_BITS: Final = 2048
"""RFC 7518 section 3.3."""
_LIMITS: Final = Limits(max_message_size=MAX_JWKS)
_CURVES: Final = {
    "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "ES512": ("EC", "P-521"), "Ed25519": ("OKP", "Ed25519"),
    "EdDSA": ("OKP", "Ed25519"),
}  # fmt: skip


@final
@frozen
class SigningKey:
    """One key of a set."""

    key: Any
    """What joserfc made of it."""
    kid: str | None
    kty: str
    curve: str | None
    """Of EC and OKP keys."""
    alg: str | None
    """The only algorithm it is for, if it says so."""

    def fits(self, algorithm: str) -> bool:
        """Whether it is a key of that algorithm."""
        if self.alg is not None and self.alg != algorithm:
            return False
        if algorithm.startswith("HS"):
            return self.kty == "oct"
        if algorithm[:2] in ("RS", "PS"):
            return self.kty == "RSA"
        return (self.kty, self.curve) == _CURVES.get(algorithm)


@final
@frozen
class KeySet:
    """The keys in use."""

    keys: tuple[SigningKey, ...] = ()

    def candidates(self, algorithm: str, kid: str | None) -> Sequence[SigningKey]:
        """
        The keys a token may have been signed with: those of its `kid`, or if it names none, all that fit.
        """
        fitting = [key for key in self.keys if key.fits(algorithm) and (kid is None or key.kid == kid)]
        return fitting[:_MAX_CANDIDATES]


def parse_jwks(data: bytes, *, symmetric: bool = False) -> KeySet:
    """
    Read a key set. Keys that are not for signatures, or of a kind nobody here understands, are left out (RFC 7517
    section 5).

    Args:
        data: JSON.
        symmetric: Whether the set may have symmetric keys, and no others.

    Raises:
        ValueError: It is no key set, or has no key that is of use.
    """
    try:
        document = parse(data, _LIMITS)
    except GatewayError as error:
        raise ValueError(f"not a key set: {error.message}") from error
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise ValueError("not a key set: it has no list of keys (RFC 7517 section 5)")
    if len(members) > MAX_KEYS:
        raise ValueError(f"the key set has {len(members)} keys; at most {MAX_KEYS} are read")
    keys = [key for member in members if (key := _read(member, symmetric=symmetric)) is not None]
    if not keys:
        raise ValueError("the key set has no key for the signatures of tokens")
    return KeySet(tuple(keys))


def _read(member: Json, *, symmetric: bool) -> SigningKey | None:
    from joserfc.errors import JoseError  # what only checks a configuration does not pay for cryptography
    from joserfc.jwk import import_key

    if not isinstance(member, dict) or (member.get("kty") == "oct") is not symmetric:
        return None
    use, operations = member.get("use"), member.get("key_ops")
    if use not in (None, "sig") or (isinstance(operations, list) and "verify" not in operations):
        return None
    modulus = member.get("n")
    if isinstance(modulus, str) and len(modulus) * 6 < _LEAST_RSA_BITS:
        return None
    try:
        key = import_key(member)  # what is wrong with JSON from outside raises
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    if key.key_type == "RSA" and key.public_key.key_size < _LEAST_RSA_BITS:  # type: ignore[union-attr]  # it is RSA
        return None
    kid, algorithm = member.get("kid"), member.get("alg")
    return SigningKey(
        key,
        kid if isinstance(kid, str) else None,
        key.key_type,
        getattr(key, "curve_name", None),
        algorithm if isinstance(algorithm, str) else None,
    )
