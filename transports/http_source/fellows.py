"""
Requests that belong to a session of another worker (`run.workers`): passed on to it, and its answer passed back.

A legacy session lives where it began, and its client's next connection may come to any worker. What is passed on is the
request as it was read, whose it is, and nothing that was concluded from it: the other worker checks it as if it had
come to itself. Workers are connected by socket pairs that nobody else can reach; one carries a request at a time, and
stays for the next. Its end says that a client, or a worker, is gone.

A client whose connection is a plain socket follows its request: the next one comes to the right worker by itself.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Final, final
from urllib.parse import parse_qs

import msgspec
import trio
from attrs import define, field

from sluiceway.pipeline.model.worker import Worker, elsewhere

from ..eras import legacy
from .legacy_sse import STREAM_ID
from .request import HttpRequest, Remote, RequestHead
from .response import HttpResponse, ScopeWay

MAX_IDLE: Final = 64
"""Connections to other workers that wait for the next request."""
_HEAD: Final = struct.Struct("!BI")
_REQUEST, _START, _BODY, _LAST = range(4)
_CHUNK: Final = 256 * 1024
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)

Serve = Callable[[HttpRequest, HttpResponse], Awaitable[None]]
"""Answers a request; `Endpoint.serve`."""


class _State(Enum):
    """How far the response of another worker came."""

    NOTHING = auto()
    BEGUN = auto()
    WHOLE = auto()


class _Request(msgspec.Struct, frozen=True, array_like=True):
    """A request as it was read."""

    method: str
    path: str
    query: bytes
    headers: dict[str, str]
    repeated: list[str]
    address: str | None
    certificate: str | None
    body: bytes


class _Start(msgspec.Struct, frozen=True, array_like=True):
    """The head of a response."""

    status: int
    headers: dict[str, str]


_request_of: Final = msgspec.msgpack.Decoder(_Request).decode
_start_of: Final = msgspec.msgpack.Decoder(_Start).decode
_encode: Final = msgspec.msgpack.Encoder().encode


@define(eq=False)
class _Wire:
    """One connection between two workers."""

    stream: trio.SocketStream
    _buffer: bytearray = field(factory=bytearray)

    async def send(self, *frames: tuple[int, bytes]) -> None:
        """Send frames, with one write."""
        await self.stream.send_all(b"".join(_HEAD.pack(kind, len(data)) + data for kind, data in frames))

    async def receive(self) -> tuple[int, bytes] | None:
        """The next frame; None at the end."""
        while True:
            if len(self._buffer) >= _HEAD.size:
                kind, size = _HEAD.unpack_from(self._buffer)
                end = _HEAD.size + size
                if len(self._buffer) >= end:
                    data = bytes(self._buffer[_HEAD.size : end])
                    del self._buffer[:end]
                    return kind, data
            try:
                received = await self.stream.receive_some(_CHUNK)
            except _GONE:
                return None
            if not received:
                return None
            self._buffer += received


@final
class Fellows:
    """
    The other workers, as one source sees them.

    Args:
        worker: The place of this process among them.
        source: Component id of the source.
        serve: Answers what they pass on.
    """

    def __init__(self, worker: Worker, source: str, serve: Serve) -> None:
        self._worker = worker
        self._source = source
        self._serve = serve
        self._idle: deque[tuple[str, _Wire]] = deque()
        self._busy = 0
        self._rest = trio.Event()
        self.passed_on = 0
        """Requests that belonged to another worker."""
        self.moved = 0
        """Clients that were given to the worker in which their sessions live."""
        self.taken = 0
        """Requests that other workers had for this one."""

    # To another worker.

    def owner_of(self, request: HttpRequest) -> str | None:
        """The mark of another worker in the id of the session, or of the event stream, that a request names."""
        named = request.headers.get(legacy.SESSION_HEADER)
        if named is None:
            named = next(iter(parse_qs(request.query.decode("latin-1")).get(STREAM_ID, ())), "")
        return elsewhere(named, self._worker)

    async def pass_on(self, mark: str, request: HttpRequest, response: HttpResponse) -> bool:
        """
        Have another worker answer. The body was read, if there is one.

        Returns:
            Whether there is such a worker; without it, there is no session.
        """
        wire, state = await self._wire_to(mark), _State.NOTHING
        try:
            with trio.CancelScope() as scope, request.watch(scope.cancel):
                state = await self._exchange(wire, request, response)
            self.passed_on += state is not _State.NOTHING
            if state is _State.WHOLE:
                request.lives_in = mark
            return state is not _State.NOTHING or scope.cancelled_caught
        finally:
            if state is _State.WHOLE and len(self._idle) < MAX_IDLE:
                self._idle.append((mark, wire))
            else:
                await trio.aclose_forcefully(wire.stream)  # noqa: ASYNC102  # closes without waiting

    async def move(self, mark: str, client: int) -> None:
        """Give a client's connection to another worker, which serves its session. Closes the descriptor."""
        try:
            self.moved += 1
            await self._worker.move(mark, self._source, client)
        finally:
            os.close(client)

    async def _wire_to(self, mark: str) -> _Wire:
        for known in reversed(self._idle):
            if known[0] == mark:
                self._idle.remove(known)
                return known[1]
        return _Wire(await self._worker.reach(mark, self._source))

    async def _exchange(self, wire: _Wire, request: HttpRequest, response: HttpResponse) -> _State:
        """One request and its response; how far that came."""
        head = request.head
        said = _Request(
            head.method, head.path, head.query, dict(head.headers), list(head.repeated),
            request.address, request.certificate, request.whole or b"",
        )  # fmt: skip
        with suppress(*_GONE):  # then nothing comes back either
            await wire.send((_REQUEST, _encode(said)))
        state = _State.NOTHING
        while (frame := await wire.receive()) is not None:
            kind, data = frame
            if kind == _START:
                state, start = _State.BEGUN, _start_of(data)
                await response.start(start.status, start.headers)
            else:
                await response.write(data, last=kind == _LAST)
                if kind == _LAST:
                    return _State.WHOLE
        return state

    # From another worker.

    async def take(self, stream: trio.SocketStream) -> None:
        """Answer what another worker passes on, until it closes the connection."""
        wire = _Wire(stream)
        async with stream:
            frame = await wire.receive()
            while frame is not None:
                frame = await self._answer(wire, _request_of(frame[1]))

    async def _answer(self, wire: _Wire, said: _Request) -> tuple[int, bytes] | None:
        """Answer one request; the frame behind it, None when the other worker is gone."""
        self.taken += 1
        following: list[tuple[int, bytes] | None] = []
        request = _PassedOn(said)
        async with trio.open_nursery() as nursery:

            async def read_on() -> None:
                """What comes next: another request when this one is answered, or the end of its client."""
                following.append(await wire.receive())
                request.leave()

            nursery.start_soon(read_on)
            self._busy += 1
            try:
                await self._serve(request, HttpResponse(ScopeWay(_sender(wire))))
            finally:
                request.end()
                self._busy -= 1
                self._rest.set()
        return following[0]

    async def delivered(self) -> None:
        """Wait until what other workers passed on is answered. No checkpoint if it is."""
        while self._busy:
            self._rest = trio.Event()
            await self._rest.wait()

    def close(self) -> None:
        """Let go of the connections to other workers."""
        while self._idle:
            self._idle.popleft()[1].stream.socket.close()


@final
class _PassedOn(HttpRequest):
    """A request that another worker passed on, with its body, and whose connection tells when the client leaves."""

    _callback: Callable[[], None] | None = None
    _is_gone = False

    def __init__(self, said: _Request) -> None:
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in said.headers.items()]
        head = RequestHead(said.method, said.path, said.query, fields)
        head.repeated = frozenset(said.repeated)
        super().__init__(head, Remote(said.address, said.certificate), said.body)

    async def receive(self) -> Mapping[str, Any]:
        """Nothing comes behind the body."""
        await trio.sleep_forever()

    def on_gone(self, callback: Callable[[], None]) -> None:
        """See `HttpRequest`."""
        self._callback = callback
        if self._is_gone:
            callback()

    def leave(self) -> None:
        """The client is gone, or the worker to which it is connected."""
        self._is_gone = True
        if self._callback is not None:
            self._callback()

    def end(self) -> None:
        """The answer is complete; nobody cares any more whether the client leaves."""
        self._callback = None


def _sender(wire: _Wire) -> Callable[[Mapping[str, Any]], Awaitable[None]]:
    """ASGI `send` to another worker; nothing happens once that is gone."""

    held: list[tuple[int, bytes]] = []

    async def send(event: Mapping[str, Any]) -> None:
        if event["type"] == "http.response.start":
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event["headers"]}
            headers.pop("connection", None)
            held.append((_START, _encode(_Start(event["status"], headers))))
            return
        frames = [*held, (_BODY if event.get("more_body", False) else _LAST, event.get("body", b""))]
        held.clear()
        with suppress(*_GONE):
            await wire.send(*frames)

    return send
