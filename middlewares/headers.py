"""
`headers`: who may ask from where, and which headers go which way.

The `http` source checks Origin and Host of every HTTP request before there is an exchange, answers preflight requests,
and sends CORS headers to the origins it allows. This stage is the policy of one pipeline: narrower lists of origins and
hosts, what scripts may read, security headers, and credentials hidden from everything behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

from attrs import frozen
from msgspec.structs import replace

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.model.when import matcher
from sluiceway.pipeline.protocol.errors import Forbidden, Misdirected
from sluiceway.pipeline.protocol.messages import Reply
from sluiceway.pipeline.telemetry.redaction import clip

_SECURITY: Final[Mapping[str, str]] = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Headers for replies that are data and never pages (OWASP secure headers project, for APIs)."""
_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})


@final
@middleware("headers")
class Headers(Middleware):
    """
    Check Origin and Host, put headers on replies, hide credentials.

    * A request without `Origin` does not come from a script of a foreign page, and passes. `null` (a sandboxed page,
      a file) passes only where the list names it; `*` does not cover it.
    * A host in the list without a port stands for all its ports.
    * Transports without headers (stdio) have no origin and no host; nothing is checked there.
    * Preflight requests (`OPTIONS`) never become exchanges: the source answers them. An origin must be allowed there
      before a list here can let it pass.
    * `hide` takes headers out of what inner stages see. Sinks never forward client headers in any case (MCP
      2026-07-28, authorization: no token passthrough).

    Raises:
        Forbidden: The origin is not in `allowed_origins` (HTTP 403).
        Misdirected: The host is not in `allowed_hosts`, or not given (HTTP 421).
    """

    reads_results = False
    role = "headers"
    order = (
        Order(
            "after", "auth", "warning",
            "it hides the credentials that authentication reads; a headers stage in front of it needs `hide: []`",
        ),
    )  # fmt: skip

    @frozen
    class Config:
        """Options of `headers`."""

        allowed_origins: tuple[str, ...] | None = option(
            None,
            doc="Origins whose scripts may use this pipeline, as globs; not checked here when absent.",
            example=["https://assistant.example.com"],
        )
        allowed_hosts: tuple[str, ...] | None = option(
            None,
            doc="Hosts, as globs, under which this pipeline may be addressed; not checked here when absent.",
            example=["gateway.example.com"],
        )
        expose: tuple[str, ...] | None = option(
            None,
            doc="Response headers that scripts of an allowed origin may read, in place of the source's list.",
            example=["mcp-session-id", "x-correlation-id"],
        )
        security: bool = option(True, doc="Whether replies carry headers that keep browsers from using them as pages.")
        add: Mapping[str, str] = option(
            factory=dict,
            doc="Further response headers; they win over those of `security`.",
            example={"strict-transport-security": "max-age=31536000"},
        )
        hide: tuple[str, ...] = option(
            ("authorization", "proxy-authorization", "cookie", "x-api-key"),
            doc="Request headers that no stage behind this one sees.",
        )

        def __attrs_post_init__(self) -> None:
            for name, value in self.add.items():
                if not name.isascii() or not name.replace("-", "").isalnum() or not value.isprintable():
                    raise ValueError(f"add: {name!r} is not a header name, or its value has control characters")
                if name.lower() in _FRAMING:
                    raise ValueError(
                        f"add: {name!r} says where a response ends; the source says so, whatever it writes"
                    )

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._origin_allowed = _allow_list(config.allowed_origins)
        self._host_allowed = _allow_list(config.allowed_hosts)
        self._hidden = frozenset(name.lower() for name in config.hide)
        self._reply = (dict(_SECURITY) if config.security else {}) | {k.lower(): v for k, v in config.add.items()}
        self._exposed = None if config.expose is None else ", ".join(config.expose)

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Refuse or go on; inner stages see a client without the hidden headers."""
        headers = exchange.client.headers
        if self._reply:
            exchange.reply_headers.update(self._reply)
        if headers:
            self._check_host(headers.get("host"))
            self._check_origin(exchange, headers.get("origin"))
        if not self._hidden.isdisjoint(headers):
            exchange = exchange.with_client(self._without_hidden(exchange.client))
        return await call_next(exchange)

    def _check_host(self, host: str | None) -> None:
        if self._host_allowed is None or (host is not None and self._host_allowed(_without_port(host))):
            return
        if host is not None and self._host_allowed(host.lower()):
            return
        asked = "a request without Host" if host is None else f"host {clip(host, 100)!r}"
        raise Misdirected(f"{asked} is not served here; list it in allowed_hosts of {self.context.id}")

    def _check_origin(self, exchange: Exchange, origin: str | None) -> None:
        if origin is None:
            return
        if self._origin_allowed is not None and not self._origin_allowed(origin.lower()):
            raise Forbidden(
                f"origin {clip(origin, 100)!r} is not allowed; list it in allowed_origins of {self.context.id}"
            )
        if self._exposed is not None:
            exchange.reply_headers["access-control-expose-headers"] = self._exposed

    def _without_hidden(self, client: Client) -> Client:
        return replace(client, headers={k: v for k, v in client.headers.items() if k not in self._hidden})


def _allow_list(patterns: tuple[str, ...] | None) -> Callable[[str], bool] | None:
    """A predicate over lower-case text, or None where there is no list. `null` must be named, not matched."""
    if patterns is None:
        return None
    names = tuple(pattern.lower() for pattern in patterns)
    matches, null_named = matcher(names), "null" in names
    return lambda text: null_named if text == "null" else matches(text)


def _without_port(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() else host.lower()
