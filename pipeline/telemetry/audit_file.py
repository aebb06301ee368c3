"""
The audit trail as a JSON Lines file, and the files that were put aside when they were full.

Several processes, and two generations of one process during a reload, may write to one trail: each takes a lock
(`<path>.lock`) for every batch, and looks where the chain ends now if somebody else was there. Records are appended
whole (O_APPEND, one `write` a batch); a batch that fails is taken back as far as it got.

After a failed `fdatasync` nobody knows what is on the disk, and the kernel has dropped what it could not write: the
file is not written to again. The next `open` puts it aside and begins another.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final, final

import msgspec
from attrs import frozen

from .audit_chain import GENESIS, RETIRED, parse_link
from .audit_journal import Checkpoints, Keeping, Sealer, event, write_all

MAGIC: Final = b"SQLite format 3\0"
"""How a database begins."""
TAIL_BYTES: Final = 1 << 20
"""Bytes at the end of a file that are looked at when it is opened."""
_DIGITS: Final = 12


class _Dated(msgspec.Struct):
    at: str = ""


_decode_dated = msgspec.json.Decoder(_Dated).decode


@final
@frozen
class _Tail:
    """The end of a file."""

    seq: int = 0
    hash: str = GENESIS
    torn: int = 0
    """Bytes after the last whole line."""
    problem: str = ""
    """What is wrong with the lines before; empty if nothing is."""


def files_of(path: Path) -> list[Path]:
    """The files of a trail, oldest first: those that were put aside, then the current one if it is there."""
    aside = [each for each in path.parent.glob(f"{path.name}.*") if _number(path, each) is not None]
    aside.sort(key=lambda each: _number(path, each) or 0)
    return [*aside, path] if path.exists() else aside


def begins_with(path: Path, file: Path) -> int:
    """Number of the first record of a file that was put aside; 0 for the current one, whose name does not say."""
    return _number(path, file) or 0


def _number(path: Path, each: Path) -> int | None:
    digits = each.name.removeprefix(f"{path.name}.")
    return int(digits) if len(digits) == _DIGITS and digits.isascii() and digits.isdigit() else None


@final
class AuditFile:
    """
    A `Journal` in a file.

    Args:
        path: The current file. `<path>.<number of its first record>` are those that were put aside.
        keeping: When that happens, and when they go.
        checkpoints: Where checkpoints go.
        now: Seconds since the epoch.
        durable: Whether checkpoints are to survive a power cut, and so what they name.
    """

    def __init__(
        self, path: Path, keeping: Keeping, checkpoints: Checkpoints, now: Callable[[], float], *, durable: bool
    ) -> None:
        self._path = path
        self._keeping = keeping
        self._checkpoints = checkpoints
        self._now = now
        self._durable = durable
        self._sealer = Sealer()
        self._lock: int | None = None
        self._fd: int | None = None
        self._size = 0
        self._first = 1
        self._begun = 0.0
        self._doubtful = False

    def open(self) -> None:
        """See `Journal`."""
        self._refuse_database()
        self._lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with self._locked():
                self._reopen()
                if self._doubtful and self._size:
                    self._put_aside()
                self._doubtful = False
                self._checkpoints.begin_at(self._sealer.seq)
        except BaseException:
            self.close()
            raise

    def _refuse_database(self) -> None:
        """Lines at the end of a database would be its end."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                raise OSError(f"{self._path} is a SQLite file; give this trail a path of its own")

    def append(self, entries: Sequence[bytes]) -> None:
        """See `Journal`."""
        with self._locked():
            self._catch_up()
            self._write(entries)
            if self._is_full():
                self._put_aside()
                self._retire()

    def sync(self) -> None:
        """See `Journal`."""
        assert self._fd is not None
        try:
            os.fdatasync(self._fd)
        except OSError:
            self._doubtful = True
            raise

    def checkpoint(self, *, at_once: bool = False) -> None:
        """See `Journal`."""
        if not self._checkpoints.is_due(self._sealer.seq, at_once=at_once):
            return
        if self._durable:
            self.sync()  # what a checkpoint names must not be lost while the checkpoint is not
        with self._locked():
            self._checkpoints.write(self._sealer.seq, self._sealer.hash, durable=self._durable)

    def close(self) -> None:
        """See `Journal`."""
        for fd in (self._fd, self._lock):
            if fd is not None:
                os.close(fd)
        self._fd = self._lock = None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        assert self._lock is not None
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    # With the lock.

    def _write(self, entries: Sequence[bytes]) -> None:
        assert self._fd is not None
        lines, seq, record_hash = self._sealer.seal(entries)
        data = b"".join(lines)
        try:
            write_all(self._fd, data)
        except OSError:
            with suppress(OSError):  # if it cannot be taken back, the next start finds it
                os.ftruncate(self._fd, self._size)
            raise
        if not self._size:
            self._first, self._begun = self._sealer.seq + 1, self._now()
        self._size += len(data)
        self._sealer.stand_at(seq, record_hash)

    def _catch_up(self) -> None:
        """Look where the chain ends, if it is not where we left it."""
        assert self._fd is not None
        ours = os.fstat(self._fd)
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            self._reopen()
            return
        if (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev) or there.st_size < self._size:
            self._reopen()
        elif there.st_size > self._size:  # another process, or the generation after us
            news = _tail(self._fd, there.st_size, since=self._size)
            if not news.seq or news.torn or news.problem:
                self._reopen()
            else:
                self._sealer.stand_at(news.seq, news.hash)
                if not self._size:
                    self._date()
                self._size = there.st_size

    def _reopen(self) -> None:
        """Open the current file, whichever that is now, and go on after its last record."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size
        tail = _tail(self._fd, self._size)
        if tail.torn:
            self._size -= tail.torn
            os.ftruncate(self._fd, self._size)
        if not tail.seq:
            tail = self._before(tail)
        self._date()
        problem = tail.problem
        known, named = self._sealer.seq, self._checkpoints.last_named()
        if tail.seq < max(known, named) and not problem:
            problem = f"the trail ends with record {tail.seq}, but there was a record {max(known, named)}"
        if tail.seq >= known:
            self._sealer.stand_at(tail.seq, tail.hash)
        if tail.torn or problem:
            self._write([event("recovered", self._now(), torn_bytes=tail.torn, problem=problem or None)])

    def _before(self, tail: _Tail) -> _Tail:
        """The end of the file put aside last, where the current one has no record yet."""
        aside = [each for each in files_of(self._path) if each != self._path]
        if not aside:
            return tail
        fd = os.open(aside[-1], os.O_RDONLY | os.O_CLOEXEC)
        try:
            last = _tail(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)
        return _Tail(last.seq, last.hash, tail.torn, tail.problem or last.problem)

    def _date(self) -> None:
        """Number and date of the current file's first record."""
        assert self._fd is not None
        line = os.pread(self._fd, TAIL_BYTES, 0).partition(b"\n")[0]
        self._first, self._begun = 1, self._now()
        with suppress(ValueError, msgspec.MsgspecError):
            self._first = parse_link(line).seq
            self._begun = datetime.fromisoformat(_decode_dated(line).at).timestamp()

    def _is_full(self) -> bool:
        return self._size >= self._keeping.max_file_bytes or self._now() - self._begun >= self._keeping.max_file_age_s

    def _put_aside(self) -> None:
        """Begin another file. The chain goes on."""
        assert self._fd is not None
        if self._durable and not self._doubtful:
            self.sync()
        os.rename(self._path, f"{self._path}.{self._first:0{_DIGITS}d}")
        self._sync_folder()
        os.close(self._fd)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _retire(self) -> None:
        """Remove files that were kept long enough, each after the chain says that it goes."""
        aside = [each for each in files_of(self._path) if each != self._path]
        oldest = self._now() - self._keeping.keep_for_s
        while aside and (len(aside) > self._keeping.keep_files or aside[0].stat().st_mtime < oldest):
            gone = aside.pop(0)
            first = self._first_of(aside[0] if aside else None)
            if first is not None:
                self._write([event(RETIRED, self._now(), first=first[0], first_prev=first[1], file=gone.name)])
            gone.unlink()

    def _first_of(self, file: Path | None) -> tuple[int, str] | None:
        """The first record of a file and its predecessor; of the current one, which may be empty, if None."""
        if file is None and not self._size:
            return self._sealer.seq + 1, self._sealer.hash
        with (file or self._path).open("rb") as lines:
            try:
                link = parse_link(lines.readline()[:-1])
            except ValueError:  # somebody changed it; `audit verify` will say so
                return None
        return link.seq, link.prev

    def _sync_folder(self) -> None:
        if not self._durable:
            return
        fd = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _tail(fd: int, size: int, since: int = 0) -> _Tail:
    """Look at the end of a file, from a line's start on: the last record, and whether those before it are a chain."""
    start = max(since, size - TAIL_BYTES)
    data = os.pread(fd, size - start, start)
    if start > since:
        data = data[data.find(b"\n") + 1 :]
    whole, _, rest = data.rpartition(b"\n")
    if not whole:
        return _Tail(torn=len(rest))
    seq, record_hash, problem = 0, GENESIS, ""
    for line in whole.split(b"\n"):
        try:
            link = parse_link(line)
        except ValueError as error:
            problem = problem or f"after record {seq}: {error}"
            continue
        if seq and (link.seq != seq + 1 or link.prev != record_hash):
            problem = problem or f"record {link.seq} does not follow record {seq}"
        seq, record_hash = link.seq, link.hash
    return _Tail(seq, record_hash, len(rest), problem)
