"""Where the document of an endpoint stands, and where no token may."""

from __future__ import annotations

import json

import pytest

from sluiceway.pipeline.protocol.errors import MalformedCredentials
from sluiceway.transports.http_source.answers import HttpError
from sluiceway.transports.http_source.protection import is_place_of, metadata_answer, refuse_query_token
from sluiceway.transports.http_source.request import ScopeRequest

WELL_KNOWN = "/.well-known/oauth-protected-resource"


@pytest.mark.parametrize(
    ("path", "endpoint", "resource", "found"),
    [
        (WELL_KNOWN, "/mcp", "https://a.example/mcp", True),
        (f"{WELL_KNOWN}/mcp", "/mcp", "https://a.example/mcp", True),
        (f"{WELL_KNOWN}/mcp", "/mcp", None, True),
        (f"{WELL_KNOWN}/gw/mcp", "/mcp", "https://a.example/gw/mcp", True),
        (f"{WELL_KNOWN}/gw/mcp", "/mcp", "https://a.example/gw/mcp/", True),
        (WELL_KNOWN, "/", "https://a.example", True),
        (f"{WELL_KNOWN}/", "/", "https://a.example/", False),
        (f"{WELL_KNOWN}/other", "/mcp", "https://a.example/mcp", False),
        (f"{WELL_KNOWN}x/mcp", "/mcp", "https://a.example/mcp", False),
        ("/.well-known/oauth-authorization-server", "/mcp", "https://a.example/mcp", False),
        ("/mcp", "/mcp", "https://a.example/mcp", False),
    ],
)
def test_the_document_has_its_places(path, endpoint, resource, found):
    """RFC 9728 section 3.1."""
    assert is_place_of(path, endpoint, {"resource": resource}) is found


def test_the_document_is_json_that_may_be_kept_for_a_while():
    """And only be read."""
    answer = metadata_answer("GET", {"resource": "r"})

    assert (answer.status, json.loads(answer.body)) == (200, {"resource": "r"})
    assert answer.headers["cache-control"] == "public, max-age=300"
    with pytest.raises(HttpError) as caught:
        metadata_answer("DELETE", {})
    assert caught.value.headers == {"allow": "GET, HEAD"}


@pytest.mark.parametrize("query", [b"access_token=x", b"a=b&access_token", b"access%5ftoken=x", b"Access_Token=x&a"])
def test_a_token_in_the_query_is_refused(query):
    """In whatever spelling."""
    with pytest.raises(MalformedCredentials, match="ends up in logs"):
        refuse_query_token(query)


@pytest.mark.parametrize("query", [b"", b"a=access_token", b"access_tokens=1", b"my_access_token=1", b"%"])
def test_other_queries_are_not_looked_at(query):
    """They mean nothing to us."""
    refuse_query_token(query)


@pytest.mark.parametrize(
    ("tls", "found"),
    [
        (None, None),
        ({}, None),
        ({"client_cert_chain": []}, None),
        ({"client_cert_chain": None}, None),
        ({"client_cert_chain": ["leaf", "ca"]}, "leaf"),
        ({"client_cert_chain": ["leaf"], "client_cert_error": None}, "leaf"),
        ({"client_cert_chain": ["leaf"], "client_cert_error": "expired"}, None),
    ],
)
async def test_a_certificate_counts_if_the_server_verified_it(nursery, tls, found):
    """ASGI's TLS extension."""
    scope = {
        "method": "GET",
        "path": "/",
        "headers": [],
        "client": None,
        "extensions": {"tls": tls} if tls is not None else {},
    }

    async def receive():
        raise AssertionError("nothing is read")

    assert ScopeRequest(scope, receive, nursery).certificate == found
