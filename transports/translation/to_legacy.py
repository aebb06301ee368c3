"""
Modern clients at an upstream that knows handshakes only (architecture 1.11).

Each caller has a session there that the gateway holds (held_sessions.py). A request goes through it without what only
modern ones carry, and its result comes back with what modern ones have. Where the upstream asks something in the
middle of a call, the call is parked and the client gets `input_required` (held_call.py, parking.py). `server/discover`
is answered from the handshake, and `subscriptions/listen` from what the upstream says on the session (audience.py).

Only requests that may be parked, or want log messages, cost a task: everything else is asked in its exchange's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final, final

import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.keys import continues
from sluiceway.pipeline.model.session import Asker
from sluiceway.pipeline.model.tools import CALL, LIST, Tool, ToolBook
from sluiceway.pipeline.protocol.errors import UnknownMethod, UpstreamClosed, UpstreamUnavailable
from sluiceway.pipeline.protocol.mcp import ErrorCode, Kind, method_of
from sluiceway.pipeline.protocol.messages import EMPTY, ErrorReply, Json, Notification, Reply, Request, Result

from ..mirrors import Mirrors
from .config import TranslationConfig
from .held_call import HeldCall, relay_wanted
from .held_introduction import drop
from .held_session import Emit, HeldSession
from .held_sessions import HeldSessions, owner_of
from .parking import Parking
from .task_messages import has_extension, offers_tasks
from .to_legacy_held_tasks import METHODS as TASK_METHODS
from .to_legacy_held_tasks import HeldTasks
from .to_legacy_listening import serve_listener
from .to_legacy_messages import (
    can_be_asked,
    lacking,
    log_level_of,
    modern_error,
    pages_to_visit,
    without_answers,
)
from .to_legacy_tasks import call_as_task, may_be_task, must_be_task

DISCOVER: Final = "server/discover"


@final
class ToLegacy:
    """
    Args:
        name: What the upstream is called in errors: the sink's id.
        call: Asks the upstream, as a legacy client within a session.
        context: The sink's.
        config: Bounds.
        addressed: The upstream's questions come on the stream of the request that caused them, as over HTTP; else they
            come on a connection of the session, and are put to a call of it.
    """

    def __init__(
        self,
        name: str,
        call: Service,
        context: Context,
        config: TranslationConfig = TranslationConfig(),  # noqa: B008  # frozen
        *,
        addressed: bool = False,
    ) -> None:
        self._name = name
        self._context = context
        self._addressed = addressed
        self._sessions = HeldSessions(name, call, context, config)
        self._parking = Parking(name, context, config)
        self._tasks = HeldTasks(name, context, config, self._sessions.task, addressed=addressed)
        self._mirrors = Mirrors()
        self._tools = ToolBook()
        self._stop_listening: Callable[[], None] | None = None
        self._calls: dict[HeldCall, HeldSession] = {}
        self._nursery: trio.Nursery | None = None

    def start(self, nursery: trio.Nursery) -> None:
        """
        Begin to hold sessions.

        Args:
            nursery: Hosts them and their calls; outlasts the sink's exchanges. Call `end` before it ends.
        """
        self._nursery = nursery
        self._stop_listening = self._context.changes.listen(self._heard)

    async def __call__(self, exchange: Exchange) -> Reply:
        """
        Answer a modern client.

        Raises:
            InvalidParams: A `requestState` is not ours, not this caller's, used, or expired; or params lack something.
            HeaderMismatch: Headers of a call say something else than its arguments.
            CapacityExceeded: Too many sessions are held, and all are in use.
            UpstreamUnavailable: The upstream refuses the handshake, or the sink is closed.
            GatewayError: As the sink does.
        """
        nursery = self._nursery
        if nursery is None:
            await trio.lowlevel.checkpoint()
            raise self._closed()
        if exchange.kind is Kind.NOTIFY:
            await trio.lowlevel.checkpoint()
            return Result()  # a modern client has nothing to say to a session it does not know of
        row = method_of(exchange.method)
        if continues(exchange) and row.asks and "requestState" in exchange.request.params:
            return await self._take_up(exchange, nursery)
        with self._sessions.of(exchange, nursery) as held:
            if exchange.kind is Kind.LISTEN:
                return await serve_listener(exchange, held, self._sessions.task)
            if exchange.method == DISCOVER:
                await held.ready()
                return held.completer.discovered()
            if exchange.method in TASK_METHODS and offers_tasks(await held.offers()):
                return await self._tasks(exchange)
            if not row.legacy or row.name.startswith("tasks/"):
                await trio.lowlevel.checkpoint()
                raise UnknownMethod(f"{self._name}: {exchange.method} does not exist in revisions with a handshake")
            return await self._serve(exchange, held, nursery)

    def end(self) -> None:
        """The sink closes: cancel what is parked, end the sessions, take nothing any more. Idempotent."""
        self._nursery = None
        if self._stop_listening is not None:
            self._stop_listening()
        for call in list(self._calls):
            call.leave()
        self._sessions.close()

    def figures(self) -> Iterator[Figure]:
        """What is held."""
        yield Figure(
            "translation_sessions", len(self._sessions), "gauge", "Sessions held at the upstream for modern clients."
        )
        yield Figure(
            "translation_unheard_notifications_total",
            self._sessions.unheard,
            "counter",
            "Notifications on these sessions that no client had asked for, or that could have been anybody's.",
        )
        yield Figure("translation_tasks", self._sessions.tasks, "gauge", "Tasks at the upstream of modern clients.")
        yield from self._parking.figures()

    def details(self) -> Mapping[str, Json]:
        """For `status`."""
        return {"held_sessions": len(self._sessions), "parked_calls": len(self._parking)} if self._sessions else EMPTY

    async def _serve(self, exchange: Exchange, held: HeldSession, nursery: trio.Nursery) -> Reply:
        """Ask the upstream."""
        request = exchange.request
        assert isinstance(request, Request)
        await held.ready()
        if exchange.method == CALL:
            await self._mirrors.check(exchange, partial(self._ask, held))
            if has_extension(exchange.client.capabilities) and may_be_task(await self._tool(exchange, held)):
                return self._modern(exchange, held, await self._tasks.create(exchange, held, nursery))
        level = log_level_of(request)
        askable = method_of(request.method).asks and can_be_asked(exchange.client.capabilities)
        if not askable and level is None:
            return self._modern(exchange, held, await self._ask(held, exchange))
        return await self._attend(self._begin(exchange, held, nursery, level, askable=askable), exchange)

    async def _ask(self, held: HeldSession, exchange: Exchange) -> Reply:
        """Ask in the exchange's own task: nothing that outlives it can come of it."""
        return await self._pass_on(exchange, held, partial(relay_wanted, exchange), None, exchange.link.deadline)

    async def _pass_on(
        self, exchange: Exchange, held: HeldSession, emit: Emit, ask: Asker | None, deadline: float
    ) -> Reply:
        """Ask the upstream; as a task, if it cannot be asked otherwise."""
        request = exchange.request
        assert isinstance(request, Request)

        async def send(message: Request) -> Reply:
            return await held.pass_on(exchange.with_request(message), emit, ask, deadline)

        if request.method == CALL and must_be_task(await self._tool(exchange, held, deadline)):
            return await call_as_task(self._name, request, send)
        return await send(request)

    async def _tool(self, exchange: Exchange, held: HeldSession, deadline: float = float("inf")) -> Tool | None:
        """The tool that a call is about, if the upstream can run tools as tasks at all."""
        if not offers_tasks(held.capabilities):
            return None
        return await self._tools.find(exchange, lambda listing: held.pass_on(listing, drop, None, deadline))

    def _begin(
        self, exchange: Exchange, held: HeldSession, nursery: trio.Nursery, level: str | None, *, askable: bool
    ) -> HeldCall:
        """Start a call in a task of its own."""
        if self._nursery is None:
            raise self._closed()
        call = HeldCall(
            self._context.new_id(),
            owner_of(exchange),
            exchange,
            exchange.client.capabilities if askable else EMPTY,
            admit=self._parking.admit,
            closed=self._cut_off,
        )
        self._calls[call] = held
        nursery.start_soon(self._host, call, exchange, held, level)
        return call

    async def _host(self, call: HeldCall, exchange: Exchange, held: HeldSession, level: str | None) -> None:
        """The task of a call."""
        ask: Asker | None = call.ask if self._addressed and call.capabilities else None

        async def send() -> Reply:
            if level is not None:
                await held.audience.set_level(held.capabilities)
            return await self._pass_on(exchange, held, call.emit, ask, float("inf"))

        try:
            with held.in_use(), held.audience.attended(call, level):
                await call.run(send)
        finally:
            del self._calls[call]
            self._parking.release(call)

    async def _attend(self, call: HeldCall, exchange: Exchange) -> Reply:
        """Stay with a call until it is over, or waits for its client; if the exchange ends first, the call does too."""
        parked = False
        held = self._calls[call]
        try:
            reply = await call.attend(exchange)
            if reply is not None:
                return self._modern(exchange, held, reply)
            parked = True
            exchange.decide(self._name, "park", f"round {call.round + 1}")
            return self._parking.park(call, exchange)
        finally:
            if not parked:
                call.leave()

    async def _take_up(self, exchange: Exchange, nursery: trio.Nursery) -> Reply:
        """The client has answered."""
        owner = owner_of(exchange)
        call, answers = self._parking.take(exchange, owner)
        if call is None:
            return await self._send_again(exchange, answers, nursery)
        exchange.decide(self._name, "resume", f"round {call.round}")
        return await self._attend(call, exchange)

    async def _send_again(self, exchange: Exchange, answers: Mapping[str, Json], nursery: trio.Nursery) -> Reply:
        """The pages are visited, or not: a request whose server wanted that first is sent again, or not."""
        if not all(answer.get("action") == "accept" for answer in answers.values()) or not answers:
            await trio.lowlevel.checkpoint()
            return ErrorReply(ErrorCode.INVALID_PARAMS, "the server wants a page visited before it serves this request")
        request = exchange.request
        assert isinstance(request, Request)
        with self._sessions.of(exchange, nursery) as held:
            return await self._serve(exchange.with_request(without_answers(request)), held, nursery)

    def _modern(self, exchange: Exchange, held: HeldSession, reply: Reply) -> Reply:
        """A reply as a modern client knows it."""
        self._mirrors.learn(exchange, reply)
        if exchange.method == LIST and offers_tasks(held.capabilities):
            self._tools.learn(exchange, reply)
        if isinstance(reply, Result):
            return held.completer.complete(exchange.method, reply)
        pages = pages_to_visit(reply)
        if pages is None:
            return modern_error(reply)
        lacks = lacking("elicitation/create", {"mode": "url"}, exchange.client.capabilities)
        if lacks is not None or not pages or not method_of(exchange.method).asks:
            needed = lacks or {}
            return ErrorReply(ErrorCode.MISSING_CLIENT_CAPABILITY, reply.message, {"requiredCapabilities": needed})
        return self._parking.ask_first(exchange, owner_of(exchange), pages)

    def _heard(self, sink: str, notification: Notification) -> None:
        """Tools have changed, perhaps: what is remembered of them is void."""
        if sink == self._name:
            self._mirrors.heard(notification)
            self._tools.forget(sink, notification)

    def _cut_off(self) -> UpstreamClosed:
        return UpstreamClosed(f"{self._name}: was closed before the upstream answered")

    def _closed(self) -> UpstreamUnavailable:
        return UpstreamUnavailable(f"{self._name}: is closed, and holds no more sessions")
