"""What a client does when the server speaks first: answers to questions, and an ear for notifications."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, final

from attrs import frozen

from ..protocol.mcp import ErrorCode
from ..protocol.messages import EMPTY, ErrorReply, Json, Notification, Reply, Result
from .errors import McpError

Answer = Callable[[Mapping[str, Json]], Awaitable[Mapping[str, Json]]]
"""Takes the params of a question and returns its result; raises `McpError` to answer with an error."""

Listener = Callable[[Notification], Awaitable[None]]
"""Takes one notification. It runs in the task that reads the connection, so it should return soon."""


async def ignore(_notification: Notification) -> None:
    """Nobody listens. Not a checkpoint."""


@final
@frozen(kw_only=True)
class Handlers:
    """
    The client's side of the conversation. What is None is not declared as a capability, so servers do not ask it.

    The same answers serve both eras: questions of a legacy server, and `input_required` results of a modern one.
    """

    sampling: Answer | None = None
    """Answers `sampling/createMessage`."""
    elicitation: Answer | None = None
    """Answers `elicitation/create`."""
    roots: Answer | None = None
    """Answers `roots/list`."""
    notification: Listener = ignore
    """Hears what no request of this client caused, and on stdio also log messages."""

    @property
    def capabilities(self) -> dict[str, Json]:
        """What is declared to the server."""
        declared: dict[str, Json] = {}
        if self.sampling is not None:
            declared["sampling"] = {}
        if self.elicitation is not None:
            declared["elicitation"] = {"form": {}, "url": {}}
        if self.roots is not None:
            declared["roots"] = {}
        return declared

    @property
    def listens(self) -> bool:
        """Whether it makes sense to ask the server for what no request caused."""
        return self.notification is not ignore or bool(self.capabilities)

    async def answer(self, method: str, params: Mapping[str, Json]) -> Reply:
        """Answer one question of the server; `ping` is always answered."""
        if method == "ping":
            return Result(EMPTY)
        handler = {name: getattr(self, field) for name, field in _FIELDS.items()}.get(method)
        if handler is None:
            return ErrorReply(ErrorCode.METHOD_NOT_FOUND, f"this client does not answer {method}")
        try:
            return Result(await handler(params))
        except McpError as error:
            return error.reply()


_FIELDS: Final = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}
