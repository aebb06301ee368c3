"""`sluiceway shrink`: the smallest tape and configuration that still show something that should not be."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from .documents import Environment, Overlays
from .exits import Exit, Failure, usage
from .output import Format, emit, emit_json, say

if TYPE_CHECKING:
    from ..model.document import Document
    from ..replay.entries import Entry
    from ..replay.reading import Tape
    from ..replay.shrink import Fails, Shrunk
    from ..replay.violations import Bench

MAX_ENTRIES = 1_000_000
"""Of a tape that is shrunk: it is held in memory."""


def shrink(
    tape: Path,
    /,
    *,
    to: Path,
    config: Path | None = None,
    law: str | None = None,
    expect: Path | None = None,
    case: str | None = None,
    exchange: int | None = None,
    max_runs: int = 1000,
    format: Format = "text",  # the option's name
    env: Environment = None,
    overlay: Overlays = None,
) -> int:
    """
    Find the smallest tape and configuration that still show something that should not be.

    That something is a law of yours that a replay breaks (--law), what a test expects (--expect and --case), or, with
    neither, that a replay goes differently than the tape says. What is written is a tape that has its configuration, so
    `replay` and `explain` need nothing else.

    Args:
        tape: The tape's first part; others are found by themselves.
        to: The new tape; `<to>.yaml` is its configuration, to be read.
        config: The configuration; that of the tape, if it has one, when absent.
        law: `module:function`, which is given a replay (`sluiceway.pipeline.replay.violations.Run`), and returns what
            is wrong with it, or None. Modules of the working directory are found.
        expect: A file of tests; the replay is held to what one of them expects of its request.
        case: The name of that test.
        exchange: Without law and test: the exchange whose difference is meant; the first that is answered differently
            if absent.
        max_runs: Replays that are made at most.
        format: `text` or `json`.
        env: Use the overlay of this environment, `<file>.<env>.yaml`.
        overlay: A file laid over the configuration; may be given several times.
    """
    if (expect is None) is not (case is None) or (law is not None and expect is not None):
        raise usage(
            "name one thing that should not be: --law module:function, or --expect FILE --case NAME, or neither"
        )
    for path in (to, config_path(to)):
        if path.exists():
            raise usage(f"{path} exists; name another file with --to")
    from ..replay.violations import open_bench
    from ..telemetry.log import configure_logging
    from .replay import configuration, open_tape

    configure_logging("error", "auto")
    opened = open_tape(tape)
    with configuration(opened, config, env, overlay) as document, open_bench() as bench:
        entries = _entries(opened)
        fails = _violation(entries, document, bench, law, expect, case, exchange)
        found = _shrunk(entries, document, fails, max_runs)
        _write(found, to, bench, fails)
    before = _messages(entries)
    if format == "json":
        emit_json({
            "tape": str(to), "config": str(config_path(to)), "messages": found.messages, "messages_before": before,
            "entries": len(found.entries), "entries_before": len(entries), "runs": found.runs, "least": found.is_least,
        })  # fmt: skip
    else:
        emit(f"{to}: {found.messages} of {before} messages, {len(found.entries)} of {len(entries)} lines")
        emit(f"{config_path(to)}: what is left of its configuration")
        emit(f"{found.runs} replays" + ("" if found.is_least else "; more (--max-runs) may get it smaller"))
    return Exit.OK


def config_path(tape: Path) -> Path:
    """Where the configuration of a new tape is written."""
    return tape.with_name(f"{tape.name}.yaml")


def _entries(tape: Tape) -> list[Entry]:
    entries: list[Entry] = []
    from ..replay.entries import Header, PartEnded

    for entry in tape.entries():
        if isinstance(entry, PartEnded) or (isinstance(entry, Header) and entries):
            continue  # it will be one part
        entries.append(entry)
        if len(entries) > MAX_ENTRIES:
            raise Failure(f"the tape has more than {MAX_ENTRIES} lines; record a shorter one")
    return entries


def _messages(entries: Sequence[Entry]) -> int:
    from ..replay.entries import Begun

    return sum(isinstance(entry, Begun) for entry in entries)


def _violation(
    entries: Sequence[Entry],
    document: Document,
    bench: Bench,
    law: str | None,
    expect: Path | None,
    case: str | None,
    exchange: int | None,
) -> Fails:
    from ..replay.violations import breaks, chief_difference, differs, find_law

    if law is not None:
        sys.path.insert(0, "")  # the working directory, as for `python -m`
        try:
            return breaks(find_law(law), bench)
        except ValueError as error:
            raise usage(str(error)) from error
        finally:
            sys.path.remove("")
    if expect is not None and case is not None:
        return _expectation(expect, case, document, bench)
    meant = chief_difference(bench.replay(entries, document), exchange)
    if meant is not None:
        return differs(*meant, bench)
    what = "no exchange goes" if exchange is None else f"exchange {exchange} does not go"
    raise Failure(f"{what} differently under this configuration; name a law with --law, or a test with --expect")


def _expectation(file: Path, name: str, document: Document, bench: Bench) -> Fails:
    from ..config import render_text
    from ..config.case_rules import component_ids
    from ..config.problems import has_errors
    from ..replay.violations import breaks
    from ..testing.cases.running import prepared
    from ..testing.cases.taped import law_of

    with prepared(file) as suite:
        if has_errors(suite.problems):
            sys.stderr.write(render_text(suite.problems))
            raise Failure(f"{file} cannot be used")
        declared = next((each for each in suite.tests if each.case.name == name), None)
    if declared is None:
        raise usage(f"{file} has no test {name!r}")
    try:
        return breaks(law_of(declared, component_ids(document)), bench)
    except ValueError as error:
        raise usage(str(error)) from error


def _shrunk(entries: Sequence[Entry], document: Document, fails: Fails, max_runs: int) -> Shrunk:
    from ..replay.shrink import shrink as shrink_tape

    try:
        return shrink_tape(entries, document, fails, max_runs=max_runs)
    except ValueError as error:
        raise Failure(str(error)) from error


def _write(found: Shrunk, to: Path, bench: Bench, fails: Fails) -> None:
    """Write both files; say so if the text of the configuration does not show it any more."""
    from ..config import ConfigError, load
    from ..replay.config_text import config_text
    from ..replay.entries import Configured, Header
    from ..replay.violations import tape_text

    text = config_text(found.document)
    file = config_path(to)
    file.write_text(text, encoding="utf-8")
    try:
        document = load(file)
    except ConfigError as error:
        say(f"sluiceway: {file} cannot be loaded by itself: {error}")
        document = evolve(found.document, digest="")
    header, *rest = found.entries
    assert isinstance(header, Header)
    entries: list[Entry] = [
        Header(
            t=0.0, format=header.format, version=header.version, sluiceway=header.sluiceway, part=1,
            recording=header.recording, began=header.began, epoch=header.epoch, digest=document.digest,
            redactions=header.redactions, stages=header.stages,
        ),
        Configured(t=0.0, generation=1, digest=document.digest, files={file.name: text}),
        *(entry for entry in rest if not isinstance(entry, Configured | Header)),
    ]  # fmt: skip
    to.write_bytes(tape_text(entries))
    if document.digest and not fails(entries, document):
        say(f"sluiceway: with {file} it does not show; use the tape with a part of your own configuration")
