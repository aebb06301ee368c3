"""Messages, replies, clients, callers and failures as a tape has them, and back."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final, cast, final

import msgspec

from ..model.exchange import Decision
from ..model.session import ANONYMOUS, Caller, Client
from ..protocol import errors
from ..protocol.errors import DeadlineExceeded, GatewayError, UpstreamFault, UpstreamProtocolError
from ..protocol.mcp import Era
from ..protocol.messages import EMPTY, Body, ErrorReply, Json, Notification, Reply, Request, Result, encode_json
from .entries import CallerData, ClientData, DecisionData, ErrorData, FailureData, MessageData, ReplyData
from .masking import Masking

_WITH_SCHEMAS: Final = frozenset({"tools/list", "elicitation/create"})
"""Methods whose params or results have schemas."""


@final
class Render:
    """
    Makes the data of a tape, without what is secret. Reading a body that was not read before may take a while.

    Args:
        masking: What is taken out.
        spliced: Objects may be `msgspec.Raw`, with their text, which costs less: for data that is only encoded.
    """

    def __init__(self, masking: Masking, *, spliced: bool = False) -> None:
        self._masking = masking
        self._spliced = spliced
        self._latest: tuple[Reply, ReplyData] | None = None

    def _object(self, value: Mapping[str, Json], body: Body | None, method: str) -> dict[str, Json]:
        """A JSON object without what is secret: its text as it is, if there is nothing to take out."""
        if self._spliced:
            text = encode_json(value) if body is None else body.raw
            if self._masking.is_clean(text) and b"\n" not in text:
                return cast("dict[str, Json]", msgspec.Raw(text))  # which encodes as what it holds
        return self._masking.object(value, schemas=method in _WITH_SCHEMAS)

    def message(self, message: Request | Notification) -> MessageData:
        """A request or notification. An upstream's that cannot be read has no params."""
        try:
            params = message.params
        except UpstreamProtocolError:
            params = EMPTY
        found = self._object(params, None, message.method) if params else {}
        return MessageData(message.method, found, message.id if isinstance(message, Request) else None)

    def reply(self, reply: Reply, method: str) -> ReplyData:
        """A reply to a request of some method. What an exchange ends with is mostly what its sink answered just now."""
        if self._latest is None or self._latest[0] is not reply:
            self._latest = reply, self._reply(reply, method)
        return self._latest[1]

    def _reply(self, reply: Reply, method: str) -> ReplyData:
        if isinstance(reply, ErrorReply):
            data = self._masking.value(reply.data)
            return ReplyData(error=ErrorData(reply.code, reply.message, data, reply.http_status))
        try:
            return ReplyData(result=self._object(reply.value, reply.body, method))
        except UpstreamProtocolError as error:
            return ReplyData(unreadable=error.message)

    def failure(self, error: Exception) -> FailureData:
        """An exception that came out of a sink or stage."""
        kind = type(error).__name__
        if not isinstance(error, GatewayError):
            return FailureData(kind, str(error))
        counts = not isinstance(error, UpstreamFault) or error.counts
        data = self._masking.object(error.data)
        return FailureData(kind, error.message, error.reason, data, error.retry_after_s, error.retryable, counts)

    def client(self, client: Client, session: int | None) -> ClientData:
        """A client, with the number of its session."""
        certificate = client.certificate
        return ClientData(
            era=str(client.era),
            version=client.version,
            capabilities=self._masking.object(client.capabilities),
            info=self._masking.object(client.info),
            transport=client.transport,
            address=client.address,
            headers=self._masking.headers(client.headers),
            session=session,
            certificate="" if certificate is None else sha256(certificate.encode()).hexdigest(),
        )

    @staticmethod
    def caller(caller: Caller) -> CallerData | None:
        """A caller; None for somebody nobody has named."""
        if caller is ANONYMOUS:
            return None
        scopes, roles, tenants = (tuple(sorted(each)) for each in (caller.scopes, caller.roles, caller.tenants))
        return CallerData(caller.subject, caller.tenant, scopes, caller.how, roles, tenants, caller.credential)

    @staticmethod
    def decisions(decisions: tuple[Decision, ...]) -> tuple[DecisionData, ...]:
        """What stages decided."""
        return tuple([DecisionData(each.stage, each.outcome, each.cause) for each in decisions])

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Reply headers: all but those that look secret."""
        return self._masking.object(headers)


def message_of(data: MessageData) -> Request | Notification:
    """The message that was written down."""
    return Notification(data.method, data.params) if data.id is None else Request(data.id, data.method, data.params)


def reply_of(data: ReplyData) -> Reply:
    """
    The reply that was written down.

    Raises:
        ValueError: It could not be read when it was recorded.
    """
    if data.error is not None:
        return ErrorReply(data.error.code, data.error.message, data.error.data, data.error.http_status)
    if data.result is None:
        raise ValueError(f"the tape does not have this result: {data.unreadable or 'it is empty'}")
    return Result(data.result)


def client_of(data: ClientData) -> Client:
    """The client that was written down, without session and certificate."""
    return Client(
        era=Era(data.era),
        version=data.version,
        capabilities=data.capabilities,
        info=data.info,
        transport=data.transport,
        address=data.address,
        headers=data.headers,
    )


def caller_of(data: CallerData | None) -> Caller:
    """The caller that was written down."""
    if data is None:
        return ANONYMOUS
    sets = (frozenset(each) for each in (data.scopes, data.roles, data.tenants))
    scopes, roles, tenants = sets
    return Caller(data.subject, data.tenant, scopes, data.how, roles, tenants, data.credential)


@final
class RecordedBug(Exception):
    """Stands for an exception of a sink that was no `GatewayError`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        """Name of the class of the exception that was recorded."""


def exception_of(data: FailureData) -> Exception:
    """An exception that every stage takes for the one that was written down."""
    cls = _error_class(data)
    if cls is None:
        return RecordedBug(data.type, data.message)
    error = cls(data.message, timeout_s=0) if issubclass(cls, DeadlineExceeded) else cls(data.message)
    error.data, error.retry_after_s = data.data, data.retry_after_s
    _keep(error, "retryable", data.retryable)
    if isinstance(error, UpstreamFault):
        _keep(error, "counts", data.counts)
    return error


def refusal_of(data: ErrorData | None, challenge: str | None) -> GatewayError:
    """
    The refusal of a stage that was written down as what the client got for it.

    Args:
        data: None for a notification, which is answered by nothing.
        challenge: Value of `WWW-Authenticate`.
    """
    rest: dict[str, Json] = dict(data.data) if data is not None and isinstance(data.data, dict) else {}
    rest.pop("origin", None)
    reason, wait_ms = str(rest.pop("reason", "unauthenticated")), rest.pop("retry_after_ms", None)
    retry_after_s = wait_ms / 1000 if isinstance(wait_ms, int) else None
    text = "it was turned away" if data is None else data.message
    error = exception_of(FailureData(type="", message=text, reason=reason, data=rest, retry_after_s=retry_after_s))
    if isinstance(error, errors.Unauthenticated | errors.Forbidden):
        error.challenge = challenge
    assert isinstance(error, GatewayError)  # it has a reason
    return error


def _keep(error: GatewayError, name: str, value: Json) -> None:
    if getattr(error, name) != value:
        setattr(error, name, value)


def _error_class(data: FailureData) -> type[GatewayError] | None:
    """The class of that name, or that with the reason: a transport's own subclass keeps the reason of its base."""
    if not data.reason:
        return None
    named = getattr(errors, data.type, None)
    if isinstance(named, type) and issubclass(named, GatewayError) and named.reason == data.reason:
        return named
    return _BY_REASON.get(data.reason, errors.InternalError)


def _by_reason() -> dict[str, type[GatewayError]]:
    found: dict[str, type[GatewayError]] = {}
    for each in vars(errors).values():
        if isinstance(each, type) and issubclass(each, GatewayError) and each.reason:
            found.setdefault(each.reason, each)
    return found


_BY_REASON: Final = _by_reason()
