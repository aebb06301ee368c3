"""Who is believed about where a request comes from."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.model.addresses import Proxies, neighbourhood, parse_address, parse_network
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.mcp import Era

OURS = ["10.0.0.0/8", "fd00::/8", "192.0.2.1"]


def origin(address: str | None, forwarded: str | None, trusted: list[str]) -> str | None:
    """Where a request with these seems to come from."""
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    client = Client(era=Era.MODERN, version=None, address=address, headers=headers)
    return Proxies(trusted).client_address(client)


@pytest.mark.parametrize(
    ("address", "forwarded", "expected"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # not from a proxy of ours: its word is nothing
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, fd00::2,10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "127.0.0.1, 198.51.100.1", "198.51.100.1"),  # what is left of the client, the client wrote
        ("10.0.0.1", "10.9.9.9, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),  # all ours: somebody inside
        ("10.0.0.1", "198.51.100.1, unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, _hidden, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "198.51.100.1, ", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "2001:DB8:0::1", "2001:db8::1"),
        ("10.0.0.1", "fe80::1%eth0", "fe80::1"),
        ("10.0.0.1", "1" * 5000, "10.0.0.1"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("192.0.2.1", "198.51.100.1", "198.51.100.1"),
        ("192.0.2.2", "198.51.100.1", "192.0.2.2"),
        ("/run/gateway.sock", "198.51.100.1", "/run/gateway.sock"),
        ("x" * 100, None, "x" * 100),
        (None, "198.51.100.1", None),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_not_ours(
    address: str | None, forwarded: str | None, expected: str | None
) -> None:
    """Whatever else the client writes."""
    assert origin(address, forwarded, OURS) == expected


def test_without_proxies_nobody_is_believed() -> None:
    """The header of anybody can say anything."""
    assert origin("10.0.0.1", "198.51.100.1", []) == "10.0.0.1"
    assert origin("::ffff:10.0.0.1", None, []) == "10.0.0.1"


def test_a_chain_without_end_is_given_up() -> None:
    """The header is bounded by its size only; we are by a number of hops."""
    assert origin("10.0.0.1", "198.51.100.1," + ",".join(["10.0.0.2"] * 5000), OURS) == "10.0.0.2"


@pytest.mark.parametrize(
    ("address", "bits", "expected"),
    [
        ("198.51.100.1", 64, "198.51.100.1"),
        ("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", 64, "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", 48, "2001:db8:1::/48"),
        ("2001:db8::1", 128, "2001:db8::1/128"),
        ("/run/gateway.sock", 64, "/run/gateway.sock"),
    ],
)
def test_a_subscriber_of_ipv6_is_a_network(address: str, bits: int, expected: str) -> None:
    """An address of it costs nothing."""
    assert neighbourhood(address, bits) == expected


def test_what_is_no_network_is_an_error_that_says_so() -> None:
    """It is an option of somebody's."""
    with pytest.raises(ValueError, match=r"a network such as 10\.0\.0\.0/8, got 'proxy\.example'"):
        parse_network("proxy.example")


def test_what_is_no_address_is_none() -> None:
    """Empty text, too."""
    assert [parse_address(text) for text in ("", "unknown", "1.2.3", "[]", "1:2:3")] == [None] * 5
