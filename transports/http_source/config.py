"""The options of the `http` source."""

from __future__ import annotations

import re
from typing import Final, final

from attrs import frozen

from sluiceway.pipeline.model.options import KIB, MIB, MINUTE, SECOND, Duration, Size, option

from ..listening import SocketAccess, check_binds
from ..server_tls import ServerTlsConfig

_PATH: Final = re.compile(r"/|(?:/[A-Za-z0-9._~-]+)+")


@final
@frozen
class SseConfig:
    """The transport of 2024-11-05, which has an event stream for each client, and what one may cost."""

    path: str = option(
        "/sse", doc="Path that a client opens its event stream at; it posts to the same path with a query."
    )
    max_in_flight: int = option(
        64, ge=1, doc="Requests of one client under way at once; above this they are refused.", example=64
    )
    max_unread: Size = option(
        Size(4 * MIB), ge=1 * KIB,
        doc="Bytes that may wait for one client to read them; above this its exchanges wait.",
    )  # fmt: skip


@final
@frozen
class HttpConfig:
    """Where the source listens, whom it serves, and what a client may cost."""

    bind: str | tuple[str, ...] = option(
        "127.0.0.1:8080",
        doc="Address to listen on: `host:port` or `unix:path`, or a list of them. Port 0 takes a free one.",
        example=["127.0.0.1:8080", "[::1]:8080"],
    )
    socket_access: SocketAccess = option(
        "owner", doc="Whose processes may connect to Unix sockets: the gateway's user, its group too, or all.",
        example="group",
    )  # fmt: skip
    path: str = option("/mcp", doc="Path of the MCP endpoint.")
    allowed_hosts: tuple[str, ...] = option(
        (),
        doc="Host names under which clients may address the source, with or without port; `*` for any. Loopback names "
        "are always allowed on a loopback address, and IP addresses elsewhere as long as the list is empty.",
        example=["gateway.example.com"],
    )
    allowed_origins: tuple[str, ...] = option(
        (),
        doc="Origins whose pages may use the source; `*` for any. Those of loopback names are always allowed on a "
        "loopback address.",
        example=["https://assistant.example.com"],
    )
    tls: ServerTlsConfig | None = option(
        None,
        doc="Speak TLS, on TCP and on Unix sockets. In plain text when absent.",
        example={"cert": "./tls/gateway.pem", "key": "./tls/gateway.key"},
    )
    max_body: Size = option(Size(4 * MIB), gt=0, doc="Bytes a request body may have; more is refused with 413.")
    max_connections: int = option(
        4096, ge=1, doc="Connections at the same time; further ones are answered 503 and closed."
    )
    max_sessions: int = option(
        10_000, ge=1,
        doc="Legacy sessions at the same time. A new one then ends the one that was idle longest; it is refused with "
        "503 if all are busy. Event streams of `sse` are counted apart, and as many are allowed.",
    )  # fmt: skip
    session_idle: Duration = option(
        Duration(30 * MINUTE), gt=0, doc="Time after which a legacy session ends that neither asks nor listens."
    )
    keep_alive: Duration = option(
        Duration(15 * SECOND), gt=0,
        doc="Silence after which a comment goes out on an event stream; a response that is not ready then becomes one.",
    )  # fmt: skip
    resume_window: Duration = option(
        Duration(60 * SECOND), ge=0,
        doc="Time a legacy exchange runs on without its client, and its events are kept for one that reconnects.",
    )  # fmt: skip
    resume_events: int = option(256, ge=16, doc="Events kept for resumption, per stream.")
    resume_bytes: Size = option(
        Size(16 * MIB), ge=0, doc="Bytes kept for resumption by all streams together; the oldest stream forgets first."
    )
    head_timeout: Duration = option(
        Duration(10 * SECOND), gt=0, doc="Time a client gets to send the head of a request, the first one included."
    )
    idle_timeout: Duration = option(
        Duration(60 * SECOND), gt=0, doc="Time a connection may stay open between two requests."
    )
    body_grace: Duration = option(
        Duration(5 * SECOND), gt=0, doc="Time a client gets before the rate of its request body counts."
    )
    min_body_rate: Size = option(
        Size(1 * KIB), gt=0, doc="Bytes per second at which a request body must come; slower is refused with 408."
    )
    stall_timeout: Duration = option(
        Duration(15 * SECOND), gt=0,
        doc="Time a client may leave what was sent to it unread before it is cut off (TCP_USER_TIMEOUT, Linux only).",
    )  # fmt: skip
    compress_from: Size | None = option(
        None, gt=0, example="1KiB",
        doc="Bytes from which JSON answers are compressed for clients that accept it: with gzip, and zstd or brotli if "
        "`sluiceway[compression]` is installed. Event streams never are. Not at all when absent.",
    )  # fmt: skip
    sse: SseConfig | None = option(
        None,
        doc="Also serve HTTP+SSE, the deprecated transport of 2024-11-05, for clients that know nothing newer: `{}` is "
        "enough. Not at all when absent.",
        example={"path": "/sse"},
    )
    aliases: bool = option(
        False,
        doc="Whether methods also have paths of their own (`POST /tools/call` with the params as body), `/` is the "
        "endpoint too, and `<path>/stream` always answers with an event stream.",
    )

    def __attrs_post_init__(self) -> None:
        check_binds(self.binds)
        if not _PATH.fullmatch(self.path) or self.path in ("/healthz", "/readyz"):
            raise ValueError(f"path: {self.path!r} is not a path such as /mcp, or is taken by a health check")
        if self.sse is not None:
            where = self.sse.path
            if not _PATH.fullmatch(where) or where in ("/healthz", "/readyz", self.path, *self._further_paths):
                raise ValueError(f"sse: path {where!r} is not a path such as /sse, or is taken already")

    @property
    def paths(self) -> tuple[str, ...]:
        """Where its endpoints are."""
        return (self.path,) if self.sse is None else (self.path, self.sse.path)

    @property
    def _further_paths(self) -> tuple[str, ...]:
        return ("/", f"{self.path.rstrip('/')}/stream") if self.aliases else ()

    @property
    def binds(self) -> tuple[str, ...]:
        """The addresses, always as a tuple."""
        return (self.bind,) if isinstance(self.bind, str) else self.bind
