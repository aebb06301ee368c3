"""From options to an upstream that can be spoken to: secrets resolved, certificates read, pools made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.model.origin import Origin, parse_origin
from sluiceway.pipeline.protocol.errors import ConnectFailed

from ..http_client.client import Http2Offer, HttpClient
from ..http_client.connect import Dialer, make_tls
from ..http_client.connection import Transport
from ..http_client.pool import PoolLimits
from ..http_client.proxies import Proxy, check_credentials, parse_proxy
from .config import ReachConfig, RemoteConfig
from .incoming import Announce
from .oauth import MAX_ANSWER, TokenSource
from .upstream import Upstream

_TOKENS_IDLE_S: Final = 30.0
"""How long a connection to a token endpoint is kept: two that come together share it."""


@final
@frozen
class Reach:
    """An upstream and the pools behind it. Close it, always."""

    upstream: Upstream
    client: HttpClient
    tokens_client: HttpClient | None

    @classmethod
    def make(cls, name: str, config: RemoteConfig, announce: Announce) -> Reach:
        """
        Resolve secrets and read certificates; connections are opened by those who need them.

        Args:
            name: What the upstream is called in errors: the sink's id.
            config: The sink's options.
            announce: See `Upstream`.

        Raises:
            ConnectFailed: A certificate cannot be read, or a secret cannot be sent in a header.
            LookupError: A secret cannot be resolved.
        """
        client, tokens_client = _client(name, config), make_tokens_client(name, config)
        return cls(_upstream(name, config, client, tokens_client, announce), client, tokens_client)

    async def start(self, nursery: trio.Nursery) -> None:
        """Start what looks after the pools."""
        await nursery.start(self.client.run)
        if self.tokens_client is not None:
            await nursery.start(self.tokens_client.run)

    def close(self) -> None:
        """Close all connections, those in use when they come back."""
        self.client.close()
        if self.tokens_client is not None:
            self.tokens_client.close()


def _upstream(
    name: str, config: RemoteConfig, client: HttpClient, tokens_client: HttpClient | None, announce: Announce
) -> Upstream:
    headers, tokens = resolve_headers(config), make_tokens(name, config, tokens_client)
    try:
        return Upstream(
            name,
            client,
            headers,
            tokens,
            max_message=config.max_message,
            idle_s=config.idle_timeout,
            announce=announce,
        )
    except ValueError as error:  # a secret with a line end in it, for example
        raise ConnectFailed(f"{name}: {error}") from error


def _client(name: str, config: RemoteConfig) -> HttpClient:
    origin = config.parse_url()
    limits = PoolLimits(config.max_connections, config.max_waiting, config.keep_idle)
    return HttpClient(
        name,
        origin,
        make_dialer(name, config, origin),
        max_message=config.max_message,
        limits=limits,
        max_streams=config.max_streams,
        http2=_http2(name, config, origin),
    )


def _http2(name: str, config: RemoteConfig, origin: Origin) -> Http2Offer | None:
    if config.http2 == "never":
        return None
    only = config.http2 == "always"
    return Http2Offer(make_dialer(name, config, origin, ("h2",) if only else ("h2", "http/1.1")), only)


def resolve_headers(config: ReachConfig) -> dict[str, str]:
    """The operator's headers as they are sent. Raises `LookupError` if a secret cannot be resolved."""
    return {key: value.resolve() if isinstance(value, Secret) else value for key, value in config.headers.items()}


def make_tokens(name: str, config: ReachConfig, client: HttpClient | None) -> TokenSource | None:
    """
    Where the bearer token comes from; None if none is asked for.

    Args:
        name: What the upstream is called in errors.
        config: The sink's options.
        client: What `make_tokens_client` made.

    Raises:
        LookupError: The secret cannot be resolved.
    """
    oauth = config.oauth
    if oauth is None or client is None:
        return None
    secret = oauth.client_secret.resolve()
    return TokenSource(name, client, oauth.client_id, secret, scope=oauth.scope, resource=oauth.resource)


def make_tokens_client(name: str, config: ReachConfig) -> HttpClient | None:
    """Leads to the token endpoint of `oauth`; run and close it. Raises as `make_dialer` does."""
    if config.oauth is None:
        return None
    origin = parse_origin(config.oauth.token_url)
    limits = PoolLimits(max_connections=1, idle_s=_TOKENS_IDLE_S)
    return HttpClient(name, origin, make_dialer(name, config, origin), max_message=MAX_ANSWER, limits=limits)


def make_dialer(
    name: str, config: ReachConfig, origin: Origin, protocols: Sequence[str] = ("http/1.1",)
) -> Callable[[], Awaitable[Transport]]:
    """
    Opens connections to an origin, through the proxy if there is one.

    Raises:
        ConnectFailed: A certificate cannot be read, or the proxy's password cannot be sent.
        LookupError: The password cannot be resolved.
    """
    tls = config.tls
    files = [None if path is None else str(path) for path in (tls.ca, tls.cert, tls.key)]
    try:
        context = make_tls(*files, protocols=protocols) if origin.tls else None
    except OSError as error:
        raise ConnectFailed(f"{name}: tls: a file cannot be used: {error.strerror or error}") from error
    return Dialer(
        origin=origin,
        timeout_s=config.connect_timeout,
        tls=context,
        allow_private=config.allow_private,
        proxy=_proxy(name, config),
    )


def _proxy(name: str, config: ReachConfig) -> Proxy | None:
    auth = config.proxy_auth
    if config.proxy is None or auth is None:
        return None if config.proxy is None else parse_proxy(config.proxy)
    password = auth.password.resolve()
    try:
        check_credentials(auth.user, password)
    except ValueError as error:
        raise ConnectFailed(f"{name}: {error}") from error
    return parse_proxy(config.proxy, (auth.user, password))
