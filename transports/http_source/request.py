"""One HTTP request as the endpoint sees it, over plain ASGI 3: what both servers, ours and hypercorn's own, offer."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, final

import trio

from sluiceway.pipeline.protocol.errors import MessageTooLarge

from .answers import HttpError
from .edge import MAX_DIGITS

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

ON_GONE: Final = "sluiceway.on_gone"
"""ASGI extension of our server: a function that takes a callback for when the client leaves before its answer ends."""


class ClientGone(Exception):
    """The client left before it had said everything. Nobody is there to answer."""


@final
class RequestHead:
    """
    What the head of a request says to the application. Shared by requests with equal heads, so nobody changes it.

    Args:
        method: In capitals.
        path: Decoded, without the query.
        query: As sent: percent-encoded, without the question mark.
        fields: The header lines, in the order they came.
    """

    __slots__ = ("has_body", "headers", "length", "method", "passed", "path", "query", "repeated", "verdict")

    def __init__(self, method: str, path: str, query: bytes, fields: Iterable[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.path = path
        self.query = query
        headers, repeated = read_headers(fields)
        self.headers: Mapping[str, str] = headers
        """Names in lower case."""
        self.repeated: Collection[str] = repeated
        """Names that stood more than once."""
        declared = headers.get("content-length", "0")
        self.has_body = "transfer-encoding" in headers or declared != "0"
        waits = "transfer-encoding" in headers or "expect" in headers
        self.length = int(declared) if declared.isdecimal() and len(declared) <= MAX_DIGITS and not waits else None
        """Bytes of the body; None if nobody said how many in earnest, or its sender waits for a word."""
        self.passed: object = None
        """The claims of a body that this head was last found to agree with (`eras.modern.claims_of`)."""
        self.verdict: object = None
        """What whoever checked it found, for the next request with this head; None if nobody has."""

    def with_length(self, length: str) -> RequestHead:
        """The head that differs in its `Content-Length` only; the verdict stays, for it must not depend on that."""
        other = object.__new__(RequestHead)
        other.method, other.path, other.query = self.method, self.path, self.query
        other.headers = {**self.headers, "content-length": length}
        other.repeated = self.repeated
        other.has_body = length != "0"
        other.length = None if self.length is None else int(length)
        other.passed, other.verdict = self.passed, self.verdict
        return other


@final
class HttpRequest:
    """
    A request whose body is still to be read.

    Args:
        head: What it says before its body.
        receive: ASGI's. Nobody else may call it.
        nursery: Where to watch for a client that leaves, on servers that do not tell; None where one does.
        address: Remote address without port; None where there is none.
        certificate: The client certificate that the server verified, in PEM; None where there is none.
        on_gone: Takes a callback for when the client leaves before its answer ends; None if the server does not tell.
        whole: The body, where it has been read already; None where `receive` brings it.
    """

    __slots__ = (
        "_nursery", "_receive", "_whole", "address", "certificate", "head", "headers", "lives_in", "method", "on_gone",
        "path", "query", "repeated", "unread",
    )  # fmt: skip

    def __init__(
        self,
        head: RequestHead,
        receive: Receive,
        nursery: trio.Nursery | None,
        *,
        address: str | None,
        certificate: str | None = None,
        on_gone: Callable[[Callable[[], None]], None] | None = None,
        whole: bytes | None = None,
    ) -> None:
        self.head = head
        self.method, self.path, self.query = head.method, head.path, head.query
        self.headers, self.repeated = head.headers, head.repeated
        self.address = address
        self.certificate = certificate
        self.on_gone = on_gone
        self.lives_in: str | None = None
        """The mark of another worker, in which its session lives, and which has answered."""
        self.unread = head.has_body and whole is None
        """Whether it has a body of which something was not read yet."""
        self._receive = receive
        self._nursery = nursery
        self._whole = whole

    @classmethod
    def of_scope(cls, scope: Mapping[str, Any], receive: Receive, nursery: trio.Nursery | None) -> HttpRequest:
        """The request of an ASGI scope of type `http`."""
        head = RequestHead(scope["method"], scope["path"], scope.get("query_string", b""), scope["headers"])
        client = scope.get("client")
        return cls(
            head, receive, nursery,
            address=client[0] if client else None,
            certificate=certificate_of(scope),
            on_gone=(scope.get("extensions") or {}).get(ON_GONE),
        )  # fmt: skip

    @property
    def said(self) -> bytes:
        """The body as far as it has been read: all of it, or nothing."""
        return self._whole or b""

    @property
    def tells(self) -> bool:
        """Whether the server tells when the client leaves, and does not hold on to who writes to one that stalls."""
        return self.on_gone is not None

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
        if self._whole is not None and len(self._whole) <= limit:
            return self._whole
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise MessageTooLarge(f"the body has {declared} bytes; max_body is {limit}")
        body = bytearray()
        start = trio.current_time()
        with trio.CancelScope(deadline=start + grace_s) as patience:
            while True:
                event = await self._receive()
                if event["type"] == "http.disconnect":
                    raise ClientGone
                body += event.get("body", b"")
                if len(body) > limit:
                    raise MessageTooLarge(f"the body has more than {limit} bytes; max_body is {limit}")
                if not event.get("more_body", False):
                    self.unread = False
                    self._whole = bytes(body)
                    return self._whole
                patience.deadline = start + grace_s + len(body) / rate
        raise HttpError(408, f"the body came slower than {rate:g} bytes per second")

    @contextmanager
    def watch(self, callback: Callable[[], None]) -> Iterator[None]:
        """
        Have `callback` called once if the client leaves while the block runs. Only after the body was read.

        Our server tells; on others a task waits in `receive`, for a handler that does not wait there never learns.
        """
        if self.on_gone is not None:
            self.on_gone(callback)
            try:
                yield
            finally:
                self.on_gone(nothing)
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

    async def discard(self) -> None:
        """Read and drop what still comes, until the client leaves or has said everything."""
        while True:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                return


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
