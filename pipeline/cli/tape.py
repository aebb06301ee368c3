"""`sluiceway tape`: show, check and print tapes, without the gateway that writes them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App

from ..protocol.errors import SluicewayError
from .exits import Exit, Failure
from .output import Format, emit, emit_json, say, table

if TYPE_CHECKING:
    from ..replay.reading import Tape

tape = App(name="tape", help="Show, check and print tapes.")


@tape.command(name="info")
def info(file: Path, /, *, format: Format = "text") -> int:  # the option's name
    """
    Show what a tape has: when and how long, exchanges by method, calls by sink, what is missing.

    Args:
        file: The tape's first part; others are found by themselves.
        format: `text` or `json`.
    """
    from ..replay.summary import summarize

    opened = _open(file)
    summary = summarize(opened)
    if format == "json":
        emit_json(summary.as_json())
        return Exit.OK
    header = opened.header
    emit(
        f"recording {header.recording}, begun {header.began}, by Sluiceway {header.sluiceway}, format {header.version}"
    )
    emit(f"{summary.lines} lines in {summary.parts} parts, {summary.bytes} bytes, {summary.seconds:.3f} s")
    emit(f"{summary.exchanges} exchanges, {summary.calls} calls of sinks")
    _counts("method", summary.methods)
    _counts("ended", summary.ends)
    _counts("sink", summary.sinks)
    for finding in opened.findings:
        emit(f"NOTE: {finding.text}")
    return Exit.OK


def _counts(title: str, counts: Counter[str]) -> None:
    if counts:
        table((title, "count"), [(name, str(count)) for name, count in counts.most_common()])


@tape.command(name="verify")
def verify(file: Path, /, *, format: Format = "text") -> int:  # the option's name
    """
    Check every line of a tape, and name what is missing.

    The exit code is 1 if lines are damaged, cut off or missing. That a tape has no end, or that old parts were removed,
    is said and is no fault.

    Args:
        file: The tape's first part; others are found by themselves.
        format: `text` or `json`.
    """
    opened = _open(file)
    lines = sum(1 for _ in opened.entries())
    harmed = [finding for finding in opened.findings if finding.harms]
    if format == "json":
        emit_json({"lines": lines, "whole": not harmed, "findings": [_finding(each) for each in opened.findings]})
    else:
        emit(f"whole lines: {lines}, the last is {opened.last}")
        for finding in opened.findings:
            emit(f"{'FINDING' if finding.harms else 'NOTE'}: {finding.text}")
        if not harmed:
            emit("nothing is missing")
    return Exit.FOUND if harmed else Exit.OK


@tape.command(name="cat")
def cat(
    file: Path,
    /,
    *,
    exchange: int = 0,
    event: list[str] | None = None,
    since: float = 0.0,
    until: float | None = None,
) -> int:
    """
    Print entries as JSON Lines, without their checksums. What is damaged is left out, and said on stderr.

    Args:
        file: The tape's first part; others are found by themselves.
        exchange: Only those of the exchange with this number.
        event: Only those of this kind, such as `begun`; may be given several times.
        since: Only those from this second of the recording on.
        until: Only those before this second.
    """
    from ..protocol.messages import encode_json
    from ..replay.assembly import exchange_of
    from ..replay.entries import data_of, event_of

    opened, found = _open(file), False
    for entry in opened.entries(since=since, exchange=exchange):
        if until is not None and entry.t >= until:
            break
        if (exchange and exchange_of(entry) != exchange) or (event and event_of(entry) not in event):
            continue
        found = True
        emit(encode_json(data_of(entry)).decode())
    for finding in opened.findings:
        if finding.harms:
            say(f"sluiceway: {finding.text}")
    return Exit.OK if found else Exit.FOUND


@tape.command(name="index")
def index(file: Path, /) -> int:
    """
    Make the index of each part of a tape anew, from which reading starts in the middle.

    Args:
        file: The tape's first part; others are found by themselves.
    """
    from ..replay.indexing import index_part

    for _, part in _open(file).parts:
        emit(f"{part}.index: {index_part(part)} places")
    return Exit.OK


def _finding(finding: Any) -> dict[str, Any]:
    return {"what": finding.what, "text": finding.text, "after": finding.after, "entries": finding.entries}


def _open(file: Path) -> Tape:
    from ..replay.reading import Tape

    try:
        return Tape(file)
    except SluicewayError as error:
        raise Failure(str(error)) from error
