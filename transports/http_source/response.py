"""Writing one HTTP response over plain ASGI 3."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import final

from .answers import Answer
from .compression import Encoder, compress
from .media import JSON
from .request import Send


@final
class HttpResponse:
    """
    A response that is still to be sent.

    Args:
        send: ASGI's.
        closing: Asked when the response starts: whether its connection should close behind it.
        send_whole: Sends a whole response (status, headers, body) and says how long it is, where the server takes one;
            None where it takes events only.
    """

    __slots__ = ("_closing", "_send", "_send_whole", "encode", "encode_from", "headers")

    def __init__(
        self,
        send: Send,
        closing: Callable[[], bool],
        send_whole: Callable[[int, Mapping[str, str], bytes], Awaitable[None]] | None = None,
    ) -> None:
        self.encode: tuple[str, Encoder] | None = None
        """The content coding of whole JSON answers of at least `encode_from` bytes."""
        self.encode_from = 0
        self.headers: dict[str, str] = {}
        """Sent with whatever is sent; the answer's own come on top."""
        self._send = send
        self._send_whole = send_whole
        self._closing = closing

    async def answer(self, answer: Answer) -> None:
        """Send a whole response."""
        body, headers = answer.body, answer.headers
        if self.encode is not None and len(body) >= self.encode_from and headers.get("content-type") == JSON:
            coding, encoder = self.encode
            headers, body = {**headers, "content-encoding": coding}, await compress(body, encoder)
        if self._send_whole is not None:
            if self._closing():
                self.headers["connection"] = "close"
            await self._send_whole(answer.status, {**self.headers, **headers} if self.headers else headers, body)
            return
        if answer.status != 204:
            headers = {**headers, "content-length": str(len(body))}
        await self.start(answer.status, headers)
        await self.write(body, last=True)

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin a response. Our server holds the head back until there is something to write behind it."""
        if self._closing():
            self.headers["connection"] = "close"
        lines = [_line(name, value) for name, value in {**self.headers, **headers}.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": lines})

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Write a piece of the body; blocks while the client reads slowly. Nothing happens after it left."""
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})


@lru_cache(256)
def _line(name: str, value: str) -> tuple[bytes, bytes]:
    """A header as ASGI takes it. Most are those of every response, and a response that does not end keeps them."""
    return name.encode("latin-1"), value.encode("latin-1", "replace")
