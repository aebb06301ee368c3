"""Host and Origin: who may address a source, and from which pages."""

from __future__ import annotations

import pytest

from sluiceway.transports.http_source.hosts import HostPolicy, split_host

LOCAL = HostPolicy(["127.0.0.1:8080"], [], [])
LOCAL6 = HostPolicy(["[::1]:0", "localhost:80"], [], [])
MINE = HostPolicy(["127.0.0.1:8080"], ["Gateway.example.com", "only.example.com:8443"], ["https://App.example.com"])
OPEN = HostPolicy(["0.0.0.0:8080"], [], ["null"])
NAMED = HostPolicy(["0.0.0.0:8080"], ["gateway.example.com"], ["https://app.example.com:444/"])
ANY = HostPolicy(["0.0.0.0:8080"], ["*"], ["*"])


@pytest.mark.parametrize(
    ("policy", "host", "allowed"),
    [
        (LOCAL, "localhost", True), (LOCAL, "LOCALHOST:9", True), (LOCAL, "127.0.0.1:8080", True),
        (LOCAL, "[::1]:8080", True), (LOCAL, "localhost.", True), (LOCAL, "evil.example", False),
        (LOCAL, "localhost.evil.example", False), (LOCAL, "192.168.1.1", False), (LOCAL, "a b", False),
        (LOCAL6, "[::1]", True), (LOCAL6, "::1", False),
        (MINE, "gateway.example.com", True), (MINE, "gateway.example.com:1", True), (MINE, "localhost", True),
        (MINE, "only.example.com:8443", True), (MINE, "only.example.com", False), (MINE, "only.example.com:1", False),
        (OPEN, "localhost:8080", True), (OPEN, "10.0.0.1:8080", True), (OPEN, "[fe80::1]", True),
        (OPEN, "gateway.example.com", False),
        (NAMED, "gateway.example.com", True), (NAMED, "localhost", False), (NAMED, "10.0.0.1", False),
        (ANY, "anything.example", True), (ANY, "u@a:99999", False),
    ],
)  # fmt: skip
def test_hosts(policy, host, allowed):
    """Loopback names on loopback; names in the list; addresses where no list says otherwise."""
    assert allowed is policy.allows_host(host)


@pytest.mark.parametrize(
    ("policy", "origin", "allowed"),
    [
        (LOCAL, "http://localhost:6274", True), (LOCAL, "https://127.0.0.1", True), (LOCAL, "http://[::1]:1", True),
        (LOCAL, "http://evil.example", False), (LOCAL, "null", False), (LOCAL, "file://", False), (LOCAL, "", False),
        (LOCAL, "http://localhost@evil.example", False), (LOCAL, "http://localhost:1, http://localhost:1", False),
        (MINE, "https://app.example.com", True), (MINE, "http://app.example.com", False),
        (MINE, "https://app.example.com:444", False), (MINE, "http://localhost", True),
        (OPEN, "null", True), (OPEN, "http://localhost", False),
        (NAMED, "https://app.example.com:444", True), (NAMED, "https://app.example.com", False),
        (ANY, "https://anything.example", True), (ANY, "null", False), (ANY, "chrome-extension://abc", False),
    ],
)  # fmt: skip
def test_origins(policy, origin, allowed):
    """Exact origins of the list; loopback pages on loopback; `null` only by name."""
    assert allowed is policy.allows_origin(origin)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("a", ("a", None)), ("A:80", ("a", "80")), ("[::1]:80", ("::1", "80")), ("a:65536", None), ("a:", None),
        ("", None), ("a/b", None), ("u@a", None), ("a b", None), ("[::1", None), ("a:8x", None), ("ä", None),
    ],
)  # fmt: skip
def test_hosts_are_split(value, parts):
    """Host and port, or nothing at all."""
    assert parts == split_host(value)
