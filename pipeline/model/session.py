"""
Who is on the other side of a source, and what survives between its requests.

A modern client (2026-07-28) says everything in each request; a legacy one says it once, in `initialize`, and is then
known by its session. Both become a `Client` on the exchange. Sessions belong to the source that made them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import final

import msgspec
from attrs import Factory, define, field, frozen
from msgspec.structs import replace

from ..protocol.mcp import Era
from ..protocol.messages import EMPTY, Json, Notification, Reply


def _name_of(caller: Caller) -> str:
    tenant = caller.tenant or ""
    return f"{len(tenant)}:{tenant}={caller.subject}"


@frozen
class Caller:
    """Who makes a request, as an auth stage established it."""

    subject: str
    """Unique name of the principal; `anonymous` when nobody asked."""
    tenant: str | None = None
    """The tenant it belongs to; None where there are no tenants."""
    scopes: frozenset[str] = frozenset()
    """What its credential grants."""
    how: str = "none"
    """How it proved itself: `none`, `api_key`, `bearer`, `mtls`; `fixed` where the configuration says who it is."""
    roles: frozenset[str] = frozenset()
    """Roles the credential names; `access` maps them to capabilities."""
    tenants: frozenset[str] = frozenset()
    """Tenants it may choose from in `tenant`, beside its own; empty where there is nothing to choose."""
    credential: str = ""
    """Which of its credentials it used: an id or a digest, never the secret. Fit for logs and keys."""
    principal: str = field(default=Factory(_name_of, takes_self=True), init=False, eq=False, repr=False)
    """Tenant and subject as one text that no other principal has: a key, for what is counted with every request."""


ANONYMOUS = Caller("anonymous")
"""The caller before any auth stage has spoken."""


def _identity(caller: Caller) -> tuple[str, str | None]:
    return caller.subject, caller.tenant


def _drop(_: Notification) -> None:
    """Nobody listens."""


@final
@define(eq=False, kw_only=True)
class Session:
    """
    One legacy client from `initialize` to its end: a `Mcp-Session-Id`, or a stdio or WebSocket connection.

    A session is identity, not authentication: the source binds it to `caller` and answers 404 to anybody else.
    Whoever keeps something per session (a child process, a subscription) asks to be told with `on_close`.
    """

    id: str
    """Unguessable, at least 128 random bits."""
    source: str
    """Id of the source component that owns it."""
    caller: Caller = ANONYMOUS
    """The principal that opened it."""
    opened_as: Caller | None = None
    """That principal as authentication found it, where a tenant was chosen only later; None until it authenticated."""
    last_activity: float = 0.0
    """Trio clock seconds of its latest message."""
    version: str | None = None
    """The negotiated revision; None until `initialize` was answered."""
    capabilities: Mapping[str, Json] = EMPTY
    """The client's capabilities, as declared in `initialize`."""
    info: Mapping[str, Json] = EMPTY
    """The client's `clientInfo`."""
    state: dict[str, object] = field(factory=dict)
    """What embedded servers and stages keep for this client, by component id."""
    notify: Callable[[Notification], None] = field(default=_drop, repr=False)
    """Send something no request caused (a `list_changed`) to the client. Never blocks: bounded, oldest dropped."""
    ask: Asker | None = field(default=None, repr=False)
    """
    Put a question that no request of the client's caused, and wait for the answer, for as long as the client takes or
    the session lives. None where the client cannot be asked. Not bounded in time: whoever asks cancels.
    """
    closed: bool = False
    _on_close: list[Callable[[], None]] = field(factory=list, repr=False)

    def belongs_to(self, caller: Caller) -> bool:
        """Whether `caller` is the principal that opened it; scopes may have changed since."""
        return _identity(self.caller) == _identity(caller)

    def admits(self, caller: Caller) -> bool:
        """Whether `caller` owns it, or may turn out to once its tenant is chosen: it is the one who authenticated."""
        return self.belongs_to(caller) or (
            self.opened_as is not None and _identity(self.opened_as) == _identity(caller)
        )

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """
        Have `callback` called once when the session ends, at once if it already has. It must not block.

        Returns:
            A function that takes the callback back; harmless after the end.
        """
        if self.closed:
            callback()
            return lambda: None
        self._on_close.append(callback)
        return lambda: self._on_close.remove(callback) if callback in self._on_close else None

    def close(self) -> None:
        """End the session: tell everybody who asked, latest first. Idempotent."""
        if self.closed:
            return
        self.closed = True
        while self._on_close:
            self._on_close.pop()()


Asker = Callable[[str, Mapping[str, Json]], Awaitable[Reply]]
"""Puts a question (method, params) to the client on the stream of the request that caused it; returns its answer."""


@final
class Headers(dict[str, str]):
    """
    Request headers, names in lower case. Requests share them where a client sends the same ones again and again, so
    nobody changes them, and what is left without credentials is found once.
    """

    __slots__ = ("_names", "_rest")

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self._names: frozenset[str] | None = None
        self._rest: Headers | None = None

    def without(self, names: frozenset[str]) -> Headers:
        """Those with other names; the answer for the names that were asked for last is kept."""
        rest = self._rest
        if rest is None or names is not self._names:
            rest = self._rest = Headers({name: value for name, value in self.items() if name not in names})
            self._names = names
        return rest


@final
class Client(msgspec.Struct, frozen=True, kw_only=True):
    """The sender of one request, as far as protocol and transport tell. A struct, for one is made with most calls."""

    era: Era
    version: str | None
    """The revision it speaks; None before a legacy handshake."""
    capabilities: Mapping[str, Json] = EMPTY
    """What the *client* declared: the only capabilities ever declared upstream on its behalf."""
    info: Mapping[str, Json] = EMPTY
    session: Session | None = None
    """None for modern clients, and for legacy ones before `initialize`."""
    transport: str = "memory"
    """`http`, `sse` (HTTP+SSE of 2024-11-05), `stdio`, `websocket`, `memory`."""
    address: str | None = None
    """Remote address without port, where there is one."""
    headers: Mapping[str, str] = {}
    """
    Request headers, names in lower case, without `content-length`, which is about the message; empty where the
    transport has none. Never forwarded as they are.
    """
    certificate: str | None = None
    """The client certificate that the TLS layer verified, in PEM; None where there is none, or nobody verified it."""

    def with_headers(self, headers: Mapping[str, str]) -> Client:
        """The same client with other headers."""
        return replace(self, headers=headers)

    def without(self, names: frozenset[str]) -> Client:
        """The same client without some headers: whoever hides the same ones always gives the same set of names."""
        headers = self.headers
        if type(headers) is Headers:
            return replace(self, headers=headers.without(names))
        rest = dict(headers)
        for name in names.intersection(headers):
            del rest[name]
        return replace(self, headers=rest)
