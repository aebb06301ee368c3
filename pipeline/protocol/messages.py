"""
The messages that travel through a pipeline.

JSON-RPC 2.0 knows four kinds: request, notification, result and error. Bodies are kept as the bytes they were
(`raw`) and decoded only when somebody reads them (`value`, `params`), so that what no stage touches is forwarded
unchanged (architecture, decision 14).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

import msgspec
from attrs import evolve, field, frozen

Json = Any
"""Any JSON value. The one place where `Any` is allowed: the border to untyped bodies."""

RequestId = str | int
"""A JSON-RPC id: a string or an integer within +-(2**53 - 1), never null (MCP, basic/index)."""

EMPTY: Final[Mapping[str, Json]] = {}
"""The params of a message that has none. Never mutated."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def encode_json(value: Json) -> bytes:
    """
    Encode a JSON value as compact UTF-8.

    Raises:
        TypeError: The value holds something that is not JSON.
    """
    return _encode(value)


def decode_json(text: bytes | str) -> Json:
    """
    Decode JSON that already passed the gate, or that we wrote ourselves.

    Raises:
        msgspec.DecodeError: The text is not JSON. Bytes from outside go through `gate` first.
    """
    return _decode(text)


@final
class Body:
    """A JSON object as text and as value, each made from the other on demand and then kept. Treat it as immutable."""

    __slots__ = ("_raw", "_value")

    def __init__(self, value: Mapping[str, Json] | None = None, raw: bytes | None = None) -> None:
        if value is None and raw is None:
            value = EMPTY
        self._value = value
        self._raw = raw

    @property
    def value(self) -> Mapping[str, Json]:
        """
        The decoded object. Whoever inspects what an upstream sent must see what the client will see, so the text
        passes the gate at this point, at every depth.

        Raises:
            UpstreamProtocolError: It does not pass.
        """
        if self._value is None:
            from .gate import check_upstream  # here, because the gate needs the errors, and they need the messages

            assert self._raw is not None
            self._value = check_upstream(self._raw)
        return self._value

    @property
    def raw(self) -> bytes:
        """The JSON text, byte for byte as received when it was received."""
        if self._raw is None:
            self._raw = _encode(self._value)
        return self._raw

    @property
    def held(self) -> int:
        """Bytes of JSON text that it holds now; nothing is made for it, so 0 where there is a value only."""
        return 0 if self._raw is None else len(self._raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Body) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]  # a body may hold lists

    def __repr__(self) -> str:
        return f"Body({self.value!r})"


def _body(value: Body | Mapping[str, Json]) -> Body:
    return value if isinstance(value, Body) else Body(value)


@frozen
class Request:
    """A message that wants exactly one reply."""

    id: RequestId
    """Unique among the sender's requests in flight."""
    method: str
    """For example `tools/call`."""
    params: Mapping[str, Json] = EMPTY
    """Decoded parameters. Treat them as immutable: change them with `with_params`."""
    raw: bytes | None = field(default=None, eq=False, repr=False)
    """The whole message exactly as received, or None when it was built or changed here."""

    def with_params(self, params: Mapping[str, Json]) -> Request:
        """The same request with other params; `raw` is dropped, for it no longer says the same."""
        return evolve(self, params=params, raw=None)


@frozen
class Notification:
    """A message without a reply, in either direction."""

    method: str
    """For example `notifications/progress`."""
    body: Body = field(factory=Body, converter=_body)
    """The params."""

    @property
    def params(self) -> Mapping[str, Json]:
        """Decoded parameters; treat them as immutable."""
        return self.body.value


@frozen
class Result:
    """A successful answer: the `result` member of a JSON-RPC response."""

    body: Body = field(factory=Body, converter=_body)
    """The result object."""

    @property
    def value(self) -> Mapping[str, Json]:
        """The decoded result; treat it as immutable."""
        return self.body.value


@frozen
class ErrorReply:
    """A failure as data: the `error` member of a JSON-RPC response, said by whoever answered."""

    code: int
    """See `mcp.ErrorCode` and `errors`."""
    message: str
    """One sentence for people."""
    data: Json = None
    """Details; None when there are none."""
    http_status: int | None = field(default=None, eq=False)
    """The HTTP status this error should travel with, if its origin knows; never part of the JSON."""


Reply = Result | ErrorReply
"""What a service returns."""


@final
class Response(msgspec.Struct, frozen=True):
    """
    A reply with the id of the request it answers: what the codec reads and writes. A struct, for two are made with
    every call, and each in a fifth of the time.
    """

    id: RequestId | None
    """None only for an error about a message whose id could not be read."""
    reply: Reply


Message = Request | Notification | Response
"""What the codec yields."""
