"""
Where an authorization server is described, and what of that counts (RFC 8414, OpenID Connect Discovery). Pure.

A description is something that was fetched: it may send us anywhere. So it must name the issuer it was asked for, its
addresses must be https (http only if the operator wrote the issuer so, which is for loopback), and who connects to them
checks where their names lead.
"""

from __future__ import annotations

from typing import Final, final

from attrs import frozen

from sluiceway.pipeline.model.options import KIB
from sluiceway.pipeline.model.origin import Origin, parse_origin
from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.gate import Limits, parse
from sluiceway.pipeline.protocol.messages import Json

MAX_METADATA: Final = 128 * KIB
_LIMITS: Final = Limits(max_message_size=MAX_METADATA)


@final
@frozen
class ServerMetadata:
    """What of an authorization server's description is used here."""

    jwks_uri: str | None
    introspection_endpoint: str | None


def check_issuer(issuer: str) -> Origin:
    """
    Check an issuer, or another address, that an operator wrote.

    Raises:
        ValueError: It is not https, and not http on this machine.
    """
    origin = parse_origin(issuer)
    if not origin.tls and not origin.names_private:
        raise ValueError(f"{issuer[:120]!r} must be https; plain http is for addresses that are not public")
    return origin


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """Where to look, in the order of MCP 2026-07-28 (authorization, discovery of authorization servers)."""
    scheme, _, rest = issuer.partition("://")
    host, slash, path = rest.partition("/")
    path = (slash + path).rstrip("/")
    base = f"{scheme}://{host}"
    if not path:
        return f"{base}/.well-known/oauth-authorization-server", f"{base}/.well-known/openid-configuration"
    return (
        f"{base}/.well-known/oauth-authorization-server{path}",
        f"{base}/.well-known/openid-configuration{path}",
        f"{base}{path}/.well-known/openid-configuration",
    )


def parse_metadata(data: bytes, issuer: str) -> ServerMetadata:
    """
    Read a description.

    Raises:
        ValueError: It is none, describes another issuer (RFC 8414 section 3.3), or leads where nobody should go.
    """
    try:
        document = parse(data, _LIMITS)
    except GatewayError as error:
        raise ValueError(f"not a description of an authorization server: {error.message}") from error
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        raise ValueError("it describes another issuer than the configured one")
    plain = issuer.startswith("http://")
    return ServerMetadata(
        _address(document.get("jwks_uri"), "jwks_uri", plain=plain),
        _address(document.get("introspection_endpoint"), "introspection_endpoint", plain=plain),
    )


def _address(value: Json, name: str, *, plain: bool) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"its {name} is no text")
    try:
        origin = parse_origin(value)
    except ValueError as error:
        raise ValueError(f"its {name} is no address: {error}") from error
    if not origin.tls and not plain:
        raise ValueError(f"its {name} is not https")
    return value
