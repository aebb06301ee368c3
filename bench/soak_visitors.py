"""Those who visit the gateway of `soak.py`: over HTTP/1.1, HTTP/2 and WebSockets, in both eras, in no order."""

from __future__ import annotations

import json
import random
import socket
import ssl
import struct
from contextlib import suppress
from typing import Any

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded
from h2.exceptions import ProtocolError

MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


RUBBISH = (
    b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\n[{,",
    b"GET /ws HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: mcp\r\n\r\n\x81\xfe\x00\x05\0\0\0\0hello",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + (b"\0\0\5\2\0\0\0\0\3" + bytes(5)) * 50,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
    b"GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\nGET /",
)
"""What hostile visitors begin with, before some of its bytes become others: see `Visitor._hostile`."""


class Visitor:
    """
    One visit at a time: a connection, a few messages, and a way to leave.

    Args:
        port: Where HTTP/1.1 and WebSockets are spoken.
        safe: Where TLS is spoken, and over it HTTP/2.
        rng: What it does.
        hostile: Share of visits that only bring rubbish.
    """

    def __init__(self, port: int, safe: int, rng: random.Random, hostile: float) -> None:
        self.port = port
        self.safe = safe
        self.rng = rng
        self.hostile = hostile
        self.answered = self.left = 0
        self.visits = dict.fromkeys(("modern", "legacy", "websocket", "http2", "hostile"), 0)

    async def visit(self) -> None:
        """Connect, call and vanish."""
        hostile = self.rng.random() < self.hostile
        face = "hostile" if hostile else self.rng.choices(list(self.visits), (40, 20, 20, 20, 0))[0]
        self.visits[face] += 1
        secured = face == "http2" or (face == "hostile" and self.rng.random() < 0.2)
        stream = await trio.open_tcp_stream("127.0.0.1", self.safe if secured else self.port)
        ways = {
            "modern": self._modern, "legacy": self._legacy, "websocket": self._websocket, "http2": self._http2,
            "hostile": self._hostile,
        }  # fmt: skip
        try:
            await ways[face](stream)
        except trio.BrokenResourceError:
            self.left += 1
        finally:
            if self.rng.random() < 0.3:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.aclose_forcefully(stream)

    def _some_call(self) -> tuple[dict[str, Any], bool]:
        """Parameters of a call, and whether it takes longer than anybody waits."""
        upstream, slow = self.rng.choice(("near", "far", "fast", "wire")), self.rng.random() < 0.5
        name = f"{upstream}.countdown" if slow else f"{upstream}.echo"
        arguments = {"seconds": 30} if slow else {"text": "hello"}
        return {"name": name, "arguments": arguments, "_meta": {**MODERN, "progressToken": "t"}}, slow

    async def _modern(self, stream: trio.SocketStream) -> None:
        message, slow = self._some_call()
        head = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": message["name"]}
        await self._post(stream, "tools/call", message, head)
        await self._leave(stream, wait=not slow)

    async def _websocket(self, stream: trio.SocketStream) -> None:
        await stream.send_all(
            f"GET /ws HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "sec-websocket-protocol: mcp\r\n\r\n".encode()
        )
        if self.rng.random() < 0.1:
            self.left += 1
            return
        await self._receive(stream)
        slow = False
        for number in range(self.rng.randrange(1, 4)):
            message, slow = self._some_call()
            body = json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": message}).encode()
            await stream.send_all(bytes((0x81, 0xFE)) + len(body).to_bytes(2, "big") + bytes(4) + body)
            if slow:
                break
            await self._expect(stream)
        if slow or self.rng.random() < 0.5:
            await self._leave(stream, wait=False)
        else:
            self.answered += 1
            await stream.send_all(bytes((0x88, 0x80)) + bytes(4))  # a close frame, as it should be
            await self._receive(stream)

    async def _http2(self, stream: trio.SocketStream) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        tls = trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True)
        h2 = H2Connection(H2Configuration(client_side=True))
        h2.initiate_connection()
        waits = []
        for number in range(self.rng.randrange(1, 4)):
            message, slow = self._some_call()
            waits += [] if slow else [number]
            body = json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": message}).encode()
            fields = {
                ":method": "POST", ":path": "/mcp", ":scheme": "https", ":authority": f"127.0.0.1:{self.safe}",
                "content-type": "application/json", "accept": "application/json, text/event-stream",
                "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": message["name"],
            }  # fmt: skip
            h2.send_headers(2 * number + 1, list(fields.items()))
            h2.send_data(2 * number + 1, body, end_stream=True)
        await tls.send_all(h2.data_to_send())
        if self.rng.random() < 0.5:
            await self._leave(stream, wait=False)
            return
        ended = 0
        with trio.fail_after(30):
            while ended < len(waits):
                events = h2.receive_data(bytes(await tls.receive_some(65536)))
                ended += sum(isinstance(event, StreamEnded) for event in events)
                await tls.send_all(h2.data_to_send())
        self.answered += 1
        if self.rng.random() < 0.5:  # the others are taken back one by one, or go with the connection
            for number in range(2 * h2.highest_outbound_stream_id):
                with suppress(ProtocolError):
                    h2.reset_stream(number)
            await tls.send_all(h2.data_to_send())

    async def _hostile(self, stream: trio.SocketStream) -> None:
        """Something that begins well, with up to eight bytes of it others, cut somewhere, sent in pieces."""
        data = bytearray(self.rng.choice(RUBBISH))
        for _ in range(self.rng.randrange(9)):
            data[self.rng.randrange(len(data))] = self.rng.randrange(256)
        self.left += 1
        pieces = self.rng.randrange(1, 4)
        for piece in range(pieces):
            await stream.send_all(data[piece * len(data) // pieces : (piece + 1) * len(data) // pieces])
            await trio.lowlevel.checkpoint()
        if self.rng.random() < 0.5:
            with trio.move_on_after(0.05):
                await stream.receive_some(65536)

    async def _expect(self, stream: trio.SocketStream) -> None:
        got = ""
        while '"content"' not in got:
            more = await self._receive(stream)
            if not more:
                raise RuntimeError(f"this is no result: {got}")
            got += more

    async def _legacy(self, stream: trio.SocketStream) -> None:
        client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "soak", "version": "1"}}
        await self._post(stream, "initialize", client, {})
        if self.rng.random() < 0.2:
            self.left += 1
            return
        answer = await self._receive(stream)
        session = next(
            (line.split(": ")[1] for line in answer.split("\r\n") if line.lower().startswith("mcp-session-id")), ""
        )
        head = {"mcp-protocol-version": "2025-11-25", "mcp-session-id": session}
        call = {"name": "near.echo", "arguments": {"text": "hello"}}
        await self._post(stream, "tools/call", call, head)
        await self._leave(stream, wait=self.rng.random() < 0.5)
        if session:  # politeness varies; those who do not say goodbye are found by their session's own limits
            await self._goodbye(session)

    async def _goodbye(self, session: str) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(
                f"DELETE /mcp HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\nmcp-session-id: {session}\r\n"
                "mcp-protocol-version: 2025-11-25\r\n\r\n".encode()
            )
            await self._receive(stream)

    async def _leave(self, stream: trio.SocketStream, *, wait: bool) -> None:
        if wait:
            reply = await self._receive(stream)
            if '"content"' not in reply and "session_not_found" not in reply:  # a slow machine lets sessions idle out
                raise RuntimeError(f"this is no result: {reply}")
            self.answered += 1
            return
        self.left += 1
        match self.rng.randrange(4):
            case 0:
                return
            case 1:
                await trio.sleep(self.rng.random() * 0.02)
            case 2:
                await stream.send_eof()
            case _:
                with trio.move_on_after(0.2):
                    await stream.receive_some(256)

    async def _post(self, stream: trio.SocketStream, method: str, params: Any, head: dict[str, str]) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        lines = {
            "host": f"127.0.0.1:{self.port}", "content-type": "application/json",
            "accept": "application/json, text/event-stream", "content-length": str(len(body)), **head,
        }  # fmt: skip
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await stream.send_all(f"POST /mcp HTTP/1.1\r\n{text}\r\n".encode() + body)

    async def _receive(self, stream: trio.SocketStream) -> str:
        with trio.fail_after(30):
            return bytes(await stream.receive_some(65536)).decode("utf-8", "replace")
