"""
One exchange's place in a pipeline, and the one boundary of the gateway.

Exceptions become error replies in `PipelineTicket.run` and nowhere else, and every end of an exchange is told apart by
its recorded cause, never guessed from the exception (architecture 1.8).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, final

import msgspec
import trio

from ..model.exchange import Exchange, Patience
from ..model.kept_scope import KeptScope
from ..model.security import refusal_of
from ..protocol.errors import (
    DeadlineExceeded,
    Draining,
    Forbidden,
    GatewayError,
    InternalError,
    InvalidParams,
    SessionNotFound,
    Unauthenticated,
    render_error,
)
from ..protocol.mcp import Kind, MetaKey
from ..protocol.messages import ErrorReply, Reply, Result
from .deadlines import Entry

if TYPE_CHECKING:
    from .admission import Admission
    from .pipeline import Lane, Pipeline

Cause = Literal["client", "deadline", "shutdown"]
"""Why an exchange was cancelled."""

_REPLIES: Final = (Result, ErrorReply)
_TIMEOUT: Final = MetaKey.TIMEOUT.value
_CALL: Final = Kind.CALL
_LISTEN: Final = Kind.LISTEN


@final
class PipelineTicket(msgspec.Struct, eq=False):
    """See `handle.Ticket`. A struct, as the exchange is, for one is made with every call."""

    exchange: Exchange
    pipeline: Pipeline
    lane: Lane
    """The chain it goes through, whatever becomes the pipeline's next."""
    _entry: Entry | None = None
    """Its deadline, if it has one of its own and does not stand in the lane's line."""
    _scope: trio.CancelScope | KeptScope | None = None
    _cause: Cause | None = None

    def cancel(self, reason: Cause = "client") -> None:
        """Cancel the exchange from any task. The first cause stays."""
        if self._cause is None:
            self._cause = self.exchange.link.cancelled = reason
            if self._scope is not None:
                self._scope.cancel(reason=reason)

    def expire(self) -> None:
        """Its time has passed, if progress has not given it more since. Whoever tells it has let go of it."""
        at, deadlines = self.exchange.link.deadline, self.pipeline.deadlines
        self.lane.apart.add(self)
        if at > deadlines.now():
            self._entry = deadlines.add(at, self.expire)
        else:
            self.cancel("deadline")

    async def run(self, kept: KeptScope | None = None) -> Reply | None:
        """Serve the exchange in the current task; see `handle.Ticket`."""
        pipeline, lane, exchange = self.pipeline, self.lane, self.exchange
        request, link, now = exchange.request, exchange.link, pipeline.deadlines.now
        link.started = start = now()
        places = pipeline.admission
        if exchange.kind is _LISTEN or _TIMEOUT in request.meta:
            places = self._stand_apart(start)
        else:
            lane.times[self] = at = link.deadline = start + pipeline.timeout
            if not lane.is_listed:
                lane.enlist(at)
        reply: Reply | None = None
        error: GatewayError | None = None
        inside = False
        try:
            with trio.CancelScope() if kept is None else kept as self._scope:
                if self._cause is not None:
                    self._scope.cancel(reason=self._cause)
                if pipeline.draining or (request.target is None and request.row.target is not None):
                    raise self._unfit()
                if not places.enter_nowait():
                    await places.enter()
                inside = True
                reply = await lane.chain.service(exchange)
        except (Exception, SystemExit) as caught:  # the boundary: nothing a stage raises ends more than its exchange
            error = self._failure(caught)
        finally:
            self._scope = None  # nothing can cancel it any more
            if lane.times.pop(self, None) is None:
                self._leave_apart()
            if inside:
                places.leave()
                places.spent_s += now() - start
            if lane.idle is not None:
                lane.tell_idle()
        if type(reply) is Result and self._cause is None and exchange.kind is _CALL:
            pipeline.served += 1
            return reply
        return self._conclude(reply, error, inside)

    def _stand_apart(self, start: float) -> Admission:
        """
        Set a deadline that is not the pipeline's: the client's, if that is nearer; none for LISTEN.

        Returns:
            Where it takes a place.
        """
        exchange, pipeline, link = self.exchange, self.pipeline, self.exchange.link
        self.lane.apart.add(self)
        if exchange.kind is _LISTEN:
            return pipeline.listeners
        asked, timeout = exchange.request.meta[_TIMEOUT], pipeline.timeout
        if isinstance(asked, int | float) and 0 < asked / 1000 < timeout:
            timeout = asked / 1000
            if link.patience is not None:
                link.patience = Patience(timeout, link.patience.most)
        link.deadline = start + timeout
        self._entry = pipeline.deadlines.add(link.deadline, self.expire)
        return pipeline.admission

    def _leave_apart(self) -> None:
        self.lane.apart.discard(self)
        entry, self._entry = self._entry, None  # which leads back here: a cycle, for the collector to find
        if entry is not None:
            self.pipeline.deadlines.cancel(entry)

    def _unfit(self) -> GatewayError:
        """Why it is refused, whether a place is free or not."""
        if self.pipeline.draining:
            return Draining("the gateway is shutting down; try again elsewhere or later", retry_after_s=1.0)
        request = self.exchange.request
        return InvalidParams(f"{request.method} needs params.{request.row.target}, a string")

    def _conclude(self, reply: Reply | None, error: GatewayError | None, inside: bool) -> Reply | None:
        """
        The answer, by the recorded cause: nobody is left to answer, the deadline passed, or the gateway shut down.

        A reply that made it in time stays; an error that came out of a cancellation does not.
        """
        pipeline, exchange, cause = self.pipeline, self.exchange, self._cause
        if error is not None:
            error.__traceback__ = None  # its frames hold it: cycles, for the collector to find
        if cause == "client":
            error = None
        elif cause is not None and reply is None:
            error = self._too_late()
        elif error is None and not isinstance(reply, _REPLIES) and exchange.kind is not Kind.NOTIFY:
            error = self._failure(
                TypeError(f"the chain returned {reply!r:.80}, not a reply; does a stage lack its return?")
            )
        if not inside:
            self.lane.chain.turn_away(exchange, error)
        if cause == "client":
            pipeline.cancelled += 1
            return None
        if error is not None:
            pipeline.refused += 1
            pipeline.alarm(refusal_of(self._event(error), exchange))
            reply = self._refusal(error)
        else:
            pipeline.served += 1
        return None if exchange.kind is Kind.NOTIFY else reply

    def _event(self, error: GatewayError) -> str:
        """What security events call an error. A client is not told whether a session exists; who watches is."""
        session = self.exchange.client.session
        if isinstance(error, SessionNotFound) and session is not None and not session.closed:
            return error.event or ("" if session.admits(self.exchange.link.caller) else "foreign_session")
        return error.event or error.reason

    def _too_late(self) -> GatewayError:
        if self._cause == "shutdown":
            return Draining("the gateway shut down before the answer came", retry_after_s=1.0)
        link = self.exchange.link
        given = link.deadline - link.started
        return DeadlineExceeded(f"no answer within {given:g} s; a longer timeout may help", timeout_s=given)

    def _refusal(self, error: GatewayError) -> ErrorReply:
        headers = self.exchange.reply_headers
        if error.retry_after_s is not None:
            headers.setdefault("retry-after", str(max(1, math.ceil(error.retry_after_s))))
        if isinstance(error, (Unauthenticated, Forbidden)) and error.challenge is not None:
            headers["www-authenticate"] = error.challenge
        return render_error(error, self.pipeline.codes)

    def _failure(self, error: BaseException) -> GatewayError:
        """What an exception means to the client: itself if it is ours, or merely wraps one of ours; else a bug."""
        inner: BaseException = error
        while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
            inner = inner.exceptions[0]
        if isinstance(inner, GatewayError):
            return inner
        incident = self.pipeline.new_id()[:12]
        self.pipeline.log.error(
            "exchange failed",
            incident=incident,
            correlation_id=self.exchange.link.correlation_id,
            method=self.exchange.method,
            cause=self._cause,
            exc_info=error,
        )
        return InternalError(f"internal error, incident {incident}", data={"incident": incident})
