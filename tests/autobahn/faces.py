"""
Our two faces, echoing. The `http` source with its WebSockets, and the wire of the `websocket` sink.

    python faces.py server                    prints the URL; ends when its input does
    python faces.py client PORT CONNECTIONS   opens so many WebSockets, one after the other

Everything is what a gateway runs, but for what is said: MCP has no echo. As the gateway reads JSON, it does not tell
text from binary messages; an echo must, so both remember which it was.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any, Final

import trio
from wsproto.events import TextMessage

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.options import Duration, Size
from sluiceway.transports.http_source.config import HttpConfig
from sluiceway.transports.http_source.source import HttpSource
from sluiceway.transports.websocket import clients, wire
from sluiceway.transports.websocket.config import WebSocketConfig
from sluiceway.transports.websocket.frames import Frames
from sluiceway.transports.websocket.wire import Gone, Refused, Wire, WireLimits

MAX_MESSAGE: Final = 32 * 1024 * 1024
PING_S: Final = 60.0


class KindFrames(Frames):  # type: ignore[misc]  # final for users
    """Frames that remember what kind of message each was."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.text: deque[bool] = deque()

    def _join(self, event: Any) -> None:
        before = len(self._inbox)
        super()._join(event)
        if len(self._inbox) > before:
            self.text.append(isinstance(event, TextMessage))


async def echo(socket: Wire) -> None:
    """Send back whatever comes, as what it came."""
    frames: Any = socket._frames
    try:
        while True:
            message = await socket.receive()
            if frames.text.popleft():
                await socket.send((message,))
            else:
                await socket._socket.send_message(message)
    except (Gone, wire.ConnectionClosed, wire.LocalProtocolError):
        pass


class Echo:
    """In place of a `Conversation`."""

    def __init__(self, *_: Any) -> None:
        pass

    def stop_accepting(self) -> None:
        """It ends with the process."""

    async def serve(self, socket: Any) -> None:
        """Echo."""
        await echo(socket)


async def serve() -> None:
    """Be the server until the input ends."""
    clients.Conversation = Echo  # type: ignore[assignment, misc]  # says other things
    websocket = WebSocketConfig(
        max_message=Size(MAX_MESSAGE), ping_interval=Duration(PING_S), ping_timeout=Duration(PING_S)
    )
    source = HttpSource(HttpConfig(bind="127.0.0.1:0", websocket=websocket), Context(id="echo"))
    async with source.open(), trio.open_nursery() as nursery:
        nursery.start_soon(source.serve, lambda *_: None)  # type: ignore[arg-type]  # nobody calls it
        await source.serving.wait()
        print(source.urls[0].replace("http", "ws", 1), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


async def connect(port: int, connections: int) -> None:
    """Be the client, so many times."""
    limits = WireLimits(MAX_MESSAGE, PING_S, PING_S)
    for _ in range(connections):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        opening = wire.connect(
            stream, f"127.0.0.1:{port}", "/", subprotocols=(), headers=(), limits=limits, timeout_s=10.0
        )
        try:
            async with opening as socket:
                await echo(socket)
        except Refused as refused:
            print(f"refused: {refused}", file=sys.stderr)


if __name__ == "__main__":
    wire.Frames = KindFrames  # type: ignore[misc, assignment]  # which it makes
    if sys.argv[1] == "server":
        trio.run(serve)
    else:
        trio.run(connect, int(sys.argv[2]), int(sys.argv[3]))
