"""
Serving POSTs of the modern era: each one a whole exchange that ends with its connection.

A client that closes the response stream has cancelled its request, and nothing is kept for it (2026-07-28,
basic/transports/streamable-http).
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import final

from sluiceway.pipeline.protocol.errors import GatewayError, InvalidMessage
from sluiceway.pipeline.protocol.messages import Message, Notification, Request, Response

from ..eras import modern
from .answers import Answer
from .modern_call import ModernCall
from .request import HttpRequest
from .response import HttpResponse
from .said import MAX_SAID, Said
from .serving import Serving


@final
class ModernPosts:
    """Serves modern messages of one source."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def serve(
        self, message: Message, request: HttpRequest, response: HttpResponse, patience_s: float | None
    ) -> Awaitable[None]:
        """
        Answer one message.

        Args:
            message: What was posted.
            request: As which.
            response: Where the answer goes.
            patience_s: Seconds to wait for a single answer before this becomes an event stream; the default when None.

        Raises:
            GatewayError: It cannot become an exchange.
        """
        if not isinstance(message, Request):
            return self._take(message, request, response)
        serving = self._serving
        try:
            said = request.remote.said
            if said is None or not said.is_said_by(message, request.head):
                said = Said(message, request)
                if len(request.whole or b"") <= MAX_SAID:
                    request.remote.said = said
            if serving.draining:
                serving.refuse_if_draining()
        except GatewayError as error:
            error.request_id = message.id
            raise
        return ModernCall(serving, message, said, request, response).serve(patience_s)

    async def _take(self, message: Notification | Response, request: HttpRequest, response: HttpResponse) -> None:
        """Take what has no reply."""
        if isinstance(message, Response):
            raise InvalidMessage("a client of this revision posts no responses; answers go into the retried request")
        await self._notify(message, request)
        await response.answer(Answer(202))

    async def _notify(self, notification: Notification, request: HttpRequest) -> None:
        means_something = modern.check_notification(notification, request.headers)
        client = modern.client_of(notification, request.headers, request.address, request.certificate)
        await self._serving.identify(client, notification)  # its exchange has no reply that could refuse it
        if means_something:
            await self._serving.handle(notification, client=client, emit=_drop).run()


async def _drop(_: Notification) -> None:
    """A notification has no stream on which something could come back."""
