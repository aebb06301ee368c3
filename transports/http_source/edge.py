"""
Heads of requests: what they say, and which are refused.

Parsers repair what they should refuse, and repair it differently; a request that means one thing to us and another to
what stands before or behind us can be smuggled (RFC 9112 section 11.2). So there is one reading of a head, and nothing
is repaired: what is not plainly HTTP/1.1 as of RFC 9112 is refused. Pure: bytes in, a head or a status out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, final
from urllib.parse import unquote_to_bytes

from attrs import frozen

from .hosts import split_host

MAX_HEADERS: Final = 100
"""Lines of a head behind the first."""
MAX_TARGET: Final = 8 * 1024
"""Bytes of a request's target."""
MAX_HEAD: Final = 16 * 1024
"""Bytes of a head, without the empty line."""
MAX_DIGITS: Final = 18
"""Of a Content-Length: what has more is no length of anything."""

_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/(\d)\.(\d)")
_TOKEN_START: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\0-\x08\x0a-\x1f\x7f]*)")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
CONTROL: Final = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")
_DIGITS: Final = re.compile(rb"[0-9]+")
_VERSIONS: Final = frozenset({(b"1", b"0"), (b"1", b"1")})
REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE", b"PRI"})
_ONCE: Final = frozenset({b"content-length", b"host", b"transfer-encoding"})


class HeadRefused(Exception):
    """
    What was sent is no request that is read here.

    Args:
        status: To answer with before the connection is closed.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"refused with {status}")
        self.status = status


@final
@frozen
class Head:
    """A request as far as its first empty line."""

    method: bytes
    target: bytes
    """An absolute path, and perhaps a query, as sent."""
    old: bool
    """Whether it is of HTTP/1.0, which knows neither chunks nor connections that stay."""
    headers: Sequence[tuple[bytes, bytes]]
    """In the order they came, names in lower case."""
    length: int
    """Bytes of the body; 0 if it has none, or comes in chunks."""
    chunked: bool
    """Whether the body comes in chunks."""
    closes: bool
    """Whether the client sends nothing more on this connection."""
    expects: bool
    """Whether it waits for leave to send the body (RFC 9110 section 10.1.1)."""
    switches: bool
    """Whether it would like to speak something else."""
    size: int
    """Bytes it takes, with the empty line."""


def read_head(data: bytes | bytearray) -> Head | None:
    """
    Read what arrived where a request is expected.

    Args:
        data: From the first byte of the request on; perhaps not all of it, perhaps more.

    Returns:
        Its head; None if that is not complete, and fine so far.

    Raises:
        HeadRefused: It is not fine.
    """
    if not data:
        return None
    end = data.find(b"\r\n\r\n")
    head = bytes(data[: end if end >= 0 else MAX_HEAD + 1])
    if not _TOKEN_START.match(head) or head.count(b"\n") != head.count(b"\r\n"):
        raise HeadRefused(400)
    line, *fields = head.split(b"\r\n")
    if end < 0 and not fields:
        if len(line) > MAX_TARGET + 64:
            raise HeadRefused(414)
        return None
    method, target, old = _read_request_line(line)
    if len(head) > MAX_HEAD:
        raise HeadRefused(431)
    return None if end < 0 else _head(method, target, fields, old=old, size=end + 4)


def inspect_head(data: bytes) -> int | None:
    """
    Look at what arrived where a request is expected.

    Args:
        data: From the first byte of the request on; perhaps not all of it, perhaps more.

    Returns:
        The status to refuse it with before closing the connection; None if it is fine so far.
    """
    try:
        read_head(data)
    except HeadRefused as refused:
        return refused.status
    return None


def _read_request_line(line: bytes) -> tuple[bytes, bytes, bool]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise HeadRefused(400)
    method, target, major, minor = match.groups()
    if (major, minor) not in _VERSIONS:
        raise HeadRefused(505)
    if method in REFUSED_METHODS or not method.isupper():
        raise HeadRefused(405)
    if len(target) > MAX_TARGET:
        raise HeadRefused(414)
    if is_bad_target(target):
        raise HeadRefused(400)
    return method, target, minor == b"0"


def is_bad_target(target: bytes) -> bool:
    """Anything but an absolute path: other forms, fragments, broken or NUL escapes, dot segments however written."""
    path = target.partition(b"?")[0]
    if not path.startswith(b"/") or b"#" in target or _BAD_ESCAPE.search(target):
        return True
    plain = (unquote_to_bytes(path) if b"%" in path else path).replace(b"\\", b"/")
    return b"\0" in plain or not {b".", b".."}.isdisjoint(plain.split(b"/"))


def _head(method: bytes, target: bytes, fields: Sequence[bytes], *, old: bool, size: int) -> Head:
    headers = _read_fields(fields)
    found = dict(headers)
    if b"host" not in found and not old:
        raise HeadRefused(400)
    coding = found.get(b"transfer-encoding")
    if coding is not None:
        if b"content-length" in found or old:
            raise HeadRefused(400)
        if coding.lower() != b"chunked":
            raise HeadRefused(501)
    connection = found.get(b"connection", b"").lower()
    if connection not in (b"", b"keep-alive"):
        connection = b",".join(value.lower() for name, value in headers if name == b"connection")
    return Head(
        method, target, old, headers,
        length=int(found.get(b"content-length", 0)),
        chunked=coding is not None,
        closes=old or b"close" in (token.strip() for token in connection.split(b",")),
        expects=not old and found.get(b"expect", b"").lower() == b"100-continue",
        switches=b"upgrade" in found,
        size=size,
    )  # fmt: skip


def _read_fields(fields: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    if len(fields) > MAX_HEADERS:
        raise HeadRefused(431)
    headers: list[tuple[bytes, bytes]] = []
    once: set[bytes] = set()
    for field in fields:
        match = _FIELD.fullmatch(field)
        if match is None:
            raise HeadRefused(400)  # an obs-fold, a control character, or no field at all
        name, value = match[1].lower(), match[2].strip(b" \t")
        if name in _ONCE:
            if name in once:
                raise HeadRefused(400)
            once.add(name)
            _check_field(name, value)
        headers.append((name, value))
    return headers


def _check_field(name: bytes, value: bytes) -> None:
    if name == b"host":
        if split_host(value.decode("latin-1")) is None:
            raise HeadRefused(400)
    elif name == b"content-length":
        if not _DIGITS.fullmatch(value):
            raise HeadRefused(400)
        if len(value) > MAX_DIGITS:
            raise HeadRefused(413)
