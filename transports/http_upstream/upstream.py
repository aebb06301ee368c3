"""One upstream endpoint: what every request to it carries, and how its responses are read."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, Final, final

from sluiceway.pipeline.protocol.codec import decode_upstream, encode_message
from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.gate import Limits
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Request, RequestId
from sluiceway.pipeline.protocol.messages import Response as Answer

from ..http_client.client import HttpClient, Use
from ..http_client.faults import Faults
from ..http_client.parser import Head
from ..http_client.response import Response
from .answers import JSON, check_answers, error_in, refusal
from .headers import trace_headers
from .incoming import Announce, Incoming
from .oauth import TokenSource

_AGENT: Final = {"user-agent": "sluiceway", "accept-encoding": "identity"}


@final
class Upstream:
    """
    Args:
        name: What the upstream is called in errors: the sink's id.
        client: Leads to its endpoint.
        headers: The operator's, secrets resolved.
        tokens: Where the bearer token comes from; None for none.
        max_message: Bytes of one message.
        idle_s: Silence after which an event stream is given up.
        announce: Told of every notification, whoever it is for, before anybody else. Must not block.

    Raises:
        ValueError: One of `headers` cannot be sent; the text does not show its value.
    """

    def __init__(
        self,
        name: str,
        client: HttpClient,
        headers: Mapping[str, str],
        tokens: TokenSource | None,
        *,
        max_message: int,
        idle_s: float,
        announce: Announce,
    ) -> None:
        self.name = name
        self.limits: Final = Limits(max_message_size=max_message)
        self._client = client
        self._tokens = tokens
        self._idle_s = idle_s
        self._announce = announce
        sent = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        self._post_headers = {**headers, **_AGENT, **sent}
        self._post = client.prepare("POST", self._post_headers)
        self._get = client.prepare("GET", {**headers, **_AGENT, "accept": "text/event-stream"})
        self._delete = client.prepare("DELETE", {**headers, **_AGENT})

    def post(self, request: Request, headers: bytes, *, use: Use = Use.CALL) -> Coroutine[Any, Any, Response]:
        """
        Post a request when awaited; use what comes back in a `with` block.

        Args:
            request: One that was not changed goes out as the bytes it was. Its method says if it may arrive twice.
            headers: Lines that depend on it.
            use: What the connection is needed for.

        Raises:
            UpstreamFault: The upstream cannot be reached, or broke off, or there is no token for it.
            CapacityExceeded: Too many requests wait for a connection.
        """
        headers += trace_headers(request)
        message, repeatable = request.raw or encode_message(request), request.row.repeatable
        if self._tokens is None:
            return self._client.send(self._post, headers, message, repeatable=repeatable, use=use)
        return self._send(self._post, headers, message, repeatable=repeatable, use=use)

    def post_head(self, path: str) -> bytes:
        """What `post_to` needs to post somewhere else at the same origin."""
        return self._client.prepare("POST", self._post_headers, path)

    async def post_to(self, head: bytes, message: bytes, *, use: Use) -> Response:
        """Post an encoded message, which may not arrive twice, to another place. Raises as `post` does."""
        return await self._send(head, b"", message, repeatable=False, use=use)

    async def get(self, headers: bytes, event_id: str = "") -> Response:
        """Open an event stream, after the event with this id if there is one. Raises as `post` does."""
        if event_id:
            headers += b"last-event-id: %b\r\n" % event_id.encode()  # UTF-8: WHATWG HTML section 9.2.4
        return await self._send(self._get, headers, b"", repeatable=True, use=Use.STREAM)

    async def delete(self, headers: bytes) -> None:
        """End a session; whatever the upstream answers. Raises as `post` does."""
        (await self._send(self._delete, headers, b"", repeatable=True, use=Use.WORD)).close()

    async def say(self, message: Notification | Answer, headers: bytes) -> Response:
        """Post what is only acknowledged; the response is closed already. Raises as `post` does."""
        if isinstance(message, Notification):
            headers += trace_headers(message)
        said = self._send(self._post, headers, encode_message(message), repeatable=False, use=Use.WORD)
        with await said as response:
            if 200 <= response.head.status < 300:
                with self._client.faults:
                    await response.body(self.limits.max_message_size)
            return response

    def reply_in(self, response: Response, request_id: RequestId) -> Reply | None:
        """
        The reply to a request, if it is the one JSON message of a successful response that is here as a whole. None
        otherwise: then `read` it.

        Raises:
            UpstreamProtocolError: The message is not MCP, or answers another request.
        """
        body = response.whole
        if body is None or not response.head.is_json or len(body) > self.limits.max_message_size:
            return None
        message = decode_upstream(body, self.limits)
        if type(message) is not Answer:
            return None
        return message.reply if message.id == request_id else check_answers(self.name, message, request_id)

    def read(self, response: Response, event_id: str = "") -> Incoming:
        """
        The messages of a response.

        Raises:
            UpstreamProtocolError: It is neither JSON nor an event stream.
        """
        return Incoming(self.name, response, self._client.faults, self.limits, self._idle_s, self._announce, event_id)

    @property
    def faults(self) -> Faults:
        """A `with` block for whoever reads the body of a response."""
        return self._client.faults

    def failure(self, head: Head) -> GatewayError:
        """The failure that an error response without JSON-RPC in it is."""
        return refusal(self.name, head)

    async def refusal(self, response: Response) -> ErrorReply:
        """
        What an error response says in JSON-RPC.

        Raises:
            GatewayError: It says nothing in JSON-RPC, or it is about the gateway's own credential.
        """
        head = response.head
        if head.media_type == JSON and head.status not in (401, 403):
            with self._client.faults:
                error = error_in(await response.body(self.limits.max_message_size), self.limits)
            if error is not None:
                return error
        raise refusal(self.name, head)

    def _send(
        self, head: bytes, headers: bytes, body: bytes, *, repeatable: bool, use: Use
    ) -> Coroutine[Any, Any, Response]:
        if self._tokens is None:
            return self._client.send(head, headers, body, repeatable=repeatable, use=use)
        return self._send_authorized(self._tokens, head, headers, body, repeatable=repeatable, use=use)

    async def _send_authorized(
        self, tokens: TokenSource, head: bytes, headers: bytes, body: bytes, *, repeatable: bool, use: Use
    ) -> Response:
        token = await tokens.token()
        authorized = b"%bauthorization: Bearer %b\r\n" % (headers, token.encode())
        response = await self._client.send(head, authorized, body, repeatable=repeatable, use=use)
        if response.head.status != 401:
            return response
        response.close()  # a 401 comes before anything is done, so the request may go out again
        tokens.refused(token)
        authorized = b"%bauthorization: Bearer %b\r\n" % (headers, (await tokens.token()).encode())
        return await self._client.send(head, authorized, body, repeatable=repeatable, use=use)
