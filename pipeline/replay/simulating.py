"""
What another configuration would have made of a tape's traffic, beside what the old one made of it.

Clients send what they sent, when they sent it. Upstreams answer as they did, counted from when they are asked; where
the tape does not say, they are supposed to answer as they did to something like it (`repertoire.py`).
"""

from __future__ import annotations

from typing import Final, final

from attrs import frozen

from ..model.document import Document
from ..protocol.messages import Json
from .assembly import Assembly, exchanges
from .entries import Entry
from .playing import play
from .reading import Tape
from .repertoire import Repertoire
from .tally import Tallies

LINGER_S: Final = 3600.0
"""Virtual seconds that requests may go on after the end of the tape."""


@final
@frozen(kw_only=True)
class Side:
    """What one configuration made, or would make, of the traffic."""

    name: str
    tallies: Tallies
    supposed: int = 0
    """Calls of sinks whose answers were supposed."""
    unanswered: int = 0
    """Calls of sinks that nothing on the tape is like: they failed."""

    def as_json(self) -> dict[str, Json]:
        """The same for programs."""
        counts = {"supposed": self.supposed, "unanswered": self.unanswered}
        return {"name": self.name, **counts, **self.tallies.as_json()}


@final
@frozen(kw_only=True)
class Simulated:
    """Two sides to compare."""

    before: Side
    after: Side
    span_s: float
    """Seconds of the tape."""

    def as_json(self) -> dict[str, Json]:
        """The same for programs."""
        return {"span_s": self.span_s, "before": self.before.as_json(), "after": self.after.as_json()}


def simulate(tape: Tape, new: Document, old: Document | None = None, *, seed: int = 0) -> Simulated:
    """
    Play a tape under a configuration, and under another one. Outside of Trio.

    Args:
        tape: The traffic; it is read two or three times.
        new: The configuration in question.
        old: What it is compared with; absent, with what the tape says that happened.
        seed: Of suppositions: the same seed makes the same ones.

    Raises:
        ComponentError: A component cannot be opened.
        OSError: The tape cannot be read.
    """
    span_s, known, recorded = _learn(tape, old or new, seed)
    if old is None:
        before = Side(name="as recorded", tallies=recorded)
    else:
        before = _side(tape, old, "old, simulated", span_s, _learn(tape, old, seed)[1])
    return Simulated(before=before, after=_side(tape, new, "simulated", span_s, known), span_s=span_s)


def _learn(tape: Tape, document: Document, seed: int) -> tuple[float, Repertoire, Tallies]:
    """How long a tape is, what upstreams answered, and what became of its traffic."""
    span_s, repertoire = max((entry.t for entry in tape.entries()), default=0.0), Repertoire(seed)
    tallies = Tallies(document, span_s)
    for exchange in exchanges(tape.entries()):
        repertoire.learn((exchange,))
        tallies.add(exchange)
    return span_s, repertoire, tallies


def _side(tape: Tape, document: Document, name: str, span_s: float, repertoire: Repertoire) -> Side:
    tallies, assembly = Tallies(document, span_s), Assembly()

    def see(entry: Entry) -> None:
        exchange = assembly.add(entry)
        if exchange is not None:
            tallies.add(exchange)

    play(tape, document, see, unknown=repertoire.suppose, linger_s=LINGER_S)
    for exchange in assembly.rest():
        tallies.add(exchange)
    return Side(name=name, tallies=tallies, supposed=repertoire.supposed, unanswered=repertoire.unanswered)
