"""
One client on a connection that carries everything it says and hears (stdio, WebSocket).

The reader hands every message to `receive`, which never waits: if it did, it would not see the cancel notice behind the
request that is stuck. So over its bounds a connection sheds. Each request runs in a task of the connection's nursery;
notifications run one after the other, and a request starts only when those before it are through, because
`notifications/initialized` means nothing to a server after the request that needed it.

Both eras may be spoken on one connection. A message that claims a revision in its `_meta` is modern (2026-07-28,
basic/versioning); anything else belongs to the session that `initialize` opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final, final

import msgspec
import trio
from attrs import frozen
from msgspec.structs import replace

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.handle import Handle, Ticket
from sluiceway.pipeline.model.security import Refusal
from sluiceway.pipeline.model.session import Client, Session
from sluiceway.pipeline.protocol.codec import encode_message
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    Draining,
    GatewayError,
    InternalError,
    InvalidMessage,
    SessionNotFound,
    render_error,
)
from sluiceway.pipeline.protocol.mcp import LATEST, Era, MetaKey, meta_of
from sluiceway.pipeline.protocol.messages import (
    EMPTY,
    Json,
    Message,
    Notification,
    Reply,
    Request,
    RequestId,
    Response,
    Result,
)

from .eras import headerless, legacy, modern
from .eras.questions import Questions
from .outbox import Notices, Outbox

_CANCELLED: Final = "notifications/cancelled"
_MAX_NOTICES: Final = 256
"""Messages no request caused that may wait for a client that does not read."""


@final
@frozen
class Peer:
    """Where the messages of a connection come from, as far as HTTP told; nothing of it where there is no HTTP."""

    address: str | None = None
    """Remote address without port."""
    headers: Mapping[str, str] = EMPTY
    """Request headers, names in lower case."""
    certificate: str | None = None
    """The client certificate that was verified, in PEM."""


NOWHERE: Final = Peer()


@final
class Connection:
    """
    A client from its first message to its last.

    Args:
        context: The source's.
        handle: The pipeline the source feeds.
        nursery: Where exchanges run; the owner cancels it when the client is gone.
        outbox: Takes what goes to the client; its owner writes it.
        transport: What the connection is, for `Client.transport`.
        max_in_flight: Requests under way at once; more are refused.
        peer: Who sends what is received.
    """

    def __init__(
        self,
        context: Context,
        handle: Handle,
        nursery: trio.Nursery,
        outbox: Outbox,
        *,
        transport: str,
        max_in_flight: int,
        peer: Peer = NOWHERE,
    ) -> None:
        self.peer = peer
        """Set it before `receive` where each message comes with headers of its own."""
        self._context = context
        self._handle = handle
        self._nursery = nursery
        self._outbox = outbox
        self._transport = transport
        self._max_in_flight = max_in_flight
        self._in_flight: dict[RequestId, Ticket] = {}
        self._notifications = 0
        self._last_notification: trio.Event | None = None
        self._session: Session | None = None
        self._questions = Questions(context.new_id)
        self._notices = Notices(outbox, _MAX_NOTICES)
        self._draining = False
        self.drained = trio.Event()
        """It accepts no more, and everything it had accepted is answered: the answers are in the outbox."""
        self.dropped = 0
        """Notifications of the client that came too fast, or from nobody."""

    def receive(self, item: Message | GatewayError) -> None:
        """Take what the reader decoded. Never blocks."""
        if self._session is not None:
            self._session.last_activity = trio.current_time()
        if isinstance(item, Request):
            try:
                self._request(item)
            except GatewayError as error:
                self._refuse(item.id, error)
        elif isinstance(item, Notification):
            self._notification(item)
        elif isinstance(item, Response):
            self._questions.resolve(item)  # an answer that nobody waits for is dropped
        else:
            self._refuse(item.request_id, item)

    @property
    def idle(self) -> bool:
        """Whether nothing the client sent is under way."""
        return not self._in_flight and not self._notifications

    @property
    def session(self) -> Session | None:
        """The legacy session that its client opened last; None before the handshake."""
        return self._session

    def stop_accepting(self) -> None:
        """Refuse new requests from here on."""
        self._draining = True
        self._note_drained()

    def close(self) -> None:
        """The client is gone: end its session. Idempotent."""
        if self._session is not None:
            self._session.close()

    def _request(self, request: Request) -> None:
        if self._draining:
            raise Draining("the gateway is shutting down; try again elsewhere or later", retry_after_s=1.0)
        if request.id in self._in_flight:
            raise InvalidMessage(f"id {request.id!r:.80} is in use by another request of this connection")
        if len(self._in_flight) >= self._max_in_flight:
            raise CapacityExceeded(
                f"{self._max_in_flight} requests of this connection are under way; wait for an answer, "
                "or raise max_in_flight"
            )
        client = self._client_of(request)
        askable = client.session is not None and request.method != "initialize"
        ticket = self._handle(request, client=client, emit=self._emit, ask=self._ask if askable else None)
        self._in_flight[request.id] = ticket
        opened = client.session if request.method == "initialize" else None
        self._nursery.start_soon(self._serve, request, ticket, opened, self._last_notification)

    def _client_of(self, request: Request) -> Client:
        """
        Who sends a request.

        Raises:
            ClientFault: It may not be sent by anybody, or not now.
        """
        if headerless.is_modern(request):
            headerless.check_request(request)
            return self._modern_client(request)
        session = self._session
        if request.method == "initialize":
            session = self._begin(request)
        elif session is None:
            if request.method == "ping":  # allowed before the handshake (2025-11-25, basic/lifecycle)
                return self._at_home(Client(era=Era.LEGACY, version=None))
            raise InvalidMessage(
                f"{request.method} came before initialize, and without the _meta of a request of {LATEST}"
            )
        elif session.closed:
            raise SessionNotFound("this session has ended, with the server behind it; initialize again")
        return self._legacy_client(session)

    def _begin(self, request: Request) -> Session:
        """Open a session; an earlier one of the same connection ends."""
        self.close()
        capabilities, info = legacy.introduction(request)
        self._session = Session(
            id=self._context.new_id(),
            source=self._context.id,
            capabilities=capabilities,
            info=info,
            last_activity=trio.current_time(),
            notify=self._notify,
            ask=self._ask,
        )
        return self._session

    def _modern_client(self, message: Request | Notification) -> Client:
        return self._at_home(modern.client_of(message, {}, None))

    def _legacy_client(self, session: Session) -> Client:
        return self._at_home(legacy.client_of(session, {}, None))

    def _at_home(self, client: Client) -> Client:
        """The same client, said to be where it is."""
        peer = self.peer
        return replace(
            client,
            transport=self._transport,
            address=peer.address,
            headers=peer.headers,
            certificate=peer.certificate,
        )

    async def _serve(self, request: Request, ticket: Ticket, opened: Session | None, turn: trio.Event | None) -> None:
        """The task of one request; `opened` is the session it begins, if it is a handshake."""
        try:
            if turn is not None:
                await turn.wait()
            reply = await ticket.run()
            if opened is not None:
                self._settle(opened, reply)
            if reply is not None:
                await self._send(self._encode_reply(request.id, reply))
        finally:
            del self._in_flight[request.id]
            self._note_drained()

    def _note_drained(self) -> None:
        if self._draining and not self._in_flight:
            self.drained.set()

    def _settle(self, session: Session, reply: Reply | None) -> None:
        """End the handshake: a session exists only if it was agreed on."""
        if isinstance(reply, Result):
            session.version = legacy.negotiated(reply)
            return
        session.close()
        if self._session is session:
            self._session = None

    def _notification(self, notification: Notification) -> None:
        if notification.method == _CANCELLED:
            self._cancel(notification.params.get("requestId"))
            return
        client = self._sender_of(notification)
        if client is None or self._notifications >= self._max_in_flight:
            self.dropped += 1
            return
        ticket = self._handle(notification, client=client, emit=self._emit_apart)
        turn, done = self._last_notification, trio.Event()
        self._last_notification = done
        self._notifications += 1
        self._nursery.start_soon(self._serve_notification, ticket, turn, done)

    def _sender_of(self, notification: Notification) -> Client | None:
        """Who sends a notification; None if it means nothing from anybody here: there is nobody to answer it."""
        if MetaKey.VERSION in meta_of(notification.params):
            try:
                modern.check_version(notification.params["_meta"][MetaKey.VERSION])
            except GatewayError:
                return None
            return self._modern_client(notification)
        session = self._session
        return None if session is None or session.closed else self._legacy_client(session)

    async def _serve_notification(self, ticket: Ticket, turn: trio.Event | None, done: trio.Event) -> None:
        try:
            if turn is not None:
                await turn.wait()
            await ticket.run()
        finally:
            self._notifications -= 1
            done.set()
            if self._last_notification is done:
                self._last_notification = None

    def _cancel(self, request_id: Json) -> None:
        """Cancel a request. Unknown ids are ignored: it may just have ended. A handshake cannot be cancelled."""
        ticket = self._in_flight.get(request_id) if type(request_id) in (str, int) else None
        if ticket is not None and ticket.exchange.method != "initialize":
            ticket.cancel("client")

    async def _emit(self, message: Notification | Request) -> None:
        await self._send(encode_message(message))

    async def _send(self, message: bytes) -> None:
        """Queue a message as soon as there is room; nothing happens when the client is gone."""
        with suppress(trio.ClosedResourceError):
            await self._outbox.put(message)

    async def _emit_apart(self, notification: Notification) -> None:
        self._notify(notification)

    async def _ask(self, method: str, params: Mapping[str, Json]) -> Reply:
        return await self._questions.ask(self._emit, method, params)

    def _notify(self, notification: Notification) -> None:
        """Send what no request caused. Never blocks."""
        self._notices.put_nowait(encode_message(notification))

    def _refuse(self, request_id: RequestId | None, error: GatewayError) -> None:
        """Answer what does not become an exchange; the end for a client that asks on and on and reads no answer."""
        address = self.peer.address
        self._context.alarm(Refusal(reason=error.event or error.reason, source=self._context.id, address=address))
        try:
            self._outbox.put_nowait(encode_message(Response(request_id, render_error(error, self._context.codes))))
        except trio.WouldBlock:
            self._context.log.warning("client cut off: it sends requests and reads no answers", reason=error.reason)
            self._nursery.cancel_scope.cancel()
        except trio.ClosedResourceError:
            pass  # the client is gone

    def _encode_reply(self, request_id: RequestId, reply: Reply) -> bytes:
        """A reply as a message; an internal error in its place if it is something that JSON cannot say."""
        try:
            return encode_message(Response(request_id, reply))
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            incident = self._context.new_id()[:12]
            self._context.log.error("a reply cannot be encoded", incident=incident, exc_info=error)
            failure = InternalError(f"internal error, incident {incident}", data={"incident": incident})
            return encode_message(Response(request_id, render_error(failure)))
