"""What is said to proxies, byte by byte, and what of their answers is believed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sluiceway.pipeline.model.origin import Origin
from sluiceway.transports.http_client.proxies import (
    Proxy,
    ProxyRefused,
    check_credentials,
    connect_request,
    negotiate,
    parse_proxy,
)

ANA = ("ana", "sesame")
GRANTED = [b"\x05\0\0\x01", b"\x7f\0\0\x01\x04\x38"]


def converse(host: str, answers: Sequence[bytes], credentials: tuple[str, str] | None = None) -> list[bytes]:
    """Everything said when a proxy answers like this, each time exactly as much as it is asked for."""
    conversation = negotiate(host, 443, credentials)
    said, wanted = next(conversation)
    everything = [said]
    for answer in answers:
        assert len(answer) == wanted
        try:
            said, wanted = conversation.send(answer)
        except StopIteration:
            return everything
        everything.append(said)
    raise AssertionError("it is not over")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("up.example", b"\x03\x0aup.example"),
        ("192.0.2.1", b"\x01\xc0\0\x02\x01"),
        ("2001:db8::1", b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01"),
    ],
)
def test_a_name_and_an_address_are_named_each_in_its_form(host: str, address: bytes) -> None:
    """RFC 1928 section 4 and 5."""
    said = converse(host, [b"\x05\0", *GRANTED])

    assert said == [b"\x05\x01\0", b"\x05\x01\0" + address + b"\x01\xbb", b""]


@pytest.mark.parametrize(
    "bound",
    [
        [b"\x05\0\0\x01", bytes(6)],
        [b"\x05\0\0\x04", bytes(18)],
        [b"\x05\0\0\x03", b"\x04", b"name\0\0"],
    ],
)
def test_the_address_in_the_answer_is_read_to_its_end(bound: list[bytes]) -> None:
    """What follows is the upstream's."""
    assert converse("up.example", [b"\x05\0", *bound])[-1] == b""


@pytest.mark.parametrize("asked", [False, True])
def test_credentials_are_shown_to_who_asks(asked: bool) -> None:
    """RFC 1929; a proxy that wants none gets none."""
    login = [b"\x05\x02", b"\x01\0"] if asked else [b"\x05\0"]
    said = converse("up.example", [*login, *GRANTED], ANA)

    assert said[0] == b"\x05\x02\0\x02"
    assert (b"\x01\x03ana\x06sesame" in said) == asked


@pytest.mark.parametrize(
    ("answers", "credentials", "words"),
    [
        ([b"HT"], None, "does not speak SOCKS 5"),
        ([b"\x05\xff"], None, "wants credentials .proxy_auth"),
        ([b"\x05\x02"], None, "wants credentials .proxy_auth"),
        ([b"\x05\x01"], ANA, "of another kind"),
        ([b"\x05\x02", b"\x01\x01"], ANA, "does not take the user and password"),
        ([b"\x05\0", b"\x05\x05\0\x01"], None, "refuses the connection"),
        ([b"\x05\0", b"\x05\x63\0\x01"], None, "code 99"),
        ([b"\x05\0", b"\x04\0\0\x01"], None, "does not speak SOCKS 5"),
        ([b"\x05\0", b"\x05\0\0\x09"], None, "does not speak SOCKS 5"),
    ],
)
def test_a_refusal_says_why(answers: list[bytes], credentials: tuple[str, str] | None, words: str) -> None:
    """And never the password."""
    with pytest.raises(ProxyRefused, match=words) as caught:
        converse("up.example", answers, credentials)

    assert "sesame" not in str(caught.value)


def test_a_name_that_no_proxy_can_be_told() -> None:
    """One length byte."""
    with pytest.raises(ProxyRefused, match="too long"):
        converse("x" * 256, [b"\x05\0", *GRANTED])


@pytest.mark.parametrize(
    ("host", "credentials", "request_"),
    [
        ("up.example", None, b"CONNECT up.example:80 HTTP/1.1\r\nhost: up.example:80\r\n\r\n"),
        ("::1", None, b"CONNECT [::1]:80 HTTP/1.1\r\nhost: [::1]:80\r\n\r\n"),
        (
            "up.example", ("Aladdin", "open sesame"),  # RFC 7617 section 2
            b"CONNECT up.example:80 HTTP/1.1\r\nhost: up.example:80\r\n"
            b"proxy-authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n",
        ),
    ],
)  # fmt: skip
def test_a_tunnel_is_asked_for(host: str, credentials: tuple[str, str] | None, request_: bytes) -> None:
    """RFC 9110 section 9.3.6."""
    assert connect_request(Origin(False, host, 80, "/mcp"), credentials) == request_


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy", Proxy("http", "proxy", 80)),
        ("http://proxy:3128/", Proxy("http", "proxy", 3128)),
        ("socks5://127.0.0.1:1080", Proxy("socks5", "127.0.0.1", 1080)),
        ("socks5h://[::1]:1080", Proxy("socks5h", "::1", 1080)),
    ],
)
def test_addresses_of_proxies(url: str, proxy: Proxy) -> None:
    """With what comes by itself."""
    assert parse_proxy(url) == proxy
    assert proxy.resolves == (proxy.scheme != "socks5")
    assert proxy.origin == Origin(False, proxy.host, proxy.port, "/")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("proxy:3128", "write http://"),
        ("https://proxy", "write http://"),
        ("socks4://proxy:1", "write http://"),
        ("socks5://proxy", "no port of its own"),
        ("http://ana:sesame@proxy", "proxy_auth"),
        ("http://proxy/path", "path means nothing"),
        ("http://", "proxy: "),
        ("http://proxy:x", "proxy: "),
    ],
)
def test_what_is_no_address_of_a_proxy_is_refused(url: str, words: str) -> None:
    """With what to write, and without a password."""
    with pytest.raises(ValueError, match=words) as caught:
        parse_proxy(url)

    assert "sesame" not in str(caught.value)


def test_credentials_are_not_shown() -> None:
    """A proxy may end up in a log."""
    assert "sesame" not in repr(Proxy("http", "proxy", 80, ANA))


@pytest.mark.parametrize(("user", "password"), [("", "x"), ("x", ""), ("x" * 256, "x"), ("a:b", "x"), ("a", "x\n")])
def test_credentials_that_cannot_be_said_are_refused(user: str, password: str) -> None:
    """In one of the two forms."""
    with pytest.raises(ValueError, match="proxy_auth"):
        check_credentials(user, password)
    check_credentials("ana", "sesame:x")
