"""
Bytes to messages and back, without I/O.

From a client everything passes the gate at every depth, and the request keeps the very bytes that were inspected.
From an upstream only the envelope is read: bodies stay bytes until somebody looks (`Body.value`, which gates them).
Either way a message is one line afterwards: JSON can hold line ends only between tokens, where they become spaces, so
a body posted over HTTP cannot smuggle a second message into a stream that is framed by lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, Literal, final

import msgspec
from attrs import frozen
from msgspec import UNSET, Raw, UnsetType

from .envelope import GREATEST_ID, id_to_answer, message_of, one_line, read_message, request_id_of
from .errors import GatewayError, InvalidMessage, ParseError, UpstreamProtocolError
from .gate import DEFAULT_LIMITS, Limits, inspect_each, parse, too_large
from .messages import (
    Body,
    ErrorReply,
    Json,
    Message,
    Notification,
    Reply,
    Request,
    RequestId,
    Response,
    Result,
)

_BRACE: Final = ord("{")


def decode_message(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Message:
    """
    One message from a client.

    Raises:
        ParseError: Not JSON (-32700).
        InvalidMessage: Not one JSON-RPC message, or JSON that parsers may read differently (-32600).
        MessageTooLarge: Over `limits.max_message_size`.
            All carry `request_id` when the message is a request whose id could be read.
    """
    return read_message(parse(data, limits), data, limits)


def decode_batch(data: bytes, limits: Limits = DEFAULT_LIMITS) -> list[Message | GatewayError] | Message:
    """
    One message from a client that speaks 2025-03-26, or several in an array (JSON-RPC 2.0 section 6).

    Returns:
        The message; or for each element of the array its message, or why it is none: a `ParseError` or `InvalidMessage`
        that carries `request_id` if the element is a request whose id could be read.

    Raises:
        ParseError: As `decode_message`: the array is not JSON.
        InvalidMessage: As `decode_message`; also an empty batch, or more elements than `limits.max_batch`.
        MessageTooLarge: As `decode_message`; the limit holds for the whole batch.
    """
    value = parse(data, limits)
    if type(value) is not list:
        return read_message(value, data, limits)
    if not 0 < len(value) <= limits.max_batch:
        raise InvalidMessage(f"a batch holds 1 to max_batch ({limits.max_batch}) messages, not {len(value)}")
    lines = map(bytes, _decode_array(one_line(data)))
    return list(map(_element, value, lines, inspect_each(value, limits)))


def _element(value: Json, line: bytes, error: GatewayError | None) -> Message | GatewayError:
    if error is None:
        try:
            return message_of(value, line)
        except InvalidMessage as refusal:
            error = refusal
    error.request_id = id_to_answer(value)
    return error


class _Error(msgspec.Struct, frozen=True, omit_defaults=True):
    code: int
    message: str
    data: Json = None


class _Incoming(msgspec.Struct, frozen=True, gc=False):
    jsonrpc: Literal["2.0"]
    id: int | str | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: _Error | UnsetType = UNSET


class _Identified(msgspec.Struct, frozen=True, gc=False):
    id: int | str


class _Outgoing(msgspec.Struct, frozen=True, gc=False):
    jsonrpc: str = "2.0"
    id: int | str | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: Any = UNSET
    error: _Error | UnsetType = UNSET


_decode_incoming = msgspec.json.Decoder(_Incoming).decode
_decode_identified = msgspec.json.Decoder(_Identified).decode
_decode_array = msgspec.json.Decoder(list[Raw]).decode
_encode = msgspec.json.Encoder().encode
_new = object.__new__


def decode_upstream(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Message:
    """
    One message from an upstream: a response, a notification, or (legacy era) a question.

    Reads the envelope only; the body stays bytes. Of a key that stands twice in the envelope the last counts, for us
    and for the client, because what goes on is a new envelope around the chosen body.

    Raises:
        UpstreamProtocolError: Not one JSON-RPC message, or larger than `limits.max_message_size`. Carries
            `request_id` when an id could be read, so that its waiter need not wait for the deadline.
    """
    size = len(data)
    if size > limits.max_message_size:
        raise UpstreamProtocolError(
            f"the upstream sent a message of {size} bytes; max_message_size is {limits.max_message_size}"
        )
    try:
        if not data.isascii():
            data.decode()  # bodies are skipped unread: nobody else would notice invalid UTF-8
        envelope = _decode_incoming(data)
        if envelope.result is UNSET or envelope.method is not UNSET or envelope.error is not UNSET:
            return _upstream_message(envelope)
        id_ = envelope.id
        if type(id_) is not int or not -GREATEST_ID <= id_ <= GREATEST_ID:
            id_ = request_id_of(id_)
        result = _new(Result)
        result.raw = _object(envelope.result, "result")
        return Response(id_, result)
    except (ValueError, RecursionError, GatewayError) as error:
        raise _no_message(data, error) from error  # not by a name here: its frames would hold it, and all of the data


def _no_message(data: bytes, error: Exception) -> UpstreamProtocolError:
    reason = "it nests too deep" if isinstance(error, RecursionError) else str(error)
    failure = UpstreamProtocolError(f"the upstream sent something that is not a JSON-RPC message: {reason}")
    failure.request_id = _upstream_id(data)
    return failure


def _upstream_message(envelope: _Incoming) -> Message:
    """What is no result: a notification, a question, or an error."""
    if envelope.method is not UNSET:
        if envelope.result is not UNSET or envelope.error is not UNSET:
            raise InvalidMessage("it has both a method and a result or error")
        body = Body() if envelope.params is UNSET else Body(raw=_object(envelope.params, "params"))
        if envelope.id is UNSET:
            return Notification(envelope.method, body)
        return Request(request_id_of(envelope.id), envelope.method, body.value)
    if envelope.error is UNSET or envelope.result is not UNSET:
        raise InvalidMessage("it has no method, and not exactly one of result and error")
    reply = ErrorReply(envelope.error.code, envelope.error.message, envelope.error.data)
    return Response(None if envelope.id is UNSET or envelope.id is None else request_id_of(envelope.id), reply)


def _object(raw: Raw, name: str) -> bytes:
    """The text of an object, on one line."""
    text = one_line(bytes(raw))
    if text[0] != _BRACE:
        raise InvalidMessage(f"its {name} is not an object")
    return text


def _upstream_id(data: bytes) -> RequestId | None:
    try:
        return request_id_of(_decode_identified(data).id)
    except (ValueError, RecursionError, GatewayError):
        return None


def encode_message(message: Message) -> bytes:
    """
    A message as compact JSON on one line, without a line end.

    What was received and not changed is passed on byte for byte: a request's `raw`, the body of everything else.
    """
    if type(message) is Response:
        return encode_reply(message.id, message.reply)
    if type(message) is Request:
        if message.raw is not None:
            return message.raw
        return _encode(_Outgoing(id=message.id, method=message.method, params=message.params or UNSET))
    assert type(message) is Notification  # there is no fourth
    raw = message.body.raw
    return _encode(_Outgoing(method=message.method, params=UNSET if raw == b"{}" else Raw(raw)))


def encode_reply(request_id: RequestId | None, reply: Reply) -> bytes:
    """
    A response as `encode_message` writes it, for who has no `Response` of it.

    Args:
        request_id: The id of the request that is answered; None only for an error about one that could not be read.
        reply: The answer. The text of a result goes on byte for byte.
    """
    if type(reply) is Result:
        return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (_encode(request_id), reply.raw)
    assert type(reply) is ErrorReply  # there is no third
    return _encode(_Outgoing(id=request_id, error=_Error(reply.code, reply.message, reply.data)))


@final
@frozen
class BufferStats:
    """How full a `StreamDecoder` is."""

    used: int
    """Bytes of the unfinished line."""
    capacity: int
    """Bytes at which a line is given up: `Limits.max_message_size`."""

    @property
    def utilization(self) -> float:
        """`used` as a share of `capacity`, 0 to 1."""
        return self.used / self.capacity


@final
class StreamDecoder:
    """
    Messages out of a byte stream: one a line (MCP stdio transport), or several on a line with white space between.

    However the stream is cut into pieces, the same messages come out. Not a task and not a reader: feed it what was
    read, 64 KiB at a time or so.

    Args:
        decode: What a line is; `decode_message` or `decode_upstream`.
        limits: Passed to `decode`; `max_message_size` also bounds the buffer.
    """

    def __init__(
        self,
        decode: Callable[[bytes, Limits], Message] = decode_message,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._decode = decode
        self._limits = limits
        self._line = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> list[Message | GatewayError]:
        """
        Take a piece of the stream.

        Returns:
            What it completed, in order. A line that is no message is the error to answer it with; a line over
            `max_message_size` is one `MessageTooLarge` as soon as that is certain, and skipped up to its end.
        """
        *ends, rest = data.split(b"\n")
        out: list[Message | GatewayError] = []
        for end in ends:
            if self._line or self._skipping or len(end) > self._limits.max_message_size:
                self._append(end, out)
                self._finish(out)
            else:
                self._take(end, out)
        if rest:
            self._append(rest, out)
        return out

    def end(self) -> list[Message | GatewayError]:
        """The stream is over: what a last line without a line end holds."""
        out: list[Message | GatewayError] = []
        self._finish(out)
        return out

    def buffer_stats(self) -> BufferStats:
        """How much of an unfinished line is held."""
        return BufferStats(len(self._line), self._limits.max_message_size)

    def _append(self, piece: bytes, out: list[Message | GatewayError]) -> None:
        if self._skipping:
            return
        if len(self._line) + len(piece) > self._limits.max_message_size:
            self._line.clear()
            self._skipping = True
            out.append(too_large(self._limits))
        else:
            self._line += piece

    def _finish(self, out: list[Message | GatewayError]) -> None:
        line = bytes(self._line)
        self._line.clear()
        self._skipping = False
        self._take(line, out)

    def _take(self, line: bytes, out: list[Message | GatewayError]) -> None:
        if line and not line.isspace():
            out += self._messages(line)

    def _messages(self, line: bytes) -> list[Message | GatewayError]:
        try:
            return [self._decode(line, self._limits)]
        except (ParseError, UpstreamProtocolError) as error:
            parts = _split(line)
            if len(parts) < 2:
                return [error]
        except GatewayError as error:
            return [error]
        return [message for part in parts for message in self._messages(part)]


_scan = json.JSONDecoder().raw_decode
_GAP: Final = re.compile(r"[ \t\r]*")


def _split(line: bytes) -> list[bytes]:
    """The JSON values of a line that holds several with white space between; empty if it is anything else."""
    parts: list[bytes] = []
    try:
        text = line.decode()
        start = _gap_end(text, 0)
        while start < len(text):
            end = _scan(text, start)[1]
            parts.append(text[start:end].encode())
            start = _gap_end(text, end)
            if start == end < len(text):
                return []
    except (ValueError, RecursionError):
        return []
    return parts


def _gap_end(text: str, start: int) -> int:
    match = _GAP.match(text, start)
    assert match is not None  # the pattern matches nothing, too
    return match.end()
