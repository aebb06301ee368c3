"""
Tasks of 2025-11-25, and those of the extension `io.modelcontextprotocol/tasks` to 2026-07-28 (SEP-2663). Pure.

Both have ids, the same five states, a time to live and an interval for polling. There the result is asked for apart,
and a tool that says that it failed (`isError`) has failed; here the result stands in the task, and only a call that
was answered with an error has.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from sluiceway.pipeline.model.tools import CALL
from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import ErrorCode, meta_of
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Reply, Result, decode_json

from .to_modern_messages import legacy_result

EXTENSION: Final = "io.modelcontextprotocol/tasks"
RELATED: Final = "io.modelcontextprotocol/related-task"
"""Member of `_meta` that says which task a message of 2025-11-25 is about."""
TASK: Final = "task"
"""`resultType` of a call that is answered with a task."""
COMPLETED: Final = "completed"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
WORKING: Final = "working"
INPUT_REQUIRED: Final = "input_required"
MODERN_STATUS: Final = "notifications/tasks"
LEGACY_STATUS: Final = "notifications/tasks/status"
LEGACY_OFFER: Final[Mapping[str, Json]] = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
"""Capability `tasks` of a legacy server that runs tools as tasks."""

_TERMINAL: Final = frozenset({COMPLETED, FAILED, CANCELLED})
_STATES: Final = _TERMINAL | {WORKING, INPUT_REQUIRED}
_MAX_ID: Final = 1024
"""Characters of a task's id; longer ones are no ids, for they go into headers."""
_OF_MODERN_TASKS: Final = frozenset(
    {
        "resultType", "taskId", "status", "statusMessage", "createdAt", "lastUpdatedAt", "ttlMs", "pollIntervalMs",
        "result", "error", "inputRequests",
    }
)  # fmt: skip
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


def offers_tasks(capabilities: Mapping[str, Json]) -> bool:
    """Whether an upstream with these capabilities can run tools as tasks."""
    found: Json = capabilities
    for key in ("tasks", "requests", "tools", "call"):
        found = found.get(key) if isinstance(found, dict) else None
    return found is not None


def has_extension(capabilities: Mapping[str, Json]) -> bool:
    """Whether a client or a server with these capabilities knows the extension."""
    extensions = capabilities.get("extensions")
    return isinstance(extensions, dict) and isinstance(extensions.get(EXTENSION), dict)


def with_extension(capabilities: Mapping[str, Json]) -> dict[str, Json]:
    """The same capabilities, and the extension."""
    extensions = capabilities.get("extensions")
    return {**capabilities, "extensions": {**(extensions if isinstance(extensions, dict) else {}), EXTENSION: {}}}


def is_over(task: Mapping[str, Json]) -> bool:
    """Whether a task of either era will never change again."""
    return task.get("status") in _TERMINAL


def is_task(result: Result) -> bool:
    """Whether a modern result is a task in place of an answer."""
    kind = _members(result.raw).get("resultType")
    return kind is not None and decode_json(kind) == TASK


def needs_task(reply: Reply) -> bool:
    """Whether a modern upstream says that it answers this call with a task, or not at all."""
    if not isinstance(reply, ErrorReply) or reply.code != ErrorCode.MISSING_CLIENT_CAPABILITY:
        return False
    needed = reply.data.get("requiredCapabilities") if isinstance(reply.data, dict) else None
    return isinstance(needed, dict) and has_extension(needed)


def wall_clock(now: float) -> str:
    """
    A point in time as tasks say it (ISO 8601).

    Args:
        now: Seconds of the wall clock.
    """
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def id_of(name: str, task: Mapping[str, Json]) -> str:
    """
    The id of a task of either era.

    Args:
        name: What the upstream is called in errors.
        task: As the upstream tells it.

    Raises:
        UpstreamProtocolError: It has none.
    """
    task_id = task.get("taskId")
    if not isinstance(task_id, str) or not 0 < len(task_id) <= _MAX_ID:
        raise UpstreamProtocolError(f"{name}: the upstream tells of a task without an id of 1 to {_MAX_ID} characters")
    return task_id


def legacy_task(name: str, task: Mapping[str, Json], now: float) -> dict[str, Json]:
    """
    A modern task as 2025-11-25 knows it.

    Args:
        name: What the upstream is called in errors.
        task: As the upstream tells it, with or without its outcome.
        now: Seconds of the wall clock; for times that it leaves out.

    Raises:
        UpstreamProtocolError: It is none.
    """
    result = task.get("result")
    said_failed = isinstance(result, dict) and result.get("isError") is True
    status = _status(name, task)
    return {
        **_common(name, task, now),
        "status": FAILED if status == COMPLETED and said_failed else status,
        "ttl": _milliseconds(task.get("ttlMs")),
        **_interval("pollInterval", task.get("pollIntervalMs")),
    }


def modern_task(name: str, task: Mapping[str, Json], now: float) -> dict[str, Json]:
    """
    A task of 2025-11-25 as the extension knows it, without what came of it. Arguments and errors as for `legacy_task`.
    """
    return {
        **_common(name, task, now),
        "status": _status(name, task),
        "ttlMs": _milliseconds(task.get("ttl")),
        **_interval("pollIntervalMs", task.get("pollInterval")),
    }


def about_nobody(result: Mapping[str, Json]) -> dict[str, Json]:
    """A result of a legacy task, inside of the task: it need not say whose it is."""
    meta = {key: value for key, value in meta_of(result).items() if key != RELATED}
    plain = {key: value for key, value in result.items() if key != "_meta"}
    return {**plain, "_meta": meta} if meta else plain


def task_of(params: Mapping[str, Json]) -> Json:
    """The id of the task that a legacy message says it is about; None if it says none."""
    about = meta_of(params).get(RELATED)
    return about.get("taskId") if isinstance(about, dict) else None


def created(task: Mapping[str, Json], value: Mapping[str, Json]) -> Result:
    """
    The answer of 2025-11-25 to a call that has become a task.

    Args:
        task: As `legacy_task` made it.
        value: The upstream's answer; what it says besides stays.
    """
    return Result({**{key: each for key, each in value.items() if key not in _OF_MODERN_TASKS}, "task": dict(task)})


def outcome(name: str, reply: Result) -> Reply:
    """
    What a modern task that is over came to, as 2025-11-25 answers a call.

    Args:
        name: What the upstream is called in errors.
        reply: The upstream's answer to `tasks/get`.

    Raises:
        UpstreamProtocolError: The task lacks what its status promises.
    """
    value = reply.value
    task_id, status = id_of(name, value), _status(name, value)
    if status == COMPLETED and isinstance(value.get("result"), dict):
        answer = legacy_result(name, CALL, Result(raw=bytes(_members(reply.raw)["result"])))
        if answer is not None:
            return answer
    if status == CANCELLED:
        return cancelled(task_id)
    error = value.get("error")
    if status == FAILED and isinstance(error, dict) and isinstance(error.get("code"), int):
        return ErrorReply(error["code"], str(error.get("message", "")), error.get("data"))
    raise UpstreamProtocolError(f"{name}: the upstream's task {task_id!r} is {status}, and lacks what it came to")


def related(result: Result, task_id: str) -> Result:
    """A result that says whose it is (2025-11-25, basic/utilities/tasks, related task metadata)."""
    members = _members(result.raw)
    meta = decode_json(members["_meta"]) if "_meta" in members else {}
    about = {**(meta if isinstance(meta, dict) else {}), RELATED: {"taskId": task_id}}
    members["_meta"] = msgspec.Raw(_encode(about))
    return Result(raw=_encode(members))


def about_task(params: Mapping[str, Json], task_id: str) -> dict[str, Json]:
    """Params of a question that say which task asks."""
    return {**params, "_meta": {**meta_of(params), RELATED: {"taskId": task_id}}}


def cancelled(task_id: str) -> ErrorReply:
    """What waiting for a task comes to that was cancelled: there is no result."""
    return ErrorReply(int(ErrorCode.INTERNAL_ERROR), f"the task {task_id!r} was cancelled")


def not_found(task_id: str) -> ErrorReply:
    """What whoever did not create a task is told (both eras)."""
    return ErrorReply(int(ErrorCode.INVALID_PARAMS), f"task not found: {task_id[:60]!r}")


def with_task_support(result: Result) -> Result:
    """A list of tools, all of which may be called as tasks: whether one becomes one is for the server to decide."""
    tools = result.value.get("tools")
    if not isinstance(tools, list):
        return result
    execution = {"taskSupport": "optional"}
    shown = [{**tool, "execution": execution} if isinstance(tool, dict) else tool for tool in tools]
    return Result({**result.value, "tools": shown})


def _status(name: str, task: Mapping[str, Json]) -> str:
    status = task.get("status")
    if status not in _STATES:
        raise UpstreamProtocolError(f"{name}: the upstream tells of a task that is {str(status)[:60]!r}")
    return str(status)


def _common(name: str, task: Mapping[str, Json], now: float) -> dict[str, Json]:
    """What both eras say in the same way."""
    began = task.get("createdAt")
    began = began if isinstance(began, str) else wall_clock(now)
    updated = task.get("lastUpdatedAt")
    message = task.get("statusMessage")
    return {
        "taskId": id_of(name, task),
        **({"statusMessage": message} if isinstance(message, str) else {}),
        "createdAt": began,
        "lastUpdatedAt": updated if isinstance(updated, str) else began,
    }


def _milliseconds(value: Json) -> int | float | None:
    """A time to live; None if it is unlimited."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None


def _interval(key: str, value: Json) -> dict[str, Json]:
    known = _milliseconds(value)
    return {} if known is None else {key: known}
