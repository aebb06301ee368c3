"""What a handler may use of the request it serves: progress, logging, state, questions, and who is asking."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, final

from attrs import define, field

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Caller, Client
from sluiceway.pipeline.model.store import Store
from sluiceway.pipeline.protocol.mcp import Era, MetaKey, meta_of, method_of
from sluiceway.pipeline.protocol.messages import EMPTY, ErrorReply, Json, Notification

from .content import Message
from .errors import MissingCapability, ServerError, ToolError
from .inject import Providers
from .mrtr import InputRequired
from .questions import (
    Elicit,
    Elicited,
    ElicitUrl,
    Question,
    Root,
    Roots,
    Sample,
    Sampled,
    UnusableAnswer,
    missing_capability,
)
from .subscriptions import SessionData

if TYPE_CHECKING:
    from .runtime import Runtime
    from .server import Server

Level = Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""Log levels of RFC 5424, least severe first."""

_A = TypeVar("_A")


class BadAnswer(ServerError):
    """A modern client's retry does not answer what was asked; always a JSON-RPC error."""


@final
@define(eq=False, kw_only=True)
class Context:
    """
    One request, as a handler sees it. Declare a parameter of this type and it is filled in.

    Not for keeping: after the handler returned, progress and log messages go nowhere.
    """

    exchange: Exchange
    """The gateway's own view of the request."""
    runtime: Runtime
    """The opened server it belongs to."""
    version: str
    """The protocol revision of the client."""
    answers: Mapping[str, Any] = EMPTY
    """The client's answers to questions of this and earlier rounds (2026-07-28), by key."""
    used: dict[str, Any] = field(factory=dict, init=False)
    """Answers read so far; what the next round must bring along."""
    stack: AsyncExitStack = field(factory=AsyncExitStack)
    """Closes what was made for this request."""
    made: dict[type[Any], Any] = field(factory=dict, init=False)
    """Dependencies made for this request."""
    _asked: int = field(default=0, init=False)
    _progress: float = field(default=-math.inf, init=False)
    _over: bool = field(default=False, init=False)

    @property
    def caller(self) -> Caller:
        """Who is asking, as far as an auth stage established it."""
        return self.exchange.caller

    @property
    def client(self) -> Client:
        """Who is asking, as far as protocol and transport tell; capabilities included."""
        return self.exchange.client

    @property
    def method(self) -> str:
        """The method of the request; tells a pattern's handler what was called."""
        return self.exchange.method

    @property
    def params(self) -> Mapping[str, Json]:
        """The params of the request, as sent."""
        return self.exchange.request.params

    @property
    def server(self) -> Server:
        """The server, for adding and removing tools while it runs."""
        return self.runtime.server

    @property
    def lifespan(self) -> Any:
        """What the server's lifespan hook yielded; None without one."""
        return self.runtime.lifespan

    @property
    def providers(self) -> Providers:
        """What the server injects."""
        return self.runtime.server.providers

    @property
    def singletons(self) -> Mapping[type[Any], Any]:
        """Dependencies made when the server opened."""
        return self.runtime.singletons

    @property
    def store(self) -> Store:
        """
        The named store of the sink's `store:` option. Keys are the server's own; prefix them.

        Raises:
            ToolError: The sink names none.
        """
        if self.runtime.store is None:
            raise ToolError(f"sink {self.runtime.id!r} has no store; name one with its `store:` option")
        return self.runtime.store

    @property
    def session(self) -> dict[str, Any]:
        """
        What handlers keep for this client, until its session ends.

        Raises:
            ToolError: The client has no session: all modern clients, and legacy ones on a sessionless transport. Give
                it an explicit handle, or use the store.
        """
        data = self._session_data()
        if data is None:
            raise ToolError(
                "this client has no session to remember things in (2026-07-28 has none); pass an explicit handle"
            )
        return data.state

    def _session_data(self) -> SessionData | None:
        session = self.exchange.client.session
        return None if session is None else self.runtime.hub.data_of(session)

    def end(self) -> None:
        """The handler is done: nothing may follow it to the client."""
        self._over = True

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """
        Report progress, if the client asked for it. What does not go forward is not sent (the spec wants increase).

        Args:
            done: So far; more than last time. Report after each step, so that the last report equals the total.
            total: In the same unit, if known.
            message: For the user.
        """
        token = meta_of(self.params).get(MetaKey.PROGRESS_TOKEN)
        if token is None or self._over or done <= self._progress:
            return
        self._progress = done
        params: dict[str, Json] = {"progressToken": token, "progress": done}
        if total is not None:
            params["total"] = total
        if message is not None:
            params["message"] = message
        await self.exchange.relay(Notification("notifications/progress", params))

    async def log(self, level: Level, data: Json, logger: str | None = None) -> None:
        """
        Send a log message to the client, if it wants that level.

        A legacy client sets the level with `logging/setLevel` (info until then); a modern one in each request, and
        hears nothing if it does not.

        Args:
            level: One of `LEVELS`.
            data: Any JSON; text for people.
            logger: Names the part of the server that speaks.

        Raises:
            ValueError: No such level.
        """
        severity = LEVELS.index(level)
        wanted = self._log_level()
        if self._over or wanted not in LEVELS or severity < LEVELS.index(wanted):
            return
        params: dict[str, Json] = {"level": level, "data": data}
        if logger is not None:
            params["logger"] = logger
        await self.exchange.relay(Notification("notifications/message", params))

    def _log_level(self) -> Json:
        if "logging" not in self.runtime.exposed:
            return None
        if self.client.era is Era.MODERN:
            return meta_of(self.params).get(MetaKey.LOG_LEVEL)
        data = self._session_data()
        return "info" if data is None else data.log_level

    async def read_resource(self, uri: str) -> list[dict[str, Json]]:
        """
        Read one of the server's own resources: its `contents`.

        Raises:
            NotFound: There is none of that uri.
        """
        return (await self.runtime.read(uri, self))[0]

    def can(self, question: Question[Any]) -> bool:
        """Whether the client declared what a question needs."""
        return missing_capability(question.needs, self.client.capabilities) is None

    async def elicit(self, message: str, schema: Any, *, key: str | None = None) -> Elicited:
        """Ask the user to fill in a form; see `ask` and `Elicit`."""
        return await self._one(Elicit(message, schema, key=key))

    async def elicit_url(self, message: str, url: str, *, key: str | None = None) -> Elicited:
        """Ask the user to visit a page; see `ask` and `ElicitUrl`."""
        return await self._one(ElicitUrl(message, url, key=key))

    async def sample(
        self, messages: str | Sequence[Message | str], max_tokens: int, *, key: str | None = None, **options: Any
    ) -> Sampled:
        """Ask the client's model; see `ask` and, for the options, `Sample`."""
        said = (messages,) if isinstance(messages, str) else messages
        return await self._one(Sample(said, max_tokens, key=key, **options))

    async def roots(self, *, key: str | None = None) -> tuple[Root, ...]:
        """Ask for the client's roots; see `ask`."""
        return await self._one(Roots(key=key))

    async def _one(self, question: Question[_A]) -> _A:
        (answer,) = await self.ask(question)
        found: _A = answer
        return found

    async def ask(self, *questions: Question[Any]) -> tuple[Any, ...]:
        """
        Put questions to the client, together where its era allows, and wait for all answers.

        A modern client answers by repeating the request: the handler then runs again from its beginning, and this
        returns at once. So ask before you act, and ask the same things in the same order every time, or with a `key`.

        Raises:
            MissingCapability: The client did not declare what a question needs.
            ToolError: The client refused, or cannot be asked here.
        """
        for question in questions:
            missing = missing_capability(question.needs, self.client.capabilities)
            if missing is not None:
                raise MissingCapability(missing)
        if self.client.era is Era.LEGACY:
            return tuple([await self._ask_now(question) for question in questions])
        return self._ask_by_result(questions)

    async def _ask_now(self, question: Question[Any]) -> Any:
        reply = await self.exchange.ask(question.method, question.params(self.runtime.new_id))
        if isinstance(reply, ErrorReply):
            raise ToolError(f"the client refused {question.method}: {reply.message}")
        try:
            return question.read(reply.value)
        except UnusableAnswer as error:
            raise ToolError(f"the client's answer to {question.method} cannot be used: {error}") from error

    def _ask_by_result(self, questions: Sequence[Question[Any]]) -> tuple[Any, ...]:
        if not method_of(self.method).asks:
            raise ToolError(f"questions can be asked while serving tools, prompts and resources, not {self.method}")
        found: list[Any] = []
        open_questions: dict[str, Json] = {}
        for question in questions:
            self._asked += 1
            key = question.key or f"question_{self._asked}"
            if key not in self.answers:
                open_questions[key] = {"method": question.method, "params": question.params(None)}
                continue
            try:
                found.append(question.read(self.answers[key]))
            except UnusableAnswer as error:
                raise BadAnswer(f"inputResponses.{key}: {error}") from error
            self.used[key] = self.answers[key]
        if open_questions:
            raise InputRequired(open_questions)
        return tuple(found)
