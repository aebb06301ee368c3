"""URLs of upstreams, and which addresses are public."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.model.origin import Origin, is_public, parse_origin


@pytest.mark.parametrize(
    ("url", "origin", "authority"),
    [
        ("http://a.example", Origin(False, "a.example", 80, "/"), "a.example"),
        ("https://A.example:8443/mcp?x=1", Origin(True, "a.example", 8443, "/mcp?x=1"), "a.example:8443"),
        ("https://a.example:443/", Origin(True, "a.example", 443, "/"), "a.example"),
        ("http://[::1]:80/m", Origin(False, "::1", 80, "/m"), "[::1]"),
        ("http://bücher.example/", Origin(False, "xn--bcher-kva.example", 80, "/"), "xn--bcher-kva.example"),
    ],
)
def test_a_url_is_taken_apart(url, origin, authority):
    """Defaults are filled in; the authority is what Host carries."""
    assert parse_origin(url) == origin
    assert origin.authority == authority


@pytest.mark.parametrize(
    "url",
    ["ftp://a", "a.example", "http://", "http://u:p@a/", "http://a/#x", "http://a/ü", "http://a/a b", "http://a:99999/",
     "http://a b/", "file:///etc/passwd", "http://" + "ü" * 80 + "/"],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_refused(url):
    """The message never holds a password."""
    with pytest.raises(ValueError) as caught:
        parse_origin(url)

    assert ":p@" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::808:808", True),
        ("2002:a00:1::", False),
    ],
)
def test_an_address_is_public_or_not_however_it_is_wrapped(address, public):
    """Case 44: cloud metadata, loopback, private nets, and their IPv6 disguises."""
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("[::1]", True),
        ("8.8.8.8", False),
        ("a.example", False),
    ],
)
def test_a_url_that_names_a_private_address_means_it(host, private):
    """Names are looked up later; they count as public until then."""
    assert parse_origin(f"http://{host}/").names_private is private
