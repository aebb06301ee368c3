"""`sluiceway explain ID`: what became of one exchange, on a tape or in a running gateway."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..protocol.errors import SluicewayError
from .documents import check_file
from .exits import Failure
from .output import Format, emit, emit_json, printable

if TYPE_CHECKING:
    from ..config import Checked
    from ..replay.account import Account, Step
    from ..replay.assembly import RecordedExchange
    from ..replay.reading import Tape

_HEAD = 18
"""Columns of the times in front of each step."""


def explain_taped(
    what: str, tape: Path, config: Path | None, overlays: list[Path], format_: Format, *, again: bool
) -> None:
    """
    Explain an exchange that is on a tape.

    Args:
        what: Its number, its correlation id or its trace id.
        tape: The tape's first part.
        config: The configuration; that of the tape, if it has one, when absent.
        overlays: Files laid over it.
        format_: `text` or `json`.
        again: Play the tape up to it, to learn how long each stage took.

    Raises:
        Failure: It is not on the tape, or something cannot be read.
    """
    from ..replay.account import account_of
    from .replay import open_tape

    opened = open_tape(tape)
    found = _find(opened, what)
    with _configuration(opened, config, overlays) as (checked, folder):
        if checked is None and again:
            raise Failure("--replay needs the configuration; name its file")
        document = None if checked is None else checked.require()
        clock = "of the tape"
        if again and document is not None:
            found, clock = _played(opened, document, found), "virtual"

        def place(path: str, option: tuple[str | int, ...]) -> str:
            return "" if checked is None else checked.place(path, option)

        _show(account_of(found, document, place, clock=clock), format_, folder)


def explain_live(what: str, file: Path | None, admin: str | None, overlays: list[Path], format_: Format) -> None:
    """
    Explain an exchange of a running gateway, as far as its `trace` stages remember it.

    Args:
        what: Its correlation id or its trace id.
        file: Its configuration, which says where its admin listener is.
        admin: Another address of that.
        overlays: Files laid over it.
        format_: `text` or `json`.

    Raises:
        Failure: Nobody answers, or the gateway does not know it.
    """
    from ..replay.spans_told import account_of_spans, spans_of
    from .asking import find_admin

    listener = find_admin(file, admin)
    answer: Any = listener.ask("GET", f"/-/traces?trace={quote(what, safe='')}")
    spans = spans_of(answer["spans"], what)
    if not spans:
        answer = listener.ask("GET", "/-/traces")
        spans = spans_of(answer["spans"], what)
    if not spans:
        raise Failure(
            f"the gateway does not know {what!r}: no `trace` stage in front has recorded it (`sample`), or it was "
            "forgotten since (`keep`)"
        )
    checked = None if file is None else check_file(file, overlays)
    document = None if checked is None else checked.document

    def place(path: str, option: tuple[str | int, ...]) -> str:
        return "" if checked is None else checked.place(path, option)

    _show(account_of_spans(spans, document, place), format_, "")


def _find(tape: Tape, what: str) -> RecordedExchange:
    from ..replay.account import is_meant
    from ..replay.assembly import exchanges

    number = int(what) if what.isascii() and what.isdigit() and len(what) < 16 else 0
    for exchange in exchanges(tape.entries(exchange=number)):
        if is_meant(exchange, what):
            return exchange
    raise Failure(f"{tape.path} has no exchange with this number, correlation id or trace id: {what!r}")


@contextmanager
def _configuration(tape: Tape, config: Path | None, overlays: list[Path]) -> Iterator[tuple[Checked | None, str]]:
    """The configuration that is meant, and what is left out of its places; None if there is none."""
    if config is not None:
        yield _sound(check_file(config, overlays), config), ""
        return
    from ..replay.rewriting import configuration_of, write_configuration

    if not configuration_of(tape):
        yield None, ""
        return
    with tempfile.TemporaryDirectory(prefix="sluiceway-explain-") as folder:
        file = write_configuration(tape, Path(folder))
        yield _sound(check_file(file, overlays), file), f"{folder}/"


def _sound(checked: Checked, file: Path) -> Checked:
    if checked.document is None:
        from ..config import render_text

        sys.stderr.write(render_text(checked.problems))
        raise Failure(f"{file} cannot be used")
    return checked


def _played(tape: Tape, document: Any, exchange: RecordedExchange) -> RecordedExchange:
    """The same exchange in a replay that notes when it is in which stage."""
    import msgspec

    from ..replay.assembly import RecordedExchange as Recorded
    from ..replay.assembly import exchange_of
    from ..replay.entries import Entry
    from ..replay.playing import play
    from ..telemetry.log import configure_logging

    configure_logging("error", "auto")
    tape.header = msgspec.structs.replace(tape.header, stages=True)
    again = Recorded(exchange.number)

    def see(entry: Entry) -> None:
        if exchange_of(entry) == exchange.number:
            again.add(entry)

    try:
        play(tape, document, see)
    except SluicewayError as error:
        raise Failure(str(error)) from error
    return again


def _show(account: Account, format_: Format, folder: str) -> None:
    if format_ == "json":
        emit_json(account.as_json())
        return
    text = printable("\n".join(_lines(account)))
    emit(text.replace(folder, "") if folder else text)


def _lines(account: Account) -> Iterator[str]:
    named = f"exchange {account.number}, " if account.number else ""
    yield f"{named}{account.title}"
    took = "" if account.took_s is None else f", took {account.took_s:.3f} s"
    begun = f"{account.at_s:.3f} s" if account.number else "a while ago"
    yield f"  began {'at ' if account.number else ''}{begun}{took} (times are {account.clock})"
    for name in ("caller", "source", "pipeline", "correlation", "trace"):
        value = getattr(account, name)
        if value:
            yield f"  {name}: {value}"
    yield ""
    for step in account.steps:
        yield from _step(step)
    yield f"{'':{_HEAD}}ended with {account.end}"


def _step(step: Step) -> Iterator[str]:
    at = "" if step.at_s is None else f"{step.at_s:+.3f}"
    took = "" if step.took_s is None else f"{step.took_s:.3f} s"
    said = "; ".join((*step.decisions, *((step.note,) if step.note else ())))
    arrow = "-> " if step.kind == "call" else ""
    yield f"{at:>8} {took:>8} {arrow}{step.id}: {said}" if said else f"{at:>8} {took:>8} {arrow}{step.id}"
    if step.place:
        yield f"{'':{_HEAD}}  at {step.place}"
    if step.rule and step.rule != step.place:
        yield f"{'':{_HEAD}}  decided by {step.rule}"
    if step.asked is not None:
        from ..replay.nearest import render

        yield f"{'':{_HEAD}}  asked {render(step.asked)}"
        yield f"{'':{_HEAD}}  said {render(step.said)}"
