"""
A small MCP client: both eras, any transport, on Trio.

It serves the command line and the test kit. It is not the gateway's way to an upstream: it decodes what it receives
and opens a task for each question, which the call path must not do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Final, final

import trio

from ..protocol.errors import SluicewayError, UpstreamProtocolError
from ..protocol.mcp import Era, ErrorCode, MetaKey, meta_of, method_of
from ..protocol.messages import EMPTY, ErrorReply, Json, Notification, Reply, Request, Response
from ..runtime.nursery import farewell
from .errors import SessionLost, error_of, wrong_arguments
from .handlers import Handlers, Listener
from .handshake import EraChoice, Server, negotiate
from .headers import param_headers
from .wire import Deliver, Wire

MAX_ROUNDS: Final = 10
"""Times a modern server may answer one request with `input_required`."""
MAX_QUESTIONS: Final = 64
"""Questions of a legacy server that are answered at the same time; further ones are refused."""
MAX_PAGES: Final = 1000
"""Pages of one list that are followed."""
CLIENT_INFO: Final[Mapping[str, Json]] = {"name": "sluiceway-client", "version": version("sluiceway")}
"""What servers are told about this client unless the caller says otherwise."""

Progress = Callable[[float, float | None, str], Awaitable[None]]
"""Takes progress, total (None if unknown) and message (empty if none)."""

_LAST_WORD_S: Final = 1.0
_NEVER_CANCELLED: Final = ("initialize", "server/discover")
"""A handshake is not cancelled: the one MUST NOT be, and a legacy server knows nothing of the other."""


@final
class McpClient:
    """
    A conversation with one server. Made by `open_http_client` and `open_stdio_client`, which also end it.

    Requests may run at the same time. Cancelling the scope around one tells the server, in its era's way.
    """

    def __init__(self, wire: Wire, handlers: Handlers, nursery: trio.Nursery, info: Mapping[str, Json]) -> None:
        self._wire = wire
        self._handlers = handlers
        self._nursery = nursery
        self._info = info
        self._last_id = 0
        self._questions = 0
        self._renewing = trio.Lock()
        self._sessions = 0
        self._schemas: dict[str, Json] = {}
        self.server = Server()
        """What the server said about itself."""
        self.log_level: str | None = None
        """Least severe `notifications/message` a modern server should send; None for none at all."""

    @property
    def era(self) -> Era:
        """The era in force."""
        return self._wire.era

    @property
    def version(self) -> str:
        """The revision in force."""
        return self._wire.version

    async def request(
        self,
        method: str,
        params: Mapping[str, Json] = EMPTY,
        *,
        on_progress: Progress | None = None,
        on_notification: Listener | None = None,
    ) -> Mapping[str, Json]:
        """
        Make a request and return its result; a modern server's questions are answered on the way.

        Args:
            method: For example `tools/call`.
            params: Its params; `_meta` is completed here.
            on_progress: Awaited for each progress notification of this request.
            on_notification: Awaited for every notification on this request's stream.

        Raises:
            McpError: The server answered with an error; `InvalidParams` for wrong arguments.
            UpstreamFault: The server could not be reached, went away, or does not speak MCP.
            HttpStatus: An HTTP answer that is not MCP.
        """
        base = params
        ear = _Ear(self, on_progress, on_notification)
        for _ in range(MAX_ROUNDS):
            reply = await self._with_session(method, params, ear, progress=on_progress is not None)
            if isinstance(reply, ErrorReply):
                raise error_of(reply)
            result = reply.value
            if result.get("resultType") != "input_required" or not method_of(method).asks:
                return result
            params = {**base, **await self._answers(result)}
        raise UpstreamProtocolError(f"{method} asked for input more than {MAX_ROUNDS} times")

    async def notify(self, method: str, params: Mapping[str, Json] = EMPTY) -> None:
        """Send a notification. Raises as `request` does, except for `McpError`."""
        await self._wire.send(Notification(method, self._framed(params)))

    async def list_all(self, method: str, member: str) -> list[Json]:
        """
        Follow the cursors of a list method and return all its items.

        Raises:
            UpstreamProtocolError: The cursors run in a circle, or there are more than `MAX_PAGES` pages.
        """
        items: list[Json] = []
        seen: set[str] = set()
        params: Mapping[str, Json] = EMPTY
        while len(seen) < MAX_PAGES:
            result = await self.request(method, params)
            items += result.get(member, [])
            cursor = result.get("nextCursor")
            if cursor is None:
                return items
            if cursor in seen:
                raise UpstreamProtocolError(f"{method} returned the cursor {cursor!r} twice")
            seen.add(cursor)
            params = {"cursor": cursor}
        raise UpstreamProtocolError(f"{method} has more than {MAX_PAGES} pages")

    async def list_tools(self) -> list[Json]:
        """All tools, as the server describes them; their header annotations are kept for `call_tool`."""
        tools = await self.list_all("tools/list", "tools")
        self._schemas = {tool["name"]: tool.get("inputSchema") for tool in tools}
        return tools

    async def call_tool(
        self, name: str, arguments: Mapping[str, Json] = EMPTY, *, on_progress: Progress | None = None
    ) -> Mapping[str, Json]:
        """
        Call a tool. A result with `isError` is returned; wrong arguments are raised in every revision.

        Raises:
            InvalidParams: No such tool, or its arguments are wrong.
        """
        result = await self.request("tools/call", {"name": name, "arguments": arguments}, on_progress=on_progress)
        error = wrong_arguments(result)
        if error is not None:
            raise error
        return result

    async def list_resources(self) -> list[Json]:
        """All resources."""
        return await self.list_all("resources/list", "resources")

    async def list_prompts(self) -> list[Json]:
        """All prompts."""
        return await self.list_all("prompts/list", "prompts")

    async def read_resource(self, uri: str) -> list[Json]:
        """The contents of a resource."""
        contents: list[Json] = (await self.request("resources/read", {"uri": uri}))["contents"]
        return contents

    async def get_prompt(self, name: str, arguments: Mapping[str, str] = EMPTY) -> Mapping[str, Json]:
        """A prompt with its arguments filled in."""
        return await self.request("prompts/get", {"name": name, "arguments": arguments})

    async def exchange(
        self, method: str, params: Mapping[str, Json], deliver: Deliver | None = None, *, progress: bool = False
    ) -> Reply:
        """
        One request and its reply as data: no retries, no answers to `input_required`, errors not raised.

        `tools/call` repeats its annotated arguments as headers where the tool was listed before (SEP-2243).

        Args:
            method: For example `tools/call`.
            params: Its params; `_meta` is completed here.
            deliver: Awaited for what comes before the reply; the handlers hear it when absent.
            progress: Ask for progress notifications.

        Raises:
            SessionLost: A legacy server has forgotten the session. Otherwise as `request`, without `McpError`.
        """
        self._last_id += 1
        token: Mapping[str, Json] = {MetaKey.PROGRESS_TOKEN: self._last_id} if progress else EMPTY
        request = Request(self._last_id, method, self._framed(params, token))
        schema = self._schemas.get(params.get("name", "")) if method == "tools/call" else None
        headers = param_headers(schema, params.get("arguments", EMPTY)) if self.era is Era.MODERN else EMPTY
        settled = False
        try:
            reply = await self._wire.call(request, deliver or self.hear, headers)
            settled = True
        except SluicewayError:
            settled = True
            raise
        finally:
            if not settled and self._wire.announces_cancel and method not in _NEVER_CANCELLED:
                with farewell(_LAST_WORD_S), suppress(SluicewayError):
                    notice = Notification("notifications/cancelled", {"requestId": request.id})
                    await self._wire.send(notice)  # noqa: ASYNC102  # farewell is a bounded shield
        return reply

    async def hear(self, message: Notification | Request) -> None:
        """Take what no request of ours caused. Questions are answered in tasks of their own."""
        if isinstance(message, Notification):
            await self._handlers.notification(message)
        elif self._questions >= MAX_QUESTIONS:
            refusal = ErrorReply(ErrorCode.INTERNAL_ERROR, f"{MAX_QUESTIONS} questions are being answered already")
            await self._wire.send(Response(message.id, refusal))
        else:
            self._questions += 1
            self._nursery.start_soon(self._answer, message)

    async def connect(self, era: EraChoice) -> None:
        """Negotiate; called once by whoever opened the wire. Raises as `request` does."""
        self.server = await negotiate(self._wire, self.exchange, self._handlers.capabilities, self._info, era)
        if self.era is Era.LEGACY and self._handlers.listens:
            self._nursery.start_soon(self._wire.listen, self.hear)

    async def _with_session(
        self, method: str, params: Mapping[str, Json], deliver: Deliver, *, progress: bool
    ) -> Reply:
        """One exchange; if the session is gone, another one in a new session (2025-11-25, session management)."""
        session = self._sessions
        try:
            return await self.exchange(method, params, deliver, progress=progress)
        except SessionLost:
            async with self._renewing:
                if session == self._sessions:
                    self._wire.forget()
                    await self.connect("legacy")
                    self._sessions += 1
        return await self.exchange(method, params, deliver, progress=progress)

    def _framed(self, params: Mapping[str, Json], extra: Mapping[str, Json] = EMPTY) -> Mapping[str, Json]:
        """The params with the metadata that every modern message carries (2026-07-28, basic)."""
        meta: dict[str, Json] = {**meta_of(params), **extra}
        if self.era is Era.MODERN:
            meta[MetaKey.VERSION] = self.version
            meta[MetaKey.CLIENT_CAPABILITIES] = self._handlers.capabilities
            meta[MetaKey.CLIENT_INFO] = self._info
            if self.log_level is not None:
                meta[MetaKey.LOG_LEVEL] = self.log_level
        return {**params, "_meta": meta} if meta else params

    async def _answers(self, result: Mapping[str, Json]) -> dict[str, Json]:
        """Answer an `input_required` result (SEP-2322): the params to add to the retry."""
        responses: dict[str, Json] = {}
        for key, question in result.get("inputRequests", {}).items():
            reply = await self._handlers.answer(question["method"], question.get("params", EMPTY))
            if isinstance(reply, ErrorReply):
                raise error_of(reply)
            responses[key] = reply.value
        added: dict[str, Json] = {"inputResponses": responses} if responses else {}
        if "requestState" in result:
            added["requestState"] = result["requestState"]
        return added

    async def _answer(self, question: Request) -> None:
        try:
            reply = await self._handlers.answer(question.method, question.params)
            with suppress(SluicewayError):  # the server that asked may be gone
                await self._wire.send(Response(question.id, reply))
        finally:
            self._questions -= 1


@final
class _Ear:
    """Hears what comes before one reply, and passes it to whoever asked for it."""

    def __init__(self, client: McpClient, on_progress: Progress | None, on_notification: Listener | None) -> None:
        self._client = client
        self._on_progress = on_progress
        self._on_notification = on_notification

    async def __call__(self, message: Notification | Request) -> None:
        heard = False
        if isinstance(message, Notification):
            if self._on_progress is not None and message.method == "notifications/progress":
                params = message.params
                await self._on_progress(params["progress"], params.get("total"), params.get("message", ""))
                heard = True
            if self._on_notification is not None:
                await self._on_notification(message)
                heard = True
        if not heard:
            await self._client.hear(message)
