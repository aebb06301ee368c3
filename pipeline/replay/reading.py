"""
Reading a tape: all its parts as one sequence of entries, and what is wrong with it.

A tape whose recorder was killed, whose disk was full or whose middle was damaged is read as far as it is whole: bad
lines are left out, and `findings` says what is missing. Memory does not depend on the length of a tape.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, final

from attrs import frozen

from ..protocol.errors import SluicewayError
from .entries import FORMAT, VERSION, Entry, Header, Lost, PartEnded, Trailer
from .frames import lines_of
from .index import Mark, before_exchange, before_time, read_marks
from .lines import BadLine, parse_line

MAX_FINDINGS: Final = 1000
"""Findings that are kept of one reading; a tape with more is no tape."""

What = Literal["cut", "damaged", "gap", "lost", "dropped", "unfinished", "mixed", "unknown", "more"]
"""See `Finding.what`."""


class TapeError(SluicewayError):
    """This is no tape, or one of a later version."""


@final
@frozen
class Finding:
    """One thing that is not as it should be."""

    what: What
    """
    `cut`: the last line is not whole. `damaged`: a line in the middle is not what was written. `gap`: lines are
    missing. `lost`: the recorder could not write entries. `dropped`: old parts were removed. `unfinished`: there is no
    end; the recorder was killed, or still runs. `mixed`: a part belongs to another recording. `unknown`: entries of a
    later version were left out. `more`: there are more findings.
    """
    text: str
    """A sentence."""
    after: int = 0
    """Number of the last good line before it."""
    entries: int = 0
    """How many are missing, as far as that is known."""

    @property
    def harms(self) -> bool:
        """Whether entries are missing that were, or should have been, on the tape."""
        return self.what not in ("dropped", "unfinished", "unknown")


def parts_of(path: Path) -> list[tuple[int, Path]]:
    """The parts of a tape that are there, in their order: number and file."""
    found = [(1, path)] if path.exists() else []
    for each in path.parent.glob(f"{path.name}.*"):
        digits = each.name.removeprefix(f"{path.name}.")
        if digits.isascii() and digits.isdigit() and int(digits) > 1:
            found.append((int(digits), each))
    return sorted(found)


@final
class Tape:
    """
    A tape to read, as often as you like.

    Args:
        path: Its first part, which may be gone.

    Raises:
        TapeError: There is no tape, or none that this version can read.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = parts_of(path)
        """Number and file of each part."""
        if not self.parts:
            raise TapeError(f"there is no tape {path}")
        self.header = _header_of(self.parts[0][1])
        """Of the first part that is there."""
        self.dropped = min(self.header.n - 1, _dropped(self.parts))
        """Number of the last line that was removed with old parts; 0 if none was."""
        self.findings: list[Finding] = []
        """What was found wrong when it was read last, as far as that went."""
        self.last = 0
        """Number of the last good line that was read."""
        self._unknown = 0

    def entries(self, *, since: float = 0.0, exchange: int = 0) -> Iterator[Entry]:
        """
        Every whole entry in order, headers included.

        Args:
            since: Leave out what was earlier, in seconds since the recording began, without reading most of it.
            exchange: Leave out most of what was before the beginning of this exchange, likewise.
        """
        self.findings, self.last, self._unknown = [], 0, 0
        parts, start = self._start(since, exchange)
        if start is not None:
            self.last = start.n - 1
        elif self.dropped:
            self.last = self.dropped
            self._found("dropped", f"lines up to {self.last} were removed, for want of room", self.last)
        entry: Entry | None = None
        for number, (part, path) in enumerate(parts):
            is_last = number == len(parts) - 1
            for entry in self._part(part, path, start.offset if start is not None else 0, is_last=is_last):
                if entry.t >= since:
                    yield entry
            start = None
        if not isinstance(entry, Trailer):
            self._found("unfinished", "the tape has no end: its recorder was killed, or still runs")
        if self._unknown:
            text = f"{self._unknown} entries are of kinds that this version does not know"
            self._found("unknown", text, self._unknown)

    def _start(self, since: float, exchange: int) -> tuple[list[tuple[int, Path]], Mark | None]:
        """The parts to read, and where to begin in the first of them."""
        if since <= 0 and exchange <= 0:
            return self.parts, None
        for at in range(len(self.parts) - 1, -1, -1):
            marks = read_marks(self.parts[at][1])
            mark = before_exchange(marks, exchange) if exchange > 0 else before_time(marks, since)
            if mark is not None:
                return self.parts[at:], mark
        return self.parts, None

    def _part(self, part: int, path: Path, offset: int, *, is_last: bool) -> Iterator[Entry]:
        ended, bad = False, None
        for line in lines_of(path, offset):
            if bad is not None:
                self._found("damaged", f"{path.name}: a line after {self.last} is not what was written: {bad}")
                bad = None
            try:
                entry = parse_line(line)
            except BadLine as error:
                bad = error
                continue
            if isinstance(entry, int):
                self._unknown += 1
                self._count(entry)
                continue
            if isinstance(entry, Header) and not self._belongs(entry, path):
                return
            self._count(entry.n)
            if isinstance(entry, Lost):
                self._found("lost", f"{entry.entries} entries were not written: {entry.reason}", entry.entries)
            ended = isinstance(entry, PartEnded | Trailer)
            yield entry
        if bad is not None:
            self._found("cut", f"{path.name} ends in the middle of the line after {self.last}; it was left out")
        if not ended and not is_last:
            self._found("gap", f"{path.name}, part {part}, has no end; what was in it after {self.last} is missing")

    def _belongs(self, header: Header, path: Path) -> bool:
        if header.recording == self.header.recording:
            return True
        self._found("mixed", f"{path.name} belongs to another recording, and was left out")
        return False

    def _count(self, n: int) -> None:
        missing = n - self.last - 1
        if missing:
            text = f"lines {self.last + 1} to {n - 1} are missing" if missing > 0 else f"line {n} is not in its place"
            self._found("gap", text, max(missing, 0))
        self.last = n

    def _found(self, what: What, text: str, entries: int = 0) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(what, text, self.last, entries))
        elif len(self.findings) == MAX_FINDINGS:
            self.findings.append(Finding("more", "there are more findings", self.last))


def _dropped(parts: list[tuple[int, Path]]) -> int:
    """What the latest header says of what was removed; one that is not whole says nothing."""
    for _, path in reversed(parts):
        try:
            return _header_of(path).dropped
        except TapeError:
            continue
    return 0


def _header_of(path: Path) -> Header:
    line = next(lines_of(path), b"")
    try:
        header = parse_line(line)
    except BadLine as error:
        raise TapeError(f"{path} is no tape: its first line is not what a recorder writes ({error})") from error
    if not isinstance(header, Header) or header.format != FORMAT:
        raise TapeError(f"{path} is no tape: it does not begin with a header")
    if header.version > VERSION:
        raise TapeError(
            f"{path} has version {header.version} of the format, and this program reads up to {VERSION}; "
            f"use Sluiceway {header.sluiceway} or newer"
        )
    return header
