"""
What the stage asks of its own accord: refreshing what is given out stale, and warming up.

Such a call has an exchange of its own. It has the caller's identity, for whom alone the answer may be, but nobody's
stream: what it relays is heard by nobody, and it cannot ask a client. Nobody waits for it either, so this is its
boundary: a failure is logged here and ends nothing else. It lives in the stage's nursery, and ends with the stage.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Final, final

import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange, Link, Relay
from sluiceway.pipeline.model.session import ANONYMOUS, Caller, Client
from sluiceway.pipeline.protocol.errors import ComponentError, GatewayError
from sluiceway.pipeline.protocol.mcp import LATEST, Era, Kind, MetaKey, meta_of, quiet_meta
from sluiceway.pipeline.protocol.messages import Json, Notification, Request

from .config import Warm

ERRAND_S: Final = 30.0
"""Longest time of such a call, in seconds."""


async def nobody(_notification: Notification) -> None:
    """The stream of an exchange that nobody waits for."""


@final
class Errands:
    """
    The calls of one stage that nobody waits for.

    Args:
        nursery: The stage's own; ends with it.
        context: The stage's.
        max_refreshing: Refreshes at the same time.
        relay: The stage's own step of the way back.
    """

    def __init__(self, nursery: trio.Nursery, context: Context, max_refreshing: int, relay: Relay) -> None:
        self._nursery = nursery
        self._context = context
        self._max_refreshing = max_refreshing
        self._relay = relay
        self._busy: set[str] = set()

    def refresh(self, name: str, exchange: Exchange, call: Callable[[Exchange], Awaitable[object]]) -> bool:
        """Have an answer fetched anew; False if that is under way, or too many are. Never blocks."""
        session = exchange.client.session
        if name in self._busy or len(self._busy) >= self._max_refreshing or (session is not None and session.closed):
            return False
        self._busy.add(name)
        self._nursery.start_soon(self._refresh, name, self._own(exchange), call)
        return True

    def start(self, job: Callable[[Errands], Awaitable[None]]) -> None:
        """Have something done in the background."""
        self._nursery.start_soon(job, self)

    async def _refresh(self, name: str, exchange: Exchange, call: Callable[[Exchange], Awaitable[object]]) -> None:
        try:
            await self._run(exchange, call)
        finally:
            self._busy.discard(name)

    async def _run(self, exchange: Exchange, call: Callable[[Exchange], Awaitable[object]]) -> str | None:
        """One errand; what went wrong, in a few words."""
        problem = None
        with trio.move_on_after(ERRAND_S) as scope:
            try:
                await call(exchange)
            except GatewayError as error:
                problem = error.message
            except Exception as error:  # the boundary of an exchange that no pipeline runs
                problem = f"{type(error).__name__}: {error}"
                self._context.log.error("a call of the cache's own failed", method=exchange.method, exc_info=error)
        if scope.cancelled_caught:
            problem = f"no answer within {ERRAND_S:g} s"
        return problem

    async def warm(
        self, requests: tuple[Warm, ...], call: Callable[[Exchange], Awaitable[bool]], *, strict: bool
    ) -> None:
        """
        Make some requests before anybody asks, one after the other.

        Raises:
            ComponentError: One of them failed, and `strict` is set.
        """
        for request in requests:
            kept: list[bool] = []

            async def fetch(exchange: Exchange, kept: list[bool] = kept) -> None:
                kept.append(await call(exchange))

            problem = await self._run(self._warming(request), fetch)
            if problem is None and not kept[0]:
                problem = "the answer is not public, or not to be kept; give it a rule with scope: public"
            if problem is not None:
                if strict:
                    raise ComponentError(self._context.id, "open", f"{request.method} cannot be warmed: {problem}")
                self._context.log.warning("an answer cannot be warmed", method=request.method, error=problem)

    def _warming(self, request: Warm) -> Exchange:
        meta: dict[str, Json] = {
            MetaKey.VERSION: LATEST,
            MetaKey.CLIENT_CAPABILITIES: {},
            MetaKey.CLIENT_INFO: {"name": "sluiceway", "version": version("sluiceway")},
        }
        message = Request("warm", request.method, {**request.params, "_meta": meta})
        client = Client(era=Era.MODERN, version=LATEST)
        caller = ANONYMOUS if request.tenant is None else Caller(ANONYMOUS.subject, request.tenant)
        return self._exchange(message, client, caller, "")

    def _own(self, exchange: Exchange) -> Exchange:
        """The same request of the same caller, with nobody behind it."""
        request = exchange.request
        assert isinstance(request, Request)
        if MetaKey.PROGRESS_TOKEN in meta_of(request.params):
            request = request.with_params({**request.params, "_meta": quiet_meta(request.params)})
        return self._exchange(request, exchange.client, exchange.caller, exchange.correlation_id)

    def _exchange(self, request: Request, client: Client, caller: Caller, correlation_id: str) -> Exchange:
        link = Link(nobody, deadline=trio.current_time() + ERRAND_S, caller=caller)
        return Exchange(
            request=request,
            kind=Kind.CALL,
            own_accord=True,
            client=client,
            source=self._context.id,
            caller=caller,
            correlation_id=correlation_id,
            link=link,
            way_back=self._relay,
        )
