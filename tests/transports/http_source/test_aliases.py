"""Paths of their own for single methods (S2-RO-01 to 05, S4-SE-02)."""

from __future__ import annotations

import pytest
import trio

from sluiceway.pipeline.protocol.errors import CapacityExceeded
from sluiceway.pipeline.protocol.mcp import LATEST, Era
from sluiceway.pipeline.protocol.messages import ErrorReply, Result

METHODS = [
    "tools/list", "tools/call", "resources/list", "resources/templates/list", "resources/read", "prompts/list",
    "prompts/get",
]  # fmt: skip


@pytest.mark.parametrize("path", ["/tools/list", "/sampling/createMessage", "/", "/mcp/stream"])
async def test_aliases_are_off_by_default(running, autojump_clock, path):
    """404 like any other path."""
    async with running() as served:
        assert 404 == (await served.ask("POST", path, {})).status


@pytest.mark.parametrize("method", METHODS)
async def test_an_alias_answers_with_the_result_of_its_method(running, autojump_clock, method):
    """The body is the params, the answer the result: the same as through the endpoint."""

    async def sink(exchange):
        return Result({"method": exchange.method, "params": dict(exchange.request.params)})

    async with running(sink, aliases=True) as served:
        params = {"name": "a", "uri": "b:c", "_meta": {"k": 1}}
        alias = await served.ask("POST", f"/{method}", params, accept=None)
        endpoint = await served.post_modern(served.modern(method, **params), mcp_name=None or _name(method))

        assert 200 == alias.status
        assert endpoint.json["result"] == alias.json
        assert 1 == alias.json["params"]["_meta"]["k"]


def _name(method):
    return {"tools/call": "a", "prompts/get": "a", "resources/read": "b:c"}.get(method)


async def test_an_alias_is_a_modern_client_or_one_of_a_session(running, autojump_clock):
    """Without a session it has the latest version and no capabilities; an empty body means no params."""
    seen = []

    async def sink(exchange):
        seen.append((exchange.client.era, exchange.client.version))
        return Result({"protocolVersion": "2025-06-18"})

    async with running(sink, aliases=True) as served:
        session = await served.session("2025-06-18")
        first = await served.ask("POST", "/tools/list", b"")
        second = await served.ask("POST", "/resources/subscribe", {"uri": "a:b"}, **session)
        third = await served.ask("POST", "/tools/list", {}, mcp_session_id="0" * 32)

        assert [200, 200, 404] == [first.status, second.status, third.status]
        assert [(Era.MODERN, LATEST), (Era.LEGACY, "2025-06-18")] == seen[1:]


async def test_what_needs_a_session_says_so(running, autojump_clock):
    """Subscribing without a stream has no sense; sampling goes the other way."""
    async with running(aliases=True) as served:
        subscribe = await served.ask("POST", "/resources/subscribe", {"uri": "a:b"})
        sampling = await served.ask("POST", "/sampling/createMessage", {})

        assert (404, -32601, 501) == (subscribe.status, subscribe.code, sampling.status)
        assert "mcp-session-id" in subscribe.json["error"]["message"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ErrorReply(-32602, "unknown prompt", {"d": 1}), 400), (ErrorReply(-32601, "no"), 404),
        (ErrorReply(-32002, "no"), 404), (ErrorReply(-32603, "no"), 500), (ErrorReply(7, "no", http_status=418), 418),
    ],
)  # fmt: skip
async def test_errors_have_a_status(running, autojump_clock, error, status):
    """And the error object as body."""

    async def sink(exchange):
        return error

    async with running(sink, aliases=True) as served:
        answer = await served.ask("POST", "/prompts/get", {"name": "x"})

        assert (status, error.code, error.message) == (answer.status, answer.code, answer.json["error"]["message"])
        assert error.data == answer.json["error"].get("data")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[]", 400), (b"5", 400), (b"{", 400), (b'{"a":1,"a":2}', 400), (b'{},"method":"x"', 400),
        (b'{"Name":"x","name":"y"}', 400), (b'{"_Meta":{}}', 400),
    ],
)  # fmt: skip
async def test_bodies_pass_the_same_gate(running, autojump_clock, body, status):
    """One object, read alike by every parser; nothing can be smuggled beside it."""
    async with running(aliases=True) as served:
        answer = await served.ask("POST", "/tools/call", body)

        assert (status, 0) == (answer.status, served.pipeline.served)


async def test_aliases_check_host_origin_and_method(running, autojump_clock):
    """What holds for the endpoint holds for them."""
    async with running(aliases=True) as served:
        statuses = [
            (await served.ask("POST", "/tools/list", {}, host="evil.example")).status,
            (await served.ask("POST", "/tools/list", {}, origin="http://evil.example")).status,
            (await served.ask("GET", "/tools/list")).status,
            (await served.ask("GET", "/mcp/stream")).status,
            (await served.ask("POST", "/tools/list", {}, content_type="text/plain")).status,
            (
                await served.ask(
                    "OPTIONS", "/tools/list", origin="http://localhost", access_control_request_method="POST"
                )
            ).status,
        ]

        assert [421, 403, 405, 405, 415, 204] == statuses


async def test_progress_has_no_place_and_leaving_cancels(running, autojump_clock):
    """An alias answers with one body, however long it takes; a client that leaves has cancelled."""
    async with running(aliases=True, keep_alive=1.0) as served:
        talks = await served.ask("POST", "/tools/call", {"name": "progress", "arguments": {"times": 100}})
        slow = await served.ask("POST", "/tools/call", {"name": "slow"})
        wire = served.connect()
        await wire.send("POST", "/tools/call", {"name": "slow"})
        await trio.sleep(1)
        await wire.aclose()
        await trio.testing.wait_all_tasks_blocked()

        assert ["progress", "slow"] == [a.json["name"] for a in (talks, slow)]
        assert 1 == served.pipeline.cancelled


async def test_the_stream_alias_always_streams_and_the_root_is_the_endpoint(running, autojump_clock):
    """`/mcp/stream` is `/mcp` for a client that wants events (S4-SE-02); `/` is `/mcp` (S2-RO-01)."""
    async with running(aliases=True) as served:
        body = served.modern("tools/call", name="a")
        streamed = await served.ask("POST", "/mcp/stream", body, **served.mirror(body))
        session = await served.session()
        legacy = await served.ask("POST", "/mcp/stream", served.calling("a"), **session)
        root = await served.ask("POST", "/", body, **served.mirror(body))

        assert ["a", "a"] == [a.messages[-1]["result"]["name"] for a in (streamed, legacy)]
        assert "a" == root.json["result"]["name"]


async def test_draining_refuses_aliases_too(running, autojump_clock):
    """503; and so does a pipeline that is full."""

    async def sink(exchange):
        raise CapacityExceeded("full")

    async with running(sink, aliases=True) as served:
        full = await served.ask("POST", "/tools/list", {})
        served.source.stop_accepting()
        draining = await served.ask("POST", "/tools/list", {})

        assert [(503, 50301), (503, 50300)] == [(a.status, a.code) for a in (full, draining)]
