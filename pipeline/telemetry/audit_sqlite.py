"""
The audit trail as a table of a SQLite file: the same records in the same chain, with SQL to ask them.

A batch is one transaction that begins with a look at the last record, so several processes can write to one trail.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, final

import apsw

from .audit_chain import RETIRED, parse_link
from .audit_file import MAGIC
from .audit_journal import EVERY_RECORDS, Checkpoints, Keeping, Sealer, event, stamp

_BUSY_MS: Final = 5000
_APPLICATION: Final = 0x534C4155
"""`application_id` of the file: "SLAU"."""
_SCHEMA: Final = """
    CREATE TABLE records (seq INTEGER PRIMARY KEY, line TEXT NOT NULL);
    CREATE VIEW entries AS SELECT
        seq, line ->> 'at' AS at, line ->> 'event' AS event, line ->> 'principal' AS principal,
        line ->> 'tenant' AS tenant, line ->> 'operation' AS operation, line ->> 'resource' AS resource,
        line ->> 'outcome' AS outcome, line ->> 'reason' AS reason, line ->> 'duration_ms' AS duration_ms, line
        FROM records;
"""
_MARGIN: Final = 0.9
"""What is left of the most that may be kept, when the oldest records have gone."""


def is_sqlite(path: Path) -> bool:
    """
    Whether a file is a trail in a database. SQLite itself looks: if anybody else in the process that writes the trail
    opened the file and closed it, the process would lose the locks SQLite has on it (sqlite.org/howtocorrupt.html 2.2).
    """
    with _explained(path):
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            db.set_busy_timeout(_BUSY_MS)
            return bool(db.execute("PRAGMA application_id").get == _APPLICATION)
        except apsw.NotADBError:
            with path.open("rb") as file:  # nobody has locks on what is none
                if file.read(len(MAGIC)) == MAGIC:
                    raise
            return False
        finally:
            db.close()


def lines_of(path: Path) -> Iterator[bytes]:
    """The records of a trail, oldest first, each with a newline."""
    with _explained(path):
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            db.set_busy_timeout(_BUSY_MS)
            for (line,) in db.execute("SELECT line FROM records ORDER BY seq"):
                yield str(line).encode() + b"\n"
        finally:
            db.close()


def newest_first(path: Path, before: int) -> Iterator[bytes]:
    """The records of a trail that are numbered below `before`, newest first, without newlines."""
    with _explained(path):
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            db.set_busy_timeout(_BUSY_MS)
            for (line,) in db.execute("SELECT line FROM records WHERE seq < ? ORDER BY seq DESC", (before,)):
                yield str(line).encode()
        finally:
            db.close()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise OSError(f"{path}: {error}") from error


@final
class AuditDatabase:
    """
    A `Journal` in a SQLite file.

    Args:
        path: The file.
        keeping: Its bytes and its age: `max_file_bytes` times `keep_files`, and `keep_for_s`.
        checkpoints: Where checkpoints go.
        now: Seconds since the epoch.
        durable: Whether every batch is to survive a power cut when it is written.
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
        self._db: apsw.Connection | None = None
        self._since_look = 0

    def open(self) -> None:
        """See `Journal`."""
        with suppress(FileExistsError):  # and never open one that exists: closing it would drop SQLite's locks
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        try:
            with _explained(self._path):
                self._db = apsw.Connection(str(self._path))
                self._prepare(self._db)
        except BaseException:
            self.close()
            raise

    def _prepare(self, db: apsw.Connection) -> None:
        db.set_busy_timeout(_BUSY_MS)
        db.transaction_mode = "IMMEDIATE"
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
        with db:
            if db.execute("SELECT count(*) FROM sqlite_schema").get == 0:
                db.execute(_SCHEMA)
                db.execute(f"PRAGMA application_id = {_APPLICATION}")
            elif db.execute("PRAGMA application_id").get != _APPLICATION:
                raise OSError(f"{self._path} is a SQLite file, but no audit trail; give the trail a path of its own")
            problem = self._find_end(db)
            named = self._checkpoints.last_named()
            if self._sealer.seq < named:
                problem = f"the trail ends with record {self._sealer.seq}, but there was a record {named}"
            if problem:
                self._insert(db, [event("recovered", self._now(), problem=problem)])
        self._checkpoints.begin_at(self._sealer.seq)

    def append(self, entries: Sequence[bytes]) -> None:
        """See `Journal`."""
        db = self._db
        assert db is not None
        with _explained(self._path), db:
            self._find_end(db)
            self._insert(db, entries)
            self._since_look += len(entries)
            if self._since_look >= EVERY_RECORDS:
                self._since_look = 0
                self._retire(db)

    def sync(self) -> None:
        """See `Journal`. Durable transactions need none; the others are made so by a checkpoint of SQLite's."""
        if not self._durable and self._db is not None:
            with _explained(self._path):
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def checkpoint(self, *, at_once: bool = False) -> None:
        """See `Journal`."""
        if self._checkpoints.is_due(self._sealer.seq, at_once=at_once):
            self.sync()
            self._checkpoints.write(self._sealer.seq, self._sealer.hash, durable=True)

    def close(self) -> None:
        """See `Journal`."""
        if self._db is not None:
            self._db.close()
        self._db = None

    # In a transaction.

    def _find_end(self, db: apsw.Connection) -> str:
        """Go on after the last record, whoever wrote it; what is wrong with it, if anything is."""
        for seq, line in db.execute("SELECT seq, line FROM records ORDER BY seq DESC LIMIT 1"):
            if seq == self._sealer.seq:
                return ""
            try:
                self._sealer.stand_at(seq, parse_link(str(line).encode()).hash)
            except ValueError as error:
                self._sealer.stand_at(seq, self._sealer.hash)
                return f"record {seq}: {error}"
        return ""

    def _insert(self, db: apsw.Connection, entries: Sequence[bytes]) -> None:
        lines, seq, record_hash = self._sealer.seal(entries)
        first = self._sealer.seq + 1
        rows = [(first + n, line[:-1].decode()) for n, line in enumerate(lines)]
        db.executemany("INSERT INTO records VALUES (?, ?)", rows)
        self._sealer.stand_at(seq, record_hash)

    def _retire(self, db: apsw.Connection) -> None:
        """Remove the oldest records when there are too many bytes, and those that were kept long enough."""
        first = self._first_to_keep(db)
        row = db.execute("SELECT line FROM records WHERE seq = ?", (first,)).get
        if row is None or not db.execute("SELECT count(*) FROM records WHERE seq < ?", (first,)).get:
            return
        with suppress(ValueError):  # somebody changed it: it stays, and `audit verify` will say so
            link = parse_link(str(row).encode())
            self._insert(db, [event(RETIRED, self._now(), first=link.seq, first_prev=link.prev)])
            db.execute("DELETE FROM records WHERE seq < ?", (first,))

    def _first_to_keep(self, db: apsw.Connection) -> int:
        keeping = self._keeping
        oldest = stamp(max(0.0, self._now() - keeping.keep_for_s))
        # Records are in the order of their dates, near enough, so the first young one ends the search.
        young = db.execute("SELECT seq FROM records WHERE line ->> 'at' >= ? ORDER BY seq LIMIT 1", (oldest,)).get
        first: int = self._sealer.seq if young is None else young
        most = keeping.max_file_bytes * max(1, keeping.keep_files)
        held, count, least = next(
            db.execute("SELECT total(octet_length(line)), count(*), min(seq) FROM records WHERE seq >= ?", (first,))
        )
        if held > most:
            first = max(first, least + int(count * (1 - _MARGIN * most / held)))
        return first
