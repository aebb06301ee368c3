"""The audit trail in a database: the same chain, with SQL to ask it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from sluiceway.pipeline.telemetry import audit_sqlite
from sluiceway.pipeline.telemetry.audit_journal import Checkpoints, Keeping, event
from sluiceway.pipeline.telemetry.audit_reading import checkpoints_of, lines_of, verify_trail
from sluiceway.pipeline.telemetry.audit_sqlite import AuditDatabase

from .conftest import Now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


def make(path: Path, now: Now, **changed: Any) -> AuditDatabase:
    keeping = Keeping(
        **{"max_file_bytes": 1 << 20, "max_file_age_s": 1e9, "keep_files": 9, "keep_for_s": 1e9, **changed}
    )
    checkpoints = Checkpoints(checkpoints_of(path), None, now, [].append)
    return AuditDatabase(path, keeping, checkpoints, now, durable=False)


@pytest.fixture
def journal(path: Path, now: Now) -> Iterator[AuditDatabase]:
    journal = make(path, now)
    journal.open()
    yield journal
    journal.close()


def entries(now: Now, *words: str) -> list[bytes]:
    return [event("request", now.at, resource=word, outcome="ok") for word in words]


def resources_in(path: Path) -> list[str | None]:
    return [json.loads(line).get("resource") for line in lines_of(path)]


def change(path: Path, statement: str) -> None:
    db = apsw.Connection(str(path))
    db.execute(statement)
    db.close()


def test_records_survive_and_the_chain_goes_on_after_a_restart(path, now, journal):
    """In the file, for its owner only; SQL sees columns."""
    journal.append(entries(now, "a", "b"))
    journal.sync()
    journal.close()
    journal.open()
    journal.append(entries(now, "c"))
    journal.close()
    db = apsw.Connection(str(path))
    seen = list(db.execute("SELECT seq, resource, outcome FROM entries"))
    db.close()

    assert resources_in(path) == ["a", "b", "c"]
    assert seen == [(1, "a", "ok"), (2, "b", "ok"), (3, "c", "ok")]
    assert (verify_trail(path).records, verify_trail(path).findings) == (3, [])
    assert path.stat().st_mode & 0o077 == 0


def test_two_writers_make_one_chain(path, now, journal):
    """Two workers, or two generations during a reload."""
    other = make(path, now)
    other.open()
    for n in range(5):
        journal.append(entries(now, f"a{n}"))
        other.append(entries(now, f"b{n}", f"b{n}x"))
    other.close()

    assert (verify_trail(path).records, verify_trail(path).findings) == (15, [])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET line = replace(line, '\"b\"', '\"x\"') WHERE seq = 2",
        "DELETE FROM records WHERE seq = 2",
        "DELETE FROM records WHERE seq = 3",
        "UPDATE records SET seq = 9 WHERE seq = 1",
    ],
)
def test_what_somebody_does_to_a_row_is_found(statement, path, now, journal):
    """Edited, removed, cut off, moved."""
    journal.append(entries(now, "a", "b", "c"))
    journal.checkpoint(at_once=True)
    journal.close()
    change(path, statement)

    assert verify_trail(path).findings != []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM records WHERE seq = 3", "there was a record 3"),
        ("UPDATE records SET line = replace(line, '\"c\"', '\"x\"') WHERE seq = 3", "record 3: its content"),
    ],
)
def test_damage_at_the_end_is_said_at_the_next_start_and_stays_found(statement, said, path, now, journal):
    """A start does not make it good."""
    journal.append(entries(now, "a", "b", "c"))
    journal.checkpoint(at_once=True)
    journal.close()
    change(path, statement)
    again = make(path, now)
    again.open()
    again.append(entries(now, "d"))
    again.close()
    recovered = [json.loads(line) for line in lines_of(path)][-2]

    assert recovered["event"] == "recovered"
    assert said in recovered["problem"]
    assert verify_trail(path).findings != []


@pytest.mark.parametrize(
    ("kept", "later_s"), [({"max_file_bytes": 1024, "keep_files": 2}, 0.0), ({"keep_for_s": 60.0}, 120.0)]
)
def test_the_retention_says_what_it_removes(kept, later_s, path, now, monkeypatch):
    """By bytes and by age; the chain says where it begins now."""
    monkeypatch.setattr(audit_sqlite, "EVERY_RECORDS", 10)
    journal = make(path, now, **kept)
    journal.open()
    journal.append(entries(now, *map(str, range(9))))
    now.at += later_s
    for n in range(5):
        journal.append(entries(now, f"later{n}"))
    journal.checkpoint(at_once=True)
    journal.close()
    verdict = verify_trail(path)

    assert verdict.first > 1
    assert verdict.findings == []
    assert "later4" in resources_in(path)
    assert "retired" in [json.loads(line)["event"] for line in lines_of(path)]

    change(path, f"DELETE FROM records WHERE seq = {verdict.first}")

    assert "begins with record" in verify_trail(path).findings[0].text


def test_what_must_not_be_removed_stays(path, now, monkeypatch):
    """Nothing goes while there is room; nor if somebody changed the record that would be the first."""
    monkeypatch.setattr(audit_sqlite, "EVERY_RECORDS", 3)
    journal = make(path, now, keep_for_s=60.0)
    journal.open()
    journal.append(entries(now, "a", "b", "c"))
    now.at += 120
    journal.append(entries(now, "d"))
    change(path, "UPDATE records SET line = replace(line, '\"d\"', '\"x\"') WHERE seq = 4")
    journal.append(entries(now, "e", "f"))
    journal.close()

    assert resources_in(path) == ["a", "b", "c", "x", "e", "f"]


def test_another_database_is_not_written_to(path, now):
    """A store's file, for example."""
    change(path, "CREATE TABLE mine (x)")
    with pytest.raises(OSError, match="no audit trail"):
        make(path, now).open()


def test_rubbish_is_no_database(path, now):
    """Neither for the writer nor for a reader."""
    path.write_bytes(b"SQLite format 3\0" + b"rubbish" * 200)
    with pytest.raises(OSError, match=r"audit\.db"):
        make(path, now).open()
    with pytest.raises(OSError, match=r"audit\.db"):
        list(lines_of(path))


def test_reading_does_not_take_the_writers_locks(path, now):
    """Whoever opens the file beside SQLite, and closes it, takes all locks of its process away."""
    journal = make(path, now)
    journal.open()
    held = [line for line in Path("/proc/locks").read_text().splitlines() if str(path.stat().st_ino) in line]
    list(lines_of(path))
    still = [line for line in Path("/proc/locks").read_text().splitlines() if str(path.stat().st_ino) in line]
    journal.close()

    assert held
    assert len(still) == len(held)
