"""
The auth stages of a pipeline, apart from the rest of its chain.

A source needs them alone for what never becomes an exchange with a reply: somebody opens a session's event stream, ends
the session, posts an answer or a notification. The same stages decide there as for requests, with the same guards.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, final

from ..model.component import Middleware
from ..model.exchange import Exchange, Link
from ..model.session import Caller, Client
from ..protocol.errors import GatewayError, Unauthenticated
from ..protocol.mcp import Kind
from ..protocol.messages import EMPTY, Json, Notification, Reply, Request, Result
from .chain import Chain, Stage, compile_chain

AUTH: Final = "auth"
"""The role of stages that establish who a caller is."""

OBSERVERS: Final = frozenset({"audit", "log", "metrics", "request_id", "trace"})
"""Roles of stages that let everybody pass: what they stand in front of is decided further in."""

_UNREAD: Final = Request("", "(unread)", EMPTY)
"""What stands for a request whose body was not read."""

_SOMETHING: Final = Request("", "ping", EMPTY)
"""What stands for a request that has no message: whoever may ask whether we live may open and end its own session."""


async def _let_in(_exchange: Exchange) -> Reply:
    return Result()


async def _nowhere(_notification: Notification) -> None:
    """Nothing comes back from here."""


@final
class Entrance:
    """
    Args:
        chain: The chain whose auth stages are meant.
        source: Id of the source that asks.
    """

    def __init__(self, chain: Chain, source: str) -> None:
        self.chain = chain
        self._source = source
        stages = [stage for stage in chain.stages if is_auth(stage.middleware)]
        self._stages: tuple[Middleware, ...] = tuple(stage.middleware for stage in stages)
        self._service = compile_chain(stages, _let_in).service
        self._witnesses = _witnesses(chain)

    async def identify(self, client: Client, message: Request | Notification | None = None) -> Caller | None:
        """See `Source.identify`."""
        if not self._stages:
            return None
        request = _SOMETHING if message is None else message
        kind = Kind.NOTIFY if isinstance(request, Notification) else Kind.CALL
        link = Link(_nowhere)
        await self._service(Exchange(request=request, kind=kind, client=client, source=self._source, link=link))
        return link.caller

    async def refuse_unread(self, client: Client) -> None:
        """
        See `Source.refuse_unread`. The same stages decide, and those in front of them are told (`turned_away`).

        Nothing is decided where a stage in front of them might refuse first, a guard has to see the request, or an auth
        stage does: there is one order of execution.
        """
        if self._witnesses is None:
            return
        link = Link(_nowhere)
        exchange = Exchange(request=_UNREAD, kind=Kind.CALL, client=client, source=self._source, link=link)
        try:
            await self._service(exchange)
        except Unauthenticated as error:
            self._witnesses.turn_away(exchange, error)
            raise
        except GatewayError:
            return  # a scope that only some requests need, or an issuer that may be back by then

    def resource_metadata(self) -> Mapping[str, Json] | None:
        """See `Source.resource_metadata`: that of the first stage with something to publish."""
        published = (stage.resource_metadata(self._source) for stage in self._stages)
        return next((each for each in published if each is not None), None)


def _witnesses(chain: Chain) -> Chain | None:
    """The stages in front of the auth stages; None if those cannot refuse a request that nobody has read."""
    ahead: list[Stage] = []
    judges = [n for n, stage in enumerate(chain.stages) if is_auth(stage.middleware)]
    for stage in chain.stages[: judges[-1] + 1] if judges else ():
        if is_auth(stage.middleware):
            if stage.guard is not None or not stage.middleware.by_headers:
                return None
        elif _role(stage.middleware) not in OBSERVERS:
            return None
        else:
            ahead.append(stage)
    return compile_chain(ahead, _let_in) if judges else None


def _role(middleware: Middleware) -> str:
    return middleware.role or middleware.name


def is_auth(middleware: Middleware) -> bool:
    """Whether a stage establishes who a caller is."""
    return _role(middleware) == AUTH


@final
class Entrances:
    """
    The entrance of the pipeline that a source feeds now; a reload or a replaced stage makes it another one.

    Args:
        current: The chain in use.
        source: Id of the source.
    """

    def __init__(self, current: Callable[[], Chain], source: str) -> None:
        self._current = current
        self._source = source
        self._entrance: Entrance | None = None

    @property
    def entrance(self) -> Entrance:
        """The one that belongs to the current chain."""
        chain = self._current()
        if self._entrance is None or self._entrance.chain is not chain:
            self._entrance = Entrance(chain, self._source)
        return self._entrance

    def identify(self, client: Client, message: Request | Notification | None = None) -> Awaitable[Caller | None]:
        """See `Source.identify`."""
        return self.entrance.identify(client, message)

    def refuse_unread(self, client: Client) -> Awaitable[None]:
        """See `Source.refuse_unread`."""
        return self.entrance.refuse_unread(client)

    def resource_metadata(self) -> Mapping[str, Json] | None:
        """See `Source.resource_metadata`."""
        return self.entrance.resource_metadata()
