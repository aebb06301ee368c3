"""
A compiled chain with admission and deadlines around it: where exchanges are served.

`Ticket.run` is the one boundary of the gateway: exceptions become error replies here and nowhere else, and every end
of an exchange is told apart by its recorded cause, never guessed from the exception (architecture 1.8).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, final

import structlog
import trio

from ..model.document import Limits
from ..model.exchange import Exchange, Link, begin
from ..model.kept_scope import KeptScope
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
from .deadlines import Deadlines, Entry
from .ids import random_id

Cause = Literal["client", "deadline", "shutdown"]
"""Why an exchange was cancelled."""

_REPLIES: Final = (Result, ErrorReply)
_PROGRESS: Final = "notifications/progress"
_TIMEOUT: Final = MetaKey.TIMEOUT.value


@final
class Lane:
    """One compiled chain and the exchanges that are inside it; a pipeline can have several while it is changed."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.draining = trio.Event()
        """Set when this lane's LISTEN exchanges should finish."""
        self.tickets: set[PipelineTicket] = set()
        """Every exchange inside; bounded by admission."""
        self._idle: trio.Event | None = None

    def leave(self, ticket: PipelineTicket) -> None:
        """Take a finished exchange out."""
        self.tickets.discard(ticket)
        if self._idle is not None and not self.tickets:
            self._idle.set()
            self._idle = None

    async def wait_idle(self) -> None:
        """Wait until nobody is inside. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.tickets:
            if self._idle is None:
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
        new_id: Callable[[], str] = random_id,
        alarm: Alarm = ignore,
    ) -> None:
        self.id = pipeline_id
        self.limits = limits
        self.codes = codes
        self.admission = Admission(limits)
        self.deadlines = deadlines
        self.timeouts = deadlines.line()
        """Exchanges that have all of `limits.timeout`, in the order in which they came."""
        self.resets = limits.timeout_on_progress == "reset"
        """Progress starts an exchange's time anew."""
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
        self.spent_s = 0.0
        """Seconds that exchanges took which have ended, LISTEN not counted."""
        self.timed = 0
        """How many those are."""
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
        row = method_of(message.method)
        kind = Kind.NOTIFY if isinstance(message, Notification) else row.kind
        if kind is Kind.NOTIFY and isinstance(message, Request):
            kind = Kind.CALL
        lane = self.lane
        exchange = begin(message, kind, client, source, lane.draining, Link(emit, ask), lane.chain.relay)
        return PipelineTicket(self, lane, exchange, row.target)

    def swap(self, chain: Chain) -> Lane:
        """
        Send new exchanges through another chain.

        Returns:
            The old lane, in which earlier exchanges go on; `finish` it before its components close.
        """
        old, self.lane = self.lane, Lane(chain)
        return old

    def status(self) -> dict[str, int | float | str]:
        """Counts for `status`."""
        return {
            "id": self.id,
            "in_flight": self.admission.in_flight,
            "waiting": self.admission.waiting,
            "listeners": self.admission.listeners,
            "served": self.served,
            "refused": self.refused,
            "cancelled": self.cancelled,
            "average_ms": round(self.spent_s / self.timed * 1000, 3) if self.timed else 0.0,
        }


@final
class PipelineTicket:
    """One exchange's place in a pipeline; see `component.Ticket`."""

    __slots__ = (
        "_cause", "_entry", "_inside", "_lane", "_pipeline", "_scope", "_start", "_target", "_timeout", "exchange"
    )  # fmt: skip

    def __init__(self, pipeline: Pipeline, lane: Lane, exchange: Exchange, target: str | None) -> None:
        self.exchange = exchange
        self._pipeline = pipeline
        self._lane = lane
        self._target = target
        self._cause: Cause | None = None
        self._scope: trio.CancelScope | KeptScope | None = None
        self._entry: Entry | None = None
        self._inside = False

    def cancel(self, reason: Cause = "client") -> None:
        """Cancel the exchange from any task. The first cause stays."""
        if self._cause is None:
            self._cause = self.exchange.link.cancelled = reason
            if self._scope is not None:
                self._scope.cancel(reason=reason)

    def expire(self) -> None:
        """Its time has passed."""
        self.cancel("deadline")

    async def run(self, kept: KeptScope | None = None) -> Reply | None:
        """Serve the exchange in the current task; see `component.Ticket`."""
        pipeline, lane, exchange = self._pipeline, self._lane, self.exchange
        lane.tickets.add(self)
        self._arm()
        reply: Reply | None = None
        error: GatewayError | None = None
        try:
            with trio.CancelScope() if kept is None else kept as self._scope:
                if self._cause is not None:
                    self._scope.cancel(reason=self._cause)
                if not self._enter():
                    await pipeline.admission.enter()
                self._inside = True
                try:
                    reply = await lane.chain.service(exchange)
                finally:
                    pipeline.admission.leave(exchange.kind)
                if not isinstance(reply, _REPLIES) and exchange.kind is not Kind.NOTIFY:
                    answered, reply = reply, None
                    raise TypeError(f"the chain returned {answered!r:.80}, not a reply; does a stage lack its return?")
        except GatewayError as caught:
            error = caught
        except (Exception, SystemExit) as caught:  # the boundary: nothing a stage raises ends more than its exchange
            error = self._failure(caught)
        finally:
            self._leave()
        if error is not None or self._cause is not None:
            try:
                return self._conclude(reply, error)
            finally:
                if error is not None:
                    error.__traceback__ = None  # its frames hold it, this one too: cycles, for the collector to find
        pipeline.served += 1
        return None if exchange.kind is Kind.NOTIFY else reply

    def _leave(self) -> None:
        """Nothing can cancel it any more."""
        self._scope = None
        pipeline = self._pipeline
        if self._entry is None:
            pipeline.timeouts.discard(self)
        else:
            pipeline.deadlines.cancel(self._entry)
        self._lane.leave(self)
        if self.exchange.kind is not Kind.LISTEN:
            pipeline.spent_s += trio.current_time() - self._start
            pipeline.timed += 1
        link = self.exchange.link
        link.extend = link.on_deliver = None  # they lead back here: a cycle, for the collector to find

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

    def _enter(self) -> bool:
        """
        Take a place if one is free.

        Raises:
            GatewayError: It is refused, whether there is one or not.
        """
        exchange, pipeline = self.exchange, self._pipeline
        if pipeline.draining:
            raise Draining("the gateway is shutting down; try again elsewhere or later", retry_after_s=1.0)
        if self._target is not None and not isinstance(exchange.request.params.get(self._target), str):
            raise InvalidParams(f"{exchange.request.method} needs params.{self._target}, a string")
        return pipeline.admission.enter_nowait(exchange.kind)

    def _arm(self) -> None:
        """Set the exchange's deadline: the pipeline's, or the client's if that is nearer; none for LISTEN."""
        exchange, pipeline = self.exchange, self._pipeline
        self._timeout: float = pipeline.limits.timeout
        self._start = now = trio.current_time()
        link = exchange.link
        link.extend = self._extend
        if exchange.kind is Kind.LISTEN:
            self._entry = pipeline.deadlines.add(math.inf, self.expire)
            return
        if pipeline.resets:
            link.on_deliver = self._on_deliver
        asked = meta_of(exchange.request.params).get(_TIMEOUT)
        if asked is not None and isinstance(asked, int | float) and 0 < asked / 1000 < self._timeout:
            self._timeout = asked / 1000
            link.deadline = now + self._timeout
            self._entry = pipeline.deadlines.add(link.deadline, self.expire)
        else:
            link.deadline = now + self._timeout
            pipeline.timeouts.add(self, link.deadline)

    def _extend(self, at: float) -> None:
        self.exchange.link.deadline = at
        deadlines = self._pipeline.deadlines
        if self._entry is None:
            self._pipeline.timeouts.discard(self)
            self._entry = deadlines.add(at, self.expire)
        else:
            deadlines.move(self._entry, at)

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
            correlation_id=self.exchange.link.correlation_id,
            method=self.exchange.method,
            cause=self._cause,
            exc_info=error,
        )
        return InternalError(f"internal error, incident {incident}", data={"incident": incident})
