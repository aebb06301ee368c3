"""What an HTTP source refuses before there is an exchange is told to whoever watches, once each."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.security import Refusal
from sluiceway.transports.http_source.config import HttpConfig
from sluiceway.transports.http_source.source import HttpSource

POST = (
    b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Accept: application/json, text/event-stream\r\n"
)


def _post(body: bytes, head: bytes = b"") -> bytes:
    return POST + head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (_post(b"{}", b"Origin: http://evil.example\r\n"), "foreign_origin"),
        (POST.replace(b"127.0.0.1", b"evil.example") + b"Content-Length: 0\r\n\r\n", "misdirected"),
        (_post(b'{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}'), "ambiguous_message"),
        (_post(b"{]"), "parse_error"),
        (_post(b'{"jsonrpc":"2.0","id":1,"method":"ping"}', b"Mcp-Session-Id: nobodys\r\n"), "session_not_found"),
        (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "smuggling"),
    ],
)
async def test_what_is_refused_at_the_door_is_one_alarm(sent, reason):
    """With the source and the address; ordinary 404s and 405s are none."""
    alarms: list[Refusal] = []
    source = HttpSource(HttpConfig(bind="127.0.0.1:0"), Context(id="public", alarm=alarms.append))

    def handle(*_arguments, **_named):
        raise AssertionError("nothing here becomes an exchange")

    async with source.open(), trio.open_nursery() as nursery:
        nursery.start_soon(source.serve, handle)
        port = int(source.addresses[0].rpartition(":")[2])
        await trio.testing.wait_all_tasks_blocked()
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert b" 404 " in await stream.receive_some()
            await stream.send_all(sent)
            with trio.fail_after(5):
                answer = await stream.receive_some()
        nursery.cancel_scope.cancel()

    assert answer[9:10] == b"4", answer
    assert alarms == [Refusal(reason=reason, source="public", address="127.0.0.1")]
