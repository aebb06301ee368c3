"""
Writing a tape: parts of a bounded size, of which the oldest go when there are too many, and an index beside each.

Blocks; a recorder calls it in a thread. What is written is appended whole lines at a time, or, compressed, whole gzip
members, so that a process that is killed leaves everything readable but the end of the last one. A tape that exists is
never written to.
"""

from __future__ import annotations

import errno
import gzip
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from attrs import define, frozen
from msgspec.structs import force_setattr

from .entries import Entry, Header, Lost, PartEnded
from .index import INDEX_EVERY, Mark, index_of, number_of, render_mark
from .lines import render_entry, seal

LEVEL: Final = 1
"""Of compression: a third of the time that the usual one takes, for a tenth more bytes."""
LOOK_EVERY_S: Final = 1.0
"""Seconds between two looks at how much room the disk has."""


@final
@frozen(kw_only=True)
class Bounds:
    """How large a tape may become."""

    part_size: int = 256 << 20
    """Bytes after which another part is begun."""
    part_for: float = 3600.0
    """Seconds after which another part is begun."""
    keep_size: int = 2 << 30
    """Bytes of all parts together, above which the oldest go; the current one stays, whatever its size."""
    keep_for: float = 7 * 86_400.0
    """Seconds after its end when a part goes."""
    min_free: int = 1 << 30
    """Bytes that must be free on the disk; with fewer, nothing is written."""


@define(eq=False)
class _Old:
    """A part that is complete."""

    path: Path
    size: int
    ended: float
    last: int


def part_path(path: Path, part: int) -> Path:
    """Where a part is: the first one is the file itself, others have their number behind its name."""
    return path if part == 1 else path.with_name(f"{path.name}.{part}")


@final
class TapeWriter:
    """
    Writes one recording. Use it from one thread at a time.

    Args:
        path: The first part; with the suffix `.gz` it is compressed. It must not exist.
        header: Of the first part; those of others are made from it.
        bounds: How large it may become.
        masked: What is done to the text of each entry before it is written.
        now: Seconds since 1970, for the age of parts.
        elders: Earlier recordings that count towards `keep_size` and `keep_for`, oldest first.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        bounds: Bounds | None = None,
        *,
        masked: Callable[[bytes], bytes] = bytes,
        now: Callable[[], float] = time.time,
        elders: Iterable[Path] = (),
    ) -> None:
        self.path = path
        self.header = header
        """Of the next part; the recorder keeps its digest up to date."""
        self.written = 0
        """Lines so far: the number of the last one."""
        self.part = 0
        self.bytes = 0
        """Written so far, in all parts."""
        self._bounds = bounds if bounds is not None else Bounds()
        self._masked = masked
        self._now = now
        self._gzip = path.suffix == ".gz"
        self._old = deque(_Old(each, each.stat().st_size, each.stat().st_mtime, 0) for each in elders)
        self._fd: int | None = None
        self._index: int | None = None
        self._size = 0
        self._begun = 0.0
        self._marked = 0
        self._unsynced = False
        self._looked = float("-inf")
        self._exchange = 0

    @property
    def is_open(self) -> bool:
        """Whether it was opened and not closed."""
        return self._fd is not None

    def open(self) -> None:
        """
        Begin the first part.

        Raises:
            OSError: The file exists, cannot be made, or the disk has too little room.
        """
        self._check_room()
        self._begin()

    def append(self, entries: Sequence[Entry]) -> None:
        """
        Number entries and write them, all or none.

        Raises:
            OSError: They cannot be written, or the disk has too little room; what was written before stays as it was.
        """
        if not entries:
            return
        self._check_room()
        if self.is_open and self._is_full():
            self._end_part(entries[0].t)
        if not self.is_open:
            force_setattr(self.header, "t", entries[0].t)
            self._begin()
        self._put(entries)

    def _is_full(self) -> bool:
        return self._size >= self._bounds.part_size or self._now() - self._begun >= self._bounds.part_for

    def sync(self) -> None:
        """
        Have everything that was written survive a power cut.

        Raises:
            OSError: Nobody knows whether it does.
        """
        if self._unsynced and self._fd is not None:
            os.fdatasync(self._fd)
            self._unsynced = False

    def close(self, last: Sequence[Entry] = ()) -> None:
        """
        End the tape, in good order if the last entry is a trailer.

        Raises:
            OSError: The last entries cannot be written; the files are closed nonetheless.
        """
        try:
            if last and self.is_open:
                self._put(last)
                self.sync()
        finally:
            self._close()

    def _close(self) -> None:
        fds, self._fd, self._index = (self._fd, self._index), None, None
        for fd in fds:
            if fd is not None:
                os.close(fd)

    def _begin(self) -> None:
        """Begin the next part; there is none of it if that fails."""
        surplus = self._surplus()
        dropped = max((each.last for each in surplus), default=0)
        path, before = part_path(self.path, self.part + 1), self.written
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(path, flags | os.O_EXCL, 0o600)
        try:
            self._index = os.open(index_of(path), flags | os.O_TRUNC, 0o600)
            self._size, self._marked, self._begun = 0, -INDEX_EVERY, self._now()
            force_setattr(self.header, "part", self.part + 1)
            force_setattr(self.header, "dropped", max(self.header.dropped, dropped))
            self._put([self.header])
            self._sync_folder()
        except OSError:
            self._close()
            path.unlink(missing_ok=True)
            self.written = before
            raise
        self.part += 1
        self._remove(surplus)

    def _end_part(self, t: float) -> None:
        """End the current part, for it is full."""
        try:
            self._put([PartEnded(t=t, next=self.part + 1)])
            self.sync()
        finally:
            self._old.append(_Old(part_path(self.path, self.part), self._size, self._now(), self.written))
            self._close()

    def _surplus(self) -> list[_Old]:
        """The oldest parts, of which there are too many, or which are too old."""
        oldest = self._now() - self._bounds.keep_for
        size = sum(each.size for each in self._old)
        surplus: list[_Old] = []
        for each in self._old:
            if size <= self._bounds.keep_size and each.ended >= oldest:
                break
            surplus.append(each)
            size -= each.size
        return surplus

    def _remove(self, surplus: Sequence[_Old]) -> None:
        """Remove the oldest parts. The header says so already, so that a kill now leaves no gap unexplained."""
        for gone in surplus:
            for path in (gone.path, index_of(gone.path)):
                path.unlink(missing_ok=True)
            self._old.popleft()

    def _put(self, entries: Sequence[Entry]) -> None:
        assert self._fd is not None
        n, lines = self.written, []
        for entry in entries:
            n += 1
            force_setattr(entry, "n", n)
            lines.append(seal(self._masked(_text_of(entry))))
        data = b"".join(lines)
        if self._gzip:
            data = gzip.compress(data, LEVEL, mtime=0)
        self._mark(entries[0])
        try:
            _write_all(self._fd, data)
        except OSError:
            with suppress(OSError):  # if it cannot be taken back, readers find the torn line
                os.ftruncate(self._fd, self._size)
            raise
        self.written = n
        self._size += len(data)
        self.bytes += len(data)
        self._unsynced = True
        self._exchange = max(self._exchange, *(number_of(entry) for entry in entries), 0)

    def _mark(self, first: Entry) -> None:
        """Say in the index where a batch begins, now and then; whether that succeeds matters to nobody."""
        if self._size - self._marked < INDEX_EVERY or self._index is None:
            return
        self._marked = self._size
        mark = Mark(self._size, first.n, first.t, self._exchange)
        with suppress(OSError):
            os.write(self._index, render_mark(mark))

    def _check_room(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        disk = os.statvfs(self.path.parent)
        free = disk.f_bavail * disk.f_frsize
        if free < self._bounds.min_free:
            text = f"only {free >> 20} MiB are free, and min_free is {self._bounds.min_free >> 20} MiB"
            raise OSError(errno.ENOSPC, text, str(self.path))
        self._looked = now

    def _sync_folder(self) -> None:
        fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _text_of(entry: Entry) -> bytes:
    """An entry's text; that something is missing, if a stage put into a message what is no JSON."""
    try:
        return render_entry(entry)
    except (TypeError, ValueError, RecursionError) as error:
        return render_entry(
            Lost(n=entry.n, t=entry.t, entries=1, reason=f"{type(entry).__name__} is not JSON: {error}")
        )


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
