"""
Messages of a modern client as a legacy server knows them, and what that says as the client knows it (2026-07-28).

Pure: who sends what, and when, is decided elsewhere. Requests and results keep their bytes around what is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

import msgspec
from attrs import evolve

from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import MODERN_VERSIONS, ErrorCode, MetaKey, meta_of, method_of
from sluiceway.pipeline.protocol.messages import (
    EMPTY,
    ErrorReply,
    Json,
    Reply,
    Request,
    Result,
    decode_json,
    encode_json,
)
from sluiceway.pipeline.protocol.splice import with_meta

from ..readdress import readdress
from .task_messages import offers_tasks, with_extension

INPUT_REQUIRED: Final = "input_required"
_NOT_LEGACY: Final[Mapping[str, Json]] = {
    MetaKey.VERSION.value: None,
    MetaKey.CLIENT_INFO.value: None,
    MetaKey.CLIENT_CAPABILITIES.value: None,
    MetaKey.LOG_LEVEL.value: None,
}
"""Members of `_meta` that a legacy server was told in the handshake; None takes them out."""
_RETRY: Final = ("inputResponses", "requestState")
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NAMED: Final = (b'"resultType"', b'"_meta"', b'"ttlMs"', b'"cacheScope"', b"\\u")
"""What must not stand in a result for members to be put in front of it unseen; an escape may spell any name."""

_OF_LEGACY_QUESTIONS: Final = frozenset({MetaKey.PROGRESS_TOKEN.value, "io.modelcontextprotocol/related-task"})

LOG_LEVELS: Final[Mapping[str, int]] = {
    level: rank
    for rank, level in enumerate(("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"))
}
"""How severe (RFC 5424), least first."""


def legacy_request(request: Request, number: int) -> Request:
    """
    A request without what only modern ones carry, under an id of its session; the progress token, if any, is the id.

    Clients that share a session know nothing of each other, so neither their ids nor their tokens are unique there.
    """
    request = without_answers(request)
    plain = with_meta(request, _NOT_LEGACY)
    assert isinstance(plain, Request)
    params = plain.params
    if MetaKey.PROGRESS_TOKEN in meta_of(params):
        params = {**params, "_meta": {**meta_of(params), MetaKey.PROGRESS_TOKEN.value: number}}
    return Request(number, plain.method, params, readdress(plain, number))


def without_answers(request: Request) -> Request:
    """The request as it was first sent, before anything was asked."""
    if not any(name in request.params for name in _RETRY):
        return request
    return request.with_params({key: value for key, value in request.params.items() if key not in _RETRY})


def introduction(client_info: Mapping[str, Json], capabilities: Mapping[str, Json], version: str) -> dict[str, Json]:
    """Params of an `initialize` in a client's name; legacy revisions want a name and a version, modern ones do not."""
    return {
        "protocolVersion": version,
        "capabilities": dict(capabilities),
        "clientInfo": {"name": "unnamed", "version": "0", **client_info},
    }


@final
class Completer:
    """
    Makes modern results of legacy ones.

    Args:
        handshake: The server's answer to `initialize`.
    """

    def __init__(self, handshake: Mapping[str, Json] = EMPTY) -> None:
        self._handshake = handshake
        info = handshake.get("serverInfo")
        self._meta: dict[str, Json] = {MetaKey.SERVER_INFO.value: info} if isinstance(info, dict) else {}
        self._plain: dict[str, Json] = {"resultType": "complete", **({"_meta": self._meta} if self._meta else {})}
        self._cacheable = {**self._plain, "ttlMs": 0, "cacheScope": "private"}

    def complete(self, method: str, reply: Result) -> Result:
        """
        A result with the members that every modern one has. What the server says itself stays.

        It is no older than its question and nobody else's: a legacy server does not say for how long it holds, or whom
        it is for.

        Raises:
            UpstreamProtocolError: It is no text that a client could read.
        """
        added = self._cacheable if method_of(method).cacheable else self._plain
        raw = reply.raw.strip()
        if not any(name in raw for name in _NAMED):
            rest = raw[1:].lstrip()
            return Result(raw=b"%b%b%b" % (encode_json(added)[:-1], b"" if rest == b"}" else b",", rest))
        try:
            members = _members(raw)
            meta = decode_json(members["_meta"]) if "_meta" in members else None
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise UpstreamProtocolError(f"the upstream's result is not JSON in UTF-8: {error}") from error
        for key, value in added.items():
            members.setdefault(key, msgspec.Raw(encode_json(value)))
        if isinstance(meta, dict) and self._meta:
            members["_meta"] = msgspec.Raw(encode_json({**self._meta, **meta}))
        return Result(raw=encode_json(members))

    def discovered(self) -> Result:
        """The answer to `server/discover`: which revisions the gateway translates, and what the server said."""
        declared = self._handshake.get("capabilities")
        capabilities = {
            key: value for key, value in (declared if isinstance(declared, dict) else EMPTY).items() if key != "tasks"
        }
        if isinstance(declared, dict) and offers_tasks(declared):
            capabilities = with_extension(capabilities)
        said = {key: self._handshake[key] for key in ("instructions",) if key in self._handshake}
        return Result(
            {"supportedVersions": [*MODERN_VERSIONS], "capabilities": capabilities, **said, **self._cacheable}
        )


def modern_error(error: ErrorReply) -> ErrorReply:
    """An error under the number it has since 2026-07-28 (SEP-2164)."""
    if error.code == ErrorCode.RESOURCE_NOT_FOUND:
        return evolve(error, code=int(ErrorCode.INVALID_PARAMS))
    return error


def pages_to_visit(reply: Reply) -> list[dict[str, Json]] | None:
    """
    The pages that a server of 2025-11-25 wants visited before it serves a request (-32042), as params of questions;
    None if the reply is another one.
    """
    if not isinstance(reply, ErrorReply) or reply.code != ErrorCode.URL_ELICITATION_REQUIRED:
        return None
    listed = reply.data.get("elicitations") if isinstance(reply.data, dict) else None
    pages = [each for each in (listed if isinstance(listed, list) else []) if isinstance(each, dict)]
    return [modern_question("elicitation/create", {"mode": "url", **page}) for page in pages]


def modern_question(method: str, params: Mapping[str, Json]) -> dict[str, Json]:
    """Params of a question without what only legacy ones carry: ids of elicitations, tasks, progress tokens."""
    gone = {"task", "_meta"} | ({"elicitationId"} if method == "elicitation/create" else set())
    kept = {key: value for key, value in params.items() if key not in gone}
    meta = {key: value for key, value in meta_of(params).items() if key not in _OF_LEGACY_QUESTIONS}
    return {**kept, "_meta": meta} if meta else kept


def can_be_asked(capabilities: Mapping[str, Json]) -> bool:
    """Whether a client with these capabilities can be asked anything."""
    return any(isinstance(capabilities.get(name), dict) for name in ("elicitation", "sampling", "roots"))


def lacking(method: str, params: Mapping[str, Json], declared: Mapping[str, Json]) -> dict[str, Json] | None:
    """
    The capabilities that a client lacks for a question; None if nothing, or if it is no question of MCP's.

    An `elicitation` that names no mode means forms only (2025-11-25, client/elicitation, capabilities).
    """
    if method == "roots/list":
        needed, part = "roots", None
    elif method == "sampling/createMessage":
        needed, part = "sampling", "tools" if "tools" in params or "toolChoice" in params else None
    elif method == "elicitation/create":
        needed, part = "elicitation", "url" if params.get("mode") == "url" else "form"
    else:
        return {method: {}}
    has = declared.get(needed)
    if isinstance(has, dict) and (part is None or part in has or (part == "form" and "url" not in has)):
        return None
    return {needed: {} if part is None else {part: {}}}


def log_level_of(request: Request) -> str | None:
    """From which level on the client wants log messages about this request; None if it wants none."""
    level = meta_of(request.params).get(MetaKey.LOG_LEVEL)
    return level if isinstance(level, str) and level in LOG_LEVELS else None


def is_wanted(log_level: str | None, params: Mapping[str, Json]) -> bool:
    """Whether a log message with these params is severe enough; one of an unknown level is."""
    if log_level is None:
        return False
    level = params.get("level")
    return not isinstance(level, str) or LOG_LEVELS.get(level, len(LOG_LEVELS)) >= LOG_LEVELS[log_level]


def most_verbose(levels: list[str]) -> str:
    """The least severe of some levels, at least one."""
    return min(levels, key=LOG_LEVELS.__getitem__)
