"""What only the store on disk does: survive, and say clearly why it cannot."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.errors import ComponentError
from sluiceway.pipeline.stores import sqlite
from sluiceway.pipeline.stores.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is, or will be."""
    return tmp_path / "state.db"


def make(path: Path, **options: Any) -> SqliteStore:
    """A store that is not open yet."""
    return SqliteStore(SqliteStore.Config(path=path, **options), Context(id="state"))


@pytest.mark.parametrize("durability", ["normal", "full"])
async def test_what_was_put_is_there_after_reopening(path: Path, durability: str, mock_clock: MockClock) -> None:
    """Also in a new store object."""
    async with make(path, durability=durability).open():
        pass
    store = make(path, durability=durability)
    async with store.open():
        await store.put("a", b"1")
        await store.put("b", b"2")
    store = make(path, durability=durability)
    async with store.open():
        assert (await store.get("a"), store.size()) == (b"1", 2)


@pytest.mark.parametrize(("durability", "synchronous"), [("normal", 1), ("full", 2)])
async def test_durability_is_what_sqlite_is_told(path: Path, durability: str, synchronous: int) -> None:
    """A power cut cannot be had in a test; the setting can be read."""
    store = make(path, durability=durability)
    async with store.open():
        assert synchronous == await store._db.async_run(lambda: store._db.execute("PRAGMA synchronous").get)
        assert await store._db.async_run(lambda: store._db.execute("PRAGMA journal_mode").get) == "wal"


async def test_expiry_goes_on_while_the_process_is_down(
    path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the wall clock, because the Trio clock starts anywhere."""
    monkeypatch.setattr(sqlite.time, "time", lambda: 1_000_000.0)
    store = make(path)
    async with store.open():
        await store.put("a", b"1", ttl_s=100)
    for at, value in ((1_000_099.0, b"1"), (1_000_101.0, None)):
        mock_clock.jump(12_345)
        monkeypatch.setattr(sqlite.time, "time", lambda at=at: at)
        store = make(path)
        async with store.open():
            assert value == await store.get("a")


async def test_a_wall_clock_that_is_set_expires_nothing(
    path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a run the Trio clock counts."""
    store = make(path)
    async with store.open():
        await store.put("a", b"1", ttl_s=100)
        monkeypatch.setattr(sqlite.time, "time", lambda: 9e9)

        assert await store.get("a") == b"1"


async def test_the_file_is_for_its_owner_only(path: Path) -> None:
    """Sessions and cached results are nobody else's business; the side files follow."""
    store = make(path)
    async with store.open():
        await store.put("a", b"1")

        assert {0o600} == {file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
        assert len(list(path.parent.iterdir())) == 3


@pytest.fixture
def garbage(path: Path) -> Path:
    """A file that is no database."""
    path.write_bytes(b"garbage " * 1000)
    return path


async def test_a_file_that_is_no_database_is_an_error_that_names_it(garbage: Path) -> None:
    """And what to do."""
    with pytest.raises(ComponentError, match=r"state: open: .*state\.db is damaged, or no SQLite file; move it away"):
        async with make(garbage).open():
            pass


async def test_somebody_elses_database_is_not_touched(path: Path) -> None:
    """A typing error in `path` must not add tables to another program's file."""
    with apsw.Connection(str(path)) as foreign:
        foreign.execute("CREATE TABLE theirs (x)")
    foreign.close()

    with pytest.raises(ComponentError, match="no store of this version"):
        async with make(path).open():
            pass


async def test_a_newer_file_is_refused(path: Path) -> None:
    """An older gateway must not write what it does not understand."""
    async with make(path).open():
        pass
    newer = apsw.Connection(str(path))
    newer.execute("PRAGMA user_version = 99")
    newer.close()

    with pytest.raises(ComponentError, match="user_version 99, not 1"):
        async with make(path).open():
            pass


async def test_a_missing_directory_is_an_error_that_says_so(path: Path) -> None:
    """It is not made: more often than not it is a typing error."""
    with pytest.raises(ComponentError, match="its directory must exist and be writable"):
        async with make(path.parent / "missing" / "state.db").open():
            pass


def damage(path: Path) -> None:
    """Overwrite everything behind the first pages."""
    text = bytearray(path.read_bytes())
    text[10 * 4096 :] = b"\xff" * (len(text) - 10 * 4096)
    path.write_bytes(text)


async def test_damage_inside_the_file_is_reported_when_it_is_met(path: Path) -> None:
    """The header is fine, so it opens."""
    store = make(path)
    async with store.open():
        for number in range(200):
            await store.put(f"k{number}", b"x" * 1000)
    damage(path)

    store = make(path)
    async with store.open():
        with pytest.raises(ComponentError, match=r"run: .* is damaged"):
            await store.keys()


async def test_two_processes_can_share_the_file(path: Path, mock_clock: MockClock) -> None:
    """Each waits for the other's writes, sees them, and counts them."""
    ours, theirs = make(path, max_entries=50), make(path, max_entries=50)
    async with ours.open(), theirs.open(), trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon((ours if number % 2 else theirs).put, f"k{number}", b"")
    async with ours.open(), theirs.open():
        await ours.put("a", b"1")

        assert await theirs.get("a") == b"1"
        assert ours.size() == len(await theirs.keys()) == 50


ADDER = """
import sys, trio
from pathlib import Path
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.stores.sqlite import SqliteStore

async def main():
    store = SqliteStore(SqliteStore.Config(path=Path(sys.argv[1])), Context(id="state"))
    async with store.open():
        done = 0
        while done < 100:
            held = await store.get("count")
            done += await store.swap("count", held, b"%d" % (int(held or b"0") + 1))

trio.run(main)
"""


def test_swaps_of_two_processes_lose_no_addition(path: Path) -> None:
    """Two real processes count in one file at the same time."""
    children = [subprocess.Popen([sys.executable, "-c", ADDER, str(path)]) for _ in range(2)]
    assert [0, 0] == [child.wait(60) for child in children]

    with apsw.Connection(str(path)) as db:
        assert db.execute("SELECT value FROM entries WHERE key = 'count'").get == b"200"
    db.close()


async def test_a_lock_that_is_held_too_long_is_an_error_that_says_so(path: Path) -> None:
    """`busy_timeout` bounds the wait; afterwards the store works again."""
    store = make(path, busy_timeout=0.0)
    async with store.open():
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ComponentError, match="locked by another process for longer than busy_timeout"):
            await store.put("a", b"1")
        other.execute("ROLLBACK")
        other.close()
        await store.put("a", b"1")

        assert await store.get("a") == b"1"


async def test_a_short_lock_is_waited_for(path: Path) -> None:
    """As long as `busy_timeout` allows."""
    store = make(path, busy_timeout=60.0)
    async with store.open(), trio.open_nursery() as nursery:
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        nursery.start_soon(store.put, "a", b"1")
        await wait_all_tasks_blocked(0.01)
        other.execute("COMMIT")
        other.close()
    async with store.open():
        assert await store.get("a") == b"1"


async def test_a_wait_for_a_lock_can_be_cancelled(path: Path) -> None:
    """Closing does not wait for `busy_timeout` either."""
    store = make(path, busy_timeout=600.0)
    async with store.open():
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        with trio.move_on_after(0.02) as scope:
            await store.put("a", b"1")
        assert scope.cancelled_caught
        assert await store.get("a") is None

        with trio.move_on_after(0.02):
            await store.put("a", b"1")
    other.close()


async def test_a_long_operation_is_interrupted_by_a_cancel(path: Path) -> None:
    """SQLite itself stops, and what it had done is undone."""
    store = make(path)

    def endless() -> None:
        with store._db:
            store._db.execute("DELETE FROM entries")
            forever = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
            list(store._db.execute(forever))

    async with store.open():
        await store.put("a", b"1")
        with trio.move_on_after(0.02) as scope:
            await store._db.async_run(endless)
        assert scope.cancelled_caught

        assert await store.get("a") == b"1"


@pytest.mark.parametrize("when", ["opening", "open", "closing"])
async def test_a_cancelled_store_leaves_no_thread(path: Path, when: str) -> None:
    """Whenever it comes: a thread left behind would keep the process alive. (The leak oracle looks.)"""
    with trio.CancelScope() as scope:
        if when == "opening":
            scope.cancel()
        store = make(path)
        async with store.open():
            await store.put("a", b"1")
            if when == "open":
                scope.cancel()
                await store.put("b", b"1")
            scope.cancel()
    assert scope.cancelled_caught


def test_a_thread_that_outlives_trio_ends_quietly(path: Path) -> None:
    """It finishes what it is at, finds nobody to tell, and closes the file. (Pytest looks for its exceptions.)"""

    async def main() -> None:
        store = make(path)
        async with store.open():
            with trio.move_on_after(0.01):
                await store._db.async_run(time.sleep, 0.1)
            nursery.cancel_scope.cancel()

    async def run() -> None:
        nonlocal nursery
        async with trio.open_nursery() as nursery:
            nursery.start_soon(main)

    nursery: trio.Nursery
    trio.run(run)
    for thread in threading.enumerate():
        if thread.name == "sqlite state":
            thread.join()
    assert not path.with_name("state.db-wal").exists()


async def crash_in(store: SqliteStore) -> None:
    """Something else goes wrong while the store is open."""
    async with store.open():
        await store.put("a", b"1")
        raise ZeroDivisionError


async def test_an_operation_ends_before_its_store_closes(path: Path, mock_clock: MockClock) -> None:
    """A crash of the body does not cut a write in half."""
    store = make(path)
    with pytest.raises(ZeroDivisionError):
        await crash_in(store)
    async with store.open():
        assert await store.get("a") == b"1"


async def test_a_closed_store_says_so(path: Path) -> None:
    """Rather than crash with something of SQLite's."""
    store = make(path)
    async with store.open():
        pass
    with pytest.raises(ComponentError, match="closed"):
        await store.get("a")


CHILD = """
import sys, trio
from pathlib import Path
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.stores.sqlite import SqliteStore

async def main():
    store = SqliteStore(SqliteStore.Config(path=Path(sys.argv[1])), Context(id="state"))
    async with store.open():
        for number in range(1_000_000):
            await store.put(f"k{number}", b"x" * 200)
            print(number, flush=True)

trio.run(main)
"""


def killed_writer(path: Path) -> list[int]:
    """Run a process that writes, kill it in the middle, and say what it acknowledged."""
    with subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(300)]
        child.send_signal(signal.SIGKILL)
        return acknowledged + [int(line) for line in child.stdout if line.endswith(b"\n")]


async def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    """A real process, killed in the middle of its writes: everything it acknowledged is there."""
    acknowledged = killed_writer(path)
    store = make(path)
    async with store.open():
        assert {f"k{number}" for number in acknowledged} <= set(await store.keys())
        await store.put("a", b"1")
        assert store.size() == len(await store.keys())


@pytest.mark.parametrize(
    ("error", "text"),
    [(apsw.FullError("full"), "no space is left for s.db"), (apsw.ReadOnlyError("read-only"), "s.db: read-only")],
)
def test_what_cannot_be_provoked_here_is_explained_too(error: apsw.Error, text: str) -> None:
    """A full disk, and whatever else SQLite may report."""
    assert text in sqlite._explain(error, "s.db")
