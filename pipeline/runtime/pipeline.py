"""
A compiled chain with admission and deadlines around it: where exchanges are served.

`Ticket.run` is the one boundary of the gateway: exceptions become error replies here and nowhere else, and every end
of an exchange is told apart by its recorded cause, never guessed from the exception (architecture 1.8).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, final

import structlog
import trio

from ..model.document import Limits
from ..model.exchange import Exchange, Link
from ..model.security import Alarm, ignore, refusal_of
from ..model.session import Asker, Client
from ..protocol.errors import (
    CODE_TABLES,
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
from ..protocol.mcp import Kind, MetaKey, meta_of, method_of
from ..protocol.messages import ErrorReply, Notification, Reply, Request, Result
from .admission import Admission
from .chain import Chain
from .deadlines import Deadlines

Cause = Literal["client", "deadline", "shutdown"]
"""Why an exchange was cancelled."""

_REPLIES: Final = (Result, ErrorReply)
_PROGRESS: Final = "notifications/progress"


@final
class Lane:
    """One compiled chain and the exchanges that are inside it; a pipeline can have several while it is changed."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.draining = trio.Event()
        """Set when this lane's LISTEN exchanges should finish."""
        self.tickets: set[PipelineTicket] = set()
        """Every exchange inside; bounded by admission."""
        self._idle = trio.Event()

    def leave(self, ticket: PipelineTicket) -> None:
        """Take a finished exchange out."""
        self.tickets.discard(ticket)
        if not self.tickets:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until nobody is inside. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.tickets:
            self._idle = trio.Event()
            await self._idle.wait()

    async def finish(self, drain_timeout_s: float, grace_s: float) -> int:
        """
        Let everybody finish: LISTEN exchanges at once, others within `drain_timeout_s`, then cancel them.

        Returns:
            How many had to be cancelled.
        """
        self.draining.set()
        with trio.move_on_after(drain_timeout_s):
            await self.wait_idle()
        late = list(self.tickets)
        for ticket in late:
            ticket.cancel("shutdown")
        with trio.move_on_after(grace_s):
            await self.wait_idle()
        return len(late)


@final
class Pipeline:
    """
    Serves exchanges through the current chain.

    Args:
        pipeline_id: Its id in the configuration.
        chain: What exchanges go through; replace it with `swap`.
        limits: Time-outs and capacity.
        deadlines: The engine's; somebody must run its `serve`.
        codes: Error code table (`errors.CODE_TABLES`).
        new_id: Makes incident ids.
        alarm: Told of every exchange that ends with an error the gateway decided.
    """

    def __init__(
        self,
        pipeline_id: str,
        chain: Chain,
        limits: Limits,
        deadlines: Deadlines,
        *,
        codes: Mapping[str, int] = CODE_TABLES["spec"],
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
        alarm: Alarm = ignore,
    ) -> None:
        self.id = pipeline_id
        self.limits = limits
        self.codes = codes
        self.admission = Admission(limits)
        self.deadlines = deadlines
        self.lane = Lane(chain)
        self.new_id = new_id
        self.alarm = alarm
        self.draining = False
        """New exchanges are refused with `Draining`."""
        self.served = 0
        """Exchanges that ended with a reply of their sink or stages."""
        self.refused = 0
        """Exchanges that ended with an error the gateway decided."""
        self.cancelled = 0
        """Exchanges that their client cancelled."""
        self.log: Any = structlog.get_logger().bind(pipeline=pipeline_id)

    def handle(
        self,
        message: Request | Notification,
        *,
        client: Client,
        emit: Callable[[Notification], Awaitable[None]],
        ask: Asker | None = None,
        source: str = "test",
    ) -> PipelineTicket:
        """See `component.Handle`."""
        kind = Kind.NOTIFY if isinstance(message, Notification) else method_of(message.method).kind
        if kind is Kind.NOTIFY and isinstance(message, Request):
            kind = Kind.CALL
        lane = self.lane
        exchange = Exchange(
            request=message,
            kind=kind,
            client=client,
            source=source,
            draining=lane.draining,
            link=Link(emit, ask),
            relay=lane.chain.relay,
        )
        return PipelineTicket(self, lane, exchange)

    def swap(self, chain: Chain) -> Lane:
        """
        Send new exchanges through another chain.

        Returns:
            The old lane, in which earlier exchanges go on; `finish` it before its components close.
        """
        old, self.lane = self.lane, Lane(chain)
        return old

    def status(self) -> dict[str, int | str]:
        """Counts for `status`."""
        return {
            "id": self.id,
            "in_flight": self.admission.in_flight,
            "waiting": self.admission.waiting,
            "listeners": self.admission.listeners,
            "served": self.served,
            "refused": self.refused,
            "cancelled": self.cancelled,
        }


@final
class PipelineTicket:
    """One exchange's place in a pipeline; see `component.Ticket`."""

    __slots__ = ("_cause", "_entry", "_inside", "_lane", "_pipeline", "_scope", "_start", "_timeout", "exchange")

    def __init__(self, pipeline: Pipeline, lane: Lane, exchange: Exchange) -> None:
        self.exchange = exchange
        self._pipeline = pipeline
        self._lane = lane
        self._cause: Cause | None = None
        self._scope = trio.CancelScope()
        self._timeout = float("inf")
        self._start = 0.0
        self._inside = False

    def cancel(self, reason: Cause = "client") -> None:
        """Cancel the exchange from any task. The first cause stays."""
        if self._cause is None:
            self._cause = self.exchange.link.cancelled = reason
            self._scope.cancel(reason=reason)

    async def run(self) -> Reply | None:
        """Serve the exchange in the current task; see `component.Ticket`."""
        pipeline, lane = self._pipeline, self._lane
        lane.tickets.add(self)
        self._arm()
        reply: Reply | None = None
        error: GatewayError | None = None
        try:
            with self._scope:
                reply = await self._admitted()
        except GatewayError as caught:
            error = caught
        except (Exception, SystemExit) as caught:  # the boundary: nothing a stage raises ends more than its exchange
            error = self._failure(caught)
        finally:
            pipeline.deadlines.cancel(self._entry)
            lane.leave(self)
        return self._conclude(reply, error)

    def _conclude(self, reply: Reply | None, error: GatewayError | None) -> Reply | None:
        """
        The answer, by the recorded cause: nobody is left to answer, the deadline passed, or the gateway shut down.

        A reply that made it in time stays; an error that came out of a cancellation does not.
        """
        pipeline = self._pipeline
        if self._cause == "client":
            error = None
        elif self._cause is not None and reply is None:
            error = self._too_late()
        if not self._inside:
            self._lane.chain.turn_away(self.exchange, error)
        if self._cause == "client":
            pipeline.cancelled += 1
            return None
        if error is not None:
            pipeline.refused += 1
            pipeline.alarm(refusal_of(self._event(error), self.exchange))
            reply = self._refusal(error)
        else:
            pipeline.served += 1
        return None if self.exchange.kind is Kind.NOTIFY else reply

    def _event(self, error: GatewayError) -> str:
        """What security events call an error. A client is not told whether a session exists; who watches is."""
        session = self.exchange.client.session
        if isinstance(error, SessionNotFound) and session is not None and not session.closed:
            return error.event or ("" if session.admits(self.exchange.link.caller) else "foreign_session")
        return error.event or error.reason

    def _too_late(self) -> GatewayError:
        if self._cause == "shutdown":
            return Draining("the gateway shut down before the answer came", retry_after_s=1.0)
        given = self.exchange.link.deadline - self._start
        return DeadlineExceeded(f"no answer within {given:g} s; a longer timeout may help", timeout_s=given)

    async def _admitted(self) -> Reply:
        exchange, pipeline = self.exchange, self._pipeline
        if pipeline.draining:
            raise Draining("the gateway is shutting down; try again elsewhere or later", retry_after_s=1.0)
        target = method_of(exchange.request.method).target
        if target is not None and not isinstance(exchange.request.params.get(target), str):
            raise InvalidParams(f"{exchange.request.method} needs params.{target}, a string")
        kind, admission = exchange.kind, pipeline.admission
        if not admission.enter_nowait(kind):
            await admission.enter()
        self._inside = True
        try:
            reply = await self._lane.chain.service(exchange)
        finally:
            admission.leave(kind)
        if not isinstance(reply, _REPLIES) and kind is not Kind.NOTIFY:
            raise TypeError(f"the chain returned {reply!r:.80}, not a reply; does a stage lack its return?")
        return reply

    def _arm(self) -> None:
        """Set the exchange's deadline: the pipeline's, or the client's if that is nearer; none for LISTEN."""
        exchange, limits = self.exchange, self._pipeline.limits
        self._start = now = trio.current_time()
        link = exchange.link
        if exchange.kind is not Kind.LISTEN:
            asked = meta_of(exchange.request.params).get(MetaKey.TIMEOUT)
            wanted = asked / 1000 if isinstance(asked, int | float) and asked > 0 else limits.timeout
            self._timeout = min(limits.timeout, wanted)
            link.deadline = now + self._timeout
            if limits.timeout_on_progress == "reset":
                link.on_deliver = self._on_deliver
        link.extend = self._extend
        self._entry = self._pipeline.deadlines.add(link.deadline, self._expire)

    def _expire(self) -> None:
        self.cancel("deadline")

    def _extend(self, at: float) -> None:
        self.exchange.link.deadline = at
        self._pipeline.deadlines.move(self._entry, at)

    def _on_deliver(self, notification: Notification) -> None:
        if notification.method == _PROGRESS:
            latest = self._start + self._pipeline.limits.timeout_max
            self._extend(max(self.exchange.link.deadline, min(trio.current_time() + self._timeout, latest)))

    def _refusal(self, error: GatewayError) -> ErrorReply:
        headers = self.exchange.reply_headers
        if error.retry_after_s is not None:
            headers.setdefault("retry-after", str(max(1, math.ceil(error.retry_after_s))))
        if isinstance(error, (Unauthenticated, Forbidden)) and error.challenge is not None:
            headers["www-authenticate"] = error.challenge
        return render_error(error, self._pipeline.codes)

    def _failure(self, error: BaseException) -> GatewayError:
        """An exception that is not ours: a bug, unless it merely wraps one of ours."""
        inner: BaseException = error
        while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
            inner = inner.exceptions[0]
        if isinstance(inner, GatewayError):
            return inner
        incident = self._pipeline.new_id()[:12]
        self._pipeline.log.error(
            "exchange failed",
            incident=incident,
            correlation_id=self.exchange.correlation_id,
            method=self.exchange.method,
            cause=self._cause,
            exc_info=error,
        )
        return InternalError(f"internal error, incident {incident}", data={"incident": incident})
