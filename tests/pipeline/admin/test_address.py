"""Where the admin listener is bound."""

from pathlib import Path

import pytest

from sluiceway.pipeline.admin.address import Address, parse_address


@pytest.mark.parametrize(
    ("bind", "address", "private"),
    [
        ("127.0.0.1:9464", Address("127.0.0.1", 9464), True),
        ("localhost:0", Address("localhost", 0), True),
        ("[::1]:80", Address("::1", 80), True),
        ("0.0.0.0:9464", Address("0.0.0.0", 9464), False),
        ("admin.example.com:443", Address("admin.example.com", 443), False),
        ("unix:./sluiceway.sock", Address(path=Path("sluiceway.sock")), True),
    ],
)
def test_an_address_is_read_and_knows_who_can_reach_it(bind, address, private):
    """TCP and Unix forms are told apart, and only loopback and Unix are private."""
    assert address == parse_address(bind)
    assert private is parse_address(bind).private


@pytest.mark.parametrize("bind", ["9464", "127.0.0.1", "127.0.0.1:", ":9464", "::1:80", "h:65536", "h:-1", "unix:"])
def test_what_is_no_address_is_refused_with_a_remedy(bind):
    """The error says what to write."""
    with pytest.raises(ValueError, match=r"expected host:port|needs brackets|needs a path"):
        parse_address(bind)


@pytest.mark.parametrize("bind", ["127.0.0.1:9464", "[::1]:80", "unix:/run/s.sock"])
def test_an_address_is_written_as_it_is_read(bind):
    """What is shown can be copied into the configuration."""
    assert bind == str(parse_address(bind))
