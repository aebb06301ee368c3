"""
What a handler of an embedded server raises, and what becomes of it.

| raised | in a tool | elsewhere |
| --- | --- | --- |
| `ToolError` | a result with `isError` and the text | -32603 with the text |
| `InvalidParams` | -32602 up to 2025-06-18, then (SEP-1303) a result: `Invalid params: ...` | -32602 |
| `InvalidRequest` | a result with `isError` and the text | -32600 |
| `NotFound` | a result with `isError` and the text | -32002 for a resource up to 2025-11-25, else -32602 |
| `Denied` | the gateway's `forbidden` error, HTTP 403 | the same |
| `InternalError`, anything else | a result with `isError`, an incident id and no detail | -32603 with an incident id |
"""

from __future__ import annotations

from collections.abc import Mapping

from sluiceway.pipeline.protocol.messages import Json


class ServerError(Exception):
    """
    Root of what handlers raise on purpose.

    Args:
        message: One sentence; the client sees it, except for `InternalError`.
        data: Members of `error.data` where the failure becomes a JSON-RPC error; must be JSON.
    """

    def __init__(self, message: str, *, data: Mapping[str, Json] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class ToolError(ServerError):
    """The tool ran and failed; the model should see why."""


class InvalidParams(ServerError):
    """The arguments do not make sense; the text names the parameter."""


class InvalidRequest(ServerError):
    """The request cannot be served at all."""


class NotFound(ServerError):
    """There is no such thing."""


class Denied(ServerError):
    """This caller may not do that."""


class InternalError(ServerError):
    """A failure whose detail belongs in the log and not in the answer."""


class MissingCapability(ServerError):
    """
    The client did not declare what a question needs.

    Args:
        required: The missing part of `ClientCapabilities`, for example `{"sampling": {}}`.
    """

    def __init__(self, required: Mapping[str, Json]) -> None:
        names = ", ".join(required)
        super().__init__(
            f"the client did not declare the capability {names}, which this needs",
            data={"requiredCapabilities": dict(required)},
        )
