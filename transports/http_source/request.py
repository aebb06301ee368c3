"""One HTTP request as the endpoint sees it, over plain ASGI 3: what both servers, ours and hypercorn's own, offer."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, final

import trio

from sluiceway.pipeline.protocol.errors import MessageTooLarge

from .answers import HttpError

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

ON_GONE: Final = "sluiceway.on_gone"
"""ASGI extension of our server: a function that takes a callback for when the client leaves before its answer ends."""


class ClientGone(Exception):
    """The client left before it had said everything. Nobody is there to answer."""


@final
class HttpRequest:
    """
    A request whose body is still to be read.

    Args:
        scope: ASGI scope of type `http`.
        receive: ASGI's. Nobody else may call it.
        nursery: Where to watch for a client that leaves, on servers that do not tell.
    """

    def __init__(self, scope: Mapping[str, Any], receive: Receive, nursery: trio.Nursery) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        client = scope.get("client")
        self.address: str | None = client[0] if client else None
        """Remote address without port; None where there is none."""
        self.headers, self.repeated = read_headers(scope["headers"])
        self.query: bytes = scope.get("query_string", b"")
        """As sent: percent-encoded, without the question mark."""
        self.certificate = certificate_of(scope)
        """The client certificate that the server verified, in PEM; None where there is none."""
        self.unread = False
        """Whether it has a body of which something was not read yet."""
        self._receive = receive
        self._nursery = nursery
        self._on_gone: Callable[[Callable[[], None]], None] | None = (scope.get("extensions") or {}).get(ON_GONE)
        self.unread = "transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0"

    @property
    def tells(self) -> bool:
        """Whether the server tells when the client leaves, and does not hold on to who writes to one that stalls."""
        return self._on_gone is not None

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
                    return bytes(body)
                patience.deadline = start + grace_s + len(body) / rate
        raise HttpError(408, f"the body came slower than {rate:g} bytes per second")

    @contextmanager
    def watch(self, callback: Callable[[], None]) -> Iterator[None]:
        """
        Have `callback` called once if the client leaves while the block runs. Only after the body was read.

        Our server tells; on others a task waits in `receive`, for a handler that does not wait there never learns.
        """
        if self._on_gone is not None:
            self._on_gone(callback)
            try:
                yield
            finally:
                self._on_gone(_nothing)
            return
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


def _nothing() -> None:
    """The answer is complete; nobody cares any more whether the client leaves."""
