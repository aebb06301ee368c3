"""What the connections of `fuzz.py` bring: sound requests, broken in many ways. The same seed, the same bytes."""

from __future__ import annotations

import json
import random
from enum import Enum

from attrs import frozen
from h2.config import H2Configuration
from h2.connection import H2Connection


class Face(Enum):
    """Where a connection goes, and what it speaks there."""

    PLAIN = "HTTP/1.1 in the clear"
    RUBBISH = "no TLS where TLS is spoken"
    TLS = "HTTP/1.1 over TLS"
    TORN = "TLS that is torn after its handshake"
    HTTP2 = "HTTP/2 over TLS"


class End(Enum):
    """How a connection ends."""

    CLOSE = "closed at once"
    RESET = "reset at once"
    HALF = "half closed; what comes is read"
    READ = "closed when something was read, or nothing came"


@frozen
class Plan:
    """One connection."""

    face: Face
    pieces: tuple[bytes, ...]
    """What is sent, one write each."""
    end: End


META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "fuzz", "version": "1"}}
SESSION = "a-session-that-is-put-here"
"""Where the id of a session goes that is there."""
IN_SESSION = f"MCP-Protocol-Version: 2025-11-25\r\nMcp-Session-Id: {SESSION}\r\n"
MODERN = "MCP-Protocol-Version: 2026-07-28\r\n"


def message(method: str, params: object, message_id: object = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": message_id, "method": method, "params": params}).encode()


def post(body: bytes, lines: str = "", path: str = "/mcp") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Accept: application/json, text/event-stream\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def _chunked(body: bytes, lines: str) -> bytes:
    head = post(b"", lines).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    half = len(body) // 2
    pieces = (body[:half], body[half:])
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def _http2() -> bytes:
    """Three calls of HTTP/2, with everything before them."""
    h2 = H2Connection(H2Configuration(client_side=True))
    h2.initiate_connection()
    for stream in (1, 3, 5):
        fields = {
            ":method": "POST", ":path": "/mcp", ":scheme": "https", ":authority": "localhost",
            "content-type": "application/json", "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "echo",
        }  # fmt: skip
        h2.send_headers(stream, list(fields.items()))
        h2.send_data(stream, CALL if stream < 5 else SLOW, end_stream=True)
    return h2.data_to_send()


def _frame(payload: bytes) -> bytes:
    return bytes((0x81, 0xFE)) + len(payload).to_bytes(2, "big") + bytes(4) + payload


CALL = message("tools/call", {"name": "echo", "arguments": {"text": "hello"}, "_meta": META})
SLOW = message(
    "tools/call", {"name": "countdown", "arguments": {"seconds": 30}, "_meta": {**META, "progressToken": "t"}}
)
CALLING = f"{MODERN}Mcp-Method: tools/call\r\nMcp-Name: echo\r\n"
COUNTING = f"{MODERN}Mcp-Method: tools/call\r\nMcp-Name: countdown\r\n"
LISTEN = message("subscriptions/listen", {"notifications": {"toolsListChanged": True}, "_meta": META})
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mcp\r\n\r\n"
)
SOUND = (
    *(post(CALL, CALLING),) * 4,
    post(SLOW, COUNTING),
    post(message("tools/list", {"_meta": META}), f"{MODERN}Mcp-Method: tools/list\r\n"),
    post(LISTEN, f"{MODERN}Mcp-Method: subscriptions/listen\r\n"),
    post(message("initialize", HELLO)),
    post(message("tools/call", {"name": "echo", "arguments": {}}), IN_SESSION),
    post(message("tools/call", {"name": "countdown", "arguments": {"seconds": 30}}), IN_SESSION),
    post(message("ping", {}), IN_SESSION),
    _chunked(CALL, CALLING),
    _chunked(CALL, f"{CALLING}Expect: 100-continue\r\n"),
    f"GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{IN_SESSION}\r\n".encode(),
    b"GET /sse HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
    f"DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{IN_SESSION}\r\n".encode(),
    b"OPTIONS /mcp HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n",
    UPGRADE + _frame(CALL) + _frame(SLOW),
    UPGRADE + _frame(CALL) + b"\x89\x80\0\0\0\0\x88\x80\0\0\0\0",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + (b"\0\0\5\2\0\0\0\0\3" + bytes(5)) * 20,
)
"""What a client might send, and is answered if nothing happens to it."""

HTTP2 = _http2()

HELLO_TLS = (
    bytes.fromhex("16030100c8010000c40303") + bytes(32) + b"\x20" + bytes(32) + bytes.fromhex("0004130113020100")
)
"""The beginning of a handshake."""

TOKENS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b"\r\n ", b"\x80", b"\xff\xfe", b"%00", b"/../",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding:\r\n chunked\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Connection: Upgrade\r\n", b"Upgrade: h2c\r\n",
    b"Host: evil.example\r\n", b"X-A: " + b"a" * 9000 + b"\r\n", b"X: y\r\n" * 101, b"0\r\n\r\n",
    b"ffffffffffffffff\r\n", b"10000000000000003\r\n", b"-1\r\n", b"5;a=b\r\nhello\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b'"', b"\\", b"{", b"[" * 70, b"[" * 2000, b"\\ud800",
    b"NaN", b"1e400", b'"method":"x",', b'"Method":"x",',
    b'"id":null,', b'"id":9007199254740993,', b"\xef\xbb\xbf", b",[{" * 300, b'"\\u0000"', b'{"":{"":', b"\x81\x7f",
    b"\x82\x00", b"\xc1\x80", b"\x01\x81\0\0\0\0a", b"\x88\x82\0\0\0\0\x03\xe8", b"\x16\x03\x01",
    b"\x15\x03\x03\0\2\1\0",
)  # fmt: skip
"""What makes parsers disagree, put somewhere."""

MOST_PIECES = 6


def plan_of(seed: int, number: int) -> Plan:
    """Connection so-and-so of a seed."""
    rng = random.Random(seed << 32 | number)
    data = b"".join(rng.choice(SOUND) for _ in range(rng.choices((1, 2, 3, 8), (70, 15, 10, 5))[0]))
    for _ in range(rng.choices((0, 1, 2, 4, 8), (15, 40, 25, 15, 5))[0]):
        data = _mutated(data, rng)
    face = rng.choices(tuple(Face), (84, 6, 6, 2, 2))[0]
    if face is Face.HTTP2:
        data = _mutated(_mutated(HTTP2, rng), rng)
    if face is Face.RUBBISH and rng.random() < 0.7:
        data = _mutated(HELLO_TLS, rng) + rng.randbytes(rng.randrange(200))
    return Plan(face, _pieces(data, rng), rng.choices(tuple(End), (30, 20, 25, 25))[0])


def _mutated(data: bytes, rng: random.Random) -> bytes:
    """With one thing about it that is other than it was."""
    at = rng.randrange(len(data) + 1)
    upto = min(len(data), at + rng.choice((1, 1, 2, 8, 64)))
    match rng.randrange(9):
        case 0:
            return data[:at] + rng.randbytes(1) + data[at + 1 :]
        case 1 | 2 | 3:
            return data[:at] + rng.choice(TOKENS) + data[at:]
        case 4:
            return data[:at] + data[upto:]
        case 5:
            return data[:at] + data[at:upto] * rng.choice((2, 2, 40)) + data[upto:]
        case 6:
            return data[:at]
        case 7:
            return data[:at] + rng.choice(SOUND)[rng.randrange(30) :]
        case _:
            return data.replace(
                *rng.choice(((b"\r\n", b"\n"), (b": ", b" :"), (b"POST", b"post"), (b"1.1", b"1.0"))), 3
            )


def _pieces(data: bytes, rng: random.Random) -> tuple[bytes, ...]:
    """As a network might cut it; half of all connections come in one."""
    if len(data) < 2 or rng.random() < 0.5:
        return (data,)
    cuts = sorted(rng.randrange(1, len(data)) for _ in range(rng.randrange(1, MOST_PIECES)))
    return tuple(data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b)
