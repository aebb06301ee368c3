"""
Streamable HTTP, the client's end, both eras (2025-11-25 and 2026-07-28, basic/transports).

Legacy: sessions, resumption with `Last-Event-ID`, a GET stream for what no request caused, DELETE at the end. Modern:
a POST is all there is, and giving up its stream is the cancel.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, final

import httpx2
import trio
from attrs import evolve

from ..protocol.codec import decode_upstream, encode_message
from ..protocol.errors import ConnectFailed, UpstreamClosed, UpstreamProtocolError
from ..protocol.gate import DEFAULT_LIMITS
from ..protocol.mcp import Era
from ..protocol.messages import EMPTY, ErrorReply, Json, Notification, Reply, Request, RequestId, Response
from ..runtime.nursery import farewell, open_background_nursery
from .client import CLIENT_INFO, McpClient
from .errors import HttpStatus, SessionLost
from .handlers import Handlers
from .handshake import EraChoice
from .headers import standard_headers
from .sse import Event, EventDecoder
from .wire import Deliver

MAX_BODY: Final = DEFAULT_LIMITS.max_message_size
"""Most bytes of a JSON body that are read."""
MAX_RESUMES: Final = 5
"""Times a stream is resumed in a row without a single event."""

_RETRY_S: Final = 1.0
_MAX_RETRY_S: Final = 60.0
_GRACE_S: Final = 0.25
"""Time a stream gets to end by itself after the reply, so that its connection can be used again."""
_LAST_WORD_S: Final = 1.0
_ACCEPT: Final = "application/json, text/event-stream"
_SHOWN: Final = 500


@final
class HttpWire:
    """One server behind a URL."""

    probe_timeout_s = float("inf")

    def __init__(self, http: httpx2.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url
        self._session: str | None = None
        self.era = Era.LEGACY
        self.version = ""

    @property
    def announces_cancel(self) -> bool:
        """In the legacy era a lost connection is not a cancel, so it must be said."""
        return self.era is Era.LEGACY

    async def call(self, request: Request, deliver: Deliver, headers: Mapping[str, str] = EMPTY) -> Reply:
        """POST a request and read its reply, be it JSON or a stream. See `Wire.call`."""
        decoder = EventDecoder()
        sent = {**self._headers(request), **headers}
        with self._translated():
            async with self._http.stream("POST", self._url, content=encode_message(request), headers=sent) as response:
                self._check_session(request.method, sent, response)
                if not _is_stream(response):
                    return await self._body_reply(response, request)
                reply = await self._read(response, decoder, request.id, deliver)
        return reply if reply is not None else await self._resume(decoder, request, deliver)

    async def send(self, message: Notification | Response) -> None:
        """POST what has no reply. See `Wire.send`."""
        with self._translated():
            response = await self._http.post(self._url, content=encode_message(message), headers=self._headers(message))
        if response.status_code >= 400:
            raise HttpStatus(self._url, response.status_code, response.text[:_SHOWN])

    async def listen(self, deliver: Deliver) -> None:
        """Hold the session's GET stream open until cancelled, or until the server has none. See `Wire.listen`."""
        session, decoder, failures = self._session, EventDecoder(), 0
        while failures < MAX_RESUMES and session == self._session:
            try:
                with self._translated():
                    async with self._get(decoder) as response:
                        if not _is_stream(response):
                            return
                        failures = 0
                        await self._read(response, decoder, None, deliver)
            except (ConnectFailed, UpstreamClosed):
                failures += 1
            await trio.sleep(_pause_s(decoder))

    def forget(self) -> None:
        """Drop the session id."""
        self._session = None

    async def close(self) -> None:
        """End the session with DELETE, within a second; the server may not support that."""
        if self._session is not None:
            with farewell(_LAST_WORD_S), suppress(httpx2.TransportError):
                await self._http.request("DELETE", self._url, headers=self._session_headers())
            self._session = None

    def _session_headers(self) -> dict[str, str]:
        headers = {"mcp-protocol-version": self.version} if self.version else {}
        return headers if self._session is None else {**headers, "mcp-session-id": self._session}

    def _headers(self, message: Request | Notification | Response) -> dict[str, str]:
        common = {"accept": _ACCEPT, "content-type": "application/json"}
        if self.era is Era.MODERN and not isinstance(message, Response):
            return {**common, **standard_headers(message, self.version)}
        return {**common, **self._session_headers()}

    def _check_session(self, method: str, sent: Mapping[str, str], response: httpx2.Response) -> None:
        if method == "initialize":
            self._session = response.headers.get("mcp-session-id")
        elif response.status_code == 404 and "mcp-session-id" in sent:
            raise SessionLost(f"{self._url} does not know the session")

    async def _body_reply(self, response: httpx2.Response, request: Request) -> Reply:
        status = response.status_code
        body = await _body(response)
        failure = HttpStatus(
            self._url, status, body[:_SHOWN].decode("utf-8", "replace"), response.headers.get("www-authenticate")
        )
        if _media_type(response) != "application/json":
            raise failure
        try:
            message = decode_upstream(body)
        except UpstreamProtocolError as error:
            raise (failure if status >= 400 else error) from error
        if not isinstance(message, Response):
            raise failure
        reply = _own(message, request.id)
        return evolve(reply, http_status=status) if isinstance(reply, ErrorReply) else reply

    async def _read(
        self, response: httpx2.Response, decoder: EventDecoder, request_id: RequestId | None, deliver: Deliver
    ) -> Reply | None:
        """Read a stream to the reply, or to its end (None), which in the legacy era may come early."""
        try:
            async with _chunks(response) as chunks:
                async for chunk in chunks:
                    for event in decoder.feed(chunk):
                        reply = await _take(event, request_id, deliver)
                        if reply is not None:
                            return reply
        except httpx2.TransportError:
            if self.era is Era.MODERN or not decoder.last_id:
                raise
        return None

    async def _resume(self, decoder: EventDecoder, request: Request, deliver: Deliver) -> Reply:
        """Take up a legacy stream where it broke (2025-11-25, resumability; SEP-1699)."""
        failures = 0
        while self.era is Era.LEGACY and decoder.last_id and failures < MAX_RESUMES:
            before = decoder.last_id
            await trio.sleep(_pause_s(decoder))
            with suppress(ConnectFailed, UpstreamClosed), self._translated():
                async with self._get(decoder) as response:
                    if not _is_stream(response):
                        break
                    reply = await self._read(response, decoder, request.id, deliver)
                    if reply is not None:
                        return reply
            failures = 0 if decoder.last_id != before else failures + 1
        raise UpstreamClosed(f"{self._url} ended the stream of {request.method} before its reply")

    @asynccontextmanager
    async def _get(self, decoder: EventDecoder) -> AsyncIterator[httpx2.Response]:
        decoder.reconnect()
        headers = {"accept": "text/event-stream", **self._session_headers()}
        if decoder.last_id:
            headers["last-event-id"] = decoder.last_id
        async with self._http.stream("GET", self._url, headers=headers) as response:
            yield response

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn httpx2's errors into ours."""
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            raise ConnectFailed(f"{self._url} cannot be reached: {error}") from error
        except httpx2.TransportError as error:
            raise UpstreamClosed(f"{self._url} broke the connection: {str(error) or type(error).__name__}") from error


async def _take(event: Event, request_id: RequestId | None, deliver: Deliver) -> Reply | None:
    """Pass one event on; the reply if that is what it was. Events without data only carry an id."""
    if event.name != "message" or not event.data:
        return None
    message = decode_upstream(event.data.encode())
    if isinstance(message, Response):
        return _own(message, request_id)
    await deliver(message)
    return None


def _own(message: Response, request_id: RequestId | None) -> Reply:
    if message.id != request_id and not (message.id is None and isinstance(message.reply, ErrorReply)):
        raise UpstreamProtocolError(f"the server replied to {message.id!r} on the stream of {request_id!r}")
    return message.reply


def _pause_s(decoder: EventDecoder) -> float:
    return _RETRY_S if decoder.retry_ms is None else min(decoder.retry_ms / 1000, _MAX_RETRY_S)


def _media_type(response: httpx2.Response) -> str:
    value: str = response.headers.get("content-type", "")
    return value.partition(";")[0].strip().lower()


def _is_stream(response: httpx2.Response) -> bool:
    return response.status_code == 200 and _media_type(response) == "text/event-stream"


async def _body(response: httpx2.Response) -> bytes:
    body = bytearray()
    async with _chunks(response) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_BODY:
                raise UpstreamProtocolError(f"the body is larger than {MAX_BODY} bytes")
    return bytes(body)


@asynccontextmanager
async def _chunks(response: httpx2.Response) -> AsyncIterator[AsyncIterator[bytes]]:
    """
    The body, chunk by chunk, safe to leave early.

    httpx2 nests async generators, and one that is dropped half-way is closed by the garbage collector, if at all. So
    they are always run to their end: the stream's own, or a cancellation inside the innermost one.
    """
    chunks = response.aiter_bytes()
    grace_s = 0.0
    try:
        yield chunks
        grace_s = _GRACE_S
    finally:
        with trio.move_on_after(grace_s):
            async for _ in chunks:  # noqa: ASYNC102  # being cancelled in there is the point
                pass


@asynccontextmanager
async def open_http_client(
    url: str,
    *,
    headers: Mapping[str, str] = EMPTY,
    handlers: Handlers | None = None,
    era: EraChoice = "auto",
    info: Mapping[str, Json] = CLIENT_INFO,
    socket: str | None = None,
) -> AsyncIterator[McpClient]:
    """
    Connect to a server over Streamable HTTP; the session ends with the block.

    Proxy variables of the environment are not used: what is meant for a gateway on this machine stays here.

    Args:
        url: The endpoint, for example `http://127.0.0.1:8080/mcp`.
        headers: Sent with every request, for example a credential.
        handlers: Answers to the server's questions, and an ear for its notifications.
        era: What to try; `auto` prefers modern.
        info: The client's name and version.
        socket: Path of a Unix socket to connect to instead of the URL's host.

    Raises:
        ConnectFailed: Nobody is there.
        McpError: The server refuses, or has no revision in common with us.
        HttpStatus: An HTTP answer that is not MCP.
        UpstreamFault: The server went away, or does not speak MCP.
    """
    unlimited = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
    transport = httpx2.AsyncHTTPTransport(uds=socket, trust_env=False, limits=unlimited)
    # No timeout of its own: the time is the caller's scope.
    async with httpx2.AsyncClient(transport=transport, headers=dict(headers), timeout=None, trust_env=False) as http:
        wire = HttpWire(http, url)
        try:
            async with open_background_nursery() as nursery:
                client = McpClient(wire, handlers or Handlers(), nursery, info)
                await client.connect(era)
                yield client
        finally:
            await wire.close()  # noqa: ASYNC102  # shields itself with farewell
