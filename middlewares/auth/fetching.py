"""
Fetching from an authorization server, without being led anywhere else.

No redirects, a bound on size and time, and a check of every address that a name stands for: only public ones, unless
the operator wrote the address into the configuration. The address that was checked is the one that is connected to, so
a name that changes its mind in between reaches nothing (DNS rebinding).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, Self, final

import trio

from sluiceway.pipeline.model.origin import is_public, parse_origin

_MAX_CONNECTIONS: Final = 8
_KEEP_S: Final = 20.0


class FetchFailed(Exception):
    """Nothing that is of use came back; the text says why, as the end of a sentence."""


@final
class Fetcher:
    """
    Use it in `async with`.

    Args:
        named: Addresses that the operator wrote: where one names a private place, that was meant.
        allow_private: Whether other names may lead to private places, too.
        timeout_s: For one answer, from the name to its last byte.
        ca: File of certificates to trust in place of the system's.
    """

    def __init__(self, named: Iterable[str], *, allow_private: bool, timeout_s: float, ca: str | None = None) -> None:
        origins = [parse_origin(each) for each in named]
        self._meant = frozenset((each.host, each.port) for each in origins if each.names_private)
        self._allow_private = allow_private
        self._timeout_s = timeout_s
        self._ca = ca
        self._pool: Any = None

    async def __aenter__(self) -> Self:
        import httpcore2

        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(cafile=self._ca),
            max_connections=_MAX_CONNECTIONS,
            keepalive_expiry=_KEEP_S,
            network_backend=_guarded(self._meant, allow_private=self._allow_private),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.aclose()  # noqa: ASYNC102  # closing connections does not wait for peers

    async def get(self, url: str, max_bytes: int) -> bytes:
        """
        The body of a 200.

        Raises:
            FetchFailed: There is none.
        """
        return await self._fetch("GET", url, max_bytes, {"accept": "application/json"}, b"")

    async def post(self, url: str, max_bytes: int, headers: Mapping[str, str], form: bytes) -> bytes:
        """
        Post a form; the body of a 200.

        Raises:
            FetchFailed: There is none.
        """
        kind = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}
        return await self._fetch("POST", url, max_bytes, {**kind, **headers}, form)

    async def _fetch(self, method: str, url: str, max_bytes: int, headers: Mapping[str, str], body: bytes) -> bytes:
        import httpcore2

        failures = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)
        with trio.move_on_after(self._timeout_s):
            try:
                async with self._answer(method, url, headers, body) as response:
                    return await _body(response, max_bytes)
            except (*failures, ssl.SSLError, OSError) as error:
                raise FetchFailed(str(error) or "the connection broke") from error
        raise FetchFailed(f"no answer within {self._timeout_s:g} s")

    @asynccontextmanager
    async def _answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[Any]:
        lines = [(name.encode(), value.encode()) for name, value in {"host": _authority(url), **headers}.items()]
        if body:
            lines.append((b"content-length", b"%d" % len(body)))
        async with self._pool.stream(method, url, headers=lines, content=body) as response:
            yield response


def _authority(url: str) -> str:
    return parse_origin(url).authority


async def _body(response: Any, max_bytes: int) -> bytes:
    if response.status != 200:
        raise FetchFailed(f"it answers HTTP {response.status}")
    received = bytearray()
    async with aclosing(response.aiter_stream()) as chunks:
        async for chunk in chunks:
            received += chunk
            if len(received) > max_bytes:
                raise FetchFailed(f"its answer has more than {max_bytes} bytes")
    return bytes(received)


def _guarded(meant: frozenset[tuple[str, int]], *, allow_private: bool) -> Any:
    """A network backend of httpcore2 that connects to checked addresses only."""
    import httpcore2

    class Guarded(httpcore2.AsyncNetworkBackend):
        """Resolves names itself."""

        def __init__(self) -> None:
            self._inner: Any = httpcore2.TrioBackend()

        async def connect_tcp(
            self, host: str, port: int, timeout: float | None = None, *rest: Any, **options: Any
        ) -> httpcore2.AsyncNetworkStream:
            address = await resolve(host, port, open_to_all=allow_private or (host, port) in meant)
            stream: httpcore2.AsyncNetworkStream = await self._inner.connect_tcp(
                address, port, timeout, *rest, **options
            )
            return stream

        async def sleep(self, seconds: float) -> None:
            await trio.sleep(seconds)

    return Guarded()


async def resolve(host: str, port: int, *, open_to_all: bool) -> str:
    """
    The address to connect to for a name.

    Raises:
        FetchFailed: The name means nothing, or nothing that may be connected to.
    """
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchFailed("its name cannot be resolved") from error
    for _, _, _, _, address in found:
        if open_to_all or is_public(str(address[0])):
            return str(address[0])
    raise FetchFailed("its name leads to a private address; set allow_private if that is meant")
