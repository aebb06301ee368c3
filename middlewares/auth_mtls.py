"""
`auth_mtls`: callers who have shown a client certificate, to our TLS layer or to a proxy in front of us.

Who ends TLS has checked that the certificate was issued by an authority it trusts. What is left is to take its name,
and to know whose that is. See `docs/auth.md`.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, final

from attrs import frozen

from sluiceway.pipeline.model.component import Context, middleware
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.model.remembered import Remembered
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.model.when import matcher
from sluiceway.pipeline.protocol.errors import MalformedCredentials, Unauthenticated

from .auth.certificates import Form, MalformedCertificate, NameKind, Names, read_header, read_pem
from .auth.challenges import render_challenge
from .auth.stage import AuthStage, optional_option

_MAX_REMEMBERED: Final = 1024
"""Certificates whose names are remembered."""
_UNIX: Final = "unix"
_CHALLENGE: Final = render_challenge("ClientCertificate", {"realm": "sluiceway"})


@final
@frozen(kw_only=True)
class Holder:
    """Whom some certificates stand for."""

    name: tuple[str, ...] = option(
        doc="Names, as globs; the first entry that matches counts.", example=["spiffe://example.com/agents/*"]
    )
    tenant: str | None = option(None, doc="The tenant it belongs to.", example="acme")
    tenants: tuple[str, ...] = option((), doc="Tenants it may choose from, beside its own.", example=["globex"])
    roles: tuple[str, ...] = option((), doc="Its roles.", example=["agent"])
    scopes: tuple[str, ...] = option((), doc="Its scopes.", example=["files:read"])


@final
@middleware("auth_mtls")
class AuthMtls(AuthStage):
    """
    Establish callers by the client certificate they have shown.

    * The certificate comes from the server's TLS layer (ASGI's `tls` extension), or from `header`, which counts only
      when the connection comes from one of `trusted_proxies`. From anybody else the header is nothing.
    * A certificate that a trusted proxy itself shows to us is nobody's.
    * The proxy must remove the header from what clients send. Of several elements the last one counts: the nearest
      proxy wrote it.
    * `name_from` says which name in it is the subject; `holders` whose it is. A name that no holder has is refused.

    Raises:
        Unauthenticated: No certificate, or one that nobody here knows, or that is not valid now (HTTP 401).
        MalformedCredentials: What the proxy says is not of its form (HTTP 400).
        SessionNotFound: The session is another principal's (HTTP 404).
    """

    @frozen
    class Config:
        """Options of `auth_mtls`."""

        holders: tuple[Holder, ...] = option(
            doc="Who may come in, by the name in the certificate.",
            example=[{"name": ["spiffe://example.com/agents/*"], "roles": ["agent"]}],
        )
        name_from: NameKind = option("uri", doc="Which name in the certificate is the subject.")
        header: str | None = option(
            None, doc="Header in which a trusted proxy tells the certificate; without it only our own TLS layer does.",
            example="x-forwarded-client-cert",
        )  # fmt: skip
        form: Form = option(
            "xfcc",
            doc="How: Envoy's X-Forwarded-Client-Cert, RFC 9440 Client-Cert, or a URL-encoded PEM (nginx).",
        )
        trusted_proxies: tuple[str, ...] = option(
            (), doc="Addresses or networks of proxies whose header counts; `unix` for a Unix socket.",
            example=["10.0.0.0/8"],
        )  # fmt: skip
        prefix: str = option("", doc="Put in front of every subject.", example="cert:")
        optional: bool = optional_option()

        def __attrs_post_init__(self) -> None:
            if not self.holders:
                raise ValueError("holders: name at least one, or nobody can come in")
            if (self.header is None) is not (not self.trusted_proxies):
                raise ValueError("header, trusted_proxies: one is of no use without the other")
            _networks(self.trusted_proxies)

    @classmethod
    def wants_certificates(cls, config: Config) -> bool:
        """See `WantsCertificates`: unless a proxy tells who it is."""
        return config.header is None

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context, hides=[] if config.header is None else [config.header.lower()])
        self._config = config
        self._header = config.header.lower() if config.header is not None else None
        self._networks = _networks(config.trusted_proxies)
        self._by_socket = _UNIX in config.trusted_proxies
        self._holders = [(matcher(holder.name), holder) for holder in config.holders]
        self._remembered = Remembered[tuple[str, bool], Names](_MAX_REMEMBERED)

    async def caller_of(self, exchange: Exchange) -> Caller | None:
        """See `AuthStage.caller_of`. Never a checkpoint."""
        client = exchange.client
        by_proxy = self._header is not None and self._is_trusted(exchange)
        told = client.headers.get(self._header or "") if by_proxy else client.certificate
        if told is None:
            return None
        try:
            names = self._names(told, by_proxy=by_proxy)
        except MalformedCertificate as error:
            raise self.refusal(
                exchange, MalformedCredentials, "malformed", f"what is said about the certificate is wrong: {error}",
                _CHALLENGE,
            ) from error  # fmt: skip
        if not names.begins <= self.context.now() < names.ends:
            raise self.refusal(
                exchange, Unauthenticated, "expired", "the certificate is not valid at this time", _CHALLENGE
            )
        return self._holder(exchange, names)

    def missing(self, exchange: Exchange) -> Unauthenticated:
        """See `AuthStage.missing`."""
        return self.refusal(exchange, Unauthenticated, "no credential", "a client certificate is needed", _CHALLENGE)

    def _holder(self, exchange: Exchange, names: Names) -> Caller:
        """The principal; only a certificate with exactly one name of the kind has one."""
        found = names.of(self._config.name_from)
        if len(found) == 1:
            for matches, holder in self._holders:
                if matches(found[0]):
                    return Caller(
                        self._config.prefix + found[0],
                        tenant=holder.tenant,
                        scopes=frozenset(holder.scopes),
                        how="mtls",
                        roles=frozenset(holder.roles),
                        tenants=frozenset(holder.tenants),
                        credential=names.fingerprint[0][:16] if names.fingerprint else "",
                    )
        cause = "unknown name" if len(found) == 1 else "no single name"
        raise self.refusal(
            exchange, Unauthenticated, cause, f"the certificate has no {self._config.name_from} that is known here",
            _CHALLENGE,
        )  # fmt: skip

    def _names(self, told: str, *, by_proxy: bool) -> Names:
        key = (told, by_proxy)
        names = self._remembered.get(key)
        if names is None:
            names = read_header(told, self._config.form) if by_proxy else read_pem(told)
            self._remembered.keep(key, names)
        return names

    def _is_trusted(self, exchange: Exchange) -> bool:
        """Whether the connection itself comes from a proxy: nothing that a header says counts here."""
        client = exchange.client
        if client.address is None:
            return self._by_socket and client.transport in ("http", "sse")
        try:
            address = ip_address(client.address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


def _networks(addresses: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    """
    Networks of addresses.

    Raises:
        ValueError: One is none.
    """
    try:
        return tuple(ip_network(each) for each in addresses if each != _UNIX)
    except ValueError as error:
        raise ValueError(f"trusted_proxies: {error}; write 10.0.0.0/8, 192.0.2.1 or unix") from error
