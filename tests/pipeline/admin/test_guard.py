"""Who may ask the admin listener."""

import pytest

from sluiceway.pipeline.admin.address import parse_address
from sluiceway.pipeline.admin.guard import Guard


@pytest.mark.parametrize(
    ("bind", "host", "allowed"),
    [
        ("127.0.0.1:9464", "127.0.0.1:9464", True),
        ("127.0.0.1:9464", "localhost:9464", True),
        ("127.0.0.1:9464", "LOCALHOST", True),
        ("127.0.0.1:9464", "[::1]:9464", True),
        ("[::1]:9464", "::1", True),
        ("127.0.0.1:9464", "evil.example.com", False),
        ("127.0.0.1:9464", "evil.example.com:9464", False),
        ("127.0.0.1:9464", "192.0.2.7", False),
        ("127.0.0.1:9464", "", False),
        ("127.0.0.1:9464", None, False),
        ("0.0.0.0:9464", "192.0.2.7:9464", True),
        ("0.0.0.0:9464", "evil.example.com", False),
        ("admin.example.com:9464", "Admin.Example.com:9464", True),
        ("unix:/run/s.sock", "anything", True),
        ("unix:/run/s.sock", None, True),
    ],
)
def test_only_a_host_that_no_dns_answer_can_forge_is_let_in(bind, host, allowed):
    """A page whose name was rebound to our address names itself in Host."""
    assert allowed is Guard(parse_address(bind)).host_allowed(host)


@pytest.mark.parametrize(
    ("authorization", "allowed"),
    [
        ("Bearer s3cret", True),
        ("bearer   s3cret ", True),
        ("Bearer s3cre", False),
        ("Bearer s3cret2", False),
        ("Bearer \udcff", False),
        ("Basic s3cret", False),
        ("s3cret", False),
        ("", False),
        (None, False),
    ],
)
def test_the_token_must_match_exactly(authorization, allowed):
    """Only the scheme's case and the space around the token are free."""
    assert allowed is Guard(parse_address("127.0.0.1:1"), "s3cret").token_allowed(authorization)


def test_without_a_token_everybody_who_passes_the_host_check_is_let_in():
    """Loopback and Unix sockets need none."""
    assert Guard(parse_address("127.0.0.1:1")).token_allowed(None)


def test_the_token_is_not_printed():
    """A guard in a traceback gives nothing away."""
    assert "s3cret" not in repr(Guard(parse_address("127.0.0.1:1"), "s3cret"))
