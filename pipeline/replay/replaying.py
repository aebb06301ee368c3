"""Replay a tape and compare what comes of it with what is on it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection
from typing import Any, final

from attrs import frozen

from ..model.document import Document
from ..protocol.messages import Json
from .comparing import Comparison
from .entries import Entry
from .nearest import describe_place
from .playing import Played, play, play_clients
from .reading import Tape
from .rewriting import Rewriter, configuration_of
from .stand_ins import is_identity, stages_of


@final
@frozen(kw_only=True)
class Replayed:
    """What a replay made differently."""

    comparison: Comparison
    played: Played
    virtual_s: float
    """Seconds of the tape."""
    real_s: float
    """Seconds that the replay took."""

    @property
    def is_equal(self) -> bool:
        """Whether nothing is different, and nothing was missing."""
        return not self.comparison.count and not self.played.lacked

    def as_json(self) -> dict[str, Json]:
        """The same for programs."""
        comparison = self.comparison
        return {
            "equal": self.is_equal,
            "exchanges": self.played.begun,
            "different": comparison.count,
            "partial": comparison.partial,
            "virtual_s": self.virtual_s,
            "real_s": self.real_s,
            "reloads": self.played.reloads,
            "lacked": self.played.lacked,
            "lacking": self.played.lacking,
            "decisions": [
                {"before": before, "after": after, "count": count}
                for (before, after), count in comparison.kinds.most_common()
            ],
            "differences": [
                {
                    "exchange": each.number,
                    "t": each.t,
                    "title": each.title,
                    "caller": each.caller,
                    "places": [{"path": at.path, "before": at.before, "after": at.after} for at in each.places],
                }
                for each in comparison.changed
            ],
        }

    def lines(self) -> list[str]:
        """The same for people."""
        comparison, played = self.comparison, self.played
        found = [
            f"{played.begun} exchanges, {self.virtual_s:.3f} s of the tape in {self.real_s:.3f} s: "
            + (f"{comparison.count} went differently" if comparison.count else "no difference")
        ]
        if comparison.partial:
            found.append(f"NOTE: {comparison.partial} exchanges are on the tape only in part, and were not compared")
        reloads = deque(played.reloads)
        for each in comparison.changed:
            while reloads and reloads[0] <= each.t:
                found.append(_reloaded(reloads.popleft()))
            of = f", {each.caller}" if each.caller else ""
            found.append(f"\nexchange {each.number} at {each.t:.3f} s, {each.title}{of}")
            found += [f"  {describe_place(place)}" for place in each.places]
        found += map(_reloaded, reloads)
        if comparison.count > len(comparison.changed):
            found.append(f"\n... and {comparison.count - len(comparison.changed)} more exchanges")
        if comparison.kinds:
            found.append("\nwhat was decided differently, altogether:")
            found += [f"  {count} x {before} -> {after}" for (before, after), count in comparison.kinds.most_common()]
        if played.lacked:
            found.append(f"\nnot on the tape, asked for {played.lacked} times:")
            found += [f"  {what}" for what in played.lacking]
        return found


def _reloaded(t: float) -> str:
    return f"\nat {t:.3f} s the recorded gateway loaded its configuration again, which a replay does not"


def replay(
    tape: Tape,
    document: Document,
    *,
    upstreams: bool = True,
    ignored: Collection[str] = (),
    into: Rewriter | None = None,
) -> Replayed:
    """
    Replay a tape under a configuration. Outside of Trio.

    Args:
        tape: Read twice at most, and never as a whole.
        document: The configuration.
        upstreams: Whether the tape plays the upstreams, too; otherwise the real ones are asked, in real time.
        ignored: Globs of paths that do not count: neither for what is different (`reply.result.content.*`), nor for
            which recorded answer a request gets (`params.arguments.now`).
        into: Writes what comes of it.

    Raises:
        ComponentError: A component cannot be opened.
        OSError: The tape cannot be read, or the new one cannot be written.
    """
    apart = [component_id for component_id, stage in stages_of(document) if is_identity(stage)]
    if upstreams:
        apart += [f"sinks.{sink.id}" for sink in document.sinks.values() if not sink.routes]
    is_same = not document.digest or document.digest == tape.header.digest
    comparison, began, last = Comparison(apart=apart, ids=is_same, ignored=ignored), time.perf_counter(), [0.0]

    def see(entry: Entry) -> None:
        comparison.see(entry)
        if into is not None:
            into.see(entry)

    def hear(entry: Entry) -> None:
        last[0] = entry.t
        comparison.hear(entry)

    more: dict[str, Any] = {}
    if upstreams:
        more = {"ignored": ignored, "files": into is not None and bool(configuration_of(tape))}
    played = (play if upstreams else play_clients)(tape, document, see, hear=hear, **more)
    comparison.finish()
    return Replayed(comparison=comparison, played=played, virtual_s=last[0], real_s=time.perf_counter() - began)
