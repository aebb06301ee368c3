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

from sluiceway.pipeline.model.component import Context, Middleware, Order, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.options import Ratio, option
from sluiceway.pipeline.model.session import ANONYMOUS
from sluiceway.pipeline.protocol.errors import Blame, GatewayError
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Reply
from sluiceway.pipeline.telemetry.redaction import SENSITIVE_KEYS, Redaction, clip, digest

_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
}


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

    A stage in front of this one that refuses a request leaves no line here.
    """

    role = "log"
    order = (Order("after", "request_id", "warning", "lines written in front of request_id carry no correlation id"),)

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
        start = trio.current_time()
        reply: Reply | None = None
        try:
            reply = await call_next(exchange)
            return reply
        finally:
            duration_ms = round((trio.current_time() - start) * 1000, 3)
            if reply is None:
                self._raised(exchange, sys.exception(), duration_ms, wanted)
            elif isinstance(reply, ErrorReply):
                self._refused_upstream(exchange, reply, duration_ms)
            elif wanted:
                self._write(
                    self._level, "request completed", exchange, duration_ms, status="ok",
                    response_size=len(reply.body.raw),
                )  # fmt: skip

    def _is_sampled(self) -> bool:
        share: float = self.config.sample
        return share >= 1 or self.context.random.random() < share

    def _started(self, exchange: Exchange) -> None:
        shown: dict[str, Json] = {}
        if self.config.params != "none":
            params = {key: value for key, value in exchange.request.params.items() if key != "_meta"}
            shown["params"] = digest(params) if self.config.params == "digest" else self._redaction(params)
        self.context.log.log(self._level, "request started", **_identity(exchange), **shown)

    def _raised(self, exchange: Exchange, error: BaseException | None, duration_ms: float, wanted: bool) -> None:
        if _is_cancelled(error):
            if wanted:
                late = trio.current_time() >= exchange.link.deadline
                self._write(
                    self._level, "request cancelled", exchange, duration_ms, status="cancelled", deadline_passed=late
                )
            return
        level = logging.ERROR
        details: dict[str, Json] = {"error": clip(str(error)), "error_type": type(error).__name__}
        if isinstance(error, GatewayError):
            level = logging.WARNING if error.blame is Blame.CLIENT else logging.ERROR
            details |= {"reason": error.reason, "http_status": error.http_status}
        self._write(level, "request failed", exchange, duration_ms, status="error", **details)

    def _refused_upstream(self, exchange: Exchange, reply: ErrorReply, duration_ms: float) -> None:
        self._write(
            logging.WARNING, "request failed", exchange, duration_ms, status="error", error=clip(reply.message),
            error_type="ErrorReply", code=reply.code,
        )  # fmt: skip

    def _write(self, level: int, event: str, exchange: Exchange, duration_ms: float, **details: Any) -> None:
        log = self.context.log
        if log.is_enabled_for(level):
            relayed = exchange.relayed
            log.log(level, event, **_identity(exchange), duration_ms=duration_ms, relayed=relayed, **details)


def _is_cancelled(error: BaseException | None) -> bool:
    """Whether an exchange was cancelled: also where a stage's nursery made a group of it."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def _identity(exchange: Exchange) -> dict[str, Json]:
    """What every line of one request carries. Text from outside is cut; what does not apply is left out."""
    client, caller, target = exchange.client, exchange.caller, exchange.target
    if caller == ANONYMOUS:
        caller = exchange.link.caller  # an auth stage further inside may have spoken since, on a view of its own
    fields: dict[str, Json] = {
        "correlation_id": exchange.correlation_id or None,
        "method": clip(exchange.method),
        "target": None if target is None else clip(target),
        "caller": clip(caller.subject),
        "tenant": None if caller.tenant is None else clip(caller.tenant),
        "era": str(client.era),
        "source": exchange.source,
        "address": client.address,
        "attempt": exchange.attempt if exchange.attempt > 1 else None,
    }
    return {name: value for name, value in fields.items() if value is not None}
