"""Writing one HTTP response: how it is sent by our own server, and over plain ASGI 3."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, Protocol, final

from sluiceway.pipeline.protocol.messages import EMPTY

from .answers import Answer, json_answer
from .compression import Encoder, compress
from .media import JSON
from .request import Send


class Way(Protocol):
    """How a response gets to its client. Nothing happens once that has left."""

    @abstractmethod
    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole response, and say how long it is."""
        ...

    @abstractmethod
    async def send(self, message: Mapping[str, Any], /) -> None:
        """ASGI's, for a response that is sent in pieces."""
        ...


@final
class ScopeWay:
    """
    Over plain ASGI 3.

    Args:
        send: ASGI's.
        closing: Asked when the response starts: whether its connection should close behind it.
    """

    def __init__(self, send: Send, closing: Callable[[], bool] = lambda: False) -> None:
        self._send = send
        self._closing = closing

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """See `Way`."""
        if status != 204:
            headers = {**headers, "content-length": str(len(body))}
        await self.send(start_of(status, headers))
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def send(self, message: Mapping[str, Any], /) -> None:
        """See `Way`."""
        if message["type"] == "http.response.start" and self._closing():
            others = [line for line in message["headers"] if line[0] != b"connection"]
            message = {**message, "headers": [*others, _line("connection", "close")]}
        await self._send(message)


@final
class HttpResponse:
    """
    A response that is still to be sent.

    Args:
        way: To the client.
    """

    headers: Mapping[str, str] = EMPTY
    """Sent with whatever is sent; the answer's own come on top."""
    encode: tuple[str, Encoder] | None = None
    """The content coding of whole JSON answers of at least `encode_from` bytes."""
    encode_from = 0

    def __init__(self, way: Way) -> None:
        self._way = way

    async def answer(self, answer: Answer) -> None:
        """Send a whole response."""
        body, headers = answer.body, answer.headers
        if self.encode is not None and len(body) >= self.encode_from and headers.get("content-type") == JSON:
            coding, encoder = self.encode
            headers, body = {**headers, "content-encoding": coding}, await compress(body, encoder)
        await self._way.answer(answer.status, {**self.headers, **headers} if self.headers else headers, body)

    def answer_json(self, status: int, body: bytes, headers: Mapping[str, str]) -> Awaitable[None]:
        """Send a whole response with a JSON body: `answer` where nothing has to be done to it."""
        if self.encode is not None or self.headers:
            return self.answer(json_answer(status, body, headers))
        return self._way.answer(status, {"content-type": JSON, **headers}, body)

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin a response. Our server holds the head back until there is something to write behind it."""
        await self._way.send(start_of(status, {**self.headers, **headers}))

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Write a piece of the body; blocks while the client reads slowly. Nothing happens after it left."""
        await self._way.send({"type": "http.response.body", "body": data, "more_body": not last})


def start_of(status: int, headers: Mapping[str, str]) -> dict[str, Any]:
    """ASGI's event for the head of a response."""
    return {"type": "http.response.start", "status": status, "headers": [_line(*each) for each in headers.items()]}


@lru_cache(256)
def _line(name: str, value: str) -> tuple[bytes, bytes]:
    """A header as ASGI takes it. Most are those of every response, and a response that does not end keeps them."""
    return name.encode("latin-1"), value.encode("latin-1", "replace")
