"""A tape that was written is read again, whole or not: in parts, compressed, cut, damaged, from the middle."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluiceway.pipeline.replay import writing
from sluiceway.pipeline.replay.entries import (
    FORMAT,
    VERSION,
    Begun,
    Entry,
    Header,
    Lost,
    MessageData,
    PartEnded,
    StateChanged,
    Trailer,
)
from sluiceway.pipeline.replay.frames import lines_of
from sluiceway.pipeline.replay.index import INDEX_EVERY, Mark, index_of, read_marks, render_mark
from sluiceway.pipeline.replay.indexing import index_part
from sluiceway.pipeline.replay.lines import render_entry, seal
from sluiceway.pipeline.replay.reading import MAX_FINDINGS, Tape, TapeError, parts_of
from sluiceway.pipeline.replay.writing import Bounds, TapeWriter, part_path

ANYWHERE = Bounds(min_free=0)


def header(recording: str = "r1") -> Header:
    """The header of a first part."""
    return Header(
        t=0.0, format=FORMAT, version=VERSION, sluiceway="0", recording=recording, part=1, began="", epoch=0.0
    )


def entry(number: int, size: int = 10) -> Begun:
    """The beginning of an exchange, a second after the one before."""
    return Begun(t=float(number), exchange=number, message=MessageData("ping", {"x": "y" * size}, number))


def write(path: Path, count: int = 10, *, bounds: Bounds = ANYWHERE, size: int = 10, end: bool = True) -> TapeWriter:
    """A tape of some exchanges, each in a batch of its own."""
    writer = TapeWriter(path, header(), bounds)
    writer.open()
    for number in range(1, count + 1):
        writer.append([entry(number, size)])
    writer.close([Trailer(t=99.0)] if end else [])
    return writer


def numbers(entries: list[Entry]) -> list[int]:
    """The exchanges that begin."""
    return [each.exchange for each in entries if isinstance(each, Begun)]


def whats(tape: Tape) -> list[str]:
    """What is wrong with a tape that was read."""
    return [finding.what for finding in tape.findings]


@pytest.fixture(params=["calls.jsonl", "calls.jsonl.gz"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where the tape goes, plain or compressed."""
    return tmp_path / request.param


def test_what_was_written_is_read(path):
    """In its order, numbered, with nothing to complain of."""
    write(path)
    tape = Tape(path)
    found = list(tape.entries())

    assert isinstance(found[0], Header)
    assert [each.n for each in found] == list(range(1, 13))
    assert numbers(found) == list(range(1, 11))
    assert isinstance(found[-1], Trailer)
    assert (tape.findings, tape.last) == ([], 12)


def test_a_compressed_tape_can_be_read_with_other_programs(tmp_path):
    """It is gzip, of JSON Lines."""
    write(tmp_path / "a.gz")

    assert gzip.decompress((tmp_path / "a.gz").read_bytes()).count(b"\n") == 12


def test_a_tape_that_exists_is_not_written_over(path):
    """Nor a part of one."""
    write(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        TapeWriter(path, header(), ANYWHERE).open()

    assert path.read_bytes() == before


def test_tapes_are_for_their_owner_only(path):
    """They hold what people write."""
    write(path)

    assert [each.stat().st_mode & 0o777 for each in (path, index_of(path))] == [0o600, 0o600]


def test_a_full_part_is_followed_by_another(path):
    """Numbers go on; each part has a header of its own, which says which it is."""
    writer = write(path, bounds=Bounds(part_size=600, min_free=0), size=50)
    tape = Tape(path)
    found = list(tape.entries())

    assert writer.part > 2
    assert [number for number, _ in tape.parts] == list(range(1, writer.part + 1))
    assert [each.part for each in found if isinstance(each, Header)] == list(range(1, writer.part + 1))
    assert [each.next for each in found if isinstance(each, PartEnded)] == list(range(2, writer.part + 1))
    assert [each.n for each in found] == list(range(1, len(found) + 1))
    assert numbers(found) == list(range(1, 11))
    assert tape.findings == []


def test_an_old_part_is_followed_by_another(path):
    """By the date, which goes on without any traffic."""
    now = 0.0
    writer = TapeWriter(path, header(), Bounds(part_for=60.0, min_free=0), now=lambda: now)
    writer.open()
    writer.append([entry(1)])
    now = 61.0
    writer.append([entry(2)])
    writer.close([Trailer(t=1.0)])

    assert writer.part == 2
    assert numbers(list(Tape(path).entries())) == [1, 2]


def test_the_oldest_parts_go_when_there_are_too_many(path):
    """The next header says up to where, and readers say so; what is left is whole."""
    write(path, 40, bounds=Bounds(part_size=600, keep_size=1500, min_free=0), size=50)
    tape = Tape(path)
    found = list(tape.entries())

    assert not path.exists()
    assert not index_of(path).exists()
    assert whats(tape) == ["dropped"]
    assert not tape.findings[0].harms
    assert found[0].n == tape.dropped + 1 > 1
    assert numbers(found)[-1] == 40
    assert sum(part.stat().st_size for _, part in tape.parts[:-1]) <= 1500


def test_parts_go_when_they_are_old_enough(path):
    """However small they are."""
    now = 0.0
    writer = TapeWriter(path, header(), Bounds(part_for=10.0, keep_for=25.0, min_free=0), now=lambda: now)
    writer.open()
    for number in range(1, 7):
        writer.append([entry(number)])
        now += 11
    writer.close([Trailer(t=99.0)])

    assert numbers(list(Tape(path).entries()))[0] > 1
    assert numbers(list(Tape(path).entries()))[-1] == 6


def test_earlier_recordings_make_room_first(path, tmp_path):
    """Those that the writer was told of; no others."""
    old, other = tmp_path / "old", tmp_path / "other"
    for each in (old, index_of(old), other):
        each.write_bytes(b"x" * 1000)
    writer = TapeWriter(path, header(), Bounds(keep_size=500, min_free=0), elders=[old])
    writer.open()
    writer.close([Trailer(t=0.0)])

    assert [each.exists() for each in (old, index_of(old), other)] == [False, False, True]
    assert Tape(path).dropped == 0


@pytest.mark.parametrize("cut", [1, 5, 20, 60])
def test_a_tape_that_was_cut_ends_at_a_whole_line(path, cut):
    """What is missing is said."""
    write(path, end=False)
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    tape = Tape(path)

    assert numbers(list(tape.entries())) in ([1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    assert whats(tape)[-1] == "unfinished"


def test_a_cut_line_is_said_to_be_cut(tmp_path):
    """And is a fault; that the end is missing is none."""
    write(tmp_path / "a", end=False)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-3])
    tape = Tape(tmp_path / "a")
    list(tape.entries())

    assert [(f.what, f.harms, f.after) for f in tape.findings] == [("cut", True, 10), ("unfinished", False, 10)]


@given(cut=st.integers(0, 10_000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
def test_wherever_a_tape_is_cut_it_is_read_up_to_there(path, cut):
    """A law: all whole lines of a prefix, and no other."""
    if not path.exists():
        write(path, 12)
        path.with_suffix(".whole").write_bytes(path.read_bytes())
    whole = path.with_suffix(".whole").read_bytes()
    length = min(cut, len(whole))
    path.write_bytes(whole[:length])
    try:
        tape = Tape(path)
    except TapeError:
        assert length < len(whole) // 2
        return
    found = numbers(list(tape.entries()))

    assert found == list(range(1, len(found) + 1))
    assert (len(found) == 12) or whats(tape)[-1] == "unfinished"
    if path.suffix != ".gz":
        assert len(found) == sum(b'"begun"' in line for line in whole[:length].split(b"\n")[:-1])


def test_a_damaged_line_is_left_out_and_named(tmp_path):
    """Those after it are read."""
    path = tmp_path / "a"
    write(path)
    path.write_bytes(path.read_bytes().replace(b'"exchange":4', b'"exchange":5', 1))
    tape = Tape(path)

    assert numbers(list(tape.entries())) == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert [(f.what, f.after, f.entries) for f in tape.findings] == [("damaged", 4, 0), ("gap", 4, 1)]


def test_behind_a_damaged_member_the_next_one_is_found(tmp_path):
    """Compressed tapes lose no more than what was written at once."""
    path = tmp_path / "a.gz"
    write(path)
    data = bytearray(path.read_bytes())
    at = data.find(b"\x1f\x8b\x08", len(data) // 2)
    data[at + 14] ^= 0xFF
    path.write_bytes(data)
    tape = Tape(path)
    found = numbers(list(tape.entries()))

    assert len(found) == 9
    assert found[-1] == 10
    assert "gap" in whats(tape)


def test_lines_that_were_taken_out_are_missed(tmp_path):
    """By their numbers."""
    path = tmp_path / "a"
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[5:]))
    tape = Tape(path)
    list(tape.entries())

    assert [(f.what, f.entries) for f in tape.findings] == [("gap", 2)]
    assert "lines 4 to 5 are missing" in tape.findings[0].text


def test_lines_that_were_put_in_again_are_noticed(tmp_path):
    """They are not in their place."""
    path = tmp_path / "a"
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], lines[2], *lines[4:]]))
    tape = Tape(path)
    list(tape.entries())

    assert whats(tape) == ["gap", "gap"]


def test_a_part_that_is_missing_is_missed(path):
    """By the numbers of the lines."""
    write(path, bounds=Bounds(part_size=600, min_free=0), size=50)
    part_path(path, 2).unlink()
    tape = Tape(path)
    list(tape.entries())

    assert whats(tape) == ["gap"]


def test_a_part_without_its_end_is_noticed_though_others_follow(tmp_path):
    """The disk was full in between, or somebody cut it."""
    path = tmp_path / "a"
    write(path, bounds=Bounds(part_size=600, min_free=0), size=50)
    path.write_bytes(path.read_bytes()[:-5])
    tape = Tape(path)
    list(tape.entries())

    assert whats(tape) == ["cut", "gap", "gap"]


def test_a_part_of_another_recording_is_left_out(path):
    """Somebody gave it the name."""
    write(path)
    other = path.with_name(f"{path.name}.2")
    writer = TapeWriter(other, header("r2"), ANYWHERE)
    writer.open()
    writer.append([entry(77)])
    writer.close()
    tape = Tape(path)

    assert numbers(list(tape.entries())) == list(range(1, 11))
    assert whats(tape) == ["mixed"]


def test_entries_of_a_later_version_are_counted(tmp_path):
    """What this version knows is read."""
    path = tmp_path / "a"
    write(path, 1, end=False)
    lines = [seal(b'{"event":"dreamt","n":3,"t":2.0}'), seal(render_entry(Trailer(n=4, t=3.0)))]
    path.write_bytes(path.read_bytes() + b"".join(lines))
    tape = Tape(path)

    assert [each.n for each in tape.entries()] == [1, 2, 4]
    assert [(f.what, f.entries, f.harms) for f in tape.findings] == [("unknown", 1, False)]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "first line"),
        (b"hello\n", "first line"),
        (seal(render_entry(Lost(n=1, t=0.0, entries=1, reason=""))), "does not begin with a header"),
        (b"\x1f\x8b\x08\x00rubbish", "first line"),
        (b"\x00" * 100, "first line"),
    ],
)
def test_what_is_no_tape_is_refused(tmp_path, content, why):
    """With its name."""
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(TapeError, match=why):
        Tape(tmp_path / "a")


def test_a_tape_of_a_later_format_is_refused(tmp_path):
    """Whoever reads it now would misread it."""
    late = Header(n=1, t=0.0, format=FORMAT, version=2, sluiceway="9.0", recording="r", part=1, began="", epoch=0.0)
    (tmp_path / "a").write_bytes(seal(render_entry(late)))
    with pytest.raises(TapeError, match=r"version 2 of the format.*use Sluiceway 9\.0"):
        Tape(tmp_path / "a")


def test_a_tape_that_is_not_there_is_refused(tmp_path):
    """Files whose names only begin like it are none of its parts."""
    (tmp_path / "a.index").write_text("")
    (tmp_path / "a.1").write_text("")
    (tmp_path / "a.two").write_text("")

    assert parts_of(tmp_path / "a") == []
    with pytest.raises(TapeError, match="there is no tape"):
        Tape(tmp_path / "a")


def test_findings_have_a_bound(tmp_path):
    """A file of rubbish behind a header fills no memory."""
    path = tmp_path / "a"
    write(path, 0, end=False)
    path.write_bytes(path.read_bytes() + b"rubbish\n" * (MAX_FINDINGS + 50))
    tape = Tape(path)
    list(tape.entries())

    assert len(tape.findings) == MAX_FINDINGS + 1
    assert whats(tape)[-1] == "more"


def long_tape(path: Path) -> TapeWriter:
    """Long enough for several places in its index, in several parts."""
    return write(path, 60, bounds=Bounds(part_size=4 * INDEX_EVERY, min_free=0), size=INDEX_EVERY // 8)


def test_reading_can_start_in_the_middle(tmp_path, monkeypatch):
    """At an exchange, or a time, without the first parts."""
    path = tmp_path / "a"
    long_tape(path)
    parts = len(Tape(path).parts)
    read: list[Path] = []

    def noted(part: Path, offset: int = 0):
        read.append(part)
        return lines_of(part, offset)

    monkeypatch.setattr("sluiceway.pipeline.replay.reading.lines_of", noted)
    tape = Tape(path)
    read.clear()
    by_exchange = numbers(list(tape.entries(exchange=50)))
    assert tape.findings == []
    by_time = numbers(list(tape.entries(since=50.0)))

    assert parts > 1
    assert by_exchange[-1] == by_time[-1] == 60
    assert by_time[0] == 50
    assert 40 < by_exchange[0] <= 50
    assert path not in read
    assert numbers(list(tape.entries(since=0.0, exchange=1)))[0] == 1


def test_reading_can_start_in_the_middle_of_a_compressed_tape(tmp_path):
    """Members are places."""
    path = tmp_path / "a.gz"
    writer = TapeWriter(path, header(), ANYWHERE)
    writer.open()
    for number in range(1, 20):
        noise = Begun(t=float(number), exchange=number, message=MessageData("ping", {"x": os.urandom(200_000).hex()}))
        writer.append([noise])
    writer.close([Trailer(t=99.0)])
    tape = Tape(path)

    assert len(read_marks(path)) > 3
    assert numbers(list(tape.entries(exchange=15)))[0] > 5
    assert tape.findings == []


@pytest.mark.parametrize("damage", ["missing", "torn", "unordered", "rubbish"])
def test_an_index_is_only_a_hint(damage, tmp_path):
    """Without a good one, reading takes longer; nothing is left out."""
    path = tmp_path / "a"
    long_tape(path)
    for _, part in parts_of(path):
        index = index_of(part)
        match damage:
            case "missing":
                index.unlink()
            case "torn":
                index.write_bytes(index.read_bytes()[:-3])
            case "unordered":
                index.write_bytes(b"".join(sorted(index.read_bytes().splitlines(keepends=True), reverse=True)))
            case _:
                index.write_bytes(b"rubbish\n")
    tape = Tape(path)

    assert set(range(50, 61)) <= set(numbers(list(tape.entries(exchange=50))))


def test_an_index_that_leads_into_the_middle_of_a_line_loses_one_line(tmp_path):
    """It is said, and what follows is read."""
    path = tmp_path / "a"
    write(path)
    index_of(path).write_bytes(render_mark(Mark(200, 3, 2.0, 1)))
    tape = Tape(path)

    assert numbers(list(tape.entries(exchange=9)))[-2:] == [9, 10]
    assert "damaged" in whats(tape)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_index_that_is_made_anew_is_as_good(suffix, tmp_path):
    """The same places, from the tape alone."""
    path = tmp_path / f"a{suffix}"
    writer = TapeWriter(path, header(), ANYWHERE)
    writer.open()
    for number in range(1, 30):
        writer.append([Begun(t=float(number), exchange=number,
                             message=MessageData("ping", {"x": os.urandom(60_000).hex()}))])  # fmt: skip
    writer.close([Trailer(t=99.0)])
    before = read_marks(path)
    index_of(path).unlink()

    assert index_part(path) == len(read_marks(path)) >= 3
    assert read_marks(path) == before


def test_an_index_is_made_of_what_is_whole(path):
    """Damage ends it, or is passed over."""
    write(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)

    assert index_part(path) == 1


def test_a_batch_that_cannot_be_written_leaves_what_was_before(tmp_path, monkeypatch):
    """Half a line would be read as damage."""
    path = tmp_path / "a"
    writer = TapeWriter(path, header(), ANYWHERE)
    writer.open()
    writer.append([entry(1)])
    whole = path.read_bytes()

    def half(fd: int, data: memoryview) -> int:
        real(fd, data[:10])
        raise OSError(errno.ENOSPC, "no space")

    real = os.write
    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="no space"):
        writer.append([entry(2)])
    monkeypatch.undo()
    assert path.read_bytes() == whole
    writer.append([entry(3)])
    writer.close([Trailer(t=9.0)])
    tape = Tape(path)

    assert numbers(list(tape.entries())) == [1, 3]
    assert tape.findings == []


def test_a_part_that_cannot_be_begun_is_begun_later(tmp_path, monkeypatch):
    """The one before ended well."""
    path = tmp_path / "a"
    writer = TapeWriter(path, header(), Bounds(part_size=1, min_free=0))
    writer.open()
    monkeypatch.setattr(writer, "_sync_folder", lambda: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        writer.append([entry(1)])
    assert not writer.is_open
    monkeypatch.undo()
    writer.append([entry(2)])
    writer.close([Trailer(t=9.0)])
    tape = Tape(path)

    assert numbers(list(tape.entries())) == [2]
    assert [number for number, _ in tape.parts] == [1, 2]
    assert tape.findings == []


def test_a_disk_with_too_little_room_is_not_written_to(tmp_path):
    """The limit and the remedy are named."""
    writer = TapeWriter(tmp_path / "a", header(), Bounds(min_free=1 << 62))
    with pytest.raises(OSError, match="min_free is"):
        writer.open()

    assert list(tmp_path.iterdir()) == []


def test_room_is_looked_for_now_and_then(tmp_path, monkeypatch):
    """Not for every batch."""
    looked = []
    real = os.statvfs
    monkeypatch.setattr(writing.os, "statvfs", lambda path: looked.append(path) or real(path))
    write(tmp_path / "a", 50)

    assert 1 <= len(looked) < 50


def test_what_a_stage_put_into_a_message_need_not_be_json(path):
    """The tape says that an entry is missing, and goes on."""
    writer = TapeWriter(path, header(), ANYWHERE)
    writer.open()
    odd = Begun(t=1.0, exchange=1, message=MessageData("ping", {"x": object()}))
    bad = Begun(t=1.0, exchange=2, message=MessageData("ping", {"x": "\ud800"}))
    writer.append([odd, bad, entry(3)])
    writer.append([])
    writer.close([Trailer(t=9.0)])
    tape = Tape(path)

    assert numbers(list(tape.entries())) == [3]
    assert whats(tape) == ["lost", "lost"]


def test_syncing_and_closing_may_be_done_at_any_time(tmp_path):
    """Twice, too, and before anything was written."""
    writer = TapeWriter(tmp_path / "a", header(), ANYWHERE)
    writer.sync()
    writer.close([Trailer(t=0.0)])
    writer.open()
    writer.sync()
    writer.sync()
    writer.close()
    writer.close()

    assert [type(each) for each in Tape(tmp_path / "a").entries()] == [Header]


def test_a_line_that_never_ends_is_damage(tmp_path, monkeypatch):
    """It fills no memory."""
    monkeypatch.setattr("sluiceway.pipeline.replay.frames.LONGEST", 1000)
    path = tmp_path / "a"
    write(path, 1, end=False)
    path.write_bytes(path.read_bytes() + b"x" * 600_000 + b"\n" + seal(render_entry(StateChanged(
        n=3, t=4.0, component="a", state="ready"))))  # fmt: skip
    tape = Tape(path)

    assert isinstance(list(tape.entries())[-1], StateChanged)
    assert "damaged" in whats(tape)
