"""
Serving clients of the legacy era: sessions, their POSTs, their GET streams, their end.

2025-03-26, 2025-06-18 and 2025-11-25, basic/transports, Streamable HTTP. 2024-11-05 sessions work alike; only its own
two-endpoint transport is elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, final

from sluiceway.pipeline.model.handle import Ticket
from sluiceway.pipeline.model.security import Refusal
from sluiceway.pipeline.protocol.errors import GatewayError, InvalidMessage
from sluiceway.pipeline.protocol.mcp import Era, MetaKey, era_of_version
from sluiceway.pipeline.protocol.messages import Message, Notification, Request, RequestId, Response

from ..eras import legacy, modern
from .answers import Answer, HttpError
from .delivery import parse_event_id
from .legacy_response import LegacyResponse, delivery_of
from .media import EVENTS, accepts
from .membership import Membership
from .proofs import unknown_session
from .request import HttpRequest
from .response import HttpResponse
from .serving import Serving
from .sessions import HttpSession, Resumable

_CANCELLED: Final = "notifications/cancelled"


@final
class LegacyPosts:
    """Serves legacy sessions of one source."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def serve(
        self,
        message: Message | list[Message | GatewayError],
        request: HttpRequest,
        response: HttpResponse,
        patience_s: float | None,
    ) -> Awaitable[None]:
        """
        Answer one message, or a batch of them.

        Args:
            message: What was posted; of a batch also what is wrong with those of its elements that are no messages.
            request: As which.
            response: Where the answer goes.
            patience_s: Seconds to wait for a single answer before this becomes an event stream; the default when None.

        Raises:
            GatewayError: Nothing of it can become an exchange.
        """
        if not isinstance(message, Request):
            return self._serve_several(message, request, response, patience_s)
        try:
            return self._answer_to(message, request, response).serve(patience_s)
        except GatewayError as error:
            error.request_id = message.id
            raise

    def _answer_to(self, message: Request, request: HttpRequest, response: HttpResponse) -> LegacyResponse:
        serving = self._serving
        if message.method == "initialize":
            serving.refuse_if_draining()
            member = Membership(serving.sessions.open(*legacy.introduction(message)), request.head, request.remote)
        else:
            member = self._member(request)
            if serving.draining:
                serving.refuse_if_draining()
        in_flight = member.session.in_flight
        if message.id in in_flight:
            raise _in_use(message)
        answer = LegacyResponse(serving, member, request, response, batch=False)
        ask = None if message.method == "initialize" else answer.ask
        ticket = serving.handle(message, client=member.client, emit=answer.emit, ask=ask)
        if response.encode is None:
            ticket.exchange.link.pieces = answer.pass_on
        answer.add(message, ticket)
        return answer

    def _member(self, request: HttpRequest) -> Membership:
        """
        The session a request names, and its sender.

        Raises:
            UnsupportedVersion: Its version header names no legacy revision.
            InvalidMessage: It names none.
            SessionNotFound: There is no such session.
        """
        head, remote, sessions = request.head, request.remote, self._serving.sessions
        member = remote.member
        if member is not None and member.is_of(head):
            sessions.touch(member.session)
            return member
        legacy.check_version(head.headers.get(modern.VERSION_HEADER))
        session_id = head.headers.get(legacy.SESSION_HEADER)
        if session_id is None:
            raise InvalidMessage("header mcp-session-id is missing; initialize first, then send what it returned")
        remote.member = member = Membership(sessions.find(session_id), head, remote)
        return member

    async def _serve_several(
        self,
        message: Notification | Response | list[Message | GatewayError],
        request: HttpRequest,
        response: HttpResponse,
        patience_s: float | None,
    ) -> None:
        """A batch; or what wants no reply, which is served like a batch of one."""
        batch = isinstance(message, list)
        member = self._member(request)
        session = member.session
        messages, refused = _sorted_out(message, session) if isinstance(message, list) else ([message], [])
        asks = any(isinstance(each, Request) for each in messages)
        if asks:
            self._serving.refuse_if_draining()
        for each in messages:
            if not isinstance(each, Request):
                await self._admit(member, each)
            if isinstance(each, Response):
                session.questions.resolve(each)  # one that nobody asked is dropped
        answer = LegacyResponse(self._serving, member, request, response, batch=batch)
        for error in refused:
            answer.refuse(error)
        self._add_work(messages, answer, response, alone=not refused)
        if refused:
            context, reason = self._serving.context, refused[0].event or refused[0].reason
            context.alarm(Refusal(reason=reason, source=context.id, address=request.address))
        if asks or refused:
            await answer.serve(patience_s)
        else:
            await answer.run()
            await response.answer(Answer(202))

    def _add_work(
        self,
        messages: Sequence[Message],
        answer: LegacyResponse,
        response: HttpResponse,
        *,
        alone: bool,
    ) -> None:
        session = answer.session
        work = [each for each in messages if not isinstance(each, Response)]
        for each in work:
            if isinstance(each, Notification) and each.method == _CANCELLED:
                _cancel(session, each)
            else:
                ticket = self._ticket(each, answer)
                if isinstance(each, Request) and alone and len(work) == 1 and response.encode is None:
                    ticket.exchange.link.pieces = answer.pass_on
                answer.add(each, ticket)

    async def _admit(self, member: Membership, message: Notification | Response | None = None) -> None:
        """
        Check who sends what has no reply that could refuse it. Where the pipeline has no auth stage, but something
        else authenticates there, what never reaches the pipeline must carry a credential that got through it before.

        Raises:
            GatewayError: The auth stages refuse, or the session is another principal's.
        """
        notification = message if isinstance(message, Notification) else None
        session = member.session
        caller = await self._serving.identify(member.client, notification)
        if caller is None and (notification is None or notification.method == _CANCELLED):
            session.admit(member.head.headers)
        if session.session.closed or (caller is not None and not session.session.admits(caller)):
            raise unknown_session()

    def _ticket(self, message: Request | Notification, answer: LegacyResponse) -> Ticket:
        """An exchange of a batch, where `initialize` cannot be."""
        client = answer.member.client
        if isinstance(message, Notification):
            return self._serving.handle(message, client=client, emit=_to_session(answer.session))
        return self._serving.handle(message, client=client, emit=answer.emit, ask=answer.ask)

    async def listen(self, request: HttpRequest, response: HttpResponse) -> None:
        """
        Serve a GET: the session's own stream, or the rest of a response stream that broke.

        Raises:
            HttpError: This client has no GET stream, does not take one, or wants events that are not kept any more.
            GatewayError: The session is not one.
        """
        session = await self._named(request)
        if not accepts(request.headers.get("accept"), EVENTS):
            raise HttpError(406, "Accept must list text/event-stream")
        last_seen = request.headers.get(legacy.EVENT_HEADER)
        resumed: Resumable | None = None
        stream, after = session.standalone, None
        if last_seen is not None:
            stream_id, after = parse_event_id(last_seen) or ("", 0)
            resumed = session.responses.get(stream_id)
            if resumed is not None:
                stream = resumed.stream
            elif stream_id != stream.id:
                raise _gone(last_seen)
        if resumed is None:
            self._serving.refuse_if_draining()
        else:
            resumed.resumed()
        found = await delivery_of(self._serving, stream, session, response).run(
            request, after=after, on_gone=resumed.left if resumed is not None else _nothing
        )
        if not found:
            if resumed is not None:
                resumed.left()
            raise _gone(last_seen)

    async def end(self, request: HttpRequest, response: HttpResponse) -> None:
        """
        Serve a DELETE: the session is over, and what it has in flight is cancelled.

        Raises:
            HttpError: This client has no sessions.
            GatewayError: The session is not one.
        """
        (await self._named(request)).session.close()
        await response.answer(Answer(200))

    async def _named(self, request: HttpRequest) -> HttpSession:
        """The session of a GET or DELETE. A client that names none, and no legacy revision, is a modern one."""
        version = request.headers.get(modern.VERSION_HEADER)
        if legacy.SESSION_HEADER not in request.headers and era_of_version(version or "") is not Era.LEGACY:
            raise HttpError(405, "this revision has POST only", {"allow": "POST"})
        member = self._member(request)
        await self._admit(member)
        return member.session


def _sorted_out(batch: list[Message | GatewayError], session: HttpSession) -> tuple[list[Message], list[GatewayError]]:
    """
    What of a batch can be served, and what is wrong with the rest (JSON-RPC 2.0, section 6).

    Raises:
        InvalidMessage: The session speaks a revision without batches.
    """
    version = session.session.version
    if not legacy.has_batches(version):
        raise InvalidMessage(f"batches exist in MCP 2025-03-26 only; this session speaks {version}")
    messages: list[Message] = []
    refused: list[GatewayError] = []
    ids: set[RequestId] = set()
    for each in batch:
        try:
            if isinstance(each, GatewayError):
                raise each
            _check_element(each)
            if isinstance(each, Request):
                if each.id in session.in_flight or each.id in ids:
                    raise _in_use(each)
                ids.add(each.id)
        except GatewayError as error:
            refused.append(error)
        else:
            messages.append(each)
    return messages, refused


def _check_element(message: Message) -> None:
    """
    Check what may not be in a batch.

    Raises:
        InvalidMessage: It is such a message.
    """
    if isinstance(message, Response):
        return
    why = ""
    if message.method == "initialize":
        why = "initialize must not be part of a batch"
    elif MetaKey.VERSION in message.meta:
        why = "a batch cannot hold messages of another revision"
    if why:
        error = InvalidMessage(why)
        error.request_id = message.id if isinstance(message, Request) else None
        raise error


def _in_use(message: Request) -> InvalidMessage:
    """Ids are unique among a session's requests in flight; a second one could be answered with the first's reply."""
    return InvalidMessage(f"id {message.id!r:.80} is in use by another request of this session")


def _cancel(session: HttpSession, notification: Notification) -> None:
    """Cancel a request of the same session. Unknown ids are ignored: it may just have ended."""
    request_id = notification.params.get("requestId")
    if type(request_id) in (str, int) and request_id in session.in_flight:
        session.in_flight[request_id].cancel("client")


def _to_session(session: HttpSession) -> Callable[[Notification], Awaitable[None]]:
    async def emit(notification: Notification) -> None:
        session.session.notify(notification)

    return emit


def _gone(last_seen: str | None) -> HttpError:
    return HttpError(410, f"the events after {last_seen!r:.80} are not kept; send the request again")


def _nothing() -> None:
    """Nobody needs to know that this reader left."""
