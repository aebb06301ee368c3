"""
The edge guard: what is refused before any HTTP parser sees it.

Parsers repair what they should refuse, and repair it differently; a request that means one thing to us and another to
what stands before or behind us can be smuggled (RFC 9112 section 11.2). The list is what hypercorn 0.18 with h11 let
through in a matrix of 106 malformed messages; what h11 refuses itself is left to it. Pure: bytes in, status out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from .hosts import split_host

MAX_HEADERS: Final = 100
MAX_TARGET: Final = 8 * 1024
MAX_HEAD: Final = 16 * 1024

_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/(\d)\.(\d)")
_TOKEN_START: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
CONTROL: Final = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")
_DIGITS: Final = re.compile(rb"[0-9]+")
_VERSIONS: Final = frozenset({(b"1", b"0"), (b"1", b"1")})
REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE", b"PRI"})


def inspect_head(data: bytes) -> int | None:
    """
    Look at what arrived where a request is expected.

    Args:
        data: From the first byte of the request on; perhaps not all of it, perhaps more.

    Returns:
        The status to refuse it with before closing the connection; None if it is fine so far.
    """
    if not data:
        return None
    if not _TOKEN_START.match(data):
        return 400
    end = data.find(b"\r\n\r\n")
    head = data[: end if end >= 0 else MAX_HEAD + 1]
    if b"\n" in head.replace(b"\r\n", b""):
        return 400
    line, *fields = head.split(b"\r\n")
    if end < 0 and not fields:
        return _inspect_partial_line(line)
    status = _inspect_request_line(line)
    if status is not None:
        return status
    if len(head) > MAX_HEAD:
        return 431
    if end < 0:
        return None
    return _inspect_fields(fields, old=line.endswith(b"1.0"))


def _inspect_partial_line(line: bytes) -> int | None:
    return 414 if len(line) > MAX_TARGET + 64 else None


def _inspect_request_line(line: bytes) -> int | None:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        return 400
    method, target, major, minor = match.groups()
    if (major, minor) not in _VERSIONS:
        return 505
    if method in REFUSED_METHODS or not method.isupper():
        return 405
    if len(target) > MAX_TARGET:
        return 414
    return 400 if is_bad_target(target) else None


def is_bad_target(target: bytes) -> bool:
    """Anything but an absolute path: other forms, fragments, broken or NUL escapes, dot segments however written."""
    path = target.partition(b"?")[0]
    if not path.startswith(b"/") or b"#" in target or _BAD_ESCAPE.search(target):
        return True
    plain = unquote_to_bytes(path).replace(b"\\", b"/")
    return b"\0" in plain or not {b".", b".."}.isdisjoint(plain.split(b"/"))


def _inspect_fields(fields: Sequence[bytes], *, old: bool) -> int | None:
    if len(fields) > MAX_HEADERS:
        return 431
    names: Counter[bytes] = Counter()
    for field in fields:
        name, colon, value = field.partition(b":")
        if not colon or field[:1] in b" \t" or CONTROL.search(value):
            return 400  # an obs-fold, or no field at all
        names[name.lower()] += 1
        status = _inspect_field(name.lower(), value.strip(b" \t"))
        if status is not None:
            return status
    if names[b"content-length"] > 1 or names[b"host"] > 1:
        return 400
    if names[b"transfer-encoding"] and (names[b"content-length"] or names[b"transfer-encoding"] > 1 or old):
        return 400
    return None


def _inspect_field(name: bytes, value: bytes) -> int | None:
    if name == b"host":
        return None if split_host(value.decode("latin-1")) else 400
    if name == b"content-length":
        if not _DIGITS.fullmatch(value):
            return 400
        return 413 if len(value) > 18 else None
    return None
