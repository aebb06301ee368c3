"""`sluiceway audit`: check and ask an audit trail, without the gateway that writes it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cyclopts import App

from ..model.options import Secret
from ..protocol.messages import Json
from .exits import Exit, Failure, usage
from .output import Format, emit, emit_json, table

audit = App(name="audit", help="Check and ask an audit trail.")


@audit.command(name="verify")
def verify(
    file: Path,
    /,
    *,
    checkpoints: Path | None = None,
    key_env: str | None = None,
    key_file: Path | None = None,
    format: Format = "text",  # the option's name
) -> int:
    """
    Check every record of a trail against the chain and its checkpoints, and name the first that was changed.

    The exit code is 1 if one is not, if records are missing, or if the end was cut off.

    Args:
        file: The trail, as the option `path` of the stage names it; files that were put aside are found by themselves.
        checkpoints: The file of checkpoints, if it is not beside the trail.
        key_env: Environment variable with the key that checkpoints were signed with.
        key_file: File with that key.
        format: `text` or `json`.
    """
    from ..telemetry.audit_reading import verify_trail

    if key_env is not None and key_file is not None:
        raise usage("--key-env and --key-file are two ways to name one key; give one of them")
    verdict = verify_trail(file, checkpoints, _key(key_env, key_file))
    if format == "json":
        emit_json(dict(verdict.as_json()))
    else:
        span = f"{verdict.first} to {verdict.last}" if verdict.records else "none"
        signed = f", {verdict.signed} of them signed" if verdict.signed else ""
        emit(f"records as they were written: {verdict.records} ({span})")
        emit(f"checkpoints compared: {verdict.checkpoints}{signed}")
        for finding in verdict.findings:
            emit(f"FINDING: {finding.text}")
        if not verdict.findings:
            emit("the trail is whole")
    return Exit.FOUND if verdict.findings else Exit.OK


@audit.command(name="query")
def query(
    file: Path,
    /,
    *,
    principal: str | None = None,
    operation: str | None = None,
    resource: str | None = None,
    outcome: str | None = None,
    tenant: str | None = None,
    event: str | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: int = 100,
    format: Format = "text",  # the option's name
) -> int:
    """
    Show the latest entries of a trail that fit every filter, oldest first. Does not check them: `verify` does.

    Args:
        file: The trail; files that were put aside are found by themselves.
        principal: Who asked; a star stands for anything, here and below.
        operation: The method, such as tools/call.
        resource: The tool, prompt or uri.
        outcome: ok, tool_error, error, refused, cancelled or timed_out.
        tenant: Whose tenant.
        event: request, session_start, session_end, opened, closed, recovered or retired.
        since: The earliest date, such as 2027-01-31T00:00:00Z, or a time before now such as 1h.
        until: The date before which they are; likewise.
        limit: How many at most, up to 1000.
        format: `text` or `json`.
    """
    from ..telemetry.audit_reading import lines_of, parse_query

    filters = {
        "principal": principal, "operation": operation, "resource": resource, "outcome": outcome, "tenant": tenant,
        "event": event, "since": since, "until": until,
    }  # fmt: skip
    given: dict[str, Json] = {name: value for name, value in filters.items() if value is not None}
    try:
        wanted = parse_query({**given, "limit": limit}, time.time())
    except ValueError as error:
        raise usage(str(error)) from error
    found = wanted.run(lines_of(file))
    if format == "json":
        emit_json(list(found))
    elif found:
        table(("seq", "at", "principal", "operation", "resource", "outcome", "ms"), list(map(_row, found)))
    return Exit.OK if found else Exit.FOUND


def _row(entry: dict[str, Any]) -> Sequence[str]:
    outcome = entry.get("outcome", "-")
    if entry.get("reason"):
        outcome = f"{outcome} ({entry['reason']})"
    names = ("seq", "at", "principal")
    operation = entry.get("operation") or entry.get("event", "-")
    return (*(str(entry.get(name, "-")) for name in names), str(operation), str(entry.get("resource", "-")), outcome,
            str(entry.get("duration_ms", "-")))  # fmt: skip


def _key(variable: str | None, file: Path | None) -> bytes | None:
    if variable is None and file is None:
        return None
    secret = Secret(from_file=file) if file is not None else Secret(from_env=variable)
    try:
        return secret.resolve().encode()
    except LookupError as error:
        raise Failure(f"there is no key: {error}") from error
