"""The options of the `http` source."""

from __future__ import annotations

from typing import Final, final

from attrs import frozen

from sluiceway.pipeline.model.options import KIB, MIB, MINUTE, SECOND, Duration, Size, option

from ..listener_config import ListenerConfig, is_endpoint_path
from ..websocket.config import WebSocketConfig

_HEALTH: Final = ("/healthz", "/readyz")


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
class HttpConfig(ListenerConfig):
    """Where the source listens, whom it serves, and what a client may cost."""

    path: str = option("/mcp", doc="Path of the MCP endpoint.")
    max_body: Size = option(Size(4 * MIB), gt=0, doc="Bytes a request body may have; more is refused with 413.")
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
    http2: bool = option(
        True, doc="Whether HTTP/2 is offered where TLS is spoken. In plain text it never is.", example=False
    )
    max_streams: int = option(
        100, ge=1, doc="Requests on one HTTP/2 connection at once; further ones are refused, and may be sent again.",
        example=100,
    )  # fmt: skip
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
    websocket: WebSocketConfig | None = option(
        None,
        doc="Also serve WebSockets with the sub-protocol `mcp`: `{}` is enough. Not at all when absent.",
        example={"path": "/ws"},
    )
    aliases: bool = option(
        False,
        doc="Whether methods also have paths of their own (`POST /tools/call` with the params as body), `/` is the "
        "endpoint too, and `<path>/stream` always answers with an event stream.",
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not is_endpoint_path(self.path) or self.path in _HEALTH:
            raise ValueError(f"path: {self.path!r} is not a path such as /mcp, or is taken by a health check")
        if self.sse is not None:
            where = self.sse.path
            if not is_endpoint_path(where) or where in (*_HEALTH, self.path, *self._further_paths):
                raise ValueError(f"sse: path {where!r} is not a path such as /sse, or is taken already")
        where = self.websocket_path or self.path
        if not is_endpoint_path(where) or where in _HEALTH:
            raise ValueError(f"websocket: path {where!r} is not a path such as /ws, or is taken by a health check")

    @property
    def paths(self) -> tuple[str, ...]:
        """Where its endpoints are that are spoken to in HTTP."""
        return (self.path,) if self.sse is None else (self.path, self.sse.path)

    @property
    def websocket_path(self) -> str | None:
        """Where clients open a WebSocket; None if they cannot."""
        return None if self.websocket is None else self.websocket.path or self.path

    @property
    def _further_paths(self) -> tuple[str, ...]:
        return ("/", f"{self.path.rstrip('/')}/stream") if self.aliases else ()
