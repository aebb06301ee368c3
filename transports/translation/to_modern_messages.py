"""
What a legacy client says as a modern upstream understands it, and its answers as the client does. Pure.

Sources: the schemas of 2025-11-25 and 2026-07-28, and the changelog between them. What both revisions have is left as
it is; a result's text is taken apart at its first level only, so a large one is not held as objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from attrs import evolve

from sluiceway.pipeline.model.tools import CALL, LIST
from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import (
    LATEST_LEGACY,
    LEGACY_VERSIONS,
    MODERN_VERSIONS,
    ErrorCode,
    MetaKey,
    meta_of,
)
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Request, Result

COMPLETE: Final = "complete"
INPUT_REQUIRED: Final = "input_required"
LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""Of `logging/setLevel` (RFC 5424)."""

_TASKS: Final = "io.modelcontextprotocol/tasks"
_READ: Final = "resources/read"
_OF_DISCOVERY: Final = frozenset({"resultType", "supportedVersions", "serverInfo", "ttlMs", "cacheScope"})
_OF_OTHER_REVISIONS: Final = frozenset({"task", "inputResponses", "requestState"})
"""Params that mean something in one era only. A request of a legacy client never takes up an earlier one, and without
the capability `tasks` at the server it is served as if it had not asked for a task (2025-11-25, tasks)."""
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


def negotiate(requested: Json) -> str:
    """The legacy revision to speak with a client: the one it asks for, or the latest (2025-11-25, basic/lifecycle)."""
    return requested if requested in LEGACY_VERSIONS else LATEST_LEGACY


def choose_version(discovered: Mapping[str, Json]) -> str | None:
    """The modern revision to speak with an upstream that was asked `server/discover`; None if it has none of ours."""
    supported = discovered.get("supportedVersions")
    return next((each for each in reversed(MODERN_VERSIONS) if isinstance(supported, list) and each in supported), None)


def has_legacy(discovered: Mapping[str, Json]) -> bool:
    """Whether an upstream that was asked `server/discover` speaks revisions with a handshake, too."""
    supported = discovered.get("supportedVersions")
    return isinstance(supported, list) and any(each in LEGACY_VERSIONS for each in supported)


def modern_capabilities(declared: Mapping[str, Json]) -> dict[str, Json]:
    """A legacy client's capabilities: without tasks, which mean something else now, and changes of roots."""
    capabilities = {key: value for key, value in declared.items() if key != "tasks"}
    extensions = capabilities.get("extensions")
    if isinstance(extensions, dict):
        capabilities["extensions"] = {key: value for key, value in extensions.items() if key != _TASKS}
    roots = capabilities.get("roots")
    if isinstance(roots, dict):
        capabilities["roots"] = {key: value for key, value in roots.items() if key != "listChanged"}
    return capabilities


def introduction(discovered: Mapping[str, Json], version: str, name: str) -> dict[str, Json]:
    """
    The answer to `initialize` of an upstream that was asked `server/discover`.

    Args:
        discovered: What it answered.
        version: What was negotiated with the client.
        name: What to call a server that does not say its name.
    """
    meta = dict(meta_of(discovered))
    info = meta.pop(MetaKey.SERVER_INFO, None) or discovered.get("serverInfo")
    capabilities = discovered.get("capabilities")
    answer = {key: value for key, value in discovered.items() if key not in _OF_DISCOVERY and key != "_meta"}
    answer["protocolVersion"] = version
    answer["capabilities"] = capabilities if isinstance(capabilities, dict) else {}
    answer["serverInfo"] = info if isinstance(info, dict) else {"name": name, "version": "unknown"}
    return {**answer, "_meta": meta} if meta else answer


def modern_params(params: Mapping[str, Json], about: Mapping[str, Json]) -> dict[str, Json]:
    """
    Params as a modern request carries them.

    Args:
        params: The client's.
        about: Members of `_meta` that every request of this client carries.
    """
    kept = {key: value for key, value in params.items() if key not in _OF_OTHER_REVISIONS}
    return {**kept, "_meta": {**meta_of(params), **about}}


def legacy_result(name: str, method: str, result: Result) -> Result | None:
    """
    A result as a legacy client understands it; None if it is no answer yet, but asks for input.

    Results are open objects in every revision, so members that only newer ones know stay where they do no harm:
    `ttlMs` and `cacheScope` do, and stages in front go by them.

    Args:
        name: What the upstream is called in errors.
        method: Of the request it answers.
        result: The upstream's.

    Raises:
        UpstreamProtocolError: It is of a type that this client cannot have asked for.
    """
    if method == LIST:
        result = _with_object_schemas(result)
    members = _members(result.raw)
    said = members.pop("resultType", None)
    if said is not None and (kind := msgspec.json.decode(said)) != COMPLETE:
        if kind == INPUT_REQUIRED:
            return None
        raise UpstreamProtocolError(
            f"{name}: the upstream answers with resultType {str(kind)[:60]!r}, which this client has not asked for"
        )
    structured = members.get("structuredContent") if method == CALL else None
    if structured is not None and bytes(memoryview(structured)[:1]) != b"{":
        del members["structuredContent"]  # an object in every legacy revision; the same stands in `content` as text
    elif said is None:
        return result
    return Result(raw=_encode(members))


def _with_object_schemas(result: Result) -> Result:
    """A list of tools without output schemas for anything but objects, which legacy revisions do not allow."""
    if b"outputSchema" not in result.raw:
        return result
    tools = result.value.get("tools")
    if not isinstance(tools, list) or not any(_has_other_schema(tool) for tool in tools):
        return result
    kept = [
        {key: value for key, value in tool.items() if key != "outputSchema"} if _has_other_schema(tool) else tool
        for tool in tools
    ]
    return Result({**result.value, "tools": kept})


def _has_other_schema(tool: Json) -> bool:
    if not isinstance(tool, dict) or "outputSchema" not in tool:
        return False
    schema = tool["outputSchema"]
    return not isinstance(schema, dict) or schema.get("type") != "object"


def legacy_error(request: Request, error: ErrorReply) -> ErrorReply:
    """An error as a legacy client understands it: a resource that is not there has a code of its own (SEP-2164)."""
    data = error.data if isinstance(error.data, dict) else {}
    missing = request.method == _READ and error.code == ErrorCode.INVALID_PARAMS and "uri" in data
    code = int(ErrorCode.RESOURCE_NOT_FOUND) if missing else error.code
    return evolve(error, code=code, http_status=None)  # its status is one of the other era


def legacy_notification(notification: Notification) -> Notification:
    """A notification of a subscription, as one of a session."""
    meta = meta_of(notification.params)
    if MetaKey.SUBSCRIPTION_ID not in meta:
        return notification
    rest = {key: value for key, value in meta.items() if key != MetaKey.SUBSCRIPTION_ID}
    params = {key: value for key, value in notification.params.items() if key != "_meta"}
    return Notification(notification.method, {**params, "_meta": rest} if rest else params)
