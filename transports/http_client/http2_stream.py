"""One request and its response within an HTTP/2 connection (RFC 9113 section 5), without I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, final

from attrs import define
from hpack import HeaderTuple, NeverIndexedHeaderTuple

from .connection import PeerGone
from .parser import Head, MalformedResponse

_CONNECTION_SPECIFIC: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"}
)
"""Fields that a request over HTTP/2 must not have (section 8.2.2)."""
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
"""A token without capitals (section 8.2.1)."""
_NO_VALUE: Final = re.compile(rb"[\0\r\n]")
_SECRET: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization"})
"""Never put into the table of the header compression, by us or by who passes it on (RFC 7541 section 7.1.3)."""


class MalformedHttp2(MalformedResponse):
    """The bytes are not HTTP/2, or break its rules; the text says how, as the end of a sentence."""

    protocol = "HTTP/2"


@final
@define(eq=False)
class Http2Stream:
    """What is known of a stream. Whoever serves its exchange is told by `wake` that something changed."""

    id: int
    wake: Callable[[], None]
    """Must not block, and may be called for nothing."""
    head: Head | None = None
    complete: bool = False
    """The last byte of the response came."""
    said_all: bool = False
    """The last byte of the request was handed to the connection."""
    left: bool = False
    """The last byte of the request was handed to the transport: the peer may act on it."""
    closed: bool = False
    """Neither side may say anything on it any more."""
    failure: PeerGone | MalformedResponse | None = None
    """Why there is no more to come."""
    waits_for_window: bool = False
    """Its exchange has bytes to send that the peer does not take now."""
    returned: int = 0
    """Bytes that were consumed, and whose place in the window the peer has not got back."""
    _unread: bytes | bytearray = b""

    def put(self, data: bytes, overhead: int) -> None:
        """A part of the body came; `overhead` is what its padding took of the window."""
        self.returned += overhead
        if data:
            if self._unread:  # joined as it comes: an object for each byte would be many times the window
                self._unread = bytearray(self._unread) if isinstance(self._unread, bytes) else self._unread
                self._unread += data
            else:
                self._unread = data
            self.wake()

    def take(self) -> bytes:
        """What came since the last call; empty if nothing did."""
        data, self._unread = bytes(self._unread), b""
        self.returned += len(data)
        return data

    def fail(self, failure: PeerGone | MalformedResponse) -> None:
        """There is no more to come, unless it is complete already."""
        self.closed = True
        if not self.complete and self.failure is None:
            self.failure = failure
        self.wake()


def fields_of(head: bytes, headers: bytes, length: int, scheme: bytes) -> list[HeaderTuple]:
    """
    The field section of a request (section 8.3.1).

    What is the same every time goes into the table of the header compression. What differs would only push that out,
    and the table is searched from end to end for every field.

    Args:
        head: Request line and header lines, as for HTTP/1.1; `host` is the first of these. The same every time.
        headers: Further lines, of this request.
        length: Bytes of the content.
        scheme: `http` or `https`.
    """
    first, host, *lines = head.split(b"\r\n")[:-1]
    method, path, _ = first.split(b" ")
    fields = [
        HeaderTuple(b":method", method),
        HeaderTuple(b":scheme", scheme),
        HeaderTuple(b":authority", host.partition(b": ")[2]),
        HeaderTuple(b":path", path),
    ]
    fields.extend(_field(line, HeaderTuple) for line in lines)
    fields.extend(_field(line, NeverIndexedHeaderTuple) for line in headers.split(b"\r\n")[:-1])
    fields.append(NeverIndexedHeaderTuple(b"content-length", b"%d" % length))
    return [field for field in fields if field[0] not in _CONNECTION_SPECIFIC]


def _field(line: bytes, kind: type[HeaderTuple]) -> HeaderTuple:
    name, _, value = line.partition(b":")
    name = name.lower()
    return (NeverIndexedHeaderTuple if name in _SECRET else kind)(name, value.strip(b" \t"))


def head_of(fields: Iterable[tuple[bytes, bytes]]) -> Head:
    """
    Status and headers of a response.

    Raises:
        MalformedHttp2: A field is none, or must not be there (sections 8.2 and 8.3).
    """
    status, headers = b"", dict[str, str]()
    for name, value in fields:
        if name == b":status" and not status and not headers:
            status = value
        elif not _NAME.fullmatch(name) or name in _CONNECTION_SPECIFIC:
            raise MalformedHttp2(f"{name.decode('latin-1')[:60]!r} is no header that HTTP/2 has there")
        elif _NO_VALUE.search(value):
            raise MalformedHttp2(f"the value of {name.decode('latin-1')[:60]!r} has characters that it must not have")
        else:
            key, text = name.decode("ascii"), value.decode("latin-1").strip(" \t")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
    if len(status) != 3 or not status.isdigit():
        raise MalformedHttp2("its status has not three digits")
    return Head(int(status), headers)
