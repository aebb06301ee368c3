"""A token of the gateway's own: fetched, kept, renewed."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qs

import pytest
import trio

from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.protocol.errors import UpstreamFault, UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.transports.http_upstream.config import OAuthConfig


class Servers:
    """An upstream that wants a token, and the server that gives it."""

    def __init__(self, upstream: Any) -> None:
        self.upstream = upstream
        self.answer: Any = lambda number: {"access_token": f"t{number}", "token_type": "Bearer", "expires_in": 3600}
        self.status = 200
        self.valid: set[str] | None = None
        self.fetched = 0
        self.calls: list[str] = []
        upstream.handle = self.handle

    async def handle(self, seen: Any, answer: Any) -> None:
        if seen.path == "/token":
            await trio.sleep(1)
            self.fetched += 1
            await answer.json(self.answer(self.fetched), self.status)
            return
        token = seen.headers.get("authorization", "").removeprefix("Bearer ")
        self.calls.append(token)
        if self.valid is not None and token not in self.valid:
            await answer.send(401, www_authenticate="Bearer")
        else:
            await answer.result(seen, {})


@pytest.fixture
def servers(upstream: Any) -> Servers:
    """Both, on one fake."""
    return Servers(upstream)


@pytest.fixture
def oauth(monkeypatch: pytest.MonkeyPatch) -> OAuthConfig:
    """Options whose secret is in the environment."""
    monkeypatch.setenv("CLIENT_SECRET", "s:%")
    return OAuthConfig(
        token_url="http://id.example/token",
        client_id="gate way",
        client_secret=Secret(from_env="CLIENT_SECRET"),
        scope="a b",
        resource="http://up.example/mcp",
    )


async def test_one_token_serves_everybody_until_it_expires(autojump_clock, servers, make_sink, modern, oauth):
    """Who comes while it is fetched waits for the same one."""
    async with make_sink(era="modern", oauth=oauth) as sink:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(sink, modern())
        await trio.sleep(3500)
        assert await sink(modern()) == Result()
        await trio.sleep(100)
        await sink(modern())

    assert servers.calls == ["t1"] * 4 + ["t2"]


async def test_the_request_for_a_token_is_the_standards(autojump_clock, upstream, servers, make_sink, modern, oauth):
    """RFC 6749 sections 2.3.1 and 4.4.2, RFC 8707."""
    async with make_sink(era="modern", oauth=oauth) as sink:
        await sink(modern())

    fetch = upstream.seen[0]
    assert fetch.path == "/token"
    assert fetch.headers["content-type"] == "application/x-www-form-urlencoded"
    assert base64.b64decode(fetch.headers["authorization"].removeprefix("Basic ")) == b"gate+way:s%3A%25"
    assert parse_qs(fetch.body.decode()) == {
        "grant_type": ["client_credentials"],
        "scope": ["a b"],
        "resource": ["http://up.example/mcp"],
    }


async def test_a_token_that_is_refused_is_renewed_once(autojump_clock, servers, make_sink, modern, oauth):
    """A 401 was not served, so the request goes out again; a second 401 is a failure of ours, never the client's."""
    async with make_sink(era="modern", oauth=oauth) as sink:
        await sink(modern())
        servers.valid = {"t2"}
        assert await sink(modern()) == Result()
        servers.valid = set()
        with pytest.raises(UpstreamUnavailable, match="own credential"):
            await sink(modern())

    assert servers.calls == ["t1", "t1", "t2", "t2", "t3"]


@pytest.mark.parametrize(("expires_in", "kept_s"), [(None, 269), (40, 19), ("3600", 3500)])
async def test_a_short_or_unstated_life_is_respected(
    autojump_clock, servers, make_sink, modern, oauth, expires_in, kept_s
):
    """Half of it at least is used; numbers in quotes are numbers."""
    servers.answer = lambda number: {"access_token": f"t{number}", "expires_in": expires_in}
    async with make_sink(era="modern", oauth=oauth) as sink:
        await sink(modern())
        await trio.sleep(kept_s)
        await sink(modern())
        await trio.sleep(100)
        await sink(modern())

    assert servers.calls == ["t1", "t1", "t2"]


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (400, {"error": "invalid_client"}, "invalid_client"),
        (500, "nothing", "HTTP 500"),
        (200, {"token": "x"}, "token response"),
        (200, {"access_token": "x", "token_type": "mac"}, "bearer"),
        (200, {"access_token": "a\r\nb"}, "bearer"),
        (200, {"access_token": "x" * 70_000}, "65536"),
    ],
)
async def test_what_is_no_token_is_a_failure_of_the_upstream(
    autojump_clock, upstream, servers, make_sink, modern, oauth, status, answer, words
):
    """It is named, without the secret, and nothing goes to the upstream."""
    servers.status, servers.answer = status, lambda _: answer
    async with make_sink(era="modern", oauth=oauth) as sink:
        with pytest.raises(UpstreamFault, match=words) as caught:
            await sink(modern())

    assert "s:%" not in str(caught.value)
    assert servers.calls == []
