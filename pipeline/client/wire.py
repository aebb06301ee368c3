"""The transport under an `McpClient`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from ..protocol.mcp import Era
from ..protocol.messages import EMPTY, Notification, Reply, Request, Response

Deliver = Callable[[Notification | Request], Awaitable[None]]
"""Takes what comes before a reply, or without one: a notification, or a question of a legacy server."""


class Wire(Protocol):
    """Carries messages to one server. Opened and closed by the function that makes the client."""

    era: Era
    """How messages are framed; the client sets it while it negotiates."""
    version: str
    """The revision in force; empty before a legacy handshake was answered."""
    probe_timeout_s: float
    """How long a server may be silent to `server/discover` before it counts as legacy, in seconds."""

    @property
    def announces_cancel(self) -> bool:
        """Whether a cancelled request needs `notifications/cancelled`; otherwise giving up its stream says it."""
        ...

    async def call(self, request: Request, deliver: Deliver, headers: Mapping[str, str] = EMPTY) -> Reply:
        """
        Send a request and wait for its reply.

        Args:
            request: The message; its id is unique among those in flight.
            deliver: Awaited for each message that precedes the reply, in order.
            headers: Further headers, on transports that have headers.

        Raises:
            ConnectFailed: Nothing was sent.
            UpstreamClosed: The connection went away before the reply came.
            UpstreamProtocolError: What came is not MCP.
            HttpStatus: An HTTP answer that is not MCP.
            SessionLost: The server has forgotten the session; the request was not served.
        """
        ...

    async def send(self, message: Notification | Response) -> None:
        """Send what has no reply. Raises as `call` does."""

    async def listen(self, deliver: Deliver) -> None:
        """Receive what no request caused, until cancelled; returns when there is nothing to listen to."""

    def forget(self) -> None:
        """Drop the session: the next message starts without one."""
