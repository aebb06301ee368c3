"""What a tape has, counted in one reading."""

from __future__ import annotations

from collections import Counter
from typing import Final, final

from attrs import define, field

from ..protocol.messages import Json
from .entries import Begun, Called, Ended, Entry, event_of
from .reading import Tape

MAX_NAMES: Final = 1000
"""Methods that are told apart: clients make them up."""
OTHERS: Final = "(others)"


@final
@define(eq=False)
class Summary:
    """Counts of a tape."""

    parts: int
    bytes: int
    """Of all parts on the disk."""
    lines: int = 0
    seconds: float = 0.0
    """Time of the last line."""
    exchanges: int = 0
    calls: int = 0
    events: Counter[str] = field(factory=Counter)
    methods: Counter[str] = field(factory=Counter)
    """Exchanges by method."""
    ends: Counter[str] = field(factory=Counter)
    """Ended exchanges: `result`, `tool error`, `error <code>`, `none` for notifications, or why they were cancelled."""
    sinks: Counter[str] = field(factory=Counter)
    """Calls by sink."""
    findings: list[dict[str, Json]] = field(factory=list)

    def add(self, entry: Entry) -> None:
        """Count an entry."""
        self.lines += 1
        self.seconds = max(self.seconds, entry.t)
        self.events[event_of(entry)] += 1
        match entry:
            case Begun():
                self.exchanges += 1
                known = entry.message.method in self.methods or len(self.methods) < MAX_NAMES
                self.methods[entry.message.method if known else OTHERS] += 1
            case Called():
                self.calls += 1
                self.sinks[entry.sink] += 1
            case Ended():
                self.ends[end_of(entry)] += 1

    def as_json(self) -> dict[str, Json]:
        """The same for programs."""
        return {
            "parts": self.parts,
            "bytes": self.bytes,
            "lines": self.lines,
            "seconds": self.seconds,
            "exchanges": self.exchanges,
            "calls": self.calls,
            "events": dict(self.events),
            "methods": dict(self.methods),
            "ends": dict(self.ends),
            "sinks": dict(self.sinks),
            "findings": self.findings,
        }


def end_of(ended: Ended) -> str:
    """How an exchange ended, in a word or two."""
    reply = ended.reply
    if reply is None:
        return ended.cancelled or "none"
    if reply.error is not None:
        return f"error {reply.error.code}"
    return "tool error" if (reply.result or {}).get("isError") is True else "result"


def summarize(tape: Tape) -> Summary:
    """Read a tape, and count."""
    summary = Summary(len(tape.parts), sum(path.stat().st_size for _, path in tape.parts))
    for entry in tape.entries():
        summary.add(entry)
    summary.findings = [
        {"what": each.what, "text": each.text, "after": each.after, "entries": each.entries} for each in tape.findings
    ]
    return summary
