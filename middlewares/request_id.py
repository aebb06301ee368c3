"""
`request_id`: one id per exchange, for logs, audit, traces and the client.

The id is the client's own if it sends a well-formed one, else a new one. It is on the exchange (`correlation_id`), on
every log line written inside the stage, and in the response headers.
"""

from __future__ import annotations

import re
from typing import Final, final

from attrs import frozen

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.protocol.messages import Reply
from sluiceway.pipeline.telemetry.correlation import CORRELATION_ID

_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9._~:/+=@-]+")
"""What an id may consist of: nothing that could end a header, a log field or a file name in the wrong place."""


@final
@middleware("request_id")
class RequestId(Middleware):
    """
    Give every exchange an id that its logs, its reply and its client share.

    An id that the exchange already has (from an outer chain) is kept. Otherwise the client's header counts, if
    `accept` allows it and the value is well-formed: letters, digits and `._~:/+=@-`, at most `max_length` of them. An
    ill-formed id is replaced, not refused: it is a label, and no reason to fail a call.

    The id is on every log line written while the inner chain runs, and not afterwards: it does not leak into the next
    exchange of the same connection.
    """

    reads_results = False
    role = "request_id"
    order = (Order("first", "", "info", "log lines of stages in front of it carry no correlation id"),)

    @frozen
    class Config:
        """Options of `request_id`."""

        header: str = option("x-request-id", doc="Header that carries the id, in requests and in responses.")
        accept: bool = option(
            True, doc="Whether a well-formed id from the client is used; turn it off where clients are not trusted."
        )
        max_length: int = option(128, ge=1, le=1024, doc="Characters that a client's id may have.")

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._header = config.header.lower()
        self._accept = config.accept
        self._max_length = config.max_length
        self._new_id = context.new_id

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Set `exchange.correlation_id`, then go on. Never refuses."""
        sent = exchange.client.headers.get(self._header)
        correlation_id = exchange.correlation_id or (sent and self._checked(sent)) or self._new_id()
        exchange.correlation_id = exchange.link.correlation_id = correlation_id
        exchange.reply_headers[self._header] = correlation_id
        token = CORRELATION_ID.set(correlation_id)
        try:
            return await call_next(exchange)
        finally:
            CORRELATION_ID.reset(token)

    def _checked(self, sent: str) -> str | None:
        """What a client sent, if that may be used."""
        fits = self._accept and len(sent) <= self._max_length and _WELL_FORMED.fullmatch(sent) is not None
        return sent if fits else None
