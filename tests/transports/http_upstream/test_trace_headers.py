"""What `_meta` says of a trace, once more in headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.protocol.messages import Notification, Request
from sluiceway.pipeline.protocol.trace_context import parse_traceparent
from sluiceway.transports.http_upstream.headers import trace_headers

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("meta", "lines"),
    [
        ({}, []),
        ({"traceparent": PARENT}, [f"traceparent: {PARENT}"]),
        (
            {"traceparent": PARENT, "tracestate": "a=1, b=2", "baggage": "user=ana"},
            [f"traceparent: {PARENT}", "tracestate: a=1,b=2", "baggage: user=ana"],
        ),
        ({"tracestate": "a=1"}, []),
        ({"traceparent": "made up", "tracestate": "a=1"}, []),
        ({"traceparent": f"{PARENT}\r\nx-evil: 1", "baggage": "a=1\r\nx-evil: 1"}, []),
        ({"traceparent": 7, "baggage": ["a=1"]}, []),
    ],
)
def test_only_what_is_valid_becomes_a_header(meta, lines):
    """A client's text must not become a header line of its own."""
    params = {"_meta": meta}

    for message in (Request(1, "tools/call", params), Notification("notifications/x", params)):
        assert trace_headers(message).decode().splitlines() == lines


@given(
    st.from_regex(r"(00|01|ff)-(0{32}|[0-9a-f]{32})-(0{16}|[0-9a-f]{16})-([0-9a-f]{2}|0[0-3])(-x|\n)?", fullmatch=True)
)
def test_a_parent_stands_there_as_it_was_understood(parent):
    """Law: whatever is passed on without being parsed is what parsing and rendering make of it."""
    context = parse_traceparent(parent)

    lines = trace_headers(Request(1, "tools/call", {"_meta": {"traceparent": parent}}))

    assert lines == (b"" if context is None else f"traceparent: {context.traceparent}\r\n".encode())


async def test_a_modern_upstream_gets_them(autojump_clock, upstream, make_sink, modern):
    """With every message that has them, and only with that."""

    async def handle(seen, answer):
        if seen.rpc == "server/discover":
            await answer.result(seen, {"supportedVersions": ["2026-07-28"], "capabilities": {}})
        elif "id" in seen.json:
            await answer.result(seen, {})
        else:
            await answer.send(202)

    upstream.handle = handle
    exchange = modern(name="n")
    params = exchange.request.params
    traced = {**params, "_meta": {**params["_meta"], "traceparent": PARENT}}
    async with make_sink(era="modern") as sink:
        await sink(exchange)
        await sink(exchange.with_request(exchange.request.with_params(traced)))

    assert [seen.headers.get("traceparent") for seen in upstream.seen] == [None, PARENT]
