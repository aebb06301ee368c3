"""
Sink `route`: several sinks as one MCP server.

Each upstream is a sink of the configuration behind its own chain. Requests for one of them go there by name, uri,
template, task or rule (`calls`); lists, handshakes and subscriptions go to all of them, and are answered at
`list_timeout` with what is there (`lists`, `handshake`, `listening`). An upstream that is dead or slow is missed only
where its own things are asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import ClassVar, Final, final

import trio

from sluiceway.pipeline.model.component import Context, Sink, sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Asker, Session
from sluiceway.pipeline.protocol.errors import UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply, Result
from sluiceway.pipeline.runtime.nursery import open_background_nursery

from ..seals import sealing_key
from ..task_ids import TaskIds
from .calls import Calls
from .config import Member, RouteConfig
from .cursors import Cursors
from .fabric import Fabric
from .handshake import Handshake
from .leg import Leg, Promises
from .listening import Listening
from .lists import LISTINGS, Lists
from .naming import Directory, Exposure, Upstream
from .view import View
from .why import explain

MAX_VIEWS: Final = 1_000
"""Principals of the modern era that something is known for; the one not seen for longest is forgotten first."""

Answer = Callable[[View, Exchange], Awaitable[Reply]]


@final
@sink("route")
class RouteSink(Sink):
    """Make several sinks one server: merged lists, prefixed names, each request to whom it belongs."""

    Config = RouteConfig
    actions: ClassVar[Mapping[str, str]] = {"why": "Say to which upstream a name goes, and why it is not shown."}

    def __init__(self, config: RouteConfig, context: Context) -> None:
        super().__init__(config, context)
        self._config = config
        self._fabric: Fabric | None = None
        self._answers: Mapping[str, Answer] = {}
        self._other: Answer | None = None
        self._sessions: dict[Session, tuple[View, Callable[[], None]]] = {}
        self._principals: OrderedDict[tuple[str, str | None], View] = OrderedDict()

    @property
    def views(self) -> int:
        """Clients that something is known for."""
        return len(self._sessions) + len(self._principals)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Find the upstreams; nothing is asked of them before a client does.

        Raises:
            LookupError: There is no sink of a name, or the secret of `cursor_key` cannot be resolved.
        """
        upstreams = [
            self._upstream(index, sink_id, member)
            for index, (sink_id, member) in enumerate(self._config.members().items())
        ]
        key = sealing_key(self._config.cursor_key, self.context)
        async with open_background_nursery() as nursery:
            self._fabric = Fabric(
                id=self.context.id,
                config=self._config,
                upstreams=upstreams,
                directory=Directory(upstreams, self._config.separator),
                cursors=Cursors(key),
                tasks=TaskIds(None if self._config.cursor_key is None else key),
                nursery=nursery,
                info={"name": self.context.id.rpartition(".")[2], "version": version("sluiceway")},
                log=self.context.log,
                report=self.context.report,
                random=self.context.random.random,
            )
            self._compile(self._fabric)
            try:
                yield
            finally:
                self._fabric = None
                self._end()

    async def __call__(self, exchange: Exchange) -> Reply:
        """
        Answer for all upstreams, or pass on to the one that is meant.

        Raises:
            InvalidParams: A cursor that is not ours.
            UnknownMethod: MCP does not define the method, and no rule says whose it is.
            GatewayError: As the upstream's sink raises; `UpstreamUnavailable` if all that were asked are away.
        """
        fabric = self._fabric
        if fabric is None or self._other is None:
            raise UpstreamUnavailable(f"{self.context.id} is closed, and takes no more requests")
        return await self._answers.get(exchange.method, self._other)(self._view(fabric, exchange), exchange)

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """`why`: from the configuration alone; see `why.explain`."""
        if action != "why":
            return await super().act(action, arguments)
        await trio.lowlevel.checkpoint()
        return explain(self._config, arguments)

    def _compile(self, fabric: Fabric) -> None:
        """Who answers which method."""
        lists, handshake = Lists(fabric), Handshake(fabric)
        calls = Calls(fabric, lists)
        self._answers = {
            **dict.fromkeys(LISTINGS, lists.answer),
            "initialize": handshake.initialize,
            "server/discover": handshake.discover,
            "ping": _pong,
            "tools/call": calls.call,
            "prompts/get": calls.get_prompt,
            "completion/complete": calls.complete,
            "resources/read": calls.read,
            "resources/subscribe": calls.subscribe,
            "resources/unsubscribe": calls.unsubscribe,
            "subscriptions/listen": Listening(fabric, calls).listen,
            "logging/setLevel": handshake.set_level,
            **dict.fromkeys(("tasks/get", "tasks/result", "tasks/update", "tasks/cancel"), calls.task),
            "notifications/initialized": handshake.notify,
            "notifications/roots/list_changed": handshake.notify,
            "notifications/progress": handshake.notify,
            "notifications/tasks/status": handshake.notify,
            "notifications/cancelled": _ignore,
        }
        self._other = calls.other

    def _upstream(self, index: int, sink_id: str, member: Member) -> Upstream:
        config = self._config
        prefix = sink_id if member.prefix is None else member.prefix
        tools, prompts, uris = member.tools, member.prompts, member.resources
        return Upstream(
            id=sink_id,
            index=index,
            service=self.context.sink(sink_id),
            prefix=f"{prefix}{config.separator}" if prefix else "",
            bare=config.prefixes == "never" or not prefix,
            tools=Exposure(tools.allow, tools.deny, tools.rename),
            prompts=Exposure(prompts.allow, prompts.deny, prompts.rename),
            resources=Exposure(uris.allow, uris.deny),
        )

    def _view(self, fabric: Fabric, exchange: Exchange) -> View:
        session = exchange.client.session
        if session is None:
            return self._view_of_principal(exchange)
        known = self._sessions.get(session)
        return known[0] if known is not None else self._view_of_session(fabric, session)

    def _view_of_session(self, fabric: Fabric, session: Session) -> View:
        promises = session.state.setdefault(self.context.id, Promises())
        assert isinstance(promises, Promises)
        view = View(session, promises, answered=promises.initialize is not None)
        for upstream_id in promises.ties.keys() - {upstream.id for upstream in fabric.upstreams}:
            promises.ties.pop(upstream_id).forget()
        for upstream in fabric.upstreams:
            view.legs[upstream.id] = self._leg(fabric, view, session, upstream)

        def end() -> None:
            self._sessions.pop(session, None)
            view.close()

        if not session.closed:
            self._sessions[session] = (view, session.on_close(end))
        return view

    def _leg(self, fabric: Fabric, view: View, session: Session, upstream: Upstream) -> Leg:
        tasks = fabric.tasks

        def through(ask: Asker) -> Asker:
            return tasks.asker(lambda: session.caller, upstream.id, ask)

        def heard(notification: Notification) -> None:
            view.heard(tasks.notification(session.caller, upstream.id, notification))

        return Leg(upstream, session, view.promises, fabric.nursery, through, heard, view.opened)

    def _view_of_principal(self, exchange: Exchange) -> View:
        key = (exchange.caller.subject, exchange.caller.tenant)
        view = self._principals.get(key)
        if view is None:
            view = self._principals[key] = View()
            if len(self._principals) > MAX_VIEWS:
                self._principals.popitem(last=False)[1].close()
        self._principals.move_to_end(key)
        return view

    def _end(self) -> None:
        """Let go of every client. Their sessions go on; another generation of the route may serve them."""
        for view, take_back in list(self._sessions.values()):
            take_back()
            view.leave()
        for view in self._principals.values():
            view.close()
        self._sessions.clear()
        self._principals.clear()


async def _pong(_view: View, _exchange: Exchange) -> Reply:
    """The route answers for itself; whether upstreams live shows when they are needed."""
    await trio.lowlevel.checkpoint()
    return Result()


async def _ignore(_view: View, _exchange: Exchange) -> Reply:
    """Whoever owns the exchange has cancelled it; the ids of the notice are the client's own."""
    await trio.lowlevel.checkpoint()
    return Result()
