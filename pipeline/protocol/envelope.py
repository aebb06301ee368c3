"""
What a JSON-RPC 2.0 message is in MCP: the rules about the envelope, on values that passed, or now pass, the gate.

Stricter than JSON-RPC where MCP is: params are objects, ids are never null (basic/index). A key that only looks like
one we know is refused, because the upstream's parser may take it for that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .errors import GatewayError, InvalidMessage
from .gate import Limits, inspect, inspect_all, known_keys, refuse_lookalikes
from .mcp import METHODS, MetaKey
from .messages import EMPTY, Body, ErrorReply, Json, Message, Notification, Request, RequestId, Response, Result

GREATEST_ID: Final = 2**53 - 1
"""The greatest integer that every JSON parser reads exactly; ids lie within +- of it (MCP, basic/index)."""

_ENVELOPE: Final = known_keys("jsonrpc", "id", "method", "params", "result", "error")
_TARGETS: Final = {row.target for row in METHODS.values() if row.target is not None}
_PARAMS: Final = known_keys(*_TARGETS, "arguments", "cursor", "_meta", "inputResponses", "requestState")
_META: Final = known_keys(*MetaKey)
_UNVERSIONED: Final = 'the message needs "jsonrpc": "2.0"'
_UNNAMED: Final = "method must be a string"
_LF: Final = ord("\n")
_CR: Final = ord("\r")
"""Numbers, for as such they are found in a sixth of the time."""
_LINE_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")
_row_of: Final = METHODS.get
_has_envelope_keys: Final = frozenset(_ENVELOPE.values()).issuperset
_has_request_keys: Final = frozenset({"jsonrpc", "id", "method", "params"}).issuperset
_has_known_params: Final = frozenset(_PARAMS.values()).issuperset
_has_known_meta: Final = frozenset(_META.values()).issuperset


def read_message(value: Json, data: bytes, limits: Limits) -> Message:
    """
    The message that a parsed value is: `gate.inspect` and `message_of`, for the common request in one pass.

    What has known keys only has no two that could be confused; so of such a request, and its params, nothing is left to
    inspect but the members of the params.

    Args:
        value: What `gate.parse` made of the text.
        data: Its text; a request keeps it, on one line.
        limits: For `max_depth`.

    Raises:
        InvalidMessage: It is not one JSON-RPC message, or `gate.inspect` finds that it is ambiguous or too deep.
        ParseError: As `gate.inspect`.
            Both carry `request_id` when the message is a request whose id could be read.
    """
    line = one_line(data)
    try:
        if type(value) is dict and _has_request_keys(value):
            params = value.get("params")
            if type(params) is dict and _has_known_params(params) and limits.max_depth > 1:
                inspect_all(params.values(), limits.max_depth - 2, limits, [])
                return _asked(value, params, line)
    except GatewayError:
        pass  # something is wrong: what comes first is told below, rule by rule
    try:
        inspect(value, limits)
        return message_of(value, line)
    except GatewayError as error:
        error.request_id = id_to_answer(value)
        raise


def one_line(data: bytes) -> bytes:
    """
    JSON without its line ends, which can only be white space between tokens; unchanged if there are none.

    Args:
        data: Must have been read as JSON already: in text that is none, a line end may stand inside a string.
    """
    return data.translate(_LINE_ENDS) if _LF in data or _CR in data else data


def message_of(value: Json, line: bytes) -> Message:
    """
    The message that a decoded value is.

    Args:
        value: What passed the gate.
        line: Its text; a request keeps it.

    Raises:
        InvalidMessage: It is not one JSON-RPC message, with a sentence that says why.
    """
    if type(value) is not dict:
        raise InvalidMessage("a message is one JSON object; batches exist in MCP 2025-03-26 only")
    if not _has_envelope_keys(value):
        refuse_lookalikes(value, _ENVELOPE, "the message")
    if value.get("jsonrpc") != "2.0":
        raise InvalidMessage(_UNVERSIONED)
    if "method" not in value:
        return _response(value)
    if type(value["method"]) is not str:
        raise InvalidMessage(_UNNAMED)
    if "result" in value or "error" in value:
        raise InvalidMessage("a message has either a method, or a result or error, not both")
    params = value.get("params", EMPTY)
    if type(params) is not dict and params is not EMPTY:
        raise InvalidMessage("params must be an object")
    if not _has_known_params(params):
        refuse_lookalikes(params, _PARAMS, "params")
    return _asked(value, params, line)


def _asked(value: Mapping[str, Json], params: Mapping[str, Json], line: bytes) -> Request | Notification:
    """The request or notification with these params, if the rest of it is in order."""
    if value.get("jsonrpc") != "2.0":
        raise InvalidMessage(_UNVERSIONED)
    method = value.get("method")
    if type(method) is not str:
        raise InvalidMessage(_UNNAMED)
    meta = params.get("_meta")
    if type(meta) is not dict:
        meta = EMPTY
    elif not _has_known_meta(meta):
        refuse_lookalikes(meta, _META, "params._meta")
    if "id" not in value:
        return Notification(method, Body(params))
    id_ = value["id"]
    if type(id_) is not int or not -GREATEST_ID <= id_ <= GREATEST_ID:
        id_ = request_id_of(id_)
    row = _row_of(method)
    if row is None:
        return Request(id_, method, params, line)
    target = None if row.target is None else params.get(row.target)
    return Request(id_, method, params, line, row, target if type(target) is str else None, meta)


def request_id_of(value: Json) -> RequestId:
    """
    An `id`, with its exact type.

    Raises:
        InvalidMessage: It is neither a string nor an integer in range; null, a bool or 1.0 is none.
    """
    kind = type(value)
    if kind is str or (kind is int and -GREATEST_ID <= value <= GREATEST_ID):
        return value  # type: ignore[no-any-return]  # the line above is the type check
    raise InvalidMessage("id must be a string or an integer within +-(2**53 - 1)")


def _response(value: Mapping[str, Json]) -> Response:
    if ("result" in value) == ("error" in value):
        raise InvalidMessage("a message needs a method, or else either a result or an error")
    if "result" in value:
        if type(value["result"]) is not dict:
            raise InvalidMessage("result must be an object")
        return Response(request_id_of(value.get("id")), Result(value["result"]))
    error = value["error"]
    if type(error) is not dict or type(error.get("code")) is not int or type(error.get("message")) is not str:
        raise InvalidMessage("error must be an object with an integer code and a string message")
    answered = value.get("id")
    reply = ErrorReply(error["code"], error["message"], error.get("data"))
    return Response(None if answered is None else request_id_of(answered), reply)


def id_to_answer(value: Json) -> RequestId | None:
    """The id that an error about this message should carry; none for what is an answer itself."""
    if type(value) is not dict or ("method" not in value and ("result" in value or "error" in value)):
        return None
    try:
        return request_id_of(value.get("id"))
    except InvalidMessage:
        return None
