"""
Legacy clients at an upstream that speaks revisions without a handshake only (2025-11-25 and before to 2026-07-28).

The upstream keeps nothing of a client between two requests, so what a session says once is kept here, and said in each
request: who the client is, what it can do, how much it wants logged, what it watches. It is kept in the session itself,
so a reload does not end it. What the upstream asks is put to the client as questions (to_modern_rounds.py), what it has
to tell comes by a listener of the session's own (to_modern_listening.py): nothing of one session reaches another.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Final, final

import trio
from msgspec.structs import replace

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.model.tools import CALL, LIST
from sluiceway.pipeline.protocol.errors import (
    GatewayError,
    InvalidParams,
    SessionNotFound,
    UnsupportedVersion,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.mcp import LATEST_LEGACY, MODERN_VERSIONS, ErrorCode, Kind, method_of
from sluiceway.pipeline.protocol.messages import EMPTY, ErrorReply, Json, Notification, Reply, Request, Result

from .task_messages import LEGACY_OFFER, MODERN_STATUS, has_extension, is_task, needs_task, with_task_support
from .to_modern_held import Held, as_modern
from .to_modern_listening import Listening, Wish
from .to_modern_messages import (
    LEVELS,
    choose_version,
    has_legacy,
    introduction,
    legacy_error,
    modern_params,
    negotiate,
)
from .to_modern_rounds import Rounds
from .to_modern_tasks import PREFIX, ToModernTasks

_DISCOVER: Final = "server/discover"
_INITIALIZED: Final = "notifications/initialized"
_LAST_ANSWERS_S: Final = 1.0
"""How long a session stays that cannot go on, so that the answers which say so can still leave through it."""


@final
class ToModern:
    """
    Args:
        name: What the upstream is called in errors: the sink's id.
        call: The sink's own way to the upstream; asked as a client of the modern era.
        context: The sink's.
    """

    def __init__(self, name: str, call: Service, context: Context) -> None:
        self._name = name
        self._call = call
        self._context = context
        self._key = f"{name}#to_modern"
        self._nursery: trio.Nursery | None = None
        self._ears: dict[Session, Listening] = {}
        self._rounds = 0
        self._tasks = ToModernTasks(context.id, call, context, self._listen_to_tasks)
        self._local: Mapping[str, Callable[[Session, Held, Exchange], Awaitable[Reply]]] = {
            "ping": self._ping,
            "logging/setLevel": self._set_level,
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._unsubscribe,
        }

    def start(self, nursery: trio.Nursery) -> None:
        """Listen for sessions from now on, in tasks of `nursery`."""
        self._nursery = nursery

    def end(self) -> None:
        """Listen no more. Idempotent, never blocks."""
        self._nursery = None
        for ear in self._ears.values():
            ear.end()

    def knows(self, session: Session) -> bool:
        """Whether the session was opened here, so that its requests belong here."""
        return self._key in session.state

    def tell(self, notification: Notification) -> None:
        """Tell all sessions that listen of a change of which the upstream cannot tell them."""
        for session in self._ears:
            session.notify(notification)

    def figures(self) -> Iterator[Figure]:
        """What is counted here."""
        listening = sum(ear.is_open for ear in self._ears.values())
        yield Figure(
            "translated_subscriptions", listening, "gauge", "Listeners at a modern upstream for legacy sessions."
        )
        yield Figure(
            "translated_rounds_total", self._rounds, "counter", "Requests of legacy clients sent again with answers."
        )

    def details(self) -> Mapping[str, Json]:
        """For `status`."""
        return {"listening_sessions": len(self._ears)} if self._ears else EMPTY

    async def introduce(self, exchange: Exchange, refusal: ErrorReply | None = None) -> Reply:
        """
        Answer `initialize` from what the upstream says of itself.

        Args:
            exchange: The handshake.
            refusal: How the upstream has answered it already; the answer if it speaks legacy revisions after all.

        Raises:
            InvalidParams: The client does not say which revision it wants.
            UnsupportedVersion: The upstream speaks legacy revisions only, or none that we speak.
            UpstreamFault: It failed.
        """
        session, params = exchange.client.session, exchange.request.params
        assert session is not None
        if not isinstance(params.get("protocolVersion"), str):
            if refusal is not None:
                return refusal
            raise InvalidParams("initialize: protocolVersion must be a text")
        held = Held(client=as_modern(exchange))
        discovered = await self._discover(exchange, held, refusal)
        if isinstance(discovered, ErrorReply):
            return discovered
        version = choose_version(discovered.value)
        if version is None:
            raise UnsupportedVersion(
                f"{self._name}: the upstream speaks no revision that we speak",
                data={"supported": list(MODERN_VERSIONS), "requested": params["protocolVersion"]},
            )
        held.client = replace(held.client, version=version)
        answer = introduction(discovered.value, negotiate(params["protocolVersion"]), self._name)
        held.server = answer["capabilities"]
        held.knows_tasks = has_extension(held.server)
        if held.knows_tasks and answer["protocolVersion"] == LATEST_LEGACY:  # the one that has them
            held.runs_tasks = True
            answer["capabilities"] = {**held.server, "tasks": dict(LEGACY_OFFER)}
        session.state[self._key] = held
        return Result(answer)

    async def _discover(self, exchange: Exchange, held: Held, refusal: ErrorReply | None) -> Reply:
        assert isinstance(exchange.request, Request)
        question = Request(exchange.request.id, _DISCOVER, {"_meta": held.about()})
        try:
            reply = await self._call(exchange.with_client(held.client).with_request(question))
        except GatewayError:
            if refusal is None:
                raise
            return refusal
        if refusal is not None and (isinstance(reply, ErrorReply) or has_legacy(reply.value)):
            return refusal
        return legacy_error(question, reply) if isinstance(reply, ErrorReply) else reply

    async def __call__(self, exchange: Exchange) -> Reply:
        """
        Ask the upstream in the name of a session that was opened here.

        Raises:
            SessionNotFound: It has to be opened anew, for the upstream is another one now.
            UpstreamFault: The upstream failed, or asks what it must not.
            GatewayError: As the sink does.
        """
        session = exchange.client.session
        assert session is not None
        held = session.state[self._key]
        assert isinstance(held, Held)
        if exchange.kind is Kind.NOTIFY:
            return await self._notify(session, held, exchange)
        if session not in self._ears and (held.uris or held.lists or held.watched_tasks):
            self._ear_of(session, held, resumed=True)  # this sink has come after another one, in a reload
        local = self._local.get(exchange.method)
        if local is not None:
            await trio.lowlevel.checkpoint()
            return await local(session, held, exchange)
        row = method_of(exchange.method)
        about_tasks = exchange.method.startswith(PREFIX)
        if not (row.legacy and (row.modern or about_tasks)) or (about_tasks and not held.runs_tasks):
            await trio.lowlevel.checkpoint()
            return _unknown(exchange.method)
        try:
            if about_tasks:
                return await self._tasks(session, held, exchange)
            return await self._ask(session, held, exchange)
        except UnsupportedVersion:
            self._give_up(session)
            raise SessionNotFound(f"{self._name}: the upstream is another one now; initialize again") from None

    async def _ask(self, session: Session, held: Held, exchange: Exchange) -> Reply:
        """A request that the upstream answers, or makes a task of."""
        if exchange.method == CALL and held.runs_tasks and "task" in exchange.request.params:
            return await self._tasks.create(session, held, exchange, partial(self._run, held, tasks=True))
        reply = await self._run(held, exchange)
        if held.knows_tasks and needs_task(reply):
            exchange.decide(self._name, "task", "waited for")
            reply = await self._run(held, exchange, tasks=True)
            if isinstance(reply, Result) and is_task(reply):
                return await self._tasks.wait(session, held, exchange, reply)
        if exchange.method == LIST and held.runs_tasks and isinstance(reply, Result):
            return with_task_support(reply)
        return reply

    async def _run(self, held: Held, exchange: Exchange, *, tasks: bool = False) -> Reply:
        """Ask the upstream, and the client what the upstream wants to know; with `tasks`, a task is an answer, too."""
        request = exchange.request
        assert isinstance(request, Request)
        client = held.tasking() if tasks else held.client
        inward = exchange.with_client(client).with_request(
            request.with_params(modern_params(request.params, held.about(tasks=tasks)))
        )
        rounds = Rounds(self._name, inward, self._call, self._context.new_id, takes_task=tasks)
        try:
            reply = await rounds.run()
        finally:
            self._rounds += rounds.rounds
        return legacy_error(request, reply) if isinstance(reply, ErrorReply) else reply

    async def _notify(self, session: Session, held: Held, exchange: Exchange) -> Reply:
        """Of what legacy clients announce only extensions' words mean anything to the upstream."""
        notification = exchange.request
        assert isinstance(notification, Notification)
        if notification.method == _INITIALIZED and not held.ready:
            held.ready = True
            if held.lists:
                self._ear_of(session, held).adjust()
        elif method_of(notification.method).name == "":
            said = Notification(notification.method, modern_params(notification.params, held.about()))
            return await self._call(exchange.with_client(held.client).with_request(said))
        await trio.lowlevel.checkpoint()
        return Result()

    async def _ping(self, _session: Session, _held: Held, _exchange: Exchange) -> Reply:
        return Result()

    async def _set_level(self, _session: Session, held: Held, exchange: Exchange) -> Reply:
        if "logging" not in held.server:
            return _unknown(exchange.method)
        level = exchange.request.params.get("level")
        if level not in LEVELS:
            raise InvalidParams(f"logging/setLevel: level must be one of {', '.join(LEVELS)}")
        held.level = level
        return Result()

    async def _subscribe(self, session: Session, held: Held, exchange: Exchange) -> Reply:
        uri = _uri_of(exchange)
        if not held.offers("resources", "subscribe"):
            return _unknown(exchange.method)
        return await self._ear_of(session, held).watch(uri)

    async def _unsubscribe(self, session: Session, held: Held, exchange: Exchange) -> Reply:
        uri = _uri_of(exchange)
        if not held.offers("resources", "subscribe"):
            return _unknown(exchange.method)
        ear = self._ears.get(session)
        if ear is not None:
            ear.unwatch(uri)
        return Result()

    def _ear_of(self, session: Session, held: Held, *, resumed: bool = False) -> Listening:
        """The session's listener; begun if there is none."""
        ear = self._ears.get(session)
        if ear is not None:
            return ear
        if self._nursery is None:
            raise UpstreamUnavailable(f"{self._name}: is closed, and takes no more subscriptions")

        def tell(notification: Notification) -> None:
            if notification.method != MODERN_STATUS:
                session.notify(notification)
            elif (told := self._tasks.heard(session, held, notification)) is not None:
                session.notify(told)

        def missed(notification: Notification) -> None:
            self._context.changes.announce(self._name, notification)
            session.notify(notification)

        async def listen(wish: Wish, heard: Callable[[Notification], None]) -> Reply:
            return await self._call(held.listener(session, self._context.new_id(), wish, heard))

        ear = Listening(
            self._name, lambda: held.lists, held.uris, lambda: held.watched_tasks, listen, tell, missed,
            self._context.random, self._context.log, resumed=resumed,
        )  # fmt: skip
        self._ears[session] = ear
        # in a context of its own: what the upstream says later must not be logged as said by whoever came first
        contextvars.Context().run(self._nursery.start_soon, self._host, session, ear)
        return ear

    def _listen_to_tasks(self, session: Session, held: Held) -> None:
        """A session has other unfinished tasks than before."""
        ear = self._ears.get(session)
        if ear is None and held.watched_tasks and self._nursery is not None:
            ear = self._ear_of(session, held)
        if ear is not None:
            ear.adjust()

    async def _host(self, session: Session, ear: Listening) -> None:
        forget = session.on_close(ear.end)
        try:
            await ear.run()
        finally:
            forget()
            del self._ears[session]

    def _give_up(self, session: Session) -> None:
        """The session cannot go on; its client has to initialize again."""
        if self._nursery is not None:
            self._nursery.start_soon(_close_later, session)


def _uri_of(exchange: Exchange) -> str:
    uri = exchange.request.params.get("uri")
    if not isinstance(uri, str):
        raise InvalidParams(f"{exchange.method}: uri must be a text")
    return uri


def _unknown(method: str) -> ErrorReply:
    return ErrorReply(int(ErrorCode.METHOD_NOT_FOUND), f"method not found: {method:.60}")


async def _close_later(session: Session) -> None:
    await trio.sleep(_LAST_ANSWERS_S)
    session.close()
