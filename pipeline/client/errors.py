"""What talking to an MCP server can end with, beside a result."""

from __future__ import annotations

from typing import final

from ..protocol.errors import SluicewayError
from ..protocol.mcp import ErrorCode
from ..protocol.messages import ErrorReply, Json

_INVALID_PARAMS = "Invalid params"


class McpError(SluicewayError):
    """The server answered a request with a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Json = None, *, http_status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        """JSON-RPC error code; see `mcp.ErrorCode`."""
        self.message = message
        """The server's sentence."""
        self.data = data
        """Details; None when there were none."""
        self.http_status = http_status
        """The HTTP status it came with; None on other transports."""

    def reply(self) -> ErrorReply:
        """The same as a value, for a handler that answers a question with an error."""
        return ErrorReply(self.code, self.message, self.data)


@final
class InvalidParams(McpError):
    """
    The arguments are wrong, whichever way the server's revision says so.

    Up to 2025-06-18 that is the error -32602, since 2025-11-25 a tool result with `isError` (SEP-1303). The text
    always holds `Invalid params`.
    """

    def __init__(self, message: str, data: Json = None, *, http_status: int | None = None) -> None:
        text = message if _INVALID_PARAMS.lower() in message.lower() else f"{_INVALID_PARAMS}: {message}"
        super().__init__(ErrorCode.INVALID_PARAMS, text, data, http_status=http_status)


@final
class HttpStatus(SluicewayError):
    """An HTTP answer that is not MCP: a proxy's page, a refused credential, a wrong path."""

    def __init__(self, url: str, status: int, body: str, challenge: str | None = None) -> None:
        text = f": {body}" if body else ""
        super().__init__(f"{url} answered HTTP {status}{text}")
        self.status = status
        """The status code."""
        self.body = body
        """The beginning of the body, as text."""
        self.challenge = challenge
        """The `WWW-Authenticate` header, if there was one."""


@final
class SessionLost(SluicewayError):
    """The server no longer knows the session; the client starts a new one (2025-11-25, session management)."""


def error_of(reply: ErrorReply) -> McpError:
    """The exception for an error reply."""
    if reply.code == ErrorCode.INVALID_PARAMS:
        return InvalidParams(reply.message, reply.data, http_status=reply.http_status)
    return McpError(reply.code, reply.message, reply.data, http_status=reply.http_status)


def wrong_arguments(result: Json) -> InvalidParams | None:
    """The exception for a tool result that says `Invalid params`; None for any other result."""
    if not result.get("isError"):
        return None
    for block in result.get("content", ()):
        text = block.get("text", "") if isinstance(block, dict) else ""
        if isinstance(text, str) and text.startswith(_INVALID_PARAMS):
            return InvalidParams(text)
    return None
