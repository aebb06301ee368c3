"""Where an authorization server is described, and what of that is believed."""

from __future__ import annotations

import json

import pytest

from sluiceway.middlewares.auth.discovery import ServerMetadata, check_issuer, metadata_urls, parse_metadata

ISSUER = "https://id.example.com"


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        (ISSUER, ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"]),
        (f"{ISSUER}/", ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"]),
        (
            f"{ISSUER}/realms/a",
            [
                "/.well-known/oauth-authorization-server/realms/a",
                "/.well-known/openid-configuration/realms/a",
                "/realms/a/.well-known/openid-configuration",
            ],
        ),
    ],
)
def test_the_places_are_those_of_the_specification(issuer, urls):
    """In its order."""
    assert list(metadata_urls(issuer)) == [ISSUER + url for url in urls]


def test_a_description_is_read():
    """As far as it is needed."""
    data = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys", "introspection_endpoint": "https://other.example/i"}

    assert parse_metadata(json.dumps(data).encode(), ISSUER) == ServerMetadata(
        f"{ISSUER}/keys", "https://other.example/i"
    )


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not a description"),
        (b"[]", "another issuer"),
        (b"{}", "another issuer"),
        (b'{"issuer": "https://id.example.com/"}', "another issuer"),
        (b'{"issuer": "https://id.example.com", "issuer": "https://id.example.com"}', "not a description"),
        (b'{"issuer": "https://id.example.com", "jwks_uri": "http://id.example.com/keys"}', "not https"),
        (b'{"issuer": "https://id.example.com", "jwks_uri": "https://u:p@id.example.com/keys"}', "no address"),
        (b'{"issuer": "https://id.example.com", "introspection_endpoint": []}', "is no text"),
    ],
)
def test_a_description_that_is_none_is_refused(data, complaint):
    """RFC 8414 section 3.3 among the reasons."""
    with pytest.raises(ValueError, match=complaint):
        parse_metadata(data, ISSUER)


@pytest.mark.parametrize(
    "url", ["https://id.example.com", "http://127.0.0.1:9", "http://localhost", "http://10.0.0.7/x"]
)
def test_plain_http_is_for_places_that_are_not_public(url):
    """Where the operator wrote it so."""
    check_issuer(url)


def test_plain_http_is_not_for_the_internet():
    """Anybody in between could hand out keys."""
    with pytest.raises(ValueError, match="must be https"):
        check_issuer("http://id.example.com")
