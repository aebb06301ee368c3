"""A source with real sockets keeps the contract of sources, driven by a client over loopback."""

import json

import trio

from sluiceway.pipeline.protocol.mcp import LATEST, MetaKey
from sluiceway.pipeline.testing.contract import check_source
from sluiceway.transports.http_source.source import HttpSource

BODY = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/list",
        "params": {"_meta": {MetaKey.VERSION: LATEST, MetaKey.CLIENT_INFO: {"name": "c", "version": "1"},
                             MetaKey.CLIENT_CAPABILITIES: {}}},
    }
).encode()  # fmt: skip


async def drive(source):
    """One request over HTTP/1.1, and its answer."""
    host, _, port = source.addresses[0].rpartition(":")
    head = (
        f"POST /mcp HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        f"accept: application/json, text/event-stream\r\nmcp-protocol-version: {LATEST}\r\nmcp-method: tools/list\r\n"
        f"content-length: {len(BODY)}\r\n\r\n"
    )
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(head.encode() + BODY)
        answer = b"".join([chunk async for chunk in stream])

    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert b'"result"' in answer


def test_the_http_source_keeps_the_contract():
    """Opened twice, cancelled everywhere, driven once: nothing is left."""
    check_source(HttpSource, {"bind": "127.0.0.1:0"}, drive=drive, virtual_time=False)
