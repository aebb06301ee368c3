"""The audit trail in a file: whole records, one chain, whatever happens to the file and whoever else writes to it."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sluiceway.pipeline.telemetry import audit_file, audit_journal
from sluiceway.pipeline.telemetry.audit_file import AuditFile, files_of
from sluiceway.pipeline.telemetry.audit_journal import Checkpoints, Keeping, event
from sluiceway.pipeline.telemetry.audit_reading import checkpoints_of, lines_of, verify_trail

from .conftest import Now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def keeping(**changed: Any) -> Keeping:
    return Keeping(**{"max_file_bytes": 1 << 20, "max_file_age_s": 1e9, "keep_files": 9, "keep_for_s": 1e9, **changed})


def make(path: Path, now: Now, *, told: list[Any] | None = None, **changed: Any) -> AuditFile:
    tell = [].append if told is None else told.append
    checkpoints = Checkpoints(checkpoints_of(path), None, now, tell)
    return AuditFile(path, keeping(**changed), checkpoints, now, durable=True)


@pytest.fixture
def journal(path: Path, now: Now) -> Iterator[AuditFile]:
    journal = make(path, now)
    journal.open()
    yield journal
    journal.close()


def entries(*words: str) -> list[bytes]:
    return [event(word, Now.at) for word in words]


def events_in(path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in lines_of(path)]


def test_records_survive_and_the_chain_goes_on_after_a_restart(path, now, journal):
    """The second run names the last record of the first."""
    journal.append(entries("a", "b"))
    journal.close()
    again = make(path, now)
    again.open()
    again.append(entries("c"))
    again.close()

    assert events_in(path) == ["a", "b", "c"]
    assert verify_trail(path).records == 3
    assert verify_trail(path).findings == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_torn_last_line_is_cut_and_said(path, now, journal):
    """A crash in the middle of a write leaves half a record; the next start repairs it."""
    journal.append(entries("a"))
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"seq":2,"prev":"12')

    assert "not complete" in verify_trail(path).findings[0].text

    again = make(path, now)
    again.open()
    again.append(entries("b"))
    again.close()

    assert events_in(path) == ["a", "recovered", "b"]
    assert verify_trail(path).findings == []
    assert json.loads(list(lines_of(path))[1])["torn_bytes"] == 19


def test_damage_at_the_end_is_said_and_stays_found(path, now, journal):
    """A start does not make an edited record good."""
    journal.append(entries("a", "b", "c"))
    journal.close()
    path.write_bytes(path.read_bytes().replace(b'"event":"b"', b'"event":"x"'))
    again = make(path, now)
    again.open()
    again.close()

    assert events_in(path) == ["a", "x", "c", "recovered"]
    assert verify_trail(path).findings[0].seq == 2


def test_a_trail_that_is_shorter_than_its_checkpoints_is_said_and_found(path, now, journal):
    """Whoever cuts the end off between two runs leaves a trace."""
    journal.append(entries("a", "b", "c"))
    journal.checkpoint(at_once=True)
    journal.close()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    again = make(path, now)
    again.open()
    again.append(entries("d"))
    again.close()

    assert events_in(path) == ["a", "recovered", "d"]
    assert "not the one that the checkpoint" in verify_trail(path).findings[0].text


def test_a_file_that_vanishes_or_shrinks_under_the_writer_leaves_a_gap(path, journal):
    """The chain goes on from the last record that was written, wherever that is now."""
    journal.append(entries("a", "b"))
    path.unlink()
    journal.append(entries("c"))
    verdict = verify_trail(path)

    assert verdict.first == 3
    assert "begins with record 3" in verdict.findings[0].text

    path.write_bytes(b"")
    journal.append(entries("d"))

    assert verify_trail(path).findings != []


def test_two_writers_make_one_chain(path, now, journal):
    """Two workers, or two generations during a reload."""
    other = make(path, now)
    other.open()
    for n in range(5):
        journal.append(entries(f"a{n}"))
        other.append(entries(f"b{n}", f"b{n}x"))
    other.close()
    verdict = verify_trail(path)

    assert (verdict.records, verdict.findings) == (15, [])


def test_two_writers_put_files_aside_together(path, now):
    """Each sees when the other began another file."""
    writers = [make(path, now, max_file_bytes=1024, keep_files=100) for _ in range(2)]
    for writer in writers:
        writer.open()
    for n in range(30):
        writers[n % 2].append(entries(f"e{n}"))
    for writer in writers:
        writer.close()
    verdict = verify_trail(path)

    assert len(files_of(path)) > 3
    assert (verdict.records, verdict.findings) == (30, [])


def test_the_retention_says_what_it_removes(path, now):
    """At most so many files stay, and the chain says where it begins now."""
    journal = make(path, now, max_file_bytes=1024, keep_files=2)
    journal.open()
    for n in range(40):
        journal.append(entries(f"e{n}"))
    journal.checkpoint(at_once=True)
    journal.close()
    verdict = verify_trail(path)

    assert len(files_of(path)) == 3
    assert verdict.first > 1
    assert verdict.findings == []
    assert "retired" in events_in(path)

    files_of(path)[0].unlink()

    assert "begins with record" in verify_trail(path).findings[0].text


def test_no_file_need_stay(path, now):
    """With keep_files 0 there is the current one only, also just after it was begun."""
    journal = make(path, now, max_file_bytes=1, keep_files=0)
    journal.open()
    for n in range(3):
        journal.append(entries(f"e{n}"))
    journal.close()

    assert len(files_of(path)) == 1
    assert verify_trail(path).findings == []


def test_files_are_put_aside_by_age_and_removed_by_age(path, now):
    """Also across restarts: the date of the first record counts."""
    journal = make(path, now, max_file_age_s=10.0, keep_for_s=100.0)
    journal.open()
    journal.append(entries("a"))
    journal.close()
    now.at += 11
    journal.open()
    journal.append(entries("b"))

    assert len(files_of(path)) == 2

    os.utime(files_of(path)[0], (now.at - 200, now.at - 200))
    journal.append(entries("c"))
    now.at += 11
    journal.append(entries("d"))
    journal.close()

    assert len(files_of(path)) == 2
    assert verify_trail(path).findings == []


def test_a_write_that_fails_half_way_leaves_nothing(path, journal, monkeypatch):
    """A full disk takes half a batch; none of it stays, and the next one follows the last whole record."""
    journal.append(entries("a"))
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, "no space")
        return real(fd, bytes(data[:99]))

    monkeypatch.setattr(audit_journal.os, "write", full)
    with pytest.raises(OSError, match="no space"):
        journal.append(entries("b"))
    monkeypatch.undo()
    journal.append(entries("c"))

    assert events_in(path) == ["a", "c"]
    assert verify_trail(path).findings == []


def test_a_file_that_could_not_be_synced_is_not_written_to_again(path, journal, monkeypatch):
    """What the kernel dropped does not come back; another file is begun, in the same chain."""
    journal.append(entries("a"))

    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(audit_file.os, "fdatasync", broken)
    with pytest.raises(OSError, match="input/output"):
        journal.sync()
    monkeypatch.undo()
    journal.close()
    journal.open()
    journal.append(entries("b"))

    assert [len(file.read_bytes().splitlines()) for file in files_of(path)] == [1, 1]
    assert verify_trail(path).findings == []


def test_checkpoints_come_after_a_thousand_records_or_a_minute(path, now, journal):
    """And not otherwise; each is told to the log as well."""
    told: list[Any] = []
    journal.close()
    journal = make(path, now, told=told)
    journal.open()
    journal.append(entries("a"))
    journal.checkpoint()
    assert told == []

    now.at += 60
    journal.checkpoint()
    journal.checkpoint()
    assert [each["seq"] for each in told] == [1]

    journal.append(entries("b") * 1000)
    journal.checkpoint()
    journal.close()

    assert [each["seq"] for each in told] == [1, 1001]
    assert verify_trail(path).checkpoints == 2


def test_the_file_of_checkpoints_is_bounded_and_outlives_a_crash(path, now, journal, monkeypatch):
    """The older half goes; a torn last line is cut before the next one."""
    monkeypatch.setattr(audit_journal, "MAX_CHECKPOINT_BYTES", 1000)
    where = checkpoints_of(path)
    for n in range(20):
        journal.append(entries(f"e{n}"))
        journal.checkpoint(at_once=True)
    assert where.stat().st_size <= 1200

    with where.open("ab") as file:
        file.write(b'{"seq":99,"ha')
    journal.append(entries("last"))
    journal.checkpoint(at_once=True)
    verdict = verify_trail(path)

    assert verdict.findings == []
    assert verdict.checkpoints > 1


def test_a_database_is_not_written_to(path, now):
    """Lines at its end would be the end of the trail that it may be."""
    path.write_bytes(b"SQLite format 3\0" + b"\0" * 100)
    with pytest.raises(OSError, match="is a SQLite file; give this trail a path of its own"):
        make(path, now).open()

    assert path.stat().st_size == 116
