"""What every part of a serving HTTP source shares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, final

import msgspec
import trio
from attrs import define, field

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Link
from sluiceway.pipeline.model.handle import Handle
from sluiceway.pipeline.model.session import Caller, Client
from sluiceway.pipeline.protocol.codec import encode_reply
from sluiceway.pipeline.protocol.errors import Draining, InternalError, render_error
from sluiceway.pipeline.protocol.gate import Limits
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, RequestId, Result, encode_json
from sluiceway.pipeline.runtime.deadlines import Deadlines, Expires, Line

from .config import HttpConfig
from .sessions import Sessions
from .stream import MessageStream, Replay

if TYPE_CHECKING:
    from .fellows import Fellows
    from .legacy_sse import EventStream


@final
@define(eq=False, kw_only=True)
class Serving:
    """A source between the start of `serve` and its end."""

    config: HttpConfig
    context: Context
    handle: Handle
    identify: Callable[[Client, Request | Notification | None], Awaitable[Caller | None]]
    """See `Source.identify`."""
    refuse_unread: Callable[[Client], Awaitable[None]]
    """See `Source.refuse_unread`."""
    nursery: trio.Nursery
    """Where exchanges run: they may outlive the connection they came on."""
    deadlines: Deadlines
    sessions: Sessions
    replay: Replay
    limits: Limits
    """Of the codec."""
    patience: Line[Expires]
    """Calls without an answer so far; after `keep_alive` something has to be sent to keep their connection open."""
    event_streams: dict[str, EventStream] = field(factory=dict)
    """The clients of HTTP+SSE, by the id of their stream; as many as `max_sessions` at most."""
    fellows: Fellows | None = None
    """The other workers that serve this source; None where there are none."""
    draining: bool = False
    """No new requests, no new streams."""

    def start(self, serve: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run an exchange, apart from the connection it came on."""
        self.nursery.start_soon(self.contained, serve, *args)

    async def contained(self, serve: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run an exchange here; what goes wrong beside its pipeline is logged and ends it."""
        try:
            await serve(*args)
        except Exception as error:  # a boundary: a bug beside the pipeline's own ends one exchange, not the source
            self.contain(error)

    def contain(self, error: Exception) -> None:
        """Log what went wrong beside a pipeline, and nobody will deal with."""
        self.context.log.error("an exchange failed outside its pipeline", exc_info=error)

    def refuse_if_draining(self) -> None:
        """
        Check whether new work is welcome.

        Raises:
            Draining: It is not.
        """
        if self.draining:
            raise Draining("the gateway is shutting down; try again elsewhere or later", retry_after_s=1.0)

    def put_reply(self, stream: MessageStream, request_id: RequestId, link: Link, reply: Reply) -> Reply:
        """
        Append the reply of an exchange to its stream, or the end of one that went there in pieces.

        Returns:
            It, or the internal error that had to take its place.
        """
        if link.streamed:
            stream.end_long(b"}" if isinstance(reply, Result) and link.is_whole else None)
            return reply
        reply, message = self.encode_reply(request_id, reply)
        stream.put_reply(message)
        return reply

    def encode_reply(self, request_id: RequestId, reply: Reply) -> tuple[Reply, bytes]:
        """A reply and its message; an internal error in its place if it is something that JSON cannot say."""
        try:
            return reply, encode_reply(request_id, reply)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            incident = self.context.new_id()[:12]
            self.context.log.error("a reply cannot be encoded", incident=incident, exc_info=error)
            reply = render_error(InternalError(f"internal error, incident {incident}", data={"incident": incident}))
            return reply, encode_reply(request_id, reply)


async def put_piece(stream: MessageStream, request_id: RequestId, piece: bytes) -> None:
    """
    Write a part of a long result to a stream, as the response to a request; see `Link.pieces`.

    Args:
        stream: Where it goes.
        request_id: Of the request.
        piece: Of the text of the result.
    """
    if not stream.is_long:
        piece = b'{"jsonrpc":"2.0","id":%b,"result":%b' % (encode_json(request_id), piece)
    await stream.put_piece(piece)
