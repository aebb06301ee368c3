"""The options of the `http` sink, and those it shares with other sinks that speak HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, final

from attrs import frozen

from sluiceway.pipeline.model.options import KIB, MIB, MINUTE, SECOND, ConfigPath, Duration, Secret, Size, option
from sluiceway.pipeline.model.origin import Origin, parse_origin

from ..http_client.client import render_headers
from ..http_client.proxies import parse_proxy
from ..translation.config import TranslationConfig

_OURS: Final = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "accept", "accept-encoding",
     "last-event-id", "user-agent"}
)  # fmt: skip
"""Headers that the sink writes itself, besides `mcp-*`."""


@final
@frozen
class OAuthConfig:
    """Client credentials (RFC 6749 section 4.4): how the gateway gets a token of its own."""

    token_url: str = option(
        doc="The token endpoint of the authorization server.", example="https://id.example.com/token"
    )
    client_id: str = option(doc="The gateway's name there.", example="sluiceway")
    client_secret: Secret = option(doc="Its password there.", example={"from_env": "CLIENT_SECRET"})
    scope: str | None = option(None, doc="Scopes to ask for, with spaces between.", example="tools.read tools.call")
    resource: str | None = option(
        None,
        doc="The upstream that the token is for (RFC 8707). MCP requires it; leave it out only for an authorization "
        "server that refuses it.",
        example="https://search.example.com/mcp",
    )

    def __attrs_post_init__(self) -> None:
        parse_origin(self.token_url)


@final
@frozen
class ProxyAuthConfig:
    """Who the gateway is to a proxy: Basic over HTTP (RFC 7617), user and password over SOCKS 5 (RFC 1929)."""

    user: str = option(doc="The gateway's name there.", example="sluiceway")
    password: Secret = option(doc="Its password there.", example={"from_env": "PROXY_PASSWORD"})


@final
@frozen
class TlsConfig:
    """What the sink trusts, and what it shows of itself."""

    ca: ConfigPath | None = option(
        None, doc="File of certificates to trust instead of the system's.", example="./tls/ca.pem"
    )
    cert: ConfigPath | None = option(
        None, doc="File of the client certificate, if the upstream wants one.", example="./tls/client.pem"
    )
    key: ConfigPath | None = option(
        None, doc="File of its private key, if that is not in `cert`.", example="./tls/client.key"
    )


@frozen
class ReachConfig:
    """What every sink needs whose upstream is somewhere in the network."""

    url: str = option(doc="The MCP endpoint of the upstream.", example="https://search.example.com/mcp")
    headers: Mapping[str, str | Secret] = option(
        factory=dict,
        doc="Headers for the upstream, such as a credential. Nothing of the client's own headers is passed on.",
        example={"authorization": {"from_env": "SEARCH_AUTHORIZATION"}},
    )
    oauth: OAuthConfig | None = option(
        None,
        doc="Get a bearer token with client credentials, and renew it.",
        example={
            "token_url": "https://id.example.com/token",
            "client_id": "sluiceway",
            "client_secret": {"from_env": "CLIENT_SECRET"},
        },
    )
    tls: TlsConfig = option(
        TlsConfig(),
        doc="Trust and client certificate for an https upstream, and for the token endpoint of `oauth`.",
        example={"ca": "./tls/ca.pem"},
    )
    proxy: str | None = option(
        None,
        doc="A proxy on the way to the upstream: `http://` tunnels (CONNECT) and `socks5h://` passes on; both look the "
        "upstream's name up themselves, so `allow_private` does not bind them. With `socks5://` the gateway does. "
        "Nothing is taken from HTTP_PROXY and the like.",
        example="http://proxy.internal:3128",
    )
    proxy_auth: ProxyAuthConfig | None = option(
        None,
        doc="User and password for the proxy.",
        example={"user": "sluiceway", "password": {"from_env": "PROXY_PASSWORD"}},
    )
    allow_private: bool = option(
        False,
        doc="Whether the upstream's name may lead to a private, loopback or link-local address. One that the url "
        "itself names is allowed anyway.",
    )
    connect_timeout: Duration = option(
        Duration(10 * SECOND), gt=0, doc="Time for name resolution, TCP, proxy and TLS together."
    )
    translate: bool = option(
        True,
        doc="Whether clients of revisions that the upstream does not speak are served by translating; else they are "
        "refused. What is lost in translation: docs/eras.md.",
    )
    translation: TranslationConfig = option(
        factory=TranslationConfig,
        doc="What is held at an upstream with handshakes for clients that know none.",
        example={"park_timeout": "2m"},
    )

    def __attrs_post_init__(self) -> None:
        self.parse_url()
        if self.proxy is not None:
            parse_proxy(self.proxy)
        elif self.proxy_auth is not None:
            raise ValueError("proxy_auth: without proxy there is nobody to show it to")
        for name, value in self.headers.items():
            if self.writes_header(name.lower()):
                raise ValueError(f"headers: {name} is written by the sink itself")
            render_headers({name: value if isinstance(value, str) else ""})
        if self.oauth is not None and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("headers: authorization is what oauth provides; keep one of them")
        if self.tls.key is not None and self.tls.cert is None:
            raise ValueError("tls: key is of no use without cert")

    def parse_url(self) -> Origin:
        """
        Where the upstream is.

        Raises:
            ValueError: `url` is no address, or has parts that must not be in it.
        """
        return parse_origin(self.url)

    def writes_header(self, name: str) -> bool:
        """Whether the sink writes a header itself; the name is in lower case."""
        return name in _OURS or name.startswith("mcp-")


@frozen
class RemoteConfig(ReachConfig):
    """What every sink needs that speaks to an upstream over HTTP."""

    idle_timeout: Duration = option(
        Duration(5 * MINUTE), gt=0, doc="Silence after which an event stream of the upstream is given up."
    )
    max_message: Size = option(
        Size(16 * MIB), ge=1 * KIB, doc="Longest message the upstream may send; a longer one fails its request."
    )
    http2: Literal["auto", "always", "never"] = option(
        "never",
        doc="Whether to speak HTTP/2: `auto` where an https upstream chooses it in the TLS handshake (ALPN), `always` "
        "without asking, also over http (prior knowledge). It takes fewer connections and several times the CPU.",
        example="auto",
    )
    max_connections: int = option(
        64, ge=1,
        doc="Connections for requests at the same time; more requests wait their turn. Over HTTP/2 each carries as "
        "many as the upstream allows, 100 at most.",
    )  # fmt: skip
    max_waiting: int = option(1024, ge=0, doc="Requests that may wait for a connection; more are refused.")
    max_streams: int = option(
        1000, ge=1,
        doc="Event streams at the same time that only listen: one for each session and each subscription. Over "
        "HTTP/1.1 each is a connection of its own.",
    )  # fmt: skip
    keep_idle: Duration = option(
        Duration(30 * SECOND), gt=0,
        doc="Time for which a connection without a request is kept. Choose less than the upstream does.",
    )  # fmt: skip

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.http2 == "auto" and not self.parse_url().tls:
            raise ValueError("http2: auto asks in the TLS handshake, and http has none; write always or never")


@final
@frozen
class HttpSinkConfig(RemoteConfig):
    """Options of the `http` sink."""

    era: Literal["auto", "legacy", "modern"] = option(
        "auto",
        doc="Which revisions the upstream speaks: with a handshake (up to 2025-11-25), or without (2026-07-28). `auto` "
        "finds out. See `translate` for clients of the other kind.",
    )
    follow_name: Duration | None = option(
        None, ge=1,
        doc="Interval to look the name in `url` up again (A, AAAA). When it leads elsewhere, new connections go there; "
        "when it leads nowhere, or somewhere again, the sink is shown as degraded or ready, and sessions and caches "
        "are told that lists have changed.",
        example="30s",
    )  # fmt: skip

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.follow_name is not None and self.proxy is not None:
            raise ValueError("follow_name: the proxy looks the name up; keep one of them")
