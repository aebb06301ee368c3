"""`sluiceway simulate`: what another configuration would have made of a tape's traffic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..protocol.errors import SluicewayError
from .documents import load_or_fail
from .exits import Exit, Failure
from .output import Format, emit, emit_json, say, table
from .replay import open_tape, tell_findings

if TYPE_CHECKING:
    from ..replay.simulating import Side, Simulated
    from ..replay.tally import Tally

MAX_SHOWN: Final = 20
"""Rows of a table on a terminal; `--format json` and `--html` have all."""


def simulate(
    tape: Path,
    /,
    *,
    config: Path,
    against: Path | None = None,
    seed: int = 0,
    html: Path | None = None,
    format: Format = "text",  # the option's name
) -> int:
    """
    Show what a configuration would have made of a tape's traffic: what it refuses, caches, retries, hedges and sheds.

    Clients send what they sent, upstreams take the time they took. Where the tape has no answer, one that was given to
    a similar request is supposed, and counted.

    Args:
        tape: The tape's first part; others are found by themselves.
        config: The configuration in question.
        against: The configuration it is compared with; what the tape says that happened, when absent.
        seed: Of suppositions: the same seed makes the same ones.
        html: Write a report with plots to this file as well.
        format: `text` or `json`.
    """
    from ..replay.simulating import simulate as simulate_tape
    from ..telemetry.log import configure_logging

    opened = open_tape(tape)
    new, old = load_or_fail(config), None if against is None else load_or_fail(against)
    configure_logging("error", "auto")
    try:
        found = simulate_tape(opened, new, old, seed=seed)
    except SluicewayError as error:
        raise Failure(str(error), Exit.NOT_STARTED) from error
    tell_findings(opened)
    if html is not None:
        from ..replay.report import render_html

        title = f"{tape.name} under {config.name}" + (f", compared with {against.name}" if against is not None else "")
        html.write_text(render_html(found, title), encoding="utf-8")
    if format == "json":
        emit_json(found.as_json())
    else:
        _show(found)
    return Exit.OK


def _show(found: Simulated) -> None:
    before, after = found.before, found.after
    emit(f"{before.tallies.all.requests} requests in {found.span_s:.3f} s; {before.name} -> {after.name}\n")
    _table("", {"all": before.tallies.all}, {"all": after.tallies.all})
    for name in ("target", "caller", "tenant"):
        emit("")
        _table(name, getattr(before.tallies, f"by_{name}"), getattr(after.tallies, f"by_{name}"))
    _show_reasons(before, after)
    for side in (before, after):
        for move in side.tallies.moves[:MAX_SHOWN]:
            emit(f"{side.name}, {move['t']:.3f} s: {move['stage']} {move['to']} {move['cause']}".rstrip())
        if side.supposed or side.unanswered:
            say(f"{side.name}: {side.supposed} answers are supposed, {side.unanswered} calls are like nothing recorded")


def _show_reasons(before: Side, after: Side) -> None:
    reasons = [side.tallies.all.reasons for side in (before, after)]
    rows = [(each, _pair(reasons[0][each], reasons[1][each])) for each in sorted({*reasons[0], *reasons[1]})]
    if rows:
        emit("")
        table(("reason", "count"), rows)


def _table(name: str, before: dict[str, Tally], after: dict[str, Tally]) -> None:
    """The busiest rows, and those columns that have something in them."""
    from ..replay.tally import COUNTS, Tally

    nothing = Tally()
    pairs = {key: (before.get(key, nothing), after.get(key, nothing)) for key in [*before, *after]}
    shown = sorted(pairs, key=lambda key: -max(side.requests for side in pairs[key]))[:MAX_SHOWN]
    used = [each for each in COUNTS if any(side.counts[each] for pair in pairs.values() for side in pair)]

    def cells(key: str) -> Iterator[str]:
        then, now = pairs[key]
        yield key
        yield _pair(then.requests, now.requests)
        for each in used:
            yield _pair(then.counts[each], now.counts[each])
        for share in (0.5, 0.95):
            yield _pair(*(_duration(side, share) for side in (then, now)))

    table((name, "requests", *used, "p50", "p95"), [list(cells(key)) for key in shown])
    if len(pairs) > len(shown):
        emit(f"and {len(pairs) - len(shown)} more")


def _pair(before: object, after: object) -> str:
    return str(after) if before == after else f"{before} -> {after}"


def _duration(tally: Tally, share: float) -> str:
    from ..replay.report import duration

    return duration(tally.latencies.quantile(share))
