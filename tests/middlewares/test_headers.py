"""Origin, Host, security headers and credentials: the policy of one pipeline."""

from __future__ import annotations

import pytest

from sluiceway.middlewares.headers import Headers
from sluiceway.pipeline.protocol.errors import Forbidden, Misdirected
from sluiceway.pipeline.protocol.messages import Result

OK = Result({"answered": "tools/call"})
OURS = "https://assistant.example.com"


def _stage(bench, **options):
    return Headers(Headers.Config(**options), bench.context("headers"))


def _exchange(bench, method="tools/call", **headers):
    return bench.exchange(method, headers={"host": "gateway.example.com", **headers})


@pytest.mark.parametrize("method", ["tools/call", "tools/list", "subscriptions/listen", "notifications/initialized"])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", OURS + ".evil.example", "http://assistant.example.com"]
)
async def test_a_foreign_origin_is_refused_for_every_method(bench, answer, method, origin):
    """An origin that the list does not name gets 403, whatever it asks."""
    service = bench.service(answer, _stage(bench, allowed_origins=(OURS,)))
    with pytest.raises(Forbidden) as caught:
        await service(_exchange(bench, method, origin=origin))

    assert caught.value.http_status == 403
    assert caught.value.message == f"origin {origin!r} is not allowed; list it in allowed_origins of headers"


@pytest.mark.parametrize("origin", [OURS, OURS.upper(), "https://a.b.example.org"])
async def test_a_listed_origin_passes(bench, answer, origin):
    """Origins are compared without case; globs match subdomains."""
    stage = _stage(bench, allowed_origins=(OURS, "https://*.Example.org"))

    assert await bench.service(answer, stage)(_exchange(bench, origin=origin)) == OK


async def test_a_request_without_origin_passes(bench, answer):
    """Programs send no Origin; only browsers do."""
    assert await bench.service(answer, _stage(bench, allowed_origins=()))(_exchange(bench)) == OK


async def test_null_passes_only_by_name(bench, answer):
    """`*` stands for every real origin; `null` must be written out."""
    anybody, null_too = (_stage(bench, allowed_origins=origins) for origins in (("*",), ("*", "null")))
    exchange = _exchange(bench, origin="null")

    with pytest.raises(Forbidden):
        await bench.service(answer, anybody)(exchange)
    assert await bench.service(answer, anybody)(_exchange(bench, origin="https://x.example")) == OK
    assert await bench.service(answer, null_too)(exchange) == OK


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        ("gateway.example.com", "gateway.example.com"),
        ("gateway.example.com", "Gateway.Example.com:8443"),
        ("gateway.example.com:8443", "gateway.example.com:8443"),
        ("*.example.com", "a.example.com:1"),
        ("[::1]", "[::1]:8080"),
        ("[::1]", "[::1]"),
    ],
)
async def test_a_listed_host_passes(bench, answer, allowed, host):
    """A host without a port stands for all its ports."""
    assert await bench.service(answer, _stage(bench, allowed_hosts=(allowed,)))(_exchange(bench, host=host)) == OK


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        ("gateway.example.com", "evil.example"),
        ("gateway.example.com", "gateway.example.com.evil.example"),
        ("gateway.example.com:8443", "gateway.example.com:80"),
        ("gateway.example.com:8443", "gateway.example.com"),
        ("gateway.example.com", "gateway.example.com:x"),
    ],
)
async def test_another_host_is_misdirected(bench, answer, allowed, host):
    """A host that the list does not name gets 421: the answer to DNS rebinding."""
    with pytest.raises(Misdirected) as caught:
        await bench.service(answer, _stage(bench, allowed_hosts=(allowed,)))(_exchange(bench, host=host))

    assert caught.value.http_status == 421
    assert caught.value.message == f"host {host!r} is not served here; list it in allowed_hosts of headers"


async def test_a_missing_host_is_misdirected(bench, answer):
    """A request with headers but without Host does not pass a list of hosts."""
    with pytest.raises(Misdirected, match="a request without Host"):
        await bench.service(answer, _stage(bench, allowed_hosts=("a",)))(bench.exchange(headers={"accept": "*/*"}))


async def test_transports_without_headers_are_not_checked(bench, answer):
    """On stdio there is neither origin nor host."""
    stage = _stage(bench, allowed_origins=(OURS,), allowed_hosts=("a",))

    assert await bench.service(answer, stage)(bench.exchange()) == OK


async def _reply_headers(bench, answer, origin, **options):
    exchange = _exchange(bench, **({} if origin is None else {"origin": origin}))
    await bench.service(answer, _stage(bench, security=False, **options))(exchange)
    return exchange.reply_headers


async def test_expose_replaces_what_scripts_may_read(bench, answer):
    """The list goes to scripts; without one the source's stands."""
    assert await _reply_headers(bench, answer, OURS, expose=("x-request-id", "x-added")) == {
        "access-control-expose-headers": "x-request-id, x-added"
    }
    assert await _reply_headers(bench, answer, OURS) == {}


async def test_expose_is_for_scripts_only(bench, answer):
    """A program that sends no Origin gets no CORS header."""
    assert await _reply_headers(bench, answer, None, expose=("x-request-id",)) == {}


async def test_replies_carry_security_headers_by_default(bench, answer):
    """Browsers must not guess a type, frame a reply, or run anything in it."""
    exchange = _exchange(bench)
    await bench.service(answer, _stage(bench))(exchange)

    assert exchange.reply_headers == {
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    }


async def test_add_puts_headers_on_replies(bench, answer):
    """Own headers are added in lower case, and win over those of `security`."""
    exchange = _exchange(bench)
    added = {"Strict-Transport-Security": "max-age=1", "X-Frame-Options": "SAMEORIGIN"}
    await bench.service(answer, _stage(bench, add=added))(exchange)

    assert exchange.reply_headers["strict-transport-security"] == "max-age=1"
    assert exchange.reply_headers["x-frame-options"] == "SAMEORIGIN"


async def test_without_security_and_add_replies_are_as_they_were(bench, answer):
    """Nothing is added that nobody asked for."""
    exchange = _exchange(bench)
    await bench.service(answer, _stage(bench, security=False))(exchange)

    assert exchange.reply_headers == {}


@pytest.mark.parametrize("added", [{"bad name": "x"}, {"x": "a\r\nset-cookie: b"}, {"": "x"}, {"ü": "x"}])
def test_added_headers_must_be_headers(added):
    """A name or value that could break the response is a configuration error."""
    with pytest.raises(ValueError, match="is not a header name"):
        Headers.Config(add=added)


@pytest.mark.parametrize("name", ["content-length", "Content-Length", "transfer-encoding"])
def test_where_a_response_ends_is_not_added(name):
    """It would be said twice, and be read as two different responses."""
    with pytest.raises(ValueError, match="says where a response ends"):
        Headers.Config(add={name: "5"})


async def test_credentials_are_hidden_from_inner_stages(bench):
    """Inner stages see neither Authorization nor cookies; outer ones keep theirs."""
    seen = []

    async def sink(exchange):
        seen.append(exchange.client.headers)
        return OK

    exchange = _exchange(bench, authorization="Bearer canary", cookie="canary", accept="application/json")
    await bench.service(sink, _stage(bench))(exchange)

    assert seen == [{"host": "gateway.example.com", "accept": "application/json"}]
    assert exchange.client.headers["authorization"] == "Bearer canary"


async def test_hide_chooses_the_headers(bench):
    """A list of one's own replaces the default, and is compared without case."""
    seen = []

    async def sink(exchange):
        seen.append(exchange.client.headers)
        return OK

    await bench.service(sink, _stage(bench, hide=("X-Internal",)))(_exchange(bench, cookie="c", **{"x-internal": "i"}))

    assert seen == [{"host": "gateway.example.com", "cookie": "c"}]


async def test_nothing_to_hide_passes_the_exchange_as_it_is(bench):
    """Without a hidden header no view is made."""
    seen = []

    async def sink(exchange):
        seen.append(exchange)
        return OK

    exchange = _exchange(bench)
    await bench.service(sink, _stage(bench))(exchange)

    assert seen == [exchange]
