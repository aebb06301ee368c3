"""Reading a trail backwards, page by page."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from sluiceway.pipeline.telemetry import audit_pages
from sluiceway.pipeline.telemetry.audit_chain import GENESIS, encode_entry, seal
from sluiceway.pipeline.telemetry.audit_file import AuditFile
from sluiceway.pipeline.telemetry.audit_journal import Checkpoints, Keeping
from sluiceway.pipeline.telemetry.audit_pages import NEWEST, newest_first, read_page
from sluiceway.pipeline.telemetry.audit_reading import Query
from sluiceway.pipeline.telemetry.audit_sqlite import AuditDatabase

EVERY = Query({}, limit=1000)


def everybody(_entry: Any) -> bool:
    """Nothing is hidden."""
    return True


def write(path: Path, count: int, *, to: str = "jsonl", file_bytes: int = 2000) -> None:
    """A trail of so many entries, in files of so many bytes."""
    cls = AuditDatabase if to == "sqlite" else AuditFile
    keeping = Keeping(file_bytes, 1e9, 10_000, 1e9)
    checkpoints = Checkpoints(path.with_name("c"), None, lambda: 0.0, lambda _: None)
    journal = cls(path, keeping, checkpoints, lambda: 0.0, durable=False)
    journal.open()
    for n in range(1, count + 1):
        entry = {"at": f"2027-01-01T00:00:{n % 60:02}Z", "event": "request", "principal": f"p{n % 3}", "n": n}
        journal.append([encode_entry(entry)])
    journal.close()


def pages(path: Path, query: Query, **more: Any) -> list[list[int]]:
    """Numbers of entries, page by page to the end."""
    found, before = [], NEWEST
    while True:
        page = read_page(path, query, everybody, before=before, **more)
        found.append([int(entry["seq"]) for entry in page.entries])
        if page.before is None:
            return found
        before = page.before


@pytest.fixture(params=["jsonl", "sqlite"])
def trail(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A trail of 100 entries; of a file, in many that were put aside."""
    write(tmp_path / "trail", 100, to=request.param)
    return tmp_path / "trail"


def test_pages_have_every_entry_once_and_the_latest_first(trail):
    """Whatever their size, over all files."""
    first = read_page(trail, Query({}, limit=3), everybody)

    assert [entry["n"] for entry in first.entries] == [100, 99, 98]
    assert first.before == 98
    assert sum(pages(trail, Query({}, limit=7)), []) == list(range(100, 0, -1))  # noqa: RUF017  # a hundred numbers
    assert pages(trail, EVERY) == [list(range(100, 0, -1))]


def test_what_does_not_fit_or_may_not_be_seen_is_left_out(trail):
    """By the query, and by who reads."""
    page = read_page(trail, Query({"principal": "p1"}, limit=3), lambda entry: entry["n"] != 97)

    assert [entry["n"] for entry in page.entries] == [100, 94, 91]


def test_a_page_looks_at_so_many_records_and_can_be_empty(trail):
    """It says where to go on; the last page says that it is the last."""
    assert pages(trail, Query({"principal": "nobody"}), max_records=30) == [[], [], [], []]
    assert read_page(trail, Query({"principal": "nobody"}), everybody, max_records=30).before == 71


def test_going_on_reads_no_more_than_it_needs(tmp_path, monkeypatch):
    """The place in a large file is found by halving, and other files are not opened."""
    write(tmp_path / "trail", 2000, file_bytes=100_000)
    monkeypatch.setattr(audit_pages, "_BLOCK", 1024)
    lengths = []
    for before in (1990, 1000, 700, 3, 1):
        lines = list(newest_first(tmp_path / "trail", before))
        lengths.append(len(lines) - (before - 1))

    assert all(0 <= more <= 12 for more in lengths), lengths


@pytest.mark.parametrize("seed", range(20))
def test_any_block_size_reads_the_same_lines(tmp_path, monkeypatch, seed):
    """A record may lie across any number of blocks."""
    rng = random.Random(seed)  # a test
    lines, prev = [], GENESIS
    for seq in range(1, 30):
        line, prev = seal(encode_entry({"at": "x", "event": "e" * rng.randrange(300)}), seq, prev)
        lines.append(line)
    (tmp_path / "trail").write_bytes(b"".join(lines))
    monkeypatch.setattr(audit_pages, "_BLOCK", rng.randrange(1, 400))
    before = rng.randrange(1, 31)
    page = read_page(tmp_path / "trail", EVERY, everybody, before=before)

    assert [entry["seq"] for entry in page.entries] == list(range(before - 1, 0, -1))


def test_lines_that_are_no_entries_are_passed_over(tmp_path):
    """As `verify` says of them what is to be said."""
    line, _ = seal(b'{"at":"x"}', 1, GENESIS)
    (tmp_path / "trail").write_bytes(b"rubbish\n[1]\n" + line + b'{"seq":"x"}\n{"torn')

    assert pages(tmp_path / "trail", EVERY) == [[1]]
    assert read_page(tmp_path / "trail", EVERY, everybody, max_records=1).entries == ()


def test_a_file_that_is_put_aside_or_removed_meanwhile(tmp_path):
    """Nothing is read twice or missed, but what is gone."""
    write(tmp_path / "trail", 100)
    lines = newest_first(tmp_path / "trail")
    first = next(lines)
    files = sorted(tmp_path.glob("trail.0*"))
    (tmp_path / "trail").rename(tmp_path / "trail.000000000100")
    (tmp_path / "trail").write_bytes(b'{"seq":101,"at":"x"}\n')
    files[0].unlink()
    rest = list(lines)

    gone = int(files[1].suffix[1:]) - 1
    assert b'"n":100' in first
    assert len(rest) == 99 - gone


def test_what_is_no_trail_is_said(tmp_path):
    """None there, or a file without lines."""
    with pytest.raises(FileNotFoundError, match="there is no audit trail"):
        read_page(tmp_path / "trail", EVERY, everybody)
    (tmp_path / "trail").write_bytes(b"x" * (1 << 23))
    with pytest.raises(OSError, match="lines that no audit trail has"):
        read_page(tmp_path / "trail", EVERY, everybody)
