"""
The upstream behind every gateway that is compared: as fast as Python gets, so that what is measured is the gateway.

    python upstream.py PORT

Run by an environment of the bench that has uvloop. It speaks both eras over HTTP, without sessions. `echo` answers with
its text; `blob` with as many bytes as `size` says, which it has ready.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import httptools
import orjson
import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_TAKEN = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
_NOT_USED = b"HTTP/1.1 405 Method Not Allowed\r\nallow: POST\r\ncontent-length: 0\r\n\r\n"
_ABOUT = {"capabilities": {"tools": {}}, "serverInfo": {"name": "bench", "version": "1"}}
_TOOLS = [
    {"name": "echo", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}},
    {"name": "blob", "inputSchema": {"type": "object", "properties": {"size": {"type": "integer"}}}},
]
_BLOBS: dict[int, bytes] = {}


def _blob(size: int) -> bytes:
    """A result of about so many bytes of records, encoded once."""
    if size not in _BLOBS:
        record = {"id": 7, "title": "a line of a table", "tags": ["a", "b"], "score": 0.25}
        rows = [record] * max(1, size // len(orjson.dumps(record)))
        _BLOBS[size] = orjson.dumps({"content": [], "structuredContent": {"rows": rows}, "resultType": "complete"})
    return _BLOBS[size]


def _result(method: str, params: dict) -> bytes | None:
    match method:
        case "tools/call" if params["name"] == "blob":
            return _blob(int(params["arguments"]["size"]))
        case "tools/call":
            text = params["arguments"]["text"]
            return orjson.dumps({"content": [{"type": "text", "text": text}], "resultType": "complete"})
        case "initialize":
            return orjson.dumps({"protocolVersion": params["protocolVersion"], **_ABOUT})
        case "server/discover":
            return orjson.dumps({"supportedVersions": ["2026-07-28"], "resultType": "complete", **_ABOUT})
        case "tools/list":
            return orjson.dumps({"tools": _TOOLS, "resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"})
        case "ping":
            return b"{}"
    return None


def _answer(body: bytes) -> bytes:
    message = orjson.loads(body)
    if message.get("id") is None or "method" not in message:
        return _TAKEN
    result = _result(message["method"], message.get("params") or {})
    end = b'"error":{"code":-32601,"message":"no such method"}}' if result is None else b'"result":%b}' % result
    reply = b'{"jsonrpc":"2.0","id":%b,%b' % (orjson.dumps(message["id"]), end)
    return _HEAD % len(reply) + reply


class _Connection(asyncio.Protocol):
    """One client."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def on_message_complete(self) -> None:
        body, self._body = b"".join(self._body), []
        self._transport.write(_answer(body) if self._parser.get_method() == b"POST" else _NOT_USED)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()


async def _serve(port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    server = await asyncio.get_running_loop().create_server(_Connection, sock=listener)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
