"""A client that speaks HTTP/2 over a stream in memory, correctly or not."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import h2.config
import h2.connection
import h2.events
import hpack
import hyperframe.frame
import pytest
import trio
import trio.testing
from attrs import define, field

JSON_HEADERS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


@define(eq=False)
class Response:
    """What came on one stream."""

    status: int = 0
    headers: dict[str, str] = field(factory=dict)
    body: bytes = b""
    interim: list[int] = field(factory=list)
    ended: bool = False
    reset: int | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def done(self) -> bool:
        return self.ended or self.reset is not None


class Peer:
    """A client connection on h2; `raw` sends what h2 would not."""

    def __init__(self, stream: Any, *, consume: bool = True) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=True,
            )
        )
        self.consume = consume
        """Whether it opens its windows again as it reads."""
        self.responses: dict[int, Response] = {}
        self.goaways: list[tuple[int, int]] = []
        """Last stream and error code of each."""
        self.closed = False
        self.settings: dict[int, int] = {}
        self.ping_acks = 0
        self.answers_pings = True
        self._data = b""

    async def start(self) -> None:
        """Preface and settings."""
        self.h2.initiate_connection()
        await self.flush()

    async def flush(self) -> None:
        await self.raw(self.h2.data_to_send())

    async def raw(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def send(
        self,
        method: str = "POST",
        path: str = "/mcp",
        body: Any = None,
        headers: Mapping[str, str | None] | None = None,
        *,
        end: bool = True,
        flush: bool = True,
    ) -> int:
        """Send a request; a header of None is left out, `_` in its name means `-`. Its stream."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        every: dict[str, str | None] = {":method": method, ":scheme": "https", ":authority": "localhost", ":path": path}
        every |= JSON_HEADERS if method == "POST" else {}
        if method == "GET":
            every |= {"accept": "text/event-stream"}
        every |= {k.replace("_", "-"): v for k, v in (headers or {}).items()}
        fields = [(k, v) for k, v in every.items() if v is not None]
        return await self.request(fields, data, end=end, flush=flush)

    async def request(self, fields: Any, data: bytes = b"", *, end: bool = True, flush: bool = True) -> int:
        """Send a request of exactly these fields."""
        stream_id = self.h2.get_next_available_stream_id()
        self.responses[stream_id] = Response()
        self.h2.send_headers(stream_id, fields, end_stream=end and not data)
        if data:
            self.h2.send_data(stream_id, data, end_stream=end)
        if flush:
            await self.flush()
        return stream_id

    async def pump(self) -> bool:
        """Read once and take what it means; whether there was anything."""
        try:
            data = bytes(await self.stream.receive_some(65536))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            self.closed = True
            return False
        self._data += data
        while len(self._data) >= 9 and len(self._data) >= (end := 9 + int.from_bytes(self._data[:3], "big")):
            self.take_frame(self._data[:end])
            self._data = self._data[end:]
        if self.answers_pings:
            try:
                await self.flush()
            except trio.BrokenResourceError:
                self.closed = True
        return True

    def take_frame(self, frame: bytes) -> None:
        """h2 would take nothing more after GOAWAY, but a client may still be answered."""
        if frame[3] == 7:
            last, code = struct.unpack(">II", frame[9:17])
            self.goaways.append((last, code))
            return
        for event in self.h2.receive_data(frame):
            self.take(event)

    def take(self, event: Any) -> None:
        match event:
            case h2.events.ResponseReceived():
                response = self.responses[event.stream_id]
                response.headers = {str(name): str(value) for name, value in event.headers or ()}
                response.status = int(response.headers.pop(":status"))
            case h2.events.InformationalResponseReceived():
                self.responses[event.stream_id].interim.append(int(dict[Any, Any](event.headers or ())[":status"]))
            case h2.events.DataReceived():
                self.responses[event.stream_id].body += event.data
                if self.consume:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                self.responses[event.stream_id].ended = True
            case h2.events.StreamReset():
                self.responses.setdefault(event.stream_id, Response()).reset = event.error_code
            case h2.events.RemoteSettingsChanged():
                self.settings |= {int(code): change.new_value for code, change in event.changed_settings.items()}
            case h2.events.PingAckReceived():
                self.ping_acks += 1

    async def until(self, condition: Callable[[], object]) -> None:
        """Read until something is so, or there is nothing more to read."""
        while not condition() and await self.pump():
            pass

    async def response(self, stream_id: int) -> Response:
        """All that comes on a stream."""
        response = self.responses[stream_id]
        await self.until(lambda: response.done)
        return response

    async def ask(self, *args: Any, **kwargs: Any) -> Response:
        """Send a request and take its response."""
        return await self.response(await self.send(*args, **kwargs))

    async def until_closed(self) -> None:
        await self.until(lambda: False)


class Observer:
    """What a server says, in words: `1: 200`, `RST 1 8`, `GOAWAY 0`, `PONG` (`END` to `the end!`), `ACK`, `3 bytes`."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.said: list[str] = []
        self.closed = False
        self._data = b""
        self._decoder = hpack.Decoder()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            data = bytes(await self.stream.receive_some(65536))
            if not data:
                self.closed = True
                return
            self._data += data
            while len(self._data) >= 9:
                each, length = hyperframe.frame.Frame.parse_frame_header(memoryview(self._data[:9]))
                if len(self._data) < 9 + length:
                    break
                each.parse_body(memoryview(self._data[9 : 9 + length]))
                self._data = self._data[9 + length :]
                self._take(each)

    def _take(self, each: Any) -> None:
        match each:
            case hyperframe.frame.HeadersFrame():
                status = dict[Any, Any](self._decoder.decode(each.data))[":status"]
                self.said.append(f"{each.stream_id}: {status}")
            case hyperframe.frame.RstStreamFrame():
                self.said.append(f"RST {each.stream_id} {each.error_code}")
            case hyperframe.frame.GoAwayFrame():
                self.said.append(f"GOAWAY {each.error_code}")
            case hyperframe.frame.PingFrame():
                self.said.append("END" if each.opaque_data == b"the end!" else "PONG")
            case hyperframe.frame.SettingsFrame() if "ACK" in each.flags:
                self.said.append("ACK")
            case hyperframe.frame.DataFrame() if each.data:
                self.said.append(f"{len(each.data)} bytes")


Dial = Callable[..., Any]


@pytest.fixture
def dial() -> Dial:
    """A started connection to a source that is served in memory: `await dial(served)`."""

    async def connect(served: Any, **options: Any) -> Peer:
        peer = Peer(_connect(served), **options)
        served.wires.append(peer)
        await peer.start()
        return peer

    return connect


@pytest.fixture
def watch() -> Callable[[Any], Observer]:
    """A connection on which nothing was said yet, and an observer of the answers: `watch(served)`."""

    def connect(served: Any) -> Observer:
        observer = Observer(_connect(served))
        served.wires.append(observer)
        return observer

    return connect


def _connect(served: Any) -> Any:
    client, server = trio.testing.memory_stream_pair()
    server.protocol = "h2"  # type: ignore[attr-defined]  # as TlsStream has
    served.nursery.start_soon(served.source.server.handle, server)
    return client
