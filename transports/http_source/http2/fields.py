"""
The fields of an HTTP/2 request: what RFC 9113 section 8 calls malformed, and what the edge refuses in any version.

h2 would end the connection over a malformed request, with everything else that runs on it; here only that request
ends. What passes means the same in HTTP/1.1, so that no request can be smuggled through us into it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, final

from attrs import frozen

from ..edge import CONTROL, MAX_HEAD, MAX_HEADERS, MAX_TARGET, REFUSED_METHODS, is_bad_target

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_OF_CONNECTIONS: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_ONCE: Final = frozenset({b"host", b"content-length"})
_FIELD_OVERHEAD: Final = 32
"""What a field counts on top of its bytes (RFC 9113 section 6.5.2)."""

Fields = Iterable[tuple[bytes, bytes]]


class Malformed(Exception):
    """A stream error: the request is none (RFC 9113 section 8.1.1). The text says why."""


@final
@frozen
class Head:
    """A request before its body."""

    method: bytes
    target: bytes
    """Path and query, as sent."""
    headers: list[tuple[bytes, bytes]]
    """As HTTP/1.1 has them: `host` from `:authority`, cookies in one."""
    status: int | None
    """What it is refused with; None if it is fine."""


def read_head(fields: Fields) -> Head:
    """
    Read the fields of a request.

    Raises:
        Malformed: They are not those of a request.
    """
    pseudo: dict[bytes, bytes] = {}
    headers: list[tuple[bytes, bytes]] = []
    cookies: list[bytes] = []
    size = 0
    for name, value in fields:
        size += len(name) + len(value) + _FIELD_OVERHEAD
        if name[:1] == b":":
            if name not in _PSEUDO or name in pseudo or headers or cookies:
                raise Malformed(f"pseudo-header field {name!r:.40} is unknown, repeated, or behind others")
            pseudo[name] = value
            _check_value(name, value)
            continue
        _check_field(name, value)
        if name == b"cookie":
            cookies.append(value)
        else:
            headers.append((name, value))
    if cookies:
        headers.append((b"cookie", b"; ".join(cookies)))
    _check_pseudo(pseudo)
    names = [name for name, _ in headers if name in _ONCE]
    if len(names) != len(set(names)):
        raise Malformed("host or content-length is repeated")
    _add_host(pseudo.get(b":authority"), headers)
    method, target = pseudo[b":method"], pseudo.get(b":path", b"")
    return Head(method, target, headers, _status_of(method, target, headers, size))


def check_trailers(fields: Fields) -> None:
    """
    Check the fields behind a body, which are then dropped.

    Raises:
        Malformed: They are none.
    """
    for name, value in fields:
        _check_field(name, value)


def _check_field(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise Malformed(f"field name {name!r:.40} is not a token in lower case")
    if name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
        raise Malformed(f"{name.decode()} is of HTTP/1.1 connections")
    _check_value(name, value)


def _check_value(name: bytes, value: bytes) -> None:
    if CONTROL.search(value) or value != value.strip(b" \t"):
        raise Malformed(f"the value of {name!r:.40} has control characters, or spaces around it")


def _check_pseudo(pseudo: dict[bytes, bytes]) -> None:
    method = pseudo.get(b":method", b"")
    if not _METHOD.fullmatch(method):
        raise Malformed("it has no method")
    if method == b"CONNECT":
        if b":authority" not in pseudo or b":path" in pseudo or b":scheme" in pseudo:
            raise Malformed("CONNECT has an :authority and neither :scheme nor :path")
    elif not pseudo.get(b":path") or pseudo.get(b":scheme", b"").lower() not in (b"https", b"http"):
        raise Malformed("it has no :path, or no :scheme that is served here")


def _add_host(authority: bytes | None, headers: list[tuple[bytes, bytes]]) -> None:
    """Let `host` say what `:authority` says (RFC 9113 section 8.3.1)."""
    if authority is None:
        return
    host = dict(headers).get(b"host")
    if host is None:
        headers.insert(0, (b"host", authority))
    elif host.lower() != authority.lower():
        raise Malformed("host and :authority differ")


def _status_of(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], size: int) -> int | None:
    """As `inspect_head` of the edge decides for HTTP/1.1."""
    if method in REFUSED_METHODS or not method.isupper():
        return 405
    if len(target) > MAX_TARGET:
        return 414
    if size > MAX_HEAD or len(headers) > MAX_HEADERS:
        return 431
    return 400 if not target.isascii() or b" " in target or is_bad_target(target) else None
