"""
The store `sqlite`: one file, survives the process.

Every operation is one transaction, run whole by the one thread that apsw's Trio mode gives a connection: operations of
different tasks cannot get between each other's statements, and a cancelled one leaves the old value or the new.

Expiry has to hold across restarts, which the Trio clock does not: its zero is arbitrary. So instants in the file are
those of the wall clock. Within a run they are reckoned by the Trio clock from one reading of the wall clock, so that
setting the wall clock expires nothing, and tests on the mock clock work.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, Literal, final

import apsw
import apsw.aio
import trio
from attrs import frozen

from ..model.component import Context
from ..model.options import MIB, ConfigPath, Duration, Size, option
from ..model.store import Store, store
from ..protocol.errors import CapacityExceeded, ComponentError

FORMAT: Final = 1
"""Version of the file's layout, in its `user_version`."""
_BUSY_STEP_S: Final = 0.005

_SCHEMA: Final = """
    CREATE TABLE entries (
        written INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value BLOB NOT NULL, expires REAL NOT NULL
    );
    CREATE INDEX by_expiry ON entries (expires);
    CREATE TABLE total (entries INTEGER NOT NULL, bytes INTEGER NOT NULL);
    INSERT INTO total VALUES (0, 0);
    CREATE TRIGGER added AFTER INSERT ON entries BEGIN
        UPDATE total SET entries = entries + 1, bytes = bytes + octet_length(new.key) + length(new.value);
    END;
    CREATE TRIGGER removed AFTER DELETE ON entries BEGIN
        UPDATE total SET entries = entries - 1, bytes = bytes - octet_length(old.key) - length(old.value);
    END;
"""
"""`written` orders entries by their latest put; `expires` is in seconds since the epoch, infinite for never."""


class _Worker(apsw.aio.Trio):
    """
    apsw's thread for one connection, but sure to end.

    As it comes, the thread lives on (and the process with it) when opening or closing was cancelled; this one closes
    the connection itself when it is told to stop, and finishes the operation it is at before.
    """

    _db: apsw.Connection | None = None
    busy_timeout_s = 0.0
    """How long an operation waits for a lock on the file."""

    def configure(self, db: apsw.Connection) -> None:
        """Called by apsw in the thread, when the connection is open."""
        super().configure(db)
        db.set_busy_handler(self._wait)
        self._db = db

    async def send(self, call: Callable[[], Any]) -> Any:
        """Called by apsw to have something done; a cancel ends it, and nothing but a cancel: no deadline of its own."""
        token = apsw.aio.deadline.set(math.inf)
        try:
            return await super().send(call)
        finally:
            apsw.aio.deadline.reset(token)

    def _wait(self, attempt: int) -> bool:
        """
        Called by SQLite when the file is locked; whether to try again.

        Not `set_busy_timeout`: that cannot be cancelled, and with apsw's build (SQLITE_ENABLE_SETLK_TIMEOUT) two
        connections of one process, as there are during a reload, can wait for each other until both give up.
        """
        self.progress_checker()  # type: ignore[no-untyped-call]  # raises when the operation was cancelled
        time.sleep(_BUSY_STEP_S)
        return attempt * _BUSY_STEP_S < self.busy_timeout_s

    def worker_thread_run(self) -> None:
        """The thread."""
        with suppress(trio.RunFinishedError):  # who asked for the operation was cancelled, and then Trio ended
            super().worker_thread_run()  # type: ignore[no-untyped-call]  # apsw has no annotation there
        if self._db is not None:
            self._db.close()


@store("sqlite")
@final
class SqliteStore(Store):
    """
    Bytes by key in a SQLite file. When it is full, expired entries go first, then those written longest ago.

    Several processes may share the file. `get`, `put`, `swap`, `delete` and `keys` are checkpoints, and raise
    `ComponentError` when the file cannot be read or written any more.
    """

    shared = True

    @frozen
    class Config:
        """Options of `sqlite`."""

        path: ConfigPath = option(
            doc="The database file; made if it is missing, in a directory that must exist, for its owner only.",
            example="./state.db",
        )
        durability: Literal["normal", "full"] = option(
            "normal",
            doc="`normal`: survives a crash of the process. `full`: every write also survives a power cut, at the "
            "price of one disk flush each.",
        )
        max_entries: int = option(100_000, ge=1, doc="Entries held at most; above this the oldest goes.")
        max_bytes: Size = option(
            Size(1024 * MIB), ge=1, doc="Bytes of keys and values together; above this the oldest goes."
        )
        busy_timeout: Duration = option(
            Duration(5.0), ge=0, doc="How long an operation waits for another process that is writing to the file."
        )

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._config = config
        self._path = str(config.path)
        self._db: Any = None  # an apsw.Connection: typed as its synchronous self, used as both
        self._wall_offset_s = 0.0
        self._size = 0
        self.evicted = 0
        """Live entries that had to go because the store was full, since it was opened."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Open or make the file.

        Raises:
            ComponentError: It is no store, it is damaged, or it cannot be opened or written.
        """
        self._wall_offset_s = time.time() - trio.current_time()
        worker = _Worker(thread_name=f"sqlite {self.context.id}")
        worker.busy_timeout_s = self._config.busy_timeout
        try:
            with self._explained("open"):
                _create(self._path)
                self._db = await _connect(worker, self._path)
            await self._run("open", self._prepare)
            yield
            with self._explained("close"):
                await self._db.aclose()
        finally:
            worker.close()  # type: ignore[no-untyped-call]  # apsw has no annotation there

    async def get(self, key: str) -> bytes | None:
        """The live value of a key, or None."""
        value: bytes | None = await self._run("run", self._get, key, self._now())
        return value

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """
        Store a value, replacing what was there; when this returns it survives the process.

        Args:
            key: Any text.
            value: Any bytes.
            ttl_s: Seconds after which it is gone, also across restarts; None for never.

        Raises:
            CapacityExceeded: The entry alone is larger than `max_bytes`. What was there stays.
        """
        await self._run("run", self._put, *self._row(key, value, ttl_s))

    async def swap(self, key: str, expected: bytes | None, value: bytes, *, ttl_s: float | None = None) -> bool:
        """
        Store a value if the key holds `expected` (None: nothing that is live), in one transaction; whether it did.

        Of several processes that expect the same, one stores. A swap that is cancelled was done wholly or not at all.

        Raises:
            CapacityExceeded: As `put` does.
        """
        stored: bool = await self._run("run", self._swap, expected, *self._row(key, value, ttl_s))
        return stored

    async def delete(self, key: str) -> bool:
        """Remove a key; whether it was there and live."""
        removed: bool = await self._run("run", self._delete, key, self._now())
        return removed

    async def keys(self, prefix: str = "") -> list[str]:
        """The live keys that start with `prefix`, sorted."""
        found: list[str] = await self._run("run", self._keys, prefix, self._now())
        return found

    def size(self) -> int:
        """How many entries there were after the latest change made here, expired ones not yet removed included."""
        return self._size

    def _row(self, key: str, value: bytes, ttl_s: float | None) -> tuple[str, bytes, float, float]:
        """Key, value, its end, and now (seconds since the epoch)."""
        size = len(key.encode()) + len(value)
        if size > self._config.max_bytes:
            raise CapacityExceeded(
                f"an entry of {size} bytes does not fit into store {self.context.id!r}: "
                f"max_bytes is {self._config.max_bytes}"
            )
        now = self._now()
        return key, value, math.inf if ttl_s is None else now + ttl_s, now

    def _now(self) -> float:
        return trio.current_time() + self._wall_offset_s

    async def _run(self, phase: str, operation: Callable[..., Any], *args: object) -> Any:
        with self._explained(phase):
            return await self._db.async_run(operation, *args)

    # What follows runs in the connection's thread.

    def _prepare(self) -> None:
        db = self._db
        db.transaction_mode = "IMMEDIATE"
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {self._config.durability}")
        with db:
            version = db.execute("PRAGMA user_version").get
            if version == 0 and db.execute("SELECT count(*) FROM sqlite_schema").get == 0:
                db.execute(_SCHEMA)
                db.execute(f"PRAGMA user_version = {FORMAT}")
            elif version != FORMAT:
                raise ComponentError(
                    self.context.id,
                    "open",
                    f"{self._path} is a SQLite file, but no store of this version (user_version {version}, not "
                    f"{FORMAT}); give the store a path of its own",
                )
        self._size = db.execute("SELECT entries FROM total").get

    def _get(self, key: str, now: float) -> Any:
        return self._db.execute("SELECT value FROM entries WHERE key = ? AND expires > ?", (key, now)).get

    def _put(self, key: str, value: bytes, expires: float, now: float) -> None:
        with self._db:
            size, evicted = self._write(key, value, expires, now)
        self._size = size
        self.evicted += evicted

    def _swap(self, expected: bytes | None, key: str, value: bytes, expires: float, now: float) -> bool:
        with self._db:  # a transaction that writes, from its start: nobody else does between the look and the change
            if self._get(key, now) != expected:
                return False
            size, evicted = self._write(key, value, expires, now)
        self._size = size
        self.evicted += evicted
        return True

    def _write(self, key: str, value: bytes, expires: float, now: float) -> tuple[int, int]:
        """Within a transaction; the entries there are then, and those that had to go."""
        db = self._db
        db.execute("DELETE FROM entries WHERE key = ?", (key,))
        db.execute("INSERT INTO entries (key, value, expires) VALUES (?, ?, ?)", (key, value, expires))
        evicted = 0
        if self._is_over():
            db.execute("DELETE FROM entries WHERE expires <= ?", (now,))
        while self._is_over():
            db.execute("DELETE FROM entries WHERE written = (SELECT min(written) FROM entries)")
            evicted += 1
        return db.execute("SELECT entries FROM total").get, evicted

    def _is_over(self) -> bool:
        entries, used = next(self._db.execute("SELECT entries, bytes FROM total"))
        return bool(entries > self._config.max_entries or used > self._config.max_bytes)

    def _delete(self, key: str, now: float) -> bool:
        with self._db as db:
            found = list(db.execute("DELETE FROM entries WHERE key = ? RETURNING expires > ?", (key, now)))
            size = db.execute("SELECT entries FROM total").get
        self._size = size
        return bool(found and found[0][0])

    def _keys(self, prefix: str, now: float) -> list[str]:
        found: list[str] = []
        rows = self._db.execute("SELECT key FROM entries WHERE key >= ? AND expires > ? ORDER BY key", (prefix, now))
        for (key,) in rows:
            if not key.startswith(prefix):
                break
            found.append(key)
        return found

    @contextmanager
    def _explained(self, phase: str) -> Iterator[None]:
        try:
            yield
        except (apsw.Error, OSError) as error:
            raise ComponentError(self.context.id, phase, _explain(error, self._path)) from error


async def _connect(worker: _Worker, path: str) -> Any:
    token = apsw.async_controller.set(lambda: worker)  # type: ignore[arg-type]  # apsw calls it, and asks no more
    try:
        return await apsw.Connection.as_async(path)
    finally:
        apsw.async_controller.reset(token)


def _create(path: str) -> None:
    """Make the file if it is missing, readable by its owner only; SQLite gives its side files the same mode."""
    with suppress(FileExistsError):  # and never open one that exists: closing it would drop SQLite's locks on it
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _explain(error: Exception, path: str) -> str:
    match error:
        case apsw.NotADBError() | apsw.CorruptError():
            return (
                f"{path} is damaged, or no SQLite file; move it away (a new one is made) or restore a backup: {error}"
            )
        case apsw.CantOpenError() | OSError():
            return f"{path} cannot be opened; its directory must exist and be writable: {error}"
        case apsw.BusyError():
            return f"{path} was locked by another process for longer than busy_timeout: {error}"
        case apsw.FullError():
            return f"no space is left for {path}: {error}"
    return f"{path}: {error}"
