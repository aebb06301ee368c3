"""One HTTP request as the endpoint sees it, over plain ASGI 3: what both servers, ours and hypercorn's own, offer."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, final

import trio

from sluiceway.pipeline.model.session import Headers
from sluiceway.pipeline.protocol.errors import MessageTooLarge

from .answers import HttpError
from .edge import MAX_DIGITS

if TYPE_CHECKING:
    from .checks import Checked
    from .membership import Membership
    from .said import Said

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
OnGone = Callable[[Callable[[], None]], None]

ON_GONE: Final = "sluiceway.on_gone"
"""ASGI extension of our server: a function that takes a callback for when the client leaves before its answer ends."""


class ClientGone(Exception):
    """The client left before it had said everything. Nobody is there to answer."""


@final
class RequestHead:
    """
    What the head of a request says to the application. Shared by requests whose heads differ in nothing but the length
    of their bodies, so nobody changes it.

    Args:
        method: In capitals.
        path: Decoded, without the query.
        query: As sent: percent-encoded, without the question mark.
        fields: The header lines, in the order they came.
    """

    __slots__ = ("headers", "method", "path", "query", "repeated", "verdict", "waits")

    def __init__(self, method: str, path: str, query: bytes, fields: Iterable[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.path = path
        self.query = query
        headers, repeated = read_headers(fields)
        headers.pop("content-length", None)
        self.headers: Final = Headers(headers)
        """Names in lower case; without Content-Length (see `HttpRequest.declared`)."""
        self.repeated: Collection[str] = repeated
        """Names that stood more than once."""
        self.waits = "transfer-encoding" in headers or "expect" in headers
        """Whether the body comes in pieces of any number, or not before its sender got a word."""
        self.verdict: Checked | None = None
        """What whoever checked it found, for the next request with this head; None if nobody has."""


@final
class Remote:
    """
    The other end of a connection.

    Args:
        address: Without port; None where there is none.
        certificate: The client certificate that the server verified, in PEM; None where there is none.
    """

    __slots__ = ("address", "certificate", "member", "said")

    def __init__(self, address: str | None = None, certificate: str | None = None) -> None:
        self.address: Final = address
        self.certificate: Final = certificate
        self.said: Said | None = None
        """Who its last request said it was from, for the next one to say the same: in the modern era."""
        self.member: Membership | None = None
        """The session that its last request named, for the next one to name the same: in the legacy era."""


class HttpRequest(ABC):
    """
    A request, whose body may still have to be read.

    Args:
        head: What it says before its body.
        remote: Who sent it.
        whole: The body, where it has been read already; None where `receive` brings it.
    """

    declared: int | None = 0
    """Bytes of the body that `receive` brings, as the head says; None if it does not say so in earnest."""
    has_body: bool = True
    """Whether `receive` brings one."""
    lives_in: str | None = None
    """The mark of another worker, in which its session lives, and which has answered."""
    tells: bool = True
    """Whether the server tells when the client leaves, and does not hold on to who writes to one that stalls."""

    def __init__(self, head: RequestHead, remote: Remote, whole: bytes | None) -> None:
        self.head = head
        self.remote = remote
        self.whole = whole
        """The body, once it has been read: all of it."""

    @property
    def method(self) -> str:
        """In capitals."""
        return self.head.method

    @property
    def path(self) -> str:
        """Decoded, without the query."""
        return self.head.path

    @property
    def query(self) -> bytes:
        """As sent."""
        return self.head.query

    @property
    def headers(self) -> Mapping[str, str]:
        """See `RequestHead`."""
        return self.head.headers

    @property
    def address(self) -> str | None:
        """See `Remote`."""
        return self.remote.address

    @property
    def certificate(self) -> str | None:
        """See `Remote`."""
        return self.remote.certificate

    @property
    def unread(self) -> bool:
        """Whether there is a body that has not been read."""
        return self.has_body and self.whole is None

    @abstractmethod
    async def receive(self) -> Mapping[str, Any]:
        """ASGI's. One task at a time."""

    @abstractmethod
    def on_gone(self, callback: Callable[[], None]) -> None:
        """
        Have `callback` called when the client leaves before its response is complete; at once if it has left.

        Only where the server `tells`. The latest callback counts.
        """

    async def body(self, limit: int, grace_s: float, rate: float) -> bytes:
        """
        Read the whole body.

        Args:
            limit: Bytes it may have.
            grace_s: Seconds in which the client need not send anything.
            rate: Bytes per second it must have sent on average since then.

        Raises:
            MessageTooLarge: At once if `Content-Length` says so, else when the limit is passed.
            HttpError: 408, the client is too slow.
            ClientGone: It left.
        """
        whole, declared = self.whole, self.declared
        if whole is not None:
            if len(whole) <= limit:
                return whole
            declared = len(whole)
        if declared is not None and declared > limit:
            raise MessageTooLarge(f"the body has {declared} bytes; max_body is {limit}")
        body = bytearray()
        start = trio.current_time()
        with trio.CancelScope(deadline=start + grace_s) as patience:
            while True:
                event = await self.receive()
                if event["type"] == "http.disconnect":
                    raise ClientGone
                body += event.get("body", b"")
                if len(body) > limit:
                    raise MessageTooLarge(f"the body has more than {limit} bytes; max_body is {limit}")
                if not event.get("more_body", False):
                    self.whole = bytes(body)
                    return self.whole
                patience.deadline = start + grace_s + len(body) / rate
        raise HttpError(408, f"the body came slower than {rate:g} bytes per second")

    @contextmanager
    def watch(self, callback: Callable[[], None]) -> Iterator[None]:
        """Have `callback` called once if the client leaves while the block runs. Only after the body was read."""
        self.on_gone(callback)
        try:
            yield
        finally:
            self.on_gone(nothing)

    async def discard(self) -> None:
        """Read and drop what still comes, until the client leaves or has said everything."""
        while True:
            event = await self.receive()
            if event["type"] == "http.disconnect":
                return


@final
class ScopeRequest(HttpRequest):
    """
    The request of an ASGI scope of type `http`.

    Args:
        scope: ASGI's.
        receive: ASGI's. Nobody else may call it.
        nursery: Where to watch for a client that leaves, on servers that do not tell; None where one does.
    """

    def __init__(self, scope: Mapping[str, Any], receive: Receive, nursery: trio.Nursery | None) -> None:
        fields, client = list(scope["headers"]), scope.get("client")
        head = RequestHead(scope["method"], scope["path"], scope.get("query_string", b""), fields)
        super().__init__(head, Remote(client[0] if client else None, certificate_of(scope)), None)
        declared: bytes = next((value for name, value in fields if name.lower() == b"content-length"), b"0")
        self.declared = int(declared) if declared.isdigit() and len(declared) <= MAX_DIGITS else None
        self.has_body = "transfer-encoding" in head.headers or self.declared != 0
        self._receive = receive
        self._nursery = nursery
        self._on_gone: OnGone | None = (scope.get("extensions") or {}).get(ON_GONE)
        self.tells = self._on_gone is not None

    async def receive(self) -> Mapping[str, Any]:
        """See `HttpRequest`."""
        return await self._receive()

    def on_gone(self, callback: Callable[[], None]) -> None:
        """See `HttpRequest`."""
        assert self._on_gone is not None
        self._on_gone(callback)

    @contextmanager
    def watch(self, callback: Callable[[], None]) -> Iterator[None]:
        """See `HttpRequest`. A task waits in `receive` if need be, for a handler that does not wait never learns."""
        if self.tells:
            with super().watch(callback):
                yield
            return
        assert self._nursery is not None
        scope = trio.CancelScope()
        self._nursery.start_soon(self._wait_gone, scope, callback)
        try:
            yield
        finally:
            scope.cancel()

    async def _wait_gone(self, scope: trio.CancelScope, callback: Callable[[], None]) -> None:
        with scope:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            if not scope.cancel_called:
                callback()


def read_headers(raw: Iterable[tuple[bytes, bytes]]) -> tuple[dict[str, str], set[str]]:
    """
    The headers of a request, and the names that stood more than once.

    Names are in lower case; values of a repeated name are joined with commas (RFC 9110 section 5.3).
    """
    headers: dict[str, str] = {}
    repeated: set[str] = set()
    for raw_name, raw_value in raw:
        name, value = sys.intern(raw_name.decode("latin-1").lower()), raw_value.decode("latin-1").strip()
        if "_" in name:
            continue  # somebody behind us would read x_forwarded_for as x-forwarded-for
        if name in headers:
            repeated.add(name)
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers, repeated


def certificate_of(scope: Mapping[str, Any]) -> str | None:
    """What a server tells by ASGI's TLS extension: ours does, hypercorn's own does not."""
    told = (scope.get("extensions") or {}).get("tls") or {}
    if told.get("client_cert_error"):
        return None
    return next(iter(told.get("client_cert_chain") or ()), None)


def nothing() -> None:
    """The answer is complete; nobody cares any more whether the client leaves."""
