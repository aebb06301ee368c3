"""
HTTP/1.1 responses out of bytes, without I/O (RFC 9112; llhttp through httptools).

Strict where a difference of opinion could shift the boundary between two responses: one that is followed by bytes
nobody asked for is complete, but its connection must not be used again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, final

import httptools
from attrs import Factory, define, field, frozen

MAX_HEAD: Final = 64 * 1024
"""Bytes of names and values that the head of a response may have."""

_SWITCHES: Final = "it switches protocols, which nobody asked for"
_MAX_DIGITS: Final = 20
"""Of a length: what fits into 64 bits."""
_NO_BODY: Final = frozenset({204, 304})


class MalformedResponse(Exception):
    """The bytes are no response; the text says why, as the end of a sentence."""

    protocol: ClassVar[str] = "HTTP/1.1"
    """What they should have been."""


def _media_type_of(head: Head) -> str:
    return head.headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_encoded(head: Head) -> bool:
    return head.headers.get("content-encoding", "identity") != "identity"


def _is_json(head: Head) -> bool:
    return 200 <= head.status < 300 and head.media_type == "application/json" and not head.is_encoded


def _length_of(head: Head) -> int | None:
    length = head.headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) <= _MAX_DIGITS else None


@final
@frozen
class Head:
    """Status and headers of a response."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of a name that stood twice, the values joined by a comma (RFC 9110 section 5.3)."""
    media_type: str = field(init=False, eq=False, repr=False, default=Factory(_media_type_of, takes_self=True))
    """The content type without its parameters, in lower case; empty if there is none."""
    is_encoded: bool = field(init=False, eq=False, repr=False, default=Factory(_is_encoded, takes_self=True))
    """Whether the body is compressed, or the like (RFC 9110 section 8.4)."""
    is_json: bool = field(init=False, eq=False, repr=False, default=Factory(_is_json, takes_self=True))
    """Whether it says that all went well, and that the body is JSON as it is: in MCP, one message."""
    length: int | None = field(init=False, eq=False, repr=False, default=Factory(_length_of, takes_self=True))
    """Bytes of the body, where the head says so."""

    def with_values(self, values: Mapping[str, str]) -> Head:
        """The same head, but for these headers, names in lower case."""
        return Head(self.status, {**self.headers, **values})


@define(eq=False)
class _Collector:
    """What httptools calls while it parses; keeps what a `ResponseParser` hands out. The head is known already."""

    known: Head | None = None
    parser: httptools.HttpResponseParser | None = None
    head: Head | None = None
    keep_alive: bool = False
    complete: bool = False
    surplus: bool = False
    body: list[bytes] = field(factory=list)

    def on_message_begin(self) -> None:
        self.surplus = self.complete

    def on_headers_complete(self) -> None:
        if self.parser is None:  # a second response, on which nobody waits
            return
        status = self.parser.get_status_code()
        if status == 101:
            raise MalformedResponse(_SWITCHES)
        if status >= 200 and self.head is None:
            self.head = self._made(status)
            self.keep_alive = bool(self.parser.should_keep_alive())
            self.parser = None  # it holds us; without the way back there is nothing for the garbage collector

    def _made(self, status: int) -> Head:
        assert self.known is not None
        assert self.known.status == status
        return self.known

    def on_body(self, data: bytes) -> None:
        if data and not self.complete:  # else it is that of a second response
            self.body.append(data)

    def on_message_complete(self) -> None:
        if self.head is not None:
            self.complete = True


@final
@define(eq=False)
class _HeadCollector(_Collector):
    """Likewise for a head that is not known: only this one is told of headers."""

    _fields: list[bytes] = field(factory=list)
    """Names and values in turn; how many, `ResponseParser.feed` bounds."""

    def on_message_begin(self) -> None:
        self.surplus = self.complete
        self._fields.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is None:  # what comes after the head are trailers, which mean nothing in MCP
            self._fields += (name, value)

    def _made(self, status: int) -> Head:
        fields = self._fields
        headers: dict[str, str] = {}
        if sum(map(len, fields)) > MAX_HEAD:
            raise MalformedResponse(f"its head has more than {MAX_HEAD} bytes")
        for name, value in zip(fields[::2], fields[1::2], strict=True):
            key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return Head(status, headers)


@final
class ResponseParser:
    """
    Parses one response. Feed it what was read until it is `complete`, then use another one.

    Interim responses (1xx) are skipped. The body is whatever arrived since the last `take`: the parser holds no more
    than one piece that was fed, so who stops feeding holds the peer back.

    Args:
        known: The head, if the first bytes that will be fed are known to be it; None if it is to be read.
    """

    def __init__(self, known: Head | None = None) -> None:
        self._collector = _HeadCollector() if known is None else _Collector(known)
        self._framing = 0
        self.started = False
        """Whether anything was fed."""
        self._parser = self._collector.parser = httptools.HttpResponseParser(self._collector)

    @property
    def head(self) -> Head | None:
        """Status and headers, once they are there."""
        return self._collector.head

    @property
    def complete(self) -> bool:
        """Whether the last byte of the body was fed."""
        return self._collector.complete

    @property
    def reusable(self) -> bool:
        """Whether the connection can carry another request: complete, kept alive, and nothing came after the end."""
        collector = self._collector
        return collector.complete and collector.keep_alive and not collector.surplus

    @property
    def has_head_only(self) -> bool:
        """Whether exactly the head was fed until now, and the next response will come on the same connection."""
        collector = self._collector
        return collector.head is not None and self.keeps_alive and not collector.body

    @property
    def keeps_alive(self) -> bool:
        """Whether the peer says that it keeps the connection open after this response."""
        return self._collector.keep_alive and not self._collector.surplus

    def feed(self, data: bytes) -> None:
        """
        Take what was read.

        Raises:
            MalformedResponse: It is no response, its head is too large, or it goes on without any content.
        """
        self.started, collector = True, self._collector
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if isinstance(error.__context__, MalformedResponse):
                raise error.__context__ from None
            if collector.complete:  # what follows a complete response is not ours to judge, only not to trust
                collector.surplus = True
                return
            raise MalformedResponse(f"it cannot be parsed: {error}") from error
        self._framing = 0 if collector.body else self._framing + len(data)
        if self._framing > 2 * MAX_HEAD:  # a single endless value is never reported to the collector
            what = "its head has" if collector.head is None else "between two pieces of its content there are"
            raise MalformedResponse(f"{what} more than {MAX_HEAD} bytes")

    def end(self) -> bool:
        """
        The peer closed the connection.

        Returns:
            Whether the response is complete now: a body without any length ends like this (RFC 9112 section 6.3).
        """
        head = self._collector.head
        if head is not None and not self._collector.complete:
            framed = "content-length" in head.headers or "transfer-encoding" in head.headers
            self._collector.complete = not framed and head.status not in _NO_BODY
            self._collector.keep_alive = False
        return self._collector.complete

    def take(self) -> bytes:
        """The part of the body that arrived since the last call; empty if none did."""
        body = self._collector.body
        if not body:
            return b""
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return data
