"""
One request on its way through the gateway, from admission to its last byte.

Stages see an `Exchange`. What connects it to its source and its engine is a `Link`, shared by every view and fork of
the same exchange.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Final, Literal, final

import msgspec
import trio
from attrs import frozen
from msgspec.structs import replace

from ..protocol.errors import SessionNotFound
from ..protocol.mcp import PROGRESS, ErrorCode, Kind
from ..protocol.messages import ErrorReply, Json, Notification, Reply, Request
from ..protocol.trace_context import TraceContext
from .session import ANONYMOUS, Asker, Caller, Client

Service = Callable[["Exchange"], Awaitable[Reply]]
"""An async function from exchange to reply: a sink, or a chain around one."""

Relay = Callable[["Exchange", Notification], Awaitable[None]]
"""An async function that carries a notification one step towards the client."""

Around = Callable[[str, "Exchange", Service], Awaitable[Reply]]
"""Stands around a call of a stage or sink: its id, the exchange, and the call itself, to be awaited exactly once."""

MAX_DECISIONS: Final = 64
"""Decisions kept of one exchange; later ones are dropped, for a chain that decides more often repeats itself."""


@final
@frozen
class Decision:
    """What one stage made of an exchange, and why: read by audit, metrics, traces and recordings."""

    stage: str
    """Id of the component that decided."""
    outcome: str
    """One word, from the stage's own fixed set: `allow`, `refuse`, `hit`, `miss`, `join`, `repeat`, `open`, ..."""
    cause: str = ""
    """The rule, limit or figure behind it, in a few words; without secrets, and without what a client sent."""


@final
@frozen
class Patience:
    """How much longer an exchange has when it reports progress (MCP, basic/utilities/cancellation: timeouts)."""

    timeout: float
    """Seconds from the latest progress on."""
    most: float
    """Seconds from its start on, whatever it reports."""

    def until(self, started: float, now: float) -> float:
        """The deadline of one that started then and reports progress now; Trio clock."""
        return min(now + self.timeout, started + self.most)


_CONTENT: Final = frozenset({"tools/call", "resources/read", "prompts/get"})
"""Methods whose results can be too long to be held."""

_decision: Final = lru_cache(maxsize=1024)(Decision)
"""The same few are made for every request; finding one takes a quarter of the time that making it does."""


@final
class Link(msgspec.Struct, eq=False, weakref=True):
    """
    What every view of one exchange shares: the way back to the client, the deadline, the count of what went out. A
    struct, as an exchange is: both are made with every call, and in a quarter of the time.
    """

    emit: Callable[[Notification], Awaitable[None]]
    """The source's end: writes a notification to the client; may block while the client reads slowly."""
    ask: Asker | None = None
    """The source's way to put a question to the client; None where there is none."""
    deadline: float = float("inf")
    """Absolute, in seconds of the Trio clock."""
    patience: Patience | None = None
    """How progress moves the deadline; None if it does not."""
    started: float = 0.0
    """When it began to run, likewise."""
    number: int = 0
    """Its number in the recording that is made; 0 if it has none."""
    pieces: Pieces | None = None
    """The source's way to take a long result in pieces; None where it takes results whole only, or somebody must see
    this one whole (`Exchange.hold`)."""
    streamed: int = 0
    """Bytes of a result that went out in pieces."""
    is_whole: bool = True
    """False between the first piece of a result and its last."""
    relayed: int = 0
    """Notifications already handed to the source."""
    asked: int = 0
    """Questions already put to the client."""
    caller: Caller = ANONYMOUS
    """Who `authenticate` found; every view of the exchange shares it, and so does its source."""
    decisions: list[Decision] = []
    """What the stages decided, in order; `Exchange.decide` appends."""
    attempts: int = 0
    """How often a sink that leads to an upstream was called; the engine counts."""
    cancelled: Literal["client", "deadline", "shutdown"] | None = None
    """Why the engine cancelled it; None as long as it did not."""
    correlation_id: str = ""
    """What `request_id` called it last: for those who stand further out than views do that it was set on."""
    trace: TraceContext | None = None
    """The trace it belongs to, once a `trace` stage has said so; for log lines, audit entries and exemplars."""
    request_key: tuple[Request | Notification, str | None, bytes] | None = None
    """The request whose key was asked for last, and that key; kept by `keys.request_of`."""
    is_muted: bool = False
    """Nothing that is not a fork's is heard any more; `Exchange.mute` of an exchange that is none."""


Pieces = Callable[[bytes], Awaitable[None]]
"""Writes a part of the text of a result to the client; may block while the client reads slowly."""


async def deliver(exchange: Exchange, notification: Notification) -> None:
    """The last step of every relay chain: hand a notification to the source."""
    link = exchange.link
    if link.patience is not None and notification.method == PROGRESS:
        link.deadline = max(link.deadline, link.patience.until(link.started, trio.current_time()))
    link.relayed += 1
    await link.emit(notification)


@final
class Branch:
    """What all views of one fork share: whether it may still be heard. Of what is no fork, the link says so."""

    __slots__ = ("_muted", "_parent")

    def __init__(self, parent: Branch | Link) -> None:
        self._parent = parent
        self._muted = False

    @property
    def is_muted(self) -> bool:
        """Whether nothing of this fork, or of one that it is a fork of, is heard any more."""
        return self._muted or self._parent.is_muted

    @is_muted.setter
    def is_muted(self, muted: bool) -> None:
        self._muted = muted


@final
class Exchange(msgspec.Struct, eq=False):
    """
    A request and what is known about it. Its arguments are named where one is made by hand.

    Rewriting goes inward only: `await call_next(exchange.with_request(new))` shows the inner chain a view; outer
    stages keep theirs. Cancelling is not a method: sources and the engine hold the scope, stages cancel by raising.
    """

    request: Request | Notification
    """The message; a `Notification` exactly if `kind` is NOTIFY. Replace it with `with_request`."""
    kind: Kind
    client: Client
    """Who sent it, as far as protocol and transport tell."""
    link: Link
    """What it shares with every view and fork of it."""
    source: str = "test"
    """Id of the source component."""
    draining: trio.Event = msgspec.field(default_factory=trio.Event)
    """Set when the gateway wants LISTEN exchanges to finish."""
    way_back: Relay = deliver
    """Where its notifications go: what `relay` calls. Change it with `with_relay`."""
    caller: Caller = ANONYMOUS
    """Who sent it, as far as an auth stage established."""
    own_accord: bool = False
    """
    Whether a stage sends this, and not the client: a look-up (`ToolBook.find`). What limits how much clients may send
    lets it pass; what protects an upstream counts it.
    """
    correlation_id: str = ""
    """One id for logs, audit and traces; set by `request_id`."""
    attempt: int = 1
    """1 for the first try; counts up in `fork`."""
    marks: dict[str, object] = {}
    """Scratch of stages, by stage id. A stage touches its own key only."""
    reply_headers: dict[str, str] = {}
    """Headers for the response, names in lower case, on transports that have headers."""
    around_sink: Around | None = None
    """Put around every call of a sink that leads to an upstream, for the views and forks made of this one: set on a
    view, or put back as it was. What it awaits may be another view of the exchange."""
    around_stage: Around | None = None
    """Put around every stage further in, likewise; only if the stage that sets it declares `Middleware.sees_stages`."""
    asker: Asker | None = None
    """Where its questions go, if not where the link says."""
    branch: Branch | None = None
    """The fork it belongs to; None outside of forks."""

    @property
    def method(self) -> str:
        """The request's method."""
        return self.request.method

    @property
    def target(self) -> str | None:
        """What the request is about (tool, prompt, uri, task id), or None."""
        return self.request.target

    @property
    def deadline(self) -> float:
        """
        When this exchange is cancelled, seen from the task that asks: absolute seconds of the Trio clock, infinite if
        never. The engine's deadline or that of a stage around the caller, whichever is nearer.
        """
        return min(self.link.deadline, trio.current_effective_deadline())

    @property
    def relayed(self) -> int:
        """Notifications already sent to the client; after the first, a repetition can be seen."""
        return self.link.relayed

    @property
    def shown(self) -> int:
        """
        Notifications and questions that have reached the client: what a repetition would show it again. A stage that
        repeats compares with the count before its first attempt.
        """
        return self.link.relayed + self.link.asked + bool(self.link.streamed)

    def authenticate(self, caller: Caller) -> None:
        """
        Record who sends this; what an auth stage calls instead of setting `caller`.

        The principal of an `initialize` request owns the session it opens (MCP 2025-11-25, security best practices).
        A stage that chooses the caller's tenant calls it again; then the session is that tenant's.

        Raises:
            SessionNotFound: The request belongs to a session that another principal opened.
        """
        session = self.client.session
        if session is not None and session.version is None:
            if self.link.caller is ANONYMOUS:
                session.opened_as = caller
            session.caller = caller
        elif session is not None and session.caller is not caller and not session.admits(caller):
            raise SessionNotFound("no such session; initialize again without a session id")
        self.link.caller = self.caller = caller

    def decide(self, stage: str, outcome: str, cause: str = "") -> None:
        """Record what a stage made of this exchange; see `Decision`. Costs less than a microsecond."""
        decisions = self.link.decisions
        if len(decisions) < MAX_DECISIONS:
            decisions.append(_decision(stage, outcome, cause))

    async def relay(self, notification: Notification) -> None:
        """
        Send a notification to the client, through every stage that looks at the return path. May block.

        Nothing happens on a fork that lost.
        """
        if not self._is_muted:
            await self.way_back(self, notification)

    async def ask(self, method: str, params: Mapping[str, Json]) -> Reply:
        """
        Put a question to the client on this exchange's own stream and wait for the answer.

        Returns:
            The client's reply, or a -32601 error where the client cannot be asked (modern era, no stream).
        """
        if self.link.ask is None or self._is_muted:
            return ErrorReply(ErrorCode.METHOD_NOT_FOUND, f"this client cannot be asked: {method}")
        self.link.asked += 1
        return await (self.asker or self.link.ask)(method, params)

    def hold(self) -> None:
        """
        Have the result of this exchange come whole, however long it is: it will be read here.

        What a stage with `reads_results = False` calls before `call_next` for every exchange whose result it may look
        into after all; for other stages it is done.
        """
        self.link.pieces = None

    @property
    def takes_pieces(self) -> bool:
        """
        Whether a long result may be passed on with `stream` instead of being returned: if its source can take it so,
        nobody holds it, and it is content. Lists and handshakes are read by somebody, often on their own account.
        """
        return self.link.pieces is not None and self.request.method in _CONTENT and not self._is_muted

    async def stream(self, piece: bytes, *, last: bool = False) -> None:
        """
        Pass on a part of the result's text; only if `takes_pieces`. Sinks then return a `Result` that says what is
        known of the whole: nothing, or `isError`. If it fails before the last piece, the client sees it break off.
        """
        link = self.link
        assert link.pieces is not None
        link.streamed += len(piece)
        link.is_whole = False
        if piece:
            await link.pieces(piece)
        link.is_whole = last

    def with_request(self, request: Request | Notification) -> Exchange:
        """A view of the same exchange with another request, for the inner chain."""
        return replace(self, request=request)

    def with_client(self, client: Client) -> Exchange:
        """A view of the same exchange that tells less, or more, about its client, for the inner chain."""
        return replace(self, client=client)

    def with_relay(self, relay: Relay, ask: Asker | None = None) -> Exchange:
        """
        A view whose notifications take another way back; for chains inside chains.

        Args:
            relay: Where they go.
            ask: Where its questions go, as long as the client can be asked; where they went before, if absent.
        """
        return replace(self, way_back=relay, asker=self.asker if ask is None else ask)

    def fork(self, attempt: int | None = None) -> Exchange:
        """
        An attempt: own marks and attempt number; caller, link and deadline shared. `mute` the one that lost.

        Args:
            attempt: Its number; one more than this exchange's if absent.
        """
        return replace(
            self,
            attempt=self.attempt + 1 if attempt is None else attempt,
            marks=dict(self.marks),
            branch=Branch(self.branch or self.link),
        )

    def mute(self) -> None:
        """Drop everything this fork, with every view of it, still tries to relay or ask."""
        (self.branch or self.link).is_muted = True

    @property
    def _is_muted(self) -> bool:
        return (self.branch or self.link).is_muted
