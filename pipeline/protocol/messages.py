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
from attrs import field, frozen

from .mcp import UNKNOWN, Method, meta_of, method_of, target_of

Json = Any
"""Any JSON value. The one place where `Any` is allowed: the border to untyped bodies."""

RequestId = str | int
"""A JSON-RPC id: a string or an integer within +-(2**53 - 1), never null (MCP, basic/index)."""

EMPTY: Final[Mapping[str, Json]] = {}
"""The params of a message that has none. Never mutated."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_set = msgspec.structs.force_setattr


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


class Body:
    """A JSON object as text and as value, each made from the other on demand and then kept. Treat it as immutable."""

    __slots__ = ("raw", "value")

    raw: bytes
    """The JSON text, byte for byte as received when it was received."""
    value: Mapping[str, Json]
    """
    The decoded object. Whoever inspects what an upstream sent must see what the client will see, so the text passes the
    gate when this is read first, at every depth: `UpstreamProtocolError` if it does not pass.
    """

    def __init__(self, value: Body | Mapping[str, Json] | None = None, raw: bytes | None = None) -> None:
        """
        Hold a value, its text, or both.

        Args:
            value: The object, or a body that holds it; without it and without text, an empty object.
            raw: The text.
        """
        if isinstance(value, Body):
            members, raw = value._kept("value"), value._kept("raw")
        else:
            members = value
        if raw is not None:
            self.raw = raw
        if members is not None or raw is None:
            self.value = EMPTY if members is None else members

    def __getattr__(self, name: str) -> object:
        """Make what is not held yet: one that is held is a slot, and read without a call."""
        if name == "raw":
            self.raw = _encode(self.value)
            return self.raw
        if name == "value":
            from .gate import check_upstream  # here, because the gate needs the errors, and they need the messages

            self.value = check_upstream(self.raw)
            return self.value
        raise AttributeError(f"{type(self).__name__} has no {name}", name=name, obj=self)

    @property
    def held(self) -> int:
        """Bytes of JSON text that it holds now; nothing is made for it, so 0 where there is a value only."""
        raw = self._kept("raw")
        return 0 if raw is None else len(raw)

    def _kept(self, name: str) -> Any:
        """What a slot holds, without making it; None for nothing."""
        try:
            return object.__getattribute__(self, name)
        except AttributeError:
            return None

    def __reduce__(self) -> tuple[type[Body], tuple[object, object]]:
        """Copies hold what this one holds."""
        return type(self), (self._kept("value"), self._kept("raw"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Body) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]  # a body may hold lists

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


def _body(value: Body | Mapping[str, Json]) -> Body:
    return value if isinstance(value, Body) else Body(value)


@final
class Request(msgspec.Struct, frozen=True):
    """
    A message that wants exactly one reply. A struct, for two are made with every call.

    What everybody asks a request about comes with it: `meta`, `row` and `target` follow from method and params, and are
    found once, when it is made. Never pass them, nor change a request with `msgspec.structs.replace`: make a new one.
    """

    id: RequestId
    """Unique among the sender's requests in flight."""
    method: str
    """For example `tools/call`."""
    params: Mapping[str, Json] = EMPTY
    """Decoded parameters. Treat them as immutable: change them with `with_params`."""
    raw: bytes | None = None
    """The whole message exactly as received, or None when it was built or changed here. No part of comparisons."""
    row: Method = UNKNOWN
    """The method table's row for its method: `method_of`."""
    target: str | None = None
    """What it is about (a tool's or prompt's name, a resource's uri, a task's id), or None: `target_of`."""
    meta: Mapping[str, Json] = EMPTY
    """The `_meta` object of its params; empty when there is none: `meta_of`."""

    def __post_init__(self) -> None:
        """Find what follows from the rest, but for who has found it already."""
        if self.row is UNKNOWN:
            _set(self, "row", method_of(self.method))
            _set(self, "target", target_of(self.method, self.params))
            _set(self, "meta", meta_of(self.params))

    def with_params(self, params: Mapping[str, Json]) -> Request:
        """The same request with other params; `raw` is dropped, for it no longer says the same."""
        return Request(self.id, self.method, params)

    def __eq__(self, other: object) -> bool:
        if type(other) is not Request:
            return NotImplemented
        return (self.id, self.method, self.params) == (other.id, other.method, other.params)

    __hash__ = None  # type: ignore[assignment]  # params are a dict

    def __repr__(self) -> str:
        return f"Request(id={self.id!r}, method={self.method!r}, params={self.params!r})"


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

    @property
    def row(self) -> Method:
        """The method table's row for its method: `method_of`."""
        return method_of(self.method)

    @property
    def target(self) -> str | None:
        """What it is about, or None: `target_of`."""
        return target_of(self.method, self.params)

    @property
    def meta(self) -> Mapping[str, Json]:
        """The `_meta` object of its params; empty when there is none: `meta_of`."""
        return meta_of(self.params)


@final
class Result(Body):
    """
    A successful answer: the `result` member of a JSON-RPC response, as text (`raw`) and as value.

    Made of the result object, or of its text: `Result({...})`, `Result(raw=...)`.
    """

    __slots__ = ()

    @property
    def body(self) -> Body:
        """Itself: what a notification calls its body."""
        return self


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
