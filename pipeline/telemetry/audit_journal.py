"""
What the audit trail's two places, a file and a database, share: how long they keep records, and their checkpoints.

Everything here blocks, and is called by one thread at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol, final

from attrs import frozen

from ..protocol.messages import Json
from .audit_chain import GENESIS, encode_entry, make_checkpoint, parse_checkpoints, seal

EVERY_RECORDS: Final = 1000
EVERY_S: Final = 60.0
"""A checkpoint is due after so many records or seconds, whichever is first."""
MAX_CHECKPOINT_BYTES: Final = 1 << 20
"""Above this the older half of the checkpoints goes."""


@final
@frozen
class Keeping:
    """How long records stay."""

    max_file_bytes: int
    """A file that is longer is put aside, and the next one begun."""
    max_file_age_s: float
    """So is one whose first record is older, in seconds."""
    keep_files: int
    """Files that stay beside the current one."""
    keep_for_s: float
    """Seconds after which a file that was put aside goes."""


class Journal(Protocol):
    """A place for records. Every method blocks and may raise `OSError`; after that only `close` and `open` help."""

    def open(self) -> None:
        """Make or open it, look at its end, and repair what a crash left there."""
        ...

    def append(self, entries: Sequence[bytes]) -> None:
        """Write entries (JSON objects) as records, all or none. They survive the process, not yet a power cut."""
        ...

    def sync(self) -> None:
        """Have everything appended survive a power cut."""
        ...

    def checkpoint(self, *, at_once: bool = False) -> None:
        """Write a checkpoint if one is due; `at_once`, if there is any record that none speaks for."""
        ...

    def close(self) -> None:
        """Give it back. Idempotent."""
        ...


def stamp(at: float) -> str:
    """A date as records carry it: UTC, to the millisecond (RFC 3339)."""
    second, ms = divmod(int(at * 1000 + 0.5), 1000)
    return f"{_second(second)}.{ms:03d}Z"


@lru_cache(maxsize=8)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().removesuffix("+00:00")


def event(name: str, at: float, **fields: Json) -> bytes:
    """An entry about the trail itself or a session, not about a request."""
    return encode_entry({"at": stamp(at), "event": name, **fields})


@final
class Sealer:
    """The end of the chain: numbers entries and binds each to the one before."""

    def __init__(self) -> None:
        self.seq = 0
        """Number of the last record."""
        self.hash = GENESIS
        """Its hash."""

    def seal(self, entries: Sequence[bytes]) -> tuple[list[bytes], int, str]:
        """Lines for entries, with the number and hash of the last; it is the end only once `stand_at` says so."""
        seq, record_hash = self.seq, self.hash
        lines = []
        for entry in entries:
            seq += 1
            line, record_hash = seal(entry, seq, record_hash)
            lines.append(line)
        return lines, seq, record_hash

    def stand_at(self, seq: int, record_hash: str) -> None:
        """Go on from another record."""
        self.seq, self.hash = seq, record_hash


@final
class Checkpoints:
    """
    The file of checkpoints; only who holds the journal's lock writes it.

    Args:
        path: The file; made when the first one is written.
        key: Signs them; None for none.
        now: Seconds since the epoch.
        tell: Called with the fields of each, for a log: a copy out of reach of who can write the file.
    """

    def __init__(
        self,
        path: Path,
        key: bytes | None,
        now: Callable[[], float],
        tell: Callable[[Mapping[str, Json]], None],
    ) -> None:
        self._path = path
        self._key = key
        self._now = now
        self._tell = tell
        self._last_seq = 0
        self._last_at = now()

    def last_named(self) -> int:
        """Number of the latest record that one names; 0 if there is none, or the file cannot be read as such."""
        try:
            return max((each.seq for each in parse_checkpoints(_lines(self._path))), default=0)
        except (OSError, ValueError):
            return 0

    def is_due(self, seq: int, *, at_once: bool) -> bool:
        """Whether the chain has come far enough since the last one."""
        new = seq - self._last_seq
        return new > 0 and (at_once or new >= EVERY_RECORDS or self._now() - self._last_at >= EVERY_S)

    def begin_at(self, seq: int) -> None:
        """Count from a record on."""
        self._last_seq = seq

    def write(self, seq: int, record_hash: str, *, durable: bool) -> None:
        """Write one, and have it survive a power cut if `durable`."""
        self._last_seq, self._last_at = seq, self._now()
        line = make_checkpoint(seq, record_hash, stamp(self._last_at), self._key)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                os.ftruncate(fd, _end_of_last_line(fd, size))  # a crash tore it off
            write_all(fd, line)
            if durable:
                os.fdatasync(fd)
        finally:
            os.close(fd)
        if size + len(line) > MAX_CHECKPOINT_BYTES:
            self._halve()
        self._tell({"seq": seq, "hash": record_hash})

    def _halve(self) -> None:
        lines = _lines(self._path)
        spare = self._path.with_name(f"{self._path.name}.new")
        fd = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, b"".join(lines[len(lines) // 2 :]))
            os.fdatasync(fd)
        finally:
            os.close(fd)
        os.replace(spare, self._path)


def _lines(path: Path) -> list[bytes]:
    with suppress(FileNotFoundError):
        return path.read_bytes().splitlines(keepends=True)
    return []


def _end_of_last_line(fd: int, size: int) -> int:
    start = max(0, size - 4096)
    return start + os.pread(fd, size - start, start).rfind(b"\n") + 1


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, however many calls that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
