"""
`log`: one line when a request starts, and one when it has ended, however it ended.

The lines of one request share its `correlation_id`. Nothing is computed for a line that the log level suppresses.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, Final, Literal, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.options import Ratio, option
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.model.session import ANONYMOUS
from sluiceway.pipeline.protocol.errors import Blame, GatewayError
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Reply, Result
from sluiceway.pipeline.telemetry.outcomes import Outcome, end_of, is_cancelled
from sluiceway.pipeline.telemetry.redaction import SENSITIVE_KEYS, Redaction, clip, digest

_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
}

_REDACTION: Final = Redaction()

MAX_DECISIONS: Final = 24
"""Decisions that a line shows, the first ones."""


@final
@middleware("log")
class Log(Middleware):
    """
    Write what was asked, by whom, how it ended and how long it took.

    Events: `request started`, then exactly one of `request completed`, `request failed`, `request cancelled`.

    * Failures are warnings when the client or the upstream's own answer is to blame, errors otherwise. They are
      written whatever `sample` says.
    * Params are written as `params` says, without `_meta`; never as they came.
    * A cancelled request is no failure: its client left, its deadline passed or the gateway stopped. The line says
      whether the deadline had passed.
    * The line at the end says how it ended (`outcome`, in the words of metrics and traces), how often an upstream was
      asked (`attempts`), and what the stages further in decided. A tool result with `isError` completed, and its
      outcome is `error`.
    * Every line has the `correlation_id` that `request_id` gives, and the `trace_id` if a `trace` stage stands in
      front.

    A stage in front of this one that refuses a request leaves no line here.
    """

    reads_results = False
    role = "log"
    order = (
        Order("after", "request_id", "warning", "lines written in front of request_id carry no correlation id"),
        Order("after", "trace", "info", "lines written in front of trace carry no trace id"),
    )

    @frozen
    class Config:
        """Options of `log`."""

        level: Literal["debug", "info", "warning"] = option(
            "info", doc="Level of the lines about requests that start, complete or are cancelled."
        )
        start: bool = option(True, doc="Whether to write a line when a request starts.")
        params: Literal["none", "digest", "redacted"] = option(
            "redacted",
            doc="How the start line shows params: not, as a fingerprint, or with secrets masked and long values cut.",
        )
        redact: tuple[str, ...] = option(
            (),
            doc="Further keys, as globs, whose values `params: redacted` masks; compared without case, `-` and `_`. "
            "Passwords, tokens, credentials and the like are masked in any case.",
            example=["*iban*", "birthday"],
        )
        sample: Ratio = option(
            Ratio(1.0), ge=0, le=1, doc="Share of the requests that are logged; failures always are.", example="10%"
        )

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._level = _LEVELS[config.level]
        self._redaction = Redaction((*SENSITIVE_KEYS, *config.redact))

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Log around the inner chain. Never refuses, and passes everything through unchanged."""
        wanted = self.context.log.is_enabled_for(self._level) and self._is_sampled()
        if wanted and self.config.start:
            self._started(exchange)
        start, decided = trio.current_time(), len(exchange.link.decisions)
        reply: Reply | None = None
        try:
            reply = await call_next(exchange)
            return reply
        finally:
            error = sys.exception() if reply is None else None
            failed = isinstance(reply, ErrorReply) or (reply is None and not is_cancelled(error))
            if wanted or failed:
                duration_ms = round((trio.current_time() - start) * 1000, 3)
                self._ended(exchange, reply, error, {"duration_ms": duration_ms, **_course(exchange, decided)})
            error = None  # its frames hold this one: a cycle, for the collector to find

    def _is_sampled(self) -> bool:
        share: float = self.config.sample
        return share >= 1 or self.context.random.random() < share

    def _started(self, exchange: Exchange) -> None:
        shown: dict[str, Json] = {}
        if self.config.params != "none":
            params = {key: value for key, value in exchange.request.params.items() if key != "_meta"}
            shown["params"] = digest(params) if self.config.params == "digest" else self._redaction(params)
        self.context.log.log(self._level, "request started", **_identity(exchange), **shown)

    def _ended(
        self, exchange: Exchange, reply: Reply | None, error: BaseException | None, course: dict[str, Any]
    ) -> None:
        end = end_of(exchange, reply, error)
        course["outcome"] = end.outcome.value
        if isinstance(reply, Result):
            size = exchange.link.streamed or len(reply.raw)
            self._write(self._level, "request completed", exchange, course, status="ok", response_size=size)
        elif isinstance(reply, ErrorReply):
            details = {"error": clip(reply.message), "error_type": "ErrorReply", "code": reply.code}
            self._write(logging.WARNING, "request failed", exchange, course, status="error", **details)
        elif is_cancelled(error):
            late = end.outcome is Outcome.TIMEOUT
            self._write(self._level, "request cancelled", exchange, course, status="cancelled", deadline_passed=late)
        else:
            level = logging.ERROR
            details = {"error": clip(str(error)), "error_type": type(error).__name__}
            if isinstance(error, GatewayError):
                level = logging.WARNING if error.blame is Blame.CLIENT else logging.ERROR
                details |= {"reason": error.reason, "http_status": error.http_status}
            self._write(level, "request failed", exchange, course, status="error", **details)

    def _write(self, level: int, event: str, exchange: Exchange, course: Mapping[str, Any], **details: Any) -> None:
        log = self.context.log
        if log.is_enabled_for(level):
            log.log(level, event, **_identity(exchange), **course, **details)


def _course(exchange: Exchange, decided: int) -> dict[str, Any]:
    """What became of an exchange on its way; `decided` is how many decisions were none of the stages further in."""
    link = exchange.link
    course: dict[str, Any] = {"relayed": link.relayed, "attempts": link.attempts}
    decisions = link.decisions[decided : decided + MAX_DECISIONS]
    if decisions:
        course["decisions"] = [f"{each.stage}:{each.outcome}" for each in decisions]
    return course


def _identity(exchange: Exchange) -> dict[str, Json]:
    """What every line of one request carries. Text from outside is cut; what does not apply is left out."""
    client, caller, target = exchange.client, exchange.caller, exchange.target
    if caller == ANONYMOUS:
        caller = exchange.link.caller  # an auth stage further inside may have spoken since, on a view of its own
    fields: dict[str, Json] = {
        "correlation_id": exchange.correlation_id or exchange.link.correlation_id or None,
        "method": clip(exchange.method),
        "target": None if target is None else clip(_REDACTION.uri(target)),
        "caller": clip(caller.subject),
        "tenant": None if caller.tenant is None else clip(caller.tenant),
        "era": str(client.era),
        "source": exchange.source,
        "address": client.address,
        "attempt": exchange.attempt if exchange.attempt > 1 else None,
        "trace_id": None if exchange.link.trace is None else exchange.link.trace.trace_id,
    }
    return {name: value for name, value in fields.items() if value is not None}
