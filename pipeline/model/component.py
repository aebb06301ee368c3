"""
Components: sources, middleware, sinks and stores.

A component is pure to construct (no I/O, no clock, no running Trio), and an async context manager to open: what it
acquires in `open` it releases there, and while open it is ready. The supervisor hosts each one in a task of its own,
starts sinks before sources, and stops in reverse (architecture 1.7).
"""

from __future__ import annotations

import random as _random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, final

from attrs import define, field, frozen

from ..protocol.errors import CODE_TABLES, GatewayError
from ..protocol.messages import EMPTY, Json, Notification, Reply, Request
from .changes import Changes
from .exchange import Exchange, Relay, Service
from .figures import Distribution, Figure
from .handle import Handle
from .order import Advice, Order
from .security import Alarm, ignore

if TYPE_CHECKING:
    from .session import Caller, Client
    from .store import Store
    from .when import When
    from .worker import Worker

API_VERSION = 1
"""The version of the component contract. A component that declares another one is refused."""


class ComponentKind(StrEnum):
    """What a component is in the chain; also the word used in messages about it."""

    SOURCE = "source"
    MIDDLEWARE = "middleware"
    SINK = "sink"
    STORE = "store"


class State(StrEnum):
    """The life of a component, as `status` shows it."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


Report = Callable[[State, str], None]


def _new_id() -> str:
    return secrets.token_hex(16)


def _logger() -> Any:
    import structlog  # costs more to import than all of a configuration check

    return structlog.get_logger()


def _ignore(_state: State, _reason: str) -> None:
    """Nobody asked for status."""


def _ready() -> bool:
    """Whether the gateway is ready, as far as a source knows that no engine runs."""
    return True


def _published_nothing() -> Mapping[str, Json] | None:
    """What the stages of a source publish, as far as a source knows that no engine runs."""
    return None


async def _asks_nobody(_client: Client, _message: Request | Notification | None = None) -> Caller | None:
    """Who a client is, as far as a source knows that no engine runs."""
    return None


async def _turns_nobody_away(_client: Client) -> None:
    """Whom the auth stages refuse unheard, as far as a source knows that no engine runs."""


def _no_store(name: str) -> Store:
    raise LookupError(f"no store named {name!r}; declare it under stores:")


def _no_sink(name: str) -> Service:
    raise LookupError(f"no sink named {name!r}; declare it under sinks:")


@define(eq=False, kw_only=True)
class Context:
    """What a component may use of its surroundings. Nothing else is global."""

    id: str
    """The component's id, unique in the gateway."""
    path: str = ""
    """Where it stands in the configuration, for example `pipelines.main.chain[2]`."""
    log: Any = field(factory=_logger)
    """A structured logger bound to the id."""
    random: _random.Random = field(factory=_random.Random)
    """The only source of randomness for decisions; seeded in tests and replays."""
    new_id: Callable[[], str] = _new_id
    """Makes unguessable ids of 128 bits; deterministic in tests and replays."""
    now: Callable[[], float] = time.time
    """
    The date, in seconds since 1970: for what others date (tokens, certificates, keys) and what people read. Everything
    else is measured with `trio.current_time()`. Injected in tests and replays.
    """
    report: Report = _ignore
    """Tell the supervisor that the component is degraded, or ready again, and why."""
    listen: bool = True
    """False when another server (a plain hypercorn) owns the listening sockets."""
    stores: Callable[[str], Store] = field(default=_no_store)
    sinks: Callable[[str], Service] = field(default=_no_sink)
    codes: Mapping[str, int] = field(default=CODE_TABLES["spec"])
    """Numbers of errors by reason, for sources, which refuse what never becomes an exchange; the engine sets it."""
    changes: Changes = field(factory=Changes)
    """What upstreams say has changed; shared by all components of an engine."""
    worker: Worker | None = None
    """The other processes that serve the same configuration; None where this is the only one."""
    alarm: Alarm = ignore
    """Takes notice of what a source refuses before it is an exchange; what exchanges end with, the pipeline reports."""
    kept: dict[str, Any] = field(factory=dict)
    """
    What a component leaves for the one with its id in the next generation, in memory: both have the same dict while a
    reload is under way. For what is known of the world outside (health of upstreams, an operator's word), not for what
    `open` acquires.
    """

    def store(self, name: str) -> Store:
        """
        The named store. Call it in `open`, not in the constructor: stores open first.

        Raises:
            LookupError: There is no store of that name (the linter finds this before anything runs).
        """
        return self.stores(name)

    def sink(self, name: str) -> Service:
        """
        The named sink with its own chain and `max_in_flight`, for an option declared with `refers="sink"`. Take it in
        `open`, not in the constructor; use it for exchanges only: sinks are open by then, their chains may not be.

        Raises:
            LookupError: There is no sink of that name (the linter finds this before anything runs).
        """
        return self.sinks(name)


@final
@frozen
class NoOptions:
    """The options of a component that declares none."""


class Component:
    """
    Base of everything a configuration file can name.

    Subclass `Middleware`, `Sink`, `Source` or `Store`, declare `Config` as a frozen attrs class whose fields are
    `option()`s, and name the class with the decorator of its kind.
    """

    Config: ClassVar[type] = NoOptions
    """Frozen attrs class; the only declaration of the component's options."""
    name: ClassVar[str] = ""
    """The key in YAML; set by the decorator."""
    kind: ClassVar[ComponentKind]
    api: ClassVar[int] = API_VERSION

    def __init__(self, config: Any, context: Context) -> None:
        self.config = config
        self.context = context

    actions: ClassVar[Mapping[str, str]] = {}
    """What an operator can tell a running component to do: name of the action -> one sentence for help."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Acquire what the component needs, yield while it is ready, release. Override as needed."""
        yield

    @classmethod
    def remarks(cls, config: Any) -> Iterable[str]:
        """What there is to know about these options beyond what they say, a line each; `explain` prints it. No I/O."""
        return ()

    @classmethod
    def in_force(cls, config: Any) -> Any:
        """These options with what follows from others written out: `diff` compares what they do. No I/O."""
        return config

    @classmethod
    def secluded(cls, config: Any) -> Any:
        """
        These options, changed so that the component reaches nobody outside of this process and writes no file: what it
        is made with when a tape is played. No I/O.
        """
        return config

    def details(self) -> Mapping[str, Json]:
        """What `status` shows of it beside its state: small, JSON, without secrets. Called while it is open."""
        return EMPTY

    def figures(self) -> Iterable[Figure | Distribution]:
        """Its plain counters, read when metrics are scraped; must not block. The component id becomes a label."""
        return ()

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """
        Do one of `actions` for an operator (the admin listener, the command line).

        Raises:
            LookupError: There is no such action.
            ValueError: The arguments are wrong; the text says what is expected.
        """
        raise LookupError(f"{self.context.id} has no action {action!r}; it has: {', '.join(self.actions) or 'none'}")


class Middleware(Component):
    """
    A stage of a chain: sees an exchange on its way in and the reply on its way out.

    Override `relay` only to see what flows back before the reply: it is compiled away otherwise.
    `call_next` may be awaited at most once unless `replays` is set, never after the reply was returned, and never
    stored.
    """

    kind = ComponentKind.MIDDLEWARE
    role: ClassVar[str] = ""
    """What the stage is, for order rules: `auth`, `cache`, `retry`, ...; its name when empty."""
    order: ClassVar[tuple[Order, ...]] = ()
    replays: ClassVar[bool] = False
    """May await `call_next` more than once."""
    reads_results: ClassVar[bool] = True
    """
    May look into results. Set it to False in a stage that does not, or that says so itself with `Exchange.hold`: then
    long results can pass in pieces, and nobody need hold them. A result that did says nothing but `isError`.
    """
    by_headers: ClassVar[bool] = False
    """
    Of an auth stage: whether it tells who somebody is by headers, certificate and transport alone, whatever the request
    says. Then who has no valid credential can be refused before a long body is read.
    """
    behind: Service | None = None
    """
    What stands behind this stage now, for calls of its own accord in exchanges of its own (refreshing, warming), from
    `open` on, in its own background nursery. Set when a chain is compiled, so also when an inner stage is replaced;
    None where the chain is not compiled yet.
    """

    @classmethod
    def sees_stages(cls, config: Any) -> bool:
        """Whether it sets `Exchange.around_stage`, with these options: only then do chains look for it."""
        return False

    @classmethod
    def advise(cls, config: Any, when: When | None, sinks: Sequence[str]) -> Iterable[Advice]:
        """
        What is allowed but wrong about these options here, beyond `order`; asked by `check`, must not do any I/O.

        Args:
            config: The options.
            when: The stage's guard, if it has one.
            sinks: Ids of the sinks behind it at which requests end; several if a router stands in between.
        """
        return ()

    def __call__(self, exchange: Exchange, call_next: Service) -> Awaitable[Reply]:
        """Handle one exchange, usually with an async method. Raise a `GatewayError` to refuse it."""
        return call_next(exchange)

    async def relay(self, exchange: Exchange, notification: Notification, forward: Relay) -> None:
        """Handle one notification on its way to the client; pass it on with `await forward(exchange, n)`."""
        await forward(exchange, notification)

    def turned_away(self, exchange: Exchange, error: GatewayError | None) -> None:
        """
        Told of an exchange that ended in front of the chain, so that `__call__` never saw it: no place was free, its
        params lack their target, the gateway drains, or it was cancelled while it waited. For stages that account for
        every exchange of a pipeline. Must not block, and must not raise.

        Args:
            exchange: With what its source knows of it.
            error: What its client is told; None if nobody is there to be told.
        """

    def resource_metadata(self, source: str) -> Mapping[str, Json] | None:
        """
        What an auth stage publishes about the endpoint of a source: its protected resource metadata (RFC 9728 section
        2), without secrets; None from stages with nothing to publish. Called while it is open.
        """
        return None


class Sink(Component):
    """The end of a chain: where a request leaves the gateway, or is answered inside it."""

    kind = ComponentKind.SINK
    interchangeable: ClassVar[bool] = False
    """The sinks that its options name can serve the same requests: to stages in front they are one upstream."""
    in_process: ClassVar[bool] = False
    """It reaches nobody outside of this process, so that tests need nothing in its place."""

    def __call__(self, exchange: Exchange) -> Coroutine[Any, Any, Reply]:
        """
        Answer one exchange, usually with an async method; relay notifications with `exchange.relay` before returning.

        For NOTIFY exchanges the returned reply is ignored; return `Result()`.

        Raises:
            UpstreamFault: The upstream failed. What the upstream *answered*, errors included, is returned.
        """
        raise TypeError(f"{type(self).__name__} does not implement __call__")


class Source(Component):
    """Where exchanges are born."""

    kind = ComponentKind.SOURCE
    readiness: Callable[[], bool] = staticmethod(_ready)
    """Whether the gateway as a whole is ready, for sources that are asked; the engine sets it."""
    resource_metadata: Callable[[], Mapping[str, Json] | None] = staticmethod(_published_nothing)
    """What the auth stages of its pipeline publish about it (RFC 9728), if anything; the engine sets it."""
    identify: Callable[[Client, Request | Notification | None], Awaitable[Caller | None]] = staticmethod(_asks_nobody)
    """
    Who a client is, for what never becomes an exchange with a reply (an event stream opened, a session ended, an answer
    or a notification posted): runs the auth stages of its pipeline, and nothing else. None where it has none. Raises
    the `GatewayError` with which they refuse. The engine sets it.
    """

    refuse_unread: Callable[[Client], Awaitable[None]] = staticmethod(_turns_nobody_away)
    """
    Asked before a long body is read: raises the `Unauthenticated` with which the auth stages of its pipeline will
    refuse this client whatever it says, if they can tell. Who is not refused here is authenticated as everybody is. The
    engine sets it.
    """
    ends: ClassVar[bool] = False
    """Whether `serve` may return of its own accord: its only client hung up. From any other source it is a crash."""

    async def serve(self, handle: Handle) -> None:
        """Accept until cancelled, or until the only client is gone. `stop_accepting` comes first when draining."""
        raise TypeError(f"{type(self).__name__} does not implement serve")

    def stop_accepting(self) -> None:
        """Take no new connections and no new requests (answer those with `Draining`). Called once, when draining."""

    async def delivered(self) -> None:
        """
        Wait until the last answers have left for the clients, as far as there are such that wait for some.

        Called when draining, behind `stop_accepting`, when every exchange has its answer; cancelled when draining has
        taken its time. No checkpoint where there is nothing to wait for.
        """


_C = TypeVar("_C", bound=type[Component])


def named(name: str, base: type[Component]) -> Callable[[_C], _C]:
    """Name a class: what the decorators of each kind do."""

    def decorate(cls: _C) -> _C:
        if not issubclass(cls, base):
            raise TypeError(f"{cls.__name__} must be a subclass of {base.__name__}")
        cls.name = name
        return cls

    return decorate


def middleware(name: str) -> Callable[[_C], _C]:
    """Name a `Middleware` class: its key in a chain."""
    return named(name, Middleware)


def sink(name: str) -> Callable[[_C], _C]:
    """Name a `Sink` class: its transport key under `sinks.<id>`."""
    return named(name, Sink)


def source(name: str) -> Callable[[_C], _C]:
    """Name a `Source` class: its transport key under `sources.<id>`."""
    return named(name, Source)
