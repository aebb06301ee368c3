"""
`http`: the gateway as a Streamable HTTP server, for clients of every revision on one endpoint.

Under `sluiceway run` the source owns its listening sockets; under a plain hypercorn it is only the application.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, final

import trio

from sluiceway.pipeline.model.component import Context, Source, source
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.handle import Handle
from sluiceway.pipeline.model.security import Refusal
from sluiceway.pipeline.model.worker import Binding, Worker, marked
from sluiceway.pipeline.protocol.gate import Limits
from sluiceway.pipeline.runtime.deadlines import Deadlines
from sluiceway.pipeline.runtime.nursery import farewell

from ..tls_handshakes import tls_figures
from .answers import Answer
from .config import HttpConfig
from .hosts import HostPolicy

if TYPE_CHECKING:
    from ..listening import Listening
    from ..websocket.clients import Clients
    from .endpoint import Endpoint
    from .fellows import Fellows
    from .request import Receive, Send
    from .server import HttpServer
    from .serving import Serving
    from .sessions import Sessions

_LAST_FRAME_S: Final = 1.0
"""How long the end of a WebSocket may take to be sent by a server that gives up waiting for it."""


@final
@source("http")
class HttpSource(Source):
    """
    Streamable HTTP, 2025-03-26 to 2026-07-28, with sessions, event streams, resumption and health checks; HTTP+SSE of
    2024-11-05 and WebSockets if told to.

    `Host` and `Origin` are checked on every request to the endpoint. `GET /healthz` answers as long as the process
    lives; `GET /readyz` answers 503 until everything is ready, and again while it drains.
    """

    Config: ClassVar[type] = HttpConfig

    def __init__(self, config: HttpConfig, context: Context) -> None:
        super().__init__(config, context)
        from .endpoint import Endpoint  # not for whoever only reads the class's options

        self.app: Endpoint = Endpoint(config, lambda: self.readiness(), lambda: self.resource_metadata())
        """The ASGI application."""
        self.sessions: Sessions | None = None
        """Its legacy sessions while it serves; for status and tests."""
        self.serving = trio.Event()
        """Set once requests are served; before that they are answered 503."""
        self.websockets = _make_clients(self, config, context)
        """Clients on WebSockets; None if they are not served."""
        self._server = _make_server(self.app, config, context, self.websockets) if context.listen else None
        self._serving: Serving | None = None
        self._fellows = _make_fellows(self.app, context)

    @classmethod
    def binding(cls, config: Any) -> Binding:
        """See `Shareable`."""
        return _listening_of(config)

    @property
    def addresses(self) -> tuple[str, ...]:
        """What the source is bound to while it is open, as `host:port` or `unix:path`; empty if others listen."""
        return self._server.addresses if self._server is not None else ()

    @property
    def urls(self) -> tuple[str, ...]:
        """Where clients find the endpoint, as far as the source is bound to TCP ports."""
        config: HttpConfig = self.config
        scheme = "http" if config.tls is None else "https"
        return tuple(f"{scheme}://{each}{config.path}" for each in self.addresses if not each.startswith("unix:"))

    def figures(self) -> Iterator[Figure]:
        """Connections, as far as it has them itself, and sessions."""
        if self._server is not None:
            yield Figure("mcp_active_connections", self._server.connections, "gauge", "Connections of clients.")
            turned, contained = self._server.turned_away, self._server.contained
            yield Figure("http_turned_away_total", turned, "counter", "Connections beyond max_connections.")
            yield Figure("http_contained_total", contained, "counter", "Exceptions that ended one connection.")
            if self._server.tls is not None:
                yield from tls_figures(self._server.tls)
                yield from _http2_figures(self._server)
        if self.sessions is not None:
            yield Figure("http_sessions", len(self.sessions), "gauge", "Legacy sessions that live.")
        if self._serving is not None and self.config.sse is not None:
            streams = len(self._serving.event_streams)
            yield Figure("http_event_streams", streams, "gauge", "Clients of HTTP+SSE.")
        if self._fellows is not None:
            passed, taken = self._fellows.passed_on, self._fellows.taken
            yield Figure("http_passed_on_total", passed, "counter", "Requests that belonged to another worker.")
            yield Figure("http_moved_total", self._fellows.moved, "counter", "Clients given to another worker.")
            yield Figure("http_taken_total", taken, "counter", "Requests that came by way of another worker.")
        if self.websockets is not None:
            yield Figure("http_websockets", len(self.websockets), "gauge", "Clients on WebSockets.")

    @property
    def server(self) -> HttpServer | None:
        """The server, with its counts; None if others listen."""
        return self._server

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Hold the listening sockets.

        Raises:
            OSError: An address is taken, or not ours; or the certificate cannot be used.
        """
        if self._server is not None:
            self._server.bind()
        elif self.config.tls is not None:
            self.context.log.warning("tls is without effect: another server has the listening sockets")
        try:
            yield
        finally:
            if self._server is not None:
                self._server.close()

    async def serve(self, handle: Handle) -> None:
        """Serve until cancelled. Exchanges run here and not with their connections, which they may outlive."""
        from .serving import Serving
        from .sessions import Sessions
        from .stream import Replay

        config: HttpConfig = self.config
        deadlines = Deadlines()
        replay = Replay(config.resume_events, config.resume_bytes)
        self.sessions = sessions = Sessions(
            self.context.id,
            idle_s=config.session_idle,
            maximum=config.max_sessions,
            new_id=lambda: marked(self.context.new_id(), self.context.worker),
            deadlines=deadlines,
            replay=replay,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deadlines.serve)
            self._serving = Serving(
                config=config,
                context=self.context,
                handle=handle,
                identify=self.identify,
                refuse_unread=self.refuse_unread,
                nursery=nursery,
                deadlines=deadlines,
                sessions=sessions,
                replay=replay,
                limits=Limits(max_message_size=config.max_body),
                patience=deadlines.line(),
                fellows=self._fellows,
            )
            self.app.connect(self._serving)
            if self.websockets is not None:
                self.websockets.connect(handle)
            self.serving.set()
            try:
                if self._server is not None:
                    await self._server.serve()
                else:
                    await trio.sleep_forever()
            finally:
                self.app.connect(None)
                if self.websockets is not None:
                    self.websockets.connect(None)
                self._serving = None
                sessions.close()
                if self._fellows is not None:
                    self._fellows.close()

    def take(self, stream: trio.SocketStream) -> None:
        """See `Relayed`."""
        if self._serving is None or self._fellows is None:
            stream.socket.close()
        else:
            self._serving.start(self._fellows.take, stream)

    def adopt(self, client: socket.socket) -> None:
        """See `Relayed`."""
        if self._serving is None or self._server is None:
            client.close()
        else:
            self._server.adopt(client)

    async def serve_websocket(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """
        Serve a WebSocket that another server holds: an ASGI 3 application for scopes of type `websocket`.

        What is said runs with the source, which its exchanges must not outlive, and ends with the caller. Only the
        caller calls `send`: hypercorn shields it, and a client that reads nothing would hold up our shutdown there.
        """
        from ..websocket.scope import refuse_scope, serve_scope

        serving, clients = self._serving, self.websockets
        if serving is None or clients is None:
            await refuse_scope(scope, receive, send, Answer(503, headers={"retry-after": "1"}))
            return
        life = trio.CancelScope()
        say, said = trio.open_memory_channel[Mapping[str, Any]](0)

        async def talk() -> None:
            with say, life, suppress(trio.BrokenResourceError):
                await serve_scope(clients, scope, receive, say.send)

        serving.start(talk)
        with said, suppress(OSError):  # which newer servers raise when nobody will read it
            try:
                await _pass_on(said, send)
            finally:
                life.cancel()
                with farewell(_LAST_FRAME_S):
                    await _pass_on(said, send)  # noqa: ASYNC102  # farewell is a bounded shield

    def stop_accepting(self) -> None:
        """Close the listeners and idle connections, end what only waits, and refuse new requests with `Draining`."""
        if self._serving is not None:
            self._serving.draining = True
            self._serving.sessions.end_streams()
            for stream in list(self._serving.event_streams.values()):
                stream.stop_accepting()
        if self._server is not None:
            self._server.stop_accepting()
        if self.websockets is not None:
            self.websockets.stop_accepting()

    async def delivered(self) -> None:
        """See `Source`: until every connection is closed, as each is behind its last answer."""
        if self._server is not None:
            await self._server.delivered()
        if self._fellows is not None:
            await self._fellows.delivered()


def _http2_figures(server: HttpServer) -> Iterator[Figure]:
    spoken = server.http2
    yield Figure("http2_connections", len(spoken), "gauge", "Connections of clients that speak HTTP/2.")
    streams = sum(connection.streams for connection in spoken)
    yield Figure("http2_streams", streams, "gauge", "Requests on them that are being served.")
    yield Figure("http2_floods_total", server.floods, "counter", "Connections ended for what they cost.")


async def _pass_on(events: AsyncIterable[Mapping[str, Any]], send: Send) -> None:
    async for event in events:
        await send(event)


def _listening_of(config: HttpConfig, worker: Worker | None = None, source: str = "") -> Listening:
    """The sockets of a source: its own, or those that it shares with other workers."""
    from ..listening import Listening

    return Listening(config.binds, config.stall_timeout, config.socket_access, worker, source)


def _make_fellows(app: Endpoint, context: Context) -> Fellows | None:
    if context.worker is None:
        return None
    from .fellows import Fellows  # most gateways have one process

    return Fellows(context.worker, context.id, app.serve)


def _make_clients(source: HttpSource, config: HttpConfig, context: Context) -> Clients | None:
    if config.websocket is None or config.websocket_path is None:
        return None
    from ..websocket.clients import Clients  # who has no use for it does not pay for it

    policy = HostPolicy(config.binds, config.allowed_hosts, config.allowed_origins)
    path = config.websocket_path
    return Clients(context, config.websocket, path, policy, lambda client: source.identify(client, None))


def _make_server(app: Endpoint, config: HttpConfig, context: Context, clients: Clients | None) -> HttpServer:
    from .server import HttpServer  # hypercorn's parts; what only checks a configuration does not pay for them

    def refused(address: str | None) -> None:
        context.alarm(Refusal(reason="smuggling", source=context.id, address=address))

    reception = None
    if clients is not None:
        from ..websocket.reception import Reception

        reception = Reception(clients)
    listening = _listening_of(config, context.worker, context.id)
    return HttpServer(app, config, context.log, context.now, refused, reception, listening=listening)
