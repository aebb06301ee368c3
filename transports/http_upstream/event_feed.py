"""
The event stream of an upstream that speaks HTTP+SSE: where to post, and all that it says (MCP 2024-11-05, transports).

The first event, `endpoint`, names the address for POSTs, which must be of the stream's own origin: else a server could
have us post, with our credentials, wherever it likes. A stream that breaks is taken up again with `Last-Event-ID` if
its events had ids, and if the server then goes on at the same address; 2024-11-05 knows no ids, so most have none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn, final
from urllib.parse import urljoin

import trio
from attrs import define, field

from sluiceway.pipeline.model.origin import parse_origin
from sluiceway.pipeline.protocol.codec import decode_upstream
from sluiceway.pipeline.protocol.errors import (
    GatewayError,
    MessageTooLarge,
    UpstreamClosed,
    UpstreamFault,
    UpstreamProtocolError,
)
from sluiceway.pipeline.protocol.messages import Message
from sluiceway.pipeline.runtime.correlation import CorrelationCounts

from ..http_client.response import Response
from ..sse_codec import Event, EventDecoder
from .answers import EVENTS, refusal
from .resumable import MAX_RECONNECT_S, RECONNECT_S
from .upstream import Upstream

_ENDPOINT_S: Final = 10.0
"""Time an upstream has to name its endpoint."""
_SIGN_S: Final = 10.0
"""Time a silent upstream has to show that it lives."""
_MAX_TRIES: Final = 5
"""Reconnections in a row that bring no event."""


@final
@define(eq=False)
class Traffic:
    """What came on the streams of a sink, since it was made."""

    events: int = 0
    bytes: int = 0
    reconnects: int = 0
    requests: CorrelationCounts = field(factory=CorrelationCounts)


def endpoint_path(url: str, data: str) -> str:
    """
    The path, with the query, that an `endpoint` event names.

    Args:
        url: Where the stream was opened.
        data: Of the event: an address, absolute or relative to that.

    Raises:
        ValueError: It is none, or is not of the same origin (scheme, host and port).
    """
    here, there = parse_origin(url), parse_origin(urljoin(url, data))
    if (here.tls, here.host.lower(), here.port) != (there.tls, there.host.lower(), there.port):
        raise ValueError(
            f"it is at {there.authority!r:.80}, not at {here.authority!r:.80}; if that is right, use that in url"
        )
    return there.path


@final
class EventFeed:
    """
    One stream, across as many connections as it takes.

    Args:
        upstream: Where it is.
        url: The same, as configured.
        idle_s: Seconds of silence after which the upstream is asked whether it lives.
        traffic: What comes is counted there.
        on_endpoint: Told the path for POSTs, once.
        on_message: Told of every message, and of what is none. Must not block.
        on_silence: Has the upstream asked whether it lives. Must not block.
    """

    def __init__(
        self,
        upstream: Upstream,
        url: str,
        *,
        idle_s: float,
        traffic: Traffic,
        on_endpoint: Callable[[str], None],
        on_message: Callable[[Message | GatewayError], None],
        on_silence: Callable[[], None],
    ) -> None:
        self._upstream = upstream
        self._url = url
        self._idle_s = idle_s
        self._traffic = traffic
        self._on_endpoint = on_endpoint
        self._on_message = on_message
        self._on_silence = on_silence
        self._path: str | None = None
        self._event_id = ""
        self._retry_s = RECONNECT_S
        self._moved = False
        self._is_lost = False

    async def run(self) -> NoReturn:
        """
        Listen until cancelled.

        Raises:
            GatewayError: There is nothing to listen to, or not any more.
        """
        tries = 0
        while True:
            self._moved = False
            try:
                await self._listen()
            except UpstreamFault as error:
                if self._is_lost or isinstance(error, UpstreamProtocolError):
                    raise
                failure: UpstreamFault = error
            else:
                failure = UpstreamClosed(f"{self._upstream.name}: the upstream ended its event stream")
            if self._path is None:
                raise failure
            tries = 1 if self._moved else tries + 1
            if not self._event_id or tries > _MAX_TRIES:
                raise self._lost(failure)
            await trio.sleep(min(self._retry_s, MAX_RECONNECT_S))
            self._traffic.reconnects += 1

    async def _listen(self) -> None:
        """One connection's worth."""
        name, resumed = self._upstream.name, self._path is not None
        with await self._upstream.get(b"", self._event_id) as response:
            head = response.head
            if head.status != 200:
                failure = refusal(name, head)
                raise self._lost(failure) if resumed and head.status < 500 else failure
            if head.media_type != EVENTS:
                raise UpstreamProtocolError(
                    f"{name}: the upstream answers a GET with content type {head.media_type[:60]!r}, not {EVENTS}; "
                    "if it speaks Streamable HTTP, use the http sink"
                )
            decoder = EventDecoder(self._upstream.limits.max_message_size)
            while data := await self._chunk(response):
                self._traffic.bytes += len(data)
                try:
                    events = decoder.feed(data)
                except MessageTooLarge as error:
                    raise UpstreamProtocolError(
                        f"{name}: the upstream's message has more than {self._upstream.limits.max_message_size} bytes "
                        "(max_message); its stream cannot be read any further"
                    ) from error
                for event in events:
                    self._take(event)

    async def _chunk(self, response: Response) -> bytes:
        """
        What comes next; empty at the end.

        Raises:
            UpstreamClosed: The connection broke, or nothing comes any more.
            UpstreamProtocolError: No endpoint was named in time.
        """
        name, waits_s = self._upstream.name, _ENDPOINT_S if self._path is None else self._idle_s
        with self._upstream.faults:
            with trio.move_on_after(waits_s):
                return await response.chunk()
            if self._path is None:
                raise UpstreamProtocolError(
                    f"{name}: the upstream names no endpoint within {_ENDPOINT_S:g} s; is url the address of an "
                    "HTTP+SSE event stream?"
                )
            self._on_silence()
            with trio.move_on_after(_SIGN_S):
                return await response.chunk()
        raise UpstreamClosed(
            f"{name}: the upstream's event stream was silent for {self._idle_s:g} s (idle_timeout), and it answers no "
            "ping"
        )

    def _take(self, event: Event) -> None:
        self._traffic.events += 1
        self._moved = True
        self._event_id = event.id or self._event_id
        if event.retry_ms is not None:
            self._retry_s = event.retry_ms / 1000
        if event.type == "endpoint":
            self._found(event.data)
        elif event.type == "message" and event.data:
            item: Message | GatewayError
            try:
                item = decode_upstream(event.data.encode(), self._upstream.limits)
            except GatewayError as error:
                item = error
            self._on_message(item)

    def _found(self, data: str) -> None:
        try:
            path = endpoint_path(self._url, data)
        except ValueError as error:
            raise UpstreamProtocolError(
                f"{self._upstream.name}: the upstream names an endpoint that is not used: {error}"
            ) from error
        if self._path is None:
            self._path = path
            self._on_endpoint(path)
        elif path != self._path:  # a session of its own, which knows nothing of ours
            raise self._lost(None)

    def _lost(self, cause: Exception | None) -> UpstreamClosed:
        """The failure of a session whose stream cannot be resumed; nothing is tried after that."""
        self._is_lost = True
        why = "" if cause is None else f" ({cause})"
        return UpstreamClosed(
            f"{self._upstream.name}: the upstream's event stream broke and cannot be resumed, so the session is lost; "
            f"the request may have run{why}"
        )
