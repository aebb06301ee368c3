"""What a tape can show that should not be: a law that a replay breaks, or something that a replay does otherwise."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast, final

import msgspec
import structlog
from attrs import frozen

from ..model.document import Document
from ..protocol.errors import SluicewayError
from .assembly import RecordedExchange, exchanges
from .entries import Entry
from .lines import render_entry, seal
from .matching import Place
from .playing import Played, play
from .reading import Tape
from .replaying import Replayed, replay
from .shrink import Fails

_SEPARATOR: Final = ":"
_AN_ANSWER: Final = ": an answer to "
"""How `describe_lack` begins."""


@final
@frozen
class Run:
    """A replay, to be judged."""

    exchanges: tuple[RecordedExchange, ...]
    """What became of each, in the order of their numbers; those that components began by themselves among them."""
    played: Played
    """What the gateway counted, and what the tape did not have."""


Law = Callable[[Run], str | None]
"""
Says what is wrong with a run, or None. A law of yours may raise `AssertionError` instead. It must not depend on
anything but the run.
"""


def find_law(reference: str) -> Law:
    """
    A law by its import path, `module:function`.

    Raises:
        ValueError: There is none; the text says why.
    """
    module, colon, name = reference.partition(_SEPARATOR)
    if not colon or not name:
        raise ValueError(f"{reference!r} is not module:function, such as laws:answers_are_complete")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{reference}: {error}") from error
    if not callable(found):
        raise ValueError(f"{reference} is no function")
    return cast("Law", found)  # nothing more can be known of it


def verdict(law: Law, run: Run) -> str | None:
    """What a law says of a run; None if it holds."""
    try:
        return law(run)
    except AssertionError as error:
        return str(error) or "an assertion failed"


@final
class Bench:
    """Plays candidates: sequences of entries that are a tape as soon as they stand in a file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "candidate.jsonl"

    def run(self, entries: Sequence[Entry], document: Document) -> Run:
        """Play some entries."""
        seen: list[Entry] = []
        played = play(self.tape(entries), document, seen.append)
        return Run(tuple(sorted(exchanges(seen), key=lambda each: each.number)), played)

    def replay(self, entries: Sequence[Entry], document: Document) -> Replayed:
        """Play some entries, and compare."""
        return replay(self.tape(entries), document)

    def tape(self, entries: Sequence[Entry]) -> Tape:
        """Some entries as a tape, until the next one is asked for."""
        self._path.write_bytes(tape_text(entries))
        return Tape(self._path)


def tape_text(entries: Sequence[Entry]) -> bytes:
    """The lines of a tape, numbered anew."""
    numbered = (msgspec.structs.replace(entry, n=n) for n, entry in enumerate(entries, 1))
    return b"".join(seal(render_entry(entry)) for entry in numbered)


@contextmanager
def open_bench() -> Iterator[Bench]:
    """A bench with a folder of its own, which goes at the end. Nothing is logged meanwhile: most is nonsense."""
    processors: list[Any] = structlog.get_config()["processors"]  # in place: loggers hold on to the list
    before = processors[:]
    processors[:] = [_drop]
    try:
        with tempfile.TemporaryDirectory(prefix="sluiceway-shrink-") as folder:
            yield Bench(Path(folder))
    finally:
        processors[:] = before


def _drop(_logger: Any, _method: str, _event: Any) -> Any:
    raise structlog.DropEvent


def breaks(law: Law, bench: Bench) -> Fails:
    """
    Whether a tape breaks a law. One that cannot be played breaks none; nor does one without answers of upstreams that
    the first one that is tried has: what fails for want of them is not what was meant. What a law raises beside
    `AssertionError` comes out of the first trial only.
    """
    may_lack: list[bool] = []

    def fails(entries: Sequence[Entry], document: Document) -> bool:
        try:
            run = bench.run(entries, document)
        except (SluicewayError, OSError):
            return False
        lacks = any(_AN_ANSWER in each for each in run.played.lacking)
        if not may_lack:
            may_lack.append(lacks)
            return verdict(law, run) is not None
        try:
            return (may_lack[0] or not lacks) and verdict(law, run) is not None
        except Exception:  # the boundary to code of others: a law that stumbles over nonsense has not found it broken
            return False

    return fails


def chief_difference(found: Replayed, number: int | None = None) -> tuple[int, tuple[Place, ...]] | None:
    """
    The difference that a client notices first: an exchange, and the places of its reply, if these are different
    anywhere; else those of whatever is.

    Args:
        found: A replay.
        number: The exchange that is meant; any if absent.
    """
    meant = [each for each in found.comparison.changed if number in (None, each.number)]
    for each in meant:
        replies = tuple(place for place in each.places if _head(place) == "reply")
        if replies:
            return each.number, replies
    for each in meant:
        return each.number, tuple(place for place in each.places if _head(place) == _head(each.places[0]))
    return None


def differs(number: int, places: Sequence[Place], bench: Bench) -> Fails:
    """Whether an exchange goes differently in some places, in all of them from the same to the same."""

    def fails(entries: Sequence[Entry], document: Document) -> bool:
        try:
            found = bench.replay(entries, document)
        except (SluicewayError, OSError):
            return False
        changed = next((each for each in found.comparison.changed if each.number == number), None)
        return changed is not None and all(place in changed.places for place in places)

    return fails


def _head(place: Place) -> str:
    return place.path.partition(".")[0]
