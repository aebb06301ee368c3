"""What is refused before it becomes an exchange: hosts, origins, media types, JSON, envelopes (cases 8, 9, 12-20)."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.protocol.messages import Result

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "PUT"])
@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"origin": "https://evil.example"}, 403, 40300),
        ({"origin": "null"}, 403, 40300),
        ({"host": "evil.example"}, 421, 42100),
        ({"host": "evil.example", "origin": "http://localhost"}, 421, 42100),
    ],
)
async def test_foreign_hosts_and_origins_are_refused_on_every_method(
    running, autojump_clock, method, headers, status, code
):
    """Case 12, before anything else is looked at."""
    async with running() as served:
        session = await served.session()
        answer = await served.ask(method, "/mcp", PING if method == "POST" else None, **{**session, **headers})

        assert (status, code) == (answer.status, answer.code)
        assert "access-control-allow-origin" not in answer.headers


async def test_pages_of_allowed_origins_may_ask_and_read(running, autojump_clock):
    """`allowed_origins` opens the source to their scripts: preflight, and headers they may read."""
    async with running(allowed_origins=("https://app.example",)) as served:
        session = {**await served.session(), "origin": "https://app.example"}
        preflight = await served.ask(
            "OPTIONS", "/mcp", None, origin="https://app.example", access_control_request_method="POST",
            access_control_request_headers="content-type, mcp-session-id",
        )  # fmt: skip
        answer = await served.post(served.request("tools/list"), **session)
        refused = await served.post(b"{", **session)

        assert (204, "GET, POST, DELETE") == (preflight.status, preflight.headers["access-control-allow-methods"])
        assert "content-type, mcp-session-id" == preflight.headers["access-control-allow-headers"]
        for each in (preflight, answer, refused):
            assert "https://app.example" == each.headers["access-control-allow-origin"]
            assert "origin" == each.headers["vary"]
            exposed = each.headers["access-control-expose-headers"].split(", ")
            assert {"mcp-session-id", "retry-after", "ratelimit", "x-ratelimit-remaining"} <= set(exposed)


async def test_allowed_hosts_are_served(running, autojump_clock):
    """`allowed_hosts` adds names to those of loopback."""
    async with running(allowed_hosts=("gateway.example",)) as served:
        answer = await served.post(served.request("initialize", protocolVersion="2025-11-25"), host="gateway.example:9")

        assert 200 == answer.status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_type": None}, 415), ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/json; charset=utf-16"}, 415), ({"content_encoding": "gzip"}, 415),
        ({"accept": "text/html"}, 406), ({"accept": None}, 406), ({"accept": "application/json"}, 406),
        ({"accept": "*/*"}, 200), ({"accept": "application/*, text/event-stream"}, 200),
    ],
)  # fmt: skip
async def test_media_types(running, autojump_clock, headers, status):
    """Cases 8 and 9."""
    async with running() as served:
        session = await served.session()
        answer = await served.post(PING, **{**session, **headers})

        assert status == answer.status
        if status != 200:
            assert (-32600, None) == (answer.code, answer.json["id"])


DEEP = b'{"jsonrpc":"2.0","id":1,"method":"a/b","params":{"a":' + b"[" * 64 + b"]" * 64 + b"}}"

BROKEN = {
    "not json": (b"{", -32700),
    "empty": (b"", -32700),
    "invalid utf-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', -32700),
    "byte order mark": (b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"ping"}', -32700),
    "nan": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}', -32700),
    "trailing bytes": (b'{"jsonrpc":"2.0","id":1,"method":"ping"}x', -32700),
    "two messages": (b'{"jsonrpc":"2.0","id":1,"method":"ping"}{}', -32700),
    "lone surrogate": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"\\ud800"}}', -32700),
    "method twice": (b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}', -32600),
    "name twice": (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}', -32600),
    "Method": (b'{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}', -32600),
    "fullwidth": ('{"jsonrpc":"2.0","id":1,"method":"ping","\uff4dethod":"a"}'.encode(), -32600),
    "too deep": (DEEP, -32600),
    "deep as a well": (b"[" * 100_000, None),
    "too many separators": (b"[" + b"[]," * 300_000 + b"[]]", -32600),
    "id null": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
    "id fraction": (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
    "id true": (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
    "id object": (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600),
    "id too great": (b'{"jsonrpc":"2.0","id":9007199254740992,"method":"ping"}', -32600),
    "jsonrpc 1.0": (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
    "params array": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32600),
    "result and method": (b'{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}', -32600),
    "number": (b"5", -32600),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_messages_that_are_not_one_are_refused_and_the_session_lives(running, autojump_clock, name):
    """Cases 14 to 18 and 20: 400, the exact code, nothing called, nothing ended."""
    called = []

    async def sink(exchange):
        called.append(exchange.method)
        return Result({"protocolVersion": "2025-11-25"})

    async with running(sink) as served:
        session = await served.session()
        data, code = BROKEN[name]
        answer = await served.post(data, **session)
        after = await served.post(served.request("tools/list"), **session)

        assert 400 == answer.status
        assert answer.code == code if code else answer.code in (-32700, -32600)
        assert answer.json["id"] in (None, 1)
        assert code != -32700 or answer.json["id"] is None
        assert (200, ["initialize", "tools/list"]) == (after.status, called)


async def test_other_paths_do_not_exist(running, autojump_clock):
    """404 names the endpoint."""
    async with running(path="/gateway/mcp") as served:
        away = await served.ask("POST", "/mcp", PING)
        here = await served.ask("POST", "/gateway/mcp", served.request("initialize", protocolVersion="2025-11-25"))

        assert (404, 200) == (away.status, here.status)
        assert "/gateway/mcp" in away.json["error"]["message"]
